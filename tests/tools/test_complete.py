"""What a person is shown of a call before it runs: the arguments that the function will get, its defaults too."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator, Field, SecretBytes, SecretStr, field_serializer
from typing_extensions import TypedDict

from dcaf import Session, Tool, tool
from dcaf.core import ToolArgumentError
from dcaf.tools import schema


class Options(BaseModel):
    force: bool = True
    tags: list[str] = ["all"]


class Renamed(BaseModel):
    disk: str = Field("a", alias="diskName")


class Masked(BaseModel):
    number: str

    @field_serializer("number")
    def mask(self, _: str) -> str:
        return "****"


class Loose(TypedDict, total=False):
    disk: str


@dataclass
class Place:
    city: str
    floor: int = 1


class Colour(Enum):
    RED = "red"


class Opaque:
    """Nothing that JSON could say."""


SHAPES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "a default": (int, 3, {}, {"x": 3}),
    "a default in a Field": (int, Field(3, ge=1), {}, {"x": 3}),
    "a default that a Field makes": (list[int], Field(default_factory=lambda: [1]), {}, {"x": [1]}),
    "what was sent, converted": (int, 3, {"x": "4"}, {"x": 4}),
    "a null that does not fit": (int, 3, {"x": None}, {"x": 3}),
    "a null that fits": (int | None, 3, {"x": None}, {"x": None}),
    "the defaults inside a model": (Options, None, {"x": {}}, {"x": {"force": True, "tags": ["all"]}}),
    "a null inside a model": (Options, None, {"x": {"force": None}}, {"x": {"force": True, "tags": ["all"]}}),
    "a model as the default": (Options, Options(force=False), {}, {"x": {"force": False, "tags": ["all"]}}),
    "a dataclass": (Place, None, {"x": {"city": "Bern"}}, {"x": {"city": "Bern", "floor": 1}}),
    "a list of models": (list[Options], (), {"x": [{}]}, {"x": [{"force": True, "tags": ["all"]}]}),
    "a model with an alias": (Renamed, Renamed(diskName="a"), {}, {"x": {"diskName": "a"}}),
    "members that nobody reads are gone": (Options, None, {"x": {"fast": 1}}, {"x": {"force": True, "tags": ["all"]}}),
    "a TypedDict": (Loose, {}, {}, {"x": {}}),
    "a time": (datetime, datetime(2026, 1, 2, tzinfo=UTC), {}, {"x": "2026-01-02T00:00:00Z"}),
    "a duration": (timedelta, timedelta(seconds=9), {}, {"x": "PT9S"}),
    "a decimal": (Decimal, Decimal("1.50"), {}, {"x": "1.50"}),
    "a member of an Enum": (Colour, Colour.RED, {}, {"x": "red"}),
    "a set": (set[int], {3}, {}, {"x": [3]}),
    "a large number": (int, 10**30, {}, {"x": 10**30}),
    "None where the type has none": (int, None, {}, {}),
    "a default of another type": (int, "auto", {}, {}),
    "a number that JSON does not have": (float, math.inf, {}, {}),
    "an object": (Any, Opaque(), {}, {}),
    "a secret that was sent": (SecretStr, None, {"x": "pin"}, {"x": "pin"}),
    "a secret that is the default": (SecretBytes, SecretBytes(b"pin"), {}, {}),
    "a model that masks a member": (Masked, None, {"x": {"number": "4711"}}, {"x": {"number": "4711"}}),
    "what is changed when it is read": (Annotated[str, BeforeValidator(lambda text: text + "!")], "a", {"x": "b"}, {"x": "b"}),
    "a default without an annotation": (None, [1], {}, {"x": [1]}),
}


def made(annotation: Any, default: Any) -> Tool[..., Any]:
    def act(session: Session, x: Any = default) -> Any:
        return x

    if annotation is None:
        del act.__annotations__["x"]
    else:
        act.__annotations__["x"] = annotation
    return tool(act)


@pytest.mark.parametrize(("annotation", "default", "sent", "expected"), SHAPES.values(), ids=SHAPES)
def test_a_call_of_what_was_completed_is_the_call_of_what_was_sent(annotation: Any, default: Any, sent: Any, expected: Any) -> None:
    act = made(annotation, default)
    completed = act.complete({**sent, "session": {"forged": 1}})
    assert completed == expected
    assert act.complete(completed) == completed
    assert json.loads(json.dumps(completed)) == completed
    before, after = (asyncio.run(act.run(arguments, session=Session())) for arguments in (sent, completed))
    assert (type(before), before) == (type(after), after)


def test_control_written_without_a_look_at_what_comes_back_a_secret_would_be_another_one(monkeypatch: Any) -> None:
    def careless(self: Any, found: BaseModel, field: str, sent: Any) -> Any:
        return json.loads(found.model_dump_json(by_alias=True, include={field}))[self._names[field]]

    monkeypatch.setattr(schema.Arguments, "_to_json", careless)
    for name in ("a secret that was sent", "a model that masks a member"):
        with pytest.raises(AssertionError):
            test_a_call_of_what_was_completed_is_the_call_of_what_was_sent(*SHAPES[name])


def test_a_default_that_differs_from_call_to_call_is_the_one_that_was_shown() -> None:
    @tool
    def book(number: str = Field(default_factory=lambda: str(uuid.uuid4()))) -> str:
        return number

    shown = book.complete({})
    assert asyncio.run(book.run(shown)) == shown["number"]


def test_what_does_not_fit_is_refused_as_in_a_call() -> None:
    act = made(int, 3)
    for arguments in ({"x": "many"}, {"y": 1}):
        with pytest.raises(ToolArgumentError):
            act.complete(arguments)


def test_what_a_schema_by_hand_names_is_only_there_where_it_was_sent() -> None:
    @tool(input_schema={"type": "object", "properties": {"city": {}, "unit": {}}, "required": ["city"]})
    def forecast(city: str, **options: Any) -> str:
        return f"{city} {options}"

    assert forecast.complete({"city": "Bern"}) == {"city": "Bern"}
    assert forecast.complete({"city": "Bern", "unit": "c"}) == {"city": "Bern", "unit": "c"}
