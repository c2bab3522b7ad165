"""The sections of differences between arms, and of the scores behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.analysis import verdict
from experiments.analysis.comparisons import POWER, Comparison, regions
from experiments.analysis.names import name_arm
from experiments.pictures import differences
from experiments.pictures.differences import Interval
from experiments.reporting import marks
from experiments.reporting.context import Context
from experiments.reporting.formats import score, span
from experiments.studies.outcomes import OUTCOMES
from experiments.words import name_seeds

_MOST_POINTS = 500  # a row


def answers(context: Context) -> dict[str, Any]:
    """Gathers the answers to the hypotheses, and what they mean."""
    answers = verdict.answer(context.analysis)
    found = verdict.sentences(context.analysis, with_limits=False)
    return {
        "opening": verdict.opening(context.study),
        "sentence": "" if answers else " ".join(found),
        "answers": answers,
        "meaning": verdict.meaning(context.analysis),
    }


def primary(context: Context) -> dict[str, Any]:
    """Gathers the decided comparisons: marks on one axis, in groups of rows."""
    family = context.analysis.family
    known = [each for each in family if each.result is not None]
    axis = marks.axis_of_differences(
        (each.result.low, each.result.high) for each in known if each.result
    )
    # A row for a pair at a strength, in it a comparison for each regime.
    groups: dict[str, dict[str, dict[str, Comparison]]] = {
        hypothesis.text: {} for hypothesis in context.plan.hypotheses
    }
    for each in family:
        group = groups.setdefault(_group(context, each), {})
        group.setdefault(context.versus(each), {})[each.regime] = each
    return {
        "ticks": axis.ticks(),
        "groups": groups,
        "mark": lambda each: marks.mark(axis, *each.bounds),
        "has_arrows": any(
            any(axis.cuts(each.result.low, each.result.high))
            for each in known
            if each.result
        ),
        "family": family,
        "rows": [(context.in_regime(context.versus(c), c.regime), c) for c in family],
        "notes": list(dict.fromkeys(each.note for each in family if each.note)),
        "power": POWER,
        "n": span(len(each.seeds) for each in family),
        "trained": {
            name: verdict.describe_training(regime)
            for name, regime in context.plan.regimes.items()
        },
    }


def _group(context: Context, each: Comparison) -> str:
    """Names the hypothesis that a comparison belongs to; or else its arm, if many."""
    for hypothesis in context.plan.hypotheses:
        if (each.arm, each.baseline) in hypothesis.comparisons:
            return hypothesis.text
    if context.plan.hypotheses:
        return "Other comparisons"
    several = len(context.plan.arms[each.arm].strengths) > 1
    return context.plan.arms[each.arm].title if several else ""


def seeds(context: Context) -> dict[str, Any]:
    """Gathers every network's score, in each regime on an axis of its own."""
    key, outcome = context.plan.outcome, context.outcome
    tables = []
    for regime, groups in context.by_regime(key):
        arms = [
            (group.label, {r["seed"]: r[key] for r in group.with_a(key)})
            for group in groups
        ]
        label = context.in_regime(f"Every seed's {outcome.title}", regime)
        heading, left_out = context.heading(regime), _left_out(context, regime)
        tables.append(strips(label, arms) | {"heading": heading, "left_out": left_out})
    return {"tables": tables, "score": score(outcome)} if tables else {}


def strips(
    label: str, arms: Sequence[tuple[str, Mapping[int, float]]]
) -> dict[str, Any]:
    """Places every seed's score on one axis, an arm a row.

    Args:
        label: names the table.
        arms: labels, and the scores by seed, at least one.
    """
    axis = marks.axis_of_scores([x for _, own in arms for x in own.values()])
    rows: list[dict[str, Any]] = [
        {
            "label": name,
            "mean": float(np.mean(list(own.values()))),
            # Evenly among the seeds, where there are too many to be told apart.
            "points": {
                seed: axis.place(own[seed])
                for seed in list(own)[:: max(1, -(-len(own) // _MOST_POINTS))]
            },
            "scores": own,
            "bar": axis.place(float(np.mean(list(own.values())))),
        }
        for name, own in arms
    ]
    return {
        "label": label,
        "ticks": axis.ticks(),
        "rows": rows,
        "n": span(len(own) for _, own in arms),
        "shown": span(len(row["points"]) for row in rows),
    }


def _left_out(context: Context, regime: str) -> list[str]:
    """Names what a picture lacks."""
    return [
        f"{name_seeds(row[kind])} of "
        f"{name_arm(context.plan, row['arm'], row['strength'])} ({kind})"
        for row in context.analysis.rows
        for kind in ("diverged", "missing")
        if row["regime"] == regime and row[kind]
    ]


def sweep(context: Context) -> dict[str, Any]:
    """Gathers differences from the baseline by strength, or else by regime."""
    plan, baseline = context.plan, context.baseline
    baseline_title = plan.arms[baseline].title
    several = any(len(arm.strengths) > 1 for arm in plan.arms.values())
    has_strengths = several and plan.tuning is None
    family = [each for each in context.analysis.family if each.baseline == baseline]
    if not (has_strengths or context.several_regimes) or not any(
        each.result for each in family
    ):
        return {}
    # By panel, arm and place.
    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for each in family:
        regime = plan.regimes[each.regime].title
        place = f"{each.strength:g}" if has_strengths else regime
        panel = each.regime if has_strengths else ""
        arm = plan.arms[each.arm].title
        interval = Interval(arm, each.decision, *each.bounds)
        found.setdefault(panel, {}).setdefault(arm, {})[place] = interval
    what = "strength" if has_strengths else "regime"
    label = f"Difference from {baseline_title} against {what}"
    points = context.outcome.points
    figures = []
    for panel, arms in found.items():
        places = {place: None for intervals in arms.values() for place in intervals}
        picture = context.draw(
            context.in_regime(label, panel) if panel else label,
            differences.sweep,
            list(arms.items()),
            sorted(places, key=float) if has_strengths else list(places),
            what,
            f"difference from {baseline_title}" + (f"\n{points}" if points else ""),
        )
        heading = context.heading(panel) if panel else ""
        figures.append({"picture": picture, "heading": heading})
    # Where, along its strengths, each arm wins and loses.
    rows: dict[str, dict[str, Any]] = {}
    for region in regions(context.analysis.family):
        pair = " − ".join(plan.arms[a].title for a in (region.arm, region.baseline))
        rows.setdefault(pair, {})[region.regime] = region
    return {
        "figures": figures,
        "what": what,
        "rows": rows,
        "has_untested": any(each.decision == "untested" for each in family),
    }


def secondary(context: Context) -> dict[str, Any]:
    """Gathers the comparisons of which no test was planned."""
    found = context.analysis.secondary
    if not found:
        return {}
    rows: dict[str, dict[str, Comparison]] = {}
    for each in found:
        label = context.in_regime(context.versus(each), each.regime)
        rows.setdefault(label, {})[each.outcome] = each
    notes = {
        label: list(dict.fromkeys(each.note for each in row.values() if each.note))
        for label, row in rows.items()
    }
    return {
        "outcomes": {
            each.outcome: OUTCOMES[each.outcome]
            for each in found
            if each.outcome in context.outcomes
        },
        "rows": rows,
        "notes_of": notes,
        "notes": list(dict.fromkeys(note for own in notes.values() for note in own)),
    }
