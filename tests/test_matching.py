"""Matched banks: their noise varies as the activations do that they are made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sounddrop_jax import inject, make_matched_bank, spectra

# A law with a direction in the plane, a channel that is silent and means.
CHANNELS = jnp.array([[1.0, 0, 0, 0], [0.5, 1, 0, 0], [-0.5, 0, 0.7, 0], 4 * [0]])


def activate(seed: int, num_examples: int) -> jax.Array:
    shape = (num_examples, 5, 6, 4)
    law = {"axes": 2, "min_frequency": 0.2}
    field = spectra.power_law(jax.random.key(seed), shape, **law)
    field += 0.4 * jnp.roll(field, (1, 1), (1, 2))
    return field @ CHANNELS.T + jnp.arange(4.0)


def moments(activations) -> tuple[np.ndarray, np.ndarray]:
    """Returns the power in the plane and the covariance, of mean variance 1."""
    centred = np.asarray(activations, np.float64) - np.mean(activations, (0, 1, 2))
    power = (np.abs(np.fft.fft2(centred, axes=(1, 2))) ** 2).mean((0, 3))
    covariance = np.cov(centred.reshape(-1, 4), rowvar=False)
    return power / power.mean(), covariance / np.trace(covariance) * 4


def test_a_matched_bank_varies_as_activations_do():
    batches = (activate(seed, 1_000) for seed in range(10))  # a stream
    bank = make_matched_bank(batches, num_entries=20_000)
    assert bank.field_shape == (5, 6, 4)
    key, maps = jax.random.key(1), jnp.zeros((10_000, 5, 6, 4))
    added = inject.random_noise(key, maps, bank=bank, intensity=1.0)
    assert abs(float(added.mean())) < 0.01
    assert abs(float(jnp.square(added).mean()) - 1) < 0.01
    np.testing.assert_allclose(added[..., 3], 0, atol=1e-6)
    power, covariance = moments(added)
    held_out_power, held_out = moments(activate(99, 10_000))
    np.testing.assert_allclose(power, held_out_power, rtol=0.05)
    scale = np.sqrt(np.outer(held_out.diagonal(), held_out.diagonal()))
    assert (np.abs(covariance - held_out) <= 0.05 * scale + 1e-9).all()
    neighbours = (added[1:] * added[:-1]).mean()
    assert abs(float(neighbours)) < 0.01  # entries are independent


def test_a_stream_gives_the_bank_that_one_batch_does():
    maps = activate(0, 96)
    make = functools.partial(make_matched_bank, num_entries=8, dtype=jnp.float16)
    whole = make(maps)
    assert whole.values.dtype == jnp.float16
    parts = make([maps[:90], np.asarray(maps[90:])])
    np.testing.assert_allclose(whole.values, parts.values, rtol=2**-9)
    assert not np.allclose(whole.values, make(maps, seed=1).values, atol=0.1)
    assert make(maps[0, 0]).values.shape == (8, 4)  # features, which have no plane
    for one in maps[:12] + 1:  # at frequency 0 nothing is left, or a rounding
        assert np.isfinite(make(one[None]).values).all()


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        ([], "no activations to match: give at least one batch"),
        (jnp.ones(3), r"this one has shape \(3,\)"),
        (jnp.ones((0, 4, 3)), r"none is empty: this one has shape \(0, 4, 3\)"),
        (
            [jnp.ones((50, 20)), jnp.ones((1000, 1))],
            r"\(1000, 1\), the first \(50, 20\)",
        ),
        (jnp.ones((3, 4)), "are constant; give some that vary"),
        (jnp.array([[1.0, jnp.inf]]), "hold NaN or infinity"),
    ],
    ids=["none", "1-D", "empty", "unlike", "constant", "infinity"],
)
def test_activations_without_a_law_are_refused(activations, message):
    with pytest.raises(ValueError, match=message):
        make_matched_bank(activations)
