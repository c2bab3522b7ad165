"""The pictures of a run: how it trained, and what it confuses."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.pictures.drawing import (
    INK,
    STYLE,
    clean,
    drawing,
    make_figure,
    no_glyph_warnings,
    number,
    shorten,
)
from experiments.pictures.maps import to_percent
from experiments.words import name_run, name_seeds

# Neither of the colours that stand for decisions in a report.
_COLOUR = "#00694E"
_SHARES = ((0.0, "#ffffff"), (0.25, "#a9d9c5"), (0.7, _COLOUR), (1.0, "#00382a"))
_PAPER, _GRID = "#ffffff", "#d4d8dd"
# On paper of their own, which a dark page leaves bright.
_STYLE = STYLE | {
    "axes.titlelocation": "left",
    "figure.facecolor": _PAPER,
    "grid.color": _GRID,
    "legend.fontsize": 8,
    "savefig.facecolor": _PAPER,
    "svg.hashsalt": "run",
}
_DPI = 200


def draw_training(result: Mapping[str, Any]) -> Any:
    """Draws loss and accuracy against epochs, and of several seeds where they end.

    Every seed has a thin line, and their mean a thick one.

    Args:
        result: of a run, as in result.json.

    Returns:
        A figure.
    """
    networks = _networks(result)
    several = len(networks) > 1
    figure = make_figure(9.6 if several else 7.4, 3.5, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    left, middle, *right = figure.subplots(
        1, 3 if several else 2, width_ratios=[3, 3, 1.5] if several else [1, 1]
    )
    for axes, key, label in (
        (left, "train_loss", "mean training loss"),
        (middle, "test_accuracy", "test accuracy, %"),
    ):
        values = np.array([network[key] for network in networks], float)
        epochs = np.arange(1, values.shape[1] + 1)
        is_short = len(epochs) <= 20
        if several:
            axes.plot(
                epochs,
                values.T,
                color=_COLOUR,
                alpha=max(0.15, 0.5 - 0.01 * len(networks)),
                linewidth=0.8,
                marker="." if len(epochs) == 1 else "",
            )
        axes.plot(
            epochs,
            values.mean(0),
            color=_COLOUR,
            linewidth=2.2,
            marker="o" if is_short else "",
            markersize=4,
        )
        axes.set(xlabel="epoch", ylabel=label)
        margin = 0.05 * len(epochs)
        axes.set_xlim(1 - margin, len(epochs) + margin)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        _add_grid(axes)
    for axes in right:
        _draw_ends(axes, [network["accuracy"] for network in networks])
    seeds = [network["seed"] for network in networks]
    what = name_seeds(seeds)
    if several:
        what = f"{len(seeds)} seeds"
        if "," not in (named := name_seeds(seeds)):
            what += f", {named.removeprefix('seeds ')}"
        what += ": each a thin line, their mean a thick one"
    _add_title(figure, result, what, 0.98 * figure.get_figwidth())
    return figure


def _draw_ends(axes: Any, accuracies: Sequence[float]) -> None:
    """Draws the last accuracy of every seed as a point, and the mean as a bar."""
    places = np.linspace(-0.3, 0.3, len(accuracies))
    mean = float(np.mean(accuracies))
    axes.plot([-0.45, 0.45], [mean, mean], color=INK, linewidth=2)
    axes.plot(
        places,
        accuracies,
        linestyle="none",
        marker="o",
        markersize=5 if len(accuracies) <= 32 else 3,
        color=_COLOUR,
        markeredgecolor=_PAPER,
        markeredgewidth=0.5,
        alpha=0.9,
    )
    axes.set(xlim=(-0.6, 0.6), xticks=[], ylabel="final test accuracy, %")
    axes.set_xlabel(f"a point for each seed;\nbar: mean, {number(mean, 2)}")
    if np.ptp(accuracies) < 0.2:  # not as if a network's luck were a difference
        axes.set_ylim(mean - 0.2, mean + 0.2)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.margins(y=0.12)
    _add_grid(axes, axis="y")


def draw_confusion(result: Mapping[str, Any]) -> Any:
    """Draws the confusion matrix, in percent of each true class, over all seeds.

    What would read 0 is left blank.

    Args:
        result: of a run, as in result.json.

    Returns:
        A figure, to be saved as large as what is in it.
    """
    from matplotlib.colors import LinearSegmentedColormap

    networks = _networks(result)
    names = [shorten(name, 40) for name in result["dataset"]["class_names"]]
    percent = to_percent(np.sum([network["confusion"] for network in networks], axis=0))
    # Inches; of very many classes there is no room for numbers.
    count = len(names)
    cell = min(max(4.6 / count, 0.26 if count <= 60 else 0.11), 0.8)
    has_numbers = cell > 0.2
    size = cell * count
    figure = make_figure(size, size)
    axes = figure.add_axes((0, 0, 1, 1))
    colours = LinearSegmentedColormap.from_list("shares", _SHARES)
    image = axes.imshow(percent, cmap=colours, vmin=0, vmax=100)
    for row, column in np.argwhere(percent.round() > 0) if has_numbers else ():
        share = percent[row, column]
        axes.text(
            column,
            row,
            f"{share:.0f}",
            ha="center",
            va="center_baseline",
            fontsize=min(8.5, 26 * cell),
            color=_contrasting(colours(share / 100)),
        )
    font = min(9, 62 * cell)
    axes.set_xticks(range(count), names, fontsize=font)
    longest = max(map(len, names))
    if longest * 0.65 * font > 72 * cell:
        is_upright = longest > 16 or cell < 0.3
        for label in axes.get_xticklabels():
            if is_upright:
                label.set_rotation(90)
            else:
                label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names, fontsize=font)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.spines[:].set(visible=True, color=_GRID)
    axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=_GRID, linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    _add_scale(figure, image, size)
    what = f"test accuracy {_accuracy(result)}"
    title = _add_title(figure, result, what, max(size + 1, 4.2))
    title.set(x=0, y=1 + 0.14 / size, va="bottom")
    return figure


def _add_scale(figure: Any, image: Any, size: float) -> None:
    """Adds the colours of shares beside a matrix of so many inches."""
    height = min(size, 3.0)
    place = (1 + 0.2 / size, 0.5 - height / size / 2, 0.14 / size, height / size)
    scale = figure.colorbar(image, cax=figure.add_axes(place))
    scale.set_label("% of the true class")
    scale.outline.set(edgecolor=_GRID)
    scale.ax.tick_params(length=2, color=_GRID)


PICTURES = {"loss": draw_training, "confusion": draw_confusion}
FILES = tuple(f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg"))


def save(result: Mapping[str, Any], folder: Path) -> None:
    """Writes the pictures of a run, each as PNG and as SVG, whole or not at all.

    Networks that diverged are left out, unless all did.

    Args:
        result: as in result.json.
        folder: of the run.
    """
    for name, draw in PICTURES.items():
        with drawing(_STYLE), no_glyph_warnings():
            figure = draw(result)
            for kind, options in (
                ("png", {"dpi": _DPI}),
                ("svg", {"metadata": {"Date": None}}),
            ):
                with files.replacing(folder / f"{name}.{kind}") as temporary:
                    figure.savefig(
                        temporary,
                        format=kind,
                        # The matrix has its margins outside of the figure.
                        bbox_inches=None if name == "loss" else "tight",
                        pad_inches=0.15,
                        **options,
                    )


def _networks(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the networks that did not diverge; all, if all did."""
    networks = result["runs"]
    return [each for each in networks if not each["diverged"]] or networks


