"""What a command asks of the disk: counted, failed, killed at, or lost in a power cut.

The commands are whole, but train fakes, so that they can be run hundreds of times. What
TensorStore writes of itself is seen in the folder, and cannot be failed or synced here.
"""

import builtins
import contextlib
import errno
import functools
import importlib
import io
import itertools
import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cifar, files, report, study
from experiments.analysis.comparisons import Analysis
from experiments.data import datasets
from experiments.pictures import runs as run_pictures
from experiments.reporting import page
from experiments.runs import outputs
from experiments.runs import runner as runs_runner
from experiments.studies import runner as studies_runner
from experiments.studies import store
from experiments.training.trainer import Progress
from tests import stores
from tests.programs import end

PLAN = """
question = "Does it go on?"
rule = "It does if nothing differs."
dataset = "digits"
seeds = 2
comparisons = [["water", "none"]]
[regimes.short]
epochs = 2
[arms.none]
reg = "none"
[arms.water]
reg = "water"
"""
read_file = functools.partial(open, mode="rb")  # whatever is patched later


class Disk:
    """Stands between a command and a folder, while it is entered.

    Attributes:
        calls: kind and path of each that changes the folder, or syncs it.
        before: called with the number of a call, from 0, before it is made.
        after: the same, after it.
    """

    def __init__(self, root: Path):
        self.root = str(root)
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[int], object] = lambda number: None
        self.after: Callable[[int], object] = lambda number: None
        self.lock = threading.RLock()  # Orbax has threads

    def call(self, kind: str, path: str, do: Callable, *args: Any, **kw: Any) -> Any:
        if not path.startswith(self.root):
            return do(*args, **kw)
        with self.lock:
            number = len(self.calls)
            self.calls.append((kind, path))
            self.before(number)
            result = do(*args, **kw)
            self.after(number)
            return result

    def fail_at(self, number: int, code: int) -> None:
        """Lets a call fail; and where the disk is full then, what needs room later."""

        def fail(at: int) -> None:
            needs_room = self.calls[at][0] in ("open", "write", "mkdir")
            is_full = code == errno.ENOSPC and needs_room
            if at == number or (at > number and is_full):
                raise OSError(code, os.strerror(code))

        self.before = fail

    def __enter__(self):
        self._undo = contextlib.ExitStack()
        patch = self._undo.enter_context(pytest.MonkeyPatch.context())
        for module in (builtins, io):
            patch.setattr(module, "open", functools.partial(self._open, open))
        for kind, names in {
            "replace": ("replace", "rename"),
            "mkdir": ("mkdir",),
            "remove": ("unlink", "remove", "rmdir"),
        }.items():
            for name in names:
                change = functools.partial(self._change, kind, getattr(os, name))
                patch.setattr(os, name, change)
        patch.setattr(os, "fsync", functools.partial(self._sync, os.fsync))
        patch.setattr(os, "open", functools.partial(self._os_open, os.open))
        return self

    def __exit__(self, *error):
        self._undo.close()

    def _change(self, kind, do, *args, dir_fd=None, **kw):
        if dir_fd is not None:
            kw["dir_fd"] = dir_fd
        path = os.fspath(args[-1 if kind == "replace" else 0])
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        return self.call(kind, path, do, *args, **kw)

    def _sync(self, do, file):
        number = file if isinstance(file, int) else file.fileno()
        return self.call("sync", os.readlink(f"/proc/self/fd/{number}"), do, file)

    def _os_open(self, do, path, flags, *args, **kw):
        if not flags & (os.O_WRONLY | os.O_RDWR) or isinstance(path, bytes):
            return do(path, flags, *args, **kw)
        return self.call("open", os.fspath(path), do, path, flags, *args, **kw)

    def _open(self, do, file, mode="r", buffering=-1, *args, **kw):
        is_ours = not isinstance(file, int) and os.fspath(file).startswith(self.root)
        if not is_ours or not set(mode) & set("wax+"):
            return do(file, mode, buffering, *args, **kw)
        path, disk = os.fspath(file), self

        class Raw(io.FileIO):
            def write(self, data):
                try:
                    return disk.call("write", path, super().write, data)
                except OSError:  # some of it was
                    super().write(bytes(data)[: len(data) // 2])
                    raise

        raw = self.call("open", path, Raw, path, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, *args, **kw)  # in the same order


class PowerCuts:
    """Keeps account of what is surely on a disk, and of what may be.

    Of what was not synced, a file has its old content, an empty one, half of what is
    new, or zeros; and each name in a folder stands for what it did or for what it does.

    Args:
        disk: whose folder is empty.
        seed: of what is chosen at random.
    """

    def __init__(self, disk: Disk, seed: int = 0):
        self.trees: list[dict[str, bytes | None]] = []
        self._disk, self._rng = disk, random.Random(seed)
        self._ids: dict[int, int] = {}
        self._count = itertools.count()
        self._synced: dict[int, Any] = {}
        disk.before, disk.after = self._before, self._after

    def _id(self, path: str) -> int:
        """Returns a number of an inode that no later one gets."""
        return self._ids.setdefault(os.lstat(path).st_ino, next(self._count))

    def _before(self, number: int) -> None:
        self.trees += self.worst()
        kind, path = self._disk.calls[number]
        if kind in ("replace", "remove") and os.path.lexists(path):
            self._id(path)
            self._ids.pop(os.lstat(path).st_ino)

    def _after(self, number: int) -> None:
        kind, path = self._disk.calls[number]
        if kind != "sync":
            return
        if os.path.isdir(path):
            names = os.listdir(path)
            self._synced[self._id(path)] = {
                name: (self._id(own), os.path.isdir(own))
                for name in names
                if os.path.lexists(own := os.path.join(path, name))
            }
        else:
            self._synced[self._id(path)] = read_bytes(path)

    def worst(self) -> list[dict[str, bytes | None]]:
        """Makes folders that a power cut may leave now: files, and None for folders."""
        here: dict[int, str] = {}
        for parent, _, names in os.walk(self._disk.root):
            for name in (".", *names):
                path = os.path.normpath(os.path.join(parent, name))
                with contextlib.suppress(FileNotFoundError):
                    here[self._id(path)] = path
        found = []
        for content, is_new in (
            ("empty", lambda: False),
            *((content, lambda: True) for content in ("empty", "half", "zeros")),
            *((None, lambda: self._rng.random() < 0.5) for _ in range(2)),
        ):
            tree: dict[str, bytes | None] = {}
            self._build(tree, self._id(self._disk.root), "", here, content, is_new)
            if tree not in found:
                found.append(tree)
        return found

    def _build(self, tree, folder, where, here, content, is_new) -> None:
        old, new = self._synced.get(folder, {}), {}
        if folder in here:
            for each in os.scandir(here[folder]):
                with contextlib.suppress(FileNotFoundError):
                    new[each.name] = (self._id(each.path), each.is_dir())
        for name in sorted(old.keys() | new.keys()):
            entry = (new if is_new() else old).get(name)
            if entry is None:
                continue
            own, is_folder = entry
            tree[path := f"{where}{name}"] = None
            if is_folder:
                self._build(tree, own, f"{path}/", here, content, is_new)
            else:
                tree[path] = self._content(own, here, content)

    def _content(self, own: int, here: dict[int, str], kind: str | None) -> bytes:
        sure = self._synced.get(own, b"")
        now = sure
        with contextlib.suppress(FileNotFoundError):
            now = read_bytes(here[own]) if own in here else sure
        if now == sure:
            return sure
        start = len(sure) if now.startswith(sure) else 0
        match kind or self._rng.choice(["empty", "half", "zeros", "whole"]):
            case "empty":
                return sure
            case "half":
                return now[: (start + len(now)) // 2]
            case "zeros":
                # A block that came too late, and one that did not.
                middle = (start + len(now)) // 2
                return now[:start] + bytes(middle - start) + now[middle:]
            case _:
                return now


def read_bytes(path: str | Path) -> bytes:
    with read_file(path) as file:
        return file.read()


def read_tree(folder: Path) -> dict[str, bytes | None]:
    """Reads all files below a folder; None stands for a folder."""
    return {
        str(path.relative_to(folder)): read_bytes(path) if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_tree(folder: Path, tree: dict[str, bytes | None]) -> Path:
    folder.mkdir()
    for name, content in tree.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


# The commands


class FakeTrainer:
    """Networks of one number each."""

    compile_seconds = 0.0

    def __init__(self, functions, seeds, **settings):
        self.num_seeds = len(seeds)
        self._state = {"numbers": np.array(seeds, np.float32)}

    def train(self, num_epochs, steps_per_epoch, *, start=None) -> Iterator[Progress]:
        first = start or Progress(0, 0, 0 * self._state["numbers"], 0.0)
        step, totals = first.step, first.totals
        for epoch in range(first.epoch, num_epochs):
            while True:
                if step < steps_per_epoch:
                    step += 1
                    self._state["numbers"] = self._state["numbers"] * 1.25 % 7
                    totals = totals + self._state["numbers"]
                yield Progress(epoch, step, totals, 1.0 + epoch)
                if step == steps_per_epoch:
                    break
            step, totals = 0, 0 * totals

    def evaluate(self):
        rng = np.random.default_rng(self._state["numbers"].view(np.uint32))
        shape = (len(self._state["numbers"]), 360, 10)
        return rng.normal(size=shape).astype(np.float32)

    def save_state(self):
        return {name: array.copy() for name, array in self._state.items()}

    def load_state(self, arrays):
        self._state = {name: arrays[name] for name in self._state}


def fake_train(plan, dataset, cells, probes, *, show):
    results = []
    for cell in cells:
        rng = np.random.default_rng([*map(ord, repr(cell))])
        logits = stores._make_logits(rng, 70 + cell.strength + cell.seed)
        epochs = plan.regimes[cell.regime].epochs
        record = stores._make_record(rng, logits, epochs) | {"seconds": 1.0}
        results.append((record, logits))
    return results


def fake_pictures(result: dict, folder: Path) -> None:
    for name in run_pictures.FILES:
        with files.replacing(folder / name) as temporary:
            temporary.write_bytes(b"picture")


@contextlib.contextmanager
def fakes() -> Iterator[None]:
    """Puts fakes in place of what takes long, or differs from time to time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)  # which may take 50 ms
        patch.setattr(datasets, "load", functools.cache(datasets.load))
        patch.setattr(studies_runner, "train", fake_train)
        patch.setattr(studies_runner, "IMAGES_PER_CORE", 1)
        patch.setattr(
            study, "measure_noise", lambda plan, arm, _: stores._make_noise(arm)
        )
        patch.setattr(study, "environment", lambda: stores.ENVIRONMENT)
        patch.setattr(page, "build", lambda *args, **kw: "<html>")
        patch.setattr(runs_runner, "Trainer", FakeTrainer)
        patch.setattr(runs_runner, "make_functions", lambda *args, **kw: None)
        patch.setattr(outputs, "environment", lambda: stores.ENVIRONMENT)
        patch.setattr(runs_runner.memory, "check_seeds", lambda *args: None)
        patch.setattr(run_pictures, "save", fake_pictures)
        yield


def call(command: str, base: Path) -> int:
    """Runs a command in a folder, to which it may be new, and returns its exit code."""
    out = base / "deep" / "out"
    main, *flags = {
        "study": (study.main, f"--plan={plan_file(base)}", f"--out={out}"),
        "cifar": (
            *(cifar.main, f"--out={out}", "--resume", "--reg=none", "--seeds=2"),
            *("--dataset=digits", "--epochs=3", "--steps-per-epoch=1"),
        ),
        "report": (report.main, str(store_folder(base)), f"--out={out}"),
    }[command]
    return end(main, *flags)


def plan_file(base: Path) -> Path:
    return base.parent / "plan.toml"


def store_folder(base: Path) -> Path:
    return base.parent / "store"


def prepare(folder: Path) -> None:
    """Writes what the commands read beside the folders that they are given."""
    plan_file(folder / "base").write_text(PLAN)
    document = stores.DOCUMENT | {"seeds": 3}
    stores.make_store(store_folder(folder / "base"), plan_document=document)


def check_whole(tree: dict, whole: dict, *, torn: bool) -> None:
    """Asserts that what has a name of a result is a result, or the start of a log."""
    for name, content in tree.items():
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if content is None or hidden or "checkpoints" in Path(name).parts:
            continue
        if name.endswith(".jsonl"):
            assert whole[name].startswith(content), name
            assert torn or not content or content.endswith(b"\n"), name
        else:
            assert content == whole[name], name


Run = Callable[[str, Path, Callable[[Disk], object]], tuple[int, list[str]]]
"""A command, its folder, what is done to the disk -> exit code, lines on stderr."""


def fail_and_go_on(command: str, folder: Path, step: int, run: Run) -> str:
    """Lets calls of a command fail, one in some in turn, and goes on each time."""
    calls, whole = count(command, folder, run)
    points = [n for n, (kind, _) in enumerate(calls) if kind != "remove"][::step]
    num_ended = 0
    for number, code in itertools.product(points, (errno.ENOSPC, errno.EIO)):
        base = new(folder / "failed")
        fail = functools.partial(Disk.fail_at, number=number, code=code)
        exit_code, lines = run(command, base, fail)
        where = (*calls[number], errno.errorcode[code], exit_code, lines)
        if exit_code == 0:  # what failed is not needed
            assert len(lines) <= 1, where
            assert all(line.startswith("warning: --out=") for line in lines), where
        else:
            num_ended += 1
            assert (exit_code, len(lines)) == (2, 1), where
            assert lines[0].startswith("error: --out="), where
            assert f"({os.strerror(code)})" in lines[0], where
        check_whole(read_tree(base), whole, torn=False)
        assert run(command, base, lambda disk: None)[0] == 0, where
        assert read_tree(base) == whole, where
    assert num_ended > len(points) >= 5
    return f"{command}: {2 * len(points)} faults, of which {num_ended} ended it"


def kill_and_go_on(command: str, folder: Path, step: int, run: Run) -> str:
    """Kills a command at calls, one in some in turn, and goes on each time."""
    calls, whole = count(command, folder, run)
    points = range(0, len(calls), step)
    num_killed = 0
    for number in points:
        base = new(folder / "killed")

        def kill(disk, number=number):
            disk.before = lambda at: at == number and os.kill(os.getpid(), 9)

        status, _ = run(command, base, kill)
        num_killed += status == -9
        # Threads make one call more or less.
        assert status in (0, -9), (command, number, status)
        check_whole(read_tree(base), whole, torn=True)
        assert run(command, base, lambda disk: None)[0] == 0, (command, number)
        assert read_tree(base) == whole, (command, number)
    assert num_killed >= 0.9 * len(points) >= 5
    return f"{command}: {num_killed} kills"


def count(command: str, folder: Path, run: Run) -> tuple[list, dict]:
    """Runs a command that nothing disturbs: what it calls, and what it makes."""
    log = folder / "calls.json"
    base = new(folder / "whole")

    def note(disk: Disk) -> None:
        disk.after = lambda number: log.write_text(json.dumps(disk.calls))

    assert (done := run(command, base, note)) == (0, []), done
    return json.loads(log.read_text()), read_tree(base)


def new(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def run_in_child(command: str, base: Path, prepare: Callable) -> tuple[int, list[str]]:
    """Runs a command in a fork of a process in which JAX was not started."""
    errors = base.parent / "stderr"
    if (child := os.fork()) == 0:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        with Disk(base) as disk:
            prepare(disk)
            code = call(command, base)
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, errors.read_text().splitlines()


if __name__ == "__main__":
    do = {"fail": fail_and_go_on, "kill": kill_and_go_on}[sys.argv[1]]
    with fakes(), contextlib.redirect_stdout(io.StringIO()):
        prepare(place := Path(sys.argv[3]))
        # Imported once, and not by every child.
        datasets.load("digits")
        Analysis(store.read([store_folder(place / "base")]))
        for name in ("orbax.checkpoint", "sklearn.metrics"):
            importlib.import_module(name)
        said = do(sys.argv[2], place, int(sys.argv[4]), run_in_child)
    print(said)
