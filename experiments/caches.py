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


def keep_programs() -> None:
    """Keeps compiled programs for the next run, in the user's folder of caches.

    JAX_COMPILATION_CACHE_DIR names another folder; empty, it keeps nothing.
    """
    import jax  # which the rest of this module has no need of

    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        chosen = str(folder("programs") or "")
    jax.config.update("jax_compilation_cache_dir", chosen or None)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The many small programs of a start, too: together they take seconds.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
