"""The worked examples run as a stranger would run them, and print what they should."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # trains, in other processes too

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/examples"
README = (FOLDER / "README.md").read_text()
LINE = re.compile(r" *(\w+): test accuracy (\S+) ± (\S+) %, n = (\d+) seeds")

# What a network that learns must pass, in %. Digits: chance is 10; the nearest class
# mean, with the same images to learn from, is right in 89, and a network may be 9 below
# it. Sounds: chance is 20; the slope of the spectrum alone tells white, pink and brown
# apart, three of five. The means measured are 10 and 25 above, at standard errors
# below 1.
BOUNDS = {"digits_cnn": 80, "digits_transformer": 80, "sound_conv": 60}


def output(example: str) -> str:
    """What an example prints, at full length and with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", f"docs/examples/{example}.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            # A stranger has installed the package; whoever only checked it out has not.
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",  # it computes for long
        },
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def layers(example: str) -> list[str]:
    """The names of what is compared: Dropout, and the noise in its place."""
    return re.findall(r'^ {4}"(\w+)": lambda', source(example), re.MULTILINE)


def source(example: str) -> str:
    return (FOLDER / f"{example}.py").read_text()


def test_every_example_is_tested_and_listed():
    # tests/test_study.py runs those of one's own.
    own = {"my_noise", "my_network"}
    assert {path.stem for path in FOLDER.glob("*.py")} - own == set(BOUNDS)
    assert set(re.findall(r"\]\((\w+)\.py\)", README)) == set(BOUNDS)


@pytest.mark.parametrize("example", BOUNDS)
def test_both_layers_learn_and_the_readme_prints_what_they_do(example):
    lines = output(example).splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    assert None not in matches
    assert [match[1] for match in matches] == layers(example)
    assert [int(match[4]) for match in matches] == [5, 5]
    for match in matches:
        assert BOUNDS[example] < float(match[2]) < 100
    # The layers make a difference: the same figures twice are the same layer twice.
    assert matches[0].groups()[1:] != matches[1].groups()[1:]

    stated = README.partition(f"$ python docs/examples/{example}.py\n")[2]
    for line, new in zip(stated.splitlines()[:2], matches, strict=True):
        old = LINE.fullmatch(line)
        assert (old[1], old[4]) == (new[1], new[4])
        # Other processors round differently, and a training run amplifies that until
        # it is another run: five standard errors of the difference of two means.
        spread = np.hypot(float(old[3]), float(new[3])) / np.sqrt(int(new[4]))
        assert abs(float(old[2]) - float(new[2])) < 5 * spread
