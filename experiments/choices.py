"""The name that was meant, where another was given."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """Asks for the nearest of some names, where one is near; else it is silent.

    Example:
        >>> nearest("watr", ["none", "dropout", "water"])
        ' (did you mean water?)'
        >>> nearest("x", ["none", "dropout", "water"])
        ''
    """
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {found[0]}?)" if found else ""
