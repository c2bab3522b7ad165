"""Fixtures that several test files share."""

import atexit
import dataclasses
import os
import shutil
import tempfile

import jax
import pytest
import soundfile

from tests.layers import CASES, TRACK

# Nothing under test, commands included, touches the user's caches.
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def recording_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "glitch.wav"
    soundfile.write(path, TRACK, 44_100, subtype="FLOAT")
    return path


@pytest.fixture(params=CASES)
def case(request, recording_file):
    """Every layer of the table in turn."""
    case = CASES[request.param]
    if "file_path" in case.settings:
        return dataclasses.replace(case, settings={"file_path": recording_file})
    return case
