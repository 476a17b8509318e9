from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from dcaf.asgi import websocket
from dcaf.asgi import websocket as module
from dcaf.asgi.config import is_done
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.asgi.operator_events import Events
from dcaf.asgi.streams import checkpoint
from dcaf.asgi.websocket import SessionWebSocket
from dcaf.core import Key, Keyring, Session, current_session
from dcaf.core.errors import ConfigurationError, SessionAliasError, SessionConflict, SessionEnded, SessionUnavailable
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED
from dcaf.core.state import State
from dcaf.testing import tampered
from tests.asgi.sockets import DONE, Agent, Peer
from tests.asgi.wire import AUDIENCE, RING, envelope, mounted, opened
from tests.stores_for_tests import ToldStore

STEP = {"step": 2}
NEW = {"dcaf": {"token": "new"}}
PLAIN = {"step": 99, "admin": True}
TERMINAL = DONE.decode()
TERMINAL_OF = '{"type":"done","data":{"session":'


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


def count(session: Any) -> None:
    session.incr("step")


def carrying(session: Any, **members: Any) -> Any:
    return {"data": {"session": session}, **members}


def state_in(frame: Any) -> Any:
    """What the session of a frame is sealed over."""
    return opened(frame["data"]["session"])


def claims_in(frame: Any) -> Any:
    text = frame["data"]["session"]["dcaf"]["token"]
    return json.loads(SIGNED.open(text.encode(), RING, AUDIENCE).claims)


def error(code: Any, *, restart: Any) -> Any:
    return {"type": "error", "code": code, **({"data": {"session": NEW}} if restart else {})}


def told(events: Any) -> Any:
    return [(event.name, event.code, event.reason) for event in events]


class Typed(Session):
    """A view made before the first frame."""

    step: int = 0


# One session object


