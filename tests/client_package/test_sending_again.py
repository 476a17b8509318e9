"""A turn whose answer was lost: it is sent again where the service would know it, and nowhere else; nothing is done twice."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest

from dcaf.client import (
    Client,
    Conversation,
    Retries,
    ServiceError,
    ServiceFailed,
    ServiceUnreachable,
    TurnConflict,
    TurnOvertaken,
)
from dcaf.client.turn import Turn
from tests.client_package.cutting import CUTS, remembering
from tests.client_package.services import ASKED, WIRES, Talk, talking

AT_ONCE = Retries(pauses=(timedelta(0),) * 3)
LOST = CUTS[1:]
HTML = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<p/>"


def lose(talk: Talk, text: str) -> ServiceError | ServiceUnreachable:
    """Say something whose answer is lost for good; why."""
    with pytest.raises((ServiceError, ServiceUnreachable)) as raised:
        talk.say(text)
    error = raised.value
    assert isinstance(error, ServiceError | ServiceUnreachable)
    return error


@pytest.mark.parametrize("wire", WIRES)
def test_a_request_that_never_arrived_is_sent_again_and_nobody_sees_it(wire: str) -> None:
    with remembering() as (service, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        assert talk.say("one").attempts == 1
        proxy.cuts = ["before the request", "before the request"]
        reply = talk.say("two")
        assert (reply.text, reply.attempts, len(service.effects)) == ("turn 2", 3, 2)
        assert talk.say("three").text == "turn 3"


@pytest.mark.parametrize("cut", LOST)
@pytest.mark.parametrize("wire", WIRES)
def test_a_turn_that_was_done_is_not_done_twice_and_the_conversation_goes_on(wire: str, cut: str) -> None:
    with remembering() as (service, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        talk.say("one")
        proxy.cuts = [cut]
        error = lose(talk, "two")
        if wire.endswith("socket"):
            assert isinstance(error, ServiceUnreachable), "nobody knows a frame again: it may have been another's turn"
        else:
            assert isinstance(error, TurnConflict)
            assert error.applied is True
            assert "go on" in str(error)
        assert (talk.client.session["n"], talk.client.session["said"]) == (2, ["one", "two"])
        assert talk.say("three").text == "turn 3"
        assert (len(service.effects), proxy.sent) == (3, 4)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("wire", WIRES)
def test_where_nothing_is_kept_nothing_is_sent_twice(wire: str, cut: str) -> None:
    with remembering("L0") as (service, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        talk.say("one")
        proxy.cuts = [cut]
        assert isinstance(lose(talk, "two"), ServiceUnreachable)
        assert (proxy.sent, len(service.effects)) == (2, 1 if cut == "before the request" else 2)
        assert talk.say("three").attempts == 1
        assert set(service.keys) <= {None}


@pytest.mark.parametrize("wire", WIRES)
def test_control_a_client_that_sends_again_where_nothing_is_kept_does_it_twice(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.client.retries.can_repeat", lambda _: True)
    with remembering("L0") as (service, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        talk.say("one")
        proxy.cuts = ["after the request"]
        talk.say("two")
        assert [json.loads(text)["messages"][-1]["content"] for text in service.effects] == ["one", "two", "two"]


@pytest.mark.parametrize("wire", ["socket", "async socket"])
def test_control_a_frame_that_trusts_the_word_of_a_service_that_cannot_know_it_is_done_twice(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcaf.client.retries.Attempts.is_lost", property(lambda _: False, lambda *_: None), raising=False)
    with remembering() as (service, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        talk.say("one")
        proxy.cuts = ["after the request"]
        talk.say("two")
        assert len(service.effects) == 3


def test_the_first_turn_is_sent_once_since_nobody_knows_what_the_service_can_do() -> None:
    with remembering() as (service, proxy), talking("send", proxy.url, retries=AT_ONCE) as talk:
        proxy.cuts = ["after the request"]
        assert isinstance(lose(talk, "one"), ServiceUnreachable)
        assert (proxy.sent, service.keys) == (1, [None])


@pytest.mark.parametrize("wire", ["send", "stream", "async send", "async stream"])
def test_a_key_belongs_to_a_body_and_is_in_quotes(wire: str) -> None:
    with remembering() as (service, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        talk.say("one")
        talk.say("two")
        proxy.cuts = ["after the request"]
        lose(talk, "three")
        talk.say("four")
    first, second, third, again, fourth = service.keys
    assert (first, third) == (None, again)
    assert len({second, third, fourth}) == 3
    assert all(key and len(key) == 34 and key[0] == key[-1] == '"' for key in (second, third, fourth))


@pytest.mark.parametrize("wire", WIRES)
def test_the_turn_after_one_that_was_given_up_is_sent_again_with_the_newer_session(wire: str) -> None:
    with remembering() as (service, proxy):
        with talking(wire, proxy.url, retries=Retries(pauses=())) as talk:
            talk.say("one")
            proxy.cuts = ["after the request"]
            assert isinstance(lose(talk, "two"), ServiceUnreachable)
            kept = {"session": talk.client.envelope, "messages": talk.client.messages}
        with talking(wire, proxy.url, retries=AT_ONCE, **kept) as talk:
            reply = talk.say("three")
            assert (reply.text, reply.attempts, talk.client.session["said"]) == ("turn 3", 2, ["one", "two", "three"])
        assert len(service.effects) == 3
        if not wire.endswith("socket"):
            assert len(set(service.keys[-2:])) == 2, "another body has another key"


@pytest.mark.parametrize("wire", ["send", "stream", "async send", "async stream"])
def test_what_a_proxy_says_when_it_got_no_answer_is_a_lost_answer(wire: str) -> None:
    with remembering() as (_, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        talk.say("one")
        proxy.cuts, proxy.answer = ["before the request"], HTML
        assert talk.say("two").attempts == 2
        proxy.cuts = ["after the request"]
        error = lose(talk, "three")
        assert isinstance(error, TurnConflict)
        assert error.applied is True
    with remembering("L0") as (_, proxy), talking(wire, proxy.url, retries=AT_ONCE) as talk:
        talk.say("one")
        proxy.cuts, proxy.answer = ["before the request"], HTML
        assert isinstance(lose(talk, "two"), ServiceFailed)
        assert proxy.sent == 2


def test_it_gives_up_after_its_tries_and_the_session_is_as_before() -> None:
    waited: list[float] = []
    with remembering() as (service, proxy), Client(proxy.url, sleep=waited.append) as client:
        client.send("one")
        before = client.envelope
        proxy.cuts = ["before the request"] * 9
        with pytest.raises(ServiceUnreachable):
            client.send("two")
        assert (proxy.sent, waited, client.envelope, len(service.effects)) == (5, [0.2, 0.5, 1.0], before, 1)


@pytest.mark.parametrize("how", ["send", "stream"])
def test_a_lost_turn_that_still_runs_is_waited_for(how: str) -> None:
    waited: list[float] = []
    with remembering() as (service, proxy):

        def wait(seconds: float) -> None:
            waited.append(seconds)
            service.gate.set()
            time.sleep(0.05)

        with Client(proxy.url, retries=AT_ONCE, sleep=wait) as client:
            client.send("one")
            service.gate.clear()
            proxy.cuts = ["while it runs"]
            with pytest.raises(TurnConflict) as raised:
                list(client.stream("two")) if how == "stream" else client.send("two")
        assert (raised.value.applied, client.session["n"], len(service.effects)) == (True, 2, 2)
        assert waited[0] == 1.0, "as long as the service asks for"


def test_a_stream_that_begins_again_says_so_and_its_reply_is_the_last_one() -> None:
    turn = begun()
    text = list(turn.feed(b'{"type":"text_delta","text":"Hal"}\n'))
    assert [event.text for event in text] == ["Hal"]
    assert turn.lost()
    assert [event.body for event in turn.announce()] == [{"type": "again", "attempt": 2}]
    assert list(turn.announce()) == []
    assert turn.request() == turn.request()
    list(turn.feed(b'{"type":"text_delta","text":"Hello"}\n{"type":"done"}\n'))
    assert turn.reply is not None
    assert turn.reply.text == "Hello"


PROBLEM = {"content-type": "application/problem+json"}
BUSY = {**PROBLEM, "retry-after": "1"}
HELD = {"n": 1, "dcaf": {"token": "old", "expires_at": 5, "retry": True}}
NEWER = {"n": 2, "dcaf": {"token": "newer", "expires_at": 5, "retry": True}}


def begun(session: Any = HELD, **options: Any) -> Turn:
    turn = Turn(Conversation(session=session, **options), "hi")
    turn.request()
    return turn


def problem(code: str, **members: Any) -> bytes:
    return json.dumps({"code": code, **members}).encode()


def test_a_session_in_which_another_turn_is_in_progress_is_waited_for_and_then_given_up() -> None:
    turn = begun()
    body, key, waited = turn.request(), turn.headers, timedelta(0)
    with pytest.raises(TurnConflict):
        for _ in range(99):
            turn.answered(409, BUSY, problem("session-conflict"))
            waited += turn.wait
            assert (turn.request(), turn.headers) == (body, key)
    assert waited == timedelta(seconds=10)


def test_without_the_hint_a_session_in_use_is_told_at_once() -> None:
    turn = begun({"dcaf": {"token": "old"}})
    with pytest.raises(TurnConflict):
        turn.answered(409, BUSY, problem("session-conflict"))
    assert not turn.is_due


@pytest.mark.parametrize("session", [HELD, {"dcaf": {"token": "old"}}, None])
def test_a_turn_that_did_not_run_may_be_sent_again_anywhere_twice(session: Any) -> None:
    turn = begun(session)
    body = turn.request()
    for _ in range(2):
        turn.answered(503, BUSY, problem("session-unavailable", ran=False))
        assert (turn.is_due, turn.wait, turn.request()) == (True, timedelta(seconds=1), body)
    with pytest.raises(ServiceFailed):
        turn.answered(503, BUSY, problem("session-unavailable", ran=False))


@pytest.mark.parametrize("members", [{"ran": True}, {}])
def test_a_turn_that_may_have_run_is_sent_again_where_the_hint_stands(members: Any) -> None:
    turn = begun()
    turn.answered(503, BUSY, problem("session-unavailable", **members))
    assert turn.is_due
    turn = begun({"dcaf": {"token": "old"}})
    with pytest.raises(ServiceFailed):
        turn.answered(503, BUSY, problem("session-unavailable", **members))


def test_who_is_asked_to_wait_for_long_is_told_instead() -> None:
    turn = begun()
    with pytest.raises(ServiceFailed):
        turn.answered(503, {**PROBLEM, "retry-after": "3600"}, problem("session-unavailable", ran=False))


@pytest.mark.parametrize(
    ("applied", "words"), [(True, "go on"), ("partial", "did not come to its end"), (None, "has ended, send"), (False, "again")]
)
def test_the_error_says_what_became_of_the_turn(applied: Any, words: str) -> None:
    turn = begun(retries=Retries(pauses=()))
    with pytest.raises(TurnConflict, match=words) as raised:
        turn.answered(409, BUSY, problem("session-conflict", applied=applied, data={"session": NEWER}))
    assert raised.value.applied == applied


def test_a_reissue_that_did_nothing_is_adopted_and_the_message_sent_again_but_not_for_ever() -> None:
    turn = begun()
    first = turn.request(), turn.headers
    refusal = problem("session-conflict", applied=False, data={"session": NEWER})
    for _ in range(3):
        turn.answered(409, BUSY, refusal)
        body, headers = turn.request(), turn.headers
        assert json.loads(body)["data"]["session"] == NEWER
        assert (body == first[0], headers == first[1]) == (False, False)
    with pytest.raises(TurnConflict):
        turn.answered(409, BUSY, refusal)


@pytest.mark.parametrize("members", [{"applied": False}, {}])
def test_a_frame_that_was_sent_before_is_not_taken_for_another_turn(members: Any) -> None:
    refusal = json.dumps({"type": "error", "code": "session-conflict", "data": {"session": NEWER}, **members})
    first = begun()
    assert first.frame(refusal) is None
    assert json.loads(first.request())["data"]["session"] == NEWER
    again = begun()
    assert again.lost()
    again.request()
    with pytest.raises(ServiceUnreachable, match="probably run"):
        again.frame(refusal)
    assert again._conversation.envelope == NEWER


def test_a_decision_that_was_done_waits_no_more() -> None:
    asked = [{"role": "assistant", "content": "?", "data": {"approvals": [ASKED]}}]
    conversation = Conversation(session=HELD, messages=asked)
    turn = Turn(conversation, decisions={"ap-1": True})
    turn.request()
    with pytest.raises(TurnConflict):
        turn.answered(409, BUSY, problem("session-conflict", applied=True, data={"session": NEWER}))
    assert (conversation.waiting, conversation.session) == ({}, {"n": 2})


def test_a_turn_that_was_overtaken_while_it_waited_is_not_sent_again() -> None:
    turn = begun()
    assert turn.lost()
    Turn(turn._conversation, "another")
    with pytest.raises(TurnOvertaken):
        turn.request()
    assert not turn.lost()


@pytest.mark.parametrize("code", ["session-superseded", "idempotency-key-reused"])
def test_other_refusals_are_told_at_once(code: str) -> None:
    turn = begun()
    with pytest.raises(ServiceError):
        turn.answered(409, BUSY, problem(code))
    assert not turn.is_due


def test_a_stream_whose_service_cannot_tell_whether_it_was_kept_is_sent_again() -> None:
    turn = begun()
    list(turn.feed(b'{"type":"text_delta","text":"Hal"}\n{"type":"error","code":"session-unavailable"}\n'))
    list(turn.ended())
    assert (turn.is_due, turn.failure) == (True, None)


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL")
