"""Files that are written whole or not at all, locks of folders, and caches."""

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs

from experiments.cli import UsageError

LOCK = ".lock"


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


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that were killed in `replacing` left in a folder."""
    for path in folder.iterdir():
        if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", path.name):
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
        owner = path.read_text(encoding="utf-8").strip() or "another one"
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
        the default; or None where it cannot be written to.
    """
    path = platformdirs.user_cache_path("sounddrop_jax", appauthor=False) / name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return path if os.access(path, os.W_OK | os.X_OK) else None


def write_json(path: Path, value: Any) -> None:
    """Writes a file of JSON, whole or not at all."""
    text = dumps(value, indent=2) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def dumps(value: Any, indent: int | None = None) -> str:
    """Writes JSON that any reader takes: what is NaN or infinite becomes null."""

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return json.dumps(clean(value), indent=indent, allow_nan=False)


def digest_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Returns a fingerprint of arrays and their names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(repr((name, str(array.dtype), array.shape)).encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
