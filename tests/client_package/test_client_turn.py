"""The turn without any wire: what goes out, what comes in, and what is kept."""

from __future__ import annotations

import ast
import itertools
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dcaf.client
from dcaf.client import (
    AnswerUnreadable,
    ApprovalUnknown,
    Client,
    Conversation,
    Event,
    ServiceError,
    ServiceFailed,
    ServiceUnreachable,
    SessionDead,
    Turn,
    TurnConflict,
    TurnOvertaken,
    TurnTooLarge,
    errors,
)
from dcaf.client.envelopes import find_session
from dcaf.client.errors import error_of_answer, error_of_event
from dcaf.core import ConfigurationError, DcafError
from dcaf.core import errors as core_errors
from dcaf.core.errors import SessionError
from dcaf.testing import SessionClient

JSON = {"content-type": "application/json"}
PROBLEM = {"content-type": "application/problem+json"}
NEW = {"dcaf": {"token": "new"}}
OLD = {"n": 1, "dcaf": {"token": "old"}}
DELTA = {"type": "text_delta", "text": "é\u2028"}


def carrying(n: int, **members: Any) -> dict[str, Any]:
    return {**members, "data": {"session": {"n": n, "dcaf": {"token": f"t{n}"}}}}


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)


def problem(code: str, **members: Any) -> bytes:
    return json.dumps({"code": code, "detail": "Words.", **members}).encode()


def going(**options: Any) -> tuple[Conversation, Turn]:
    conversation = Conversation(session=dict(OLD), **options)
    return conversation, Turn(conversation, "one")


def test_every_public_name_is_in_the_window_and_only_what_it_says_is_imported() -> None:
    folder = Path(dcaf.client.__file__).parent
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.ClientError)}
    assert tree <= set(dcaf.client.__all__)
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dcaf"):
                assert str(node.module).startswith(("dcaf.client", "dcaf.core")), path


def test_an_error_of_a_client_is_never_taken_for_a_refusal_of_the_callers_own_session() -> None:
    assert issubclass(ServiceError, DcafError)
    assert not issubclass(ServiceError, SessionError)
    assert {one.http_status for one in (SessionDead, TurnConflict, TurnTooLarge, ServiceFailed, ServiceUnreachable)} == {502}


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    text = lines(DELTA, {"type": "approvals", "approvals": [{"id": "a"}]}, DELTA, carrying(2, type="done")) + b"\r\n\n"
    conversation, turn = going()
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    events = [event.type for chunk in chunks for event in turn.feed(chunk)] + [event.type for event in turn.ended()]
    assert events == ["text_delta", "approvals", "text_delta", "done"]
    assert turn.reply
    assert turn.reply.text == "é\u2028" * 2, "a line separator of Unicode ends no line"
    assert (conversation.session, list(conversation.waiting)) == ({"n": 2}, ["a"])


@given(st.lists(st.sampled_from(["delta", "session", "plain"]), max_size=8), st.integers(0, 8))
def test_a_stream_left_after_any_event_leaves_the_last_session_that_was_read(kinds: Any, read: Any) -> None:
    made: dict[str, Any] = {"delta": DELTA, "plain": {"type": "other", "data": {"session": None}}}
    events = [made.get(kind) or carrying(at + 2, type="session") for at, kind in enumerate(kinds)] + [carrying(99, type="done")]
    conversation, turn = going()
    for _ in itertools.islice(turn.feed(lines(*events)), read):
        pass
    came = [find_session(event) for event in events[:-1] if event["type"] == "session"]  # all of it came in one piece
    expected: list[Any] = [*came, find_session(events[-1])] if read > len(kinds) else came
    assert conversation.envelope == ([OLD, *expected])[-1]
    assert bool(conversation.messages) == (turn.reply is not None) == (read > len(kinds))


def test_nothing_has_an_effect_that_was_not_asked_for() -> None:
    conversation, turn = going()
    events = turn.feed(lines(DELTA, carrying(2, type="done")))
    next(events)
    assert (conversation.envelope, conversation.messages, turn.reply) == (OLD, [], None)
    next(events)
    assert conversation.session == {"n": 2}


def test_a_session_after_done_counts_and_the_reply_has_it() -> None:
    conversation, turn = going()
    assert len(list(turn.feed(lines(carrying(2, type="done"), carrying(3, type="session"))))) == 2
    assert turn.reply
    assert (conversation.session, turn.reply.session, len(conversation.messages)) == ({"n": 3}, {"n": 3}, 2)


