"""What a study's records say: its comparisons, their decisions, and a verdict in words.

A network that diverged, or has no record, is named and never averaged; a comparison
that lacks one is not tested, and counts as p = 1 among those that are.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import store
from experiments.corruptions import BENCHMARK
from experiments.plans import OUTCOMES, Plan, Regime
from experiments.store import Study
from sounddrop_jax import statistics

HIGHER_IS_BETTER = ("accuracy", "peak_accuracy")
POWER = 0.8
"""How probably `Comparison.detectable` would have been found."""

# What `sentence` spells out; more, it counts.
_MOST_SPELT_OUT = 8
_MOST_REASONS = 3
_VERBS = {"wins": "beats", "loses": "loses to", "undecided": "cannot be told from"}
_UNITS = {
    "accuracy": "points of accuracy",
    "nll": "nats of negative log-likelihood",
    "brier": "of Brier score",
    "ece": "of calibration error",
    "corruption_error": "points of error on corrupted images",
}


class Comparison(NamedTuple):
    """An arm and its baseline, seed by seed.

    Attributes:
        regime: its name.
        arm: its name.
        strength: of the arm; None if it is tuned and not chosen yet.
        baseline: the name of the other arm.
        baseline_strength: of the baseline; None as above.
        outcome: what is compared, a key of the records.
        seeds: of the pairs that `result` is about: those of the plan, less those that
            `note` names.
        result: arm minus baseline, in the units of the outcome, whichever direction is
            the better one, with intervals of 95 %; None if there are fewer than 2
            pairs. If not all of the plan's seeds are among them, for display only.
        p_adjusted: by Holm's method, over the whole family; None if untested.
        detectable: the smallest difference that these seeds would have found with
            probability `POWER`, see `statistics.smallest_detectable_effect`; None
            without a test, or without a spread to tell it from.
        decision: "wins" if the difference is in the better direction and `p_adjusted`
            below the plan's alpha, "loses" if it is in the other one, "undecided" if
            `p_adjusted` is alpha or more; "untested"; or "secondary", of which no test
            was planned.
        note: why it is untested, or what else the numbers suffer from; or "".
    """

    regime: str
    arm: str
    strength: float | None
    baseline: str
    baseline_strength: float | None
    outcome: str
    seeds: tuple[int, ...]
    result: statistics.PairedComparison | None
    p_adjusted: float | None
    detectable: float | None
    decision: str
    note: str

    @property
    def bounds(self) -> tuple[float | None, float | None, float | None]:
        """The mean difference and its interval, None where there is none."""
        if self.result is None:
            return None, None, None
        return self.result.mean_difference, self.result.low, self.result.high


class Region(NamedTuple):
    """What was decided of an arm along its strengths, in one regime.

    Attributes:
        regime: its name.
        arm: its name.
        baseline: the name of the other arm.
        wins: the strengths at which the arm wins, from the weakest to the strongest.
        loses: those at which it loses.
        best: the comparison with the best difference. Chosen for that, its difference
            is somewhat too good; the decisions allow for all strengths.
    """

    regime: str
    arm: str
    baseline: str
    wins: tuple[float, ...]
    loses: tuple[float, ...]
    best: Comparison

    def __str__(self) -> str:
        decided = [
            f"{decision} at {', '.join(f'{strength:g}' for strength in strengths)}"
            for decision, strengths in (("wins", self.wins), ("loses", self.loses))
            if strengths
        ]
        return "; ".join(decided) or "undecided"


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What the records of a study say; each part is computed once, when it is needed.

    Attributes:
        study: as its stores hold it.
    """

    study: Study

    @functools.cached_property
    def family(self) -> list[Comparison]:
        """The decided comparisons, see `compare`."""
        return compare(self.study)

    @functools.cached_property
    def secondary(self) -> list[Comparison]:
        """The comparisons on other outcomes, see `secondary`."""
        return secondary(self.study)

    @functools.cached_property
    def rows(self) -> list[dict]:
        """The summary of every arm, see `summarize`."""
        return summarize(self.study)


