"""The cores that this process may use."""

import os
import sys


def available_cores() -> list[int]:
    """Returns the cores that this process may use, where the system says which."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
