"""What a run writes: a folder of files, and lines on the terminal."""

import contextlib
import dataclasses
import json
import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import pydantic
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic's own need, on Python 3.11

from experiments import files, values
from experiments.cli import UsageError
from experiments.data import arrays
from experiments.data.dataset import Dataset, describe_dataset
from experiments.files import dumps, write_json
from experiments.pictures import runs as run_pictures
from experiments.runs import checkpoints
from experiments.runs.configs import LARGEST, Config
from experiments.runs.environment import environment
from experiments.training.regularizers import REGULARIZERS
from experiments.words import name_seeds, reason

RESULT = "result.json"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Curve = Annotated[list[Number | None], Field(min_length=1)]


class _Open(TypedDict):
    """A table with entries of its own besides those that are read again."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]


class Settings(_Open):
    """See `describe`."""

    reg: Literal[tuple(REGULARIZERS)]  # type: ignore[valid-type]
    model: NotRequired[str]
    audio: str | None
    strength: Annotated[Number, Field(ge=0)]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    steps_per_epoch: Annotated[int, Field(ge=1)] | None
    distributed: bool


class Set(_Open):
    """See `dataset.describe_dataset`."""

    title: str
    fingerprint: str
    train_size: int
    test_size: int
    class_names: list[str]


class Run(_Open):
    """See `metrics.score`, and `runner`."""

    seed: int
    diverged: bool
    train_loss: Curve
    test_accuracy: Curve
    accuracy: Annotated[float, Field(ge=0, le=100)]
    peak_accuracy: Number | None
    confusion: list[list[Annotated[int, Field(ge=0, lt=2**63)]]]


class Result(_Open):
    """What result.json says that is read again."""

    config: Settings
    dataset: Set
    environment: dict[str, Any]
    runs: Annotated[list[Run], Field(min_length=1)]
    summary: dict[str, Number | list[int] | None]


_RESULT = pydantic.TypeAdapter(Result)


@contextlib.contextmanager
def claim_folder(out: Path, *, resume: bool = False) -> Iterator[None]:
    """Makes the folder of a run and keeps other processes out of it.

    Args:
        out: the folder.
        resume: whether it may hold a run, finished or not, which stays as it is.

    Raises:
        UsageError: if it holds another run, is in use, is a file, or cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            # Before anything is made, and again when nobody else can write there.
            _check_folder(out, resume)
            files.make_folder(out)
            stack.enter_context(files.lock(out))
            _check_folder(out, resume)
            files.remove_leftovers(out)
            if not resume:
                write_metrics(out, [])
        except OSError as error:
            raise UsageError(
                f"--out={out}: cannot be written ({error.strerror}); name another "
                "folder."
            ) from None
        yield


def _check_folder(out: Path, resume: bool) -> None:
    for path in (out / RESULT, out / METRICS, out / PREDICTIONS):
        # To write to a pipe is to wait for a reader, and a link leads elsewhere.
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise UsageError(
                f"--out={out}: {path.name} in it is no file, but a folder, a link, a "
                "pipe or a device; name another folder."
            )
    if resume:
        if checkpoints.exist(out) and not (out / METRICS).exists():
            raise UsageError(
                f"--out={out}: the checkpoints in it were not written by "
                "experiments.cifar; name another folder."
            )
    elif os.path.lexists(out / RESULT):
        raise UsageError(
            f"--out={out}: it already holds a result; name another folder, or remove "
            "this one."
        )
    elif checkpoints.exist(out):
        raise UsageError(
            f"--out={out}: it holds an unfinished run; go on with it by --resume, name "
            "another folder, or remove this one."
        )


def write_metrics(out: Path, records: list[dict]) -> None:
    """Writes metrics.jsonl anew, whole or not at all."""
    lines = (dumps(record) + "\n" for record in records)
    with files.replacing(out / METRICS) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def append_metrics(out: Path, record: dict) -> None:
    """Adds one line to metrics.jsonl."""
    files.append_lines(out / METRICS, [dumps(record)])


