"""Artifacts in tools, of anonymous sessions, and behind the middleware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from dcaf.core import ConfigurationError, Session
from dcaf.core.errors import SessionClosedError
from dcaf.service import Artifacts, SessionService
from dcaf.tools import ToolRunner, tool
from tests.service.artifact_places import list_objects, make_store
from tests.service.test_service_as_store import Clinic, claims_of


@tool
async def write(text: str, artifacts: Artifacts) -> int:
    """Write a report.

    Args:
        text: The text.
    """
    version = await artifacts.save("report.md", text, mime="text/markdown")
    if text == "wrong":
        raise ValueError
    return version


@tool
def look(artifacts: Artifacts | None = None) -> str:
    """Look."""
    return "none" if artifacts is None else ", ".join(found.name for found in artifacts.sync.list().items)


def test_no_model_sees_the_parameter() -> None:
    assert list(write.input_schema["properties"]) == ["text"]
    assert look.input_schema["properties"] == {}


def test_a_tool_saves_and_one_that_fails_afterwards_has_saved() -> None:
    sessions = SessionService("memory://", app="clinic", artifacts="memory://")

    async def main() -> Any:
        async with sessions.open(user="ada") as session:
            runner = ToolRunner.of(session)
            assert await runner.run(write, {"text": "a"}) == 0
            with pytest.raises(Exception):  # noqa: B017 - however a runner tells of it
                await runner.run(write, {"text": "wrong"})
            assert await runner.run(write, {"text": "b"}) == 2
            assert await runner.run(look, {}) == "report.md"
        return await sessions.artifacts(user="ada", id=session.id).versions("report.md")

    assert [(found.version, found.size) for found in anyio.run(main)] == [(0, 1), (1, 5), (2, 1)]


def test_without_a_service_or_a_store_a_tool_is_told() -> None:
    for session in (Session.from_dict({}), SessionService("memory://", app="clinic").sync.create(user="ada")):

        async def main(session: Session = session) -> None:
            runner = ToolRunner.of(session)
            assert await runner.run(look, {}) == "none"
            with pytest.raises(ConfigurationError, match=r"no session service keeps it|keeps no artifacts"):
                await runner.run(write, {"text": "a"})

        anyio.run(main)


def test_a_handle_of_a_tool_that_has_ended_saves_nothing() -> None:
    sessions = SessionService("memory://", app="clinic", artifacts="memory://")
    held: list[Artifacts] = []

    @tool
    def hold(artifacts: Artifacts) -> None:
        """Hold."""
        held.append(artifacts)

    async def main() -> None:
        async with sessions.open(user="ada") as session:
            await ToolRunner.of(session).run(hold, {})
            with pytest.raises(SessionClosedError):
                await held[0].save("late", b"1")
            assert (await session.artifacts.list()).items == []

    anyio.run(main)


def test_anonymous_sessions_share_nothing(tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    sessions = SessionService("memory://", app="clinic", artifacts=store)
    for name in ("v", "w"):
        sessions.sync.create(user=None, id=name)
        sessions.sync.artifacts(user=None, id=name).save("user:card", name)
    found = sessions.sync.artifacts(user=None, id="v").load("user:card")
    assert found is not None
    assert (found.version, found.text) == (0, "v")
    assert sessions.sync.delete(user=None, id="v")
    assert len(list_objects(store)) == 1


def test_behind_the_middleware_they_go_along_with_the_session(tmp_path: Path) -> None:
    store = make_store("folder", tmp_path)
    sessions = SessionService("memory://", app="clinic", artifacts=store)
    sessions.sync.create(user="ada", id="before")
    sessions.sync.artifacts(user="ada", id="before").save("user:known", b"ada's")

    async def main() -> None:
        clinic = Clinic(sessions)

        def visit(session: Session) -> None:
            artifacts = Artifacts.of(session).sync
            for name in ("scan", "scan", "user:known", "user:new"):
                artifacts.save(name, f"a visitor's {name}" * 10)

        first = await clinic.do(None, visit, subject=None)
        sid = claims_of(first)["sid"]
        assert [found.version for found in await sessions.artifacts(user=None, id=sid).versions("scan")] == [0, 1]
        second = await clinic.do(first, lambda session: session.rotate(subject="ada"), subject=None)
        kept = sessions.artifacts(user="ada", id=claims_of(second)["sid"])
        assert [(found.name, found.version) for found in (await kept.list()).items] == [
            ("scan", 1),
            ("user:known", 0),
            ("user:new", 0),
        ]
        texts = {name: found.text for name in ("scan", "user:known", "user:new") if (found := await kept.load(name)) is not None}
        assert texts == {"scan": "a visitor's scan" * 10, "user:known": "ada's", "user:new": "a visitor's user:new" * 10}
        third = await clinic.do(second, lambda session: session.rotate())
        kept = sessions.artifacts(user="ada", id=claims_of(third)["sid"])
        assert await kept.save("scan", b"1") == 2
        await clinic.do(third, lambda session: session.end())
        await sessions.erase(user="ada")
        await sessions.purge()
        await sessions.aclose()

    anyio.run(main)
    assert list_objects(store) == []
