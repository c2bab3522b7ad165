"""The store of a study: one record for every network, written whole or not at all.

    DIR/plan.json                                the plan, and what its numbers hang on
    DIR/records/REGIME/ARM/STRENGTH/SEED.json    scores, curves, environment
    DIR/records/REGIME/ARM/STRENGTH/SEED.npz     test logits, float32 [M, num_classes]
    DIR/records/tuning/...                       the networks that chose a strength
    DIR/noise/ARM.json                           the arm's noise as measured

A record that is there is whole, so a study goes on wherever it was stopped, and
stores of several machines merge by reading them together, or by copying files.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import checkpoints, datasets, files, plans, runs
from experiments.configs import UsageError
from experiments.plans import Plan

# Of the numbers: raised with every change of the code that gives other ones.
VERSION = 1
TUNING = "tuning"


class Cell(NamedTuple):
    """One network of a study: what it is, and where its record lies.

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


@dataclasses.dataclass(frozen=True)
class Study:
    """All that stores hold.

    Attributes:
        plan: what was planned. With more seeds or arms than the file of that name has
            if the study has grown.
        dataset: name, title, fingerprint, sizes and class names, as in result.json.
        records: of the networks that are done, in the order of the plan; each as its
            file says it.
        tuning: the same of the networks that chose strengths.
        noise: by arm, see `study.measure_noise`.
        folders: that were read.
    """

    plan: Plan
    dataset: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    tuning: Sequence[Mapping[str, Any]]
    noise: Mapping[str, Any]
    folders: tuple[Path, ...]


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Makes the folder of a store and keeps other processes from writing to it.

    Raises:
        UsageError: if another process writes to it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with _writing(folder, remedy="name another folder"):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(checkpoints.lock(folder))
        yield


def open_store(
    folder: Path, plan: Plan, dataset: Mapping[str, Any], inputs: Mapping[str, str]
) -> None:
    """Makes a store, or goes on with one: with more seeds and arms, but no others.

    Args:
        folder: of the store.
        plan: of the study.
        dataset: as in `Study`.
        inputs: digests of the other files that numbers hang on, by name.

    Raises:
        UsageError: if the folder holds the store of another study, and which difference
            it is; or if it cannot be written.
    """
    ours: dict = {
        "version": VERSION,
        "name": plan.name,
        "plan": dict(plan.document),
        "dataset": dict(dataset),
        "inputs": dict(inputs),
    }
    ours = json.loads(runs.dumps(ours))  # as it will be read
    path = folder / "plan.json"
    with _writing(folder, remedy="name another folder"):
        if path.exists():
            ours = _merge(_read_plan(folder), ours, f"--out={folder}")
            # Arms may not go together.
            plans.parse(ours["plan"], plan.name, is_done=True)
        (folder / "records").mkdir(parents=True, exist_ok=True)
        for kind in ("records", "noise"):
            for leftover in folder.glob(f"{kind}/**/*.tmp"):
                leftover.unlink()  # of one that was killed
        runs.write_json(path, ours)


def write(folder: Path, cell: Cell, record: Mapping, logits: np.ndarray) -> None:
    """Writes the record of a network, its logits first.

    Args:
        folder: of the store.
        cell: the network.
        record: what JSON can hold; NaN becomes null.
        logits: float32 `[M, num_classes]`, of the clean test images.

    Raises:
        UsageError: if it cannot be written; the records before it are whole.
    """
    path = _path(folder, cell)
    with _writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path.with_suffix(".npz")) as temporary:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, logits=logits)
        runs.write_json(path, cell._asdict() | dict(record))


def write_noise(folder: Path, arm: str, noise: Mapping) -> None:
    """Writes what was measured of an arm's noise.

    Raises:
        UsageError: if it cannot be written.
    """
    path = folder / "noise" / f"{arm}.json"
    with _writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(path, noise)


def missing(folder: Path, cells: Iterable[Cell]) -> list[Cell]:
    """Returns the cells that have no record yet, in the same order."""
    return [cell for cell in cells if not _path(folder, cell).exists()]


def read_records(folder: Path, cells: Iterable[Cell]) -> list[dict]:
    """Reads the records that are there, in the order of the cells.

    Raises:
        UsageError: names one that is damaged.
    """
    paths = (_path(folder, cell) for cell in cells)
    return [_read_record(folder, path) for path in paths if path.exists()]


