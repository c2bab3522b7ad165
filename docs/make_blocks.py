"""Times kernel gradients by the size of their blocks: performance/blocks_cpu.json.

`python docs/make_blocks.py` measures on one core and on all, and writes the file and
the table in performance.md.
"""

import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.records import quartiles, write_record
from sounddrop_jax import convolution

# Height and width, channels, features: of the network, and two of ResNet-20.
LAYERS = {
    "1": (32, 3, 16),
    "2": (16, 16, 32),
    "3": (8, 32, 64),
    "R1": (32, 16, 16),
    "R2": (16, 32, 32),
}
SIZES = (512, 1024, 2048, 4096, 8192, 16384)
BATCH, NUM_STEPS, ROUNDS = 64, 5, 21


def main() -> None:
    """Measures in a process for each number of cores; writes the file and the table."""
    cases = []
    for num_cores in (1, os.cpu_count()):
        done = subprocess.run(
            [sys.executable, __file__, str(num_cores)],
            stdout=subprocess.PIPE,
            check=True,
        )
        cases += json.loads(done.stdout)
    write_record(__file__, make_table(cases), ROUNDS, cases=cases)


def measure(layer: str, num_cores: int) -> dict:
    """Times kernel gradients in a compiled loop, all sizes in turn."""
    side, channels, features = LAYERS[layer]
    rng = np.random.default_rng(0)
    maps = NUM_STEPS, BATCH, side, side
    all_inputs, all_gradients = (
        jnp.asarray(rng.standard_normal((*maps, size), np.float32))
        for size in (channels, features)
    )
    zeros = jnp.zeros((3, 3, channels, features))

    def run(all_inputs, all_gradients):
        def step(index, total):
            def convolve(kernel):
                return convolution.conv_general_dilated(
                    all_inputs[index],
                    kernel,
                    (1, 1),
                    "SAME",
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )

            _, pull_back = jax.vjp(convolve, zeros)
            return total + pull_back(all_gradients[index])[0]

        return lax.fori_loop(0, NUM_STEPS, step, zeros)

    programs = {}
    for size in SIZES:
        convolution.PLACES = size
        # Another function each time, or JAX would not trace it again.
        program = jax.jit(lambda *maps: run(*maps)).lower(all_inputs, all_gradients)
        programs[size] = program.compile()
    milliseconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for turn in range(ROUNDS + 1):
        for size, program in programs.items():
            start = time.perf_counter()
            program(all_inputs, all_gradients).block_until_ready()
            if turn:  # the first one warms up
                spent = time.perf_counter() - start
                milliseconds[size].append(1e3 * spent / NUM_STEPS)
    ratios = {s: np.divide(each, milliseconds[512]) for s, each in milliseconds.items()}
    return {
        "layer": layer,
        "cores": num_cores,
        "milliseconds": {s: quartiles(each) for s, each in milliseconds.items()},
        "to_512": {s: quartiles(each) for s, each in ratios.items()},
    }


def make_table(cases: list[dict]) -> list[str]:
    """The table of performance.md: milliseconds, and ratios to blocks of 512 places."""
    lines = [["", *map("{:,} places".format, SIZES)], ["---", *["---:"] * len(SIZES)]]
    for case in cases:
        pairs = [(case["milliseconds"][str(s)], case["to_512"][str(s)]) for s in SIZES]
        cells = [f"{spent[1]:.1f} ({ratio[1]:.2f})" for spent, ratio in pairs]
        cores = f"{case['cores']} core{'s' if case['cores'] > 1 else ''}"
        lines.append([f"{case['layer']}, {cores}", *cells])
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        num_cores = int(sys.argv[1])
        os.sched_setaffinity(0, range(num_cores))  # before JAX starts its threads
        print(json.dumps([measure(layer, num_cores) for layer in LAYERS]))
    else:
        main()
