"""Damages inputs, and tells what comes of whatever reads them.

Each kind of input has a maker of whole ones and a function that damages one, by a
number that makes the same input again, and reads it. What is read must be right, by the
whole one, or refused by a single line; any other error is a finding. By hand:

    FUZZ_INPUTS=5000 FUZZ_FIRST=1000 pytest tests/test_fuzz.py -m "slow or not slow"
"""

import copy
import dataclasses
import functools
import json
import math
import os
import random
import shutil
import socket
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import files
from experiments.analysis import verdict
from experiments.analysis.comparisons import Analysis
from experiments.cli import UsageError
from experiments.data import cifar10
from experiments.reporting import page
from experiments.runs import checkpoints
from experiments.runs.checkpoints import Checkpoint, Checkpoints
from experiments.studies import plans, store
from experiments.words import printable
from tests.fuzz_audio import damage
from tests.stores import DOCUMENT, make_store
from tests.test_datasets import make_archive

Files = dict[str, bytes]
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**40, 1e308, 0.5, "", "x", "<b>\x1b[31m", [], {}, [[]]),
    *([1, 2, 3], [None], {"a": {}}, [["x"]], "\ud800", math.nan, math.inf, "9" * 5000),
)
LITERALS = (
    *("nan", "-inf", "1e999", "-1", "0", "true", '""', "[]", "{}", "[[[]]]", "-0.0"),
    *("9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 9000, "2147483648", "1979-05-27"),
    *("[" * 5000, "[" * 50 + "]" * 50, '"\\u0000"', '"\\u202e\\u001b[31m"', '"ﬁ🙂"'),
    *("'../../x'", '"~nouser/x"', "{a = {b = 1}}", "07:32:00", '["a", 1]', "'''\n'''"),
)
BYTES = (b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x1b[31m", b"\xc3\x28", b"\r", b"\x85")
OTHERS = ("pipe", "folder", "circle", "device", "full", "socket", "sparse")


# How things are damaged


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
    inner = functools.reduce(lambda inner, key: inner[key], way, value)
    match rng.choice(["junk", "junk", "remove", "add"]):
        case "junk":
            inner[last] = rng.choice(JUNK)
        case "remove":
            del inner[last]
        case _ if isinstance(inner, list):
            inner.append(inner[last])
        case _:
            inner["another"] = rng.choice(JUNK)
    return value


def spoil_json(rng: random.Random, content: bytes) -> bytes:
    """Spoils JSON, or one line of several."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    index = rng.randrange(len(lines))
    lines[index] = json.dumps(spoil(rng, json.loads(lines[index]))).encode()
    return b"\n".join([*lines, b""])


def spoil_bytes(rng: random.Random, content: bytes) -> bytes:
    """Damages bytes, bits or lines anywhere, or puts in bytes that no text has."""
    place = rng.choice([0, rng.randrange(len(content) + 1)])
    lines = content.split(b"\n")
    index = rng.randrange(len(lines))
    match rng.randrange(8):
        case 0:
            return content[:place] + rng.choice(BYTES) + content[place:]
        case 1:
            return content[:place]
        case 2:
            lines.insert(rng.randrange(len(lines)), lines[index])
        case 3:
            lines.insert(rng.randrange(len(lines)), lines.pop(index))
        case 4:
            lines[index : index + 2] = [b"".join(lines[index : index + 2])]
        case 5 | 6 if content:
            flipped = bytearray(content)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case _:
            return damage(np.random.default_rng(rng.randrange(2**32)), content)
    return b"\n".join(lines)


def replace(other: str, path: Path) -> None:
    """Puts one of OTHERS in a file's place, which is none, or an absurd one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    match other:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "circle":
            path.symlink_to(path.name)
        case "device" | "full":
            path.symlink_to({"device": "/dev/zero", "full": "/dev/full"}[other])
        case "socket":
            with socket.socket(socket.AF_UNIX) as end:
                before = os.getcwd()
                os.chdir(path.parent)  # the name of a socket has 100 bytes at most
                end.bind(path.name)
                os.chdir(before)
        case "sparse":
            path.touch()
            os.truncate(path, 2**40)


def write_damaged(rng: random.Random, path: Path, content: bytes) -> None:
    """Writes a file with damage, or something in its place that is none."""
    is_json = path.suffix in (".json", ".jsonl") and rng.random() < 0.6
    path.write_bytes((spoil_json if is_json else spoil_bytes)(rng, content))
    if rng.random() < 0.03:
        replace(rng.choice(OTHERS), path)


def collect(folder: Path) -> Files:
    """Reads all files of a folder, by their names in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def lay(originals: Files, folder: Path) -> None:
    """Writes files, and nothing else into their folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in originals.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def guarded(attack: Callable[[random.Random, Files, Path], str]) -> Callable[..., str]:
    """Returns an attack, by number, that names the error that should not be."""

    @functools.wraps(attack)
    def attack_guarded(number: int, originals: Files, folder: Path) -> str:
        lay({}, own := folder / "attacked")
        own.mkdir(parents=True)
        try:
            return attack(random.Random(number), originals, own)
        except UsageError as error:
            is_line = "\n" not in str(error) and 0 < len(printable(error)) < 20_000
            return "refused" if is_line else f"not one line: {error!r}"[:1000]
        except Exception as error:
            *_, where = traceback.extract_tb(error.__traceback__)
            return f"{type(error).__name__}: {error}"[:1000] + f" ({where})"

    return attack_guarded


# Plans


def make_plans(folder: Path) -> Files:
    """Returns the project's own plans."""
    return {path.name: path.read_bytes() for path in plans.FOLDER.glob("*.toml")}


@guarded
def attack_plan(rng: random.Random, originals: Files, folder: Path) -> str:
    """Reads a damaged plan; what is read survives a store."""
    path = folder / "mine.toml"
    content = originals[rng.choice(sorted(originals))]
    if rng.random() < 0.4:
        lines = content.decode().split("\n")
        index = rng.choice([i for i, line in enumerate(lines) if " = " in line])
        key = lines[index].partition(" = ")[0]
        lines[index] = rng.choice(
            [f"{key} = {rng.choice(LITERALS)}", f"{key}s = 1", "é = 1", ". = 1"]
        )
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        write_damaged(rng, path, content)
    plan = plans.load(str(path))
    document = json.loads(files.dumps(dict(plan.document)))
    again = plans.parse(document, plan.name)
    if dataclasses.replace(again, document=plan.document) != plan:
        return f"another plan after JSON: {again}"
    return "read"


# Stores


def make_stores(folder: Path) -> Files:
    """Makes a store of 18 networks."""
    make_store(folder / "store", plan_document=DOCUMENT | {"seeds": 6})
    originals = collect(folder / "store")
    return {name: originals[name] for name in (store.STUDY, store.NETWORKS)}


@guarded
def attack_store(rng: random.Random, originals: Files, folder: Path) -> str:
    """Makes the report of a damaged store, or merges it with the whole one."""
    whole, other = folder / "whole", folder / "other"
    lay(originals, whole)
    lay(originals, other)
    name = rng.choice([store.STUDY, store.NETWORKS, store.NETWORKS])
    write_damaged(rng, other / name, originals[name])
    if rng.random() < 0.3:
        merged = store.read(rng.sample([whole, other], 2)).records
        if set(map(_own, merged)) != set(map(_own, store.read([whole]).records)):
            return "merged with the whole store, other records"
        return "read"
    analysis = Analysis(store.read([other]))
    if not verdict.sentence(analysis) or not page.build(analysis, with_pictures=False):
        return "an empty report"
    return "read"


def _own(record: Any) -> str:
    own = {k: v for k, v in record.items() if k not in ("environment", "seconds")}
    return json.dumps(own, sort_keys=True, default=lambda array: array.tolist())


# Prepared folders


def make_prepared(folder: Path) -> Files:
    """Prepares a tiny CIFAR-10."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10, "_download", lambda: bytearray(make_archive()))
        patch.setenv("XDG_CACHE_HOME", str(folder / "caches"))
        cifar10.load(str(folder / "data"))
    return collect(folder / "data")


@guarded
def attack_dataset(rng: random.Random, originals: Files, folder: Path) -> str:
    """Reads a damaged folder of CIFAR-10: the same pictures and names, or none."""
    os.environ["XDG_CACHE_HOME"] = os.devnull
    data = folder / "data"
    lay(originals, data)
    path = data / rng.choice(sorted(originals))
    other = data / rng.choice(sorted(originals))
    match rng.randrange(4):
        case 0:
            content = path.read_bytes()
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case 1 if path.suffix == ".json":  # another spelling, length or name
            old = rng.choice([b'"4"', b'"5"', b"10", b"cifar10", b"train", b"uint8"])
            new = rng.choice([b"-1", b'"99999999999999"', b"../..", b"1", b"[{"])
            path.write_bytes(path.read_bytes().replace(old, new))
        case _:
            write_damaged(rng, path, path.read_bytes())
    found = cifar10.load(str(data))
    whole = _read_whole(folder.parent / "whole", tuple(originals.items()))
    is_same = (found.fingerprint, found.class_names, found.title) == whole
    return "read" if is_same else "another dataset"


@functools.cache
def _read_whole(folder: Path, originals: tuple) -> tuple:
    lay(dict(originals), folder)
    dataset = cifar10.load(str(folder))
    return dataset.fingerprint, dataset.class_names, dataset.title


# Checkpoints


def make_checkpoint(step: int) -> Checkpoint:
    rng = np.random.default_rng(step)
    arrays = {
        "params": rng.normal(size=(3, 40, 5)).astype(np.float32),
        "key": rng.integers(0, 2**32, (3, 2), np.uint32),
    }
    losses = [2.5, math.nan, 1 / 3]
    record = {"epoch": 1, "train_loss": losses, "test_accuracy": losses, "seconds": 1.0}
    numbers = {"--epochs": 3, "--steps-per-epoch": 9, "--seeds": 3, "--reg": "water"}
    place = {"epoch": 1, "step": step, "seconds": 1.5, "records": [record]}
    environment = {"jax": "0.12.0", "device": "cpu"}
    return Checkpoint(place | {"numbers": numbers, "environment": environment}, arrays)


STEPS = (3, 5)


def make_checkpoints(folder: Path) -> Files:
    """Makes the two checkpoints of a run."""
    with closing(Checkpoints(folder / "run")) as saved:
        for step in STEPS:
            saved.save(step, make_checkpoint(step))
        saved.wait()
    return collect(folder / "run")


@guarded
def attack_checkpoint(rng: random.Random, originals: Files, folder: Path) -> str:
    """Takes up a damaged run: at one of its checkpoints, bit for bit, or at none."""
    if rng.random() < 0.3:  # what whoever can write a digest may write
        about = spoil(rng, make_checkpoint(3).about)
        checkpoints.check_about(json.loads(json.dumps(about)))
        return "read"
    lay(originals, folder)
    for _ in range(rng.choice([1, 1, 2, 5])):
        paths = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
        paths = sorted(p for p in paths if p.stat().st_size < 2**30)
        if not paths:
            break
        path = rng.choice(paths)
        match rng.randrange(7):
            case 0:
                path.unlink()
            case 1 if not os.path.lexists(path.with_name("extra")):
                shutil.copy(rng.choice(paths), path.with_name("extra"))
            case 2:
                path.write_bytes(rng.choice(list(originals.values())))
            case 3 if (step := path.parents[-len(folder.parts) - 2]) != folder:
                new = rng.choice(["5", "3", "99", "x", "5.orbax-checkpoint-tmp-1", "é"])
                if not step.with_name(new).exists():
                    step.rename(step.with_name(new))
            case 4 if folder in (parent := rng.choice(path.parents[:2])).parents:
                replace(rng.choice(OTHERS), parent)
            case _:
                write_damaged(rng, path, path.read_bytes())
    if not (folder / checkpoints.FOLDER).is_dir():
        return "refused"
    with closing(Checkpoints(folder)) as saved:
        found = saved.load()
    if found is None:
        return "refused"
    text, digest = json.dumps(found.about), files.digest_arrays(found.arrays)
    for about, arrays in map(make_checkpoint, STEPS):
        if (text, digest) == (json.dumps(about), files.digest_arrays(arrays)):
            return "read"
    return f"another checkpoint: {found.about}"


KINDS: dict[str, tuple[Callable[[Path], Files], Callable[..., str]]] = {
    "plans": (make_plans, attack_plan),
    "stores": (make_stores, attack_store),
    "datasets": (make_prepared, attack_dataset),
    "checkpoints": (make_checkpoints, attack_checkpoint),
}