class Objects:
    """Everything in which one connection may see the session."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.views: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        session, view = scope["dcaf.session"], Typed.of(scope["dcaf.session"])
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            in_thread = await asyncio.to_thread(current_session)
            self.seen.append({id(session), id(current_session()), id(scope["session"]), id(scope["dcaf.session"]), id(in_thread)})
            self.views.append((session.to_dict(), view.step, Typed.of(current_session()).step))
            await send({"type": "websocket.send", "text": TERMINAL})


def assert_one_object() -> None:
    app = Objects()
    with Peer(mounted(app)) as peer:
        for session in (None, envelope({"step": 2}), None, envelope({"step": 7})):
            peer.ask(carrying(session))
    assert len(set.union(*app.seen)) == 1
    assert app.views == [({}, 0, 0), ({"step": 2}, 2, 2), ({"step": 2}, 2, 2), ({"step": 7}, 7, 7)]


def test_a_connection_has_one_session_object_that_each_frame_with_a_session_refills() -> None:
    assert_one_object()


def test_control_a_socket_that_does_not_refill_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(State, "refill", lambda self, other: None)
    with pytest.raises(AssertionError):
        assert_one_object()


def test_starlettes_endpoint_and_current_session_share_the_object() -> None:
    seen = []

    async def endpoint(ws: Any) -> None:
        await ws.accept()
        with suppress(WebSocketDisconnect):
            while True:
                body = await ws.receive_json()
                seen.append((body, ws.session is current_session() is ws.scope["dcaf.session"]))
                ws.session.incr("step")
                await ws.send_json({"type": "done"})

    service = mounted(Starlette(routes=[WebSocketRoute("/ws", endpoint)]))
    with TestClient(service).websocket_connect("/ws") as client:
        client.send_json(carrying(envelope(STEP), text="next"))
        answer = client.receive_json()
        assert state_in(answer) == {"step": 3}
        client.send_json({"text": "next"})
        assert state_in(client.receive_json()) == {"step": 4}
        client.send_json(carrying(answer["data"]["session"]))
        assert state_in(client.receive_json()) == {"step": 4}
    assert seen == [(carrying(STEP, text="next"), True), ({"text": "next"}, True), (carrying({"step": 3}), True)]


def test_a_task_and_a_thread_of_the_connection_hold_the_same_session() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def work() -> None:
            current_session().incr("step")
            await asyncio.to_thread(lambda: current_session().incr("step"))

        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await asyncio.create_task(work())
            await send({"type": "websocket.send", "text": TERMINAL})

    with Peer(mounted(app)) as peer:
        assert state_in(peer.ask(carrying(envelope(STEP)))) == {"step": 4}
        assert state_in(peer.ask({})) == {"step": 6}


def test_the_verified_state_stands_where_the_session_came_in_and_every_other_is_gone() -> None:
    app = Agent()
    said = {
        "n": 12345678901234567890,
        "messages": [
            {"data": {"session": PLAIN}},
            {"data": {"session": {**envelope(STEP), "step": 99}, "kept": 1.0}},
            {"data": {"session": {}}},
        ],
    }
    with Peer(mounted(app)) as peer:
        assert state_in(peer.ask(said)) == STEP
    assert app.texts == [
        '{"n": 12345678901234567890, "messages": [{"data": {}}, {"data": {"session": {"step":2}, "kept": 1.0}}, {"data": {}}]}'
    ]


# Before the first frame


def assert_kept_before_the_first_frame() -> None:
    app, events = Agent(count, before=lambda session: session.set("greeted", True)), list[Any]()
    with Peer(mounted(app, on_event=events.append)) as peer:
        assert state_in(peer.ask({"text": "hi"})) == {"greeted": True, "step": 1}
    assert events == []


def test_what_was_stored_before_the_first_frame_is_kept_by_one_without_a_session() -> None:
    assert_kept_before_the_first_frame()


@pytest.mark.parametrize("placeholder", [None, {}])
def test_a_placeholder_for_a_session_is_no_session(placeholder: Any) -> None:
    app = Agent(count, before=lambda session: session.set("greeted", True))
    with Peer(mounted(app)) as peer:
        assert state_in(peer.ask(carrying(placeholder))) == {"greeted": True, "step": 1}
    assert app.seen == {"data": {}}


def test_control_a_socket_that_begins_anew_with_each_frame_is_caught(monkeypatch: Any) -> None:
    original = ASGITurn.open
    monkeypatch.setattr(ASGITurn, "open", lambda self, before=None: original(self))
    with pytest.raises(AssertionError):
        assert_kept_before_the_first_frame()


def test_what_was_stored_before_a_frame_with_a_session_is_told_as_lost() -> None:
    app, events = Agent(count, before=lambda session: session.set("greeted", True)), list[Any]()
    with Peer(mounted(app, on_event=events.append)) as peer:
        assert state_in(peer.ask(carrying(envelope(STEP)))) == {"step": 3}
    assert [(event.name, event.route) for event in events] == [("lost", "/ws")]


def test_an_unmodified_session_is_replaced_without_a_word() -> None:
    events: list[Any] = []
    with Peer(mounted(Agent(), on_event=events.append)) as peer:
        peer.ask(carrying(envelope(STEP)))
        peer.ask(carrying(envelope({"step": 5})))
    assert events == []


def test_nothing_is_lost_where_a_checkpoint_told_it_before_the_first_frame() -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        current_session()["greeted"] = True
        await checkpoint()
        await receive()
        await send({"type": "websocket.send", "text": TERMINAL})

    with Peer(mounted(app, on_event=events.append)) as peer:
        assert state_in(peer.frame()) == {"greeted": True}
        assert state_in(peer.ask(carrying(envelope(STEP)))) == STEP
        peer.join()
    assert events == []


def test_a_list_that_one_turn_handed_out_is_still_the_session_s_in_the_next_where_the_client_echoes() -> None:
    kept: list[Any] = []

    def append_to_the_first(session: Any) -> None:
        if not kept:
            session["log"] = []
            kept.append(session["log"])
        kept[0].append("x")

    with Peer(mounted(Agent(append_to_the_first))) as peer:
        first = peer.ask({})
        assert state_in(peer.ask(carrying(first["data"]["session"]))) == {"log": ["x", "x"]}


# A turn for each frame


def test_each_terminal_frame_carries_the_session_as_it_is_then() -> None:
    with Peer(mounted(Agent(count))) as peer:
        frames = [peer.ask({"n": n}) for n in range(4)]
    assert [state_in(frame) for frame in frames] == [{"step": n} for n in (1, 2, 3, 4)]
    assert [claims_in(frame)["seq"] for frame in frames] == [1, 2, 3, 4]
    assert len({claims_in(frame)["sid"] for frame in frames}) == 1


def test_an_untouched_turn_keeps_its_number() -> None:
    with Peer(mounted(Agent())) as peer:
        frames = [peer.ask(carrying(envelope(STEP, sequence=5))), peer.ask({}), peer.ask({})]
    assert [claims_in(frame)["seq"] for frame in frames] == [5, 5, 5]


def test_no_session_goes_out_where_none_came_in_and_nothing_was_stored() -> None:
    with Peer(mounted(Agent())) as peer:
        assert peer.ask({}) == {"type": "done"}


def test_two_terminal_frames_of_one_turn_both_carry_the_session() -> None:
    with Peer(mounted(Agent(count, TERMINAL, TERMINAL))) as peer:
        first = peer.ask({})
        assert peer.frame() == first
        assert state_in(first) == {"step": 1}


def test_frames_that_end_no_turn_pass_byte_for_byte() -> None:
    texts = [
        '{ "type":"delta","n":12345678901234567890,"x":1.0,"x":2 }',
        '{"type":"delta","session":{"mine":1},"data":{"note":{"session":{"mine":1}}}}',
        '{"nested":{"type":"done"}}',
        '["done"]',
        '"done"',
        "done",
        "",
        "{broken",
        b"\x00\xff",
        b'{"type": "delta"}',
        b"",
    ]
    with Peer(mounted(Agent(count, *texts, TERMINAL))) as peer:
        peer.say({})
        assert [peer.hear_text() for _ in texts] == texts
        assert state_in(peer.frame()) == {"step": 1}


def test_every_byte_outside_the_session_of_a_terminal_frame_stays() -> None:
    text = '{ "n": 12345678901234567890, "data": {"x": 1.0, "session": {"mine": 1}}, "type": "d\\u006fne" }'
    with Peer(mounted(Agent(count, text))) as peer:
        peer.say({})
        found = peer.hear_text()
    sealed_text = json.dumps(json.loads(found)["data"]["session"], separators=(",", ":"))
    assert found == text.replace('{"mine": 1}', sealed_text)


def assert_completed_or_preceded(data: Any) -> None:
    text = json.dumps({"type": "done", "data": data})
    with Peer(mounted(Agent(count, text))) as peer:
        own = peer.ask({})
        assert own["type"] == "session"
        assert state_in(own) == {"step": 1}
        assert peer.hear_text() == text
        assert state_in(peer.ask({})) == {"step": 2}


@pytest.mark.parametrize("data", [[], "x", 7, False])
def test_a_terminal_frame_without_room_has_a_frame_of_its_own_before_it(data: Any) -> None:
    assert_completed_or_preceded(data)


def test_control_a_socket_that_forgets_the_frame_before_is_caught(monkeypatch: Any) -> None:
    async def _send_event(self: Any, *, ends_turn: Any, as_bytes: Any) -> None:
        return

    monkeypatch.setattr(SessionWebSocket, "_send_event", _send_event)
    with pytest.raises(AssertionError):
        assert_completed_or_preceded([])


def test_terminal_says_which_frame_ends_a_turn() -> None:
    texts = ('{"type":"done"}', '{"kind":"answer"}')
    service = mounted(Agent(count, *texts), terminal=lambda name, value: name is None and value == {"kind": "answer"})
    with Peer(service) as peer:
        assert peer.ask({}) == {"type": "done"}
        assert state_in(peer.frame()) == {"step": 1}


def test_a_terminal_frame_over_the_limit_has_the_session_before_it_and_ends_its_turn() -> None:
    text = json.dumps({"type": "done", "text": "x" * 1_000})
    with Peer(mounted(Agent(count, text), max_response_bytes=500)) as peer:
        own = peer.ask({})
        assert own["type"] == "session"
        assert state_in(own) == {"step": 1}
        assert peer.hear_text() == text
        assert peer.ask({})["type"] == "session"


# One turn at a time


class Slow:
    """Ends its turn when it is told to by a text that is no JSON."""

    def __init__(self) -> None:
        self.texts: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.texts.append(message["text"])
            if message["text"] == "end":
                current_session().incr("step")
                await send({"type": "websocket.send", "text": TERMINAL})


def assert_one_turn_at_a_time() -> None:
    app, events = Slow(), list[Any]()
    with Peer(mounted(app, on_event=events.append)) as peer:
        peer.say(carrying(envelope(STEP)), {"second": 1}, carrying(envelope({"step": 50})), "{broken", carrying(PLAIN))
        assert [peer.frame() for _ in range(4)] == [error("session-conflict", restart=False)] * 4
        assert state_in(peer.ask("end")) == {"step": 3}
        assert app.texts == ['{"data": {"session": {"step":2}}}', "end"]
        peer.say({"third": 1})
        assert state_in(peer.ask("end")) == {"step": 4}
    assert told(events) == [("refused", "session-conflict", "busy")] * 4


def test_a_second_frame_before_the_end_of_the_turn_is_refused_and_the_turn_goes_on() -> None:
    assert_one_turn_at_a_time()


def test_control_a_socket_that_is_never_busy_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(SessionWebSocket, "_is_busy", property(lambda self: False, lambda self, value: None), raising=False)
    with pytest.raises(AssertionError):
        assert_one_turn_at_a_time()


# Refused frames

LATER = Keyring(Key.generate("k7"))
DEEP = '{"data":{"session":%s}}'
REFUSED: dict[str, tuple[Any, Any, Any]] = {
    "unsigned": (carrying(PLAIN), "session-unsigned", True),
    "unsigned in a message": ({"messages": [{"data": {"session": PLAIN}}]}, "session-unsigned", True),
    "a list": (carrying([]), "session-malformed", True),
    "a text": (carrying("x"), "session-malformed", True),
    "no token": (carrying({"dcaf": {}}), "session-malformed", True),
    "tampered": (carrying(tampered(envelope(STEP))), "session-invalid", True),
    "another key": (carrying(envelope(STEP, keys=LATER)), "session-invalid", True),
    "another audience": (carrying(envelope(STEP, audience="other")), "session-invalid", True),
    "another subject": (carrying(envelope(STEP, subject="eve")), "session-invalid", True),
    "another conversation": (carrying(envelope(STEP, conversation="t-9")), "session-invalid", True),
    "the future": (carrying(envelope(STEP, age=timedelta(hours=-1))), "session-invalid", True),
    "expired": (carrying(envelope(STEP, age=timedelta(days=8))), "session-ended", True),
    "too old": (carrying(envelope(STEP, age=timedelta(days=31))), "session-ended", True),
    "no JSON": ("{broken", "malformed-json", False),
    "NaN": ('{"data":{"session":{"planted":1}},"x":NaN}', "malformed-json", False),
    "a duplicate": ('{"data":{"session":{"planted":1}},"data":{}}', "malformed-json", False),
    "a duplicate within": ('{"data":{"session":{"planted":1},"session":{}}}', "malformed-json", False),
    "a lone surrogate escaped": ('{"data":{"session":{"planted":1}},"x":"\\ud800"}', "malformed-json", False),
    "a lone surrogate": ('{"data":{"session":{"planted":1}},"x":"\ud800"}', "malformed-json", False),
    "a byte order mark": ('\ufeff{"data":{"session":{"planted":1}}}', "malformed-json", False),
    "a byte order mark in bytes": (b'\xef\xbb\xbf{"data":{"session":{"planted":1}}}', "malformed-json", False),
    "UTF-16": ('{"data":{"session":{"planted":1}}}'.encode("utf-16"), "malformed-json", False),
    "depth": (DEEP % ("[" * 2_000 + "]" * 2_000), "malformed-json", False),
}


def assert_refused(said: Any, expected: Any, **settings: Any) -> None:
    """Answered with the error alone; not told to the application; and the connection goes on with the session it had."""
    app = Agent(count)
    as_bytes = isinstance(said, bytes)
    with Peer(mounted(app, **settings)) as peer:
        peer.ask(carrying(envelope({"step": 5})))
        peer.say(said)
        message = peer.hear()
        found = message["bytes" if as_bytes else "text"]
        assert json.loads(found) == expected
        assert len(app.messages) == 1
        assert state_in(peer.ask({})) == {"step": 7}
        assert app.ends == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_frame_is_answered_with_its_code_and_never_reaches_the_application(name: Any) -> None:
    said, code, restart = REFUSED[name]
    assert_refused(said, error(code, restart=restart))


@pytest.mark.parametrize("name", ["unsigned", "tampered", "NaN", "UTF-16"])
def test_control_a_socket_that_passes_on_what_it_refuses_is_caught(name: Any, monkeypatch: Any) -> None:
    original = SessionWebSocket._open

    async def _open(self: Any, message: Any, data: Any) -> Any:
        try:
            return await original(self, message, data)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            return message

    monkeypatch.setattr(SessionWebSocket, "_open", _open)
    said, code, restart = REFUSED[name]
    with pytest.raises((AssertionError, KeyError)):
        assert_refused(said, error(code, restart=restart))


@pytest.mark.parametrize(
    ("said", "code", "settings"),
    [
        (json.dumps({"x": "y" * 2_000}), "body-too-large", {"max_body_bytes": 1_500}),
        (json.dumps({"x": "y" * 2_000}).encode(), "body-too-large", {"max_body_bytes": 1_500}),
        ("{" + '"a":[{}' + ",{}" * 200_000 + "]}", "body-too-large", {}),
        (json.dumps(carrying(envelope({"x": "y" * 2_000}))), "session-too-large", {"max_token_bytes": 1_500}),
    ],
    ids=["text", "bytes", "structure", "token"],
)
def test_what_is_too_large_is_answered_and_the_connection_closed(said: Any, code: Any, settings: Any) -> None:
    app = Agent(count)
    with Peer(mounted(app, **settings)) as peer:
        peer.ask({})
        peer.say(said)
        assert peer.frame() == error(code, restart=False)
        assert peer.hear() == {"type": "websocket.close", "code": 1009, "reason": code}
        peer.join()
    assert len(app.messages) == 1
    assert app.ends == [{"type": "websocket.disconnect", "code": 1009}]


def test_what_no_frame_carried_goes_out_before_the_connection_is_closed_for_size() -> None:
    app, events = Agent(before=lambda session: session.set("greeted", True)), list[Any]()
    with Peer(mounted(app, max_body_bytes=100, on_event=events.append)) as peer:
        peer.say({"x": "y" * 200})
        *frames, closing = peer.settle()
    own = [json.loads(frame["text"]) for frame in frames if '"session"' in frame["text"]]
    assert [state_in(frame) for frame in own] == [{"greeted": True}]
    assert closing["code"] == 1009
    assert [event.name for event in events] == ["refused"]


def test_a_frame_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    text = json.dumps({"x": "y" * 100})
    for limit, closed in ((len(text), False), (len(text) - 1, True)):
        app = Agent(count)
        with Peer(mounted(app, max_body_bytes=limit)) as peer:
            assert peer.ask(text)["type"] == ("error" if closed else "done")
            assert bool(peer.settle()) is closed


def test_a_frame_that_is_no_json_has_no_limit() -> None:
    app = Agent(None, "x")
    with Peer(mounted(app, max_body_bytes=10)) as peer:
        peer.say("y" * 1_000, b"\xff" * 1_000)
        assert [peer.hear_text() for _ in range(2)] == ["x", "x"]
    assert app.texts == ["y" * 1_000, b"\xff" * 1_000]


def test_a_refusal_is_written_to_a_client_that_has_left_without_an_exception() -> None:
    app = Agent(count)
    with Peer(mounted(app)) as peer:
        peer.ask({})
        peer.gone = True
        peer.say("{broken")
        peer.leave(1006)
    assert app.ends == [{"type": "websocket.disconnect", "code": 1006}]


# Restarting, ignoring


@pytest.mark.parametrize("name", [name for name, (_, _, restart) in REFUSED.items() if restart])
def test_restart_begins_an_empty_session_in_place_of_a_refused_one(name: Any) -> None:
    said, code, _ = REFUSED[name]
    app, events = Agent(lambda session: session.set("why", session.restarted)), list[Any]()
    with Peer(mounted(app, on_refused="restart", on_event=events.append)) as peer:
        assert state_in(peer.ask(said)) == {"why": code}
    assert app.states == [{}]
    assert [(event.name, event.code) for event in events] == [("restarted", code)]


def test_restart_does_not_take_a_frame_that_cannot_be_read() -> None:
    assert_refused("{broken", error("malformed-json", restart=False), on_refused="restart")


def test_restart_begins_anew_where_the_socket_s_own_session_has_ended() -> None:
    now = [time.time()]
    app = Agent(count)
    with Peer(mounted(app, on_refused="restart", clock=lambda: now[0])) as peer:
        first = peer.ask(carrying(envelope(STEP)))
        now[0] += 8 * 86_400
        assert peer.ask({})["type"] == "done"
        assert app.states == [STEP, {}]
        assert app.session.restarted == "session-ended"
        assert claims_in(peer.ask({}))["sid"] != claims_in(first)["sid"]


def test_ignore_begins_an_empty_session_in_place_of_a_plain_one() -> None:
    app = Agent(count)
    with Peer(mounted(app, unsigned="ignore")) as peer:
        assert state_in(peer.ask(carrying(PLAIN))) == {"step": 1}
    assert app.seen == carrying({})
    assert app.states == [{}]


def test_the_wish_for_a_new_session_replaces_the_one_of_the_socket() -> None:
    app = Agent(count)
    with Peer(mounted(app)) as peer:
        first = peer.ask(carrying(envelope(STEP)))
        fresh = peer.ask(carrying(NEW))
    assert app.states == [STEP, {}]
    assert state_in(fresh) == {"step": 1}
    assert claims_in(fresh)["sid"] != claims_in(first)["sid"]


# Judged again at each frame


def assert_ended_meanwhile() -> None:
    now = [time.time()]
    app = Agent(count)
    with Peer(mounted(app, clock=lambda: now[0])) as peer:
        peer.ask(carrying(envelope(STEP)))
        now[0] += 7 * 86_400 + 60
        assert peer.ask({})["type"] == "done"
        now[0] += 7 * 86_400 + 61
        assert peer.ask({}) == error("session-ended", restart=True)
        assert len(app.messages) == 2
        assert peer.ask(carrying(NEW))["data"]["session"]["step"] == 1


def test_a_session_that_ended_meanwhile_is_refused_at_the_next_frame() -> None:
    assert_ended_meanwhile()


def test_control_a_socket_that_does_not_judge_again_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(Sealer, "recheck", lambda self, session: None)
    with pytest.raises(AssertionError):
        assert_ended_meanwhile()


def test_no_number_of_turns_on_a_socket_passes_the_absolute_end() -> None:
    start = time.time()
    now = [start]
    with Peer(mounted(Agent(count), clock=lambda: now[0])) as peer:
        born = claims_in(peer.ask({}))["born"]
        for day in range(1, 31):
            now[0] = start + day * 86_400
            assert claims_in(peer.ask({}))["exp"] <= born + 30 * 86_400
        now[0] = start + 30 * 86_400 + 62
        assert peer.ask({}) == error("session-ended", restart=True)


def test_the_token_rests_until_a_tenth_of_the_idle_timeout_is_over() -> None:
    arriving, worn_s = {"data": {"session": envelope(STEP)}}, 7 * 86_400 // 10
    now = [float(claims_in(arriving)["iat"])]
    with Peer(mounted(Agent(), clock=lambda: now[0])) as peer:
        first = peer.ask(arriving)
        now[0] += worn_s
        second = peer.ask({})
        now[0] += 1
        third = peer.ask({})
    assert second["data"] == first["data"]
    assert claims_in(third)["iat"] - claims_in(first)["iat"] == worn_s + 1
    assert claims_in(third)["exp"] - claims_in(first)["exp"] == worn_s + 1
    assert third["data"]["session"]["dcaf"]["expires_at"] == claims_in(third)["exp"]


def assert_opened_each_time() -> None:
    store = ToldStore()
    app = Agent(count)
    with Peer(mounted(app, store=store)) as peer:
        peer.ask({})
        assert store.numbers == [None, None], "at the handshake, and at the first frame"
        peer.ask({})
        peer.ask({})
        assert store.numbers == [None, None, 1, 2]
        for refusal, code, restart in (
            (SessionEnded(reason="revoked"), "session-ended", True),
            (SessionConflict(reason="claim"), "session-conflict", False),
            (SessionUnavailable(), "session-unavailable", False),
            (OSError("db:5432 is away"), "session-unavailable", False),
        ):
            store.happening["open"] = refusal
            ran = {"ran": False} if code == "session-unavailable" else {}
            assert peer.ask({}) == {**error(code, restart=restart), **ran}
        store.happening.clear()
        assert state_in(peer.ask({})) == {"step": 4}
        assert len(app.messages) == 4


def test_the_store_opens_the_session_again_at_each_frame() -> None:
    assert_opened_each_time()


def test_control_a_socket_that_asks_the_store_once_is_caught(monkeypatch: Any) -> None:
    async def _start_or_go_on(self: Any, before: Any) -> Any:
        self.session, self.arrived = before.session, True

    monkeypatch.setattr(ASGITurn, "_start_or_go_on", _start_or_go_on)
    with pytest.raises(AssertionError):
        assert_opened_each_time()


@pytest.mark.parametrize("refusal", [SessionConflict(reason="claim"), SessionUnavailable()])
def test_a_terminal_frame_that_cannot_be_sealed_becomes_an_error_and_the_turn_is_over(refusal: Any) -> None:
    store, events = ToldStore(), list[Any]()
    with Peer(mounted(Agent(count), store=store, on_event=events.append)) as peer:
        peer.ask({})
        store.happening["commit"] = refusal
        ran = {"ran": True} if isinstance(refusal, SessionUnavailable) else {}
        assert peer.ask({}) == {**error(refusal.code, restart=False), **ran}
        store.happening.clear()
        assert state_in(peer.ask({})) == {"step": 3}
    assert [(event.name, event.code) for event in events] == [("refused", refusal.code)]


def assert_bound(**names: Any) -> None:
    """Whoever the socket's session was sealed for keeps it, and nobody else gets on with it."""
    who = {"subject": "ada"}
    app = Agent(count)
    with Peer(mounted(app, subject=lambda scope: who["subject"], conversation="/thread")) as peer:
        first = peer.ask({"thread": "t-1"})
        who["subject"] = names.get("subject", "ada")
        other = {"thread": names.get("thread", "t-1")}
        assert peer.ask(other) == error("session-invalid", restart=True)
        assert peer.ask(other | carrying(first["data"]["session"])) == error("session-invalid", restart=True)
        assert len(app.messages) == 1
        who["subject"] = "ada"
        assert peer.ask({"thread": "t-1"})["type"] == "done"
        assert app.states[-1] == {"step": 1}


