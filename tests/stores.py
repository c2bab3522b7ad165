"""Stores of studies that were never trained, with differences planted in them."""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import numpy as np

from experiments.robustness.corruptions import BENCHMARK, CORRUPTIONS
from experiments.studies import plans, store
from experiments.studies.cells import (
    TUNING,
    Cell,
    all_cells,
    choose_strengths,
    tuning_cells,
)
from experiments.training import metrics
from experiments.training.cnn import FEATURES

NUM_IMAGES = 200
CLASS_NAMES = [f"class {index}" for index in range(10)]
LABELS = np.arange(NUM_IMAGES) % 10

DOCUMENT: dict[str, Any] = {
    "question": "Is a network more accurate with water than with dropout?",
    "rule": "An arm beats its baseline if p < 0.05, by Holm's method.",
    "dataset": "cifar10",
    "seeds": 8,
    "comparisons": [["water", "dropout"], ["water", "none"], ["none", "dropout"]],
    "regimes": {"short": {"epochs": 3}},
    "arms": {
        "none": {"reg": "none"},
        "dropout": {"reg": "dropout", "rate": 0.2},
        "water": {"reg": "water", "intensity": 0.05},
    },
}
DATASET: dict[str, Any] = {
    "name": "cifar10",
    "title": "CIFAR-10, JPEG-75 copy",
    "fingerprint": "3f51" * 16,
    "train_size": 50_000,
    "test_size": NUM_IMAGES,
    "class_names": CLASS_NAMES,
}
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.9",
    "jax": "0.10.0",
    "flax": "0.12.8",
    "device": "cpu x1",
    "processes": 1,
    "cores": 4,
    "commit": "0123456789ab",
}


def make_store(
    folder: Path,
    *,
    plan_document: Mapping[str, Any] = DOCUMENT,
    effects: Mapping[Any, float] = MappingProxyType({}),
    with_robustness: bool = True,
    missing: Collection[Cell] = (),
    diverged: Collection[Cell] = (),
    dataset: Mapping[str, Any] = DATASET,
    edit: Callable[[dict], object] | None = None,
) -> Path:
    """Writes a store as `experiments.study` does, within a second or two.

    Curves are as long as the plan's epochs; whatever it says of images, there are 200
    to test on. The networks of tuning are there too, and those of the strengths
    that they choose.

    Args:
        folder: of the store, made if need be.
        plan_document: of the plan, as its TOML file says it.
        effects: by arm, or by arm and strength, how many points of accuracy to add to
            70; rounded to halves, as 200 images have no finer steps. The other scores
            follow.
        with_robustness: corrupt images and add waves, or not, whatever the plan says.
        missing: networks to leave out.
        diverged: networks to spoil.
        dataset: as in `store.Study`.
        edit: changes a record in place before it is written, such as its environment.

    Returns:
        The folder.
    """
    sizes = {"corruption_images": NUM_IMAGES, "fourier_images": 20}
    document = {**plan_document, "robustness": sizes if with_robustness else {}}
    plan = plans.parse(document, "fake")
    noise = {arm.name: _make_noise(arm) for arm in plan.arms.values()}
    opened = store.open_store(folder, plan, dataset, {}, noise)

    def write(cell: Cell) -> None:
        if cell in missing:
            return
        (regime, *_) = plan.regimes.values()  # that of tuning
        epochs = plan.regimes.get(cell.regime, regime).epochs
        points = effects.get((cell.arm, cell.strength), effects.get(cell.arm, 0.0))
        # The same for all networks of a seed.
        common = np.random.default_rng([0, cell.seed]).normal()
        rng = np.random.default_rng([0, *map(ord, repr(cell))])
        accuracy = 70 + common + points + rng.normal()
        logits = _make_logits(rng, accuracy)
        if cell in diverged:
            logits = np.full_like(logits, np.nan)
        record = _make_record(rng, logits, epochs)
        if cell.regime == TUNING:
            kept = ("train_loss", "test_accuracy", "accuracy", "diverged")
            record = {key: record[key] for key in kept}
        elif with_robustness:
            record |= _make_robustness(rng, record["accuracy"])
        record |= {"environment": dict(ENVIRONMENT), "seconds": 12.3}
        if edit is not None:
            edited = cell._asdict() | record
            edit(edited)
            record = edited
        opened.append(cell, record, logits)

    with mock.patch.object(os, "fsync"):  # it need not outlive a power cut
        for cell in tuning_cells(plan):
            write(cell)
        tuned = opened.records(tuning_cells(plan))
        chosen = choose_strengths(plan, tuned)
        for cell in all_cells(plan):
            if chosen.get(cell.arm, cell.strength) == cell.strength:
                write(cell)
    return folder


