"""Pipes, devices and the like in place of what is read, caches, and absurd flags."""

import json
import os
import shutil
import sys
import warnings
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import benchmark, cifar, files, report, study
from experiments.runs import checkpoints
from experiments.studies.cells import Cell, cell_of
from experiments.studies.logits import find_faults, logits_path, write_logits
from experiments.training import devices
from tests import faults, fuzz_inputs
from tests.stores import make_store
from tests.test_commands import PLAN

CIFAR = ("--dataset=cifar10", "--data-dir=data")
PREPARED = "data/cifar10/3.0.2"
PLACES = [
    # what is none, the command that is to read it, its flags
    ("x", study, ["--plan=x"]),
    ("x.py", study, ["--plan=p.toml", "--module=x.py"]),
    ("store/study.json", report, ["store"]),
    ("store/networks.jsonl", report, ["store"]),
    ("store/networks.jsonl", report, ["whole", "store"]),
    ("store/study.json", study, ["--plan=p.toml", "--out=store"]),
    ("x/networks.jsonl", study, ["--plan=p.toml", "--out=x"]),
    ("x.wav", cifar, ["--dataset=digits", "--reg=aphex", "--audio=x.wav"]),
    ("x/result.json", cifar, ["--dataset=digits", "--out=x", "--resume"]),
    ("x/metrics.jsonl", cifar, ["--dataset=digits", "--out=x"]),
    ("x/predictions.npz", cifar, ["--dataset=digits", "--out=x"]),
    (f"{PREPARED}/features.json", cifar, CIFAR),
    (f"{PREPARED}/dataset_info.json", cifar, CIFAR),
    (f"{PREPARED}/label.labels.txt", cifar, CIFAR),
    (f"{PREPARED}/cifar10-train.array_record-00000-of-00001", cifar, CIFAR),
    ("x.json", benchmark, ["layer", "--out=x.json"]),
]
# A file of any size is replaced where it is an output.
OUTPUTS = ("metrics.jsonl", "predictions.npz", "x.json")


def refusal(command, flags, monkeypatch, capsys) -> str:
    """Runs a command that has to refuse its flags by one line."""
    monkeypatch.setattr(sys, "argv", ["command", *flags])
    with pytest.raises(SystemExit) as exit:
        command.main()
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "p.toml").write_text(PLAN)
    for name in ("store", "whole"):
        make_store(folder / name)
    prepared = fuzz_inputs.make_prepared(folder / "prepared")
    fuzz_inputs.lay(prepared, folder / "data")
    shutil.rmtree(folder / "prepared")
    return folder


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(each, marks=pytest.mark.slow if each != "pipe" else [])
        for each in fuzz_inputs.OTHERS
    ],
)
def test_what_is_no_file_is_refused_wherever_it_is_read(
    other, whole, tmp_path, monkeypatch, capsys
):
    with faults.fakes():  # some are refused when training has begun
        for index, (name, command, flags) in enumerate(PLACES):
            if other == "sparse" and Path(name).name in OUTPUTS:
                continue
            folder = tmp_path / str(index)
            shutil.copytree(whole, folder)
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
            fuzz_inputs.replace(other, path)
            monkeypatch.chdir(folder)
            line = refusal(command, flags, monkeypatch, capsys)
            assert path.name in line or flags[-1] in line or flags[0] in line, line


def test_a_line_of_absurd_length_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n22\n333\n")
    assert list(files.read_lines(path, 4)) == [b"1\n", b"22\n", b"333\n"]
    with pytest.raises(OSError, match="more than 3 bytes"):
        list(files.read_lines(path, 3))


NINES = "9" * 5000
BAD_NAME = os.fsdecode(b"n\xff")
FLAGS = [
    # command, flags, and a part of the line
    (cifar, ["--epochs=1000000000000000"], "below 2^31"),
    (cifar, [f"--epochs={NINES}"], "give a whole number"),
    (cifar, ["--dataset=cifar10", "--data-dir=~nouser/x"], "there is no user nouser"),
    (cifar, ["--dataset=digits", f"--out={NINES}"], "File name too long"),
    (cifar, ["--dataset=digits", "--batch-size=1438"], "1437"),
    (study, ["--plan=p.toml", f"--module={NINES}.py"], "File name too long"),
    (study, [f"--plan={NINES}"], "File name too long"),
    (study, [f"--plan={BAD_NAME}.toml"], "its name is not UTF-8 text"),
    (study, ["--plan=p.toml", f"--module={BAD_NAME}.py"], "its name is not UTF-8"),
    (study, ["--plan=hex.toml"], "seeds=(int too large to show)"),
    (study, [f"--part=1/{NINES}"], "give I/N"),
    (report, [f"{BAD_NAME}"], "there is no study in it"),
    (report, ["--out=x"], "DIR is missing"),
    (cifar, ["--dataset=digits", "--out=p.toml/run"], "name another folder"),
    (benchmark, ["layer", "--rounds=1000000000000000"], "below 2^31"),
    (benchmark, ["layer", f"--out={NINES}"], "cannot be written"),
    (benchmark, ["ensemble", "--seconds=nan"], "give a finite number"),
]


