"""The same turn in the words of google-adk and openai-agents, each as its own runner writes one through its session service.

ADK's runner reads the session, and appends an event for each of the four messages; the event of the tool's result brings the keys
of the state. openai-agents' runner reads the newest items, and adds what the user said, then the call with its result, then the
answer. Its sessions have no state.

What a reader gets wrong: these libraries live in an environment of their own, which ``make bench`` makes.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from agents import SQLiteSession
from agents.extensions.memory import RedisSession, SQLAlchemySession
from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai.types import Content, FunctionCall, FunctionResponse, Part
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.benchmarks.service_ways import (
    ANSWER,
    APP,
    ARGUMENTS,
    BEGINNING,
    FILLED_AT_ONCE,
    FOUND,
    LAST,
    SAID,
    TOOL,
    describe_redis,
    describe_sqlite,
    name_session,
    name_user,
    state_of,
)

AGENT: Final = "doctor"
ASKED: Final = {"role": "user", "content": SAID}
CALLED: Final = {"arguments": ARGUMENTS, "call_id": "c1", "name": TOOL, "type": "function_call", "id": "f1", "status": "completed"}
RESULT: Final = {"call_id": "c1", "output": FOUND, "type": "function_call_output"}
ANSWERED: Final = {
    "id": "m1",
    "content": [{"annotations": [], "text": ANSWER, "type": "output_text"}],
    "role": "assistant",
    "status": "completed",
    "type": "message",
}
ITEMS: Final = (ASKED, CALLED, RESULT, ANSWERED)

Calls = Sequence[Sequence[Any]]
"""What a turn adds, call by call."""

AS_RUNNER: Final[Calls] = ((ASKED,), (CALLED, RESULT), (ANSWERED,))
AT_ONCE: Final[Calls] = (ITEMS,)

ADD: Final = """INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
VALUES (?, ?, ?, ?, ?, ?, ?)"""


class AdkConversation:
    """A session of a service of ADK, as ``Conversation``.

    Args:
        service: The service.
        number: Its id and its user follow from it.
        last: How many of its newest events a turn reads.
    """

    def __init__(self, service: BaseSessionService, number: int, last: int = LAST) -> None:
        self._service = service
        self._where = {"app_name": APP, "user_id": name_user(number), "session_id": name_session(number)}
        self._last = GetSessionConfig(num_recent_events=last)
        self._step = 0
        self._kept: Any = None

    async def turn(self) -> None:
        self._step += 1
        session = await self._service.get_session(**self._where, config=self._last)
        for event in list_events(self._step):
            await self._service.append_event(session, event)

    async def append(self) -> None:
        """Add one event to the session as it was read once: each appended event is in it, too."""
        if self._kept is None:
            self._kept = await self._service.get_session(**self._where, config=GetSessionConfig(num_recent_events=1))
        await self._service.append_event(self._kept, list_events(0)[0])

    async def read(self) -> list[Any]:
        session = await self._service.get_session(**self._where, config=self._last)
        found: list[Any] = session.events
        return found


def list_events(step: int) -> list[Event]:
    """The four events of a turn."""
    call = FunctionCall(id="c1", name=TOOL, args=json.loads(ARGUMENTS))
    result = FunctionResponse(id="c1", name=TOOL, response=json.loads(FOUND))
    said: Sequence[tuple[str, str, Part, dict[str, Any]]] = (
        ("user", "user", Part(text=SAID), {}),
        (AGENT, "model", Part(function_call=call), {}),
        (AGENT, "user", Part(function_response=result), state_of(step)),
        (AGENT, "model", Part(text=ANSWER), {}),
    )
    return [
        Event(
            invocation_id=f"turn-{step}",
            author=author,
            content=Content(role=role, parts=[part]),
            actions=EventActions(state_delta=delta),
        )
        for author, role, part, delta in said
    ]


class AdkDatabase:
    """``DatabaseSessionService``, as ``Library``.

    Args:
        url: Of the database, as SQLAlchemy takes it.
    """

    def __init__(self, url: str) -> None:
        self._service = DatabaseSessionService(url)

    async def begin(self, number: int, messages: int, last: int = LAST) -> AdkConversation:
        session = await _create(self._service, number)
        for at in range(messages):
            await self._service.append_event(session, list_events(0)[at % len(ITEMS)])
        return AdkConversation(self._service, number, last)

    async def ask(self) -> str:
        return await ask_sqlalchemy(self._service.db_engine)

    async def aclose(self) -> None:
        await self._service.close()


class AdkSqlite:
    """``SqliteSessionService``, as ``Library``. What a session has already is written with SQL, in one transaction.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._service = SqliteSessionService(str(path))

    async def begin(self, number: int, messages: int, last: int = LAST) -> AdkConversation:
        await _create(self._service, number)
        start, said = time.time() - messages, list_events(0)
        rows = [_build_row(number, said[at % len(said)], start + at) for at in range(messages)]
        async with self._service._get_db_connection() as connection:
            await connection.executemany(ADD, rows)
            await connection.commit()
        return AdkConversation(self._service, number, last)

    async def ask(self) -> str:
        """It opens a connection for each call, and so for this one."""
        async with self._service._get_db_connection() as connection:
            found = [(await connection.execute_fetchall(f"PRAGMA {name}"))[0][0] for name in ("journal_mode", "synchronous")]
        return describe_sqlite(*found)

    async def aclose(self) -> None:
        await self._service.close()


