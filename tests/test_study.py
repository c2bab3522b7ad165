"""The command that fills a store: whatever stops it, it goes on to the same numbers."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest

from experiments import report, study
from experiments.data import datasets
from experiments.data.dataset import Dataset
from experiments.pictures import drawing
from experiments.reporting import tables
from experiments.robustness.corruptions import BENCHMARK, CORRUPTIONS
from experiments.robustness.probes import Probes, make_probes, score_answers
from experiments.runs.environment import environment
from experiments.studies import entries, plans, runner, store
from experiments.studies import networks as networks_module
from experiments.studies.cells import TUNING, Cell, cell_of
from experiments.studies.networks import train
from experiments.studies.noise import measure_noise
from experiments.studies.plans import Plan
from experiments.training import metrics
from experiments.training.models import MODELS
from experiments.training.regularizers import REGULARIZERS, Recipe
from experiments.training.trainer import Progress
from sounddrop_jax import GaussianNoiseLayer
from tests import stores

pytestmark = pytest.mark.slow  # trains

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "study.md"
SHAPES = [[16, 16, 16], [8, 8, 32], [4, 4, 64]]
TOO_STRONG = 3e38  # its product with noise leaves the range of float32

# As many images to tune on as there are to test on, so that both share one program.
PLAN = """
question = "Does the study do what it says?"
rule = "As in claim.toml."
dataset = "digits"
seeds = 2
comparisons = [["water", "none"]]

[regimes.short]
epochs = 2
train_images = 128

[robustness]
corruption_images = 2
fourier_images = 1

[tuning]
images = 360
first_seed = 100
seeds = 1

[arms.none]
reg = "none"

[arms.water]
reg = "water"
intensity = [0.1, 1.0]
"""
FIELDS = {
    *("regime", "arm", "strength", "seed", "train_loss", "test_accuracy"),
    *("accuracy", "peak_accuracy", "precision", "recall", "f1", "confusion"),
    *("nll", "brier", "ece", "ece_mass", "reliability"),
    *("train_accuracy", "train_nll", "gap"),
    *("corruptions", "corruption_source", "corruption_error", "fourier"),
    *("diverged", "environment", "seconds", "origin"),
}


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "small.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load("digits")


def call_main(*flags) -> str:
    """Runs the command here, one network after the other, and returns what it said."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", ["study", *map(str, flags)])
        patch.setattr(runner, "IMAGES_PER_CORE", 1)
        study.main()
    return said.getvalue()


def as_read(record: dict) -> dict:
    """A record as its file says it, but for the time that it took."""
    text = json.dumps(record, default=np.ndarray.tolist)
    record = json.loads(text.replace("NaN", "null"))  # which arrays have for None
    del record["seconds"]
    record.pop("origin", None)  # which the store adds
    del record["environment"]["commit"]  # someone may commit while tests run
    return record


def networks(folder: Path) -> dict[Cell, tuple[dict, bytes]]:
    """All records of a store with their logits, but for the time that they took."""
    study, found = store.read([folder]), {}
    for record in (*study.records, *study.tuning):
        cell = cell_of(record)
        with np.load(store.logits_path(folder, cell)) as saved:
            found[cell] = as_read(record), saved["logits"].tobytes()
    return found


def probes_of(plan: Plan, dataset: Dataset) -> Probes:
    return make_probes(
        dataset,
        corruption_images=plan.corruption_images,
        fourier_images=plan.fourier_images,
    )


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    stats = {path: path.stat() for path in folder.rglob("[!.]*") if path.is_file()}
    return {
        path.relative_to(folder): (stat.st_mtime_ns, stat.st_size)
        for path, stat in stats.items()
    }


class Finished(NamedTuple):
    out: Path
    said: str

    @property
    def study(self) -> store.Study:
        return store.read([self.out])

    @property
    def chosen(self) -> float:
        """The strength of water that its tuning found best."""
        best = max(self.study.tuning, key=lambda record: record["accuracy"])
        return best["strength"]


