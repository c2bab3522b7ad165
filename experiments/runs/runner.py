"""A run: trains the networks of successive seeds, and writes their results."""

import contextlib
import datetime
import io
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments import files, terminal, words
from experiments.cli import Interrupted, Signals, UsageError
from experiments.data import datasets
from experiments.data.dataset import Dataset
from experiments.pictures import runs as run_pictures
from experiments.runs import checkpoints, outputs, processes, tensorboard
from experiments.runs.checkpoints import Checkpoint, Checkpoints
from experiments.runs.configs import Config, check
from experiments.training import devices, memory, metrics
from experiments.training.steps import Functions, make_functions
from experiments.training.trainer import Progress, Trainer
from sounddrop_jax.audio import AudioError


class Setup(NamedTuple):
    """What a run needs before it trains, validated.

    Attributes:
        config: as flags gave it.
        out: folder of the run.
        dataset: of type `Dataset`.
        functions: of one network.
        steps_per_epoch: as many as there are to do.
    """

    config: Config
    out: Path
    dataset: Dataset
    functions: Functions
    steps_per_epoch: int


class Training(NamedTuple):
    """How a training went.

    Attributes:
        records: one an epoch, as in metrics.jsonl but with NaN and infinity.
        logits: float32 `[S, M, num_classes]`, of the last evaluation.
        compile_seconds: of the process that finished it.
        train_seconds: of training steps alone, before and after interruptions.
        images_per_second: of training.
    """

    records: list[dict]
    logits: np.ndarray
    compile_seconds: float
    train_seconds: float
    images_per_second: float


def _prepare(config: Config, is_first: bool) -> Setup:
    check(config)
    out = config.out
    if out is None:
        # Runs that start in the same second, on any machine, have folders of their own.
        code = secrets.token_hex(3)
        name = f"{config.reg}-{time.strftime('%Y%m%d-%H%M%S')}-{code}"
        out = Path("runs", name)
    try:
        make_regularizer = config.recipe.prepare(config.strength, **config.settings)
    except AudioError as error:
        raise UsageError(f"--audio={error}") from None  # which begins with the file
    with contextlib.redirect_stderr(sys.stderr if is_first else io.StringIO()):
        dataset = datasets.load(config.dataset, config.data_dir)
    steps_per_epoch = outputs.count_steps(vars(config), len(dataset.train_labels))
    if steps_per_epoch == 0:
        raise UsageError(
            f"--batch-size={config.batch_size}: the training set has only "
            f"{len(dataset.train_labels)} images; give at most that many."
        )
    functions = make_functions(
        dataset,
        make_regularizer,
        model=config.model,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        dtype=config.dtype,
    )
    memory.check_seeds(functions, config.seed, config.seeds)
    return Setup(config, out, dataset, functions, steps_per_epoch)


def run(config: Config) -> dict:
    """Trains and evaluates, and writes the files of a run.

    Of several processes the first writes and prints. A single one keeps checkpoints
    while it trains; SIGINT and SIGTERM make it save where it is.

    Returns:
        The result, as in result.json.

    Raises:
        UsageError: if a flag is at fault, and nothing was written; or if the folder
            cannot be written any more, and what was written stays.
        Interrupted: after a signal.
    """
    is_first = processes.is_first()
    signals = Signals("what is saved is kept, and --resume goes on.")
    with contextlib.ExitStack() as stack:
        if not config.distributed:
            stack.enter_context(signals)
        setup = processes.together(lambda: _prepare(config, is_first), config.seeds)
        out = setup.out
        result = outputs.describe(config, setup.dataset)
        processes.check_alike([result["config"], result["dataset"]], config.seeds)

        def claim():
            if is_first:
                if config.tensorboard is not None and not config.resume:
                    tensorboard.check_free(config.tensorboard, out)
                stack.enter_context(outputs.claim_folder(out, resume=config.resume))

        processes.together(claim, config.seeds)
        console = terminal.make_console(quiet=not is_first)
        if config.resume and (out / outputs.RESULT).exists():
            return _close_finished(config, out, result, console)
        try:
            return _run(setup, result, console, signals)
        except OSError as error:
            if config.distributed:
                raise  # so that the others do not wait for this process
            reason = error.strerror or error
            hint = ""
            if checkpoints.exist(out):
                hint = "; with room to write, the same flags and --resume go on"
            raise UsageError(
                f"--out={out}: cannot be written any more ({reason}); what was written "
                f"stays{hint}."
            ) from None
        except KeyboardInterrupt as error:
            if config.distributed or not checkpoints.exist(out):
                raise
            raise Interrupted(
                getattr(error, "signum", signal.SIGINT),
                f"no result yet; go on with the same flags, --out={out} and --resume.",
            ) from None


