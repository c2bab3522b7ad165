"""The networks of a plan: which there are, and which strengths tuning chose."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from experiments.studies.plans import Plan

TUNING = "tuning"


class Cell(NamedTuple):
    """One network of a study.

    Attributes:
        regime: its name, or `TUNING`.
        arm: its name.
        strength: of the arm's regularizer.
        seed: of the network.
    """

    regime: str
    arm: str
    strength: float
    seed: int


def all_cells(plan: Plan) -> list[Cell]:
    """Lists the networks of a plan; at every strength, whichever tuning chose."""
    return [
        Cell(regime, arm.name, strength, seed)
        for regime in plan.regimes
        for arm in plan.arms.values()
        for strength in arm.strengths
        for seed in plan.seeds
    ]


def tuning_cells(plan: Plan) -> list[Cell]:
    """Lists the networks that choose the strengths of a plan."""
    if plan.tuning is None:
        return []
    return [
        Cell(TUNING, arm.name, strength, seed)
        for arm in plan.arms.values()
        for strength in arm.strengths
        for seed in plan.tuning.seeds
        if len(arm.strengths) > 1
    ]


def choose_strengths(plan: Plan, tuning: Iterable[Mapping]) -> dict[str, float | None]:
    """Chooses a strength for every arm that is tuned.

    Args:
        plan: with a `Tuning`, or else nothing is chosen.
        tuning: the records of `tuning_cells`.

    Returns:
        By arm the strength with the highest mean accuracy on the images held out, the
        lowest of equals; None where a record is missing yet. A network that diverged
        counts as 0 %. Without what is not tuned.
    """
    accuracies = {
        cell_of(record): None if record["diverged"] else record["accuracy"]
        for record in tuning
    }
    chosen: dict[str, float | None] = {}
    for arm in plan.arms.values():
        own = [cell for cell in tuning_cells(plan) if cell.arm == arm.name]
        if not own:
            continue
        if any(cell not in accuracies for cell in own):
            chosen[arm.name] = None
            continue
        means = {
            strength: _mean([accuracies[c] for c in own if c.strength == strength])
            for strength in sorted(arm.strengths)
        }
        chosen[arm.name] = max(means, key=lambda strength: means[strength])
    return chosen


def _mean(accuracies: list[float | None]) -> float:
    known = np.nan_to_num(np.array(accuracies, float))
    return round(float(known.mean()), 9)  # equals shall not differ by rounding errors


def cell_of(record: Mapping) -> Cell:
    """Returns the cell that a record is of."""
    return Cell(*(record[field] for field in Cell._fields))
