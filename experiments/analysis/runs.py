"""Runs of `experiments.cifar` compared with one of them, seed by seed."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import words
from experiments.analysis.results import read_result
from experiments.cli import UsageError
from experiments.pictures.drawing import COLOURS
from experiments.runs.outputs import RESULT, count_steps, summarize
from experiments.studies.records import STUDY
from experiments.words import name_run, name_seeds
from sounddrop_jax import statistics

ALPHA = 0.05
MOST = 1 + len(COLOURS)
"""More runs than a picture can tell apart are a study."""


class Run(NamedTuple):
    """A run, as its folder holds it.

    Attributes:
        name: tells it from the others: regularizer, strength and a network other than
            the cnn, with the folder where that is not enough.
        folder: as the user named it.
        result: what result.json holds.
    """

    name: str
    folder: Path
    result: Mapping[str, Any]

    @property
    def networks(self) -> dict[int, Mapping[str, Any]]:
        """The networks that did not diverge, by seed."""
        runs = self.result["runs"]
        return {each["seed"]: each for each in runs if not each["diverged"]}

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers of the run depend on, and which seeds it has."""
        config, dataset = self.result["config"], self.result["dataset"]
        steps = count_steps(config, dataset["train_size"])
        # How it was computed, and what is said by another entry.
        others = {"dataset", "seed", "seeds", "seeds_at_once", "distributed"}
        others |= {"intensity", "rate"}
        kept = {name: value for name, value in config.items() if name not in others}
        seeds = name_seeds([each["seed"] for each in self.result["runs"]])
        return kept | {"steps_per_epoch": steps, "seeds": seeds.split(" ", 1)[1]}


