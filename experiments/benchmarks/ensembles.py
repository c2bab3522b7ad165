"""How fast many networks train: ours, plain JAX and PyTorch, in turn.

python -m experiments.benchmark ensemble --out=ensemble.json

Every contestant has a process of its own, and only the one whose turn it is works.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import math
import platform
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import terminal
from experiments.benchmarks import workers
from experiments.benchmarks.contestants import (
    BATCH_SIZE,
    JAX,
    OURS,
    REGS,
    TORCH_MODELS,
    Contestant,
    plan,
)
from experiments.benchmarks.first_step import time_first_step
from experiments.benchmarks.flops import count_flops
from experiments.benchmarks.layers import check_writable, save
from experiments.benchmarks.workers import Team, WorkerError
from experiments.cli import DataDir, UsageError, check_choice, choices, flag
from experiments.cores import available_cores
from experiments.data import datasets
from experiments.data.dataset import Dataset
from experiments.runs.configs import DTYPES
from experiments.training.models import MODELS

NUM_EPOCHS = 10  # of a complete run
TABLE_WIDTH = 110  # where nobody knows how wide the screen is
OF_CIFAR = ("reg", "model", "dtype", "dataset")  # flags that experiments.cifar has


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Times whole training steps of one network and of many: ours, JAX, PyTorch."""

    out: Annotated[Path | None, flag("File for the results, JSON.", "FILE")] = None
    reg: Annotated[
        str,
        flag(
            "Regularizer; PyTorch is timed without one as well. Default: water.",
            choices(REGS),
        ),
    ] = "water"
    model: Annotated[
        str,
        flag(
            "Network, as in experiments.cifar; PyTorch has no vit. Default: cnn.",
            choices(MODELS),
        ),
    ] = "cnn"
    dataset: Annotated[
        str,
        flag(
            "As in experiments.cifar. Default: auto.",
            choices((*datasets.CHOICES, *datasets.OWN)),
        ),
    ] = "auto"
    data_dir: DataDir = None
    dtype: Annotated[
        str, flag("As in experiments.cifar. Default: float32.", choices(DTYPES))
    ] = "float32"
    max_seeds: Annotated[
        int | None,
        flag(
            "Largest number of networks; the smaller ones are powers of 2, on a GPU "
            "of 4. Default: 16 on a CPU, 256 on a GPU.",
            "INT",
        ),
    ] = None
    rounds: Annotated[
        int, flag("How often each contestant is timed; the median is reported.")
    ] = 5
    seconds: Annotated[float, flag("About how long each timing lasts.")] = 3.0


def run_ensemble(config: EnsembleConfig) -> dict:
    """Times every contestant, and prints and writes each case when it is done.

    Returns:
        The results, as in the file.

    Raises:
        UsageError: if a flag is at fault, or ours does not run.
    """
    check(config)
    dataset = datasets.load(config.dataset, config.data_dir)
    console = terminal.make_console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        workers.save_dataset(dataset, folder)
        try:
            ceiling_settings = {"matmul": {"dtype": config.dtype}, "copy": {}}
            ceilings = {
                name: stack.enter_context(
                    workers.start_team(f"{JAX}:prepare_{name}", settings)
                )
                for name, settings in ceiling_settings.items()
            }
            about = ceilings["matmul"].about
            result = describe(config, dataset, about["environment"])
            console.print(
                f"Training steps of {config.model} with --reg={config.reg}, "
                f"{config.dtype}, on {dataset.title}, "
                f"{result['environment']['device']}, {result['environment']['cpu']}"
            )
            if result["environment"]["torch"] is None:
                console.print(
                    "PyTorch is not installed, and left out: pip install -e '.[bench]'"
                )
            elif config.model not in TORCH_MODELS:
                console.print(f"PyTorch is left out: it has no {config.model} here")
            flops = result["flops_per_image"]
            steps = result["dataset"]["train_size"] // BATCH_SIZE
            cases = plan(
                config.reg,
                config.model,
                config.dtype,
                config.max_seeds,
                about["platform"],
                folder,
            )
            for num_seeds, contestants in cases:
                case = run_case(config, num_seeds, contestants, ceilings, console)
                summarize(case, flops_per_image=flops, steps_per_epoch=steps)
                result["cases"].append(case)
                console.print(make_table(case))
                if config.out is not None:
                    save(config.out, result)
            console.print("Starting experiments.cifar twice, for its first step")
            flags = [f"--{name}={getattr(config, name)}" for name in OF_CIFAR]
            if config.data_dir is not None:
                flags.append(f"--data-dir={Path(config.data_dir).resolve()}")
            result["first_step"] = time_first_step(flags)
        except WorkerError as error:
            raise UsageError(f"the benchmark failed: {error}.") from None
    seconds = {name: each["seconds"] for name, each in result["first_step"].items()}
    console.print(
        f"One step of experiments.cifar, from start to end: {seconds['cold']:.1f} s, "
        f"{seconds['warm']:.1f} s with what that has kept"
    )
    if config.out is not None:
        save(config.out, result)
        console.print(f"Results: {config.out}")
    return result