def _close_finished(config: Config, out: Path, result: dict, console: Console) -> dict:
    """Checks the flags of a finished run, and makes pictures and curves of it again.

    Recordings are told apart by their names alone.
    """
    finished = outputs.read_result(out)
    there, here = (
        outputs.describe_numbers(each) | {"--audio": each["config"]["audio"]}
        for each in (finished, result)
    )
    checkpoints.check_same(there, here)
    checkpoints.remove(out)
    if not all((out / name).exists() for name in run_pictures.FILES):
        _draw(finished, out)
    if config.tensorboard is not None:
        seeds, records = outputs.read_records(finished)
        tensorboard.write(config.tensorboard, out, seeds, records, anew=True)
    console.print(words.printable(f"Nothing to do, the run is finished: {out}"))
    return finished


def _run(setup: Setup, result: dict, console: Console, signals: Signals) -> dict:
    config, dataset = setup.config, setup.dataset
    out = setup.out
    in_model = "" if config.model == "cnn" else f" in {config.model}"
    began = (
        f"{config.reg}{in_model} on {dataset.title} "
        f"({len(dataset.train_labels):,} images), "
        f"{config.seeds} seed{'s' if config.seeds > 1 else ''} from {config.seed}, "
        f"{result['environment']['device']}"
    )
    console.print(words.printable(began))
    if config.settings == {"audio": None}:
        console.print("No --audio: using a glitch track that the program synthesised.")
    with contextlib.ExitStack() as stack:
        saved = None
        if not config.distributed:
            saved = stack.enter_context(contextlib.closing(Checkpoints(out)))
        about = _describe_origin(config, result, setup.functions)
        checkpoint = None
        records: list[dict] = []
        if config.resume and saved is not None:
            checkpoint = _find_checkpoint(about, saved, console)
            records = checkpoint.about["records"] if checkpoint is not None else []
            outputs.write_metrics(out, records)
        if config.tensorboard is not None and processes.is_first():
            tensorboard.write(
                config.tensorboard, out, _seeds(config), records, anew=True
            )
            where = words.printable(config.tensorboard)
            console.print(f"See the curves: tensorboard --logdir={where}")
        training = _train(setup, about, saved, checkpoint, console, signals)
        # The rest is a matter of seconds.
        signals.held = True
        result |= _score(setup, training)
        if processes.is_first():
            seeds = [run["seed"] for run in result["runs"]]
            outputs.save_predictions(out, training.logits, dataset.test_labels, seeds)
            outputs.save_result(out, result)
            _draw(result, out)
    if processes.is_first():
        checkpoints.remove(out)
    for line in (
        *outputs.seed_table(result),
        *outputs.closing_lines(result),
        *outputs.next_lines(config, out, result),
    ):
        console.print(words.printable(line))
    return result


def _describe_origin(config: Config, result: dict, functions: Functions) -> dict:
    """Describes what a checkpoint's numbers come from."""
    numbers = outputs.describe_numbers(result)
    if config.audio is not None:
        leaves = jax.tree.leaves(functions.constants.layers)
        arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
        numbers["--audio"] = files.digest_arrays(arrays)[:12]
    environment = result["environment"]
    device, _, _ = environment["device"].rpartition(" x")
    return {
        "numbers": numbers | {"code version": checkpoints.VERSION},
        "environment": {"jax": environment["jax"], "device": device},
    }


def _find_checkpoint(
    about: dict, saved: Checkpoints, console: Console
) -> Checkpoint | None:
    checkpoint = saved.load()
    if checkpoint is None:
        console.print("No checkpoint to go on from: starting afresh.")
        return None
    there = checkpoint.about
    if isinstance(there.get("numbers"), dict):
        checkpoints.check_same(there["numbers"], about["numbers"])
    checkpoints.check_about(there)
    checkpoints.warn_if_elsewhere(there["environment"], about["environment"])
    return checkpoint


def _take_up(trainer: Trainer, checkpoint: Checkpoint) -> Progress:
    about, arrays = checkpoint.about, dict(checkpoint.arrays)
    try:
        totals = arrays.pop("totals")
        if (totals.shape, totals.dtype) != ((trainer.num_seeds,), np.float32):
            raise ValueError("the totals are of other networks")
        trainer.load_state(arrays)
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"--resume: the run in --out is of another version of the code ({error}); "
            "go on with that one, or name another folder."
        ) from None
    return Progress(about["epoch"], about["step"], totals, about["seconds"])