@pytest.fixture(scope="module")
def finished(plan_file, tmp_path_factory) -> Finished:
    """A study that nothing disturbed."""
    out = tmp_path_factory.mktemp("studies") / "deep" / "finished"
    return Finished(out, call_main(f"--plan={plan_file}", f"--out={out}"))


class FakeTrainer:
    """Networks whose answers hang on their seeds and strengths alone."""

    def __init__(self, functions, seeds, *, strengths, **settings):
        self.networks = list(zip(seeds, strengths or [0.0] * len(seeds), strict=True))

    def train(self, num_epochs, steps_per_epoch):
        for epoch, share in np.ndindex(num_epochs, 2):
            step = (share + 1) * steps_per_epoch // 2
            yield Progress(epoch, step, np.ones(len(self.networks)), 0.0)

    def evaluate(self, images=None):
        shape = (360 if images is None else len(images), 10)
        answers = [
            np.random.default_rng([seed, round(100 * strength)]).normal(size=shape)
            for seed, strength in self.networks
        ]
        return np.array(answers, np.float32)


@pytest.fixture
def fakes(monkeypatch):
    """Which network is trained where can be told without training any."""
    monkeypatch.setattr(networks_module, "Trainer", FakeTrainer)
    monkeypatch.setattr(networks_module, "make_functions", lambda *args, **kw: None)
    monkeypatch.setattr(networks_module, "takes_strengths", lambda functions: True)
    noise = lambda plan, arm, dataset: stores._make_noise(arm)  # noqa: E731
    monkeypatch.setattr(study, "measure_noise", noise)
    monkeypatch.setattr(drawing, "svg", lambda *args, **kw: "<svg></svg>")
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def faked(fakes, plan_file, tmp_path) -> Finished:
    out = tmp_path / "faked"
    return Finished(out, call_main(f"--plan={plan_file}", f"--out={out}"))


# One study, looked at from all sides


def test_every_network_has_a_record_with_every_score(finished, digits):
    study = finished.study
    cells = [(record["arm"], record["seed"]) for record in study.records]
    # Arms share their seeds.
    assert cells == [(arm, seed) for arm in study.plan.arms for seed in (0, 1)]
    for record in study.records:
        assert set(record) == FIELDS
        assert (record["regime"], record["diverged"]) == ("short", False)
        assert all(0 < loss < 10 for loss in record["train_loss"])
        assert record["accuracy"] == record["test_accuracy"][-1]
        assert record["peak_accuracy"] == max(record["test_accuracy"])
        assert record["nll"] > 0 and 0 <= record["brier"] <= 2
        assert 0 <= record["ece"] <= 1 and 0 <= record["ece_mass"] <= 1
        assert sum(record["reliability"]["count"]) == len(digits.test_labels)
        assert record["gap"] == record["nll"] - record["train_nll"]
        assert 0 <= record["train_accuracy"] <= 100
        assert record["environment"].keys() == environment().keys()
        assert record["seconds"] > 0


def test_scores_are_those_of_the_saved_logits(finished, digits):
    for record in finished.study.records:
        with np.load(store.logits_path(finished.out, cell_of(record))) as saved:
            logits = saved["logits"]
        assert (logits.shape, logits.dtype) == ((360, 10), np.float32)
        scores = metrics.score(logits, digits.test_labels)
        scores |= metrics.calibration(logits, digits.test_labels)
        known = as_read(record)
        assert {name: known[name] for name in scores} == scores


