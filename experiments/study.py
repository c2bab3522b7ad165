"""One command: a plan's networks, arm by arm and seed by seed, and the report.

python -m experiments.study --plan=smoke --out=DIR

What is done stays in the store, so the same command goes on where it was stopped.
"""

import dataclasses
import datetime
import hashlib
import importlib.util
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

from experiments import (
    caches,
    corruptions,
    datasets,
    metrics,
    plans,
    processes,
    report,
    runs,
    store,
    terminal,
    verdict,
)
from experiments.checkpoints import Signals
from experiments.configs import (
    DataDir,
    UsageError,
    exit_codes,
    flag,
    read_flags,
    run_command,
)
from experiments.datasets import Dataset
from experiments.fourier import add_fourier_noise
from experiments.models import FEATURES
from experiments.plans import Arm, Plan
from experiments.regularizers import REGULARIZERS
from experiments.store import TUNING, Cell
from experiments.training import Functions, Trainer, make_functions, takes_strengths
from sounddrop_jax import spectra
from sounddrop_jax.audio import AudioError

DESCRIPTION = """\
Trains the networks of a plan, keeps one record of each, and writes the report. Stopped
at any moment, the same command goes on.

  python -m experiments.study --plan=smoke
  python -m experiments.study --plan=claim --audio-dir=recordings --out=studies/claim
  python -m experiments.study --plan=my_plan.toml --module=my_noise.py"""

