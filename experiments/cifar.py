"""One command: trains the network with one regularizer, over one or more seeds.

python -m experiments.cifar --reg=water
"""

import contextlib
import dataclasses
import datetime
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console

from experiments import datasets, metrics, report, runs
from experiments.configs import DESCRIPTION, Config, UsageError, check, exit_codes
from experiments.progress import progress_bar
from experiments.training import Trainer, make_functions
from sounddrop_jax import ensembles
from sounddrop_jax.audio import AudioError


def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    config = tyro.cli(
        Config, prog="python -m experiments.cifar", description=DESCRIPTION
    )
    with exit_codes(interrupted="no result was written."):
        _share_cores(config.seeds)
        run(config)


def _share_cores(num_seeds: int) -> None:
    """Makes devices of a CPU's cores, where nobody chose another number of them.

    As many as there are cores, unless more than one in eight would run in vain, where
    the devices do not divide the seeds.
    """
    num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    counts = range(min(num_cores, num_seeds), 0, -1)
    num_devices = next((n for n in counts if -num_seeds % n <= num_seeds / 8), 1)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # Refused once JAX has started, as in a notebook: then it stays as it is.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", num_devices)


def run(config: Config) -> dict:
    """Trains and evaluates, and writes the five files that `runs` and `report` make.

    Returns:
        The result, as in result.json.

    Raises:
        UsageError: if a flag is at fault; nothing was written then.
    """
    check(config)
    if config.out is None:
        name = f"{config.reg}-{time.strftime('%Y%m%d-%H%M%S')}"
        config = dataclasses.replace(config, out=Path("runs", name))
    assert config.out is not None
    try:
        make_regularizer = config.arm.prepare(config.strength, config.audio)
    except AudioError as error:
        raise UsageError(f"--audio={error}") from None  # which begins with the file
    try:
        dataset = datasets.load(config.dataset, config.data_dir)
    except datasets.DatasetError as error:
        raise UsageError(str(error)) from None
    num_batches = len(dataset.train_labels) // config.batch_size
    if num_batches == 0:
        raise UsageError(
            f"--batch-size={config.batch_size}: the training set has only "
            f"{len(dataset.train_labels)} images; give at most that many."
        )
    steps_per_epoch = min(config.steps_per_epoch or num_batches, num_batches)
    runs.claim_folder(config.out)

    result = runs.describe(config, dataset)
    seeds = list(range(config.seed, config.seed + config.seeds))
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{config.reg} on {dataset.title} ({len(dataset.train_labels):,} images), "
        f"{config.seeds} seed{'s' if config.seeds > 1 else ''} from {config.seed}, "
        f"{result['environment']['device']}"
    )
    if config.reg == "aphex" and config.audio is None:
        console.print("No --audio: using a glitch track that the program synthesised.")

    functions = make_functions(
        dataset,
        make_regularizer,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dtype=config.dtype,
    )
    at_once = config.at_once
    if at_once is None and jax.default_backend() == "cpu":
        at_once = 1  # the fastest, see docs/performance.md
    epoch_losses, epoch_accuracies = [], []
    total_steps = config.epochs * steps_per_epoch
    start = time.perf_counter()
    with progress_bar(total_steps, console) as show:
        trainer = Trainer(
            functions,
            seeds,
            seeds_at_once=at_once,
            mesh=ensembles.make_mesh() if jax.device_count() > 1 else None,
        )
        for progress in trainer.train(config.epochs, steps_per_epoch):
            done = progress.epoch * steps_per_epoch + progress.step
            images_per_second = (
                done * config.batch_size * config.seeds / progress.seconds
            )
            text = (
                f"epoch {progress.epoch + 1}/{config.epochs}, "
                f"loss {progress.losses.mean():.4f}, {images_per_second:,.0f} images/s"
            )
            show(done, text)
            if progress.logits is None:
                continue
            logits = progress.logits
            accuracies = metrics.accuracy(logits, dataset.test_labels)
            epoch_losses.append(progress.losses)
            epoch_accuracies.append(accuracies)
            runs.append_metrics(
                config.out,
                {
                    "epoch": progress.epoch + 1,
                    "train_loss": progress.losses.tolist(),
                    "test_accuracy": accuracies.tolist(),
                    "seconds": progress.seconds,
                },
            )
            elapsed = time.perf_counter() - start - trainer.compile_seconds
            left = datetime.timedelta(
                seconds=round(elapsed * (total_steps - done) / done)
            )
            console.print(
                f"Epoch [{progress.epoch + 1}/{config.epochs}], "
                f"Loss: {progress.losses.mean():.4f}, "
                f"Accuracy: {accuracies.mean():.2f}%, "
                f"{images_per_second:,.0f} images/s, {left} left"
            )

    result["runs"] = [
        {
            "seed": seed,
            "train_loss": losses.tolist(),
            "test_accuracy": accuracies.tolist(),
            "peak_accuracy": float(accuracies.max()),
            **metrics.score(seed_logits, dataset.test_labels),
        }
        for seed, losses, accuracies, seed_logits in zip(
            seeds,
            np.transpose(epoch_losses),
            np.transpose(epoch_accuracies),
            logits,
            strict=True,
        )
    ]
    result["summary"] = runs.summarize(result["runs"])
    result["seconds"] = {
        "compile": round(trainer.compile_seconds, 3),
        "train": round(progress.seconds, 3),
    }
    result["images_per_second"] = round(images_per_second, 1)
    runs.save_predictions(config.out, logits, dataset.test_labels, seeds)
    report.plot_losses(result, config.out / "loss.png")
    report.plot_confusion(result, config.out / "confusion.png")
    runs.save_result(config.out, result)
    console.print(f"Results: {config.out}")
    for line in runs.seed_table(result) + runs.closing_lines(result):
        console.print(line)
    return result


if __name__ == "__main__":
    main()
