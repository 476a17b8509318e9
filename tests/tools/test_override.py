"""A schema by hand: the model is shown it, and the function's own types still count."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dcaf import ConfigurationError, Session, Tool, tool
from dcaf.core import ToolArgumentError

GIVEN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "examples": ["Zurich"]},
        "days": {"type": "integer", "maximum": 9},
        "session": {"type": "object", "description": "The secret."},
    },
    "required": ["city", "session"],
}


def forecast(city: str, session: Session, days: int = 1) -> str:
    """Forecast.

    Args:
        city: Where.
    """
    return f"{city} {days} {len(session)}"


def forward(session: Session, **options: Any) -> dict[str, Any]:
    """Pass on whatever there is."""
    return {**options, "n": len(session)}


def run(made: Tool[..., Any], arguments: dict[str, Any]) -> Any:
    return asyncio.run(made.run(arguments, session=Session()))


def test_the_model_is_shown_the_schema_without_what_the_session_fills() -> None:
    made = tool(input_schema=GIVEN)(forecast)
    assert made.input_schema == {
        "type": "object",
        "properties": {name: GIVEN["properties"][name] for name in ("city", "days")},
        "required": ["city"],
    }
    assert "session" in GIVEN["properties"], "what was given is as it was"
    assert made.description == "Forecast."


def test_the_functions_own_types_are_what_is_checked() -> None:
    made = tool(input_schema=GIVEN)(forecast)
    assert run(made, {"city": "Bern", "days": "3"}) == "Bern 3 0"
    with pytest.raises(ToolArgumentError, match=r"arguments\.days: Input should be a valid integer"):
        run(made, {"city": "Bern", "days": "many"})


def test_a_forged_session_is_dropped_though_the_schema_by_hand_had_named_it() -> None:
    made = tool(input_schema=GIVEN)(forecast)
    assert run(made, {"city": "Bern", "session": {"a": 1}}) == "Bern 1 0"
    assert made.forged == {"session": 1}


def test_what_the_schema_names_reaches_the_keywords_of_the_function() -> None:
    made = tool(input_schema=GIVEN)(forward)
    assert run(made, {"city": "Bern", "days": 3}) == {"city": "Bern", "days": 3, "n": 0}
    assert run(made, {"city": "Bern"}) == {"city": "Bern", "n": 0}
    with pytest.raises(ToolArgumentError, match=r"arguments\.other: Extra inputs are not permitted"):
        run(made, {"city": "Bern", "other": 1})


def test_the_annotation_of_the_keywords_counts_for_each_of_them() -> None:
    def numbers(**options: int) -> dict[str, int]:
        return options

    made = tool(input_schema={"type": "object", "properties": {"a": {}, "b": {}}})(numbers)
    assert run(made, {"a": "1"}) == {"a": 1}
    with pytest.raises(ToolArgumentError, match=r"arguments\.b"):
        run(made, {"b": "x"})


def test_a_tool_without_arguments_may_have_a_schema_without_properties() -> None:
    def count(session: Session) -> int:
        return session.incr("n")

    made = tool(input_schema={"type": "object"})(count)
    assert made.input_schema == {"type": "object", "properties": {}}
    assert run(made, {}) == 1


def test_a_strict_form_of_it_is_made() -> None:
    made = tool(input_schema=GIVEN, strict=True)(forecast)
    assert made.input_schema["required"] == ["city", "days"]
    assert run(made, {"city": "Bern", "days": None}) == "Bern 1 0"


WRONG = {
    "no object": ({"type": "string"}, "is a JSON Schema of an object"),
    "no properties": ({"type": "object", "properties": []}, "is a JSON Schema of an object"),
    "unknown property": (
        {"type": "object", "properties": {"city": {}, "wind": {}}},
        "has the property 'wind', and the function no",
    ),
    "missing property": (
        {"type": "object", "properties": {"days": {}}},
        "has no property 'city', which the function cannot do without",
    ),
}


@pytest.mark.parametrize(("given", "said"), WRONG.values(), ids=WRONG)
def test_a_schema_that_does_not_fit_the_function_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        tool(input_schema=given)(forecast)