# On a CPU, how many images its networks see before a batch is evaluated and written:
# a minute or two of work that a stop can lose.
IMAGES_PER_CORE = 500_000
TRAIN_IMAGES_SCORED = 10_000
NOISE_IMAGES = 64
FOURIER_NORM = 4.0  # of the paper, see `fourier.add_fourier_noise`


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The flags of `python -m experiments.study`, their help and their defaults."""

    plan: Annotated[
        str,
        flag(
            "A plan of the project, such as claim (docs/study.md lists them), or a "
            "TOML file. Default: smoke.",
            "NAME|FILE",
        ),
    ] = "smoke"
    data_dir: DataDir = None
    audio_dir: Annotated[
        Path | None, flag("Folder of the recordings that the plan names.", "DIR")
    ] = None
    module: Annotated[
        Path | None,
        flag(
            "A Python file that adds regularizers to REGULARIZERS; it is run.", "FILE"
        ),
    ] = None
    seeds: Annotated[
        int | None, flag("More or fewer than the plan has; the report says so.", "INT")
    ] = None
    part: Annotated[
        str,
        flag(
            "What share of the work to do here, such as 2/4, the second of four; give "
            "each machine its own --out, and experiments.report all of them."
        ),
    ] = "1/1"
    out: Annotated[
        Path | None, flag("Folder of the store. Default: studies/PLAN.", "DIR")
    ] = None


class Probes(NamedTuple):
    """What networks are asked besides the test set.

    Attributes:
        images: uint8 `[Q, H, W, C]`: those of each corruption at each severity, and
            then those of each frequency.
        corruptions: (name, severity, int labels of its images) in this order.
        sources: by name, "published" or "generated".
        frequencies: in this order; the opposite one of each has the same wave.
        labels: of the images with waves, at every frequency.
    """

    images: np.ndarray
    corruptions: Sequence[tuple[str, int, np.ndarray]]
    sources: Mapping[str, str]
    frequencies: Sequence[tuple[int, int]]
    labels: np.ndarray


@terminal.sheltered()
def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    interrupted = "what is done is kept; the same command goes on."
    with exit_codes(interrupted=interrupted), Signals():
        config = read_flags(
            StudyConfig,
            prog="python -m experiments.study",
            description=DESCRIPTION,
            args=terminal.arguments(),
        )
        caches.keep_programs()
        run(config)


def run(config: StudyConfig) -> Path:
    """Trains what is missing in the store, and writes the report.

    Returns:
        The folder of the store.

    Raises:
        UsageError: if a flag, the plan or a file that it names is at fault.
    """
    if config.module is not None:
        _register(config.module)
    plan = plans.load(config.plan)
    if config.seeds is not None:
        plan = plans.parse({**plan.document, "seeds": config.seeds}, plan.name)
    _parse_part(config.part)
    plan, inputs = _find_recordings(plan, config.audio_dir)
    if config.module is not None:
        inputs[config.module.name] = _digest(config.module)
    try:
        dataset = datasets.load(plan.dataset, config.data_dir)
    except datasets.DatasetError as error:
        raise UsageError(str(error)) from None
    _check_sizes(plan, dataset)
    out = config.out or Path("studies", plan.name)
    # As many devices as there are cores: batches are made to be shared by all.
    processes.share_cores(len(plan.seeds) * (os.cpu_count() or 1))
    processes.start_jax()
    environment = runs.environment()  # of the code that runs, whatever changes later
    # Before the store is made, as an arm's recording or strengths may be at fault.
    noise, measured = {}, store.read_noise(out)
    for arm in plan.arms.values():
        if arm.name not in measured:
            if len(arm.strengths) > 1:
                regime, part = _select(plan, dataset, next(iter(plan.regimes)))
                _make_functions(plan, arm, regime, part)
            noise[arm.name] = measure_noise(arm, dataset)
    description = runs.describe_dataset(dataset)
    with store.claim(out):
        opened = store.open_store(out, plan, description, inputs, noise)
        return _train_and_report(config, plan, dataset, opened, environment)


def _train_and_report(
    config: StudyConfig,
    plan: Plan,
    dataset: Dataset,
    opened: store.Store,
    environment: Mapping[str, Any],
) -> Path:
    """Trains what an open store lacks, tuning first, and writes the report."""
    out = opened.folder
    console = terminal.make_console()
    console.print(f"{plan.name}: {plan.question}")

    tuning = store.tuning_cells(plan)
    _train_missing(config, plan, dataset, tuning, opened, console, environment)
    chosen = store.choose_strengths(plan, opened.records(tuning))
    for name, strength in chosen.items():
        if strength is None:
            console.print(
                f"{name}: its strength cannot be chosen before the other shares of the "
                f"tuning are in {out}, too; it waits."
            )
        else:
            console.print(f"{name}: {strength:g} was the best on held-out images.")
    cells = [
        cell
        for cell in store.all_cells(plan)
        if cell.arm not in chosen or cell.strength == chosen[cell.arm]
    ]
    _train_missing(config, plan, dataset, cells, opened, console, environment)

    analysis = verdict.Analysis(store.read([out]))
    console.print(verdict.sentence(analysis))
    console.print(f"Report: {report.write(analysis, out)}")
    return out


def _train_missing(
    config: StudyConfig,
    plan: Plan,
    dataset: Dataset,
    cells: Sequence[Cell],
    opened: store.Store,
    console: Console,
    environment: Mapping[str, Any],
) -> None:
    """Trains the networks of this share that have no record, and writes theirs."""
    cells = _take_share(plan, cells, *_parse_part(config.part))
    batches = [
        todo
        for batch in _batches(plan, dataset, cells)
        if (todo := opened.missing(batch))
    ]
    if not batches:
        return
    probes = None
    is_robust = plan.corruption_images > 0 or plan.fourier_images > 0
    if is_robust and batches[0][0].regime != TUNING:
        console.print("Preparing the corrupted test images.")
        probes = make_probes(plan, dataset, config.data_dir)
    sizes = [_count_images(plan, dataset, batch) for batch in batches]
    start = time.perf_counter()
    with terminal.progress_bar(sum(sizes), console) as show:
        for index, batch in enumerate(batches):
            cell, done = batch[0], sum(sizes[:index])
            what = f"{cell.regime} {cell.arm} {cell.strength:g}, {len(batch)} networks"

            def show_part(share, done=done, size=sizes[index], what=what):
                show(round(done + share * size), what)

            show_part(0)
            results = train(plan, dataset, batch, probes, show=show_part)
            for each, (record, logits) in zip(batch, results, strict=True):
                opened.append(each, record | {"environment": environment}, logits)
            done += sizes[index]
            left = (time.perf_counter() - start) * (sum(sizes) / done - 1)
            scores = [f"{record['accuracy']:.2f}" for record, _ in results]
            console.print(
                f"{what} from seed {cell.seed}: accuracy {' '.join(scores[:8])}"
                f"{' ...' if len(scores) > 8 else ''}, "
                f"{datetime.timedelta(seconds=round(left))} left"
            )


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
    regime, part = _select(plan, dataset, cells[0].regime)
    functions = _make_functions(plan, arm, regime, part)
    several = len(arm.strengths) > 1
    start = time.perf_counter()
    trainer = Trainer(
        functions,
        [cell.seed for cell in cells],
        strengths=[cell.strength for cell in cells] if several else None,
        seeds_at_once=processes.choose_seeds_at_once(),
        mesh=processes.make_mesh(len(cells)),
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
            **_score_answers(probes, own_answers),
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


def _make_functions(
    plan: Plan, arm: Arm, regime: plans.Regime, part: Dataset
) -> Functions:
    # An array, where the networks' own strengths take its place.
    several = len(arm.strengths) > 1
    strength = jnp.float32(arm.strengths[0]) if several else arm.strengths[0]
    functions = make_functions(
        part,
        _prepare(arm, strength),
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay,
        where=arm.where,
        augmented=regime.augment,
        dtype=plan.dtype,
    )
    if several and not takes_strengths(functions):
        raise UsageError(
            f"arms.{arm.name}: {arm.reg} cannot take several strengths, as none of its "
            "arrays is called intensity or rate; give it one strength."
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


def make_probes(plan: Plan, dataset: Dataset, data_dir: str | None) -> Probes:
    """Corrupts test images, and adds waves to them, as many as the plan says."""
    count = plan.corruption_images
    part = dataclasses.replace(
        dataset,
        test_images=dataset.test_images[:count],
        test_labels=dataset.test_labels[:count],
    )
    images, corrupted, sources = [dataset.test_images[:0]], [], {}
    names = corruptions.CORRUPTIONS if count else ()
    for name, severity in itertools.product(names, corruptions.SEVERITIES):
        try:
            loaded = corruptions.load(
                part,
                name,
                severity,
                data_dir=data_dir,
                cache_dir=caches.folder("corruptions"),
            )
        except datasets.DatasetError as error:
            raise UsageError(str(error)) from None
        images.append(loaded.images[:count])
        corrupted.append((name, severity, loaded.labels[:count]))
        sources[name] = loaded.source
    clean = dataset.test_images[: plan.fourier_images] / np.float32(255)
    height, width = clean.shape[1:3]
    frequencies = [
        (row, column)
        for row, column in np.ndindex((height, width) if len(clean) else (0, 0))
        if (row, column) <= (-row % height, -column % width)
    ]
    for frequency in frequencies:
        rng = np.random.default_rng(frequency)
        waves = add_fourier_noise(rng, clean, frequency, norm=FOURIER_NORM)
        images.append(np.rint(255 * waves).astype(np.uint8))
    return Probes(
        np.concatenate(images),
        corrupted,
        sources,
        frequencies,
        dataset.test_labels[: len(clean)],
    )


def _score_answers(probes: Probes | None, logits: Any) -> dict:
    """Scores one network's logits, `[Q, num_classes]`, as its record has them."""
    record: dict[str, Any] = {}
    if probes is None:
        return record
    answers = logits.argmax(-1)
    start = 0
    if probes.corruptions:
        errors: dict[str, list[float]] = {}
        for name, _, labels in probes.corruptions:
            own = answers[start : start + len(labels)]
            errors.setdefault(name, []).append(100 * float((own != labels).mean()))
            start += len(labels)
        record["corruptions"] = errors
        record["corruption_source"] = dict(probes.sources)
        record["corruption_error"] = float(
            np.mean([errors[name] for name in corruptions.BENCHMARK])
        )
    if probes.frequencies:
        count = len(probes.labels)
        wrong = answers[start:].reshape(-1, count) != probes.labels
        fourier = np.zeros(probes.images.shape[1:3])
        for (row, column), error in zip(
            probes.frequencies, 100 * wrong.mean(1), strict=True
        ):
            fourier[row, column] = fourier[-row, -column] = error
        record["fourier"] = {
            "images": count,
            "norm": FOURIER_NORM,
            "errors": fourier.tolist(),
        }
    return record


