"""How a command begins and ends: flags, bad input, signals, exit codes."""

import contextlib
import dataclasses
import io
import os
import signal
import socket
import sys
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Annotated, Any, Self, TypeVar

import tyro

from experiments.words import nearest, printable

# How many seconds a signal may go unheard. A compiled call of a training takes about
# two, see `trainer.SECONDS_PER_CALL`.
PATIENCE = 10.0
ENDING = (signal.SIGINT, signal.SIGTERM)

Flags = TypeVar("Flags")


class UsageError(Exception):
    """Bad input: one line that names the flag, the value and the remedy."""


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end.

    Args:
        signum: of the signal.
        message: what is left behind; empty for what the command says by default.
    """

    def __init__(self, signum: int, message: str = ""):
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def exit_codes(*, interrupted: str) -> Iterator[None]:
    """Ends a command with one line: 2 after bad input, 130 after Ctrl-C.

    Other signals that raise `Interrupted` end it with 128 and their number, as a shell
    puts it: 143 for SIGTERM.

    Args:
        interrupted: what is left behind by a command that was interrupted.
    """
    try:
        with _signals_come_again():
            yield
    except UsageError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        message = printable(str(error) or interrupted)
        print(f"interrupted: {message}", file=sys.stderr)
        sys.exit(128 + getattr(error, "signum", signal.SIGINT))


@contextlib.contextmanager
def _signals_come_again() -> Iterator[None]:
    """Sends a signal once more where its exception was lost.

    Python drops what is raised in a destructor or in a callback of its garbage
    collector, and JAX has such callbacks: Ctrl-C would do nothing but print a trace.
    """
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def send_again(lost: Any) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            before(lost)
            return
        signum = getattr(lost.exc_value, "signum", signal.SIGINT)
        # A moment later, or it would be raised in here and be lost again.
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signum))
        timers.append(timer)
        timer.start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


def run_command(main: Callable[[], None]) -> None:
    """Runs a command, and ends its process at once where a signal ended the command.

    Python's own exit waits for what JAX still computes: as long as an evaluation of
    many networks takes, or for ever.
    """
    if sys.platform == "win32":
        sys.stderr.write(
            "error: the experiment needs Linux or macOS; on Windows use WSL. The "
            "library needs neither.\n"
        )
        sys.exit(2)
    try:
        main()
    except SystemExit as exit:
        if exit.code not in [128 + signum for signum in ENDING]:
            raise
        os._exit(exit.code)


def flag(help: str, metavar: str | None = None) -> Any:
    """Describes a flag; one with a metavar says its own default, or has choices."""
    hint = None if metavar is None else ""
    return tyro.conf.arg(help=help, metavar=metavar, help_behavior_hint=hint)


def choices(names: Iterable[str]) -> str:
    """Writes the values of a flag as `--help` shows them."""
    return "{" + ",".join(names) + "}"


def read_flags(
    kind: type[Flags],
    *,
    prog: str,
    description: str | None = None,
    args: Sequence[str],
) -> Flags:
    """Reads the flags of a command, or shows its help.

    Args:
        kind: a dataclass, a flag for each field.
        prog: the command, as the help calls it.
        description: of the command, for its help.
        args: after the command, see `terminal.arguments`.

    Raises:
        UsageError: names the argument at fault, and the remedy.
    """
    try:
        # Tyro's own words are a box of ten lines, with Python's types in it.
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(kind, prog=prog, description=description, args=args)
    except SystemExit as exit:
        if exit.code != 2:
            raise
    raise UsageError(_find_fault(kind, args))


def _find_fault(kind: type, args: Sequence[str]) -> str:
    """Describes in one line what `tyro` refused."""
    hints = typing.get_type_hints(kind)
    flags = {f"--{name.replace('_', '-')}": hint for name, hint in hints.items()}
    strays = []
    rest = iter(args)
    for arg in rest:
        name, is_given, value = arg.partition("=")
        name = name.replace("_", "-")
        if not name.startswith("--"):
            strays.append(arg)
        elif name not in flags:
            return f"{arg}: no such flag{nearest(name, flags)}; --help lists them."
        elif flags[name] is bool:
            if is_given:
                return f"{arg}: it takes no value; give {name}."
        else:
            value = value if is_given else next(rest, "--")
            if not is_given and value.startswith("--"):
                return f"{name}: its value is missing; give {name}=VALUE."
            if wanted := _find_wanted(flags[name], value):
                return f"{name}={value}: give {wanted}."
    given = {arg.partition("=")[0].replace("_", "-") for arg in args}
    for field in dataclasses.fields(kind):
        name = f"--{field.name.replace('_', '-')}"
        if field.default is dataclasses.MISSING and not strays and name not in given:
            return f"{name} is missing; give {name}=VALUE."
    return f"{' '.join(strays or args)}: no flag; --help lists what can be given."


def _find_wanted(hint: Any, value: str) -> str | None:
    """Returns what kind of number a flag takes, if the value is none."""
    kinds = (hint, *typing.get_args(hint))
    words = [word for kind in kinds[1:] for word in typing.get_args(kind)]
    for number, what in ((int, "a whole number"), (float, "a number")):
        if number in kinds and value not in words:
            try:
                number(value)
            except ValueError:
                return " or ".join([*words, what])
    return None


DataDir = Annotated[
    str | None,
    flag(
        "Folder where tensorflow-datasets keeps its sets, or where FILE.npz lies. "
        "Default: $TFDS_DATA_DIR, or TFDS's own.",
        "DIR",
    ),
]


def check_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    """Validates a choice; the error names the nearest one."""
    if value not in choices:
        raise UsageError(
            f"{flag}={value}: choose one of {', '.join(choices)}"
            f"{nearest(value, choices)}."
        )


class Signals:
    """Raises `Interrupted` for SIGINT and SIGTERM, while it is entered.

    A signal that is ignored stays so, as Ctrl-C is in what a script runs in the
    background.

    Python hears a signal between two of its own steps, and not while it waits for JAX,
    which may take minutes to compile, or for ever where threads wait for one another
    (see `spectra.LONGEST_PRODUCT`). A first signal that it does not hear in time ends
    the process, and loses no more than SIGKILL would.

    Args:
        left: what is left behind by a process that is ended so, a sentence.

    Attributes:
        held: True while a first signal only notes itself in `heard`; a second one
            raises all the same.
        heard: the signal that came while it was held, or None.
    """

    def __init__(self, left: str) -> None:
        self._left = left
        self.held = False
        self.heard: int | None = None
        self._is_answered = threading.Event()
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        # Elsewhere, as in a notebook's helper, Python has no say in it.
        if threading.current_thread() is threading.main_thread():
            self._watch()
            for signum in ENDING:
                if signal.getsignal(signum) != signal.SIG_IGN:
                    before = signal.signal(signum, self._hear)
                    self._undo.callback(signal.signal, signum, before)
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _watch(self) -> None:
        # Whatever the main thread does, the system writes a signal's number there.
        ears, mouth = socket.socketpair()
        mouth.setblocking(False)

        def watch() -> None:
            # Others may be heard as well, and are none of ours.
            while (heard := ears.recv(1)) and heard[0] not in ENDING:
                pass
            if heard and not self._is_answered.wait(PATIENCE):
                print(
                    f"interrupted: a call did not return within {PATIENCE:g} seconds; "
                    f"{self._left}",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(128 + heard[0])

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        self._undo.callback(ears.close)
        self._undo.callback(watcher.join)
        self._undo.callback(mouth.close)
        self._undo.callback(self._is_answered.set)
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(mouth.fileno()))

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self._is_answered.set()
        if not self.held or self.heard is not None:
            raise Interrupted(signum)
        self.heard = signum
