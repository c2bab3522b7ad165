"""Plans: what a study compares and how it decides, written down before it runs.

A plan is a TOML file, data and nothing else. docs/study.md says what stands in it.
"""

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.cli import UsageError
from experiments.data import datasets
from experiments.runs.configs import DTYPES, LARGEST, is_rate
from experiments.training.regularizers import REGULARIZERS, check_settings
from experiments.words import nearest

FOLDER = Path(__file__).parents[1] / "plans"
STRENGTHS = ("intensity", "rate")
OUTCOMES = ("accuracy", "nll", "brier", "ece", "corruption_error")
MOST_SEEDS = 10_000


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
        outcome: the primary one, of `OUTCOMES`.
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
    top = _Table(document, f"plan {name}: ")
    num_seeds = top.take_count("seeds", most=MOST_SEEDS)
    first_seed = top.take_count("first_seed", 0, 0)
    if num_seeds < 2:
        raise UsageError(
            f"plan {name}: seeds={num_seeds}: no spread can be told from one; give 2 "
            "or more, 6 or more for a test to reach 5 %."
        )
    seeds = tuple(range(first_seed, first_seed + num_seeds))
    tuning = _parse_tuning(top, seeds)
    training = top.take_table("training")
    robustness = top.take_table("robustness")
    arms = {
        arm.name: arm
        for arm in (
            _parse_arm(arm_name, table, is_done)
            for arm_name, table in top.take_tables("arms").items()
        )
    }
    plan = Plan(
        name=name,
        question=top.take("question", str),
        rule=top.take("rule", str),
        dataset=top.take_choice("dataset", datasets.CHOICES, "auto"),
        seeds=seeds,
        outcome=top.take_choice("outcome", OUTCOMES, "accuracy"),
        alpha=top.take_number("alpha", 0.05),
        regimes={
            regime_name: _parse_regime(regime_name, table)
            for regime_name, table in top.take_tables("regimes").items()
        },
        arms=arms,
        comparisons=_parse_comparisons(top, arms),
        tuning=tuning,
        batch_size=training.take_count("batch_size", 64),
        learning_rate=training.take_number("learning_rate", 1e-3),
        weight_decay=training.take_number("weight_decay", 0.01),
        dtype=training.take_choice("dtype", DTYPES, "float32"),
        corruption_images=robustness.take_count("corruption_images", 0, 0),
        fourier_images=robustness.take_count("fourier_images", 0, 0),
        document={**document, "arms": _with_strengths(document["arms"], arms)},
    )
    for table in (top, training, robustness):
        table.refuse_the_rest()
    if not 0 < plan.alpha < 1:
        raise UsageError(f"plan {name}: alpha={plan.alpha}: give one between 0 and 1.")
    if plan.outcome == "corruption_error" and not plan.corruption_images:
        raise UsageError(
            f"plan {name}: outcome=corruption_error: give "
            "robustness.corruption_images, 1 or more."
        )
    _check_trials(plan)
    return plan


def _parse_tuning(top: "_Table", seeds: tuple[int, ...]) -> Tuning | None:
    if "tuning" not in top.document:
        return None
    table = top.take_table("tuning")
    first = table.take_count("first_seed", None, 0)
    count = table.take_count("seeds", most=MOST_SEEDS)
    tuning = Tuning(table.take_count("images"), tuple(range(first, first + count)))
    table.refuse_the_rest()
    if shared := sorted(set(tuning.seeds) & set(seeds)):
        raise UsageError(
            f"{table.where}first_seed={first}: seed {shared[0]} is one of the study's "
            "too; give others, so that no network is both tuned on and tested."
        )
    return tuning


def _parse_regime(name: str, table: "_Table") -> Regime:
    regime = Regime(
        name,
        table.take_count("epochs"),
        table.take_count("train_images", 0, 0) or None,
        table.take("augment", bool, True),
        table.take_count("evaluate_every", 1),
    )
    table.refuse_the_rest()
    return regime


