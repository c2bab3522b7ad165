"""The curves of a run for TensorBoard, where every seed is a run of its own."""

import contextlib
import importlib.util
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.cli import UsageError
from experiments.words import reason

# TensorBoard reads what has "tfevents" in its name.
EVENTS = "events.out.tfevents.0"
SCALARS = {"train/loss": "train_loss", "test/accuracy": "test_accuracy"}


def check_installed(board: Path) -> None:
    """Raises where the package is missing that writes the files."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            f"--tensorboard={board}: needs TensorBoard: pip install -e "
            "'.[tensorboard]'; without it the curves are in metrics.jsonl alone."
        )


def check_free(board: Path, out: Path) -> None:
    """Raises where no folder can be made, or another run has left its curves."""
    folder = _folder(board, out)
    parent = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"--tensorboard={board}: {parent} is no folder that can be written to; "
            "name another one."
        )
    with contextlib.suppress(OSError):  # which `write` explains
        if any(path.stat().st_size for path in folder.glob(f"*/{EVENTS}")):
            raise UsageError(
                f"--tensorboard={board}: it already holds a run {folder.name}; name "
                "another folder, remove that run, or go on with it by --resume."
            )


def write(
    board: Path,
    out: Path,
    seeds: Sequence[int],
    records: Sequence[dict],
    *,
    anew: bool = False,
) -> None:
    """Adds the loss and the accuracy of every seed, at the number of the epoch.

    They go to `board/NAME/seed-SEED`, NAME being the last part of `out`. Time runs as
    in the records, in seconds of training.

    Args:
        board: what `--tensorboard` names.
        out: the run's folder.
        seeds: in the order of the records' lists.
        records: as in metrics.jsonl; None stands for NaN.
        anew: whether these are all records so far, in place of what is there.

    Raises:
        UsageError: if a file cannot be written.
    """
    try:
        for index, seed in enumerate(seeds):
            folder = _folder(board, out) / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            # In place, because who looks on has the file open and knows its length.
            with open(folder / EVENTS, "wb" if anew else "ab") as file:
                if records:
                    file.write(_events(index, records, is_start=file.tell() == 0))
    except OSError as error:
        raise UsageError(
            f"--tensorboard={board}: cannot be written ({reason(error)}); with room to "
            "write, or without this flag, --resume goes on from the last checkpoint."
        ) from None


def _folder(board: Path, out: Path) -> Path:
    return board / out.resolve().name


def _events(index: int, records: Sequence[dict], *, is_start: bool) -> bytes:
    """Returns records of one seed as in TensorBoard's files."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    begin = time.time() - records[-1]["seconds"]
    events = [Event(wall_time=begin, file_version="brain.Event:2")] if is_start else []
    for record in records:
        values = []
        for tag, name in SCALARS.items():
            value = record[name][index]
            number = float("nan") if value is None else value
            values.append(Summary.Value(tag=tag, simple_value=number))
        wall_time = begin + record["seconds"]
        summary = Summary(value=values)
        events.append(Event(wall_time=wall_time, step=record["epoch"], summary=summary))
    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()
