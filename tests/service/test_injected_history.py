"""Tools that ask for the history and the memory of their session get them, and what a failed call adds is dropped."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from dcaf.core import ConfigurationError, Session, SessionClosedError, transaction
from dcaf.core.transaction import Overlay
from dcaf.service import Memory, Messages, SessionService
from dcaf.tools import ToolRunner, tool


@tool
async def note(text: str, session: Session, messages: Messages, memory: Memory) -> str:
    """Note a text.

    Args:
        text: The text.
    """
    session["last"] = text
    messages.add("user", text)
    memory.set("last", text)
    memory.here.set("last", text)
    assert list(messages)[-1].content == await memory.get("last") == await memory.here.get("last") == text
    if text == "wrong":
        raise ValueError
    return text


@tool
def peek(messages: Messages | None = None, memory: Memory | None = None) -> list[str]:
    """Look."""
    return [type(found).__name__ for found in (messages, memory)]


def test_no_model_sees_the_parameters() -> None:
    assert list(note.input_schema["properties"]) == ["text"]
    assert note.writes_session
    assert peek.input_schema["properties"] == {}


def test_what_a_call_adds_is_written_with_the_turn_and_that_of_a_failed_one_is_not() -> None:
    assert run_calls() == ({"last": "b"}, ["a", "b"], "b", "b")


def run_calls() -> tuple[Any, ...]:
    sessions = SessionService("memory://", app="clinic")

    async def main() -> tuple[Any, ...]:
        async with sessions.open(user="ada") as session:
            for text in ("a", "wrong", "b"):
                try:
                    await ToolRunner.of(session).run(note, {"text": text})
                except Exception:  # noqa: BLE001 - however a runner tells of it
                    continue
        async with sessions.open(user="ada", id=session.id) as after:
            here, user = await after.memory.here.get("last"), await after.memory.get("last")
            return after.to_dict(), [message.content for message in after.messages], user, here

    return anyio.run(main)


def test_control_a_call_without_a_journal_of_its_own_leaves_what_it_added(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Overlay.__init__

    def share(self: Overlay, parent: Any) -> None:
        begin(self, parent)
        self.journal = parent.journal
        if self.journal is not None:
            monkeypatch.setattr(type(self.journal), "take_over", lambda *_: None)

    monkeypatch.setattr(Overlay, "__init__", share)
    assert run_calls() == ({"last": "b"}, ["a", "wrong", "b"], "b", "b")


def test_a_draft_sees_what_it_adds_and_others_see_it_when_it_is_kept() -> None:
    sessions = SessionService("memory://", app="clinic")
    with sessions.sync.open(user="ada") as session:
        session.messages.add("user", "first")
        with transaction(session) as draft:
            draft.messages.add("user", "second")
            draft.memory.set("k", 1)
            assert [message.content for message in draft.messages] == ["first", "second"]
            assert [message.content for message in session.messages] == ["first"]
            assert (draft.memory.sync.get("k"), session.memory.sync.get("k")) == (1, None)
            late = draft.messages, draft.memory
        assert (session.messages.total, session.memory.sync.get("k")) == (2, 1)
        with pytest.raises(ZeroDivisionError), transaction(session) as other:
            other.messages.add("user", "third")
            other.memory.clear()
            assert other.memory.sync.get("k") is None
            fail()
        assert (session.messages.total, session.memory.sync.get("k")) == (2, 1)
        with pytest.raises(SessionClosedError):
            late[0].add("user", "too late")
        with pytest.raises(SessionClosedError):
            late[1].set("k", 2)
    found = sessions.sync.get(user="ada", id=session.id)
    assert found is not None
    assert (found.messages.total, found.memory.sync.get("k")) == (2, 1)


def test_a_call_may_make_a_call_and_answer_it() -> None:
    sessions = SessionService("memory://", app="clinic")
    asked = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    with sessions.sync.open(user="ada") as session, transaction(session) as draft:
        draft.messages.add("assistant", tool_calls=[asked])
        draft.messages.add("tool", "found", tool_call_id="c1")
    assert sessions.sync.messages(user="ada", id=session.id).total == 2


def fail() -> None:
    raise ZeroDivisionError


def test_a_turn_that_adds_messages_alone_is_a_change() -> None:
    sessions = SessionService("memory://", app="clinic")
    with sessions.sync.open(user="ada") as session:
        before = session.is_modified
        session.messages.add("user", "Hello!")
        assert (before, session.is_modified) == (False, True)
    found = sessions.sync.get(user="ada", id=session.id)
    assert found is not None
    assert (found.revision, found.messages.total, found.is_modified) == (1, 1, False)


def test_without_a_service_the_call_says_what_is_missing() -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="no session service keeps it"):
            await note.run({"text": "a"}, session=Session())
        assert await peek.run({}, session=Session()) == ["NoneType", "NoneType"]
        sessions = SessionService("memory://", app="clinic")
        async with sessions.open(user="ada") as session:
            assert await peek.run({}, session=session) == ["Messages", "Memory"]

    anyio.run(main)
    for made in (Messages.of, Memory.of):
        with pytest.raises(ConfigurationError, match="no session service keeps it"):
            made(Session())
