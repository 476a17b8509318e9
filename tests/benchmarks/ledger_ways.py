"""A service with a state of 2 KB, and ways to have it remembered: in a cookie, in Redis, in a token, in a token with a ledger.

One endpoint for all: a session that is new gets the state, and each turn adds one to ``step``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Send
from starsessions import SessionAutoloadMiddleware
from starsessions import SessionMiddleware as StarsessionsMiddleware

import dcaf
from dcaf.engines import Engine, MemoryEngine
from dcaf.ledger import Ledger
from tests.benchmarks.following import MARK, Exchange
from tests.benchmarks.harness import Effort, folder, interleaved, of_coroutine, written
from tests.benchmarks.ledger_engines import sqlite_engine
from tests.benchmarks.ledger_servers import postgres_engine, redis_engine
from tests.benchmarks.others import AGE_S, TEXT
from tests.benchmarks.profiles import profile
from tests.benchmarks.sealing import AUDIENCE, RING
from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.store_servers import Place
from tests.benchmarks.turns import ANSWER, HEADERS, PATH, Store, Turn
from tests.benchmarks.ways import body_with, carried

SIZE: Final = "2 KB"
STATE: Final = state_of(SIZES[SIZE])
SUBJECT: Final = "user-1"
"""Who is calling: an epoch, and so level L1, is about somebody."""

COOKIE: Final = "Starlette SessionMiddleware"
REDIS: Final = "starsessions, Redis, as installed"
REDIS_SYNCED: Final = "starsessions, Redis, every write synced"
NONE: Final = "dcaf, lean, no ledger (L0)"
MEMORY: Final = "dcaf, lean, ledger in memory (L2)"
L1: Final = "dcaf, lean, ledger in SQLite (L1)"
RELAXED: Final = "dcaf, lean, ledger in SQLite, relaxed (L2)"
SYNCED: Final = "dcaf, lean, ledger in SQLite (L2)"
IN_REDIS: Final = "dcaf, lean, ledger in Redis, every write synced (L2)"
IN_POSTGRES: Final = "dcaf, lean, ledger in PostgreSQL (L2)"

Built = Callable[[Path], ASGIApp]
"""Builds an application that keeps what it keeps in a folder."""

SAID: Final = body_with(None).decode("latin-1")
BODY: Final = Exchange(PATH, SAID, {}, body_with(MARK.encode()).decode("latin-1"), r'"session":(\{.*?\}\})')
IN_COOKIE: Final = Exchange(PATH, SAID, {"Cookie": f"session={MARK}"}, SAID, r"set-cookie: session=([^;]+)")


def service(session: Callable[[Request], Store]) -> Starlette:
    """The service, over one way to have a session."""

    async def chat(request: Request) -> JSONResponse:
        own = session(request)
        if "step" not in own:
            own.update(STATE)
        own["step"] += 1
        return JSONResponse({**ANSWER, "step": own["step"]})

    return Starlette(routes=[Route(PATH, chat, methods=["POST"])])


def in_cookie(place: Path) -> ASGIApp:
    """Starlette's: the state is in the cookie."""
    return SessionMiddleware(service(lambda request: request.session), secret_key=TEXT)


def in_redis(place: Path) -> ASGIApp:
    """starsessions with its RedisStore: the cookie has an id."""
    from starsessions.stores.redis import RedisStore

    app = SessionAutoloadMiddleware(service(lambda request: request.session))
    return StarsessionsMiddleware(app, store=RedisStore(Place("redis", place).url), lifetime=AGE_S)


def with_ledger(engine: Callable[[Path], Engine] | None, *, freshness: bool = True) -> Built:
    """dcaf, lean, with a ledger over an engine; None for no ledger."""

    def build(place: Path) -> ASGIApp:
        store = None if engine is None else Ledger(engine(place / "dcaf.db"), audience=AUDIENCE, freshness=freshness)
        app = service(lambda _: dcaf.current_session())
        return dcaf.SessionMiddleware(app, keys=RING, audience=AUDIENCE, mirror=False, subject=lambda _: SUBJECT, store=store)

    return build


def _relaxed(path: Path) -> Engine:
    return sqlite_engine(path, durable=False)


def _in_redis(path: Path) -> Engine:
    return redis_engine(Place("redis", path.parent).url)


def _in_postgres(path: Path) -> Engine:
    return postgres_engine(Place("postgres", path.parent / "pg").url)


WAYS: Final[dict[str, tuple[Built, Exchange]]] = {
    COOKIE: (in_cookie, IN_COOKIE),
    REDIS: (in_redis, IN_COOKIE),
    REDIS_SYNCED: (in_redis, IN_COOKIE),
    NONE: (with_ledger(None), BODY),
    L1: (with_ledger(sqlite_engine, freshness=False), BODY),
    RELAXED: (with_ledger(_relaxed), BODY),
    SYNCED: (with_ledger(sqlite_engine), BODY),
    IN_REDIS: (with_ledger(_in_redis), BODY),
    IN_POSTGRES: (with_ledger(_in_postgres), BODY),
}
"""Name of a row -> the service, and how a client talks to it."""

IN_PROCESS: Final[dict[str, Built]] = {
    NONE: WAYS[NONE][0],
    MEMORY: with_ledger(lambda _: MemoryEngine()),
    L1: WAYS[L1][0],
    RELAXED: WAYS[RELAXED][0],
    SYNCED: WAYS[SYNCED][0],
}


PROFILED: Final = (MEMORY, SYNCED)


class Following:
    """Turns of one session of dcaf, in process: each sends what the one before was answered with.

    Args:
        app: The service.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._session: bytes | None = None

    async def ask(self, send: Send) -> None:
        """One turn."""
        body = body_with(self._session)
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)
            await send(message)

        await Turn(self.app, (*HEADERS, (b"content-length", str(len(body)).encode())), body).ask(keep)
        self._session = orjson.dumps(carried(answer))


async def _drop(message: Message) -> None:
    """Keep nothing of the answer."""


def measured(effort: Effort, *, profiled_s: float) -> dict[str, Any]:
    """Row -> a whole turn in process, without a server; and where the time of one with a ledger goes."""
    with folder() as place, asyncio.Runner() as runner:
        turns = {name: Following(build(_subfolder(place, number))) for number, (name, build) in enumerate(IN_PROCESS.items())}
        subjects = {name: of_coroutine(runner, partial(turn.ask, _drop)) for name, turn in turns.items()}
        profiled = {name: profile(runner, turns[name], profiled_s) for name in PROFILED}
        return {"turns": written(interleaved(subjects, effort)), "profiles": profiled}


def _subfolder(place: Path, number: int) -> Path:
    found = place / str(number)
    found.mkdir()
    return found
