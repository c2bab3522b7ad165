"""The configuration of a run: one dataclass makes flags, help and defaults."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import tyro

from experiments import datasets
from experiments.regularizers import REGULARIZERS, Arm

DTYPES = ("float32", "bfloat16")


class UsageError(Exception):
    """Bad input: one line that names the flag, the value and the remedy."""


def _choice(*names: str):
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}")


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains SoundDrop's network and shows what a regularizer does to it.

    Three blocks of convolution, ReLU, BatchNorm, pooling and regularizer, and a linear
    layer: 34,058 parameters. Ten epochs of CIFAR-10 take minutes on a laptop.

    Examples:
      python -m experiments.cifar --reg=water
      python -m experiments.cifar --reg=dropout --rate=0.1 --seeds=4
      python -m experiments.cifar --reg=aphex --audio=song.flac --intensity=0.1
    """

    reg: Annotated[str, _choice(*REGULARIZERS)] = "water"
    """Regularizer after each block: none; dropout; gaussian, white noise; water, pink
    noise along the rows; aphex, slices of a recording."""

    seeds: int = 1
    """Number of networks, trained side by side with the seeds that follow --seed."""

    seed: int = 58
    """Seed of the first network: initial weights, order, augmentation, noise."""

    epochs: int = 10
    """Passes over the training set."""

    steps_per_epoch: int | None = None
    """Stop each epoch after this many steps, for a quick look. All by default."""

    batch_size: int = 64
    """Images a step."""

    learning_rate: float = 1e-3
    """Of AdamW, constant."""

    weight_decay: float = 0.01
    """Of AdamW, on every parameter."""

    intensity: float | None = None
    """Standard deviation of the noise. Default: 0.1 for gaussian, 0.05 for water and
    aphex, as in the original."""

    rate: float | None = None
    """Share of features that dropout zeroes. Default: 0.2."""

    audio: str | None = None
    """Recording for aphex: wav, flac, ogg, mp3. Default: a glitch track that the
    program synthesises itself."""

    dataset: Annotated[str, _choice(*datasets.CHOICES)] = "auto"
    """cifar10 downloads the data if need be; digits are scikit-learn's handwritten
    ones, always at hand; auto is cifar10 if that can be had, digits otherwise."""

    data_dir: str | None = None
    """Folder of tensorflow-datasets. Default: $TFDS_DATA_DIR or its own."""

    out: Path | None = None
    """Folder for the results. Default: runs/<reg>-<time>."""

    dtype: Annotated[str, _choice(*DTYPES)] = "float32"
    """Of the computation; parameters are float32."""

    @property
    def arm(self) -> Arm:
        """The regularizer that `reg` names."""
        return REGULARIZERS[self.reg]

    @property
    def strength(self) -> float:
        """The intensity or rate: what the flag says, or the arm's default."""
        given = {"intensity": self.intensity, "rate": self.rate, None: None}
        value = given[self.arm.strength]
        return self.arm.default if value is None else value


def check(config: Config) -> None:
    """Refuses what cannot be run.

    Raises:
        UsageError: names the first flag at fault, its value and the remedy.
    """
    _check_choice("--reg", config.reg, tuple(REGULARIZERS))
    _check_choice("--dataset", config.dataset, datasets.CHOICES)
    _check_choice("--dtype", config.dtype, DTYPES)
    for flag, count in (
        ("--seeds", config.seeds),
        ("--epochs", config.epochs),
        ("--steps-per-epoch", config.steps_per_epoch),
        ("--batch-size", config.batch_size),
    ):
        if count is not None and count < 1:
            raise UsageError(f"{flag}={count}: give a whole number of 1 or more.")
    # Seeds are 32-bit, like JAX's own where 64-bit numbers are off.
    if not 0 <= config.seed <= 2**32 - config.seeds:
        raise UsageError(
            f"--seed={config.seed}: give a whole number from 0 to {2**32 - 1}, which "
            f"no later seed may pass either (--seeds={config.seeds})."
        )
    for flag, value in (
        ("--intensity", config.intensity),
        ("--learning-rate", config.learning_rate),
        ("--weight-decay", config.weight_decay),
    ):
        if value is not None and not 0 <= value < math.inf:
            raise UsageError(f"{flag}={value}: give a finite number of 0 or more.")
    if config.rate is not None and not 0 <= config.rate < 1:
        raise UsageError(f"--rate={config.rate}: give a number from 0 up to, not 1.")
    _check_unused(config)


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{flag}={value}: choose one of {', '.join(choices)}.")


def _check_unused(config: Config) -> None:
    """Refuses a flag that would change nothing: it was meant to change something."""
    users = {
        "intensity": [n for n, a in REGULARIZERS.items() if a.strength == "intensity"],
        "rate": [n for n, a in REGULARIZERS.items() if a.strength == "rate"],
        "audio": ["aphex"],
    }
    for name, arms in users.items():
        value = getattr(config, name)
        if value is not None and config.reg not in arms:
            raise UsageError(
                f"--{name}={value}: --reg={config.reg} does not use it; leave it out "
                f"or choose --reg={' or '.join(arms)}."
            )
