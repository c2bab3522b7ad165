"""The two pictures of a run."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.pictures.drawing import drawing, make_figure
from experiments.pictures.maps import to_percent


@drawing({})
def plot_losses(result: dict, path: Path) -> None:
    """Draws the training loss of each epoch: every seed, and their mean.

    Args:
        result: of a run, as in result.json.
        path: of the PNG file.
    """
    figure, axes = _new_figure((6.4, 4.2))
    losses = np.array([run["train_loss"] for run in result["runs"]], float)
    epochs = np.arange(1, losses.shape[1] + 1)
    several = len(losses) > 1
    if several:
        axes.plot(epochs, losses.T, color="tab:blue", alpha=0.3, linewidth=1)
    axes.plot(
        epochs,
        losses.mean(0),
        color="tab:blue",
        marker="o",
        markersize=4,
        label=f"mean of {len(losses)} seeds" if several else f"seed {_seed(result)}",
    )
    axes.set(xlabel="epoch", ylabel="mean training loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _title(axes, result, "training loss")
    _save(figure, path)


@drawing({})
def plot_confusion(result: dict, path: Path) -> None:
    """Draws the confusion matrix, in percent of each true class, over all seeds.

    Args:
        result: of a run, as in result.json.
        path: of the PNG file.
    """
    figure, axes = _new_figure((7.0, 6.2))
    names = result["dataset"]["class_names"]
    percent = to_percent(np.sum([run["confusion"] for run in result["runs"]], axis=0))
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(percent.shape):
        value = percent[row, column]
        axes.text(
            column,
            row,
            f"{value:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if value > 50 else "black",
        )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        label.set_parse_math(False)
    figure.colorbar(image, label="% of the true class", shrink=0.8)
    _title(axes, result, f"test accuracy {_accuracy(result)}")
    _save(figure, path)


def _new_figure(size: tuple[float, float]) -> tuple[Any, Any]:
    figure = make_figure(*size, layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _title(axes: Any, result: dict, what: str) -> None:
    config, dataset = result["config"], result["dataset"]
    strength = "" if config["reg"] == "none" else f" {config['strength']:g}"
    title = f"{config['reg']}{strength}: {what}\n{dataset['title']}"
    axes.set_title(title, parse_math=False)


def _accuracy(result: dict) -> str:
    summary = result["summary"]
    if summary["n"] == 1:
        return f"{summary['accuracy_mean']:.2f}%"
    return (
        f"{summary['accuracy_mean']:.2f} ± {summary['accuracy_std']:.2f}%, "
        f"{summary['n']} seeds"
    )


def _seed(result: dict) -> int:
    return result["runs"][0]["seed"]
