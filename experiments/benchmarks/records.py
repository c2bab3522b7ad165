"""Records of what the scripts of docs/ timed, and their tables in performance.md."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.runs.environment import environment


def quartiles(values: Sequence[float] | np.ndarray) -> list[float]:
    """Returns the three quartiles of all values, rounded to three digits."""
    return np.round(np.quantile(values, (0.25, 0.5, 0.75)), 3).tolist()


def write_record(
    script: str, table: Sequence[str], rounds: int, **measured: Any
) -> None:
    """Writes `performance/NAME_cpu.json` beside `make_NAME.py`, and its table.

    Args:
        script: path of the script.
        table: lines of Markdown, for `performance.md`.
        rounds: that each figure is the median of.
        **measured: more entries of the record.
    """
    path = Path(script)
    record = {
        "environment": environment(),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
        **measured,
    }
    name = path.stem.removeprefix("make_")
    files.write_json(path.parent / f"performance/{name}_cpu.json", record)
    page = path.parent / "performance.md"
    files.write_table(page, f"docs/{path.name}", "\n".join(table))
