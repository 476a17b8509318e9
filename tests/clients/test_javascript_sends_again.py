"""``examples/client.mjs`` where answers are lost: it sends a turn again where the service would know it, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.client_package.cutting import CUTS, remembering
from tests.clients.driven import Node
from tests.clients.servers import answering, line, refused, streamed

Variant = Callable[[str, str], Path]
HINT: Final = "this.session?.dcaf?.retry && {"
OLD: Final = {"n": 1, "dcaf": {"token": "old", "retry": True}}
NEWER: Final = {"n": 2, "dcaf": {"token": "newer", "retry": True}}
DONE: Final = streamed(line(type="done", data={"session": NEWER}))


def problem(status: int, **members: Any) -> bytes:
    return refused(status, json.dumps(members).encode())


def test_a_turn_that_never_arrived_is_sent_again_and_answered(browser: Node) -> None:
    with remembering() as (service, proxy):
        chat = browser.conversation(proxy.url)
        chat.send("one")
        proxy.cuts = ["before the request"] * 2
        told = chat.send("two")
        assert told.answer is not None
        assert (told.answer["content"], told.answer["attempts"], told.state["n"]) == ("turn 2", 3, 2)
        assert [event["attempt"] for event in told.events if event["type"] == "again"] == [2, 3]
        assert (len(service.effects), len(told.messages)) == (2, 4)
        first, *keys = service.keys
        assert (first, len(keys)) == (None, 1)
        assert (keys[0] or "")[:1] == (keys[0] or "")[-1:] == '"'


@pytest.mark.parametrize("cut", CUTS[1:])
def test_a_turn_that_was_done_is_not_done_twice_and_the_conversation_goes_on(browser: Node, cut: str) -> None:
    with remembering() as (service, proxy):
        chat = browser.conversation(proxy.url)
        chat.send("one")
        proxy.cuts = [cut]
        told = chat.send("two")
        assert (told.code, told.error and told.error["applied"], told.state["n"]) == ("session-conflict", True, 2)
        after = chat.send("three")
        assert after.answer is not None
        assert (after.answer["content"], after.answer["attempts"]) == ("turn 3", 1)
        assert len(service.effects) == 3
        _, second, again, third = service.keys
        assert (second, second == third) == (again, False), "the same body has the same key, and another one another"


@pytest.mark.parametrize("cut", CUTS)
def test_where_nothing_is_kept_nothing_is_sent_twice(browser: Node, cut: str) -> None:
    with remembering("L0") as (service, proxy):
        chat = browser.conversation(proxy.url)
        before = chat.send("one")
        proxy.cuts = [cut]
        told = chat.send("two")
        assert told.code in {"no-answer", "broken-off", "no-end"}
        assert (told.session, told.messages) == (before.session, before.messages)
        assert (proxy.sent, len(service.effects)) == (2, 1 if cut == "before the request" else 2)


def test_control_a_client_that_sends_again_where_nothing_is_kept_does_it_twice(browser: Node, variant: Variant) -> None:
    with remembering("L0") as (service, proxy):
        chat = browser.conversation(proxy.url, module=variant(HINT, "{"))
        chat.send("one")
        proxy.cuts = ["after the request"]
        chat.send("two")
        assert [json.loads(text)["messages"][-1]["content"] for text in service.effects] == ["one", "two", "two"]


def test_it_gives_up_after_three_more_tries(browser: Node) -> None:
    with remembering() as (service, proxy):
        chat = browser.conversation(proxy.url)
        before = chat.send("one")
        proxy.cuts = ["before the request"] * 9
        told = chat.send("two")
        assert (proxy.sent, told.session, told.messages) == (5, before.session, before.messages)
        assert told.code in {"no-answer", "broken-off"}
        assert len(service.effects) == 1


def test_a_reissue_that_did_nothing_is_adopted_and_the_message_sent_again(browser: Node) -> None:
    refusal = problem(409, code="session-conflict", applied=False, data={"session": NEWER})
    with answering(refusal, DONE) as service:
        told = browser.conversation(service.url, session=OLD).send("hi")
    assert told.answer is not None
    assert told.answer["attempts"] == 2
    assert [body["data"]["session"] for body in service.asked] == [OLD, NEWER]


@pytest.mark.parametrize(
    ("session", "refusal", "sent"),
    [
        (OLD, problem(503, code="session-unavailable", ran=True), 2),
        (None, problem(503, code="session-unavailable", ran=False), 2),
        (None, problem(503, code="session-unavailable", ran=True), 1),
        (OLD, problem(409, code="session-conflict"), 2),
        (None, problem(409, code="session-conflict"), 1),
        (OLD, refused(502, b"<html>Bad gateway</html>", "text/html"), 2),
        (OLD, problem(502, code="model-failed"), 1),
        (OLD, problem(409, code="session-superseded"), 1),
        (OLD, problem(409, code="session-conflict", applied="partial", data={"session": NEWER}), 1),
    ],
    ids=[
        "it may have run",
        "it did not run",
        "it may have run, at L0",
        "another turn",
        "another turn, at L0",
        "a proxy",
        "its own",
        "behind",
        "partial",
    ],
)
def test_what_is_sent_again_after_a_refusal(browser: Node, session: Any, refusal: bytes, sent: int) -> None:
    with answering(refusal, DONE) as service:
        told = browser.conversation(service.url, session=session).send("hi")
    assert len(service.asked) == sent
    assert service.asked == service.asked[:1] * sent, "the same"
    assert (told.code is None) == (sent == 2)


def test_the_error_of_a_turn_that_was_done_holds_no_session(browser: Node) -> None:
    with answering(problem(409, code="session-conflict", applied=True, data={"session": NEWER})) as service:
        told = browser.conversation(service.url, session=OLD).send("hi")
    assert told.session == NEWER
    assert "newer" not in json.dumps(told.error)
