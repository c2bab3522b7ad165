"""A study's page: whole, self-contained, and true to its store."""

import collections
import dataclasses
import html.parser
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from experiments.analysis import comparisons, verdict
from experiments.analysis.comparisons import Analysis
from experiments.analysis.departures import departures
from experiments.pictures import curves, differences, drawing, maps
from experiments.reporting import comparisons as page_comparisons
from experiments.reporting import formats, marks, networks, page, robustness
from experiments.reporting.context import Context
from experiments.reporting.formats import Heat
from experiments.studies import plans, store
from experiments.studies.cells import TUNING, Cell
from experiments.studies.store import Study
from tests.stores import DATASET, DOCUMENT, make_store

HOSTILE = "<b>$x$&\"'"
PLANS = plans.FOLDER.glob("*.toml")
VOID = {"meta", "br", "img", "link", "input", "hr"}
STRENGTHS = [0.02, 0.05, 0.1]
SWEEP = DOCUMENT | {
    "comparisons": [["water", "dropout"], ["gaussian", "dropout"]],
    "regimes": {"small": {"epochs": 2, "train_images": 1000}, "whole": {"epochs": 2}},
    "arms": {
        "dropout": {"reg": "dropout", "rate": 0.2},
        "water": {"reg": "water", "intensity": STRENGTHS},
        "gaussian": {"reg": "gaussian", "intensity": STRENGTHS},
    },
}
TUNED = SWEEP | {
    "regimes": {"whole": {"epochs": 2}},
    "tuning": {"images": 1000, "first_seed": 50, "seeds": 2},
}


def build(study: Study) -> str:
    return page.build(Analysis(study))


class Drawn(NamedTuple):
    """A picture as the page asks for it."""

    label: str
    args: tuple
    keywords: dict[str, Any]


