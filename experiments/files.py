"""Files that are read within bounds, and written whole or not at all; locks, caches."""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs

from experiments.cli import UsageError
from experiments.words import reason

LOCK = ".lock"
LARGEST = 2**26
"""How many bytes a file that is read whole may have, or a line of one that is not."""
CACHE_SIZE = 2**30
"""How many bytes a folder of the user's caches may keep."""


def open_to_read(path: Path, largest: float = LARGEST) -> io.BufferedReader:
    """Opens a file to read its bytes; nothing that may have no end, or never begin.

    Args:
        path: of a file, or of a link to one.
        largest: how many bytes it may have.

    Raises:
        OSError: if it cannot be read, is no file or a larger one; its `strerror` says
            which.

    Example:
        >>> open_to_read(Path("/dev/zero"))
        Traceback (most recent call last):
        OSError: [Errno 22] a pipe or a device, not a file
    """
    # A pipe would be waited for, until somebody writes to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "a pipe or a device, not a file")
        if status.st_size > largest:
            words = f"{status.st_size:,} bytes, more than the {largest:,} expected"
            raise OSError(errno.EFBIG, words)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read(path: Path, largest: int = LARGEST) -> bytes:
    """Reads a file whole, see `open_to_read`."""
    with open_to_read(path, largest) as file:
        return file.read()


def read_lines(path: Path, largest: int = LARGEST) -> Iterator[bytes]:
    """Reads a file line by line, each with its end if it has one.

    Args:
        path: see `open_to_read`.
        largest: how many bytes a line may have.

    Raises:
        OSError: as there, and for a longer line.
    """
    with open_to_read(path, math.inf) as file:
        while line := file.readline(largest + 1):
            if len(line) > largest:
                raise OSError(errno.EFBIG, f"more than {largest:,} bytes")
            yield line


def read_arrays(path: Path, largest: int) -> dict[str, np.ndarray]:
    """Reads an .npz file, which is believed no more than its checksums and sizes.

    Args:
        path: see `open_to_read`.
        largest: how many bytes the file may have, and each array in it.

    Returns:
        The arrays by name, which cannot be written to.

    Raises:
        OSError: as there.
        ValueError: if it is damaged, needs a pickle, or an array is larger.
    """
    with open_to_read(path, largest) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                large = [each for each in entries if each.file_size > largest]
                if not large:
                    return {
                        each.filename.removesuffix(".npy"): _read_array(archive, each)
                        for each in entries
                    }
        except Exception as error:  # what is damaged may raise anything at all
            raise ValueError(f"damaged: {reason(error)}") from None
    raise ValueError(
        f"{large[0].filename.removesuffix('.npy')} has {large[0].file_size:,} bytes, "
        f"more than {largest:,}"
    )


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    data = archive.read(entry)
    header = io.BytesIO(data)
    version = np.lib.format.read_magic(header)
    if version != (1, 0):
        raise ValueError(f"version {version} of .npy")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(header)
    array = np.frombuffer(data, dtype, offset=header.tell())  # no pickle, nor a copy
    return array.reshape(shape, order="F" if is_fortran else "C")


