"""A run's pictures show what its result says; a study's report is whole, or absent."""

import copy
import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import report
from experiments.analysis import comparisons, verdict
from experiments.analysis.comparisons import Analysis
from experiments.cli import UsageError
from experiments.pictures import differences, drawing
from experiments.pictures import runs as run_pictures
from experiments.reporting import page, tables
from experiments.studies import store
from experiments.studies.cells import Cell
from sounddrop_jax import statistics
from tests.stores import make_store

CLASS_NAMES = [f"class {index}" for index in range(10)]


def make_result(num_seeds: int = 1, num_epochs: int = 3) -> dict:
    rng = np.random.default_rng(0)
    runs = [
        {
            "seed": 58 + seed,
            "train_loss": (2 / np.arange(1, num_epochs + 1) + 0.1 * seed).tolist(),
            "confusion": rng.integers(0, 100, (10, 10)).tolist(),
        }
        for seed in range(num_seeds)
    ]
    spread = {"accuracy_std": 1.16 if num_seeds > 1 else None}
    return {
        "config": {"reg": "water", "strength": 0.05},
        "dataset": {"title": "CIFAR-10, JPEG-75 copy", "class_names": CLASS_NAMES},
        "runs": runs,
        "summary": {"n": num_seeds, "accuracy_mean": 74.88} | spread,
    }


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The axes of every picture of a run."""
    made: list = []
    new_figure = run_pictures._new_figure

    def record(size):
        figure, axes = new_figure(size)
        made.append(axes)
        return figure, axes

    monkeypatch.setattr(run_pictures, "_new_figure", record)
    return made


def assert_is_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) >= 400
    # Something dark on something bright.
    assert pixels.min() < 50 and pixels.max() == 255


def texts(axes) -> str:
    return "\n".join(text.get_text() for text in axes.figure.findobj(match=is_text))


def is_text(artist) -> bool:
    return hasattr(artist, "get_text")


@pytest.mark.parametrize("num_epochs", [1, 10])
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_losses_are_drawn_for_each_seed_and_their_mean(
    tmp_path, drawn, num_seeds, num_epochs
):
    result = make_result(num_seeds, num_epochs)
    run_pictures.plot_losses(result, tmp_path / "loss.png")
    assert_is_picture(tmp_path / "loss.png")
    (axes,) = drawn
    losses = [run["train_loss"] for run in result["runs"]]
    curves = [*losses, np.mean(losses, axis=0)] if num_seeds > 1 else losses
    assert len(axes.lines) == len(curves)
    for line, curve in zip(axes.lines, curves, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, num_epochs + 1))
        np.testing.assert_allclose(line.get_ydata(), curve)
    words = texts(axes)
    for word in ("water 0.05", "CIFAR-10, JPEG-75 copy", "epoch", "loss"):
        assert word in words
    assert ("mean of 3 seeds" if num_seeds > 1 else "seed 58") in words


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_confusion_is_in_percent_of_the_true_class_over_all_seeds(
    tmp_path, drawn, num_seeds
):
    result = make_result(num_seeds)
    run_pictures.plot_confusion(result, tmp_path / "confusion.png")
    assert_is_picture(tmp_path / "confusion.png")
    (axes,) = drawn
    counts = sum(np.array(run["confusion"]) for run in result["runs"])
    percent = 100 * counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(axes.images[0].get_array(), percent)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    for true, predicted in np.ndindex(10, 10):
        assert cells[predicted, true] == f"{percent[true, predicted]:.0f}"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == CLASS_NAMES
    accuracy = "74.88%" if num_seeds == 1 else "74.88 ± 1.16%, 3 seeds"
    assert accuracy in axes.get_title()
    assert "CIFAR-10, JPEG-75 copy" in axes.get_title()


@pytest.mark.parametrize("missing", [None, math.nan], ids=["from JSON", "from memory"])
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_diverged_seed_is_drawn_without_a_warning(
    tmp_path, drawn, num_seeds, missing
):
    result = make_result(num_seeds)
    result["runs"][0]["train_loss"] = [2.5, missing, missing]
    run_pictures.plot_losses(result, tmp_path / "loss.png")
    assert_is_picture(tmp_path / "loss.png")
    np.testing.assert_array_equal(drawn[0].lines[0].get_ydata(), [2.5, np.nan, np.nan])


def test_a_run_that_diverged_at_once_is_drawn_without_a_warning(tmp_path):
    result = make_result(num_seeds=2)
    for run in result["runs"]:
        run["train_loss"] = [math.nan] * 3
    run_pictures.plot_losses(result, tmp_path / "loss.png")
    assert_is_picture(tmp_path / "loss.png")


def test_a_class_without_test_images_is_drawn_without_a_warning(tmp_path, drawn):
    result = make_result()
    result["runs"][0]["confusion"][3] = [0] * 10
    run_pictures.plot_confusion(result, tmp_path / "confusion.png")
    assert (drawn[0].images[0].get_array()[3] == 0).all()


def test_an_arm_without_a_strength_shows_none(tmp_path, drawn):
    result = make_result()
    result["config"] = {"reg": "none", "strength": 0.0}
    run_pictures.plot_losses(result, tmp_path / "loss.png")
    assert drawn[0].get_title().startswith("none: ")


def test_pictures_leave_the_result_as_it_is(tmp_path):
    result = make_result(num_seeds=3)
    before = copy.deepcopy(result)
    run_pictures.plot_losses(result, tmp_path / "loss.png")
    run_pictures.plot_confusion(result, tmp_path / "confusion.png")
    assert result == before


def test_a_dollar_is_a_dollar(tmp_path, drawn):
    result = make_result()
    result["dataset"] = {"title": r"$\no$", "class_names": ["$x_1$"] * 10}
    run_pictures.plot_losses(result, tmp_path / "loss.png")
    run_pictures.plot_confusion(result, tmp_path / "confusion.png")
    for axes in drawn:
        for text in [axes.title, *axes.get_xticklabels(), *axes.get_yticklabels()]:
            assert "$" not in text.get_text() or not text.get_parse_math()


def test_drawing_needs_no_pyplot_and_no_jax(tmp_path):
    script = f"""
