"""Fixtures that several test files share."""

import dataclasses

import pytest
import soundfile

from tests.layers import CASES, TRACK


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