def test_a_stream_without_done_ends_with_the_session_of_the_middleware() -> None:
    conversation, turn = going()
    assert len([*turn.feed(lines(DELTA, carrying(2, type="session"))), *turn.ended()]) == 2
    assert turn.reply
    assert (turn.reply.text, len(conversation.messages)) == ("é\u2028", 2)


@pytest.mark.parametrize("text", [b"", lines(DELTA), lines(carrying(2, type="session"), DELTA), lines(DELTA)[:-4]])
def test_a_stream_that_ends_before_its_turn_is_an_error_and_its_message_is_not_kept(text: bytes) -> None:
    conversation, turn = going()
    with pytest.raises(ServiceUnreachable, match="ask before you send it again"):
        list(itertools.chain(turn.feed(text), turn.ended()))
    assert (conversation.messages, turn.reply) == ([], None)


def test_a_last_event_without_its_line_feed_counts_when_the_stream_ended_by_itself() -> None:
    _, turn = going()
    assert list(turn.feed(lines(carrying(2, type="done"))[:-1])) == []
    assert [event.type for event in turn.ended()] == ["done"]
    assert turn.reply


@pytest.mark.parametrize("line", [b"x", b"[]", b"{}", b'{"type":1}', b"\xff"])
def test_a_line_that_is_no_event_is_an_error(line: bytes) -> None:
    _, turn = going()
    with pytest.raises(AnswerUnreadable, match="Check that the path"):
        list(turn.feed(line + b"\n"))


@pytest.mark.parametrize(
    ("headers", "content"),
    [(JSON, b"[]"), (JSON, b"{}"), (JSON, b"{"), (JSON, b'{"content":null}'), (JSON, b""), ({"content-type": "text/html"}, b"{}")],
)
def test_a_success_that_is_no_message_is_an_error(headers: Any, content: bytes) -> None:
    conversation, turn = going()
    kind = headers["content-type"]
    with pytest.raises(AnswerUnreadable, match=rf"The answer \({kind}\).*Check that the path"):
        turn.answered(200, headers, content)
    assert (conversation.messages, conversation.envelope) == ([], OLD)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "malformed-json", ServiceError),
        (404, "http-404", ServiceError),
        (409, "session-conflict", TurnConflict),
        (413, "body-too-large", TurnTooLarge),
        (413, "http-413", TurnTooLarge),
        (500, "http-500", ServiceFailed),
        (502, "http-502", ServiceFailed),
        (503, "session-unavailable", ServiceFailed),
    ],
)
def test_a_refusal_is_an_error_of_its_kind_and_keeps_the_session(status: int, code: str, kind: Any) -> None:
    conversation, turn = going()
    body = problem(code) if not code.startswith("http") else b"<html>"
    with pytest.raises(ServiceError) as raised:
        turn.answered(status, {**PROBLEM, "retry-after": "7"}, body)
    error = raised.value
    assert (type(error), error.code, error.status, error.retry_after) == (kind, code, status, timedelta(seconds=7))
    assert (conversation.envelope, conversation.messages) == (OLD, [])


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 99, "²"])
def test_a_retry_after_that_is_no_number_of_seconds_is_none(text: str) -> None:
    _, turn = going()
    with pytest.raises(ServiceFailed) as raised:
        turn.answered(503, {"retry-after": text}, b"")
    assert raised.value.retry_after is None


@pytest.mark.parametrize(("applied", "told"), [(True, True), (False, False), ("yes", None)])
def test_a_conflict_that_carries_the_current_session_is_adopted(applied: Any, told: Any) -> None:
    conversation, turn = going()
    with pytest.raises(TurnConflict) as raised:
        turn.answered(409, PROBLEM, problem("session-conflict", applied=applied, **carrying(5)))
    assert (raised.value.applied, conversation.session, conversation.messages) == (told, {"n": 5}, [])


def test_the_services_own_words_are_told_without_tokens_and_not_at_length() -> None:
    _, turn = going()
    with pytest.raises(ServiceError) as raised:
        turn.answered(422, JSON, problem("x", detail=f"Bad dcaf1s.k7.abc-_.x {'y' * 9_000}"))
    assert str(raised.value).startswith("The service answered with 422, x: Bad [token] yyy")
    assert len(str(raised.value)) < 500
    _, turn = going()
    with pytest.raises(ServiceError) as raised:
        turn.answered(422, JSON, problem("x", detail=[{"input": "dcaf1s.k7"}]))
    assert str(raised.value) == "The service answered with 422, x. Correct the request, then send the turn again."