def _make_logits(rng: np.random.Generator, accuracy: float) -> np.ndarray:
    """Makes float32 logits `[200, 10]` of an accuracy in percent, to the next half."""
    logits = rng.normal(size=(NUM_IMAGES, 10))
    num_right = round(np.clip(accuracy / 100, 0, 1) * NUM_IMAGES)
    is_right = rng.permutation(NUM_IMAGES) < num_right
    wrong = (LABELS + rng.integers(1, 10, NUM_IMAGES)) % 10
    predicted = np.where(is_right, LABELS, wrong)
    margins = rng.exponential(2.0, NUM_IMAGES) + 0.1
    logits[np.arange(NUM_IMAGES), predicted] = logits.max(axis=1) + margins
    return logits.astype(np.float32)


def _make_record(rng: np.random.Generator, logits: np.ndarray, epochs: int) -> dict:
    scores = _score(logits)
    calibration = metrics.calibration(logits, LABELS)
    is_finite = bool(np.isfinite(logits).all())
    losses = 1.5 / np.arange(1, epochs + 1) + 0.05 * rng.normal(size=epochs)
    climb = np.linspace(-15, 0, epochs) + rng.normal(size=epochs)
    climb[-1] = 0
    accuracies = np.clip(scores["accuracy"] + climb, 0, 100)
    if not is_finite:
        losses[epochs // 2 :] = np.nan
    train_nll = calibration["nll"] - 0.1 + 0.02 * rng.normal() if is_finite else None
    return {
        "train_loss": losses.tolist(),
        "test_accuracy": accuracies.tolist(),
        "peak_accuracy": float(accuracies.max()),
        **scores,
        **calibration,
        "train_accuracy": min(100.0, scores["accuracy"] + 4),
        "train_nll": train_nll,
        "gap": calibration["nll"] - train_nll if train_nll is not None else None,
        "diverged": not is_finite,
    }


def _score(logits: np.ndarray) -> dict:
    """Scores as `metrics.score` does, in a tenth of scikit-learn's time."""
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (LABELS, logits.argmax(axis=-1)), 1)
    right = confusion.diagonal()
    # All classes have the same support.
    precision = right / np.maximum(confusion.sum(axis=0), 1)
    recall = right / confusion.sum(axis=1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return {
        "accuracy": float(metrics.accuracy(logits, LABELS)),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "f1": float(f1.mean()),
        "confusion": confusion.tolist(),
    }


def _make_robustness(rng: np.random.Generator, accuracy: float) -> dict:
    errors = {
        name: np.clip(
            100 - accuracy + np.arange(1, 6) * rng.uniform(1, 8), 0, 100
        ).tolist()
        for name in CORRUPTIONS
    }
    rows = np.minimum(np.arange(32), 32 - np.arange(32))
    fourier = 100 - accuracy + 2 * np.hypot(rows[:, None], rows)
    # Opposite frequencies are the same wave.
    waves = rng.normal(size=(32, 32))
    waves += np.roll(waves[::-1, ::-1], 1, axis=(0, 1))
    return {
        "corruptions": errors,
        "corruption_source": dict.fromkeys(CORRUPTIONS, "generated"),
        "corruption_error": float(np.mean([errors[name] for name in BENCHMARK])),
        "fourier": {
            "images": 20,
            "norm": 4.0,
            "errors": np.clip(fourier + waves, 0, 100).tolist(),
        },
    }


def _make_noise(arm: plans.Arm) -> dict:
    """Makes pink noise along rows; none for what adds nothing to maps of zeros."""
    adds = arm.reg not in ("none", "dropout", "spatial_dropout")
    adds = adds and arm.settings.get("mode", "additive") == "additive"
    shapes = [(32, 32, 3)]
    if arm.where == "all":
        shapes = [(32 >> depth, 32 >> depth, f) for depth, f in enumerate(FEATURES, 1)]
    layers = []
    for shape in shapes if adds else []:
        frequencies = np.arange(1, shape[1] // 2 + 1) / shape[1]
        is_small = shape[0] < 8
        layers.append(
            {
                "shape": list(shape),
                "std": arm.strengths[0],
                "exponents": {
                    "rows": None if is_small else 1.02,
                    "columns": None if is_small else 0.01,
                },
                "power": {
                    "rows": np.stack([frequencies, 0.01 / frequencies], 1).tolist(),
                    "columns": [[f, 0.02] for f in frequencies.tolist()],
                },
            }
        )
    sample = ["80ff80ff" if adds else "80808080"] * 2
    return {"strength": arm.strengths[0], "sample": sample, "layers": layers}
