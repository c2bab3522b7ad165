"""Differences and scores as marks on an axis that every row of a table shares."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.pictures.drawing import number

# An interval that reaches so many times as far as the median one is cut, so that the
# others can be told apart.
_OUTLIER = 4.0


class Axis(NamedTuple):
    """Maps values to percent of a cell's width.

    Attributes:
        low: the value at its left end.
        high: the value at its right end.
    """

    low: float
    high: float

    def cuts(self, low: float, high: float) -> tuple[bool, bool]:
        """Returns whether an interval goes on to the left, and to the right."""
        return low < self.low, high > self.high

    def place(self, value: float) -> float:
        """Returns where a value lies, 0 to 100; one that is beyond, at an end."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns where round numbers lie, and the numbers."""
        least = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(least))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= least)
        digits = max(0, -math.floor(math.log10(step)))
        margin = 0.02 * (self.high - self.low)
        first = math.ceil((self.low + margin) / step)
        last = math.floor((self.high - margin) / step)
        values = [step * index for index in range(first, last + 1)]
        return [(self.place(value), number(value, digits)) for value in values]


class Mark(NamedTuple):
    """An interval as a cell draws it; places are percent of its width.

    Attributes:
        zero: where no difference lies.
        middle: where the mean lies; None if it is beyond an end.
        low: where the interval begins.
        high: where it ends.
        is_cut: whether it goes on to the left, and to the right.
    """

    zero: float
    middle: float | None
    low: float
    high: float
    is_cut: tuple[bool, bool]


def axis_of_differences(intervals: Iterable[tuple[float, float]]) -> Axis:
    """Returns an axis around 0 for intervals, as far as most of them reach."""
    intervals = list(intervals)
    reaches = [max(abs(low), abs(high)) for low, high in intervals]
    if not any(reaches):
        return Axis(-1.0, 1.0)
    limit = _OUTLIER * statistics.median(reaches) or max(reaches)
    kept = [i for i, reach in zip(intervals, reaches, strict=True) if reach <= limit]
    ends = list(itertools.chain((0.0,), *kept))
    low, high = min(ends), max(ends)
    if len(kept) < len(intervals):  # towards those that are cut
        outliers = [i for i in intervals if i not in kept]
        low = -limit if any(each[0] < -limit for each in outliers) else low
        high = limit if any(each[1] > limit for each in outliers) else high
    margin = 0.06 * (high - low)
    return Axis(low - margin, high + margin)


def axis_of_scores(scores: Sequence[float]) -> Axis:
    """Returns an axis on which all scores lie, equal ones in its middle."""
    low, high = min(scores), max(scores)
    if high - low < 1e-9:
        return Axis(low - 1.0, high + 1.0)
    margin = 0.04 * (high - low)
    return Axis(low - margin, high + margin)


def mark(axis: Axis, middle: float, low: float, high: float) -> Mark:
    """Places an interval on an axis."""
    return Mark(
        axis.place(0.0),
        axis.place(middle) if axis.low <= middle <= axis.high else None,
        axis.place(low),
        axis.place(high),
        axis.cuts(low, high),
    )
