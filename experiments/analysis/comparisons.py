"""The comparisons of a study: differences between arms, and what is decided.

A network that diverged, or has no record, is named and never averaged; a comparison
that lacks one is not tested, and counts as p = 1 among those that are.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.studies.cells import cell_of, choose_strengths
from experiments.studies.outcomes import OUTCOMES, PRIMARY, SECONDARY
from experiments.studies.plans import Plan
from experiments.studies.store import Study
from experiments.words import name_seeds
from sounddrop_jax import statistics

POWER = 0.8
"""How probably `Comparison.detectable` would have been found."""


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
        Those of one outcome after the other, first those that a plan may decide by, as
        far as there are records of it.
    """
    return [
        comparison
        for outcome in (*PRIMARY, *SECONDARY)
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
        for outcome in OUTCOMES:
            # A score that is missing comes out as NaN, and the mean with it.
            scores = np.array([record.get(outcome) for record in counted], float)
            known = len(scores) > 0 and np.isfinite(scores).all()
            several = known and len(scores) > 1
            row[f"{outcome}_mean"] = float(scores.mean()) if known else None
            row[f"{outcome}_std"] = float(scores.std(ddof=1)) if several else None
        rows.append(row)
    return rows


# Comparisons


def _compare(study: Study, outcome: str) -> list[Comparison]:
    """Compares the pairs of the plan, without deciding anything."""
    plan, networks = study.plan, _networks(study)
    strengths = strengths_of(study)
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
    if why := too_few(plan, num_comparisons):
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
    sign = 1 if OUTCOMES[comparison.outcome].better == "higher" else -1
    return sign * comparison.result.mean_difference


def too_few(plan: Plan, num_comparisons: int) -> str:
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
    return scores, [f"{name_seeds(seeds)} {fault}" for fault, seeds in faults.items()]


def _networks(study: Study) -> dict[tuple, Mapping[str, Any]]:
    return {cell_of(record): record for record in study.records}


def strengths_of(study: Study) -> dict[str, Sequence[float | None]]:
    """Returns the strengths of every arm; of a tuned arm, the chosen one."""
    chosen = choose_strengths(study.plan, study.tuning)
    return {
        name: [chosen[name]] if name in chosen else arm.strengths
        for name, arm in study.plan.arms.items()
    }


def _groups(study: Study) -> list[tuple[str, str, float | None]]:
    strengths = strengths_of(study)
    return [
        (regime, arm, strength)
        for regime in study.plan.regimes
        for arm in study.plan.arms
        for strength in strengths[arm]
    ]
