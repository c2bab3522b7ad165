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
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
from jax.sharding import SingleDeviceSharding
from rich.console import Console
from rich.table import Table

from experiments import terminal, words
from experiments.benchmarks.cases import (
    EPOCH_IMAGES,
    PROGRAMS,
    REGULARIZERS,
    Case,
    prepare,
)
from experiments.benchmarks.layers import CONTESTANTS, SHAPES, check_writable, save
from experiments.benchmarks.programs import list_growth, list_kernels
from experiments.benchmarks.targets import TARGETS, Target, open_target
from experiments.cli import UsageError, check_choice, choices, flag
from experiments.runs.configs import DTYPES, Config
from experiments.runs.environment import environment
from experiments.training import devices
from experiments.training.models import MODELS

NUM_SEEDS = (1, 16, 64, 256)
REGULARIZER_SEEDS = 64
LAYER_SEEDS = (1, 64)
RUN_IMAGES = 10 * EPOCH_IMAGES
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
            "Which program: train, plain (the same with JAX's own layers), evaluate, "
            "regularizers (train with each of some) or layers. Default: all.",
            choices(PROGRAMS),
        ),
    ] = None
    model: Annotated[
        str,
        flag(
            "Network, as in experiments.cifar. The layers are on the cnn's maps, "
            "whichever it is. Default: cnn.",
            choices(MODELS),
        ),
    ] = "cnn"
    seeds: Annotated[
        int | None,
        flag(
            "Networks side by side. Default: 1, 16, 64 and 256; for regularizers 64, "
            "of layers 1 and 64.",
            "INT",
        ),
    ] = None
    dtype: Annotated[
        str | None, flag("Of training. Default: both.", choices(DTYPES))
    ] = None
    batch_size: Annotated[
        int,
        flag("Images a step; another number is another training. Default: 64.", "INT"),
    ] = Config.batch_size
    out: Annotated[Path | None, flag("File for the results, JSON.", "FILE")] = None
    against: Annotated[
        Path | None,
        flag(
            "Earlier results: lists what grew by more than 5 %, and exits with 1.",
            "FILE",
        ),
    ] = None


def list_cases(config: CompileConfig) -> list[Case]:
    """Lists the programs to compile."""
    programs = [config.program] if config.program else PROGRAMS
    dtypes = [config.dtype] if config.dtype else DTYPES
    counts = [config.seeds] if config.seeds else NUM_SEEDS
    layer_counts = [config.seeds] if config.seeds else LAYER_SEEDS
    cases = []
    for program in programs:
        if program == "train":
            cases += [
                Case(program, n, dtype, batch_size=config.batch_size)
                for dtype in dtypes
                for n in counts
            ]
        elif program == "regularizers":
            cases += [
                Case(
                    program,
                    config.seeds or REGULARIZER_SEEDS,
                    dtype,
                    layer=reg,
                    batch_size=config.batch_size,
                )
                for dtype in dtypes
                for reg in REGULARIZERS
            ]
        elif program == "plain":
            cases += [Case(program, n, batch_size=config.batch_size) for n in counts]
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


def measure(case: Case, model: str, device: jax.Device, target: Target) -> dict:
    """Compiles a case, and counts what a step of it does: of a layer, a pass both ways.

    Returns:
        kernels; bytes, that pass through memory; floor_seconds, which these take at the
        chip's bandwidth; cost_seconds, by the compiler, where it gives a cost, and at
        the bandwidth elsewhere; temporary_bytes, beside the arguments and results of
        the whole program; images; compile_seconds, here; products, how many of each.
    """
    compiled_later, arguments, num_images = prepare(case, model, device)
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
    record = [] if config.against is None else _read_record(config, config.against)
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
            rows.append(measure(case, config.model, device, target))
    print_tables(rows, target, console)
    result = {
        "environment": {**environment(), "device": target.title},
        "date": time.strftime("%Y-%m-%d"),
        "target": config.target,
        "model": config.model,
        "cases": rows,
    }
    if config.out is not None:
        save(config.out, result)
        console.print(f"Results: {config.out}")
    if config.against is not None:
        _compare(rows, record, config.against)
    return result


