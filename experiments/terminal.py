"""The arguments and the output of a command, on any terminal.

What users type is printed as they typed it, and nobody has to take what is said: a full
disk, a closed terminal or a reader that left costs words, never a run.
"""

import codecs
import contextlib
import io
import itertools
import logging
import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.cli import UsageError
from experiments.words import printable


@contextlib.contextmanager
def sheltered() -> Iterator[None]:
    """Protects a command from differences between machines: streams, home, settings.

    Writing to stdout and stderr never fails in it. Streams that Python did not open
    itself, as in a notebook, stay as they are.
    """
    # What is closed would be the next file to be opened, and get what libraries print.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    try:
        Path.home()
    except RuntimeError:  # an unknown user, as in a container
        os.environ["HOME"] = "/"
    # Meant for windows and the user's own pictures, and some fail Matplotlib's import.
    os.environ.pop("MPLBACKEND", None)
    os.environ["MATPLOTLIBRC"] = os.devnull
    # It warns of a full cache, which costs it a second.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out = _reopen(sys.stdout, sys.__stdout__, 1) or nowhere
        err = _reopen(sys.stderr, sys.__stderr__, 2) or nowhere
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                yield
            finally:
                out.flush()
                err.flush()


def _reopen(stream: Any, original: Any, fd: int) -> Any:
    if stream is None or stream is not original:  # None is one that was closed
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Standing(fd, "w", closefd=False)),
        encoding=stream.encoding,
        errors="spell",
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spells out what a stream cannot encode: ±, or bytes that are no text."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    for ours, theirs in {"−": "-", "±": "+-", "–": "-", "…": "..."}.items():
        lacking = lacking.replace(ours, theirs)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("spell", _spell)


class _Standing(io.FileIO):
    """A file that drops what it cannot write; warns once if it is stdout."""

    _is_open = True

    def write(self, content: Any) -> int:
        try:
            while (count := super().write(content)) is None:
                select.select([], [self], [])  # someone made it non-blocking
            return count
        except BrokenPipeError:  # the reader has seen enough
            pass
        except OSError as error:
            if self._is_open and self.fileno() == 1:
                warn(f"stdout cannot be written ({error.strerror}); going on without.")
            self._is_open = False
        return memoryview(content).nbytes


def warn(line: str) -> None:
    """Prints a warning."""
    print(f"warning: {printable(line)}", file=sys.stderr)


def arguments() -> list[str]:
    """Returns the command line, with a leading ~ in place of which the home stands.

    Shells do that, but not in `--out=~/x`.

    Raises:
        UsageError: if something in it is empty, as `--out=$FOLDER` may be.
    """
    result = []
    for before, argument in itertools.pairwise(["", *sys.argv[1:]]):
        match = re.match("--[^=]*=", argument)
        flag = match[0] if match else ""
        value = argument.removeprefix(flag)
        if not value:
            where = flag or f"{before} ''".strip()
            raise UsageError(f"{where}: empty; give a value, or leave it out.")
        result.append(flag + os.path.expanduser(value))
    return result


def make_console(*, quiet: bool = False) -> Console:
    """Makes a console that prints text as it is, and does not wrap lines."""
    return Console(
        quiet=quiet,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
    )


@contextlib.contextmanager
def progress_bar(total: int, console: Console) -> Iterator[Callable[[int, str], None]]:
    """Shows how far a run has come, where someone looks at a terminal.

    Args:
        total: number of steps of the whole run.
        console: where to draw; nothing is drawn if it is quiet or no terminal.

    Yields:
        A function of the steps done so far and a short text beside the bar.
    """
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=console.quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task("compiling", total=total)

        def show(done: int, text: str) -> None:
            bar.update(task, completed=done, description=text)

        yield show
