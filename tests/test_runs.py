"""A run's folder: claimed with care, valid JSON, no trace of the machine's paths."""

import dataclasses
import json
import math
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments import files
from experiments.cli import UsageError, read_flags
from experiments.data.dataset import Dataset
from experiments.runs import outputs
from experiments.runs.configs import Config
from experiments.runs.environment import GIT_SECONDS, commit

# The original's four runs with water; the second is the one that it closed with.
ACCURACIES = [76.02, 75.73, 74.09, 73.69]


def make_result(accuracies, **scores) -> dict:
    result_runs = [
        {"seed": 58 + index, "accuracy": accuracy, "peak_accuracy": accuracy + 0.5}
        | {"diverged": False}
        | {"train_loss": [1.4, 0.77 + index / 100], "precision": 0.7604}
        | {"recall": accuracy / 100, "f1": 0.7565}
        | scores
        for index, accuracy in enumerate(accuracies)
    ]
    return {"runs": result_runs, "summary": outputs.summarize(result_runs)}


# The folder


def assert_refused(out: Path) -> str:
    with pytest.raises(UsageError) as error, outputs.claim_folder(out):
        pass
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"--out={out}: ") and "name another folder" in message
    return message


def test_a_folder_without_a_result_is_taken_and_its_metrics_start_afresh(tmp_path):
    out = tmp_path / "runs" / "water"
    with outputs.claim_folder(out):
        assert [path.name for path in out.glob("[!.]*")] == ["metrics.jsonl"]
    (out / "metrics.jsonl").write_text('{"epoch": 1}\n')
    (out / "notes.txt").write_text("mine")
    with outputs.claim_folder(out):
        pass
    assert (out / "metrics.jsonl").read_text() == ""
    assert (out / "notes.txt").read_text() == "mine"


def test_a_folder_that_holds_a_result_is_left_alone(tmp_path):
    contents = {"result.json": "{}", "metrics.jsonl": '{"epoch": 1}\n'}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    assert "already holds a result" in assert_refused(tmp_path)
    with outputs.claim_folder(tmp_path, resume=True):
        pass
    assert {path.name: path.read_text() for path in tmp_path.glob("[!.]*")} == contents


# What is written


def test_dumps_turns_what_is_not_finite_into_null():
    nested = [{"inf": math.inf}, (-math.inf, 1.5), [np.float64("nan")]]
    kept = [1, True, None, "NaN", 1e300]

    def refuse(constant):
        raise AssertionError(constant)

    text = files.dumps({"nested": nested, "kept": kept})
    assert json.loads(text, parse_constant=refuse) == {
        "nested": [{"inf": None}, [None, 1.5], [None]],
        "kept": kept,
    }


# What describes a run


def make_dataset() -> Dataset:
    images, labels = np.zeros((6, 32, 32, 3), np.uint8), np.zeros(6, np.int32)
    splits = images[:4], labels[:4], images[4:], labels[4:]
    names = tuple("abcdefghij")
    return Dataset("cifar10", "CIFAR-10, JPEG-75 copy", "3f51", *splits, names)


