"""Times variants of a training step that were tried: performance/variants_cpu.json.

`taskset -c 0 python docs/make_variants.py DATA_DIR` runs each variant in a process of
its own, in turns with the step as it is, and writes the file and the table in
performance.md. To vary the code, it replaces functions of the modules.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from experiments.benchmarks.records import quartiles, write_record
from experiments.data import augment, datasets
from experiments.training import cnn, pooling
from experiments.training.regularizers import REGULARIZERS
from experiments.training.steps import make_functions
from sounddrop_jax import convolution

BATCH, NUM_STEPS, ROUNDS = 64, 20, 7


def set_blocks(places: int) -> None:
    """Makes kernel gradients of blocks of another size."""
    convolution.PLACES = places


def multiply_in_bfloat16() -> None:
    """Makes kernel gradients of operands in bfloat16, summed in float32."""
    exact = convolution._kernel_gradient_in_blocks

    def rounded(inputs, gradient, *rest):
        halves = (x.astype(jnp.bfloat16) for x in (inputs, gradient))
        return exact(*halves, *rest).astype(inputs.dtype)

    convolution._kernel_gradient_in_blocks = rounded


def widen_no_colours() -> None:
    """Convolves the colours as all other channels."""
    convolution._is_narrow = lambda *_: False


def convolve_in_blocks() -> None:
    """Convolves eight images at a time."""
    whole = convolution._convolve_by_xla

    def in_blocks(inputs, kernel, groups=1, **settings):
        blocks = inputs.reshape(-1, 8, *inputs.shape[1:])
        outputs = lax.map(lambda x: whole(x, kernel, groups, **settings), blocks)
        return outputs.reshape(-1, *outputs.shape[2:])

    convolution._convolve_by_xla = in_blocks


def take_xla_kernel_gradients() -> None:
    """Leaves kernel gradients to XLA as well."""

    def by_xla(inputs, gradient, rows, columns, precision):
        def convolve(kernel):
            return convolution._convolve_by_xla(
                inputs, kernel, padding=((0, 0), (0, 0)), precision=precision
            )

        shape = rows, columns, inputs.shape[-1], gradient.shape[-1]
        kernel = jax.ShapeDtypeStruct(shape, inputs.dtype)
        return jax.linear_transpose(convolve, kernel)(gradient)[0]

    convolution._kernel_gradient_in_blocks = by_xla


def compute_first_block_again() -> None:
    """Keeps nothing of the first block for its backward pass but its inputs."""
    plain = cnn.Block.__call__

    def call(self, maps, *, rngs=None):
        if maps.shape[-1] != 3:
            return plain(self, maps, rngs=rngs)
        return nnx.remat(lambda block, maps, rngs: plain(block, maps, rngs=rngs))(
            self, maps, rngs
        )

    cnn.Block.__call__ = call


def pool_by_flax() -> None:
    """Pools by `nnx.max_pool`, whose gradient is a select-and-scatter."""
    pooling.max_pool = lambda maps: nnx.max_pool(maps, (2, 2), (2, 2))


def pool_by_equality() -> None:
    """Passes the gradient of pooling to whatever equals the largest."""

    def squares(maps):
        num, height, width, channels = maps.shape
        return maps.reshape(num, height // 2, 2, width // 2, 2, channels)

    @jax.custom_vjp
    def pool(maps):
        return squares(maps).max((2, 4))

    def forward(maps):
        return pool(maps), (maps, pool(maps))

    def backward(residuals, gradient):
        maps, largest = residuals
        wins = squares(maps) == largest[:, :, None, :, None]
        spread = jnp.where(wins, gradient[:, :, None, :, None], 0)
        return (spread.reshape(maps.shape),)

    pool.defvjp(forward, backward)
    pooling.max_pool = pool


def normalise_before_pooling() -> None:
    """Puts BatchNorm's scale and shift before pooling, on four times the values."""

    def call(self, maps, bias):
        maps = nnx.relu(maps + bias)
        mean = maps.mean((0, 1, 2))
        var = jnp.maximum((maps**2).mean((0, 1, 2)) - mean**2, 0)
        for running, batch in ((self.mean, mean), (self.var, var)):
            running[...] = 0.9 * running[...] + 0.1 * batch
        slope = self.scale[...] * lax.rsqrt(var + 1e-5)
        return pooling.max_pool((maps - mean) * slope + self.bias[...])

    cnn.NormPool.__call__ = call


def jitter_without_a_loop() -> None:
    """Jitters colours in two passes, as on a GPU and a TPU."""
    augment._jitter_in_a_loop = augment._jitter_in_two_passes


def crop_by_gathering() -> None:
    """Flips and crops by gathering, as on a GPU."""
    augment._pick_by_products = augment._gather