@pytest.mark.parametrize("names", [{"subject": "eve"}, {"subject": None}, {"thread": "t-2"}, {"thread": None}, {"thread": ""}])
def test_another_subject_or_conversation_does_not_go_on_with_the_socket_s_session(names: Any) -> None:
    assert_bound(**names)


def test_control_a_socket_that_is_bound_once_is_caught(monkeypatch: Any) -> None:
    async def _start_or_go_on(self: Any, before: Any) -> Any:
        self.session, self.binding, self.arrived = before.session, before.binding, before.arrived

    monkeypatch.setattr(ASGITurn, "_start_or_go_on", _start_or_go_on)
    with pytest.raises(AssertionError):
        assert_bound(subject="eve")


def test_what_was_stored_for_one_subject_before_the_first_frame_is_not_sealed_for_another() -> None:
    who = ["ada"]
    app = Agent(count, before=lambda session: session.set("for", "ada"))
    with Peer(mounted(app, subject=lambda scope: who[0])) as peer:
        peer.settle()
        who[0] = "eve"
        assert peer.ask({}) == error("session-invalid", restart=True)
        assert app.messages == []


def test_what_could_not_be_sealed_for_one_conversation_does_not_go_on_in_another() -> None:
    store = ToldStore()
    app = Agent(count)
    with Peer(mounted(app, store=store, conversation="/thread")) as peer:
        store.happening["commit"] = SessionUnavailable()
        assert peer.ask({"thread": "t-1"})["type"] == "error"
        store.happening.clear()
        assert peer.ask({"thread": "t-2"}) == error("session-invalid", restart=True)
        assert state_in_of(peer.ask({"thread": "t-1"}), "t-1") == {"step": 2}