def measure_noise(arm: Arm, dataset: Dataset) -> dict:
    """Measures what an arm adds to maps of zeros, where it stands in the network.

    Returns:
        strength, and for each layer that adds anything its shape `[H, W, C]`, the
        standard deviation, and for rows and columns the fitted exponent (None on maps
        too small for one) and the pairs of frequency, in cycles per sample, and power.
    """
    height, width, channels = dataset.train_images.shape[1:]
    shapes = [(height, width, channels)]
    if arm.where == "features":
        shapes = [
            (height >> depth, width >> depth, features)
            for depth, features in enumerate(FEATURES, 1)
        ]
    make = _prepare(arm, arm.strengths[0])
    layers = []
    for shape in shapes:
        layer: Any = make(shape)
        maps = jnp.zeros((NOISE_IMAGES, *shape))
        noise = np.asarray(layer(maps, rngs=nnx.Rngs(dropout=0)))
        if not noise.any():
            continue
        axes = {"rows": -2, "columns": -3}
        spectra_ = {
            name: spectra.periodogram(noise, axes=a) for name, a in axes.items()
        }
        layers.append(
            {
                "shape": list(shape),
                "std": float(noise.std()),
                "exponents": {
                    name: _fit_exponent(noise, axis) for name, axis in axes.items()
                },
                "power": {
                    name: np.transpose(pair).tolist() for name, pair in spectra_.items()
                },
            }
        )
    return {"strength": arm.strengths[0], "layers": layers}


