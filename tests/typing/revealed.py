"""Typed reads whose inferred type stands behind them, as pyright spells it."""

from typing import Annotated, Literal, reveal_type

from pydantic import BaseModel, Field

from dcaf import Session, current_session
from dcaf.integrations.fastapi import SessionDep


class Item(BaseModel):
    name: str


class Deploy(Session):
    step: int = 1
    services: list[Item] = []


def reveal(session: Session) -> None:
    reveal_type(session.get("n", as_type=int))  # int | None
    reveal_type(session.get("n", 0, as_type=int))  # int
    reveal_type(session.get("n", as_type=int | None))  # int | None
    reveal_type(session.get("n", as_type=Literal["small", "large"]))  # Literal['small', 'large'] | None
    reveal_type(session.get("n", as_type=Annotated[int, Field(ge=1)]))  # int | None
    reveal_type(session.get("n", as_type=list[Item]))  # list[Item] | None
    reveal_type(session.get("n", [], as_type=list[Item]))  # list[Item]
    reveal_type(session.get("n", Item(name="a"), as_type=Item))  # Item
    reveal_type(session.user.get("n", as_type=Item))  # Item | None
    reveal_type(session.get("n"))  # Any
    reveal_type(Deploy.of(session))  # Deploy
    reveal_type(Deploy.of(session).step)  # int
    reveal_type(Deploy.of(session).services)  # list[Item]
    reveal_type(current_session(Deploy))  # Deploy
    reveal_type(current_session())  # Session


def endpoint(plain: SessionDep, typed: SessionDep[Deploy]) -> None:
    reveal_type(plain)  # Session
    reveal_type(typed)  # Deploy
