"""What layers cost: what is timed is what it says, the ratios are of those times."""

import functools
import itertools
import json
import os

import jax
import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import layers as benchmark_layers
from experiments.benchmarks.layers import CONTESTANTS
from experiments.cli import UsageError
from tests.programs import end

SHAPE = (4, 8, 8, 2)
INPUTS, GRADIENT = jax.random.normal(jax.random.key(0), (2, *SHAPE))
NOISES = [name for name in CONTESTANTS if name not in ("copy", "nnx.Dropout")]


@functools.cache
def program(name):
    contestant = CONTESTANTS[name]
    run = jax.jit(benchmark_layers.forward_and_backward(contestant))
    return functools.partial(run, bank=contestant.make_bank(SHAPE))


def run(name, key=0):
    return program(name)(INPUTS, GRADIENT, jax.random.key(key))


@pytest.fixture(autouse=True)
def small_banks(monkeypatch):
    monkeypatch.setattr(benchmark_layers, "BANK_VALUES", 2**14)


def test_a_copy_copies_both_ways():
    outputs, gradient = run("copy")
    np.testing.assert_array_equal(outputs, INPUTS)
    np.testing.assert_array_equal(gradient, GRADIENT)


def test_dropout_drops_both_ways():
    outputs, gradient = map(np.asarray, run("nnx.Dropout"))
    dropped = outputs == 0
    assert 0 < dropped.mean() < 0.5
    np.testing.assert_array_equal(gradient == 0, dropped)
    np.testing.assert_allclose(gradient[~dropped], GRADIENT[~dropped] / 0.8, rtol=1e-6)


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_added_and_its_gradient_passed_on(name):
    outputs, gradient = run(name)
    np.testing.assert_array_equal(gradient, GRADIENT)
    assert 0.01 < float((outputs - INPUTS).std()) < 1.5
    if name != "add a fixed map":
        assert not np.allclose(run(name, key=1)[0], outputs, atol=1e-3)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_what_is_prepared_runs_for_every_seed_with_new_keys(num_seeds):
    start = benchmark_layers.prepare(CONTESTANTS["rows, bank"], SHAPE, num_seeds)
    first, second = (np.array(start()[0]) for _ in range(2))  # before overwritten
    assert first.shape == (SHAPE if num_seeds == 1 else (num_seeds, *SHAPE))
    assert not np.allclose(first, second, atol=1e-3)


def test_functions_take_turns():
    calls = []

    def counted(name):
        def start():
            calls.append(name)
            return INPUTS

        return start

    times = benchmark_layers.time_in_turn({"a": counted("a"), "b": counted("b")}, 4)
    assert list(times) == ["a", "b"]
    assert all(x.shape == (4,) and (x > 0).all() for x in times.values())
    turns = [name for name, _ in itertools.groupby(calls)]
    assert turns == ["a", "b"] * 5  # one call each to see how long it takes


def test_ratios_are_medians_over_rounds():
    times = {name: np.full(5, 4.0) for name in CONTESTANTS}
    times |= {"copy": np.ones(5), "nnx.Dropout": np.full(5, 8.0)}
    # In a round that is slow for all, the ratio is what it always is.
    times["rows, bank"] = np.array([2.0, 2.0, 2.0, 2.0, 100.0])
    rows = {row["layer"]: row for row in benchmark_layers.compare(times)}
    assert list(rows) == list(CONTESTANTS)
    copy, bank = rows["copy"], rows["rows, bank"]
    assert (copy["to_copy"], copy["bandwidth_to_copy"]) == ([1, 1, 1], 1)
    assert rows["nnx.Dropout"]["to_dropout"] == [1, 1, 1]
    assert (bank["to_copy"], bank["to_dropout"]) == ([2, 2, 2], [0.25, 0.25, 0.25])
    assert (bank["microseconds"], bank["bandwidth_to_copy"]) == (2e6, 5 / 4 / 2)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(benchmark_layers, "SHAPES", (SHAPE,))
    monkeypatch.setattr(benchmark_layers, "SECONDS_PER_TURN", 1e-6)


def test_results_that_cannot_be_written_end_in_one_line(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UsageError, match=r"--out=.* \(No space left on device\)"):
        benchmark_layers.save(tmp_path / "layer.json", {})
    assert not list(tmp_path.iterdir())


def test_help_names_both_benchmarks(capsys):
    assert end(benchmark.main, "--help") == 0
    printed = capsys.readouterr()
    assert "layer" in printed.out and "ensemble" in printed.out and not printed.err


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_a_file(small, tmp_path, capsys):
    out = tmp_path / "layer.json"
    assert end(benchmark.main, "layer", "--rounds=2", f"--out={out}") == 0
    printed = capsys.readouterr().out
    for words in ("of nnx.Dropout", "4x8x8x2", "8 seeds of 4x8x8x2", *CONTESTANTS):
        assert words in printed
    result = json.loads(out.read_text())
    assert result["environment"]["device"].startswith("cpu")
    assert result["rounds"] == 2
    assert [case["num_seeds"] for case in result["cases"]] == [1, 8]
    for case in result["cases"]:
        assert [row["layer"] for row in case["layers"]] == list(CONTESTANTS)
    assert [path.name for path in tmp_path.iterdir()] == ["layer.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "benchmark=: choose one of layer, ensemble, compile."),
        ("layr", "benchmark=layr: choose one of layer, ensemble, compile (did"),
        ("layer --rounds=0", "--rounds=0: give a whole number of 1 or more"),
        ("layer --out=.", "--out=.: cannot be written; name a file"),
        ("layer --out=missing/x.json", "--out=missing/x.json: cannot be written"),
    ],
)
def test_bad_arguments_get_one_line(arguments, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark_layers, "prepare", None)
    assert end(benchmark.main, *arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []
