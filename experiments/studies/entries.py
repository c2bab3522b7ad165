"""The entries of a plan's file: their types, their ranges and their defaults."""

from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Predicate
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter

from experiments.data import datasets
from experiments.runs.configs import LARGEST, Dtype, is_rate
from experiments.studies.outcomes import PRIMARY
from experiments.training.models import Where

MOST_SEEDS = 10_000
FEW_SEEDS = "(no spread can be told from one; a test needs 6 or more to reach 5 %)"

Primary = Literal[PRIMARY]  # type: ignore[valid-type]  # the names in a table
T = TypeVar("T")
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Whole = Annotated[int, Field(ge=0, le=2**31 - 1)]
Number = Annotated[float, Field(ge=0, le=LARGEST, description="that float32 can hold")]
Rate = Annotated[float, Field(ge=0, lt=1, description="in float32"), Predicate(is_rate)]
Strengths = Annotated[
    list[T],
    Field(min_length=1, description="of one number or more, each of them once"),
    Predicate(lambda strengths: len(set(strengths)) == len(strengths)),
]
Pair = Annotated[
    list[Any],
    Field(description='that is a pair, ["arm", "baseline"]'),
    Predicate(lambda pair: [type(name) for name in pair] == [str, str]),
]
Title = Annotated[
    str,
    Field(min_length=1, max_length=40, description="of up to 40 characters that print"),
    Predicate(str.isprintable),
]
Pairs = Annotated[list[Pair], Field(min_length=1, description="of one pair or more")]
Tables = Annotated[dict[str, T], Field(min_length=1, description="of one or more")]


class Table(BaseModel, extra="forbid"):
    """A table that has no other entries than these."""


class RegimeEntry(Table):
    """What `regimes.NAME` holds, see `plans.Regime`."""

    epochs: Count
    train_images: Annotated[Whole | None, AfterValidator(lambda n: n or None)] = None
    augment: bool = True
    evaluate_every: Count = 1
    model: str = "cnn"


class ArmEntry(Table, extra="allow"):
    """What `arms.NAME` holds, and the settings of its regularizer."""

    reg: str
    where: Where = "all"
    title: Title | None = None


class HypothesisEntry(Table):
    """What `hypotheses.NAME` holds, see `plans.Hypothesis`."""

    text: str
    comparisons: Pairs
    confirmed_if: Literal["all", "any"] | None = None


class TuningEntry(Table):
    """What `tuning` holds, see `plans.Tuning`."""

    images: Count
    first_seed: Whole
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)]


class TrainingEntry(Table):
    """What `training` holds."""

    batch_size: Count = 64
    learning_rate: Number = 1e-3
    weight_decay: Number = 0.01
    dtype: Dtype = "float32"


class RobustnessEntry(Table):
    """What `robustness` holds."""

    corruption_images: Whole = 0
    fourier_images: Whole = 0


class File(Table):
    """What a plan's file holds, see `plans.Plan`."""

    question: str
    rule: str
    dataset: Annotated[
        str, Field(pattern=datasets.PATTERN, description=datasets.DESCRIPTION)
    ] = "auto"
    seeds: Annotated[int, Field(ge=2, le=MOST_SEEDS, description=FEW_SEEDS)]
    first_seed: Whole = 0
    outcome: Primary = "accuracy"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    comparisons: Pairs
    regimes: Tables[RegimeEntry]
    arms: Tables[ArmEntry]
    hypotheses: dict[str, HypothesisEntry] = {}
    tuning: TuningEntry | None = None
    training: TrainingEntry = TrainingEntry()
    robustness: RobustnessEntry = RobustnessEntry()


FILE = TypeAdapter(File)
RATES = TypeAdapter(Strengths[Rate])
NUMBERS = TypeAdapter(Strengths[Number])
