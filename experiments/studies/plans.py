"""Plans: what a study compares and how it decides, written down before it runs.

A plan is a TOML file, data and nothing else. docs/study.md says what stands in it.
"""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Predicate
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter

from experiments.cli import UsageError
from experiments.data import datasets
from experiments.runs.configs import LARGEST, Dtype, is_rate
from experiments.studies.outcomes import PRIMARY
from experiments.training.regularizers import REGULARIZERS, check_settings
from experiments.values import read
from experiments.words import nearest

FOLDER = Path(__file__).parents[1] / "plans"
STRENGTHS = ("intensity", "rate")
MOST_SEEDS = 10_000
FEW_SEEDS = "(no spread can be told from one; a test needs 6 or more to reach 5 %)"
Primary = Literal[PRIMARY]  # type: ignore[valid-type]  # the names in a table


@dataclasses.dataclass(frozen=True)
class Arm:
    """A regularizer with its settings: one treatment of the trial.

    Attributes:
        name: as the plan calls it.
        reg: a key of `REGULARIZERS`.
        strengths: one; or several, all of which are trained (a sweep), unless the plan
            has a `Tuning`, which chooses one.
        settings: keywords of the recipe's `prepare`.
        where: "features" or "inputs", see `models.Network`.
    """

    name: str
    reg: str
    strengths: tuple[float, ...]
    settings: Mapping[str, Any]
    where: str


@dataclasses.dataclass(frozen=True)
class Regime:
    """How much, and on how much, networks are trained.

    Attributes:
        name: as the plan calls it.
        epochs: passes over the training images.
        train_images: the first so many; None for all.
        augment: False to train on the images as they are.
        evaluate_every: how many epochs pass from one evaluation on the test images to
            the next, of which the highest accuracy is called the peak.
    """

    name: str
    epochs: int
    train_images: int | None
    augment: bool
    evaluate_every: int


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How a strength is chosen: by the mean accuracy on images held out of training.

    Attributes:
        images: the last so many training images, which tuning tests on.
        seeds: a network for each, of every candidate.
    """

    images: int
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study does, and what it was decided to conclude from it.

    Attributes:
        name: of the file, without its ending.
        question: what the study answers, a sentence.
        rule: how it decides, in words; see `verdict` for what the words stand for.
        dataset: see `datasets.load`.
        seeds: a network for each in every arm; arms are compared seed by seed.
        outcome: the primary one, see `outcomes.OUTCOMES`.
        alpha: level of the family of comparisons.
        regimes: by name.
        arms: by name.
        comparisons: pairs of an arm and its baseline; each is one test in every regime
            and at every strength, and all of them are the family.
        tuning: or None.
        batch_size: images a step.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        dtype: of the computation.
        corruption_images: how many test images to corrupt; 0 for no robustness.
        fourier_images: how many to add waves to; 0 for no Fourier maps.
        document: the whole file, as read, and the strengths that it left to defaults.
    """

    name: str
    question: str
    rule: str
    dataset: str
    seeds: tuple[int, ...]
    outcome: str
    alpha: float
    regimes: Mapping[str, Regime]
    arms: Mapping[str, Arm]
    comparisons: tuple[tuple[str, str], ...]
    tuning: Tuning | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    dtype: str
    corruption_images: int
    fourier_images: int
    document: Mapping[str, Any]


def load(name: str) -> Plan:
    """Reads a plan.

    Args:
        name: of one of the project's own plans, or the path of a TOML file.

    Raises:
        UsageError: names what is wrong, and what can be done about it.
    """
    path = Path(name)
    own = sorted(path.stem for path in FOLDER.glob("*.toml"))
    if name in own:
        path = FOLDER / f"{name}.toml"
    try:
        # Some editors begin a file with the mark of UTF-8, which TOML does not know.
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"--plan={name}: cannot be read ({error.strerror}); give the path of a "
            f"TOML file, or one of {', '.join(own)}{nearest(name, own)}."
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            f"--plan={name}: cannot be read (not UTF-8 text); save it as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--plan={name}: not TOML ({error}); correct it.") from None
    return parse(document, path.stem)


