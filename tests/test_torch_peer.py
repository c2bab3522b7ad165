"""The peer in PyTorch: it trains the same networks in the same way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.benchmarks import torch_noise, torch_peer, workers
from experiments.benchmarks.contestants import TORCH_MODELS
from experiments.benchmarks.flops import count_flops
from experiments.benchmarks.torch_networks import NETWORKS
from experiments.data import augment, datasets
from experiments.training.models import list_places, make_network

torch = pytest.importorskip("torch")
FlopCounterMode = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode

DIGITS = datasets.load("digits")
SHAPE = (32, 32, 3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


# The networks


@pytest.mark.parametrize("model, num_params", [("cnn", 34_058), ("resnet20", 269_722)])
def test_regularizers_see_the_maps_that_ours_do_and_in_channels_last(model, num_params):
    kind, seen = NETWORKS[model], []

    def regularize(maps):
        assert maps.is_contiguous(memory_format=torch.channels_last)
        _, channels, height, width = maps.shape
        seen.append((height, width, channels))
        return maps

    images = torch_peer.normalize(torch.rand(8, *SHAPE))
    network = kind.make(SHAPE, 10, 1)
    assert sum(each.numel() for each in network.parameters()) == num_params
    with FlopCounterMode(display=False) as counter:
        logits = kind.predict(network, images, regularize)
        logits.sum().backward()
    assert logits.shape == (8, 10)
    assert counter.get_total_flops() == 8 * count_flops(model, SHAPE, 10)
    assert seen == list_places(model, "all", SHAPE, 10)
    assert {width: c for _, width, c in seen} == kind.list_maps(SHAPE)
    assert set(NETWORKS) == set(TORCH_MODELS)


def test_the_resnet_has_the_logits_of_ours_for_the_same_weights():
    kind, shapes = NETWORKS["resnet20"], {"image_shape": (16, 18, 3), "num_classes": 10}
    theirs = kind.make(*shapes.values(), 1)
    # Without the initial weights, which take longest to compile.
    abstract = nnx.eval_shape(
        lambda: make_network(
            "resnet20", lambda _: nnx.Dropout(0), **shapes, rngs=nnx.Rngs(0)
        )
    )
    graph, state = nnx.split(abstract)
    ours = nnx.merge(graph, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), state))
    stem, *blocks, linear = theirs
    pairs = [(stem, ours.conv, ours.norm)]
    for (first, second), block in zip(blocks, ours.blocks, strict=True):
        pairs += [(first, block.conv1, block.norm1), (second, block.conv2, block.norm2)]
    with torch.no_grad():
        for (conv, norm, *_), our_conv, our_norm in pairs:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
            our_conv.kernel[...] = conv.weight.permute(2, 3, 1, 0).numpy()
            our_norm.scale[...] = norm.weight.numpy()
            our_norm.bias[...] = norm.bias.numpy()
        ours.linear.kernel[...] = linear.weight.T.numpy()
        ours.linear.bias[...] = linear.bias.numpy()
        images = torch.rand(8, *shapes["image_shape"])
        logits = kind.predict(theirs, images.permute(0, 3, 1, 2), lambda maps: maps)
    expected = nnx.jit(lambda network, images: network(images))(ours, images.numpy())
    # float32, twenty layers deep.
    error = 1e-4 * float(np.abs(expected).max())
    np.testing.assert_allclose(logits, expected, rtol=0, atol=error)


@pytest.mark.parametrize("model", NETWORKS)
def test_networks_that_are_one_have_the_losses_and_gradients_of_each(model):
    kind, num_seeds = NETWORKS[model], 3
    images = torch_peer.normalize(torch.rand(num_seeds * 64, 16, 16, 3))
    labels = torch.randint(10, (num_seeds * 64,))
    networks = [kind.make((16, 16, 3), 10, 1) for _ in range(num_seeds)]
    together = kind.make((16, 16, 3), 10, num_seeds)
    with torch.no_grad():
        parameters = zip(*(each.parameters() for each in networks), strict=True)
        for own, theirs in zip(together.parameters(), parameters, strict=True):
            own.copy_(torch.cat(theirs).view_as(own))

    def learn(network, *batch):
        predict = functools.partial(kind.predict, network, regularize=lambda maps: maps)
        return torch_peer.learn(torch_peer.make_optimizer(network), predict, *batch)

    batches = zip(networks, images.split(64), labels.split(64), strict=True)
    expected = sum(learn(*each) for each in batches)
    loss = learn(together, torch_peer.group(images, num_seeds), labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    parameters = zip(*(each.parameters() for each in networks), strict=True)
    for own, theirs in zip(together.parameters(), parameters, strict=True):
        grads = torch.cat([each.grad for each in theirs]).view_as(own)
        assert float((own.grad - grads).norm()) <= 1e-3 * float(grads.norm()) + 1e-6


# Noise


@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize(
    ("reg", "noise"),
    [
        *[("none", "fresh"), ("dropout", "fresh"), ("gaussian", "fresh")],
        *[("water", "fresh"), ("water", "bank"), ("water", "host")],
    ],
)
def test_regularizers(reg, noise, num_seeds):
    maps = torch.ones(64, num_seeds * 16, 16, 16)
    maps = maps.contiguous(memory_format=torch.channels_last)
    regularize = torch_noise.make_regularizer(
        reg, 0.25, channels={16: 16}, noise=noise, num_seeds=num_seeds
    )
    outputs = regularize(maps)
    if reg == "none":
        assert outputs is maps
    elif reg == "dropout":
        assert set(outputs.unique().tolist()) == {0, float(np.float32(1 / 0.75))}
    else:
        assert abs(float((outputs - maps).std()) - 0.25) < 0.01
        assert not torch.equal(regularize(maps), outputs)
        first, last = (outputs - maps)[:, :16], (outputs - maps)[:, -16:]
        correlation = float((first * last).mean()) / 0.25**2
        assert abs(correlation - (num_seeds == 1)) < 0.05


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
    kind = NETWORKS["cnn"]
    network, channels = kind.make(SHAPE, 10, 1), kind.list_maps(SHAPE)
    regularize = torch_noise.make_regularizer(
        "water", 0.05, channels=channels, noise=noise
    )
    model = functools.partial(kind.predict, network, regularize=regularize)
    optimizer = torch_peer.make_optimizer(network)
    make = {"tensors": "make_tensor_step", "loader": "make_loader_step"}[pipeline]
    step = getattr(torch_peer, make)(DIGITS, model, optimizer, "cpu")
    losses = [float(step()) for _ in range(40)]
    assert 2 < losses[0] < 3
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


@pytest.mark.slow  # compiles C++
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_networks_that_are_one_train_in_compiled_bfloat16(tmp_path):
    workers.save_dataset(DIGITS, tmp_path)
    settings = {"strength": 0.05, "num_threads": 1, "dtype": "bfloat16"}
    prepared = torch_peer.prepare(
        str(tmp_path),
        "water",
        "cnn",
        **settings,
        noise="bank",
        num_seeds=2,
        mode="default",
    )
    num_images, seconds = prepared.run(4)
    assert num_images == 4 * 2 * 64
    assert min(seconds, prepared.compile_seconds, prepared.peak_bytes()) > 0


def test_every_seed_has_batches_of_its_own():
    batches = torch_peer.shuffled_batches(200, "cpu", num_seeds=2)
    epochs = [torch.stack([next(batches) for _ in range(3)]) for _ in range(2)]
    orders = [half.flatten() for epoch in epochs for half in epoch.split(64, dim=1)]
    for order in orders:
        assert (
            len(set(order.tolist())) == 3 * 64 and 0 <= min(order) <= max(order) < 200
        )
    assert not any(map(torch.equal, orders, orders[1:]))


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
