"""The network against a reference in float64 NumPy, and PyTorch's initial weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.training import cnn
from experiments.training.cnn import CNN

MAP_SHAPES = [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
# Channels in times 3x3, three times, and the 4x4x64 features of the linear layer.
FAN_IN = {"conv": [27, 144, 288], "linear": [1024]}
BATCH_SIZE = 4


class Probe(nnx.Module):
    """A regularizer that adds 1 while training, and notes what it sees."""

    def __init__(self, shape, notes: list):
        self.shape = shape
        self.notes = nnx.static(notes)
        self.deterministic = False

    def __call__(self, maps, *, rngs=None):
        self.notes.append((self.shape, maps, rngs))
        return maps if self.deterministic else maps + 1

    def set_view(self, deterministic: bool | None = None):
        """Switches the mode, as `nnx.view` asks for it."""
        if deterministic is not None:
            self.deterministic = deterministic


def make_network(make_regularizer=None, seed: int = 0, **kwargs) -> CNN:
    make_regularizer = make_regularizer or (lambda shape: nnx.Dropout(0.0))
    return CNN(make_regularizer, rngs=nnx.Rngs(params=seed), **kwargs)


def make_images(num_images: int = BATCH_SIZE) -> np.ndarray:
    shape = (num_images, 32, 32, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


LABELS = np.arange(BATCH_SIZE) * 3


def param_arrays(network) -> dict[tuple, np.ndarray]:
    """All parameters in float64, by path."""
    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {path: np.asarray(param[...], np.float64) for path, param in flat}


@pytest.fixture(scope="session")
def network() -> CNN:
    return make_network()


# A reference with nothing but NumPy


def reference_block(maps, params, index: int, stats=None):
    """One block up to its regularizer; also the batch's mean and variance."""
    kernel = params["blocks", index, "conv", "kernel"]
    bias = params["blocks", index, "conv", "bias"]
    scale = params["blocks", index, "norm", "scale"]
    shift = params["blocks", index, "norm", "bias"]
    num, height, width, _ = maps.shape
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = bias + sum(
        padded[:, row : row + height, column : column + width] @ kernel[row, column]
        for row in range(3)
        for column in range(3)
    )
    maps = np.maximum(maps, 0)
    batch_stats = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
    mean, variance = batch_stats if stats is None else stats
    maps = (maps - mean) / np.sqrt(variance + 1e-5) * scale + shift
    squares = maps.reshape(num, height // 2, 2, width // 2, 2, -1)
    return squares.max((2, 4)), batch_stats


def reference_network(images, params, stats=None, offset: float = 0.0):
    """The logits, the maps before each regularizer, and the batch statistics."""
    maps, all_maps, all_stats = images.astype(np.float64), [], []
    for index in range(3):
        block_stats = None if stats is None else stats[index]
        maps, batch_stats = reference_block(maps, params, index, block_stats)
        all_maps.append(maps)
        all_stats.append(batch_stats)
        maps = maps + offset
    logits = maps.reshape(len(maps), -1) @ params["linear", "kernel"]
    return logits + params["linear", "bias"], all_maps, all_stats


def reference_loss(images, params) -> float:
    logits = reference_network(images, params)[0]
    log_sums = np.log(np.exp(logits).sum(1))
    return float((log_sums - logits[np.arange(len(logits)), LABELS]).mean())


def random_params(network, seed: int = 0) -> dict[tuple, np.ndarray]:
    """Parameters none of which is 0 or 1, where a fault could hide."""
    rng = np.random.default_rng(seed)
    return {
        path: param + 0.1 * rng.standard_normal(param.shape).astype(np.float32)
        for path, param in param_arrays(network).items()
    }


def with_params(network, params) -> CNN:
    """A copy of a network with other parameters."""
    network = nnx.clone(network)
    state = nnx.state(network, nnx.Param)
    for path, param in nnx.to_flat_state(state):
        param[...] = jnp.asarray(params[path], jnp.float32)
    nnx.update(network, state)
    return network


# float32 sums of up to 1,024 products, three layers deep, of logits around 3.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def randomize_stats(network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gives every block another mean and variance, and returns them."""
    rng, stats = np.random.default_rng(0), []
    for block in network.blocks:
        shape = block.norm.mean.shape
        stats.append((rng.standard_normal(shape), rng.uniform(0.1, 2, shape)))
        block.norm.mean[...] = jnp.asarray(stats[-1][0], jnp.float32)
        block.norm.var[...] = jnp.asarray(stats[-1][1], jnp.float32)
    return stats


def test_training_is_conv_relu_norm_pool_regularizer_and_linear():
    notes: list = []
    network = make_network(lambda shape: Probe(shape, notes))
    params = random_params(network)
    network = with_params(network, params)
    stats = randomize_stats(network)
    rngs = nnx.Rngs(dropout=0)
    images = make_images()
    logits = network(images, rngs=rngs)
    # The probe's 1 reaches the next block: the regularizer comes last in its own.
    expected, maps, batch_stats = reference_network(images, params, offset=1.0)
    assert [shape for shape, _, _ in notes] == MAP_SHAPES
    for (shape, seen, given), expected_maps in zip(notes, maps, strict=True):
        assert seen.shape == (BATCH_SIZE, *shape)
        assert given is rngs
        np.testing.assert_allclose(seen, expected_maps, **TOLERANCE)
    assert (logits.dtype, logits.shape) == (jnp.float32, (BATCH_SIZE, 10))
    np.testing.assert_allclose(logits, expected, **TOLERANCE)
    # A tenth of the way to the batch's own.
    for block, old, batch in zip(network.blocks, stats, batch_stats, strict=True):
        updated = block.norm.mean[...], block.norm.var[...]
        for ours, before, own in zip(updated, old, batch, strict=True):
            np.testing.assert_allclose(ours, 0.9 * before + 0.1 * own, **TOLERANCE)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    network = make_network(lambda shape: Probe(shape, []))
    params = random_params(network)
    network = with_params(network, params)
    stats = randomize_stats(network)
    evaluated = nnx.view(network, deterministic=True, use_running_average=True)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(evaluated)))
    images = make_images()
    logits = evaluated(images)  # and needs no rngs
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(evaluated)))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    expected, _, _ = reference_network(images, params, stats)
    np.testing.assert_allclose(logits, expected, **TOLERANCE)
    # An image's logits do not depend on its neighbours: no batch statistics.
    np.testing.assert_allclose(evaluated(images[:1]), expected[:1], **TOLERANCE)


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_pooling_first_is_flax_norm_and_max_pool(train):
    rng = np.random.default_rng(0)
    # Scales of both signs; ties, as ReLU makes them.
    scale, bias = jnp.asarray([1.5, -0.5, 0.3, -2.0]), jnp.asarray([0.1, -1, 2, 0.5])
    mean, var = (
        jnp.asarray(rng.uniform(0.5, 2, 4).astype(np.float32)) for _ in range(2)
    )
    maps = nnx.relu(jnp.asarray(rng.standard_normal((5, 6, 8, 4)), jnp.float32))
    cotangent = jnp.asarray(rng.standard_normal((5, 3, 4, 4)), jnp.float32)

    def run(norm, pool):
        norm.scale[...], norm.bias[...] = scale, bias
        norm.mean[...], norm.var[...] = mean, var
        norm = nnx.view(norm, use_running_average=not train)
        graph, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)

        def outputs(params, maps):
            norm = nnx.merge(graph, params, stats, copy=True)
            return pool(norm(maps)), nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))

        values, pull_back, updated = jax.vjp(outputs, params, maps, has_aux=True)
        params_gradient, maps_gradient = pull_back(cotangent)
        return values, nnx.to_pure_dict(params_gradient), maps_gradient, updated

    ours = run(cnn.NormPool(4), lambda maps: maps)
    flax_norm = nnx.BatchNorm(4, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
    theirs = run(flax_norm, cnn.max_pool)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, ours, theirs)


