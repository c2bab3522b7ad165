"""Draws and measures each noise: the pictures in images/ and the table in noises.md.

`python docs/make_noises.py` writes both, the same numbers every time: the keys and the
seeds are fixed.
"""

import datetime
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib.figure
import numpy as np
import PIL.Image

from sounddrop_jax import banks, spectra, tracks

MAPS = (64, 64, 64, 4)  # NHWC
SEQUENCES = (256, 64, 64)  # batch, time, features: as many values
NUM_GROUPS = 16  # of draws, to see the spread
START, END = "<!-- table: docs/make_noises.py -->", "<!-- end of the table -->"

# Okabe and Ito's palette, whose colours differ for colour-blind readers too.
MEASURED, LAW = "#0072B2", "#D55E00"


class Noise(NamedTuple):
    """One row of the table, and one picture.

    Attributes:
        name: of the picture and of the row.
        code: one line that makes the noise, of a key or of nothing.
        exponent: that the noise was made with; None for a recording.
        axes: along which it is shaped, or along which its spectrum is measured.
        shape: of what is drawn.
    """

    name: str
    code: str
    exponent: float | None
    axes: Sequence[int] = (-2,)
    shape: Sequence[int] = MAPS


NOISES = (
    Noise("white", "power_law(key, shape, exponent=0)", 0),
    Noise("pink_rows", "power_law(key, shape, exponent=1, axes=-2)", 1),
    Noise("plane_1", "power_law(key, shape, exponent=1, axes=(-3, -2))", 1, (-3, -2)),
    Noise("plane_2", "power_law(key, shape, exponent=2, axes=(-3, -2))", 2, (-3, -2)),
    Noise(
        "plane_blue", "power_law(key, shape, exponent=-1, axes=(-3, -2))", -1, (-3, -2)
    ),
    Noise(
        "brown_time",
        "power_law(key, shape, exponent=2, axes=-2)",
        2,
        shape=SEQUENCES,
    ),
    Noise("rain", 'make_track("rain")', None),
    Noise("glitch", 'make_track("glitch")', None),
    Noise("glitch_phases", "randomize_phases(glitch)", None),
    Noise("glitch_shuffled", "shuffle_samples(glitch)", None),
    Noise("glitch_reversed", "reverse(glitch)", None),
)


def main(folder: Path = Path(__file__).parent) -> None:
    """Writes the pictures and the table.

    Args:
        folder: that holds noises.md; the pictures go to its folder images.
    """
    page = folder / "noises.md"
    before, start, rest = page.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{page} lacks the lines {START} and {END} around its table.")
    (folder / "images").mkdir(exist_ok=True)
    glitch = tracks.make_track("glitch")
    scope = {**vars(tracks), **vars(spectra), "glitch": glitch}
    rows, errors = [], []
    for noise in NOISES:
        values = draw(noise, scope)
        rows.append(_row(noise, measure(noise, values)))
        if noise.exponent is not None:
            groups = [measure(noise, group) for group in np.split(values, NUM_GROUPS)]
            errors.append(np.std(groups, axis=0, ddof=1) / np.sqrt(NUM_GROUPS))
        plot(noise, values, folder / f"images/noise_{noise.name}.png")
    table = "\n".join([*_HEAD, *rows, "", _caption(np.nanmax(errors))])
    page.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")


def draw(noise: Noise, scope: dict) -> np.ndarray:
    """Makes a noise by its line of code.

    Args:
        noise: what to draw.
        scope: the names that the code uses, except `key` and `shape`.

    Returns:
        float64 of the noise's shape. A track fills it once, every sample of it.
    """
    key = jax.random.key(0)
    values = eval(noise.code, {**scope, "key": key, "shape": noise.shape})
    if values.ndim == 1:
        # As long as the track, so all of it, from a random start and around its end.
        values = banks.sample_window(
            key, banks.make_recording_bank(values), noise.shape
        )
    return np.asarray(values, np.float64)


def measure(noise: Noise, values: np.ndarray) -> list[float]:
    """Measures the exponent, the standard deviation, the excess kurtosis and lags.

    Args:
        noise: what the values are of.
        values: all of them, or some draws.

    Returns:
        The three, and the correlation with the next value along the width, the height
        and the channels; along time, nothing (NaN) and features for sequences.
    """
    centred = values - values.mean()
    variance = (centred**2).mean()
    lags = [np.nan] * 3
    for index, axis in enumerate((-2, -3, -1)):
        if -axis < values.ndim:  # the first axis holds independent draws
            moved = np.moveaxis(centred, axis, 0)
            lags[index] = (moved[:-1] * moved[1:]).mean() / variance
    return [
        spectra.fit_exponent(values, axes=noise.axes),
        np.sqrt(variance),
        (centred**4).mean() / variance**2 - 3,
        *lags,
    ]


