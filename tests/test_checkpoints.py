"""A run cut off anywhere goes on, and ends in the numbers of one that was not."""

import copy
import dataclasses
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import cifar, cli, terminal
from experiments.cli import Interrupted, Signals, UsageError
from experiments.files import lock
from experiments.pictures import runs as run_pictures
from experiments.runs import checkpoints, outputs, runner
from experiments.runs.checkpoints import Checkpoint, Checkpoints
from experiments.runs.configs import Config
from experiments.runs.environment import environment
from experiments.training import metrics
from experiments.training.trainer import Trainer
from tests.programs import ROOT, end, with_xla_flags
from tests.test_tensorboard import curves
from tests.test_tensorboard import read as read_curves

FILES = {
    *("result.json", "metrics.jsonl", "predictions.npz"),
    *("loss.png", "loss.svg", "confusion.png", "confusion.svg"),
}
SEEDS = [58, 59, 60]
STEPS = 3
FLAGS = ["--reg=dropout", "--dataset=digits", "--seeds=3", "--epochs=3"]
FLAGS += [f"--steps-per-epoch={STEPS}", "--batch-size=16"]


def train(out: Path, *flags: str) -> int:
    """Runs the command here, and returns its exit code."""
    return end(cifar.main, *FLAGS, f"--out={out}", *flags)


def resumed(out: Path) -> tuple:
    """The numbers of a run that has gone on to its end."""
    assert train(out, "--resume") == 0
    return numbers(out)


def numbers(out: Path) -> tuple:
    """All that a run leaves which does not depend on the clock."""
    assert {path.name for path in out.glob("[!.]*")} == FILES
    result = json.loads((out / "result.json").read_text())
    for name in ("seconds", "images_per_second"):
        del result[name]
    del result["environment"]["commit"]  # someone may work on the checkout
    rows = (out / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(row) for row in rows]
    for record in records:
        del record["seconds"]
    with np.load(out / "predictions.npz") as saved:
        arrays = {name: saved[name].tobytes() for name in saved}
    return result, records, arrays


class Shared:
    """Runs in this process, that share their compiled programs and take one step a
    call.

    Attributes:
        at_step: called with the number of steps done, after each.
        at_evaluation: called before each.
        change: of the initial state, before a run that starts afresh.
    """

    def __init__(self, patch):
        self.reset()
        made: dict = {}

        def make_functions(*args, **kwargs):
            if "functions" not in made:
                made["functions"] = original_functions(*args, **kwargs)
            return made["functions"]

        def make_trainer(*args, **kwargs):
            if "trainer" not in made:
                made["trainer"] = Trainer(*args, **kwargs)
                made["state"] = made["trainer"].save_state()
            trainer = copy.copy(made["trainer"])
            state = {name: array.copy() for name, array in made["state"].items()}
            self.change(state)
            trainer.load_state(state)
            evaluate = trainer.evaluate

            def evaluate_noticed():
                self.at_evaluation()
                return evaluate()

            trainer.evaluate = evaluate_noticed
            return trainer

        @contextmanager
        def progress_bar(total, console):
            yield lambda done, text: self.at_step(done)

        original_functions = runner.make_functions
        patch.setattr(runner, "make_functions", make_functions)
        patch.setattr(runner, "Trainer", make_trainer)
        patch.setattr(terminal, "progress_bar", progress_bar)
        patch.setattr("experiments.training.trainer.SECONDS_PER_CALL", 1e-9)

    def reset(self):
        self.at_step: Callable[[int], object] = lambda done: None
        self.at_evaluation: Callable[[], object] = lambda: None
        self.change: Callable[[dict], object] = lambda state: None


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def all_shared(module_patch) -> Shared:
    return Shared(module_patch)


@pytest.fixture
def shared(all_shared) -> Iterator[Shared]:
    yield all_shared
    all_shared.reset()


@pytest.fixture(scope="module")
def reference(all_shared, tmp_path_factory) -> tuple:
    """The numbers of a run that nobody interrupted."""
    out = tmp_path_factory.mktemp("reference") / "run"
    assert train(out) == 0
    return numbers(out)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "run"


def send(signum: int, when: int) -> Callable[[int], None]:
    return lambda done: os.kill(os.getpid(), signum) if done == when else None


def interrupt(shared: Shared, out: Path, *, after: int, flags=()) -> None:
    """Leaves a run behind that was stopped after some steps."""
    shared.at_step = send(signal.SIGTERM, after)
    assert train(out, *flags) == 143
    shared.reset()


def steps_saved(out: Path) -> list[int]:
    return sorted(int(path.name) for path in (out / checkpoints.FOLDER).iterdir())


