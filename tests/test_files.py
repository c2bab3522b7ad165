"""Files that are written whole, onto the disk, and through no link."""

import numpy as np
import pytest

from experiments import files


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyError), files.replacing(path) as temporary:
        temporary.write_text("new")
        raise KeyError
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_a_link_is_not_written_through(tmp_path, monkeypatch):
    target = tmp_path / "mine"
    target.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0123abcd")
    (tmp_path / ".a.json.0123abcd.tmp").symlink_to(target)
    with pytest.raises(FileExistsError), files.replacing(tmp_path / "a.json"):
        raise AssertionError
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".lock").symlink_to(target)
    with pytest.raises(OSError), files.lock(folder):
        raise AssertionError
    assert target.read_text() == "mine"


def test_a_link_that_is_to_be_replaced_is_itself_replaced(tmp_path):
    target = tmp_path / "mine"
    target.write_text("mine")
    (tmp_path / "a.json").symlink_to(target)
    with files.replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("new")
    assert target.read_text() == "mine"
    assert (tmp_path / "a.json").read_text() == "new"


def test_an_array_that_is_too_large_is_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, small=np.zeros(4), large=np.zeros(4_000))
    assert files.read_arrays(path, 64_000).keys() == {"small", "large"}
    with pytest.raises(ValueError, match="^large has 32,128 bytes, more than 9,000$"):
        files.read_arrays(path, 9_000)


def test_leftovers_of_replacing_are_removed_and_nothing_else(tmp_path):
    for name in (".a.json.0123abcd.tmp", "a.json.tmp", ".a.tmp", "notes"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.json.tmp",
        ".a.tmp",
        "notes",
    }