def save_predictions(
    out: Path, logits: np.ndarray, labels: np.ndarray, seeds: list[int]
) -> None:
    """Writes predictions.npz, whole or not at all.

    Args:
        out: the run's folder.
        logits: float32 `[S, M, num_classes]`.
        labels: int32 `[M]`.
        seeds: of length S.
    """
    arrays: Any = {"logits": logits, "labels": labels, "seeds": np.asarray(seeds)}
    path = out / PREDICTIONS
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def save_result(out: Path, result: dict) -> None:
    """Writes result.json, whole or not at all."""
    write_json(out / RESULT, result)


def read_result(out: Path) -> dict:
    """Reads result.json.

    Raises:
        UsageError: if it cannot be read, or says something else; the entry is named.
    """
    try:
        result = json.loads(files.read(out / RESULT).decode())
        values.read(_RESULT, result)
        # Before there were others, a network was the cnn.
        return result | {"config": {"model": "cnn"} | result["config"]}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{out / RESULT}: damaged ({reason(error).removesuffix('.')}); restore it, "
            "or name another folder."
        ) from None


def read_records(result: dict) -> tuple[list[int], list[dict]]:
    """Returns the seeds of a finished run, and its records as in metrics.jsonl.

    How many seconds each epoch took is not among them: they are 0.
    """
    runs = result["runs"]
    columns = (
        zip(*(run[name] for run in runs), strict=False)
        for name in ("train_loss", "test_accuracy")
    )
    return [run["seed"] for run in runs], [
        {"epoch": epoch, "train_loss": loss, "test_accuracy": accuracy, "seconds": 0.0}
        for epoch, (loss, accuracy) in enumerate(zip(*columns, strict=False), 1)
    ]


def describe(config: Config, dataset: Dataset) -> dict:
    """Describes a run: config, dataset, environment."""
    settings = dataclasses.asdict(config) | {"strength": config.strength}
    # Folders are this machine's own business, and not needed to tell runs apart.
    settings["audio"] = None if config.audio is None else Path(config.audio).name
    if config.dataset.endswith(arrays.SUFFIX):
        settings["dataset"] = Path(config.dataset).name
    for name in ("data_dir", "out", "resume", "tensorboard"):
        del settings[name]
    return {
        "config": settings,
        "dataset": describe_dataset(dataset),
        "environment": environment(),
    }


def describe_numbers(result: dict) -> dict[str, Any]:
    """Selects from a result what its numbers depend on.

    Args:
        result: as `describe` returns it.

    Returns:
        Plain Python, by flag. A recording is not among it: its name says too little.
    """
    config, dataset = result["config"], result["dataset"]
    others = ("seeds_at_once", "distributed", "audio", "intensity", "rate")
    settings = {name: value for name, value in config.items() if name not in others}
    strength = settings.pop("strength")
    if name := Config(reg=config["reg"]).recipe.strength:
        settings[name] = strength
    settings["steps_per_epoch"] = count_steps(config, dataset["train_size"])
    settings["dataset"] = f"{dataset['title']} ({dataset['fingerprint'][:12]})"
    return {f"--{name.replace('_', '-')}": value for name, value in settings.items()}


def count_steps(config: Mapping[str, Any], train_size: int) -> int:
    """Counts the steps of an epoch: as many as were asked for, in whole batches."""
    num_batches = train_size // config["batch_size"]
    return min(config["steps_per_epoch"] or num_batches, num_batches)


def summarize(runs: list[dict]) -> dict:
    """Summarises the accuracies of several seeds, those that diverged left out.

    Returns:
        n, and the mean, sample standard deviation (None for one seed), lowest and
        highest accuracy in percent, all None if n is 0; and the seeds that diverged.
    """
    accuracies = np.array([run["accuracy"] for run in _converged(runs)])
    n = len(accuracies)
    return {
        "n": n,
        "accuracy_mean": float(accuracies.mean()) if n else None,
        "accuracy_std": float(accuracies.std(ddof=1)) if n > 1 else None,
        "accuracy_min": float(accuracies.min()) if n else None,
        "accuracy_max": float(accuracies.max()) if n else None,
        "diverged": [run["seed"] for run in runs if run["diverged"]],
    }


