"""Predicts against which corruptions sharing a noise helps, before its networks train.

    python docs/make_prediction.py predict PLAN DATA_DIR    docs/prediction/PLAN.json
    python docs/make_prediction.py compare                  and found, in results.md

The prediction looks into a few networks that train without noise, on seeds of their
own, and at held-out images: how much of each noise's power lies where a corruption
moves their features (`experiments.robustness.alignment`).
"""

import functools
import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from flax import nnx
from matplotlib.figure import Figure

from experiments import files
from experiments.analysis.names import name_corruption
from experiments.data import datasets
from experiments.pictures import drawing
from experiments.robustness import corruptions
from experiments.robustness.alignment import align, make_observer
from experiments.runs.environment import environment
from experiments.studies import plans, store
from experiments.studies.cells import TUNING
from experiments.studies.networks import make_arm_functions, select
from experiments.studies.noise import prepare_regularizer
from experiments.training import devices
from experiments.training.regularizers import Shape
from experiments.training.trainer import Trainer

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "results"
PLANS = ("sharing_cnn", "sharing_resnet20")
# Predicted: how much less the first errs than the second. Both are of one power.
PAIR = ("shared_white", "own_white")
SEEDS = range(7900, 7904)
IMAGES = 64
DRAWS = 1024


def predict(name: str, data_dir: str) -> dict[str, Any]:
    """Measures how each noise of a plan lies to the shifts of each corruption.

    Returns:
        What was done, and `alignments[corruption][arm]`, one for each place in the
        network: means over networks and severities.
    """
    plan = plans.load(name)
    dataset = datasets.load(plan.dataset, data_dir)
    regime, part = select(plan, dataset, TUNING)
    functions = make_arm_functions(plan, plan.arms["none"], regime, part)
    image_shape, num_classes = part.train_images.shape[1:], len(part.class_names)
    observe, shapes = make_observer(regime.model, "all", image_shape, num_classes)
    clean = part.test_images[:IMAGES]
    # Of a test set that is as large as what is looked at, at a time.
    constants = functions.constants._replace(test_images=jnp.asarray(clean))
    trainer = Trainer(
        functions._replace(evaluate=observe, constants=constants),
        SEEDS,
        seeds_at_once=devices.choose_seeds_at_once(),
        mesh=devices.make_mesh(len(SEEDS)),
    )
    num_steps = len(part.train_labels) // plan.batch_size
    losses = [each.losses for each in trainer.train(regime.epochs, num_steps)][-1]

    zeros = {shape: jnp.zeros((DRAWS, *shape)) for shape in dict.fromkeys(shapes)}
    noises: dict[str, dict[Shape, jax.Array]] = {}
    for arm in plan.arms.values():
        if arm.reg in ("gaussian", "plane"):
            make = prepare_regularizer(arm, 1.0)
            noises[arm.name] = {
                shape: _draw(make(shape), maps) for shape, maps in zeros.items()
            }
    bounds = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    before = trainer.evaluate()
    alignments: dict[str, dict[str, list[float]]] = {}
    for corruption in corruptions.BENCHMARK:
        found: dict[str, list[list[float]]] = {arm: [] for arm in noises}
        for severity in corruptions.SEVERITIES:
            images = corruptions.corrupt(corruption, clean, severity, seed=0)
            after = trainer.evaluate(images)
            for own in after - before:
                places = np.split(own, bounds, axis=-1)
                for arm, noise in noises.items():
                    pairs = zip(shapes, places, strict=True)
                    found[arm].append([align(noise[s], each) for s, each in pairs])
        alignments[corruption] = {
            arm: np.round(np.mean(each, axis=0), 3).tolist()
            for arm, each in found.items()
        }
        print(corruption, alignments[corruption], flush=True)
    return {
        "plan": name,
        "environment": environment(),
        "date": time.strftime("%Y-%m-%d"),
        "seeds": list(SEEDS),
        "train_loss": np.round(losses, 4).tolist(),
        "images": IMAGES,
        "draws": DRAWS,
        "shapes": [list(shape) for shape in shapes],
        "alignments": alignments,
    }


def _draw(layer: Any, maps: jax.Array) -> jax.Array:
    return layer(maps, rngs=nnx.Rngs(dropout=0))


def differences(prediction: Mapping[str, Any]) -> dict[str, float]:
    """Returns by how much the first of the pair is better aligned, by corruption."""
    return {
        corruption: float(np.subtract(*(np.mean(arms[name]) for name in PAIR)))
        for corruption, arms in prediction["alignments"].items()
    }


def gains(study: store.Study) -> dict[str, np.ndarray]:
    """Returns by how much the first of the pair errs less, seed by seed, in points."""
    errors: dict[str, dict[int, Mapping[str, Any]]] = {name: {} for name in PAIR}
    for record in study.records:
        if record["arm"] in errors:
            errors[record["arm"]][record["seed"]] = record["corruptions"]
    first, second = (errors[name] for name in PAIR)
    return {
        corruption: np.array(
            [
                np.mean(second[seed][corruption]) - np.mean(first[seed][corruption])
                for seed in first
            ]
        )
        for corruption in corruptions.BENCHMARK
    }


