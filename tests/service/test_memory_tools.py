"""A model remembers by tools: typed, of the user of the session, and dropped where the turn fails."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from dcaf.core import ConfigurationError, Session, ToolArgumentError, ToolError
from dcaf.service import Memory, SessionService
from dcaf.tools import ToolRunner

REMEMBER, RECALL, FORGET = Memory.tools()


def test_a_model_sees_names_and_values_and_no_memory() -> None:
    assert [tool.name for tool in Memory.tools()] == ["remember", "recall", "forget"]
    assert [list(tool.input_schema["properties"]) for tool in Memory.tools()] == [["name", "value", "days"], ["name"], ["name"]]
    assert REMEMBER.writes_session


@pytest.mark.parametrize("value", [["penicillin"], {"a": None}, "x", 1.0, True, None, "\x00"])
def test_what_is_remembered_comes_back_in_a_later_session_of_the_user_as_it_was(value: Any) -> None:
    sessions = SessionService("memory://", app="clinic")

    async def main() -> Any:
        async with sessions.open(user="ada") as session:
            await ToolRunner.of(session).run(REMEMBER, {"name": "k", "value": value})
            assert await ToolRunner.of(session).run(RECALL, {"name": "k"}) == value
        async with sessions.open(user="bob") as other:
            assert await ToolRunner.of(other).run(RECALL, {}) == {}
        async with sessions.open(user="ada") as later:
            return await ToolRunner.of(later).run(RECALL, {})

    found = anyio.run(main)
    assert found == {"k": value}
    assert type(found["k"]) is type(value)


def test_what_is_forgotten_is_gone_and_what_is_unknown_is_said() -> None:
    sessions = SessionService("memory://", app="clinic")

    async def main() -> None:
        async with sessions.open(user="ada") as session:
            runner = ToolRunner.of(session)
            await runner.run(REMEMBER, {"name": "k", "value": 1, "days": 2})
            with pytest.raises(ToolError, match="There are: k"):
                await runner.run(RECALL, {"name": "other"})
            await runner.run(FORGET, {"name": "k"})
            assert await runner.run(RECALL, {}) == {}
            for wrong in ({"name": "", "value": 1}, {"name": "k"}, {"name": "k", "value": 1, "days": 0}):
                with pytest.raises(ToolArgumentError):
                    await runner.run(REMEMBER, wrong)

    anyio.run(main)


def test_a_turn_that_fails_remembers_nothing_and_one_without_a_service_says_so() -> None:
    sessions = SessionService("memory://", app="clinic")

    async def fail() -> None:
        async with sessions.open(user="ada") as session:
            await ToolRunner.of(session).run(REMEMBER, {"name": "k", "value": 1})
            raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await fail()
        assert await sessions.memory(user="ada").all() == []
        with pytest.raises(ConfigurationError, match="no session service"):
            await REMEMBER.run({"name": "k", "value": 1}, session=Session())

    anyio.run(main)
