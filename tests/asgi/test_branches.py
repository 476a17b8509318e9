"""Branches of one session with one number, sealed in the same second: each turn on a socket has the one that its frame brought."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from dcaf import Session
from dcaf.asgi import websocket
from tests.asgi.sockets import Agent, Peer
from tests.asgi.wire import JSON_TYPE, Recorder, call, envelope, mounted

CLOCK = {"clock": lambda: 1_900_000_000}
SETTINGS: dict[str, dict[str, Any]] = {
    "signed": {},
    "encrypted": {"encrypt": True, "mirror": True},
    "a plain route": {"plain": ("/ws", "/api/chat")},
    "without a mirror": {"mirror": False},
    "restarting": {"on_refused": "restart"},
}
CHOICES = ("small", "large", "none")


def branches_of(first: Any, **settings: Any) -> dict[str, Any]:
    """What a person got who went back and answered in several ways."""

    def choose(body: bytes) -> Any:
        return lambda session: session.update(choice=json.loads(body)["choice"], cart=[json.loads(body)["choice"]])

    made = {}
    for choice in CHOICES:
        asked = {"choice": choice, "data": {"session": first}}
        app = Recorder(tool=choose(json.dumps(asked).encode()))
        made[choice] = call(mounted(app, **CLOCK, **settings), asked).envelope
    return made


def begun(**settings: Any) -> Any:
    return call(mounted(Recorder(tool=lambda session: session.set("begun", True)), **CLOCK, **settings), {}).envelope


class Talk:
    """An endpoint that keeps what it has of the session, and counts in it where it is told to."""

    def __init__(self, *, counts: bool = False) -> None:
        self.counts = counts
        self.agent = Agent(self.look)
        self.found: list[Any] = []
        self.handles: list[Any] = []

    def look(self, session: Session) -> None:
        self.found.append((session["choice"], [*session["cart"]]))
        self.handles.append(session["cart"])
        if self.counts:
            session.incr("n")


def state_of(sealed: Any, **settings: Any) -> Any:
    app = Recorder()
    call(mounted(app, **CLOCK, **settings), {"data": {"session": sealed}})
    return app.states[0]


def assert_told_apart(order: tuple[str, ...], place: str, talk: Talk, **settings: Any) -> None:
    """The law: the session object, what the application reads in the frame, and what is sealed are of the branch that came."""
    made = branches_of(begun(**settings), **settings)
    with Peer(mounted(talk.agent, **CLOCK, **settings)) as peer:
        for choice in order:
            data = {"data": {"session": made[choice]}}
            sealed = peer.ask(
                data if place == "the frame" else {"messages": [{"data": {"session": envelope({"choice": "old"})}}, data]}
            )
            assert talk.found[-1] == (choice, [choice])
            if settings.get("mirror") is None:
                read = talk.agent.seen if place == "the frame" else talk.agent.seen["messages"][1]
                assert read["data"]["session"]["choice"] == choice
            found = state_of(sealed["data"]["session"], **settings)
            assert (found["choice"], found["cart"], found.get("n")) == (choice, [choice], 1 if talk.counts else None)


@pytest.mark.parametrize("counts", [False, True], ids=["read", "written"])
@pytest.mark.parametrize("place", ["the frame", "a message"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_session_of_a_turn_is_the_one_that_its_frame_brought(settings: str, place: str, counts: bool) -> None:
    for order in itertools.product(CHOICES[:2], repeat=3):
        assert_told_apart((*order, "none"), place, Talk(counts=counts), **SETTINGS[settings])


@pytest.mark.parametrize("settings", SETTINGS)
def test_branches_are_of_one_session_and_have_one_number(settings: str) -> None:
    """What makes them hard to tell apart: claim by claim they are equal."""
    found = []
    for sealed in branches_of(begun(**SETTINGS[settings]), **SETTINGS[settings]).values():
        app = Recorder()
        call(mounted(app, **CLOCK, **SETTINGS[settings]), {"data": {"session": sealed}})
        session = app.scopes[0]["dcaf.session"]
        found.append((session.id, session.sequence, session.created_at, session.expires_at))
    assert len({*found}) == 1


@pytest.mark.parametrize("settings", SETTINGS)
def test_control_claims_taken_for_the_identity_of_a_state_are_caught(settings: str, monkeypatch: Any) -> None:
    def is_same(arrived: Session, kept: Session) -> bool:
        one, other = arrived._standing, kept._standing
        return one is not None and other is not None and one.claims == other.claims

    monkeypatch.setattr(websocket, "_is_echo", is_same)
    with pytest.raises(AssertionError):
        assert_told_apart(("small", "large"), "the frame", Talk(), **SETTINGS[settings])


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_was_handed_out_of_one_branch_changes_nothing_in_the_other(settings: str) -> None:
    made = branches_of(begun(**SETTINGS[settings]), **SETTINGS[settings])
    talk = Talk()
    with Peer(mounted(talk.agent, **CLOCK, **SETTINGS[settings])) as peer:
        peer.ask({"data": {"session": made["small"]}})
        talk.handles[0].append("of the first branch")
        sealed = peer.ask({"data": {"session": made["large"]}})
        talk.handles[0].append("again")
        assert state_of(sealed["data"]["session"], **SETTINGS[settings])["cart"] == ["large"]
        again = peer.ask({"messages": []})
        assert state_of(again["data"]["session"], **SETTINGS[settings])["cart"] == ["large"]
    assert talk.found[-1] == ("large", ["large"])


@pytest.mark.parametrize("by", ["header", "cookie"])
def test_the_branch_of_a_handshake_gives_way_to_that_of_a_frame(by: str) -> None:
    made = branches_of(begun())
    token = made["small"]["dcaf"]["token"].encode()
    own = (b"cookie", b"__Host-dcaf=" + token) if by == "cookie" else (b"dcaf-session", token)
    talk = Talk()
    with Peer(mounted(talk.agent, carriers=("body", by), **CLOCK), headers=[own]) as peer:
        assert state_of(peer.ask({})["data"]["session"])["choice"] == "small"
        assert state_of(peer.ask({"data": {"session": made["large"]}})["data"]["session"])["choice"] == "large"
        assert state_of(peer.ask({})["data"]["session"])["choice"] == "large"
    assert [choice for choice, _ in talk.found] == ["small", "large", "large"]


@pytest.mark.parametrize("by", ["header", "cookie", "body"])
def test_over_http_each_request_has_its_own_branch_however_they_alternate(by: str) -> None:
    made = branches_of(begun())
    app = Recorder()
    service = mounted(app, carriers=(by,), **CLOCK)
    for choice in ("small", "large", "small", "none", "large"):
        token = made[choice]["dcaf"]["token"].encode()
        headers = {"cookie": [(b"cookie", b"__Host-dcaf=" + token)], "header": [(b"dcaf-session", token)], "body": []}[by]
        call(service, {"data": {"session": made[choice]}} if by == "body" else {}, headers=(JSON_TYPE, *headers))
        assert app.states[-1] == {"begun": True, "choice": choice, "cart": [choice]}
