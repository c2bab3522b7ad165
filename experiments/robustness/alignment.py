"""How much of a noise's power lies where corruptions move the features of a network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data.augment import normalize
from experiments.training.models import Where, list_places, make_network
from experiments.training.regularizers import Shape
from experiments.training.steps import Constants, TrainState


def align(noise: Any, shifts: Any) -> float:
    """Measures how much of a noise's power lies along shifts, relative to the average.

    For a noise of covariance C and shifts s with M = E[s s^T], both of their mean and
    of their covariance, it is d tr(C M) / (tr C tr M) in d dimensions: 1 for white
    noise, whatever the shifts, and d where both lie along one line.

    Args:
        noise: `[K, ...]`, draws; its error is of the order of sqrt(2 / K).
        shifts: `[N, ...]`, of as many values each.

    Returns:
        From 0 to d.

    Example:
        >>> noise = jnp.array([[2.0, 0.0], [-2.0, 0.0]])
        >>> align(noise, jnp.array([[3.0, 0.0]])), align(noise, jnp.array([[1.0, 1.0]]))
        (2.0, 1.0)
    """
    noise, shifts = (
        jnp.asarray(each).reshape(len(each), -1) for each in (noise, shifts)
    )
    along = jnp.mean((noise @ shifts.T) ** 2)
    powers = jnp.mean(noise**2) * jnp.mean(shifts**2)
    return float(along / powers / noise.shape[-1])


def make_observer(
    model: str, where: Where, image_shape: Shape, num_classes: int
) -> tuple[Callable[[TrainState, Constants], jax.Array], Sequence[Shape]]:
    """Makes what looks into trained networks, where their regularizers stand.

    Returns:
        observe: (state, constants) -> float32 `[M, ...]`, the maps of the test images
            at all places, one after the other; it stands where
            `Functions.evaluate` did.
        shapes: of the maps at each place.
    """
    seen: list[jax.Array] = []

    class Place(nnx.Module):
        def __call__(
            self, maps: jax.Array, *, rngs: nnx.Rngs | None = None
        ) -> jax.Array:
            seen.append(maps.reshape(len(maps), -1).astype(jnp.float32))
            return maps

    shapes = list_places(model, where, image_shape, num_classes)
    network = nnx.eval_shape(
        lambda: make_network(
            model,
            lambda shape: Place(),
            where=where,
            image_shape=image_shape,
            num_classes=num_classes,
            rngs=nnx.Rngs(0),
        )
    )
    network = nnx.view(network, use_running_average=True, raise_if_not_found=False)
    graph = nnx.graphdef(network)

    def observe(state: TrainState, constants: Constants) -> jax.Array:
        seen.clear()
        trained = nnx.merge(graph, state.params, state.batch_stats)
        trained(normalize(constants.test_images))
        return jnp.concatenate(seen, axis=-1)

    return observe, shapes
