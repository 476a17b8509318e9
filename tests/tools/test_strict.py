"""Strict schemas, for providers that take no others, and the nulls that models send for what they leave out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from dcaf import ConfigurationError, Session, tool
from dcaf.core import ToolArgumentError
from dcaf.tools.schema import strict


class Line(BaseModel):
    """One line."""

    name: str
    quantity: int = 1
    then: Line | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


@tool(strict=True)
def order(
    first: Line,
    lines: list[Line],
    session: Session,
    *,
    size: Literal["s", "l"] = "s",
    note: str | None = None,
    times: Annotated[int, Field(ge=1, description="How often.")] = 1,
) -> Any:
    """Order."""
    return [first, lines, size, note, times]


def everywhere(schema: Any) -> list[dict[str, Any]]:
    """Every schema of an object inside one."""
    if isinstance(schema, list):
        return [found for item in schema for found in everywhere(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [found for item in schema.values() for found in everywhere(item)]


def test_every_object_requires_all_its_members_and_allows_no_more() -> None:
    objects = everywhere(order.input_schema)
    assert len(objects) == 2
    for found in objects:
        assert found["required"] == list(found["properties"])
        assert found["additionalProperties"] is False


def test_what_may_be_left_out_may_be_null_and_says_no_default() -> None:
    properties = order.input_schema["properties"]
    assert properties["size"] == {"anyOf": [{"enum": ["s", "l"], "type": "string"}, {"type": "null"}]}
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert properties["times"] == {"description": "How often.", "anyOf": [{"minimum": 1, "type": "integer"}, {"type": "null"}]}
    assert properties["first"] == {"$ref": "#/$defs/Line"}
    assert order.input_schema["$defs"]["Line"]["properties"]["quantity"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert "default" not in str(order.input_schema)
    assert "session" not in str(order.input_schema).lower()


def test_the_schema_that_is_not_strict_is_left_as_it_was() -> None:
    def greet(name: str, times: int = 1) -> str:
        return name * times

    loose = tool(greet)
    before = str(loose.input_schema)
    assert loose.strict_schema == tool(strict=True)(greet).input_schema
    assert str(loose.input_schema) == before
    assert loose.input_schema["required"] == ["name"]


def run(arguments: dict[str, Any]) -> Any:
    return asyncio.run(order.run(arguments, session=Session()))


def test_a_null_for_what_may_be_left_out_counts_as_left_out_however_deep() -> None:
    given = {
        "first": {"name": "a", "quantity": None, "then": None},
        "lines": [{"name": "b", "quantity": None, "then": {"name": "c", "quantity": None}}],
        "size": None,
        "note": None,
        "times": None,
    }
    inner = Line(name="c", quantity=1)
    assert run(given) == [Line(name="a"), [Line(name="b", then=inner)], "s", None, 1]
    assert given["size"] is None, "what the caller gave is as it was"


def test_a_null_for_what_is_required_is_refused_as_what_it_is() -> None:
    with pytest.raises(ToolArgumentError) as caught:
        run({"first": None, "lines": [{"name": None}], "times": None})
    assert str(caught.value).splitlines()[1:] == [
        "  arguments.first: Input should be a valid dictionary or instance of Line",
        "  arguments.lines[0].name: Input should be a valid string",
        "  arguments.times: Input should be a valid integer",
    ]


def test_a_null_in_a_list_is_not_left_out() -> None:
    with pytest.raises(ToolArgumentError, match=r"arguments\.lines\[0\]"):
        run({"first": {"name": "a"}, "lines": [None]})


def test_a_null_beside_the_names_that_pydantic_gives_to_types_is_found() -> None:
    @tool
    def adopt(pet: Pet, count: int | str = 2) -> Any:
        return [pet, count]

    found = asyncio.run(adopt.run({"pet": {"kind": "cat", "lives": None}, "count": None}))
    assert found == [Cat(kind="cat"), 2]


def test_a_union_by_a_tag_is_said_without_the_tag() -> None:
    def adopt(pet: Pet) -> None: ...

    made = tool(strict=True)(adopt).input_schema
    assert made["properties"]["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}


def test_nothing_stands_beside_a_reference() -> None:
    def put(line: Annotated[Line, Field(description="What.")]) -> None: ...

    found = tool(strict=True)(put).input_schema["properties"]["line"]
    assert "$ref" not in found
    assert (found["description"], found["required"]) == ("What.", ["name", "quantity", "then"])


def test_a_tool_without_parameters_has_a_strict_schema_too() -> None:
    @tool(strict=True)
    def go(session: Session) -> None: ...

    assert go.input_schema == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def any_keys(sizes: dict[str, int]) -> None: ...
def any_value(value: Any) -> None: ...
def no_annotation(value) -> None: ...  # type: ignore[no-untyped-def]
def deep(lines: list[dict[str, int]]) -> None: ...


@pytest.mark.parametrize("function", [any_keys, any_value, no_annotation, deep])
def test_what_a_strict_schema_cannot_say_is_refused_with_its_path_when_the_tool_is_made(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"{function.__name__}: arguments\.\w+(\[\])? .* strict schema cannot say"):
        tool(strict=True)(function)
    assert tool(function).input_schema


def test_a_schema_with_no_members_is_one_of_any_keys() -> None:
    with pytest.raises(ConfigurationError, match="any keys"):
        strict({"type": "object", "properties": {"a": {"type": "object"}}}, tool="act")
