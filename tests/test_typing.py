"""Type checkers find nothing in a user's script that has every public name."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_api import EVERYTHING

SCRIPT = Path(__file__).parent / "typed.py"


@pytest.mark.slow
def test_the_script_runs():
    runpy.run_path(str(SCRIPT))


def test_the_script_has_every_public_name():
    words = set(re.findall(r"\w+", SCRIPT.read_text("utf-8")))
    assert {name.rpartition(".")[2] for name in EVERYTHING} <= words


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        # That the making of a PartitionSpec has no types is JAX's.
        ["mypy", "--config-file=", "--strict", "--untyped-calls-exclude=jax"],
        # pyright, in a package that needs no Node and fetches nothing.
        ["basedpyright", "--pythonpath", sys.executable],
    ],
    ids=["mypy", "pyright"],
)
def test_a_type_checker_is_content(command, tmp_path):
    # A folder without the settings of this project, and with those of pyright itself.
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text('{"typeCheckingMode": "standard"}', "utf-8")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.read_text("utf-8"), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", *command, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
