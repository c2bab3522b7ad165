"""Ensembles: one pure function of a seed, run for many seeds on many devices.

Seeds are mapped over by `jax.vmap`, in chunks that fit the memory; chunks follow one
another in a compiled loop; and devices share the seeds, those of all processes where
`jax.distributed.initialize` joined several. Nothing here knows a dataset or a network.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

SEEDS = "seeds"
"""The name of the axis of a mesh over which devices share the seeds."""


def make_mesh(*, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes the mesh over which `map_seeds` shares seeds.

    Args:
        devices: by default all there are, in all processes; of several processes each
            needs one here. A CPU is one device, whatever its cores, unless
            `jax.config.update("jax_num_cpu_devices", num_cores)` came before everything
            else.

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
        mesh: from `make_mesh`; without one, a single device. If the number of its
            devices does not divide that of the seeds, the last seed is run more than
            once, and its copies are left out.

    Returns:
        A function of the same arguments, all positional, whose results have a leading
        axis of seeds. With devices of several processes it runs under `jax.jit`, on
        arguments that `place` put there; `gather` brings its results back.

    Raises:
        ValueError: if `seeds_at_once` is below 1, `in_axes` names no argument, or, at
            the call, there are more or fewer arguments than it has entries, or two of
            them have different numbers of seeds.

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
        if len(args) != len(is_mapped):
            raise ValueError(
                f"in_axes={tuple(in_axes)} is for {len(is_mapped)} arguments, and "
                f"{len(args)} were given: name an axis, or None, for each."
            )
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


def place(tree: Any, *, mesh: Mesh, spec: P) -> Any:
    """Puts arrays onto the devices of a mesh, in every process its own part.

    Args:
        tree: arrays, the same in every process; nothing compares them.
        mesh: from `make_mesh`.
        spec: `P(SEEDS)` shares the leading axis out, which the devices must divide (see
            `pad_seeds`); `P()` gives every device all of it.

    Returns:
        The same tree of arrays, for `map_seeds` in `jax.jit`.

    Example:
        >>> import jax
        >>> from jax.sharding import PartitionSpec as P
        >>> mesh = make_mesh()
        >>> keys = pad_seeds(jax.random.split(jax.random.key(0), 6), mesh=mesh)
        >>> keys = place(keys, mesh=mesh, spec=P(SEEDS))
        >>> gather(jax.jit(map_seeds(jax.random.normal, mesh=mesh))(keys)).shape
        (6,)
    """
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    # Not device_put, which would send the arrays around to see if they are the same.
    def place_leaf(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        leaf = leaf if is_key else np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

    return jax.tree.map(place_leaf, tree)


def gather(tree: Any) -> Any:
    """Brings results to the host, in every process those of all.

    Args:
        tree: arrays of numbers. If they are spread over processes, all must call this.

    Returns:
        The same tree of NumPy arrays.

    Example:
        >>> import jax.numpy as jnp
        >>> gather({"losses": jnp.ones(2)})
        {'losses': array([1., 1.], dtype=float32)}
    """

    def gather_leaf(leaf):
        if getattr(leaf, "is_fully_addressable", True):
            return np.asarray(leaf)
        from jax.experimental import multihost_utils  # which loads much more

        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gather_leaf, tree)


def exchange(value: ArrayLike, *, mesh: Mesh) -> np.ndarray:
    """Tells every process what each of them has to say; all must call this.

    What depends on a clock or on the memory of a machine differs between processes,
    and they must agree on it before they compile or run anything by it.

    Args:
        value: of the same shape and type in every process; 32 bits of it are sent.
        mesh: from `make_mesh`.

    Returns:
        An array `[mesh.size, *value.shape]`, for each device what its process said.

    Example:
        >>> exchange(7, mesh=make_mesh()).min()  # the smallest of all processes
        np.int64(7)
    """
    value = np.asarray(value)
    shape = (mesh.size, *value.shape)
    sharding = NamedSharding(mesh, P(SEEDS))
    if sharding.is_fully_addressable:
        return np.broadcast_to(value, shape)
    value = value.astype(jax.dtypes.canonicalize_dtype(value.dtype))
    return gather(jax.make_array_from_callback(shape, sharding, lambda _: value[None]))


def fit_seeds_at_once(
    compile_with: Callable[[int], Any],
    num_seeds: int,
    *,
    memory: int | None,
    mesh: Mesh | None = None,
) -> tuple[int, Any]:
    """Finds how many seeds fit the memory side by side, by asking the compiler.

    Args:
        compile_with: from `seeds_at_once` to a program, a `jax.stages.Compiled`.
        num_seeds: that a device has; all of them are tried first.
        memory: in bytes; None for no limit. See `free_memory`.
        mesh: from `make_mesh`, if several processes compile this program: they agree.

    Returns:
        How many seeds fit at once, in every process, and 1 if none does; and the
        program compiled for that many.

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
        fitting = seeds_at_once
        try:
            program = compile_with(seeds_at_once)
        except jax.errors.JaxRuntimeError as error:
            # A TPU's compiler refuses what does not fit.
            if seeds_at_once == 1 or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            fitting //= 2
        else:
            needed = required_memory(program)
            if memory is not None and needed > memory:
                # In proportion, which errs on the side of fewer: not all grows with
                # them.
                fitting = max(1, fitting * memory // needed)
        if mesh is not None:
            fitting = int(exchange(fitting, mesh=mesh).min())
        if fitting == seeds_at_once:
            return seeds_at_once, program
        seeds_at_once = fitting


def required_memory(program: Any) -> int:
    """Asks the compiler how much memory a program needs, on one device.

    Args:
        program: a `jax.stages.Compiled`.

    Returns:
        Bytes beyond its arguments, which are there already, for results that do not
        take the place of an argument, and for what the program needs in between.

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
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        hint = ""
        if () in shapes:
            hint = "; a list of keys or numbers is none, and jnp.stack makes one of it"
        raise ValueError(
            "Every array of seeds has one leading axis of the same length, 1 or more, "
            f"but the lengths are {sorted(sizes)}{hint}."
        )
    return sizes.pop()