def test_every_gradient_is_the_slope_of_the_reference(network):
    params = random_params(network)
    network = with_params(network, params)
    images = make_images()
    graph, state, rest = nnx.split(network, nnx.Param, ...)

    @jax.jit
    def gradients(state):
        def loss_fn(state):
            logits = nnx.merge(graph, state, rest, copy=True)(images)
            log_probs = jax.nn.log_softmax(logits)
            return -log_probs[jnp.arange(BATCH_SIZE), LABELS].mean()

        return jax.grad(loss_fn)(state)

    rng = np.random.default_rng(0)
    step = 1e-6
    for path, gradient in nnx.to_flat_state(gradients(state)):
        # Along the gradient's own signs, so that no two faults cancel out, with
        # random lengths, so that permuted entries show.
        gradient = np.asarray(gradient[...], np.float64)
        direction = np.sign(gradient) * rng.uniform(0.5, 1.5, gradient.shape)
        ends = [
            reference_loss(images, params | {path: params[path] + h * direction})
            for h in (-step, step)
        ]
        slope = (ends[1] - ends[0]) / (2 * step)
        # A step this short turns hardly any ReLU or maximum, worth 1e-3 at most
        # together with float32's rounding of the gradient.
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-3)


# Initial weights


def test_it_has_34_058_parameters_and_norms_that_do_nothing(network):
    params = param_arrays(network)
    assert sum(param.size for param in params.values()) == 34_058
    for norm in (block.norm for block in network.blocks):
        for values, start in zip(
            (norm.scale, norm.bias, norm.mean, norm.var), (1, 0, 0, 1), strict=True
        ):
            assert (values[...] == start).all()


