"""A model with members of many kinds, and a change of one in a session: with nothing of a test, so that it is soon imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dcaf import Session


class User(BaseModel):
    name: str


@dataclass
class Line:
    name: str


class Team(BaseModel):
    users: list[User] = []
    lines: list[Line] = []
    owner: User | None = None
    by_role: dict[str, User] = {}
    tags: set[str] = set()
    note: str | None = None


def changed(stored: dict[str, Any], as_type: Any, change: Any) -> Any:
    session = Session.from_dict({"k": stored})
    change(session.get("k", as_type=as_type))
    return session["k"]
