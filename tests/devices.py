"""How tests come by several devices: in another process, which has four."""

import os
import subprocess
import sys

import jax
import pytest

HAS_FOUR = jax.device_count() == 4
on_four_devices = pytest.mark.skipif(
    not HAS_FOUR, reason="runs in a process that has four devices"
)
elsewhere = pytest.mark.skipif(HAS_FOUR, reason="this is that process")


def check_on_four_devices(file: str) -> None:
    """Runs a file of tests, of which all but the one that asks for it must run."""
    options = ["-q", "-m", "", "-p", "no:cacheprovider"]  # slow tests, too
    command = [sys.executable, "-m", "pytest", *options, file]
    flags = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTEST_ADDOPTS": "",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **flags}
    )
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
