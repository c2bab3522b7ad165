"""Whatever call of the disk fails, or is the last: one line, and then the same numbers.

FAULTS_STEP=1 disturbs every call, and not one in some.
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import faults
from tests.faults import Disk, PowerCuts, call, new, read_tree
from tests.programs import python

STEP = int(os.environ.get("FAULTS_STEP", "0"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("faults")
    faults.prepare(folder)
    with faults.fakes():
        yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("command", "step"), [("report", 5), ("study", 9)])
def test_a_call_that_fails_is_one_line_and_nothing_half_written(
    command, step, place, capsys
):
    def run(command, base, prepare):
        capsys.readouterr()
        with Disk(base) as disk:
            prepare(disk)
            code = call(command, base)
        return code, capsys.readouterr().err.splitlines()

    print(faults.fail_and_go_on(command, place, step, run))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "command", "step"),
    [
        ("fail", "report", STEP or 2),
        ("fail", "study", STEP or 4),
        ("fail", "cifar", STEP or 12),
        ("kill", "report", 1),
        ("kill", "study", STEP or 4),
        ("kill", "cifar", STEP or 12),
    ],
)
def test_a_command_goes_on_to_the_same_whatever_call_it_ended_at(
    what, command, step, tmp_path
):
    done = python("-m", "tests.faults", what, command, str(tmp_path), str(step))
    assert done.returncode == 0, done.stderr
    print(done.stdout)


@pytest.mark.parametrize(
    ("command", "step"),
    [
        pytest.param("study", 40),
        pytest.param("study", STEP or 8, marks=pytest.mark.slow),
        pytest.param("cifar", STEP or 40, marks=pytest.mark.slow),
    ],
)
def test_after_a_power_cut_a_command_goes_on_to_the_same(command, step, place, capsys):
    with Disk(base := new(place / "base")) as disk:
        cuts = PowerCuts(disk)
        assert call(command, base) == 0
    whole = read_tree(base)
    trees = [tree for tree, _ in itertools.groupby(cuts.trees)][::step]
    assert len(trees) >= 5
    for tree in trees:
        shutil.rmtree(base)
        faults.write_tree(base, tree)
        capsys.readouterr()
        assert call(command, base) == 0, (tree.keys(), capsys.readouterr().err)
        after = read_tree(base)
        if command == "cifar":  # which sets damaged checkpoints aside
            after = {k: v for k, v in after.items() if "/damaged" not in k}
        assert after == whole
    print(f"{command}: {len(trees)} power cuts")


@pytest.mark.parametrize("command", ["report", "study"])
def test_what_a_command_has_made_outlives_a_power_cut(command, place):
    with Disk(base := new(place / "base")) as disk:
        cuts = PowerCuts(disk)
        assert call(command, base) == 0
        for tree in cuts.worst():
            after = read_tree(base)
            # What is hidden is a lock, and who held it.
            assert {k: v for k, v in tree.items() if "/." not in k} == {
                k: v for k, v in after.items() if "/." not in k
            }