def state_in_of(frame: Any, conversation: Any) -> Any:
    sealer = Sealer(keys=RING, audience=AUDIENCE)
    return sealer.open(frame["data"]["session"], sealer.binding(None, conversation)).to_dict()


def test_temporary_keys_end_with_their_turn() -> None:
    found = []

    def tool(session: Any) -> None:
        found.append(session.get("temp:approved"))
        session["temp:approved"] = True
        session.incr("step")

    with Peer(mounted(Agent(tool))) as peer:
        peer.ask({})
        peer.ask({})
    assert found == [None, None]


# The end of a connection


class Ending:
    """Stores something, and ends in one of several ways."""

    def __init__(self, *, closes: Any = False, raises: Any = None, accepts: Any = True, waits: Any = False) -> None:
        self.closes, self.raises, self.accepts, self.waits = closes, raises, accepts, waits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if self.accepts:
            await send({"type": "websocket.accept"})
        if self.waits:
            await receive()
        current_session()["bye"] = 1
        if self.raises:
            raise self.raises
        if self.closes:
            await send({"type": "websocket.close", "code": 1000})


def assert_sent_before_the_end(*, closes: Any) -> None:
    events: list[Any] = []
    with Peer(mounted(Ending(closes=closes), on_event=events.append)) as peer:
        own = peer.frame()
        assert own["type"] == "session"
        assert state_in(own) == {"bye": 1}
        peer.join()
        assert peer.settle() == ([{"type": "websocket.close", "code": 1000}] if closes else [])
    assert events == []


