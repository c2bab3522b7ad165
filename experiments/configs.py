"""The configuration of a run: one dataclass makes flags, help and defaults."""

import contextlib
import dataclasses
import io
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import tyro

from experiments import datasets
from experiments.choices import nearest
from experiments.regularizers import REGULARIZERS, Recipe

DTYPES = ("float32", "bfloat16")
LARGEST = 3.38e38  # that both of them hold, about

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
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print(f"interrupted: {str(error) or interrupted}", file=sys.stderr)
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
    try:
        main()
    except SystemExit as exit:
        if exit.code not in (128 + signal.SIGINT, 128 + signal.SIGTERM):
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
    """Rewords what `tyro` refused as our other errors are worded."""
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
    return f"{' '.join(strays or args)}: no flag; --help lists what can be given."


def _find_wanted(hint: Any, value: str) -> str | None:
    """Returns what a flag takes, if that is a number and the value is none."""
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
    flag("Folder of tensorflow-datasets. Default: $TFDS_DATA_DIR, or its own.", "DIR"),
]

DESCRIPTION = """\
Trains SoundDrop's network: three blocks of convolution, ReLU, BatchNorm, pooling and a
regularizer, then a linear layer; 34,058 parameters. Ten epochs of CIFAR-10 take a few
minutes on a laptop's CPU.

  python -m experiments.cifar --reg=water
  python -m experiments.cifar --reg=dropout --rate=0.1 --seeds=4
  python -m experiments.cifar --reg=aphex --audio=song.flac --intensity=0.1
  python -m experiments.cifar --dataset=digits --epochs=3"""


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags of `python -m experiments.cifar`, their help and their defaults."""

    reg: Annotated[
        str,
        flag(
            "Regularizer after each block: dropout, or spatial_dropout of whole "
            "channels; gaussian adds white noise, water pink noise along rows, plane "
            "pink noise in both directions, aphex slices of a recording. Default: "
            "water.",
            choices(REGULARIZERS),
        ),
    ] = "water"
    seeds: Annotated[
        int, flag("Number of networks, trained side by side, with successive seeds.")
    ] = 1
    seeds_at_once: Annotated[
        int | Literal["auto"],
        flag(
            "Networks that a device works on at a time. Default: auto, which is one on "
            "each core of a CPU, and as many as fit the memory of a GPU.",
            "{auto,INT}",
        ),
    ] = "auto"
    seed: Annotated[
        int,
        flag("Seed of the first: of its weights, order, augmentation and noise."),
    ] = 58
    epochs: Annotated[int, flag("Passes over the training set.")] = 10
    steps_per_epoch: Annotated[
        int | None,
        flag("Stop each epoch after so many steps. Default: all of it.", "INT"),
    ] = None
    batch_size: Annotated[int, flag("Images a step.")] = 64
    learning_rate: Annotated[float, flag("Of AdamW, constant.")] = 1e-3
    weight_decay: Annotated[float, flag("Of AdamW, on every parameter.")] = 0.01
    intensity: Annotated[
        float | None,
        flag(
            "Standard deviation of the noise. Default: 0.1 for gaussian, 0.05 for "
            "the others.",
            "FLOAT",
        ),
    ] = None
    rate: Annotated[
        float | None,
        flag(
            "Share of features that dropout zeroes, by default 0.2, or of channels "
            "that spatial_dropout does, by default 0.1.",
            "FLOAT",
        ),
    ] = None
    audio: Annotated[
        str | None,
        flag(
            "Recording for aphex: wav, flac, ogg or mp3, or a folder of such. Default: "
            "a glitch track that the program synthesises.",
            "PATH",
        ),
    ] = None
    dataset: Annotated[
        str,
        flag(
            "cifar10 is downloaded if need be; digits, scikit-learn's handwritten "
            "ones, are always at hand; auto, the default, takes digits where cifar10 "
            "cannot be had.",
            choices(datasets.CHOICES),
        ),
    ] = "auto"
    data_dir: DataDir = None
    out: Annotated[
        Path | None, flag("Folder for the results. Default: runs/REG-TIME-CODE.", "DIR")
    ] = None
    resume: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        flag(
            "Go on with the run in --out from its last checkpoint, or start it; with "
            "the same flags the numbers are those of a run that was not interrupted. "
            "Not with --distributed, which keeps no checkpoints."
        ),
    ] = False
    dtype: Annotated[
        str,
        flag(
            "Of the computation; parameters are float32. Default: float32.",
            choices(DTYPES),
        ),
    ] = "float32"
    deterministic: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        flag(
            "On a GPU, only algorithms that give the same bits every time, which may "
            "be slower. A CPU has no others."
        ),
    ] = False
    distributed: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        flag(
            "One run of several processes, each started with this same command: SLURM, "
            "Open MPI, Kubernetes and TPU pods are found; by hand, give each "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT of the first, JAX_NUM_PROCESSES and its "
            "JAX_PROCESS_ID, from 0.",
        ),
    ] = False

    @property
    def recipe(self) -> Recipe:
        """How the regularizer that `reg` names is made."""
        return REGULARIZERS[self.reg]

    @property
    def at_once(self) -> int | None:
        """The number that `seeds_at_once` asks for, or None for auto."""
        return None if self.seeds_at_once == "auto" else self.seeds_at_once

    @property
    def strength(self) -> float:
        """The intensity or rate: what the flag says, or the recipe's default."""
        given = {"intensity": self.intensity, "rate": self.rate, None: None}
        value = given[self.recipe.strength]
        return self.recipe.default if value is None else value


