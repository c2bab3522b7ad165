"""Training of many networks at once, on all devices of a mesh."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from experiments.training.steps import Constants, Functions, TrainState
from sounddrop_jax import ensembles

# How long one compiled call should run: often enough for a lively progress bar and a
# prompt Ctrl-C, rarely enough to cost little. A call has the operating system clear its
# memory anew, which on a CPU takes long beside a single step of a deep network.
SECONDS_PER_CALL = 2.0


class Progress(NamedTuple):
    """Where training stands: yielded after every compiled call.

    Attributes:
        epoch: from 0.
        step: number of steps done in this epoch.
        totals: float32 `[S]`, the sum of this epoch's training losses so far.
        seconds: spent on training steps so far, and on nothing else.
    """

    epoch: int
    step: int
    totals: np.ndarray
    seconds: float

    @property
    def losses(self) -> np.ndarray:
        """The mean training loss of this epoch so far, float64 `[S]`."""
        return self.totals.astype(np.float64) / self.step


class Trainer:
    """Trains the networks of several seeds, on all devices of a mesh.

    If these are of several processes, each makes a trainer and trains it, and what one
    reports, all report.

    Args:
        functions: of one seed.
        seeds: one network each; a seed's numbers do not depend on the others.
        strengths: of each network's regularizers, see `make_functions`.
        seeds_at_once: see `ensembles.map_seeds`; None for as many as fit the memory.
        mesh: see `ensembles.map_seeds`; None for one device.

    Attributes:
        num_seeds: the number of networks.
        seeds_at_once: what was asked for, or what fits.
        compile_seconds: what the compilations took.
    """

    def __init__(
        self,
        functions: Functions,
        seeds: Sequence[int],
        *,
        strengths: Sequence[float] | None = None,
        seeds_at_once: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.num_seeds = len(seeds)
        self._mesh = mesh
        keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
        own = None if strengths is None else jnp.asarray(strengths, jnp.float32)
        self._constants = functions.constants
        device, num_seeds = jax.devices()[0], len(seeds)
        if mesh is not None:
            # Once, and not at every call.
            padded = ensembles.pad_seeds((keys, own), mesh=mesh)
            keys, own = ensembles.place(padded, mesh=mesh, spec=P(ensembles.SEEDS))
            self._constants = ensembles.place(self._constants, mesh=mesh, spec=P())
            device, num_seeds = mesh.local_devices[0], len(keys) // mesh.size

        def compile(fn, in_axes, *arguments, at_once, **settings):
            mapped = ensembles.map_seeds(
                fn, in_axes=in_axes, seeds_at_once=at_once, mesh=mesh
            )
            return jax.jit(mapped, **settings).lower(*arguments).compile()

        def compile_to_fit(*arguments, **settings):
            def compile_with(at_once):
                return compile(*arguments, at_once=at_once, **settings)

            if seeds_at_once is not None:
                return seeds_at_once, compile_with(seeds_at_once)
            memory = ensembles.free_memory(device)
            return ensembles.fit_seeds_at_once(
                compile_with, num_seeds, memory=memory, mesh=mesh
            )

        start = time.perf_counter()
        # Each is compiled ahead of its first use, so that no timing includes it.
        init = compile(functions.init, (0, 0), keys, own, at_once=None)
        self._state = init(keys, own)
        self._zeros = jnp.zeros(len(keys))
        if mesh is not None:
            spec = P(ensembles.SEEDS)
            self._zeros = ensembles.place(self._zeros, mesh=mesh, spec=spec)
        self._shuffle = compile(functions.shuffle, (0, None), keys, 0, at_once=None)
        self.seeds_at_once, self._train_steps = compile_to_fit(
            functions.train_steps,
            (0, 0, None, 0, None, None, None),
            *(self._state, self._zeros, self._constants, self._shuffle(keys, 0)),
            *(0, 0, 0),
            donate_argnums=0,
        )
        _, self._evaluate = compile_to_fit(
            functions.evaluate, (0, None), self._state, self._constants
        )
        self.compile_seconds = time.perf_counter() - start

    def train(
        self,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        start: Progress | None = None,
    ) -> Iterator[Progress]:
        """Trains all networks, and reports after every compiled call.

        Args:
            num_epochs: number of epochs.
            steps_per_epoch: number of steps an epoch, at most the number of whole
                batches.
            start: where the state that was loaded had come to, or None for the start.

        Yields:
            Several times an epoch, and at its end. Where it starts at the end of an
            epoch, this end first.
        """
        num_steps = 1
        step, totals, seconds = 0, self._zeros, 0.0
        if start is not None:
            step, seconds = start.step, start.seconds
            totals = self._place(start.totals)
        for epoch in range(0 if start is None else start.epoch, num_epochs):
            begin = time.perf_counter()
            order = self._shuffle(self._state.key, epoch)
            while True:
                stop = min(step + num_steps, steps_per_epoch)
                self._state, totals = self._train_steps(
                    self._state, totals, self._constants, order, epoch, step, stop
                )
                own_totals = ensembles.gather(totals)[: self.num_seeds]
                elapsed = time.perf_counter() - begin
                if self._mesh is not None:
                    # All processes do the same steps, by the slowest clock.
                    elapsed = float(ensembles.exchange(elapsed, mesh=self._mesh).max())
                seconds += elapsed
                num_steps = round((stop - step) * SECONDS_PER_CALL / elapsed) or 1
                step = stop
                yield Progress(epoch, step, own_totals, seconds)
                if step == steps_per_epoch:
                    break
                begin = time.perf_counter()
            step, totals = 0, self._zeros

    def evaluate(self, images: np.ndarray | None = None) -> np.ndarray:
        """Classifies images, with the one program that classifies the test set.

        Args:
            images: uint8 `[M, H, W, C]`; None for the test set.

        Returns:
            float32 `[S, M, num_classes]`, the logits.
        """
        if images is None:
            return self._logits(self._constants)
        size = len(self._constants.test_images)
        logits = []
        for start in range(0, len(images), size):
            block = images[start : start + size]
            padding = [(0, size - len(block)), (0, 0), (0, 0), (0, 0)]
            placed = jnp.asarray(np.pad(block, padding))
            if self._mesh is not None:
                placed = ensembles.place(placed, mesh=self._mesh, spec=P())
            constants = self._constants._replace(test_images=placed)
            logits.append(self._logits(constants)[:, : len(block)])
        return np.concatenate(logits, axis=1)

    def save_state(self) -> dict[str, np.ndarray]:
        """Copies the state of all networks to the host.

        Returns:
            Arrays `[S, ...]` by name, the same on any mesh.
        """
        named, _ = jax.tree_util.tree_flatten_with_path(self._plain_state())
        # Copied, because the device will write to what it has been given.
        return {
            _name(path): np.array(ensembles.gather(leaf)[: self.num_seeds])
            for path, leaf in named
        }

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes up a state that `save_state` returned, to go on from there.

        Raises:
            ValueError: if it is of other networks.
        """
        named, treedef = jax.tree_util.tree_flatten_with_path(self._plain_state())
        expected = {
            _name(path): (self.num_seeds, *leaf.shape[1:], leaf.dtype)
            for path, leaf in named
        }
        found = {name: (*array.shape, array.dtype) for name, array in arrays.items()}
        if found != expected:
            raise ValueError("the state is of networks with other arrays")
        leaves = [arrays[_name(path)] for path, _ in named]
        state = jax.tree_util.tree_unflatten(treedef, leaves)
        key = jax.random.wrap_key_data(
            jnp.asarray(state.key), impl=jax.random.key_impl(self._state.key)
        )
        self._state = self._place(jax.tree.map(jnp.asarray, state)._replace(key=key))

    def _plain_state(self) -> TrainState:
        """Returns the state with keys as numbers."""
        return self._state._replace(key=jax.random.key_data(self._state.key))

    def _place(self, tree: Any) -> Any:
        """Puts what has a value for each seed onto the devices."""
        if self._mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        padded = ensembles.pad_seeds(tree, mesh=self._mesh)
        return ensembles.place(padded, mesh=self._mesh, spec=P(ensembles.SEEDS))

    def _logits(self, constants: Constants) -> np.ndarray:
        logits = self._evaluate(self._state, constants)
        # Python hears no signal while it waits for a device, and many networks take
        # their time.
        while not logits.is_ready():
            time.sleep(0.005)
        return ensembles.gather(logits)[: self.num_seeds]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
