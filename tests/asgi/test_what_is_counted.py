"""The limit of sessions counts messages with a session, however they are spelled, and nothing else that only says the word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcaf.asgi import json_sessions, json_walk
from dcaf.core.errors import BodyTooLarge
from tests.asgi.sockets import Agent, Peer
from tests.asgi.wire import JSON_TYPE, Recorder, call, envelope, mounted

LIMIT = 20
"""In place of 10,000, so that many bodies can be tried."""

OWN = envelope({"n": 1})
MORE = LIMIT + 1

NOT_COUNTED: dict[str, Any] = {
    "events with a member session": {"events": [{"session": "s1", "at": 1}] * MORE},
    "objects with a data.session, that are no messages": {"events": [{"data": {"session": {"a": 1}}}] * MORE},
    "messages with a member session of their own": {"messages": [{"session": {"a": 1}}] * MORE},
    "messages whose data is no object": {"messages": [{"data": ["session"]}] * MORE},
    "messages whose data is the word": {"messages": [{"data": "session"}] * MORE},
    "messages with one deeper": {"messages": [{"data": {"x": {"session": {"a": 1}}}}] * MORE},
    "messages with content that says it": {"messages": [{"content": '{"data":{"session":{"a":1}}}'}] * MORE},
    "messages in messages": {"messages": [[{"data": {"session": {"a": 1}}}]] * MORE},
    "messages that are none": {"messages": {"data": {"session": {"a": 1}}, "x": ['"session"'] * MORE}},
    "messages of something else": {"thread": {"messages": [{"data": {"session": {"a": 1}}}] * MORE}},
    "keys": {f"session{number}": {"session": number} for number in range(MORE)},
    "a list of names": {"names": ["session", "data", "messages"] * MORE},
    "names like it": {"messages": [{"data": {"Session": 1, "session ": 1, "sessions": 1}}] * MORE},
    "the mirror of one session": {"data": {"session": {**OWN, "x": [{"data": {"session": 1}}] * MORE}}},
}
COUNTED: dict[str, Any] = {
    "sessions": {"data": {"session": {"a": 1}}},
    "empty ones": {"data": {"session": {}}},
    "null": {"data": {"session": None}},
    "ours": {"data": {"session": OWN}},
    "texts": {"data": {"session": "s"}},
    "with more": {"role": "user", "content": "session", "data": {"x": 1, "session": {}, "y": [1]}},
}
SPELLED = {
    "compact": lambda value: json.dumps(value, separators=(",", ":")),
    "spaced": lambda value: json.dumps(value, indent=1),
    "escaped": lambda value: json.dumps(value).replace('"session":', '"\\u0073ession":'),
}
SPELLINGS = pytest.mark.parametrize("spelling", SPELLED)


@pytest.fixture(autouse=True)
def few(monkeypatch: Any) -> None:
    for module in (json_walk, json_sessions):
        monkeypatch.setattr(module, "MAX_SESSIONS", LIMIT)


def assert_passes(body: str) -> None:
    """The law: the application reads what was sent, but for sessions."""
    app = Recorder()
    sent = call(mounted(app), body.encode())
    assert (sent.status, app.reached) == (200, True)
    assert len(app.seen) == len(json.loads(body))


@SPELLINGS
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("what", NOT_COUNTED)
def test_what_is_no_session_of_a_message_is_not_counted(what: str, method: str, spelling: str) -> None:
    body = SPELLED[spelling](NOT_COUNTED[what])
    assert call(mounted(Recorder()), body.encode(), method=method).status == 200
    assert_passes(body)


@SPELLINGS
@pytest.mark.parametrize("what", NOT_COUNTED)
@pytest.mark.parametrize("carriers", [("body",), ("cookie",)])
def test_nor_in_a_frame(carriers: Any, what: str, spelling: str) -> None:
    agent = Agent()
    with Peer(mounted(agent, carriers=carriers)) as peer:
        assert peer.ask(SPELLED[spelling](NOT_COUNTED[what]))["type"] == "done"
    assert len(agent.messages) == 1


@SPELLINGS
@pytest.mark.parametrize("what", COUNTED)
def test_messages_with_a_session_are_counted_exactly(what: str, spelling: str) -> None:
    for number in (LIMIT, MORE):
        body = SPELLED[spelling]({"messages": [COUNTED[what]] * number})
        found = call(mounted(Recorder(), unsigned="ignore"), body.encode())
        assert (found.code == "body-too-large") == (found.status == 413) == (number == MORE)
        with Peer(mounted(Agent(), unsigned="ignore")) as peer:
            answer = peer.ask(body)
            assert (answer.get("code") == "body-too-large") == (number == MORE)


@SPELLINGS
def test_the_session_beside_the_messages_is_not_one_of_them(spelling: str) -> None:
    at_the_limit = {"data": {"session": OWN}, "messages": [{"data": {"session": {"a": 1}}}] * LIMIT}
    assert_passes(SPELLED[spelling](at_the_limit))
    behind = dict(reversed(at_the_limit.items()))
    assert_passes(SPELLED[spelling](behind))


def test_the_limit_is_that_of_the_protocol(monkeypatch: Any) -> None:
    monkeypatch.undo()
    assert json_walk.MAX_SESSIONS == 10_000
    assert_passes(json.dumps({"events": [{"session": "s1", "at": 1}] * 10_001}))
    assert call(mounted(Recorder()), {"messages": [{"data": {"session": {}}}] * 10_001}).code == "body-too-large"


def test_both_ways_of_reading_count_alike_around_the_limit(monkeypatch: Any) -> None:
    statuses = []
    for quickly in (True, False):
        if not quickly:
            monkeypatch.setattr(json_sessions, "_find_quickly", lambda *_: None)
        for message in (COUNTED["sessions"], COUNTED["with more"]):
            bodies = [json.dumps({"messages": [message] * number}) for number in (LIMIT - 1, LIMIT, MORE)]
            statuses.append(
                [call(mounted(Recorder(), unsigned="ignore"), body.encode(), headers=(JSON_TYPE,)).status for body in bodies]
            )
    assert statuses == [[200, 200, 413]] * 4


@pytest.mark.parametrize("what", [name for name, value in NOT_COUNTED.items() if json.dumps(value).count('"session"') > LIMIT])
def test_control_a_count_of_the_name_in_the_text_is_caught(what: str, monkeypatch: Any) -> None:
    find = json_sessions.read_body

    def counts(data: bytes) -> Any:
        if data.count(b'"session"') > LIMIT:
            raise BodyTooLarge(reason="sessions")
        return find(data)

    monkeypatch.setattr("dcaf.asgi.body.read_body", counts)
    monkeypatch.setattr("dcaf.asgi.body.shorten", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_passes(SPELLED["compact"](NOT_COUNTED[what]))
