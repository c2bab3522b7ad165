"""The types of what a store holds, against which it is checked when it is read."""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import pydantic
from pydantic import ConfigDict, Field

from experiments.runs.configs import LARGEST
from experiments.training.metrics import NUM_BINS

Count = Annotated[int, Field(ge=0, lt=2**63)]
# Within float32, so that no square leaves float64.
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Percent = Annotated[float, Field(ge=0, le=100)]
Score = Number | None  # None where a network diverged
Curve = list[Score]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
Bins = Annotated[Curve, Field(min_length=NUM_BINS, max_length=NUM_BINS)]
Severities = Annotated[list[Percent], Field(min_length=5, max_length=5)]


class Reliability(TypedDict):
    """See `metrics.calibration`."""

    count: Annotated[list[Count], Field(min_length=NUM_BINS, max_length=NUM_BINS)]
    confidence: Bins
    accuracy: Bins


class Fourier(TypedDict):
    """Errors by frequency, see `probes.score_answers`."""

    images: Count
    norm: Number
    errors: list[list[Percent]]


class Record(TypedDict):
    """What is known of a network; other entries are its own."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    regime: str
    arm: str
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
    confusion: NotRequired[list[list[Count]]]
    nll: NotRequired[Score]
    brier: NotRequired[Score]
    ece: NotRequired[Score]
    ece_mass: NotRequired[Score]
    gap: NotRequired[Score]
    train_nll: NotRequired[Score]
    train_accuracy: NotRequired[Score]
    reliability: NotRequired[Reliability | None]
    corruptions: NotRequired[dict[str, Severities]]
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
    std: Number
    exponents: Exponents
    power: Power


class Noise(TypedDict):
    """See `noise.measure_noise`."""

    strength: Number
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
