"""The sections of robustness: corruptions, single frequencies, calibration."""

from typing import Any

import numpy as np

from experiments.analysis.names import name_corruption
from experiments.pictures import curves, maps
from experiments.reporting.context import Context, Group
from experiments.reporting.formats import Heat, number, span
from experiments.robustness.corruptions import BENCHMARK, CORRUPTIONS


def corrupted(context: Context) -> dict[str, Any]:
    """Gathers errors on corrupted images, by regime."""
    kept, words = context.panels("corruptions")
    regimes = [
        _corrupted(context, regime, groups, [g for g in groups if g in kept])
        for regime, groups in context.by_regime("corruptions")
    ]
    return {"regimes": regimes, "words": words} if regimes else {}


def _corrupted(
    context: Context, regime: str, groups: list[Group], kept: list[Group]
) -> dict[str, Any]:
    found = dict.fromkeys(
        name for g in groups for each in g.all_of("corruptions") for name in each
    )
    names = [name for name in CORRUPTIONS if name in found]
    names += [name for name in found if name not in CORRUPTIONS]
    benchmark = [name for name in names if name in BENCHMARK]
    means = np.array(
        [
            [np.mean([each[name] for each in g.all_of("corruptions")]) for g in groups]
            for name in names
        ]
    )
    rows = [
        name_corruption(name) + ("" if name in benchmark else " *") for name in names
    ]
    if benchmark:
        mean = np.mean([means[names.index(name)] for name in benchmark], axis=0)
        means, rows = np.vstack([mean, means]), ["mean", *rows]
    columns = [group.label for group in groups]
    drawn: dict[str, Any] = {
        "heading": context.heading(regime),
        "n": span(len(group.with_a("corruptions")) for group in groups),
        "errors": Heat(
            context.in_regime("Error by corruption and arm", regime),
            rows,
            columns,
            means,
            0,
            float(means.min()),
            float(means.max()),
        ),
        "differences": None,
        "curves": None,
    }
    others = [index for index, g in enumerate(groups) if not g.is_baseline]
    base = [index for index, g in enumerate(groups) if g.is_baseline]
    if base and others:
        less = means[:, others] - means[:, base[:1]]
        drawn["differences"] = Heat(
            context.in_regime("Difference in error by corruption", regime),
            rows,
            [columns[index] for index in others],
            less,
            1,
            0.0,
            max(0.1, float(np.abs(less).max())),
            is_difference=True,
        )
    if benchmark:
        by_severity = [
            group.series(
                np.mean([each[name] for name in benchmark], axis=0)
                for each in group.all_of("corruptions")
            )
            for group in kept
        ]
        drawn["curves"] = context.draw_curves(
            "Error on corrupted images", regime, by_severity, "severity", "error, %"
        )
    return drawn


def frequencies(context: Context) -> dict[str, Any]:
    """Gathers errors when a wave is added, and how they differ from the baseline's."""
    groups, words = context.panels("fourier")
    if not groups:
        return {}
    errors = [
        # One after the other: an array of all would be as large as all records.
        sum(each["errors"] for each in found) / len(found)
        for found in (group.all_of("fourier") for group in groups)
    ]
    low, high = float(np.min(errors)), float(np.max(errors))
    high = max(high, low + 0.1)
    differences, most = context.less_baseline(groups, errors)
    maps_of_errors = [
        context.draw(
            f"Error by frequency of {group.title}",
            maps.fourier,
            each,
            group.title,
            low,
            high,
            "viridis",
        )
        for group, each in zip(groups, errors, strict=True)
        if group.is_baseline or not differences  # which say it of the others
    ]
    drawn: dict[str, Any] = {
        "errors": maps_of_errors,
        "scale": context.draw("Scale", maps.scale, low, high, "viridis", "error, %"),
        "wave": groups[0].all_of("fourier")[0],
        "n": span(len(group.with_a("fourier")) for group in groups),
        "words": words,
        "differences": [],
    }
    if differences:
        drawn["differences"] = [
            context.draw(
                f"Difference in error by frequency, {label}",
                maps.fourier,
                difference,
                group.title,
                -most,
                most,
                "BrBG_r",
            )
            for group, label, difference in differences
        ]
        drawn["scale_of_differences"] = context.draw(
            "Scale",
            maps.scale,
            -most,
            most,
            "BrBG_r",
            "difference in error, percentage points",
        )
    return drawn


def calibration(context: Context) -> dict[str, Any]:
    """Gathers accuracy by confidence, all seeds together."""
    groups, words = context.panels("reliability")
    if not groups:
        return {}
    pictures = []
    for group in groups:
        bins = group.all_of("reliability")
        counts = np.array([each["count"] for each in bins], float)
        confidence, accuracy = (
            np.nansum(counts * np.array([each[key] for each in bins], float), axis=0)
            for key in ("confidence", "accuracy")
        )
        total = counts.sum(0)
        filled = total > 0
        errors = group.all_of("ece")
        error = float(np.mean(errors)) if errors else None
        pictures.append(
            context.draw(
                f"Reliability diagram of {group.title}",
                curves.reliability,
                confidence[filled] / total[filled],
                accuracy[filled] / total[filled],
                group.title,
                "" if error is None else f"ECE {number(error, 3)}",
            )
        )
    n = span(len(group.with_a("reliability")) for group in groups)
    return {"pictures": pictures, "n": n, "words": words}
