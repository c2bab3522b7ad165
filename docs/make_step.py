"""Takes a training step of the CNN apart, on one core: performance/step_cpu.json.

    taskset -c 0 python docs/make_convolutions.py
    taskset -c 0 python docs/make_step.py DATA_DIR

The first gives what convolutions take; the second times whole steps, and steps without
one thing, in turns. It writes the file and the table in performance.md.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.flops import count_flops
from experiments.benchmarks.records import quartiles, write_record
from experiments.data import datasets
from experiments.data.dataset import Dataset
from experiments.training.regularizers import REGULARIZERS
from experiments.training.steps import Functions, make_functions

BATCH, NUM_STEPS, ROUNDS = 64, 40, 9
# What a step is without: its regularizer, and whether images are augmented.
STEPS = {
    "whole": ("water", True),
    "without noise": ("none", True),
    "without augmentation": ("water", False),
}
SIDE = 2048  # of the products that say what the core can do
# Height, channels and features of each layer, and its products, forward and back.
LAYERS = {"1": (32, 3, 16, 2), "2": (16, 16, 32, 3), "3": (8, 32, 64, 3)}


def main(data_dir: str) -> None:
    """Measures, and writes the file and the table."""
    milliseconds = measure(datasets.load("cifar10", data_dir))
    path = Path(__file__).parent / "performance/convolutions_cpu.json"
    table = make_table(milliseconds, json.loads(path.read_text()))
    write_record(__file__, table, ROUNDS, milliseconds=milliseconds)


def measure(dataset: Dataset) -> dict[str, list[float]]:
    """Times steps, evaluation and a large product in turns.

    Returns:
        Quartiles of milliseconds, of a step and of as many images in an evaluation.
    """
    runs = {}
    for name, (reg, augmented) in STEPS.items():
        functions = make_functions(
            dataset,
            REGULARIZERS[reg].prepare(0.05 if reg == "water" else 0.0),
            batch_size=BATCH,
            learning_rate=1e-3,
            weight_decay=0.01,
            augmented=augmented,
        )
        runs[name] = (_steps(functions), NUM_STEPS)
    evaluate = jax.jit(functions.evaluate)
    state = jax.jit(functions.init)(jax.random.key(0))
    num_batches = len(dataset.test_labels) / BATCH
    runs["evaluation"] = (lambda: evaluate(state, functions.constants), num_batches)
    square = jnp.ones((SIDE, SIDE))
    product = jax.jit(lambda x: x @ x)
    runs["product"] = (lambda: product(square), 1)

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        for name, (run, _) in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:  # the first one compiles
                seconds[name].append(time.perf_counter() - start)
    return {
        name: quartiles(np.multiply(1e3 / runs[name][1], all_))
        for name, all_ in seconds.items()
    }


def _steps(functions: Functions):
    """Returns a function that takes some steps from the start."""
    state = jax.jit(functions.init)(jax.random.key(0))
    order = jax.jit(functions.shuffle)(jax.random.key(0), 0)
    train = jax.jit(functions.train_steps)
    return lambda: train(state, 0.0, functions.constants, order, 0, 0, NUM_STEPS)


def make_table(times: dict[str, list[float]], convolutions: dict) -> list[str]:
    """The table of performance.md: milliseconds of each part, and of its products."""
    medians = {name: each[1] for name, each in times.items()}
    rate = 2 * SIDE**3 / medians["product"]  # operations a millisecond
    found = {
        (case["layer"], case["setting"]): case["milliseconds"]["this project's"][1]
        for case in convolutions["cases"]
    }
    whole = medians["whole"]
    parts = {
        "augmentation": (whole - medians["without augmentation"], 0.0),
        "noise": (whole - medians["without noise"], 0.0),
    }
    forward = 0
    for layer, (size, channels, features, products) in LAYERS.items():
        flops = 2 * BATCH * size**2 * 9 * channels * features
        forward += flops
        parts[f"convolution {layer}"] = (
            found[layer, "in a loop"],
            flops * products / rate,
        )
    rest = whole - sum(milliseconds for milliseconds, _ in parts.values())
    parts["the rest: ReLU, pooling, BatchNorm, linear layer, loss, AdamW"] = rest, 0.0
    flops = BATCH * count_flops("cnn", (32, 32, 3), 10)
    parts["**a step**"] = whole, flops / rate
    parts["evaluation of as many images"] = medians["evaluation"], forward / rate
    lines = [
        "| part | ms | of a step | its products alone, ms |",
        "| --- |" + 3 * " ---: |",
    ]
    for name, (milliseconds, floor) in parts.items():
        alone = f"{floor:.1f}" if floor else ""
        taken, share = (  # adding 0 takes the sign from -0
            round(x, digits) + 0.0
            for x, digits in ((milliseconds, 1), (100 * milliseconds / whole, 0))
        )
        lines.append(f"| {name} | {taken:.1f} | {share:.0f}% | {alone} |")
    return lines


if __name__ == "__main__":
    main(sys.argv[1])
