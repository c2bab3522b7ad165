"""The prepare path end to end over loopback, the fallback, the digits, fingerprints."""

import contextlib
import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import socket
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import UsageError
from experiments.data import cifar10, datasets, downloads
from experiments.data import prepared as prepared_sets
from experiments.data.dataset import Dataset, fingerprint
from tests.programs import python

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
BATCH_NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
SPLIT_FIELDS = ("train_images", "train_labels", "test_images", "test_labels")


def make_records(num_records: int, seed: int) -> np.ndarray:
    """Records of CIFAR-10's binary version, uint8 (num_records, 3073)."""
    records = np.random.default_rng(seed).integers(0, 256, (num_records, 3073))
    records[:, 0] %= 10
    return records.astype(np.uint8)


# Batches of different sizes: nothing may rely on the official 10,000.
RECORDS = {name: make_records(4 + i, seed=i) for i, name in enumerate(BATCH_NAMES)}


def make_archive(**replaced: bytes | None) -> bytes:
    """The official layout; `data_batch_3=b"..."` replaces that file, None drops it."""
    files = {"batches.meta.txt": "\n".join([*CLASS_NAMES, "", ""]).encode()}
    files |= {name: records.tobytes() for name, records in RECORDS.items()}
    files["readme.html"] = b"<html>"
    files |= {f"{stem}.bin": content for stem, content in replaced.items()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        folder = tarfile.TarInfo("cifar-10-batches-bin")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            if content is not None:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


@contextlib.contextmanager
def serving(content: bytes, status: int = 200):
    """Serves content over loopback; yields its URL and the list of requested paths."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            del args

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/cifar.tar.gz", requests
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def endless(start: bytes, *, drips: bool):
    """A host that sends a start and then nothing, or drips bytes, until it is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        is_over = threading.Event()

        def serve():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(start)
                    while not is_over.wait(0.05):
                        connection.sendall(b"0" * drips)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/cifar.tar.gz"
        finally:
            is_over.set()
            with contextlib.suppress(OSError):  # if nobody ever came
                socket.create_connection(listener.getsockname()[:2]).close()
            thread.join()


def closed_port_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/cifar.tar.gz"


@contextlib.contextmanager
def official(monkeypatch, archive: bytes, served: bytes | None = None):
    """Serves what is, or is said to be, the official archive; yields the requests."""
    with serving(archive if served is None else served) as (url, requests):
        monkeypatch.setattr(cifar10, "ARCHIVE_URL", url)
        monkeypatch.setattr(cifar10, "ARCHIVE_BYTES", len(archive))
        digest = hashlib.sha256(archive).hexdigest()
        monkeypatch.setattr(cifar10, "ARCHIVE_SHA256", digest)
        yield requests


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No test reaches further than loopback, or the user's own data."""
    for proxy in "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY":
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(cifar10, "ARCHIVE_URL", closed_port_url())
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "default"))


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    """A data_dir with the tiny set prepared; copy it before changing anything."""
    data_dir = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch, official(patch, make_archive()):
        datasets.load("cifar10", str(data_dir))
    return data_dir


@pytest.fixture
def prepared(prepared_once, tmp_path):
    """A data_dir of the test's own, with the tiny set prepared."""
    return Path(shutil.copytree(prepared_once, tmp_path / "prepared"))


def assert_same(first: Dataset, second: Dataset) -> None:
    for field in SPLIT_FIELDS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    assert first.fingerprint == second.fingerprint


def refusal(name: str, data_dir: Path) -> str:
    """Returns the one clear line with which a set is refused."""
    with pytest.raises(UsageError) as error:
        datasets.load(name, str(data_dir))
    message = str(error.value)
    assert "\n" not in message and "--data-dir" in message
    return message


