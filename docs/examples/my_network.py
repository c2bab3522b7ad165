"""Features of patches of 4x4, and a linear layer on all of them; images of 32x32."""

from flax import nnx

from experiments.training.models import MODELS


def _patches(make_regularizer, *, image_shape, num_classes, **kwargs):
    return nnx.Sequential(
        nnx.Conv(image_shape[-1], 64, (4, 4), strides=4, **kwargs),
        make_regularizer((8, 8, 64)),
        lambda maps: nnx.relu(maps).reshape(len(maps), -1),
        nnx.Linear(8 * 8 * 64, num_classes, **kwargs),
    )


MODELS["patches"] = _patches
