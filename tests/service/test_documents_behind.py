"""Documents of sessions behind a host: part of the turn's commit, taken along by a rotation, refused where others have written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from dcaf.core import Key, Keyring, SessionConflict, SessionHost
from dcaf.engines import MemoryEngine
from dcaf.service import Documents, Memory, Messages, SessionService
from dcaf.service import moving as moves
from dcaf.service.tables import Owner, find_app
from tests.service.kept_places import KeptPlace

RING = Keyring(Key.from_bytes("k7", bytes(range(32))))


@asynccontextmanager
async def turn_of(sessions: SessionService, envelope: Any = None, subject: str | None = "ada") -> AsyncIterator[Any]:
    async with SessionHost(keys=RING, audience="clinic", store=sessions).turn(envelope, subject=subject) as turn:
        yield turn


def find_all(sessions: SessionService, user: str | None = "ada", session_id: str = "") -> list[tuple[str, Any]]:
    """The documents of a user's only session, or of an anonymous one."""
    kept_id = session_id or sessions.sync.list(user=user or "").items[0].id
    found = sessions.sync.get(user=user, id=kept_id)
    assert found is not None
    return [(one.key, one.value) for one in found.documents.sync.scan().items]


def test_a_turn_that_writes_documents_alone_is_committed_and_one_that_raises_is_not(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        async with turn_of(sessions) as turn:
            turn.session["step"] = 1
            await Documents.of(turn.session).put("a", b"\0", expect=0)
        async with turn_of(sessions, turn.envelope) as turn:
            found = await Documents.of(turn.session).get("a")
            assert found is not None
            await Documents.of(turn.session).put("a", 2, expect=found.revision)
        envelope = turn.envelope
        with pytest.raises(ZeroDivisionError):
            async with turn_of(sessions, envelope) as turn:
                await Documents.of(turn.session).clear()
                raise ZeroDivisionError

    anyio.run(main)
    assert find_all(sessions) == [("a", 2)]


@pytest.mark.parametrize("messages", [0, 1])
def test_a_rotated_session_takes_its_documents_along(kept_place: KeptPlace, messages: int) -> None:
    assert rotate(kept_place.open_service(), messages) == [("a", 1), ("b", 2), ("c", 3)]


def rotate(sessions: SessionService, messages: int) -> list[tuple[str, Any]]:
    """A visitor writes documents, and logs in, in a turn that writes more."""

    async def main() -> None:
        async with turn_of(sessions, subject=None) as turn:
            turn.session["step"] = 1
            first = await Documents.of(turn.session).put("a", 0)
            await Documents.of(turn.session).put("b", 2)
            for _ in range(messages):
                Messages.of(turn.session).add("user", "Hello!")
        async with turn_of(sessions, turn.envelope, subject=None) as turn:
            documents = Documents.of(turn.session)
            await documents.put("a", 1, expect=first)
            turn.session.rotate(subject="ada")
            await documents.put("c", 3, expect=0)
        async with turn_of(sessions, turn.envelope) as turn:
            assert len((await Documents.of(turn.session).scan()).items) == 3

    anyio.run(main)
    return find_all(sessions)


def test_control_a_rotation_that_looks_for_no_documents_loses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(_: object) -> Any:
        yield from ()
        return False

    monkeypatch.setattr(moves, "has_documents", believe)
    with pytest.raises((SessionConflict, AssertionError)):
        rotate(SessionService(MemoryEngine(partitions=8), app="clinic"), 0)


def test_a_document_that_another_turn_has_written_refuses_the_turn_also_where_turns_are_merged() -> None:
    sessions = SessionService(MemoryEngine(partitions=8), app="clinic", on_busy="merge")

    async def main() -> None:
        async with turn_of(sessions) as turn:
            turn.session["step"] = 1
            first = await Documents.of(turn.session).put("a", 1)
        kept_id = sessions.sync.list(user="ada").items[0].id
        with pytest.raises(SessionConflict):
            async with turn_of(sessions, turn.envelope) as turn:
                turn.session["step"] = 2
                await Documents.of(turn.session).put("a", 2, expect=first)
                with sessions.sync.open(user="ada", id=kept_id) as other:
                    other.documents.sync.put("a", 3, expect=first)
        found = sessions.sync.get(user="ada", id=kept_id)
        assert found is not None
        assert found["step"] == 1

    anyio.run(main)
    assert find_all(sessions) == [("a", 3)]


def test_a_turn_is_laid_over_shared_keys_and_facts_that_others_write_where_those_of_all_lie_elsewhere() -> None:
    """Each row that a commit has read belongs to the key, the fact or the document that it was read for."""
    sessions = SessionService(MemoryEngine(partitions=8), app="clinic")
    assert find_app("clinic", 8)[1] != Owner("clinic", "p", partitions=8).partition
    sessions.sync.memory(user="p").set("fact", "old")
    sessions.sync.create(user="p", id="other", state={"user:a": 0, "app:a": 0, "app:b": 0})

    async def main() -> None:
        async with turn_of(sessions, subject="p") as turn:
            turn.session.app["a"] = 1
            turn.session.app["b"] = 1
            turn.session.user["a"] = 1
            Memory.of(turn.session).set("fact", "mine")
            first = await Documents.of(turn.session).put("d", 1, expect=0)
            assert first
            with sessions.sync.open(user="p", id="other") as other:
                other.user["a"] = 7
                other.user["b"] = 7
                other.memory.set("fact", "theirs")

    anyio.run(main)
    found = sessions.sync.get(user="p", id="other")
    assert found is not None
    assert found.to_dict() == {"user:a": 1, "user:b": 7, "app:a": 1, "app:b": 1}
    assert sessions.sync.memory(user="p").get("fact") == "mine"
