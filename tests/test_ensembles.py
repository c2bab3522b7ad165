"""Ensembles: a result is its seed's own, whatever the number, chunk or device."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sounddrop_jax import ensembles
from sounddrop_jax.sweeps.ensembles import (
    SEEDS,
    exchange,
    fit_seeds_at_once,
    free_memory,
    gather,
    make_mesh,
    map_seeds,
    pad_seeds,
    place,
    required_memory,
)
from tests.devices import on_four_devices

KEYS = jax.random.split(jax.random.key(0), 7)
SCALE = jnp.linspace(0.1, 1.0, 5)
SIZES = [1, 3, None]


def train(key, scale, num_steps):
    """A seed's work: a loop with a state, and results of more than one kind."""

    def step(_, state):
        state, key = state
        key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, state.shape)
        return state - 0.1 * (state + scale * noise), key

    state, _ = jax.lax.fori_loop(0, num_steps, step, (jnp.ones(5), key))
    return {"state": state, "best": state.argmax()}


@functools.cache
def train_alone(num_seeds):
    """Trains one seed after the other."""
    results = [train(key, SCALE, 10) for key in KEYS[:num_seeds]]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def meshes():
    counts = [n for n in (1, 2, 4) if n <= jax.device_count()]
    return [None, *(make_mesh(devices=jax.devices()[:n]) for n in counts)]


@pytest.mark.parametrize("mesh", meshes(), ids=lambda m: f"{m and m.size} devices")
@pytest.mark.parametrize("seeds_at_once", SIZES)
@pytest.mark.parametrize("num_seeds", [1, 7])
def test_a_seed_is_what_it_is_alone(num_seeds, seeds_at_once, mesh):
    settings = {"seeds_at_once": seeds_at_once, "mesh": mesh}
    mapped = map_seeds(train, in_axes=(0, None, None), **settings)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        results = jax.jit(mapped)(KEYS[:num_seeds], SCALE, 10)
    # Ten steps of a map that contracts: a few roundings of numbers of order 1.
    chex.assert_trees_all_close(results, train_alone(num_seeds), atol=1e-6)


def test_arguments_with_and_without_seeds_stand_anywhere():
    def total(shared, own, other):
        return shared["a"] + 10 * own[0] + 100 * own[1] + 1000 * other

    mapped = map_seeds(total, in_axes=(None, 0, 0), seeds_at_once=2)
    own = (jnp.arange(3), jnp.arange(3, 6))
    results = mapped({"a": jnp.int32(7)}, own, jnp.arange(6, 9))
    np.testing.assert_array_equal(results, [6307, 7417, 8527])


def test_one_seed_at_once_is_not_mapped():
    """A condition stays one; mapped, both of its sides would be computed."""

    def work(number):
        return jax.lax.cond(number > 0, jnp.sin, jnp.cos, number)

    numbers = jnp.arange(4.0)
    for size in SIZES:
        program = jax.make_jaxpr(map_seeds(work, seeds_at_once=size))(numbers)
        assert ("cond[" in str(program)) == (size == 1)


@on_four_devices
def test_devices_share_the_seeds():
    mesh = make_mesh()
    keys = jax.device_put(pad_seeds(KEYS, mesh=mesh), NamedSharding(mesh, P(SEEDS)))
    results = jax.jit(map_seeds(jax.random.normal, mesh=mesh))(keys)
    assert results.shape == (8,)
    shards = results.addressable_shards
    assert [shard.data.shape for shard in shards] == [(2,)] * 4
    assert {shard.device for shard in shards} == set(jax.devices())


@on_four_devices
@pytest.mark.parametrize("num_seeds", [1, 4, 5])
def test_padding_repeats_the_last_seed(num_seeds):
    numbers = jnp.arange(num_seeds)
    padded = pad_seeds({"a": numbers, "b": numbers[:, None]}, mesh=make_mesh())
    assert len(padded["a"]) % 4 == 0
    assert len(padded["a"]) - num_seeds < 4
    np.testing.assert_array_equal(padded["a"][:num_seeds], numbers)
    assert (padded["a"][num_seeds:] == num_seeds - 1).all()
    np.testing.assert_array_equal(padded["b"][:, 0], padded["a"])


@pytest.mark.parametrize("mesh", meshes()[1:], ids=lambda m: f"{m.size} devices")
def test_what_is_placed_and_gathered_is_what_it_was(mesh):
    padded = pad_seeds({"keys": KEYS, "numbers": jnp.arange(7)}, mesh=mesh)
    own, shared = (place(padded, mesh=mesh, spec=spec) for spec in (P(SEEDS), P()))
    for placed, share in ((own, mesh.size), (shared, 1)):
        parts = placed["numbers"].addressable_shards
        size = len(padded["numbers"]) // share
        assert [len(part.data) for part in parts] == [size] * mesh.size
        chex.assert_trees_all_equal(placed, padded)
    gathered = gather({"numbers": own["numbers"]})
    assert isinstance(gathered["numbers"], np.ndarray)
    np.testing.assert_array_equal(gathered["numbers"], padded["numbers"])