def one_error(capsys) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


# Interrupted and resumed


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 3, 9])  # within an epoch, at its end, at the last
def test_a_run_stopped_anywhere_and_resumed_ends_in_the_same_numbers(
    after, shared, reference, out, capsys
):
    signum, code = [(signal.SIGTERM, 143), (signal.SIGINT, 130)][after % 2]
    shared.at_step = send(signum, after)
    assert train(out) == code
    line = one_error(capsys)
    assert line.startswith("interrupted: ") and f"--out={out} and --resume" in line
    ends = [done for done in (3, 6, 9) if done < after]
    assert steps_saved(out) == [*ends, after][-2:]
    assert {path.name for path in out.glob("[!.]*")} == {"metrics.jsonl", "checkpoints"}
    shared.reset()
    done_later: list[int] = []
    shared.at_step = done_later.append
    assert resumed(out) == reference
    # Not a step was done twice; an epoch's end is looked at again.
    first = after if after % STEPS == 0 else after + 1
    assert done_later == [*range(first, 10)]
    printed = capsys.readouterr()
    assert printed.err == ""
    epoch, step = divmod(after - 1, STEPS)
    assert f"Going on in epoch {epoch + 1}, step {step + 1}." in printed.out


@pytest.mark.slow
def test_a_run_that_goes_on_and_a_finished_one_leave_their_curves(
    shared, out, tmp_path, capsys
):
    first, later = tmp_path / "first", tmp_path / "later"
    interrupt(shared, out, after=4, flags=[f"--tensorboard={first}"])
    for board in (first, later):
        assert train(out, "--resume", f"--tensorboard={board}") == 0
        _, records, _ = numbers(out)
        for index, seed in enumerate(SEEDS):
            assert read_curves(board / "run" / f"seed-{seed}") == curves(records, index)
    assert f"tensorboard --logdir={first}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_signal_in_an_evaluation_ends_it_at_once(shared, reference, out, capsys):
    def stop():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the evaluation went on")

    shared.at_evaluation = stop
    assert train(out) == 143
    assert "--resume" in one_error(capsys)
    assert steps_saved(out) == [3]
    shared.reset()
    assert resumed(out) == reference


@pytest.mark.slow
def test_a_signal_while_the_result_is_written_comes_too_late(
    shared, reference, tmp_path, monkeypatch
):
    save = outputs.save_predictions

    def stop(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*args)

    monkeypatch.setattr(outputs, "save_predictions", stop)
    assert train(tmp_path / "run") == 0
    assert numbers(tmp_path / "run") == reference


@pytest.mark.slow
def test_a_finished_run_is_left_alone(shared, out, capsys):
    assert train(out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / checkpoints.FOLDER).mkdir()  # killed before it was removed
    capsys.readouterr()
    assert train(out, "--resume") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Nothing to do") and printed.err == ""
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # But it is not taken for another.
    assert train(out, "--resume", "--seed=3") == 2
    assert "--seed: 58 there, 3 here" in one_error(capsys)
    (out / "result.json").write_text("{")
    assert train(out, "--resume") == 2
    assert "damaged" in one_error(capsys)


# Refused


@pytest.mark.slow
def test_another_runs_folder_is_refused_and_kept(shared, tmp_path, capsys):
    file = tmp_path / checkpoints.FOLDER / "100" / "weights"
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    for flags, named in ((["--resume"], "were not written by"), ([], "by --resume")):
        assert train(tmp_path, *flags) == 2
        line = one_error(capsys)
        assert line.startswith(f"error: --out={tmp_path}: ") and named in line
        assert file.read_text() == "mine"


OTHERS = [
    # flags, and how the difference is named
    (["--seed=3"], "--seed: 58 there, 3 here"),
    (["--rate=0.5"], "--rate: 0.2 there, 0.5 here"),
    (["--model=vit"], "--model: cnn there, vit here"),
    (["--reg=none"], "--reg: dropout there, none here"),
]


@pytest.mark.slow
def test_a_run_is_not_resumed_as_another(shared, reference, out, capsys):
    interrupt(shared, out, after=4)
    for flags, named in OTHERS:
        capsys.readouterr()
        assert train(out, "--resume", *flags) == 2, flags
        line = one_error(capsys)
        assert line.startswith("error: --resume: ") and named in line
        assert steps_saved(out) == [3, 4]
    # What changes no number may differ, and a default may be written out.
    flags = ["--seeds-at-once=2", "--data-dir=elsewhere", "--rate=0.2"]
    assert train(out, "--resume", *flags) == 0
    result, *rest = numbers(out)
    assert (result["runs"], *rest) == (reference[0]["runs"], *reference[1:])


