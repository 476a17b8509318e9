"""Writes the tables of docs/why.md: ``python -m tests.peers.why`` has every system serve every row again.

What a reader gets wrong: the microseconds are quoted from docs/evidence/performance.json and not measured here. All else is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any, ClassVar, Final, NamedTuple

import starsessions
from starlette.requests import HTTPConnection
from starsessions.stores.base import SessionStore

import dcaf
from dcaf.ledger import Ledger
from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.tables import figure, over, table, words
from tests.benchmarks.turns import BARE
from tests.benchmarks.ways import DCAF, SESSION_MIDDLEWARE, WAYS, ByHand
from tests.peers.baskets import (
    SYSTEMS,
    Basket,
    Dcaf,
    DjangoSessions,
    FlaskSessions,
    InMemory,
    PyJWT,
    StarletteSessions,
    System,
    Unsigned,
    column,
)
from tests.peers.losses import ROWS, meaning
from tests.peers.visitors import told

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "why.md"
END: Final = "<!-- until here -->"
WIDTH: Final = 120
SHOWN: Final = ("200 B", "2 KB", "16 KB", "128 KB")
PRICED: Final = (SESSION_MIDDLEWARE, ByHand.name, *DCAF)


class StoresAnew(StarletteSessions):
    def append(self, session: Any) -> None:
        session["cart"] = [*session["cart"], "milk"]


class StoresDumped(StarletteSessions):
    def store_typed(self, session: Any) -> None:
        session["basket"] = Basket(items=["tea", "milk"]).model_dump()


class WritesBack(StarletteSessions):
    def change_typed(self, session: Any) -> None:
        basket = Basket.model_validate(session["basket"])
        basket.items.append("milk")
        session["basket"] = basket.model_dump()


class FlaskModified(FlaskSessions):
    def append(self, session: Any) -> None:
        super().append(session)
        session.modified = True


class FlaskFirst(FlaskSessions):
    is_done_first = True


class DjangoModified(DjangoSessions):
    def append(self, session: Any) -> None:
        super().append(session)
        session.modified = True


class DjangoOnServer(DjangoSessions):
    settings: ClassVar[dict[str, Any]] = {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}


class SavesByHand(InMemory):
    async def end(self, connection: HTTPConnection) -> None:
        await starsessions.get_session_handler(connection).save(0)


class OneStore(InMemory):
    shared: ClassVar[SessionStore] = starsessions.InMemoryStore()

    def store(self) -> SessionStore:
        return self.shared


class Mentioned(Unsigned):
    is_mentioned = True


class Unverified(PyJWT):
    options: ClassVar[Any] = {"verify_signature": False}


class ChangesACopy(Dcaf):
    def append(self, session: Any) -> None:
        session.to_dict()["cart"].append("milk")


class StoresAnything(Dcaf):
    def store_typed(self, session: Any) -> None:
        session["basket"] = object()


class ValidatesByHand(Dcaf):
    def change_typed(self, session: Any) -> None:
        StarletteSessions.change_typed(self, session)


class AnswersAList(Dcaf):
    quiet: ClassVar[Any] = ["done"]


class PassesStreams(Dcaf):
    settings: ClassVar[dict[str, Any]] = {"pass_streams": ("/stream",)}


class InACookie(Dcaf):
    settings: ClassVar[dict[str, Any]] = {"carriers": ("cookie",)}


class InBoth(Dcaf):
    settings: ClassVar[dict[str, Any]] = {"carriers": ("body", "cookie")}


class OwnKeys(Dcaf):
    def keys(self) -> dcaf.Keyring:
        with told():  # it warns, as it should
            return dcaf.Keyring.ephemeral()


class Encrypted(Dcaf):
    settings: ClassVar[dict[str, Any]] = {"encrypt": True}


class Remembers(Dcaf):
    def mounted(self, app: Any) -> Any:
        return dcaf.SessionMiddleware(app, keys=self.keys(), audience="shop", store=Ledger("memory://", audience="shop"))


class Other(NamedTuple):
    """A system with something else done or set, and the row that it bears on."""

    system: System
    setting: str
    row: str


NESTED, TYPED, CHANGED, UNMENTIONED, STREAM, SOCKET, LARGE, WORKER, COOKIELESS, SCRIPTLESS, EDITED, READ, OLDER, ENDED = ROWS
OTHERS: Final = (
    Other(StoresAnew(), '`session["cart"] = [*session["cart"], "milk"]`', NESTED),
    Other(FlaskModified(), "`session.modified = True`", NESTED),
    Other(DjangoModified(), "`session.modified = True`", NESTED),
    Other(ChangesACopy(), 'a change to a copy: `session.to_dict()["cart"].append("milk")`', NESTED),
    Other(StoresDumped(), "`basket.model_dump()` is stored", TYPED),
    Other(StoresAnything(), "an object that pydantic does not know is stored", TYPED),
    Other(WritesBack(), "`basket.model_dump()` is stored after the change", CHANGED),
    Other(ValidatesByHand(), "`Basket.model_validate(...)` in the place of `get(as_type=Basket)`", CHANGED),
    Other(Mentioned(), "the endpoint puts the state into its answer", UNMENTIONED),
    Other(AnswersAList(), "the answer is a JSON array, which has no `data.session`", UNMENTIONED),
    Other(FlaskFirst(), "the change is made before the first byte", STREAM),
    Other(SavesByHand(), "`await get_session_handler(request).save(0)`", STREAM),
    Other(PassesStreams(), '`pass_streams=("/stream",)`', STREAM),
    Other(SavesByHand(), "`await get_session_handler(socket).save(0)`", SOCKET),
    Other(InACookie(), '`carriers=("cookie",)`', SOCKET),
    Other(DjangoOnServer(), "the engine `cache`: the state stays on the server", LARGE),
    Other(InACookie(), '`carriers=("cookie",)`', LARGE),
    Other(OneStore(), "one store that both workers reach", WORKER),
    Other(OwnKeys(), "`Keyring.ephemeral()` in each worker", WORKER),
    Other(InACookie(), '`carriers=("cookie",)`', COOKIELESS),
    Other(InBoth(), '`carriers=("body", "cookie")`', SCRIPTLESS),
    Other(Unverified(), "the option `verify_signature` is off", EDITED),
    Other(DjangoOnServer(), "the engine `cache`", READ),
    Other(Encrypted(), "`encrypt=True`", READ),
    Other(DjangoOnServer(), "the engine `cache`", OLDER),
    Other(Remembers(), "`store=Ledger(...)`", OLDER),
    Other(DjangoOnServer(), "the engine `cache`", ENDED),
    Other(Remembers(), "`store=Ledger(...)`", ENDED),
)


def cell(system: System, row: str) -> str:
    """What became of one row; asked once for each class of systems."""
    return _asked(type(system), row)


@cache
def _asked(kind: type[System], row: str) -> str:
    return ROWS[row](kind())


def usual(other: Other) -> System:
    """The system of the first table that another one is a variant of."""
    return next(system for system in reversed(SYSTEMS) if isinstance(other.system, type(system)))


def outcomes() -> str:
    """The main table, and what each row does."""
    rows = [[f"**{row}**", *(cell(system, row) for system in SYSTEMS)] for row in ROWS]
    meanings = "\n".join(fill(f"- **{row}**: {meaning(row)}", WIDTH, subsequent_indent="  ") for row in ROWS)
    return f"{words(['', *(column(system) for system in SYSTEMS)], rows)}\n\n{meanings}"


def settings() -> str:
    """The same rows, with something else done or set."""
    rows = [
        [
            usual(other).name.replace(" {}", ""),
            other.setting,
            other.row,
            cell(usual(other), other.row),
            cell(other.system, other.row),
        ]
        for other in OTHERS
    ]
    return words(["system", "with", "row", "without it", "with it"], rows)


def costs() -> str:
    """Bytes of a session each way, counted here, and the microseconds of docs/evidence/performance.json."""
    us = over(json.loads((DOCS / "evidence" / "performance.json").read_text())["turns"]["write"], BARE)
    bare = _bytes(BARE, SHOWN[0])
    rows = [[name, *(f"{_bytes(name, size) - bare:,} B, {figure(us[name][size])} µs" for size in SHOWN)] for name in PRICED]
    return table(["one small key is written", *(f"state of {size}" for size in SHOWN)], rows)


def _bytes(name: str, size: str) -> int:
    way = next(way for way in WAYS if way.name == name)
    headers, body = way.sent(state_of(SIZES[size]))
    return sum(len(value) for _, value in headers) + len(body)


PARTS: Final[dict[str, Callable[[], str]]] = {"outcomes": outcomes, "settings": settings, "costs": costs}
"""Name of a part of the page -> what is written there."""


def in_page(text: str) -> str:
    """The page with its tables as they come out now."""
    for name, part in PARTS.items():
        before, begin, rest = text.partition(f"<!-- {name}: written by python -m tests.peers.why -->")
        _, end, after = rest.partition(END)
        assert end, f"the page has no place for the {name}"
        text = f"{before}{begin}\n\n{part()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(in_page(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.name}\n")
