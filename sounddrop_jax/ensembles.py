"""Ensembles: one pure function of a seed, run for many seeds on many devices.

Seeds are mapped over by `jax.vmap`, in chunks that fit the memory; chunks follow one
another in a compiled loop; and devices share the seeds. Nothing here knows a dataset
or a network.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

SEEDS = "seeds"
"""The name of the axis of a mesh over which devices share the seeds."""


def make_mesh(*, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes the mesh over which `map_seeds` shares seeds.

    Args:
        devices: by default all there are. A CPU is one device, whatever its cores,
            unless `jax.config.update("jax_num_cpu_devices", num_cores)` came before
            everything else.

    Returns:
        A mesh whose one axis is `SEEDS`.

    Example:
        >>> make_mesh().axis_names
        ('seeds',)
    """
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (SEEDS,))


def map_seeds(
    fn: Callable[..., Any],
    *,
    in_axes: Sequence[int | None] = (0,),
    seeds_at_once: int | None = None,
    mesh: Mesh | None = None,
) -> Callable[..., Any]:
    """Maps a function over seeds: `jax.vmap` in chunks, chunks in a loop, over devices.

    A seed's result does not depend on the number of seeds, the chunk or the device,
    up to the rounding of sums that the compiler orders differently.

    Args:
        fn: a pure function of one seed's arguments, whose results are arrays.
        in_axes: for each argument 0, if it has a leading axis of seeds (or is a pytree
            of arrays that have), or None, if all seeds share it.
        seeds_at_once: how many seeds a device works on side by side; by default all
            that it has. Fewer need less memory, and the others wait for their turn. At
            1 there is no vmap, which is the fastest way on a CPU.
        mesh: from `make_mesh`; without one, a single device. If it does not divide the
            seeds, the last is run more than once, and its copies are left out.

    Returns:
        A function of the same arguments, all positional, whose results have a leading
        axis of seeds.

    Raises:
        ValueError: if `seeds_at_once` is below 1, `in_axes` names no argument, or, at
            the call, two arguments have different numbers of seeds.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def estimate_pi(key):
        ...     points = jax.random.uniform(key, (10_000, 2))
        ...     return 4 * ((points**2).sum(-1) < 1).mean()
        >>> keys = jax.random.split(jax.random.key(0), 6)
        >>> estimates = map_seeds(estimate_pi, seeds_at_once=2, mesh=make_mesh())(keys)
        >>> estimates.shape, bool(abs(estimates.mean() - jnp.pi) < 0.1)
        ((6,), True)
    """
    if seeds_at_once is not None and seeds_at_once < 1:
        raise ValueError(f"seeds_at_once must be 1 or more, not {seeds_at_once}.")
    is_mapped = [axis == 0 for axis in in_axes]
    if not any(is_mapped) or any(axis not in (0, None) for axis in in_axes):
        raise ValueError(
            f"in_axes holds 0 for an argument with an axis of seeds, at least one, and "
            f"None for others, but it is {tuple(in_axes)}."
        )

    def split(args):
        pairs = list(zip(args, is_mapped, strict=True))
        return [a for a, own in pairs if own], [a for a, own in pairs if not own]

    def on_one_device(mapped, shared):
        def one_seed(own):
            parts = iter(own), iter(shared)
            return fn(*(next(parts[0] if own else parts[1]) for own in is_mapped))

        if seeds_at_once == 1:
            return lax.map(one_seed, mapped)
        if seeds_at_once is None or seeds_at_once >= _num_seeds(mapped):
            return jax.vmap(one_seed)(mapped)
        return lax.map(one_seed, mapped, batch_size=seeds_at_once)

    def on_all_devices(*args):
        mapped, shared = split(args)
        num_seeds = _num_seeds(mapped)
        if mesh is None:
            return on_one_device(mapped, shared)
        mapped = pad_seeds(mapped, mesh=mesh)
        results = jax.shard_map(
            on_one_device,
            mesh=mesh,
            in_specs=(P(SEEDS), P()),
            out_specs=P(SEEDS),
            check_vma=False,
        )(mapped, shared)
        if num_seeds % mesh.size == 0:
            return results
        return jax.tree.map(lambda leaf: leaf[:num_seeds], results)

    return on_all_devices


def pad_seeds(tree: Any, *, mesh: Mesh) -> Any:
    """Repeats the last seed until the devices of a mesh divide the seeds.

    `map_seeds` does so by itself, and undoes it; whoever keeps states from call to
    call saves that by doing it once.

    Args:
        tree: arrays with a leading axis of seeds, the same for all, at least one.
        mesh: from `make_mesh`.

    Returns:
        The same, with as many or more seeds.

    Raises:
        ValueError: if the arrays have different numbers of seeds, or none.

    Example:
        >>> import jax.numpy as jnp
        >>> pad_seeds(jnp.arange(3), mesh=make_mesh()).shape  # on one device
        (3,)
    """
    missing = -_num_seeds(tree) % mesh.size
    if missing == 0:
        return tree
    return jax.tree.map(
        lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, 0)]), tree
    )


def fit_seeds_at_once(
    compile_with: Callable[[int], Any], num_seeds: int, *, memory: int | None
) -> tuple[int, Any]:
    """Finds how many seeds fit the memory side by side, by asking the compiler.

    Args:
        compile_with: from `seeds_at_once` to a program, a `jax.stages.Compiled`.
        num_seeds: that a device has; all of them are tried first.
        memory: in bytes; None for no limit. See `free_memory`.

    Returns:
        seeds_at_once: as many as fit, and 1 if none does.
        program: compiled for that.

    Example:
        >>> import jax
        >>> keys = jax.random.split(jax.random.key(0), 8)
        >>> def compile_with(seeds_at_once):
        ...     norms = map_seeds(
        ...         lambda key: jnp.linalg.norm(jax.random.normal(key, (1000, 10))),
        ...         seeds_at_once=seeds_at_once,
        ...     )
        ...     return jax.jit(norms).lower(keys).compile()
        >>> fit_seeds_at_once(compile_with, 8, memory=None)[0]
        8
        >>> fit_seeds_at_once(compile_with, 8, memory=100_000)[0] < 8
        True
    """
    seeds_at_once = num_seeds
    while True:
        program = compile_with(seeds_at_once)
        needed = required_memory(program)
        if memory is None or needed <= memory or seeds_at_once == 1:
            return seeds_at_once, program
        # In proportion, which errs on the side of fewer: not all of it grows with them.
        seeds_at_once = max(1, min(seeds_at_once - 1, seeds_at_once * memory // needed))


def required_memory(program: Any) -> int:
    """Asks the compiler how much memory a program needs, on one device.

    Args:
        program: a `jax.stages.Compiled`.

    Returns:
        Bytes, beyond its arguments, which are there already: results that do not take
        the place of an argument, and what the program needs in between.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> double = jax.jit(lambda x: 2 * x).lower(jnp.ones(1000)).compile()
        >>> required_memory(double)
        4000
    """
    sizes = program.memory_analysis()
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return results + sizes.temp_size_in_bytes


def free_memory(device: jax.Device) -> int | None:
    """Asks a device how much memory is left for JAX.

    Args:
        device: any.

    Returns:
        Bytes, or None where the device does not say, as a CPU does not.

    Example:
        >>> import jax
        >>> free_memory(jax.devices("cpu")[0]) is None
        True
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _num_seeds(tree: Any) -> int:
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(tree)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "Every array of seeds has one leading axis of the same length, 1 or more, "
            f"but the lengths are {sorted(sizes)}."
        )
    return sizes.pop()
