"""How tests run commands: here, or in a Python of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]


def end(main: Callable[[], object], *arguments: object) -> int:
    """Calls the main function of a command, and returns its exit code."""
    with mock.patch.object(sys, "argv", ["command", *map(str, arguments)]):
        try:
            main()
        except SystemExit as exit:
            assert isinstance(exit.code, int)
            return exit.code
    return 0


def python(
    *arguments: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess:
    """Runs Python with more in its environment; what it says comes as text."""
    plain = {name: x for name, x in os.environ.items() if name != "FORCE_COLOR"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=plain | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def with_xla_flags(flag: str) -> str:
    """The value of `XLA_FLAGS` that adds a flag to those that are set."""
    return f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