def compare(study: Study) -> list[Comparison]:
    """Decides the family of comparisons that the plan names, on its primary outcome.

    Returns:
        One for each regime, pair of arms and strength, in this order.
    """
    plan = study.plan
    family = _compare(study, plan.outcome)
    p_values = [
        comparison.result.p_value
        if comparison.result is not None and comparison.seeds == plan.seeds
        else 1.0
        for comparison in family
    ]
    adjusted = statistics.holm(np.array(p_values)).tolist()
    return [
        _decide(plan, comparison, p_adjusted, len(family))
        for comparison, p_adjusted in zip(family, adjusted, strict=True)
    ]


def regions(family: Sequence[Comparison]) -> list[Region]:
    """Finds where arms that were trained at several strengths win and lose.

    Args:
        family: as `compare` returns it.

    Returns:
        One for each regime and such pair of arms, as far as it was tested.
    """
    along: dict[tuple[str, str, str], list[Comparison]] = {}
    for each in family:
        if each.p_adjusted is not None:
            along.setdefault((each.arm, each.baseline, each.regime), []).append(each)
    found = []
    for (arm, baseline, regime), tested in along.items():
        if len(tested) > 1:
            ordered = sorted(tested, key=lambda each: each.strength or 0)
            wins, loses = (
                tuple(
                    each.strength or 0 for each in ordered if each.decision == decision
                )
                for decision in ("wins", "loses")
            )
            best = max(ordered, key=_advantage)
            found.append(Region(regime, arm, baseline, wins, loses, best))
    return found


def secondary(study: Study) -> list[Comparison]:
    """Compares the same pairs on the other outcomes: intervals, and no tests.

    Returns:
        Those of one outcome after the other, of `plans.OUTCOMES`, peak_accuracy and
        gap, as far as there are records of it.
    """
    return [
        comparison
        for outcome in (*OUTCOMES, "peak_accuracy", "gap")
        if outcome != study.plan.outcome
        and any(record.get(outcome) is not None for record in study.records)
        for comparison in _compare(study, outcome)
    ]


def summarize(study: Study) -> list[dict]:
    """Summarises every arm at every strength in every regime.

    Returns:
        Rows, in the order of the plan: regime, arm and strength (None if it is tuned
        and not chosen yet); n, the number of networks that count; diverged and missing,
        the seeds that do not; and for each outcome, such as accuracy, accuracy_mean and
        accuracy_std, the sample standard deviation. train_loss is that of the last
        epoch. A mean is None if any of the n networks lacks the score, a standard
        deviation also if n is 1.
    """
    plan, networks = study.plan, _networks(study)
    rows = []
    for regime, arm, strength in _groups(study):
        counted, diverged, absent = [], [], []
        for seed in plan.seeds:
            record = networks.get((regime, arm, strength, seed))
            if record is None:
                absent.append(seed)
            elif record["diverged"]:
                diverged.append(seed)
            else:
                counted.append({**record, "train_loss": record["train_loss"][-1]})
        row: dict[str, Any] = {
            "regime": regime,
            "arm": arm,
            "strength": strength,
            "n": len(counted),
            "diverged": diverged,
            "missing": absent,
        }
        for outcome in (
            *("accuracy", "peak_accuracy", "train_loss", "gap"),
            *("nll", "brier", "ece", "ece_mass", "corruption_error"),
        ):
            # A score that is missing comes out as NaN, and the mean with it.
            scores = np.array([record.get(outcome) for record in counted], float)
            known = len(scores) > 0 and np.isfinite(scores).all()
            several = known and len(scores) > 1
            row[f"{outcome}_mean"] = float(scores.mean()) if known else None
            row[f"{outcome}_std"] = float(scores.std(ddof=1)) if several else None
        rows.append(row)
    return rows


