"""The network against Flax's own layers, and PyTorch's initial weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.jax_contestants import make_plain_network
from experiments.training import cnn, pooling
from tests import platforms

# Channels in times 3x3, three times, and the 4x4x64 features of the linear layer.
FAN_IN = {"conv": [27, 144, 288], "linear": [1024]}


@pytest.fixture(scope="module")
def network() -> cnn.CNN:
    return cnn.CNN(lambda shape: nnx.Dropout(0.5), rngs=nnx.Rngs(params=0))


def make_twin(network) -> nnx.Sequential:
    """Layers of Flax alone; gives both the same numbers, none of which is 0 or 1."""
    twin = make_plain_network(
        "cnn", lambda shape: nnx.Dropout(0.5), (32, 32, 3), 10, rngs=nnx.Rngs(0)
    )
    pairs = [(network.linear, twin.layers[-1])]
    for index, block in enumerate(network.blocks):
        pairs.append((block.conv, twin.layers[5 * index]))
        pairs.append((block.norm, twin.layers[5 * index + 2]))
    rng = np.random.default_rng(0)
    for ours, theirs in pairs:
        for name in {"kernel", "scale", "bias", "mean", "var"} & vars(ours).keys():
            variable = getattr(ours, name)
            variable[...] += 0.1 * rng.standard_normal(variable.shape)
            getattr(theirs, name)[...] = variable[...]
    return twin


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_it_is_flax_s_layers_one_after_another(network, train):
    network = nnx.clone(network)
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    results = []
    for each in (network, make_twin(network)):
        view = nnx.view(each, deterministic=not train, use_running_average=not train)
        graph, params, rest = nnx.split(view, nnx.Param, ...)

        def run(params, graph=graph, rest=rest):
            model = nnx.merge(graph, params, rest, copy=True)
            logits = model(images, rngs=nnx.Rngs(dropout=0))
            losses = optax.softmax_cross_entropy(logits, jnp.eye(10)[:4])
            return losses.mean(), (logits, nnx.state(model, nnx.BatchStat))

        found = jax.jit(jax.grad(run, has_aux=True))(params)
        results.append(jax.tree.leaves(found))
    for ours, theirs in zip(*results, strict=True):
        # float32 sums in another order, three layers deep.
        error = 1e-3 * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=error)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
# Of an odd number of rows the last is left out of pooling, not of the moments.
@pytest.mark.parametrize("height", [6, 7])
def test_pooling_first_is_flax_norm_and_max_pool(height, train, platform):
    rng = np.random.default_rng(0)
    # Scales of both signs; ties, as ReLU makes them.
    scale, shift = jnp.asarray([1.5, -0.5, 0.3, -2.0]), jnp.asarray([0.1, -1, 2, 0.5])
    mean, var = (
        jnp.asarray(rng.uniform(0.5, 2, 4).astype(np.float32)) for _ in range(2)
    )
    maps = jnp.asarray(rng.standard_normal((5, height, 8, 4)), jnp.float32)
    bias = jnp.asarray([0.3, -0.2, 0.1, 0.0])
    cotangent = jnp.asarray(rng.standard_normal((5, 3, 4, 4)), jnp.float32)

    def run(norm, call):
        norm.scale[...], norm.bias[...] = scale, shift
        norm.mean[...], norm.var[...] = mean, var
        norm = nnx.view(norm, use_running_average=not train)
        graph, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)

        def outputs(params, maps, bias):
            norm = nnx.merge(graph, params, stats, copy=True)
            pooled = call(norm, maps, bias)
            return pooled, nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))

        values, pull_back, updated = jax.vjp(outputs, params, maps, bias, has_aux=True)
        params_gradient, *gradients = pull_back(cotangent)
        return values, nnx.to_pure_dict(params_gradient), gradients, updated

    def call_theirs(norm, maps, bias):
        return flax_pool(norm(nnx.relu(maps + bias)))

    call_ours = platforms.on(platform, lambda norm, maps, bias: norm(maps, bias))
    ours = run(cnn.NormPool(4), call_ours)
    flax_norm = nnx.BatchNorm(4, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
    theirs = run(flax_norm, call_theirs)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, ours, theirs)


@pytest.mark.parametrize("dtype, error", [(jnp.float32, 1e-6), (jnp.bfloat16, 2**-7)])
@pytest.mark.parametrize("ties", [False, True])
# Of odd shapes all compute as a CPU does.
@pytest.mark.parametrize("shape", [(8, 12), (7, 3)], ids=str)
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_get_the_same_under_vmap(platform, shape, ties, dtype, error):
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((3, 2, *shape, 4), np.float32)  # three networks'
    maps = jnp.asarray(maps.round() if ties else maps, dtype)
    bias = jnp.asarray(rng.integers(-1, 2, (3, 4)), jnp.float32)
    scale = jnp.asarray([[1.5, -0.5, 0.3, -2.0]] * 3)
    shift = jnp.asarray(rng.standard_normal((3, 4)), jnp.float32)

    def run(platform, maps):
        outputs = platforms.on(platform, jax.vmap(pooling.relu_norm_and_pool))
        arguments = maps, bias, scale, shift
        values, pull_back = jax.vjp(outputs, *arguments)
        without_gradient = outputs(*arguments)
        jax.tree.map(np.testing.assert_array_equal, without_gradient, values)
        cotangents = jax.tree.map(
            lambda value: (
                jnp.cos(jnp.arange(value.size, dtype=jnp.float32))
                .reshape(value.shape)
                .astype(jnp.bfloat16)  # which both dtypes hold
                .astype(value.dtype)
            ),
            values,
        )
        return values, pull_back(cotangents)

    # In bfloat16 against float32: the sums of a CPU are in bfloat16, too.
    both = run(platform, maps), run("cpu", maps.astype(jnp.float32))
    dtypes = [each.dtype for each in jax.tree.leaves(run("cpu", maps))]
    assert [each.dtype for each in jax.tree.leaves(both[0])] == dtypes
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        ours, theirs = (np.asarray(each, np.float32) for each in (ours, theirs))
        # Of the largest: a bias's gradient is a sum, in another order.
        scale = max(1, np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=4 * error * scale)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_pooling_is_mapped_over_some_of_its_arguments(platform):
    rng = np.random.default_rng(0)
    maps, bias = rng.standard_normal((3, 2, 4, 6, 5)), rng.standard_normal(5)
    scale, shift = rng.standard_normal((3, 5)), rng.standard_normal(5)
    arguments = [jnp.asarray(each, jnp.float32) for each in (maps, bias, scale, shift)]
    run = platforms.on(platform, pooling.relu_norm_and_pool)

    def gradients(*arguments):
        outputs, pull_back = jax.vjp(run, *arguments)
        return outputs, pull_back(jax.tree.map(jnp.cos, outputs))

    found = jax.vmap(gradients, in_axes=(0, None, 0, None))(*arguments)
    for index in range(3):
        alone = gradients(
            arguments[0][index], arguments[1], arguments[2][index], arguments[3]
        )
        of_one = jax.tree.map(lambda each, index=index: each[index], found)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
        jax.tree.map(close, of_one, alone)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_seeds_are_channels_on_a_gpu_alone(platform):
    maps, channels = jnp.ones((3, 2, 4, 6, 5)), jnp.ones((3, 5))
    mapped = jax.jit(jax.vmap(pooling.relu_norm_and_pool))
    traced = mapped.trace(maps, channels, channels, channels)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("tensor<2x4x6x15xf32>" in text) == (platform == "cuda")


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
# Where the mean of squares comes out below the square of the mean; and where bfloat16
# cannot hold the sum with the bias.
@pytest.mark.parametrize(
    "value, dtype", [(1000.3, jnp.float32), (3.3, jnp.bfloat16)], ids=str
)
def test_maps_that_are_constant_vary_by_nothing(value, dtype, platform):
    run = platforms.on(platform, pooling.relu_norm_and_pool)
    maps = jnp.full((3, 4, 6, 1), value, dtype)
    outputs, _, variance = run(maps, jnp.full(1, 0.1), jnp.ones(1), jnp.zeros(1))
    assert 0 <= variance <= 2e-6 * value**2
    # What float32's sums of 72 values leave, over the root of the variance's epsilon.
    np.testing.assert_allclose(outputs, 0, atol=value * 2**-20 / 1e-5**0.5)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_sums_over_a_batch_keep_float32_s_digits(platform):
    # Added one after the other, so many numbers lose a digit or two; gradients, which
    # are what is left when most cancels out, then lose all but two.
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((64, 32, 32, 8), np.float32)
    bias, scale, shift = jnp.ones(8), jnp.ones(8), jnp.zeros(8)
    cotangent = rng.standard_normal((64, 16, 16, 8), np.float32)

    @jax.jit
    def run(*arguments):
        outputs = platforms.on(platform, pooling.relu_norm_and_pool)
        (pooled, *moments), pull_back = jax.vjp(outputs, *arguments)
        nothing = jax.tree.map(jnp.zeros_like, moments)
        return *moments, *pull_back((cotangent.astype(pooled.dtype), *nothing))

    mean, var, *_, of_shift = run(maps, bias, scale, shift)
    values = np.maximum(maps.astype(np.float64) + 1, 0)
    for found, expected in (
        (mean, values.mean((0, 1, 2))),
        (var, values.var((0, 1, 2))),
        (of_shift, cotangent.astype(np.float64).sum((0, 1, 2))),
    ):
        error = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_pooling_has_its_gradient_within_a_shard_map(platform):
    # Of one device, as it is a matter of types: the bias is every device's.
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    maps = jax.random.normal(jax.random.key(0), (4, 4, 6, 3))
    params = jnp.asarray([[0.3, -0.2, 0.0], [1.0, -1, 1], [0.1, 0.5, -0.2]])

    def loss(params, maps):
        run = platforms.on(platform, pooling.relu_norm_and_pool)
        outputs, mean, var = run(maps, *params)
        return jnp.sin(outputs).sum() + (mean * var).sum()

    def total(params, maps):
        return jax.lax.psum(loss(params, maps), "data")

    gradient = jax.shard_map(
        jax.grad(total), mesh=mesh, in_specs=(P(), P("data")), out_specs=P()
    )
    found, expected = jax.jit(gradient)(params, maps), jax.grad(loss)(params, maps)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_a_map_that_is_nan_leaves_no_number(platform):
    maps = jnp.zeros((1, 2, 2, 2)).at[0, 1, 0, 0].set(jnp.nan)
    run = platforms.on(platform, pooling.relu_norm_and_pool)
    for found in run(maps, jnp.zeros(2), jnp.ones(2), jnp.zeros(2)):
        np.testing.assert_array_equal(found.ravel(), [np.nan, 0])


# Initial weights


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
@pytest.mark.parametrize("shape", [(8, 12), (7, 3)], ids=str)
def test_max_pool_and_its_gradient_are_flax_even_of_equals(shape, ties, dtype):
    maps = np.random.default_rng(0).standard_normal((2, *shape, 3), np.float32)
    maps = jnp.asarray(maps.round() if ties else maps, dtype)  # some six levels
    pooled = pooling.max_pool(maps)
    assert pooled.dtype == dtype
    np.testing.assert_array_equal(pooled, flax_pool(maps))
    np.testing.assert_array_equal(
        pool_gradient(pooling.max_pool, maps), pool_gradient(flax_pool, maps)
    )


@pytest.mark.parametrize("value, place", [(np.nan, 2), (-np.inf, 0)])
def test_max_pool_passes_nan_on_and_takes_any_value(value, place):
    # A network that has diverged is to be seen as one.
    square = np.full(4, -np.inf, np.float32)
    square[2] = value
    maps = jnp.asarray(square).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(pooling.max_pool(maps).ravel(), [value])
    gradient = pool_gradient(pooling.max_pool, maps).ravel()
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
    lowered = jax.jit(gradient, static_argnums=2).lower(scale, shift, pooling.max_pool)
    compiled = lowered.compile(compiler_options=options)
    expected = gradient(scale, shift, flax_pool)
    # Sums of 64 values of order 1.
    np.testing.assert_allclose(compiled(scale, shift), expected, rtol=1e-4, atol=1e-5)
