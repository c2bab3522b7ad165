"""The convolution of many networks: equal to JAX's own, and without its cliffs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

from sounddrop_jax.sweeps.convolution import conv_general_dilated
from tests.platforms import on

NHWC = ("NHWC", "HWIO", "NHWC")
BOTH = {"ours": conv_general_dilated, "JAX's": lax.conv_general_dilated}
OURS = {"on a CPU": conv_general_dilated, "elsewhere": on("tpu", conv_general_dilated)}
everywhere = pytest.mark.parametrize("ours", OURS.values(), ids=OURS)


def normal(shape, seed=0, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


INPUTS = normal((3, 7, 5, 4))
KERNEL = normal((3, 3, 4, 6), seed=1)


def plain(convolve, inputs, kernel, padding="SAME"):
    # "highest" for accelerators, whose default is worth three digits.
    return convolve(
        inputs, kernel, (1, 1), padding, dimension_numbers=NHWC, precision="highest"
    )


@functools.partial(jax.jit, static_argnums=(0, 4))
def forward_and_back(convolve, inputs, kernel, cotangent, padding="SAME"):
    outputs, pull_back = jax.vjp(
        lambda inputs, kernel: plain(convolve, inputs, kernel, padding), inputs, kernel
    )
    return outputs, *pull_back(cotangent)


def loss(convolve, inputs, kernel, padding="SAME"):
    """Its gradients hold those of every output, each with a weight of its own."""
    return jnp.sin(plain(convolve, inputs, kernel, padding)).sum()


def value_and_grads(convolve, **settings):
    return jax.value_and_grad(functools.partial(loss, convolve, **settings), (0, 1))


def assert_close(ours, theirs) -> None:
    # Sums of up to about 300 products of order 1 in float32.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4),
        ours,
        theirs,
    )


# Equal to JAX's


# Three images of 20 x 20 are summed one by one, four of 7 x 5 at once.
@pytest.mark.parametrize("shape", [(3, 20, 20, 3), (4, 7, 5, 4)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", ((1, 2), (0, 3))], ids=str)
@pytest.mark.parametrize("window", [(1, 1), (5, 3), (2, 3)], ids=str)
def test_outputs_and_both_gradients_equal_those_of_jax(window, padding, shape):
    inputs = normal(shape)
    kernel = normal((*window, shape[-1], 6), seed=1)
    outputs = jax.eval_shape(
        lambda x, k: plain(lax.conv_general_dilated, x, k, padding), inputs, kernel
    )
    cotangent = normal(outputs.shape, seed=2)
    ours, theirs = (
        forward_and_back(convolve, inputs, kernel, cotangent, padding)
        for convolve in BOTH.values()
    )
    assert_close(ours, theirs)


def test_colours_take_one_product_for_four_outputs():
    images, kernel = normal((2, 8, 6, 3)), normal((3, 3, 3, 6), seed=1)
    program = jax.jit(functools.partial(plain, conv_general_dilated))
    assert "tensor<2x4x3x24xf32>" in program.lower(images, kernel).as_text()


@everywhere
@pytest.mark.parametrize("shape", [(1, 7, 5, 4), (2, 1, 5, 4), (1, 1, 1, 4)], ids=str)
def test_a_batch_of_one_and_maps_of_length_one(shape, ours):
    results = (
        jax.jit(value_and_grads(convolve))(normal(shape), KERNEL)
        for convolve in (ours, lax.conv_general_dilated)
    )
    assert_close(*results)


@pytest.mark.parametrize(
    ("inputs", "kernel"),
    [
        ((0, 7, 5, 4), (3, 3, 4, 6)),
        ((2, 2, 2, 4), (3, 3, 4, 6)),
        ((2, 2, 9, 4), (5, 3, 4, 6)),
        ((2, 7, 5, 4), (3, 3, 4, 0)),
        ((2, 7, 5, 0), (3, 3, 0, 6)),
    ],
    ids=["no batch", "no position", "no row by far", "no features", "no channels"],
)
def test_empty_outputs_and_sums_have_the_shapes_of_jax(inputs, kernel):
    ours, theirs = (
        plain(convolve, jnp.ones(inputs), jnp.ones(kernel), "VALID")
        for convolve in BOTH.values()
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("padding", ["SAME_LOWER", "same", [[1, 1], [2, 0]]], ids=str)
def test_every_spelling_of_a_padding(padding):
    ours, theirs = (plain(c, INPUTS, KERNEL, padding) for c in BOTH.values())
    assert_close(ours, theirs)


@everywhere
def test_gradients_of_gradients_equal_those_of_jax(ours):
    def steepness(convolve, inputs, kernel):
        gradients = jax.grad(loss, (1, 2))(convolve, inputs, kernel)
        return sum((gradient**2).sum() for gradient in gradients)

    result, expected = (
        jax.jit(jax.grad(steepness, (1, 2)), static_argnums=0)(
            convolve, INPUTS / 8, KERNEL / 8
        )
        for convolve in (ours, lax.conv_general_dilated)
    )
    assert min(np.abs(each).max() for each in expected) > 0.1
    assert_close(result, expected)


@everywhere
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_nothing_is_promoted(dtype, ours):
    with (
        jax.enable_x64(dtype == jnp.float64),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        inputs = normal((2, *INPUTS.shape), dtype=dtype)
        kernel = normal((2, *KERNEL.shape), dtype=dtype)

        def total(inputs, kernel):
            return plain(ours, inputs, kernel).sum()

        for gradient in (jax.grad(total, (0, 1)), jax.value_and_grad(total, 1)):
            found = jax.eval_shape(jax.vmap(gradient), inputs, kernel)
            assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_keeps_its_dtype(dtype):
    arrays = (INPUTS, KERNEL, normal((3, 7, 5, 6), seed=2))
    rounded = [array.astype(dtype) for array in arrays]
    results = forward_and_back(conv_general_dilated, *rounded)
    expected = forward_and_back(
        lax.conv_general_dilated, *[array.astype(jnp.float32) for array in rounded]
    )
    for result, exactly in zip(results, expected, strict=True):
        assert result.dtype == dtype
        # A sum of three rounded rows, each rounded to half a unit in the last place.
        tolerance = 3 * float(jnp.finfo(dtype).eps) * np.abs(exactly).max()
        np.testing.assert_allclose(
            result.astype(jnp.float32), exactly, rtol=0, atol=tolerance
        )


# Under transformations


@everywhere
@pytest.mark.parametrize(
    ("window", "padding", "axes"),
    [
        *[((3, 3), "SAME", (0, 0)), ((5, 3), ((1, 2), (0, 3)), (0, 0))],
        *[((2, 3), "VALID", (0, None)), ((3, 3), "SAME", (None, 0))],
    ],
    ids=str,
)
def test_vmap_over_seeds_equals_that_of_jax(window, padding, axes, ours):
    shapes = ((2, 3, 7, 5, 4), (2, *window, 4, 6))
    arrays = [
        normal(shape if axis == 0 else shape[1:], seed)
        for seed, (shape, axis) in enumerate(zip(shapes, axes, strict=True))
    ]
    result, expected = (
        jax.jit(jax.vmap(value_and_grads(convolve, padding=padding), axes))(*arrays)
        for convolve in (ours, lax.conv_general_dilated)
    )
    assert_close(result, expected)


def test_seeds_of_seeds_are_merged_too():
    inputs, kernels = normal((2, 3, *INPUTS.shape)), normal((2, 3, *KERNEL.shape), 1)
    result, expected = (
        jax.jit(jax.vmap(jax.vmap(value_and_grads(each))))
        for each in (OURS["elsewhere"], lax.conv_general_dilated)
    )
    assert_close(result(inputs, kernels), expected(inputs, kernels))
    program = result.lower(inputs, kernels).as_text()
    assert program.count("stablehlo.convolution") == 3
    assert program.count("feature_group_count = 6") == 3 - 1
    assert program.count("batch_group_count = 6") == 1


def lowered(convolve, transform) -> str:
    run = transform(value_and_grads(convolve))
    inputs, kernels = normal((2, *INPUTS.shape)), normal((2, *KERNEL.shape))
    return jax.jit(run).lower(inputs, kernels).as_text()


def seeds_in_a_loop(run):
    return lambda *arrays: lax.map(lambda pair: run(*pair), arrays)


@pytest.mark.parametrize("transform", [jax.vmap, seeds_in_a_loop])
def test_a_cpu_does_one_network_at_a_time_and_kernel_gradients_by_products(transform):
    program = lowered(conv_general_dilated, transform)
    assert program.count("stablehlo.convolution") == 2
    assert program.count("stablehlo.dot_general") == 1
    assert "feature_group_count = 2" not in program
    assert "batch_group_count = 2" not in program


# Left to JAX

LINES = ("NWC", "WIO", "NWC")
VOLUMES = ("NDHWC", "DHWIO", "NDHWC")


ELSE = {  # what differs from a plain convolution of maps
    "groups": {"feature_group_count": 2, "rhs": (3, 3, 2, 6)},
    "strides": {"window_strides": (2, 1)},
    "dilated kernel": {"rhs_dilation": (1, 2)},
    "dilated inputs": {"lhs_dilation": (2, 1), "padding": [(1, 1)] * 2},
    "cropped at the top": {"padding": ((-1, 1), (1, 1))},
    "cropped at the right": {"padding": ((1, 1), (1, -1))},
    "batch groups": {"batch_group_count": 2},
    "preferred type": {"preferred_element_type": jnp.float32},
    "default numbers": {
        **{"lhs": (2, 4, 7, 5), "rhs": (6, 4, 3, 3), "dimension_numbers": None}
    },
    "NCHW": {"lhs": (2, 4, 7, 5), "dimension_numbers": ("NCHW", "HWIO", "NCHW")},
    "1-D": {
        **{"lhs": (2, 9, 4), "rhs": (3, 4, 6), "window_strides": (1,)},
        **{"dimension_numbers": LINES},
    },
    "3-D": {
        **{"lhs": (2, 5, 4, 3, 2), "rhs": (3, 3, 3, 2, 2), "window_strides": (1, 1, 1)},
        **{"dimension_numbers": VOLUMES},
    },
}


@pytest.mark.parametrize("settings", ELSE.values(), ids=ELSE)
def test_everything_else_is_done_by_jax(settings):
    usual = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC}
    settings = {"lhs": (2, 7, 5, 4), "rhs": (3, 3, 4, 6)} | usual | settings
    inputs, kernel = normal(settings.pop("lhs")), normal(settings.pop("rhs"), seed=1)
    ours, theirs = (
        jax.jit(lambda x, k, c=c: c(x, k, **settings)) for c in BOTH.values()
    )
    assert "stablehlo.convolution" in ours.lower(inputs, kernel).as_text()
    np.testing.assert_array_equal(ours(inputs, kernel), theirs(inputs, kernel))


@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [
        (KERNEL.astype(jnp.bfloat16), (1, 1), "SAME"),
        (KERNEL[:, :, :3], (1, 1), "SAME"),
        (KERNEL, (1,), "SAME"),
        (KERNEL, (1, 1), "OTHER"),
        (KERNEL, (1, 1), [(1, 1)]),
        (KERNEL, (1, 1), [(1, 1)] * 3),
    ],
    ids=["mixed dtypes", "channels", "strides", "padding", "one pad", "three pads"],
)
def test_what_jax_refuses_is_refused_in_its_words(kernel, strides, padding):
    messages = []
    for convolve in BOTH.values():
        with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
            convolve(INPUTS, kernel, strides, padding, dimension_numbers=NHWC)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


# Inside Flax


OWN = {"conv_general_dilated": conv_general_dilated}


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        *[((2, 7, 5, 4), {}), ((7, 5, 4), {}), ((2, 3, 7, 5, 4), {})],
        ((2, 7, 5, 4), {"padding": "CIRCULAR"}),
        ((2, 7, 5, 4), {"padding": 1, "use_bias": False}),
        ((2, 7, 5, 4), {"strides": 2, "kernel_dilation": 2}),
        ((2, 7, 5, 4), {"dtype": jnp.bfloat16}),
    ],
    ids=str,
)
def test_it_takes_the_place_of_that_of_nnx(shape, settings):
    ours, theirs = (
        nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0), **settings, **own)(normal(shape))
        for own in (OWN, {})
    )
    assert ours.dtype == theirs.dtype
    # bfloat16 has eight bits; numbers here are below 4.
    tolerance = 4 * 2**-8 if "dtype" in settings else 1e-4
    ours, theirs = (outputs.astype(jnp.float32) for outputs in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=tolerance)


PARAMS = {"params": {"kernel": KERNEL, "bias": jnp.ones(6)}}


@pytest.mark.parametrize("shape", [(2, 7, 5, 4), (7, 5, 4)], ids=str)
def test_it_takes_the_place_of_that_of_linen(shape):
    ours, theirs = (
        linen.Conv(6, (3, 3), **own).apply(PARAMS, normal(shape)) for own in (OWN, {})
    )
    assert_close(ours, theirs)


def nnx_loss(kernel):
    conv = nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0), **OWN)
    conv.kernel[...] = kernel
    return conv(INPUTS).sum()


def linen_loss(kernel):
    params = {"kernel": kernel, "bias": jnp.ones(6)}
    return linen.Conv(6, (3, 3), **OWN).apply({"params": params}, INPUTS).sum()


@pytest.mark.parametrize("loss", [nnx_loss, linen_loss])
def test_flax_gets_kernel_gradients_by_products(loss):
    """Flax names every dilation, which is 1."""
    assert "stablehlo.dot_general" in jax.jit(jax.grad(loss)).lower(KERNEL).as_text()
