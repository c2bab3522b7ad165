"""The page of runs that are compared, and its tables."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from experiments.analysis import runs as analysis
from experiments.analysis.runs import Run, Runs
from experiments.pictures import curves, drawing
from experiments.pictures.curves import Series
from experiments.pictures.maps import to_percent
from experiments.reporting import marks, page, tables
from experiments.reporting.comparisons import strips
from experiments.reporting.formats import Heat, score, span
from experiments.studies.outcomes import OUTCOMES
from experiments.words import join, name_seeds, upper

_OUTCOME = OUTCOMES["accuracy"]
_OPEN = ("Answer", "Differences", "Every seed", "Training")


def write(runs: Runs, out: Path) -> Path:
    """Writes the page and the tables of runs, see `tables.write_files`."""
    build = functools.partial(_build, runs)
    return tables.write_files(
        out, build, runs.rows, map(tables.flatten, runs.comparisons)
    )


def _build(runs: Runs, *, with_pictures: bool = True) -> str:
    """Writes the page; the same runs give the same text."""

    def draw(name: str, label: str, plot: Callable[..., Any], *args: Any) -> Markup:
        if not with_pictures:
            return Markup()
        return Markup(drawing.svg(name, label, plot, *args))

    shown = [run for run in runs.runs if run.networks]  # what did not diverge
    sections = {
        "Answer": ("runs_answer.html", {"sentence": analysis.sentence(runs)}),
        "Differences": ("runs_differences.html", _differences(runs)),
    }
    if shown:
        sections |= {
            "Every seed": ("seeds.html", _seeds(shown, runs)),
            "Seed by seed": ("runs_seeds.html", _pairs(runs)),
            "Training": ("training.html", _training(shown, runs, draw)),
            "Confusion": ("confusion.html", _confusion(shown, runs)),
        }
    sections["The runs"] = ("runs.html", {"runs": runs, "outcome": _OUTCOME})
    others = join([run.name for run in runs.runs[1:]], " and")
    verb = "Is" if len(runs.runs) == 2 else "Are"
    return page.lay_out(
        f"Runs on {runs.dataset['title']}",
        f"{verb} {others} more accurate than {runs.baseline.name}?",
        sections,
        _OPEN,
    )


def _differences(runs: Runs) -> dict[str, Any]:
    results = [each.result for each in runs.comparisons if each.result is not None]
    axis = marks.axis_of_differences((each.low, each.high) for each in results)
    return {
        "comparisons": runs.comparisons,
        "ticks": axis.ticks() if results else [],
        "mark": lambda each: marks.mark(axis, *each.bounds),
        "has_arrows": any(any(axis.cuts(e.low, e.high)) for e in results),
        "notes": list(
            dict.fromkeys(each.note for each in runs.comparisons if each.note)
        ),
        "outcome": _OUTCOME,
        "alpha": analysis.ALPHA,
    }


def _seeds(shown: list[Run], runs: Runs) -> dict[str, Any]:
    arms = [
        (run.name, {seed: each["accuracy"] for seed, each in run.networks.items()})
        for run in shown
    ]
    table = strips(f"Every seed's {_OUTCOME.title}", arms)
    left_out = [
        f"{name_seeds(row['diverged'])} of {row['run']} (diverged)"
        for row in runs.rows
        if row["diverged"]
    ]
    return {
        "tables": [table | {"heading": "", "left_out": left_out}],
        "score": score(_OUTCOME),
        "outcome": _OUTCOME,
    }


def _pairs(runs: Runs) -> dict[str, Any]:
    seeds = sorted({seed for run in runs.runs for seed in run.networks})
    none = {"accuracy": None}
    return {
        "names": [run.name for run in runs.runs],
        "rows": {
            seed: [run.networks.get(seed, none)["accuracy"] for run in runs.runs]
            for seed in seeds
        },
        "outcome": _OUTCOME,
    }


def _training(
    shown: list[Run], runs: Runs, draw: Callable[..., Markup]
) -> dict[str, Any]:
    figures = []
    for key, ylabel in (
        ("train_loss", "training loss"),
        ("test_accuracy", "test accuracy, %"),
    ):
        title = upper(ylabel.partition(",")[0])
        series = [
            Series(
                run.name,
                np.array([each[key] for each in run.networks.values()], float),
                run is runs.baseline,
            )
            for run in shown
        ]
        label = f"{title} of each run against epoch"
        figures.append(
            {
                "pictures": draw(key, label, curves.curves, series, "epoch", ylabel),
                "heading": "",
                "title": title,
                "xlabel": "epoch",
                "n": span(len(each.values) for each in series),
                "dashed": runs.baseline.name if runs.baseline in shown else "",
                "words": "",
            }
        )
    return {"figures": figures}


def _confusion(shown: list[Run], runs: Runs) -> dict[str, Any]:
    names = runs.dataset["class_names"]
    percent = {
        run.name: to_percent(
            np.sum([each["confusion"] for each in run.networks.values()], axis=0)
        )
        for run in shown
    }
    baseline = runs.baseline.name
    differences = {
        f"{name} − {baseline}": own - percent[baseline]
        for name, own in percent.items()
        if name != baseline and baseline in percent
    }
    most = max([0.1, *(float(np.abs(each).max()) for each in differences.values())])
    return {
        "tables": [
            Heat(name, names, names, own, 0, 0.0, 100.0, hides_zeros=True)
            for name, own in percent.items()
        ],
        "n": span(len(run.networks) for run in shown),
        "words": "",
        "baseline": baseline,
        "differences": [
            Heat(label, names, names, own, 0, 0.0, most, True, hides_zeros=True)
            for label, own in differences.items()
        ],
    }
