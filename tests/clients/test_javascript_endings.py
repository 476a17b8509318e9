"""How a turn of ``examples/client.mjs`` ends early: it is left, aborted or broken, and each error has a code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.driven import Node
from tests.clients.hostile_streams import carried
from tests.clients.servers import WAIT_S, answering, line, refused, session, streamed

Variant = Callable[[str, str], Path]
NEW: Final = {"dcaf": {"token": "new"}}
TEXT: Final = line(type="text_delta", text="Well, ")
CHECKPOINT: Final = line(type="session", data={"session": session(1)})
BEGUN: Final = streamed(TEXT, CHECKPOINT, TEXT, is_whole=False)
"""A stream that says three things, and then nothing for as long as the connection is open."""

CANCEL: Final = "      cancel(); // whoever stops to listen"
LEAVES: Final = ("break", "return", "throw", "callback")


@pytest.mark.parametrize("leave", LEAVES)
def test_whoever_stops_to_listen_closes_the_connection_and_keeps_what_came(browser: Node, leave: str) -> None:
    with answering(BEGUN, keeps_open=True) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi", leave=leave, after=2)
        assert service.left.wait(WAIT_S)
    assert (told.session, told.messages, len(told.events)) == (session(1), [], 2)
    assert told.code == ("left" if leave in {"throw", "callback"} else None), "the error is the listener's own"


@pytest.mark.parametrize("leave", LEAVES)
def test_control_a_reader_that_is_not_cancelled_leaves_the_connection_open(browser: Node, variant: Variant, leave: str) -> None:
    with answering(BEGUN, keeps_open=True) as service:
        browser.conversation(service.url, module=variant(CANCEL, "      // whoever stops to listen")).send(
            "hi", leave=leave, after=2
        )
        assert not service.left.wait(0.5)


def test_a_turn_is_aborted_before_it_begins_and_nothing_is_sent(browser: Node) -> None:
    with answering(BEGUN, keeps_open=True) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi", abort=0)
    assert (told.code, told.session, told.messages, service.asked) == ("aborted", session(0), [], [])


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 409 Conflict\r\nContent-Length: 99\r\n\r\n{"])
def test_a_turn_is_aborted_while_its_answer_begins(browser: Node, sent: bytes) -> None:
    with answering(sent, keeps_open=True) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi", abort={"ms": 200})
        assert service.left.wait(WAIT_S)
    assert (told.code, told.session, told.messages, len(service.asked)) == ("aborted", session(0), [], 1)


@pytest.mark.parametrize(("after", "kept"), [(1, 0), (2, 1), (3, 1)])
def test_a_turn_is_aborted_in_the_middle_and_the_newest_session_that_arrived_is_kept(browser: Node, after: int, kept: int) -> None:
    """Each part of the stream comes by itself, because the service waits until the one before was heard."""
    lines = [TEXT, CHECKPOINT, TEXT]
    with answering(streamed(*lines[:after], is_whole=False), keeps_open=True) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi", abort=after)
        assert service.left.wait(WAIT_S)
    assert (told.code, told.session, told.messages, len(told.events)) == ("aborted", session(kept), [], after)


ONE_PART: Final = [CHECKPOINT + TEXT + line(type="session", data={"session": session(2)}) + TEXT]
ENDED: Final = [TEXT + CHECKPOINT + TEXT + line(type="done", data={"session": session(3)})]


@pytest.mark.parametrize("leave", [*LEAVES, "abort"])
@pytest.mark.parametrize(("parts", "kept"), [(ONE_PART, 2), (ENDED, 1)])
def test_whoever_leaves_keeps_the_checkpoints_that_have_arrived_and_nothing_else(
    browser: Node, leave: str, parts: list[bytes], kept: int
) -> None:
    """Also those that came in one part with what was heard: what is used up is not offered again. The turn's end is no such."""
    how = {"abort": 1} if leave == "abort" else {"leave": leave, "after": 1}
    chat = browser.conversation("http://nowhere", session=session(0))
    told = chat.send("hi", parts=carried(parts), **how)
    assert (told.session, told.messages, len(told.events)) == (session(kept), [], 1)
    assert told.code == {"abort": "aborted", "break": None, "return": None}.get(leave, "left")


def test_control_a_client_that_drops_what_arrived_offers_it_again(browser: Node, variant: Variant) -> None:
    chat = browser.conversation("http://nowhere", session=session(0), module=variant("events.slice(0, end <", "[].slice(0, end <"))
    assert chat.send("hi", parts=carried(ENDED), leave="break", after=1).session == session(0)


def test_an_abort_at_any_moment_ends_the_turn(browser: Node, url: str) -> None:
    """A real service answers in one or two parts; where the body had arrived as a whole, some runtimes never end the read."""
    for moment in [1, 2, 3] * 20:
        told = browser.conversation(url).send("service api", abort=moment)
        assert (told.code, told.session, told.messages) == ("aborted", None, [])