def departures(analysis: Analysis, registered: Plan | None) -> list[str]:
    """Lists how a study departs from its plan, and from the benchmarks it is named by.

    Args:
        analysis: of the study.
        registered: the plan as its file says it, from `plans.load`; None if there is no
            such file.

    Returns:
        Sentences.
    """
    study = analysis.study
    plan = study.plan
    found = []
    if registered is None:
        found.append(
            f"There is no plan file of the name {plan.name}, so nothing shows what was "
            "decided before the networks were trained."
        )
    else:
        found += _changes(plan, registered)
    for row in analysis.rows:
        name = f"{_arm(study, row['arm'], row['strength'])} in regime {row['regime']}"
        if row["missing"]:
            found.append(f"{name}: {_seeds(row['missing'])} missing.")
        if row["diverged"]:
            found.append(f"{name}: {_seeds(row['diverged'])} diverged.")
    planned = store.tuning_cells(plan)
    if len(study.tuning) < len(planned):
        lacking = len(planned) - len(study.tuning)
        found.append(f"The tuning lacks {lacking} of its {len(planned)} networks.")
    for record in study.tuning:
        if record["diverged"]:
            name = _arm(study, record["arm"], record["strength"])
            found.append(f"{name} in the tuning: seed {record['seed']} diverged.")

    environments = [r["environment"] for r in (*study.records, *study.tuning)]
    for key, things in (
        ("commit", "commits"),
        ("jax", "versions of JAX"),
        ("device", "devices"),
    ):
        values = sorted({str(each[key] or "unknown") for each in environments})
        if len(values) > 1:
            found.append(f"The records are of several {things}: {', '.join(values)}.")
    if any(str(each["commit"]).endswith("-dirty") for each in environments):
        found.append("Some networks were trained with code that was not committed.")

    if plan.corruption_images:
        found.append(
            f"The corruption benchmark is {len(BENCHMARK)} of its 15 corruptions: "
            "frost, which pastes photographs, is left out."
        )
    sources = [record.get("corruption_source", {}) for record in study.records]
    names = dict.fromkeys(name for source in sources for name in source)
    generated = [
        name for name in names if any(s.get(name) == "generated" for s in sources)
    ]
    if generated:
        which = ", ".join(generated)
        if len(generated) == len(names):
            which = "All corruptions"
        found.append(
            f"{which} {'was' if which in names else 'were'} generated here, after the "
            "published definitions, instead of read from CIFAR-10-C."
        )
    if study.dataset["title"] != "CIFAR-10":
        found.append(
            f"The images are {_title(study)}, not CIFAR-10 with its official pixels."
        )
    return found


def sentence(analysis: Analysis) -> str:
    """Writes in one to three sentences what the study found."""
    study, family = analysis.study, analysis.family
    plan = study.plan
    tested = [each for each in family if each.decision != "untested"]
    regimes = list(plan.regimes.values())
    trained = f"{_training(regimes[0])} and " if len(regimes) == 1 else ""
    opening = f"On {_title(study)}, {trained}over {len(plan.seeds)} paired seeds, "
    if why := _too_few(plan, len(family)):
        return f"{opening}nothing can be decided, whatever the differences: {why}."
    if not tested:
        found = "no comparison could be tested"
    elif len(family) > _MOST_SPELT_OUT:
        found = _count(study, tested)
    else:
        found = _spell_out(study, tested)
    sentences = (
        f"{opening}{found}.",
        _say_untested(study, family),
        _say_limits(plan, tested, len(family)),
    )
    return " ".join(filter(None, sentences))


# Comparisons


