"""Which parameters a tool's session fills, by annotation and identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Optional

import pytest

from dcaf import ConfigurationError, Session, tool
from dcaf.tools.injection import Plan


class Deploy(Session):
    step: int = 1


class Elsewhere:
    """A class of the same kind of name, from another library."""


Elsewhere.__name__ = "Session"


def injected(function: Callable[..., Any]) -> dict[str, type]:
    return dict(Plan.of(function).injected)


def plain(name: str, session: Session) -> None: ...
def first(session: Session, name: str) -> None: ...
def any_name(name: str, memory: Session) -> None: ...
def unannotated(name: str, session) -> None: ...  # type: ignore[no-untyped-def]
def optional(name: str, session: Optional[Session] = None) -> None: ...  # noqa: UP045
def union(name: str, session: Session | None = None) -> None: ...
def annotated(name: str, session: Annotated[Session, "said"]) -> None: ...
def annotated_union(name: str, session: Annotated[Session | None, "said"] = None) -> None: ...
def subclass(name: str, session: Deploy) -> None: ...
def quoted(name: str, session: "Session") -> None: ...  # noqa: UP037
def keyword_only(name: str, *, session: Session) -> None: ...
def positional_only(session: Session, name: str, /) -> None: ...
def two(session: Session, name: str, deploy: Deploy) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, {"session": Session}),
        (first, {"session": Session}),
        (any_name, {"memory": Session}),
        (unannotated, {"session": Session}),
        (optional, {"session": Session}),
        (union, {"session": Session}),
        (annotated, {"session": Session}),
        (annotated_union, {"session": Session}),
        (subclass, {"session": Deploy}),
        (quoted, {"session": Session}),
        (keyword_only, {"session": Session}),
        (positional_only, {"session": Session}),
        (two, {"session": Session, "deploy": Deploy}),
    ],
)
def test_an_annotation_that_is_a_session_is_filled(function: Callable[..., Any], expected: dict[str, type]) -> None:
    assert injected(function) == expected
    assert [parameter.name for parameter in Plan.of(function).open] == ["name"]


def text(session: str) -> None: ...
def look_alike(session: Elsewhere) -> None: ...
def several(sessions: list[Session]) -> None: ...
def either(session: Session | int) -> None: ...


@pytest.mark.parametrize("function", [text, look_alike, several, either])
def test_an_annotation_that_is_something_else_is_not_filled(function: Callable[..., Any]) -> None:
    assert injected(function) == {}


def test_names_of_an_enclosing_function_are_found() -> None:
    class Local(Session):
        step: int = 1

    def inner(session: Local) -> int:
        return Local.of(session).step

    assert tool(inner)._plan.injected == {"session": Local}


def test_an_annotation_that_cannot_be_found_says_so() -> None:
    def lost(session: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError) as caught:
        Plan.of(lost)
    assert str(caught.value) == (
        "lost: the annotation of 'session' names 'Missing', which cannot be found. Import it in the function's module, outside "
        "`if TYPE_CHECKING:`."
    )


def test_star_arguments_have_no_names_for_a_model() -> None:
    def many(*names: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"many: \*names has no names that a model could fill"):
        Plan.of(many)


def test_a_bare_session_that_pydantic_would_have_to_read_is_refused_when_the_tool_is_made() -> None:
    with pytest.raises(ConfigurationError, match="never read from a request body"):
        tool(several)
