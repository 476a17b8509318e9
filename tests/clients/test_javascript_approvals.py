"""Which calls wait is read by ``examples/client.mjs`` from what was said: in a stored conversation as in one that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.driven import CLIENT, Conversation, Node, Told
from tests.clients.servers import answering, line, refused, session, streamed

READY: Final = ("service api", "3 replicas", "execute")
DEAD: Final = refused(409, json.dumps({"code": "session-ended", "data": {"session": {"dcaf": {"token": "new"}}}}).encode())


def asked(chat: Conversation) -> Told:
    """The demo, where it asks whether to deploy."""
    told = [chat.send(said) for said in READY][-1]
    assert ids(told) == [call["id"] for call in (told.answer or {})["data"]["approvals"]] != []
    return told


def ids(told: Told) -> list[str]:
    return [call["id"] for call in told.waiting]


def decided(call: dict[str, Any], **decision: Any) -> dict[str, Any]:
    return {"role": "user", "content": "", "data": {"approvals": [{**call, **decision}]}}


YES: Final = {"execute": True}
NO: Final = {"execute": False, "rejection_reason": "not on a Friday"}


def test_a_call_waits_until_it_is_decided_whatever_is_said_before(browser: Node, url: str) -> None:
    chat = browser.conversation(url)
    first = asked(chat)
    second = chat.send("hello")
    assert ids(second) == ids(first)
    done = chat.send(decided(second.waiting[0], **YES))
    assert done.answer is not None
    assert (done.answer["content"], done.waiting) == ("Deployed api with 3 replicas.", [])
    again = chat.send(decided(first.waiting[0], **YES))
    assert (again.code, again.waiting) == (None, []), "a second click is answered, and nothing waits"


@pytest.mark.parametrize(("decision", "said"), [(YES, "Deployed api with 3 replicas."), (NO, "Rejected: not on a Friday")])
def test_a_conversation_that_was_stored_knows_what_waits(browser: Node, url: str, decision: Any, said: str) -> None:
    """As from localStorage: the session and the messages, as JSON, and nothing else."""
    told = asked(browser.conversation(url))
    stored = json.loads(json.dumps({"session": told.session, "messages": told.messages}))
    chat = browser.conversation(url, **stored)
    (call,) = chat.command().ended().waiting
    done = chat.send(decided(call, **decision))
    assert done.answer is not None
    assert (done.answer["content"], done.waiting) == (said, [])


def test_a_decision_that_is_none_leaves_the_call_waiting(browser: Node, url: str) -> None:
    chat = browser.conversation(url)
    (call,) = asked(chat).waiting
    assert ids(chat.send({**decided(call), "content": "hm"})) == [call["id"]]


def test_nothing_waits_in_a_session_that_was_begun_anew(browser: Node) -> None:
    proposed = streamed(line(type="approvals", approvals=[{"id": "c1", "name": "n", "input": {}}]), line(type="done"))
    with answering(proposed, DEAD, streamed(line(type="done", data={"session": session(1)}))) as service:
        chat = browser.conversation(service.url)
        before, after = chat.send("do it"), chat.send("well?")
    assert (ids(before), after.waiting) == (["c1"], [])


def test_a_turn_that_failed_decides_nothing(browser: Node) -> None:
    proposed = streamed(line(type="approvals", approvals=[{"id": "c1", "name": "n", "input": {}}]), line(type="done"))
    with answering(proposed, streamed(b"", is_whole=False)) as service:
        chat = browser.conversation(service.url)
        (call,) = chat.send("do it").waiting
        assert ids(chat.send(decided(call, **YES))) == ["c1"]


def turns(*proposed: Any) -> list[bytes]:
    """Streams, each of which names calls that wait."""
    return [
        streamed(line(type="approvals", approvals=calls), line(type="done", data={"session": session(1)})) for calls in proposed
    ]


ONE: Final = {"id": "c1", "name": "drop", "input": {"volume": "a"}}
TWO: Final = {"id": "c2", "name": "drop", "input": {"volume": "b"}}


@pytest.mark.parametrize(
    ("proposed", "waiting"),
    [
        ([[ONE], [ONE, TWO]], [ONE, TWO]),
        ([[ONE, TWO], []], [ONE, TWO]),
        ([[ONE], [TWO]], [ONE, TWO]),
        ([[ONE], [{**ONE, "input": {"volume": "c"}}]], [{**ONE, "input": {"volume": "c"}}]),
        ([[None, 5, {}, {"id": None}, {"id": ""}], [ONE]], [ONE]),
    ],
)
def test_each_call_waits_once_as_it_was_last_proposed(browser: Node, proposed: Any, waiting: Any) -> None:
    with answering(*turns(*proposed)) as service:
        chat = browser.conversation(service.url)
        told = [chat.send("go on") for _ in proposed]
    assert told[-1].waiting == waiting


def test_calls_that_one_answer_tells_of_in_several_events_stand_in_it_once(browser: Node) -> None:
    """As of a service that tells, whenever that changes, of all that waits."""
    told = [line(type=kind, **{kind: calls}) for calls in ([ONE], [ONE, TWO]) for kind in ("approvals", "tool_calls")]
    ran = [line(type="executed_tool_calls", executed_tool_calls=[ONE]) for _ in range(2)]
    with answering(streamed(*told, *ran, line(type="done"))) as service:
        answer = browser.conversation(service.url).send("go on").answer
    assert answer is not None
    assert answer["data"] == {"approvals": [ONE, TWO], "tool_calls": [ONE, TWO], "executed_tool_calls": [ONE, ONE]}


def test_a_decision_that_the_service_did_not_come_to_leaves_the_call_waiting(browser: Node) -> None:
    """As where an interceptor ended the turn before."""
    with answering(*turns([ONE]), streamed(line(type="done", meta_data={"stop_reason": "blocked"}))) as service:
        chat = browser.conversation(service.url)
        chat.send("go on")
        assert chat.send(decided(ONE, **YES)).waiting == [ONE]


def test_a_decision_in_the_older_form_counts(browser: Node) -> None:
    """In a conversation that another client has begun."""
    older = {"role": "user", "content": "", "data": {"tool_calls": [{**ONE, "execute": True}]}}
    answer = {"role": "assistant", "content": "Done.", "data": {"executed_approvals": [{**ONE, "output": "ok"}]}}
    asks = {"role": "assistant", "content": "?", "data": {"approvals": [ONE, TWO]}}
    chat = browser.conversation("http://nowhere", messages=[asks, older, answer])
    assert chat.command().ended().waiting == [TWO]


def test_a_call_that_the_answer_to_a_decision_names_again_waits_on(browser: Node) -> None:
    """As of one that was approved and rejected at once: the service does neither, and says that it waits."""
    with answering(*turns([ONE], [ONE])) as service:
        chat = browser.conversation(service.url)
        chat.send("go on")
        assert chat.send(decided(ONE, execute=True, rejection_reason="no")).waiting == [ONE]


@pytest.mark.parametrize(
    ("place", "by"),
    [
        ("of this.messages.filter(", "of this.messages.slice(-1).filter("),
        ("listOf(data?.executed_approvals)", "[]"),
    ],
)
def test_control_a_client_that_reads_one_answer_or_forgets_what_was_decided_is_found(
    browser: Node, variant: Callable[[str, str], Path], place: str, by: str
) -> None:
    """The service tells of a call once; then it is decided."""
    ran = streamed(line(type="executed_approvals", executed_approvals=[{**ONE, "output": "ok"}]), line(type="done"))
    found = []
    for module in (CLIENT, variant(place, by)):
        with answering(*turns([ONE]), streamed(line(type="done")), ran) as service:
            chat = browser.conversation(service.url, module=module)
            said: list[Any] = ["go on", "hello", decided(ONE, **YES)]
            found.append([chat.send(one).waiting for one in said] == [[ONE], [ONE], []])
    assert found == [True, False]