def _train(
    setup: Setup,
    about: dict,
    saved: Checkpoints | None,
    checkpoint: Checkpoint | None,
    console: Console,
    signals: Signals,
) -> Training:
    config, dataset = setup.config, setup.dataset
    out, steps_per_epoch = setup.out, setup.steps_per_epoch
    seeds = _seeds(config)
    total_steps = config.epochs * steps_per_epoch
    begin = time.perf_counter()
    with terminal.progress_bar(total_steps, console) as show:
        trainer = Trainer(
            setup.functions,
            seeds,
            seeds_at_once=config.at_once or devices.choose_seeds_at_once(),
            mesh=devices.make_mesh(config.seeds),
        )
        start: Progress | None = None
        records: list[dict] = []
        if checkpoint is not None:
            start = _take_up(trainer, checkpoint)
            records = checkpoint.about["records"]
            begin -= start.seconds
            console.print(f"Going on in epoch {start.epoch + 1}, step {start.step}.")
        signals.held = saved is not None
        for progress in trainer.train(config.epochs, steps_per_epoch, start=start):
            epoch, step = progress.epoch, progress.step
            done = epoch * steps_per_epoch + step
            speed = done * config.batch_size * config.seeds / progress.seconds
            losses = progress.losses
            text = (
                f"epoch {epoch + 1}/{config.epochs}, loss {_mean(losses):.4f}, "
                f"{speed:,.0f} images/s"
            )
            show(done, text)
            is_over = step == steps_per_epoch
            if saved is not None and (is_over or signals.heard is not None):
                position = {"epoch": epoch, "step": step, "seconds": progress.seconds}
                arrays = trainer.save_state() | {"totals": progress.totals}
                # What an epoch's end has to say is found again when it is loaded.
                own = about | position | {"records": list(records)}
                saved.save(done, Checkpoint(own, arrays))
            if signals.heard is not None:
                if saved is not None:
                    saved.wait()
                raise Interrupted(signals.heard)
            if not is_over:
                continue
            # Everything is saved, or about to be: no need to wait for many networks.
            signals.held = False
            logits = trainer.evaluate()
            signals.held = saved is not None
            accuracies = metrics.accuracy(logits, dataset.test_labels)
            record = {
                "epoch": epoch + 1,
                "train_loss": losses.tolist(),
                "test_accuracy": accuracies.tolist(),
                "seconds": progress.seconds,
            }
            records.append(record)
            if processes.is_first():
                outputs.append_metrics(out, record)
                if config.tensorboard is not None:
                    tensorboard.write(config.tensorboard, out, seeds, [record])
            elapsed = time.perf_counter() - begin - trainer.compile_seconds
            left = datetime.timedelta(
                seconds=round(elapsed * (total_steps - done) / done)
            )
            converged = ~_diverged(records, logits)
            lost = [
                seed for seed, each in zip(seeds, converged, strict=True) if not each
            ]
            console.print(
                f"Epoch [{epoch + 1}/{config.epochs}], "
                f"Loss: {_mean(losses[converged]):.4f}, "
                f"Accuracy: {_mean(accuracies[converged]):.2f}%, "
                f"{speed:,.0f} images/s, {left} left"
                + (f", diverged: {words.name_seeds(lost)}" if lost else "")
            )
    return Training(records, logits, trainer.compile_seconds, progress.seconds, speed)


def _seeds(config: Config) -> list[int]:
    return list(range(config.seed, config.seed + config.seeds))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _diverged(records: list[dict], logits: np.ndarray) -> np.ndarray:
    losses = np.transpose([record["train_loss"] for record in records])
    return metrics.diverged(losses, logits)


def _score(setup: Setup, training: Training) -> dict:
    """Scores the networks of a training, for the result."""
    config = setup.config
    losses, accuracies = (
        np.transpose([record[name] for record in training.records])
        for name in ("train_loss", "test_accuracy")
    )
    diverged = _diverged(training.records, training.logits)
    scored = [
        {
            "seed": config.seed + index,
            "diverged": bool(diverged[index]),
            "train_loss": losses[index].tolist(),
            "test_accuracy": accuracies[index].tolist(),
            "peak_accuracy": float(accuracies[index].max()),
            **metrics.score(training.logits[index], setup.dataset.test_labels),
        }
        for index in range(config.seeds)
    ]
    return {
        "runs": scored,
        "summary": outputs.summarize(scored),
        "seconds": {
            "compile": round(training.compile_seconds, 3),
            "train": round(training.train_seconds, 3),
        },
        "images_per_second": round(training.images_per_second, 1),
    }


def _draw(result: dict, out: Path) -> None:
    """Draws the pictures, where it can."""
    try:
        run_pictures.save(result, out)
    except Exception as error:  # Matplotlib has many parts, and each may be broken
        again = "" if result["config"]["distributed"] else "; --resume tries again"
        terminal.warn(
            f"--out={out}: the result is whole, but not every picture could be drawn "
            f"({words.reason(error)}){again}."
        )
