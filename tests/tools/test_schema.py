"""What a model is told of a tool's parameters."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field

from dcaf import ConfigurationError, Session, tool
from dcaf.core import ToolArgumentError

GOOGLE = """Greet.

Args:
    name: What to call them.
    times: How often.
"""
NUMPY = """Greet.

Parameters
----------
name
    What to call them.
times
    How often.
"""
SPHINX = """Greet.

:param name: What to call them.
:param times: How often.
"""


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX])
def test_descriptions_are_read_in_each_of_the_usual_forms(docstring: str) -> None:
    def greet(name: str, times: int = 1) -> str:
        return name * times

    greet.__doc__ = docstring
    made = tool(greet)
    properties = made.input_schema["properties"]
    assert made.description == "Greet."
    assert (properties["name"]["description"], properties["times"]["description"]) == ("What to call them.", "How often.")
    assert properties["times"]["default"] == 1


def test_a_function_without_a_docstring_has_an_empty_description() -> None:
    @tool
    def bare(n: int) -> int:
        return n

    assert bare.description == ""
    assert bare.input_schema == {
        "additionalProperties": False,
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "type": "object",
    }


def test_any_name_of_a_parameter_works() -> None:
    @tool
    def odd(schema: str, copy: int, model_dump: bool, _private: str, json: float, model_config: str) -> dict[str, Any]:
        return {
            "schema": schema,
            "copy": copy,
            "model_dump": model_dump,
            "_private": _private,
            "json": json,
            "config": model_config,
        }

    names = ["schema", "copy", "model_dump", "_private", "json", "model_config"]
    assert list(odd.input_schema["properties"]) == names
    values = odd._read.arguments.validate(
        {"schema": "a", "copy": 1, "model_dump": True, "_private": "p", "json": 1.5, "model_config": "c"}
    )
    assert list(values) == names


def test_an_unannotated_parameter_takes_any_json_value() -> None:
    @tool
    def anything(value):  # type: ignore[no-untyped-def]
        return value

    assert anything.input_schema["properties"]["value"] == {}
    assert anything._read.arguments.validate({"value": [1, {"a": None}]}) == {"value": [1, {"a": None}]}


def test_a_parameter_that_cannot_be_described_is_refused_when_the_tool_is_made() -> None:
    class Opaque: ...

    def take(thing: Opaque) -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"take: the parameter 'thing' is annotated as .*Opaque, which pydantic cannot describe to a model"
    ):
        tool(take)


def test_other_sections_of_the_docstring_are_not_told_and_an_injected_parameter_never_is() -> None:
    @tool
    def greet(name: str, session: Session) -> str:
        """Greet the person.

        Kindly.

        Args:
            name: What to call them.
            session: Holds the secret handshake.

        Returns:
            The words.

        Raises:
            ValueError: Never.
        """
        return name

    assert greet.description == "Greet the person.\n\nKindly."
    assert greet.input_schema == {
        "additionalProperties": False,
        "properties": {"name": {"description": "What to call them.", "type": "string"}},
        "required": ["name"],
        "type": "object",
    }


def described(number: Annotated[int, Field(description="From one to nine.", ge=1, le=9)]) -> int:
    return number


def test_the_limits_in_an_annotation_bind_the_model() -> None:
    made = tool(described)
    assert (made.input_schema["properties"]["number"]["minimum"], made.input_schema["properties"]["number"]["maximum"]) == (1, 9)
    with pytest.raises(ToolArgumentError) as caught:
        made._read.arguments.validate({"number": 10})
    assert str(caught.value) == ("the value does not fit described\n  arguments.number: Input should be less than or equal to 9")


def test_a_description_in_an_annotation_is_told_where_the_docstring_has_none() -> None:
    assert tool(described).input_schema["properties"]["number"].get("description") == "From one to nine."


def times(
    number: int = Field(3, ge=1, description="How often."), names: list[str] = Field(default_factory=list)
) -> tuple[int, Any]:
    names.append("x")
    return number, names


def test_a_default_that_is_a_pydantic_field_describes_and_limits_and_is_the_default() -> None:
    made = tool(times)
    assert made.input_schema["properties"]["number"] == {"default": 3, "description": "How often.", "minimum": 1, "type": "integer"}
    assert "required" not in made.input_schema
    assert [asyncio.run(made.run({})) for _ in range(2)] == [(3, ["x"])] * 2, "a new list each time"
    assert asyncio.run(made.run({"number": 5, "names": ["a"]})) == (5, ["a", "x"])
    with pytest.raises(ToolArgumentError, match=r"arguments\.number: Input should be greater than or equal to 1"):
        asyncio.run(made.run({"number": 0}))


def test_a_plain_call_gets_the_default_of_a_pydantic_field_too() -> None:
    assert tool(times)() == (3, ["x"])
    assert tool(times)(4) == (4, ["x"])
    assert tool(times)(names=["a"]) == (3, ["a", "x"])


def test_a_pydantic_field_without_a_default_is_required() -> None:
    def needs(number: int = Field(ge=1)) -> int:
        return number

    assert tool(needs).input_schema["required"] == ["number"]
    assert asyncio.run(tool(needs).run({"number": 2})) == 2


def test_a_default_in_an_annotation_is_one() -> None:
    def has(number: Annotated[int, Field(default=7)]) -> int:
        return number

    assert "required" not in tool(has).input_schema
    assert asyncio.run(tool(has).run({})) == 7


def test_a_default_that_json_cannot_say_is_left_out_in_silence() -> None:
    unset: Any = object()

    def look(key: str = unset) -> bool:
        return key is unset

    made = tool(look)
    assert made.input_schema["properties"]["key"] == {"type": "string"}
    assert asyncio.run(made.run({})) is True


def test_a_default_of_the_function_is_not_validated() -> None:
    @tool
    def collect(items: list[int] = ["a"], mode: str = 5) -> Any:  # type: ignore[assignment, list-item]  # noqa: B006
        return items, mode

    assert asyncio.run(collect.run({})) == (["a"], 5)
    assert asyncio.run(collect.run({"items": []})) == ([], 5)


@pytest.mark.parametrize("name", ["self", "cls", "function", "values", "arguments", "title", "properties", "p0", "p1", "class_"])
def test_a_parameter_may_be_called_like_anything_inside(name: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def odd(other, {name}, session): return other, {name}, dict(session)", space)
    made = tool(space["odd"])
    assert list(made.input_schema["properties"]) == ["other", name]
    assert asyncio.run(made.run({"other": 1, name: [2]}, session=Session.from_dict({"n": 3}))) == (1, [2], {"n": 3})


@pytest.mark.parametrize("name", ["p0", "p1", "number_", "Number", "model_config", "__class__"])
def test_no_other_spelling_of_a_parameter_is_taken(name: str) -> None:
    with pytest.raises(ToolArgumentError) as caught:
        tool(described)._read.arguments.validate({"number": 1, name: 2})
    assert str(caught.value) == f"the value does not fit described\n  arguments.{name}: Extra inputs are not permitted"


def test_control_the_parameters_own_name_is_taken() -> None:
    assert tool(described)._read.arguments.validate({"number": 1}) == {"number": 1}


def test_an_alias_in_an_annotation_does_not_rename_the_parameter() -> None:
    def aliased(number: Annotated[int, Field(alias="n")]) -> int:
        return number

    assert list(tool(aliased).input_schema["properties"]) == ["number"]


class Line(BaseModel):
    name: str
    tags: dict[str, list[int]] = {}


def test_models_inside_are_described_by_reference_and_refused_with_their_path() -> None:
    def order(lines: list[Line], note: str | None = None) -> int:
        return len(lines)

    made = tool(order)
    assert made.input_schema["properties"] == {
        "lines": {"items": {"$ref": "#/$defs/Line"}, "type": "array"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    }
    with pytest.raises(ToolArgumentError) as caught:
        made._read.arguments.validate({"lines": [{"name": "a"}, {"name": "b", "tags": {"odd key": [1, "x"]}}, {}]})
    assert str(caught.value) == (
        "the value does not fit order\n"
        "  arguments.lines[1].tags['odd key'][1]: Input should be a valid integer, unable to parse string as an integer\n"
        "  arguments.lines[2].name: Field required"
    )


def test_a_refusal_never_quotes_a_value_even_where_a_validator_does() -> None:
    def quoting(value: str) -> str:
        raise ValueError(f"{value} is bad")

    def check(value: Annotated[str, AfterValidator(quoting)]) -> None: ...

    with pytest.raises(ToolArgumentError) as caught:
        tool(check)._read.arguments.validate({"value": "hunter2"})
    assert str(caught.value) == "the value does not fit check\n  arguments.value: refused by the type's own validator"


def test_an_arguments_name_cannot_break_the_line_of_a_message() -> None:
    with pytest.raises(ToolArgumentError) as caught:
        tool(described)._read.arguments.validate({"number": 1, "a\nb": 2})
    assert str(caught.value).splitlines()[1:] == [r"  arguments['a\nb']: Extra inputs are not permitted"]
