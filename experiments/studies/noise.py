"""The noise of an arm, measured where it stands in the network."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.cli import UsageError
from experiments.data.dataset import Dataset
from experiments.studies.plans import Arm, Plan
from experiments.training.models import list_places
from experiments.training.regularizers import REGULARIZERS, Maker
from sounddrop_jax import spectra
from sounddrop_jax.audio import AudioError

NOISE_IMAGES = 64


def measure_noise(plan: Plan, arm: Arm, dataset: Dataset) -> dict:
    """Measures what an arm adds to maps of zeros, where it stands in the networks.

    Returns:
        strength; a sample, see `_sample`; and for each shape of maps to which it adds
        anything this shape, `[H, W, C]`, the standard deviation, and for rows and
        columns the fitted exponent (None on maps too small for one) and the pairs of
        frequency, in cycles per sample, and power.
    """
    image_shape, num_classes = dataset.train_images.shape[1:], len(dataset.class_names)
    places = [
        shape
        for regime in plan.regimes.values()
        for shape in list_places(regime.model, arm.where, image_shape, num_classes)
    ]
    shapes = list(dict.fromkeys(places))
    make = prepare_regularizer(arm, arm.strengths[0])
    layers = []
    for shape in shapes:
        layer: Any = make(shape)
        maps = jnp.zeros((NOISE_IMAGES, *shape))
        noise = np.asarray(layer(maps, rngs=nnx.Rngs(dropout=0)))
        if not noise.any():
            continue
        axes = {"rows": -2, "columns": -3}
        spectra_ = {
            name: spectra.periodogram(noise, axes=a) for name, a in axes.items()
        }
        layers.append(
            {
                "shape": list(shape),
                "std": float(noise.std(dtype=np.float64)),
                "exponents": {
                    name: _fit_exponent(noise, axis) for name, axis in axes.items()
                },
                "power": {
                    name: np.transpose(pair).tolist() for name, pair in spectra_.items()
                },
            }
        )
    sample = _sample(make(shapes[0]), shapes[0])
    return {"strength": arm.strengths[0], "sample": sample, "layers": layers}


def _sample(layer: Any, shape: tuple[int, int, int]) -> list[str]:
    """Returns what a layer changes in two channels of ones, which show side by side.

    As a grey picture: a string of two hexadecimal digits a pixel for each row, 80 where
    nothing changes, 00 and ff at three root mean squares.
    """
    change = np.asarray(layer(jnp.ones((1, *shape)), rngs=nnx.Rngs(dropout=0)))[0] - 1
    change = np.concatenate(np.moveaxis(change[..., :2], -1, 0), axis=1)
    scale = 3 * np.sqrt(np.mean(change**2)) or 1
    grey = np.clip(128 + 127 * change / scale, 0, 255).astype(np.uint8)
    return [row.tobytes().hex() for row in grey]


def _fit_exponent(noise: np.ndarray, axis: int) -> float | None:
    try:
        return spectra.fit_exponent(noise, axes=axis)
    except ValueError:
        return None


def prepare_regularizer(arm: Arm, strength: Any) -> Maker:
    """Prepares the layers of an arm at a strength, see `regularizers.Recipe`.

    Raises:
        UsageError: if its recording cannot be used.
    """
    try:
        return REGULARIZERS[arm.reg].prepare(strength, **arm.settings)
    except AudioError as error:
        raise UsageError(f"arms.{arm.name}.audio={error}") from None
