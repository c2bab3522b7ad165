"""How a page writes numbers, tables in colours, and a plan."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.pictures import drawing
from experiments.studies.outcomes import Outcome


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """Writes a number as pictures do, and a dash for None."""
    if value is None:
        return "–"
    return "∞" if value == math.inf else drawing.number(value, digits, signed)


def interval(bounds: tuple[float | None, ...], digits: int) -> str:
    """Writes the interval of a `Comparison`'s bounds."""
    _, low, high = bounds
    if low is None:
        return "–"
    return f"{number(low, digits, signed=True)} to {number(high, digits, signed=True)}"


def p_value(p: float | None) -> str:
    """Writes a p-value: "0.008", or "< 0.001"."""
    if p is None:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def span(counts: Iterable[int]) -> str:
    """Writes where some counts lie: "8", or "7 to 8"."""
    counts = list(counts)
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def score(outcome: Outcome) -> str:
    """Names a score with its unit: "final accuracy, %"."""
    return f"{outcome.title},{outcome.unit}" if outcome.unit else outcome.title


def toml(document: Mapping[str, Any], path: str = "") -> str:
    """Writes tables, strings, numbers and lists as TOML."""

    def write(value: Any) -> str:
        if isinstance(value, list):
            nested = any(isinstance(item, list) for item in value)
            items = [write(item) for item in value]
            if nested:
                return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
            return f"[{', '.join(items)}]"
        return json.dumps(value, ensure_ascii=False)

    def name(key: str) -> str:
        return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else write(key)

    lines = [
        f"{name(key)} = {write(value)}\n"
        for key, value in document.items()
        if not isinstance(value, Mapping)
    ]
    tables = [
        toml(value, f"{path}{name(key)}.")
        for key, value in document.items()
        if isinstance(value, Mapping)
    ]
    header = f"[{path[:-1]}]\n" if path and (lines or not tables) else ""
    return "\n".join(part for part in (header + "".join(lines), *tables) if part)


class Heat(NamedTuple):
    """A table whose cells are the darker, the larger they are.

    Attributes:
        label: what it shows.
        rows: their names.
        columns: their names.
        values: float `[R, C]`.
        digits: behind the point.
        low: what is not coloured at all.
        high: what has the full colour.
        is_difference: True to colour by the distance from 0, on either side.
        hides_zeros: True to leave cells blank that would read 0.
    """

    label: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    digits: int
    low: float
    high: float
    is_difference: bool = False
    hides_zeros: bool = False

    def cells(self) -> list[tuple[str, list[tuple[str, float, bool]]]]:
        """Returns of each row its name, and of its cells text, level and sign.

        A level goes from 0 to 1, 0 of a blank cell, and the sign is True below 0.
        """
        rows = zip(self.rows, self.values.tolist(), strict=True)
        return [(row, list(map(self._cell, own))) for row, own in rows]

    def _cell(self, value: float) -> tuple[str, float, bool]:
        if not math.isfinite(value):
            return "", 0.0, False
        if self.hides_zeros and not round(value, self.digits):
            return "", 0.0, False
        level = (abs(value) - self.low) / ((self.high - self.low) or 1.0)
        text = number(value, self.digits, signed=self.is_difference)
        return text, round(min(max(level, 0.0), 1.0), 2), value < 0