@pytest.mark.parametrize(
    ("command", "flags", "part"), FLAGS, ids=[f"{f[-1][:20]!a}" for _, f, _ in FLAGS]
)
def test_absurd_flags_are_refused_in_one_line(
    command, flags, part, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("p.toml", f"{BAD_NAME}.toml"):
        Path(name).write_text(PLAN)
    Path(f"{BAD_NAME}.py").touch()
    Path("hex.toml").write_text(PLAN.replace("seeds = 2", f"seeds = 0x{NINES}"))
    before = set(tmp_path.iterdir())
    assert part in refusal(command, flags, monkeypatch, capsys)
    assert set(tmp_path.iterdir()) == before


# Logits


def test_logits_that_are_missing_or_damaged_are_named(tmp_path):
    whole = np.zeros((5, 3), np.float32)
    logits = [whole, whole, whole[:4], whole.astype(float), np.full_like(whole, np.nan)]
    logits += [np.full_like(whole, np.nan), whole, np.array([print, {}], object)]
    logits += [np.zeros((3000, 3000), np.float32)]
    records = [
        {**Cell("short", "water", 0.5, seed)._asdict(), "diverged": seed == 4}
        for seed in range(len(logits))
    ]
    paths = [logits_path(tmp_path, cell_of(record)) for record in records]
    for path, array in zip(paths, logits, strict=True):
        write_logits(path, array)
    paths[1].write_bytes(paths[0].read_bytes()[:-30])
    paths[6].unlink()
    faults = find_faults(tmp_path, records, {"short": (5, 3)})
    parts = {1: "damaged", 2: "float32[4, 3]", 3: "float64", 5: "not finite"}
    parts |= {6: "No such file", 7: "damaged", 8: "more than the 4,"}
    for fault, (index, part) in zip(faults, parts.items(), strict=True):
        assert fault.startswith(f"{paths[index]}: ") and part in fault


# Caches


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sounddrop_jax"


def test_a_cache_that_others_can_write_to_is_not_ours(caches, monkeypatch):
    assert files.cache_folder("a") == caches / "a"
    assert (caches / "a").stat().st_mode & 0o077 == 0
    for folder in (caches, caches / "a"):
        folder.chmod(0o777)
        assert files.cache_folder("a") is None
        folder.chmod(0o700)
    assert files.cache_folder("a") is not None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert files.cache_folder("a") is None


def test_a_cache_keeps_the_newest_files_of_its_user_up_to_a_size(tmp_path, monkeypatch):
    for age, name in enumerate(["new", "newer", "old", "older"]):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("new")
    files.trim(tmp_path, 25)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "newer"}
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    files.trim(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_program_is_made_anew_and_nothing_said(caches, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = jax.config.jax_compilation_cache_dir

    def run() -> float:  # anew, as it is of another function
        return float(jax.jit(lambda x: jax.numpy.sin(x) + 41)(0.0))

    said = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest: said.append(message)
        devices.keep_programs()
        compilation_cache.reset_cache()
        try:
            assert run() == 41
            (path,) = (caches / "programs").glob("jit__lambda-*-cache")
            whole = path.read_bytes()
            path.write_bytes(whole[:50] + bytes(9) + whole[59:])
            assert run() == run() == 41
            zlib.decompress(path.read_bytes())  # which raises if it is not made anew
            warnings.showwarning(UserWarning("else"), UserWarning, "", 1)
            assert list(map(str, said)) == ["else"]
        finally:
            jax.config.update("jax_compilation_cache_dir", before)
            compilation_cache.reset_cache()


# Checkpoints


@pytest.mark.parametrize(
    "entry, value",
    [
        *(("epoch", 3), ("epoch", -1), ("step", 10), ("records", [])),
        *(("records", [{"epoch": 1}]), ("seconds", "1"), ("environment", "cpu")),
        ("numbers", {}),
    ],
)
def test_a_checkpoint_that_no_run_wrote_is_refused(entry, value):
    about = fuzz_inputs.make_checkpoint(3).about
    checkpoints.check_about(json.loads(json.dumps(about)))
    with pytest.raises(files.UsageError, match="is of no run of this command"):
        checkpoints.check_about(about | {entry: value})