def _parse_arm(name: str, table: "_Table", is_done: bool) -> Arm:
    reg = table.take("reg", str)
    if reg not in REGULARIZERS and is_done:
        written = [table.take(k, int | float | list, 0.0) for k in STRENGTHS]
        strengths: Any = next(filter(None, written), 0.0)
        strengths = strengths if isinstance(strengths, list) else [strengths]
        where = table.take("where", str, "features")
        return Arm(name, reg, tuple(map(float, strengths)), table.take_rest(), where)
    if reg not in REGULARIZERS:
        raise UsageError(
            f"{table.where}reg={reg!r}: unknown; choose one of "
            f"{', '.join(REGULARIZERS)}{nearest(reg, REGULARIZERS)}, or register it "
            "(--module)."
        )
    recipe = REGULARIZERS[reg]
    strengths = recipe.default
    if recipe.strength is not None:
        strengths = table.take(recipe.strength, int | float | list, recipe.default)
    strengths = strengths if isinstance(strengths, list) else [strengths]
    for strength in strengths:
        below_1 = recipe.strength == "rate"
        if (
            isinstance(strength, bool)
            or not isinstance(strength, int | float)
            or not 0 <= strength <= LARGEST
            or (below_1 and not is_rate(strength))
        ):
            raise UsageError(
                f"{table.where}{recipe.strength}={strength!r}: give a finite number of "
                f"0 or more, {'below 1' if below_1 else 'which float32 can hold'}."
            )
    if not strengths or len(set(strengths)) < len(strengths):
        raise UsageError(
            f"{table.where}{recipe.strength}={strengths}: give one number or more, "
            "each of them once."
        )
    where = table.take_choice("where", ("features", "inputs"), "features")
    settings = table.take_rest()
    try:
        check_settings(reg, settings)
    except ValueError as error:
        raise UsageError(f"{table.where}{error}") from None
    strengths = tuple(abs(float(each)) for each in strengths)  # of -0.0 makes 0.0
    return Arm(name, reg, strengths, settings, where)


def _with_strengths(tables: Mapping[str, Any], arms: Mapping[str, Arm]) -> dict:
    """Writes strengths out where a plan leaves them to a default, which may change."""
    full = {}
    for name, arm in arms.items():
        full[name] = dict(tables[name])
        recipe = REGULARIZERS.get(arm.reg)
        if recipe is not None and recipe.strength is not None:
            full[name].setdefault(recipe.strength, arm.strengths[0])
    return full


def _parse_comparisons(
    top: "_Table", arms: Mapping[str, Arm]
) -> tuple[tuple[str, str], ...]:
    pairs = top.take("comparisons", list)
    for pair in pairs:
        is_pair = isinstance(pair, list) and len(pair) == 2
        if not is_pair or not all(isinstance(name, str) for name in pair):
            raise UsageError(
                f"{top.where}comparisons: {pair!r} is not a pair of arms; write "
                '["arm", "baseline"].'
            )
        for name in pair:
            if name not in arms:
                raise UsageError(
                    f"{top.where}comparisons: there is no arm {name!r}; the arms are "
                    f"{', '.join(arms)}{nearest(name, arms)}."
                )
        if pair[0] == pair[1] or pairs.count(pair) > 1:
            raise UsageError(
                f"{top.where}comparisons: {pair!r} stands there twice, or compares an "
                "arm with itself; leave it out."
            )
        baseline = arms[pair[1]]
        if len(baseline.strengths) > 1 and "tuning" not in top.document:
            raise UsageError(
                f"{top.where}comparisons: {baseline.name!r} is a baseline with several "
                "strengths, and nothing chooses one; give it one, or a [tuning]."
            )
    if not pairs:
        raise UsageError(f"{top.where}comparisons=[]: name a pair or more.")
    return tuple((arm, baseline) for arm, baseline in pairs)


