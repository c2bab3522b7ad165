"""The page of a study: one HTML file that needs no other, made of its store alone."""

import collections
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.analysis import comparisons, verdict
from experiments.analysis.comparisons import Analysis, Comparison
from experiments.analysis.departures import departures
from experiments.analysis.names import name_arm
from experiments.pictures import curves, differences, drawing, maps
from experiments.pictures.curves import Series
from experiments.pictures.differences import Interval
from experiments.pictures.drawing import number
from experiments.reporting import markup
from experiments.robustness import corruptions
from experiments.studies import plans
from experiments.studies.cells import choose_strengths, tuning_cells
from experiments.studies.outcomes import OUTCOMES
from experiments.words import name_seeds

# As many curves as there are colours, and the baseline's.
_MOST_TOGETHER = 1 + len(drawing.COLOURS)
# Of pictures of one arm each; where there would be more, not every strength has one.
_MOST_PANELS = 24


class _Group(NamedTuple):
    """The networks of an arm at one strength in one regime.

    Attributes:
        regime: its name.
        arm: its name.
        strength: None if it is not chosen yet.
        label: tells it from the others.
        records: of those that did not diverge.
        is_baseline: of the arm that most others are compared with.
    """

    regime: str
    arm: str
    strength: float | None
    label: str
    records: list[Mapping[str, Any]]
    is_baseline: bool

    def with_a(self, key: str) -> list[Mapping[str, Any]]:
        """The records that have something."""
        return [r for r in self.records if r.get(key) is not None]