def parse(document: Mapping[str, Any], name: str, *, is_done: bool = False) -> Plan:
    """Makes a plan of what its file says.

    Args:
        document: of tables, strings, numbers and lists, as `tomllib` reads them.
        name: of the plan, for messages too.
        is_done: True to read what a store was made by, when regularizers that were
            registered then need not be so now.

    Raises:
        UsageError: names the entry at fault, its value and the remedy.
    """
    try:
        said = read(_FILE, dict(document))
        _check_names("regimes", said.regimes)
        _check_names("arms", said.arms)
        arms = {each: _make_arm(each, arm, is_done) for each, arm in said.arms.items()}
        tuning = said.tuning
        plan = Plan(
            name=name,
            question=said.question,
            rule=said.rule,
            dataset=said.dataset,
            seeds=_list_seeds(said),
            outcome=said.outcome,
            alpha=said.alpha,
            regimes={each: Regime(each, **dict(r)) for each, r in said.regimes.items()},
            arms=arms,
            comparisons=tuple(map(tuple, said.comparisons)),
            tuning=tuning and Tuning(tuning.images, _list_seeds(tuning)),
            **dict(said.training),
            **dict(said.robustness),
            document={**document, "arms": _with_strengths(document["arms"], arms)},
        )
        _check_comparisons(plan)
        _check_tuning(plan)
        if plan.outcome == "corruption_error" and not plan.corruption_images:
            raise ValueError(
                f"outcome={plan.outcome}: give robustness.corruption_images, 1 or more."
            )
    except ValueError as error:
        raise UsageError(f"plan {name}: {error}") from None
    return plan


# What may stand in a file


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
Pairs = Annotated[list[Pair], Field(min_length=1, description="of one pair or more")]
Tables = Annotated[dict[str, T], Field(min_length=1, description="of one or more")]


class _Table(BaseModel, extra="forbid"):
    pass


class _Regime(_Table):
    epochs: Count
    train_images: Annotated[Whole | None, AfterValidator(lambda n: n or None)] = None
    augment: bool = True
    evaluate_every: Count = 1


class _Arm(_Table, extra="allow"):
    reg: str
    where: Literal["features", "inputs"] = "features"


class _Tuning(_Table):
    images: Count
    first_seed: Whole
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)]


class _Training(_Table):
    batch_size: Count = 64
    learning_rate: Number = 1e-3
    weight_decay: Number = 0.01
    dtype: Dtype = "float32"


class _Robustness(_Table):
    corruption_images: Whole = 0
    fourier_images: Whole = 0


class _File(_Table):
    question: str
    rule: str
    dataset: datasets.Choice = "auto"
    seeds: Annotated[int, Field(ge=2, le=MOST_SEEDS, description=FEW_SEEDS)]
    first_seed: Whole = 0
    outcome: Primary = "accuracy"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    comparisons: Pairs
    regimes: Tables[_Regime]
    arms: Tables[_Arm]
    tuning: _Tuning | None = None
    training: _Training = _Training()
    robustness: _Robustness = _Robustness()


_FILE = TypeAdapter(_File)
_RATES = TypeAdapter(Strengths[Rate])
_NUMBERS = TypeAdapter(Strengths[Number])


def _list_seeds(table: _File | _Tuning) -> tuple[int, ...]:
    return tuple(range(table.first_seed, table.first_seed + table.seeds))


