"""The table of layers that the batteries of test_modules and test_linen run over."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sounddrop_jax import (
    inject,
    linen,
    make_power_law_bank,
    make_recording_bank,
    modules,
)
from sounddrop_jax.tracks import make_track

INPUTS = jnp.asarray(
    np.random.default_rng(0).standard_normal((2, 5, 6, 3)), jnp.float32
)
KEY = jax.random.key(7)
NAMES = ["NoiseInjection", "WaterNoiseLayer", "AphexNoiseLayer", "GaussianNoiseLayer"]

ROWS = make_power_law_bank(jax.random.key(1), (6, 3), num_entries=5_000)
PLANE = make_power_law_bank(
    jax.random.key(2), (5, 6, 3), exponent=2.0, axes=(0, 1), num_entries=5_000
)
TRACK = make_track("glitch", num_frames=4_096)
RECORDING = make_recording_bank(TRACK)


@dataclasses.dataclass
class Case:
    """A layer, by name, and the pure function that it wraps."""

    name: str
    settings: dict[str, Any]
    pure: Callable[..., jax.Array]
    min_rank: int = 2

    @property
    def layer(self) -> type[modules.NoiseInjection]:
        return getattr(modules, self.name)

    def make(self, **settings: Any) -> modules.NoiseInjection:
        return self.layer(**{"intensity": 0.5} | self.settings | settings)

    def make_linen(self, **settings: Any) -> linen.NoiseInjection:
        settings = {"intensity": 0.5} | self.settings | settings
        return getattr(linen, self.name)(**settings)


def noise(**settings):
    return functools.partial(inject.random_noise, **settings)


SLOPED = {"exponent": 2.0, "axes": (-3, -2)}
SHARED = {"bank": ROWS, "broadcast_dims": (0,)}
TIMES = {"bank": ROWS, "mode": "multiplicative"}
CORRELATED = {"exponent": 2.0, "channel_correlation": 0.3}
CORRELATED_BANK = {"bank": PLANE, "channel_correlation": 0.5, "mode": "relative"}
RELATIVE = {"exponent": 0.0, "mode": "relative"}
CASES = {
    "white": Case("NoiseInjection", {}, noise(), min_rank=1),
    "plane": Case("NoiseInjection", SLOPED, noise(**SLOPED), min_rank=4),
    "shared": Case("NoiseInjection", SHARED, noise(**SHARED)),
    "correlated": Case("WaterNoiseLayer", CORRELATED, noise(**CORRELATED), min_rank=3),
    "correlated bank": Case(
        "NoiseInjection", CORRELATED_BANK, noise(**CORRELATED_BANK), min_rank=3
    ),
    "times": Case("NoiseInjection", TIMES, noise(**TIMES)),
    "relative": Case("NoiseInjection", RELATIVE, noise(**RELATIVE), min_rank=1),
    "row bank": Case("NoiseInjection", {"bank": ROWS}, noise(bank=ROWS)),
    "plane bank": Case("NoiseInjection", {"bank": PLANE}, noise(bank=PLANE), 3),
    "water": Case("WaterNoiseLayer", {}, noise(exponent=1.0, axes=-2), min_rank=3),
    "aphex": Case("AphexNoiseLayer", {"bank": RECORDING}, noise(bank=RECORDING), 1),
    "gaussian": Case("GaussianNoiseLayer", {}, noise(), min_rank=1),
}


def differ(first, second) -> bool:
    return not np.allclose(first, second, atol=1e-3)