def _check_trials(plan: Plan) -> None:
    """Raises for a tuning in which one arm has more trials than another."""
    if plan.tuning is None:
        return
    tuned = {arm.name: len(arm.strengths) for arm in plan.arms.values()}
    tuned = {name: count for name, count in tuned.items() if count > 1}
    if len(set(tuned.values())) > 1:
        least, most = (choose(tuned, key=lambda n: tuned[n]) for choose in (min, max))
        raise UsageError(
            f"plan {plan.name}: arm {most} has {tuned[most]} strengths to choose from, "
            f"arm {least} {tuned[least]}; give all that are tuned the same number."
        )
    if not tuned or len(plan.regimes) > 1:
        raise UsageError(
            f"plan {plan.name}: tuning needs arms with several strengths, and a single "
            f"regime; there are {len(tuned)} such arms and {len(plan.regimes)} regimes."
        )


class _Table:
    """A table of the file, of which what was not asked for is refused at the end."""

    def __init__(self, document: Mapping[str, Any], where: str):
        self.document = document
        self.where = where
        self._asked: set[str] = set()
        for key in document:
            if not key.isprintable():
                raise UsageError(f"{where}{key!r}: unknown; leave it out.")

    def take(self, key: str, kind: Any, default: Any = None) -> Any:
        self._asked.add(key)
        value = self.document.get(key, default)
        if value is None:
            raise UsageError(f"{self.where}{key} is missing; add it.")
        # A bool is an int to Python, but not to who writes a plan.
        is_bool = isinstance(value, bool)
        if not isinstance(value, kind) or is_bool != (kind is bool):
            raise UsageError(
                f"{self.where}{key}={value!r}: give a value of type "
                f"{getattr(kind, '__name__', kind)}."
            )
        return value

    def take_number(self, key: str, default: float | None = None) -> float:
        value = self.take(key, int | float, default)
        if not 0 <= value <= LARGEST:
            raise UsageError(
                f"{self.where}{key}={value}: give a finite number of 0 or more, which "
                "float32 can hold."
            )
        return float(value)

    def take_count(
        self,
        key: str,
        default: int | None = None,
        least: int = 1,
        most: int = 2**31 - 1,
    ) -> int:
        value = self.take(key, int, default)
        if not least <= value <= most:
            raise UsageError(
                f"{self.where}{key}={value}: give a whole number from {least} to "
                f"{most}."
            )
        return value

    def take_choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.take(key, str, default)
        if value not in choices:
            raise UsageError(
                f"{self.where}{key}={value!r}: choose one of {', '.join(choices)}"
                f"{nearest(value, choices)}."
            )
        return value

    def take_table(self, key: str) -> "_Table":
        table = self.take(key, dict, {})
        return _Table(table, f"{self.where}{key}.")

    def take_tables(self, key: str) -> dict[str, "_Table"]:
        tables = self.take(key, dict, {})
        if not tables:
            raise UsageError(f"{self.where}{key}: empty; give one or more.")
        folded: dict[str, str] = {}
        for name, table in tables.items():
            # Names are folders of the store, and "tuning" is one that it has already.
            if not re.fullmatch("[A-Za-z0-9_-]{1,64}", name) or name == "tuning":
                raise UsageError(
                    f"{self.where}{key}.{name!r}: give a name of up to 64 letters, "
                    "digits, _ and -, other than tuning."
                )
            if (same := folded.setdefault(name.lower(), name)) != name:
                raise UsageError(
                    f"{self.where}{key}.{name}: the same folder as {same} to some "
                    "computers; give another name."
                )
            if not isinstance(table, dict):
                raise UsageError(
                    f"{self.where}{key}.{name}={table!r}: give a table, [{key}.{name}]."
                )
        return {
            name: _Table(table, f"{self.where}{key}.{name}.")
            for name, table in tables.items()
        }

    def take_rest(self) -> dict[str, Any]:
        return {k: v for k, v in self.document.items() if k not in self._asked}

    def refuse_the_rest(self) -> None:
        for key in self.take_rest():
            raise UsageError(
                f"{self.where}{key}: unknown; known are "
                f"{', '.join(sorted(self._asked))}{nearest(key, self._asked)}."
            )
