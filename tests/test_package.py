"""What a release says of itself in several files is the same in all of them."""

import re
import tomllib
from pathlib import Path

import yaml

import sounddrop_jax

ROOT = Path(sounddrop_jax.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MATRIX = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"][
    "library"
]["strategy"]["matrix"]


def test_the_version_is_cited_and_in_the_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changes = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation["version"] == sounddrop_jax.__version__ == changes[1]
    assert changes[0] == "Unreleased"
    assert citation["license"] == PROJECT["license"]


def test_the_oldest_and_middle_versions_of_the_matrix_are_those_tested_here():
    versions = {row["jax"]: row["versions"] for row in MATRIX["include"]}
    lowest = {pin.replace(">=", "==") for pin in PROJECT["dependencies"]}
    assert set(versions["oldest"].split()) < lowest
    assert f" {versions['middle']}\n" in (ROOT / ".ci/run").read_text("utf-8")


def test_pythons_of_the_classifiers_are_in_the_matrix():
    prefix = "Programming Language :: Python :: 3."
    named = [c for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert {name.rpartition(" ")[2] for name in named} <= set(MATRIX["python"])
