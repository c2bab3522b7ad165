"""Checkpoints of a run, in OUT/checkpoints.

A run that was cut off anywhere, SIGKILL in the middle of a save included, goes on from
the newest intact checkpoint and ends in the numbers of one that was not. A power cut
can damage the newest one, and no other: it is on the disk before the next is begun.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pydantic
from pydantic import Field
from typing_extensions import TypedDict  # pydantic's own need, on Python 3.11

from experiments import files, terminal, values, words
from experiments.cli import UsageError
from experiments.files import LARGEST, check_regular

FOLDER = "checkpoints"
DAMAGED = "damaged"
# Raised with every change of the code that gives other numbers, for which an unfinished
# run must not go on. What another release of JAX changes, nobody knows: a warning.
VERSION = 1
KEPT = 2


class Checkpoint(NamedTuple):
    """What a run goes on from.

    Attributes:
        about: plain Python, ready for JSON, NaN and infinity included.
        arrays: by name.
    """

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Epoch(TypedDict):
    """A record of an epoch, as in metrics.jsonl but with NaN and infinity."""

    epoch: int
    train_loss: list[float]
    test_accuracy: list[float]
    seconds: float


class About(TypedDict):
    """What a run says of a checkpoint, digest aside."""

    numbers: dict[str, Any]
    environment: dict[str, str]
    epoch: Annotated[int, Field(ge=0)]
    step: Annotated[int, Field(ge=0)]
    seconds: float
    records: list[Epoch]


ABOUT = pydantic.TypeAdapter(About)


class Checkpoints:
    """The checkpoints of one run, written by Orbax in the background.

    Orbax writes each under another name, renames it when it is whole and then removes
    all but the last two.

    Args:
        out: the run's folder.
    """

    def __init__(self, out: Path):
        import orbax.checkpoint as ocp  # which takes a second

        self._args = ocp.args
        self._folder = (out / FOLDER).absolute()
        self._set_pipes_aside()
        self._aliases = contextlib.ExitStack()
        files.make_folder(self._folder)
        self._synced: int | None = None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, cleanup_tmp_directories=True
        )
        _silence()
        # Orbax raises for all of them if it takes offence at the metadata of one.
        folder = self._alias()
        for step in list(ocp.path.step.standard_name_format().find_all(folder)):
            try:
                step.commit_timestamp_nsecs  # noqa: B018
            except ValueError as error:
                self._set_aside(self._folder / str(step.step), words.reason(error))
        self._manager = ocp.CheckpointManager(folder, options=options)

    def _alias(self) -> Path:
        """Returns a path of the folder that Orbax takes for no pattern and no URL."""
        if re.fullmatch(r"[\w./-]+", str(self._folder)):
            return self._folder
        aliases = self._aliases.enter_context(tempfile.TemporaryDirectory())
        alias = Path(aliases, "out")
        alias.symlink_to(self._folder.parent)
        return alias / FOLDER

    def _set_pipes_aside(self) -> None:
        """Sets aside what Orbax, which reads some of it at once, would wait for."""
        for path in self._folder.glob("[!.]*"):
            try:
                check_regular(path)
                for file in path.rglob("*"):
                    # Of the arrays in d/, of any size, it reads no more than there is.
                    if file.parent.name != "d" and file.stat().st_size > LARGEST:
                        size = f"{file.stat().st_size:,} bytes"
                        raise OSError(errno.EFBIG, f"{file.name} in it has {size}")
            except OSError as error:
                self._set_aside(path, error.strerror or str(error))

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = self._folder.with_name(DAMAGED) / path.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        os.replace(path, aside)
        others = [each for each in self._folder.iterdir() if each.name.isdecimal()]
        terminal.warn(
            f"{path} is damaged ({reason}), and was moved to {aside}; going on from "
            f"{'the one before' if others else 'the start'}."
        )

    def save(self, number: int, checkpoint: Checkpoint) -> None:
        """Begins to save a checkpoint, once the one before is saved.

        Args:
            number: larger than any before; the newest one's again does nothing.
            checkpoint: whose arrays nobody changes.

        Raises:
            OSError: if it cannot be written, or the one before could not.
        """
        if number == self._manager.latest_step():
            return
        self.wait()
        about = checkpoint.about | {"digest": _digest(checkpoint)}
        try:
            self._manager.save(
                number,
                args=self._args.Composite(
                    about=self._args.JsonSave(about),
                    arrays=self._args.StandardSave(checkpoint.arrays),
                ),
            )
        except Exception as error:
            raise _as_os_error(error) from error

    def wait(self) -> None:
        """Waits until all is saved, and on the disk.

        Raises:
            OSError: if it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise _as_os_error(error) from error
        newest = self._manager.latest_step()
        if newest is not None and newest != self._synced:
            files.sync_all(self._folder / str(newest))
            files.sync(self._folder)
            self._synced = newest

    def load(self) -> Checkpoint | None:
        """Reads the newest intact checkpoint; names damaged ones and sets them aside.

        Returns:
            None if there is none.
        """
        for number in sorted(self._manager.all_steps(), reverse=True):
            path = self._folder / str(number)
            reason = "its digest is another"
            # A damaged file may raise anything at all.
            try:
                found = self._manager.restore(
                    number,
                    args=self._args.Composite(
                        about=self._args.JsonRestore(),
                        arrays=self._args.StandardRestore(),
                    ),
                )
                digest = found.about.pop("digest")
                checkpoint = Checkpoint(found.about, found.arrays)
                if digest == _digest(checkpoint):
                    return checkpoint
            except MemoryError:
                raise
            except Exception as error:
                reason = words.reason(error)
            self._set_aside(path, reason)
            self._manager.reload()
        return None

    def close(self) -> None:
        """Waits, and ends what runs in the background; what fails now is of no use."""
        with self._aliases, contextlib.suppress(Exception):
            self._manager.close()


