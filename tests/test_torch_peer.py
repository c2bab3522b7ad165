"""The peer in PyTorch: it trains the same network in the same way."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import torch_peer
from experiments.data import augment, datasets

torch = pytest.importorskip("torch")

DIGITS = datasets.load("digits")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


# The network


def test_the_regularizer_sees_the_maps_of_each_block_in_channels_last():
    seen = []

    def regularize(maps):
        assert maps.is_contiguous(memory_format=torch.channels_last)
        seen.append(tuple(maps.shape))
        return maps

    images = torch_peer.normalize(torch.rand(8, 32, 32, 3))
    network = torch_peer.make_network()
    assert sum(each.numel() for each in network.parameters()) == 34_058
    logits = torch_peer.predict(network, images, regularize)
    assert logits.shape == (8, 10)
    assert seen == [(8, 16, 16, 16), (8, 32, 8, 8), (8, 64, 4, 4)]


# Noise


@pytest.mark.parametrize(
    ("reg", "noise"),
    [
        *[("none", "fresh"), ("dropout", "fresh"), ("gaussian", "fresh")],
        *[("water", "fresh"), ("water", "bank"), ("water", "host")],
    ],
)
def test_regularizers(reg, noise):
    maps = torch.ones(64, 16, 16, 16).contiguous(memory_format=torch.channels_last)
    regularize = torch_peer.make_regularizer(reg, 0.25, noise=noise)
    outputs = regularize(maps)
    if reg == "none":
        assert outputs is maps
    elif reg == "dropout":
        assert set(outputs.unique().tolist()) == {0, float(np.float32(1 / 0.75))}
    else:
        assert abs(float((outputs - maps).std()) - 0.25) < 0.01
        assert not torch.equal(regularize(maps), outputs)


# Augmentation


@pytest.mark.parametrize("order", torch_peer.ORDERS)
def test_jitter_is_ours_without_the_rounding(order):
    images = np.random.randint(0, 256, (8, 32, 32, 3)).astype(np.float32)
    factors = np.random.uniform(0.8, 1.2, (8, 3)).astype(np.float32)
    ours = augment.jitter(jnp.asarray(images), factors, np.tile(order, (8, 1)))
    theirs = torch_peer.jitter(
        torch.tensor(images / 255),
        torch.tensor(factors.T[:, :, None, None, None]),
        order,
    )
    # Three steps that each round down, and greys that are rounded.
    np.testing.assert_allclose(255 * theirs, ours, atol=5)
    assert abs(float((255 * theirs).mean()) - float(ours.mean())) < 2


# Training


@pytest.mark.parametrize(
    ("pipeline", "noise"),
    [("tensors", "fresh"), ("tensors", "bank"), ("loader", "host")],
)
def test_training_reduces_the_loss(pipeline, noise):
    network = torch_peer.make_network()
    regularize = torch_peer.make_regularizer("water", 0.05, noise=noise)
    make = {"tensors": "make_tensor_step", "loader": "make_loader_step"}[pipeline]
    step = getattr(torch_peer, make)(DIGITS, network, regularize, "cpu")
    losses = [float(step()) for _ in range(40)]
    assert 2 < losses[0] < 3
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


def test_adamw_takes_the_steps_of_ours():
    weights, *grads = np.random.randn(4, 1, 5).astype(np.float32)
    theirs = torch.nn.Linear(5, 1, bias=False)
    theirs.weight.data = torch.tensor(weights)
    optimizer = torch_peer.make_optimizer(theirs)
    tx, ours = optax.adamw(1e-3, weight_decay=0.01), jnp.asarray(weights)
    opt_state = tx.init(ours)
    for grad in grads:
        theirs.weight.grad = torch.tensor(grad)
        optimizer.step()
        updates, opt_state = tx.update(jnp.asarray(grad), opt_state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(theirs.weight.detach(), ours, rtol=1e-5)