def _make_arm(name: str, said: _Arm, is_done: bool) -> Arm:
    settings = dict(said.model_extra or {})
    for key in settings:
        if not key.isprintable():
            raise ValueError(f"arms.{name}.{key!r}: unknown; leave it out.")
    recipe = REGULARIZERS.get(said.reg)
    if recipe is not None:
        strength, written = recipe.strength, recipe.default
    elif is_done:
        strength, written = next((s for s in STRENGTHS if s in settings), None), 0.0
    else:
        raise ValueError(
            f"arms.{name}.reg={said.reg!r}: unknown; choose one of "
            f"{', '.join(REGULARIZERS)}{nearest(said.reg, REGULARIZERS)}, or register "
            "it (--module)."
        )
    if strength in settings:
        written = settings.pop(strength)
    strengths = read(
        _RATES if strength == "rate" else _NUMBERS,
        written if isinstance(written, list) else [written],
        f"arms.{name}.{strength}",
    )
    if recipe is not None:
        try:
            check_settings(said.reg, settings)
        except ValueError as error:
            raise ValueError(f"arms.{name}.{error}") from None
    strengths = tuple(map(abs, strengths))  # of -0.0 makes 0.0
    return Arm(name, said.reg, strengths, settings, said.where)


def _with_strengths(tables: Mapping[str, Any], arms: Mapping[str, Arm]) -> dict:
    """Writes strengths out where a plan leaves them to a default, which may change."""
    full = {}
    for name, arm in arms.items():
        full[name] = dict(tables[name])
        recipe = REGULARIZERS.get(arm.reg)
        if recipe is not None and recipe.strength is not None:
            full[name].setdefault(recipe.strength, arm.strengths[0])
    return full


# What entries have to do with each other


def _check_names(key: str, names: Iterable[str]) -> None:
    """Raises for arms or regimes that cannot have folders of their own in a store."""
    folded: dict[str, str] = {}
    for name in names:
        # "tuning" is a folder that the store has already.
        if not re.fullmatch("[A-Za-z0-9_-]{1,64}", name) or name == "tuning":
            raise ValueError(
                f"{key}.{name!r}: give a name of up to 64 letters, digits, _ and -, "
                "other than tuning."
            )
        if (same := folded.setdefault(name.lower(), name)) != name:
            raise ValueError(
                f"{key}.{name}: the same folder as {same} to some computers; give "
                "another name."
            )


def _check_comparisons(plan: Plan) -> None:
    for pair in plan.comparisons:
        for name in pair:
            if name not in plan.arms:
                raise ValueError(
                    f"comparisons: there is no arm {name!r}; the arms are "
                    f"{', '.join(plan.arms)}{nearest(name, plan.arms)}."
                )
        arm, baseline = pair
        if arm == baseline or plan.comparisons.count(pair) > 1:
            raise ValueError(
                f"comparisons: {list(pair)} stands there twice, or compares an arm "
                "with itself; leave it out."
            )
        if len(plan.arms[baseline].strengths) > 1 and plan.tuning is None:
            raise ValueError(
                f"comparisons: {baseline!r} is a baseline with several strengths, and "
                "nothing chooses one; give it one, or a [tuning]."
            )


def _check_tuning(plan: Plan) -> None:
    """Raises for seeds tuned on and tested, and arms tuned by unequal numbers."""
    if plan.tuning is None:
        return
    if shared := sorted(set(plan.tuning.seeds) & set(plan.seeds)):
        raise ValueError(
            f"tuning.first_seed={plan.tuning.seeds[0]}: seed {shared[0]} is one of the "
            "study's too; give others, so that no network is both tuned on and tested."
        )
    tuned = {arm.name: len(arm.strengths) for arm in plan.arms.values()}
    tuned = {name: count for name, count in tuned.items() if count > 1}
    if len(set(tuned.values())) > 1:
        least, most = (choose(tuned, key=lambda n: tuned[n]) for choose in (min, max))
        raise ValueError(
            f"arm {most} has {tuned[most]} strengths to choose from, arm {least} "
            f"{tuned[least]}; give all that are tuned the same number."
        )
    if not tuned or len(plan.regimes) > 1:
        raise ValueError(
            "tuning needs arms with several strengths, and a single regime; there are "
            f"{len(tuned)} such arms and {len(plan.regimes)} regimes."
        )
