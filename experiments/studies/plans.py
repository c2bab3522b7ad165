"""Plans: what a study compares and how it decides, written down before it runs.

A plan is a TOML file, data and nothing else. docs/study.md says what stands in it.
"""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from experiments import files
from experiments.cli import UsageError
from experiments.studies import entries
from experiments.training.models import MODELS, Where
from experiments.training.regularizers import REGULARIZERS, check_settings
from experiments.values import read
from experiments.words import nearest, reason

FOLDER = Path(__file__).parents[1] / "plans"
STRENGTHS = ("intensity", "rate")
GROWS = ("seeds", "arms", "comparisons", "hypotheses")
"""What of a plan a study that goes on may add to."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A regularizer with its settings: one treatment of the trial.

    Attributes:
        name: as the plan calls it.
        reg: a key of `REGULARIZERS`.
        strengths: one; or several, all of which are trained (a sweep), unless the plan
            has a `Tuning`, which chooses one.
        settings: keywords of the recipe's `prepare`.
        where: its layers stand, see `models.make_network`.
        title: what people call it.
    """

    name: str
    reg: str
    strengths: tuple[float, ...]
    settings: Mapping[str, Any]
    where: Where
    title: str


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
        model: the network, a key of `MODELS`.
    """

    name: str
    epochs: int
    train_images: int | None
    augment: bool
    evaluate_every: int
    model: str

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name.replace("_", " ")


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
class Hypothesis:
    """What some of the comparisons are to answer.

    Attributes:
        text: a statement, or a question if nothing confirms it.
        comparisons: pairs of the plan's.
        confirmed_if: "all" or "any" of them must win, in every regime and at every
            strength; None if the plan has no rule.
    """

    text: str
    comparisons: tuple[tuple[str, str], ...]
    confirmed_if: Literal["all", "any"] | None


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
        hypotheses: in the order in which they are answered.
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
    hypotheses: tuple[Hypothesis, ...]
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
        document = tomllib.loads(files.read(path).decode("utf-8-sig"))
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
        why = reason(error).removesuffix(".")
        raise UsageError(f"--plan={name}: not TOML ({why}); correct it.") from None
    check_text("--plan", path)
    return parse(document, path.stem)


def check_text(flag: str, path: Path) -> None:
    """Raises for a file whose name a store cannot hold."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{flag}={path}: its name is not UTF-8 text; rename it."
        ) from None


def parse(document: Mapping[str, Any], name: str, *, is_done: bool = False) -> Plan:
    """Makes a plan of what its file says.

    Args:
        document: of tables, strings, numbers and lists, as `tomllib` reads them.
        name: of the plan, for messages too.
        is_done: True to read what a store was made by, when regularizers and networks
            that were registered then need not be so now.

    Raises:
        UsageError: names the entry at fault, its value and the remedy.
    """
    try:
        said = read(entries.FILE, dict(document))
        _check_names("regimes", said.regimes)
        _check_names("arms", said.arms)
        arms = {each: _make_arm(each, arm, is_done) for each, arm in said.arms.items()}
        if not is_done:
            _check_titles(arms.values())
        tuning = said.tuning
        plan = Plan(
            name=name,
            question=said.question,
            rule=said.rule,
            dataset=said.dataset,
            seeds=_list_seeds(said),
            outcome=said.outcome,
            alpha=said.alpha,
            regimes={
                each: _make_regime(each, regime, is_done)
                for each, regime in said.regimes.items()
            },
            arms=arms,
            comparisons=tuple(map(tuple, said.comparisons)),
            hypotheses=tuple(
                Hypothesis(h.text, tuple(map(tuple, h.comparisons)), h.confirmed_if)
                for h in said.hypotheses.values()
            ),
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


def _list_seeds(table: entries.File | entries.TuningEntry) -> tuple[int, ...]:
    return tuple(range(table.first_seed, table.first_seed + table.seeds))


def _make_regime(name: str, said: entries.RegimeEntry, is_done: bool) -> Regime:
    if said.model not in MODELS and not is_done:
        raise ValueError(
            f"regimes.{name}.model={said.model!r}: unknown; choose one of "
            f"{', '.join(MODELS)}{nearest(said.model, MODELS)}, or register it "
            "(--module)."
        )
    return Regime(name, **dict(said))


def _make_arm(name: str, said: entries.ArmEntry, is_done: bool) -> Arm:
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
        entries.RATES if strength == "rate" else entries.NUMBERS,
        written if isinstance(written, list) else [written],
        f"arms.{name}.{strength}",
    )
    if recipe is not None:
        try:
            check_settings(said.reg, settings)
        except ValueError as error:
            raise ValueError(f"arms.{name}.{error}") from None
    strengths = tuple(map(abs, strengths))  # of -0.0 makes 0.0
    title = said.title or name.replace("_", " ")
    return Arm(name, said.reg, strengths, settings, said.where, title)


def _with_strengths(tables: Mapping[str, Any], arms: Mapping[str, Arm]) -> dict:
    """Writes strengths out where a plan leaves them to a default, which may change."""
    full = {}
    for name, arm in arms.items():
        full[name] = dict(tables[name])
        recipe = REGULARIZERS.get(arm.reg)
        if recipe is not None and recipe.strength is not None:
            full[name].setdefault(recipe.strength, arm.strengths[0])
    return full


def what_grows(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a plan a study may add to; of arms and hypotheses the names."""
    found = {key: document[key] for key in GROWS if key in document}
    return {k: list(v) if isinstance(v, Mapping) else v for k, v in found.items()}


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


def _check_titles(arms: Iterable[Arm]) -> None:
    """Raises for two arms that pages could not tell apart."""
    names: dict[str, str] = {}
    for arm in arms:
        if (same := names.setdefault(arm.title, arm.name)) != arm.name:
            raise ValueError(
                f"arms.{arm.name}.title={arm.title!r}: arms.{same} has it, too; give "
                "another one."
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
    for hypothesis in plan.hypotheses:
        for pair in hypothesis.comparisons:
            if pair not in plan.comparisons:
                raise ValueError(
                    f"hypotheses: {list(pair)} is not among the comparisons; add it "
                    "to them."
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
