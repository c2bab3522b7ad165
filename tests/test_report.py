"""A run's pictures show what its result says; a study's report is whole, or absent."""

import copy
import csv
import math
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from experiments import report
from experiments.analysis import comparisons, verdict
from experiments.analysis.comparisons import Analysis
from experiments.pictures import differences, drawing
from experiments.pictures import runs as run_pictures
from experiments.reporting import page, tables
from experiments.runs import outputs
from experiments.studies import store
from experiments.studies.cells import Cell
from tests.stores import make_store


def make_result(num_seeds: int = 1, num_epochs: int = 3, num_classes: int = 10) -> dict:
    rng = np.random.default_rng(0)
    runs = [
        {
            "seed": 58 + seed,
            "diverged": False,
            "train_loss": (2 / np.arange(1, num_epochs + 1) + 0.1 * seed).tolist(),
            "test_accuracy": rng.uniform(60, 80, num_epochs).tolist(),
            "accuracy": 70.0 + seed**2,
            "confusion": rng.integers(1, 100, (num_classes,) * 2).tolist(),
        }
        for seed in range(num_seeds)
    ]
    names = [f"class {index}" for index in range(num_classes)]
    return {
        "config": {"reg": "water", "strength": 0.05},
        "dataset": {"title": "CIFAR-10, JPEG-75 copy", "class_names": names},
        "runs": runs,
        "summary": outputs.summarize(runs),
    }


def diverge(result: dict, *indices: int, missing: float | None = None) -> dict:
    for index in indices:
        losses = [2.5, missing, missing]
        result["runs"][index] |= {"diverged": True, "train_loss": losses}
    return result | {"summary": outputs.summarize(result["runs"])}


def lines_of(axes) -> list[np.ndarray]:
    return [line.get_ydata() for line in axes.lines]


def shares_of(figure) -> np.ndarray:
    return figure.axes[0].images[0].get_array()


def title_of(figure) -> str:
    return " ".join(figure.get_suptitle().split())


@pytest.mark.parametrize(("num_seeds", "num_epochs"), [(1, 1), (3, 10)])
def test_training_is_drawn_for_each_seed_and_their_mean(num_seeds, num_epochs):
    result = make_result(num_seeds, num_epochs)
    figure = run_pictures.draw_training(result)
    *panels, last = figure.axes if num_seeds > 1 else [*figure.axes, None]
    for axes, key in zip(panels, ("train_loss", "test_accuracy"), strict=True):
        values = [run[key] for run in result["runs"]]
        curves = [*values, np.mean(values, axis=0)] if num_seeds > 1 else values
        for drawn, curve in zip(axes.lines, curves, strict=True):
            np.testing.assert_array_equal(drawn.get_xdata(), 1 + np.arange(num_epochs))
            np.testing.assert_allclose(drawn.get_ydata(), curve)
        widths = [line.get_linewidth() for line in axes.lines]
        assert widths == sorted(widths) and axes.get_xlabel() == "epoch"
    if last is not None:
        mean, points = lines_of(last)
        assert list(points) == [70.0, 71.0, 74.0]
        np.testing.assert_allclose(mean, 215 / 3)
    assert title_of(figure).startswith("water 0.05 on CIFAR-10, JPEG-75 copy ")
    assert ("3 seeds, 58 to 60" if num_seeds > 1 else "seed 58") in title_of(figure)


