"""The records of a store: their types, what they are of, and whether they agree.

Their tables are read into arrays: the records of 30,000 networks have to fit in memory.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
import pydantic
from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic's own need, on Python 3.11

from experiments.cli import UsageError
from experiments.runs.configs import LARGEST
from experiments.studies import plans
from experiments.studies.cells import TUNING, Cell, cell_of
from experiments.studies.plans import Plan
from experiments.training import models, regularizers
from experiments.training.metrics import NUM_BINS

STUDY, NETWORKS = "study.json", "networks.jsonl"

Count = Annotated[int, Field(ge=0, lt=2**63)]
# Within float32, so that no square leaves float64.
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Percent = Annotated[float, Field(ge=0, le=100)]
Score = Number | None  # None where a network diverged
Pair = Annotated[list[Score], Field(min_length=2, max_length=2)]


def _floats(values: list[float | None]) -> np.ndarray:
    """Makes an array, of None NaN."""
    return np.array(values, np.float64)


def _table(rows: list[list]) -> np.ndarray | list[list]:
    """Makes an array of rows that are as long; `check_shapes` refuses others."""
    return np.array(rows) if len(set(map(len, rows))) == 1 else rows


Name = Annotated[str, AfterValidator(sys.intern)]  # one for all records
Curve = Annotated[list[Score], AfterValidator(_floats)]
_of_bins = Field(min_length=NUM_BINS, max_length=NUM_BINS)
Bins = Annotated[list[Score], _of_bins, AfterValidator(_floats)]
Severities = Annotated[
    list[Percent], Field(min_length=5, max_length=5), AfterValidator(_floats)
]


class Reliability(TypedDict):
    """See `metrics.calibration`."""

    count: Annotated[list[Count], _of_bins, AfterValidator(np.array)]
    confidence: Bins
    accuracy: Bins


class Fourier(TypedDict):
    """Errors by frequency, see `probes.score_answers`."""

    images: Count
    norm: Number
    errors: Annotated[list[list[Percent]], AfterValidator(_table)]


class Record(TypedDict):
    """What is known of a network; other entries are its own."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    regime: Name
    arm: Name
    strength: Annotated[Number, Field(ge=0)]
    seed: Count
    diverged: bool
    accuracy: Percent
    train_loss: Curve
    seconds: Number
    environment: dict[str, str | int | None]
    origin: NotRequired[dict[str, Any]]
    test_accuracy: NotRequired[Curve]
    peak_accuracy: NotRequired[Score]
    confusion: NotRequired[Annotated[list[list[Count]], AfterValidator(_table)]]
    nll: NotRequired[Score]
    brier: NotRequired[Score]
    ece: NotRequired[Score]
    ece_mass: NotRequired[Score]
    gap: NotRequired[Score]
    train_nll: NotRequired[Score]
    train_accuracy: NotRequired[Score]
    reliability: NotRequired[Reliability | None]
    corruptions: NotRequired[dict[Name, Severities]]
    corruption_source: NotRequired[dict[str, str]]
    corruption_error: NotRequired[Score]
    fourier: NotRequired[Fourier]


class Exponents(TypedDict):
    """The fitted exponents, along the rows of maps and along their columns."""

    rows: Score
    columns: Score


class Power(TypedDict):
    """Pairs of frequency and power."""

    rows: list[Pair]
    columns: list[Pair]


class Layer(TypedDict):
    """What a layer adds to maps of zeros."""

    shape: list[Count]
    std: Score
    exponents: Exponents
    power: Power


def _same_length(rows: list[str]) -> list[str]:
    if len(set(map(len, rows))) > 1:
        raise ValueError("rows are not of one length")
    return rows


Row = Annotated[str, Field(pattern="^([0-9a-f]{2})*$", max_length=1024)]


class Noise(TypedDict):
    """See `noise.measure_noise`."""

    strength: Number
    sample: NotRequired[
        Annotated[list[Row], Field(max_length=512), AfterValidator(_same_length)]
    ]
    layers: list[Layer]


class DatasetDescription(TypedDict):
    """See `dataset.describe_dataset`."""

    name: str
    title: str
    fingerprint: str
    train_size: Count
    test_size: Count
    class_names: list[str]


class StudyFile(TypedDict):
    """The entries of study.json."""

    version: int
    name: str
    begun: NotRequired[dict[str, Any]]
    plan: dict[str, Any]
    dataset: DatasetDescription
    inputs: dict[str, str]
    noise: dict[str, Noise]


RECORD = pydantic.TypeAdapter(Record)
STUDY_FILE = pydantic.TypeAdapter(StudyFile)