def _compare(study: Study, outcome: str) -> list[Comparison]:
    """Compares the pairs of the plan, without deciding anything."""
    plan, networks = study.plan, _networks(study)
    strengths = _strengths(study)
    comparisons = []
    for regime in plan.regimes:
        for arm, baseline in plan.comparisons:
            (baseline_strength,) = strengths[baseline]
            theirs, their_faults = _scores(
                plan, networks, (regime, baseline, baseline_strength), outcome
            )
            for strength in strengths[arm]:
                ours, our_faults = _scores(
                    plan, networks, (regime, arm, strength), outcome
                )
                seeds = tuple(s for s in plan.seeds if s in ours and s in theirs)
                faults = our_faults + their_faults
                result = None
                if len(seeds) > 1:
                    result = statistics.compare_pairs(
                        np.array([ours[seed] for seed in seeds]),
                        np.array([theirs[seed] for seed in seeds]),
                    )
                    if result.interval_method == "none":
                        faults.append(
                            "all differences are equal, so the interval has no width"
                        )
                comparisons.append(
                    Comparison(
                        regime=regime,
                        arm=arm,
                        strength=strength,
                        baseline=baseline,
                        baseline_strength=baseline_strength,
                        outcome=outcome,
                        seeds=seeds,
                        result=result,
                        p_adjusted=None,
                        detectable=None,
                        decision="secondary",
                        note="; ".join(faults),
                    )
                )
    return comparisons


def _decide(
    plan: Plan, comparison: Comparison, p_adjusted: float, num_comparisons: int
) -> Comparison:
    """Decides a comparison of a family, given its adjusted p-value."""
    result, note = comparison.result, comparison.note
    if result is None or comparison.seeds != plan.seeds:
        return comparison._replace(decision="untested")
    if why := _too_few(plan, num_comparisons):
        note = f"{why}; {note}" if note else why
        return comparison._replace(decision="untested", note=note)
    decision = "undecided"
    if p_adjusted < plan.alpha:
        decision = "wins" if _advantage(comparison) > 0 else "loses"
    detectable = None
    if result.interval_method != "none" and plan.alpha < POWER:
        detectable = statistics.smallest_detectable_effect(
            result.num_seeds,
            result.std_difference,
            num_comparisons=num_comparisons,
            alpha=plan.alpha,
            power=POWER,
        )
    return comparison._replace(
        p_adjusted=p_adjusted, detectable=detectable, decision=decision
    )


def _advantage(comparison: Comparison) -> float:
    """Returns the mean difference of an arm, positive where it is the better one."""
    assert comparison.result is not None
    sign = 1 if comparison.outcome in HIGHER_IS_BETTER else -1
    return sign * comparison.result.mean_difference


def _too_few(plan: Plan, num_comparisons: int) -> str:
    """Explains why a plan's seeds are too few to decide; "" if they are not."""
    smallest = statistics.smallest_p_value(len(plan.seeds))
    if smallest * num_comparisons < plan.alpha:
        return ""
    family = "" if num_comparisons == 1 else f"of {num_comparisons} comparisons one "
    return (
        f"the p-value of {len(plan.seeds)} pairs is never below {smallest:.2g}, and "
        f"{family}would have to be below {plan.alpha / num_comparisons:.2g}"
    )


def _scores(
    plan: Plan,
    networks: Mapping[tuple, Mapping],
    group: tuple[str, str, float | None],
    outcome: str,
) -> tuple[dict[int, float], list[str]]:
    """Returns scores by seed, and in words which seeds have none and why."""
    _, arm, strength = group
    if strength is None:
        return {}, [f"the strength of {arm} is not chosen yet"]
    scores: dict[int, float] = {}
    faults: dict[str, list[int]] = {}
    for seed in plan.seeds:
        record = networks.get((*group, seed))
        if record is None:
            faults.setdefault(f"of {arm} missing", []).append(seed)
        elif record["diverged"]:
            faults.setdefault(f"of {arm} diverged", []).append(seed)
        elif record.get(outcome) is None:
            faults.setdefault(f"of {arm} without {outcome}", []).append(seed)
        else:
            scores[seed] = record[outcome]
    return scores, [f"{_seeds(seeds)} {fault}" for fault, seeds in faults.items()]


def _networks(study: Study) -> dict[tuple, dict]:
    return {tuple(store.cell_of(record)): dict(record) for record in study.records}


def _strengths(study: Study) -> dict[str, Sequence[float | None]]:
    """Returns the strengths of every arm that appear: of a tuned one, that chosen."""
    chosen = store.choose_strengths(study.plan, study.tuning)
    return {
        name: [chosen[name]] if name in chosen else arm.strengths
        for name, arm in study.plan.arms.items()
    }