def check_regular(path: Path) -> None:
    """Raises for what is no file, or a folder that holds more than files and folders.

    Args:
        path: which others are going to read, who would wait for a pipe.

    Raises:
        OSError: its `strerror` names the first pipe, device or link to such.
    """
    found, wrong = [path], []
    if path.is_dir():
        found = []
        for parent, folders, names in os.walk(path):
            found += [Path(parent, name) for name in names if name[0] != "."]
            links = [Path(parent, name) for name in folders]
            wrong += [each for each in links if each.is_symlink()]
    wrong += [each for each in found if not os.path.isfile(each)]
    if wrong:
        raise OSError(errno.EINVAL, f"{wrong[0].name} is not a file")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replaces a file by another one, once that is written without an error.

    The other one is on the disk before it takes its name, so that a power cut leaves
    one of them whole.

    Args:
        path: of the file, which may exist or not.

    Yields:
        The path of the other file, beside the first: empty, under a new name that no
        link can have, and gone in the end.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "result.json")
        >>> with replacing(path) as temporary:
        ...     _ = temporary.write_text("{}", encoding="utf-8")
        >>> [each.name for each in path.parent.iterdir()]
        ['result.json']
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with open(temporary, "xb"):  # fails where something is, a link included
        pass
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(folder: Path, names: Iterable[str] | None = None) -> None:
    """Removes what processes that were killed in `replacing` left in a folder.

    Args:
        folder: where they wrote.
        names: of the files that they replaced; None for all, where nobody else writes.
    """
    for path in folder.iterdir():
        left = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.tmp", path.name)
        if left and (names is None or left[1] in names):
            path.unlink()


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, on the disk; nothing if it is there."""
    made = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in made:
        sync(each.parent)


def sync(path: Path) -> None:
    """Waits until a file, or what a folder lists, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """Waits until a folder and all that is in it is on the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Appends lines to a file, all of them or none; makes the file if need be.

    They are on the disk when it returns. A process that is killed meanwhile may leave
    a last line without an end.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "networks.jsonl")
        >>> append_lines(path, ["1", "2"])
        >>> path.read_text()
        '1\\n2\\n'
    """
    data = "".join(f"{line}\n" for line in lines).encode()
    with open(path, "ab", buffering=0) as file:
        start = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file)
            if start == 0:  # it may be new
                sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(start)
            raise


@contextlib.contextmanager
def lock(out: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, until this one leaves it or ends.

    The file of the lock stays, with the number of the process while that is in it.

    Raises:
        UsageError: if another process holds it.
        OSError: if the folder cannot be written.
    """
    path = out / LOCK
    held = filelock.FileLock(path)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        owner = "another one"
        with contextlib.suppress(OSError):
            owner = read(path).decode(errors="replace").strip() or owner
        raise UsageError(
            f"--out={out}: process {owner} is writing to it; wait for its end, or "
            "name another folder."
        ) from None
    try:
        path.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            path.write_text("", encoding="utf-8")
        held.release()


def cache_folder(name: str) -> Path | None:
    """Makes a folder among the user's caches, for what can be made again.

    Args:
        name: of the folder.

    Returns:
        The folder, on Linux `$XDG_CACHE_HOME/sounddrop_jax/name`, where `~/.cache` is
        the default; or None where it cannot be written to, or others can.
    """
    path = platformdirs.user_cache_path("sounddrop_jax", appauthor=False) / name
    try:
        for each in (path.parent, path):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = each.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
    except OSError:
        return None
    return path if os.access(path, os.W_OK | os.X_OK) else None


def trim(folder: Path, size: int = CACHE_SIZE) -> None:
    """Removes from a cache what is no file of the user's own, and what is too old.

    Args:
        folder: of the cache; what cannot be removed stays.
        size: how many bytes it may keep: those of the newest files.
    """
    with contextlib.suppress(OSError):
        found = [(path.lstat(), path) for path in folder.iterdir()]
        found.sort(key=lambda each: each[0].st_mtime_ns, reverse=True)
        for status, path in found:
            size -= status.st_size
            is_own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if not is_own or size < 0:
                with contextlib.suppress(OSError):
                    path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes a file of JSON, whole or not at all."""
    text = dumps(value, indent=2) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(page: Path, source: str, table: str) -> None:
    """Writes what a script made into a page of Markdown, between its marks.

    Raises:
        ValueError: if the page lacks the marks; nothing was written then.
    """
    start, end = f"<!-- table: {source} -->", "<!-- end of the table -->"
    before, found, rest = page.read_text("utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} lacks the lines {start} and {end} around its table.")
    page.write_text(f"{before}{start}\n{table}\n{end}{after}", "utf-8")


def dumps(
    value: Any, indent: int | None = None, separators: tuple[str, str] | None = None
) -> str:
    """Writes JSON that any reader takes: what is NaN or infinite becomes null.

    Args:
        value: what JSON can hold.
        indent: as in `json.dumps`.
        separators: as in `json.dumps`.
    """

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return json.dumps(
        clean(value), indent=indent, separators=separators, allow_nan=False
    )


def digest_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Returns a fingerprint of arrays and their names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(repr((name, str(array.dtype), array.shape)).encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
