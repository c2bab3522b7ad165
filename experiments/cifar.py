"""One command: trains the network with one regularizer, over one or more seeds.

python -m experiments.cifar --reg=water
"""

import contextlib
import dataclasses
import datetime
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from rich.console import Console

from experiments import caches, datasets, metrics, processes, report, runs
from experiments.configs import DESCRIPTION, Config, UsageError, check, exit_codes
from experiments.progress import progress_bar
from experiments.training import Trainer, make_functions
from sounddrop_jax.audio import AudioError


def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    config = tyro.cli(
        Config, prog="python -m experiments.cifar", description=DESCRIPTION
    )
    with processes.leave_the_others(), exit_codes(interrupted="no result was written."):
        caches.keep_programs()
        if config.distributed:
            processes.join()
        processes.share_cores(config.seeds)
        try:
            run(config)
        except KeyboardInterrupt:
            if processes.is_first():
                raise
            sys.exit(130)


class Plan(NamedTuple):
    """What flags and files come to.

    Attributes:
        config: with a folder.
        dataset: of type `Dataset`.
        make_regularizer: see `models.Network`.
        steps_per_epoch: as many as there are to do.
    """

    config: Config
    dataset: datasets.Dataset
    make_regularizer: Callable[..., Any]
    steps_per_epoch: int


def _prepare(config: Config, is_first: bool) -> Plan:
    check(config)
    if config.out is None:
        name = f"{config.reg}-{time.strftime('%Y%m%d-%H%M%S')}"
        config = dataclasses.replace(config, out=Path("runs", name))
    try:
        settings = {"audio": config.audio} if config.reg == "aphex" else {}
        make_regularizer = config.recipe.prepare(config.strength, **settings)
    except AudioError as error:
        raise UsageError(f"--audio={error}") from None  # which begins with the file
    try:
        with contextlib.redirect_stderr(sys.stderr if is_first else io.StringIO()):
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
    return Plan(config, dataset, make_regularizer, steps_per_epoch)


def run(config: Config) -> dict:
    """Trains and evaluates, and writes the five files that `runs` and `report` make.

    Of several processes the first writes and prints.

    Returns:
        The result, as in result.json.

    Raises:
        UsageError: if a flag is at fault; nothing was written then.
    """
    is_first = processes.is_first()
    plan = processes.together(lambda: _prepare(config, is_first), config.seeds)
    config, dataset = plan.config, plan.dataset
    out = config.out
    assert out is not None
    result = runs.describe(config, dataset)
    processes.check_alike(
        [result["config"] | {"out": None}, result["dataset"]], config.seeds
    )
    processes.together(
        lambda: runs.claim_folder(out) if is_first else None, config.seeds
    )
    seeds = list(range(config.seed, config.seed + config.seeds))
    console = Console(highlight=False, soft_wrap=True, quiet=not is_first)
    console.print(
        f"{config.reg} on {dataset.title} ({len(dataset.train_labels):,} images), "
        f"{config.seeds} seed{'s' if config.seeds > 1 else ''} from {config.seed}, "
        f"{result['environment']['device']}"
    )
    if config.reg == "aphex" and config.audio is None:
        console.print("No --audio: using a glitch track that the program synthesised.")

    functions = make_functions(
        dataset,
        plan.make_regularizer,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dtype=config.dtype,
    )
    epoch_losses, epoch_accuracies = [], []
    total_steps = config.epochs * plan.steps_per_epoch
    start = time.perf_counter()
    with progress_bar(total_steps, console) as show:
        trainer = Trainer(
            functions,
            seeds,
            seeds_at_once=config.at_once or processes.choose_seeds_at_once(),
            mesh=processes.make_mesh(config.seeds),
        )
        for progress in trainer.train(config.epochs, plan.steps_per_epoch):
            done = progress.epoch * plan.steps_per_epoch + progress.step
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
            record = {
                "epoch": progress.epoch + 1,
                "train_loss": progress.losses.tolist(),
                "test_accuracy": accuracies.tolist(),
                "seconds": progress.seconds,
            }
            if is_first:
                runs.append_metrics(out, record)
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
    if is_first:
        runs.save_predictions(out, logits, dataset.test_labels, seeds)
        report.plot_losses(result, out / "loss.png")
        report.plot_confusion(result, out / "confusion.png")
        runs.save_result(out, result)
    console.print(f"Results: {out}")
    for line in runs.seed_table(result) + runs.closing_lines(result):
        console.print(line)
    return result


if __name__ == "__main__":
    main()
