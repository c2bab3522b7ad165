"""How messages write names, runs, lists and the reasons of errors."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MOST_LISTED = 64


def nearest(name: str, names: Iterable[str]) -> str:
    """Suggests the nearest of some names; "" if none is near.

    Example:
        >>> nearest("watr", ["none", "dropout", "water"])
        ' (did you mean water?)'
        >>> nearest("x", ["none", "dropout", "water"])
        ''
    """
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def show(value: object) -> str:
    """Returns what Python writes for a value, if it can.

    Example:
        >>> show("a"), show(10**5000)
        ("'a'", '(int too large to show)')
    """
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"({type(value).__name__} too large to show)"


def show_name(name: str) -> str:
    """Returns a name, in quotes if it would break a line or not be seen."""
    return name if name and name.isprintable() else repr(name)


def printable(text: object) -> str:
    """Writes a text with escapes for what would steer a terminal.

    Example:
        >>> print(printable("a\x1b[31m\\nb"))
        a\\x1b[31m\\nb
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )


def reason(error: Exception) -> str:
    """Returns the first line of an error's message: ours are one line long.

    Example:
        >>> reason(FileNotFoundError(2, "No such file or directory", "a.npz"))
        'No such file or directory: a.npz'
    """
    inner = getattr(error, "reason", None)  # of urllib's errors
    if isinstance(inner, OSError):
        return reason(inner)
    if isinstance(error, OSError) and error.strerror:  # without its number
        return ": ".join(map(str, filter(None, (error.strerror, error.filename))))
    message = str(error).removeprefix("<urlopen error ").removesuffix(">").strip()
    return message.partition("\n")[0].strip() or type(error).__name__


def name_seeds(seeds: Sequence[int]) -> str:
    """Lists seeds: "seed 3", "seeds 3, 5", "seeds 3 to 9"; counts very many.

    Example:
        >>> name_seeds([3, 5]), name_seeds(range(0, 1000, 2))
        ('seeds 3, 5', '500 seeds from 0 to 998')
    """
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    if len(seeds) > _MOST_LISTED:
        return f"{len(seeds)} seeds from {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def upper(text: str) -> str:
    """Writes the first letter large, and the rest as it is."""
    return text[:1].upper() + text[1:]


def join(parts: Sequence[str], word: str) -> str:
    """Joins parts by commas, and the last one by a word."""
    *first, last = parts
    return f"{', '.join(first)}{word} {last}" if first else last


def name_run(config: Mapping[str, Any]) -> str:
    """Names a run: what regularizes, how strongly, and in which network.

    Example:
        >>> name_run({"reg": "water", "strength": 0.05, "model": "vit"})
        'water 0.05 in vit'
    """
    strength = "" if config["reg"] == "none" else f" {config['strength']:g}"
    model = config.get("model", "cnn")  # older runs name none
    return config["reg"] + strength + ("" if model == "cnn" else f" in {model}")
