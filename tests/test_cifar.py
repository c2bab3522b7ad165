"""The command end to end: its files, the closing lines, one line for bad input."""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import cifar
from experiments.cli import UsageError
from experiments.data import datasets
from experiments.runs import outputs, runner
from experiments.runs.configs import Config
from experiments.training import devices, memory, metrics
from experiments.training.regularizers import REGULARIZERS
from experiments.training.trainer import Progress
from tests.programs import ROOT, end, python

FILES = {
    *("result.json", "metrics.jsonl", "predictions.npz"),
    *("loss.png", "loss.svg", "confusion.png", "confusion.svg"),
}
FLAGS = ["--dataset=digits", "--epochs=2", "--steps-per-epoch=2", "--batch-size=32"]
SEEDS = [58, 59]


# One run of two seeds, looked at from all sides


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """The folder in which runs keep their compiled programs."""
    return tmp_path_factory.mktemp("programs")


def call(out: Path, programs: Path) -> subprocess.CompletedProcess:
    command = ["-W", "error", "-m", "experiments.cifar", *FLAGS, "--seeds=2"]
    process = python(*command, f"--out={out}", JAX_COMPILATION_CACHE_DIR=str(programs))
    assert process.returncode == 0, process.stderr
    return process


@pytest.fixture(scope="session")
def finished(tmp_path_factory, programs) -> tuple[Path, subprocess.CompletedProcess]:
    """A folder, and what the command that filled it through a pipe said."""
    out = tmp_path_factory.mktemp("cifar") / "deep" / "run"
    return out, call(out, programs)


@pytest.fixture(scope="session")
def result(finished) -> dict:
    return json.loads((finished[0] / "result.json").read_text())


@pytest.mark.slow
def test_stderr_is_empty_and_stdout_has_plain_lines(finished):
    out, process = finished
    assert process.stderr == ""
    assert "\x1b" not in process.stdout and "\r" not in process.stdout
    first, *epochs, _, row_58, row_59, accuracy, _, where, _, following = (
        process.stdout.splitlines()
    )
    assert first.startswith("water on handwritten digits (1,437 images), 2 seeds")
    for number, line in zip((1, 2), epochs, strict=True):
        assert re.fullmatch(
            rf"Epoch \[{number}/2\], Loss: \d\.\d{{4}}, Accuracy: \d+\.\d\d%, "
            r"[\d,]+ images/s, \d+:\d\d:\d\d left",
            line,
        )
    assert row_58.split()[0] == "58" and row_59.split()[0] == "59"
    assert "over 2 seeds" in accuracy and where.startswith(f"Results: {out}, with ")
    assert f"--out={out}-none && python -m experiments.report" in following


@pytest.mark.slow
def test_result_has_the_promised_schema(result):
    assert {"config", "dataset", "environment", "runs", "summary"} <= set(result)
    config, dataset = result["config"], result["dataset"]
    settings = config["reg"], config["dataset"], config["batch_size"]
    assert settings == ("water", "digits", 32)
    assert dataset["fingerprint"] == datasets.load("digits").fingerprint
    assert (dataset["train_size"], dataset["test_size"]) == (1437, 360)
    assert [run["seed"] for run in result["runs"]] == SEEDS
    for run in result["runs"]:
        assert len(run["train_loss"]) == len(run["test_accuracy"]) == 2
        assert all(0 < loss < 10 for loss in run["train_loss"])
        assert run["accuracy"] == run["test_accuracy"][-1]
        assert run["peak_accuracy"] == max(run["test_accuracy"])
        assert run["diverged"] is False
    assert result["summary"] == outputs.summarize(result["runs"])
    assert set(result["seconds"]) == {"compile", "train"}
    # 2 epochs of 2 steps of 32 images, of 2 seeds; both figures are rounded.
    seconds = 2 * 2 * 32 * 2 / result["images_per_second"]
    assert seconds == pytest.approx(result["seconds"]["train"], abs=2e-3)