def test_a_wrong_answer_counts_for_its_corruption_or_its_wave(plan_file, digits):
    plan = plans.load(str(plan_file))
    probes = probes_of(plan, digits)
    right = [labels for _, _, labels in probes.corruptions]
    right += [probes.labels] * len(probes.frequencies)
    logits = np.eye(10)[np.concatenate(right)]
    assert len(logits) == len(probes.images)
    place = [(name, severity) for name, severity, _ in probes.corruptions]
    first = 2 * place.index(("fog", 3))
    wave = 2 * len(place) + probes.frequencies.index((1, 2))
    for wrong in (first, wave):
        logits[wrong] = np.roll(logits[wrong], 1)
    record = score_answers(probes, logits)
    errors = dict.fromkeys(CORRUPTIONS, [0.0] * 5) | {"fog": [0, 0, 50, 0, 0]}
    assert record["corruptions"] == errors
    assert record["corruption_error"] == pytest.approx(50 / (5 * len(BENCHMARK)))
    waves = np.zeros((32, 32))
    waves[1, 2] = waves[-1, -2] = 100
    np.testing.assert_array_equal(record["fourier"]["errors"], waves)
    # And the wave is where it counts.
    lone = probes.images[wave].astype(float) - digits.test_images[0]
    power = np.abs(np.fft.fft2(lone[..., 0]))
    assert np.unravel_index(power.argmax(), power.shape) in [(1, 2), (31, 30)]


def test_the_noise_as_measured_has_the_intensity_as_its_spread(finished):
    noise = finished.study.noise
    assert set(noise) == {"none", "water"}
    assert noise["none"]["layers"] == []
    assert noise["water"]["strength"] == 0.1
    layers = noise["water"]["layers"]
    assert [layer["shape"] for layer in layers] == SHAPES
    for layer in layers:
        assert layer["std"] == pytest.approx(0.1, rel=0.05)
        for axis in ("rows", "columns"):
            assert np.shape(layer["power"][axis])[1] == 2
    # Two channels side by side: of none all is the same.
    samples = {
        arm: np.array([list(bytes.fromhex(row)) for row in each["sample"]])
        for arm, each in noise.items()
    }
    height, width, _ = SHAPES[0]
    assert {sample.shape for sample in samples.values()} == {(height, 2 * width)}
    assert len(np.unique(samples["none"])) == 1
    assert samples["water"].std() == pytest.approx(127 / 3, rel=0.05)
    # Pink along rows, white along columns.
    assert layers[0]["exponents"]["rows"] == pytest.approx(1, abs=0.1)
    assert layers[0]["exponents"]["columns"] == pytest.approx(0, abs=0.1)


def test_the_same_command_again_trains_nothing_and_says_the_same(faked, plan_file):
    before = files(faked.out)
    tables = {path: path.read_text() for path in faked.out.glob("*.csv")}
    assert len(tables) == 2
    said = call_main(f"--plan={plan_file}", f"--out={faked.out}")
    after = files(faked.out)
    assert after.keys() == before.keys()
    assert all(after[path] == before[path] for path in before if path.suffix == ".npz")
    assert {path: path.read_text() for path in faked.out.glob("*.csv")} == tables
    assert said.splitlines()[-2:] == faked.said.splitlines()[-2:]
    assert "from seed" not in said


# Tuning


def test_the_strength_that_was_best_on_held_out_images_is_trained(finished):
    tuning = finished.study.tuning
    assert [(r["arm"], r["strength"], r["seed"]) for r in tuning] == [
        ("water", 0.1, 100),
        ("water", 1.0, 100),
    ]
    assert tuning[0]["accuracy"] != tuning[1]["accuracy"]
    records = [r for r in finished.study.records if r["arm"] == "water"]
    assert {record["strength"] for record in records} == {finished.chosen}
    assert f"water: {finished.chosen:g} was the best" in finished.said


