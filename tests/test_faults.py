"""Whatever call of the disk fails, or is the last: one line, and then the same numbers.

FAULTS_STEP=1 disturbs every call of `cifar`, and not one in some.
"""

import errno
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import (
    Disk,
    PowerCuts,
    call,
    check_whole,
    fakes,
    prepare,
    read_tree,
    undisturbed,
    write_tree,
)

ROOT = Path(__file__).parents[1]
STEP = int(os.environ.get("FAULTS_STEP", "0"))
# Of the calls of a command, one in how many is disturbed.
SOME = [
    pytest.param("report", 5),
    pytest.param("study", 9),
    pytest.param("report", 1, marks=pytest.mark.slow),
    pytest.param("study", 1, marks=pytest.mark.slow),
    pytest.param("cifar", STEP or 10, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("faults")
    prepare(folder)
    with fakes():
        yield folder
    shutil.rmtree(folder)


@pytest.fixture
def base(place) -> Iterator[Path]:
    yield place / "base"
    shutil.rmtree(place / "base")


@pytest.mark.parametrize(("command", "step"), SOME)
def test_a_call_that_fails_is_one_line_and_nothing_half_written(
    command, step, base, capsys
):
    calls, whole = undisturbed(command, base)
    points = [
        number for number, (kind, _) in enumerate(calls) if kind != "remove"
    ][::step]
    assert len(points) >= 5
    num_failed = 0
    for number, code in itertools.product(points, (errno.ENOSPC, errno.EIO)):
        shutil.rmtree(base)
        base.mkdir()
        capsys.readouterr()
        with Disk(base) as disk:
            disk.fail_at(number, code)
            exit_code = call(command, base)
        lines = capsys.readouterr().err.splitlines()
        where = (*calls[number], errno.errorcode[code], lines)
        if exit_code == 0:  # what failed is not needed
            assert all(line.startswith("warning: --out=") for line in lines), where
            assert len(lines) <= 1, where
        else:
            num_failed += 1
            assert (exit_code, len(lines)) == (2, 1), where
            assert lines[0].startswith("error: --out="), where
            assert f"({os.strerror(code)})" in lines[0], where
        check_whole(read_tree(base), whole, torn=False)
        assert call(command, base) == 0, where
        assert read_tree(base) == whole, where
    print(f"{command}: {2 * len(points)} faults, {num_failed} of them ended it")
    assert num_failed > len(points)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "step"), [("study", 1), ("cifar", STEP or 12)])
def test_a_command_that_is_killed_at_any_call_goes_on_to_the_same(
    command, step, tmp_path
):
    program = [sys.executable, "-m", "tests.faults", command, str(tmp_path), str(step)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert "the same every time" in done.stdout


@pytest.mark.parametrize(
    ("command", "step"),
    [
        pytest.param("study", 40),
        pytest.param("study", 1, marks=pytest.mark.slow),
        pytest.param("cifar", STEP or 40, marks=pytest.mark.slow),
    ],
)
def test_after_a_power_cut_a_command_goes_on_to_the_same(command, step, base, capsys):
    base.mkdir()
    with Disk(base) as disk:
        cuts = PowerCuts(disk)
        assert call(command, base) == 0
    whole = read_tree(base)
    trees = [tree for tree, _ in itertools.groupby(cuts.trees)][::step]
    assert len(trees) >= 5
    for tree in trees:
        shutil.rmtree(base)
        write_tree(base, tree)
        capsys.readouterr()
        assert call(command, base) == 0, (tree.keys(), capsys.readouterr().err)
        assert read_tree(base) == whole
    print(f"{command}: {len(trees)} power cuts")


@pytest.mark.parametrize("command", ["report", "study"])
def test_what_a_command_has_made_outlives_a_power_cut(command, base):
    base.mkdir()
    with Disk(base) as disk:
        cuts = PowerCuts(disk)
        assert call(command, base) == 0
        for tree in cuts.worst():
            after = read_tree(base)
            # What is hidden is a lock, and who held it.
            assert {k: v for k, v in tree.items() if "/." not in k} == {
                k: v for k, v in after.items() if "/." not in k
            }
