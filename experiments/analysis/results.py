"""The results of runs: whether they can be compared."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.cli import UsageError
from experiments.runs import outputs
from experiments.runs.outputs import RESULT


def read_result(folder: Path) -> Mapping[str, Any]:
    """Reads the result of a run.

    Raises:
        UsageError: if the folder holds none, or a damaged one.
    """
    path = folder / RESULT
    if not os.path.lexists(path):  # False where looking is not permitted
        raise UsageError(
            f"{folder}: there is no {RESULT} in it; name the folder of a finished run."
        )
    result = outputs.read_result(folder)
    try:
        _check(result)
    except ValueError as error:
        raise UsageError(
            f"{path}: damaged ({error}); restore it, or name another folder."
        ) from None
    return result


def _check(result: Mapping[str, Any]) -> None:
    """Raises for what types do not tell: sizes, and seeds that come twice."""
    seeds = [each["seed"] for each in result["runs"]]
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed comes twice")
    epochs, count = result["config"]["epochs"], len(result["dataset"]["class_names"])
    for each in result["runs"]:
        where = f"of seed {each['seed']}"
        for key in ("train_loss", "test_accuracy"):
            if len(each[key]) != epochs:
                raise ValueError(f"{key} {where} has not {epochs} epochs")
        if not each["diverged"] and None in each["train_loss"]:
            raise ValueError(f"train_loss {where} has gaps, and it did not diverge")
        if [len(row) for row in each["confusion"]] != [count] * count:
            raise ValueError(f"confusion {where} is not of {count} classes")
