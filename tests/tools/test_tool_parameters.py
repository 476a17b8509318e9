"""A tool says who fills each of its parameters, and why."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from dcaf import ReadOnlySession, Session, SessionKey, tool
from dcaf.tools.parameters import Row


class Deploy(Session):
    step: int = 1


@tool
def everything(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    name: str,
    anything,
    lost: Nowhere,  # type: ignore[name-defined]  # noqa: F821
    deploy: Deploy,
    reader: ReadOnlySession | None,
    cart: Annotated[dict[str, int], SessionKey("cart")],
    *rest: int,
    times: int = Field(1, ge=1),
    session: Session | None = None,
    **options: Any,
) -> None: ...


def test_every_parameter_is_in_the_table_with_who_fills_it_and_why() -> None:
    expected = """everything
  name       the model                      str, required
  anything   the model                      any JSON value, required: it has no annotation
  lost       the model                      any JSON value, required: its annotation names 'Nowhere', which cannot be found
  times      the model                      int, optional
  *rest      nobody                         a model has no names for it, unless input_schema says them
  **options  nobody                         a model has no names for it, unless input_schema says them
  deploy     the session as Deploy          annotated as Deploy
  reader     the session, to read, or None  annotated as ReadOnlySession | None
  cart       session['cart']                annotated as Annotated[dict[str, int], SessionKey(key='cart')]
  session    the session, or None           annotated as Session | None"""
    assert str(everything.explain()) == expected


def test_the_rows_can_be_read_by_a_program() -> None:
    @tool
    def act(session, count: int = 2) -> None: ...  # type: ignore[no-untyped-def]

    assert act.explain().rows == (
        Row("count", "the model", "int, optional"),
        Row("session", "the session", "has no annotation and is named session"),
    )


def test_a_tool_without_parameters_says_so() -> None:
    @tool
    def go() -> None: ...

    assert str(go.explain()) == "go\n  (no parameters)"
