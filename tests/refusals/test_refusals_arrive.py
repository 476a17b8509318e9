"""A refusal arrives on a real connection: the client reads the problem, and no reset takes it away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import program
from tests.refusals.arrivals import BODIES
from tests.refusals.clients import by_httpx
from tests.refusals.serving import SERVERS, behind_nginx, served

ABRUPT = "tests.refusals.abrupt:app"
TRIES = 4


def arrived(url: str, body: str, tries: int = TRIES) -> int:
    """How often the problem was read."""
    data, headers, wanted = BODIES[body]
    return by_httpx(url, data, {"content-type": "application/json", **headers}, tries)[wanted]


@pytest.fixture(scope="module")
def nginx() -> str:
    """nginx, at its defaults."""
    return program("nginx", Path("/usr/sbin/nginx"), Path("/usr/local/sbin/nginx"))


@pytest.mark.parametrize("server", SERVERS)
def test_a_refusal_arrives_straight_from_a_server(server: str) -> None:
    with served(server) as url:
        assert (arrived(url, "8 MB"), arrived(url, "2 MB, gzip")) == (TRIES, TRIES)


def test_a_refusal_arrives_through_nginx_at_its_defaults(nginx: str) -> None:
    with served("uvicorn") as upstream, behind_nginx(nginx, upstream.rstrip("/")) as url:
        assert {body: arrived(url, body) for body in BODIES} == dict.fromkeys(BODIES, TRIES)


def test_control_a_service_that_closes_at_once_loses_some(nginx: str) -> None:
    with served("uvicorn", ABRUPT) as upstream, behind_nginx(nginx, upstream.rstrip("/")) as url:
        assert arrived(url, "8 MB", 15) < 15