def named_params(network, layer: str):
    """(parameter, fan-in) of every kernel and bias of the layers of one kind."""
    convolutions = [block.conv for block in network.blocks]
    layers = {"linear": [network.linear], "conv": convolutions}[layer]
    for module, fan_in in zip(layers, FAN_IN[layer], strict=True):
        yield np.asarray(module.kernel[...]), fan_in
        yield np.asarray(module.bias[...]), fan_in


@pytest.mark.parametrize("layer", FAN_IN)
def test_initial_kernels_and_biases_are_uniform_below_the_root_of_fan_in(
    network, layer
):
    for param, fan_in in named_params(network, layer):
        scaled = param.astype(np.float64) * fan_in**0.5
        assert np.abs(scaled).max() < 1 + 1e-6
        # Ten values stay below half the bound once in 1,000; here there are more.
        assert np.abs(scaled).max() > 0.5
        # Mean and variance of U(-1, 1) within 4 standard errors: u has variance 1/3,
        # and u^2 has 1/5 - 1/9.
        assert abs(scaled.mean()) < 4 * (1 / 3 / scaled.size) ** 0.5
        assert abs((scaled**2).mean() - 1 / 3) < 4 * (4 / 45 / scaled.size) ** 0.5


@pytest.mark.parametrize("fan_in", [27, 1024])
def test_uniform_below_reaches_its_bounds(fan_in):
    values = cnn.uniform_below(fan_in)(jax.random.key(0), (10_000,))
    scaled = np.asarray(values, np.float64) * fan_in**0.5
    # One of 10,000 is above 0.999, and one below -0.999, but for a chance of e^-5.
    assert 0.999 < scaled.max() <= 1 + 1e-6
    assert -0.999 > scaled.min() >= -1 - 1e-6


def test_no_two_parameters_share_their_draws(network):
    starts = [
        param.ravel()[:10] * fan_in**0.5
        for layer in FAN_IN
        for param, fan_in in named_params(network, layer)
    ]
    correlations = np.corrcoef(starts) - np.eye(len(starts))
    assert correlations.max() < 0.999


def test_a_seed_decides_the_initial_weights(network):
    again, other = make_network(), make_network(seed=1)
    for path, param in param_arrays(network).items():
        np.testing.assert_array_equal(param_arrays(again)[path], param)
        if "norm" not in path:
            assert not np.array_equal(param_arrays(other)[path], param)


# Other sizes and precisions