def _read_record(config: CompileConfig, against: Path) -> list[dict]:
    try:
        record = json.loads(against.read_text("utf-8"))
        for name in ("target", "model"):
            if record[name] != (wanted := getattr(config, name)):
                raise UsageError(
                    f"--against={against}: it is of {name} "
                    f"{words.show(record[name])}, not of {wanted}; name another file."
                )
        return record["cases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_results(against, error) from None


def _compare(rows: list[dict], record: list[dict], against: Path) -> None:
    try:
        lines = list_growth(rows, record)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_results(against, error) from None
    if lines:
        print(*lines, sep="\n", file=sys.stderr)
        sys.exit(1)


def _no_results(against: Path, error: Exception) -> UsageError:
    return UsageError(f"--against={against}: no results to compare with ({error}).")


def check(config: CompileConfig) -> None:
    """Raises for flags that cannot be followed.

    Raises:
        UsageError: names the flag, the value and the remedy.
    """
    check_choice("--target", config.target, list(TARGETS))
    check_choice("--program", config.program or PROGRAMS[0], PROGRAMS)
    check_choice("--model", config.model, list(MODELS))
    check_choice("--dtype", config.dtype or DTYPES[0], DTYPES)
    if config.seeds is not None and config.seeds < 1:
        raise UsageError(f"--seeds={config.seeds}: give a whole number of 1 or more.")
    if not 1 <= config.batch_size <= EPOCH_IMAGES:
        raise UsageError(
            f"--batch-size={config.batch_size}: give a whole number from 1 to "
            f"{EPOCH_IMAGES}, the images of CIFAR-10."
        )
    if config.out is not None:
        check_writable(config.out)


def print_tables(rows: list[dict], target: Target, console: Console) -> None:
    """Prints a table of whole programs, of regularizers and of layers."""
    console.print(
        f"{target.title}, by its compiler: counts and estimates, no times. Nothing ran."
    )
    tables = {
        "a step of training, all batches of an evaluation": list_programs(rows),
        "what a regularizer adds to a step: µs (of dropout)": list_regularizers(rows),
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
        if row["layer"]:
            continue
        what = f"{names[row['program']]}, {row['dtype']}"
        batch_size = row["images"] // row["seeds"]
        if row["program"] != "evaluate" and batch_size != Config.batch_size:
            what += f", batches of {batch_size}"
        run_seconds = row["cost_seconds"] / row["images"] * RUN_IMAGES
        products = sorted(row["products"].items(), key=lambda item: -item[1])
        lines.append(
            [
                what,
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


def list_regularizers(rows: list[dict]) -> list[list[str]]:
    """Returns the table of regularizers, its heading first.

    Microseconds by which the compiler's cost of a step is above that without one, and
    the ratios to those of dropout.
    """
    costs: dict[str, dict[str, float]] = collections.defaultdict(dict)
    for row in rows:
        if row["program"] == "regularizers":
            seeds = "seed" if row["seeds"] == 1 else "seeds"
            where = f"{row['seeds']} {seeds}, {row['dtype']}"
            costs[where][row["layer"]] = row["cost_seconds"]
    lines = [["", *costs]]
    for reg in REGULARIZERS[1:] if costs else ():
        line = [reg]
        for column in costs.values():
            added = column[reg] - column["none"]
            of_dropout = added / (column["dropout"] - column["none"])
            line.append(f"{_microseconds(added)} ({of_dropout:.2f})")
        lines.append(line)
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
            cost = _microseconds(column[layer])
            line.append(f"{cost} ({to_dropout:.2f}, {to_copy:.1f})")
        lines.append(line)
    return lines


def _microseconds(seconds: float) -> str:
    cost = 1e6 * seconds
    return f"{cost:,.{0 if abs(cost) >= 10 else 1}f}"