def _add_grid(axes: Any, axis: str = "both") -> None:
    axes.grid(axis=axis)
    axes.set_axisbelow(True)


def _add_title(figure: Any, result: Mapping[str, Any], what: str, width: float) -> Any:
    """Adds what was trained on what, in lines of at most a width in inches."""
    config = result["config"]
    diverged = [run["seed"] for run in result["runs"] if run["diverged"]]
    if len(diverged) == len(result["runs"]):
        what += "; diverged"
    elif diverged:
        what += f"; without {name_seeds(diverged)}, diverged"
    title = f"{name_run(config)} on {result['dataset']['title']}"
    lines = [title, what]
    text = figure.suptitle("", x=0.012, ha="left", size=10, linespacing=1.35)
    text.set_text("\n".join(_wrap(text, clean(line), width) for line in lines))
    return text


def _wrap(text: Any, line: str, width: float) -> str:
    """Breaks a line so that it is no wider than some inches, as a text is set."""
    for columns in range(len(line), 0, -1):
        wrapped = textwrap.fill(line, columns)
        text.set_text(wrapped)
        if text.get_window_extent().width <= width * text.figure.dpi:
            break
    return wrapped


def _contrasting(colour: tuple[float, ...]) -> str:
    """Returns black or white, whichever reads better on a colour: at 4.5 at least."""
    channels = np.array(colour[:3])
    linear = np.where(
        channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return INK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else _PAPER


def _accuracy(result: Mapping[str, Any]) -> str:
    summary = result["summary"]
    if summary["n"] == 0:
        return "of none"
    if summary["n"] == 1:
        return f"{summary['accuracy_mean']:.2f}%"
    return (
        f"{summary['accuracy_mean']:.2f} ± {summary['accuracy_std']:.2f}%, "
        f"{summary['n']} seeds"
    )