async def _create(service: BaseSessionService, number: int) -> Any:
    where = {"app_name": APP, "user_id": name_user(number), "session_id": name_session(number)}
    return await service.create_session(**where, state=dict(BEGINNING))


def _build_row(number: int, event: Event, timestamp: float) -> tuple[Any, ...]:
    event.id, event.timestamp = str(uuid.uuid4()), timestamp
    where = (event.id, APP, name_user(number), name_session(number))
    return (*where, event.invocation_id, timestamp, event.model_dump_json(exclude_none=True))


class AgentsConversation:
    """A session of openai-agents, as ``Conversation``.

    Args:
        session: The session.
        calls: What a turn adds.
        last: How many of its newest items a turn reads.
    """

    def __init__(self, session: Any, calls: Calls, last: int = LAST) -> None:
        self._session = session
        self._calls = calls
        self._last = last

    async def turn(self) -> None:
        await self._session.get_items(self._last)
        for items in self._calls:
            await self._session.add_items(list(items))

    async def append(self) -> None:
        await self._session.add_items([ASKED])

    async def read(self) -> list[Any]:
        found: list[Any] = await self._session.get_items(self._last)
        return found


class Agents:
    """A kind of session of openai-agents, as ``Library``.

    Args:
        build: Makes a session of an id.
        ask: What the connection of a session says of its durability.
        finish: Closes what they share; None where that is nothing.
        calls: What a turn adds.
    """

    def __init__(
        self,
        build: Callable[[str], Any],
        ask: Callable[[Any], Awaitable[str]],
        finish: Callable[[], Awaitable[object]] | None,
        calls: Calls,
    ) -> None:
        self._build = build
        self._ask = ask
        self._finish = finish
        self._calls = calls
        self._begun: list[Any] = []

    async def begin(self, number: int, messages: int, last: int = LAST) -> AgentsConversation:
        session = self._build(name_session(number))
        self._begun.append(session)
        for first in range(0, messages, FILLED_AT_ONCE):
            await session.add_items([ITEMS[at % len(ITEMS)] for at in range(min(FILLED_AT_ONCE, messages - first))])
        return AgentsConversation(session, self._calls, last)

    async def ask(self) -> str:
        return await self._ask(self._begun[0])

    async def aclose(self) -> None:
        for session in self._begun:
            if isinstance(session, SQLiteSession):
                session.close()
        if self._finish is not None:
            await self._finish()


def agents_sqlite(path: Path, calls: Calls = AS_RUNNER) -> Agents:
    """``SQLiteSession``."""
    return Agents(lambda name: SQLiteSession(name, path), _ask_agents_sqlite, None, calls)


def agents_sqlalchemy(url: str, calls: Calls = AS_RUNNER) -> Agents:
    """``SQLAlchemySession``, all over one engine."""
    engine = create_async_engine(url)

    def build(name: str) -> SQLAlchemySession:
        return SQLAlchemySession(name, engine=engine, create_tables=True)

    return Agents(build, lambda session: ask_sqlalchemy(session._engine), engine.dispose, calls)


def agents_redis(url: str, calls: Calls = AS_RUNNER) -> Agents:
    """``RedisSession``, all over one client."""
    client = Redis.from_url(url)

    async def ask(session: Any) -> str:
        found = await session._redis.config_get("append*")
        return describe_redis(found["appendonly"], found["appendfsync"])

    return Agents(lambda name: RedisSession(name, redis_client=client), ask, client.aclose, calls)


async def ask_sqlalchemy(engine: AsyncEngine) -> str:
    """What a connection of SQLAlchemy's pool says of its durability."""
    async with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            return f"synchronous_commit {(await connection.execute(text('SHOW synchronous_commit'))).scalar()}"
        found = [(await connection.execute(text(f"PRAGMA {name}"))).scalar() for name in ("journal_mode", "synchronous")]
    return describe_sqlite(*found)


async def _ask_agents_sqlite(session: Any) -> str:
    """It has a connection for each thread, and so for that of this call."""

    def ask() -> str:
        with session._locked_connection() as connection:
            found = []
            for name in ("journal_mode", "synchronous"):
                with closing(connection.execute(f"PRAGMA {name}")) as cursor:
                    found.append(cursor.fetchone()[0])
        return describe_sqlite(*found)

    return await asyncio.to_thread(ask)
