"""Hostile clients on every wire: what they may do changes nothing there, and what they may not is noticed."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf.testing import HARMLESS, MISUSES, SessionClient, aborted
from tests.testing.counting import WIRES, Counter


@pytest.fixture(params=WIRES)
def wire(request: Any) -> Any:
    return request.param


@pytest.fixture
def service() -> Counter:
    return Counter(subject=lambda scope: dict(scope["headers"]).get(b"x-user", b"eve").decode(), conversation="/thread_id")


def client_of(service: Counter, wire: Any, **settings: Any) -> SessionClient:
    return SessionClient(service, wire=wire, **{"headers": {"x-user": "ada"}, "fields": {"thread_id": "t-1"}, **settings})


def test_a_harmless_client_counts_like_any_other(wire: Any, service: Counter) -> None:
    for name, echo in HARMLESS.items():
        with client_of(service, wire, echo=echo) as client:
            assert [client.send("go").text for _ in range(2)] == ["turn 1", "turn 2"], name


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_is_answered_as_the_level_promises(wire: Any, name: str) -> None:
    service = Counter(subject=lambda scope: dict(scope["headers"]).get(b"x-user", b"eve").decode(), conversation="/thread_id")
    other = {"headers": {"x-user": "eve"}} if name == "swap users" else {"fields": {"thread_id": "t-2"}}
    with client_of(service, wire) as client, client_of(service, wire, **other) as another:
        reply = MISUSES[name].play(client, another, "go")
    assert reply.code == MISUSES[name].expected({"subject", "conversation"})


def test_an_answer_that_is_lost_leaves_the_session_of_before(wire: Any, service: Counter) -> None:
    with client_of(service, wire) as client:
        client.send("go")
        before, said = client.envelope, len(client.messages)
        whole = aborted(client, "go", at=30)
        assert (client.envelope, len(client.messages)) == (before, said)
        assert client.send("go").text == whole.text == "turn 2"


def test_an_answer_that_came_whole_is_no_loss(wire: Any, service: Counter) -> None:
    with client_of(service, wire) as client:
        length = len(client.send("go").content)
        client.envelope = None
        client.messages.clear()
        reply = aborted(client, "go", at=length)
        assert client.envelope == reply.envelope
        assert client.envelope
