"""Every picture: of a run as PNG files, of a study as SVG for its page.

A picture is drawn from plain numbers alone. Those of a study return a figure, which
`svg` turns into text that fits into a page beside others and follows its colours.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from experiments import files

# Okabe and Ito's colours, which the colour-blind can tell apart, on light and on dark.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DECISIONS = {
    "wins": ("#0072B2", "o", "W"),
    "loses": ("#D55E00", "s", "L"),
    "undecided": ("#7f8790", "D", "="),
    "untested": ("#7f8790", "x", "?"),
}

# Inches: no more than a phone can show without making letters too small.
_WIDTH = 4.4

# They stand for what the page chooses: its ink, its lines and its paper.
_INK, _LINE, _PAPER = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {_INK: "currentColor", _LINE: "var(--line)", _PAPER: "var(--paper)"}
_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.labelcolor": _INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # the widest: no other font is cut off
    "font.size": 9,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # text remains text, and glyphs are the reader's own
    "text.color": _INK,
    "text.parse_math": False,  # a $ in a name is a $
    "xtick.color": _INK,
    "xtick.labelsize": 8,
    "ytick.color": _INK,
    "ytick.labelsize": 8,
}


class Interval(NamedTuple):
    """A row of a forest plot.

    Attributes:
        label: what is compared.
        decision: a key of `DECISIONS`.
        middle: the mean difference, or None if there is none.
        low: the lower end of its interval.
        high: the upper end.
    """

    label: str
    decision: str
    middle: float | None
    low: float | None
    high: float | None


class Series(NamedTuple):
    """The curves of an arm.

    Attributes:
        label: the arm's.
        values: `[S, N]`, a row for each seed.
        is_baseline: drawn in ink, whatever the others' colours.
    """

    label: str
    values: np.ndarray
    is_baseline: bool


def svg(name: str, label: str, draw: Callable[..., Any], *args: Any, **kw: Any) -> str:
    """Draws a picture for a page.

    Args:
        name: tells its parts from those of the page's other pictures.
        label: what it shows, for those who cannot see it.
        draw: a function of this module that returns a figure.
        *args: its arguments.
        **kw: its keywords.

    Returns:
        An `<svg>` element; the same arguments give the same text.
    """
    file = io.StringIO()
    with _drawing(_STYLE | {"svg.hashsalt": name}), _no_glyph_warnings():
        figure = draw(*args, **kw)
        width = figure.get_figwidth() * 96
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    _simplify(root, name)
    # Narrow screens shrink it, but no further than it can be read.
    usual = 1.15 * width if figure.get_figwidth() == _WIDTH else width
    style = f"width:{usual:.0f}px;min-width:{0.75 * width:.0f}px"
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "style": style,
        "role": "img",
        "aria-label": clean(label),
    }
    return ElementTree.tostring(root, encoding="unicode")


@contextlib.contextmanager
def _drawing(settings: dict[str, Any]) -> Iterator[None]:
    """Draws by Matplotlib's defaults and these settings, whatever a user's own are."""
    import matplotlib.style

    with matplotlib.style.context(["default", settings]):
        yield


@contextlib.contextmanager
def _no_glyph_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # The reader's fonts have what DejaVu lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _simplify(root: ElementTree.Element, name: str) -> None:
    """Makes SVG fit into a page: no namespaces, no styles, no ids that clash."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        attributes = {}
        for key, value in element.attrib.items():
            key = key.rpartition("}")[2]
            if key == "id":
                if value not in used:
                    continue
                value = f"{name}-{value}"
            elif key == "href" and value.startswith("#"):
                value = f"#{name}-{value[1:]}"
            elif key in ("d", "x", "y"):
                value = re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", value)
                value = " ".join(value.split())
            elif key in ("style", "clip-path", "fill", "stroke"):
                value = value.replace("url(#", f"url(#{name}-")
                for ours, theirs in _PAGE_COLOURS.items():
                    value = value.replace(ours, theirs)
                value = re.sub(r"font: ([\d.]+)px [^;]*", r"font-size: \1px", value)
            attributes[key] = value
        element.attrib = attributes
        if element.tag != "text":
            element.text = (element.text or "").strip() or None


