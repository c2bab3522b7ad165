"""Draws the tables and the pictures of docs/results.md from the studies in results/.

python docs/make_results.py
"""

import re
from collections.abc import Sequence
from pathlib import Path

from experiments.analysis import comparisons, verdict
from experiments.analysis.comparisons import Analysis, Comparison, Region
from experiments.analysis.names import name_arm
from experiments.pictures import differences, drawing
from experiments.reporting.formats import p_value
from experiments.studies import store
from experiments.studies.outcomes import OUTCOMES
from experiments.studies.plans import Plan
from experiments.studies.store import Study

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "results"

COLUMNS = {
    "test accuracy, %": ("accuracy", 2),
    "train loss": ("train_loss", 3),
    "gap, nats": ("gap", 3),
    "NLL": ("nll", 3),
    "ECE": ("ece", 3),
    "error when corrupted, %": ("corruption_error", 2),
}


def describe(analysis: Analysis) -> str:
    """Writes the verdict of a study and its tables in Markdown."""
    if regions := comparisons.regions(analysis.family):
        # The others would be of hundreds of rows; the report has them.
        tables = [_write_regions(analysis.study, regions)]
    else:
        tables = [_write_arms(analysis), _write_family(analysis)]
    said = "\n".join(f"> - {each}" for each in verdict.sentences(analysis))
    return "\n\n".join((said, *tables))


def draw(analysis: Analysis) -> dict[str, str]:
    """Draws the planned differences and their intervals, as SVG.

    Returns:
        Pictures by name: one, or one for each regime of a study of several strengths.
    """
    study, family = analysis.study, analysis.family
    name, outcome = study.plan.name, OUTCOMES[study.plan.outcome]
    if not comparisons.regions(family):
        label = f"Differences in {outcome.title} of the study {name}"
        rows = [_interval(each, _name(study.plan, each)) for each in family]
        xlabel = f"arm − baseline, {outcome.differences}"
        picture = drawing.svg_alone(
            label, differences.forest, rows, xlabel, outcome.digits
        )
        return {f"study_{name}": picture}
    pictures = {}
    for regime in study.plan.regimes:
        arms: dict[str, dict[str, differences.Interval]] = {}
        strengths = set()
        said = study.plan.regimes[regime].title
        for each in family:
            if each.regime == regime and each.strength is not None:
                place = f"{each.strength:g}"
                title = study.plan.arms[each.arm].title
                arms.setdefault(title, {})[place] = _interval(each, title)
                strengths.add(place)
        pictures[f"study_{name}_{regime}"] = drawing.svg_alone(
            f"Differences in {outcome.title} against strength in regime {said}",
            differences.sweep,
            list(arms.items()),
            sorted(strengths, key=float),
            f"strength (evenly spaced)\nin regime {said}",
            f"difference from {study.plan.arms[family[0].baseline].title}"
            + (f",\n{outcome.points}" if outcome.points else ""),
        )
    return pictures


def main(docs: Path = DOCS, results: Path = RESULTS) -> None:
    """Writes the pictures, and what stands between the marks of the page."""
    path = docs / "results.md"
    text = path.read_text("utf-8")
    for folder in sorted(path.parent for path in results.glob("*/study.json")):
        analysis = Analysis(store.read([folder]))
        (docs / "images").mkdir(exist_ok=True)
        for name, picture in draw(analysis).items():
            (docs / "images" / f"{name}.svg").write_text(picture, "utf-8")
        start = f"<!-- study: results/{folder.name} -->"
        end = "<!-- end of the study -->"
        pattern = f"{re.escape(start)}.*?{re.escape(end)}"
        block = f"{start}\n{describe(analysis)}\n{end}"
        text, count = re.subn(pattern, lambda _, b=block: b, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{path} lacks the lines {start} and {end}, or has more.")
    path.write_text(text, "utf-8")


def _write_arms(analysis: Analysis) -> str:
    lines = [f"| arm | n | {' | '.join(COLUMNS)} |", f"|---|{'---|' * 7}"]
    for row in analysis.rows:
        name = name_arm(analysis.study.plan, row["arm"], row["strength"])
        cells = [name, str(row["n"])]
        for key, digits in COLUMNS.values():
            mean, std = row[f"{key}_mean"], row[f"{key}_std"]
            known = mean is not None and std is not None
            cells.append(
                f"{mean:.{digits}f}\u00a0±\u00a0{std:.{digits}f}" if known else "–"
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_family(analysis: Analysis) -> str:
    lines = [
        "| arm − baseline | difference, points (95 %) | p | p, Holm | decision |",
        "|---|---|---|---|---|",
    ]
    for each in analysis.family:
        cells = [_name(analysis.study.plan, each), "–", "–", "–", each.decision]
        if each.result is not None and each.p_adjusted is not None:
            mean, low, high = each.bounds
            cells[1] = (
                f"{drawing.number(mean, 2, signed=True)} ({drawing.number(low, 2)} to "
                f"{drawing.number(high, 2)})"
            )
            found = map(p_value, (each.result.p_value, each.p_adjusted))
            cells[2:4] = [p.replace(" ", "\u00a0") for p in found]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_regions(study: Study, found: Sequence[Region]) -> str:
    """Writes where each arm wins and loses: a row an arm, a column a regime."""
    regimes = list(study.plan.regimes)
    titles = [regime.title for regime in study.plan.regimes.values()]
    lines = [f"| arm − baseline | {' | '.join(titles)} |"]
    lines.append(f"|---|{'---|' * len(regimes)}")
    rows: dict[str, dict[str, str]] = {}
    for region in found:
        best = region.best
        assert best.result is not None
        difference = drawing.number(best.result.mean_difference, 2, signed=True)
        cells = rows.setdefault(_name(study.plan, best), {})
        cells[region.regime] = f"{region} (best: {difference} at {best.strength:g})"
    for name, cells in rows.items():
        row = [name, *(cells.get(regime, "–") for regime in regimes)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _interval(each: Comparison, label: str) -> differences.Interval:
    return differences.Interval(label, each.decision, *each.bounds)


def _name(plan: Plan, each: Comparison) -> str:
    return f"{plan.arms[each.arm].title} − {plan.arms[each.baseline].title}"


if __name__ == "__main__":
    main()
