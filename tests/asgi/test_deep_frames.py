"""A frame that is nested too deep is an error frame, and the connection goes on: with what was stored, and what it had."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from dcaf.asgi import Import, json_sessions
from tests.asgi.sockets import Agent, Peer
from tests.asgi.wire import Recorder, call, envelope, mounted, opened

TOKEN = envelope({"n": 1})["dcaf"]["token"]
DEPTHS = (66, 130, 253, 254, 255, 300, 1_000, 1_030, 40_000)  # more is refused by the number of its brackets
SHAPES = {
    "arrays": ("[", "1", "]"),
    "objects": ('{"a":', "1", "}"),
    "both": ('[{"a":', "1", "}]"),
    "spaced": ('{ "a" : ', "1 ", "} "),
}
PLACES = {
    "at data.session": '{"data":{"session":@}}',
    "in a message": '{"messages":[{"data":{"session":@}}]}',
    "beside a valid token": '{"data":{"session":{"dcaf":{"token":"TOKEN"},"x":@}}}',
    "beside it, spaced": '{ "data" : { "session" : { "x" : @ , "dcaf" : { "token" : "TOKEN" } } } }',
    "as the library's member": '{"data":{"session":{"dcaf":@}}}',
    "as a token": '{"data":{"session":{"dcaf":{"token":@}}}}',
    "beside the session": '{"data":{"x":@,"session":{"dcaf":{"token":"TOKEN"}}}}',
    "where the conversation is": '{"thread":@}',
    "behind an escape": '{"d\\u0061ta":{"session":@}}',
    "twice": '{"messages":[{"data":{"session":@}},{"data":{"session":{"a": 1}}}]}',
}
SETTINGS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "plain sessions are taken in": {"unsigned": Import(until=datetime(2999, 1, 1, tzinfo=UTC), accept=lambda plain: plain)},
    "plain sessions are ignored": {"unsigned": "ignore", "on_refused": "restart"},
    "a plain route": {"plain": ("/ws",)},
    "a conversation": {"conversation": "/thread/a/a"},
    "frames carry nothing": {"carriers": ("cookie",)},
}


def nested(depth: int, shape: str) -> str:
    begin, middle, end = SHAPES[shape]
    return begin * depth + middle + end * depth


def frames(place: str) -> list[str]:
    made = [PLACES[place].replace("@", nested(depth, shape)) for depth in DEPTHS for shape in SHAPES]
    return [frame.replace("TOKEN", TOKEN) for frame in made]


def count(session: Any) -> None:
    session.incr("n")


def assert_the_socket_goes_on(frame: str, **settings: Any) -> bool:
    """The law: the frame is answered, as a turn or as an error, and so is the next one. Gives whether it was refused."""
    with Peer(mounted(Agent(count), **settings)) as peer:
        first = peer.ask({"thread": {"a": {"a": "1"}}})
        answer = peer.ask(frame)
        assert answer["type"] in ("done", "error")
        if answer["type"] == "error":
            assert answer["code"] in ("malformed-json", "session-unsigned", "session-malformed", "session-invalid")
        after = peer.ask({"thread": {"a": {"a": "1"}}})
        assert after["type"] == "done" or (answer["type"] == "done" and after["code"] == "session-invalid")
        if answer["type"] == "error" and settings.get("carriers") is None:
            assert opened_freely(after)["n"] == opened_freely(first)["n"] + 1
        peer.leave()
        return bool(answer["type"] == "error")


def opened_freely(frame: Any) -> Any:
    return frame["data"]["session"]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("place", PLACES)
def test_no_depth_at_any_place_of_a_frame_ends_a_connection(place: str, settings: str) -> None:
    for frame in frames(place)[:: 1 if settings == "as usual" else 5]:
        assert_the_socket_goes_on(frame, **SETTINGS[settings])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", ["at data.session", "in a message"])
def test_one_that_is_no_session_of_ours_is_refused_at_every_depth(place: str, shape: str) -> None:
    for depth in DEPTHS:
        assert assert_the_socket_goes_on(PLACES[place].replace("@", nested(depth, shape)))


def test_what_was_stored_before_such_a_frame_and_not_sent_is_kept() -> None:
    with Peer(mounted(Agent(count, before=lambda session: session.set("early", 1)))) as peer:
        assert peer.ask(PLACES["at data.session"].replace("@", nested(300, "objects")))["type"] == "error"
        assert opened(peer.ask({})["data"]["session"]) == {"early": 1, "n": 1}


def test_binary_frames_alike() -> None:
    with Peer(mounted(Agent(count))) as peer:
        for depth in DEPTHS:
            assert peer.ask(PLACES["at data.session"].replace("@", nested(depth, "objects")).encode())["type"] == "error"
        assert peer.ask({})["type"] == "done"


@pytest.mark.parametrize("carriers", [("body",), ("header",), ("cookie",), ("body", "cookie")], ids=", ".join)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_body_alike_whatever_carries_the_session(method: str, place: str, carriers: Any) -> None:
    for frame in frames(place)[::3]:
        assert call(mounted(Recorder(), carriers=carriers), frame.encode(), method=method).status in (200, 400)


@pytest.mark.parametrize("place", ["at data.session", "in a message"])
def test_control_what_is_read_deeper_than_it_can_be_written_is_caught(place: str, monkeypatch: Any) -> None:
    def writes(value: Any) -> bytes | None:
        return orjson.dumps(value)

    monkeypatch.setattr(json_sessions, "_write", writes)
    with pytest.raises(TypeError):
        assert_the_socket_goes_on(PLACES[place].replace("@", nested(300, "objects")))
