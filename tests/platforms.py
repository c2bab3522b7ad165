"""The programs of platforms that a machine does not have, run on one that it has."""

import functools
from collections.abc import Callable
from unittest import mock

from jax import lax


def on(platform: str, function: Callable) -> Callable:
    """Returns the function as that platform computes it, if this one traces it.

    It is a new function: JAX would find what it compiled of the same one before.
    """

    def choose(*arguments, default=None, **branches):
        return branches.get(platform, default)(*arguments)

    @functools.wraps(function)
    def run(*arguments, **settings):
        with mock.patch.object(lax, "platform_dependent", choose):
            return function(*arguments, **settings)

    return run
