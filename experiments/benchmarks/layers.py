"""What the layers cost, as ratios measured in one process.

python -m experiments.benchmark layer --out=layer.json
"""

import dataclasses
import functools
import math
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.table import Table

from experiments import files, terminal
from experiments.cli import UsageError, flag
from experiments.runs.environment import environment
from experiments.training import devices
from sounddrop_jax import (
    AphexNoiseLayer,
    GaussianNoiseLayer,
    NoiseBank,
    NoiseInjection,
    WaterNoiseLayer,
    make_power_law_bank,
    make_recording_bank,
)

Shape = tuple[int, ...]

# The maps behind the network's three blocks, for a batch of 64 images, alone and for
# eight networks side by side; on an accelerator also maps that fill it.
SHAPES: tuple[Shape, ...] = ((64, 16, 16, 16), (64, 8, 8, 32), (64, 4, 4, 64))
LARGE_SHAPES: tuple[Shape, ...] = ((64, 32, 32, 64), (64, 128, 128, 64))
NUM_SEEDS = (1, 8)

SECONDS_PER_TURN = 0.005
BANK_VALUES = 2**22
NUM_KEYS = 64  # so that windows come from all over the bank, as they do in training


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """Times the layers against nnx.Dropout and a plain copy, forward and backward."""

    out: Annotated[Path | None, flag("File for the results, JSON.", "FILE")] = None
    rounds: Annotated[
        int, flag("How often each layer is timed; the median is reported.")
    ] = 101


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Something to be timed: how it is made, and how many maps it reads and writes.

    Attributes:
        make_bank: from the shape of a map to its bank, or None without one.
        apply: (inputs, key, bank) -> outputs.
        traffic: the fewest maps that can pass through memory, forward and backward.
    """

    make_bank: Callable[[Shape], NoiseBank | None]
    apply: Callable[[jax.Array, jax.Array, Any], jax.Array]
    traffic: float


def _no_bank(shape: Shape) -> None:
    return None


def _make_bank(shape: Shape, field_rank: int, **law: Any) -> NoiseBank:
    """Makes a bank of about `BANK_VALUES` values, and of two windows at least."""
    field_shape = shape[len(shape) - field_rank :]
    num_entries = max(BANK_VALUES, 2 * math.prod(shape)) // math.prod(field_shape)
    key = jax.random.key(0)
    return make_power_law_bank(key, field_shape, num_entries=num_entries, **law)


def _make_recording(shape: Shape, field_shape: Shape | None = None) -> NoiseBank:
    # The numbers do not matter to the time that a window takes.
    num_frames = max(BANK_VALUES, 2 * math.prod(shape))
    frames = np.random.default_rng(0).standard_normal(num_frames, np.float32)
    return make_recording_bank(frames, field_shape=field_shape)


def _noise(make_layer: Callable[..., NoiseInjection], **settings: Any):
    # Made where it is called, so that the bank is an argument and no constant of what
    # is compiled: those of the largest maps are hundreds of MiB.
    return lambda inputs, key, bank: make_layer(bank=bank, **settings)(inputs, rngs=key)


CONTESTANTS = {
    "copy": Contestant(_no_bank, lambda inputs, key, bank: inputs, 4),
    "nnx.Dropout": Contestant(
        _no_bank, lambda inputs, key, bank: nnx.Dropout(0.2)(inputs, rngs=key), 4
    ),
    "add a fixed map": Contestant(
        lambda shape: NoiseBank(jax.random.normal(jax.random.key(0), shape)),
        lambda inputs, key, bank: inputs + bank.values,
        5,
    ),
    "rows, bank": Contestant(
        lambda shape: _make_bank(shape, 2), _noise(WaterNoiseLayer), 5
    ),
    "plane, bank": Contestant(
        lambda shape: _make_bank(shape, 3, axes=(-3, -2)),
        _noise(NoiseInjection, intensity=0.05),
        5,
    ),
    "rows, bfloat16 bank": Contestant(
        lambda shape: _make_bank(shape, 2, dtype=jnp.bfloat16),
        _noise(WaterNoiseLayer),
        4.5,
    ),
    "recording": Contestant(_make_recording, _noise(AphexNoiseLayer), 5),
    "recording, laid out": Contestant(
        lambda shape: _make_recording(shape, shape[1:]), _noise(AphexNoiseLayer), 5
    ),
    "white, fresh": Contestant(_no_bank, _noise(GaussianNoiseLayer), 4),
    "rows, fresh": Contestant(_no_bank, _noise(WaterNoiseLayer), 4),
    "plane, fresh": Contestant(
        _no_bank,
        _noise(NoiseInjection, intensity=0.05, exponent=1.0, axes=(-3, -2)),
        4,
    ),
}
"""What is timed. The first two are what the others are measured against; the third is
the floor of whatever adds noise that is in memory already."""


def forward_and_backward(contestant: Contestant) -> Callable[..., Any]:
    """Returns (inputs, gradient, key, bank) -> (outputs, gradient of the inputs)."""

    def run(inputs, gradient, key, bank):
        outputs, pull_back = jax.vjp(
            lambda inputs: contestant.apply(inputs, key, bank), inputs
        )
        return outputs, *pull_back(gradient)

    return run


def prepare(contestant: Contestant, shape: Shape, num_seeds: int) -> Callable[[], Any]:
    """Compiles a contestant for maps of a shape, and warms it up.

    Args:
        contestant: what is to be timed.
        shape: of the maps of one seed.
        num_seeds: mapped over, with one bank for all.

    Returns:
        A function that starts one pass, forward and backward, and returns its results,
        which the next pass overwrites.
    """
    run = forward_and_backward(contestant)
    inputs, gradient = jax.random.normal(jax.random.key(1), (2, num_seeds, *shape))
    keys = jax.random.split(jax.random.key(2), (NUM_KEYS, num_seeds))
    if num_seeds == 1:
        inputs, gradient, keys = inputs[0], gradient[0], keys[:, 0]
    else:
        run = jax.vmap(run, in_axes=(0, 0, 0, None))
    bank = contestant.make_bank(shape)
    # Keys as plain numbers, which cost a call less; it is no part of training.
    all_bits = list(jax.random.key_data(keys))

    # Results are written over those of the call before, as in a training step, which
    # has its memory already; to ask the system for more costs as much as a copy.
    @functools.partial(jax.jit, donate_argnums=0, keep_unused=True)
    def compiled(results, inputs, gradient, bits, bank):
        return run(inputs, gradient, jax.random.wrap_key_data(bits), bank)

    results = jnp.zeros_like(inputs), jnp.zeros_like(gradient)
    num_calls = 0

    def start():
        nonlocal results, num_calls
        num_calls += 1
        bits = all_bits[num_calls % NUM_KEYS]
        results = compiled(results, inputs, gradient, bits, bank)
        return results

    for _ in range(3):
        jax.block_until_ready(start())
    return start


def time_in_turn(
    starts: dict[str, Callable[[], Any]], num_rounds: int
) -> dict[str, np.ndarray]:
    """Times functions in turn, so that what slows the machine slows all of them.

    Args:
        starts: each starts its work and returns arrays to wait for.
        num_rounds: turns of each.

    Returns:
        For each, float64 `[num_rounds]`, the seconds that one call took.
    """
    num_calls = {}
    for name, start in starts.items():
        begin = time.perf_counter()
        jax.block_until_ready(start())
        seconds = time.perf_counter() - begin
        num_calls[name] = max(1, round(SECONDS_PER_TURN / seconds))
    times: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(num_rounds):
        for name, start in starts.items():
            begin = time.perf_counter()
            for _ in range(num_calls[name]):
                results = start()
            jax.block_until_ready(results)
            times[name].append((time.perf_counter() - begin) / num_calls[name])
    return {name: np.array(values) for name, values in times.items()}


def compare(times: dict[str, np.ndarray]) -> list[dict]:
    """Compares contestants over the same rounds, each with copy and nnx.Dropout.

    Args:
        times: seconds, of each contestant in each round.

    Returns:
        For each: its median in microseconds, the medians over the rounds of its ratios
        to copy and to Dropout with their quartiles, and its bandwidth as a share of
        that of the copy: the fewest bytes that it can move, by its time.
    """
    rows = []
    for name, seconds in times.items():
        to_copy = seconds / times["copy"]
        to_dropout = seconds / times["nnx.Dropout"]
        share = CONTESTANTS[name].traffic / CONTESTANTS["copy"].traffic
        rows.append(
            {
                "layer": name,
                "microseconds": float(1e6 * np.median(seconds)),
                "to_copy": np.percentile(to_copy, [25, 50, 75]).tolist(),
                "to_dropout": np.percentile(to_dropout, [25, 50, 75]).tolist(),
                "bandwidth_to_copy": float(share / np.median(to_copy)),
            }
        )
    return rows


def make_table(shape: Shape, num_seeds: int, rows: list[dict]) -> Table:
    """Makes the table of one shape."""
    mebibytes = 4 * num_seeds * math.prod(shape) / 2**20
    seeds = f"{num_seeds} seeds of " if num_seeds > 1 else ""
    title = f"{seeds}{'x'.join(map(str, shape))}, {mebibytes:.3g} MiB"
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    for heading in ("µs", "of copy", "of nnx.Dropout", "bandwidth of copy's"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["layer"],
            f"{row['microseconds']:,.0f}",
            f"{row['to_copy'][1]:.2f}",
            f"{row['to_dropout'][1]:.3f}",
            f"{row['bandwidth_to_copy']:.0%}",
        )
    return table


def run_layer(config: LayerConfig) -> dict:
    """Times every layer on every shape, and prints and writes each as it is done.

    Returns:
        The results, as in the file.

    Raises:
        UsageError: if a flag is at fault.
    """
    check(config)
    devices.start_jax()
    console = terminal.make_console()
    shapes = SHAPES
    if jax.default_backend() != "cpu":
        shapes += LARGE_SHAPES
    # Eight of the largest would not fit everywhere, and say nothing new.
    cases = [(s, n) for s in shapes for n in NUM_SEEDS if n == 1 or s in SHAPES]
    result: dict[str, Any] = {
        "environment": environment(),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": config.rounds,
        "dtype": "float32",
        "cases": [],
    }
    console.print(f"Forward and backward, float32, {result['environment']['device']}")
    with terminal.progress_bar(len(cases), console) as show:
        for index, (shape, num_seeds) in enumerate(cases):
            show(index, "x".join(map(str, shape)))
            starts = {
                name: prepare(contestant, shape, num_seeds)
                for name, contestant in CONTESTANTS.items()
            }
            times = time_in_turn(starts, config.rounds)
            rows = compare(times)
            result["cases"].append(
                {"shape": list(shape), "num_seeds": num_seeds, "layers": rows}
            )
            console.print(make_table(shape, num_seeds, rows))
            if config.out is not None:
                save(config.out, result)
    if config.out is not None:
        console.print(f"Results: {config.out}")
    return result


def check(config: LayerConfig) -> None:
    """Validates the settings, see `run_layer`."""
    if not 1 <= config.rounds < 2**31:
        raise UsageError(
            f"--rounds={config.rounds}: give a whole number of 1 or more, below 2^31."
        )
    if config.out is not None:
        check_writable(config.out)


def save(out: Path, result: dict) -> None:
    """Writes the results.

    Raises:
        UsageError: if they cannot be written any more.
    """
    try:
        files.write_json(out, result)
    except OSError as error:
        raise UsageError(
            f"--out={out}: cannot be written any more ({error.strerror}); the results "
            "are in the tables above alone."
        ) from None


def check_writable(out: Path) -> None:
    """Raises for a file that cannot be written, before anything is measured.

    Raises:
        UsageError: if it is a folder, a link, a pipe or a device, or lies in a folder
            that cannot be written to.
    """
    try:
        is_file = stat.S_ISREG(out.lstat().st_mode)
    except FileNotFoundError:
        is_file = True  # it will be
    except OSError:
        is_file = False
    if not is_file or not os.access(out.parent, os.W_OK):
        raise UsageError(
            f"--out={out}: cannot be written; name a file in a folder that can."
        )
