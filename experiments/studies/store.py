"""The store of a study: two files, and the test logits beside them.

    DIR/study.json        the plan, what its numbers depend on, and each arm's noise
    DIR/networks.jsonl    a line for each network: its cell, scores and curves
    DIR/logits/REGIME/ARM/STRENGTH/SEED.npz    see `logits`

Lines are only ever appended, so a study goes on wherever it was stopped: a last line
without an end, or with zeros, is one that was being written, and counts for nothing.
What networks share, such as the environment, has a line of its own above the first of
them, and they refer to it. Among that is what their numbers depend on: a record of
another study is refused, wherever it was put. Stores of several machines merge by
reading them together, or by appending the lines of one to those of another. The
networks that chose the strengths of a plan have the regime "tuning".
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files, terminal, values, words
from experiments.cli import UsageError
from experiments.studies import plans
from experiments.studies.cells import Cell, all_cells, tuning_cells
from experiments.studies.logits import LOGITS, logits_path, write_logits
from experiments.studies.plans import Plan
from experiments.studies.records import (
    NETWORKS,
    RECORD,
    STUDY,
    STUDY_FILE,
    check_origins,
    check_shapes,
    difference,
    merge_records,
    origin,
)

# Of the numbers: raised with every change of the code that gives other ones.
VERSION = 1
SHARED = ("environment", "corruption_source", "origin")
"""What of a record many networks have in common."""


@dataclasses.dataclass(frozen=True)
class Study:
    """What the stores of a study hold.

    Attributes:
        plan: what was planned. With more seeds or arms than the file of that name has
            if the study has grown.
        dataset: name, title, fingerprint, sizes and class names, as in result.json.
        records: of the networks that are done, in the order of the plan.
        tuning: the same of the networks that chose strengths.
        noise: by arm, see `noise.measure_noise`.
        folders: that were read.
        begun: what of the plan may grow, as it was when the study began; None of a
            store that does not say.
    """

    plan: Plan
    dataset: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    tuning: Sequence[Mapping[str, Any]]
    noise: Mapping[str, Any]
    folders: tuple[Path, ...]
    begun: Mapping[str, Any] | None = None


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Makes the folder of a store and keeps other processes from writing to it.

    Raises:
        UsageError: if another process writes to it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with _writing(folder, remedy="name another folder"):
            files.make_folder(folder)
            stack.enter_context(files.lock(folder))
        yield


class Store:
    """A store that is open for writing; see `open_store`."""

    def __init__(
        self,
        folder: Path,
        study: Mapping[str, Any],
        records: dict[Cell, dict],
        shared: Collection[str],
    ):
        self.folder = folder
        self._study = study
        self._records = records
        self._shared = set(shared)

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Returns the cells that have no record yet, in the same order."""
        return [cell for cell in cells if cell not in self._records]

    def records(self, cells: Iterable[Cell]) -> list[dict]:
        """Returns the records that are there, in the order of the cells."""
        return [self._records[cell] for cell in cells if cell in self._records]

    def append(self, cell: Cell, record: Mapping, logits: np.ndarray) -> None:
        """Writes the record of a network, its logits first.

        Args:
            cell: the network.
            record: what JSON can hold; NaN becomes null.
            logits: float32 `[M, num_classes]`, of the clean test images.

        Raises:
            UsageError: if it cannot be written; the records before it are whole.
        """
        own: Any = cell._asdict() | dict(record) | {"origin": origin(self._study, cell)}
        own = json.loads(files.dumps(own))  # as it will be read
        line, shared = dict(own), {}
        for name in SHARED:
            if name in own:
                line[name] = _digest(own[name])
                shared[line[name]] = own[name]
        lines = [
            {"shared": digest, "value": value}
            for digest, value in shared.items()
            if digest not in self._shared
        ]
        # Without blanks, which would be a tenth of what is committed.
        texts = [files.dumps(each, separators=(",", ":")) for each in [*lines, line]]
        path = logits_path(self.folder, cell)
        with _writing(self.folder):
            write_logits(path, logits)
            files.append_lines(self.folder / NETWORKS, texts)
        self._shared |= shared.keys()
        self._records.setdefault(cell, own)


