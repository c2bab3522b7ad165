"""The arms: one table from a name to the layers that stand where a Dropout stood."""

import dataclasses
import os
from collections.abc import Callable

import jax
from flax import nnx

from sounddrop_jax import (
    AphexNoiseLayer,
    GaussianNoiseLayer,
    NoiseBank,
    WaterNoiseLayer,
    audio,
    make_power_law_bank,
    make_recording_bank,
)

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A regularizer as the study knows it.

    Attributes:
        describe: what it does, for `--help` and reports.
        strength: the flag that sets how strong it is, "intensity" or "rate"; or None.
        default: the strength unless a flag says otherwise.
        prepare: from the strength and `--audio` to a function that makes the layer for
            maps of shape `(H, W, C)`. Called once: what all layers share is made here.
    """

    describe: str
    strength: str | None
    default: float
    prepare: Callable[[float, str | None], Callable[[Shape], nnx.Module]]


def _none(strength: float, recording: str | None):
    return lambda shape: nnx.Dropout(0.0)


def _dropout(strength: float, recording: str | None):
    return lambda shape: nnx.Dropout(strength)


def _gaussian(strength: float, recording: str | None):
    return lambda shape: GaussianNoiseLayer(strength)


def _water(strength: float, recording: str | None):
    def make(shape: Shape) -> nnx.Module:
        # The same noise in every run, as a recording would be: what a seed decides is
        # which windows of it the network meets.
        key = jax.random.fold_in(jax.random.key(0), shape[1])
        bank = make_power_law_bank(key, shape[1:], exponent=1.0)
        return WaterNoiseLayer(strength, bank=bank)

    return make


def _aphex(strength: float, recording: str | None):
    bank = load_recording(recording)
    return lambda shape: AphexNoiseLayer(intensity=strength, bank=bank)


def load_recording(recording: str | os.PathLike[str] | None) -> NoiseBank:
    """Loads a recording, or, for None, makes the project's own glitch track.

    Raises:
        audio.AudioError: if the file cannot be used.
    """
    if recording is None:
        return make_recording_bank(audio.make_track("glitch"))
    return make_recording_bank(audio.load_track(recording))


REGULARIZERS = {
    "none": Arm("nothing", None, 0.0, _none),
    "dropout": Arm("zeroes features at random", "rate", 0.2, _dropout),
    "gaussian": Arm("adds white Gaussian noise", "intensity", 0.1, _gaussian),
    "water": Arm("adds pink noise along rows", "intensity", 0.05, _water),
    "aphex": Arm("adds windows of a recording", "intensity", 0.05, _aphex),
}
