"""How tests come by several devices: in another process, which has four."""

import jax
import pytest

from tests.programs import python, with_xla_flags

HAS_FOUR = jax.device_count() == 4
on_four_devices = pytest.mark.skipif(
    not HAS_FOUR, reason="runs in a process that has four devices"
)
elsewhere = pytest.mark.skipif(HAS_FOUR, reason="this is that process")


def check_on_four_devices(file: str) -> None:
    """Runs a file of tests, of which all but the one that asks for it must run."""
    options = ["-q", "-m", "", "-p", "no:cacheprovider"]  # slow tests, too
    count = "--xla_force_host_platform_device_count=4"
    flags = {"JAX_PLATFORMS": "cpu", "PYTEST_ADDOPTS": ""}
    flags["XLA_FLAGS"] = with_xla_flags(count)
    done = python("-m", "pytest", *options, file, **flags)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