@pytest.mark.parametrize("closes", [True, False])
def test_what_no_frame_carried_goes_out_before_the_end(closes: Any) -> None:
    assert_sent_before_the_end(closes=closes)


def test_control_a_socket_that_only_closes_is_caught(monkeypatch: Any) -> None:
    async def finish(self: Any) -> None:
        return

    monkeypatch.setattr(SessionWebSocket, "finish", finish)
    for closes in (True, False):
        with pytest.raises(AssertionError):
            assert_sent_before_the_end(closes=closes)


def test_nothing_more_goes_out_where_the_last_frame_carried_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        current_session()["step"] = 1
        await send({"type": "websocket.send", "text": TERMINAL})
        await send({"type": "websocket.close", "code": 1000})

    with Peer(mounted(app)) as peer:
        assert state_in(peer.frame()) == {"step": 1}
        assert peer.settle() == [{"type": "websocket.close", "code": 1000}]


def test_nothing_is_sealed_after_an_exception() -> None:
    with Peer(mounted(Ending(raises=RuntimeError("boom")))) as peer:
        with pytest.raises(RuntimeError, match="boom"):
            peer.join()
        assert peer.settle() == []


@pytest.mark.parametrize("closes", [True, False])
def test_a_change_after_the_client_has_left_is_told_once_and_raises_nothing(closes: Any) -> None:
    events: list[Any] = []
    with Peer(mounted(Ending(waits=True, closes=closes), on_event=events.append)) as peer:
        peer.leave()
    assert [(event.name, event.route) for event in events] == [("lost", "/ws")]


