"""Two writers with 1,000 versions, and 1 GiB in a stream: in a folder, and in the S3 that moto serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import artifact_processes
from tests.service.artifact_places import find_s3, make_bucket
from tests.service.test_artifact_faults import LARGE_MIB, MOST_MIB, VERSIONS, save_from_two, stream_mib

pytestmark = pytest.mark.soak


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the bytes are, for other processes."""
    return f"file://{tmp_path}/files" if request.param == "folder" else f"s3 {find_s3()} {make_bucket()}"


def test_no_version_is_given_twice_and_none_is_lost(place: str, tmp_path: Path) -> None:
    said, artifacts = save_from_two(artifact_processes.save_many, tmp_path / "dcaf.db", place)
    print(f"{VERSIONS:,} versions by two processes")
    assert sorted(said) == [found.version for found in artifacts.versions("log")] == list(range(VERSIONS))
    found = [artifacts.load("log", number) for number in range(VERSIONS)]
    assert len({one.data for one in found if one is not None}) == VERSIONS


def test_a_stream_is_never_whole_in_memory(place: str, tmp_path: Path) -> None:
    grown = stream_mib(artifact_processes.stream, tmp_path, place)
    assert grown < MOST_MIB, f"{LARGE_MIB:,} MiB have grown the memory by {grown:.0f} MiB"