def exist(out: Path) -> bool:
    """Returns whether a folder holds checkpoints, or what is left of them."""
    folder = out / FOLDER
    return folder.is_dir() and any(folder.glob("[!.]*"))


def remove(out: Path) -> None:
    """Removes the checkpoints of a run, damaged ones too, if there are any."""
    for folder in (FOLDER, DAMAGED):
        shutil.rmtree(out / folder, ignore_errors=True)


def check_about(about: dict[str, Any]) -> None:
    """Raises for a checkpoint that no run of this command has written.

    Args:
        about: of a checkpoint, `numbers` included.

    Raises:
        UsageError: names the entry at fault.
    """
    try:
        values.read(ABOUT, about)
        numbers, records = about["numbers"], about["records"]
        epochs, steps = numbers["--epochs"], numbers["--steps-per-epoch"]
        if not (about["epoch"] < epochs and 0 < about["step"] <= steps):
            raise ValueError(f"epoch {about['epoch']}, step {about['step']}")
        curves = [r[name] for r in records for name in ("train_loss", "test_accuracy")]
        if len(records) != about["epoch"] or any(
            len(curve) != numbers["--seeds"] for curve in curves
        ):
            raise ValueError("records of other networks or epochs")
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--resume: a checkpoint in --out is of no run of this command "
            f"({words.reason(error).removesuffix('.')}); name another folder."
        ) from None


def check_same(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raises if the run to go on with was another.

    Args:
        there: what the numbers of the run depend on, by the name of flag or thing.
        here: the same of this command.

    Raises:
        UsageError: names what differs, there and here.
    """
    names = dict.fromkeys([*there, *here])
    differences = [
        f"{name}: {there.get(name)} there, {here.get(name)} here"
        for name in names
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise UsageError(
            f"--resume: the run in --out was another ({'; '.join(differences)}); give "
            "the flags, files and code that it was started with, or another folder."
        )


def warn_if_elsewhere(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Warns if JAX or the device changed since the checkpoint."""
    differences = [
        f"{name} {there[name]} there, {here[name]} here"
        for name in there
        if there[name] != here[name]
    ]
    if differences:
        terminal.warn(
            f"--resume: {'; '.join(differences)}; the numbers may differ from those of "
            "a run that was not interrupted."
        )


def _digest(checkpoint: Checkpoint) -> str:
    text = json.dumps(checkpoint.about, sort_keys=True)
    text += files.digest_arrays(checkpoint.arrays)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _silence() -> None:
    """Silences what Orbax and TensorStore print of errors, which they raise as well.

    A full disk would be hundreds of lines, some of them after all is closed.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).disabled = True
    before = sys.excepthook

    def show(*error: Any) -> None:
        # Threads of Python have a hook of their own: these are TensorStore's.
        if threading.current_thread() is threading.main_thread():
            before(*error)

    sys.excepthook = show
    unraisable = sys.unraisablehook

    def show_unraisable(error: Any) -> None:
        # TensorStore's threads also tell loops that Orbax has closed.
        trace = error.exc_traceback
        if trace is None or trace.tb_frame.f_code.co_name != "call_soon_threadsafe":
            unraisable(error)

    sys.unraisablehook = show_unraisable


def _as_os_error(error: Exception) -> OSError:
    """Converts an error of Orbax or TensorStore to an OSError of one line."""
    if isinstance(error, OSError):
        return error
    if match := re.search(r"\[(?:os_error_code='|OS error )(\d+)", str(error)):
        return OSError(int(match[1]), os.strerror(int(match[1])))
    line = str(error).partition("\n")[0]
    return OSError(0, line[:200] or type(error).__name__)
