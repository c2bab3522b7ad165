"""How a page writes numbers, and a plan."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

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
    """Writes a p-value, small ones with two digits."""
    if p is None:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.2g}"


def span(counts: Iterable[int]) -> str:
    """Writes where some counts lie: "8", or "7 to 8"."""
    counts = list(counts)
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def upper(text: str) -> str:
    """Writes the first letter large, and the rest as it is."""
    return text[:1].upper() + text[1:]


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
