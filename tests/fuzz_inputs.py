"""Feeds damaged inputs to whatever reads them, and counts what comes of it.

    python -m tests.fuzz_inputs --seconds=600
    python -m tests.fuzz_inputs --only=plans --first=1234 --inputs=1

Each kind of input has a maker of whole ones and a function that damages one and reads
it. What is read must be right, by the whole one, or refused by a single line; any other
error, a crash, a minute without an answer or a gigabyte of memory is a finding, and its
number makes the same input again.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import io
import json
import math
import os
import random
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import files, terminal
from experiments.analysis import verdict
from experiments.analysis.comparisons import Analysis
from experiments.benchmarks import ensembles, layers
from experiments.benchmarks.ensembles import EnsembleConfig
from experiments.benchmarks.layers import LayerConfig
from experiments.cli import UsageError, read_flags
from experiments.data import cifar10, digits
from experiments.data.dataset import Dataset
from experiments.pictures import runs as run_pictures
from experiments.report import ReportConfig
from experiments.reporting import page
from experiments.runs import checkpoints, outputs, runner
from experiments.runs.checkpoints import Checkpoint, Checkpoints
from experiments.runs.configs import Config, check
from experiments.studies import plans, store
from experiments.studies.logits import read_logits
from experiments.studies.runner import parse_part
from experiments.study import StudyConfig
from experiments.training import devices
from experiments.words import printable
from tests.fuzz_audio import damage, fuzz
from tests.stores import DOCUMENT, make_store
from tests.test_datasets import make_archive

Files = dict[str, bytes]
OUTCOMES = ("read", "refused", "made anew")
SECONDS = 60.0
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
TYPED_END = "a\nb"  # which is spelt where it is shown
BYTES = (b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x1b[31m", b"\xc3\x28", b"\r", b"\x85")
OTHERS = ("pipe", "folder", "circle", "device", "full", "socket", "sparse")


class Kind(NamedTuple):
    """A kind of input.

    Attributes:
        make: from a folder, to work in, to whole inputs.
        attack: from a number, the whole inputs and a folder to an outcome.
    """

    make: Callable[[Path], Files]
    attack: Callable[[int, Files, Path], str]


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


def spoil_json(rng: random.Random, content: bytes) -> bytes:
    """Spoils JSON, or one line of several."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    index = rng.randrange(len(lines))
    lines[index] = json.dumps(spoil(rng, json.loads(lines[index]))).encode()
    return b"\n".join([*lines, b""])


def spoil_lines(rng: random.Random, content: bytes) -> bytes:
    """Removes, doubles, moves or joins lines, or cuts the last one."""
    lines = content.split(b"\n")
    index = rng.randrange(len(lines))
    match rng.choice(["remove", "double", "move", "join", "cut"]):
        case "remove":
            del lines[index]
        case "double":
            lines.insert(rng.randrange(len(lines)), lines[index])
        case "move":
            lines.insert(rng.randrange(len(lines)), lines.pop(index))
        case "join":
            lines[index : index + 2] = [b"".join(lines[index : index + 2])]
        case "cut":
            return b"\n".join(lines)[: rng.randrange(len(content) + 1)]
    return b"\n".join(lines)


def spoil_bytes(rng: random.Random, content: bytes) -> bytes:
    """Damages bytes anywhere, or puts in some that no text has."""
    if rng.random() < 0.3:
        place = rng.choice([0, rng.randrange(len(content) + 1)])
        return content[:place] + rng.choice(BYTES) + content[place:]
    return damage(np.random.default_rng(rng.randrange(2**32)), content)


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    """Flips a few bits."""
    spoilt = bytearray(content)
    for _ in range(rng.choice([1, 1, 3]) if content else 0):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def replace(rng: random.Random, path: Path) -> None:
    """Puts something in a file's place that is none, or an absurd one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    match rng.choice(OTHERS):
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "circle":
            path.symlink_to(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "full":
            path.symlink_to("/dev/full")
        case "socket":
            with socket.socket(socket.AF_UNIX) as end:
                before = os.getcwd()
                os.chdir(path.parent)  # the name of a socket has 100 bytes at most
                end.bind(path.name)
                os.chdir(before)
        case "sparse":
            path.touch()
            os.truncate(path, 2**40)


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


def refused(error: Exception) -> str:
    """Returns the outcome of a refusal: good if it is one line that can be shown."""
    line = printable(error)
    line.encode(errors="backslashreplace")
    message = str(error).replace(TYPED_END, "")
    if not line.strip() or "\n" in message or len(line) > 20_000:
        return f"not one line: {error!r}"[:1000]
    return "refused"


def guarded(attack: Callable[[int, Files, Path], str]) -> Callable[..., str]:
    """Returns an attack that names the error that should not be."""

    @functools.wraps(attack)
    def attack_guarded(number: int, originals: Files, folder: Path) -> str:
        try:
            return attack(number, originals, folder)
        except UsageError as error:
            return refused(error)
        except Exception as error:
            trace, where = error.__traceback__, ""
            while trace is not None:
                code = trace.tb_frame.f_code
                where, trace = f"{code.co_filename}:{trace.tb_lineno}", trace.tb_next
            return f"{type(error).__name__}: {error}"[:1000] + f" ({where})"

    return attack_guarded


# Plans


def make_plans(folder: Path) -> Files:
    """Returns the project's own plans."""
    return {
        path.name: path.read_bytes() for path in sorted(plans.FOLDER.glob("*.toml"))
    }


