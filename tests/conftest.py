"""Fixtures that several test files share."""

import atexit
import os
import shutil
import signal
import tempfile

import jax
import pytest
import soundfile

from tests.layers import CASES, TRACK
from tests.programs import with_xla_flags

# A script, which its test runs. Where pytest looks for examples, it would run, too.
collect_ignore = ["typed.py"]


def keep_in_new_folder(variable: str) -> None:
    os.environ[variable] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)


# Nothing under test, commands included, touches the user's caches. Workers of one
# session, and the commands that they start, share what they compile; sessions do, where
# the variable names a folder.
keep_in_new_folder("XDG_CACHE_HOME")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    keep_in_new_folder("JAX_COMPILATION_CACHE_DIR")
# Workers share the processors, and threads of OpenBLAS would wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# Tests, and most of the commands that they start, compile for longer than they compute.
# Commands that compute for longer take this back, and have some optimizations.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    os.environ["XLA_FLAGS"] = with_xla_flags("--xla_backend_optimization_level=1")
    jax.config.update("jax_disable_most_optimizations", True)

# A script that runs the tests in the background has Ctrl-C ignored, and what they start
# would inherit that; some of them send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def recording_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "glitch.wav"
    soundfile.write(path, TRACK, 44_100, subtype="FLOAT")
    return path


@pytest.fixture(params=CASES)
def any_case(request):
    """Every noise of the table in turn."""
    return CASES[request.param]


@pytest.fixture(params={case.name: name for name, case in CASES.items()}.values())
def case(request):
    """A layer of each class, as keys and modes have nothing to do with the noise."""
    return CASES[request.param]
