"""Stores that were edited at random: read, or refused in one line."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis import verdict
from experiments.analysis.comparisons import Analysis
from experiments.cli import UsageError
from experiments.reporting import page
from experiments.studies import store
from tests.stores import DOCUMENT, make_store

JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**40, 1e308, 0.5, "", "x", "<b>\x1b[31m", [], {}, [[]]),
    *([1, 2, 3], [None], {"a": {}}, [["x"]], "\ud800"),
)


def places(value: Any) -> list[tuple]:
    """Lists the ways to everything inside a value, at most three of each list."""
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))[:3]
    else:
        return []
    return [way for k, v in entries for way in [(k,), *((k, *w) for w in places(v))]]


def spoil(rng: random.Random, value: Any) -> Any:
    """Changes, removes or adds something at a random place."""
    value = copy.deepcopy(value)
    *way, last = rng.choice(places(value))
    inner = value
    for key in way:
        inner = inner[key]
    match rng.choice(["junk", "junk", "remove", "repeat"]):
        case "junk":
            inner[last] = rng.choice(JUNK)
        case "remove":
            del inner[last]
        case "repeat" if isinstance(inner, list):
            inner.append(inner[last])
        case _:
            inner["another"] = rng.choice(JUNK)
    return value


@pytest.mark.parametrize(
    "num_edits", [60, pytest.param(600, marks=pytest.mark.slow)], ids=str
)
def test_an_edited_store_is_read_or_refused_in_one_line(tmp_path, num_edits):
    document = DOCUMENT | {"seeds": 6}
    folder = make_store(tmp_path / "store", plan_document=document)
    paths = [folder / store.STUDY, folder / store.NETWORKS]
    whole = [path.read_text("utf-8") for path in paths]
    lines = whole[1].splitlines()
    rng = random.Random(num_edits)
    num_refused = 0
    for _ in range(num_edits):
        if rng.random() < 0.3:
            texts = [json.dumps(spoil(rng, json.loads(whole[0]))), whole[1]]
        else:
            edited = list(lines)
            index = rng.randrange(len(lines))
            edited[index] = json.dumps(spoil(rng, json.loads(lines[index])))
            texts = [whole[0], "\n".join([*edited, ""])]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, "utf-8")
        try:
            build(folder)
        except UsageError as error:
            num_refused += 1
            assert len(str(error).splitlines()) == 1
    assert num_edits / 4 < num_refused < num_edits


def build(folder: Path) -> None:
    """Does all that a report does, but draws."""
    analysis = Analysis(store.read([folder]))
    assert verdict.sentence(analysis)
    assert page.build(analysis, with_pictures=False)