def check(config: EnsembleConfig) -> None:
    """Validates the settings, see `run_ensemble`."""
    check_choice("--reg", config.reg, REGS)
    check_choice("--model", config.model, list(MODELS))
    check_choice("--dtype", config.dtype, DTYPES)
    for name, count in ("--rounds", config.rounds), ("--max-seeds", config.max_seeds):
        if count is not None and not 1 <= count < 2**31:
            raise UsageError(
                f"{name}={count}: give a whole number of 1 or more, below 2^31."
            )
    if not 0 < config.seconds < math.inf:
        raise UsageError(f"--seconds={config.seconds}: give a finite number above 0.")
    if config.out is not None:
        check_writable(config.out)


def describe(
    config: EnsembleConfig, dataset: Dataset, environment: dict
) -> dict[str, Any]:
    """Describes a run, as yet without a result."""
    has_torch = importlib.util.find_spec("torch") is not None
    return {
        "environment": environment
        | {
            "cpu": cpu_model(),
            "cores": len(available_cores()),
            "numpy": np.__version__,
            "torch": importlib.metadata.version("torch") if has_torch else None,
        },
        "date": time.strftime("%Y-%m-%d"),
        "reg": config.reg,
        "model": config.model,
        "batch_size": BATCH_SIZE,
        "epochs": NUM_EPOCHS,
        "rounds": config.rounds,
        "seconds_per_turn": config.seconds,
        "dtype": config.dtype,
        "flops_per_image": count_flops(
            config.model, dataset.train_images.shape[1:], len(dataset.class_names)
        ),
        "dataset": {
            "name": dataset.name,
            "title": dataset.title,
            "fingerprint": dataset.fingerprint,
            "train_size": len(dataset.train_labels),
        },
        "cases": [],
    }


