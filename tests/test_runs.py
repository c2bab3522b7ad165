"""What a run leaves behind: whole or not at all, readable, and in known words."""

import json

import numpy as np
import pytest

from experiments import runs
from experiments.configs import Config, UsageError
from experiments.datasets import load


def make_run(seed: int, accuracy: float) -> dict:
    scores = {"precision": 0.7604, "recall": 0.7573, "f1": 0.7565}
    curves = {"train_loss": [1.0, 0.9], "test_accuracy": [50.0, accuracy]}
    peak = {"accuracy": accuracy, "peak_accuracy": max(50.0, accuracy)}
    return {"seed": seed, **curves, **peak, **scores}


def make_result(*accuracies: float) -> dict:
    seeds = [make_run(58 + k, accuracy) for k, accuracy in enumerate(accuracies)]
    return {"runs": seeds, "summary": runs.summarize(seeds)}


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    runs.claim_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_with_a_result_is_refused_and_left_alone(tmp_path):
    runs.claim_folder(tmp_path)
    runs.save_result(tmp_path, {"n": 1})
    runs.append_metrics(tmp_path, {"epoch": 1})
    with pytest.raises(UsageError, match="already holds a result; name another"):
        runs.claim_folder(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written.*name another folder"):
        runs.claim_folder(tmp_path / "file" / "out")


def test_results_are_replaced_whole(tmp_path):
    runs.save_result(tmp_path, {"a": 1})
    runs.save_result(tmp_path, {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": 2}


def test_what_json_cannot_say_becomes_null():
    value = {"a": [1.5, float("nan"), (float("inf"), "x")], "b": None}
    assert json.loads(runs.dumps(value)) == {"a": [1.5, None, [None, "x"]], "b": None}


def test_predictions_come_back(tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 5, 10)).astype(np.float32)
    labels = np.arange(5, dtype=np.int32)
    runs.save_predictions(tmp_path, logits, labels, [3, 4])
    with np.load(tmp_path / "predictions.npz") as saved:
        np.testing.assert_array_equal(saved["logits"], logits)
        np.testing.assert_array_equal(saved["labels"], labels)
        np.testing.assert_array_equal(saved["seeds"], [3, 4])


def test_one_seed_ends_like_the_original():
    assert runs.closing_lines(make_result(75.73)) == [
        "Accuracy: 75.73%",
        "Precision: 0.7604, Recall: 0.7573, F1: 0.7565",
    ]


def test_several_seeds_end_with_mean_spread_worst_and_best():
    # The four published runs of the original: mean 74.88, sd 1.16.
    lines = runs.closing_lines(make_result(76.02, 75.73, 74.09, 73.69))
    assert lines == [
        "Accuracy: 74.88 ± 1.16% over 4 seeds (worst 73.69%, best 76.02%)",
        "Precision: 0.7604 ± 0.0000, Recall: 0.7573 ± 0.0000, F1: 0.7565 ± 0.0000",
    ]


def test_table_has_a_row_for_each_seed():
    header, *rows = runs.seed_table(make_result(76.02, 45.0))
    assert header.split() == ["seed", "loss", "accuracy", "peak"]
    assert [row.split() for row in rows] == [
        ["58", "0.9000", "76.02%", "76.02%"],
        ["59", "0.9000", "45.00%", "50.00%"],
    ]


def test_one_seed_has_no_spread():
    assert runs.summarize([make_run(58, 75.0)])["accuracy_std"] is None


def test_description_is_complete_and_names_no_folder(tmp_path):
    config = Config(out=tmp_path / "run", data_dir=str(tmp_path), dataset="digits")
    described = runs.describe(config, load("digits"))
    keys = {"python", "jax", "flax", "device", "commit"}
    assert set(described["environment"]) >= keys
    assert described["dataset"]["train_size"] == 1437
    assert described["dataset"]["title"] == "handwritten digits"
    assert described["config"]["strength"] == 0.05
    assert str(tmp_path) not in runs.dumps(described)


def test_commit_is_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "runs.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runs.commit() is None
