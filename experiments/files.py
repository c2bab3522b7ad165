"""Files and lines that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, suffix: str = ".tmp") -> Iterator[Path]:
    """Takes the place of a file with another, once that is written without an error.

    Args:
        path: of the file, which may exist or not.
        suffix: of the other one's name; several processes that write the same file
            each need their own.

    Yields:
        The path of the other file, beside the first. It is gone in the end.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "result.json")
        >>> with replacing(path) as temporary:
        ...     _ = temporary.write_text("{}", encoding="utf-8")
        >>> [each.name for each in path.parent.iterdir()]
        ['result.json']
    """
    temporary = path.with_name(path.name + suffix)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Appends lines to a file, which is made if need be; none if not all can be.

    A process that is killed meanwhile may leave a last line without an end.

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
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(start)
            raise