def cpu_model() -> str:
    """Returns the processor's name, as the system has it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# The turns


def run_case(
    config: EnsembleConfig,
    num_seeds: int,
    contestants: list[Contestant],
    ceilings: dict[str, Team],
    console: Console,
) -> dict[str, Any]:
    """Times all contestants at one number of seeds, and the ceilings among them.

    Returns:
        The case, with what each worker did in each round; see `summarize`.

    Raises:
        WorkerError: if ours fails. Another that does is left out, and says why.
    """
    case: dict[str, Any] = {"num_seeds": num_seeds, "ceilings": {}, "contestants": []}
    case["failures"] = {}
    total = len(contestants) + config.rounds
    with contextlib.ExitStack() as stack, terminal.progress_bar(total, console) as show:
        teams, num_steps, rows = dict(ceilings), {}, {}
        for index, contestant in enumerate(contestants):
            show(index, f"{_seeds(num_seeds)}, preparing {contestant.name}")
            name, prepare, settings, cores = contestant
            try:
                teams[name] = stack.enter_context(
                    workers.start_team(prepare, settings, cores)
                )
                num_steps[name] = choose_steps(teams[name], config.seconds)
            except WorkerError as error:
                if name == OURS:
                    raise
                teams.pop(name, None)
                case["failures"][name] = str(error)
                continue
            rows[name] = {
                "contestant": name,
                "num_processes": len(contestant.cores),
                "compile_seconds": teams[name].compile_seconds,
                **teams[name].about,
                "turns": [],
            }
        for name, ceiling in ceilings.items():
            num_steps[name] = choose_steps(ceiling, config.seconds)
            rows[name] = {"turns": []}
        for index in range(config.rounds):
            for name, team in list(teams.items()):
                show(len(contestants) + index, f"{_seeds(num_seeds)}, {name}")
                try:
                    turns = team.take_turn(num_steps[name])
                except WorkerError as error:
                    if name in (OURS, *ceilings):
                        raise
                    case["failures"][name] = str(error)
                    del teams[name], rows[name]
                    continue
                rows[name]["turns"].append([turn._asdict() for turn in turns])
    case["ceilings"] = {name: rows.pop(name) for name in ceilings}
    case["contestants"] = list(rows.values())
    return case


def choose_steps(team: Team, seconds: float) -> int:
    """Warms a team up, and finds how many steps take about so many seconds."""

    def seconds_per_step(num_steps: int) -> float:
        return max(turn.seconds for turn in team.take_turn(num_steps)) / num_steps

    seconds_per_step(1)
    each = seconds_per_step(1)
    if each < seconds / 10:
        # The first steps may have been slow for reasons of their own.
        each = seconds_per_step(max(1, round(seconds / 5 / each)))
    return max(1, round(seconds / each))


def summarize(
    case: dict[str, Any], *, flops_per_image: int, steps_per_epoch: int
) -> None:
    """Adds to a case what follows from its turns.

    To the ceilings `per_second`, in FLOP and bytes, and to the contestants
    `images_per_second`, of all workers, and `to_ours`, the ratio round by round: each
    the three quartiles. Also `seconds_per_run`, what a network's complete run costs
    where so many share the compilation and the machine; `peak_bytes`, of all workers;
    and `of_matmul`, the network's products as a share of the ceiling.
    """

    def rates(row: dict) -> np.ndarray:
        return np.array(
            [
                sum(turn["amount"] / turn["seconds"] for turn in turns)
                for turns in row["turns"]
            ]
        )

    for ceiling in case["ceilings"].values():
        ceiling["per_second"] = _quartiles(rates(ceiling))
    ours = rates(case["contestants"][0])
    for row in case["contestants"]:
        own = rates(row)
        num_images = NUM_EPOCHS * steps_per_epoch * BATCH_SIZE
        flops = rates(row) * flops_per_image
        row["images_per_second"] = _quartiles(own)
        row["to_ours"] = _quartiles(own / ours)
        row["seconds_per_run"] = float(
            num_images / np.median(own) + row["compile_seconds"] / case["num_seeds"]
        )
        row["peak_bytes"] = max(
            sum(turn["peak_bytes"] for turn in turns) for turns in row["turns"]
        )
        row["of_matmul"] = float(np.median(flops / rates(case["ceilings"]["matmul"])))


def _quartiles(values: np.ndarray) -> list[float]:
    return np.percentile(values, [25, 50, 75]).tolist()


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def make_table(case: dict[str, Any]) -> Table:
    """Makes the table of one number of seeds."""
    matmul, copy = (
        case["ceilings"][name]["per_second"][1] for name in ("matmul", "copy")
    )
    table = Table(
        title=f"{_seeds(case['num_seeds'])}; products {matmul / 1e9:,.0f} GFLOP/s, "
        f"copies {copy / 1e9:,.1f} GB/s",
        caption="\n".join(f"{n}: failed, {e}" for n, e in case["failures"].items())
        or None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for heading in (
        "images/s",
        "quartiles",
        "of ours",
        "s a run",
        "compiling",
        "MiB",
        "of products",
    ):
        table.add_column(heading, justify="right")
    for row in case["contestants"]:
        low, median, high = row["images_per_second"]
        table.add_row(
            row["contestant"],
            f"{median:,.0f}",
            f"{low:,.0f}-{high:,.0f}",
            f"{row['to_ours'][1]:.2f}",
            f"{row['seconds_per_run']:,.1f}",
            f"{row['compile_seconds']:.1f} s",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['of_matmul']:.1%}",
        )
    return table
