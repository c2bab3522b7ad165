"""Pictures of tables in colours: confusion, corruptions, frequencies."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.pictures.drawing import hide_frame, make_figure, number, shorten


def confusion(
    percent: np.ndarray,
    names: Sequence[str],
    title: str,
    most: float,
    difference: bool = False,
) -> Any:
    """Draws a confusion matrix, a row for each true class, or how two differ."""
    figure = make_figure(3.3, 3.3)
    axes = figure.add_axes((0.22, 0.17, 0.76, 0.76))
    axes.imshow(
        percent,
        cmap="PuOr" if difference else "Blues",
        vmin=-most if difference else 0,
        vmax=most,
        interpolation="none",
    )
    for row, column in np.ndindex(percent.shape):
        value = float(percent[row, column])
        if round(value):
            axes.text(
                column,
                row,
                number(value, 0, signed=difference),
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if abs(value) > 0.6 * most else "black",
            )
    short = [shorten(name, 12) for name in names]
    axes.set_xticks(range(len(short)), short, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(short)), short, fontsize=7)
    hide_frame(axes)
    axes.set_title(shorten(title, 34), loc="left")
    return figure


def heat(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    digits: int,
    difference: bool = False,
) -> Any:
    """Draws a table in colours: higher is darker, or of differences more orange."""
    num_rows, num_columns = values.shape
    cell_width, cell_height = 0.46, 0.235
    left = 0.1 + 0.075 * max(len(shorten(row, 26)) for row in rows)
    top = 0.15 + 0.055 * max(len(shorten(column, 22)) for column in columns)
    right = max(top, 0.3)  # where the last of the slanted names ends
    width = left + cell_width * num_columns + right
    height = top + cell_height * num_rows + 0.05
    figure = make_figure(width, height)
    axes = figure.add_axes(
        (
            left / width,
            0.05 / height,
            cell_width * num_columns / width,
            cell_height * num_rows / height,
        )
    )
    finite = values[np.isfinite(values)]
    most = max(float(np.abs(finite).max(initial=0)), 0.1)
    least = -most if difference else float(finite.min(initial=most))
    axes.imshow(
        values,
        cmap="PuOr_r" if difference else "Blues",
        vmin=least,
        # Not the darkest blue, on which no digit can be read.
        vmax=most if difference else least + (most - least) * 1.2 + 1e-9,
        aspect="auto",
        interpolation="none",
    )
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        if np.isfinite(value):
            level = (
                abs(value) / most
                if difference
                else (value - least) / (most - least + 1e-9)
            )
            axes.text(
                column,
                row,
                number(value, digits, signed=difference),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if level > 0.65 else "black",
            )
    axes.set_yticks(range(num_rows), [shorten(row, 26) for row in rows])
    axes.xaxis.tick_top()
    axes.set_xticks(
        range(num_columns),
        [shorten(column, 22) for column in columns],
        rotation=45,
        ha="left",
        rotation_mode="anchor",
    )
    hide_frame(axes)
    return figure


def fourier(errors: np.ndarray, title: str, low: float, high: float, cmap: str) -> Any:
    """Draws a map over frequencies, the constant in the middle."""
    figure = make_figure(2.15, 2.3)
    axes = figure.add_axes((0.2, 0.19, 0.76, 0.71))
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
    axes.set_title(shorten(title, 26), fontsize=8)
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


def to_percent(counts: np.ndarray) -> np.ndarray:
    """Turns the counts of a confusion matrix into percent of each true class."""
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
