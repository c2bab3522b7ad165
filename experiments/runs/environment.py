"""The software and the device that numbers come from."""

import os
import platform
import subprocess
from pathlib import Path

from experiments import terminal
from experiments.cores import available_cores

GIT_SECONDS = 10.0


def environment() -> dict:
    """Describes the software and the device that numbers come from."""
    import flax
    import jax

    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "device": f"{device.device_kind} x{jax.device_count()}",
        "processes": jax.process_count(),
        "cores": len(available_cores()),
        "commit": commit(),
    }


def commit() -> str | None:
    """Returns the commit that the code is at, marked if it was changed since.

    None where there is no Git, or the code is no repository's of its own: a copy of it
    may lie in someone else's, or Git's own variables may name another.
    """
    root = Path(__file__).parents[2]
    others = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
    try:
        for command in (
            ["ls-files", "--error-unmatch", os.path.relpath(__file__, root)],
            ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        ):
            said = subprocess.run(
                ["git", "--git-dir=.git", "--work-tree=.", *command],
                cwd=root,
                env=others,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
                timeout=GIT_SECONDS,
            ).stdout
    except subprocess.TimeoutExpired:
        terminal.warn(
            f"git did not answer within {GIT_SECONDS:g} s: what is written will not "
            "say which commit the code is at."
        )
        return None
    except (OSError, subprocess.SubprocessError):
        return None
    return said.decode("ascii").strip()
