"""The configuration of a run: one dataclass makes flags, help and defaults."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import tyro

from experiments.cli import DataDir, UsageError, check_choice, choices, flag
from experiments.data import datasets
from experiments.runs import tensorboard
from experiments.training.models import MODELS
from experiments.training.regularizers import REGULARIZERS, Recipe

Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
LARGEST = 3.38e38  # that both of them hold, about

DESCRIPTION = """\
Trains SoundDrop's network: three blocks of convolution, ReLU, BatchNorm, pooling and a
regularizer, then a linear layer; 34,058 parameters. Ten epochs of CIFAR-10 take a few
minutes on a laptop's CPU. Or, by --model, a ResNet-20 or a small vision transformer.

  python -m experiments.cifar --reg=water
  python -m experiments.cifar --reg=dropout --rate=0.1 --seeds=4
  python -m experiments.cifar --reg=aphex --audio=song.flac --intensity=0.1
  python -m experiments.cifar --dataset=digits --epochs=3
  python -m experiments.cifar --model=resnet20 --reg=gaussian"""


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags of `python -m experiments.cifar`, their help and their defaults."""

    reg: Annotated[
        str,
        flag(
            "Regularizer, after each block of the cnn: dropout, or spatial_dropout of "
            "whole channels; gaussian adds white noise, water pink noise along rows, "
            "plane pink noise in both directions, aphex slices of a recording. "
            "Default: water.",
            choices(REGULARIZERS),
        ),
    ] = "water"
    model: Annotated[
        str,
        flag(
            "Network: cnn, the original's; resnet20; or vit, a small vision "
            "transformer. Default: cnn.",
            choices(MODELS),
        ),
    ] = "cnn"
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
        flag(
            "Seed of the first network: of its initial weights, order of images, "
            "augmentation and noise. The others have the next numbers."
        ),
    ] = 58
    epochs: Annotated[int, flag("Passes over the training set.")] = 10
    steps_per_epoch: Annotated[
        int | None,
        flag("Stop each epoch after so many steps. Default: whole epochs.", "INT"),
    ] = None
    batch_size: Annotated[
        int, flag("Images a step; 128 fill a TPU, and are another training.")
    ] = 64
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
            "cannot be had; NAME is a set that tensorflow-datasets has prepared, as "
            "array_record; FILE.npz holds images and labels of your own.",
            choices((*datasets.CHOICES, *datasets.OWN)),
        ),
    ] = "auto"
    data_dir: DataDir = None
    out: Annotated[
        Path | None, flag("Folder for the results. Default: runs/REG-TIME-CODE.", "DIR")
    ] = None
    tensorboard: Annotated[
        Path | None,
        flag(
            "Folder for TensorBoard, a run for each seed: training loss and test "
            "accuracy of each epoch. Default: none.",
            "DIR",
        ),
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
            "be slower. Changes nothing on a CPU."
        ),
    ] = False
    distributed: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        flag(
            "One run of several processes, each started with this command. SLURM, Open "
            "MPI, Kubernetes and TPU pods are recognised; elsewhere set for each "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT of the first, JAX_NUM_PROCESSES and its "
            "JAX_PROCESS_ID, from 0.",
        ),
    ] = False

    @property
    def recipe(self) -> Recipe:
        """How the regularizer that `reg` names is made."""
        return REGULARIZERS[self.reg]

    @property
    def settings(self) -> dict[str, str | None]:
        """Those of the recipe's settings that have a flag."""
        return {"audio": self.audio} if "audio" in self.recipe.settings else {}

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
    check_choice("--model", config.model, list(MODELS))
    datasets.check(config.dataset, config.data_dir)
    check_choice("--dtype", config.dtype, DTYPES)
    for name, count in (
        ("--seeds", config.seeds),
        ("--seeds-at-once", config.at_once),
        ("--epochs", config.epochs),
        ("--steps-per-epoch", config.steps_per_epoch),
        ("--batch-size", config.batch_size),
    ):
        if count is not None and not 1 <= count < 2**31:
            raise UsageError(
                f"{name}={count}: give a whole number of 1 or more, below 2^31."
            )
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
    if config.tensorboard is not None:
        tensorboard.check_installed(config.tensorboard)
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


def _check_unused(config: Config) -> None:
    """Raises for a flag that the regularizer does not use."""
    users = {
        "intensity": [n for n, r in REGULARIZERS.items() if r.strength == "intensity"],
        "rate": [n for n, r in REGULARIZERS.items() if r.strength == "rate"],
        "audio": [n for n, r in REGULARIZERS.items() if "audio" in r.settings],
    }
    for name, regs in users.items():
        value = getattr(config, name)
        if value is not None and config.reg not in regs:
            raise UsageError(
                f"--{name}={value}: --reg={config.reg} does not use it; leave it out "
                f"or choose --reg={' or '.join(regs)}."
            )