@pytest.mark.slow
def test_predictions_reproduce_the_scores(finished, result):
    dataset = datasets.load("digits")
    with np.load(finished[0] / "predictions.npz") as saved:
        logits, labels, seeds = (saved[k] for k in ("logits", "labels", "seeds"))
    assert (logits.shape, logits.dtype) == ((2, 360, 10), np.float32)
    np.testing.assert_array_equal(labels, dataset.test_labels)
    assert seeds.tolist() == SEEDS
    for run, seed_logits in zip(result["runs"], logits, strict=True):
        score = metrics.score(seed_logits, labels)
        assert {name: run[name] for name in score} == score


@pytest.mark.slow
def test_metrics_hold_the_curves_of_the_result(finished, result):
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["epoch"] for record in records] == [1, 2]
    for name in ("train_loss", "test_accuracy"):
        curves = [run[name] for run in result["runs"]]
        assert [record[name] for record in records] == np.transpose(curves).tolist()
    assert 0 < records[0]["seconds"] < records[1]["seconds"]


def test_deterministic_asks_xla_for_it_whatever_the_flags(
    interrupted, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false")
    for flags, expected in ([], "false"), (["--deterministic"], "true"):
        flags += ["--dataset=digits", "--reg=aphex", f"--out={tmp_path / expected}"]
        assert end(cifar.main, *flags) == 130
        last = os.environ["XLA_FLAGS"].split()[-1]
        assert last == f"--xla_gpu_deterministic_ops={expected}"
        assert "synthesised" in capsys.readouterr().out  # the track of aphex


@pytest.mark.slow
def test_xla_knows_what_deterministic_asks_for():
    # It ends a process that asks for what it does not know.
    code = """
from experiments.training import devices
devices.be_deterministic()
import jax
print(jax.numpy.ones(3).sum())
"""
    process = python("-W", "error", "-c", code)
    assert (process.stdout, process.stderr) == ("3.0\n", "")


@pytest.mark.slow
@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="sums on accelerators may vary in order"
)
def test_nothing_of_a_strangers_machine_costs_a_result(
    finished, result, programs, tmp_path
):
    kept = {path.name for path in programs.iterdir()}
    # Without the noise banks, 50 MB of them.
    assert kept and sum(path.stat().st_size for path in programs.iterdir()) < 5e6
    (tmp_path / "matplotlibrc").write_bytes(b"text.usetex: True # \xff\n")
    strange = {
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "PYTHONIOENCODING": "ascii",
        "MPLBACKEND": "a notebook's",
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
        "GIT_DIR": str(tmp_path),
    }
    out = tmp_path / "[/b] no text \udcff"
    command = [sys.executable, "-W", "error", "-m", "experiments.cifar", *FLAGS]
    command += ["--seeds=2", f"--out={out}"]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | strange,
            stdout=subprocess.PIPE,
            stderr=full,
        )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().startswith(b"water on handwritten digits")
    assert process.wait() == 0
    for folder in (out, finished[0]):
        assert {path.name for path in folder.glob("[!.]*")} == FILES
    again = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert again["runs"] == result["runs"]
    assert again["environment"]["commit"] == result["environment"]["commit"]
    for name in ("loss.png", "confusion.png"):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes()
    # Nor does it compile what the first has kept.
    assert {path.name for path in programs.iterdir()} == kept


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"HOME": "HERE", "XDG_CACHE_HOME": ""}, "HERE/.cache/sounddrop_jax/programs"),
        ({"XDG_CACHE_HOME": "HERE/file"}, None),  # no folder can be made there
        ({"HOME": "HERE", "JAX_COMPILATION_CACHE_DIR": ""}, None),
    ],
    ids=str,
)
def test_compiled_programs_are_kept_where_caches_are(
    settings, expected, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value.replace("HERE", str(tmp_path)))
    chosen = {}
    monkeypatch.setattr(jax.config, "update", chosen.__setitem__)
    devices.keep_programs()
    folder = chosen["jax_compilation_cache_dir"]
    assert folder == (expected and expected.replace("HERE", str(tmp_path)))
    is_ours = expected is not None and expected.endswith("programs")
    assert len(list(tmp_path.rglob("programs"))) == is_ours


# Help, defaults, interruptions


