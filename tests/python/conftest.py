"""What the tests share: real sample files, S3 servers, places."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Prefect counts its users otherwise, and its server's counting locks the database of a test now and then.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

# Tests are seeded, and a machine that compiles beside them is no failure.
settings.register_profile("regraft", deadline=None, derandomize=True)
settings.load_profile("regraft")

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # for `servers` and `places`: pytest imports tests by path

from places import Place  # noqa: E402 - needs the line above
from servers import Server, ministack, weed  # noqa: E402


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real files. A machine that runs CI must have it; elsewhere its tests are skipped."""
    path = Path(os.environ.get("REGRAFT_SAMPLE_DATA", CHECKOUT.parent / "shared" / "data"))
    if (path / "README.md").is_file():
        return path
    message = f"no sample files in `{path}`: name their folder in REGRAFT_SAMPLE_DATA"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def ministack_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """ministack, started once."""
    with ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def weed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """SeaweedFS, started once."""
    with weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(
    params=["local", pytest.param("ministack", marks=pytest.mark.s3), pytest.param("weed", marks=pytest.mark.s3)]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder, and a bucket of each server."""
    if request.param == "local":
        return Place(tmp_path)
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return Place(tmp_path, server, server.new_bucket())


@pytest.fixture
def local_place(tmp_path: Path) -> Place:
    """A folder."""
    return Place(tmp_path)