def plot(noise: Noise, values: np.ndarray, path: Path) -> None:
    """Draws three panels: a field, the spectrum, the histogram."""
    figure = matplotlib.figure.Figure(figsize=(9, 2.9), layout="constrained")
    field, spectrum, histogram = figure.subplots(
        1, 3, gridspec_kw={"width_ratios": [1, 1.45, 1.45]}
    )
    is_map = values.ndim == 4
    # A sequence is turned, so that time runs to the right.
    image = values[0, ..., 0] if is_map else values[0].T
    field.imshow(image, cmap="gray", vmin=-2.5, vmax=2.5, interpolation="nearest")
    field.set(
        xticks=[],
        yticks=[],
        xlabel="width" if is_map else "time",
        ylabel="height" if is_map else "features",
        title="one channel of one map" if is_map else "one sequence",
    )

    frequencies, power = spectra.periodogram(values, axes=noise.axes)
    spectrum.plot(
        frequencies,
        power,
        ".",
        color=MEASURED,
        markersize=6 if len(frequencies) < 100 else 2.5,
        label="measured",
    )
    if noise.exponent is not None:
        lengths = [values.shape[axis] for axis in noise.axes]
        law = spectra.power_at_frequencies(lengths, exponent=noise.exponent)
        grid = np.meshgrid(*map(np.fft.fftfreq, lengths), indexing="ij")
        radius = np.sqrt(sum(axis**2 for axis in grid)).ravel()
        order = np.argsort(radius)[1:]  # without the zero frequency
        spectrum.plot(
            radius[order],
            law.ravel()[order],
            color=LAW,
            linewidth=4,
            alpha=0.45,
            zorder=1,
            label=f"law, exponent {noise.exponent}",
        )
    plane = len(noise.axes) == 2
    along = "in the plane" if plane else f"along {field.get_xlabel()}"
    spectrum.set(
        xscale="log",
        yscale="log",
        xlim=(0.013, 0.8),
        ylim=(5e-3, 5e2),
        xlabel=f"frequency {along}, cycles per sample",
        title="mean power over all draws",
    )
    marks = [0.02, 0.05, 0.1, 0.2, 0.5]
    spectrum.set_xticks(marks, [f"{mark:g}" for mark in marks])
    spectrum.set_xticks([], minor=True)
    spectrum.legend(frameon=False, loc="upper right", fontsize=9, numpoints=1)

    edges = np.linspace(-6, 6, 61)
    density = np.histogram(values, edges)[0] / values.size / np.diff(edges)
    histogram.stairs(
        density, edges, fill=True, color=MEASURED, alpha=0.55, label="measured"
    )
    x = np.linspace(-6, 6, 241)
    histogram.plot(
        x,
        np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
        color=LAW,
        linewidth=1.5,
        label="normal",
    )
    histogram.set(
        yscale="log",
        xlim=(-6, 6),
        ylim=(1e-6, 9),
        xlabel="value",
        title="density of all values",
    )
    histogram.legend(frameon=False, loc="upper right", fontsize=9)
    for axes in (spectrum, histogram):
        axes.grid(alpha=0.3)
    for axes in (field, spectrum, histogram):
        axes.title.set_fontsize(10)
    file = io.BytesIO()
    figure.savefig(file, dpi=130)
    # 128 colours are enough, and take half the bytes.
    PIL.Image.open(file).convert("RGB").quantize(128, dither=0).save(
        path, optimize=True
    )


_HEAD = (
    "| noise | made by | exponent | fitted | std | excess kurtosis "
    "| next: width | height | channels |",
    "|---|---|---|---|---|---|---|---|---|",
)


def _row(noise: Noise, numbers: list[float]) -> str:
    cells = [
        f"[{noise.name}](images/noise_{noise.name}.png)",
        f"`{noise.code}`",
        "" if noise.exponent is None else f"{noise.exponent}",
        *(f"{number:.2f}".replace("-0.00", "0.00") for number in numbers),
    ]
    return "| " + " | ".join(cells).replace("nan", "") + " |"


def _caption(error: float) -> str:
    device = jax.devices()[0].device_kind.upper()
    return (
        f"n = {math.prod(MAPS):,} values a row, {device}, JAX {jax.__version__}, "
        f"{datetime.date.today()}. The standard errors of what is drawn, from "
        f"{NUM_GROUPS} groups of draws, are {error:.3f} at most."
    )


if __name__ == "__main__":
    main()
