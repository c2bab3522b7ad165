"""The sections of networks: scores, training, confusion."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.analysis.names import describe_arm
from experiments.pictures import maps
from experiments.reporting.context import Context
from experiments.reporting.formats import Heat, score, span
from experiments.robustness.corruptions import BENCHMARK
from experiments.studies import plans
from experiments.words import name_seeds, upper


def arms(context: Context) -> dict[str, Any]:
    """Gathers every arm's mean scores."""
    rows = context.analysis.rows
    shown = {
        name: outcome
        for name, outcome in context.outcomes.items()
        if any(row[f"{name}_mean"] is not None for row in rows)
    }
    regime = ["regime"] if context.several_regimes else []
    marks = [
        "; ".join(
            f"{name_seeds(row[kind])} {kind}"
            for kind in ("diverged", "missing")
            if row[kind]
        )
        for row in rows
    ]
    strengths = [_strength(context, row) for row in rows]
    arms = context.plan.arms
    samples = {arm: context.sample(arm) for arm in arms}
    # An arm is explained where it first stands.
    is_first = [
        row["arm"] not in [r["arm"] for r in rows[:i]] for i, row in enumerate(rows)
    ]
    drawn = [
        samples[row["arm"]] if first else ""
        for row, first in zip(rows, is_first, strict=True)
    ]
    return {
        "head": ["arm", "strength", *regime, "n", *map(score, shown.values())],
        "outcomes": shown,
        "descriptions": {name: describe_arm(arm) for name, arm in arms.items()},
        "rows": list(zip(rows, strengths, marks, is_first, drawn, strict=True)),
        "notes": list(dict.fromkeys(filter(None, marks))),
        "num_corruptions": len(BENCHMARK),
    }


def _strength(context: Context, row: Mapping[str, Any]) -> str:
    # A regularizer of the user's own need not be registered where a report is made.
    if not set(plans.STRENGTHS) & context.plan.document["arms"][row["arm"]].keys():
        return ""
    return "not chosen" if row["strength"] is None else f"{row['strength']:g}"


def training(context: Context) -> dict[str, Any]:
    """Gathers curves over epochs."""
    figures = []
    for key, ylabel in (
        ("train_loss", "training loss"),
        ("test_accuracy", "test accuracy, %"),
    ):
        kept, words = context.panels(key)
        for regime, groups in context.by_regime(key, kept):
            curves = [group.series(group.all_of(key)) for group in groups]
            # Of a regime that evaluates but once there is a point, and no curve.
            if all(np.isfinite(each.values).all(0).sum() < 2 for each in curves):
                continue
            title = upper(ylabel.partition(",")[0])
            drawn = context.draw_curves(title, regime, curves, "epoch", ylabel)
            figures.append(drawn | {"words": words})
    return {"figures": figures} if figures else {}


def confusion(context: Context) -> dict[str, Any]:
    """Gathers confusion matrices, and how they differ from the baseline's."""
    groups, words = context.panels("confusion")
    if not groups:
        return {}
    names = context.study.dataset["class_names"]
    n = span(len(group.with_a("confusion")) for group in groups)
    percent = [
        maps.to_percent(np.sum(np.array(group.all_of("confusion")), axis=0))
        for group in groups
    ]
    differences, most = context.less_baseline(groups, percent)
    if differences:  # which say of the others what their own tables would
        pairs = zip(groups, percent, strict=True)
        groups, percent = zip(*(p for p in pairs if p[0].is_baseline), strict=True)
    return {
        "tables": [
            Heat(group.title, names, names, matrix, 0, 0.0, 100.0, hides_zeros=True)
            for group, matrix in zip(groups, percent, strict=True)
        ],
        "n": n,
        "words": words,
        "differences": [
            Heat(label, names, names, each, 0, 0.0, most, True, hides_zeros=True)
            for _, label, each in differences
        ],
    }
