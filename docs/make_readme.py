"""Draws the picture of the README: noise in feature maps, and what it did to networks.

`python docs/make_readme.py` writes images/readme.png. The noise is that of a
fixed key; the networks are those of results/shared_robustness.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from experiments.analysis.comparisons import Analysis
from experiments.studies import store
from sounddrop_jax.inject import random_noise

DOCS = Path(__file__).parent
STUDY = DOCS.parent / "results" / "shared_robustness"
CHANNELS = 4
SIZE = 32
# In the order of the picture: arm, what it is called there, its colour.
ARMS = (
    ("none", "no regularizer", "#7f8790"),
    ("gaussian", "white noise", "#D55E00"),
    ("pink", "pink noise", "#D55E00"),
    ("dropout", "dropout", "#7f8790"),
    ("spatial_dropout", "spatial dropout", "#7f8790"),
    ("shared_pink", "pink noise, shared", "#0072B2"),
    ("shared_gaussian", "white noise, shared", "#0072B2"),
)


def main(folder: Path = DOCS / "images") -> None:
    """Draws the picture.

    Args:
        folder: for it.
    """
    figure = matplotlib.figure.Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.15])
    draw_noise(left)
    draw_effect(right)
    figure.savefig(folder / "readme.png", dpi=150)


def draw_noise(figure: matplotlib.figure.FigureBase) -> None:
    """Draws pink noise in the plane, each channel's own and one for all."""
    figure.suptitle("Pink noise for four channels of a feature map", fontsize=10)
    maps = jnp.zeros((1, SIZE, SIZE, CHANNELS))
    law: Any = {"exponent": 1.0, "axes": (-3, -2)}
    for row, (label, dims) in enumerate((("own", ()), ("shared", (-1,)))):
        (noise,) = random_noise(
            jax.random.key(1), maps, intensity=1.0, broadcast_dims=dims, **law
        )
        for channel in range(CHANNELS):
            place = row * CHANNELS + channel + 1
            axes = figure.add_subplot(2, CHANNELS, place, xticks=[], yticks=[])
            axes.imshow(noise[..., channel], cmap="gray", vmin=-3, vmax=3)
            if channel == 0:
                axes.set_ylabel(label, fontsize=10)
            if row == 1:
                axes.set_xlabel(f"channel {channel + 1}", fontsize=9)


def draw_effect(figure: matplotlib.figure.FigureBase) -> None:
    """Draws the error on corrupted images of every network, an arm a row."""
    analysis = Analysis(store.read([STUDY]))
    axes = figure.subplots()
    for row, (arm, _, colour) in enumerate(ARMS):
        (summary,) = (each for each in analysis.rows if each["arm"] == arm)
        errors = [
            record["corruption_error"]
            for record in analysis.study.records
            if record["arm"] == arm and record["strength"] == summary["strength"]
        ]
        spread = np.linspace(-0.25, 0.25, len(errors))
        axes.plot(errors, row + spread, "o", color=colour, markersize=4, alpha=0.6)
        mean = summary["corruption_error_mean"]
        axes.plot([mean, mean], [row - 0.38, row + 0.38], color=colour, linewidth=3)
    axes.set_yticks(range(len(ARMS)), [label for _, label, _ in ARMS])
    axes.set(
        ylim=(len(ARMS) - 0.5, -0.5),
        xlabel="error on corrupted CIFAR-10 images, %",
        title="16 networks each, which overfit; the bar is their mean",
    )
    axes.title.set_fontsize(10)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
