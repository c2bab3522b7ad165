"""Times ways to convolve: the figures in performance/convolutions_cpu.json.

`taskset -c 0 python docs/make_convolutions.py` measures one core, which is what a seed
has in an ensemble on a CPU, and writes the file and the table in performance.md.
"""

import functools
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.records import quartiles, write_record
from sounddrop_jax import convolution

# Of the network, and one of ResNet-20: height and width, channels, features.
LAYERS = {"1": (32, 3, 16), "2": (16, 16, 32), "3": (8, 32, 64), "R": (32, 16, 16)}
BATCH, NUM_STEPS, NUM_SEEDS, ROUNDS = 64, 3, 4, 7


def xla(inputs, kernel):
    """JAX's own convolution."""
    return lax.conv_general_dilated(
        inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def ours(inputs, kernel):
    """This project's."""
    return convolution.conv_general_dilated(
        inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def shifted(inputs) -> list[jax.Array]:
    """The inputs as each of the nine places of a kernel sees them."""
    _, height, width, _ = inputs.shape
    padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [
        padded[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]


def nine_products(inputs, kernel):
    """A product for each place of the kernel, added up."""
    places = kernel.reshape(9, *kernel.shape[2:])
    return sum(x @ place for x, place in zip(shifted(inputs), places, strict=True))


def patches(inputs, kernel):
    """The nine places side by side, and one product."""
    return jnp.concatenate(shifted(inputs), -1) @ kernel.reshape(-1, kernel.shape[-1])


def patches_in_place(inputs, kernel):
    """The same, each place written into one array of zeros."""
    channels = inputs.shape[-1]
    together = jnp.zeros((*inputs.shape[:-1], 9 * channels))
    for place, x in enumerate(shifted(inputs)):
        together = lax.dynamic_update_slice_in_dim(together, x, place * channels, -1)
    return together @ kernel.reshape(-1, kernel.shape[-1])


def rows(inputs, kernel):
    """One product for the three rows of the kernel, then the rows shifted and added."""
    padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    width, height, features = inputs.shape[2], inputs.shape[1], kernel.shape[-1]
    columns = [padded[:, :, column : column + width] for column in range(3)]
    flat = kernel.transpose(1, 2, 0, 3).reshape(-1, 3 * features)
    products = jnp.split(jnp.concatenate(columns, -1) @ flat, 3, axis=-1)
    return sum(x[:, row : row + height] for row, x in enumerate(products))


@jax.custom_vjp
def xla_but_one_gradient(inputs, kernel):
    """JAX's own, but for the kernel gradient, which is a product with patches."""
    return xla(inputs, kernel)


def _forward(inputs, kernel):
    return xla(inputs, kernel), (inputs, kernel)


def _backward(residuals, gradient):
    inputs, kernel = residuals
    (input_gradient,) = jax.linear_transpose(lambda x: xla(x, kernel), inputs)(gradient)
    (kernel_gradient,) = jax.linear_transpose(lambda k: patches(inputs, k), kernel)(
        gradient
    )
    return input_gradient, kernel_gradient


xla_but_one_gradient.defvjp(_forward, _backward)

CONTESTANTS: dict[str, Callable[..., jax.Array]] = {
    "this project's": ours,
    "JAX's own": xla,
    "JAX's own, kernel gradient by patches": xla_but_one_gradient,
    "patches, one product": patches,
    "patches written in place": patches_in_place,
    "one product for the rows": rows,
    "nine products": nine_products,
}


def main() -> None:
    """Measures, and writes the file and the table."""
    cases = []
    for layer in LAYERS:
        for setting in ("alone", "in a loop", f"{NUM_SEEDS} seeds in a loop"):
            cases.append(measure(layer, setting))
            print(json.dumps(cases[-1]), flush=True)
    write_record(__file__, make_table(cases), ROUNDS, cases=cases)


def measure(layer: str, setting: str) -> dict:
    """Times a step forward and back: milliseconds a seed, all contestants in turn."""
    size, channels, features = LAYERS[layer]
    num_seeds = NUM_SEEDS if "seeds" in setting else 1
    num_steps = 1 if setting == "alone" else NUM_STEPS
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    # A batch a step, lest something be done once for all.
    maps = num_seeds, num_steps, BATCH, size, size
    kernels = normal(num_seeds, 3, 3, channels, features)
    all_inputs, all_gradients = normal(*maps, channels), normal(*maps, features)

    def steps(convolve, kernel, all_inputs, all_gradients):
        def step(index, carry):
            kernel, total = carry
            inputs, gradient = all_inputs[index], all_gradients[index]
            # The images of layer 1 need no gradient.
            if layer == "1":
                outputs, pull_back = jax.vjp(lambda k: convolve(inputs, k), kernel)
                kernel_gradient, *rest = pull_back(gradient)
            else:
                outputs, pull_back = jax.vjp(convolve, inputs, kernel)
                *rest, kernel_gradient = pull_back(gradient)
            # All is used, so that none of it is left out.
            total += sum(x[0, 0, 0, 0] for x in (outputs, *rest))
            return kernel - 1e-6 * kernel_gradient, total

        carry = kernel, jnp.zeros(())
        if setting == "alone":
            return step(0, carry)
        return lax.fori_loop(0, num_steps, step, carry)

    programs = {}
    for name, convolve in CONTESTANTS.items():
        run = functools.partial(steps, convolve)
        run = jax.vmap(run) if num_seeds > 1 else run
        arrays = (kernels, all_inputs, all_gradients)
        if num_seeds == 1:
            arrays = tuple(x[0] for x in arrays)
        program = jax.jit(run).lower(*arrays).compile()
        jax.block_until_ready(program(*arrays))
        programs[name] = functools.partial(program, *arrays)

    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append(time.perf_counter() - start)
    scale = 1e3 / num_steps / num_seeds
    milliseconds = {
        name: quartiles(np.multiply(scale, all_)) for name, all_ in seconds.items()
    }
    return {"layer": layer, "setting": setting, "milliseconds": milliseconds}


def make_table(cases: list[dict]) -> list[str]:
    """The table of performance.md: medians in milliseconds."""
    heads = [f"{case['layer']}, {case['setting']}" for case in cases]
    lines = [["", *heads], ["---", *["---:"] * len(cases)]]
    for name in CONTESTANTS:
        medians = [case["milliseconds"][name][1] for case in cases]
        lines.append([name, *(f"{median:.1f}" for median in medians)])
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    main()
