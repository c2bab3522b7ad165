"""What all commands have in common: how they start, and what they say if not."""

import ast
import importlib
import importlib.metadata
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import jax
import pytest

import experiments
from experiments import __main__ as listing
from experiments import benchmark, cifar, cli, study
from experiments.cli import UsageError
from experiments.training import devices
from tests.programs import ROOT, end, python

# Of which nothing is trained.
PLAN = """
question = "Does it start?"
rule = "It does not."
dataset = "digits"
seeds = 2
comparisons = [["none", "water"]]
[regimes.short]
epochs = 1
[arms.none]
reg = "none"
[arms.water]
reg = "water"
"""


@pytest.fixture(params=[AssertionError(), RuntimeError("It broke. (set JAX_PLATFORMS")])
def no_device(request, monkeypatch):
    """JAX raises what it does where a platform has no device, or cannot be started."""

    def refuse():
        raise request.param

    monkeypatch.setattr(jax, "devices", refuse)
    return "It broke." if str(request.param) else "none was found"


@pytest.mark.parametrize(
    ("main", "flags"),
    [
        (cifar.main, ["--dataset=digits"]),
        (study.main, ["--plan=plan.toml"]),
        (benchmark.main, ["layer"]),
        (benchmark.main, ["ensemble", "--dataset=digits"]),
    ],
)
def test_every_command_names_a_platform_that_is_not_there(
    main, flags, no_device, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "none_such")
    Path("plan.toml").write_text(PLAN)
    assert end(main, *flags, "--out=out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: JAX_PLATFORMS=none_such: ")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.parametrize(
    ("platform", "named"), [(None, "JAX: "), ("cuda", "JAX_PLATFORMS=cuda: ")]
)
def test_a_platform_without_a_device_is_named(platform, named, no_device, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platform or "")
    with pytest.raises(UsageError) as error:
        devices.start_jax()
    message = str(error.value)
    assert message.startswith(named) and f"used here ({no_device}); set" in message


def test_one_of_several_processes_without_a_device_leaves_at_once(
    no_device, monkeypatch, capsys
):
    def leave(code):
        raise SystemExit(code)  # as no code runs after os._exit

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit, match="2"):
        devices.start_jax()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and no_device in line


@pytest.mark.slow
@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="sums on accelerators may vary in order"
)
def test_with_64_bits_a_run_gives_the_same_numbers(tmp_path):
    runs = []
    for x64 in (False, True):
        out = tmp_path / str(x64)
        flags = ["--dataset=digits", "--reg=dropout", "--epochs=1", f"--out={out}"]
        jax.config.update("jax_enable_x64", x64)
        try:
            assert end(cifar.main, *flags, "--steps-per-epoch=2") == 0
        finally:
            jax.config.update("jax_enable_x64", False)
        runs.append(json.loads((out / "result.json").read_text())["runs"])
    assert runs[0] == runs[1]


# What is not installed


def test_what_is_not_installed_is_named_before_anything_starts(tmp_path, monkeypatch):
    # Imported before anything else is.
    lines = ("import sys", "sys.modules['sklearn'] = sys.modules['tyro'] = None")
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    done = python("-m", "experiments.cifar", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    name, needed, remedy = re.split(": (?:needs )?", line)
    assert name == "error" and set(needed.split(", ")) == {"sklearn", "tyro"}
    assert remedy == "pip install -e '.[experiments]'"
    # Python imports what there is.
    monkeypatch.setitem(sys.modules, "tyro", None)
    importlib.reload(experiments)


def test_what_commands_need_is_what_the_extra_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.match(r"[\w-]+", requirement)[0].lower()  # type: ignore[index]
        for name in ("audio", "statistics", "experiments")
        for requirement in extras[name]
    } - {"sounddrop-jax"}
    packages = importlib.metadata.packages_distributions()
    found = {name.lower() for each in experiments.NEEDED for name in packages[each]}
    assert wanted <= found and len(wanted) == len(experiments.NEEDED)


# Which there are


def test_the_list_names_every_command():
    commands = {
        path.stem
        for path in (ROOT / "experiments").glob("[a-z]*.py")
        if (ast.get_docstring(ast.parse(path.read_text())) or "").startswith("One comm")
    }
    assert commands == {"cifar", "study", "report", "benchmark"}
    listed = re.findall(r"^python -m experiments\.(\w+) +\w", listing.COMMANDS, re.M)
    assert set(listed) == commands
    done = python("-m", "experiments")
    assert (done.stdout, done.returncode) == (f"{listing.COMMANDS}\n", 0)


def test_on_windows_a_command_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as exit:
        cli.run_command(lambda: None)
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the experiment needs Linux or macOS; ")