@guarded
def attack_plan(number: int, originals: Files, folder: Path) -> str:
    """Reads a damaged plan; what is read survives a store."""
    rng = random.Random(number)
    text = originals[rng.choice(sorted(originals))]
    for _ in range(rng.choice([1, 1, 1, 3])):
        lines = text.decode(errors="replace").split("\n")
        entries = [i for i, line in enumerate(lines) if " = " in line] or [0]
        index = rng.choice(entries)
        key = lines[index].partition(" = ")[0]
        match rng.randrange(6):
            case 0 | 1:
                lines[index] = f"{key} = {rng.choice(LITERALS)}"
                text = "\n".join(lines).encode()
            case 2:
                lines[index] = f"{rng.choice(['é', '.', '', key + 's'])} = 1"
                text = "\n".join(lines).encode()
            case _:
                text = rng.choice([spoil_lines, flip_bits, spoil_bytes])(rng, text)
    path = folder / "mine.toml"
    path.unlink(missing_ok=True)
    path.write_bytes(text)
    if rng.random() < 0.03:
        replace(rng, path)
    try:
        plan = plans.load(str(path))
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
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
def attack_store(number: int, originals: Files, folder: Path) -> str:
    """Makes the report of a damaged store, or merges it with the whole one."""
    rng = random.Random(number)
    whole, other = folder / "whole", folder / "other"
    lay(originals, other)
    name = rng.choice([store.STUDY, store.NETWORKS, store.NETWORKS])
    spoilers: list[Callable] = [spoil_json, spoil_json, spoil_bytes]
    spoilers += [spoil_lines] if name == store.NETWORKS else []
    (other / name).write_bytes(rng.choice(spoilers)(rng, originals[name]))
    if rng.random() < 0.03:
        replace(rng, other / name)
    if rng.random() < 0.3:
        lay(originals, whole)
        folders = [whole, other]
        rng.shuffle(folders)
        if set(map(_own, store.read(folders).records)) != _records(whole):
            return "merged with the whole store, other records"
        return "read"
    analysis = Analysis(store.read([other]))
    if not verdict.sentence(analysis) or not page.build(analysis, with_pictures=False):
        return "an empty report"
    return "read"


def _own(record: Any) -> str:
    own = {k: v for k, v in record.items() if k not in ("environment", "seconds")}
    return json.dumps(own, sort_keys=True, default=lambda array: array.tolist())


@functools.cache
def _records(folder: Path) -> set[str]:
    return set(map(_own, store.read([folder]).records))


# Logits


def make_logits(folder: Path) -> Files:
    """Makes files of logits, and some that look like such."""
    logits = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32)
    originals = {}
    for name, save, arrays in (
        ("whole", np.savez_compressed, {"logits": logits}),
        ("stored", np.savez, {"logits": logits}),
        ("wide", np.savez_compressed, {"logits": logits[:, :9]}),
        ("double", np.savez_compressed, {"logits": logits.astype(float)}),
        ("pickle", np.savez_compressed, {"logits": np.array([print, {}], object)}),
        ("bomb", np.savez_compressed, {"logits": np.zeros((3000, 3000), np.float32)}),
        ("another", np.savez_compressed, {"logit": logits}),
    ):
        file = io.BytesIO()
        save(file, **arrays)  # type: ignore[operator]
        originals[name] = file.getvalue()
    return originals