def open_store(
    folder: Path,
    plan: Plan,
    dataset: Mapping[str, Any],
    inputs: Mapping[str, str],
    noise: Mapping[str, Any] | None = None,
    *,
    written: Mapping[str, Any] | None = None,
) -> Store:
    """Makes a store, or goes on with one: with more seeds and arms, but no others.

    Args:
        folder: of the store.
        plan: of the study.
        dataset: as in `Study`.
        inputs: digests of the other files that numbers depend on, by name.
        noise: by arm, of those whose noise the store does not hold yet.
        written: the document of the plan's file, where the plan has other seeds.

    Raises:
        UsageError: if the folder holds the store of another study, and which difference
            it is; if it is damaged; or if it cannot be written.
    """
    ours: dict = {
        "version": VERSION,
        "name": plan.name,
        "begun": plans.what_grows(written or plan.document),
        "plan": dict(plan.document),
        "dataset": dict(dataset),
        "inputs": dict(inputs),
        "noise": dict(noise or {}),
    }
    ours = json.loads(files.dumps(ours))  # as it will be read
    values.read(STUDY_FILE, ours)
    path = folder / STUDY
    with _writing(folder, remedy="name another folder"):
        if os.path.lexists(path):
            ours = _merge(_read_study(folder), ours, f"--out={folder}")
            # Arms may not go together.
            plans.parse(ours["plan"], plan.name, is_done=True)
        records, shared = _read_all([folder], ours, plan)
        files.make_folder(folder / LOGITS)
        # Not where a link leads out of the store.
        for own in (folder, *folder.glob(f"{LOGITS}/*/*/*")):
            if own.resolve().is_relative_to(folder.resolve()) and own.is_dir():
                files.remove_leftovers(own)
        _mend(folder / NETWORKS)
        with files.replacing(path) as temporary:
            temporary.write_text(_write_study(ours), encoding="utf-8")
    return Store(folder, ours, records, shared)


def read_noise(folder: Path) -> Mapping[str, Any]:
    """Returns the noise that a store holds, by arm; nothing if there is no store."""
    # Not there, too, where looking is not permitted.
    return _read_study(folder)["noise"] if os.path.lexists(folder / STUDY) else {}


def read(folders: Sequence[Path]) -> Study:
    """Reads the stores of one study, together.

    Raises:
        UsageError: if a folder holds no store or a damaged one; if the stores, or a
            record in them, are of different studies, and which difference it is; or if
            two records of the same network differ.
    """
    merged = _read_study(folders[0])
    for folder in folders[1:]:
        merged = _merge(_read_study(folder), merged, str(folder))
    plan = plans.parse(merged["plan"], merged["name"], is_done=True)
    records, _ = _read_all(folders, merged, plan)
    return Study(
        plan,
        merged["dataset"],
        [records[cell] for cell in all_cells(plan) if cell in records],
        [records[cell] for cell in tuning_cells(plan) if cell in records],
        merged["noise"],
        tuple(folders),
        merged.get("begun"),
    )