def read(folders: Sequence[Path]) -> Study:
    """Reads the stores of one study, together.

    Where two have the record of the same network, the first one's counts.

    Raises:
        UsageError: if a folder holds no store or a damaged one, or the stores are of
            different studies, and which difference it is.
    """
    merged = _read_plan(folders[0])
    for folder in folders[1:]:
        merged = _merge(_read_plan(folder), merged, str(folder))
    plan = plans.parse(merged["plan"], merged["name"], is_done=True)
    records: dict[Cell, dict] = {}
    noise: dict[str, Any] = {}
    for folder in folders:
        for path in sorted(folder.glob("records/*/*/*/[0-9]*.json")):
            record = _read_record(folder, path)
            records.setdefault(cell_of(record), record)
        for path in sorted(folder.glob("noise/[!.]*.json")):
            noise.setdefault(path.stem, _read_json(path, "layers"))
    return Study(
        plan,
        merged["dataset"],
        [records[cell] for cell in all_cells(plan) if cell in records],
        [records[cell] for cell in tuning_cells(plan) if cell in records],
        noise,
        tuple(folders),
    )


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


def _path(folder: Path, cell: Cell) -> Path:
    # 17 digits would tell all floats apart, and repr gives as few as do.
    strength = repr(float(cell.strength))
    return Path(folder, "records", cell.regime, cell.arm, strength, f"{cell.seed}.json")


@contextlib.contextmanager
def _writing(
    folder: Path,
    remedy: str = "see to that and run the study again, which goes on from here",
) -> Iterator[None]:
    """Says in one line what cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--out={folder}: cannot be written ({error.strerror}); {remedy}."
        ) from None


def _read_json(path: Path, *fields: str) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or not value.keys() >= set(fields):
            raise ValueError(f"not a table of {', '.join(fields)}")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: damaged ({datasets.reason(error)}); remove it, and run the study "
            "again."
        ) from None
    return value


def _read_record(folder: Path, path: Path) -> dict:
    record = _read_json(path, *Cell._fields)
    if _path(folder, cell_of(record)) != path:
        raise UsageError(
            f"{path}: damaged (it is the record of {cell_of(record)}); remove it, and "
            "run the study again."
        )
    return record


def _read_plan(folder: Path) -> dict:
    path = folder / "plan.json"
    if not os.path.exists(path):  # False where looking is not permitted
        raise UsageError(
            f"{folder}: there is no study in it; python -m experiments.study makes one."
        )
    return _read_json(path, "version", "name", "plan", "dataset", "inputs")


def _merge(first: dict, second: dict, where: str) -> dict:
    """Takes the arms and the seeds of both; refuses any other difference.

    Args:
        first: what the folder in question holds: "there".
        second: what it shall go with, "here", whose order of arms comes first.
        where: the folder, as messages call it.
    """
    grows = {"arms", "seeds", "comparisons"}
    for key in ("version", "name", "dataset"):
        if first[key] != second[key]:
            raise UsageError(
                f"{where}: holds a study with another {key}: "
                f"{_difference(first[key], second[key])}; name another folder."
            )
    old, new = first["plan"], second["plan"]
    for key in sorted(old.keys() | new.keys()):
        if key not in grows and old.get(key) != new.get(key):
            raise UsageError(
                f"{where}: holds a study with another plan: {key} is "
                f"{_difference(old.get(key), new.get(key))}; name another folder."
            )
    for kind, ours, theirs in (
        ("arm", old["arms"], new["arms"]),
        ("file", first["inputs"], second["inputs"]),
    ):
        for name in sorted(ours.keys() & theirs.keys()):
            if ours[name] != theirs[name]:
                raise UsageError(
                    f"{where}: holds a study with another {kind} {name}: "
                    f"{_difference(ours[name], theirs[name])}; name another folder."
                )
    comparisons = [c for c in old["comparisons"] if c not in new["comparisons"]]
    return second | {
        "plan": new
        | {
            "arms": new["arms"] | old["arms"],
            "seeds": max(old["seeds"], new["seeds"]),
            "comparisons": new["comparisons"] + comparisons,
        },
        "inputs": first["inputs"] | second["inputs"],
    }


def _difference(old: Any, new: Any) -> str:
    """Says how two values differ, of two tables only the first entry that does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return f"{key} {_difference(old.get(key), new.get(key))}"
    return f"{old!r} there, {new!r} here"
