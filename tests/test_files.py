"""Files that are written whole, onto the disk, and through no link."""

import os
from pathlib import Path

import pytest

from experiments import files


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, str]]:
    """What is synced, and what takes another's place, in order."""
    made = []

    def name(handle) -> str:
        return Path(os.readlink(f"/proc/self/fd/{handle}")).name

    fsync, replace = os.fsync, os.replace

    def sync(file):
        made.append(("sync", name(file if isinstance(file, int) else file.fileno())))
        fsync(file)

    def put(source, target):
        made.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", put)
    return made


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, calls):
    with files.replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("new")
    assert calls == [
        ("sync", temporary.name),
        ("replace", "a.json"),
        ("sync", tmp_path.name),
    ]
    assert (tmp_path / "a.json").read_text() == "new"


def test_lines_are_on_the_disk_when_they_are_said_to_be(tmp_path, calls):
    files.append_lines(tmp_path / "a.jsonl", ["1"])
    assert calls == [("sync", "a.jsonl"), ("sync", tmp_path.name)]
    files.append_lines(tmp_path / "a.jsonl", ["2"])
    assert calls[2:] == [("sync", "a.jsonl")]
    assert (tmp_path / "a.jsonl").read_text() == "1\n2\n"


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


def test_leftovers_of_replacing_are_removed_and_nothing_else(tmp_path):
    for name in (".a.json.0123abcd.tmp", "a.json.tmp", ".a.tmp", "notes"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.json.tmp",
        ".a.tmp",
        "notes",
    }