def test_a_change_that_the_client_left_before_it_could_be_told_is_lost_once_and_raises_nothing() -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        current_session()["bye"] = 1

    with Peer(mounted(app, on_event=events.append)) as peer:
        peer.gone = True
        peer.say("go")
        peer.join()
    assert [(event.name, event.route) for event in events] == [("lost", "/ws")]


def test_control_a_socket_that_tells_of_no_loss_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(Events, "report_lost_change", lambda self, *_: None)
    for test in (
        test_a_change_that_the_client_left_before_it_could_be_told_is_lost_once_and_raises_nothing,
        test_a_change_after_the_close_is_lost,
    ):
        with pytest.raises(AssertionError):
            test()


def test_a_handshake_that_the_application_refuses_loses_its_change_once() -> None:
    events: list[Any] = []
    with Peer(mounted(Ending(accepts=False, closes=True), on_event=events.append)) as peer:
        assert peer.opening == {"type": "websocket.close", "code": 1000}
        peer.join()
    assert [(event.name, event.route) for event in events] == [("lost", "/ws")]


def test_a_change_after_the_close_is_lost() -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        current_session()["late"] = 1

    with Peer(mounted(app, on_event=events.append)) as peer:
        peer.join()
        assert peer.settle() == [{"type": "websocket.close", "code": 1000}]
    assert [(event.name, event.route) for event in events] == [("lost", "/ws")]


def test_an_end_that_cannot_be_sealed_says_so_in_an_error_frame() -> None:
    store, events = ToldStore(), list[Any]()
    store.happening["commit"] = SessionConflict(reason="claim")
    with Peer(mounted(Ending(closes=True), store=store, on_event=events.append)) as peer:
        assert peer.frame() == error("session-conflict", restart=False)
        assert peer.hear() == {"type": "websocket.close", "code": 1000}
    assert ("refused", "session-conflict", "claim") in told(events)


def test_a_state_that_cannot_be_written_is_the_application_s_error() -> None:
    def two_handles(session: Any) -> None:
        session["cart"] = {"items": []}
        session.get("cart", as_type=dict[str, list[int]])["items"].append(1)
        session.get("cart", as_type=dict[str, Any])["items"].append(2)
        first, second = session.get("cart", as_type=dict[str, list[int]]), session.get("cart")
        first["items"].append(3)
        second["items"].append(4)

    with Peer(mounted(Agent(two_handles))) as peer:
        peer.say({})
        with pytest.raises(SessionAliasError):
            peer.hear()


# Text and bytes


def assert_answered_as_bytes() -> None:
    app = Agent(count, DONE)
    with Peer(mounted(app)) as peer:
        for said, state in ((carrying(envelope(STEP)), {"step": 3}), ({}, {"step": 4})):
            peer.say(json.dumps(said).encode())
            message = peer.hear()
            assert message.get("text") is None
            assert state_in(json.loads(message["bytes"])) == state
        peer.say(b"{broken")
        assert json.loads(peer.hear()["bytes"]) == error("malformed-json", restart=False)
    assert app.texts[0] == b'{"data": {"session": {"step":2}}}'


def test_json_in_bytes_is_read_and_answered_as_bytes() -> None:
    assert_answered_as_bytes()


def test_control_a_socket_that_only_knows_text_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_make_frame", lambda data, *, as_bytes: {"type": "websocket.send", "text": data.decode()})
    with pytest.raises((AssertionError, KeyError)):
        assert_answered_as_bytes()


def test_a_frame_before_a_binary_terminal_frame_is_binary() -> None:
    with Peer(mounted(Agent(count, b'{"type":"done","data":[]}'))) as peer:
        peer.say({})
        assert json.loads(peer.hear()["bytes"])["type"] == "session"
        assert peer.hear()["bytes"] == b'{"type":"done","data":[]}'


