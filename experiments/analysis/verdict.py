"""What a study found: an answer to each hypothesis, or else all comparisons."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.analysis.comparisons import POWER, Analysis, Comparison, too_few
from experiments.analysis.names import name_arm, name_dataset
from experiments.studies.outcomes import OUTCOMES
from experiments.studies.plans import Hypothesis, Plan, Regime
from experiments.studies.store import Study
from experiments.words import join, upper
from sounddrop_jax import statistics

# What `sentence` spells out; more, it counts.
_MOST_SPELT_OUT = 8
_MOST_ANSWERED = 4
_MOST_REASONS = 3
_VERBS = {"wins": "beats", "loses": "loses to", "undecided": "cannot be told from"}


class Answer(NamedTuple):
    """What came of a hypothesis.

    Attributes:
        hypothesis: of the plan.
        status: "confirmed"; "not confirmed", if comparisons that it needs were decided
            the other way; "undecided"; or "" if the plan has no rule for it.
        comparisons: those that it is about.
        numbers: what came of them, a sentence without its end.
    """

    hypothesis: Hypothesis
    status: str
    comparisons: list[Comparison]
    numbers: str

    def __str__(self) -> str:
        text = self.hypothesis.text
        return f"{self.status.capitalize()}: {text}" if self.status else text


def answer(analysis: Analysis) -> list[Answer]:
    """Answers the hypotheses of the plan, by its rules alone."""
    found = []
    for hypothesis in analysis.study.plan.hypotheses:
        about = [
            each
            for each in analysis.family
            if (each.arm, each.baseline) in hypothesis.comparisons
        ]
        tested = [
            each for word in _VERBS for each in about if each.decision == word
        ]  # what it has won first
        numbers = "none of its comparisons could be tested"
        if len(tested) > _MOST_ANSWERED:
            numbers = _count(analysis.study, tested)
        elif tested:
            numbers = _spell_out(analysis.study, tested)
        status = _judge(hypothesis, about)
        found.append(Answer(hypothesis, status, about, numbers))
    return found


def _judge(hypothesis: Hypothesis, about: Sequence[Comparison]) -> str:
    """Returns the status of an `Answer`."""
    if hypothesis.confirmed_if is None:
        return ""
    # A pair wins if it does so in every regime and at every strength.
    pairs: dict[tuple[str, str], list[str]] = {}
    for each in about:
        pairs.setdefault((each.arm, each.baseline), []).append(each.decision)
    wins = [all(d == "wins" for d in own) for own in pairs.values()]
    loses = [any(d == "loses" for d in own) for own in pairs.values()]
    every, some = (all, any) if hypothesis.confirmed_if == "all" else (any, all)
    return (
        "confirmed" if every(wins) else "not confirmed" if some(loses) else "undecided"
    )


def sentence(analysis: Analysis) -> str:
    """Writes in a few sentences what the study found, the answer first."""
    return " ".join(sentences(analysis))


def sentences(analysis: Analysis, *, with_limits: bool = True) -> list[str]:
    """Writes what the study found: a text for each answer, and for what limits them.

    The limits are also in what `meaning` says.
    """
    study, family = analysis.study, analysis.family
    plan = study.plan
    tested = [each for each in family if each.decision != "untested"]
    if why := too_few(plan, len(family)):
        return [
            f"{opening(study)} nothing can be decided, whatever the differences: {why}."
        ]
    found: list[str] = []
    for each in answer(analysis):
        start = upper(each.numbers) if found else f"{opening(study)} {each.numbers}"
        found.append(f"{each} {start}.")
    if not tested:
        found = [f"{opening(study)} no comparison could be tested."]
    elif not found:
        say = _count if len(family) > _MOST_SPELT_OUT else _spell_out
        found = [f"{opening(study)} {say(study, tested)}."]
    found.append(_say_untested(study, family))
    if with_limits:
        found.append(_say_limits(plan, tested, len(family)))
    return list(filter(None, found))


def opening(study: Study) -> str:
    """Says on what a study was made: the start of a sentence."""
    regimes = list(study.plan.regimes.values())
    trained = f"{describe_training(regimes[0])} and " if len(regimes) == 1 else ""
    return (
        f"On {name_dataset(study)}, {trained}over {len(study.plan.seeds)} paired seeds,"
    )


def meaning(analysis: Analysis) -> list[str]:
    """Says what the decisions mean and what they do not, a sentence each."""
    plan, family = analysis.study.plan, analysis.family
    undecided = [each for each in family if each.decision == "undecided"]
    detectable = [each.detectable for each in undecided if each.detectable is not None]
    least = statistics.smallest_p_value(len(plan.seeds)) * len(family)
    models = dict.fromkeys(regime.model for regime in plan.regimes.values())
    networks = [
        "one small convolutional network" if model == "cnn" else f"the network {model}"
        for model in models
    ]
    said = [
        f"All of this is about {join(networks, ' and')}, trained as the plan says; it "
        "says nothing about other networks, images or budgets."
    ]
    if plan.tuning and any(e.strength != e.baseline_strength for e in family):
        said.append(
            "Each arm has the strength that tuning chose for it: arms that are "
            "compared may differ in strength, too."
        )
    if detectable:
        write = _writer(max(detectable))
        said.append(
            "Undecided does not mean equal: these seeds would have found a difference "
            f"of {write(max(detectable))} {OUTCOMES[plan.outcome].phrase} with a "
            f"probability of 65 to {100 * POWER:.0f} %, a smaller one less often."
        )
    if len(family) > 1:
        bound, count = "", "both" if len(family) == 2 else f"all {len(family)}"
        if least > plan.alpha / 10:
            bound = (
                f" With {len(plan.seeds)} seeds no corrected p can be below "
                f"{min(least, 1):.2g}."
            )
        said.append(
            f"Decisions are corrected for {count} comparisons by Holm's "
            "method; intervals are not, so an interval may exclude 0 where nothing is "
            f"decided.{bound}"
        )
    return said


# Words


def _spell_out(study: Study, tested: Sequence[Comparison]) -> str:
    """Writes what came of each comparison: "a beats b by 2.1 (1.6 to 2.6); c ..."."""
    units = iter([True])  # with the first number only
    clauses = []
    for regime in study.plan.regimes.values():
        where = ""
        if len(study.plan.regimes) > 1:
            where = f"in regime {regime.title} ({describe_training(regime)}) "
        arms: dict[tuple[str, float | None], list[Comparison]] = {}
        for each in tested:
            if each.regime == regime.name:
                arms.setdefault((each.arm, each.strength), []).append(each)
        for (arm, strength), own in arms.items():
            found = []
            for decision, verb in _VERBS.items():
                baselines = [
                    f"{name_arm(study.plan, each.baseline, each.baseline_strength)} "
                    f"{_numbers(each, with_unit=next(units, False))}"
                    for each in own
                    if each.decision == decision
                ]
                if baselines:
                    word = " or" if decision == "undecided" else " and"
                    found.append(f"{verb} {join(baselines, word)}")
            word = " and" if len(found) == len(own) else ", and"
            name = name_arm(study.plan, arm, strength)
            if study.plan.arms[arm].reg == "none":
                name = f"a network with {name}"  # and not: "nothing beats dropout"
            clauses.append(f"{where}{name} {join(found, word)}")
            where = ""
    return "; ".join(clauses)


def _count(study: Study, tested: Sequence[Comparison]) -> str:
    """Counts what came of many comparisons, and names the largest win and loss."""
    wins, losses, undecided = (
        [each for each in tested if each.decision == decision] for decision in _VERBS
    )
    regimes, only = study.plan.regimes, ""
    if len(regimes) > 1 and len({each.regime for each in wins}) == 1:
        only = f", all of them in regime {regimes[wins[0].regime].title}"
    found = [f"the arm beats its baseline in all {len(tested)} comparisons"]
    if len(wins) < len(tested):
        found = [
            f"the arm beats its baseline in {len(wins)} of {len(tested)} comparisons"
            f"{only}, loses in {len(losses)}, and {len(undecided)} "
            f"{'is' if len(undecided) == 1 else 'are'} undecided"
        ]
    for decided, name, over in ((wins, "win", "over"), (losses, "loss", "to")):
        if decided:
            largest = max(decided, key=_size)
            where = f" in regime {regimes[largest.regime].title}"
            found.append(
                f"the largest {name} is that of "
                f"{name_arm(study.plan, largest.arm, largest.strength)} {over} "
                f"{name_arm(study.plan, largest.baseline, largest.baseline_strength)}"
                f"{where if len(regimes) > 1 else ''}, "
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
    if low * high and not all(write(each).strip("−0.") for each in (low, high)):
        write = _writer((high - low) / 10)  # a bound that is not 0 does not read so
    difference, interval = write(mean), f"{write(low)} to {write(high)}"
    if with_unit:
        difference += f" {OUTCOMES[comparison.outcome].phrase}"
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
    regimes = study.plan.regimes
    several = len(regimes) > 1
    reasons = [
        f"{name_arm(study.plan, each.arm, each.strength)} against "
        f"{name_arm(study.plan, each.baseline, each.baseline_strength)}"
        f"{f' in regime {regimes[each.regime].title}' if several else ''} ({each.note})"
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
            f"differences of {_writer(largest)(largest)} "
            f"{OUTCOMES[plan.outcome].phrase} would have been found with a probability "
            f"of 65 to {100 * POWER:.0f} %"
        )
    if any(
        each.result and each.result.low * each.result.high > 0 for each in undecided
    ):
        parts.append(
            "an interval may exclude 0 where nothing is decided, as decisions are "
            f"corrected for the {num_comparisons} comparisons and intervals are not"
        )
    said = "; ".join(parts)
    return f"{upper(said)}." if said else ""


def describe_training(regime: Regime) -> str:
    """Describes a regime: "after 10 epochs of 5,000 images without augmentation"."""
    words = [f"after {regime.epochs} epoch{'s' if regime.epochs > 1 else ''}"]
    if regime.train_images is not None:
        words.append(f"of {regime.train_images:,} images")
    if not regime.augment:
        words.append("without augmentation")
    if regime.model != "cnn":
        words.append(f"in the network {regime.model}")
    return " ".join(words)
