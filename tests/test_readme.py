"""What the README says is so: its code runs, its commands, flags and files exist."""

import dataclasses
import re
from pathlib import Path

import pytest

from experiments.report import ReportConfig
from experiments.runs.configs import Config
from experiments.study import StudyConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXPERIMENT = (ROOT / "docs/experiment.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_continuous_integration_runs_the_test_command():
    (command,) = re.findall(r"^pip install .* && pytest -n auto$", README, re.MULTILINE)
    assert command in (ROOT / ".ci/run").read_text()


def test_first_command_comes_first():
    first = re.search(r"```bash\n(.*)\n```", README)
    assert first is not None
    assert first[1] == (
        "pip install -e '.[experiments]' && python -m experiments.cifar --reg=water"
    )


def test_the_readme_is_read_in_minutes():
    assert len(README.splitlines()) <= 130


def test_flags_exist():
    configs = (Config, StudyConfig, ReportConfig)
    fields = [field for config in configs for field in dataclasses.fields(config)]
    flags = {field.name.replace("_", "-") for field in fields}
    others = r"^(#SBATCH|gcloud) .*$|`(tfds|tensorboard) [^`]*`"
    ours = re.sub(others, "", README + EXPERIMENT, flags=re.MULTILINE)
    named = set(re.findall(r" --([a-z][a-z-]+)", ours)) - {"help"}
    assert named and named <= flags


@pytest.mark.parametrize("package", ["sounddrop_jax", "experiments"])
def test_layout_names_every_module_and_no_other(package):
    layout = CONTRIBUTING.partition("## Layout")[2]
    block = re.search(rf"^{package}/.*?(?=^\S|^```)", layout, re.MULTILINE | re.DOTALL)
    assert block is not None
    files = [path.name for path in (ROOT / package).rglob("*.py")]
    modules = [name for name in files if not name.startswith("__")]
    assert sorted(re.findall(r"\w+\.py", block[0])) == sorted(modules)