def sayings() -> list[str]:
    """What a client says of every refusal and every error that this library's services have, as an answer and as an event."""
    found = []
    kinds: list[Any] = [
        one for one in vars(core_errors).values() if isinstance(one, type) and isinstance(vars(one).get("detail"), str)
    ]
    for kind, wait, session in itertools.product(kinds, ({}, {"retry-after": "1"}), ({}, {"data": {"session": NEW}})):
        body = {"code": kind.code, "detail": kind.detail, **session}
        found.append(str(error_of_answer(kind.http_status, wait, body)))
        found.append(str(error_of_event({"type": "error", "code": kind.code, "error": kind.detail, **session})))
        found.append(str(error_of_answer(kind.http_status, wait, {"code": kind.code, **session})))
    return found


def repeated(said: str) -> list[str]:
    """What is said twice in one message: three words in a row, and what to do."""
    words = re.findall(r"[\w-]+", said.lower())
    rows = [" ".join(words[at : at + 3]) for at in range(len(words) - 2)]
    advice = ("again", "wait", "as it was")
    return [row for row in rows if rows.count(row) > 1] + [word for word in advice if said.lower().count(word) > 1]


def test_no_message_says_one_thing_twice() -> None:
    said = sayings()
    assert len(said) > 100
    assert {one: repeated(one) for one in said if repeated(one)} == {}


def test_control_the_message_of_before_said_it_twice() -> None:
    before = "The model failed. The session is as it was before. Try again. Send the turn again later: the session is as it was."
    assert repeated(before) == ["the session is", "session is as", "is as it", "as it was"] * 2 + ["again", "as it was"]


def test_a_service_without_words_is_given_some() -> None:
    assert str(error_of_answer(502, {}, None)) == "The service answered with 502, http-502. Send the turn again later."
    told = error_of_answer(502, {"retry-after": "3"}, {"code": "model-failed", "detail": "The model failed. Try again."})
    assert str(told) == "The service answered with 502, model-failed: The model failed. Try again. It asks to wait 3 s."


def test_it_starts_over_once_and_not_again() -> None:
    conversation, turn = going()
    turn.answered(409, PROBLEM, problem("session-ended", data={"session": NEW}))
    assert (turn.reply, turn.restarted, json.loads(turn.request())["data"]) == (None, "session-ended", {"session": NEW})
    with pytest.raises(SessionDead, match="session-invalid"):
        turn.answered(400, PROBLEM, problem("session-invalid", data={"session": NEW}))
    assert conversation.messages == []


DEAD = {"type": "error", "code": "session-ended", "data": {"session": NEW}}


@pytest.mark.parametrize("before", [[], [DELTA]])
def test_a_turn_is_not_said_again_whose_stream_had_begun_because_it_has_run(before: Any) -> None:
    conversation, turn = going()
    turn.request()
    with pytest.raises(SessionDead, match="session-ended"):
        list(itertools.chain(turn.feed(lines(*before, DEAD)), turn.ended()))
    assert (conversation.envelope, turn.restarted, turn.is_due) == (NEW, None, False)


def test_on_a_socket_it_is_said_again_where_the_refusal_is_the_first_frame() -> None:
    conversation, turn = going()
    turn.request()
    assert turn.frame(json.dumps(DEAD)) is None
    assert (turn.is_due, turn.restarted, json.loads(turn.request())["data"]) == (True, "session-ended", {"session": NEW})
    assert turn.frame(json.dumps(carrying(3, type="done")))
    assert turn.reply
    assert (turn.reply.restarted, conversation.session) == ("session-ended", {"n": 3})
    _, turn = going()
    assert turn.frame(json.dumps(DELTA))
    with pytest.raises(SessionDead, match="session-ended"):
        turn.frame(json.dumps(DEAD))


def test_a_new_session_forgets_what_waited_in_the_old_one() -> None:
    conversation = Conversation(session=dict(OLD))
    list(Turn(conversation, "one").feed(lines({"type": "approvals", "approvals": [{"id": "a"}]}, {"type": "done"})))
    assert list(conversation.waiting) == ["a"]
    turn = Turn(conversation, "two")
    turn.answered(409, PROBLEM, problem("session-ended", data={"session": NEW}))
    turn.answered(200, JSON, b'{"content":"Nothing was asked."}')
    with pytest.raises(ApprovalUnknown, match="Waiting: none"):
        Turn(conversation, decisions={"a": True})