def test_help_teaches_every_flag(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert end(cifar.main, "--help") == 0
    help = capsys.readouterr().out
    for field in dataclasses.fields(Config):
        # At a line's start, with something to say about it.
        flag = "--" + field.name.replace("_", "-")
        assert re.search(rf"^\W*{flag} .*\w", help, re.MULTILINE), flag
    assert "python -m experiments.cifar --reg=water" in help
    for choices in (",".join(REGULARIZERS), "auto,cifar10,digits"):
        assert choices in help


class Interrupted:
    """A trainer that someone stops in the middle of its first epoch."""

    compile_seconds = 0.0

    def __init__(self, functions, seeds, **settings):
        pass

    def train(self, num_epochs, steps_per_epoch, **settings):
        yield Progress(0, 1, np.ones(1), 0.1)
        raise KeyboardInterrupt


@pytest.fixture
def interrupted(monkeypatch):
    monkeypatch.setattr(runner, "Trainer", Interrupted)
    monkeypatch.setattr(runner, "make_functions", lambda *args, **kwargs: None)
    monkeypatch.setattr(runner.memory, "check_seeds", lambda *args: None)
    # Of which there is nothing to fingerprint.
    monkeypatch.setattr(runner, "_describe_origin", lambda *args: {})


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(
    tmp_path, monkeypatch, interrupted
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner.time, "strftime", lambda format: "20261123-000000")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.run(Config(reg="gaussian", dataset="digits"))
    names = [folder.name for folder in (tmp_path / "runs").iterdir()]
    assert len(names) == 2
    for name in names:
        assert re.fullmatch(r"gaussian-20261123-000000-[0-9a-f]{6}", name)


def test_flags_reach_the_training(tmp_path, monkeypatch, capsys):
    calls = {}

    def make_functions(dataset, make_regularizer, **settings):
        calls.update(settings, dataset=dataset.name)
        calls["layer"] = make_regularizer((4, 4, 64))

    class Recorder(Interrupted):
        def __init__(self, functions, seeds, **settings):
            calls.update(settings, seeds=seeds)

        def train(self, num_epochs, steps_per_epoch, **settings):
            calls.update(num_epochs=num_epochs, steps_per_epoch=steps_per_epoch)
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "make_functions", make_functions)
    monkeypatch.setattr(runner.memory, "check_seeds", lambda *args: None)
    monkeypatch.setattr(runner, "Trainer", Recorder)
    flags = ["--dataset=digits", "--reg=gaussian", "--intensity=0.3", "--seeds=3"]
    flags += ["--seed=7", "--epochs=4", "--batch-size=100", "--learning-rate=0.5"]
    flags += ["--weight-decay=0.25", "--dtype=bfloat16", "--seeds-at-once=2"]
    for index, (flag, steps) in enumerate(
        # All 14 whole batches of 1,437 images, fewer, and never more.
        [([], 14), (["--steps-per-epoch=5"], 5), (["--steps-per-epoch=99"], 14)]
    ):
        end(cifar.main, *flags, *flag, f"--out={tmp_path / str(index)}")
        assert calls["steps_per_epoch"] == steps
    assert calls["layer"].intensity == 0.3
    expected = {"dataset": "digits", "seeds": [7, 8, 9], "seeds_at_once": 2}
    expected |= {"num_epochs": 4, "batch_size": 100, "learning_rate": 0.5}
    expected |= {"weight_decay": 0.25, "dtype": "bfloat16"}
    assert calls | expected == calls


def test_more_networks_than_fit_are_refused_before_anything_is_made(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)
    config = Config(dataset="digits", seed=7, seeds=20_000, out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"^--seeds=20000: they need 1") as error:
        runner.run(config)
    fitting = int(re.search(r"at most --seeds=(\d+),", str(error.value))[1])
    assert f"from --seed={7 + fitting} on" in str(error.value)
    assert not (tmp_path / "run").exists()
    prepare = functools.partial(runner._prepare, is_first=True)
    prepare(dataclasses.replace(config, seeds=fitting))
    with pytest.raises(UsageError, match=f"at most --seeds={fitting},"):
        prepare(dataclasses.replace(config, seeds=fitting + 1))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say")
def test_a_limit_of_the_process_counts_as_its_memory():
    code = """
import resource
from experiments.training import memory
before = memory.free_memory()
resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))
assert memory.free_memory() <= before
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
print(memory.free_memory())
"""
    done = python("-c", code)
    assert 0 < int(done.stdout) < 2**33, done.stderr