def check(config: Config) -> None:
    """Validates a config.

    Raises:
        UsageError: names the first flag at fault, its value and the remedy.
    """
    check_choice("--reg", config.reg, list(REGULARIZERS))
    check_choice("--dataset", config.dataset, datasets.CHOICES)
    check_choice("--dtype", config.dtype, DTYPES)
    for name, count in (
        ("--seeds", config.seeds),
        ("--seeds-at-once", config.at_once),
        ("--epochs", config.epochs),
        ("--steps-per-epoch", config.steps_per_epoch),
        ("--batch-size", config.batch_size),
    ):
        if count is not None and count < 1:
            raise UsageError(f"{name}={count}: give a whole number of 1 or more.")
    # Seeds are 32-bit, like JAX's own where 64-bit numbers are off.
    if not 0 <= config.seed <= 2**32 - config.seeds:
        raise UsageError(
            f"--seed={config.seed}: give a whole number from 0 to {2**32 - 1}, which "
            f"no later seed may pass either (--seeds={config.seeds})."
        )
    for name, value in (
        ("--intensity", config.intensity),
        ("--learning-rate", config.learning_rate),
        ("--weight-decay", config.weight_decay),
    ):
        if value is not None and not 0 <= value <= LARGEST:
            raise UsageError(
                f"{name}={value}: give a finite number of 0 or more, up to {LARGEST}."
            )
    if config.resume and config.out is None:
        raise UsageError("--resume: name the folder of the run, --out=DIR.")
    if config.resume and config.distributed:
        raise UsageError(
            "--resume: --distributed keeps no checkpoints; start the run anew, in "
            "another folder."
        )
    if config.rate is not None and not is_rate(config.rate):
        raise UsageError(f"--rate={config.rate}: give a number of 0 or more, below 1.")
    _check_unused(config)


def is_rate(value: float) -> bool:
    """Returns whether dropout can take a rate: below 1 in float32, too."""
    return 0 <= value <= 1 and bool(np.float32(value) < 1)


def check_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    """Validates a choice; the error names the nearest one."""
    if value not in choices:
        raise UsageError(
            f"{flag}={value}: choose one of {', '.join(choices)}"
            f"{nearest(value, choices)}."
        )


def _check_unused(config: Config) -> None:
    """Raises for a flag that would change nothing: it was meant to change something."""
    users = {
        "intensity": [n for n, r in REGULARIZERS.items() if r.strength == "intensity"],
        "rate": [n for n, r in REGULARIZERS.items() if r.strength == "rate"],
        "audio": ["aphex"],
    }
    for name, regs in users.items():
        value = getattr(config, name)
        if value is not None and config.reg not in regs:
            raise UsageError(
                f"--{name}={value}: --reg={config.reg} does not use it; leave it out "
                f"or choose --reg={' or '.join(regs)}."
            )
