"""What programs would do on an accelerator, by its compiler, without having one.

python -m experiments.benchmark compile --target=h100 --out=compile.json

XLA compiles for a GPU or a TPU on any machine that has JAX's plug-in for it. What
passes through memory, how much of it is needed at a time, and what became of the
convolutions stands in the program that comes out. Nothing is run: a cost is the
compiler's estimate and no time. Costs are good for comparing two programs for one chip,
and for finding what is wrong with one; how fast a program is, a device decides.
"""

import collections
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from rich.console import Console
from rich.table import Table

from experiments import terminal
from experiments.benchmarks.jax_contestants import make_plain_functions
from experiments.benchmarks.layers import (
    CONTESTANTS,
    SHAPES,
    check_writable,
    forward_and_backward,
    save,
)
from experiments.benchmarks.programs import list_growth, list_kernels
from experiments.benchmarks.targets import TARGETS, Target, open_target
from experiments.cli import UsageError, check_choice, choices, flag
from experiments.data.dataset import Dataset
from experiments.runs.configs import Config
from experiments.runs.environment import environment
from experiments.training import devices
from experiments.training.steps import make_functions
from sounddrop_jax import ensembles

PROGRAMS = ("train", "plain", "evaluate", "layers")
DTYPES = ("float32", "bfloat16")
NUM_SEEDS = (1, 16, 64, 256)
LAYER_SEEDS = (1, 64)
REG = "water"
RUN_IMAGES = 500_000  # ten epochs of CIFAR-10
TABLE_WIDTH = 130  # where nobody knows how wide the screen is


