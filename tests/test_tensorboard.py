"""The curves of a run in TensorBoard's files, as TensorBoard reads them."""

import math
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import cifar
from experiments.cli import UsageError
from experiments.runs import runner, tensorboard
from tests.programs import end

RECORDS = [
    {
        "epoch": epoch,
        "train_loss": [2.5 / epoch, math.nan],
        "test_accuracy": [30.5 * epoch, 0.0],
        "seconds": 60.0 * epoch,
    }
    for epoch in (1, 2, 3)
]


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every curve."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def curves(records, index: int) -> dict[str, list[tuple[int, float]]]:
    """What `read` returns of records."""
    return {
        tag: [(each["epoch"], float(np.float32(each[name][index]))) for each in records]
        for tag, name in tensorboard.SCALARS.items()
    }


def test_every_seed_has_a_run_and_every_epoch_a_point(tmp_path):
    board, out = tmp_path / "board", tmp_path / "runs" / "water"
    for record in RECORDS:
        tensorboard.write(board, out, [7, 8], [record])
    assert read(board / "water" / "seed-7") == curves(RECORDS, 0)
    losses = read(board / "water" / "seed-8")["train/loss"]
    assert [step for step, _ in losses] == [1, 2, 3]
    assert all(math.isnan(value) for _, value in losses)
    with pytest.raises(UsageError, match="^--tensorboard=.*already holds a run water"):
        tensorboard.check_free(board, Path("water"))
    tensorboard.check_free(board, Path("rain"))


def test_a_run_that_goes_on_has_no_point_twice(tmp_path):
    def write(*records, anew=False):
        tensorboard.write(tmp_path, Path("run"), [7, 8], records, anew=anew)

    write(anew=True)
    tensorboard.check_free(tmp_path, Path("run"))  # nothing is in it yet
    for record in RECORDS[:2]:
        write(record)
    write(RECORDS[0], anew=True)  # the checkpoint that was found is older
    for record in RECORDS[1:]:
        write(record)
    assert read(tmp_path / "run" / "seed-7") == curves(RECORDS, 0)
    events = EventAccumulator(str(tmp_path / "run" / "seed-8")).Reload()
    times = [each.wall_time for each in events.Scalars("test/accuracy")]
    assert times == sorted(times)
    write(anew=True)
    assert read(tmp_path / "run" / "seed-7") == {}


def test_without_the_package_nothing_is_trained(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(runner, "Trainer", None)
    flags = ["--dataset=digits", "--tensorboard=board", f"--out={tmp_path / 'run'}"]
    assert end(cifar.main, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not list(tmp_path.iterdir())
    assert line.startswith("error: --tensorboard=board: needs TensorBoard: pip install")


def test_a_place_where_no_folder_can_be_is_one_line(tmp_path):
    board = tmp_path / "file"
    board.touch()
    with pytest.raises(UsageError, match=f"^--tensorboard={board}/a: {board} is no fo"):
        tensorboard.check_free(board / "a", Path("run"))
    with pytest.raises(UsageError, match=f"^--tensorboard={board}: cannot be written"):
        tensorboard.write(board, Path("run"), [7], [], anew=True)