def test_prepares_the_official_layout_exactly(monkeypatch, tmp_path, capsys):
    from tensorflow_datasets.core import hashing

    with official(monkeypatch, make_archive()) as requests:
        first = datasets.load("cifar10", str(tmp_path))
        assert len(requests) == 1

    for split, names in ("train", BATCH_NAMES[:5]), ("test", BATCH_NAMES[5:]):
        records = np.concatenate([RECORDS[name] for name in names])
        # The order in which TFDS writes the keys 0, 1, 2, ... of a split.
        order = sorted(range(len(records)), key=hashing.Hasher(split).hash_key)
        images = getattr(first, f"{split}_images")
        labels = getattr(first, f"{split}_labels")
        planes = records[order, 1:].reshape(-1, 3, 32, 32)
        np.testing.assert_array_equal(images, planes.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(labels, records[order, 0])
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    assert (first.name, first.title) == ("cifar10", "CIFAR-10, unrecognised pixels")
    assert first.class_names == CLASS_NAMES

    # The server is gone: what was prepared is all that a second load needs.
    assert_same(datasets.load("cifar10", str(tmp_path)), first)
    assert_same(datasets.load("auto", str(tmp_path)), first)
    assert "WARNING" not in capsys.readouterr().err


def test_prepared_folder_is_one_of_tfds_own(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder("cifar10", data_dir=prepared)
    assert builder.is_prepared()
    assert builder.info.full_name == "cifar10/3.0.2"
    assert {s: i.num_examples for s, i in builder.info.splits.items()} == {
        "train": 4 + 5 + 6 + 7 + 8,
        "test": 9,
    }
    example = builder.as_data_source("test")[0]
    dataset = datasets.load("cifar10", str(prepared))
    np.testing.assert_array_equal(example["image"], dataset.test_images[0])
    assert example["label"] == dataset.test_labels[0]
    assert example["id"].startswith(b"test_0000")


def test_neither_preparing_nor_reading_needs_tensorflow(tmp_path):
    archive = make_archive()
    with serving(archive) as (url, _):
        script = f"""
import sys
from experiments.data import cifar10
from experiments.data import datasets
for module in "tensorflow_datasets", "sklearn", "PIL", "jax":
    assert module not in sys.modules, module
cifar10.ARCHIVE_URL = {url!r}
cifar10.ARCHIVE_BYTES = {len(archive)}
cifar10.ARCHIVE_SHA256 = {hashlib.sha256(archive).hexdigest()!r}
for name in "cifar10", "auto":
    assert len(datasets.load(name).test_labels) == 9
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""
        result = python("-W", "error", "-c", script, TFDS_DATA_DIR=str(tmp_path))
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    downloading, preparing = result.stderr.splitlines()  # and no other chatter
    assert url in downloading
    assert str(tmp_path) in preparing


def test_home_is_expanded(monkeypatch, prepared):
    # A shell leaves the ~ of --data-dir=~/data alone.
    monkeypatch.setenv("HOME", str(prepared.parent))
    assert datasets.load("cifar10", f"~/{prepared.name}").name == "cifar10"


@pytest.mark.parametrize("length, end", [(-9, b""), (-9, b"\0" * 9), (None, b"more")])
def test_another_file_than_the_official_one_is_refused(
    monkeypatch, tmp_path, length, end
):
    archive = make_archive()
    served = archive[:length] + end
    with official(monkeypatch, archive, served):
        message = refusal("cifar10", tmp_path / "data")
    assert "sha256" in message and f"{len(archive):,}" in message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("data_batch_3", b"\0" * 6145, "_3.bin holds 6,145 bytes"),
        ("test_batch", b"", "test_batch.bin holds 0 bytes"),
        ("data_batch_2", b"\x0a" * 3073, "_2.bin holds label 10"),
        ("data_batch_5", None, "data_batch_5.bin is missing"),
        (None, b"<html>", "not a gzip"),
    ],
)
def test_archive_with_bad_content(monkeypatch, tmp_path, file, content, problem):
    archive = make_archive(**{file: content}) if file else content
    with official(monkeypatch, archive):
        assert problem in refusal("auto", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("No space left")])
def test_interrupted_preparation_is_not_mistaken_for_a_set(monkeypatch, tmp_path, stop):
    from PIL import Image

    with official(monkeypatch, make_archive()):
        with monkeypatch.context() as context:
            pictures = iter([Image.new("RGB", (32, 32))] * 7)

            def fromarray(array):
                del array
                try:
                    return next(pictures)
                except StopIteration:
                    raise stop from None

            context.setattr(Image, "fromarray", fromarray)
            with pytest.raises((KeyboardInterrupt, UsageError)):
                datasets.load("cifar10", str(tmp_path))
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        dataset = datasets.load("cifar10", str(tmp_path))
    assert len(dataset.train_labels) == 30


def test_another_process_may_prepare_the_set_first(
    monkeypatch, tmp_path, prepared_once
):
    from PIL import Image

    fromarray = Image.fromarray

    def lose_the_race(array):
        shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
        return fromarray(array)

    with official(monkeypatch, make_archive()):
        monkeypatch.setattr(Image, "fromarray", lose_the_race)
        dataset = datasets.load("cifar10", str(tmp_path))
    assert_same(dataset, datasets.load("cifar10", str(prepared_once)))
    assert [path.name for path in (tmp_path / "cifar10").iterdir()] == ["3.0.2"]


def test_unreachable_host_raises_for_cifar10(tmp_path):
    data_dir = tmp_path / "data"
    message = refusal("cifar10", data_dir)
    assert message.startswith("--dataset=cifar10: ")
    for part in (str(data_dir), "refused", "connect", "--data-dir", "cifar10/3.0.2"):
        assert part in message
    assert message.endswith("or use --dataset=digits")
    with pytest.raises(UsageError) as error:
        datasets.load("cifar10", str(data_dir), entry="plan p: dataset")
    assert str(error.value).startswith("plan p: dataset=cifar10: ")
    assert str(error.value).endswith("or use dataset=digits")
    assert not data_dir.exists()


def test_unreachable_host_falls_back_for_auto(tmp_path, capsys):
    data_dir = tmp_path / "data"
    dataset = datasets.load("auto", str(data_dir))
    assert (dataset.name, dataset.title) == ("digits", "handwritten digits")
    printed = capsys.readouterr()
    assert printed.out == ""
    (warning,) = [x for x in printed.err.splitlines() if x.startswith("WARNING: ")]
    for part in ("digits", str(data_dir), "refused", "--data-dir", "cifar10/3.0.2"):
        assert part in warning
    assert not data_dir.exists()


def test_http_error_is_named(monkeypatch, tmp_path):
    with serving(b"", status=404) as (url, _):
        monkeypatch.setattr(cifar10, "ARCHIVE_URL", url)
        assert "404" in refusal("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("start", "drips"),
    [
        (b"", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 170052171\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nX-Header: ", True),  # that never ends
    ],
    ids=["silent", "content", "header"],
)
def test_a_host_without_an_end_is_left_in_time(monkeypatch, tmp_path, start, drips):
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(downloads, "PART_SECONDS", 0.3)
    with endless(start, drips=drips) as url:
        monkeypatch.setattr(cifar10, "ARCHIVE_URL", url)
        begin = time.monotonic()
        message = refusal("cifar10", tmp_path / "data")
        assert time.monotonic() - begin < 2
    assert any(part in message for part in ("no answer", "timed out", "too slow"))
    assert not (tmp_path / "data").exists()


def test_ctrl_c_ends_a_download(monkeypatch, tmp_path):
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 170052171\r\n\r\n"
    with endless(start, drips=True) as url:
        monkeypatch.setattr(cifar10, "ARCHIVE_URL", url)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            datasets.load("cifar10", str(tmp_path / "data"))
        assert time.monotonic() - begin < 2
    assert not list(tmp_path.iterdir())


def test_limits_keep_the_promise_of_ten_seconds():
    assert max(downloads.ANSWER_SECONDS, downloads.SILENCE_SECONDS) <= 8
    assert downloads.ANSWER_SECONDS + downloads.SILENCE_SECONDS < 15
    assert downloads.PART_SECONDS + downloads.SILENCE_SECONDS < 60


@pytest.mark.parametrize("name", ["cifar10", "auto"])
@pytest.mark.parametrize("file_format", ["tfrecord", "none such"])
def test_damaged_set_is_an_error_in_both_modes(prepared, name, file_format):
    info = prepared / "cifar10" / "3.0.2" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", file_format))
    message = refusal(name, prepared)
    assert message.startswith(f"--data-dir={prepared}: cifar10/3.0.2")
    # Which TensorFlow alone reads.
    assert file_format != "tfrecord" or "tfrecord" in message.lower()


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def test_pictures_are_decoded_once(monkeypatch, own_cache, prepared):
    first = datasets.load("cifar10", str(prepared))
    monkeypatch.setattr(prepared_sets, "read_split", None)
    again = datasets.load("cifar10", str(prepared))
    assert_same(first, again)
    assert (again.title, again.class_names) == (first.title, first.class_names)
    # Another folder is another set.
    other = shutil.copytree(prepared, prepared.parent / "other")
    assert "cannot be read" in refusal("cifar10", other)


def test_a_flipped_bit_in_what_was_decoded_gives_no_other_pictures(own_cache, prepared):
    expected = datasets.load("cifar10", str(prepared))
    (file,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("cifar10-*")
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    # Half of them among the names, sizes and places at the end.
    places = [*rng.integers(len(whole), size=30), *rng.integers(-1500, 0, size=30)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        assert_same(datasets.load("cifar10", str(prepared)), expected)
    # Nor does one that the checksums of the archive were made of.
    with np.load(file) as saved:
        arrays = dict(saved)
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez(file, **arrays)
    assert_same(datasets.load("cifar10", str(prepared)), expected)


def test_a_class_that_is_not_of_tfds_is_not_imported(prepared, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = prepared / "cifar10" / "3.0.2" / "features.json"
    features = json.loads(path.read_text())
    features["featuresDict"]["features"]["label"]["pythonClassName"] = "evil.Label"
    path.write_text(json.dumps(features).replace("pythonClass", "python\\u0043lass"))
    assert "names the class evil.Label" in refusal("cifar10", prepared)


def test_files_that_changed_are_decoded_again(own_cache, prepared):
    datasets.load("cifar10", str(prepared))
    for path in (prepared / "cifar10/3.0.2").glob("*test*"):
        path.write_bytes(path.read_bytes()[:100])
    assert "cannot be read" in refusal("cifar10", prepared)


def test_without_a_place_to_keep_them_pictures_are_decoded_every_time(
    monkeypatch, prepared, tmp_path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_same(*(datasets.load("cifar10", str(prepared)) for _ in range(2)))


def test_data_dir_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert "not a folder" in refusal("auto", tmp_path / "file" / "data")


def test_read_only_data_dir_is_noticed_before_the_download(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with official(monkeypatch, b"") as requests:
        assert "cannot be written" in refusal("cifar10", tmp_path)
        assert not requests
    assert datasets.load("auto", str(tmp_path)).name == "digits"


@pytest.mark.parametrize("name", ["", "..", "../cifar10"])
def test_unknown_name_lists_the_choices(name):
    with pytest.raises(UsageError) as error:
        datasets.load(name)
    for choice in f"--dataset={name}: ", "auto", "cifar10", "digits":
        assert choice in str(error.value)


def test_digits_are_split_completely_and_as_ever(monkeypatch):
    from sklearn.datasets import load_digits

    monkeypatch.setattr(cifar10, "receive", None)  # no look at the network
    dataset = datasets.load("digits")
    assert (dataset.name, dataset.title) == ("digits", "handwritten digits")
    assert dataset.class_names == tuple("0123456789")
    whole = np.bincount(load_digits().target)
    test = np.bincount(dataset.test_labels)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels) + test, whole)
    assert np.abs(test - whole / 5).max() < 1
    # Together the splits are the set, record by record, grey, in blocks of 4x4 pixels.
    images = np.concatenate([dataset.train_images, dataset.test_images])
    assert images.dtype == np.uint8 and dataset.test_labels.dtype == np.int32
    small = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    expected = small.repeat(4, axis=1).repeat(4, axis=2)[..., None].repeat(3, axis=-1)
    assert sorted(map(bytes, images)) == sorted(map(bytes, expected))
    # If you did not intend to change the digits or their split, this is a bug: runs
    # recorded earlier can no longer be compared.
    assert dataset.fingerprint.startswith("d1604781ddbac083")


def make_splits(num_train: int = 20, num_test: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    splits = []
    for num in num_train, num_test:
        splits.append(rng.integers(0, 256, (num, 32, 32, 3)).astype(np.uint8))
        splits.append(np.arange(num, dtype=np.int32) % 10)
    return splits


def test_fingerprint_ignores_the_order_of_records_and_sees_all_else():
    splits = make_splits(8, 8)
    train, test = np.random.default_rng(1).permutation(8), np.arange(8)[::-1]
    shuffled = [splits[0][train], splits[1][train], splits[2][test], splits[3][test]]
    assert fingerprint(*shuffled) == fingerprint(*splits)
    others = [splits, [*splits[2:], *splits[:2]]]  # the splits exchanged
    for index in range(4):
        others.append(make_splits(8, 8))
        if index % 2 == 0:
            others[-1][index][3, 5, 7, 1] ^= 1  # one pixel
        else:
            others[-1][index][[0, 1]] = others[-1][index][[1, 0]]  # two labels
    digests = {fingerprint(*each) for each in others}
    assert len(digests) == 6 and set(map(len, digests)) == {64}


def test_titles_by_channel_sums_and_fingerprint(monkeypatch):
    train_images, _, test_images, _ = make_splits()

    def title(digest="?"):
        return cifar10._cifar10_title(
            digest, train_images=train_images, test_images=test_images
        )

    assert title() == "CIFAR-10, unrecognised pixels"
    assert title(cifar10._JPEG_75_COPY) == "CIFAR-10, JPEG-75 copy"
    channel_sums = [
        [int(images[..., channel].sum()) for channel in range(3)]
        for images in (train_images, test_images)
    ]
    monkeypatch.setattr(cifar10, "_OFFICIAL_CHANNEL_SUMS", channel_sums)
    assert title() == "CIFAR-10"
    test_images[0, 0, 0, 0] ^= 1
    assert title() == "CIFAR-10, unrecognised pixels"


# A user's own file


def own_arrays(num_images: int = 20, num_classes: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (num_images, 28, 40, 3)).astype(np.uint8),
        "labels": np.arange(num_images) % num_classes,
    }


def test_a_users_file_is_a_dataset(tmp_path):
    path, own = tmp_path / "pets.npz", own_arrays()
    np.savez_compressed(path, **own)
    dataset = datasets.load("pets.npz", str(tmp_path))
    assert (dataset.name, dataset.title) == ("pets", "pets.npz")
    assert dataset.class_names == ("0", "1", "2", "3")
    assert len(dataset.test_labels) == 4 and len(dataset.train_labels) == 16
    is_test = np.arange(20) < 5
    names = np.array(["cat", "dog", "水", "bird", "none of it"])
    np.savez(path, **own, is_test=is_test, class_names=names)
    dataset = datasets.load(str(path))
    assert dataset.class_names == tuple(names)
    np.testing.assert_array_equal(dataset.test_images, own["images"][:5])
    np.testing.assert_array_equal(dataset.train_labels, own["labels"][5:])
    assert dataset.train_labels.dtype == np.int32
    assert dataset.fingerprint == fingerprint(
        own["images"][5:], own["labels"][5:], own["images"][:5], own["labels"][:5]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (None, "No such file"),
        ({"images": None}, "images are missing"),
        ({"pixels": np.zeros(3)}, "holds pixels"),
        ({"images": np.zeros((20, 32, 32, 3))}, "images are float64"),
        ({"images": np.zeros((20, 28, 28), np.uint8)}, "not uint8"),
        ({"images": np.zeros((20, 32, 7, 3), np.uint8)}, "of 8 or more"),
        ({"labels": np.zeros(19, int)}, "labels are int64"),
        ({"labels": np.full(20, 256)}, "0 to 255"),
        ({"labels": np.full(20, 0.5)}, "labels are float64"),
        ({"class_names": np.array(["a", "b"])}, "class_names"),
        ({"class_names": np.array([None] * 4)}, "damaged"),
        ({"is_test": np.ones(20, bool)}, "no image to train on"),
        ({"is_test": np.ones(3, bool)}, "is_test is not"),
    ],
)
def test_a_users_file_that_is_none_is_one_line(tmp_path, changes, words):
    path = tmp_path / "pets.npz"
    if changes is not None:
        arrays = own_arrays() | changes
        np.savez(path, **{name: x for name, x in arrays.items() if x is not None})
    with pytest.raises(UsageError, match=words) as caught:
        datasets.load(str(path))
    message = str(caught.value)
    assert message.startswith(f"--dataset={path}: ") and "\n" not in message


# Sets that TFDS has prepared


def prepare(data_dir: Path, pictures: dict, label=None, version="1.0.0") -> Path:
    """Prepares a set named pets, of arrays by split; returns its folder."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        url_infos = None  # see experiments/data/cifar10.py

        def _info(self):
            features = {
                "mask": tfds.features.Image(shape=(None, None, 4)),  # is not looked at
                "image": tfds.features.Image(shape=(None, None, None)),
                "label": label or tfds.features.ClassLabel(names=["cat", "dog", "水"]),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in pictures}

        def _generate_examples(self, split):
            for key, array in enumerate(pictures[split]):
                # An array would be encoded by TensorFlow, a picture is not.
                image, mask = Image.fromarray(array), Image.new("RGBA", (3, 3))
                yield key, {"image": image, "mask": mask, "label": key % 3}

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        Pets(data_dir=data_dir).download_and_prepare(file_format="array_record")
    return data_dir / "pets" / version


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(28, 28), (12, 20, 3)], ids=["grey", "colour"])
def test_a_prepared_set_is_a_dataset(own_cache, monkeypatch, tmp_path, shape):
    pictures = {"train": noise(9, *shape), "validation": 255 - noise(6, *shape)}
    prepare(tmp_path, {**pictures, "train": pictures["train"][:3]}, version="1.9.0")
    prepare(tmp_path, pictures, version="1.10.0")
    dataset = datasets.load("pets", str(tmp_path))
    assert (dataset.name, dataset.title) == ("pets", "pets 1.10.0")
    assert dataset.class_names == ("cat", "dog", "水")
    splits = []
    for each in pictures.values():
        colour = each if each.ndim == 4 else each[..., np.newaxis].repeat(3, -1)
        splits += [colour, np.arange(len(each), dtype=np.int32) % 3]
    assert dataset.fingerprint == fingerprint(*splits)
    for field, expected in zip(SPLIT_FIELDS, splits, strict=True):
        found = getattr(dataset, field)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    monkeypatch.setattr(prepared_sets, "read_split", None)  # decoded once
    assert_same(datasets.load("pets", str(tmp_path)), dataset)