@pytest.mark.parametrize(("train_images", "first"), [(0, 7), (4, 4)])
def test_tuning_sees_neither_held_out_nor_test_images(train_images, first, monkeypatch):
    document = tomllib.loads(PLAN)
    document["regimes"]["short"]["train_images"] = train_images
    document["tuning"]["images"] = 3
    plan = plans.parse(document, "small")
    numbers = np.arange(15, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None, None], (15, 32, 32, 3))
    parts = images[:10], numbers[:10], images[10:], numbers[10:]
    dataset = Dataset("digits", "numbers", "", *parts, ())
    seen = []

    def make_functions(part, make_regularizer, **settings):
        for split in ("train", "test"):
            labels = getattr(part, f"{split}_labels")
            np.testing.assert_array_equal(
                getattr(part, f"{split}_images")[:, 0, 0, 0], labels
            )
            seen.append(labels.tolist())
        raise InterruptedError

    monkeypatch.setattr(networks_module, "make_functions", make_functions)
    for regime in (TUNING, "short"):
        with pytest.raises(InterruptedError):
            train(plan, dataset, [Cell(regime, "water", 0.1, 0)], None)
    num_trained = train_images or 10
    assert seen == [
        [*range(first)],
        [7, 8, 9],
        # What is reported: all that the regime has, and the test images.
        [*range(num_trained)],
        [*range(10, 15)],
    ]


@pytest.mark.parametrize("every, expected", [(1, [1, 1, 1]), (2, [0, 1, 1])])
def test_networks_are_evaluated_every_so_often_and_at_the_end(
    digits, monkeypatch, every, expected
):
    class Evaluated(FakeTrainer):
        """A trainer whose networks take everything for a 0."""

        def evaluate(self, images=None):
            images = digits.test_images if images is None else images
            return np.eye(10)[np.zeros((1, len(images)), int)]

    monkeypatch.setattr(networks_module, "Trainer", Evaluated)
    document = tomllib.loads(PLAN)
    document["regimes"]["short"] |= {"epochs": 3, "evaluate_every": every}
    plan = plans.parse(document, "small")
    ((record, _),) = train(plan, digits, [Cell("short", "none", 0.0, 0)], None)
    zeros = 100 * (digits.test_labels == 0).mean()
    curve = [zeros if each else np.nan for each in expected]
    np.testing.assert_allclose(record["test_accuracy"], curve)
    assert record["peak_accuracy"] == pytest.approx(zeros)


# Networks side by side


@pytest.mark.usefixtures("fakes")
def test_a_network_that_diverges_is_told_and_spoils_no_other(
    plan_file, digits, monkeypatch
):
    class Diverging(FakeTrainer):
        def train(self, num_epochs, steps_per_epoch):
            for progress in super().train(num_epochs, steps_per_epoch):
                yield progress._replace(totals=progress.totals * self.factors)

        def evaluate(self, images=None):
            return super().evaluate(images) * self.factors[:, None, None]

        @property
        def factors(self):
            return np.float32([np.nan if seed else 1 for seed, _ in self.networks])

    monkeypatch.setattr(networks_module, "Trainer", Diverging)
    plan = plans.load(str(plan_file))
    cells = [Cell("short", "water", 0.1, seed) for seed in (0, 1)]
    probes = probes_of(plan, digits)
    (good, _), (bad, _) = train(plan, digits, cells, probes)
    ((alone, _),) = train(plan, digits, cells[:1], probes)
    assert as_read(good | {"environment": {"commit": ""}}) == as_read(
        alone | {"environment": {"commit": ""}}
    )
    assert good["diverged"] is False and bad["diverged"] is True
    assert np.isnan(bad["train_loss"]).all()
    for score in ("nll", "brier", "ece", "ece_mass", "reliability", "train_nll", "gap"):
        assert bad[score] is None, score


@pytest.mark.usefixtures("fakes")
def test_without_robustness_there_are_no_such_scores(tmp_path):
    text = re.sub(r"\[(robustness|tuning)\].*?\n\n", "", PLAN, flags=re.S)
    (tmp_path / "bare.toml").write_text(text)
    call_main(f"--plan={tmp_path / 'bare.toml'}", f"--out={tmp_path / 'out'}")
    study = store.read([tmp_path / "out"])
    assert len(study.records) == 2 + 2 * 2  # at both strengths
    assert not {"corruptions", "fourier"} & {k for r in study.records for k in r}


