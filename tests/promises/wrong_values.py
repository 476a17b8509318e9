"""What somebody gives by mistake: of each kind of value one that is made anew each time, and put away after it was used."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dcaf import Session

DEEP = 5_000


class TouchedError(Exception):
    """A hostile object was asked for something that nobody needs to ask."""


def _refuse(*_: Any, **__: Any) -> Any:
    raise TouchedError


class Hostile:
    """Whatever is asked of it but its type, it raises."""

    __eq__ = __ne__ = __lt__ = __hash__ = __len__ = __bool__ = __iter__ = __contains__ = _refuse
    __getattr__ = __repr__ = __str__ = __getitem__ = __index__ = __float__ = __int__ = __add__ = _refuse


class Word(str):
    """A text of a class of its own."""

    __slots__ = ()


class Model(BaseModel):
    n: int = 1


class Awaitable:
    def __await__(self) -> Any:
        yield
        return 1


def deep_list() -> Any:
    found: Any = []
    for _ in range(DEEP):
        found = [found]
    return found


def deep_dict() -> Any:
    found: Any = {}
    for _ in range(DEEP):
        found = {"a": found}
    return found


def own_self() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def own_self_by_name() -> Any:
    found: dict[str, Any] = {}
    found["a"] = found
    return found


async def some_async(*_: Any, **__: Any) -> Any:
    return None


def numbers() -> Iterator[int]:
    yield 1


VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "0": lambda: 0,
    "-1": lambda: -1,
    "a huge integer": lambda: 10**30,
    "a fraction": lambda: 1.5,
    "not a number": lambda: float("nan"),
    "infinity": lambda: float("-inf"),
    "a decimal": lambda: Decimal("1.5"),
    "an empty text": lambda: "",
    "a text": lambda: "text",
    "a lone surrogate": lambda: "\ud800",
    "a text of a subclass": lambda: Word("text"),
    "bytes": lambda: b"\xff{",
    "a bytearray": lambda: bytearray(b"{}"),
    "a view of bytes": lambda: memoryview(b"{}"),
    "an empty list": list,
    "a list of texts": lambda: ["text"],
    "a list of None": lambda: [None],
    "a tuple": lambda: (1, 2),
    "an empty dict": dict,
    "a dict": lambda: {"a": 1},
    "a dict with numbers for keys": lambda: {1: 2},
    "a dict of an object": lambda: {"a": object()},
    "a dict of a lone surrogate": lambda: {"a\udfff": "\ud800"},
    "a set": lambda: {1, 2},
    "a range": lambda: range(3),
    "an object": object,
    "a class": lambda: int,
    "a class of ours": lambda: Session,
    "an exception": lambda: ValueError("x"),
    "a class of exceptions": lambda: ValueError,
    "a function of nothing": lambda: lambda: None,
    "a function of anything": lambda: lambda *_, **__: None,
    "an async function": lambda: some_async,
    "a coroutine": some_async,
    "an awaitable": Awaitable,
    "a generator": numbers,
    "a hostile object": Hostile,
    "a list of a hostile object": lambda: [Hostile()],
    "a dict of a hostile object": lambda: {"a": Hostile()},
    "a deep list": deep_list,
    "a deep dict": deep_dict,
    "a list in itself": own_self,
    "a dict in itself": own_self_by_name,
    "a path": lambda: Path("nowhere"),
    "a date": lambda: datetime(2026, 1, 1),  # noqa: DTZ001 - the mistake
    "a span of time": lambda: timedelta(days=-1),
    "a module": lambda: asyncio,
    "an ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "a session": lambda: Session.from_dict({"a": 1}),
    "a model": Model,
}
"""Name -> what makes one."""


def put_away(value: Any) -> None:
    """A coroutine that nobody has awaited is closed, so that Python does not complain of it."""
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        value.close()
