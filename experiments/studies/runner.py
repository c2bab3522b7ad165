"""Trains what a store lacks, batch by batch."""

import datetime
import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from experiments import terminal
from experiments.cli import UsageError
from experiments.data.dataset import Dataset
from experiments.robustness.probes import make_probes
from experiments.studies import store
from experiments.studies.cells import TUNING, Cell, all_cells, tuning_cells
from experiments.studies.networks import count_images, train
from experiments.studies.plans import Plan

# On a CPU, how many images its networks see before a batch is evaluated and written:
# a minute or two of work that a stop can lose.
IMAGES_PER_CORE = 500_000
# And how many of them there are, where each takes little work: up to 1 GB of states and
# answers on a core, however many seeds a study has.
NETWORKS_PER_CORE = 256


def train_missing(
    plan: Plan,
    dataset: Dataset,
    cells: Sequence[Cell],
    opened: store.Store,
    *,
    part: tuple[int, int],
    data_dir: str | None,
    console: Console,
    environment: Mapping[str, Any],
) -> None:
    """Trains the networks of a share that have no record, and writes theirs.

    Args:
        plan: of the study.
        dataset: whole.
        cells: the networks of all shares.
        opened: the store.
        part: the number of the share, from 0, and of how many.
        data_dir: see `probes.make_probes`.
        console: for progress.
        environment: written with each record.
    """
    cells = _take_share(plan, cells, *part)
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
        probes = make_probes(
            dataset,
            corruption_images=plan.corruption_images,
            fourier_images=plan.fourier_images,
            data_dir=data_dir,
        )
    sizes = [count_images(plan, dataset, batch) for batch in batches]
    start = time.perf_counter()
    with terminal.progress_bar(sum(sizes), console) as show:
        for index, batch in enumerate(batches):
            cell, done = batch[0], sum(sizes[:index])
            what = _describe(batch)

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


def _describe(batch: Sequence[Cell]) -> str:
    """Names a batch: "few_images water 0.1, 8 networks"."""
    cell, strengths = batch[0], {each.strength for each in batch}
    ends = dict.fromkeys(f"{choose(strengths):g}" for choose in (min, max))
    strength = " to ".join(ends)
    count = f"{len(batch)} network{'s' if len(batch) > 1 else ''}"
    return f"{cell.regime} {cell.arm} {strength}, {count}"


def _take_share(
    plan: Plan, cells: Iterable[Cell], share: int, num_shares: int
) -> list[Cell]:
    """Selects this worker's share of the networks, whatever its devices."""
    return [cell for cell in cells if _deal(plan, cell) % num_shares == share]


def _deal(plan: Plan, cell: Cell) -> int:
    return cell.seed + plan.arms[cell.arm].strengths.index(cell.strength)


def check_share(plan: Plan, share: int, num_shares: int) -> None:
    """Raises for a share of a study that has no network."""
    dealt = {_deal(plan, cell) for cell in (*tuning_cells(plan), *all_cells(plan))}
    if not any(each % num_shares == share for each in dealt):
        raise UsageError(
            f"--part={share + 1}/{num_shares}: no network of the plan falls to this "
            f"share; make {len(dealt)} shares or fewer."
        )


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
            on_one_core = IMAGES_PER_CORE // count_images(plan, dataset, group[:1])
            on_one_core = min(max(1, on_one_core), NETWORKS_PER_CORE)
            size = jax.device_count() * on_one_core
        group.sort(key=lambda cell: cell.seed)
        queues.append([tuple(group[i : i + size]) for i in range(0, len(group), size)])
    for batches in itertools.zip_longest(*queues):
        yield from filter(None, batches)


def parse_part(part: str) -> tuple[int, int]:
    """Reads "2/4", the second of four shares, as (1, 4)."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", part)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part={part}: give I/N, the I-th share of N, such as 2/4.")
    return int(match[1]) - 1, int(match[2])
