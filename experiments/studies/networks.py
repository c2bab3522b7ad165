"""Networks of one arm and regime, trained side by side and examined."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.cli import UsageError
from experiments.data.dataset import Dataset
from experiments.robustness.probes import Probes, score_answers
from experiments.studies import plans
from experiments.studies.cells import TUNING, Cell
from experiments.studies.noise import prepare_regularizer
from experiments.studies.plans import Arm, Plan
from experiments.training import devices, metrics
from experiments.training.steps import Functions, make_functions, takes_strengths
from experiments.training.trainer import Trainer

TRAIN_IMAGES_SCORED = 10_000


def train(
    plan: Plan,
    dataset: Dataset,
    cells: Sequence[Cell],
    probes: Probes | None,
    *,
    show: Callable[[float], None] = lambda share: None,
) -> list[tuple[dict, np.ndarray]]:
    """Trains networks of one arm and regime side by side, and examines them.

    Args:
        plan: of the study.
        dataset: whole; the regime or the tuning takes its part.
        cells: of one regime and arm.
        probes: besides the test set's, or None.
        show: told now and then what share of the training is done, up to 1.

    Returns:
        For each cell its record, less the environment, and its test logits, float32
        `[M, num_classes]`.
    """
    arm = plan.arms[cells[0].arm]
    regime, part = select(plan, dataset, cells[0].regime)
    functions = make_arm_functions(plan, arm, regime, part)
    several = len(arm.strengths) > 1
    start = time.perf_counter()
    trainer = Trainer(
        functions,
        [cell.seed for cell in cells],
        strengths=[cell.strength for cell in cells] if several else None,
        seeds_at_once=devices.choose_seeds_at_once(),
        mesh=devices.make_mesh(len(cells)),
    )
    num_steps = len(part.train_labels) // plan.batch_size
    is_tuning = cells[0].regime == TUNING
    every = regime.epochs if is_tuning else regime.evaluate_every
    epoch_losses, epoch_accuracies = [], []
    for progress in trainer.train(regime.epochs, num_steps):
        show((progress.epoch + progress.step / num_steps) / regime.epochs)
        if progress.step < num_steps:
            continue
        accuracies = np.full(len(cells), np.nan)
        epoch = progress.epoch + 1
        if epoch == regime.epochs or epoch % every == 0:
            logits = trainer.evaluate()
            accuracies = metrics.accuracy(logits, part.test_labels)
        epoch_losses.append(progress.losses)
        epoch_accuracies.append(accuracies)
    train_logits = trainer.evaluate(part.train_images[:TRAIN_IMAGES_SCORED])
    answers: Any = [None] * len(cells)
    if probes is not None:
        answers = trainer.evaluate(probes.images)
    seconds = (time.perf_counter() - start) / len(cells)
    records = [
        {
            "train_loss": losses.tolist(),
            "test_accuracy": accuracies.tolist(),
            "peak_accuracy": float(np.nanmax(accuracies)),
            "diverged": bool(metrics.diverged(losses, own)),
            **metrics.score(own, part.test_labels),
            **_score_probabilities(part, own, own_train),
            **score_answers(probes, own_answers),
            "seconds": round(seconds, 3),
        }
        for losses, accuracies, own, own_train, own_answers in zip(
            np.transpose(epoch_losses),
            np.transpose(epoch_accuracies),
            logits,
            train_logits,
            answers,
            strict=True,
        )
    ]
    return list(zip(records, logits, strict=True))


def make_arm_functions(
    plan: Plan, arm: Arm, regime: plans.Regime, part: Dataset
) -> Functions:
    """Makes the functions that train networks of an arm, see `steps.make_functions`.

    Raises:
        UsageError: if its recording cannot be used, or it cannot take its strengths.
    """
    # An array, where the networks' own strengths take its place.
    several = len(arm.strengths) > 1
    strength = jnp.float32(arm.strengths[0]) if several else arm.strengths[0]
    functions = make_functions(
        part,
        prepare_regularizer(arm, strength),
        model=regime.model,
        where=arm.where,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay,
        augmented=regime.augment,
        dtype=plan.dtype,
    )
    if several and not takes_strengths(functions):
        raise UsageError(
            f"arms.{arm.name}: {arm.reg} cannot take several strengths, as no layer of "
            "it keeps one in an IntensityVariable or a RateVariable; give it one "
            "strength."
        )
    return functions


def _score_probabilities(
    part: Dataset, logits: np.ndarray, train_logits: np.ndarray
) -> dict:
    train_labels = part.train_labels[: len(train_logits)]
    scores = metrics.calibration(logits, part.test_labels)
    train_nll = metrics.calibration(train_logits, train_labels)["nll"]
    is_known = scores["nll"] is not None and train_nll is not None
    return scores | {
        "train_accuracy": float(metrics.accuracy(train_logits, train_labels)),
        "train_nll": train_nll,
        "gap": scores["nll"] - train_nll if is_known else None,
    }


def select(plan: Plan, dataset: Dataset, name: str) -> tuple[plans.Regime, Dataset]:
    """Selects a regime, or that of the tuning, and what it trains and tests on."""
    if name == TUNING:
        assert plan.tuning is not None
        (regime,) = plan.regimes.values()
        kept = len(dataset.train_labels) - plan.tuning.images
        count = min(regime.train_images or kept, kept)
        held = dataset.train_images[kept:], dataset.train_labels[kept:]
    else:
        regime = plan.regimes[name]
        count = regime.train_images or len(dataset.train_labels)
        held = dataset.test_images, dataset.test_labels
    return regime, dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:count],
        train_labels=dataset.train_labels[:count],
        test_images=held[0],
        test_labels=held[1],
    )


def count_images(plan: Plan, dataset: Dataset, batch: Sequence[Cell]) -> int:
    """Counts the images that networks of one regime train on, in all their epochs."""
    regime, part = select(plan, dataset, batch[0].regime)
    return len(batch) * regime.epochs * len(part.train_labels)
