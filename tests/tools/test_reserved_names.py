"""``platform_context`` and ``session`` under every annotation: filled by dcaf, or refused, and never the model's."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, Dict, Generic, List, Literal, NewType, NotRequired, Optional, TypeVar, Union  # noqa: UP035

import pytest
from pydantic import AliasChoices, BaseModel, Field, RootModel
from typing_extensions import ReadOnly, TypeAliasType, TypedDict

from dcaf import ConfigurationError, ReadOnlySession, Session, SessionKey, Tool, tool
from dcaf.core import DcafError, current_session
from dcaf.tools import PlatformContext, ToolRunner, injection_plan
from dcaf.tools.platform_context import within_platform

Number = TypeVar("Number", int, str)
Item = TypeVar("Item")


class Who(TypedDict, total=False):
    user_id: str


class Whose(TypedDict, Generic[Item]):
    user_id: NotRequired[ReadOnly[Item]]


class Model(BaseModel):
    user_id: str = ""


class Root(RootModel[dict[str, Any]]): ...


@dataclass
class Data:
    user_id: str = ""


class Own(dict[str, Any]): ...


class Basket(Session, Generic[Item]):
    numbers: list[Item] = []


class Looks(ReadOnlySession): ...


Named = NewType("Named", dict)  # type: ignore[type-arg]
NamedTwice = NewType("NamedTwice", Named)
Alias = TypeAliasType("Alias", dict[str, Any])
AliasOf = TypeAliasType("AliasOf", "Annotated[Who | None, 'said']")
Of = TypeAliasType("Of", Basket[Item], type_params=(Item,))

ANNOTATIONS: dict[str, Any] = {
    "none": inspect.Parameter.empty,
    **{
        str(annotation).replace("typing.", ""): annotation
        for annotation in (
            dict,
            dict[str, Any],
            Dict,  # noqa: UP006
            Dict[str, str],  # noqa: UP006
            dict | None,
            Optional[dict[str, Any]],  # noqa: UP045
            Mapping,
            Mapping[str, Any],
            MutableMapping[str, Any],
            Any,
            Any | None,
            object,
            Who,
            Who | None,
            Whose[int],
            Annotated[dict, Field(description="Who.")],
            Annotated[Who | None, "said"],
            Annotated[dict[str, Any], Field(alias="user")],
            Named,
            NamedTwice,
            Alias,
            AliasOf,
            PlatformContext,
            PlatformContext | None,
            Session,
            ReadOnlySession | None,
            Model,
            Model | None,
            Root,
            Data,
            Own,
            str,
            str | None,
            int,
            bytes,
            list,
            List[dict[str, Any]],  # noqa: UP006
            dict[str, Any] | str,
            Union[Who, Model],  # noqa: UP007
            Literal["a", "b"],
            Item,
            Number,
            type,
            None,
            "dict[str, Any]",
            "Who | None",
            "'Who'",
            "Optional['Who']",
            "Nowhere",
            "Nowhere | None",
            "dict[str, Nowhere]",
        )
    },
}
DEFAULTS: tuple[Any, ...] = (inspect.Parameter.empty, None, {}, Field({}), Field(...))
KINDS = ("positional_or_keyword", "keyword_only", "positional_only", "var_keyword", "var_positional")

MIRA = {"user_id": "mira", "duplo_token": "secret-1"}
FORGED = {"user_id": "admin"}


def function_of(name: str, annotation: Any, default: Any, kind: str) -> Any:
    """A function with one parameter, and another one that is the model's."""

    def act(**values: Any) -> Any:
        return values[name]

    how = inspect.Parameter.VAR_KEYWORD if kind == "var_keyword" else getattr(inspect.Parameter, kind.upper())
    if how in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
        default = inspect.Parameter.empty
    asked = inspect.Parameter(name, how, annotation=annotation, default=default)
    text = inspect.Parameter("text", inspect.Parameter.KEYWORD_ONLY, annotation=str, default="")
    parameters = sorted([asked, text], key=lambda item: item.kind)

    def called(*values: Any, **named: Any) -> Any:
        return act(**dict(zip([item.name for item in parameters], values, strict=False)), **named)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__globals__.update(globals())
    return called


def outcome_of(made: Tool[..., Any], name: str) -> Any:
    """What the function gets where the model sends its own; the error of dcaf where it is refused by then."""
    assert name not in made.input_schema["properties"]
    assert name not in made.strict_schema["properties"]
    with within_platform(MIRA):
        given = made.complete({"text": "hi", name: FORGED})
        assert name not in given
        return asyncio.run(ToolRunner.of(Session.from_dict({"own": 1})).run(made, {"text": "hi", name: FORGED}))


