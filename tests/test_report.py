"""The pictures show what the result says, for one seed and several, diverged or not."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import report

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
    """The axes of every figure that `report` makes."""
    made: list = []
    new_figure = report._new_figure

    def record(size):
        figure, axes = new_figure(size)
        made.append(axes)
        return figure, axes

    monkeypatch.setattr(report, "_new_figure", record)
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
    report.plot_losses(result, tmp_path / "loss.png")
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
    report.plot_confusion(result, tmp_path / "confusion.png")
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
    report.plot_losses(result, tmp_path / "loss.png")
    assert_is_picture(tmp_path / "loss.png")
    np.testing.assert_array_equal(drawn[0].lines[0].get_ydata(), [2.5, np.nan, np.nan])


def test_a_run_that_diverged_at_once_is_drawn_without_a_warning(tmp_path):
    result = make_result(num_seeds=2)
    for run in result["runs"]:
        run["train_loss"] = [math.nan] * 3
    report.plot_losses(result, tmp_path / "loss.png")
    assert_is_picture(tmp_path / "loss.png")


def test_a_class_without_test_images_is_drawn_without_a_warning(tmp_path, drawn):
    result = make_result()
    result["runs"][0]["confusion"][3] = [0] * 10
    report.plot_confusion(result, tmp_path / "confusion.png")
    assert (drawn[0].images[0].get_array()[3] == 0).all()


def test_an_arm_without_a_strength_shows_none(tmp_path, drawn):
    result = make_result()
    result["config"] = {"reg": "none", "strength": 0.0}
    report.plot_losses(result, tmp_path / "loss.png")
    assert drawn[0].get_title().startswith("none: ")


def test_pictures_leave_the_result_as_it_is(tmp_path):
    result = make_result(num_seeds=3)
    before = copy.deepcopy(result)
    report.plot_losses(result, tmp_path / "loss.png")
    report.plot_confusion(result, tmp_path / "confusion.png")
    assert result == before


def test_drawing_needs_no_pyplot_and_no_jax(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from experiments import report
assert "matplotlib" not in sys.modules
import test_report
report.plot_losses(test_report.make_result(), Path({str(tmp_path)!r}, "loss.png"))
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