@pytest.mark.parametrize("value", [0.1, 2**40, np.arange(3, dtype=np.uint8)], ids=str)
def test_a_process_hears_what_it_said_from_each_of_its_devices(value):
    mesh = make_mesh()
    heard = exchange(value, mesh=mesh)
    assert heard.shape == (mesh.size, *np.shape(value))
    # Unchanged, as long as there is one process: not even rounded to 32 bits.
    assert heard.dtype == np.asarray(value).dtype
    assert (heard == value).all()


def compile_with(seeds_at_once):
    def norm(key):
        return jnp.linalg.norm(jax.random.normal(key, (10_000,)).reshape(100, 100))

    mapped = map_seeds(norm, seeds_at_once=seeds_at_once)
    return jax.jit(mapped).lower(jax.random.split(KEYS[0], 16)).compile()


def test_as_many_seeds_as_fit_are_found():
    needs = {n: required_memory(compile_with(n)) for n in (1, 2, 4, 8, 16)}
    assert list(needs.values()) == sorted(needs.values())
    assert needs[16] > 4 * needs[1]
    for memory, fitting in ((None, [16]), (needs[16], [16]), (0, [1])):
        assert fit_seeds_at_once(compile_with, 16, memory=memory)[0] in fitting
    found, program = fit_seeds_at_once(compile_with, 16, memory=needs[4])
    assert 1 < found < 16
    assert required_memory(program) <= needs[4]


def test_fewer_are_tried_in_proportion_to_the_memory(monkeypatch):
    # A program is how many seeds it is for; each takes 100 bytes, and all of them 50.
    monkeypatch.setattr(ensembles, "required_memory", lambda size: 100 * size + 50)
    asked = []
    found = fit_seeds_at_once(lambda size: asked.append(size) or size, 16, memory=870)
    assert found == (8, 8)
    assert asked == [16, 8]


def test_fewer_are_tried_where_the_compiler_refuses(monkeypatch):
    monkeypatch.setattr(ensembles, "required_memory", lambda size: size)

    def compile_with(size):
        if size > 5:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        if size < 3:
            raise jax.errors.JaxRuntimeError("INTERNAL: of another kind")
        return size

    assert fit_seeds_at_once(compile_with, 16, memory=None) == (4, 4)
    with pytest.raises(jax.errors.JaxRuntimeError, match="another kind"):
        fit_seeds_at_once(compile_with, 16, memory=2)


def test_a_process_with_less_memory_decides_for_all(monkeypatch):
    monkeypatch.setattr(
        ensembles,
        "exchange",
        lambda fitting, mesh: np.array([fitting, min(fitting, 3)]),
    )
    monkeypatch.setattr(ensembles, "required_memory", lambda size: size)
    asked = []
    found = fit_seeds_at_once(
        lambda size: asked.append(size) or size, 16, memory=None, mesh=make_mesh()
    )
    assert found == (3, 3)
    assert asked == [16, 3]


class Device:
    def __init__(self, stats):
        self.memory_stats = lambda: stats


def test_free_memory_is_what_is_not_in_use():
    assert free_memory(Device({"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert free_memory(Device({"bytes_limit": 100})) == 100
    assert free_memory(Device({"bytes_in_use": 30})) is None
    assert free_memory(Device(None)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[({"seeds_at_once": n}, f"must be 1 or more, not {n}") for n in (0, -1)],
        *[({"in_axes": axes}, "holds 0 for an arg") for axes in ((), (None,), (0, -1))],
    ],
)
def test_a_setting_that_will_not_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        map_seeds(train, **settings)


@pytest.mark.parametrize("arguments", [(), (jnp.zeros(3), jnp.zeros(3))])
def test_as_many_arguments_as_axes_are_needed(arguments):
    message = f"is for 1 arguments, and {len(arguments)} were given: name"
    with pytest.raises(ValueError, match=message):
        map_seeds(train)(*arguments)


@pytest.mark.parametrize(
    ("arguments", "lengths"),
    [
        ((jnp.zeros(3), jnp.zeros(4)), r"\[3, 4\]"),
        ((jnp.zeros(0), jnp.zeros(0)), r"\[0\]"),
        ((jnp.zeros(3), jnp.float32(1)), r"\[0, 3\]; .* jnp.stack"),
        # Lists are no arrays.
        ((list(KEYS), list(KEYS)), r"\[0\]; .* jnp.stack"),
    ],
)
def test_arguments_without_a_common_number_of_seeds_are_refused(arguments, lengths):
    with pytest.raises(ValueError, match=f"the lengths are {lengths}") as error:
        map_seeds(jnp.add, in_axes=(0, 0))(*arguments)
    assert "\n" not in str(error.value)
