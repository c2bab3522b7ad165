"""What a command asks of the disk: failed, or the last before a kill or a power cut.

The commands are whole, but train fakes, so that they can be run hundreds of times. What
TensorStore writes of itself is seen in the folder, and cannot be failed or synced here.
"""

import builtins
import contextlib
import errno
import functools
import io
import itertools
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cifar, files, report, study
from experiments.data import datasets
from experiments.pictures import runs as run_pictures
from experiments.reporting import page
from experiments.runs import outputs
from experiments.runs import runner as runs_runner
from experiments.studies import runner as studies_runner
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


Tree = dict[str, bytes | None]  # of files, and None for folders


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

    Attributes:
        kills: the folder before each call, as SIGKILL leaves it: files, None for
            folders.
        trees: what a power cut may leave then.
    """

    def __init__(self, disk: Disk, seed: int = 0):
        self.kills: list[Tree] = []
        self.trees: list[Tree] = []
        self._disk, self._rng = disk, random.Random(seed)
        self._ids: dict[int, int] = {}
        self._count = itertools.count()
        self._synced: dict[int, Any] = {}
        disk.before, disk.after = self._before, self._after

    def _id(self, path: str) -> int:
        """Returns a number of an inode that no later one gets."""
        return self._ids.setdefault(os.lstat(path).st_ino, next(self._count))

    def _before(self, number: int) -> None:
        kill, *trees = self.worst()
        self.kills += [kill] if kill not in self.kills[-1:] else []
        self.trees += [tree for tree in trees if tree not in self.trees[-5:]]
        kind, path = self._disk.calls[number]
        if kind in ("replace", "remove") and os.path.lexists(path):
            self._id(path)
            self._ids.pop(os.lstat(path).st_ino)

    def _after(self, number: int) -> None:
        kind, path = self._disk.calls[number]
        if kind == "sync" and os.path.isdir(path):
            self._synced[self._id(path)] = self._entries(path)
        elif kind == "sync":
            self._synced[self._id(path)] = read_bytes(path)

    def _entries(self, folder: str) -> dict[str, tuple[int, bool]]:
        found = {}
        for each in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                found[each.name] = (self._id(each.path), each.is_dir())
        return found

    def worst(self) -> list[Tree]:
        """Makes what a kill leaves now, and then what a power cut may."""
        here: dict[int, str] = {}
        for parent, _, names in os.walk(self._disk.root):
            for name in (".", *names):
                path = os.path.normpath(os.path.join(parent, name))
                with contextlib.suppress(FileNotFoundError):
                    here[self._id(path)] = path
        found = []
        for content, is_new in (
            ("whole", lambda: True),
            ("empty", lambda: False),
            *((content, lambda: True) for content in ("empty", "half", "zeros")),
            (None, lambda: self._rng.random() < 0.5),
        ):
            tree: Tree = {}
            self._build(tree, self._id(self._disk.root), "", here, content, is_new)
            found.append(tree)
        return found

    def _build(self, tree, folder, where, here, content, is_new) -> None:
        old = self._synced.get(folder, {})
        new = self._entries(here[folder]) if folder in here else {}
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
        sure = now = self._synced.get(own, b"")
        with contextlib.suppress(FileNotFoundError):
            now = read_bytes(here[own]) if own in here else sure
        start = len(sure) if now.startswith(sure) else 0
        middle = (start + len(now)) // 2
        match kind or self._rng.choice(["empty", "half", "zeros", "whole"]):
            case "empty":
                return sure
            case "half":
                return now[:middle] if now != sure else now
            case "zeros":  # a block that came too late, and one that did not
                return now[:start] + bytes(middle - start) + now[middle:]
            case _:
                return now


def read_bytes(path: str | Path) -> bytes:
    with read_file(path) as file:
        return file.read()


def read_tree(folder: Path) -> Tree:
    """Reads all files below a folder; None stands for a folder."""
    return {
        str(path.relative_to(folder)): read_bytes(path) if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_tree(folder: Path, tree: Tree) -> Path:
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
        assert steps_per_epoch == 1
        first = start.epoch if start else -1  # whose step is done
        for epoch in range(max(first, 0), num_epochs):
            if epoch != first:
                self._state = {"numbers": self._state["numbers"] * 1.25 % 7}
            yield Progress(epoch, 1, self._state["numbers"], 1.0 + epoch)

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


def new(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
