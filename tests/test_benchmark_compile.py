"""What is counted of programs for accelerators, on programs that a CPU compiles too."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments import benchmark
from experiments.benchmarks import compiling, targets
from experiments.benchmarks.cases import Case, prepare
from experiments.benchmarks.compiling import CompileConfig
from experiments.benchmarks.programs import count_bytes, list_growth, list_kernels
from tests.programs import end


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[2,3]{1,0}", 24),
        ("(bf16[4], (pred[3], s8[5]))", 16),
        ("f32[]", 4),
        ("token[]", 0),
        # A TPU pads the last axes of its order to tiles of 8 x 128.
        ("f32[64,16,16]{0,2,1:T(8,128)}", 4 * 128 * 16 * 16),
        ("bf16[3,200]{1,0:T(8,128)(2,1)}", 2 * 8 * 256),
        ("f32[1000]{0:T(1024)}", 4096),
        ("f32[64,16]{1,0:T(8,128)S(1)}", 0),  # on the chip
    ],
)
def test_arrays_take_the_memory_of_their_layout(shape, expected):
    assert count_bytes(shape) == expected


# Written by hand, as XLA writes one for a GPU and for a TPU.
PROGRAM = (Path(__file__).parent / "program.hlo").read_text("utf-8")
ONCE = "ROOT %out = f32[10,8]{1,0} copy(%made)"
TRAINING = """%state = (f32[10,8]{1,0}, s32[]) tuple(%made, %start)
  %trained = (f32[10,8]{1,0}, s32[]) while(%state), condition=%condition, body=%body
  ROOT %out = f32[10,8]{1,0} get-tuple-element(%trained), index=0"""


def test_a_program_without_training_is_counted_whole():
    kernels = list_kernels(PROGRAM.replace("LOOP", ONCE))
    assert [kernel.instruction.name for kernel in kernels] == ["cut", "made", "out"]
    # Of the bank the slice alone is read.
    assert [kernel.num_bytes for kernel in kernels] == [2 * 320 + 4, 2 * 320 + 256, 640]
    assert [kernel.cost for kernel in kernels] == [2.5, None, None]
    assert [kernel.product for kernel in kernels] == ["", "product", ""]


def test_of_a_training_loop_one_step_is_counted():
    kernels = list_kernels(PROGRAM.replace("LOOP", TRAINING))
    assert [(k.instruction.name, k.times) for k in kernels] == [
        ("negate", 5),
        ("conv", 1),
    ]
    assert kernels[0].cost == 70
    assert kernels[1].product == "convForward 3x3 of 64 groups"


def test_a_compiled_product_reads_two_sides_and_writes_one():
    left, right = jnp.ones((64, 32)), jnp.ones((32, 128))
    text = jax.jit(jnp.matmul).lower(left, right).compile().as_text()
    num_bytes = sum(kernel.times * kernel.num_bytes for kernel in list_kernels(text))
    assert num_bytes == left.nbytes + right.nbytes + 4 * 64 * 128
    assert [kernel.product for kernel in list_kernels(text)] == ["product"]


def test_every_case_has_a_program():
    cases = compiling.list_cases(CompileConfig("h100"))
    layers = 2 * 3 * len(compiling.CONTESTANTS)
    assert len(cases) == len(set(cases)) == 8 + 4 + 4 + 2 * 5 + layers
    assert {case.program for case in cases} == set(compiling.PROGRAMS)


@pytest.fixture
def on_the_cpu(monkeypatch):
    """A CPU in the place of the accelerator, and two layers as the only cases."""
    target = targets.Target("a CPU", "cpu", 1e9, 1e6, "")
    monkeypatch.setitem(compiling.TARGETS, "h100", target)
    monkeypatch.setattr(compiling, "open_target", lambda name: jax.devices()[0])
    monkeypatch.setattr(compiling, "SHAPES", ((2, 4, 4, 2),))
    few = {name: compiling.CONTESTANTS[name] for name in ("copy", "nnx.Dropout")}
    monkeypatch.setattr(compiling, "CONTESTANTS", few)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


LAYERS = ("--target=h100", "--program=layers", "--seeds=2")


def test_the_command_prints_and_writes_what_was_counted(on_the_cpu, tmp_path, capsys):
    out = tmp_path / "compile.json"
    end(benchmark.main, "compile", *LAYERS, f"--out={out}")
    printed = capsys.readouterr().out
    assert "no times" in printed and "2 of 2x4x4x2" in printed
    result = json.loads(out.read_text())
    rows = {row["layer"]: row for row in result["cases"]}
    assert list(rows) == list(compiling.CONTESTANTS)
    # Both maps are read and written.
    assert rows["copy"]["bytes"] == 4 * 2 * 2 * 4 * 4 * 2 * 4
    assert rows["copy"]["images"] == 4
    assert rows["copy"]["floor_seconds"] == rows["copy"]["bytes"] / 1e9
    # Growth over a record ends the command.
    num_bytes = result["cases"][0]["bytes"]
    for factor, code in ((1.0, 0), (0.96, 0), (0.94, 1)):
        result["cases"][0]["bytes"] = num_bytes * factor
        out.write_text(json.dumps(result))
        assert end(benchmark.main, "compile", *LAYERS, f"--against={out}") == code
    assert "copy, 2, 4, 4, 2: bytes grew from" in capsys.readouterr().err
    # That of another network is refused, before anything is compiled.
    flags = [*LAYERS, "--model=vit", f"--against={out}"]
    assert end(benchmark.main, "compile", *flags) == 2
    printed = capsys.readouterr()
    assert "it is of model 'cnn', not of vit; name another file." in printed.err
    assert printed.out == ""


@pytest.mark.slow  # a network's initial weights
@pytest.mark.parametrize("program", ["train", "plain", "evaluate", "regularizers"])
def test_programs_are_those_of_the_network(program):
    case = Case(program, 2, layer="none" if program == "regularizers" else "")
    _, (state, *_), num_images = prepare(case, "vit", jax.devices()[0])
    params, *_ = state
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2 * 207_306
    assert num_images == 2 * (10_000 if program == "evaluate" else 64)


def test_another_batch_is_named_and_is_another_program(on_the_cpu):
    (case,) = compiling.list_cases(
        CompileConfig("h100", "train", seeds=2, dtype="float32", batch_size=128)
    )
    assert case == Case("train", 2, batch_size=128)
    counts = ("kernels", "bytes", "floor_seconds", "cost_seconds", "temporary_bytes")
    row = dataclasses.asdict(case) | dict.fromkeys((*counts, "compile_seconds"), 1)
    row |= {"images": 2 * 128, "products": {}}
    _, (what, *_) = compiling.list_programs([row])
    assert what == "training, float32, batches of 128"
    with pytest.raises(ValueError, match="none of these programs"):
        list_growth([row], [row | {"images": 2 * 64}])


def test_regularizers_are_compared_by_what_they_add():
    costs = {"none": 0.010, "dropout": 0.014, "gaussian": 0.016, "water": 0.011}
    row = {"program": "regularizers", "seeds": 64, "dtype": "float32"}
    rows = [
        row | {"layer": reg, "cost_seconds": cost}
        for reg, cost in (costs | {"plane": 0.0126}).items()
    ]
    assert compiling.list_programs(rows)[1:] == []
    assert compiling.list_regularizers(rows) == [
        ["", "64 seeds, float32"],
        ["dropout", "4,000 (1.00)"],
        ["gaussian", "6,000 (1.50)"],
        ["water", "1,000 (0.25)"],
        ["plane", "2,600 (0.65)"],
    ]
    assert compiling.list_regularizers([]) == [[""]]


@pytest.mark.parametrize("text", ["", "[]", '{"cases": []}'])
def test_a_record_of_something_else_is_refused(on_the_cpu, tmp_path, capsys, text):
    (tmp_path / "record.json").write_text(text)
    flags = [*LAYERS, f"--against={tmp_path}/record.json"]
    assert end(benchmark.main, "compile", *flags) == 2
    assert "no results to compare with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "error: --target is missing; give --target=VALUE."),
        (["--seeds=2"], "error: --target is missing; give --target=VALUE."),
        (["--target=h10"], "error: --target=h10: choose one of h100, v5e"),
        (
            ["--target=h100", "--model=x"],
            "error: --model=x: choose one of cnn, resnet20",
        ),
        (["--target=h100", "--seeds=0"], "error: --seeds=0: give a whole number"),
        (
            ["--target=h100", "--batch-size=50001"],
            "error: --batch-size=50001: give a whole number from 1 to 50000",
        ),
        (["--target=h100"], "pip install -e '.[compile-gpu]'"),
        (["--target=v5e"], "pip install -e '.[compile-tpu]'"),
    ],
)
def test_bad_input_and_a_missing_plugin_are_one_line(
    monkeypatch, capsys, arguments, words
):
    found = importlib.util.find_spec
    missing = {module for module, _ in targets.PLUGINS.values()}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda x: None if x in missing else found(x)
    )
    assert end(benchmark.main, "compile", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
