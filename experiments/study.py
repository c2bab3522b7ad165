"""One command: a plan's networks, arm by arm and seed by seed, and the report.

python -m experiments.study --plan=smoke --out=DIR

What is done stays in the store, so the same command goes on where it was stopped.
"""

import dataclasses
import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from experiments import files, terminal
from experiments.analysis import comparisons, verdict
from experiments.cli import (
    DataDir,
    Signals,
    UsageError,
    exit_codes,
    flag,
    read_flags,
    run_command,
)
from experiments.data import datasets
from experiments.data.dataset import Dataset, describe_dataset
from experiments.reporting import tables
from experiments.runs.environment import environment
from experiments.studies import plans, store
from experiments.studies.cells import (
    TUNING,
    all_cells,
    choose_strengths,
    tuning_cells,
)
from experiments.studies.logits import find_faults
from experiments.studies.networks import make_arm_functions, select
from experiments.studies.noise import measure_noise
from experiments.studies.plans import Plan
from experiments.studies.records import NETWORKS
from experiments.studies.runner import check_share, parse_part, train_missing
from experiments.training import devices
from experiments.training.models import MODELS
from experiments.training.regularizers import REGULARIZERS
from experiments.words import printable

DESCRIPTION = """\
Trains the networks of a plan, keeps one record of each, and writes the report. Stopped
at any moment, the same command goes on.

  python -m experiments.study --plan=smoke
  python -m experiments.study --plan=claim --audio-dir=recordings --out=studies/claim
  python -m experiments.study --plan=my_plan.toml --module=my_noise.py"""


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
        flag("A Python file that adds to REGULARIZERS or MODELS; it is run.", "FILE"),
    ] = None
    seeds: Annotated[
        int | None,
        flag("Number of seeds, instead of the plan's; the report says so.", "INT"),
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


@terminal.sheltered()
def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    left = "what is done is kept; the same command goes on."
    with exit_codes(interrupted=left), Signals(left):
        config = read_flags(
            StudyConfig,
            prog="python -m experiments.study",
            description=DESCRIPTION,
            args=terminal.arguments(),
        )
        devices.keep_programs()
        run(config)


def run(config: StudyConfig) -> Path:
    """Trains what is missing in the store, and writes the report.

    Returns:
        The folder of the store.

    Raises:
        UsageError: if a flag, the plan or a file that it names is at fault.
    """
    # As many devices as there are cores: batches are made to be shared by all. Before
    # the user's file, which may start JAX.
    devices.share_cores(sys.maxsize)
    if config.module is not None:
        _register(config.module)
    plan = plans.load(config.plan)
    written = plan.document
    if config.seeds is not None:
        plan = plans.parse({**plan.document, "seeds": config.seeds}, plan.name)
    part = parse_part(config.part)
    check_share(plan, *part)
    plan, inputs = _find_recordings(plan, config.audio_dir)
    if config.module is not None:
        inputs[config.module.name] = _digest(config.module)
    entry = f"plan {plan.name}: dataset"
    dataset = datasets.load(plan.dataset, config.data_dir, entry=entry)
    _check_sizes(plan, dataset)
    out = config.out or Path("studies", plan.name)
    devices.start_jax()
    own = environment()  # of the code that runs, whatever changes later
    # Before the store is made, as an arm's recording or strengths may be at fault.
    noise, measured = {}, store.read_noise(out)
    for arm in plan.arms.values():
        if "sample" not in measured.get(arm.name, {}):
            if len(arm.strengths) > 1:
                regime, images = select(plan, dataset, next(iter(plan.regimes)))
                make_arm_functions(plan, arm, regime, images)
            noise[arm.name] = measure_noise(plan, arm, dataset)
    description = describe_dataset(dataset)
    with store.claim(out):
        opened = store.open_store(
            out, plan, description, inputs, noise, written=written
        )
        _check_logits(plan, dataset, opened)
        settings = {"part": part, "data_dir": config.data_dir, "environment": own}
        return _train_and_report(plan, dataset, opened, settings)


def _train_and_report(
    plan: Plan, dataset: Dataset, opened: store.Store, settings: Mapping[str, Any]
) -> Path:
    """Trains what an open store lacks, tuning first, and writes the report.

    The settings are those of `runner.train_missing`.
    """
    out = opened.folder
    console = terminal.make_console()
    console.print(printable(f"{plan.name}: {plan.question}"))

    tuning = tuning_cells(plan)
    train_missing(plan, dataset, tuning, opened, console=console, **settings)
    chosen = choose_strengths(plan, opened.records(tuning))
    for name, strength in chosen.items():
        if strength is None:
            console.print(
                printable(
                    f"{name} is not trained yet: its strength is chosen when the "
                    f"{NETWORKS} in {out} has the tuning's records of all shares. "
                    "Append those of the others to it, and give this command again."
                )
            )
        else:
            console.print(f"{name}: {strength:g} was the best on held-out images.")
    cells = [
        cell
        for cell in all_cells(plan)
        if cell.arm not in chosen or cell.strength == chosen[cell.arm]
    ]
    train_missing(plan, dataset, cells, opened, console=console, **settings)

    analysis = comparisons.Analysis(store.read([out]))
    console.print(printable(verdict.sentence(analysis)))
    console.print(printable(f"Report: {tables.write(analysis, out)}"))
    return out


def _check_logits(plan: Plan, dataset: Dataset, opened: store.Store) -> None:
    """Warns once if logits beside the records are missing or damaged."""
    num_classes = len(dataset.class_names)
    shapes = dict.fromkeys(plan.regimes, (len(dataset.test_labels), num_classes))
    if plan.tuning is not None:
        shapes[TUNING] = plan.tuning.images, num_classes
    records = opened.records([*tuning_cells(plan), *all_cells(plan)])
    if faults := find_faults(opened.folder, records, shapes):
        others = f", and {len(faults) - 1} more like it" if len(faults) > 1 else ""
        terminal.warn(
            f"{faults[0]}{others}; no score depends on that. To have them again, copy "
            "them from where they are, or delete the lines of their networks from "
            f"{NETWORKS}: these are then trained again."
        )


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
            if not os.path.isfile(path):
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
        with files.open_to_read(path, math.inf) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None


def _register(path: Path) -> None:
    """Runs a user's file, which adds to `REGULARIZERS` or `MODELS`."""
    known = {*REGULARIZERS, *MODELS}
    plans.check_text("--module", path)
    try:
        files.read(path)
    except OSError as error:
        raise UsageError(
            f"--module={path}: cannot be read ({error.strerror}); name a Python file."
        ) from None
    # By a name that is nobody else's.
    spec = importlib.util.spec_from_file_location(f"module_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--module={path}: not a Python file; end its name in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    spec.loader.exec_module(module)
    if known == {*REGULARIZERS, *MODELS}:
        raise UsageError(
            f"--module={path}: it adds nothing to REGULARIZERS or MODELS; see "
            "docs/study.md."
        )


def _check_sizes(plan: Plan, dataset: Dataset) -> None:
    """Raises for a plan that needs more images than the dataset has, or others."""
    num_train, num_test = len(dataset.train_labels), len(dataset.test_labels)
    held = 0 if plan.tuning is None else plan.tuning.images
    if plan.batch_size > num_train - held:
        raise UsageError(
            f"plan {plan.name}: training.batch_size={plan.batch_size}: {dataset.title} "
            f"has {num_train} training images, {held} of them held out for tuning; "
            "give a smaller batch or another dataset."
        )
    for regime in plan.regimes.values():
        needed = (regime.train_images or 0) + held
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
    height, width, _ = dataset.test_images.shape[1:]
    if plan.corruption_images and (height, width) != (32, 32):
        raise UsageError(
            f"plan {plan.name}: corruption_images={plan.corruption_images}: images are "
            f"corrupted as CIFAR-10's, of 32 x 32 pixels, and those of {dataset.title} "
            f"have {width} x {height}; leave it out or choose another dataset."
        )


if __name__ == "__main__":
    run_command(main)