@contextlib.contextmanager
def _writing(
    folder: Path,
    remedy: str = "make room or permit it, and give the same command again, which goes "
    "on from here",
) -> Iterator[None]:
    """Raises a one-line error for what cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--out={folder}: cannot be written ({error.strerror}); {remedy}."
        ) from None


def _read_study(folder: Path) -> dict:
    path = folder / STUDY
    if not os.path.lexists(path):  # False where looking is not permitted
        raise UsageError(
            f"{folder}: there is no study in it; python -m experiments.study makes one."
        )
    try:
        value = json.loads(files.read(path).decode())
        values.read(STUDY_FILE, value)
        plans.parse(value["plan"], value["name"], is_done=True)
    except OSError as error:
        raise _cannot_be_read(path, error) from None
    except (ValueError, RecursionError, UsageError) as error:
        raise UsageError(
            f"{path}: damaged ({_why(error)}); restore it, or name another folder."
        ) from None
    return value


def _cannot_be_read(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path}: cannot be read ({error.strerror}); see to that, or name another "
        "folder."
    )


def _write_study(study: Mapping[str, Any]) -> str:
    """Writes JSON of a line for each entry, and for each entry of a table."""
    entries = []
    for key, value in study.items():
        text = files.dumps(value)
        if isinstance(value, dict) and value:
            lines = (f"  {json.dumps(k)}: {files.dumps(v)}" for k, v in value.items())
            text = "{\n" + ",\n".join(lines) + "\n }"
        entries.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _read_all(
    folders: Sequence[Path], study: Mapping[str, Any], plan: Plan
) -> tuple[dict[Cell, dict], set[str]]:
    """Reads the records of stores of one study, and the digests of what they share."""
    found: list[tuple[Path, dict]] = []
    shared: set[str] = set()
    for folder in folders:
        own, known = _read_networks(folder)
        check_origins(folder, study, own)
        found += ((folder, record) for record in own)
        shared |= known.keys()
    records = merge_records(found)
    check_shapes(plan, len(study["dataset"]["class_names"]), records)
    return records, shared


def _read_networks(folder: Path) -> tuple[list[dict], dict[str, Any]]:
    """Reads the records of a store, in the order of its lines, and what they share."""
    path = folder / NETWORKS
    records: list[dict] = []
    shared: dict[str, Any] = {}
    number = 0
    try:
        for text in _read_lines(path):
            number += 1
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError("not a table")
            if line.keys() == {"shared", "value"}:
                shared[line["shared"]] = line["value"]
                continue
            for name in SHARED:
                if name in line and line[name] not in shared:
                    raise ValueError(f"no line above has its {name}, {line[name]}")
            own = {name: shared[line[name]] for name in SHARED if name in line}
            # Not what validation made of it, a copy for each record.
            records.append(values.read(RECORD, line | own) | own)
    except OSError as error:
        raise _cannot_be_read(path, error) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path}: line {number} is damaged ({_why(error)}); remove it, and run the "
            "study again."
        ) from None
    return records, shared


def _why(error: Exception) -> str:
    """Returns the reason of an error, to stand within a sentence."""
    return words.reason(error).removesuffix(".")


def _read_lines(path: Path) -> Iterator[bytes]:
    """Reads the lines of a file that may be there, but not what a stop left unfinished.

    That is a last line without an end; or zeros, which a power cut leaves for a block
    that was on its way: one behind it may have come, and was not said to be written.
    """
    for line in files.read_lines(path) if os.path.lexists(path) else ():
        if b"\0" in line:
            return
        if not line.endswith(b"\n"):
            try:
                json.loads(line)  # whole, although an editor took its end
            except ValueError:
                return
        yield line.removesuffix(b"\n")


def _mend(path: Path) -> None:
    """Removes what a stop left at the end, or ends a last line that is whole."""
    size = path.stat().st_size if path.exists() else 0
    whole = sum(len(line) + 1 for line in _read_lines(path))
    if whole < size:
        terminal.warn(
            f"{path}: its last record is not whole, and its network is trained again."
        )
    if whole != size:
        with files.replacing(path) as temporary, open(temporary, "wb") as mended:
            mended.writelines(line + b"\n" for line in _read_lines(path))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _merge(first: dict, second: dict, where: str) -> dict:
    """Merges the arms and the seeds of two studies; raises for any other difference.

    Args:
        first: what the folder in question holds: "there".
        second: what it shall go with, "here", whose order of arms comes first.
        where: the folder, as messages call it.
    """
    for key in ("version", "name", "dataset"):
        if first[key] != second[key]:
            raise UsageError(
                f"{where}: holds a study with another {key}: "
                f"{difference(first[key], second[key])}; name another folder."
            )
    old, new = first["plan"], second["plan"]
    for key in sorted(old.keys() | new.keys()):
        if key not in plans.GROWS and old.get(key) != new.get(key):
            raise UsageError(
                f"{where}: holds a study with another plan: {key} is "
                f"{difference(old.get(key), new.get(key))}; name another folder."
            )
    for kind, there, here in (
        ("arm", old["arms"], new["arms"]),
        ("file", first["inputs"], second["inputs"]),
    ):
        for name in sorted(there.keys() & here.keys()):
            if _untitled(there[name]) != _untitled(here[name]):
                raise UsageError(
                    f"{where}: holds a study with another {kind} {name}: "
                    f"{difference(there[name], here[name])}; name another folder."
                )
    comparisons = [c for c in old["comparisons"] if c not in new["comparisons"]]
    hypotheses = old.get("hypotheses", {}) | new.get("hypotheses", {})
    return second | {
        "begun": first.get("begun", plans.what_grows(old)),
        "plan": new
        | ({"hypotheses": hypotheses} if hypotheses else {})
        | {
            "arms": new["arms"] | old["arms"] | new["arms"],  # in the new one's order
            "seeds": max(old["seeds"], new["seeds"]),
            "comparisons": new["comparisons"] + comparisons,
        },
        "inputs": first["inputs"] | second["inputs"],
        "noise": first["noise"] | second["noise"],
    }


def _untitled(value: Any) -> Any:
    """Returns an arm without what people call it, and anything else as it is."""
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if key != "title"}
    return value