@pytest.mark.slow
def test_other_code_other_data_and_another_jax(
    shared, reference, out, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        there = environment() | {"jax": "0.0.1"}
        patch.setattr(outputs, "environment", lambda: there)
        interrupt(shared, out, after=4)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "VERSION", 0)
        assert train(out, "--resume") == 2
        assert f"code version: {checkpoints.VERSION + 1} there" in one_error(capsys)
    load = runner.datasets.load
    with monkeypatch.context() as patch:
        patch.setattr(
            runner.datasets,
            "load",
            lambda *args: dataclasses.replace(load(*args), fingerprint="abcd"),
        )
        assert train(out, "--resume") == 2
        assert "(abcd) here" in one_error(capsys)
    assert train(out, "--resume") == 0
    line = one_error(capsys)
    assert line.startswith("warning: --resume: jax 0.0.1 there, ")
    assert numbers(out) == reference


def test_a_recording_is_known_by_its_sound(tmp_path):
    class Functions:
        class constants:
            layers = {"bank": np.arange(6.0)}

    result = {
        "config": {"reg": "aphex", "strength": 0.05, "batch_size": 2}
        | {"steps_per_epoch": None},
        "dataset": {"title": "a", "fingerprint": "b", "train_size": 4},
        "environment": {"jax": "1", "device": "cpu x2"},
    }
    config = Config(reg="aphex", audio="a.wav")

    def describe():
        return runner._describe_origin(config, result, Functions)  # type: ignore

    before = describe()
    assert before["environment"] == {"jax": "1", "device": "cpu"}
    assert before["numbers"]["--intensity"] == 0.05
    config = Config(reg="aphex", audio="b.wav")
    assert describe() == before
    Functions.constants.layers = {"bank": np.arange(6.0) + 1}
    assert describe()["numbers"]["--audio"] != before["numbers"]["--audio"]


# Damaged


@pytest.mark.slow
def test_with_nothing_sound_a_run_starts_afresh_and_says_so(
    shared, reference, out, capfd
):
    interrupt(shared, out, after=5)
    for path in (out / checkpoints.FOLDER).rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    capfd.readouterr()
    (out / checkpoints.FOLDER / "8.orbax-checkpoint-tmp-9").mkdir()
    (out / checkpoints.FOLDER / "notes").write_text("in the way")
    (out / "metrics.jsonl").write_text("half a li")
    assert train(out, "--resume") == 0
    printed = capfd.readouterr()
    newest, oldest = printed.err.splitlines()
    assert "the one before" in newest and "going on from the start" in oldest
    assert "starting afresh" in printed.out
    assert numbers(out) == reference


# The checkpoints themselves


def make_checkpoint(number: int) -> Checkpoint:
    about = {"number": number, "loss": [float("inf"), 0.1], "none": None}
    arrays = {"a.b": np.full((2, 3), number, np.float32), "c": np.arange(number)}
    return Checkpoint(about, arrays)


