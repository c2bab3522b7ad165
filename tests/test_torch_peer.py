"""The peer in PyTorch: it trains the same network in the same way."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import torch_peer, workers
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


def noises(name, maps):
    matrix = torch_peer.pink_filter(maps.shape[-1])
    if name == "fresh":
        return torch_peer.pink_noise(maps, matrix)
    if name == "host":
        return torch_peer.host_noise(maps)
    bank = torch_peer.make_bank(maps.shape[-1], maps.shape[1], matrix)
    return torch_peer.window(bank, maps)


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("name", ["fresh", "host", "bank"])
def test_noise_is_pink_along_the_width(name, width):
    maps = torch.zeros(64, 32, 32, width)
    noise = noises(name, maps)
    assert noise.shape == maps.shape and noise.dtype == torch.float32
    # No mean in any row; so the mean of all is zero as well.
    np.testing.assert_allclose(noise.mean(-1), 0, atol=1e-5)
    # Of 65,536 rows with at least 2 independent values each: four standard errors of
    # the variance of a normal variable, and of each frequency's power.
    num_rows = noise.numel() // width
    assert abs(float(noise.var()) - 1) < 4 * (2 / (2 * num_rows)) ** 0.5
    power = np.abs(np.fft.rfft(noise.numpy())) ** 2
    power = power.mean((0, 1, 2))[1:] * np.arange(1, width // 2 + 1)
    np.testing.assert_allclose(power / power.mean(), 1, atol=6 * (2 / num_rows) ** 0.5)


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


def test_flip_and_crop_moves_whole_images():
    images = torch.randint(1, 256, (6, 32, 32, 3), dtype=torch.uint8)
    batch = torch.tensor([5, 0, 0, 3] * 25)
    outputs = torch_peer.flip_and_crop(torch_peer.pad(images), batch)
    assert outputs.shape == (100, 32, 32, 3) and outputs.dtype == torch.uint8
    numbers = list(itertools.product((0, 1), range(-4, 5), range(-4, 5)))
    flips, *offsets = np.transpose(numbers)
    seen = set()
    for index, output in zip(batch.tolist(), outputs.numpy(), strict=True):
        # What ours makes of it, in every way that it can.
        copies = jnp.asarray(images[index].numpy())[None].repeat(len(numbers), 0)
        ways = augment.flip_and_crop(copies, flips == 1, np.transpose(offsets))
        (way,) = np.flatnonzero((np.asarray(ways) == output).all((1, 2, 3)))
        seen.add(numbers[way])
    assert {flip for flip, _, _ in seen} == {0, 1}
    assert {y for _, y, _ in seen} == {x for _, _, x in seen} == set(range(-4, 5))


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


def test_pictures_are_transformed_one_by_one():
    image = DIGITS.train_images[0]
    first, second = (torch_peer.transform(image) for _ in range(2))
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32
    assert -1 <= float(first.min()) and float(first.max()) <= 1
    assert not torch.equal(first, second)


# Training


def test_batches_take_every_image_at_most_once_an_epoch():
    batches = torch_peer.shuffled_batches(200, "cpu")
    first, second = (torch.cat([next(batches) for _ in range(3)]) for _ in range(2))
    assert len(first.unique()) == len(second.unique()) == 192
    assert not torch.equal(first, second)


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
    import optax

    weights = np.random.randn(5).astype(np.float32)
    grads = np.random.randn(3, 5).astype(np.float32)
    theirs = torch.nn.Linear(5, 1, bias=False)
    theirs.weight.data = torch.tensor(weights[None])
    optimizer = torch_peer.make_optimizer(theirs)
    tx, ours = optax.adamw(1e-3, weight_decay=0.01), jnp.asarray(weights)
    opt_state = tx.init(ours)
    for grad in grads:
        theirs.weight.grad = torch.tensor(grad[None])
        optimizer.step()
        updates, opt_state = tx.update(jnp.asarray(grad), opt_state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(theirs.weight.detach()[0], ours, rtol=1e-5)


def test_a_worker_counts_its_images(tmp_path):
    workers.save_dataset(DIGITS, str(tmp_path))
    settings = {"folder": str(tmp_path), "reg": "water", "strength": 0.05}
    path = "experiments.benchmarks.torch_peer:prepare"
    with workers.start_team(path, settings | {"num_threads": 1}) as team:
        (turn,) = team.take_turn(3)
    assert turn.amount == 3 * 64
    assert turn.seconds > 0 and turn.peak_bytes > 2**20
    assert team.compile_seconds == 0
