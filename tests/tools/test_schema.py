"""What a model is told of a tool's parameters."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf import ConfigurationError, tool

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
    values = odd._arguments.validate(
        {"schema": "a", "copy": 1, "model_dump": True, "_private": "p", "json": 1.5, "model_config": "c"}
    )
    assert list(values) == names


def test_an_unannotated_parameter_takes_any_json_value() -> None:
    @tool
    def anything(value):  # type: ignore[no-untyped-def]
        return value

    assert anything.input_schema["properties"]["value"] == {}
    assert anything._arguments.validate({"value": [1, {"a": None}]}) == {"value": [1, {"a": None}]}


def test_a_parameter_that_cannot_be_described_is_refused_when_the_tool_is_made() -> None:
    class Opaque: ...

    def take(thing: Opaque) -> None: ...

    with pytest.raises(ConfigurationError, match="take: a parameter cannot be described to a model"):
        tool(take)