def test_accuracies_that_hardly_differ_do_not_look_far_apart():
    result = make_result(2)
    for index, run in enumerate(result["runs"]):
        run["accuracy"] = 70 + index / 10
    axes = run_pictures.draw_training(result).axes[-1]
    assert axes.get_ylim() == pytest.approx((69.85, 70.25))


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_confusion_is_in_percent_of_the_true_class_over_all_seeds(num_seeds):
    result = make_result(num_seeds)
    for run in result["runs"]:
        run["confusion"][3] = [0, 1, *[200] * 8]
        run["confusion"][4] = [0] * 10  # a class without test images
    figure = run_pictures.draw_confusion(result)
    axes = figure.axes[0]
    counts = sum(np.array(run["confusion"]) for run in result["runs"])
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(shares_of(figure), percent)
    # What would read 0 is blank.
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {
        (predicted, true): f"{percent[true, predicted]:.0f}"
        for true, predicted in np.ndindex(10, 10)
        if percent[true, predicted] > 0.5
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        names = [label.get_text() for label in labels]
        assert names == result["dataset"]["class_names"]
    accuracy = "70.00%" if num_seeds == 1 else "71.67 ± 2.08%, 3 seeds"
    assert accuracy in title_of(figure)


@pytest.mark.parametrize("missing", [None, math.nan], ids=["from JSON", "from memory"])
def test_a_diverged_seed_is_left_out_by_name(missing):
    result = diverge(make_result(3), 1, missing=missing)
    figure = run_pictures.draw_training(result)
    assert title_of(figure).endswith("; without seed 59, diverged")
    losses = [result["runs"][index]["train_loss"] for index in (0, 2)]
    np.testing.assert_allclose(lines_of(figure.axes[0])[:2], losses)
    alone = result | {"runs": result["runs"][::2]}
    drawn, expected = map(run_pictures.draw_confusion, (result, alone))
    assert (shares_of(drawn) == shares_of(expected)).all()


def test_a_run_that_diverged_altogether_is_drawn_as_it_is(tmp_path):
    result = diverge(make_result(2), 0, 1)
    result["config"] = {"reg": "none", "strength": 0.0}  # which has no strength
    before = copy.deepcopy(result)
    run_pictures.save(result, tmp_path)
    figure = run_pictures.draw_training(result)
    assert title_of(figure).startswith("none on CIFAR")
    assert title_of(figure).endswith("; diverged")
    np.testing.assert_array_equal(lines_of(figure.axes[0])[0], [2.5, np.nan, np.nan])
    assert result == before


def test_titles_and_names_stay_inside_of_the_margins(tmp_path):
    names = ["$x_1$", "飞机", "a\nb", "W" * 30]
    names += ["Verkehrszeichen " * 3]
    result = make_result(2, num_classes=len(names))
    result["dataset"] = {"title": r"$\no$ 飞机" + "W" * 200, "class_names": names}
    run_pictures.save(result, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(run_pictures.FILES)
    for name in run_pictures.PICTURES:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG" and round(picture.info["dpi"][0]) == 200
            pixels = np.asarray(picture.convert("L"))
        assert pixels.min() < 50
        border = np.concatenate([pixels[:4].ravel(), pixels[-4:].ravel()])
        sides = np.concatenate([pixels[:, :4].ravel(), pixels[:, -4:].ravel()])
        assert (border == 255).all() and (sides == 255).all()
        svg = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        root = ElementTree.fromstring(svg)
        ground = next(e for e in root.iter() if e.tag.endswith("}path"))
        assert "fill: #ffffff" in ground.attrib["style"]
    assert "$x_1$" in svg  # as text, in the names of classes


def test_a_users_settings_of_matplotlib_change_no_picture(tmp_path):
    import matplotlib

    def draw() -> list:
        row = differences.Interval("a", "wins", 1.0, 0.5, 1.5)
        run_pictures.save(make_result(), tmp_path)
        return [
            drawing.svg("f", "label", differences.forest, [row], "x", 1),
            *((tmp_path / name).read_bytes() for name in run_pictures.FILES),
        ]

    expected = draw()
    theirs = {
        "text.usetex": True,  # which may not even be installed
        "font.family": ["no such font"],
        "lines.linewidth": 9,
        "image.cmap": "gray",
        "savefig.bbox": "tight",
        "savefig.format": "pdf",
        "svg.fonttype": "path",
        "axes.formatter.use_locale": True,
    }
    with matplotlib.rc_context(theirs):
        assert draw() == expected
        assert matplotlib.rcParams["text.usetex"]  # is still theirs


# Reports of studies

FILES = {"report.html", "table.csv", "comparisons.csv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_store(
        tmp_path_factory.mktemp("stores") / "fake",
        effects={"water": 4},
        diverged=[Cell("short", "none", 0.0, 3)],
    )


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take most of the time, and say nothing about files."""
    monkeypatch.setattr(drawing, "svg", lambda *args, **kw: "<svg></svg>")


def run(monkeypatch, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, flags)])
    report.main()


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_command_writes_three_files(
    tmp_path, folder, monkeypatch, capsys, no_pictures
):
    out, before = tmp_path / "new" / "report", names(folder)
    run(monkeypatch, folder, f"--out={out}")
    assert names(out) == FILES and names(folder) == before
    analysis = Analysis(store.read([folder]))
    assert (out / "report.html").read_text("utf-8") == page.build(analysis)
    told = capsys.readouterr()
    assert told.err == ""
    assert verdict.sentence(analysis) in told.out
    assert str(out / "report.html") in told.out
    # By default the first folder gets the report.
    first = shutil.copytree(folder, tmp_path / "first")
    run(monkeypatch, first, folder)
    assert names(first) == before | FILES and names(folder) == before


@pytest.mark.usefixtures("no_pictures")
def test_the_table_holds_what_summarize_says(tmp_path, folder):
    study = store.read([folder])
    tables.write(Analysis(study), tmp_path)
    rows = read_csv(tmp_path / "table.csv")
    expected = comparisons.summarize(study)
    assert len(rows) == len(expected) == 3
    for row, numbers in zip(rows, expected, strict=True):
        assert row.keys() == numbers.keys()
        for key, value in numbers.items():
            if isinstance(value, float):
                assert float(row[key]) == value
            elif isinstance(value, list):
                assert row[key] == " ".join(map(str, value))
            else:
                assert row[key] == ("" if value is None else str(value))
    assert [row["diverged"] for row in rows if row["arm"] == "none"] == ["3"]


@pytest.mark.usefixtures("no_pictures")
def test_the_comparisons_hold_primary_and_secondary_ones(tmp_path):
    cells = [Cell("short", "water", 0.05, seed) for seed in range(8)]
    study = store.read([make_store(tmp_path / "store", missing=cells)])
    tables.write(Analysis(study), tmp_path)
    rows = read_csv(tmp_path / "comparisons.csv")
    expected = [*comparisons.compare(study), *comparisons.secondary(study)]
    assert len(rows) == len(expected) > 3
    for row, comparison in zip(rows, expected, strict=True):
        for key in ("regime", "arm", "baseline", "outcome", "decision", "note"):
            assert row[key] == getattr(comparison, key)
        assert row["seeds"].split() == [str(seed) for seed in comparison.seeds]
        if comparison.result is None:
            assert row["arm"] == "water"
            assert row["mean_difference"] == row["p_value"] == ""
            continue
        for key, value in comparison.result._asdict().items():
            untested = key == "p_value" and comparison.decision == "secondary"
            assert row[key] == ("" if untested else str(value))


def test_a_cell_that_a_spreadsheet_would_compute_is_text():
    rows = [{"arm": "=1+1", "note": "-2", "mean": -2.0, "seeds": [1, 2]}]
    text = tables._write_csv(rows)
    assert text == "arm,note,mean,seeds\n'=1+1,'-2,-2.0,1 2\n"


def test_a_report_that_cannot_be_drawn_has_all_but_pictures(
    tmp_path, folder, monkeypatch, capsys
):
    def fail(*args, **kw):
        raise ImportError("No module named 'matplotlib'\nand more")

    monkeypatch.setattr(drawing, "svg", fail)
    run(monkeypatch, folder, f"--out={tmp_path}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: --out={tmp_path}: report.html has no pictures")
    assert "No module named 'matplotlib'" in line and "more" not in line
    assert names(tmp_path) == FILES
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "could not be drawn" in text and '<svg viewBox="' not in text
    assert text.count("<td") > 20
