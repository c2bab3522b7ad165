"""Measures what a bank costs a program: the figures in performance/bank_costs_cpu.json.

`python docs/make_bank_costs.py` compiles a layer with banks of several sizes, as
constants and as arguments, and writes the file and the table in performance.md.
"""

import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import serialize_executable

from experiments.benchmarks.records import write_record
from sounddrop_jax import BankVariable, WaterNoiseLayer, make_power_law_bank

INPUTS = jnp.ones((64, 16, 16, 16))
MIB = 2**20
SIZES = [4, 16, 64, 256]  # MiB of float32
ROUNDS = 5


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def measure(layer: nnx.Module) -> dict[str, float]:
    """Compiles one call of a layer and its gradient."""
    graphdef, state = nnx.split(layer)

    def loss(inputs, state, key):
        return (nnx.merge(graphdef, state)(inputs, rngs=key) ** 2).sum()

    step = jax.jit(jax.grad(loss))
    before, begin = resident(), time.perf_counter()
    compiled = step.lower(INPUTS, state, jax.random.key(0)).compile()
    seconds = time.perf_counter() - begin
    return {
        "compile_seconds": seconds,
        "memory": (resident() - before) / MIB,
        "program": len(serialize_executable.serialize(compiled)[0]) / MIB,
    }


def main() -> None:
    """Measures all sizes in turn, and writes the medians."""
    jax.config.update("jax_enable_compilation_cache", False)
    measure(nnx.Dropout(0.2))
    rounds: dict[str, list[dict[str, float]]] = {}
    for index in range(ROUNDS):
        rounds.setdefault("nnx.Dropout", []).append(measure(nnx.Dropout(0.2)))
        for size in SIZES:
            num_entries = size * MIB // 4 // 256
            # Of each round its own: the same bank would be the same program.
            bank = make_power_law_bank(index, (16, 16), num_entries=num_entries)
            for name, own in (
                (f"{size} MiB, constant", bank),
                (f"{size} MiB, argument", BankVariable(bank.values)),
            ):
                layer = WaterNoiseLayer(0.1, bank=own)
                rounds.setdefault(name, []).append(measure(layer))
    medians = {
        name: {key: float(np.median([each[key] for each in all_])) for key in all_[0]}
        for name, all_ in rounds.items()
    }
    lines = [
        "| bank | to compile, s | program, MiB | memory while it lives, MiB |",
        "| --- | --- | --- | --- |",
    ] + [
        f"| {name} | {each['compile_seconds']:.2f} | {each['program']:.1f} | "
        f"{max(each['memory'], 0):.0f} |"
        for name, each in medians.items()
    ]
    write_record(__file__, lines, ROUNDS, medians=medians, all=rounds)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
