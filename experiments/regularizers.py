"""The arms: one table from a name to the layers that stand where a Dropout stood."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import jax
from flax import nnx

from sounddrop_jax import (
    AphexNoiseLayer,
    GaussianNoiseLayer,
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
        strength: the flag that sets how strong it is, "intensity" or "rate"; or None.
        default: the strength unless a flag says otherwise.
        prepare: from the strength and `--audio` to a function that makes the layer for
            maps of shape `(H, W, C)`. Called once: what all layers share is made here.
            Raises `audio.AudioError` if the recording cannot be used.
    """

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
    if recording is None:
        track = audio.make_track("glitch")
    else:
        with _quiet_decoders():
            track = audio.load_track(recording)
    bank = make_recording_bank(track)
    return lambda shape: AphexNoiseLayer(intensity=strength, bank=bank)


@contextlib.contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Silences what libmpg123 writes to the process's stderr past Python.

    It comments on healthy files too; what is wrong with a file, `audio` says.
    """
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


REGULARIZERS = {
    "none": Arm(None, 0.0, _none),
    "dropout": Arm("rate", 0.2, _dropout),
    "gaussian": Arm("intensity", 0.1, _gaussian),
    "water": Arm("intensity", 0.05, _water),
    "aphex": Arm("intensity", 0.05, _aphex),
}
