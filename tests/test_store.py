"""A store: lines whole or absent, growth, refusals, several read as one."""

import copy
import itertools
import json
import math
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import UsageError
from experiments.studies import plans, store
from experiments.studies.cells import (
    TUNING,
    Cell,
    all_cells,
    cell_of,
    choose_strengths,
    tuning_cells,
)
from experiments.studies.plans import Plan
from experiments.training.models import MODELS
from experiments.training.regularizers import REGULARIZERS
from tests import stores

DOCUMENT: dict[str, Any] = {
    "question": "Is water better than dropout?",
    "rule": "It is if p < 0.05.",
    "seeds": 2,
    "comparisons": [["water", "dropout"]],
    "regimes": {"short": {"epochs": 2}, "long": {"epochs": 4}},
    "arms": {
        "dropout": {"reg": "dropout", "rate": 0.2},
        "water": {"reg": "water", "intensity": [0.5, 1]},
    },
}
TUNED: dict[str, Any] = DOCUMENT | {
    "regimes": {"short": {"epochs": 2}},
    "tuning": {"images": 100, "first_seed": 50, "seeds": 3},
}
# As a study has it: a tuple, which JSON makes a list.
DATASET = {
    **{"name": "digits", "title": "digits", "fingerprint": "12ab"},
    **{"train_size": 9, "test_size": 3, "class_names": ("zero", "one")},
}
INPUTS = {"song.ogg": "34cd"}
CELL = Cell("short", "water", 0.5, 1)


def make_plan(document: dict[str, Any] = DOCUMENT, **changes) -> Plan:
    return plans.parse(copy.deepcopy(document | changes), "fake")


def grow(**arms) -> dict[str, Any]:
    return {"arms": DOCUMENT["arms"] | arms}


def open_store(folder: Path, document: dict[str, Any] = DOCUMENT, **changes) -> Plan:
    plan = make_plan(document, **changes)
    store.open_store(folder, plan, DATASET, INPUTS)
    return plan


def reopen(folder: Path, **noise) -> store.Store:
    """Opens a store with the plan that it holds."""
    saved = json.loads((folder / store.STUDY).read_text())
    plan = plans.parse(saved["plan"], saved["name"], is_done=True)
    return store.open_store(folder, plan, saved["dataset"], saved["inputs"], noise)


def noise(std: float) -> dict[str, Any]:
    """Noise as it is measured, of one layer."""
    both = {"rows": None, "columns": None}
    power = {"rows": [[0.5, 1.0]], "columns": [[0.5, 1.0]]}
    layer = {"shape": [2, 2, 1], "std": std, "exponents": both, "power": power}
    return {"strength": 1.0, "layers": [layer]}


def append(opened: store.Store, *cells: Cell, **record) -> None:
    for cell in cells:
        logits = np.full((3, 2), cell.seed, np.float32)
        scores = {"accuracy": 50.0 + cell.seed % 50, "diverged": False, "seconds": 1.0}
        curve = [1.5] * (4 if cell.regime == "long" else 2)
        scores |= {"train_loss": curve, "environment": {}}
        opened.append(cell, scores | record, logits)


def write(folder: Path, *cells: Cell, **record) -> None:
    append(reopen(folder), *cells, **record)