def test_describe_names_what_was_really_used_and_no_folder_of_this_machine():
    home = "/home/someone"
    config = Config(
        **{"reg": "aphex", "audio": f"{home}/music/song.flac", "intensity": 0.5},
        **{"data_dir": f"{home}/data", "out": Path(home, "runs/aphex")},
    )
    description = outputs.describe(config, make_dataset())
    text = files.dumps(description)
    assert "someone" not in text and str(Path.cwd()) not in text
    settings = description["config"]
    assert not {"out", "resume"} & settings.keys()
    assert (settings["reg"], settings["audio"]) == ("aphex", "song.flac")
    assert settings["intensity"] == settings["strength"] == 0.5
    assert outputs.describe(Config(), make_dataset())["config"]["strength"] == 0.05
    assert description["dataset"] == {
        **{"name": "cifar10", "title": "CIFAR-10, JPEG-75 copy", "fingerprint": "3f51"},
        **{"train_size": 4, "test_size": 2, "class_names": list("abcdefghij")},
    }
    environment = description["environment"]
    assert environment["device"] and "commit" in environment
    for name in ("python", "jax", "flax"):
        assert re.match(r"\d+\.\d+\.\d+", environment[name])


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder, in another one, that `environment` believes to lie in."""
    root = tmp_path / "parent" / "checkout"
    code = root / "experiments" / "runs" / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text("1")
    monkeypatch.setattr("experiments.runs.environment.__file__", str(code))
    # Should a hook run the tests.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return root


def git(folder: Path, *arguments: str) -> None:
    # Whatever is configured where the tests run.
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    command += ["-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def make_repository(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "README").write_text("")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")


def test_commit_is_the_checkouts_and_says_if_it_was_changed(checkout):
    make_repository(checkout)
    git(checkout, "tag", "-a", "-m", "one", "v1")  # a tag is no commit
    clean = commit()
    assert clean is not None and re.fullmatch("[0-9a-f]{12}", clean)
    (checkout / "experiments" / "runs" / "environment.py").write_text("two")
    assert commit() == f"{clean}-dirty"


def test_the_commit_of_another_repository_is_not_ours(checkout, monkeypatch):
    make_repository(checkout)
    own = commit()
    other = checkout.parent / "other"
    make_repository(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "no index"))
    assert commit() == own is not None


@pytest.mark.parametrize("where", ["around it", "around it, with it", "at its root"])
def test_a_copy_in_another_repository_has_no_commit(where, checkout):
    if where == "at its root":
        (checkout / ".gitignore").write_text("experiments")
        make_repository(checkout)
    else:
        if where == "around it":
            (checkout.parent / ".gitignore").write_text("checkout")
        make_repository(checkout.parent)
    assert commit() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_checkout_of_another_user_has_its_commit(checkout):
    make_repository(checkout)
    os.chown(checkout, 12345, 12345)
    os.chown(checkout / ".git", 12345, 12345)
    assert commit() is not None


def put_git(folder: Path, monkeypatch, script: bytes) -> None:
    (folder / "git").write_bytes(b"#!/bin/sh\n" + script)
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_git_that_hangs_is_left(checkout, monkeypatch, capsys):
    put_git(checkout, monkeypatch, b"exec sleep 600")
    assert GIT_SECONDS <= 60 / 2  # it is asked twice
    monkeypatch.setattr("experiments.runs.environment.GIT_SECONDS", 0.1)
    assert commit() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "git did not answer within 0.1 s" in line


@pytest.mark.parametrize("missing", ["repository", "git", "encoding"])
def test_commit_is_none_without(missing, checkout, monkeypatch):
    if missing == "git":
        monkeypatch.setenv("PATH", str(checkout))
    if missing == "encoding":
        put_git(checkout, monkeypatch, b"echo 'k\xf6nnte' >&2; exit 128")
    assert commit() is None


# What it ends with


def test_several_seeds_have_a_mean_and_a_deviation_and_one_has_none():
    result, one = make_result(ACCURACIES), make_result([75.73])
    summary = result["summary"]
    assert (summary["n"], summary["diverged"]) == (4, [])
    # The published mean and sample deviation.
    assert round(summary["accuracy_mean"], 2) == 74.88
    assert round(summary["accuracy_std"], 2) == 1.16
    assert (summary["accuracy_min"], summary["accuracy_max"]) == (73.69, 76.02)
    names = ("mean", "min", "max")
    expected = {f"accuracy_{name}": 75.73 for name in names} | {"accuracy_std": None}
    assert one["summary"] == {"n": 1, **expected, "diverged": []}
    accuracy, scores = outputs.closing_lines(result)
    assert "74.88 ± 1.16% over 4 seeds (worst 73.69%, best 76.02%)" in accuracy
    assert "Recall: 0.7488 ± 0.0116, F1: 0.7565 ± 0.0000" in scores
    # The words of the original.
    assert outputs.closing_lines(one) == [
        *("Accuracy: 75.73%", "Precision: 0.7604, Recall: 0.7573, F1: 0.7565")
    ]


def diverge(result: dict, *indices: int) -> dict:
    for index in indices:
        result["runs"][index] |= {"diverged": True, "train_loss": [math.nan]}
    return result | {"summary": outputs.summarize(result["runs"])}


@pytest.mark.parametrize("accuracies", [ACCURACIES, [75.73]], ids=["several", "one"])
def test_what_diverged_is_left_out_by_name(accuracies):
    result = diverge(make_result([10.0, *accuracies]), 0)
    expected = make_result(accuracies)
    assert result["summary"] == expected["summary"] | {"diverged": [58]}
    told, *lines = outputs.closing_lines(result)
    assert "seed 58 of" in told and lines == outputs.closing_lines(expected)
    _, spoiled, *rows = outputs.seed_table(result)
    assert spoiled.endswith("  diverged") and "nan" in spoiled
    assert not any("diverged" in row for row in rows)


def test_nothing_that_is_left_has_no_mean():
    result = diverge(make_result([10.0, 10.0]), 0, 1)
    summary = result["summary"]
    assert (summary["n"], summary["diverged"]) == (0, [58, 59])
    assert all(summary[f"accuracy_{name}"] is None for name in ("mean", "std", "min"))
    assert len(outputs.closing_lines(result)) == 2


@pytest.mark.parametrize(
    ("given", "follows", "compared"),
    [
        ({"reg": "none"}, {"reg": "water"}, "run run-water"),
        (
            {"reg": "aphex", "audio": "a song", "out": Path("my runs/it's")},
            {"reg": "none", "audio": None},
            "'my runs/it'\"'\"'s-none' 'my runs/it'\"'\"'s'",
        ),
        ({"out": Path("-x"), "data_dir": "my data"}, {"reg": "none"}, "./-x-none ./-x"),
        # Of what needs a launcher, and of what there is nothing to go on with.
        (
            {"distributed": True, "deterministic": True, "resume": True},
            {"reg": "none", "distributed": False, "resume": False},
            "run-none run",
        ),
    ],
    ids=str,
)
def test_the_commands_that_come_next_can_be_given(given, follows, compared):
    config = Config(**given)
    out = config.out or Path("run")
    result = make_result(ACCURACIES) | {"dataset": {"name": "digits"}}
    where, shown, following = outputs.next_lines(config, out, result)
    assert where.startswith("Results: ") and shown.startswith("Open first: ")
    train, report = following.partition(": ")[2].split(" && ")
    assert report == f"python -m experiments.report {compared}"
    python, m, command, *flags = shlex.split(train)
    assert (python, m, command) == ("python", "-m", "experiments.cifar")
    expected = dataclasses.replace(config, dataset="digits", **follows)
    beside = Path(f"{out}-{expected.reg}")
    assert read_flags(Config, prog="", args=flags) == dataclasses.replace(
        expected, out=beside
    )


def test_what_diverged_altogether_is_to_be_tried_more_slowly(tmp_path):
    result = diverge(make_result([10.0]), 0) | {"dataset": {"name": "digits"}}
    (tmp_path / "loss.png").touch()
    where, shown, following = outputs.next_lines(Config(reg="none"), tmp_path, result)
    assert where.endswith(", pictures as PNG and SVG.")
    assert shown == f"Open first: {tmp_path}/loss.png"
    assert "--reg=none --learning-rate=0.0001" in following
    assert following.endswith(f"--out={tmp_path}-slower")
