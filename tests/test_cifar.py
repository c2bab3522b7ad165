"""The command, end to end: five files, the original's words, one line for an error."""

import json
import sys

import numpy as np
import pytest
import soundfile

from experiments import cifar, datasets, metrics
from experiments.configs import Config

FILES = ["confusion.png", "loss.png", "metrics.jsonl", "predictions.npz", "result.json"]
SMALL = {"dataset": "digits", "epochs": 2, "steps_per_epoch": 3, "seeds": 2}


def run_command(monkeypatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["cifar", *flags])
    cifar.main()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Two seeds, two short epochs: the folder and the result."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return out, cifar.run(Config(**SMALL, out=out))


def test_a_run_leaves_five_files(small_run):
    out, _ = small_run
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_the_result_is_complete(small_run):
    out, returned = small_run
    result = json.loads((out / "result.json").read_text())
    assert result == json.loads(json.dumps(returned))
    assert result["config"]["reg"] == "water"
    assert set(result["dataset"]) >= {"name", "fingerprint", "train_size", "test_size"}
    assert set(result["environment"]) >= {"python", "jax", "flax", "device", "commit"}
    assert [run["seed"] for run in result["runs"]] == [58, 59]
    for run in result["runs"]:
        assert len(run["train_loss"]) == len(run["test_accuracy"]) == 2
        assert run["accuracy"] == run["test_accuracy"][-1]
        assert run["peak_accuracy"] == max(run["test_accuracy"])
        assert np.shape(run["confusion"]) == (10, 10)
        assert np.sum(run["confusion"]) == result["dataset"]["test_size"]
        assert {"precision", "recall", "f1"} <= set(run)
    assert set(result["summary"]) >= {"n", "accuracy_mean", "accuracy_std"}
    assert set(result["seconds"]) == {"compile", "train"}
    assert result["images_per_second"] > 0


def test_metrics_have_a_line_for_each_epoch(small_run):
    out, result = small_run
    lines = (out / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["epoch"] for record in records] == [1, 2]
    losses = np.transpose([record["train_loss"] for record in records])
    assert losses.tolist() == [run["train_loss"] for run in result["runs"]]


def test_predictions_give_the_accuracies(small_run):
    out, result = small_run
    with np.load(out / "predictions.npz") as saved:
        accuracies = metrics.accuracy(saved["logits"], saved["labels"])
    assert accuracies.tolist() == [run["accuracy"] for run in result["runs"]]


def test_the_same_command_gives_the_same_numbers(small_run, tmp_path):
    _, result = small_run
    again = cifar.run(Config(**SMALL, out=tmp_path / "again"))
    assert again["runs"] == result["runs"]


def test_a_pipe_gets_plain_lines_that_end_like_the_original(
    tmp_path, monkeypatch, capsys
):
    run_command(
        monkeypatch,
        "--reg=aphex",
        "--dataset=digits",
        "--epochs=1",
        "--steps-per-epoch=1",
        f"--out={tmp_path / 'out'}",
    )
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "\x1b" not in text
    assert lines[0].startswith("aphex on handwritten digits")
    assert "glitch track that the program synthesised" in lines[1]
    assert lines[2].startswith("Epoch [1/1], Loss: ")
    assert lines[-2].startswith("Accuracy: ")
    assert lines[-1].startswith("Precision: ")


def write_sound(path, samples) -> str:
    soundfile.write(path, np.asarray(samples, np.float32), 8000, subtype="FLOAT")
    return str(path)


def missing(folder):
    return str(folder / "missing.wav")


def empty(folder):
    (folder / "empty.wav").touch()
    return str(folder / "empty.wav")


def silent(folder):
    return write_sound(folder / "silent.wav", np.zeros(800))


def text(folder):
    (folder / "text.mp3").write_text("not a sound\n" * 100)
    return str(folder / "text.mp3")


def corrupt(folder):
    path = folder / "corrupt.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 8000), 8000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return str(path)


def assert_refused(monkeypatch, capsys, out, flag, *flags) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(monkeypatch, *flags, "--dataset=digits", f"--out={out}")
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {flag}")


@pytest.mark.parametrize("make_file", [missing, empty, silent, text, corrupt])
def test_unusable_recordings_are_refused(make_file, tmp_path, monkeypatch, capsys):
    path = make_file(tmp_path)
    out = tmp_path / "out"
    flags = ["--reg=aphex", f"--audio={path}"]
    assert_refused(monkeypatch, capsys, out, f"--audio={path!r}:", *flags)
    assert not out.exists()


@pytest.mark.parametrize(
    "flag",
    [
        "--reg=waterr",
        "--seeds=0",
        "--epochs=0",
        "--intensity=-1.0",
        "--intensity=nan",
        "--rate=1.0",
        "--batch-size=5000",
    ],
)
def test_bad_flags_are_refused(flag, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert_refused(monkeypatch, capsys, out, f"{flag}:", flag)
    assert not out.exists()


def test_a_folder_that_holds_a_result_is_refused(small_run, monkeypatch, capsys):
    out, _ = small_run
    before = (out / "metrics.jsonl").read_text()
    assert_refused(monkeypatch, capsys, out, f"--out={out}:")
    assert (out / "metrics.jsonl").read_text() == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert_refused(monkeypatch, capsys, out, f"--out={out}:")


def test_help_names_every_flag(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(monkeypatch, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in Config.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text


def test_interruption_says_so(tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "load", interrupt)
    with pytest.raises(SystemExit) as stop:
        run_command(monkeypatch, f"--out={tmp_path / 'out'}")
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted: no result was written.\n"