@guarded
def attack_logits(number: int, originals: Files, folder: Path) -> str:
    """Reads damaged logits: the same, or none."""
    rng = random.Random(number)
    name = rng.choice(["whole", "stored", *originals])
    path = folder / "0.npz"
    spoiler = rng.choice([spoil_bytes, flip_bits, lambda rng, content: content])
    path.write_bytes(spoiler(rng, originals[name]))
    if rng.random() < 0.03:
        replace(rng, path)
    try:
        logits = read_logits(path, (40, 10))
    except (OSError, ValueError) as error:
        return refused(error)
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    expected = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32)
    return "read" if logits.tobytes() == expected.tobytes() else "other logits"


# Prepared folders, and what was decoded of them


def make_prepared(folder: Path) -> Files:
    """Prepares a tiny CIFAR-10."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10, "_download", lambda: bytearray(make_archive()))
        patch.setenv("XDG_CACHE_HOME", str(folder / "caches"))
        cifar10.load(str(folder / "data"))
    return collect(folder / "data")


@functools.cache
def _whole(folder: Path) -> Dataset:
    return cifar10.load(str(folder))


def _same(dataset: Dataset, whole: Dataset) -> bool:
    fields = ("fingerprint", "title", "class_names", "name")
    arrays = ("train_images", "train_labels", "test_images", "test_labels")
    return all(getattr(dataset, f) == getattr(whole, f) for f in fields) and all(
        np.array_equal(getattr(dataset, a), getattr(whole, a)) for a in arrays
    )


@guarded
def attack_dataset(number: int, originals: Files, folder: Path) -> str:
    """Reads a damaged folder of CIFAR-10: the same pictures and names, or none."""
    rng = random.Random(number)
    os.environ["XDG_CACHE_HOME"] = os.devnull
    whole, data = folder / "whole", folder / "data"
    if not whole.exists():
        lay(originals, whole)
    expected = _whole(whole)
    lay(originals, data)
    path = data / rng.choice(sorted(originals))
    content = path.read_bytes()
    match rng.randrange(8):
        case 0 | 1 | 2 if path.suffix == ".json":
            path.write_bytes(spoil_json(rng, content))
        case 3:
            path.write_bytes(spoil_lines(rng, content))
        case 4:
            other = data / rng.choice(sorted(originals))
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case 5:
            replace(rng, path)
        case 6 if path.suffix == ".json":
            # Another spelling, length or name.
            spelt = ['"4"', '"5"', "10", "cifar10", "train", "uint8", "{", "32"]
            old = rng.choice(spelt)
            new = rng.choice(["-1", '"99999999999999"', "../..", "1", "é", "[{"])
            path.write_bytes(content.replace(old.encode(), new.encode()))
        case _:
            path.write_bytes(rng.choice([spoil_bytes, flip_bits])(rng, content))
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            dataset = cifar10.load(str(data))
    finally:
        if said.getvalue():
            raise AssertionError(f"said {said.getvalue()}")
    return "read" if _same(dataset, expected) else "another dataset"


@guarded
def attack_decoded(number: int, originals: Files, folder: Path) -> str:
    """Damages what was decoded: the same pictures, and the cache is whole again."""
    rng = random.Random(number)
    data = folder / "data"
    os.environ["XDG_CACHE_HOME"] = str(folder / "caches")
    if not data.exists():
        lay(originals, data)
    expected = _whole(data)
    path, content = _kept(folder)
    damaged = rng.choice([spoil_bytes, flip_bits])(rng, content)
    path.write_bytes(damaged)
    if rng.random() < 0.03:
        replace(rng, path)
    if not _same(cifar10.load(str(data)), expected):
        return "other pictures"
    if path.is_dir():  # whose place no file can take
        path.rmdir()
        path.write_bytes(content)
        return "read"
    made = path.read_bytes()
    if made == damaged != content:
        path.write_bytes(content)
        return "read"
    return "made anew" if made == content else "not made anew"


@functools.cache
def _kept(folder: Path) -> tuple[Path, bytes]:
    (path,) = (folder / "caches").rglob("cifar10-*.npz")
    return path, path.read_bytes()


# XLA's programs


@functools.cache
def _program(folder: Path) -> tuple[Callable[[], np.ndarray], np.ndarray]:
    os.environ["XDG_CACHE_HOME"] = str(folder)
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    devices.keep_programs()

    @jax.jit
    def program(inputs):
        return jnp.sin(inputs) @ jnp.cos(inputs).T

    inputs = jnp.arange(64.0).reshape(8, 8)
    return lambda: np.asarray(program(inputs)), np.asarray(program(inputs))


@guarded
def attack_program(number: int, originals: Files, folder: Path) -> str:
    """Damages a compiled program: the same numbers, not a word, and it is made anew."""
    rng = random.Random(number)
    run, expected = _program(folder)
    entries = sorted((folder / "sounddrop_jax/programs").glob("jit_program-*"))
    if len(entries) != 1:
        return f"{len(entries)} programs"
    whole = entries[0].read_bytes()
    damaged = rng.choice([spoil_bytes, flip_bits])(rng, whole)
    entries[0].write_bytes(damaged)
    jax.clear_caches()
    if run().tobytes() != expected.tobytes():  # where warnings are errors
        return "other numbers"
    if not entries[0].exists():  # what was removed is written when it is compiled next
        jax.clear_caches()
        run()
    made = entries[0].read_bytes()
    zlib.decompress(made)  # which raises if it is not made anew
    return "read" if made == damaged else "made anew"


# Checkpoints


def _checkpoint(step: int) -> Checkpoint:
    rng = np.random.default_rng(step)
    arrays = {
        "params": rng.normal(size=(3, 40, 5)).astype(np.float32),
        "key": rng.integers(0, 2**32, (3, 2), np.uint32),
        "totals": rng.normal(size=3).astype(np.float32),
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
            saved.save(step, _checkpoint(step))
        saved.wait()
    return collect(folder / "run")


@guarded
def attack_checkpoint(number: int, originals: Files, folder: Path) -> str:
    """Takes up a damaged run: at one of its checkpoints, bit for bit, or at none."""
    rng = random.Random(number)
    if rng.random() < 0.3:  # what whoever can write a digest may write
        about = spoil(rng, _checkpoint(3).about)
        checkpoints.check_about(json.loads(json.dumps(about)))
        return "read"
    out = folder / "run"
    lay(originals, out)
    for _ in range(rng.choice([1, 1, 2, 5])):
        paths = sorted(p for p in out.rglob("*") if p.is_file() and not p.is_symlink())
        if not paths:
            break
        path = rng.choice(paths)
        size = path.stat().st_size
        content = path.read_bytes() if size < 2**30 else b""
        match rng.randrange(9):
            case 0:
                path.unlink()
            case 1:
                replace(rng, path)
            case 2 if size < 2**30 and not os.path.lexists(path.with_name("extra")):
                small = [p for p in paths if p.stat().st_size < 2**30]
                shutil.copy(rng.choice(small), path.with_name("extra"))
            case 3:
                path.write_bytes(rng.choice(list(originals.values())))
            case 4:
                path.write_bytes(content[: rng.randrange(len(content) + 1)])
            case 5:
                folders = [p for p in path.parents if p.is_relative_to(out)][:-1]
                new = rng.choice(["5", "3", "99", "x", "5.orbax-checkpoint-tmp-1", "é"])
                if folders and not (target := folders[-1].with_name(new)).exists():
                    rng.choice(folders).rename(target)
            case 6:
                if out in (parent := rng.choice(path.parents[:2])).parents:
                    replace(rng, parent)
            case _:
                path.write_bytes(rng.choice([spoil_bytes, flip_bits])(rng, content))
    if not (out / checkpoints.FOLDER).is_dir():
        return "refused"
    with closing(Checkpoints(out)) as saved:
        found = saved.load()
    if found is None:
        return "refused"
    text = json.dumps(found.about)
    digest = files.digest_arrays(found.arrays)
    for about, arrays in map(_checkpoint, STEPS):
        if (text, digest) == (json.dumps(about), files.digest_arrays(arrays)):
            return "read"
    return f"another checkpoint: {found.about}"


# Finished runs


def make_run(folder: Path) -> Files:
    """Makes what a finished run leaves, less its pictures."""
    numbers = {
        "train_loss": [2.0, 1.5],
        "test_accuracy": [50.0, 60.0],
        "accuracy": 60.0,
    }
    numbers |= {"peak_accuracy": 60.0, "confusion": np.eye(10, dtype=int).tolist()}
    runs = [{"seed": seed, "diverged": False, **numbers} for seed in (58, 59)]
    described = json.loads(json.dumps(outputs.describe(_CONFIG, digits.load())))
    result = described | {"runs": runs, "summary": outputs.summarize(runs)}
    outputs.save_result(folder, result)
    outputs.write_metrics(folder, [{"epoch": 1}])
    outputs.save_predictions(folder, np.zeros((2, 4, 10)), np.zeros(4, int), [58, 59])
    return collect(folder)


_CONFIG = Config(dataset="digits", seeds=2, epochs=2)


@guarded
def attack_run(number: int, originals: Files, folder: Path) -> str:
    """Goes on with a finished run whose files were damaged."""
    rng = random.Random(number)
    out = folder / "out"
    lay(originals, out)
    path = out / rng.choice([outputs.RESULT, outputs.RESULT, *sorted(originals)])
    is_json = path.suffix == ".json"
    spoiler = rng.choice([spoil_json, spoil_bytes] if is_json else [flip_bits])
    path.write_bytes(spoiler(rng, path.read_bytes()))
    if rng.random() < 0.05:
        replace(rng, path)
    if rng.random() < 0.9:
        for name in run_pictures.FILES:
            (out / name).touch()
    result = json.loads(originals[outputs.RESULT])
    with outputs.claim_folder(out, resume=True):
        if not os.path.lexists(out / outputs.RESULT):
            return "refused"
        config = dataclasses.replace(_CONFIG, tensorboard=folder / "board")
        console = terminal.make_console(quiet=True)
        runner._close_finished(config, out, result, console)
    return "read"


# Flags


VALUES = (
    *("", "0", "-1", "1", "3.5", "nan", "-inf", "1e999", "9" * 5000, "0x10", "1_000"),
    *("1000000000000000", "4294967296", "٣", "1/2", "2/1", "1/" + "9" * 40, "auto"),
    *("~nouser/x", "\udcff", "a\x1b[31m", TYPED_END, "1/" + "9" * 5000, "None", "[]"),
    *("=", "-", "../../x", "/dev/full", "/dev/zero", "/", "x" * 5000, "🙂", "--out"),
    *("@x", "{1:2}"),
)
_SMOKE = plans.load("smoke").document
FLAGS: dict[type, Callable[[Any], object]] = {
    Config: check,
    StudyConfig: lambda config: (
        parse_part(config.part),
        plans.load(config.plan),
        config.seeds and plans.parse({**_SMOKE, "seeds": config.seeds}, "smoke"),
    ),
    ReportConfig: lambda config: store.read(config.folders or [Path("none")]),
    LayerConfig: layers.check,
    EnsembleConfig: ensembles.check,
}


@guarded
def attack_flags(number: int, originals: Files, folder: Path) -> str:
    """Reads and checks flags with values that nobody means."""
    rng = random.Random(number)
    kind = rng.choice(list(FLAGS))
    names = [f"--{each.name.replace('_', '-')}" for each in dataclasses.fields(kind)]
    args = []
    for name in rng.choices(names, k=rng.choice([1, 1, 2, 3])):
        value = rng.choice(VALUES)
        form = [[f"{name}={value}"], [name, value], [value], [name], [name[:-1]]]
        args += rng.choices(form, [6, 3, 1, 1, 1])[0]
    before, sys.argv = sys.argv, ["command", *args]
    try:
        config = read_flags(kind, prog="command", args=terminal.arguments())
        FLAGS[kind](config)
    finally:
        sys.argv = before
    return "read"


KINDS = {
    "plans": Kind(make_plans, attack_plan),
    "stores": Kind(make_stores, attack_store),
    "logits": Kind(make_logits, attack_logits),
    "datasets": Kind(make_prepared, attack_dataset),
    "decoded": Kind(make_prepared, attack_decoded),
    "programs": Kind(lambda folder: {}, attack_program),
    "checkpoints": Kind(make_checkpoints, attack_checkpoint),
    "runs": Kind(make_run, attack_run),
    "flags": Kind(lambda folder: {}, attack_flags),
}


def main() -> None:
    """Prints the counts and the findings; exit code 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=KINDS, help="default: each kind in turn")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=10**9, help="of each kind")
    parser.add_argument("--seconds", type=float, default=math.inf, help="for all kinds")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(KINDS)
    is_found = False
    for name in names:
        counts, findings = fuzz(
            arguments.first,
            arguments.inputs,
            load=KINDS[name].attack,
            make_originals=KINDS[name].make,
            good=OUTCOMES,
            seconds=SECONDS,
            deadline=time.monotonic() + arguments.seconds / len(names),
        )
        for number, finding in findings.items():
            print(f"{name} {number}: {finding}")
        total = sum(counts.values()) + len(findings)
        print(f"{name}: {total} inputs: {counts}, {len(findings)} findings", flush=True)
        is_found |= bool(findings)
    sys.exit(is_found)


if __name__ == "__main__":
    main()
