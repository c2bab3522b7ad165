"""Pictures of lines: training, calibration, spectra, tuning."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.pictures.drawing import (
    COLOURS,
    INK,
    WIDTH,
    add_legend,
    make_figure,
    shorten,
    wrap,
)


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


def curves(
    arms: Sequence[Series],
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
    small: bool = False,
) -> Any:
    """Draws the mean of each arm's curves, and the band between lowest and highest.

    Args:
        arms: at most one more than `drawing.COLOURS` has.
        xlabel: what the values are counted by, from 1 on; where one is NaN, none of
            the arm's is drawn.
        ylabel: what they are.
        limits: of the vertical axis, where several pictures share it.
        small: one of many.
    """
    if small:
        figure = make_figure(2.6, 2.15)
        axes = figure.add_axes((0.2, 0.19, 0.77, 0.66))
    else:
        figure = make_figure(WIDTH, 3.3, layout="constrained")
        axes = figure.subplots()
    colours = iter(COLOURS)
    for arm in arms:
        colour = INK if arm.is_baseline else next(colours, COLOURS[-1])
        # Not every epoch ends with an evaluation.
        is_known = ~np.isnan(arm.values).any(0)
        steps, values = np.flatnonzero(is_known) + 1, arm.values[:, is_known]
        if len(values) > 1:
            axes.fill_between(
                steps,
                values.min(0),
                values.max(0),
                color=colour,
                alpha=0.25 if small else 0.18,
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
            label=shorten(arm.label, 50),
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if limits is not None:
        axes.set_ylim(limits)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid()
    axes.set_axisbelow(True)
    if small:
        axes.set_title(wrap(arms[-1].label, 30), loc="left")
    else:
        add_legend(figure)
    return figure


def reliability(
    confidence: np.ndarray, accuracy: np.ndarray, title: str, words: str
) -> Any:
    """Draws the accuracy of the predictions of each confidence, and the ideal."""
    figure = make_figure(2.3, 2.55)
    axes = figure.add_axes((0.2, 0.17, 0.76, 0.69))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    axes.plot(confidence, accuracy, color=INK, marker="o", markersize=3.5, linewidth=1)
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
    axes.text(0.98, 0.05, words, ha="right", fontsize=8)
    axes.set_title(wrap(title, 28), fontsize=8)
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

    num_rows = -(-len(lines) // 2)  # of the legend
    height = 2.9 + 0.13 * max(0, num_rows - 3)
    figure = make_figure(2.6, height, layout="constrained")
    axes = figure.subplots()
    num_layers = 1 + max(line[3] for line in lines)
    for label, frequencies, power, layer, is_columns in lines:
        axes.plot(
            frequencies,
            power,
            color=INK,
            alpha=1 - 0.6 * layer / max(1, num_layers - 1),
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
        axis.set_major_formatter(
            lambda value, position: np.format_float_positional(value, 6, trim="-")
        )
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.grid()
    axes.set_title(wrap(title, 28), loc="left")
    figure.legend(
        loc="outside lower left",
        ncols=2,
        fontsize=7,
        title="layer and direction: exponent",
        title_fontsize=7,
        alignment="left",
        columnspacing=1,
        handlelength=1.6,
    )
    return figure


def trials(
    strengths: Sequence[float],
    scores: Sequence[Sequence[float]],
    chosen: float | None,
    title: str,
    limits: tuple[float, float] | None,
) -> Any:
    """Draws the scores at every strength tried, and which was chosen."""
    figure = make_figure(2.6, 2.15)
    axes = figure.add_axes((0.22, 0.19, 0.75, 0.66))
    for index, values in enumerate(scores):
        axes.plot(
            [index] * len(values),
            values,
            linestyle="none",
            marker="o",
            markersize=3.5,
            color=INK,
            alpha=0.6,
        )
    means = [np.mean(values) if len(values) else np.nan for values in scores]
    axes.plot(range(len(means)), means, color=INK, linewidth=1.2)
    if chosen is not None:
        index = list(strengths).index(chosen)
        axes.axvspan(index - 0.3, index + 0.3, color=INK, alpha=0.15, lw=0)
    axes.set(xlim=(-0.5, len(strengths) - 0.5), ylim=limits)
    axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
    axes.set(xlabel="strength", ylabel="accuracy, %")
    axes.grid(axis="y")
    axes.set_title(wrap(title, 30), loc="left")
    return figure