@pytest.mark.parametrize("key", ["text", "bytes"])
def test_a_message_that_names_text_and_bytes_with_one_empty_is_read_as_the_other(key: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        answer = {"text": None, "bytes": None, key: TERMINAL if key == "text" else DONE}
        await send({"type": "websocket.send", **answer})

    with Peer(mounted(app)) as peer:
        text = json.dumps(carrying(envelope(STEP)))
        peer._inbound.put_nowait(
            {"type": "websocket.receive", "text": None, "bytes": None, key: text if key == "text" else text.encode()}
        )
        assert state_in(peer.frame()) == STEP
    other = "bytes" if key == "text" else "text"
    assert seen[0][other] is None
    assert json.loads(seen[0][key]) == carrying(STEP)


@pytest.mark.parametrize("said", ["", " ", "hello", '["a"]', '"{}"', "7", "null", b"", b"\x00\x01", b"\xff\xfe", b'["data"]'])
def test_what_is_no_json_object_passes_untouched_and_opens_no_turn(said: Any) -> None:
    app = Agent(None, lambda message: message["bytes"] if message.get("text") is None else message["text"])
    with Peer(mounted(app)) as peer:
        peer.say(said, said)
        assert [peer.hear_text() for _ in range(2)] == [said, said]
    assert app.texts == [said, said]


# Whose word counts


@pytest.mark.parametrize("said", [{}, carrying(envelope({"kept": 1}))])
def test_on_a_named_route_the_terminal_frame_s_own_object_is_the_new_state(said: Any) -> None:
    app = Agent(None, json.dumps({"type": "done", "data": {"session": {"mine": 1}}}))
    with Peer(mounted(app, plain=("/ws",))) as peer:
        assert state_in(peer.ask(said)) == {"mine": 1}
        assert app.session.to_dict() == {"mine": 1}


@pytest.mark.parametrize(("own", "state"), [({}, {}), (None, STEP), ("x", STEP), ({"mine": 1, "dcaf": {"token": "x"}}, STEP)])
def test_on_a_named_route_an_empty_object_clears_and_anything_else_leaves(own: Any, state: Any) -> None:
    app = Agent(None, json.dumps({"type": "done", "data": {"session": own}}))
    with Peer(mounted(app, plain=("/ws",))) as peer:
        assert state_in(peer.ask(carrying(envelope(STEP)))) == state


def test_on_a_named_route_the_session_object_wins_where_it_was_changed() -> None:
    app = Agent(count, json.dumps({"type": "done", "data": {"session": {"mine": 1}}}))
    with Peer(mounted(app, plain=("/ws",))) as peer:
        assert state_in(peer.ask(carrying(envelope(STEP)))) == {"step": 3}


def test_on_a_named_route_only_terminal_frames_are_adopted() -> None:
    app = Agent(None, json.dumps({"type": "delta", "data": {"session": {"mine": 1}}}), TERMINAL)
    with Peer(mounted(app, plain=("/ws",))) as peer:
        peer.ask(carrying(envelope(STEP)))
        assert state_in(peer.frame()) == STEP


def test_on_a_named_route_a_terminal_frame_before_the_first_turn_adopts_nothing() -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()  # a document, say: no JSON object, so no turn
        await send({"type": "websocket.send", "text": TERMINAL_OF + message["text"][1:-1] + "}}"})
        await receive()

    with Peer(mounted(app, plain=("/ws",), on_event=events.append)) as peer:
        found = peer.ask(json.dumps([PLAIN]))
        assert "dcaf" not in found["data"]["session"]


def assert_overwritten(**settings: Any) -> None:
    events: list[Any] = []
    app = Agent(None, json.dumps({"type": "done", "data": {"session": {"mine": 1}}}))
    with Peer(mounted(app, on_event=events.append, **settings)) as peer:
        assert state_in(peer.ask(carrying(envelope(STEP)))) == STEP
        assert state_in(peer.ask({})) == STEP
    assert [(event.name, event.route) for event in events] == [("overwritten", "/ws")]


@pytest.mark.parametrize("settings", [{}, {"plain": ("/other",)}])
def test_on_any_other_route_the_object_of_the_application_is_overwritten_and_told_once(settings: Any) -> None:
    assert_overwritten(**settings)


def test_control_adoption_everywhere_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_overwritten(plain=lambda scope: True)


def test_exempt_routes_are_left_alone() -> None:
    app = Agent(None, '{"type":"done","data":{"session":{"mine":1}}}')
    with Peer(mounted(app, exempt=("/ws",))) as peer:
        assert peer.ask(carrying(PLAIN)) == {"type": "done", "data": {"session": {"mine": 1}}}
        peer.ask("{broken")
    assert [json.loads(text) if text != "{broken" else text for text in app.texts] == [carrying(PLAIN), "{broken"]
    assert app.session is None


# Checkpoints


class Checkpoints:
    """Checkpoints as often as it is told, and keeps what came of it."""

    def __init__(self, *, changes: Any = True) -> None:
        self.changes, self.errors = changes, list[Any]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await checkpoint()
        except ConfigurationError as error:
            self.errors.append(error)
        await send({"type": "websocket.accept"})
        await receive()
        if self.changes:
            current_session().incr("step")
        await checkpoint()
        await checkpoint()
        await send({"type": "websocket.send", "text": '{"type":"delta"}'})
        await send({"type": "websocket.send", "text": TERMINAL})
        await send({"type": "websocket.close", "code": 1000})
        await checkpoint()


def test_a_checkpoint_sends_the_session_at_once_and_once() -> None:
    app = Checkpoints()
    with Peer(mounted(app)) as peer:
        own = peer.ask(carrying(envelope(STEP)))
        assert (own["type"], state_in(own)) == ("session", {"step": 3})
        assert peer.frame() == {"type": "delta"}
        assert state_in(peer.frame()) == {"step": 3}
        with pytest.raises(ConfigurationError, match="where no stream is being sent"):
            peer.join()
    assert len(app.errors) == 1


def test_a_checkpoint_of_a_session_that_is_not_due_sends_nothing() -> None:
    with Peer(mounted(Checkpoints(changes=False))) as peer:
        assert peer.ask({}) == {"type": "delta"}
        assert peer.frame() == {"type": "done"}
        with pytest.raises(ConfigurationError):
            peer.join()


def test_a_checkpoint_that_cannot_be_sealed_says_so_in_an_error_frame() -> None:
    store, events = ToldStore(), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        current_session().incr("step")
        store.happening["commit"] = SessionConflict(reason="claim")
        await checkpoint()
        await receive()

    with Peer(mounted(app, store=store, on_event=events.append)) as peer:
        assert peer.ask({}) == error("session-conflict", restart=False)
    assert told(events) == [("refused", "session-conflict", "claim")]


# The handshake


def nobody(scope: Any) -> Any:
    raise LookupError("ada")


@pytest.mark.parametrize(
    ("subject", "status", "code"),
    [
        (nobody, 503, "session-unavailable"),
        (lambda scope: "", 400, "session-invalid"),
        (lambda scope: 7, 400, "session-invalid"),
    ],
)
def test_a_subject_that_cannot_be_told_refuses_the_handshake(subject: Any, status: int, code: str) -> None:
    app, events = Agent(), list[Any]()
    service = mounted(app, subject=subject, on_event=events.append)
    with Peer(service) as peer:
        assert peer.opening == {"type": "websocket.close", "code": 1008, "reason": code}
        peer.join()
    with Peer(service, extensions={"websocket.http.response": {}}) as peer:
        assert peer.opening["type"] == "websocket.http.response.start"
        assert peer.opening["status"] == status
        assert dict(peer.opening["headers"])[b"content-type"] == b"application/problem+json"
        body = peer.hear()
        assert body["type"] == "websocket.http.response.body"
        assert json.loads(body["body"])["code"] == code
        peer.join()
    assert app.messages == []
    assert app.session is None
    assert told(events) == [("refused", code, "subject")] * 2


def test_starlettes_client_sees_the_refused_handshake_as_a_problem() -> None:
    service = mounted(Agent(), subject=nobody)
    with pytest.raises(WebSocketDenialResponse) as denied, TestClient(service).websocket_connect("/ws"):
        pass
    assert (denied.value.status_code, denied.value.json()["code"]) == (503, "session-unavailable")


def test_control_a_handshake_that_treats_a_failure_as_anonymous_is_caught() -> None:
    app = Agent()
    with Peer(mounted(app, subject=lambda scope: None)) as peer, pytest.raises(AssertionError):
        assert peer.opening["type"] == "websocket.close"


# What others see


def assert_hidden(**settings: Any) -> None:
    app = Agent(count)
    service = mounted(app, encrypt=True, mirror={"step"}, **settings)
    with Peer(service) as peer:
        found = peer.ask(carrying(envelope({"step": 2, "secret": "x"}, encrypt=True)))
        assert app.states == [{"step": 2, "secret": "x"}]
        assert app.seen == carrying({"step": 2})
        shown = found["data"]["session"]
        assert shown.pop("dcaf")["token"].startswith("dcaf1e.")
        assert shown == {"step": 3}
        assert state_keys(peer.ask({})) == {"step", "dcaf"}
        assert app.session.to_dict() == {"step": 4, "secret": "x"}


def state_keys(frame: Any) -> Any:
    return set(frame["data"]["session"])


def test_with_encryption_the_frame_that_the_application_reads_shows_only_mirrored_keys() -> None:
    assert_hidden()


def test_control_a_route_that_shows_the_whole_state_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_hidden(plain=("/ws",), plain_secret=True)


def assert_apart() -> None:
    service = mounted(Agent(count))
    with Peer(service) as ada, Peer(service) as eve:
        one, two = ada.ask(carrying(envelope({"of": "ada"}))), eve.ask({})
        assert (state_in(one), state_in(two)) == ({"of": "ada", "step": 1}, {"step": 1})
        one, two = ada.ask({}), eve.ask({})
        assert (state_in(one), state_in(two)) == ({"of": "ada", "step": 2}, {"step": 2})
        assert claims_in(one)["sid"] != claims_in(two)["sid"]


def test_the_sessions_of_two_sockets_do_not_mix() -> None:
    assert_apart()


def test_control_a_service_that_shares_one_session_is_caught(monkeypatch: Any) -> None:
    shared: list[Any] = []
    original = websocket.open_handshake

    async def first(*arguments: Any) -> Any:
        if not shared:
            shared.append(await original(*arguments))
        return shared[0]

    monkeypatch.setattr("dcaf.asgi.middleware.open_handshake", first)
    with pytest.raises(AssertionError):
        assert_apart()


CANARY = "canary-of-the-state"


def assert_events_say_nothing() -> None:
    events: list[Any] = []
    subject = "ada@canary"
    good = envelope({"x": CANARY}, subject=subject)
    app = Agent(lambda session: session.set("y", CANARY), "no end")
    with Peer(mounted(app, subject=lambda scope: subject, on_event=events.append)) as peer:
        frames = [
            carrying(tampered(good)),
            carrying({"x": CANARY}),
            carrying(envelope({}, subject=CANARY)),
            f'{{"x":NaN,"y":"{CANARY}"}}',
        ]
        for frame in frames:
            peer.ask(frame)
        peer.say(carrying(good))
        assert peer.hear_text() == "no end"
        peer.ask({})
        peer.leave()
    assert told(events) == [
        ("refused", "session-invalid", "mac"),
        ("refused", "session-unsigned", "plain"),
        ("refused", "session-invalid", "sub"),
        ("refused", "malformed-json", "syntax"),
        ("refused", "session-conflict", "busy"),
        ("lost", None, None),
    ]
    said = repr(events)
    assert "canary" not in said
    assert not any(part in said for part in good["dcaf"]["token"].split(".") if len(part) > 20)


def test_refused_and_lost_events_have_codes_and_no_token_state_or_subject() -> None:
    assert_events_say_nothing()


def test_control_an_event_that_quotes_is_caught(monkeypatch: Any) -> None:
    original = Events.report_refusal

    def refused(self: Any, refusal: Any) -> None:
        refusal.kid = CANARY
        original(self, refusal)

    monkeypatch.setattr(Events, "report_refusal", refused)
    with pytest.raises(AssertionError):
        assert_events_say_nothing()


# A real server


class Served:
    """uvicorn in the test's own loop, on a socket that listens already."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, ws="websockets-sansio", log_level="critical", lifespan="off")
        self.server = uvicorn.Server(config)

    async def __aenter__(self) -> Any:
        listening = socket.create_server(("127.0.0.1", 0))
        self.task = asyncio.create_task(self.server.serve(sockets=[listening]))
        return f"ws://127.0.0.1:{listening.getsockname()[1]}/ws"

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        await self.task


def test_a_conversation_through_a_real_server_and_a_real_client() -> None:
    app, events = Agent(count), list[Any]()

    async def converse() -> None:
        async with Served(mounted(app, max_body_bytes=10_000, on_event=events.append)) as url:
            async with websockets.connect(url) as client:
                for said, state in ((carrying(envelope(STEP)), {"step": 3}), ({}, {"step": 4}), ({}, {"step": 5})):
                    await client.send(json.dumps(said))
                    assert state_in(json.loads(await client.recv())) == state
                await client.send(json.dumps(carrying(PLAIN)))
                assert json.loads(await client.recv()) == error("session-unsigned", restart=True)
                await client.send(json.dumps({}).encode())
                assert state_in(json.loads(await client.recv())) == {"step": 6}
                await client.send(json.dumps({"x": "y" * 20_000}))
                assert json.loads(await client.recv()) == error("body-too-large", restart=False)
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await client.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1009
            async with websockets.connect(url) as client:
                await client.send("{broken")
            async with websockets.connect(url) as client:
                await client.send(json.dumps({}))
                assert state_in(json.loads(await client.recv())) == {"step": 1}

    asyncio.run(converse())
    assert len(app.messages) == 5
    assert {event.name for event in events} == {"refused"}


def test_a_real_server_answers_a_refused_handshake_with_the_problem() -> None:
    async def knock() -> None:
        async with Served(mounted(Agent(), subject=nobody)) as url:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url)
            response = refused.value.response
            assert response.status_code == 503
            assert json.loads(response.body or b"")["code"] == "session-unavailable"

    asyncio.run(knock())


def test_the_default_terminal_frame_is_the_one_of_streams() -> None:
    assert is_done(None, {"type": "done"})
    assert not is_done(None, {"type": "delta"})
    assert not is_done(None, None)
