"""Pictures: drawn for one seed and for several, and for one that diverged."""

import sys

import numpy as np
import pytest
from PIL import Image

from experiments import report


def make_result(num_seeds: int, num_epochs: int, last_loss: float = 0.8) -> dict:
    losses = [*np.linspace(2, 1, num_epochs - 1), last_loss]
    confusion = np.full((10, 10), 2) + 80 * np.eye(10, dtype=int)
    seeds = [
        {"seed": 58 + k, "train_loss": losses, "confusion": confusion.tolist()}
        for k in range(num_seeds)
    ]
    return {
        "config": {"reg": "water", "strength": 0.05},
        "dataset": {"title": "Tiny", "class_names": list("abcdefghij")},
        "runs": seeds,
        "summary": {"n": num_seeds, "accuracy_mean": 75.73, "accuracy_std": 1.16},
    }


@pytest.mark.parametrize("plot", [report.plot_losses, report.plot_confusion])
@pytest.mark.parametrize(
    "result",
    [make_result(1, 10), make_result(3, 1), make_result(3, 4, float("nan"))],
    ids=["one seed", "one epoch", "diverged"],
)
def test_pictures_are_drawn(plot, result, tmp_path):
    plot(result, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert min(picture.size) > 400
        # Something is on it besides the background.
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_titles_name_arm_strength_and_data(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        report, "_title", lambda axes, result, what: titles.append(what)
    )
    report.plot_confusion(make_result(3, 2), tmp_path / "several.png")
    report.plot_confusion(make_result(1, 2), tmp_path / "one.png")
    several, one = titles
    assert several == "test accuracy 75.73 ± 1.16%, 3 seeds"
    assert one == "test accuracy 75.73%"


def test_no_global_figures():
    assert (
        "matplotlib.pyplot" not in sys.modules
        or not sys.modules["matplotlib.pyplot"].get_fignums()
    )