def _groups(study: Study) -> list[tuple[str, str, float | None]]:
    strengths = _strengths(study)
    return [
        (regime, arm, strength)
        for regime in study.plan.regimes
        for arm in study.plan.arms
        for strength in strengths[arm]
    ]


# Departures


def _changes(plan: Plan, registered: Plan) -> list[str]:
    """Lists where a plan differs from the one of its file."""
    found = []
    if plan.seeds != registered.seeds:
        found.append(
            f"The study has {_seeds(plan.seeds)} ({len(plan.seeds)}); its plan file "
            f"has {_seeds(registered.seeds)} ({len(registered.seeds)})."
        )
    pairs = [
        ("arm", list(plan.arms), list(registered.arms)),
        (
            "comparison",
            [" with ".join(pair) for pair in plan.comparisons],
            [" with ".join(pair) for pair in registered.comparisons],
        ),
    ]
    for kind, ours, theirs in pairs:
        for which, names in (
            ("not in the plan file", [name for name in ours if name not in theirs]),
            ("not in the study", [name for name in theirs if name not in ours]),
        ):
            if names:
                found.append(f"{_number(names, kind)} {which}: {', '.join(names)}.")
    compared = {"name", "document", "seeds", "arms", "comparisons"}
    changed = [
        field.name.replace("_", " ")
        for field in dataclasses.fields(Plan)
        if field.name not in compared
        and getattr(plan, field.name) != getattr(registered, field.name)
    ]
    changed += [
        f"arm {name}"
        for name in plan.arms
        if plan.arms[name] != registered.arms.get(name, plan.arms[name])
    ]
    if changed:
        found.append(f"Other than in the plan file: {', '.join(changed)}.")
    return found


def _number(names: Collection[str], kind: str) -> str:
    return f"{len(names)} {kind}{'s are' if len(names) > 1 else ' is'}"


# Words


def _spell_out(study: Study, tested: Sequence[Comparison]) -> str:
    """Writes what came of each comparison: "a beats b by 2.1 (1.6 to 2.6); c ..."."""
    units = iter([True])  # with the first number only
    clauses = []
    for regime in study.plan.regimes.values():
        where = ""
        if len(study.plan.regimes) > 1:
            where = f"in regime {regime.name} ({_training(regime)}) "
        arms: dict[tuple[str, float | None], list[Comparison]] = {}
        for each in tested:
            if each.regime == regime.name:
                arms.setdefault((each.arm, each.strength), []).append(each)
        for (arm, strength), own in arms.items():
            found = []
            for decision, verb in _VERBS.items():
                baselines = [
                    f"{_arm(study, each.baseline, each.baseline_strength)} "
                    f"{_numbers(each, with_unit=next(units, False))}"
                    for each in own
                    if each.decision == decision
                ]
                if baselines:
                    word = " or" if decision == "undecided" else " and"
                    found.append(f"{verb} {_join(baselines, word)}")
            word = " and" if len(found) == len(own) else ", and"
            clauses.append(f"{where}{_arm(study, arm, strength)} {_join(found, word)}")
            where = ""
    return "; ".join(clauses)


def _count(study: Study, tested: Sequence[Comparison]) -> str:
    """Counts what came of many comparisons, and names the largest win and loss."""
    wins, losses, undecided = (
        [each for each in tested if each.decision == decision] for decision in _VERBS
    )
    found = [
        f"the arm beats its baseline in {len(wins)} of {len(tested)} comparisons, "
        f"loses in {len(losses)}, and {len(undecided)} "
        f"{'is' if len(undecided) == 1 else 'are'} undecided"
    ]
    for decided, name, over in ((wins, "win", "over"), (losses, "loss", "to")):
        if decided:
            largest = max(decided, key=_size)
            where = f" in regime {largest.regime}"
            found.append(
                f"the largest {name} is that of "
                f"{_arm(study, largest.arm, largest.strength)} {over} "
                f"{_arm(study, largest.baseline, largest.baseline_strength)}"
                f"{where if len(study.plan.regimes) > 1 else ''}, "
                f"{_numbers(largest, with_unit=True)}"
            )
    return "; ".join(found)