class _Page:
    """What the sections of a page share."""

    def __init__(self, analysis: Analysis, with_pictures: bool):
        self.analysis = analysis
        self.study = analysis.study
        self._with_pictures = with_pictures
        self.plan = self.study.plan
        self.rows = analysis.rows
        self.family = analysis.family
        self.secondary = analysis.secondary
        counts = collections.Counter(baseline for _, baseline in self.plan.comparisons)
        self.baseline = counts.most_common(1)[0][0]
        self.several_regimes = len(self.plan.regimes) > 1
        self.groups = [self._group(row) for row in self.rows]
        self._num_pictures = 0

    def _group(self, row: Mapping[str, Any]) -> _Group:
        key = (row["regime"], row["arm"], row["strength"])
        records = [
            record
            for record in self.study.records
            if (record["regime"], record["arm"], record["strength"]) == key
            and not record["diverged"]
        ]
        return _Group(*key, self.name(*key[1:]), records, row["arm"] == self.baseline)

    def name(self, arm: str, strength: float | None) -> str:
        """Names an arm, with its strength if it has several."""
        return name_arm(self.plan, arm, strength)

    def in_regime(self, label: str, regime: str) -> str:
        """Adds the regime to a name, if there are several."""
        return f"{label}, {regime}" if self.several_regimes else label

    def by_regime(
        self, key: str, groups: Sequence[_Group] | None = None
    ) -> Iterable[tuple[str, list[_Group]]]:
        """Returns the groups of each regime that have something, if any have."""
        groups = self.groups if groups is None else groups
        for regime in self.plan.regimes:
            own = [g for g in groups if g.regime == regime and g.with_a(key)]
            if own:
                yield regime, own

    def panels(self, key: str) -> tuple[list[_Group], str]:
        """Returns the groups to draw alone, and words on those that are left out."""
        groups = [group for group in self.groups if group.with_a(key)]
        if len(groups) <= _MOST_PANELS:
            return groups, ""
        middle = {
            name: sorted(arm.strengths)[(len(arm.strengths) - 1) // 2]
            for name, arm in self.plan.arms.items()
        }
        several = {
            name for name, arm in self.plan.arms.items() if len(arm.strengths) > 1
        }
        chosen = choose_strengths(self.plan, self.study.tuning)
        kept = [
            group
            for group in groups
            if group.arm not in several
            or group.arm in chosen
            or group.strength == middle[group.arm]
        ]
        words = " Of several strengths only the middle one is shown."
        return kept, words if len(kept) < len(groups) else ""

    def baseline_of(self, group: _Group, groups: Sequence[_Group]) -> _Group | None:
        """Returns the baseline in the regime of a group, None for the baseline."""
        if group.is_baseline:
            return None
        own = [g for g in groups if g.is_baseline and g.regime == group.regime]
        return own[0] if own else None

    def picture(
        self, label: str, draw: Callable[..., Any], *args: Any, **kw: Any
    ) -> str:
        """Draws, in a box that scrolls where it is too wide."""
        if not self._with_pictures:
            return "<p>The picture could not be drawn.</p>"
        self._num_pictures += 1
        drawn = drawing.svg(f"f{self._num_pictures}", label, draw, *args, **kw)
        return f'<div class="scroll">{drawn}</div>'


def build(analysis: Analysis, *, with_pictures: bool = True) -> str:
    """Writes the page.

    Args:
        analysis: of the study.
        with_pictures: False for words in their places, where they cannot be drawn.

    Returns:
        HTML; the same study gives the same text.
    """
    page = _Page(analysis, with_pictures)
    sections = [
        ("Departures from the plan", _departures(page)),
        ("Primary comparisons", _primary(page)),
        ("Every seed", _strips(page)),
        ("Arms", _table(page)),
        ("Training", _curves(page)),
        ("Against strength and regime", _sweep(page)),
        ("Confusion", _confusion(page)),
        ("Corrupted images", _corruptions(page)),
        ("Single frequencies", _fourier(page)),
        ("Calibration", _reliability(page)),
        ("Noise as measured", _spectra(page)),
        ("Tuning", _tuning(page)),
        ("Secondary outcomes", _secondary(page)),
        ("The plan", _plan(page)),
        ("Where the numbers come from", _origin(page)),
    ]
    sections = [(title, body) for title, body in sections if body]
    links = " ".join(
        f'<a href="#{markup.anchor(title)}">{markup.text(title)}</a>'
        for title, _ in sections
    )
    bodies = "\n".join(markup.section(title, body) for title, body in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Study {markup.text(page.plan.name)}</title>
<style>{markup.CSS}</style>
</head>
<body>
<main>
<p class="kind">Study {markup.text(page.plan.name)}</p>
<h1>{markup.text(page.plan.question)}</h1>
<p class="verdict">{markup.text(verdict.sentence(analysis))}</p>
<nav aria-label="Sections">{links}</nav>
{bodies}
</main>
</body>
</html>
"""


# Sections


def _departures(page: _Page) -> str:
    own = {path.stem for path in plans.FOLDER.glob("*.toml")}
    name = page.plan.name
    registered = plans.load(name) if name in own else None
    found = departures(page.analysis, registered)
    if not found:
        return "<p>None.</p>"
    return f"<ul>{''.join(f'<li>{markup.text(each)}</li>' for each in found)}</ul>"


def _primary(page: _Page) -> str:
    outcome = OUTCOMES[page.plan.outcome]
    is_higher = outcome.better == "higher"
    parts = []
    for regime in page.plan.regimes:
        family = [each for each in page.family if each.regime == regime]
        picture = page.picture(
            page.in_regime(
                f"{len(family)} differences in {outcome.title} with intervals", regime
            ),
            differences.forest,
            [
                Interval(_versus(page, each), each.decision, *each.bounds)
                for each in family
            ],
            f"arm − baseline, {outcome.differences}",
            outcome.digits,
        )
        caption = (
            f"{_heading(page, regime)}Mean differences over the same seeds with "
            f"intervals of 95 %, n = {_range(len(each.seeds) for each in family)}. The "
            f"arm is the better one to the {'right' if is_higher else 'left'} of the "
            "line. Circle: wins; square: loses; diamond: undecided; cross: untested, "
            "drawn for display only. Decisions are corrected for "
            f"{_count(page.family, 'comparison')}, intervals are not."
        )
        parts.append(markup.figure(picture, caption))
    head = [
        *("comparison", "difference", "95 % interval", "seeds", "p", "p, Holm"),
        *("P(better)", "detectable", "decision"),
    ]
    body, notes = [], markup.Notes()
    for each in page.family:
        result, digits = each.result, outcome.digits
        cells = [markup.text(page.in_regime(_versus(page, each), each.regime))]
        if result is None:
            cells += ["–", "–", str(len(each.seeds)), "–", "–", "–", "–"]
        else:
            better = result.improvement if is_higher else 1 - result.improvement
            cells += [
                number(result.mean_difference, digits, signed=True),
                _interval(result.low, result.high, digits),
                str(len(each.seeds)),
                p_value(result.p_value),
                p_value(each.p_adjusted),
                number(better, 2),
                _detectable(each.detectable, digits),
            ]
        decision = f'<span class="{each.decision}">{each.decision}</span>'
        cells.append(decision + notes.mark(each.note))
        body.append(cells)
    return (
        f"<p>{markup.text(page.plan.rule)}</p>"
        + markup.row(parts)
        + markup.table(
            head,
            body,
            f"Differences in {outcome.differences}, arm − baseline. "
            "P(better): how often the arm is the better one on the same seed, ties "
            "counting half. "
            "Detectable: the difference that these seeds would have found with a "
            f"probability of 0.65 to {comparisons.POWER:g}, at Holm's hardest step.",
        )
        + notes.write()
    )


def _strips(page: _Page) -> str:
    outcome = OUTCOMES[page.plan.outcome]
    parts = []
    for regime, groups in page.by_regime(page.plan.outcome):
        arms = [
            (
                group.label,
                {
                    r["seed"]: r[page.plan.outcome]
                    for r in group.with_a(page.plan.outcome)
                },
            )
            for group in groups
        ]
        joined = len(arms) <= 8 and len(page.plan.seeds) <= 16
        lines = " Lines join the networks of a seed." if joined else ""
        picture = page.picture(
            page.in_regime(f"Every seed's {outcome.title}, by arm", regime),
            differences.strips,
            arms,
            f"{outcome.title},{outcome.unit}" if outcome.unit else outcome.title,
            joined,
        )
        caption = (
            f"{_heading(page, regime)}{_upper(outcome.title)} of every network: a "
            f"point for each seed, n = {_range(len(scores) for _, scores in arms)} an "
            f"arm; bars are means.{lines}{_left_out(page, regime)}"
        )
        parts.append(markup.figure(picture, caption))
    return markup.row(parts)


def _table(page: _Page) -> str:
    shown = {
        name: outcome
        for name, outcome in OUTCOMES.items()
        if any(row[f"{name}_mean"] is not None for row in page.rows)
    }
    regimes = ["regime"] if page.several_regimes else []
    head = ["arm", *regimes, "strength", "n"]
    head += [f"{o.title}{f',{o.unit}' if o.unit else ''}" for o in shown.values()]
    body, notes = [], markup.Notes()
    for row in page.rows:
        cells = [markup.text(row["arm"])]
        cells += [markup.text(row["regime"])] if page.several_regimes else []
        left_out = "; ".join(
            f"{name_seeds(row[kind])} {kind}"
            for kind in ("diverged", "missing")
            if row[kind]
        )
        cells += [_strength(page, row), str(row["n"]) + notes.mark(left_out)]
        for name, outcome in shown.items():
            mean, std = row[f"{name}_mean"], row[f"{name}_std"]
            cell = "–" if mean is None else number(mean, outcome.digits)
            if std is not None:
                cell += f"<small>± {number(std, outcome.digits)}</small>"
            cells.append(cell)
        body.append(cells)
    caption = (
        "Mean ± sample standard deviation over n seeds. Final accuracy is that after "
        "the last epoch; peak accuracy is that of the best epoch on the test images, "
        "and so too high. Gap: NLL on test images less NLL on training images. ECE: "
        "15 bins of equal width, or of equal mass."
    )
    if "corruption_error" in shown:
        caption += (
            f" Corruption error: mean over {len(corruptions.BENCHMARK)} corruptions "
            "and 5 severities."
        )
    return markup.table(head, body, caption) + notes.write()


def _curves(page: _Page) -> str:
    parts = []
    for key, ylabel in (
        ("train_loss", "training loss"),
        ("test_accuracy", "test accuracy, %"),
    ):
        kept, words = page.panels(key)
        for regime, groups in page.by_regime(key, kept):
            arms = [_series_of(g, [r[key] for r in g.with_a(key)]) for g in groups]
            # Of a regime that evaluates but once there is a point, and no curve.
            if all(np.isfinite(arm.values).all(0).sum() < 2 for arm in arms):
                continue
            title = _upper(ylabel.partition(",")[0])
            parts.append(_series(page, title, regime, arms, "epoch", ylabel, words))
    return markup.row(parts)


def _series_of(group: _Group, curves: Iterable[Sequence[float] | np.ndarray]) -> Series:
    return Series(group.label, np.array(list(curves), float), group.is_baseline)


def _series(
    page: _Page,
    title: str,
    regime: str,
    arms: list[Series],
    xlabel: str,
    ylabel: str,
    words: str,
) -> str:
    """Draws curves together, or each beside the baseline where they are many."""
    label = page.in_regime(f"{title} of each arm against {xlabel}", regime)
    caption = (
        f"{_heading(page, regime)}{title} against {xlabel}. Lines are means over n = "
        f"{_range(len(arm.values) for arm in arms)} seeds, bands go from the lowest to "
        "the highest seed."
    )
    first = [arm for arm in arms if arm.is_baseline][:1]
    if first:
        caption += f" Dashed: {first[0].label}, the baseline."
    caption += words
    if len(arms) <= _MOST_TOGETHER:
        picture = page.picture(label, curves.curves, arms, xlabel, ylabel)
        return markup.figure(picture, caption)
    values = np.concatenate([arm.values.ravel() for arm in arms])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.04 * (high - low) or 1.0
    pictures = [
        page.picture(
            f"{label}: {arm.label}",
            curves.curves,
            [*first, arm],
            xlabel,
            ylabel,
            (low - margin, high + margin),
            small=True,
        )
        for arm in arms
        if not arm.is_baseline
    ]
    return markup.figure(markup.panels(pictures), caption)


def _sweep(page: _Page) -> str:
    several = [a for a in page.plan.arms.values() if len(a.strengths) > 1]
    has_strengths = bool(several) and page.plan.tuning is None
    if not has_strengths and not page.several_regimes:
        return ""
    outcome = OUTCOMES[page.plan.outcome]
    baseline = page.baseline
    family = [each for each in page.family if each.baseline == baseline]
    if not any(each.result for each in family):
        return ""
    # By panel, arm and place.
    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for each in family:
        place = f"{each.strength:g}" if has_strengths else each.regime
        panel = each.regime if has_strengths else ""
        interval = Interval(each.arm, each.decision, *each.bounds)
        found.setdefault(panel, {}).setdefault(each.arm, {})[place] = interval
    parts = []
    for panel, arms in found.items():
        places = {place: None for intervals in arms.values() for place in intervals}
        ordered = sorted(places, key=float) if has_strengths else list(places)
        what = "strength" if has_strengths else "regime"
        picture = page.picture(
            f"Difference from {baseline} against {what}"
            + (f", {panel}" if panel and page.several_regimes else ""),
            differences.sweep,
            [(arm, intervals) for arm, intervals in arms.items()],
            ordered,
            what,
            f"difference from {baseline}"
            + (f"\n{outcome.points}" if outcome.points else ""),
        )
        caption = (
            f"{_heading(page, panel) if panel else ''}Above, {outcome.title} less "
            f"that of {baseline} with its 95 % interval over {len(page.plan.seeds)} "
            f"seeds, against {what} (evenly spaced, not to scale). Below, what was "
            "decided: blue W, the arm wins; orange L, it loses; grey =, undecided; ?, "
            "untested."
        )
        parts.append(markup.figure(picture, caption))
    return markup.row(parts) + _map(page)


def _map(page: _Page) -> str:
    """Tells where, along its strengths, each arm wins and loses."""
    outcome = OUTCOMES[page.plan.outcome]
    body: dict[str, dict[str, str]] = {}
    for region in comparisons.regions(page.family):
        best = region.best
        difference = number(best.bounds[0] or 0, outcome.digits, signed=True)
        row = body.setdefault(f"{region.arm} − {region.baseline}", {})
        row[region.regime] = (
            f"{markup.text(region)}"
            f"<small>best {difference} at {best.strength:g}</small>"
        )
    if not body:
        return ""
    regimes = list(page.plan.regimes)
    rows = [
        [markup.text(pair), *(cells.get(regime, "–") for regime in regimes)]
        for pair, cells in body.items()
    ]
    caption = (
        f"The strengths at which each arm wins and loses, and the best difference in "
        f"{outcome.differences}, which is somewhat too good, having been "
        "chosen for that. Decisions are corrected for all strengths and regimes."
    )
    return markup.table(["comparison", *regimes], rows, caption)


def _confusion(page: _Page) -> str:
    groups, words = page.panels("confusion")
    names = page.study.dataset["class_names"]
    percent = [
        maps.to_percent(np.sum([np.array(r["confusion"]) for r in g.records], axis=0))
        for g in groups
    ]
    if not groups:
        return ""
    labels = [page.in_regime(g.label, g.regime) for g in groups]
    pictures = [
        page.picture(
            f"Confusion matrix of {label}",
            maps.confusion,
            matrix,
            names,
            label,
            100.0,
        )
        for label, matrix in zip(labels, percent, strict=True)
    ]
    differences = [
        (f"{label} − {other.label}", matrix - percent[groups.index(other)])
        for group, label, matrix in zip(groups, labels, percent, strict=True)
        if (other := page.baseline_of(group, groups)) is not None
    ]
    n = _range(len(group.records) for group in groups)
    parts = [
        markup.figure(
            markup.panels(pictures),
            "Confusion matrices, in percent of each true class (rows) that was "
            f"predicted as a class (columns), all seeds together, n = {n}. "
            f"Blank: less than half a percent.{words}",
        )
    ]
    if differences:
        most = _largest(differences)
        pictures = [
            page.picture(
                f"Difference in confusion, {label}",
                maps.confusion,
                difference,
                names,
                label,
                most,
                difference=True,
            )
            for label, difference in differences
        ]
        parts.append(
            markup.figure(
                markup.panels(pictures),
                f"Differences from {page.baseline}, in percentage points. Purple: more "
                "often predicted than by the baseline; orange: less often. On the "
                "diagonal more is better, elsewhere worse.",
            )
        )
    return "\n".join(parts)


def _corruptions(page: _Page) -> str:
    order = list(corruptions.CORRUPTIONS)
    kept, words = page.panels("corruptions")
    parts = []
    for regime, groups in page.by_regime("corruptions"):
        found = {
            n: None
            for g in groups
            for r in g.with_a("corruptions")
            for n in r["corruptions"]
        }
        names = [name for name in order if name in found]
        names += [name for name in found if name not in order]
        benchmark = [name for name in names if name in corruptions.BENCHMARK]
        means = np.array(
            [
                [
                    np.mean(
                        [r["corruptions"][name] for r in group.with_a("corruptions")]
                    )
                    for group in groups
                ]
                for name in names
            ]
        )
        rows = [name.replace("_", " ") for name in names]
        rows = [
            row if name in benchmark else f"{row} *"
            for row, name in zip(rows, names, strict=True)
        ]
        if benchmark:
            mean = np.mean([means[names.index(name)] for name in benchmark], axis=0)
            means, rows = np.vstack([mean, means]), ["mean", *rows]
        columns = [group.label for group in groups]
        heading = _heading(page, regime)
        n = _range(len(group.with_a("corruptions")) for group in groups)
        own = [
            markup.figure(
                page.picture(
                    page.in_regime("Error by corruption and arm", regime),
                    maps.heat,
                    means,
                    rows,
                    columns,
                    0,
                ),
                f"{heading}Error on corrupted test images, %, mean over 5 severities "
                f"and n = {n} seeds; darker is worse. Mean: of the benchmark, without "
                "the corruptions marked *.",
            )
        ]
        others = [index for index, g in enumerate(groups) if not g.is_baseline]
        base = [index for index, g in enumerate(groups) if g.is_baseline]
        if base and others:
            own.append(
                markup.figure(
                    page.picture(
                        page.in_regime("Difference in error by corruption", regime),
                        maps.heat,
                        means[:, others] - means[:, base[:1]],
                        rows,
                        [columns[index] for index in others],
                        1,
                        difference=True,
                    ),
                    f"{heading}The same, less the error of {page.baseline}, percentage "
                    "points. Orange: more errors than the baseline; purple: fewer.",
                )
            )
        if benchmark:
            own.append(
                _series(
                    page,
                    "Error on corrupted images",
                    regime,
                    [
                        _series_of(
                            group,
                            [
                                np.mean(
                                    [r["corruptions"][n] for n in benchmark], axis=0
                                )
                                for r in group.with_a("corruptions")
                            ],
                        )
                        for group in groups
                        if group in kept
                    ],
                    "severity",
                    "error, %",
                    words,
                )
            )
        parts.append(markup.row(own))
    return "\n".join(parts)


def _fourier(page: _Page) -> str:
    groups, words = page.panels("fourier")
    if not groups:
        return ""
    errors = [
        np.mean([np.array(r["fourier"]["errors"]) for r in group.with_a("fourier")], 0)
        for group in groups
    ]
    first = groups[0].with_a("fourier")[0]["fourier"]
    low, high = float(np.min(errors)), float(np.max(errors))
    high = max(high, low + 0.1)
    n = _range(len(group.with_a("fourier")) for group in groups)
    labels = [page.in_regime(g.label, g.regime) for g in groups]
    pictures = [
        page.picture(
            f"Error by frequency of {label}",
            maps.fourier,
            each,
            label,
            low,
            high,
            "viridis",
        )
        for label, each in zip(labels, errors, strict=True)
    ]
    parts = [
        markup.figure(
            page.picture("Scale", maps.scale, low, high, "viridis", "error, %")
            + markup.panels(pictures),
            "Error when a wave of one frequency is added to the test images, its "
            f"L2 norm {first['norm']:g} a channel on values from 0 to 1; "
            f"{first['images']} images, mean over n = {n} seeds. The constant is in "
            "the middle; axes are "
            f"cycles per image.{words}",
        )
    ]
    differences = [
        (f"{label} − {other.label}", each - errors[groups.index(other)])
        for group, label, each in zip(groups, labels, errors, strict=True)
        if (other := page.baseline_of(group, groups)) is not None
    ]
    if differences:
        most = _largest(differences)
        pictures = [
            page.picture(
                f"Difference in error by frequency, {label}",
                maps.fourier,
                difference,
                label,
                -most,
                most,
                "PuOr_r",
            )
            for label, difference in differences
        ]
        parts.append(
            markup.figure(
                page.picture(
                    "Scale",
                    maps.scale,
                    -most,
                    most,
                    "PuOr_r",
                    "difference in error, percentage points",
                )
                + markup.panels(pictures),
                f"The same, less the error of {page.baseline}. Orange: more errors "
                "than the baseline; purple: fewer.",
            )
        )
    return "\n".join(parts)


def _reliability(page: _Page) -> str:
    groups, words = page.panels("reliability")
    if not groups:
        return ""
    pictures = []
    for group in groups:
        label = page.in_regime(group.label, group.regime)
        records = group.with_a("reliability")
        bins = [r["reliability"] for r in records]
        counts = np.array([each["count"] for each in bins], float)
        confidence, accuracy = (
            np.nansum(counts * np.array([each[key] for each in bins], float), axis=0)
            for key in ("confidence", "accuracy")
        )
        total = counts.sum(0)
        filled = total > 0
        pictures.append(
            page.picture(
                f"Reliability diagram of {label}",
                curves.reliability,
                confidence[filled] / total[filled],
                accuracy[filled] / total[filled],
                f"{label}: {number(float(np.mean([r['ece'] for r in records])), 3)}",
            )
        )
    n = _range(len(group.with_a("reliability")) for group in groups)
    caption = (
        "Accuracy of the predictions in each of 15 bins of confidence, all seeds "
        f"together, n = {n}. Below the dashed line a network is too sure of itself. "
        f"With each name the mean ECE.{words}"
    )
    return markup.figure(markup.panels(pictures), caption)


def _spectra(page: _Page) -> str:
    measured = {
        arm: noise
        for arm in page.plan.arms
        if (noise := page.study.noise.get(arm)) and noise["layers"]
    }
    if not measured:
        return ""
    arms: dict[str, list[tuple[str, np.ndarray, np.ndarray, int, bool]]] = {}
    for arm, noise in measured.items():
        arms[arm] = []
        for index, layer in enumerate(noise["layers"]):
            for key in ("rows", "columns"):
                pairs = np.array(layer["power"][key], float).reshape(-1, 2)
                pairs = pairs[(pairs > 0).all(axis=1)]  # logarithms have no zero
                exponent = layer["exponents"][key]
                label = f"{index + 1} {key}"
                label += "" if exponent is None else f": {number(exponent, 2)}"
                arms[arm].append((label, *pairs.T, index, key == "columns"))
    powers = np.concatenate([line[2] for lines in arms.values() for line in lines])
    limits = (powers.min() / 1.5, powers.max() * 1.5) if powers.size else (0.1, 1)
    pictures = [
        page.picture(
            f"Spectra of the noise of {arm}",
            curves.spectra,
            lines,
            f"{arm} {measured[arm]['strength']:g}",
            limits,
        )
        for arm, lines in arms.items()
    ]
    silent = [arm for arm in page.plan.arms if arm in page.study.noise]
    silent = [arm for arm in silent if arm not in measured]
    words = (
        f" {', '.join(silent)}: nothing is added to zeros, so there is no spectrum."
        if silent
        else ""
    )
    caption = (
        "Power of what each layer adds to maps of zeros, against frequency, both "
        "logarithmic: along rows (solid) and columns (dashed), by number of the layer, "
        "and the fitted exponent of 1/f^exponent, where the map is large enough for "
        f"one; with the arm the strength that was measured.{words}"
    )
    return markup.figure(markup.panels(pictures), caption)


def _tuning(page: _Page) -> str:
    plan = page.plan
    if plan.tuning is None:
        return ""
    chosen = choose_strengths(plan, page.study.tuning)
    scores = collections.defaultdict[tuple[str, float], list[float]](list)
    for record in page.study.tuning:
        if not record["diverged"]:
            scores[record["arm"], record["strength"]].append(record["accuracy"])
    everything = [score for each in scores.values() for score in each]
    limits = None
    if everything:
        margin = 0.05 * (max(everything) - min(everything)) or 1.0
        limits = (min(everything) - margin, max(everything) + margin)
    pictures, body = [], []
    for arm, best in chosen.items():
        strengths = sorted(plan.arms[arm].strengths)
        found = [scores[arm, strength] for strength in strengths]
        if any(found):
            pictures.append(
                page.picture(
                    f"Accuracy on held-out images of {arm} against its strength",
                    curves.trials,
                    strengths,
                    found,
                    best,
                    arm,
                    limits,
                )
            )
        for strength, values in zip(strengths, found, strict=True):
            spread = (
                f" ± {number(float(np.std(values, ddof=1)), 2)}" if values[1:] else ""
            )
            body.append(
                [
                    markup.text(arm),
                    f"{strength:g}",
                    str(len(values)),
                    f"{number(float(np.mean(values)), 2)}{spread}" if values else "–",
                    "chosen" if strength == best else "",
                ]
            )
    seeds = plan.tuning.seeds
    caption = (
        f"Accuracy on {plan.tuning.images:,} training images held out, %, of every "
        f"trial: a point for each of {len(seeds)} seed{'s' if seeds[1:] else ''} (none "
        "of them the study's), a line through the means, the chosen strength shaded. "
        "Strengths are evenly spaced, not to scale."
    )
    head = ["arm", "strength", "n", "held-out accuracy, %", ""]
    note = (
        "Mean ± sample standard deviation over the n seeds that did not diverge. The "
        "highest mean is chosen, with those that did counted as 0."
    )
    drawn = markup.figure(markup.panels(pictures), caption) if pictures else ""
    return drawn + markup.table(head, body, note)


def _secondary(page: _Page) -> str:
    if not page.secondary:
        return ""
    outcomes = list(dict.fromkeys(each.outcome for each in page.secondary))
    rows: dict[str, dict[str, Comparison]] = {}
    for each in page.secondary:
        label = page.in_regime(_versus(page, each), each.regime)
        rows.setdefault(label, {})[each.outcome] = each
    body, notes = [], markup.Notes()
    for label, row in rows.items():
        cells = [markup.text(label)]
        for name in outcomes:
            result = row[name].result if name in row else None
            digits = OUTCOMES[name].digits
            cells.append(
                "–"
                if result is None
                else f"{number(result.mean_difference, digits, signed=True)}<small>"
                f"{_interval(result.low, result.high, digits)}</small>"
            )
        cells[0] += "".join(
            map(notes.mark, dict.fromkeys(each.note for each in row.values()))
        )
        body.append(cells)
    head = ["comparison"]
    head += [OUTCOMES[name].differences for name in outcomes]
    lower = [name for name in outcomes if OUTCOMES[name].better == "lower"]
    return (
        markup.table(
            head,
            body,
            "Mean differences, arm − baseline, over the same seeds, with intervals of "
            "95 %. These are intervals, not tests: no decision hangs on them, and they "
            "are not corrected for their number. Lower is better for "
            f"{', '.join(OUTCOMES[name].title for name in lower) or 'none of them'}; "
            "a gap is neither good nor bad by itself.",
        )
        + notes.write()
    )


def _plan(page: _Page) -> str:
    return f"<pre>{markup.text(_write_toml(page.plan.document))}</pre>"


def _origin(page: _Page) -> str:
    study, plan = page.study, page.plan
    dataset = study.dataset
    trained = [*study.records, *study.tuning]
    num_planned = len(page.rows) * len(plan.seeds)
    planned_tuning = tuning_cells(plan)
    sources = sorted(
        {
            source
            for record in study.records
            for source in (record.get("corruption_source") or {}).values()
        }
    )
    tuned = f", and {len(study.tuning)} of {len(planned_tuning)} that tuned strengths"
    several = len(study.folders) > 1
    items = [
        ("Dataset", f"{dataset['title']}; fingerprint {dataset['fingerprint']}"),
        (
            "Images",
            f"{dataset['train_size']:,} to train on, {dataset['test_size']:,} to test "
            f"on, {len(dataset['class_names'])} classes",
        ),
        (
            "Networks",
            f"{len(study.records)} of {num_planned} planned"
            f"{tuned if planned_tuning else ''}; read from {len(study.folders)} "
            f"store{'s' if several else ''}",
        ),
        ("Seeds", f"{plan.seeds[0]} to {plan.seeds[-1]}"),
        ("Time", _duration(sum(record["seconds"] for record in trained))),
    ]
    if sources:
        items.append(
            (
                "Corrupted images",
                f"{', '.join(sources)}; the first {plan.corruption_images:,} test "
                "images",
            )
        )
    facts = "".join(
        f"<tr><th>{markup.text(k)}</th><td class='words'>{markup.text(v)}</td></tr>"
        for k, v in items
    )
    counts = collections.Counter(
        json.dumps(record["environment"], sort_keys=True) for record in trained
    )
    environments = [(json.loads(text), n) for text, n in sorted(counts.items())]
    keys = list(dict.fromkeys(key for each, _ in environments for key in each))
    body = [
        [str(n), *(markup.text(each.get(key, "")) for key in keys)]
        for each, n in environments
    ]
    return (
        f'<div class="scroll"><table class="facts"><tbody>{facts}</tbody></table></div>'
        + (markup.table(["networks", *keys], body, "Environments.") if body else "")
        + '<p class="note">Everything on this page is computed from the records of the '
        "store: python -m experiments.report makes it anew. table.csv holds the table "
        "of arms, comparisons.csv all comparisons, primary and secondary.</p>"
    )


def _largest(differences: Sequence[tuple[str, np.ndarray]]) -> float:
    """Returns how far from 0 a scale of colours has to go."""
    return max(0.1, *(float(np.abs(each).max()) for _, each in differences))


# Words


def _versus(page: _Page, each: Comparison) -> str:
    return (
        f"{page.name(each.arm, each.strength)} − "
        f"{page.name(each.baseline, each.baseline_strength)}"
    )


def _interval(low: float, high: float, digits: int) -> str:
    return f"{number(low, digits, signed=True)} to {number(high, digits, signed=True)}"


def p_value(p: float | None) -> str:
    """Writes a p-value, small ones with two digits."""
    if p is None:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.2g}"


def _detectable(effect: float | None, digits: int) -> str:
    if effect is None:
        return "–"
    return number(effect, digits) if np.isfinite(effect) else "∞"


def _strength(page: _Page, row: Mapping[str, Any]) -> str:
    # A regularizer of the user's own need not be registered where a report is made.
    if not set(plans.STRENGTHS) & page.plan.document["arms"][row["arm"]].keys():
        return ""
    return "not chosen" if row["strength"] is None else f"{row['strength']:g}"


def _heading(page: _Page, regime: str) -> str:
    return f"{_upper(regime)}: " if page.several_regimes else ""


def _left_out(page: _Page, regime: str) -> str:
    """Names what a picture lacks."""
    found = [
        f"{name_seeds(row[kind])} of {page.name(row['arm'], row['strength'])} ({kind})"
        for row in page.rows
        for kind in ("diverged", "missing")
        if row["regime"] == regime and row[kind]
    ]
    return f" Without {'; '.join(found)}." if found else ""


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _range(counts: Iterable[int]) -> str:
    counts = list(counts)
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.1f} minutes of training and evaluation"
    return f"{seconds / 3600:.1f} hours of training and evaluation"


def _write_toml(document: Mapping[str, Any], path: str = "") -> str:
    """Writes tables, strings, numbers and lists as TOML."""

    def write(value: Any) -> str:
        if isinstance(value, list):
            nested = any(isinstance(item, list) for item in value)
            items = [write(item) for item in value]
            if nested:
                return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
            return f"[{', '.join(items)}]"
        return json.dumps(value, ensure_ascii=False)

    def name(key: str) -> str:
        return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else write(key)

    lines = [
        f"{name(key)} = {write(value)}\n"
        for key, value in document.items()
        if not isinstance(value, Mapping)
    ]
    tables = [
        _write_toml(value, f"{path}{name(key)}.")
        for key, value in document.items()
        if isinstance(value, Mapping)
    ]
    header = f"[{path[:-1]}]\n" if path and (lines or not tables) else ""
    return "\n".join(part for part in (header + "".join(lines), *tables) if part)