@dataclasses.dataclass(frozen=True)
class CompileConfig:
    """Compiles for an accelerator that need not be there, and counts what programs do.

    The figures are counts, and estimates of the compiler: no times.
    """

    target: Annotated[str, flag("What to compile for.", choices(TARGETS))]
    program: Annotated[
        str | None,
        flag(
            "One alone: training, the same with JAX's own layers, evaluation, or the "
            "layers. Default: all.",
            choices(PROGRAMS),
        ),
    ] = None
    seeds: Annotated[
        int | None,
        flag(
            "Networks side by side. Default: 1, 16, 64 and 256; of layers 1 and 64.",
            "INT",
        ),
    ] = None
    dtype: Annotated[
        str | None, flag("Of training. Default: both.", choices(DTYPES))
    ] = None
    out: Annotated[Path | None, flag("File for the results, JSON.", "FILE")] = None
    against: Annotated[
        Path | None,
        flag("A file of results: what grew by more than 5 % ends it with 1.", "FILE"),
    ] = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A program.

    Attributes:
        program: one of `PROGRAMS`.
        seeds: networks side by side; 1 without vmap of a layer.
        dtype: of the computation.
        layer: its name in `CONTESTANTS`; of other programs "".
        shape: of the layer's maps.
    """

    program: str
    seeds: int
    dtype: str = "float32"
    layer: str = ""
    shape: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """What the case is called."""
        what = {
            "train": "training",
            "plain": "training, JAX's own layers",
            "evaluate": "evaluation",
            "layers": f"{self.layer}, {'x'.join(map(str, self.shape))}",
        }[self.program]
        return f"{what}, {self.dtype}, {self.seeds} seeds"


Call = tuple[Any, tuple[Any, ...], int]
"""A function of `jax.jit`, its abstract arguments, and how many images it takes."""


def list_cases(config: CompileConfig) -> list[Case]:
    """Lists the programs to compile."""
    programs = [config.program] if config.program else PROGRAMS
    dtypes = [config.dtype] if config.dtype else DTYPES
    counts = [config.seeds] if config.seeds else NUM_SEEDS
    layer_counts = [config.seeds] if config.seeds else LAYER_SEEDS
    cases = []
    for program in programs:
        if program == "train":
            cases += [Case(program, n, dtype) for dtype in dtypes for n in counts]
        elif program == "layers":
            cases += [
                Case(program, n, layer=layer, shape=shape)
                for shape in SHAPES
                for n in layer_counts
                for layer in CONTESTANTS
            ]
        else:
            cases += [Case(program, n) for n in counts]
    return cases


def prepare(case: Case) -> Call:
    """Makes the function of a case, and its arguments without values."""
    make = {
        "train": _prepare_training,
        "plain": _prepare_plain,
        "evaluate": _prepare_evaluation,
        "layers": _prepare_layer,
    }
    return make[case.program](case)


@functools.cache
def _dataset() -> Dataset:
    """Returns a set of the size of CIFAR-10; what is in it does not matter."""
    images, labels = np.zeros((60_000, 32, 32, 3), np.uint8), np.zeros(60_000, np.int32)
    halves = images[:50_000], labels[:50_000], images[50_000:], labels[50_000:]
    return Dataset("cifar10", "CIFAR-10", "", *halves, tuple("0123456789"))


@functools.cache
def _functions(dtype: str):
    config = Config(reg=REG)
    return make_functions(
        _dataset(),
        config.recipe.prepare(config.strength),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dtype=jnp.dtype(dtype),
    )


def _keys(num_seeds: int):
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_seeds))


def _prepare_training(case: Case) -> Call:
    functions, num_images = _functions(case.dtype), len(_dataset().train_labels)
    mapped = ensembles.map_seeds(
        functions.train_steps, in_axes=(0, 0, None, 0, None, None, None)
    )
    number = jax.ShapeDtypeStruct((), jnp.int32)
    arguments = (
        jax.eval_shape(jax.vmap(functions.init), _keys(case.seeds)),
        jax.ShapeDtypeStruct((case.seeds,), jnp.float32),
        functions.constants,
        jax.ShapeDtypeStruct((case.seeds, num_images), jnp.int32),
        *3 * [number],
    )
    compiled = jax.jit(mapped, donate_argnums=0)
    return compiled, arguments, case.seeds * Config().batch_size


def _prepare_plain(case: Case) -> Call:
    dataset, config = _dataset(), Config(reg=REG)
    init, step = make_plain_functions(dataset, config)
    arguments = (
        jax.eval_shape(jax.vmap(init), _keys(case.seeds)),
        dataset.train_images,
        dataset.train_labels,
        jax.ShapeDtypeStruct((case.seeds, config.batch_size), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    mapped = jax.vmap(step, in_axes=(0, None, None, 0, None))
    compiled = jax.jit(mapped, donate_argnums=0)
    return compiled, arguments, case.seeds * config.batch_size


def _prepare_evaluation(case: Case) -> Call:
    functions = _functions(case.dtype)
    state = jax.eval_shape(jax.vmap(functions.init), _keys(case.seeds))
    mapped = ensembles.map_seeds(functions.evaluate, in_axes=(0, None))
    num_images = case.seeds * len(_dataset().test_labels)
    return jax.jit(mapped), (state, functions.constants), num_images


def _prepare_layer(case: Case) -> Call:
    contestant = CONTESTANTS[case.layer]
    run = forward_and_backward(contestant)
    maps = jax.ShapeDtypeStruct(case.shape, case.dtype)
    keys: Any = jax.eval_shape(lambda: jax.random.key(0))
    if case.seeds > 1:
        run = jax.vmap(run, in_axes=(0, 0, 0, None))
        maps = jax.ShapeDtypeStruct((case.seeds, *case.shape), case.dtype)
        keys = _keys(case.seeds)
    bank = jax.eval_shape(lambda: contestant.make_bank(case.shape))
    # Results may take the place of the arguments, as in a training step: what goes
    # through as it is, such as the gradient of an addition, costs nothing. A copy has
    # to copy.
    in_place = () if case.layer == "copy" else (0, 1)
    compiled = jax.jit(run, donate_argnums=in_place)
    return compiled, (maps, maps, keys, bank), case.seeds * case.shape[0]


def measure(case: Case, device: jax.Device, target: Target) -> dict:
    """Compiles a case, and counts what a step of it does: of a layer, a pass both ways.

    Returns:
        kernels; bytes, that pass through memory; floor_seconds, which these take at the
        chip's bandwidth; cost_seconds, by the compiler, where it gives a cost, and at
        the bandwidth elsewhere; temporary_bytes, beside the arguments and results of
        the whole program; images; compile_seconds, here; products, how many of each.
    """
    compiled_later, arguments, num_images = prepare(case)
    sharding = SingleDeviceSharding(device)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        arguments,
    )
    start = time.perf_counter()
    traced = compiled_later.trace(*abstract)
    compiled = traced.lower(lowering_platforms=(target.platform,)).compile()
    compile_seconds = time.perf_counter() - start
    products: collections.Counter[str] = collections.Counter()
    num_kernels, num_bytes, cost = 0, 0, 0.0
    for kernel in list_kernels(compiled.as_text()):
        num_kernels += kernel.times
        num_bytes += kernel.times * kernel.num_bytes
        if kernel.cost is not None:
            cost += kernel.times * kernel.cost / target.clock
        elif not kernel.instruction.opcode.endswith("-start"):  # beside other work
            cost += kernel.times * kernel.num_bytes / target.bandwidth
        if kernel.product:
            products[kernel.product] += kernel.times
    return {
        **dataclasses.asdict(case),
        "images": num_images,
        "kernels": num_kernels,
        "bytes": num_bytes,
        "floor_seconds": num_bytes / target.bandwidth,
        "cost_seconds": cost,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "compile_seconds": compile_seconds,
        "products": dict(products),
    }


def run_compile(config: CompileConfig) -> dict:
    """Compiles every case, prints the tables and writes the file.

    Returns:
        The results, as in the file.

    Raises:
        UsageError: if a flag is at fault, or JAX cannot compile for the target here;
            nothing was written then.
    """
    check(config)
    target, device = TARGETS[config.target], open_target(config.target)
    # What is read from a cache took no time to compile.
    jax.config.update("jax_enable_compilation_cache", False)
    devices.start_jax()
    console = terminal.make_console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    cases, rows = list_cases(config), []
    with terminal.progress_bar(len(cases), console) as show:
        for index, case in enumerate(cases):
            show(index, case.title)
            rows.append(measure(case, device, target))
    print_tables(rows, target, console)
    result = {
        "environment": {**environment(), "device": target.title},
        "date": time.strftime("%Y-%m-%d"),
        "target": config.target,
        "cases": rows,
    }
    if config.out is not None:
        save(config.out, result)
        console.print(f"Results: {config.out}")
    if config.against is not None:
        _compare(rows, config.against)
    return result


def _compare(rows: list[dict], against: Path) -> None:
    try:
        record = json.loads(against.read_text("utf-8"))["cases"]
        lines = list_growth(rows, record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--against={against}: no results to compare with ({error})."
        ) from None
    if lines:
        print(*lines, sep="\n", file=sys.stderr)
        sys.exit(1)


def check(config: CompileConfig) -> None:
    """Raises for flags that cannot be followed.

    Raises:
        UsageError: names the flag, the value and the remedy.
    """
    check_choice("--target", config.target, list(TARGETS))
    check_choice("--program", config.program or PROGRAMS[0], PROGRAMS)
    check_choice("--dtype", config.dtype or DTYPES[0], DTYPES)
    if config.seeds is not None and config.seeds < 1:
        raise UsageError(f"--seeds={config.seeds}: give a whole number of 1 or more.")
    if config.out is not None:
        check_writable(config.out)


def print_tables(rows: list[dict], target: Target, console: Console) -> None:
    """Prints a table of whole programs, and one of the layers."""
    console.print(
        f"{target.title}, by its compiler: counts and estimates, no times. Nothing ran."
    )
    tables = {
        "a step of training, all batches of an evaluation": list_programs(rows),
        "layers, forward and backward: µs (of nnx.Dropout, of copy)": list_layers(rows),
    }
    for title, (header, *lines) in tables.items():
        if lines:
            table = Table(title=title, title_justify="left")
            for number, heading in enumerate(header):
                is_text = number == 0 or heading == "products"
                table.add_column(heading, justify="left" if is_text else "right")
            for line in lines:
                table.add_row(*line)
            console.print(table)


def list_programs(rows: list[dict]) -> list[list[str]]:
    """Returns the table of whole programs, its heading first.

    "s a run" is what ten epochs of one network cost.
    """
    lines = [
        ["", "seeds", "kernels", "KiB an image", "floor, ms", "cost, ms", "s a run"]
        + ["temporary, MiB", "compile, s", "products"]
    ]
    names = {"train": "training", "plain": "JAX's own layers", "evaluate": "evaluation"}
    for row in rows:
        if row["program"] == "layers":
            continue
        run_seconds = row["cost_seconds"] / row["images"] * RUN_IMAGES
        products = sorted(row["products"].items(), key=lambda item: -item[1])
        lines.append(
            [
                f"{names[row['program']]}, {row['dtype']}",
                f"{row['seeds']}",
                f"{row['kernels']:,}",
                f"{row['bytes'] / row['images'] / 2**10:,.0f}",
                f"{1e3 * row['floor_seconds']:.2f}",
                f"{1e3 * row['cost_seconds']:.2f}",
                "" if row["program"] == "evaluate" else f"{run_seconds:.2f}",
                f"{row['temporary_bytes'] / 2**20:,.0f}",
                f"{row['compile_seconds']:.0f}",
                ", ".join(f"{count} x {name}" for name, count in products),
            ]
        )
    return lines


def list_layers(rows: list[dict]) -> list[list[str]]:
    """Returns the table of layers, its heading first: a row a layer, a column a case.

    Microseconds by the compiler's cost, and the ratios to Dropout and to a copy.
    """
    costs: dict[str, dict[str, float]] = collections.defaultdict(dict)
    for row in rows:
        if row["program"] == "layers":
            shape = "x".join(map(str, row["shape"]))
            where = f"{row['seeds']} of {shape}" if row["seeds"] > 1 else shape
            costs[where][row["layer"]] = row["cost_seconds"]
    lines = [["layer", *costs]]
    for layer in CONTESTANTS if costs else ():
        line = [layer]
        for column in costs.values():
            to_dropout = column[layer] / column["nnx.Dropout"]
            to_copy = column[layer] / column["copy"]
            line.append(f"{1e6 * column[layer]:,.0f} ({to_dropout:.2f}, {to_copy:.1f})")
        lines.append(line)
    return lines
