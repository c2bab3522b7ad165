"""Noise of a single spatial frequency, of which Fourier heat maps are made.

Yin, Gontijo Lopes, Shlens, Cubuk and Gilmer, "A Fourier Perspective on Model
Robustness in Computer Vision", NeurIPS 2019 (arxiv.org/abs/1906.08988): a heat map
shows the error of a network for each frequency that is added to its test images.
"""

import numpy as np


def fourier_basis(frequency: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Returns the wave of one frequency, with an L2 norm of 1.

    Its spectrum is zero but at the frequency and at the opposite one, which has the
    same wave. The phase, an eighth of a period, is that of the authors' program
    (github.com/google-research/google-research, frequency_analysis).

    Args:
        frequency: cycles over the height and cycles over the width. As the indices of
          an FFT they count modulo the shape: (0, -1) is (0, W - 1).
        shape: (H, W).

    Returns:
        float64 `[H, W]`.

    Example:
      >>> fourier_basis((0, 0), (2, 2)).tolist()
      [[0.5, 0.5], [0.5, 0.5]]
    """
    height, width = shape

    def centre(row: int, column: int) -> tuple[int, int]:
        return (
            (row + height // 2) % height - height // 2,
            (column + width // 2) % width - width // 2,
        )

    given = centre(*frequency)
    opposite = centre(-given[0], -given[1])
    rows, columns = min(given, opposite)
    cycles = (
        np.arange(height)[:, None] * rows / height + np.arange(width) * columns / width
    )
    if given == opposite:
        wave = np.cos(2 * np.pi * cycles)
    else:
        wave = 2**0.5 * np.cos(2 * np.pi * (cycles + 1 / 8))
    return wave / (height * width) ** 0.5


def add_fourier_noise(
    rng: np.random.Generator,
    images: np.ndarray,
    frequency: tuple[int, int],
    *,
    norm: float = 4.0,
) -> np.ndarray:
    """Adds a wave to every channel, each with a random sign, and clips.

    Args:
        rng: draws the signs, independently for images and channels.
        images: floats `[N, H, W, C]` in [0, 1].
        frequency: see `fourier_basis`.
        norm: the L2 norm of what is added to one channel, before clipping; not of all
          channels together, which is sqrt(C) times as large. The paper's is 4 for
          CIFAR-10.

    Returns:
        float32 `[N, H, W, C]` in [0, 1].

    Raises:
        TypeError: if the images are not floats.
    """
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(
            f"images.dtype={images.dtype}: give floats in [0, 1]; divide uint8 by 255."
        )
    num_images, height, width, num_channels = images.shape
    signs = rng.choice([-1, 1], size=(num_images, 1, 1, num_channels))
    wave = norm * fourier_basis(frequency, (height, width))[..., None]
    return np.clip(images + signs * wave, 0, 1).astype(np.float32)