def test_a_turn_that_was_answered_stays_answered_whatever_comes_then(browser: Node) -> None:
    """The last event has come; a proxy holds the connection, it breaks, or something writes behind it."""
    done = line(type="done", data={"session": session(2)}, meta_data={"stop_reason": "end_turn"})
    later = [b"", b"<!-- a proxy -->\n", b"null\n", line(type="error", code="late", error="Too late.")]
    for rest in later:
        for is_whole in (True, False):
            with answering(streamed(TEXT, done, rest, is_whole=is_whole)) as service:
                told = browser.conversation(service.url).send("hi")
            assert (told.code, told.session, len(told.messages)) == (None, session(2), 2), (rest, is_whole)
    with answering(streamed(TEXT, done, is_whole=False), keeps_open=True) as service:
        told = browser.conversation(service.url).send("hi", abort=2)
    assert told.answer is not None
    assert (told.answer["content"], len(told.messages)) == ("Well, ", 2)


@pytest.mark.parametrize("leave", ["break", "return"])
def test_whoever_leaves_at_the_last_event_has_the_whole_turn(browser: Node, leave: str) -> None:
    done = line(type="done", data={"session": session(2)})
    with answering(streamed(TEXT, done)) as service:
        told = browser.conversation(service.url).send("hi", leave=leave, after=2)
    assert [message["role"] for message in told.messages] == ["user", "assistant"], "the session remembers it, and so do they"


def problem(status: int = 409, **members: Any) -> bytes:
    return refused(status, json.dumps({"type": "about:blank", "detail": "No.", **members}).encode())


NEW_SESSION: Final = {"code": "session-ended", "data": {"session": NEW}}
WHOLE: Final = json.dumps(NEW_SESSION).encode()
CODES: Final = [
    (problem(code="session-conflict"), "session-conflict", "No."),
    (problem(413, code="body-too-large"), "body-too-large", "No."),
    (problem(503, code="session-unavailable"), "session-unavailable", "No."),
    (problem(502), "http-502", "No."),
    (problem(400, code="", detail=""), "http-400", "http-400"),
    (problem(400, code={}, detail={"toString": 1}), "http-400", "http-400"),
    (refused(404, b"<html>Not found</html>", "text/html"), "http-404", "http-404"),
    (refused(500, b"null"), "http-500", "http-500"),
    (refused(400, WHOLE, length=len(WHOLE) + 1), "http-400", "http-400"),
    (refused(400, WHOLE[:-3]), "http-400", "http-400"),
    (refused(400, b"[" * 100_000), "http-400", "http-400"),
    (streamed(b"<!doctype html>\n<p>Log in</p>\n"), "not-json", None),
    (streamed(b"null\n"), "not-json", None),
    (streamed(b'"done"\n'), "not-json", None),
    (streamed(b"[]\n"), "not-json", None),
    (streamed(b'{"type":5}\n'), "not-json", None),
    (streamed(b'{"type":"done"\n'), "not-json", None),
    (streamed(TEXT, b'{"type":"done"'), "no-end", None),
    (streamed(b""), "no-end", None),
    (streamed(TEXT), "no-end", None),
    (streamed(TEXT, is_whole=False), "broken-off", None),
    (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "no-end", None),
    (b"garbage\r\n\r\n", "no-answer", None),
    (b"", "no-answer", None),
    (streamed(line(type="error", code="model-failed", error="It failed.")), "model-failed", "It failed."),
    (streamed(line(type="error")), "error", None),
    (streamed(line(type="error", code={}, error={"toString": 1})), "error", None),
]


@pytest.mark.parametrize(("answer", "code", "words"), CODES)
def test_each_error_has_a_code_and_leaves_what_was(browser: Node, answer: bytes, code: str, words: str | None) -> None:
    with answering(answer) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi")
    assert told.error is not None
    assert (told.code, told.session, told.messages, len(service.asked)) == (code, session(0), [], 1)
    if words is not None:
        assert told.error["message"] == words


def test_no_service_at_all_has_a_code(browser: Node) -> None:
    assert browser.conversation("http://127.0.0.1:1").send("hi").code == "no-answer"
    assert browser.conversation("no url").send("hi").code == "no-answer"


def test_no_error_quotes_what_came(browser: Node) -> None:
    """An error goes into logs; a line that is cut, or garbled, may hold a token."""
    with answering(streamed(b'{"type":"session","data":{"session":{"dcaf":{"token":"dcaf1s.k.secret"}}}}]\n')) as service:
        told = browser.conversation(service.url).send("hi")
    assert "secret" not in json.dumps(told.error)