class Reader(html.parser.HTMLParser):
    """Checks that tags are balanced, and gathers what they say."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("stores") / "fake"
    return store.read([make_store(folder, effects={"water": 4})])


@pytest.fixture(scope="module")
def text(study) -> str:
    return build(study)


@pytest.fixture
def drawn(monkeypatch) -> dict[Callable, list[Drawn]]:
    """What would have been drawn, by function; drawing itself takes seconds."""
    pictures = collections.defaultdict(list)

    def record(name, label, draw, *args, **kw):
        pictures[draw].append(Drawn(label, args, kw))
        return '<svg role="img"></svg>'

    monkeypatch.setattr(drawing, "svg", record)
    return pictures


def make(tmp_path: Path, **options: Any) -> Study:
    return store.read([make_store(tmp_path / "store", **options)])


def test_the_page_is_well_formed_and_loads_nothing(text):
    reader = Reader(text)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert not {"srcset", "xlink:href"} & attributes.keys()
        assert attributes.get("src", "data:").startswith("data:")
        assert tag != "img" or attributes["alt"]
        href = attributes.get("href")
        if href is not None:
            assert href.startswith("data:image/png;base64,") or href[1:] in ids
            assert href.startswith(("data:", "#"))
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.startswith("#") and target[1:] in ids
    assert "@import" not in text
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1


def test_the_verdict_comes_first_and_sections_in_order(text, study):
    reader = Reader(text)
    lacking = {"Against strength and regime", "Tuning"}
    assert reader.headings == [each for each in page._SECTIONS if each not in lacking]
    said = reader.text
    assert said.index(verdict.sentence(Analysis(study))) < said.rindex("Departures")
    for departure in departures(Analysis(study), None):
        assert departure in said


def test_names_are_shown_as_they_are(study):
    names = [HOSTILE, "\x00\ud800", "水", *DATASET["class_names"][3:]]
    hostile = dataclasses.replace(
        study,
        plan=dataclasses.replace(study.plan, question=HOSTILE, rule=f"{HOSTILE} rule"),
        dataset=study.dataset | {"title": HOSTILE, "class_names": names},
        records=[
            record
            | {"corruptions": {HOSTILE: [10.0] * 5} | record["corruptions"]}
            | {"environment": record["environment"] | {"commit": HOSTILE}}
            for record in study.records
        ],
    )
    text = build(hostile)
    text.encode()
    assert "<b>" not in text
    reader = Reader(text)
    # In the heading, the rule, the dataset, the environment, and pictures.
    assert reader.text.count(HOSTILE) >= 8
    assert "水" in reader.text
    assert "\x00" not in text


@pytest.mark.usefixtures("drawn")
def test_sections_without_data_are_left_out(tmp_path, study):
    headings = Reader(build(make(tmp_path, with_robustness=False))).headings
    for absent in ("Corrupted images", "Single frequencies", "Tuning"):
        assert absent not in headings
    silent = dataclasses.replace(study, noise={})
    assert "Noise as measured" not in Reader(build(silent)).headings
    empty = Reader(build(dataclasses.replace(study, records=[], noise={})))
    assert "0 of 24 planned" in empty.text
    assert "Training" not in empty.headings


def test_networks_that_diverged_or_are_missing_are_named_and_not_drawn(tmp_path, drawn):
    missing = [Cell("short", "dropout", 0.2, seed) for seed in range(8)]
    diverged = [Cell("short", "water", 0.05, 3)]
    study = make(tmp_path, missing=missing, diverged=diverged)
    reader = Reader(build(study))
    assert "3 of water (diverged)" in reader.text
    assert reader.text.count("untested") >= 2
    assert "16 of 24 planned" in reader.text
    scores = {row["label"]: set(row["scores"]) for row in rows_of_seeds(study)}
    assert scores == {"none": set(range(8)), "water": set(range(8)) - {3}}
    for picture in drawn[curves.curves]:
        for series in picture.args[0]:
            assert len(series.values) == (7 if series.label == "water" else 8)
            assert np.isfinite(series.values).all()


def rows_of_seeds(study: Study) -> list[dict]:
    found = page_comparisons.seeds(Context(Analysis(study), with_pictures=False))
    return [row for table in found["tables"] for row in table["rows"]]


def test_differences_are_from_the_most_frequent_baseline(study):
    found = networks.confusion(Context(Analysis(study), with_pictures=False))
    percent = {}
    for arm in study.plan.arms:
        own = [np.array(r["confusion"]) for r in study.records if r["arm"] == arm]
        percent[arm] = 100 * sum(own) / sum(own).sum(axis=1, keepdims=True)
    # Of the others the differences say it.
    (table,) = found["tables"]
    assert table.label == "dropout"
    np.testing.assert_allclose(table.values, percent["dropout"])
    # The plan compares two arms with dropout, and one with none.
    labels = [table.label for table in found["differences"]]
    assert labels == ["none − dropout", "water − dropout"]
    np.testing.assert_allclose(
        found["differences"][1].values, percent["water"] - percent["dropout"]
    )


def test_corruptions_are_means_over_seeds_and_severities(study):
    found = robustness.corrupted(Context(Analysis(study), with_pictures=False))
    (regime,) = found["regimes"]
    errors, differences = regime["errors"], regime["differences"]
    water = errors.columns.index("water")
    own = [r for r in study.records if r["arm"] == "water"]
    for row, expected in (
        ("fog", np.mean([r["corruptions"]["fog"] for r in own])),
        ("mean", np.mean([r["corruption_error"] for r in own])),
    ):
        value = errors.values[errors.rows.index(row), water]
        np.testing.assert_allclose(value, expected)
    assert "saturate *" in errors.rows and "fog *" not in errors.rows
    assert differences.columns == ["none", "water"]
    np.testing.assert_allclose(
        differences.values[:, 1], errors.values[:, 2] - errors.values[:, 1]
    )


def test_a_table_in_colours_is_darker_where_its_values_are_larger():
    values = np.array([[-4.0, 0.0, 0.2], [2.0, 4.0, np.nan]])
    heat = Heat("a", ["x", "y"], ["1", "2", "3"], values, 1, 0.0, 4.0, True)
    (_, first), (_, second) = heat.cells()
    assert first == [("−4.0", 1.0, True), ("0.0", 0.0, False), ("+0.2", 0.05, False)]
    assert second == [("+2.0", 0.5, False), ("+4.0", 1.0, False), ("", 0.0, False)]
    (_, first), _ = heat._replace(hides_zeros=True).cells()
    assert first[1][0] == ""


def test_the_constant_is_in_the_middle_of_fourier_maps():
    errors = np.arange(32.0 * 32).reshape(32, 32)
    (image,) = maps.fourier(errors, "a", 0, 1, "viridis").axes[0].images
    assert image.get_array()[16, 16] == errors[0, 0]
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (-16.5, 15.5, 15.5, -16.5)


def test_reliability_is_that_of_all_seeds_together(study, drawn):
    build(study)
    confidence, accuracy, title, words = drawn[curves.reliability][2].args
    assert (title, words[:4]) == ("water", "ECE ")
    own = [r["reliability"] for r in study.records if r["arm"] == "water"]
    counts = np.array([bins["count"] for bins in own])
    right = sum(
        n * a
        for bins in own
        for n, a in zip(bins["count"], bins["accuracy"], strict=True)
        if n
    )
    filled = counts.sum(0) > 0
    assert len(confidence) == len(accuracy) == filled.sum()
    np.testing.assert_allclose((accuracy * counts.sum(0)[filled]).sum(), right)


def test_a_tuned_strength_is_shown_with_its_trials(tmp_path, drawn):
    study = make(
        tmp_path,
        plan_document=TUNED,
        effects={("water", 0.05): 10, ("gaussian", 0.1): 10},
        with_robustness=False,
    )
    reader = Reader(build(study))
    assert "Tuning" in reader.headings
    chosen = {picture.args[3]: picture.args[2] for picture in drawn[curves.trials]}
    assert chosen == {"water": 0.05, "gaussian": 0.1}
    assert all(len(scores) == 2 for scores in drawn[curves.trials][0].args[1])
    labels = [row["label"] for row in rows_of_seeds(study)]
    assert labels == ["dropout", "water at 0.05", "gaussian at 0.1"]
    assert not drawn[differences.sweep]


def test_a_tuning_that_is_not_done_has_a_page(tmp_path, drawn):
    missing = [Cell(TUNING, "water", 0.05, 50)]
    study = make(tmp_path, plan_document=TUNED, missing=missing, with_robustness=False)
    reader = Reader(build(study))
    assert "not chosen" in reader.text
    assert [picture.args[2] for picture in drawn[curves.trials]][0] is None


def test_a_sweep_is_shown_against_strength_in_each_regime(tmp_path, drawn):
    study = make(
        tmp_path,
        plan_document=SWEEP | {"seeds": 10},
        effects={("water", 0.05): 8, ("gaussian", 0.1): -8},
        with_robustness=False,
    )
    reader = Reader(build(study))
    assert "Against strength and regime" in reader.headings
    assert len(rows_of_seeds(study)) == 2 * (1 + 3 + 3)
    assert len(drawn[differences.sweep]) == 2
    for picture in drawn[differences.sweep]:
        arms, places, xlabel, _ = picture.args
        assert places == ["0.02", "0.05", "0.1"] and xlabel == "strength"
        found = dict(arms)
        assert found["water"]["0.05"].decision == "wins"
        assert found["gaussian"]["0.1"].decision == "loses"
        assert found["water"]["0.02"].decision == "undecided"
        figure = differences.sweep(*picture.args)
        letters = [text.get_text() for text in figure.axes[1].texts]
        assert letters.count("W") == letters.count("L") == 1
    regions = comparisons.regions(comparisons.compare(study))
    assert [(each.arm, each.regime) for each in regions] == [
        (arm, regime) for regime in ("small", "whole") for arm in ("water", "gaussian")
    ]
    for region in regions:
        difference = drawing.number(region.best.result.mean_difference, 2, signed=True)
        best = f"best {difference} at {region.best.strength:g}"
        assert f"{region}" in reader.text and best in reader.text


def test_several_regimes_without_a_sweep_are_shown_side_by_side(tmp_path, drawn):
    document = DOCUMENT | {"regimes": SWEEP["regimes"]}
    build(make(tmp_path, plan_document=document, with_robustness=False))
    (picture,) = drawn[differences.sweep]
    assert picture.args[1:3] == (["small", "whole"], "regime")


def leave_out(record: dict) -> None:
    record["test_accuracy"][0] = None


def test_many_arms_have_curves_of_their_own(tmp_path, drawn):
    arms = {f"water{index}": {"reg": "water"} for index in range(8)}
    document = DOCUMENT | {
        "seeds": 2,
        "arms": {"dropout": {"reg": "dropout"}} | arms,
        "comparisons": [[name, "dropout"] for name in arms],
    }
    settings = {"plan_document": document, "with_robustness": False}
    assert "Test accuracy against epoch" in build(
        make(tmp_path, **settings, edit=leave_out)
    )
    losses = [d for d in drawn[curves.curves] if "loss" in d.label]
    assert len(losses) == 8
    for picture in losses:
        assert picture.keywords == {"small": True}
        assert [series.is_baseline for series in picture.args[0]] == [True, False]
        curves.curves(*picture.args, **picture.keywords)
    assert len({picture.args[3] for picture in losses}) == 1


def test_epochs_without_an_evaluation_are_not_drawn(tmp_path):
    study = make(tmp_path, with_robustness=False, edit=leave_out)
    assert "Test accuracy against epoch" in build(study)
    for record in study.records:
        record["test_accuracy"][:-1] = np.nan
    built = build(study)  # a single evaluation is no curve
    assert "Training loss against epoch" in built
    assert "Test accuracy against epoch" not in built


def test_of_many_strengths_only_the_middle_has_pictures_of_its_own(tmp_path, drawn):
    document = SWEEP | {
        "seeds": 2,
        "comparisons": [["water", "dropout"]],
        "regimes": {"short": {"epochs": 2}},
        "arms": {
            "dropout": {"reg": "dropout"},
            "water": {"reg": "water", "intensity": [i / 100 for i in range(1, 26)]},
        },
    }
    study = make(tmp_path, plan_document=document, with_robustness=False)
    reader = Reader(build(study))
    titles = [d.args[2] for d in drawn[curves.reliability]]
    assert [title.partition(":")[0] for title in titles] == ["dropout", "water at 0.13"]
    assert "Of several strengths only a middle one is shown." in reader.text


def test_the_plan_is_shown_as_toml(text):
    documents = [TUNED, {"a": {"b": {"c": 'x"\n'}}, "d": [1.5, True]}]
    documents += [tomllib.loads(path.read_text("utf-8")) for path in PLANS]
    for document in documents:
        assert tomllib.loads(formats.toml(document)) == document
    assert '[arms.water] reg = "water" intensity = 0.05' in Reader(text).text


def test_hypotheses_are_answered_by_the_rules_of_the_plan(tmp_path, drawn):
    pairs = [["water", "dropout"], ["gaussian", "dropout"], ["none", "dropout"]]
    said = {
        "one": {"comparisons": pairs[:1], "confirmed_if": "all"},
        "any": {"comparisons": pairs, "confirmed_if": "any"},
        "all": {"comparisons": pairs[::2], "confirmed_if": "all"},
        "open": {"comparisons": pairs[1:]},
    }
    document = DOCUMENT | {
        "arms": DOCUMENT["arms"]
        | {
            "gaussian": {"reg": "gaussian"},
            "none": {"reg": "none", "title": "nothing"},
        },
        "comparisons": pairs,
        "hypotheses": {k: {"text": f"Is it {k}?"} | each for k, each in said.items()},
    }
    effects = {"water": 8, "none": -8}
    study = make(
        tmp_path, plan_document=document, effects=effects, with_robustness=False
    )
    statuses = [each.status for each in verdict.answer(Analysis(study))]
    assert statuses == ["confirmed", "confirmed", "not confirmed", ""]
    text = Reader(build(study)).text
    for part in (
        "Confirmed Is it one?",
        "Not confirmed Is it all?",
        "nothing − dropout",
    ):
        assert part in text
    told = verdict.sentence(Analysis(study))
    assert told.startswith("Confirmed: Is it one? On CIFAR-10")
    assert "Is it open? A network with nothing loses to dropout" in told


def test_an_outlier_is_cut_so_that_the_others_can_be_told_apart():
    axis = marks.axis_of_differences([(-0.5, 0.5), (0.2, 1.0), (-42.0, -40.0)])
    assert axis.low > -10 and axis.high > 1.0
    cut = marks.mark(axis, -41.0, -42.0, -40.0)
    assert cut.middle is None and cut.is_cut == (True, False)
    kept = marks.mark(axis, 0.6, 0.2, 1.0)
    assert kept.zero < kept.low < kept.middle < kept.high < 100
    assert kept.is_cut == (False, False)


@pytest.mark.usefixtures("drawn")
def test_of_very_many_seeds_some_are_drawn(study, monkeypatch):
    monkeypatch.setattr(page_comparisons, "_MOST_POINTS", 3)
    row = rows_of_seeds(study)[0]
    assert list(row["points"]) == [0, 3, 6] and len(row["scores"]) == 8
    assert row["mean"] == pytest.approx(np.mean(list(row["scores"].values())))
    assert "of which 3 are drawn" in Reader(build(study)).text