def test_a_refused_session_without_the_wish_for_a_new_one_is_no_dead_one() -> None:
    conversation, turn = going()
    with pytest.raises(ServiceError, match="session-ended"):
        turn.answered(409, PROBLEM, problem("session-ended"))
    assert (conversation.envelope, turn.restarted) == (OLD, None)


def test_a_yes_takes_back_a_no_that_the_item_still_has() -> None:
    conversation = Conversation()
    asked = {"id": "a", "execute": False, "rejection_reason": "before"}
    Turn(conversation).answered(200, JSON, json.dumps({"content": "?", "data": {"approvals": [asked]}}).encode())
    body = json.loads(Turn(conversation, decisions={"a": True}).request())
    assert body["messages"][-1]["data"]["approvals"] == [{"id": "a", "execute": True, "rejection_reason": None}]


@pytest.mark.parametrize("items", [None, "x", [None, {}, {"id": 5}, {"name": "x"}]])
def test_items_that_nobody_could_decide_about_are_passed_over(items: Any) -> None:
    _, turn = going()
    turn.answered(200, JSON, json.dumps({"content": "", "data": {"approvals": items}}).encode())
    assert turn.reply
    assert turn.reply.approvals == []


def test_decisions_stand_beside_what_else_the_message_carries() -> None:
    conversation = Conversation()
    first = Turn(conversation, "one")
    first.answered(200, JSON, b'{"content":"?","data":{"approvals":[{"id":"a","x":1}]}}')
    said = {"role": "user", "content": "", "data": {"cmds": [], "session": {"stale": 1}}}
    body = json.loads(Turn(conversation, said, decisions={"a": "no"}).request())
    items = [{"id": "a", "x": 1, "execute": False, "rejection_reason": "no"}]
    assert body["messages"][-1]["data"] == {"cmds": [], "approvals": items}
    assert said["data"] == {"cmds": [], "session": {"stale": 1}}, "what the caller gave is not changed"


def test_a_turn_that_was_overtaken_keeps_nothing_and_says_so() -> None:
    conversation, first = going()
    second = Turn(conversation, "two")
    with pytest.raises(TurnOvertaken, match="one thing at a time"):
        first.answered(200, JSON, json.dumps(carrying(7, content="late")).encode())
    assert conversation.envelope == OLD
    second.answered(200, JSON, json.dumps(carrying(8, content="ok")).encode())
    assert [message["content"] for message in conversation.messages] == ["two", "ok"]


def test_the_halves_of_a_character_in_two_events_are_one_character() -> None:
    conversation, turn = going()
    halves = [b'{"type":"text_delta","text":"\\ud83d"}\n', b'{"type":"text_delta","text":"\\ude00\\ud83d"}\n', b'{"type":"done"}\n']
    for half in halves:
        list(turn.feed(half))
    assert turn.reply
    assert turn.reply.text == "😀\ufffd"
    assert "😀\ufffd".encode() in Turn(conversation, "two").request()


def test_a_frame_between_two_turns_counts_for_its_session_alone() -> None:
    conversation, turn = going()
    turn.overheard(json.dumps(carrying(4, type="session")))
    turn.overheard("no json")
    assert (conversation.session, turn.reply, turn.restarted) == ({"n": 4}, None, None)


def test_a_session_that_died_between_two_turns_is_not_dropped_silently() -> None:
    dead = json.dumps({"type": "error", "code": "session-ended", "data": {"session": NEW}})
    _, turn = going()
    turn.overheard(dead)
    list(turn.feed(lines(carrying(2, type="done"))))
    assert turn.reply
    assert turn.reply.restarted == "session-ended"
    _, turn = going(on_dead="raise")
    with pytest.raises(SessionDead, match="session-ended"):
        turn.overheard(dead)


def test_an_error_after_done_is_an_event_like_others() -> None:
    conversation, turn = going()
    events = list(turn.feed(lines(carrying(2, type="done"), {"type": "error", "code": "internal-error"})))
    assert ([event.type for event in events], len(conversation.messages)) == (["done", "error"], 2)