def _fit_exponent(noise: np.ndarray, axis: int) -> float | None:
    try:
        return spectra.fit_exponent(noise, axes=axis)
    except ValueError:
        return None


def _prepare(arm: Arm, strength: Any) -> Any:
    try:
        return REGULARIZERS[arm.reg].prepare(strength, **arm.settings)
    except AudioError as error:
        raise UsageError(f"arms.{arm.name}.audio={error}") from None


def _select(plan: Plan, dataset: Dataset, name: str) -> tuple[plans.Regime, Dataset]:
    """Returns a regime, or that of the tuning, and what it trains and tests on."""
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


def _count_images(plan: Plan, dataset: Dataset, batch: Sequence[Cell]) -> int:
    """Counts the images that networks of one regime train on, in all their epochs."""
    regime, part = _select(plan, dataset, batch[0].regime)
    return len(batch) * regime.epochs * len(part.train_labels)


def _take_share(
    plan: Plan, cells: Iterable[Cell], share: int, num_shares: int
) -> list[Cell]:
    """Selects this worker's share of the networks, whatever its devices."""
    return [
        cell
        for cell in cells
        if (cell.seed + plan.arms[cell.arm].strengths.index(cell.strength)) % num_shares
        == share
    ]


def _batches(
    plan: Plan, dataset: Dataset, cells: Iterable[Cell]
) -> Iterator[tuple[Cell, ...]]:
    """Deals networks into batches that train together, the first seeds of all first."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.regime, cell.arm), []).append(cell)
    queues = []
    for group in groups.values():
        size = len(group)
        if jax.default_backend() == "cpu":
            on_one_core = IMAGES_PER_CORE // _count_images(plan, dataset, group[:1])
            size = jax.device_count() * max(1, on_one_core)
        group.sort(key=lambda cell: cell.seed)
        queues.append([tuple(group[i : i + size]) for i in range(0, len(group), size)])
    for batches in itertools.zip_longest(*queues):
        yield from filter(None, batches)


def _find_recordings(plan: Plan, folder: Path | None) -> tuple[Plan, dict[str, str]]:
    """Puts the paths of recordings where their names stood, and digests the files."""
    arms, digests = {}, {}
    for name, arm in plan.arms.items():
        audio = arm.settings.get("audio")
        if audio is not None:
            if folder is None:
                raise UsageError(
                    f"plan {plan.name}: arm {name} needs the recording {audio}; give "
                    "the folder that holds it, --audio-dir=DIR."
                )
            path = folder / audio
            if not path.is_file():
                raise UsageError(
                    f"--audio-dir={folder}: {audio}, which arm {name} needs, is not in "
                    "it; give the folder that holds it."
                )
            digests[audio] = _digest(path)
            settings = {**arm.settings, "audio": str(path)}
            arm = dataclasses.replace(arm, settings=settings)
        arms[name] = arm
    return dataclasses.replace(plan, arms=arms), digests


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None


def _register(path: Path) -> None:
    """Runs a user's file, which adds to `REGULARIZERS`."""
    known = set(REGULARIZERS)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"--module={path}: not a Python file.")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if known == set(REGULARIZERS):
        raise UsageError(
            f"--module={path}: it adds nothing to REGULARIZERS; see docs/study.md."
        )


def _parse_part(part: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part={part}: give I/N, the I-th share of N, such as 2/4.")
    return int(match[1]) - 1, int(match[2])


def _check_sizes(plan: Plan, dataset: Dataset) -> None:
    """Raises for a plan that needs more images than the dataset has."""
    num_train, num_test = len(dataset.train_labels), len(dataset.test_labels)
    held = 0 if plan.tuning is None else plan.tuning.images
    for regime in plan.regimes.values():
        needed = max(regime.train_images or 1, plan.batch_size) + held
        if needed > num_train:
            raise UsageError(
                f"plan {plan.name}: regime {regime.name} needs {needed} training "
                f"images, of which {held} for tuning, and {dataset.title} has "
                f"{num_train}; give fewer train_images or another dataset."
            )
        if regime.train_images is not None and regime.train_images < plan.batch_size:
            raise UsageError(
                f"plan {plan.name}: regime {regime.name} trains on "
                f"{regime.train_images} images, fewer than a batch of "
                f"{plan.batch_size}; give more."
            )
    for name in ("corruption_images", "fourier_images"):
        if getattr(plan, name) > num_test:
            raise UsageError(
                f"plan {plan.name}: {name}={getattr(plan, name)}: {dataset.title} has "
                f"{num_test} test images; give at most that many."
            )


if __name__ == "__main__":
    run_command(main)
