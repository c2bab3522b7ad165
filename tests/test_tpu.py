"""A TPU's own program for a window: bit by bit the numbers of every other platform."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sounddrop_jax import _tpu
from sounddrop_jax.banks import NoiseBank, sample_window
from tests.platforms import on

KEYS = jax.random.split(jax.random.key(0), 4)
MAPS, LARGE = (2, 4, 5, 3), (2, 2, 40, 16)  # of which rows are too long to be turned

CASES = {
    "rows": ((5, 3), MAPS),
    "plane": ((4, 5, 3), MAPS),
    "recording": ((), MAPS),
    "channels": ((3,), MAPS),
    "part of a field, and several": ((5, 3), (2, 4, 7, 2)),
    "more images than channels": ((4, 3), (7, 2, 4, 3)),
    "one channel": ((5, 3), (2, 4, 5, 1)),
    "sequences": ((5,), (3, 4, 5)),
    "features": ((6,), (4, 6)),
    "large rows": ((40, 16), LARGE),
    "large plane": ((2, 40, 16), LARGE),
    "large recording": ((), LARGE),
}


def make_bank(field, dtype=jnp.float32) -> NoiseBank:
    num_entries = 6_000 // max(math.prod(field), 1)
    values = jax.random.normal(jax.random.key(1), (num_entries, *field))
    return NoiseBank(values.astype(dtype))


@pytest.mark.parametrize(("field", "shape"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_windows_are_the_same_alone_and_of_many_seeds(field, shape, dtype):
    bank = make_bank(field, dtype)

    def take(key):
        return sample_window(key, bank, shape)

    theirs = on("tpu", take)
    window = theirs(KEYS[0])
    assert window.dtype == dtype
    assert_array_equal(window, take(KEYS[0]))
    expected = np.stack([take(key) for key in KEYS])
    assert_array_equal(jax.vmap(theirs)(KEYS), expected)
    assert_array_equal(jax.jit(jax.vmap(jax.vmap(theirs)))(KEYS[None])[0], expected)


@pytest.mark.parametrize("most", [1, 256])
def test_windows_are_the_same_of_as_many_banks_or_seeds_as_there_are(most, monkeypatch):
    monkeypatch.setattr(_tpu, "MOST_SLICES", most)
    banks = jnp.stack([make_bank((5, 3)).values * scale for scale in (1.0, 2.0)])

    def take(key, values):
        return sample_window(key, NoiseBank(values), MAPS)

    for axes, arguments in (
        ((0, None), (KEYS, banks[0])),
        ((None, 0), (KEYS[0], banks)),
        ((0, 0), (KEYS[:2], banks)),
    ):
        expected = jax.vmap(take, axes)(*arguments)
        assert_array_equal(jax.vmap(on("tpu", take), axes)(*arguments), expected)


@pytest.mark.parametrize("case", ["rows", "recording", "large rows", "large plane"])
def test_a_model_that_holds_the_bank_is_differentiated_as_a_whole(case):
    field, shape = CASES[case]

    def add(values, take):
        weights = jnp.arange(float(math.prod(shape))).reshape(shape)
        return (weights * take(KEYS[0], NoiseBank(values), shape)).sum()

    values = make_bank(field).values
    slopes = jax.grad(add)(values, on("tpu", sample_window))
    assert_array_equal(slopes, jax.grad(add)(values, sample_window))