# Stopped and gone on


def test_a_study_that_was_stopped_goes_on_to_the_same_records(
    faked, plan_file, tmp_path, monkeypatch, capsys
):
    out, append = tmp_path / "stopped", store.Store.append

    def stop(self, cell, *args):
        append(self, cell, *args)
        if (cell.arm, cell.seed) == ("none", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as exit:
        patch.setattr(store.Store, "append", stop)
        call_main(f"--plan={plan_file}", f"--out={out}")
    assert exit.value.code == 143
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted: ") and "the same command goes on" in line
    assert 0 < len(store.read([out]).records) < len(faked.study.records)
    assert not (out / tables.PAGE).exists()
    call_main(f"--plan={plan_file}", f"--out={out}")
    assert networks(out) == networks(faked.out)
    assert files(out).keys() == files(faked.out).keys()
    for name in ("table.csv", "comparisons.csv"):
        assert (out / name).read_text() == (faked.out / name).read_text()


def test_parts_make_one_study(faked, plan_file, tmp_path, monkeypatch, capsys):
    parts = [tmp_path / "1", tmp_path / "2"]
    commands = [
        (f"--plan={plan_file}", f"--part={index}/2", f"--out={out}")
        for index, out in enumerate(parts, 1)
    ]
    for command in commands:
        assert "water is not trained yet: its strength" in call_main(*command)
    # Each tuned a half, which the other needs as well.
    texts = [(out / store.NETWORKS).read_text() for out in parts]
    for out, text in zip(parts, reversed(texts), strict=True):
        with open(out / store.NETWORKS, "a") as file:
            file.write(text)
    for command in commands:
        assert "water: its strength cannot be chosen" not in call_main(*command)
    # The logits stay where they were made.
    for ours, theirs in (parts, parts[::-1]):
        source, target = (folder / store.LOGITS for folder in (ours, theirs))
        shutil.copytree(source, target, dirs_exist_ok=True)
    first, second = map(networks, parts)
    seeds = {Cell("short", "water", faked.chosen, seed) for seed in (0, 1)}
    assert first.keys() ^ second.keys() == seeds
    assert len(first) == len(second)
    assert first | second == networks(faked.out)

    out = tmp_path / "whole"
    monkeypatch.setattr(sys, "argv", ["report", *map(str, parts), f"--out={out}"])
    report.main()
    assert capsys.readouterr().out.splitlines()[0] == faked.said.splitlines()[-2]
    table = (faked.out / "table.csv").read_text()
    assert (out / "table.csv").read_text() == table


def test_more_seeds_are_trained_and_no_others(faked, plan_file):
    out = faked.out
    before, text = files(out), (out / store.NETWORKS).read_text()
    said = call_main(f"--plan={plan_file}", "--seeds=3", f"--out={out}")
    after = files(out)
    new = {path.as_posix() for path in after.keys() - before.keys()}
    groups = ("none/0.0", f"water/{faked.chosen}")
    assert new == {f"logits/short/{group}/2.npz" for group in groups}
    assert all(after[path] == before[path] for path in before if path.suffix == ".npz")
    grown = (out / store.NETWORKS).read_text()
    assert grown.startswith(text)
    assert grown.count('"seed"') == text.count('"seed"') + 2
    assert "3 paired seeds" in said
    assert store.read([out]).plan.seeds == (0, 1, 2)


# Bad input


@pytest.fixture
def no_training(monkeypatch):
    """Input is judged before anything is measured or trained."""

    def refuse(*args, **kwargs):
        raise AssertionError("it began")

    monkeypatch.setattr(study, "measure_noise", refuse)
    monkeypatch.setattr(runner, "train", refuse)


SONG = '[arms.song]\nreg = "aphex"\naudio = "song.wav"\n\n'
ARM = "[arms.none]"
WATER = '"water"\nintensity = [0.1, 1.0]'
FIXED = '"fixed"\nintensity = [1, 2]'
# What looks for its own module.
IDLE = """from __future__ import annotations
import dataclasses

@dataclasses.dataclass
class Settings:
    width: int
"""
BAD = [
    # what of the plan is other, flags, how the line starts, a part of the remedy
    (
        (ARM, SONG + ARM),
        [],
        "plan my: arm song needs the recording song",
        "--audio-dir",
    ),
    ((ARM, SONG + ARM), ["--audio-dir=TMP/no"], "--audio-dir=TMP/no: song.wav", ""),
    ((ARM, SONG + ARM), ["--audio-dir=TMP"], "arms.song.audio=", "song.wav"),
    (("", ""), ["--part=3/2"], "--part=3/2: ", "I/N"),
    (("", ""), ["--part=99/99"], "--part=99/99: no network of the plan", "shares or"),
    (
        ('"digits"', '"no.npz"'),
        [],
        "plan my: dataset=no.npz: No such file or directory: no.npz; see",
        "",
    ),
    (
        (ARM, "[training]\nbatch_size = 1438\n\n" + ARM),
        [],
        "plan my: training.batch_size=1438",
        "smaller batch",
    ),
    (("", ""), ["--module=TMP/no.py"], "--module=TMP/no.py: cannot be read (No", ""),
    (("", ""), ["--module=TMP/song.wav"], "--module=TMP/song.wav: not a Python", ""),
    (("", ""), ["--module=TMP/idle.py"], "--module=TMP/idle.py: it adds nothing", ""),
    (("", ""), ["--seeds=1"], "plan my: seeds=1: ", "from 2 to"),
    (("128", "1078"), [], "plan my: regime short needs 1438 training", "1437; give"),
    (("128", "63"), [], "plan my: regime short trains on 63", "give more"),
    (("images = 2", "images = 361"), [], "plan my: corruption_images=361", "360 test"),
    (("images = 1\n", "images = 361\n"), [], "plan my: fourier_images=361", "360 test"),
    (
        ("digits", "pets.npz"),
        ["--data-dir=TMP"],
        "plan my: corruption_images=2",
        "9 x 8",
    ),
    ((WATER, FIXED), [], "arms.water: fixed cannot take several", "give it one"),
]


@pytest.mark.parametrize(
    ("change", "flags", "start", "remedy"), BAD, ids=[start for _, _, start, _ in BAD]
)
def test_bad_input_ends_with_one_line_and_code_2_and_leaves_no_folder(
    change, flags, start, remedy, tmp_path, monkeypatch, capfd, no_training
):
    # A layer whose strength is a number, whatever it is given.
    def prepare(strength):
        return lambda shape: GaussianNoiseLayer(0.1)

    recipe = Recipe("intensity", 0.1, prepare)
    monkeypatch.setitem(REGULARIZERS, "fixed", recipe)
    if start.startswith("arms."):
        monkeypatch.setattr(study, "measure_noise", measure_noise)
    text = PLAN.replace(*change)
    files = {"my.toml": text, "song.wav": "la la la\n" * 99, "idle.py": IDLE}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    pets = {"images": np.zeros((999, 8, 9, 3), np.uint8), "labels": np.arange(999) % 5}
    np.savez(tmp_path / "pets.npz", **pets)
    command = [f"--plan={tmp_path / 'my.toml'}", *flags]  # the last one counts
    command = [flag.replace("TMP", str(tmp_path)) for flag in command]
    with pytest.raises(SystemExit) as exit:
        call_main(*command, f"--out={tmp_path / 'new' / 'run'}")
    assert exit.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {start.replace('TMP', str(tmp_path))}")
    assert remedy in line
    assert {path.name for path in tmp_path.glob("[!._]*")} == {*files, "pets.npz"}


# The page


def test_the_page_shows_the_files_of_its_example():
    page = PAGE.read_text("utf-8")
    for name in ("my_noise.py", "my_plan.toml", "my_network.py", "my_network.toml"):
        language = "python" if name.endswith(".py") else "toml"
        text = (ROOT / "docs" / "examples" / name).read_text("utf-8")
        assert f"```{language}\n{text}```\n" in page
        assert f"(examples/{name})" in page
    for name in ("my_noise.py", "my_network.py"):
        code = (ROOT / "docs" / "examples" / name).read_text("utf-8")
        _, *lines = filter(None, code.splitlines())
        assert len(lines) <= 10


def run_command_of_page(plan: str, *flags: str) -> str:
    """Gives a command of the page, and returns what it said."""
    found = re.findall(rf"^python -m .*{plan}.*$", PAGE.read_text("utf-8"), re.M)
    (command,) = map(shlex.split, found)
    assert command[:3] == ["python", "-m", "experiments.study"]
    with contextlib.chdir(ROOT), mock.patch.dict(REGULARIZERS), mock.patch.dict(MODELS):
        return call_main(*command[3:], "--seeds=2", *flags)


def test_the_page_s_command_compares_arms_in_a_network_of_one_s_own(tmp_path, capsys):
    said = run_command_of_page("my_network", "--part=1/2", f"--out={tmp_path}")
    assert capsys.readouterr().err == ""
    result = store.read([tmp_path])  # where nobody has registered it
    assert result.plan.regimes["mine"].model == "patches"
    assert "in the network patches" in said
    assert len(result.records) == 2
    for record in result.records:
        assert record["origin"]["regime"]["model"] == "patches"
        assert list(record["origin"]["files"]) == ["my_network.py"]
        assert record["train_loss"][1] < record["train_loss"][0]
    (layer,) = result.noise["gaussian"]["layers"]
    assert layer["shape"] == [8, 8, 64]


def test_the_page_s_command_compares_a_regularizer_of_one_s_own(
    fakes, tmp_path, monkeypatch, capsys
):
    fake = study.measure_noise
    monkeypatch.setattr(
        study,
        "measure_noise",
        lambda plan, arm, digits: (measure_noise if arm.name == "brown" else fake)(
            plan, arm, digits
        ),
    )
    said = run_command_of_page("my_plan", "--part=1/2", f"--out={tmp_path}")
    assert capsys.readouterr().err == ""
    result = store.read([tmp_path])
    assert list(result.plan.arms) == ["none", "dropout", "brown"]
    assert len(result.records) == 3
    assert not any(record["diverged"] for record in result.records)
    layers = result.noise["brown"]["layers"]
    assert [layer["shape"] for layer in layers] == SHAPES
    assert layers[0]["exponents"]["rows"] == pytest.approx(2, abs=0.1)
    assert layers[0]["std"] == pytest.approx(0.1, rel=0.05)
    assert said.splitlines()[-1] == f"Report: {tmp_path / tables.PAGE}"


def test_the_page_lists_every_entry_of_a_plan():
    known = {"arms.NAME.intensity", "arms.NAME.rate", "arms.NAME.SETTING"}
    for where, table in (
        ("", entries.File),
        ("regimes.NAME.", entries.RegimeEntry),
        ("arms.NAME.", entries.ArmEntry),
        ("hypotheses.NAME.", entries.HypothesisEntry),
        ("tuning.", entries.TuningEntry),
        ("training.", entries.TrainingEntry),
        ("robustness.", entries.RobustnessEntry),
    ):
        known |= {f"{where}{name}" for name in table.model_fields}
    known -= {"arms", "regimes", "tuning", "training", "robustness", "hypotheses"}
    table = PAGE.read_text("utf-8").partition("\n| entry |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w.]+)` \|", table, re.M)
    assert sorted(rows) == sorted(known)
