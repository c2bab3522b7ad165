"""Pictures of differences between arms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.pictures.drawing import (
    COLOURS,
    INK,
    LINE,
    WIDTH,
    add_legend,
    hide_frame,
    make_figure,
    number,
    shorten,
    spread,
)

DECISIONS = {
    "wins": ("#0072B2", "o", "W"),
    "loses": ("#D55E00", "s", "L"),
    "undecided": ("#7f8790", "D", "?"),
    "untested": ("#7f8790", "x", "×"),
}


# On the colours of decisions, so that they can be read; the page's ink on greys. Not
# black, which Matplotlib leaves out, so that it would be the ink.
_LETTERS = {"wins": "#ffffff", "loses": "#111111"}


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


def forest(rows: Sequence[Interval], xlabel: str, digits: int) -> Any:
    """Draws differences and their intervals, one below the other, around zero."""
    # Long names have a line of their own above the numbers.
    is_long = max(len(row.label) for row in rows) > 28
    row_height = 0.58 if is_long else 0.42
    figure = make_figure(WIDTH, row_height * len(rows) + 0.6)
    height = figure.get_figheight()
    axes = figure.add_axes((0.02, 0.5 / height, 0.96, 1 - 0.55 / height))
    at = axes.get_yaxis_transform()
    for index, row in enumerate(rows):
        colour, marker, _ = DECISIONS[row.decision]
        words = row.decision
        # Not through the words.
        below = index + (0.64 if is_long else 0.5)
        axes.plot([0, 0], [below, index + 1], color=INK, linewidth=0.8)
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
        axes.axhline(index, color=LINE, linewidth=0.8)
    axes.set(ylim=(len(rows), 0), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    spread(axes, [v for row in rows for v in (row.middle, row.low, row.high)])
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
    figure = make_figure(WIDTH, 3.2 + below, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, max(below, 0.2)])
    upper.axhline(0, color=INK, linewidth=1)
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
                index,
                row,
                letter,
                color=_LETTERS.get(interval.decision, INK),
                ha="center",
                va="center_baseline",
                fontsize=8,
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
            label=shorten(label, 50),
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
    hide_frame(lower)
    add_legend(figure, *upper.get_legend_handles_labels())
    return figure
