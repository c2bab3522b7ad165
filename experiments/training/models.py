"""One table from a name to the network, and where in it the regularizers stand."""

import itertools
from collections.abc import Callable, Container
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.cli import UsageError
from experiments.training.cnn import CNN
from experiments.training.regularizers import Maker, Shape
from experiments.training.resnet import ResNet20
from experiments.training.vit import VisionTransformer

Model = Callable[..., nnx.Module]
"""Called as `model(make_regularizer, image_shape=..., num_classes=..., dtype=...,
rngs=...)` it gives a network, whose initial weights come from the stream `params`.
Wherever a regularizer can stand it has `make_regularizer(shape)`, from the first to the
last, with the shape `(H, W, C)` of the maps there: a layer that is called as
`layer(maps, rngs=rngs)`. The network is called as `network(images, rngs=rngs)`, float32
`[N, H, W, C]`, and returns logits, float32 `[N, num_classes]`."""

Where = Literal["all", "early", "late", "inputs"]

MODELS: dict[str, Model] = {
    "cnn": CNN,
    "resnet20": ResNet20,
    "vit": VisionTransformer,
}
BUILT_IN = frozenset(MODELS)
"""The names of our own, whatever a user's file adds."""


class AtInputs(nnx.Module):
    """A regularizer, and after it a network."""

    def __init__(self, regularizer: nnx.Module, network: nnx.Module):
        self.regularizer = regularizer
        self.network = network

    def __call__(self, images: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Classifies images, as the network does."""
        return self.network(self.regularizer(images, rngs=rngs), rngs=rngs)


def make_network(
    model: str,
    make_regularizer: Maker,
    *,
    where: Where = "all",
    image_shape: Shape,
    num_classes: int,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Makes a network with regularizers in their places.

    Args:
        model: a name in `MODELS`.
        make_regularizer: see `regularizers.Recipe`.
        where: "all", the places that the network has for regularizers; "early" or
            "late", the first or the last third of them; "inputs", before the network.
        image_shape: `(H, W, C)` of the inputs.
        num_classes: number of logits.
        dtype: of the computation; parameters and statistics are float32.
        rngs: its stream `params` initialises the network.

    Raises:
        UsageError: if the network cannot take such images.
    """
    chosen: Container[int] = range(2**31)
    if where == "inputs":
        chosen = ()
    elif where != "all":
        places = range(len(list_places(model, "all", image_shape, num_classes)))
        third = max(1, len(places) // 3)
        chosen = places[:third] if where == "early" else places[-third:]
    place = itertools.count()

    def make_if_chosen(shape: Shape) -> nnx.Module:
        return make_regularizer(shape) if next(place) in chosen else nnx.Dropout(0.0)

    network = MODELS[model](
        make_if_chosen,
        image_shape=image_shape,
        num_classes=num_classes,
        dtype=dtype,
        rngs=rngs,
    )
    if where == "inputs":
        return AtInputs(make_regularizer(image_shape), network)
    return network


def list_places(
    model: str, where: Where, image_shape: Shape, num_classes: int
) -> list[Shape]:
    """Lists the shapes of the maps that regularizers see, from the first to the last.

    Raises:
        UsageError: if the network cannot take such images, or makes no regularizer.

    Example:
        >>> list_places("cnn", "all", (32, 32, 3), num_classes=10)
        [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
        >>> list_places("resnet20", "late", (32, 32, 3), num_classes=10)
        [(8, 8, 64), (8, 8, 64), (8, 8, 64)]
    """
    shapes: list[Shape] = []

    def note(shape: Shape) -> nnx.Module:
        shapes.append(shape)
        return nnx.Dropout(0.0)

    nnx.eval_shape(
        lambda: make_network(
            model,
            note,
            where=where,
            image_shape=image_shape,
            num_classes=num_classes,
            rngs=nnx.Rngs(0),
        )
    )
    if not shapes:
        raise UsageError(
            f"model={model}: it makes no regularizer; call make_regularizer wherever "
            "one can stand (docs/study.md)."
        )
    return shapes