NOT_DEAD: Final = {
    "503": problem(503, **NEW_SESSION),
    "500": problem(500, **NEW_SESSION),
    "500 with another one": problem(500, data={"session": session(7)}),
    "502 of a proxy": refused(502, b"<html>Bad gateway</html>", "text/html"),
    "400 of a proxy": refused(400, b"<html>Bad request</html>", "text/html"),
    "401 without a session": problem(401, code="login"),
    "409 without a session": problem(code="session-conflict"),
    "409 with the newer one": problem(code="session-conflict", data={"session": session(7)}),
    "a token that has new in it": problem(code="x", data={"session": {"dcaf": {"token": "newer"}}}),
    "new at another place": problem(code="x", data={"session": {"token": "new"}}, session=NEW),
    "half": refused(409, WHOLE[:-2]),
    "shorter than it was to be": refused(409, WHOLE, length=len(WHOLE) + 1),
    "a stream of events": streamed(line(type="refused", **NEW_SESSION)),
    "a stream whose error says new": streamed(line(type="error", **NEW_SESSION)),
    "a stream that says new and breaks": streamed(line(type="session", data={"session": NEW}), is_whole=False),
}
DROPS: Final = {"a stream of events", "a stream whose error says new", "a stream that says new and breaks"}
"""They say that the session is dead, after the turn had begun: it is dropped, and nothing is said again."""


@pytest.mark.parametrize("case", NOT_DEAD)
def test_a_turn_is_not_said_again_unless_a_refusal_says_that_the_session_is_dead(browser: Node, case: str) -> None:
    with answering(NOT_DEAD[case]) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi")
    assert told.error is not None
    assert len(service.asked) == 1
    newer = {"409 with the newer one": session(7), "a token that has new in it": {"dcaf": {"token": "newer"}}}
    assert told.session == (NEW if case in DROPS else newer.get(case, session(0)))


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_that_says_so_is_said_again_once(browser: Node, status: int) -> None:
    with answering(problem(status, **NEW_SESSION), streamed(line(type="done", data={"session": session(1)}))) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi")
    assert told.answer is not None
    assert (told.answer["restarted"], told.session) == ("session-ended", session(1))
    assert [body["data"]["session"] for body in service.asked] == [session(0), NEW]


def test_a_refusal_without_a_code_is_said_again_once_too(browser: Node) -> None:
    with answering(problem(409, code="", data={"session": NEW})) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi")
    assert (told.code, len(service.asked), told.session) == ("http-409", 2, NEW)


@pytest.mark.parametrize(
    ("line_of_it", "by"), [("response?.status < 500 && ", ""), ("pause = isDead ? 0", "pause = turn.sent < 2 ? 0")]
)
def test_control_a_client_that_starts_over_at_any_refusal_is_found(
    browser: Node, variant: Variant, line_of_it: str, by: str
) -> None:
    found = []
    for case in NOT_DEAD:
        with answering(NOT_DEAD[case]) as service:
            browser.conversation(service.url, session=session(0), module=variant(line_of_it, by)).send("hi")
        found += [case] if len(service.asked) > 1 else []
    assert {"503", "500"} <= set(found)


def test_what_a_checkpoint_brought_stays_when_the_stream_breaks(browser: Node) -> None:
    """As before an approved call runs: what has run is not offered again."""
    endings = [(False, "broken-off"), (True, "no-end")]
    for is_whole, code in endings:
        with answering(streamed(CHECKPOINT, TEXT, is_whole=is_whole)) as service:
            chat = browser.conversation(service.url, session=session(0))
            first, second = chat.send("hi"), chat.send("hi")
        assert (first.code, first.session, second.code) == (code, session(1), code)
        assert [body["data"]["session"] for body in service.asked] == [session(0), session(1)]


def test_a_session_that_comes_after_an_error_is_kept(browser: Node) -> None:
    """As of a service that ends a failed turn with its last session."""
    failing = line(type="error", code="model-failed", error="It failed.")
    done = line(type="done", stop_reason="error", data={"session": session(1)})
    with answering(streamed(TEXT, failing, done)) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi")
    assert (told.code, told.session, told.messages, len(told.events)) == ("model-failed", session(1), [], 1)


@pytest.mark.parametrize(
    "given", ["token", 5, None, [], {}, {"dcaf": None}, {"dcaf": {"token": None}}, {"dcaf": "token"}, {"n": 1}]
)
def test_what_is_no_session_is_not_kept(browser: Node, given: Any) -> None:
    with answering(streamed(line(type="done", data={"session": given}))) as service:
        told = browser.conversation(service.url, session=session(0)).send("hi")
    assert (told.code, told.session) == (None, session(0))
    assert "session" not in json.dumps(told.messages)


def test_of_two_ends_the_last_session_counts_and_the_turn_is_kept_once(browser: Node) -> None:
    ends = [line(type="done", data={"session": session(n)}, meta_data={"stop_reason": str(n)}) for n in (1, 2)]
    with answering(streamed(TEXT, *ends)) as service:
        told = browser.conversation(service.url).send("hi")
    assert told.answer is not None
    assert (told.session, told.answer["meta_data"], len(told.messages)) == (session(2), {"stop_reason": "2"}, 2)


def test_an_abort_takes_no_longer_than_it_has_to(browser: Node) -> None:
    begun = time.monotonic()
    with answering(BEGUN, keeps_open=True) as service:
        assert browser.conversation(service.url).send("hi", abort={"ms": 50}).code == "aborted"
    assert time.monotonic() - begun < WAIT_S / 2