def shapes(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how large the tables of a record are, by entry; equal ones can be drawn.

    Example:
        >>> shapes({"confusion": [[1, 2], [3, 4]], "corruptions": {"fog": [0.0] * 5}})
        {'confusion': [2, 2], 'corruptions': ['fog']}
    """
    found: dict[str, Any] = {}
    for key in ("train_loss", "test_accuracy"):
        if key in record:
            found[key] = len(record[key])
    if "confusion" in record:
        found["confusion"] = [len(row) for row in record["confusion"]]
    if "fourier" in record:
        found["fourier"] = [len(row) for row in record["fourier"]["errors"]]
    if "corruptions" in record:
        found["corruptions"] = sorted(record["corruptions"])
    return found


def origin(study: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """Returns what a network's numbers depend on, by the words of study.json."""
    plan, inputs = study["plan"], study["inputs"]
    said = plan["arms"][cell.arm]
    arm = {k: v for k, v in said.items() if k not in (*plans.STRENGTHS, "title")}
    if cell.regime == TUNING:
        own = list(plan["regimes"].values())
        regime = {TUNING: plan.get("tuning"), **plan["regimes"]}
    else:
        own = [plan["regimes"][cell.regime]]
        regime = own[0] | plan.get("robustness", {})
    is_ours = arm["reg"] in regularizers.BUILT_IN and all(
        each.get("model", "cnn") in models.BUILT_IN for each in own
    )
    return {
        "version": study["version"],
        "dataset": study["dataset"]["fingerprint"],
        "training": plan.get("training", {}),
        "regime": regime,
        "arm": arm,
        # Its recording; and the user's module, if the regularizer or the network is
        # none of ours.
        "files": {
            name: digest
            for name, digest in inputs.items()
            if name == arm.get("audio") or (name.endswith(".py") and not is_ours)
        },
    }


def check_origins(
    folder: Path, study: Mapping[str, Any], records: Iterable[Mapping]
) -> None:
    """Raises for a record of another study, and says which difference it is."""
    for record in records:
        cell, plan = cell_of(record), study["plan"]
        where = f"{folder / NETWORKS}: {_name(cell)}"
        regimes = (TUNING, *plan["regimes"])
        if cell.arm not in plan["arms"] or cell.regime not in regimes:
            raise UsageError(f"{where} is not in the plan; remove its line.")
        expected = origin(study, cell)
        if record.get("origin") != expected:
            why = "it does not say of which"
            if "origin" in record:
                why = difference(record["origin"], expected)
            raise UsageError(
                f"{where} is of another study: {why}; restore {STUDY}, or "
                "remove its line and run the study again."
            )


def merge_records(found: Iterable[tuple[Path, dict]]) -> dict[Cell, dict]:
    """Merges equal records of one network; raises for unequal ones."""
    merged: dict[Cell, tuple[Path, dict]] = {}
    for folder, record in found:
        cell = cell_of(record)
        other, first = merged.setdefault(cell, (folder, record))
        if first is record:
            continue
        for key in sorted((first.keys() | record.keys()) - {"environment", "seconds"}):
            # A missing entry and one of null are two things.
            if not _are_equal(first.get(key, ...), record.get(key, ...)):
                raise UsageError(
                    f"{folder}: {_name(cell)} is another network than in {other}, by "
                    f"its {key}; leave one of the two out."
                )
    return {cell: record for cell, (_, record) in merged.items()}


def _are_equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            _are_equal(first[key], second[key]) for key in first
        )
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second, equal_nan=True)
    return first == second


def check_shapes(plan: Plan, num_classes: int, records: Mapping[Cell, Mapping]) -> None:
    """Raises for a record whose tables are not as large as the others'."""
    (first, *_) = plan.regimes.values()  # that of the tuning
    expected: dict[str, Any] = {"confusion": [num_classes] * num_classes}
    for cell, record in records.items():
        epochs = plan.regimes.get(cell.regime, first).epochs
        expected |= {"train_loss": epochs, "test_accuracy": epochs}
        for key, shape in shapes(record).items():
            wanted = expected.setdefault(key, shape)
            if shape != wanted or (key == "fourier" and len(set(shape)) != 1):
                raise UsageError(
                    f"{NETWORKS}: {_name(cell)} has a {key} of another size ({shape}, "
                    f"not {wanted}); remove its line, and run the study again."
                )


def _name(cell: Cell) -> str:
    return f"{cell.regime} {cell.arm} {cell.strength:g}, seed {cell.seed},"


def difference(old: Any, new: Any) -> str:
    """Describes how two values differ, of two tables only the first entry that does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return f"{key} {difference(old.get(key), new.get(key))}"
    return f"{old!r} there, {new!r} here"