def judge(predicted: Mapping[str, float], found: Mapping[str, float]) -> dict:
    """Compares the orders of predicted and of found gains over the corruptions.

    Returns:
        rho: Spearman's rank correlation.
        interval: of it, 95 %, by resampling corruptions (percentiles of 10,000).
        signs: how many gains have the predicted sign.
        holds: whether rho is at least 0.5, its interval above 0, and 12 signs right.
    """
    pairs = np.array([(predicted[each], found[each]) for each in predicted])
    rho = scipy.stats.spearmanr(*pairs.T).statistic
    draws = np.random.default_rng(0).integers(len(pairs), size=(10_000, len(pairs)))
    ranks = scipy.stats.rankdata(pairs[draws], axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    scale = np.sqrt((ranks**2).sum(1).prod(-1))
    low, high = np.nanquantile(ranks.prod(-1).sum(1) / scale, (0.025, 0.975))
    signs = int((np.sign(pairs[:, 0]) == np.sign(pairs[:, 1])).sum())
    holds = rho >= 0.5 and low > 0 and signs >= 12
    return {"rho": rho, "interval": (low, high), "signs": signs, "holds": bool(holds)}


def compare(docs: Path = DOCS, results: Path = RESULTS) -> None:
    """Draws predicted against found gains, and writes the table of results.md."""
    columns, ends = [], []
    for name in PLANS:
        path = docs / f"prediction/{name}.json"
        if not path.exists():
            ends.append(f"{name}: has not been predicted yet.")
            continue
        predicted = differences(json.loads(path.read_text("utf-8")))
        columns.append([f"{name}, predicted", *_format(predicted.values())])
        if not (results / name / "study.json").exists():
            ends.append(f"{name}: its networks have not been trained yet.")
            continue
        found = gains(store.read([results / name]))
        means = {each: gain.mean() for each, gain in found.items()}
        errors = {each: scipy.stats.sem(gain) for each, gain in found.items()}
        columns.append([f"{name}, found, points", *_format(means.values())])
        columns.append(["standard error", *_format(errors.values())])
        result = judge(predicted, means)
        rho, *interval = _format([result["rho"], *result["interval"]])
        ends.append(
            f"{name}: rank correlation {rho} (95 % interval {' to '.join(interval)}), "
            f"{result['signs']} of {len(means)} signs: the prediction "
            f"{'holds' if result['holds'] else 'does not hold'}."
        )
        picture = docs / "images" / f"prediction_{name}.svg"
        draw = functools.partial(scatter, predicted, means, errors)
        label = f"Predicted and found gains of the study {name}, by corruption"
        picture.write_text(drawing.svg_alone(label, draw), "utf-8")
    heads, *rows = zip(
        ["corruption", *map(name_corruption, corruptions.BENCHMARK)],
        *columns,
        strict=True,
    )
    table = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    table.insert(1, f"|{'---|' * len(heads)}")
    lines = "\n".join([*table, "", *(f"- {each}" for each in ends)])
    files.write_table(docs / "results.md", "docs/make_prediction.py", lines)


def _format(numbers: Iterable[float]) -> list[str]:
    return [drawing.number(each, 2) for each in numbers]


def scatter(
    predicted: Mapping[str, float],
    means: Mapping[str, float],
    errors: Mapping[str, float],
) -> Figure:
    """Draws a point for each corruption, with its name and its standard error."""
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=drawing.LINE, linewidth=0.8)
    width, height = np.ptp([*predicted.values()]), np.ptp([*means.values()])
    for each, place in predicted.items():
        colour = drawing.COLOURS[0]
        axes.errorbar(place, means[each], errors[each], fmt="o", color=colour)
        # To the left, where another point is near on the right.
        is_crowded = any(
            0 < predicted[other] - place < 0.2 * width
            and abs(means[other] - means[each]) < 0.05 * height
            for other in predicted
        )
        axes.annotate(
            name_corruption(each),
            (place, means[each]),
            xytext=(-5 if is_crowded else 5, 3),
            ha="right" if is_crowded else "left",
            textcoords="offset points",
            fontsize=8,
        )
    first, second = (each.replace("_", " ") for each in PAIR)
    axes.set_xlabel(f"predicted: alignment, {first} − {second}")
    axes.set_ylabel(f"found: error, {second} − {first}, points")
    axes.margins(x=0.15)
    return figure


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["predict", name, data_dir] if name in PLANS:
            devices.share_cores(len(SEEDS))
            devices.start_jax()
            (DOCS / "prediction").mkdir(exist_ok=True)
            path = DOCS / "prediction" / f"{name}.json"
            files.write_json(path, predict(name, data_dir))
        case ["compare"]:
            compare()
        case _:
            sys.exit(__doc__)