def test_a_repr_shows_kinds_and_counts_alone() -> None:
    conversation, turn = going()
    secret = {
        "type": "done",
        "data": {"session": {"secret": "hush", "dcaf": {"token": "dcaf1s.k7"}}, "approvals": [{"id": "a", "input": "hush"}]},
    }
    (event,) = turn.feed(lines(secret))
    assert turn.reply
    shown = [repr(event), repr(turn.reply), repr(conversation), repr(turn.reply.approvals), repr(turn)]
    assert shown[:4] == [
        "Event('done')",
        "<Reply: 0 characters, 1 approvals, session of 1 keys>",
        "<Conversation: 2 messages, session of 1 keys>",
        "[Approval(id='a', name='')]",
    ]
    assert not any("hush" in text or "dcaf1s" in text for text in shown)


def test_an_event_without_text_has_an_empty_one() -> None:
    assert [Event(body).text for body in ({"type": "x"}, {"type": "x", "text": None}, {"type": "x", "text": "y"})] == ["", "", "y"]


@pytest.mark.parametrize(
    "url",
    [
        *("ws://x", "x", "ftp://x", "", "http://", "https:///x", "http://x:99999", "http://x:0", "http://x:y", "http://[::1"),
        *("http://x?y=1", "http://x/#y", "http:// x", "http://x\n", "http://x/\x00", "http://" + "x" * 80, " http://x"),
    ],
)
@pytest.mark.parametrize("kind", [Client, SessionClient])
def test_a_base_url_of_another_kind_is_refused_when_the_client_is_built(kind: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match="https://"):
        kind(url)


@pytest.mark.parametrize(
    "url", ["http://x", "https://x/", "http://x:8000/base", "http://[::1]:8000", "http://user:word@x", "http://bücher.example"]
)
def test_a_base_url_that_can_be_is_taken(url: str) -> None:
    with Client(url) as client, SessionClient(url) as kit:
        assert (client.messages, kit.messages) == ([], [])


@pytest.mark.parametrize("name", ["path", "stream_path", "socket_path"])
@pytest.mark.parametrize("path", ["api/chat", "", "/a\n", "/a\x00", "/a#b", "http://y/a"])
def test_a_path_of_another_kind_is_refused_too(name: str, path: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Client("http://x", **{name: path})  # type: ignore[arg-type]


def test_what_a_client_says_has_not_the_role_of_an_answer() -> None:
    with pytest.raises(ConfigurationError, match="message of the user"):
        Turn(Conversation(), {"role": "assistant", "content": "", "data": {"approvals": [{"id": "a"}]}})


@pytest.mark.parametrize("fields", [{"messages": []}, {"data": 5}, {"data": {"session": {"n": 1}}}])
def test_a_field_does_not_take_the_place_of_the_conversation(fields: Any) -> None:
    for make in (lambda: Conversation(fields=fields), lambda: Turn(Conversation(), "hi", fields=fields)):
        with pytest.raises(ConfigurationError, match="fields"):
            make()


def test_a_conversation_goes_on_after_half_a_character_in_an_answer() -> None:
    conversation = Conversation()
    Turn(conversation, "one").answered(200, JSON, b'{"content":"\\ud83d","data":{"session":{"x":"\\ude00","dcaf":{"token":"t"}}}}')
    assert json.loads(Turn(conversation, "\ud800two").request())["messages"][-1]["content"] == "\ufffdtwo"


def test_a_turn_whose_arguments_are_wrong_overtakes_none() -> None:
    conversation, turn = going()
    for said, decisions in (({"a": object()}, None), ("x", {"a": True})):
        with pytest.raises(DcafError):
            Turn(conversation, said, decisions=decisions)  # type: ignore[arg-type]
    turn.answered(200, JSON, b'{"content":"ok"}')
    assert turn.reply


def test_an_unknown_policy_is_refused_when_the_client_is_built() -> None:
    with pytest.raises(ConfigurationError, match='on_dead="raise"'):
        Client("http://x", on_dead="retry")  # type: ignore[arg-type]


def test_where_the_service_keeps_the_conversation_a_turn_has_its_own_message() -> None:
    conversation = Conversation(history="server", messages=[{"role": "user", "content": "before"}])
    for text in ("one", "two"):
        turn = Turn(conversation, text)
        assert json.loads(turn.request())["messages"] == [{"role": "user", "content": text}]
        turn.answered(200, {"content-type": "application/json"}, b'{"content": "ok"}')
    assert [message["content"] for message in conversation.messages] == ["before", "one", "ok", "two", "ok"]
    assert len(json.loads(Turn(Conversation(messages=conversation.messages), "three").request())["messages"]) == 6
    with pytest.raises(ConfigurationError, match='history="client" or history="server"'):
        Conversation(history="servr")  # type: ignore[arg-type]
