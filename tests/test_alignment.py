"""What a noise has in common with the shifts that corruptions make."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.datasets import load
from experiments.robustness.alignment import align, make_observer
from experiments.training.regularizers import REGULARIZERS
from experiments.training.steps import make_functions

DRAWS, DIM = 20_000, 6


def test_alignment_is_that_of_the_covariances():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((DRAWS, DIM)) @ rng.standard_normal((DIM, DIM))
    shifts = 1 + rng.standard_normal((50, 2, 3))
    covariance = noise.T @ noise / DRAWS
    flat = shifts.reshape(50, DIM)
    moments = flat.T @ flat / 50
    expected = np.trace(covariance @ moments) * DIM
    expected /= np.trace(covariance) * np.trace(moments)
    np.testing.assert_allclose(align(noise, shifts), expected, rtol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_white_noise_favours_no_shift_and_shared_noise_that_of_all_channels(shared):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((DRAWS, 4, 1 if shared else DIM))
    noise = np.broadcast_to(noise, (DRAWS, 4, DIM))
    together = np.ones((1, 4, DIM))
    against = together * np.resize([1, -1], DIM)
    expected = (DIM, 0) if shared else (1, 1)
    found = align(noise, together), align(noise, against)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=1e-6)


def test_an_observer_sees_what_reaches_the_regularizers():
    dataset = load("digits")
    functions = make_functions(
        dataset,
        REGULARIZERS["none"].prepare(0.0),
        batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.01,
    )
    image_shape = dataset.train_images.shape[1:]
    observe, shapes = make_observer("cnn", "all", image_shape, 10)
    state = jax.jit(functions.init)(jax.random.key(0))
    constants = functions.constants._replace(
        test_images=functions.constants.test_images[:3]
    )
    seen = jax.jit(observe)(state, constants)
    assert seen.shape == (3, sum(map(np.prod, shapes)))
    # Only a linear layer comes after the last of them.
    linear = state.params["linear"]
    last = seen[:, -np.prod(shapes[-1]) :]
    logits = last @ linear["kernel"][...] + linear["bias"][...]
    expected = jax.jit(functions.evaluate)(state, constants)
    np.testing.assert_allclose(logits, jnp.asarray(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("found", "rho", "signs", "holds"),
    [
        (lambda place: place**3, 1, 14, True),
        (lambda place: -place, -1, 0, False),
        (lambda place: place - 3, 1, 11, False),
    ],
    ids=["the same order", "the other way round", "wrong signs"],
)
def test_a_prediction_holds_by_its_order_and_its_signs(found, rho, signs, holds):
    docs = Path(__file__).parents[1] / "docs"
    script = runpy.run_path(str(docs / "make_prediction.py"))
    predicted = {str(place): place for place in range(1, 15)}
    result = script["judge"](predicted, {k: found(v) for k, v in predicted.items()})
    assert result["rho"] == pytest.approx(rho)
    low, high = result["interval"]
    assert low <= rho + 1e-9 and high >= rho - 1e-9
    assert result["holds"] == holds
    assert result["signs"] == signs
