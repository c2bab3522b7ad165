"""Noise on several devices: the tests run in a process of their own that has four."""

import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sounddrop_jax import (
    NoiseInjection,
    convolution,
    make_matched_bank,
    make_power_law_bank,
    make_recording_bank,
)
from tests.devices import HAS_FOUR, on_four_devices
from tests.layers import KEY, differ
from tests.platforms import on
from tests.programs import python, with_xla_flags

SHAPE = (8, 5, 6, 3)
WITH_DEVICES = ("ensembles", "sharding")


@pytest.mark.slow
@pytest.mark.skipif(HAS_FOUR, reason="this is the process with four devices")
def test_these_and_those_of_ensembles_pass_on_four_devices():
    files = [str(Path(__file__).with_name(f"test_{n}.py")) for n in WITH_DEVICES]
    options = ["-q", "-m", "", "-p", "no:cacheprovider"]  # slow tests, too
    count = "--xla_force_host_platform_device_count=4"
    flags = {"JAX_PLATFORMS": "cpu", "PYTEST_ADDOPTS": ""}
    flags["XLA_FLAGS"] = with_xla_flags(count)
    done = python("-m", "pytest", *options, *files, **flags)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout  # this one


def shard(axis_type, spec) -> jax.Array:
    """Features split over the devices: as XLA does it, or as types that JAX checks."""
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(axis_type, axis_type))
    features = jax.random.normal(jax.random.key(3), SHAPE)
    return jax.device_put(features, NamedSharding(mesh, spec))


@on_four_devices
@pytest.mark.parametrize(
    ("axis_type", "spec"),
    [(AxisType.Auto, P("data", None, "model")), (AxisType.Explicit, P("data"))],
    ids=str,
)
def test_features_that_are_split_meet_the_noise_of_whole_ones(
    any_case, axis_type, spec
):
    inputs = shard(axis_type, spec)
    layer = any_case.make()
    outputs = jax.jit(lambda inputs: layer(inputs, rngs=KEY))(inputs)
    assert outputs.sharding.is_equivalent_to(inputs.sharding, inputs.ndim)
    expected = layer(jnp.asarray(np.asarray(inputs)), rngs=KEY)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@on_four_devices
def test_devices_that_share_a_batch_meet_different_noise(any_case):
    inputs = jnp.ones_like(shard(AxisType.Auto, P(("data", "model"))))
    layer = any_case.make(broadcast_dims=())
    outputs = jax.jit(lambda inputs: layer(inputs, rngs=KEY))(inputs)
    parts = [np.asarray(part.data) for part in outputs.addressable_shards]
    assert [part.shape for part in parts] == [(2, 5, 6, 3)] * 4
    for one, other in itertools.combinations(parts, 2):
        assert differ(one, other)


@on_four_devices
@pytest.mark.parametrize("axes", [(-2,), (-3, -2)], ids=str)
def test_fresh_noise_of_a_batch_that_is_sharded_is_local_work(axes):
    inputs = shard(AxisType.Auto, P(("data", "model")))
    layer = NoiseInjection(0.5, exponent=1.0, axes=axes)
    add = jax.jit(lambda inputs, key: layer(inputs, rngs=key))
    program = add.lower(inputs, KEY).compile().as_text()
    assert not re.findall(r"all-gather|all-reduce|all-to-all|permute\(", program)


@on_four_devices
@pytest.mark.parametrize(
    "make_bank",
    [
        lambda: make_power_law_bank(0, (), exponent=0.0, num_entries=1_000),
        lambda: make_recording_bank(np.sin(np.arange(1_000))),
        lambda: make_matched_bank(np.eye(8)[:, None], num_entries=100),
    ],
    ids=["power law", "recording", "matched"],
)
def test_a_bank_made_within_a_shard_map_serves_everywhere(make_bank):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    banks = []

    def make(inputs):
        banks.append(make_bank())
        return inputs

    spec = P("data")
    jax.jit(jax.shard_map(make, mesh=mesh, in_specs=spec, out_specs=spec))(jnp.ones(4))
    layer = NoiseInjection(0.5, bank=banks[0])
    add = jax.jit(lambda inputs: layer(inputs, rngs=KEY))
    maps = jnp.ones((2, 1, 8))
    expected = add(maps)
    with jax.set_mesh(mesh):
        np.testing.assert_array_equal(add(maps), expected)


@on_four_devices
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_convolution_has_its_gradient_within_a_shard_map(platform):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    inputs = jax.random.normal(jax.random.key(0), (8, 6, 5, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def loss(convolve, kernel, inputs):
        numbers = ("NHWC", "HWIO", "NHWC")
        outputs = convolve(inputs, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return jnp.sin(outputs).sum()

    def total(kernel, inputs):
        ours = on(platform, convolution.conv_general_dilated)
        return jax.lax.psum(loss(ours, kernel, inputs), "data")

    gradient = jax.shard_map(
        jax.grad(total), mesh=mesh, in_specs=(P(), P("data")), out_specs=P()
    )
    expected = jax.grad(loss, 1)(jax.lax.conv_general_dilated, kernel, inputs)
    np.testing.assert_allclose(
        jax.jit(gradient)(kernel, inputs), expected, rtol=1e-5, atol=1e-4
    )
