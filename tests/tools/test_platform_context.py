"""The platform's context: who gets it, and where it never goes."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

from dcaf import ConfigurationError, Session, tool
from dcaf.core import SessionValueError
from dcaf.tools import Call, PlatformContext, ToolRunner
from dcaf.tools.injection_plan import Plan
from dcaf.tools.platform_context import current_platform, within_platform

MIRA = {"user_id": "mira", "duplo_token": "secret-1", "scopes": ["a"]}


def by_type(name: str, where: PlatformContext) -> None: ...
def by_type_or_none(name: str, where: PlatformContext | None = None) -> None: ...
def annotated(name: str, where: Annotated[PlatformContext, "who"]) -> None: ...
def by_name(name: str, platform_context) -> None: ...  # type: ignore[no-untyped-def]
def as_dict(name: str, platform_context: dict) -> None: ...  # type: ignore[type-arg]
def as_typed_dict(name: str, platform_context: dict[str, Any] | None = None) -> None: ...
def as_mapping(name: str, platform_context: Mapping[str, Any]) -> None: ...
def keyword(name: str, *, platform_context: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    "function",
    [by_type, by_type_or_none, annotated, by_name, as_dict, as_typed_dict, as_mapping, keyword],
    ids=lambda f: f.__name__,
)
def test_a_tool_that_asks_for_it_gets_it_and_the_model_sees_nothing_of_it(function: Any) -> None:
    plan = Plan.of(function)
    assert len(plan.injected) == 1
    assert [parameter.name for parameter in plan.open] == ["name"]
    assert list(tool(function).input_schema["properties"]) == ["name"]
    assert not plan.writes
    assert not plan.needs_session


def test_a_parameter_of_another_name_is_the_models() -> None:
    def other(context: dict[str, Any]) -> None: ...

    assert Plan.of(other).injected == {}


@tool
def whoami(platform_context: dict[str, Any]) -> str:
    """Say who asks."""
    platform_context["user_id"] += "!"
    return str(platform_context["user_id"])


def test_each_call_gets_a_dict_of_its_own() -> None:
    with within_platform(MIRA):
        assert [asyncio.run(whoami.run({})) for _ in range(2)] == ["mira!", "mira!"]
    assert MIRA["user_id"] == "mira"


def test_it_reaches_tools_in_threads_and_beside_each_other() -> None:
    with within_platform(MIRA):
        results = asyncio.run(ToolRunner.of(Session()).run_all([Call(whoami, {}), Call(whoami, {})]))
    assert [result.text for result in results] == ["mira!", "mira!"]


def test_a_model_that_sends_one_is_not_believed() -> None:
    with within_platform(MIRA):
        assert asyncio.run(whoami.run({"platform_context": {"user_id": "root"}})) == "mira!"
    assert whoami.forged["platform_context"] > 0


def test_where_the_platform_says_nothing_it_is_empty() -> None:
    @tool
    def count(where: PlatformContext) -> int:
        return len(where)

    assert asyncio.run(count.run({})) == 0
    assert current_platform().to_dict() == {}
    with within_platform(None):
        assert asyncio.run(count.run({})) == 0


def test_a_tool_is_told_who_fills_it() -> None:
    assert "the platform's context" in str(whoami.explain())


def test_it_shows_nothing_of_what_it_holds_and_is_not_stored() -> None:
    context = PlatformContext(MIRA)
    assert "secret" not in repr(context)
    assert context.to_dict() == MIRA
    assert context.to_dict() is not context.to_dict()
    assert (context["user_id"], context.get("nobody", "x"), "user_id" in context, len(context)) == ("mira", "x", True, 3)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(context)
    with pytest.raises(ConfigurationError, match="would be the model's word"):
        TypeAdapter(PlatformContext)
    with pytest.raises(SessionValueError, match="here: ") as caught:
        Session().set("here", context)
    assert "secret" not in str(caught.value)


def test_a_list_of_them_is_a_mistake_and_says_so() -> None:
    def many(where: list[PlatformContext]) -> None: ...

    with pytest.raises(ConfigurationError, match="inside another type"):
        tool(many)
