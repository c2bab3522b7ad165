"""How many floating-point operations a training step of each network takes."""

import math

from experiments.training import cnn, resnet, vit

Product = tuple[int, int, int]  # of M x K and K x N


def count_flops(model: str, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """Counts the floating-point operations of the products of a step, for one image.

    A product of M x K and K x N counts 2 M K N, and a convolution is one of patches.
    Backward there are two such, for its two sides; only the first layer's inputs need
    no gradient.

    Args:
        model: a name in `PRODUCTS`.
        image_shape: `(H, W, C)` of the inputs.
        num_classes: number of logits.

    Example:
        >>> count_flops("cnn", (32, 32, 3), 10)
        15986688
    """
    first, *others = map(math.prod, PRODUCTS[model](image_shape, num_classes))
    return 2 * (2 * first + 3 * sum(others))


def _list_cnn(image_shape: tuple[int, int, int], num_classes: int) -> list[Product]:
    height, width, channels = image_shape
    products = []
    for features in cnn.FEATURES:
        products.append((height * width, 9 * channels, features))
        height, width, channels = height // 2, width // 2, features
    return [*products, (1, height * width * channels, num_classes)]


def _list_resnet20(
    image_shape: tuple[int, int, int], num_classes: int
) -> list[Product]:
    """Lists the paper's products: of a stride of 2 the places that it keeps."""
    height, width, colours = image_shape
    channels = resnet.STAGES[0]
    products = [(height * width, 9 * colours, channels)]
    for features in resnet.STAGES:
        for _ in range(resnet.BLOCKS):
            if features > channels:
                height, width = -(-height // 2), -(-width // 2)
            products += [
                (height * width, 9 * channels, features),
                (height * width, 9 * features, features),
            ]
            channels = features
    return [*products, (1, channels, num_classes)]


def _list_vit(image_shape: tuple[int, int, int], num_classes: int) -> list[Product]:
    height, width, channels = image_shape
    tokens, inner = height // vit.PATCH * (width // vit.PATCH), vit.WIDTH
    layer = [
        *4 * [(tokens, inner, inner)],  # queries, keys, values; what attention returns
        *2 * [(tokens, inner, tokens)],  # their weights, and the sums; all heads
        *2 * [(tokens, inner, 2 * inner)],
    ]
    embedding = tokens, vit.PATCH**2 * channels, inner
    return [embedding, *vit.LAYERS * layer, (1, inner, num_classes)]


PRODUCTS = {"cnn": _list_cnn, "resnet20": _list_resnet20, "vit": _list_vit}
"""For each network of `models.MODELS` the products of a forward pass, of one image."""
