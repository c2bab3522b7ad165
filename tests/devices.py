"""How tests come by several devices: in a process that has four, see test_sharding."""

import jax
import pytest

HAS_FOUR = jax.device_count() == 4
on_four_devices = pytest.mark.skipif(
    not HAS_FOUR, reason="runs in a process that has four devices"
)