class Comparison(NamedTuple):
    """A run and the baseline, seed by seed.

    Attributes:
        run: its name.
        baseline: that of the other one.
        seeds: that both have, and neither lost.
        result: final accuracy, run minus baseline, in percentage points, with intervals
            of 95 %; None of fewer than 2 seeds.
        p_adjusted: by Holm's method, over all comparisons; None without a result.
        decision: "wins" or "loses" if `p_adjusted` is below `ALPHA`, "undecided" if
            not, "untested" if so few seeds cannot come below it.
        note: what the numbers suffer from; or "".
    """

    run: str
    baseline: str
    seeds: tuple[int, ...]
    result: statistics.PairedComparison | None
    p_adjusted: float | None
    decision: str
    note: str

    @property
    def bounds(self) -> tuple[float | None, float | None, float | None]:
        """The mean difference and its interval, None where there is none."""
        if self.result is None:
            return None, None, None
        return self.result.mean_difference, self.result.low, self.result.high


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs on one dataset, the first of them the baseline.

    Attributes:
        runs: two or more.
    """

    runs: Sequence[Run]

    @property
    def baseline(self) -> Run:
        """The run that the others are compared with."""
        return self.runs[0]

    @property
    def dataset(self) -> Mapping[str, Any]:
        """Their dataset, as in result.json."""
        return self.baseline.result["dataset"]

    @functools.cached_property
    def comparisons(self) -> list[Comparison]:
        """Each other run's, in their order."""
        return _compare(self.baseline, self.runs[1:])

    @property
    def settings(self) -> dict[str, list[Any]]:
        """The settings that are not the same in all runs, by name."""
        return _differing([run.settings for run in self.runs])

    @property
    def environments(self) -> dict[str, list[Any]]:
        """The same of what they were computed with."""
        return _differing([run.result["environment"] for run in self.runs])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A summary of each run, see `outputs.summarize`."""
        rows = []
        for run in self.runs:
            config, networks = run.result["config"], run.result["runs"]
            row: dict[str, Any] = {"run": run.name, "folder": str(run.folder)}
            row |= {"reg": config["reg"], "strength": config["strength"]}
            row |= {"seeds": [each["seed"] for each in networks]}
            rows.append(row | summarize(networks))
        return rows


def _differing(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for each in entries for name in each)
    values = {name: [each.get(name) for each in entries] for name in names}
    return {name: own for name, own in values.items() if any(v != own[0] for v in own)}


def hold_runs(folders: Sequence[Path]) -> bool:
    """Returns whether folders hold runs rather than the stores of a study.

    Raises:
        UsageError: if some hold the one and some the other.
    """
    # Where both lie in all of them, it is the study that was asked for before.
    stores = [each for each in folders if os.path.exists(each / STUDY)]
    runs = [each for each in folders if os.path.exists(each / RESULT)]
    if len(stores) == len(folders) or not runs:
        return False
    only = [each for each in stores if each not in runs]
    if only:
        raise UsageError(
            f"{only[0]}: the store of a study, and {runs[0]} is a run; give the one or "
            "the other."
        )
    return True


def read(folders: Sequence[Path]) -> Runs:
    """Reads runs that are to be compared, the first of them as the baseline.

    Raises:
        UsageError: if they are fewer than two or more than `MOST`; if one is no run, is
            damaged or given twice; or if they are of different datasets.
    """
    if len(folders) < 2:
        raise UsageError(
            f"{folders[0]}: one run; name another to compare it with, the baseline "
            "first."
        )
    if len(folders) > MOST:
        raise UsageError(
            f"{folders[MOST]}: more than {MOST} runs; leave some out, or plan a study, "
            "which compares any number (docs/study.md)."
        )
    results: dict[Path, Mapping[str, Any]] = {}
    places: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in places:
            raise UsageError(f"{folder}: given twice; name another run.")
        places[place] = folder
        results[folder] = read_result(folder)
        ours, theirs = (results[each]["dataset"] for each in (folder, folders[0]))
        if ours != theirs:
            a, b = (f"{e['title']} ({e['fingerprint'][:12]})" for e in (ours, theirs))
            raise UsageError(
                f"{folder}: a run on {a}, and {folders[0]} is one on {b}; name runs on "
                "one dataset."
            )
    names = _name(results)
    return Runs([Run(names[each], each, result) for each, result in results.items()])


def _name(results: Mapping[Path, Mapping[str, Any]]) -> dict[Path, str]:
    """Names runs, each by another name."""
    names: dict[Path, str] = {}
    for add in (lambda path: "", lambda path: path.resolve().name, str):
        for path, result in results.items():
            more = f" ({place})" if (place := add(path)) else ""
            names[path] = name_run(result["config"]) + more
        if len(set(names.values())) == len(names):
            break
    return names


def _compare(baseline: Run, others: Sequence[Run]) -> list[Comparison]:
    pairs = []
    for run in others:
        ours, theirs = run.networks, baseline.networks
        seeds = tuple(seed for seed in ours if seed in theirs)
        result = None
        if len(seeds) > 1:
            result = statistics.compare_pairs(
                np.array([ours[seed]["accuracy"] for seed in seeds]),
                np.array([theirs[seed]["accuracy"] for seed in seeds]),
            )
        pairs.append((run, seeds, result))
    p_values = [1.0 if result is None else result.p_value for _, _, result in pairs]
    adjusted = statistics.holm(np.array(p_values)).tolist()
    return [
        Comparison(
            run=run.name,
            baseline=baseline.name,
            seeds=seeds,
            result=result,
            p_adjusted=None if result is None else p,
            decision=_decide(result, p, len(others)),
            note=_note(run, baseline, seeds, result),
        )
        for (run, seeds, result), p in zip(pairs, adjusted, strict=True)
    ]


def _decide(
    result: statistics.PairedComparison | None, p_adjusted: float, count: int
) -> str:
    if result is None:
        return "untested"
    if p_adjusted < ALPHA:
        return "wins" if result.mean_difference > 0 else "loses"
    smallest = statistics.smallest_p_value(result.num_seeds)
    return "untested" if smallest * count >= ALPHA else "undecided"


def _note(
    run: Run,
    baseline: Run,
    seeds: Sequence[int],
    result: statistics.PairedComparison | None,
) -> str:
    notes = []
    for each in (run, baseline):
        if lost := [r["seed"] for r in each.result["runs"] if r["diverged"]]:
            notes.append(f"{name_seeds(lost)} of {each.name} diverged")
    for each, other in ((run, baseline), (baseline, run)):
        if alone := [seed for seed in each.networks if seed not in other.networks]:
            notes.append(f"{name_seeds(alone)} of {each.name} without a pair")
    if result is not None and result.interval_method == "none":
        notes.append("all differences are equal, so the interval has no width")
    return "; ".join(notes)


# Words

# What runs differ in that are compared for it.
_EXPECTED = {"reg", "strength", "audio", "seeds"}


def sentence(runs: Runs) -> str:
    """Writes in a few sentences how the runs differ, and how sure that is."""
    said = "; ".join(_say(runs, each) for each in runs.comparisons)
    parts = [f"On {runs.dataset['title']}, {said}."]
    if any(each.decision == "untested" for each in runs.comparisons):
        count = _seeds_needed(len(runs.comparisons))
        parts.append(f"A test takes {count} or more shared seeds (--seeds={count}).")
    if others := [name for name in runs.settings if name not in _EXPECTED]:
        parts.append(
            f"The runs also differ in {words.join(others, ' and')}, and a difference "
            "in accuracy may come from any of these."
        )
    return " ".join(parts)


def _seeds_needed(num_comparisons: int) -> int:
    count = 2
    while statistics.smallest_p_value(count) * num_comparisons >= ALPHA:
        count += 1
    return count


def _say(runs: Runs, each: Comparison) -> str:
    count = len(each.seeds)
    if count == 0:
        return f"{each.run} and {each.baseline} share no seed, so nothing is compared"
    if each.result is None:
        (seed,) = each.seeds
        ours, theirs = (
            next(run for run in runs.runs if run.name == name).networks[seed]
            for name in (each.run, each.baseline)
        )
        return (
            f"{each.run} has {ours['accuracy']:.2f} % and {each.baseline} "
            f"{theirs['accuracy']:.2f} % on seed {seed}, and one seed is no test"
        )
    mean, low, high = each.result.mean_difference, each.result.low, each.result.high
    is_below = each.decision == "loses"
    if is_below:
        mean, low, high = -mean, -high, -low
    interval = f"95 % interval {_write(low)} to {_write(high)}"
    numbers = f"{_write(mean)} points of accuracy ({interval}"
    if each.decision == "untested":
        return (
            f"{each.run} differs from {each.baseline} by {numbers}) over {count} "
            "shared seeds, too few for a test"
        )
    assert each.p_adjusted is not None
    holm = " by Holm" if len(runs.comparisons) > 1 else ""
    numbers += f", {_write_p(each.p_adjusted)}{holm}, {count} shared seeds)"
    if each.decision == "undecided":
        return f"{each.run} cannot be told from {each.baseline}, {numbers}"
    where = "below" if is_below else "above"
    return f"{each.run} is {where} {each.baseline} by {numbers}"


def _write(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _write_p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