def _size(comparison: Comparison) -> float:
    assert comparison.result is not None
    return abs(comparison.result.mean_difference)


def _numbers(comparison: Comparison, *, with_unit: bool) -> str:
    """Writes a difference and its interval; of what is decided, as above 0."""
    result = comparison.result
    assert result is not None
    mean, low, high = result.mean_difference, result.low, result.high
    is_decided = comparison.decision != "undecided"
    if is_decided and mean < 0:
        mean, low, high = -mean, -high, -low
    write = _writer(high - low)
    difference, interval = write(mean), f"{write(low)} to {write(high)}"
    if with_unit:
        difference += f" {_UNITS[comparison.outcome]}"
        interval = f"95 % interval {interval}"
    if is_decided:
        return f"by {difference} ({interval})"
    return f"(difference {difference}, {interval})"


def _writer(size: float) -> Callable[[float], str]:
    """Returns how to write numbers of that size, or with an interval of that width."""
    # To a fifth of it or finer.
    digits = max(1, 1 + math.ceil(-math.log10(2 * size))) if size > 0 else 1

    def write(value: float) -> str:
        # Adding 0 takes the sign from -0.
        return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")

    return write


def _say_untested(study: Study, family: Sequence[Comparison]) -> str:
    untested = [each for each in family if each.decision == "untested"]
    if len(untested) > _MOST_REASONS:
        return (
            f"Of {len(family)} comparisons {len(untested)} are untested, as networks "
            "are missing or diverged."
        )
    several = len(study.plan.regimes) > 1
    reasons = [
        f"{_arm(study, each.arm, each.strength)} against "
        f"{_arm(study, each.baseline, each.baseline_strength)}"
        f"{f' in regime {each.regime}' if several else ''} ({each.note})"
        for each in untested
    ]
    return f"Not tested: {'; '.join(reasons)}." if reasons else ""


def _say_limits(plan: Plan, tested: Sequence[Comparison], num_comparisons: int) -> str:
    """Writes what would have been found where nothing was, and why intervals differ."""
    undecided = [each for each in tested if each.decision == "undecided"]
    parts = []
    detectable = [each.detectable for each in undecided if each.detectable is not None]
    if detectable and len(undecided) == len(tested):
        largest = max(detectable)
        parts.append(
            f"differences of {_writer(largest)(largest)} {_UNITS[plan.outcome]} would "
            f"have been found with a probability of 65 to {100 * POWER:.0f} %"
        )
    if any(
        each.result and each.result.low * each.result.high > 0 for each in undecided
    ):
        parts.append(
            "an interval may leave out 0 where nothing is decided, as decisions are "
            f"corrected for the {num_comparisons} comparisons and intervals are not"
        )
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _arm(study: Study, name: str, strength: float | None) -> str:
    """Names an arm, with its strength if it has several."""
    if len(study.plan.arms[name].strengths) == 1 or strength is None:
        return name
    return f"{name} at {strength:g}"


def _training(regime: Regime) -> str:
    """Describes a regime: "after 10 epochs of 5,000 images without augmentation"."""
    words = [f"after {regime.epochs} epoch{'s' if regime.epochs > 1 else ''}"]
    if regime.train_images is not None:
        words.append(f"of {regime.train_images:,} images")
    if not regime.augment:
        words.append("without augmentation")
    return " ".join(words)


def _title(study: Study) -> str:
    """Writes "CIFAR-10, a copy" as "CIFAR-10 (a copy)", to stand in a sentence."""
    title, _, what = study.dataset["title"].partition(", ")
    return f"{title} ({what})" if what else title


def _seeds(seeds: Sequence[int]) -> str:
    """Lists seeds: "seed 3", "seeds 3, 5", "seeds 3 to 9"."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def _join(parts: Sequence[str], word: str) -> str:
    *first, last = parts
    return f"{', '.join(first)}{word} {last}" if first else last
