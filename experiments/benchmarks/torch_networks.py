"""Networks of the experiment in PyTorch, in channels-last memory.

A network is a `torch.nn.ModuleList`, for this module loads without PyTorch as well. Its
initial weights are PyTorch's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

try:
    import torch
except ImportError:  # it is an extra, and only a worker that needs it runs any of this
    pass

Regularize = Callable[[Any], Any]

# Of cnn.py and resnet.py, which load JAX.
FEATURES = (16, 32, 64)
STAGES = (16, 32, 64)
BLOCKS = 3  # a stage


class Kind(NamedTuple):
    """How a network is made and used.

    Attributes:
        make: from the `(H, W, C)` of the images and the number of classes to a
            `torch.nn.ModuleList`.
        predict: (network, images, regularize) -> logits, of images `[N, C, H, W]`.
        list_maps: from the `(H, W, C)` of the images to the maps that regularizers see,
            which is width -> channels.
    """

    make: Callable[[tuple[int, int, int], int], Any]
    predict: Callable[[Any, Any, Regularize], Any]
    list_maps: Callable[[tuple[int, int, int]], dict[int, int]]


def make_cnn(
    image_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10
) -> Any:
    """Makes the layers of `cnn.CNN`: three blocks, and the linear layer."""
    height, width, channels = image_shape
    layers: list[Any] = []
    for features in FEATURES:
        layers.append(
            torch.nn.Sequential(
                torch.nn.Conv2d(channels, features, 3, padding=1),
                torch.nn.ReLU(),
                torch.nn.BatchNorm2d(features),
                torch.nn.MaxPool2d(2),
            )
        )
        channels = features
    layers.append(torch.nn.Linear(height // 8 * (width // 8) * channels, num_classes))
    return torch.nn.ModuleList(layers).to(memory_format=torch.channels_last)


def predict_cnn(network: Any, images: Any, regularize: Regularize) -> Any:
    """Classifies images `[N, C, H, W]`, with the regularizer after every block."""
    *blocks, linear = network
    maps = images
    for block in blocks:
        maps = regularize(block(maps))
    return linear(maps.flatten(1))


def _list_cnn_maps(image_shape: tuple[int, int, int]) -> dict[int, int]:
    width = image_shape[1]
    return {width // 2 ** (1 + n): c for n, c in enumerate(FEATURES)}


def make_resnet20(
    image_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10
) -> Any:
    """Makes the layers of `resnet.ResNet20`: the first, the blocks, the linear one."""
    channels = STAGES[0]
    layers: list[Any] = [
        torch.nn.Sequential(*_conv_norm(image_shape[2], channels), torch.nn.ReLU())
    ]
    for features in STAGES:
        for _ in range(BLOCKS):
            stride = 2 if features > channels else 1
            first = *_conv_norm(channels, features, stride), torch.nn.ReLU()
            second = _conv_norm(features, features)
            halves = torch.nn.Sequential(*first), torch.nn.Sequential(*second)
            layers.append(torch.nn.ModuleList(halves))
            channels = features
    layers.append(torch.nn.Linear(channels, num_classes))
    return torch.nn.ModuleList(layers).to(memory_format=torch.channels_last)


def _conv_norm(channels: int, features: int, stride: int = 1) -> tuple[Any, Any]:
    conv = torch.nn.Conv2d(channels, features, 3, stride, padding=1, bias=False)
    return conv, torch.nn.BatchNorm2d(features)


def predict_resnet20(network: Any, images: Any, regularize: Regularize) -> Any:
    """Classifies images `[N, C, H, W]`, with the regularizer in every block."""
    stem, *blocks, linear = network
    maps = stem(images)
    for first, second in blocks:
        branch = regularize(first(maps))
        if widening := branch.shape[1] - maps.shape[1]:  # option A of the paper
            maps = maps[:, :, ::2, ::2]
            maps = torch.nn.functional.pad(maps, (0, 0, 0, 0, 0, widening))
        maps = torch.relu(maps + second(branch))
    return linear(maps.mean((2, 3)))


def _list_resnet20_maps(image_shape: tuple[int, int, int]) -> dict[int, int]:
    width = image_shape[1]
    return {-(-width // 2**n): channels for n, channels in enumerate(STAGES)}


NETWORKS = {
    "cnn": Kind(make_cnn, predict_cnn, _list_cnn_maps),
    "resnet20": Kind(make_resnet20, predict_resnet20, _list_resnet20_maps),
}
