"""Regularizers in PyTorch, for training only."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.benchmarks.torch_networks import Regularize

try:
    import torch
except ImportError:  # it is an extra, and only a worker that needs it runs any of this
    pass

BANK_VALUES = 2**22


def make_regularizer(
    reg: str,
    strength: float,
    *,
    channels: Mapping[int, int],
    noise: str = "fresh",
    num_seeds: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
) -> Regularize:
    """Makes a function from maps to maps.

    Args:
        reg: "none", "dropout", "gaussian" or "water".
        strength: rate or intensity.
        channels: of the maps of one seed, by their width.
        noise: how water comes by its noise: "fresh", from a "bank" or on the "host".
        num_seeds: S, of maps `[N, S * C, H, W]`.
        dtype: of the maps.
        device: of the maps.
    """
    if reg == "none":
        return lambda maps: maps
    if reg == "dropout":
        return lambda maps: torch.nn.functional.dropout(maps, strength)
    if reg == "gaussian":
        return lambda maps: maps + strength * torch.randn_like(maps)
    if noise == "host":
        return lambda maps: maps + strength * host_noise(maps)
    filters = {width: pink_filter(width).to(device) for width in channels}
    if noise == "fresh":
        return lambda maps: maps + strength * pink_noise(maps, filters[maps.shape[-1]])
    banks = {
        width: make_bank(width, features, filters[width], num_seeds, dtype)
        for width, features in channels.items()
    }
    return lambda maps: maps + strength * window(banks[maps.shape[-1]], maps)


def pink_filter(width: int) -> Any:
    """Makes the matrix that gives white noise along rows a power of 1/f.

    It does what a Fourier transform, a gain for each frequency (none for the mean) and
    the way back do, in a product that is cheaper than either at widths like these.

    Returns:
        float32 `[width, width]`; from unit variance to unit variance.
    """
    frequencies = np.fft.rfftfreq(width)
    gains = np.zeros_like(frequencies)
    gains[1:] = frequencies[1:] ** -0.5
    matrix = np.fft.irfft(np.fft.rfft(np.eye(width)) * gains, n=width)
    matrix /= np.sqrt((matrix[0] ** 2).sum())
    return torch.tensor(matrix, dtype=torch.float32)


def pink_noise(maps: Any, matrix: Any) -> Any:
    """Draws noise in the shape of maps `[N, C, H, W]`, pink along the width."""
    num, channels, height, width = maps.shape
    white = torch.randn(num * height, width, channels, device=maps.device)
    return (matrix @ white).view(num, height, width, channels).permute(0, 3, 1, 2)


def host_noise(maps: Any) -> Any:
    """Draws the same with NumPy, whatever the device, and scales it by what was drawn.

    As the original does at every call.
    """
    frequencies = np.fft.rfftfreq(maps.shape[-1])
    gains = np.zeros_like(frequencies)
    gains[1:] = frequencies[1:] ** -0.5
    spectra = np.fft.rfft(np.random.randn(*maps.shape)) * gains
    noise = np.fft.irfft(spectra, n=maps.shape[-1])
    noise = (noise - noise.mean()) / noise.std()
    return torch.tensor(noise, dtype=torch.float32, device=maps.device)


def make_bank(
    width: int, channels: int, matrix: Any, num_seeds: int = 1, dtype: str = "float32"
) -> Any:
    """Makes a bank for each seed, of as many values as ours, side by side.

    Returns:
        `[num_rows, width, num_seeds * channels]`.
    """
    num_rows = BANK_VALUES // (width * channels)
    white = torch.randn(num_rows, width, num_seeds * channels, device=matrix.device)
    return (matrix @ white).to(getattr(torch, dtype))


def window(bank: Any, maps: Any) -> Any:
    """Takes rows that follow one another in the bank, in the shape of the maps."""
    num, channels, height, width = maps.shape
    num_rows = num * height
    num_starts = len(bank) - num_rows + 1
    if torch.compiler.is_compiling():
        # A compiled program is given no number, and it gathers while it adds.
        start = torch.randint(num_starts, (), device=bank.device)
        rows = bank[start + torch.arange(num_rows, device=bank.device)]
    else:
        start = int(torch.randint(num_starts, ()))
        rows = bank[start : start + num_rows]
    return rows.view(num, height, width, channels).permute(0, 3, 1, 2)