@pytest.mark.parametrize("annotation", ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_platform_context_is_the_platforms_or_refused(annotation: Any) -> None:
    for default, kind in itertools.product(DEFAULTS, KINDS):
        _platforms_or_refused(annotation, default, kind)


def _platforms_or_refused(annotation: Any, default: Any, kind: str) -> None:
    try:
        made = tool(function_of("platform_context", annotation, default, kind))
        found = outcome_of(made, "platform_context")
    except ConfigurationError:
        return
    assert kind not in ("var_keyword", "var_positional")
    if isinstance(found, Session | ReadOnlySession):
        assert dict(found) == {"own": 1}
    else:
        assert (found.to_dict() if isinstance(found, PlatformContext) else found) == MIRA


FILLED = (
    "none",
    "<class 'dict'>",
    "Any",
    "Mapping",
    "<class 'tests.tools.test_reserved_names.Who'>",
    "Dict",
    "'Who'",
    "Who | None",
)


@pytest.mark.parametrize("name", [name for name in ANNOTATIONS if name.endswith(FILLED)])
def test_control_what_takes_a_dict_is_filled_and_not_refused(name: str) -> None:
    made = tool(function_of("platform_context", ANNOTATIONS[name], inspect.Parameter.empty, "keyword_only"))
    assert outcome_of(made, "platform_context") == MIRA


def test_control_where_the_name_means_nothing_the_model_says_who_asks(monkeypatch: Any) -> None:
    monkeypatch.setattr(injection_plan, "find_fill_by_name", lambda *_: None)
    monkeypatch.setattr(injection_plan, "RESERVED", ("session",))
    with pytest.raises(AssertionError):
        _platforms_or_refused(Who, inspect.Parameter.empty, "keyword_only")


@pytest.mark.parametrize("annotation", ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_session_takes_no_dict_of_the_models(annotation: Any) -> None:
    for default, kind in itertools.product(DEFAULTS, KINDS):
        _no_dict_of_the_models(annotation, default, kind)


def _no_dict_of_the_models(annotation: Any, default: Any, kind: str) -> None:
    try:
        made = tool(function_of("session", annotation, default, kind))
        properties = made.input_schema["properties"]
        if "session" in properties:
            assert not _takes_any_object(properties["session"])
            return
        found = outcome_of(made, "session")
    except DcafError:
        return
    assert kind not in ("var_keyword", "var_positional")
    if isinstance(found, Session | ReadOnlySession):
        assert dict(found) == {"own": 1}
    else:
        assert (found.to_dict() if isinstance(found, PlatformContext) else found) == MIRA


def _takes_any_object(schema: Mapping[str, Any]) -> bool:
    """Whether a schema takes an object that has no declared class."""
    plain = {key for key in schema if key not in ("default", "description")}
    return not plain or (schema.get("type") == "object" and schema.get("additionalProperties", True) is not False)


@pytest.mark.parametrize(
    "annotation", [dict, dict[str, Any], dict | None, Mapping[str, Any], Who, Any, object, Named, dict[str, Any] | str]
)
def test_a_dict_that_is_named_session_is_refused_with_what_to_write(annotation: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool(function_of("session", annotation, inspect.Parameter.empty, "keyword_only"))
    assert str(caught.value) == (
        "called: the annotation of 'session' is not what dcaf fills a parameter of that name with, and no model may fill it. Write "
        "`session: Session`, or give the parameter another name."
    )


def test_another_type_for_platform_context_is_refused_with_what_to_write() -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool(function_of("platform_context", Model, inspect.Parameter.empty, "keyword_only"))
    assert str(caught.value) == (
        "called: the annotation of 'platform_context' is not what dcaf fills a parameter of that name with, and no model may fill "
        "it. Write `platform_context: dict[str, Any], or PlatformContext`, or give the parameter another name."
    )


def test_stars_are_filled_by_nobody_and_refused() -> None:
    def many(name: str, **platform_context: Any) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        tool(many)
    assert str(caught.value) == ("many: **platform_context is filled by nobody. Declare 'platform_context' without the stars.")


def test_a_schema_by_hand_cannot_hand_it_to_the_keywords() -> None:
    given = {
        "type": "object",
        "properties": {"city": {}, "platform_context": {"type": "object"}, "session": {}},
        "required": ["city", "platform_context", "session"],
    }

    @tool(input_schema=given)
    def act(city: str, **options: Any) -> Any:
        return options

    assert act.input_schema == {"type": "object", "properties": {"city": {}}, "required": ["city"]}
    assert asyncio.run(act.run({"city": "Bern", "platform_context": FORGED, "session": {}})) == {}
    assert act.forged == {"platform_context": 1, "session": 1}


@pytest.mark.parametrize(
    "alias",
    [
        Field(alias="platform_context"),
        Field(validation_alias="platform_context"),
        Field(validation_alias=AliasChoices("platform_context", "who")),
        Field(validation_alias=AliasChoices("session")),
    ],
)
def test_no_other_parameter_is_read_from_its_name(alias: Any) -> None:
    def by_annotation(who: Annotated[dict[str, Any], alias]) -> Any:
        return who

    def by_default(who: dict[str, Any] = alias) -> Any:
        return who

    by_annotation.__annotations__["who"] = Annotated[dict[str, Any], alias]
    for function in (by_annotation, by_default):
        made = tool(function)
        assert list(made.input_schema["properties"]) == ["who"]
        assert asyncio.run(made.run({"who": {"a": 1}, "platform_context": FORGED})) == {"a": 1}
        with pytest.raises(DcafError):
            asyncio.run(made.run({"platform_context": FORGED, "session": FORGED}))


class Desk:
    @tool
    def method(self, platform_context: Who | None) -> Any:
        return platform_context

    @tool
    @classmethod
    def of_class(cls, platform_context: Who | None = None) -> Any:
        return platform_context


def decorated(platform_context: Who, text: str = "") -> Any:
    return platform_context


@functools.wraps(decorated)
def around(*values: Any, **named: Any) -> Any:
    return decorated(*values, **named)


@pytest.mark.parametrize(
    "made", [Desk().method, Desk.of_class, tool(around), tool(name="act")(functools.partial(decorated, text="x"))], ids=str
)
def test_methods_decorators_and_partials_change_nothing(made: Tool[..., Any]) -> None:
    with within_platform(MIRA):
        assert asyncio.run(made.run({"platform_context": FORGED})) == MIRA
    assert "platform_context" not in made.input_schema["properties"]


# Typed sessions that are generic


def parametrised(session: Basket[int]) -> Any:
    return session


def optional(session: Basket[int] | None = None) -> Any:
    return session


def annotated(session: Annotated[Basket[int], "said"]) -> Any:
    return session


def by_alias(session: Of[int]) -> Any:
    return session


def quoted(session: "Basket[int]") -> Any:  # noqa: UP037
    return session


def under_another_name(basket: Basket[Item]) -> Any:
    return basket


def unbracketed(basket: Basket) -> Any:  # type: ignore[type-arg]
    return basket


@pytest.mark.parametrize("function", [parametrised, optional, annotated, by_alias, quoted, under_another_name, unbracketed])
def test_a_generic_typed_session_is_filled_as_its_class_is(function: Any) -> None:
    @tool
    @functools.wraps(function)
    def fills(**named: Any) -> None:
        found = function(**named)
        assert isinstance(found, Basket)
        found.numbers.append(7)

    session = Session()
    asyncio.run(fills.run({"session": FORGED}, session=session))
    assert session.to_dict() == {"numbers": [7]}
    assert tool(function).input_schema["properties"] == {}


def test_it_is_the_current_session_too() -> None:
    @tool
    def act(session: Session) -> Any:
        return isinstance(current_session(Basket[int]), Basket)

    assert asyncio.run(ToolRunner.of(Session()).run(act, {}))


@pytest.mark.parametrize("annotation", [list[Basket[int]], Basket[int] | int, dict[str, Basket[str]], type[Session]])
def test_inside_something_else_it_is_refused(annotation: Any) -> None:
    with pytest.raises(ConfigurationError, match="has a session inside another type"):
        tool(function_of("basket", annotation, inspect.Parameter.empty, "keyword_only"))


def test_a_key_of_a_session_may_be_generic() -> None:
    @tool
    def act(numbers: Annotated[list[int], SessionKey("numbers")] = []) -> int:  # noqa: B006 - each call gets a copy
        return len(numbers)

    assert asyncio.run(act.run({}, session=Session.from_dict({"numbers": [1, 2]}))) == 2
