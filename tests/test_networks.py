"""Every network of the table: its places, its modes, and references of two of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from experiments.cli import UsageError
from experiments.training.models import BUILT_IN, MODELS, list_places, make_network
from sounddrop_jax import GaussianNoiseLayer

IMAGE_SHAPE, NUM_CLASSES = (32, 32, 3), 10
NUM_PARAMS = {"cnn": 34_058, "resnet20": 269_722, "vit": 207_306}
ALL = {
    "cnn": [(16, 16, 16), (8, 8, 32), (4, 4, 64)],
    "resnet20": [(32, 32, 16)] * 3 + [(16, 16, 32)] * 3 + [(8, 8, 64)] * 3,
    "vit": [(8, 8, 64)] * 13,
}


def make(model: str, make_regularizer=None, seed: int = 0, **kwargs) -> nnx.Module:
    make_regularizer = make_regularizer or (lambda shape: nnx.Dropout(0.0))
    shapes = {"image_shape": IMAGE_SHAPE, "num_classes": NUM_CLASSES}
    rngs = nnx.Rngs(params=seed)
    return make_network(model, make_regularizer, **(shapes | kwargs), rngs=rngs)


def make_images(shape=(4, *IMAGE_SHAPE)) -> jax.Array:
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    return jnp.asarray(images)


def compile(network, *, train: bool):
    """A program from images and a seed of the noise to logits."""
    network = nnx.view(
        network,
        deterministic=not train,
        use_running_average=not train,
        raise_if_not_found=False,
    )
    graph, state = nnx.split(network)

    @jax.jit
    def run(images, seed=0):
        network = nnx.merge(graph, state, copy=True)
        return network(images, rngs=nnx.Rngs(dropout=jax.random.key(seed)))

    return run


def test_the_table_has_the_networks_that_are_ours():
    assert set(MODELS) == BUILT_IN == set(NUM_PARAMS) == set(ALL)


@pytest.mark.parametrize("model", MODELS)
def test_parameters_are_float32_and_as_many_as_it_says(model):
    network = nnx.eval_shape(lambda: make(model, dtype=jnp.bfloat16))
    leaves = jax.tree.leaves(nnx.state(network, (nnx.Param, nnx.BatchStat)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    params = jax.tree.leaves(nnx.state(network, nnx.Param))
    assert sum(leaf.size for leaf in params) == NUM_PARAMS[model]
    assert f"{NUM_PARAMS[model]:,}" in MODELS[model].__doc__


@pytest.mark.parametrize(
    "model, where",
    [
        *[(model, "all") for model in MODELS],
        *[("resnet20", "early"), ("vit", "late"), ("cnn", "inputs")],
    ],
)
def test_regularizers_see_the_maps_that_they_were_made_for_in_order(model, where):
    third = max(1, len(ALL[model]) // 3)
    places = {
        "all": ALL[model],
        "early": ALL[model][:third],
        "late": ALL[model][-third:],
        "inputs": [IMAGE_SHAPE],
    }[where]
    assert list_places(model, where, IMAGE_SHAPE, NUM_CLASSES) == places
    seen: list = []

    class Probe(nnx.Module):
        def __init__(self, shape):
            self.shape = shape

        def __call__(self, maps, *, rngs=None):
            seen.append((self.shape, maps.shape[1:], rngs is not None))
            return maps

    network = nnx.eval_shape(lambda: make(model, Probe, where=where))
    graph, state = nnx.split(network)

    def run(state, images):
        return nnx.merge(graph, state)(images, rngs=nnx.Rngs(dropout=0))

    logits = jax.eval_shape(run, state, make_images())
    assert seen == [(shape, shape, True) for shape in places]
    assert (logits.shape, logits.dtype) == ((4, NUM_CLASSES), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_noise_is_for_training_and_an_image_stands_alone_in_evaluation(model):
    network, images = make(model, lambda shape: GaussianNoiseLayer(0.5)), make_images()
    train = compile(network, train=True)
    assert np.abs(train(images, 0) - train(images, 1)).max() > 0.01
    test = compile(network, train=False)
    logits = test(images)
    np.testing.assert_array_equal(test(images, 1), logits)
    alone = test(images.at[1:].set(0))
    np.testing.assert_array_equal(alone[0], logits[0])
    half = compile(make(model, dtype=jnp.bfloat16), train=False)(images)
    assert half.dtype == jnp.float32
    # The same weights, in 8 bits.
    assert 0 < np.abs(half - logits).max() < 0.1 * np.abs(logits).max() + 0.05


@pytest.mark.parametrize(
    "model, image_shape",
    [("cnn", (28, 27, 1)), ("vit", (24, 8, 1)), ("resnet20", (29, 30, 1))],
)
def test_images_of_other_sizes_fit(model, image_shape):
    def run(images):
        return make(model, image_shape=image_shape, num_classes=3)(images)

    logits = jax.eval_shape(run, jnp.zeros((2, *image_shape)))
    assert logits.shape == (2, 3)


def test_what_no_network_can_be_made_of_is_refused_in_one_line(monkeypatch):
    def make_linear(make_regularizer, *, image_shape, num_classes, dtype, rngs):
        return nnx.Linear(image_shape[-1], num_classes, rngs=rngs)

    monkeypatch.setitem(MODELS, "mine", make_linear)
    for model, words in ("vit", "30x32; give multiples of 4"), ("mine", "it makes no "):
        with pytest.raises(UsageError) as error:
            list_places(model, "all", (30, 32, 3), NUM_CLASSES)
        message = str(error.value)
        assert message.startswith(f"model={model}: ") and words in message
        assert message.endswith(".") and len(message.splitlines()) == 1


# References


def convolve(maps, kernel, stride: int = 1):
    numbers = ("NHWC", "HWIO", "NHWC")
    padding = ((1, 1), (1, 1))
    return lax.conv_general_dilated(
        maps, kernel, (stride, stride), padding, dimension_numbers=numbers
    )


def normalize(maps, norm):
    mean, var = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
    return (maps - mean) / jnp.sqrt(var + 1e-5) * norm.scale[...] + norm.bias[...]


@pytest.mark.slow
def test_resnet_is_the_paper_s_with_strides_and_shortcuts_of_option_a():
    network, images = make("resnet20"), make_images()
    maps = nnx.relu(normalize(convolve(images, network.conv.kernel[...]), network.norm))
    for number, block in enumerate(network.blocks):
        stride = 2 if number in (3, 6) else 1
        branch = convolve(maps, block.conv1.kernel[...], stride)
        branch = nnx.relu(normalize(branch, block.norm1))
        branch = normalize(convolve(branch, block.conv2.kernel[...]), block.norm2)
        if stride == 2:
            maps = jnp.concatenate([maps[:, ::2, ::2], 0 * branch], axis=-1)
            maps = maps[..., : branch.shape[-1]]
        maps = nnx.relu(maps + branch)
    logits = network.linear(maps.mean((1, 2)))
    # float32 sums in another order, twenty layers deep.
    actual = compile(network, train=True)(images)
    np.testing.assert_allclose(actual, logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_transformer_knows_patches_of_4x4_by_their_positions_alone():
    network, images = make("vit"), make_images()
    patches = images.reshape(4, 8, 4, 8, 4, 3).swapaxes(2, 3).reshape(4, 64, 4, 4, 3)
    order = np.random.default_rng(1).permutation(64)
    shuffled = patches[:, order].reshape(4, 8, 8, 4, 4, 3).swapaxes(2, 3)
    shuffled = shuffled.reshape(images.shape)
    test = compile(network, train=False)
    logits = test(images)
    assert np.abs(test(shuffled) - logits).max() > 1e-3
    # Attention is over all tokens, and sets have no order.
    positions = network.positions[...].reshape(64, -1)
    network.positions[...] = positions[order].reshape(8, 8, -1)
    test = compile(network, train=False)
    again = test(shuffled)
    np.testing.assert_allclose(again, logits, rtol=1e-3, atol=1e-4)
    # And what is within a patch has one.
    mirrored = patches[..., ::-1, :].reshape(4, 8, 8, 4, 4, 3).swapaxes(2, 3)
    assert np.abs(test(mirrored.reshape(images.shape)) - again).max() > 1e-3
