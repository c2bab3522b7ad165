"""Whatever call of the disk fails, or is the last: one line, and then the same numbers.

FAULTS_STEP=1 disturbs every call, and not one in some.
"""

import errno
import gc
import itertools
import os
import shutil
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import faults
from tests.faults import Disk, PowerCuts, call, check_whole, new, read_tree

STEP = int(os.environ.get("FAULTS_STEP", "0"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("faults")
    faults.prepare(folder)
    with faults.fakes():
        yield folder
    shutil.rmtree(folder)
    for each in gc.get_objects():
        # Of Orbax, which waits for none where one fails. Others may be gone already.
        if type(each) is types.CoroutineType:
            each.close()


# Orbax, where one of its writes fails, waits for none of the others; those of
# TensorStore that end after it find nobody to tell.
@pytest.mark.filterwarnings(
    r"ignore:(?s).*Event loop is closed:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("report", STEP or 9),
        ("study", STEP or 30),
        pytest.param("cifar", STEP or 40, marks=pytest.mark.slow),
    ],
)
def test_a_call_that_fails_is_one_line_and_nothing_half_written(
    command, step, place, capsys
):
    with Disk(base := new(place / "base")) as disk:
        assert call(command, base) == 0
    calls, whole, num_ended = disk.calls, read_tree(base), 0
    points = [n for n, (kind, _) in enumerate(calls) if kind != "remove"]
    # And the first of each kind.
    firsts = {(calls[n][0], Path(calls[n][1]).suffix): n for n in reversed(points)}
    points = sorted({*points[::step], *firsts.values()})
    for number, code in itertools.product(points, (errno.ENOSPC, errno.EIO)):
        capsys.readouterr()
        with Disk(new(base)) as disk:
            disk.fail_at(number, code)
            exit_code = call(command, base)
        lines = capsys.readouterr().err.splitlines()
        where = (*calls[number], errno.errorcode[code], exit_code, lines)
        if exit_code == 0:  # what failed is not needed
            assert len(lines) <= 1, where
            assert all(line.startswith("warning: --out=") for line in lines), where
        else:
            num_ended += 1
            assert (exit_code, len(lines)) == (2, 1), where
            assert lines[0].startswith("error: --out="), where
            assert f"({os.strerror(code)})" in lines[0], where
        check_whole(read_tree(base), whole, torn=False)
        for _ in range(5):
            capsys.readouterr()
            if call(command, base) == 0:
                break
            # Orbax's late writes meet what removes their folder, and either may fail.
            # A process that ends has none.
            where = (*where, error := capsys.readouterr().err)
            late = [os.strerror(code) for code in (errno.ENOTEMPTY, errno.ENOENT)]
            assert command == "cifar" and any(each in error for each in late), where
        else:
            pytest.fail(f"it does not go on: {where}")
        assert read_tree(base) == whole, where
    assert num_ended > len(points) >= 5
    print(f"{command}: {2 * len(points)} faults, of which {num_ended} ended it")


@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("report", STEP or 9),
        ("study", STEP or 50),
        pytest.param("study", STEP or 9, marks=pytest.mark.slow),
        pytest.param("cifar", STEP or 50, marks=pytest.mark.slow),
    ],
)
def test_after_a_kill_or_a_power_cut_a_command_goes_on_to_the_same(
    command, step, place, capsys
):
    with Disk(base := new(place / "base")) as disk:
        cuts = PowerCuts(disk)
        assert call(command, base) == 0
    whole = read_tree(base)
    for tree in cuts.kills:
        check_whole(tree, whole, torn=True)
    trees = [*cuts.kills, *cuts.trees][::step]
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
    print(f"{command}: {len(cuts.kills)} kills, {len(cuts.trees)} power cuts")


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