import json, sys
from pathlib import Path
from experiments.pictures import differences
from experiments.pictures import drawing
from experiments.pictures import runs as run_pictures
assert "matplotlib" not in sys.modules
result = json.loads({json.dumps(make_result())!r})
run_pictures.plot_losses(result, Path({str(tmp_path)!r}, "loss.png"))
for module in "matplotlib.pyplot", "jax", "flax":
    assert module not in sys.modules, module
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert_is_picture(tmp_path / "loss.png")


def test_a_users_settings_of_matplotlib_change_no_picture(tmp_path):
    import matplotlib

    def draw() -> list:
        row = differences.Interval("a", "wins", 1.0, 0.5, 1.5)
        run_pictures.plot_losses(make_result(2), tmp_path / "loss.png")
        run_pictures.plot_confusion(make_result(), tmp_path / "confusion.png")
        return [
            drawing.svg("f", "label", differences.forest, [row], "x", 1),
            (tmp_path / "loss.png").read_bytes(),
            (tmp_path / "confusion.png").read_bytes(),
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
    out = tmp_path / "new" / "report"
    run(monkeypatch, folder, f"--out={out}")
    assert names(out) == FILES
    study = store.read([folder])
    assert (out / "report.html").read_text(encoding="utf-8") == page.build(
        Analysis(study)
    )
    told = capsys.readouterr()
    assert told.err == ""
    assert verdict.sentence(Analysis(study)) in told.out
    assert str(out / "report.html") in told.out


def test_by_default_the_first_folder_gets_the_report(
    tmp_path, folder, monkeypatch, no_pictures
):
    first = shutil.copytree(folder, tmp_path / "first")
    before = names(folder)
    run(monkeypatch, first, folder)
    assert names(first) >= FILES
    assert names(folder) == before


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
    (diverged,) = [row["diverged"] for row in rows if row["arm"] == "none"]
    assert diverged == "3"


@pytest.mark.usefixtures("no_pictures")
def test_the_comparisons_hold_primary_and_secondary_ones(tmp_path, folder):
    study = store.read([folder])
    tables.write(Analysis(study), tmp_path)
    rows = read_csv(tmp_path / "comparisons.csv")
    expected = [*comparisons.compare(study), *comparisons.secondary(study)]
    assert len(rows) == len(expected) > 3
    for row, comparison in zip(rows, expected, strict=True):
        for key in ("regime", "arm", "baseline", "outcome", "decision", "note"):
            assert row[key] == getattr(comparison, key)
        assert row["seeds"].split() == [str(seed) for seed in comparison.seeds]
        assert comparison.result is not None
        for key, value in comparison.result._asdict().items():
            untested = key == "p_value" and comparison.decision == "secondary"
            assert row[key] == ("" if untested else str(value))


@pytest.mark.usefixtures("no_pictures")
def test_a_comparison_without_pairs_leaves_its_numbers_empty(tmp_path):
    cells = [Cell("short", "water", 0.05, seed) for seed in range(8)]
    study = store.read([make_store(tmp_path / "store", missing=cells)])
    tables.write(Analysis(study), tmp_path)
    row = read_csv(tmp_path / "comparisons.csv")[0]
    assert (row["arm"], row["decision"]) == ("water", "untested")
    assert row["mean_difference"] == row["p_value"] == row["seeds"] == ""


@pytest.mark.usefixtures("no_pictures")
def test_names_come_back_from_csv_as_they_are():
    row = {"note": 'a,"b"\n<b>$x$&', "n": None, "seeds": (1, 2)}
    text = tables._write_csv([row])
    (read,) = csv.DictReader(text.splitlines(keepends=True))
    assert read == {"note": row["note"], "n": "", "seeds": "1 2"}


def test_a_report_computes_each_comparison_once(tmp_path, monkeypatch):
    folder = make_store(tmp_path / "store")
    computed = []

    def compare_pairs(first, second):
        computed.append((first.tobytes(), second.tobytes()))
        return original(first, second)

    original = statistics.compare_pairs
    monkeypatch.setattr(statistics, "compare_pairs", compare_pairs)
    run(monkeypatch, folder)
    with open(folder / "comparisons.csv", newline="") as file:
        num_comparisons = len(list(csv.DictReader(file)))
    assert len(computed) == num_comparisons > 3 * 3


@pytest.mark.parametrize("reason", ["no folder", "no store", "damaged"])
def test_a_bad_store_is_one_line_and_no_file(tmp_path, monkeypatch, capsys, reason):
    folder = tmp_path / "store"
    if reason == "no store":
        folder.mkdir()
    if reason == "damaged":
        make_store(folder, with_robustness=False)
        (folder / "networks.jsonl").write_text("{\n")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, folder, f"--out={out}")
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ") and told.err.count("\n") == 1
    assert str(folder) in told.err
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path, folder, monkeypatch, capsys, no_pictures
):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, folder, f"--out={tmp_path / 'file'}")
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_command_without_a_folder_says_what_is_missing(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch)
    assert caught.value.code == 2
    assert "DIR" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_a_page_that_fails_leaves_the_old_files(tmp_path, folder, monkeypatch):
    study = store.read([folder])
    for name in FILES:
        (tmp_path / name).write_text("old")

    def fail(study, **settings):
        raise RuntimeError

    monkeypatch.setattr(page, "build", fail)
    with pytest.raises(RuntimeError):
        tables.write(Analysis(study), tmp_path)
    assert {(tmp_path / name).read_text() for name in FILES} == {"old"}
    assert names(tmp_path) == FILES


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


def test_a_cell_that_a_spreadsheet_would_compute_is_text():
    rows = [{"arm": "=1+1", "note": "-2", "mean": -2.0, "seeds": [1, 2]}]
    text = tables._write_csv(rows)
    assert text == "arm,note,mean,seeds\n'=1+1,'-2,-2.0,1 2\n"


@pytest.mark.usefixtures("no_pictures")
def test_a_full_disk_leaves_the_old_files(tmp_path, folder, monkeypatch):
    study = store.read([folder])
    for name in FILES:
        (tmp_path / name).write_text("old")
    write_text = Path.write_text

    def fail(path, text, **kw):
        if tables.PAGE in path.name:
            raise OSError(28, os.strerror(28))
        return write_text(path, text, **kw)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(UsageError, match="No space left"):
        tables.write(Analysis(study), tmp_path)
    assert {(tmp_path / name).read_text() for name in FILES} == {"old"}
    assert names(tmp_path) == FILES
