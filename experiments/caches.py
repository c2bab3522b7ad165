"""Folders for what can be made again: compiled programs, decoded images."""

import os
from pathlib import Path


def folder(name: str) -> Path | None:
    """Finds a folder among the user's caches, and makes it.

    Args:
        name: of the folder.

    Returns:
        `$XDG_CACHE_HOME/sounddrop_jax/name`, where `~/.cache` is the default; or None
        where it cannot be written to, and everything is made anew every time.
    """
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        path = Path(caches, "sounddrop_jax", name)
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter from those without a home
        return None
    return path if os.access(path, os.W_OK | os.X_OK) else None