# What changes: flags of XLA, the code, or settings of `measure`.
VARIANTS: dict[str, str | Callable[[], None] | dict] = {
    "the same once more": {},
    "fast math": "--xla_cpu_enable_fast_math=true",
    "fast minimum and maximum": "--xla_cpu_enable_fast_min_max=true",
    "vectors of 512 bits": "--xla_cpu_prefer_vector_width=512",
    "no fusion emitters": "--xla_cpu_use_fusion_emitters=false",
    "scheduler for concurrency": "--xla_cpu_enable_concurrency_optimized_scheduler"
    "=true",
    "products by YNNPACK": "--xla_cpu_experimental_ynn_fusion_type="
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    "products by oneDNN": "--xla_cpu_experimental_onednn_fusion_type="
    "LIBRARY_FUSION_TYPE_DOT",
    "one thread for products": "--xla_cpu_multi_thread_eigen=false",
    "kernel gradients: blocks of 512 places": lambda: set_blocks(512),
    "kernel gradients: blocks of 16,384": lambda: set_blocks(16_384),
    "kernel gradients: bfloat16 operands": multiply_in_bfloat16,
    "kernel gradients: XLA's": take_xla_kernel_gradients,
    "convolutions: eight images at a time": convolve_in_blocks,
    "convolutions: colours not in 2x2 outputs": widen_no_colours,
    "first block computed again": compute_first_block_again,
    "pooling: Flax's": pool_by_flax,
    "pooling: equality with the largest": pool_by_equality,
    "BatchNorm before pooling": normalise_before_pooling,
    "colour jitter without a loop": jitter_without_a_loop,
    "crop by gathering": crop_by_gathering,
    "everything in bfloat16": {"dtype": "bfloat16"},
    "two seeds under vmap": {"seeds": 2},
}


def main(data_dir: str) -> None:
    """Measures each variant beside the step as it is; writes the file and table."""
    cases = {}
    with _start("", data_dir) as as_it_is:
        _take_turn(as_it_is)
        for name in VARIANTS:
            with _start(name, data_dir) as variant:
                _take_turn(variant)  # compiled by now, and warm
                pairs = [
                    (_take_turn(variant), _take_turn(as_it_is)) for _ in range(ROUNDS)
                ]
            new, old = np.transpose(pairs)
            cases[name] = {
                "milliseconds": quartiles(new),
                "ratio": quartiles(new / old),
            }
            print(name, cases[name], flush=True)
    write_record(__file__, make_table(cases), ROUNDS, cases=cases)


def _start(name: str, data_dir: str) -> subprocess.Popen:
    flags = VARIANTS.get(name, {})
    return subprocess.Popen(
        [sys.executable, __file__, data_dir, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | ({"XLA_FLAGS": flags} if isinstance(flags, str) else {}),
        text=True,
    )


def _take_turn(worker: subprocess.Popen) -> float:
    worker.stdin.write("\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def work(data_dir: str, name: str) -> None:
    """Writes the milliseconds of a step for each line that is read."""
    change = VARIANTS.get(name, {})
    if callable(change):
        change()
    run = make_steps(data_dir, **(change if isinstance(change, dict) else {}))
    run()
    for _ in sys.stdin:
        start = time.perf_counter()
        steps = run()
        print(1e3 * (time.perf_counter() - start) / steps, flush=True)


def make_steps(data_dir: str, dtype: str = "float32", seeds: int = 1):
    """Makes a function that takes some steps, and returns how many, of all seeds."""
    functions = make_functions(
        datasets.load("cifar10", data_dir),
        REGULARIZERS["water"].prepare(0.05),
        batch_size=BATCH,
        learning_rate=1e-3,
        weight_decay=0.01,
        dtype=dtype,
    )

    def train(key):
        order = functions.shuffle(key, 0)
        state = functions.init(key)
        return state, order

    def steps(state, order, constants):
        return functions.train_steps(state, 0.0, constants, order, 0, 0, NUM_STEPS)

    state, order = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), seeds))
    if seeds == 1:
        state, order = jax.tree.map(lambda x: x[0], (state, order))
    else:
        steps = jax.vmap(steps, in_axes=(0, 0, None))
    compiled = jax.jit(steps)

    def run() -> int:
        jax.block_until_ready(compiled(state, order, functions.constants))
        return NUM_STEPS * seeds

    return run


def make_table(cases: dict[str, dict]) -> list[str]:
    """The table of performance.md: milliseconds, and ratios to the step as it is."""
    lines = [
        "| tried | ms a step | of the step as it is (quartiles) |",
        "| --- | ---: | ---: |",
    ]
    for name, case in cases.items():
        low, middle, high = case["ratio"]
        lines.append(
            f"| {name} | {case['milliseconds'][1]:.1f} | "
            f"{middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 2:
        work(*sys.argv[1:])
    else:
        main(sys.argv[1])
