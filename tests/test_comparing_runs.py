"""Runs on one page: paired by seed, honest about few of them, and nothing else."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import report
from experiments.analysis import runs
from experiments.pictures import drawing
from sounddrop_jax import statistics
from tests.stores import make_store
from tests.test_page import Reader
from tests.test_report import FILES, read_csv

HOSTILE = "<b>$x$&\"'"


def make_run(
    folder: Path,
    reg: str = "none",
    gain: float = 0.0,
    seeds: range = range(8),
    diverged: tuple[int, ...] = (),
    **config: Any,
) -> Path:
    """Writes a result.json whose accuracies differ by about a gain."""
    networks = [
        {
            "seed": seed,
            "diverged": seed in diverged,
            "accuracy": 70.0 + seed + gain + seed % 3 / 10 * bool(gain),
            "peak_accuracy": 90.0,
            "train_loss": [2.0, None if seed in diverged else 1.0],
            "test_accuracy": [50.0, 70.0],
            "confusion": [[3 + seed, 1], [0, 4]],
        }
        for seed in seeds
    ]
    settings = {"reg": reg, "strength": 0.0 if reg == "none" else 0.05, "epochs": 2}
    settings |= {"batch_size": 10, "steps_per_epoch": None, "seeds_at_once": "auto"}
    settings |= {"audio": None, "distributed": False}
    dataset = {"name": "pets", "title": f"pets {HOSTILE}", "fingerprint": "f" * 64}
    dataset |= {"train_size": 100, "test_size": 8}
    result = {
        "config": settings | config,
        "dataset": dataset | {"class_names": ["cat", HOSTILE]},
        "environment": {"jax": "0.12", "commit": None, "cores": 2},
        "runs": networks,
        "summary": {"n": len(networks)},
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def call(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    report.main()


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(drawing, "svg", lambda *args, **kw: "<svg></svg>")


def test_runs_become_a_page_beside_their_files(tmp_path, monkeypatch, capsys):
    first = make_run(tmp_path / "a")
    others = [
        make_run(tmp_path / "b", "gaussian", 2.0, epochs=2, learning_rate=0.1),
        make_run(tmp_path / "c", "plane", -1.0, range(2, 10), diverged=(3,)),
    ]
    call(monkeypatch, first, *others)
    out = first / "comparison"
    assert {path.name for path in first.iterdir()} == {"result.json", "comparison"}
    assert {path.name for path in out.iterdir()} == FILES
    told = capsys.readouterr()
    compared = runs.read([first, *others])
    assert told.err == ""
    assert told.out == f"{runs.sentence(compared)}\nReport: {out / 'report.html'}\n"

    page = Reader((out / "report.html").read_text(encoding="utf-8"))
    assert page.headings[0] == "Answer" and page.headings[-1] == "The runs"
    assert runs.sentence(compared) in page.text
    assert not {"b", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "Seed 3 of plane 0.05 diverged" in page.text
    assert "learning_rate" in page.text and "batch_size" not in page.text

    networks = [run.result["runs"] for run in compared.runs]
    base = {r["seed"]: r["accuracy"] for r in networks[0]}
    rows = read_csv(out / "comparisons.csv")
    for row, own in zip(rows, networks[1:], strict=True):
        scores = {r["seed"]: r["accuracy"] for r in own if not r["diverged"]}
        shared = [seed for seed in scores if seed in base]
        expected = statistics.compare_pairs(
            [scores[s] for s in shared], [base[s] for s in shared]
        )
        assert row["seeds"] == " ".join(map(str, shared))
        assert {n: row[n] for n in expected._fields} == {
            name: str(value) for name, value in expected._asdict().items()
        }
    assert [row["decision"] for row in rows] == ["wins", "untested"]
    adjusted = statistics.holm(np.array([float(row["p_value"]) for row in rows]))
    assert [float(row["p_adjusted"]) for row in rows] == adjusted.tolist()
    assert [row["n"] for row in read_csv(out / "table.csv")] == ["8", "8", "7"]


@pytest.mark.parametrize(
    ("seeds", "gain", "words", "needed"),
    [
        (range(8), 2.0, "is above none by 2.09 points", False),
        (range(8), -2.0, "is below none by 1.91 points", False),
        (range(8), 0.0, "cannot be told from none, 0.00 points", False),
        (range(5), 2.0, "over 5 shared seeds, too few for a test", True),
        (range(1), 2.0, "72.00 % and none 70.00 % on seed 0, and one seed is no", True),
        (range(20, 28), 2.0, "share no seed, so nothing is compared", True),
    ],
)
def test_the_sentence_claims_no_more_than_the_seeds_say(
    tmp_path, monkeypatch, no_pictures, seeds, gain, words, needed
):
    folders = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", "water", gain, seeds),
    ]
    sentence = runs.sentence(runs.read(folders))
    assert words in sentence
    assert ("A test takes 6 or more shared seeds (--seeds=6)." in sentence) == needed
    assert "differ in" not in sentence
    call(monkeypatch, *folders, f"--out={tmp_path / 'out'}")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_what_else_differs_is_said_and_names_tell_runs_apart(tmp_path):
    read = runs.read(
        [
            make_run(tmp_path / "a", "water", seeds_at_once=1),
            make_run(tmp_path / "b", "water", 1.0, batch_size=5, steps_per_epoch=10),
            make_run(tmp_path / "c" / "b", "water", 1.0, steps_per_epoch=99),
        ]
    )
    names = [f"water 0.05 ({tmp_path / name})" for name in ("a", "b", "c/b")]
    assert [run.name for run in read.runs] == names
    # All of an epoch's 10 steps, however it was asked for.
    assert read.settings == {"batch_size": [10, 5, 10]}
    assert "The runs also differ in batch_size, and a" in runs.sentence(read)


@pytest.mark.usefixtures("no_pictures")
def test_runs_that_diverged_altogether_are_named(tmp_path, monkeypatch):
    every = tuple(range(8))
    folders = [
        make_run(tmp_path / name, name, diverged=every) for name in ("none", "water")
    ]
    call(monkeypatch, *folders)
    text = (folders[0] / "comparison" / "report.html").read_text(encoding="utf-8")
    assert Reader(text).headings == ["Answer", "Differences", "The runs"]
    assert "seeds 0 to 7 of none diverged" in Reader(text).text


def damage(folder: Path, *path: Any, value: Any) -> None:
    result = json.loads((folder / "result.json").read_text())
    at = result
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (folder / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("dataset", "fingerprint"), "0" * 64, r"a run on .* \(0{12}\).* \(f{12}\)"),
        (("runs", 0, "accuracy"), 101.0, "damaged .*accuracy=101.0"),
        (("runs", 0, "train_loss"), [1.0], "train_loss of seed 0 has not 2 epochs"),
        (("runs", 0, "train_loss"), [1.0, None], "has gaps"),
        (("runs", 0, "confusion"), [[1]], "not of 2 classes"),
        (("runs", 1, "seed"), 0, "a seed comes twice"),
        (("environment",), None, "damaged .*environment"),
        (("dataset", "test_size"), None, "damaged .*test_size"),
    ],
    ids=str,
)
def test_a_result_that_is_none_is_one_line_and_no_file(
    tmp_path, monkeypatch, capsys, path, value, words
):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", "water")]
    damage(folders[1], *path, value=value)
    assert re.search(words, refused(monkeypatch, capsys, *folders))
    assert not (tmp_path / "a" / "comparison").exists()


def refused(monkeypatch, capsys, *folders: Path) -> str:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, *folders)
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert str(folders[-1]) in told.err
    return told.err


def test_what_cannot_be_compared_is_refused(tmp_path, monkeypatch, capsys):
    first, *others = [make_run(tmp_path / str(index)) for index in range(8)]
    study = make_store(tmp_path / "store", with_robustness=False)
    for folders, words in (
        ([first], "name another"),
        ([first, *others[: runs.MOST]], f"more than {runs.MOST}"),
        ([others[0], first / ".." / "1"], "given twice"),
        ([first, study], "the store of a study"),
        ([first, tmp_path / "nothing"], "no result.json"),
    ):
        assert words in refused(monkeypatch, capsys, *folders)
