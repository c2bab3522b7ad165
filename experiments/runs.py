"""What a run leaves behind: a folder of five files, and the words on the terminal."""

import dataclasses
import json
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from experiments.configs import Config, UsageError
from experiments.datasets import Dataset

RESULT = "result.json"


def claim_folder(out: Path) -> None:
    """Makes the folder of a run, which must not hold a result yet.

    Raises:
        UsageError: if it holds one, is a file, or cannot be written.
    """
    try:
        holds_result = (out / RESULT).exists()
        if not holds_result:
            out.mkdir(parents=True, exist_ok=True)
            (out / "metrics.jsonl").write_text("")
    except OSError as error:
        raise UsageError(
            f"--out={out}: cannot be written ({error.strerror}); name another folder."
        ) from None
    if holds_result:
        raise UsageError(
            f"--out={out}: it already holds a result; name another folder, or remove "
            "this one."
        )


def append_metrics(out: Path, record: dict) -> None:
    """Adds one line to metrics.jsonl."""
    with open(out / "metrics.jsonl", "a") as file:
        file.write(dumps(record) + "\n")


def save_predictions(
    out: Path, logits: np.ndarray, labels: np.ndarray, seeds: list[int]
) -> None:
    """Writes predictions.npz.

    Args:
        out: the run's folder.
        logits: float32 `[S, M, num_classes]`.
        labels: int32 `[M]`.
        seeds: of length S.
    """
    np.savez_compressed(
        out / "predictions.npz", logits=logits, labels=labels, seeds=np.asarray(seeds)
    )


def save_result(out: Path, result: dict) -> None:
    """Writes result.json, whole or not at all."""
    write_json(out / RESULT, result)


def write_json(path: Path, value: Any) -> None:
    """Writes a file of JSON, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def dumps(value: Any, indent: int | None = None) -> str:
    """Writes JSON that any reader takes: what is NaN or infinite becomes null."""

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return json.dumps(clean(value), indent=indent, allow_nan=False)


def describe(config: Config, dataset: Dataset) -> dict:
    """Describes a run: config, dataset, environment."""
    settings = dataclasses.asdict(config) | {"strength": config.strength}
    # Folders are this machine's own business, and not needed to tell runs apart.
    settings["out"] = None if config.out is None else config.out.name
    settings["audio"] = None if config.audio is None else Path(config.audio).name
    del settings["data_dir"]
    return {
        "config": settings,
        "dataset": describe_dataset(dataset),
        "environment": environment(),
    }


def describe_dataset(dataset: Dataset) -> dict:
    """Describes a dataset: names, fingerprint, sizes."""
    return {
        "name": dataset.name,
        "title": dataset.title,
        "fingerprint": dataset.fingerprint,
        "train_size": len(dataset.train_labels),
        "test_size": len(dataset.test_labels),
        "class_names": list(dataset.class_names),
    }


def environment() -> dict:
    """Describes the software and the device that numbers come from."""
    import flax
    import jax

    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "device": f"{device.device_kind} x{jax.device_count()}",
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "commit": commit(),
    }


def commit() -> str | None:
    """Returns the commit that the code is at, marked if it was changed since."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def summarize(runs: list[dict]) -> dict:
    """Summarises the accuracies of several seeds.

    Returns:
        n, and the mean, sample standard deviation (None for one seed), lowest and
        highest accuracy in percent.
    """
    accuracies = np.array([run["accuracy"] for run in runs])
    return {
        "n": len(runs),
        "accuracy_mean": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std(ddof=1)) if len(runs) > 1 else None,
        "accuracy_min": float(accuracies.min()),
        "accuracy_max": float(accuracies.max()),
    }


def seed_table(result: dict) -> list[str]:
    """Returns a table of the seeds: last training loss, last and peak accuracy."""
    rows = [
        f"{run['seed']:>10}  {run['train_loss'][-1]:.4f}  "
        f"{run['accuracy']:8.2f}%  {run['peak_accuracy']:6.2f}%"
        for run in result["runs"]
    ]
    return [f"{'seed':>10}  {'loss':>6}  {'accuracy':>9}  {'peak':>7}", *rows]


def closing_lines(result: dict) -> list[str]:
    """Returns the lines that a run ends with, those of the original for one seed."""
    runs, summary = result["runs"], result["summary"]
    if summary["n"] == 1:
        run = runs[0]
        return [
            f"Accuracy: {run['accuracy']:.2f}%",
            f"Precision: {run['precision']:.4f}, Recall: {run['recall']:.4f}, "
            f"F1: {run['f1']:.4f}",
        ]

    def spread(name: str, digits: int) -> str:
        values = np.array([run[name] for run in runs])
        return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"

    return [
        f"Accuracy: {spread('accuracy', 2)}% over {summary['n']} seeds "
        f"(worst {summary['accuracy_min']:.2f}%, best {summary['accuracy_max']:.2f}%)",
        f"Precision: {spread('precision', 4)}, Recall: {spread('recall', 4)}, "
        f"F1: {spread('f1', 4)}",
    ]
