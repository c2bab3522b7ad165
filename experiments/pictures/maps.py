"""Maps over frequencies, and their scale; samples of noise; and counts in percent."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.pictures.drawing import hide_frame, make_figure, wrap


def fourier(errors: np.ndarray, title: str, low: float, high: float, cmap: str) -> Any:
    """Draws a map over frequencies, the constant in the middle."""
    figure = make_figure(2.15, 2.35)
    axes = figure.add_axes((0.2, 0.155, 0.76, 0.695))
    height, width = errors.shape
    rows, columns = -(height // 2) - 0.5, -(width // 2) - 0.5
    axes.imshow(
        np.fft.fftshift(errors),
        cmap=cmap,
        vmin=low,
        vmax=high,
        extent=(columns, columns + width, rows + height, rows),
        interpolation="none",
    )
    axes.set_xlabel("along rows", fontsize=7, labelpad=1)
    axes.set_ylabel("along columns", fontsize=7, labelpad=1)
    axes.set_xticks([-(width // 4), 0, width // 4])
    axes.set_yticks([-(height // 4), 0, height // 4])
    axes.tick_params(labelsize=7)
    hide_frame(axes)
    axes.set_title(wrap(title, 26), fontsize=8)
    return figure


def scale(low: float, high: float, cmap: str, label: str) -> Any:
    """Draws the colours of maps and what they stand for."""
    import matplotlib.colors

    figure = make_figure(3.4, 0.62)
    axes = figure.add_axes((0.05, 0.72, 0.9, 0.24))
    axes.imshow(
        np.linspace(low, high, 128)[None],
        cmap=cmap,
        norm=matplotlib.colors.Normalize(low, high),
        extent=(low, high, 0, 1),
        aspect="auto",
        interpolation="none",
    )
    axes.set(yticks=[], xlabel=label)
    axes.xaxis.labelpad = 1
    hide_frame(axes)
    return figure


def sample(rows: Sequence[str]) -> str:
    """Makes the address of a picture of a sample, see `noise.measure_noise`.

    Example:
        >>> sample(["00ff", "80ff"])[:22]
        'data:image/png;base64,'
    """
    from PIL import Image

    grey = np.array([list(bytes.fromhex(row)) for row in rows], np.uint8)
    content = io.BytesIO()
    Image.fromarray(grey).quantize(16).save(content, "PNG")  # half as large as of 256
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def to_percent(counts: np.ndarray) -> np.ndarray:
    """Turns the counts of a confusion matrix into percent of each true class."""
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
