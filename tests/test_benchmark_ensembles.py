"""How fast networks train: who takes part, what follows from the turns, the command."""

import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from rich.console import Console

from experiments import benchmark, cores
from experiments.benchmarks import contestants, workers
from experiments.benchmarks import ensembles as benchmark_ensembles
from experiments.benchmarks.contestants import Contestant
from experiments.benchmarks.ensembles import EnsembleConfig
from experiments.benchmarks.first_step import time_first_step
from experiments.benchmarks.flops import count_flops
from experiments.benchmarks.jax_contestants import make_plain_network
from experiments.benchmarks.workers import Team, Turn, WorkerError
from experiments.cli import Interrupted
from experiments.training.models import MODELS
from tests.programs import ROOT, end

HAS_TORCH = importlib.util.find_spec("torch") is not None
COUNTER = "tests.test_workers:prepare_counter"
CEILINGS = ("matmul", "copy")
LEFT = "what was done is printed above; --out has the cases that were done."


def count_products(jaxpr) -> int:
    """2 M K N of every product and every convolution of a program."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [getattr(each, "jaxpr", each) for each in equation.params.values()]
        total += sum(count_products(each) for each in inner if hasattr(each, "eqns"))
        numbers = equation.params.get("dimension_numbers")
        if equation.primitive.name == "dot_general":
            shape, axes = equation.invars[0].aval.shape, numbers[0][0]
        elif equation.primitive.name == "conv_general_dilated":
            shape, axes = equation.invars[1].aval.shape, numbers.rhs_spec[1:]
        else:
            continue
        products = equation.outvars[0].aval.size * math.prod(shape[a] for a in axes)
        total += 2 * products
    return total


@pytest.mark.parametrize("model", MODELS)
def test_flops_are_those_of_the_products(model):
    network = nnx.eval_shape(
        lambda: make_plain_network(
            model, lambda shape: nnx.Dropout(0.0), (32, 32, 3), 10, rngs=nnx.Rngs(0)
        )
    )
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def loss(params, rest, images):
        return nnx.merge(graph, params, rest, copy=True)(images).sum()

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    found = count_products(jax.make_jaxpr(jax.grad(loss))(params, rest, images).jaxpr)
    if model == "resnet20":
        # Written without strides: of two convolutions three quarters are thrown away.
        found -= 2 * 3 * 3 * 2 * (16**2 * 9 * 16 * 32 + 8**2 * 9 * 32 * 64)
    assert found == 2 * count_flops(model, (32, 32, 3), 10)


# Who takes part


def plan(monkeypatch, platform, num_cores, max_seeds=None, model="cnn"):
    monkeypatch.setattr(cores, "available_cores", lambda: list(range(num_cores)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    settings = model, "bfloat16", max_seeds, platform, "folder"
    return dict(contestants.plan("water", *settings))


def names(contestants):
    return [contestant.name for contestant in contestants]


def test_on_a_cpu_pytorch_has_a_worker_on_each_core(monkeypatch):
    cases = plan(monkeypatch, "cpu", 6, max_seeds=8)
    assert list(cases) == [8, 6, 1, 4, 2]  # first those with all contestants
    for num_seeds, taking_part in cases.items():
        assert names(taking_part)[0] == "ours"
        assert ("JAX, one after another" in names(taking_part)) == (
            num_seeds in (1, 6, 8)
        )
        assert ("JAX, vmap" in names(taking_part)) == (num_seeds == 1)
        assert ("PyTorch" in names(taking_part)) == (num_seeds in (1, 6))
        assert "PyTorch, grouped" not in names(taking_part)
        for contestant in taking_part:
            assert contestant.settings["dtype"] == "bfloat16"
            if contestant.name.startswith("PyTorch"):
                cores = [core for share in contestant.cores for core in share]
                assert cores == list(range(6))
                assert len(contestant.cores) == num_seeds
                assert contestant.settings["num_threads"] == 6 // num_seeds
            else:
                assert contestant.cores == (None,)


def test_on_a_gpu_pytorch_trains_all_networks_as_one_or_side_by_side(monkeypatch):
    cases = plan(monkeypatch, "gpu", 6)
    assert list(cases) == [256, 6, 1, 64, 16, 4]
    for num_seeds, taking_part in cases.items():
        compared = num_seeds in (1, 6, 256)
        assert ("JAX, vmap" in names(taking_part)) == compared
        assert ("PyTorch, compiled" in names(taking_part)) == (num_seeds in (1, 6))
        grouped = [c for c in taking_part if c.name.startswith("PyTorch, grouped")]
        assert len(grouped) == (2 if num_seeds == 256 else 0)
        for contestant in grouped:
            assert contestant.settings["num_seeds"] == 256
            assert len(contestant.cores) == 1
    for model, takes_part in ("resnet20", True), ("vit", False):
        taking_part = plan(monkeypatch, "gpu", 6, model=model)[1]
        assert ("PyTorch, our bank" in names(taking_part)) == takes_part
        assert {each.settings["model"] for each in taking_part} == {model}


# The turns


def test_the_number_of_steps_fills_a_turn():
    asked = []

    def take_turn(num_steps):
        asked.append(num_steps)
        start = 0.5 if len(asked) == 1 else 0  # as the first turn may take longer
        return [Turn(64.0, start + 0.01 * num_steps, 0)] * 2

    assert benchmark_ensembles.choose_steps(Team(take_turn, 0, {}), 3) == 300
    assert asked == [1, 1, 60]


def turns(*rounds):
    """Of each round the amounts and peaks of the workers, of two seconds each."""
    return [
        [{"amount": x, "seconds": 2.0, "peak_bytes": peak} for x, peak in each]
        for each in rounds
    ]


def test_figures_are_medians_over_rounds():
    # In a round that is slow for all, the ratio is what it always is.
    ours = turns([(800, 5)], [(800, 6)], [(400, 6)])
    peers = turns(*[[(200, 3), (200, 4)]] * 2, [(100, 3), (100, 3)])
    case = {
        "num_seeds": 2,
        "ceilings": {
            "matmul": {"turns": turns([(4e9, 0)], [(4e9, 0)], [(2e9, 0)])},
            "copy": {"turns": turns([(6, 0)], [(8, 0)], [(10, 0)])},
        },
        "contestants": [
            {"contestant": "ours", "compile_seconds": 10.0, "turns": ours},
            {"contestant": "PyTorch", "compile_seconds": 0.0, "turns": peers},
        ],
    }
    benchmark_ensembles.summarize(case, flops_per_image=10**6, steps_per_epoch=10)
    ours, peer = case["contestants"]
    assert case["ceilings"]["copy"]["per_second"] == [3.5, 4, 4.5]
    assert ours["images_per_second"] == [300, 400, 400]
    assert ours["to_ours"] == [1, 1, 1]
    assert ours["seconds_per_run"] == 10 * 10 * 64 / 400 + 10 / 2
    assert ours["of_matmul"] == pytest.approx(0.2)
    assert (ours["peak_bytes"], peer["peak_bytes"]) == (6, 7)
    assert peer["images_per_second"] == [150, 200, 200]
    assert peer["to_ours"] == [0.5, 0.5, 0.5]
    assert peer["seconds_per_run"] == 10 * 10 * 64 / 200


def run_case(*contestants):
    def take_turn(num_steps):
        return [Turn(num_steps, 0.1, 0)]

    config = EnsembleConfig(rounds=3, seconds=1.0)
    ceilings = {name: Team(take_turn, 0.0, {}) for name in CEILINGS}
    return benchmark_ensembles.run_case(
        config, 1, list(contestants), ceilings, Console(quiet=True)
    )


def test_a_contestant_that_cannot_take_part_is_left_out_and_says_why():
    ours = Contestant("ours", COUNTER, {})
    other = Contestant("PyTorch", "tests.test_workers:prepare_nothing", {})
    case = run_case(ours, other)
    assert [row["contestant"] for row in case["contestants"]] == ["ours"]
    message = "FileNotFoundError: there is nothing"
    assert case["failures"] == {"PyTorch": message}
    benchmark_ensembles.summarize(case, flops_per_image=1, steps_per_epoch=1)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(benchmark_ensembles.make_table(case))
    assert f"PyTorch: failed, {message}" in captured.get()


def test_a_contestant_that_fails_in_a_turn_is_left_out():
    ours = Contestant("ours", COUNTER, {})
    # It is warmed up, and fails at the first turn that counts or soon after it.
    other = Contestant("PyTorch", COUNTER, {"fail_after": 6})
    case = run_case(ours, other, ours._replace(name="JAX, vmap"))
    names = [row["contestant"] for row in case["contestants"]]
    assert names == ["ours", "JAX, vmap"]
    assert all(len(row["turns"]) == 3 for row in case["contestants"])
    assert case["failures"]["PyTorch"].endswith("is too much")


def test_nothing_is_measured_without_ours():
    with pytest.raises(WorkerError):
        run_case(Contestant("ours", "tests.test_workers:prepare_nothing", {}))


# The first step


def test_the_first_step_is_timed_cold_and_warm(monkeypatch):
    folders = []

    def run(command, *, env, **settings):
        cache = Path(env["XDG_CACHE_HOME"])
        out = Path(command[-1].removeprefix("--out="))
        assert command[1:4] == ["-m", "experiments.cifar", "--reg=gaussian"]
        assert command[4:-1] == ["--epochs=1", "--steps-per-epoch=1"]
        assert cache.exists() == bool(folders)
        folders.append(cache)
        cache.mkdir(exist_ok=True)
        out.mkdir()
        (out / "result.json").write_text('{"seconds": {"compile": 2.5}}')
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    times = time_first_step(["--reg=gaussian"])
    assert list(times) == ["cold", "warm"]
    assert all(each["seconds"] > 0 for each in times.values())
    assert all(each["compile_seconds"] == 2.5 for each in times.values())
    assert folders[0] == folders[1] and not folders[0].exists()


def test_a_first_step_that_fails_says_why(monkeypatch):
    done = subprocess.CompletedProcess([], 2, "", "something\nerror: it is broken")
    monkeypatch.setattr(subprocess, "run", lambda *args, **settings: done)
    with pytest.raises(WorkerError, match="cifar failed, error: it is broken"):
        time_first_step([])


# The command


@pytest.fixture
def small(monkeypatch):
    """Without what takes longest, and is tested by itself."""

    def time_first_step(flags):
        assert flags[1:] == ["--model=cnn", "--dtype=float32", "--dataset=digits"]
        return {name: {"seconds": 2.0} for name in ("cold", "warm")}

    monkeypatch.setattr(benchmark_ensembles, "time_first_step", time_first_step)
    every = contestants.torch_contestants
    monkeypatch.setattr(contestants, "torch_contestants", lambda *x: every(*x)[:1])


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_a_file(small, tmp_path, capsys):
    out = tmp_path / "ensemble.json"
    flags = "--reg=dropout --dataset=digits --max-seeds=1 --rounds=1 --seconds=0.1"
    assert end(benchmark.main, "ensemble", *flags.split(), f"--out={out}") == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    expected = ["ours", "JAX, one after another", "JAX, vmap", *HAS_TORCH * ["PyTorch"]]
    assert ("pip install -e '.[bench]'" in printed) == (not HAS_TORCH)
    for words in ("1 seed;", "2.0 s with", *expected):
        assert words in printed
    environment = result["environment"]
    assert environment["device"].startswith("cpu")
    assert (environment["torch"] is None) == (not HAS_TORCH)
    assert (result["reg"], result["model"]) == ("dropout", "cnn")
    (case,) = result["cases"]
    assert case["num_seeds"] == 1 and case["failures"] == {}
    assert [row["contestant"] for row in case["contestants"]] == expected
    for row in case["contestants"]:
        figures = [*row["images_per_second"], *row["to_ours"], row["of_matmul"]]
        assert min(*figures, row["seconds_per_run"], row["peak_bytes"]) > 0
        for (turn,) in row["turns"]:
            assert turn["amount"] % 64 == 0 and turn["seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["ensemble.json"]


@pytest.mark.parametrize(
    ("flag", "remedy"),
    [
        ("--max-seeds=0", "give a whole number of 1 or more"),
        ("--seconds=nan", "give a finite number above 0"),
        ("--reg=aphex", "choose one of none, dropout, gaussian, water"),
        ("--model=resnet", "choose one of cnn, resnet20, vit (did you mean"),
        ("--dtype=float16", "choose one of float32, bfloat16 (did you mean"),
        ("--out=.", "cannot be written; name a file"),
        ("--dataset=mnist", "no such dataset"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(
    flag, remedy, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "start_team", None)
    assert end(benchmark.main, "ensemble", flag) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {flag}: {remedy}")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_leaves_the_cases_that_are_done(monkeypatch, tmp_path, capsys):
    out = tmp_path / "ensemble.json"
    case = run_case(Contestant("ours", COUNTER, {}))
    about = {"platform": "cpu", "environment": {"device": "cpu"}}

    def run_first(config, num_seeds, *_):
        if num_seeds == 1:
            raise Interrupted(signal.SIGTERM)
        return case

    with monkeypatch.context() as patch:
        start_team = contextlib.nullcontext(Team(None, 0.0, about))
        patch.setattr(workers, "start_team", lambda *settings: start_team)
        patch.setattr(benchmark_ensembles, "run_case", run_first)
        flags = "--dataset=digits", "--max-seeds=2", f"--out={out}"
        assert end(benchmark.main, "ensemble", *flags) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == f"interrupted: {LEFT}\n"
    result = json.loads(out.read_text())
    assert [each["contestants"] for each in result["cases"]] == [case["contestants"]]


@pytest.mark.slow  # starts processes that load JAX
def test_a_signal_leaves_no_folder_behind(tmp_path):
    signum = signal.SIGTERM
    command = [sys.executable, "-m", "experiments.benchmark", "ensemble"]
    with subprocess.Popen(
        [*command, "--dataset=digits"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not list(tmp_path.glob("*/train_images.npy")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert err == f"interrupted: {LEFT}\n"
    assert not list(tmp_path.iterdir())