def number(value: float, digits: int, signed: bool = False) -> str:
    """Writes a number, with a minus rather than a hyphen."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def shorten(text: str, length: int = 30) -> str:
    """Cuts what would not fit, and marks what no font shows and XML refuses."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def clean(text: str) -> str:
    """Marks what no font shows and XML refuses."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def forest(rows: Sequence[Interval], xlabel: str, digits: int) -> Any:
    """Draws differences and their intervals, one below the other, around zero."""
    # Long names have a line of their own above the numbers.
    is_long = max(len(row.label) for row in rows) > 28
    row_height = 0.58 if is_long else 0.42
    figure = _figure(_WIDTH, row_height * len(rows) + 0.6)
    height = figure.get_figheight()
    axes = figure.add_axes((0.02, 0.5 / height, 0.96, 1 - 0.55 / height))
    at = axes.get_yaxis_transform()
    for index, row in enumerate(rows):
        colour, marker, _ = DECISIONS[row.decision]
        words = row.decision
        # Not through the words.
        below = index + (0.64 if is_long else 0.5)
        axes.plot([0, 0], [below, index + 1], color=_INK, linewidth=0.8)
        if row.middle is not None and row.low is not None and row.high is not None:
            middle, low, high = (
                number(x, digits, signed=True) for x in (row.middle, row.low, row.high)
            )
            words = f"{middle} [{low}, {high}] {words}"
            y = index + (0.8 if is_long else 0.72)
            faint = 0.55 if row.decision == "untested" else 1
            axes.plot([row.low, row.high], [y] * 2, color=colour, alpha=faint)
            axes.plot(
                row.middle, y, color=colour, marker=marker, markersize=6, alpha=faint
            )
        first, second = (0.2, 0.48) if is_long else (0.3, 0.3)
        axes.text(0, index + first, shorten(row.label, 54), transform=at, va="center")
        axes.text(
            1,
            index + second,
            words,
            transform=at,
            va="center",
            ha="right",
            fontsize=8,
        )
    for index in range(1, len(rows)):
        axes.axhline(index, color=_LINE, linewidth=0.8)
    axes.set(ylim=(len(rows), 0), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    _spread(axes, [v for row in rows for v in (row.middle, row.low, row.high)])
    return figure


def strips(
    arms: Sequence[tuple[str, Mapping[int, float]]], xlabel: str, joined: bool
) -> Any:
    """Draws every seed as a point, an arm a row, its mean a bar.

    Args:
        arms: labels, and the scores by seed.
        xlabel: what the scores are.
        joined: True to draw a line through the points of each seed.
    """
    figure = _figure(_WIDTH, 0.34 * len(arms) + 0.65, layout="constrained")
    axes = figure.subplots()
    seeds = sorted({seed for _, scores in arms for seed in scores})
    # Their own height each, so that equal scores remain two points.
    height = dict(zip(seeds, np.linspace(-0.24, 0.24, max(len(seeds), 1)), strict=True))
    if joined:
        for seed in seeds:
            path = [
                (scores.get(seed, np.nan), row + height[seed])
                for row, (_, scores) in enumerate(arms)
            ]
            axes.plot(*zip(*path, strict=True), color=_LINE, linewidth=0.8, zorder=1)
    for row, (_, scores) in enumerate(arms):
        values = list(scores.values())
        axes.plot(
            values,
            [row + height[seed] for seed in scores],
            linestyle="none",
            marker="o",
            markersize=4.5,
            color=COLOURS[0],
            markeredgecolor=_PAPER,
            markeredgewidth=0.5,
        )
        if values:
            axes.plot(
                [np.mean(values)] * 2, [row - 0.4, row + 0.4], color=_INK, linewidth=2
            )
    axes.set(ylim=(len(arms) - 0.4, -0.6), xlabel=xlabel)
    axes.set_yticks(range(len(arms)), [shorten(label) for label, _ in arms])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    _spread(axes, [value for _, scores in arms for value in scores.values()])
    return figure


def curves(
    arms: Sequence[Series],
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
    small: bool = False,
) -> Any:
    """Draws the mean of each arm's curves, and the band between lowest and highest.

    Args:
        arms: at most seven.
        xlabel: what the values are counted by, from 1 on; where one is NaN, none of
            the arm's is drawn.
        ylabel: what they are.
        limits: of the vertical axis, where several pictures share it.
        small: one of many.
    """
    if small:
        figure = _figure(2.6, 2.15)
        axes = figure.add_axes((0.2, 0.19, 0.77, 0.7))
    else:
        figure = _figure(_WIDTH, 3.3, layout="constrained")
        axes = figure.subplots()
    colours = iter(COLOURS)
    for arm in arms:
        colour = _INK if arm.is_baseline else next(colours, COLOURS[-1])
        # Not every epoch ends with an evaluation.
        is_known = ~np.isnan(arm.values).any(0)
        steps, values = np.flatnonzero(is_known) + 1, arm.values[:, is_known]
        if len(values) > 1:
            axes.fill_between(
                steps,
                values.min(0),
                values.max(0),
                color=colour,
                alpha=0.18,
                linewidth=0,
            )
        axes.plot(
            steps,
            values.mean(0),
            color=colour,
            linewidth=1.6,
            linestyle="--" if arm.is_baseline else "-",
            marker="o" if len(steps) < 20 and not small else "",
            markersize=3,
            label=shorten(arm.label, 24),
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if limits is not None:
        axes.set_ylim(limits)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid()
    axes.set_axisbelow(True)
    if small:
        axes.set_title(shorten(arms[-1].label), loc="left")
    else:
        figure.legend(loc="outside upper left", ncols=3, fontsize=8)
    return figure


def confusion(
    percent: np.ndarray,
    names: Sequence[str],
    title: str,
    most: float,
    difference: bool = False,
) -> Any:
    """Draws a confusion matrix, a row for each true class, or how two differ."""
    figure = _figure(3.3, 3.3)
    axes = figure.add_axes((0.22, 0.17, 0.76, 0.76))
    axes.imshow(
        percent,
        cmap="PuOr" if difference else "Blues",
        vmin=-most if difference else 0,
        vmax=most,
        interpolation="none",
    )
    for row, column in np.ndindex(percent.shape):
        value = float(percent[row, column])
        if round(value):
            axes.text(
                column,
                row,
                number(value, 0, signed=difference),
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if abs(value) > 0.6 * most else "black",
            )
    short = [shorten(name, 12) for name in names]
    axes.set_xticks(range(len(short)), short, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(short)), short, fontsize=7)
    _frame(axes)
    axes.set_title(shorten(title, 34), loc="left")
    return figure


def heat(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    digits: int,
    difference: bool = False,
) -> Any:
    """Draws a table in colours: higher is darker, or of differences more orange."""
    num_rows, num_columns = values.shape
    cell_width, cell_height = 0.46, 0.235
    left = 0.1 + 0.075 * max(len(shorten(row, 26)) for row in rows)
    top = 0.15 + 0.055 * max(len(shorten(column, 22)) for column in columns)
    right = max(top, 0.3)  # where the last of the slanted names ends
    width = left + cell_width * num_columns + right
    height = top + cell_height * num_rows + 0.05
    figure = _figure(width, height)
    axes = figure.add_axes(
        (
            left / width,
            0.05 / height,
            cell_width * num_columns / width,
            cell_height * num_rows / height,
        )
    )
    finite = values[np.isfinite(values)]
    most = max(float(np.abs(finite).max(initial=0)), 0.1)
    least = -most if difference else float(finite.min(initial=most))
    axes.imshow(
        values,
        cmap="PuOr_r" if difference else "Blues",
        vmin=least,
        # Not the darkest blue, on which no digit can be read.
        vmax=most if difference else least + (most - least) * 1.2 + 1e-9,
        aspect="auto",
        interpolation="none",
    )
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        if np.isfinite(value):
            level = (
                abs(value) / most
                if difference
                else (value - least) / (most - least + 1e-9)
            )
            axes.text(
                column,
                row,
                number(value, digits, signed=difference),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if level > 0.65 else "black",
            )
    axes.set_yticks(range(num_rows), [shorten(row, 26) for row in rows])
    axes.xaxis.tick_top()
    axes.set_xticks(
        range(num_columns),
        [shorten(column, 22) for column in columns],
        rotation=45,
        ha="left",
        rotation_mode="anchor",
    )
    _frame(axes)
    return figure


def fourier(errors: np.ndarray, title: str, low: float, high: float, cmap: str) -> Any:
    """Draws a map over frequencies, the constant in the middle."""
    figure = _figure(2.15, 2.3)
    axes = figure.add_axes((0.2, 0.19, 0.76, 0.71))
    height, width = errors.shape
    rows, columns = -(height // 2) - 0.5, -(width // 2) - 0.5
    axes.imshow(
        np.fft.fftshift(errors),
        cmap=cmap,
        vmin=low,
        vmax=high,
        extent=(columns, columns + width, rows + height, rows),
        interpolation="none",
    )
    axes.set_xlabel("along rows", fontsize=7, labelpad=1)
    axes.set_ylabel("along columns", fontsize=7, labelpad=1)
    axes.set_xticks([-(width // 4), 0, width // 4])
    axes.set_yticks([-(height // 4), 0, height // 4])
    axes.tick_params(labelsize=7)
    _frame(axes)
    axes.set_title(shorten(title, 26), fontsize=8)
    return figure


def scale(low: float, high: float, cmap: str, label: str) -> Any:
    """Draws the colours of maps and what they stand for."""
    import matplotlib.colors

    figure = _figure(3.4, 0.62)
    axes = figure.add_axes((0.05, 0.72, 0.9, 0.24))
    axes.imshow(
        np.linspace(low, high, 128)[None],
        cmap=cmap,
        norm=matplotlib.colors.Normalize(low, high),
        extent=(low, high, 0, 1),
        aspect="auto",
        interpolation="none",
    )
    axes.set(yticks=[], xlabel=label)
    axes.xaxis.labelpad = 1
    _frame(axes)
    return figure


def reliability(confidence: np.ndarray, accuracy: np.ndarray, title: str) -> Any:
    """Draws the accuracy of the predictions of each confidence, and the ideal."""
    figure = _figure(2.3, 2.45)
    axes = figure.add_axes((0.2, 0.18, 0.76, 0.72))
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
    axes.plot(
        confidence, accuracy, color=COLOURS[0], marker="o", markersize=3.5, linewidth=1
    )
    axes.set(
        xlim=(0, 1.02),
        ylim=(0, 1.02),
        xticks=[0, 0.5, 1],
        yticks=[0, 0.5, 1],
        xlabel="confidence",
        ylabel="accuracy",
    )
    axes.xaxis.labelpad = axes.yaxis.labelpad = 1
    axes.grid()
    axes.set_title(shorten(title, 28), fontsize=8)
    return figure


def spectra(
    lines: Sequence[tuple[str, np.ndarray, np.ndarray, int, bool]],
    title: str,
    limits: tuple[float, float],
) -> Any:
    """Draws power against frequency, both logarithmic.

    Args:
        lines: label, frequencies, power, number of the layer from 0, and whether it
            runs along columns.
        title: of the arm.
        limits: of the power.
    """
    import matplotlib.ticker

    figure = _figure(3.2, 2.9, layout="constrained")
    axes = figure.subplots()
    for label, frequencies, power, layer, is_columns in lines:
        axes.plot(
            frequencies,
            power,
            color=COLOURS[layer % len(COLOURS)],
            linestyle="--" if is_columns else "-",
            linewidth=1.2,
            label=label,
        )
    axes.set(
        xscale="log",
        yscale="log",
        ylim=limits,
        xlabel="cycles per sample",
        ylabel="power",
    )
    for axis in (axes.xaxis, axes.yaxis):
        decades = np.log10(limits[1] / limits[0]) if axis is axes.yaxis else 1
        axis.set_major_locator(
            matplotlib.ticker.LogLocator(subs=(1, 2, 5) if decades < 2 else (1,))
        )
        axis.set_major_formatter(lambda value, position: f"{value:g}")
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.grid()
    axes.set_title(shorten(title), loc="left")
    figure.legend(loc="outside lower left", ncols=2, fontsize=7)
    return figure


def trials(
    strengths: Sequence[float],
    scores: Sequence[Sequence[float]],
    chosen: float | None,
    title: str,
    limits: tuple[float, float] | None,
) -> Any:
    """Draws the scores at every strength tried, and which was chosen."""
    figure = _figure(2.6, 2.15)
    axes = figure.add_axes((0.22, 0.19, 0.75, 0.7))
    for index, values in enumerate(scores):
        axes.plot(
            [index] * len(values),
            values,
            linestyle="none",
            marker="o",
            markersize=3.5,
            color=COLOURS[0],
            alpha=0.6,
        )
    means = [np.mean(values) if len(values) else np.nan for values in scores]
    axes.plot(range(len(means)), means, color=_INK, linewidth=1.2)
    if chosen is not None:
        index = list(strengths).index(chosen)
        axes.axvspan(index - 0.3, index + 0.3, color=COLOURS[0], alpha=0.15, lw=0)
    axes.set(xlim=(-0.5, len(strengths) - 0.5), ylim=limits)
    axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
    axes.set(xlabel="strength", ylabel="accuracy, %")
    axes.grid(axis="y")
    axes.set_title(shorten(title), loc="left")
    return figure


def sweep(
    arms: Sequence[tuple[str, Mapping[str, Interval]]],
    places: Sequence[str],
    xlabel: str,
    ylabel: str,
) -> Any:
    """Draws differences against strength, and below them what was decided.

    Args:
        arms: labels, and their differences by place.
        places: along the horizontal axis, evenly spaced.
        xlabel: what the places are.
        ylabel: what the differences are of.
    """
    below = 0.26 * len(arms)
    figure = _figure(_WIDTH, 3.2 + below, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, max(below, 0.2)])
    upper.axhline(0, color=_INK, linewidth=1)
    offsets = np.linspace(-0.12, 0.12, len(arms)) if len(arms) > 1 else [0.0]
    for row, ((label, intervals), offset) in enumerate(zip(arms, offsets, strict=True)):
        colour = COLOURS[row % len(COLOURS)]
        x, middle, low, high = [], [], [], []
        for index, place in enumerate(places):
            interval = intervals.get(place)
            if interval is None:
                continue
            face, _, letter = DECISIONS[interval.decision]
            faint = 0.45 if interval.decision in ("undecided", "untested") else 1
            lower.barh(
                row, 0.9, left=index - 0.45, height=0.84, color=face, alpha=faint
            )
            lower.text(
                index, row, letter, ha="center", va="center_baseline", fontsize=8
            )
            if interval.middle is not None:
                x.append(index + offset)
                middle.append(interval.middle)
                low.append(interval.low)
                high.append(interval.high)
        upper.plot(
            x,
            middle,
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.2,
            linestyle=("-", "--", ":")[row // len(COLOURS) % 3],
            label=shorten(label, 24),
        )
        upper.vlines(x, low, high, color=colour, linewidth=1.6)
    upper.set_ylabel(ylabel)
    upper.grid(axis="y")
    upper.tick_params(axis="x", length=0)
    lower.set(
        xlabel=xlabel, xlim=(-0.6, len(places) - 0.4), ylim=(len(arms) - 0.5, -0.5)
    )
    lower.set_xticks(range(len(places)), [shorten(place, 14) for place in places])
    lower.set_yticks(range(len(arms)), [shorten(label, 24) for label, _ in arms])
    _frame(lower)
    figure.legend(
        *upper.get_legend_handles_labels(),
        loc="outside upper left",
        ncols=3,
        fontsize=8,
    )
    return figure


def _figure(width: float, height: float, layout: Any = None) -> Any:
    import matplotlib.figure

    # Not pyplot, whose figures are global state that must be closed.
    return matplotlib.figure.Figure(figsize=(width, height), layout=layout)


def _frame(axes: Any) -> None:
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _spread(axes: Any, values: Sequence[float | None]) -> None:
    """Gives equal values an axis on which they are in the middle, and seen as equal."""
    known = [value for value in values if value is not None]
    if not known or max(known) - min(known) < 1e-9:
        middle = known[0] if known else 0.0
        axes.set_xlim(middle - 1, middle + 1)


# Pictures of a run


@_drawing({})
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


@_drawing({})
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


def to_percent(counts: np.ndarray) -> np.ndarray:
    """Turns the counts of a confusion matrix into percent of each true class."""
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _new_figure(size: tuple[float, float]) -> tuple[Any, Any]:
    figure = _figure(*size, layout="constrained")
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
