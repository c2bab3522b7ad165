"""The results of runs: what is compared of them, and whether it can be."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic's own need, on Python 3.11

from experiments import values, words
from experiments.cli import UsageError
from experiments.runs.outputs import RESULT
from experiments.studies.records import (
    Count,
    Curve,
    DatasetDescription,
    Number,
    Percent,
    Score,
)


class Settings(TypedDict):
    """The flags of a run; others are its own."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    reg: str
    strength: Annotated[Number, Field(ge=0)]
    epochs: Annotated[Count, Field(ge=1)]
    batch_size: Annotated[Count, Field(ge=1)]
    steps_per_epoch: Annotated[Count, Field(ge=1)] | None


class Network(TypedDict):
    """What is known of a network; other entries are its own."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    seed: Count
    diverged: bool
    accuracy: Percent
    train_loss: Curve
    test_accuracy: Annotated[list[Percent], Field(min_length=1)]
    peak_accuracy: Score
    confusion: list[list[Count]]


class ResultFile(TypedDict):
    """The entries of result.json that are compared."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    config: Settings
    dataset: DatasetDescription
    environment: dict[str, str | int | None]
    runs: Annotated[list[Network], Field(min_length=1)]


RESULT_FILE = pydantic.TypeAdapter(ResultFile)


def read_result(folder: Path) -> Mapping[str, Any]:
    """Reads the result of a run.

    Raises:
        UsageError: if the folder holds none, or a damaged one.
    """
    path = folder / RESULT
    if not os.path.exists(path):  # False where looking is not permitted
        raise UsageError(
            f"{folder}: there is no {RESULT} in it; name the folder of a finished run."
        )
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        values.read(RESULT_FILE, result)
        _check(result)
    except (OSError, ValueError, RecursionError) as error:
        why = words.reason(error).removesuffix(".")
        raise UsageError(
            f"{path}: damaged ({why}); restore it, or name another folder."
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
