"""Networks of the experiment in PyTorch, in channels-last memory.

A network is a `torch.nn.ModuleList`, for this module loads without PyTorch as well. Its
initial weights are PyTorch's. The networks of several seeds are one, in which each seed
is a group of channels.
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
        make: from the `(H, W, C)` of the images, the number of classes and that of
            seeds S to a `torch.nn.ModuleList`.
        predict: (network, images, regularize) -> logits `[S * N, num_classes]`, seed by
            seed, of images `[N, S * C, H, W]`.
        list_maps: from the `(H, W, C)` of the images to the maps that regularizers see,
            which is width -> channels of one seed.
    """

    make: Callable[[tuple[int, int, int], int, int], Any]
    predict: Callable[[Any, Any, Regularize], Any]
    list_maps: Callable[[tuple[int, int, int]], dict[int, int]]


def make_cnn(
    image_shape: tuple[int, int, int], num_classes: int, num_seeds: int
) -> Any:
    """Makes the layers of `cnn.CNN`: three blocks, and the linear layer."""
    height, width, channels = image_shape
    layers: list[Any] = []
    for features in FEATURES:
        layers.append(
            torch.nn.Sequential(
                _conv(channels, features, num_seeds),
                torch.nn.ReLU(),
                torch.nn.BatchNorm2d(num_seeds * features),
                torch.nn.MaxPool2d(2),
            )
        )
        channels = features
    features = height // 8 * (width // 8) * channels
    layers.append(_linear(features, num_classes, num_seeds))
    return torch.nn.ModuleList(layers).to(memory_format=torch.channels_last)


def predict_cnn(network: Any, images: Any, regularize: Regularize) -> Any:
    """Classifies images `[N, S * C, H, W]`, the regularizer after every block."""
    *blocks, linear = network
    maps = images
    for block in blocks:
        maps = regularize(block(maps))
    return _classify(linear, maps.flatten(1))


def _list_cnn_maps(image_shape: tuple[int, int, int]) -> dict[int, int]:
    width = image_shape[1]
    return {width // 2 ** (1 + n): c for n, c in enumerate(FEATURES)}


def make_resnet20(
    image_shape: tuple[int, int, int], num_classes: int, num_seeds: int
) -> Any:
    """Makes the layers of `resnet.ResNet20`: the first, the blocks, the linear one."""
    channels = STAGES[0]
    stem = _conv_norm(image_shape[2], channels, num_seeds)
    layers: list[Any] = [torch.nn.Sequential(*stem, torch.nn.ReLU())]
    for features in STAGES:
        for _ in range(BLOCKS):
            stride = 2 if features > channels else 1
            first = _conv_norm(channels, features, num_seeds, stride)
            second = _conv_norm(features, features, num_seeds)
            halves = (
                torch.nn.Sequential(*first, torch.nn.ReLU()),
                torch.nn.Sequential(*second),
            )
            layers.append(torch.nn.ModuleList(halves))
            channels = features
    layers.append(_linear(channels, num_classes, num_seeds))
    return torch.nn.ModuleList(layers).to(memory_format=torch.channels_last)


def _conv_norm(
    channels: int, features: int, num_seeds: int, stride: int = 1
) -> tuple[Any, Any]:
    conv = _conv(channels, features, num_seeds, stride=stride, bias=False)
    return conv, torch.nn.BatchNorm2d(num_seeds * features)


def predict_resnet20(network: Any, images: Any, regularize: Regularize) -> Any:
    """Classifies images `[N, S * C, H, W]`, the regularizer in every block."""
    stem, *blocks, linear = network
    maps = stem(images)
    for first, second in blocks:
        branch = regularize(first(maps))
        if branch.shape != maps.shape:  # option A of the paper
            # As many zeros beside the channels of each seed, which lie last in memory.
            maps = maps[:, :, ::2, ::2].permute(0, 2, 3, 1)
            maps = maps.unflatten(3, (first[0].groups, -1))
            maps = torch.nn.functional.pad(maps, (0, maps.shape[-1]))
            maps = maps.flatten(3).permute(0, 3, 1, 2)
        maps = torch.relu(maps + second(branch))
    return _classify(linear, maps.mean((2, 3)))


def _list_resnet20_maps(image_shape: tuple[int, int, int]) -> dict[int, int]:
    width = image_shape[1]
    return {-(-width // 2**n): channels for n, channels in enumerate(STAGES)}


def _conv(channels: int, features: int, num_seeds: int, **settings: Any) -> Any:
    """Makes a 3x3 convolution, from and to so many channels of each seed."""
    return torch.nn.Conv2d(
        num_seeds * channels,
        num_seeds * features,
        3,
        padding=1,
        groups=num_seeds,
        **settings,
    )


def _linear(features: int, num_classes: int, num_seeds: int) -> Any:
    """Makes a linear layer, or what holds the weights of one for each seed."""
    if num_seeds == 1:
        return torch.nn.Linear(features, num_classes)
    # It has the initial weights of so many linear layers.
    return torch.nn.Conv1d(
        num_seeds * features, num_seeds * num_classes, 1, groups=num_seeds
    )


def _classify(linear: Any, features: Any) -> Any:
    """Returns logits `[S * N, num_classes]` of features `[N, S * num_features]`."""
    if isinstance(linear, torch.nn.Linear):
        return linear(features)
    # A product for each seed, side by side.
    num_seeds = linear.groups
    inputs = features.unflatten(1, (num_seeds, -1)).transpose(0, 1)
    weights = linear.weight.unflatten(0, (num_seeds, -1)).squeeze(-1).transpose(1, 2)
    biases = linear.bias.unflatten(0, (num_seeds, 1, -1))
    return torch.baddbmm(biases, inputs, weights).flatten(0, 1)


NETWORKS = {
    "cnn": Kind(make_cnn, predict_cnn, _list_cnn_maps),
    "resnet20": Kind(make_resnet20, predict_resnet20, _list_resnet20_maps),
}