def other_format(folder: Path) -> None:
    path = folder / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "riegeli"))


def two_classes(folder: Path) -> None:
    path = folder / "features.json"
    path.write_text(path.read_text().replace('"3"', '"2"'))
    (folder / "label.labels.txt").write_text("cat\ndog\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": None}, "splits are test, not train and test"),
        ({"train": [noise(9, 9), noise(9, 8)]}, "of 2 sizes, 8 x 9 and 9 x 9 among"),
        ({"test": noise(3, 9, 8)}, "differ in siz"),
        ({"train": noise(3, 9, 9, 4)}, "mode RGBA, neither grey nor RGB"),
        ({"train": noise(3, 9, 7)}, "of 7 x 9 pixels, and a network needs"),
        ({"label": 257}, "has 257 classes, not 1 to 256"),
        ({"label": np.int64}, "is not for image classification"),
        ({"damage": two_classes}, "in train is none of the 2 cla"),
        ({"damage": other_format}, "riegeli, which"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_prepared_set_that_is_of_no_use_is_one_line(tmp_path, changes, words):
    import tensorflow_datasets as tfds

    pictures = {"train": noise(3, 9, 9), "test": noise(3, 9, 9)} | changes
    label, damage = pictures.pop("label", None), pictures.pop("damage", None)
    if isinstance(label, int):
        label = tfds.features.ClassLabel(num_classes=label)
    elif label:
        label = tfds.features.Scalar(label)
    pictures = {split: each for split, each in pictures.items() if each is not None}
    folder = prepare(tmp_path, pictures, label)
    if damage:
        damage(folder)
    with pytest.raises(UsageError, match=words) as caught:
        datasets.load("pets", str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"--dataset=pets: {folder} cannot be used (")
    assert "\n" not in message