def _converged(runs: list[dict]) -> list[dict]:
    return [run for run in runs if not run["diverged"]]


def seed_table(result: dict) -> list[str]:
    """Returns a table of the seeds: last training loss, last and peak accuracy."""
    rows = [
        f"{run['seed']:>10}  {run['train_loss'][-1]:6.4f}  "
        f"{run['accuracy']:8.2f}%  {run['peak_accuracy']:6.2f}%"
        f"{'  diverged' if run['diverged'] else ''}"
        for run in result["runs"]
    ]
    return [f"{'seed':>10}  {'loss':>6}  {'accuracy':>9}  {'peak':>7}", *rows]


def closing_lines(result: dict) -> list[str]:
    """Returns the lines that a run ends with, those of the original for one seed."""
    runs, summary = _converged(result["runs"]), result["summary"]
    lines = []
    if summary["diverged"]:
        who = name_seeds(summary["diverged"])
        lines = [f"Diverged, and left out: {who} of {len(result['runs'])}."]
    if summary["n"] == 0:
        return [*lines, "No network is left to score."]
    if summary["n"] == 1:
        run = runs[0]
        return [
            *lines,
            f"Accuracy: {run['accuracy']:.2f}%",
            f"Precision: {run['precision']:.4f}, Recall: {run['recall']:.4f}, "
            f"F1: {run['f1']:.4f}",
        ]

    def spread(name: str, digits: int) -> str:
        values = np.array([run[name] for run in runs])
        return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"

    return [
        *lines,
        f"Accuracy: {spread('accuracy', 2)}% over {summary['n']} seeds "
        f"(worst {summary['accuracy_min']:.2f}%, best {summary['accuracy_max']:.2f}%)",
        f"Precision: {spread('precision', 4)}, Recall: {spread('recall', 4)}, "
        f"F1: {spread('f1', 4)}",
    ]


def next_lines(config: Config, out: Path, result: dict) -> list[str]:
    """Returns three lines: what lies where, which to open first, what to try next.

    The commands in them can be given as they stand.
    """
    pictures = [name for name in run_pictures.FILES if (out / name).exists()]
    shown = [name for name in pictures if name.endswith(".png")] or [RESULT]
    lines = [
        f"Results: {_quote(out)}, with scores and curves in {RESULT} and {METRICS}, "
        f"test logits in {PREDICTIONS}"
        + (", pictures as PNG and SVG." if pictures else "."),
        f"Open first: {_quote(out / shown[0])}" + ", then ".join(["", *shown[1:]]),
    ]
    dataset = config.dataset
    if dataset == "auto":  # which may not find the same again
        dataset = result["dataset"]["name"]
    if result["summary"]["n"] == 0:
        slower = dataclasses.replace(
            config,
            dataset=dataset,
            learning_rate=float(f"{config.learning_rate / 10:.3g}"),
            out=Path(f"{out}-slower"),
        )
        return [*lines, f"Next, a lower learning rate: {_command(slower)}"]
    reg = "water" if config.reg == "none" else "none"
    beside = Path(f"{out}-{reg}")
    other = dataclasses.replace(
        config,
        reg=reg,
        dataset=dataset,
        intensity=None,
        rate=None,
        audio=None,
        out=beside,
    )
    first, second = (beside, out) if reg == "none" else (out, beside)
    return [
        *lines,
        f"Next, train {reg} with the same seeds and compare the two (more than two, by "
        f"docs/study.md): {_command(other)} && python -m experiments.report "
        f"{_quote(first)} {_quote(second)}",
    ]


def _command(config: Config) -> str:
    """Writes the command that makes a run of this process alone."""
    flags = [shlex.quote(f"--reg={config.reg}")]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default or field.name in ("reg", "resume", "distributed"):
            continue
        flag = f"--{field.name.replace('_', '-')}"
        flags.append(flag if value is True else shlex.quote(f"{flag}={value}"))
    return " ".join(["python -m experiments.cifar", *flags])


def _quote(path: Path) -> str:
    """Writes a path as a shell takes it, and no command for a flag."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