# To Orbax a pattern, a URL, and no text.
@pytest.mark.parametrize(
    "name", ["w[lr=0.1]", "w*", "gs:", "no text \udcff"], ids=ascii
)
def test_checkpoints_come_back_from_a_folder_of_any_name(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / name
    out.mkdir()
    for number in (1, 2, 5):
        with closing(Checkpoints(out)) as saved:
            for _ in range(2):
                saved.save(number, make_checkpoint(number))
            saved.wait()
            found, expected = saved.load(), make_checkpoint(number)
        assert found is not None and found.about == expected.about
        assert found.arrays.keys() == expected.arrays.keys()
        for key, array in expected.arrays.items():
            assert found.arrays[key].dtype == array.dtype
            np.testing.assert_array_equal(found.arrays[key], array)
    assert steps_saved(out) == [2, 5]
    assert list(tmp_path.iterdir()) == [out]
    checkpoints.remove(out)
    assert not checkpoints.exist(out) and not list(out.iterdir())


def flip_a_bit(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def lie(folder: Path) -> None:
    (path,) = (folder / "about").glob("metadata*")
    path.write_text(path.read_text().replace('"number": 2', '"number": 1'))


def add_a_key(folder: Path) -> None:  # at which Orbax raises for all checkpoints
    path = folder / "_CHECKPOINT_METADATA"
    content = json.loads(path.read_text()) | {"custom_metadata": {"a": 1}, "b": 2}
    path.write_text(json.dumps(content))


def put_a_pipe(folder: Path) -> None:  # for which Orbax would wait
    (folder / "arrays" / "manifest.ocdbt").unlink()
    os.mkfifo(folder / "arrays" / "manifest.ocdbt")


def grow(folder: Path) -> None:
    os.truncate(folder / "_CHECKPOINT_METADATA", 2**40)


@pytest.mark.parametrize(
    "damage", [flip_a_bit, empty, lie, add_a_key, put_a_pipe, grow]
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, tmp_path, capsys):
    with closing(Checkpoints(tmp_path)) as saved:
        for number in (1, 2):
            saved.save(number, make_checkpoint(number))
        saved.wait()
    damage(tmp_path / checkpoints.FOLDER / "2")
    with closing(Checkpoints(tmp_path)) as saved:
        found = saved.load()
    assert found is not None and found.about["number"] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "checkpoints/2 is damaged" in line
    assert f"moved to {tmp_path / 'damaged' / '2'}; going on from the one bef" in line
    assert steps_saved(tmp_path) == [1]


@pytest.mark.parametrize(
    ("name", "text", "number", "words"),
    [
        ("save", "RESOURCE_EXHAUSTED: no\nand more", 0, "RESOURCE_EXHAUSTED: no"),
        ("wait_until_finished", "[OS error 28: and more", 28, os.strerror(28)),
    ],
)
def test_an_error_of_tensorstore_is_one_of_one_line(
    name, text, number, words, tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise ValueError(text)

    with closing(Checkpoints(tmp_path)) as saved:
        monkeypatch.setattr(saved._manager, name, fail)
        with pytest.raises(OSError) as error:
            saved.save(1, make_checkpoint(1))
        monkeypatch.undo()
    assert (error.value.errno, error.value.strerror) == (number, words)


def test_what_a_computer_hides_is_no_checkpoint(tmp_path):
    (tmp_path / checkpoints.FOLDER).mkdir()
    (tmp_path / checkpoints.FOLDER / ".DS_Store").touch()
    assert not checkpoints.exist(tmp_path)


def test_a_checkpoint_that_memory_does_not_suffice_for_is_not_damaged(
    tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise MemoryError

    with closing(Checkpoints(tmp_path)) as saved:
        saved.save(1, make_checkpoint(1))
        saved.wait()
        monkeypatch.setattr(saved._manager, "restore", fail)
        with pytest.raises(MemoryError):
            saved.load()
    assert steps_saved(tmp_path) == [1]


@pytest.mark.slow
def test_a_state_of_other_networks_is_refused(shared, out, capsys):
    interrupt(shared, out, after=1)
    load = Checkpoints.load

    def load_less(self):
        checkpoint = load(self)
        del checkpoint.arrays[next(iter(checkpoint.arrays.keys() - {"totals"}))]
        return checkpoint

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "load", load_less)
        assert train(out, "--resume") == 2
    assert "another version of the code" in one_error(capsys)


# The lock


@pytest.mark.slow
def test_a_folder_in_use_is_refused(shared, tmp_path, capsys):
    with lock(tmp_path):
        for flags in ([], ["--resume"]):
            assert train(tmp_path, *flags) == 2
            line = one_error(capsys)
            assert line.startswith(f"error: --out={tmp_path}: process {os.getpid()} ")
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with lock(tmp_path):
        pass


def test_the_dead_hold_no_lock(tmp_path):
    program = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); "
        "fcntl.flock(file, fcntl.LOCK_EX); print('1234567', file=file, flush=True); "
        "print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="process 1234567 is writing"):
            with lock(tmp_path):
                pass
        process.kill()
    with lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert (tmp_path / ".lock").read_text() == ""


# Signals


def test_signals_wait_while_they_are_held_but_only_once():
    before = signal.getsignal(signal.SIGTERM)
    with Signals("") as signals:
        with pytest.raises(Interrupted) as error:
            os.kill(os.getpid(), signal.SIGINT)
        assert error.value.signum == signal.SIGINT
        signals.held = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.heard == signal.SIGTERM
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals("") as signals:
            signals.held = True
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.heard is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.heard == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_heard_does_not_end_the_process(monkeypatch):
    monkeypatch.setattr(cli, "PATIENCE", 3600.0)
    before = threading.enumerate()
    with Signals("") as signals:
        (watcher,) = set(threading.enumerate()) - set(before)
        signals.held = True
        os.kill(os.getpid(), signal.SIGTERM)
        watcher.join(60)
        assert not watcher.is_alive()
    assert signal.set_wakeup_fd(-1) == -1  # nothing is left behind


# As where two threads of JAX wait for one another: Python hears nothing meanwhile.
NEVER_ENDS = """
import ctypes, threading
from experiments import cli

cli.PATIENCE = 0.5
mutex = ctypes.create_string_buffer(64)
with cli.Signals("nothing is left."):
    threading.Timer(0.5, print, ["waiting"], {"flush": True}).start()
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


def test_a_signal_ends_a_process_whose_program_never_ends():
    command = [sys.executable, "-c", NEVER_ENDS]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "waiting\n" in process.stdout
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=180)
        finally:
            process.kill()
    assert process.returncode == 143
    (line,) = errors.splitlines()
    assert line == (
        "interrupted: a call did not return within 0.5 seconds; nothing is left."
    )


def test_signals_of_others_end_nothing(monkeypatch):
    monkeypatch.setattr(cli, "PATIENCE", 0.1)
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: heard.append(signum))
    try:
        with Signals(""):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


# What cannot be drawn or saved


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_costs_no_result(
    shared, reference, tmp_path, monkeypatch, capsys
):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        assert train(tmp_path) == 0
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"warning: --out={tmp_path}: ") and "No space left" in line
    *_, where, first, _ = printed.out.splitlines()
    assert "pictures" not in where and first.endswith("result.json")
    left = {path.name for path in tmp_path.glob("[!.]*")}
    assert left == FILES - set(run_pictures.FILES)
    # As it says, and without training anew.
    with monkeypatch.context() as patch:
        patch.setattr(runner, "Trainer", fail)
        assert train(tmp_path, "--resume") == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert numbers(tmp_path) == reference


# One bad seed


def spoil(*indices: int) -> Callable[[dict], None]:
    """Makes some networks diverge, from their first step on."""

    def change(state):
        for name, array in state.items():
            if name.startswith("params"):
                array[list(indices)] = np.nan

    return change


@pytest.mark.slow
def test_a_seed_that_diverges_is_named_and_left_out(
    shared, reference, tmp_path, capsys
):
    shared.change = spoil(1)
    assert train(tmp_path / "run") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    result, records, _ = numbers(tmp_path / "run")
    expected, *_ = reference
    assert [run["diverged"] for run in result["runs"]] == [False, True, False]
    for index in (0, 2):
        assert result["runs"][index] == expected["runs"][index]
    assert result["runs"][1]["train_loss"] == [None] * 3
    assert [record["train_loss"][1] for record in records] == [None] * 3
    assert result["summary"] == outputs.summarize(result["runs"])
    epochs = [x for x in printed.out.splitlines() if x.startswith("Epoch")]
    assert len(epochs) == 3
    for line in epochs:
        assert line.endswith(", diverged: seed 59")
        assert re.search(r"Loss: \d+\.\d+, Accuracy: \d+\.\d+%", line)


def test_finite_losses_are_not_enough():
    records = [{"train_loss": [1.0, 1.0, np.inf]}, {"train_loss": [1.0, 1.0, 1.0]}]
    logits = np.zeros((3, 4, 10))
    logits[1, 2, 3] = np.inf
    assert runner._diverged(records, logits).tolist() == [False, True, True]
    assert metrics.accuracy(logits, np.zeros(4, int)).shape == (3,)


# Killed


def run_forked(out: Path, writer) -> None:
    """Runs the command where all is imported, but nothing of JAX was started."""
    errors = os.open(f"{out}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(writer.fileno(), 1)
    os.dup2(errors, 2)
    warnings.simplefilter("error")
    os._exit(train(out, "--resume"))


@pytest.mark.slow
def test_chaos(tmp_path, monkeypatch):
    """SIGKILL at random moments of the command, its saves included."""
    num_kills = int(os.environ.get("CHAOS_KILLS", "2"))
    rng = random.Random(os.environ.get("CHAOS_SEED", "0"))
    # Two devices, one of which trains a copy of the last seed.
    two_devices = "--xla_force_host_platform_device_count=2"
    monkeypatch.setenv("XLA_FLAGS", with_xla_flags(two_devices))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_checkpoints"])

    def run(out: Path, until: float | None = None) -> float:
        """Kills it some seconds after its first line; returns how many it took."""
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=run_forked, args=(out, writer))
        process.start()
        writer.close()
        reader.poll(600)
        begin = time.monotonic()
        process.join(until)
        process.kill()
        process.join()
        if until is None:
            assert (process.exitcode, Path(f"{out}.err").read_text()) == (0, "")
        return time.monotonic() - begin

    run(tmp_path / "whole")  # and compiles
    whole = numbers(tmp_path / "whole")
    seconds = run(tmp_path / "timed")
    assert numbers(tmp_path / "timed") == whole
    for _ in range(num_kills):
        run(tmp_path / "run", rng.uniform(0, 1) * seconds)
    run(tmp_path / "run")
    assert numbers(tmp_path / "run") == whole