def contents(folder: Path) -> dict[str, bytes]:
    """Reads every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(function, *args) -> str:
    with pytest.raises(UsageError) as error:
        function(*args)
    message = str(error.value)
    assert len(message.splitlines()) == 1 and message.endswith(".")
    return message


def test_a_store_that_is_written_to_is_refused_to_others(tmp_path):
    folder = tmp_path / "new" / "store"
    with store.claim(folder):
        with pytest.raises(UsageError, match="process .* is writing to it; wait"):
            with store.claim(folder):
                raise AssertionError
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written .*; name another folder"):
        with store.claim(tmp_path / "file"):
            raise AssertionError


# Written and read


def test_what_is_written_is_read_in_the_order_of_the_plan(tmp_path):
    plan = open_store(tmp_path, TUNED)
    cells, tuning = all_cells(plan), tuning_cells(plan)
    write(tmp_path, *reversed(cells + tuning), curve=[1.5, 0.25])
    reopen(tmp_path, water=noise(0.5))
    study = store.read([tmp_path])
    assert study.plan == plan and study.folders == (tmp_path,)
    assert study.dataset == DATASET | {"class_names": ["zero", "one"]}
    assert [Cell(*list(record.values())[:4]) for record in study.records] == cells
    assert [Cell(*list(record.values())[:4]) for record in study.tuning] == tuning
    assert study.records[0].pop("origin") == {
        **{"version": 1, "dataset": "12ab", "training": {}, "files": {}},
        **{"regime": {"epochs": 2}, "arm": {"reg": "dropout"}},
    }
    expected = {
        **{"regime": "short", "arm": "dropout", "strength": 0.2, "seed": 0},
        **{"accuracy": 50.0, "diverged": False, "seconds": 1.0},
        **{"train_loss": np.array([1.5, 1.5]), "environment": {}},
        **{"curve": [1.5, 0.25]},
    }
    np.testing.assert_equal(study.records[0], expected)
    assert study.noise == {"water": noise(0.5)}
    np.testing.assert_equal(reopen(tmp_path).records(cells)[1:], study.records[1:])


def test_what_networks_share_is_written_once(tmp_path):
    cells = all_cells(open_store(tmp_path))[:3]  # of two arms
    sources = {"fog": "generated"}
    for cell, version in zip(cells, ("0.10", "0.10", "0.12"), strict=True):
        write(tmp_path, cell, environment={"jax": version}, corruption_source=sources)
    lines = map(json.loads, (tmp_path / store.NETWORKS).read_text().splitlines())
    values = [line["value"] for line in lines if "shared" in line]
    others = [value for value in values if "version" not in value]
    assert len(values) - len(others) == 2  # what the numbers of each arm hang on
    assert others == [{"jax": "0.10"}, sources, {"jax": "0.12"}]
    records = store.read([tmp_path]).records
    assert [r["environment"]["jax"] for r in records] == ["0.10", "0.10", "0.12"]
    assert all(record["corruption_source"] == sources for record in records)
    np.testing.assert_equal(records, reopen(tmp_path).records(cells))


@pytest.mark.parametrize("strength", [0.1 + 0.2, 1e-300])
def test_strengths_that_differ_at_all_are_different_networks(tmp_path, strength):
    cells = [CELL._replace(strength=strength), CELL._replace(strength=0.3)]
    open_store(tmp_path)
    write(tmp_path, cells[0])
    assert reopen(tmp_path).missing(cells) == [cells[1]]
    assert reopen(tmp_path).records(cells)[0]["strength"] == strength
    assert len({store.logits_path(tmp_path, cell) for cell in cells}) == 2


# Stopped


@pytest.mark.parametrize(
    "torn", [b'{"regime": "sho', bytes(9), bytes(9) + b'e": 1}\n'], ids=str
)
def test_a_line_that_a_stop_left_is_dropped_with_a_warning(tmp_path, torn, capsys):
    cells = all_cells(open_store(tmp_path))
    write(tmp_path, *cells[:2])
    path = tmp_path / store.NETWORKS
    whole = path.read_bytes()
    path.write_bytes(whole + torn)  # as if of a third network
    assert len(store.read([tmp_path]).records) == 2
    assert path.read_bytes() == whole + torn  # reading writes nothing
    opened = reopen(tmp_path)
    assert path.read_bytes() == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}: its last record is not whole")
    append(opened, cells[2])
    assert len(store.read([tmp_path]).records) == 3


def test_a_whole_line_may_lack_its_end(tmp_path):
    cells = all_cells(open_store(tmp_path))
    write(tmp_path, *cells[:2])
    path = tmp_path / store.NETWORKS
    whole = path.read_bytes()
    path.write_bytes(whole.rstrip(b"\n"))  # by an editor
    assert len(store.read([tmp_path]).records) == 2
    write(tmp_path, cells[2])
    assert path.read_bytes().startswith(whole)
    assert len(store.read([tmp_path]).records) == 3


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    open_store(tmp_path)
    write(tmp_path, CELL)
    before = contents(tmp_path)
    folder = store.logits_path(tmp_path, CELL).parent
    elsewhere = tmp_path.parent / "elsewhere"
    (elsewhere / "a" / "b").mkdir(parents=True)
    (tmp_path / "logits" / "link").symlink_to(elsewhere)
    left = ".0.npz.0123abcd.tmp"
    for leftover in (folder / left, tmp_path / ".study.json.89abcdef.tmp"):
        leftover.write_text("{")
    (elsewhere / "a" / "b" / left).write_text("mine")
    (tmp_path / "notes.tmp").write_text("mine")
    (folder / "0.npz").write_text("whole, but its record is not there")
    assert len(store.read([tmp_path]).records) == 1
    reopen(tmp_path)
    after = contents(tmp_path)
    assert after.pop("notes.tmp") == b"mine"
    assert (elsewhere / "a" / "b" / left).exists()
    assert after.pop("logits/short/water/0.5/0.npz").startswith(b"whole")
    assert after == before


# Where it cannot be


@pytest.mark.parametrize("file, folder", [("a", "a"), ("a", "a/b"), ("a/logits", "a")])
def test_a_file_in_the_way_is_refused_and_kept(tmp_path, file, folder):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("mine")
    message = refusal(open_store, tmp_path / folder)
    assert message.startswith(f"--out={tmp_path / folder}: cannot be written (")
    assert message.endswith("name another folder.")
    assert contents(tmp_path) == {file: b"mine"}


def test_a_folder_without_a_study_says_what_makes_one(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "no" / "such", tmp_path / "file"):
        message = refusal(store.read, [folder])
        assert message.startswith(f"{folder}: there is no study in it; ")
        assert "python -m experiments.study" in message


# Grown


SMALL: dict[str, Any] = DOCUMENT | grow(none={"reg": "none"})
WATER = SMALL["arms"]["water"] | {"title": "Water"}  # as people call it now
GROWTHS: dict[str, dict[str, Any]] = {
    "seeds": {"seeds": 5, "comparisons": [["none", "dropout"], ["water", "dropout"]]},
    "an arm": {"arms": SMALL["arms"] | {"water": WATER, "drop": {"reg": "dropout"}}},
    "other arms, compared": {
        "arms": {"none": {"reg": "none"}, "drop": {"reg": "dropout"}},
        "comparisons": [["drop", "none"]],
    },
}


@pytest.mark.parametrize("name", GROWTHS)
def test_a_store_grows_and_keeps_what_it_had(tmp_path, name):
    old = open_store(tmp_path, SMALL)
    write(tmp_path, *all_cells(old))
    lines = (tmp_path / store.NETWORKS).read_bytes()
    new = make_plan(SMALL, **GROWTHS[name])
    store.open_store(tmp_path, new, DATASET, {"other.ogg": "56ef"})
    assert (tmp_path / store.NETWORKS).read_bytes() == lines
    study = store.read([tmp_path])
    assert study.plan.seeds == max(old.seeds, new.seeds)
    assert study.plan.arms == {**old.arms, **new.arms}
    assert set(study.plan.comparisons) == {*old.comparisons, *new.comparisons}
    assert len(study.records) == len(all_cells(old))
    saved = json.loads((tmp_path / store.STUDY).read_text())
    assert saved["inputs"] == INPUTS | {"other.ogg": "56ef"}
    # Back with the old plan: nothing shrinks.
    store.open_store(tmp_path, old, DATASET, INPUTS)
    after = store.read([tmp_path]).plan
    assert after.seeds == study.plan.seeds
    assert after.arms.keys() == study.plan.arms.keys()
    assert set(after.comparisons) == set(study.plan.comparisons)


def test_going_on_with_the_same_plan_changes_no_file(tmp_path):
    plan = open_store(tmp_path)
    write(tmp_path, CELL)
    before = contents(tmp_path)
    store.open_store(tmp_path, plan, DATASET, INPUTS)
    assert contents(tmp_path) == before


# Refused

# By what differs: how another study's is made, and how the message names it.
OTHER = DATASET | {"fingerprint": "ff"}
LONGER = {"short": {"epochs": 2}, "long": {"epochs": 5}}
DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "version: 1 there, 2 here"),
    ({"name": "real"}, "name: 'fake' there, 'real' here"),
    ({"dataset": OTHER}, "dataset: fingerprint '12ab' there, 'ff' here"),
    ({"regimes": LONGER}, "plan: regimes is long epochs 4 there, 5 here"),
    (grow(water={"reg": "water"}), "arm water: intensity [0.5, 1] there, 0.05 here"),
    ({"inputs": {"song.ogg": "ff"}}, "file song.ogg: '34cd' there, 'ff' here"),
    ({"first_seed": 3, "rule": "No."}, "plan: first_seed is None there, 3 here"),
]


def open_other(folder: Path, changes: dict[str, Any], monkeypatch) -> None:
    changes = {"version": 1, "name": "fake", "dataset": DATASET} | changes
    monkeypatch.setattr(store, "VERSION", changes.pop("version"))
    name, dataset = changes.pop("name"), changes.pop("dataset")
    inputs = changes.pop("inputs", INPUTS)
    plan = plans.parse(copy.deepcopy(DOCUMENT | changes), name)
    store.open_store(folder, plan, dataset, inputs)


@pytest.mark.parametrize(
    ("changes", "difference"), DIFFERENCES, ids=[said for _, said in DIFFERENCES]
)
def test_another_study_is_refused_and_the_folder_left_alone(
    tmp_path, monkeypatch, changes, difference
):
    open_store(tmp_path)
    write(tmp_path, CELL)
    (tmp_path / ".study.json.89abcdef.tmp").write_text("{")
    before = contents(tmp_path)
    message = refusal(open_other, tmp_path, changes, monkeypatch)
    assert f"--out={tmp_path}: holds a study with another {difference}" in message
    assert message.endswith("; name another folder.")
    assert contents(tmp_path) == before


def test_stores_of_two_studies_are_not_read_together(tmp_path, monkeypatch):
    open_store(tmp_path / "one")
    open_other(tmp_path / "two", {"inputs": {"song.ogg": "ff"}}, monkeypatch)
    message = refusal(store.read, [tmp_path / "two", tmp_path / "one"])
    assert message.startswith(f"{tmp_path / 'one'}: holds a study with another file")


def test_arms_that_do_not_go_together_are_refused_before_they_are_written(tmp_path):
    open_store(tmp_path, TUNED)
    before = contents(tmp_path)
    # Each plan is fair alone; of both, one arm has more trials than the other.
    gaussian = {"reg": "gaussian", "intensity": [0.1, 0.2, 0.3]}
    arms = {"dropout": TUNED["arms"]["dropout"], "gaussian": gaussian}
    changes = {"arms": arms, "comparisons": [["gaussian", "dropout"]]}
    plan = make_plan(TUNED, **changes)
    message = refusal(store.open_store, tmp_path, plan, DATASET, INPUTS)
    assert "arm gaussian has 3 strengths to choose from, arm water 2" in message
    assert contents(tmp_path) == before


# Damaged


@pytest.mark.parametrize("content", ["{", "{}", "\xff", None])
def test_a_damaged_study_is_named(tmp_path, content):
    plan = open_store(tmp_path)
    path = tmp_path / store.STUDY
    if content is None:  # whole, but its plan is none
        content = json.dumps(json.loads(path.read_text()) | {"plan": {}})
    path.write_text(content, encoding="latin-1")
    message = refusal(store.read, [tmp_path])
    assert message.startswith(f"{path}: damaged (")
    assert message.endswith("; restore it, or name another folder.")
    assert message == refusal(store.open_store, tmp_path, plan, DATASET, INPUTS)
    assert message == refusal(store.read_noise, tmp_path)
    assert path.read_text(encoding="latin-1") == content


OF_CELL = '{"regime": "short", "arm": "water", "seed": 1'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "not a table"),
        ("\xff", "can't decode"),
        (f"{OF_CELL}}}", "strength is missing"),
        (f'{OF_CELL}, "environment": "12ab"}}', "no line above has its environment"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, content, why):
    plan = open_store(tmp_path)
    write(tmp_path, *all_cells(plan)[:2])
    path = tmp_path / store.NETWORKS
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, content, *rest, ""]), encoding="latin-1")
    before = contents(tmp_path)
    message = refusal(store.read, [tmp_path])
    assert message.startswith(f"{path}: line 2 is damaged (") and why in message
    assert message.endswith("; remove it, and run the study again.")
    assert message == refusal(store.open_store, tmp_path, plan, DATASET, INPUTS)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", [store.STUDY, store.NETWORKS])
def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path, name):
    plan = open_store(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    message = refusal(store.read, [tmp_path])
    assert message.startswith(f"{tmp_path / name}: cannot be read (Is a directory); ")
    assert message == refusal(store.open_store, tmp_path, plan, DATASET, INPUTS)


def test_two_records_of_one_network_are_refused_before_anything_is_trained(tmp_path):
    plan = open_store(tmp_path)
    write(tmp_path, CELL)
    path = tmp_path / store.NETWORKS
    (own,) = (line for line in path.read_text().splitlines() if "accuracy" in line)
    other = json.dumps(json.loads(own) | {"accuracy": 1.0})
    path.write_text(f"{path.read_text()}{other}\n")
    message = refusal(store.open_store, tmp_path, plan, DATASET, INPUTS)
    assert message == refusal(store.read, [tmp_path])
    assert "is another network than in" in message and "by its accuracy" in message


def test_noise_that_is_not_finite_leaves_a_store_that_can_be_read(tmp_path):
    plan = make_plan()
    for std in (math.nan, 1e20):
        store.open_store(tmp_path, plan, DATASET, INPUTS, {"water": noise(std)})
        (layer,) = store.read([tmp_path]).noise["water"]["layers"]
        assert layer["std"] == (None if math.isnan(std) else std)
        (tmp_path / store.STUDY).unlink()


def test_what_a_computer_hides_is_passed_over(tmp_path):
    # By macOS beside every file that it copies, or in every folder that it shows.
    open_store(tmp_path)
    write(tmp_path, CELL)
    for folder in (tmp_path, store.logits_path(tmp_path, CELL).parent):
        for name in ("._networks.jsonl", "._1.npz", ".DS_Store"):
            (folder / name).write_bytes(b"\0\5\x16\7")
    assert [cell_of(r) for r in store.read([tmp_path]).records] == [CELL]
    assert reopen(tmp_path).missing([CELL]) == []


# Several as one


def test_two_folders_read_together_are_one_with_the_lines_of_both(tmp_path):
    one, two, both = (tmp_path / name for name in ("one", "two", "both"))
    cells = all_cells(open_store(one))
    more_cells = all_cells(open_store(two, seeds=3, **grow(none={"reg": "none"})))
    write(one, *cells[:8], environment={"machine": 1})
    theirs = [cell for cell in more_cells if cell not in cells[:6]]
    write(two, *theirs, environment={"machine": 2})
    no_noise = {"strength": 0.0, "layers": []}
    reopen(one, water=noise(1.0))
    reopen(two, water=noise(2.0), none=no_noise)
    shutil.copytree(two, both)
    lines = [(folder / store.NETWORKS).read_bytes() for folder in (one, two)]
    (both / store.NETWORKS).write_bytes(b"".join(lines))
    together, appended = store.read([one, two]), store.read([both])
    assert together.plan == appended.plan and together.plan.seeds == (0, 1, 2)
    assert list(together.plan.arms) == ["dropout", "water", "none"]
    np.testing.assert_equal(together.records, appended.records)
    assert len(together.records) == len(more_cells)
    assert together.noise == {"water": noise(1.0), "none": no_noise}
    # Of the networks that both have, which are equal, the first folder's count.
    for folders, count in (([one, two], 8), ([two, one], 6)):
        study = store.read(folders)
        machines = [record["environment"]["machine"] for record in study.records]
        assert machines.count(1) == count
        assert study.folders == tuple(folders)


def test_records_are_read_one_by_one_into_arrays(tmp_path):
    stores.make_store(tmp_path, plan_document=stores.DOCUMENT | {"seeds": 16})
    size = (tmp_path / store.NETWORKS).stat().st_size
    store.read([tmp_path])  # what is loaded once
    tracemalloc.start()
    try:
        study = store.read([tmp_path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size, (peak, size)  # Python's own lists take twice that
    record = study.records[0]
    assert record["confusion"].shape == (10, 10)
    assert record["fourier"]["errors"].shape == (32, 32)


@pytest.mark.parametrize("as_one", [False, True])
@pytest.mark.parametrize(
    "entries", [({"accuracy": 11.0}, {"accuracy": 99.0}), ({}, {"another": None})]
)
def test_two_records_of_a_network_that_differ_are_named(tmp_path, as_one, entries):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, own in zip((one, two), entries, strict=True):
        open_store(folder)
        write(folder, CELL, seconds=len(own), **own)
    folders = [one, two]
    if as_one:
        lines = [(folder / store.NETWORKS).read_bytes() for folder in folders]
        (one / store.NETWORKS).write_bytes(b"".join(lines))
        folders = [one]
    for order in (folders, folders[::-1]):
        message = refusal(store.read, order)
        assert "short water 0.5, seed 1, is another network than in" in message
        assert f"by its {max(entries[1])}; leave one of the two out." in message


# Records of another study


OTHERS: list[tuple[dict[str, Any], str, str]] = [
    # what the plan has, the fingerprint of the dataset, and what the message names
    ({"training": {"learning_rate": 0.1}}, "12ab", "training learning_rate"),
    ({"regimes": {"short": {"epochs": 3}}}, "12ab", "regime epochs 2 there, 3"),
    ({"regimes": {"short": {"epochs": 2, "model": "vit"}}}, "12ab", "there, 'vit'"),
    ({"robustness": {"corruption_images": 9}}, "12ab", "corruption_images"),
    (grow(water={"reg": "plane", "intensity": [0.5, 1]}), "12ab", "arm reg 'water'"),
    ({}, "ff", "dataset '12ab'"),
]


@pytest.mark.parametrize(
    ("changes", "fingerprint", "difference"), OTHERS, ids=[row[2] for row in OTHERS]
)
def test_a_record_of_another_study_is_refused_wherever_it_was_put(
    tmp_path, changes, fingerprint, difference
):
    document = DOCUMENT | {"regimes": {"short": {"epochs": 2}}}
    store.open_store(tmp_path, plans.parse(document, "fake"), DATASET, {})
    write(tmp_path, CELL)
    (tmp_path / store.STUDY).unlink()  # as someone may try who wants another plan
    plan = plans.parse(copy.deepcopy(document | changes), "fake")
    dataset = DATASET | {"fingerprint": fingerprint}
    message = refusal(store.open_store, tmp_path, plan, dataset, {})
    assert f"{tmp_path / store.NETWORKS}: short water 0.5, seed 1, is of " in message
    assert difference in message
    # Nor does it count beside a plan that is its own.
    other = tmp_path / "other"
    store.open_store(other, plan, dataset, {})
    shutil.copy(tmp_path / store.NETWORKS, other)
    assert difference in refusal(store.read, [other])


@pytest.mark.parametrize("reg, model", [("mine", "cnn"), ("water", "mine")])
def test_a_user_s_file_counts_for_networks_with_anything_of_it(
    reg, model, tmp_path, monkeypatch
):
    monkeypatch.setitem(REGULARIZERS, "mine", REGULARIZERS["water"])
    monkeypatch.setitem(MODELS, "mine", MODELS["cnn"])
    plan = DOCUMENT | grow(mine={"reg": reg})
    if model == "mine":
        plan["regimes"] = DOCUMENT["regimes"] | {"long": {"epochs": 4, "model": model}}
    plan = plans.parse(plan, "fake")
    mine = Cell("long", "mine", 0.05, 0)
    for folder, digest in (("one", "12"), ("two", "34")):
        opened = store.open_store(tmp_path / folder, plan, DATASET, {"m.py": digest})
        append(opened, CELL, mine)
    (tmp_path / "two" / store.STUDY).unlink()
    shutil.copy(tmp_path / "one" / store.STUDY, tmp_path / "two")
    message = refusal(store.read, [tmp_path / "two"])
    assert "long mine 0.05, seed 0, is of another study: files m.py" in message


def test_a_record_that_does_not_say_what_it_is_of_is_refused(tmp_path):
    open_store(tmp_path)
    write(tmp_path, CELL)
    path = tmp_path / store.NETWORKS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    del lines[-1]["origin"]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert "it does not say of which" in refusal(store.read, [tmp_path])
    lines[-1] |= {"arm": "cheese"}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert "is not in the plan; remove its line." in refusal(store.read, [tmp_path])


# Tuned


def tune(accuracies: dict[float, list[Any]], plan: Plan) -> dict:
    """Chooses strengths by what networks of seeds 50, 51 and so on reached."""
    records = [
        {
            **Cell(TUNING, "water", strength, 50 + index)._asdict(),
            "accuracy": value,
            "diverged": value is None or not np.isfinite(value),
        }
        for strength, values in accuracies.items()
        for index, value in enumerate(values)
    ]
    return choose_strengths(plan, reversed(records))


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [
        ({0.5: [70, 70, 73], 1.0: [71, 71, 70.5]}, 0.5),  # by the mean
        ({0.5: [0.1, 0.2, 0.3], 1.0: [0.3, 0.2, 0.1]}, 0.5),  # however they round
        ({0.5: [0.3, 0.2, 0.1], 1.0: [0.1, 0.2, 0.3]}, 0.5),
        ({0.5: [70, 70, 70], 1.0: [99, 99]}, None),  # one is missing yet
        ({}, None),
        ({0.5: [None, 70, 70], 1.0: [50, 50, 50]}, 1.0),  # None counts as 0
        ({0.5: [50, 50, 50], 1.0: [70, 70, math.nan]}, 0.5),
        ({0.5: 3 * [None], 1.0: 3 * [None]}, 0.5),
    ],
)
def test_the_strength_with_the_best_mean_is_chosen(accuracies, chosen):
    assert tune(accuracies, make_plan(TUNED)) == {"water": chosen}
    assert tune(accuracies, make_plan()) == {}  # which tunes nothing


def test_the_lowest_of_equals_is_chosen_however_the_plan_lists_them():
    for strengths in itertools.permutations([0.5, 1, 2]):
        arm = {"reg": "water", "intensity": list(strengths)}
        plan = make_plan(TUNED, **grow(water=arm))
        assert tune({s: [70, 70, 70] for s in strengths}, plan) == {"water": 0.5}
