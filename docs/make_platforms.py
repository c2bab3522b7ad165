"""Trains the digits with each platform's program, on a CPU: platforms_cpu.json.

`python docs/make_platforms.py` trains the same seeds with the programs that a CPU, a
GPU and a TPU would run, and writes the record in performance/ and the table in
performance.md. On two cores it takes some twenty minutes, as a CPU is slow at the
programs of the others.
"""

import json
import subprocess
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.records import write_record
from experiments.data import datasets
from experiments.training import metrics
from experiments.training.regularizers import REGULARIZERS
from experiments.training.steps import make_functions
from sounddrop_jax import statistics

PLATFORMS = {"CPU": "cpu", "GPU": "cuda", "TPU": "tpu"}
SEEDS = range(58, 66)
SIDE_BY_SIDE = 4  # under vmap; of more, a CPU takes longer than of these in turn
EPOCHS, BATCH = 10, 64


def main() -> None:
    """Trains with all programs at once; writes the file and the table."""
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, platform], stdout=subprocess.PIPE
        )
        for name, platform in PLATFORMS.items()
    }
    cases = {name: json.loads(each.communicate()[0]) for name, each in workers.items()}
    write_record(__file__, make_table(cases), 1, seeds=list(SEEDS), cases=cases)


def train(platform: str) -> dict[str, Any]:
    """Trains all seeds, some under vmap at a time, with the program of one platform.

    Returns:
        `train_loss`, of every epoch and seed, and the test `accuracy` of every seed, in
        percent.
    """
    dataset = datasets.load("digits")
    functions = make_functions(
        dataset,
        REGULARIZERS["water"].prepare(0.05),
        batch_size=BATCH,
        learning_rate=1e-3,
        weight_decay=0.01,
    )
    num_steps = len(dataset.train_labels) // BATCH

    def choose(*arguments, default=None, **branches):
        return branches.get(platform, default)(*arguments)

    # A CPU takes far longer over gradients of a grouped convolution in a loop.
    def only_once(start, stop, body, carry):
        return body(start, carry)

    def step(state, total, constants, order, epoch, step):
        return functions.train_steps(
            state, total, constants, order, epoch, step, step + 1
        )

    def start(seeds):
        keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
        return keys, init(keys)

    init = jax.jit(jax.vmap(functions.init))
    shuffle = jax.jit(jax.vmap(functions.shuffle, in_axes=(0, None)))
    keys, state = start(SEEDS[:SIDE_BY_SIDE])
    zeros, order = jnp.zeros(SIDE_BY_SIDE), shuffle(keys, 0)
    with mock.patch.object(lax, "platform_dependent", choose):
        evaluate = jax.jit(jax.vmap(functions.evaluate, in_axes=(0, None)))
        evaluate = evaluate.lower(state, functions.constants).compile()
        with mock.patch.object(lax, "fori_loop", only_once):
            run = jax.jit(jax.vmap(step, in_axes=(0, 0, None, 0, None, None)))
            run = run.lower(state, zeros, functions.constants, order, 0, 0).compile()
    losses: list[list[float]] = [[] for _ in range(EPOCHS)]
    accuracies: list[float] = []
    for first in range(0, len(SEEDS), SIDE_BY_SIDE):
        keys, state = start(SEEDS[first : first + SIDE_BY_SIDE])
        for epoch in range(EPOCHS):
            order, total = shuffle(keys, epoch), zeros
            for index in range(num_steps):
                state, total = run(
                    state, total, functions.constants, order, epoch, index
                )
            losses[epoch] += np.asarray(total / num_steps).tolist()
            print(platform, epoch, losses[epoch], file=sys.stderr, flush=True)
        logits = np.asarray(evaluate(state, functions.constants))
        found = metrics.accuracy(logits, dataset.test_labels)
        accuracies += np.asarray(found).tolist()
    return {"train_loss": losses, "accuracy": accuracies}


def make_table(cases: dict[str, dict[str, Any]]) -> list[str]:
    """The table of performance.md: means over seeds, and differences from the CPU's."""
    lines = [
        "| program of a | loss, epoch 1 | loss, epoch 10 | less the CPU's (95 %) "
        "| accuracy, % | less the CPU's (95 %) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, case in cases.items():
        cpu = cases["CPU"]
        losses, accuracies = case["train_loss"], case["accuracy"]
        cells = [
            name,
            f"{np.mean(losses[0]):.4f}",
            f"{np.mean(losses[-1]):.4f}",
            _compare(losses[-1], cpu["train_loss"][-1], digits=4),
            f"{np.mean(accuracies):.2f}",
            _compare(accuracies, cpu["accuracy"], digits=2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _compare(own: list[float], others: list[float], digits: int) -> str:
    """Writes the mean difference, seed by seed, and its interval."""
    if own == others:
        return "0"
    found = statistics.mean_interval(own, others, method="t")
    numbers = (np.mean(np.subtract(own, others)), found.low, found.high)
    middle, low, high = (f"{number:+.{digits}f}" for number in numbers)
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(train(sys.argv[1])))
    else:
        main()