def test_other_images_and_classes_fit():
    shapes = []

    def make_regularizer(shape):
        shapes.append(shape)
        return nnx.Dropout(0.0)

    network = nnx.eval_shape(
        lambda: make_network(make_regularizer, image_shape=(16, 24, 1), num_classes=3)
    )
    assert shapes == [(8, 12, 16), (4, 6, 32), (2, 3, 64)]
    assert network.linear.kernel.shape == (2 * 3 * 64, 3)
    graph, state = nnx.split(network)
    logits = jax.eval_shape(
        lambda state, images: nnx.merge(graph, state)(images),
        state,
        jax.ShapeDtypeStruct((2, 16, 24, 1), jnp.float32),
    )
    assert logits.shape == (2, 3)


def evaluate(network, images) -> jax.Array:
    evaluated = nnx.view(network, deterministic=True, use_running_average=True)
    graph, state = nnx.split(evaluated)
    return jax.jit(lambda state: nnx.merge(graph, state)(images))(state)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(network):
    notes: list = []
    half = make_network(lambda shape: Probe(shape, notes), dtype=jnp.bfloat16)
    images = make_images()
    logits = evaluate(half, images)
    assert [maps.dtype for _, maps, _ in notes] == 3 * [jnp.bfloat16]
    assert logits.dtype == jnp.float32
    for leaf in jax.tree.leaves(nnx.state(half, (nnx.Param, nnx.BatchStat))):
        assert leaf.dtype == jnp.float32
    # The same weights, and 8 bits: a few of 1/256 of logits below 1, each way.
    difference = np.abs(np.asarray(logits - evaluate(network, images))).max()
    assert 0 < difference < 0.05


# Pooling


def pool_gradient(pool, maps) -> np.ndarray:
    outputs, pullback = jax.vjp(pool, maps)
    weights = jnp.arange(1.0, 1 + outputs.size).reshape(outputs.shape)
    return np.asarray(pullback(weights.astype(maps.dtype))[0])


def flax_pool(maps):
    return nnx.max_pool(maps, (2, 2), strides=(2, 2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("ties", [False, True])
# Of an odd number of pixels the rest is left out.
@pytest.mark.parametrize("shape", [(8, 12), (7, 12), (8, 3), (7, 3)], ids=str)
def test_max_pool_and_its_gradient_are_flax_even_of_equals(shape, ties, dtype):
    maps = np.random.default_rng(0).standard_normal((2, *shape, 3), np.float32)
    maps = jnp.asarray(maps.round() if ties else maps, dtype)  # some six levels
    pooled = cnn.max_pool(maps)
    assert pooled.dtype == dtype
    np.testing.assert_array_equal(pooled, flax_pool(maps))
    np.testing.assert_array_equal(
        pool_gradient(cnn.max_pool, maps), pool_gradient(flax_pool, maps)
    )


@pytest.mark.parametrize("value, place", [(np.nan, 2), (-np.inf, 0)])
def test_max_pool_passes_nan_on_and_takes_any_value(value, place):
    # A network that has diverged is to be seen as one.
    square = np.full(4, -np.inf, np.float32)
    square[2] = value
    maps = jnp.asarray(square).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(cnn.max_pool(maps).ravel(), [value])
    gradient = pool_gradient(cnn.max_pool, maps).ravel()
    np.testing.assert_array_equal(gradient, np.eye(4)[place])


@pytest.mark.parametrize("level", [0, 3])
def test_max_pool_has_its_gradient_however_it_is_compiled(level):
    # A compiler may compute the maps twice, for the maximum and for its gradient, and
    # round them in two ways: then no value equals the maximum. Without optimisation
    # XLA does so on a CPU.
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((4, 8, 8, 4), np.float32)
    weights = rng.standard_normal((4, 4, 4, 4), np.float32)
    scale, shift = rng.standard_normal((2, 4), np.float32)

    def weighted_sum(scale, shift, max_pool):
        return (weights * max_pool(maps * scale + shift)).sum()

    gradient = jax.grad(weighted_sum, argnums=(0, 1))
    options = {"xla_backend_optimization_level": level}
    lowered = jax.jit(gradient, static_argnums=2).lower(scale, shift, cnn.max_pool)
    compiled = lowered.compile(compiler_options=options)
    expected = gradient(scale, shift, flax_pool)
    # Sums of 64 values of order 1.
    np.testing.assert_allclose(compiled(scale, shift), expected, rtol=1e-4, atol=1e-5)
