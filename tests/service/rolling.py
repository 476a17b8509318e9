"""A service whose workers are replaced one after the other while its clients go on: from one level to the next, and back.

A client holds a conversation. Each turn goes to any worker; where one cannot serve it, or is just being replaced, the client asks
another one, with what it sent before. It knows what the state must be: a counter, and a list of what it has said.

>>> from dcaf.engines import MemoryEngine
>>> async def move(engine):
...     async with conversing(Apps(engine, "L0"), users=["ada", None]) as traffic:
...         await traffic.move_to("L2")
...     return traffic.lost
>>> asyncio.run(move(MemoryEngine()))
[]
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from dcaf.asgi import SessionMiddleware
from dcaf.core import Key, Keyring, current_session
from dcaf.engines import Engine
from dcaf.ledger import Ledger
from dcaf.service import Messages, SessionService
from tests.service.kept_places import KeptPlace

ROOT: Final = Path(__file__).parents[2]
RING: Final = Keyring(Key.from_bytes("k7", bytes(range(32))))
AUDIENCE: Final = "clinic"
ROLL_OUT: Final = datetime.now(UTC) + timedelta(days=1)

LEVELS: Final = ("L0", "L2", "L3", "draining")
WITH_HISTORY: Final = ("L3", "draining")
WORKERS: Final = 3
ATTEMPTS: Final = 400
"""After so many answers that it cannot be served now, a client is stuck."""
START_S: Final = 30.0
PAUSE_S: Final = 0.002

Adopt = datetime | None


def make_store(level: str, engine: Engine | None, adopt_until: Adopt = ROLL_OUT) -> Any:
    """What the workers of a level have for ``store=``."""
    if engine is None or level == "L0":
        return None
    ledger = Ledger(engine, audience=AUDIENCE, adopt_until=adopt_until)
    if level == "L2":
        return ledger
    sessions = SessionService(engine, app=AUDIENCE, ledger=ledger)
    return sessions if level == "L3" else sessions.draining()


def make_app(level: str, engine: Engine | None, adopt_until: Adopt = ROLL_OUT) -> ASGIApp:
    """A worker: it counts the turns of a session, and writes down what was said in it. A turn that only looks does neither."""

    async def chat(request: Request) -> JSONResponse:
        session, sent = current_session(), await request.json()
        said = sent["said"]
        if sent.get("looks"):
            return JSONResponse({"level": level})
        session.incr("n")
        session.append("log", said)
        session["last"] = {"said": said}
        session.user.incr("n")
        await asyncio.sleep(0)
        if level in WITH_HISTORY:
            Messages.of(session).add("user", f"{said}")
        return JSONResponse({"level": level})

    app = Starlette(routes=[Route("/chat", chat, methods=["POST"])])
    return SessionMiddleware(app, keys=RING, audience=AUDIENCE, subject=find_user, store=make_store(level, engine, adopt_until))


def find_user(scope: Scope) -> str | None:
    found: bytes | None = dict(scope["headers"]).get(b"user")
    return None if found is None else found.decode()


class Workers(Protocol):
    """Some workers, each of which is reached by a client of HTTP."""

    level: str
    clients: list[httpx2.AsyncClient]

    async def replace(self, which: int, level: str) -> None:
        """Start a worker of another level in the place of one."""

    async def close(self) -> None:
        """Stop all."""


class Apps:
    """Workers in this process, on one engine.

    Args:
        engine: The engine.
        level: Of the workers at first.
        adopt_until: Of their ledgers.
    """

    def __init__(self, engine: Engine, level: str, *, adopt_until: Adopt = ROLL_OUT) -> None:
        self.level = level
        self._engine, self._adopt_until = engine, adopt_until
        self.clients = [self._start(level) for _ in range(WORKERS)]

    async def replace(self, which: int, level: str) -> None:
        self.clients[which] = self._start(level)  # a turn that is in progress ends where it began

    async def close(self) -> None:
        self.clients.clear()

    def _start(self, level: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(make_app(level, self._engine, self._adopt_until))
        return httpx2.AsyncClient(transport=transport, base_url="http://worker")


class Processes:
    """Workers of uvicorn, each with an engine of its own in the same place.

    Args:
        place: Where the rows are.
        level: Of the workers at first.
    """

    def __init__(self, place: KeptPlace, level: str) -> None:
        self.level, self._place = level, place
        self._ports = [find_port() for _ in range(WORKERS)]
        self._processes = [self._start(port, level) for port in self._ports]
        limits = httpx2.Limits(max_keepalive_connections=0)
        self.clients = [httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits) for port in self._ports]

    async def replace(self, which: int, level: str) -> None:
        process = self._processes[which]
        process.terminate()
        await anyio.to_thread.run_sync(process.wait)
        self._processes[which] = self._start(self._ports[which], level)
        await self._wait_for(which)

    async def start(self) -> None:
        """Wait until all answer."""
        for which in range(WORKERS):
            await self._wait_for(which)

    async def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process, client in zip(self._processes, self.clients, strict=True):
            await client.aclose()
            process.wait()

    async def _wait_for(self, which: int) -> None:
        with anyio.fail_after(START_S):
            while True:
                try:
                    await self.clients[which].get("/")
                except httpx2.TransportError:
                    assert self._processes[which].poll() is None
                    await asyncio.sleep(0.05)
                else:
                    return

    def _start(self, port: int, level: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "critical"]
        given = {"DCAF_TEST_LEVEL": level, "DCAF_TEST_KIND": self._place.kind, "DCAF_TEST_WHERE": self._place.where}
        given |= {"DCAF_TEST_PREFIX": self._place.prefix, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*command, "--factory", "tests.service.rolling:create_app"],
            cwd=ROOT,
            env={**os.environ, **given},
            stderr=subprocess.DEVNULL,
        )


def create_app() -> ASGIApp:
    """The worker of this process, as its environment says."""
    kind, where, prefix, level = (os.environ[f"DCAF_TEST_{name}"] for name in ("KIND", "WHERE", "PREFIX", "LEVEL"))
    return make_app(level, KeptPlace(kind, where, prefix).open_engine())


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Client:
    """Holds a conversation.

    Attributes:
        user: Who it is; None for an anonymous one.
        envelope: The session.
        turns: How many turns were acknowledged.
        history: What it has said to workers that keep a history.
        shared: How often its turns were counted in what it shares with its other sessions.
        went_back: How often that was not more than before.
        lost: What was wrong; then it says no more.
    """

    user: str | None
    envelope: Any = None
    turns: int = 0
    history: list[str] = field(default_factory=list)
    shared: int = 0
    went_back: int = 0
    lost: str | None = None

    def take(self, answer: httpx2.Response) -> None:
        """Look whether the state is what it must be."""
        if answer.status_code != 200:
            self.lost = f"{answer.status_code} {answer.json().get('code')}"
            return
        body = answer.json()
        self.turns += 1
        self.envelope = body["data"]["session"]
        found = {key: value for key, value in self.envelope.items() if key not in {"dcaf", "user:n"}}
        expected = {"n": self.turns, "log": [*range(1, self.turns + 1)], "last": {"said": self.turns}}
        if found != expected:
            self.lost = f"{found} is not {expected}"
        self.went_back += self.envelope["user:n"] <= self.shared
        self.shared = self.envelope["user:n"]
        if body["level"] in WITH_HISTORY:
            self.history.append(f"{self.turns}")


@dataclass
class Traffic:
    """Clients that go on, whatever becomes of the workers.

    Attributes:
        workers: The workers.
        clients: The clients.
        answered: How many turns the workers of each level have answered.
        unavailable: How often they said that they could not.
    """

    workers: Workers
    clients: list[Client]
    answered: Counter[str] = field(default_factory=Counter)
    unavailable: int = 0
    is_over: bool = False
    _source: random.Random = field(default_factory=lambda: random.Random(7))
    _answers: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lost(self) -> list[str]:
        """What was wrong, of each client that has lost something."""
        return [client.lost for client in self.clients if client.lost is not None]

    async def move_to(self, *levels: str, turns: int = 2) -> None:
        """Replace the workers one after the other by those of a level, then of the next; in between each client has some turns."""
        for level in levels:
            for which in range(WORKERS):
                await self.workers.replace(which, level)
                await self.go_on(turns)
            await self.go_on(turns)

    async def move_at_once(self, level: str, *, turns: int = 2) -> None:
        """Replace all workers together: none of before is there beside one of those that come."""
        for which in range(WORKERS):
            await self.workers.replace(which, level)
        await self.go_on(turns)

    async def go_on(self, turns: int) -> None:
        """Wait until each client has had so many turns more."""
        wanted = [(client, client.turns + turns) for client in self.clients]
        while any(client.turns < number and client.lost is None for client, number in wanted):
            self._answers.clear()
            await self._answers.wait()

    async def converse(self, client: Client) -> None:
        """Take turns until it is over, or something was lost."""
        while not self.is_over and client.lost is None:
            answer = await self._ask(client)
            if answer is None:
                client.lost = "stuck"
            else:
                client.take(answer)
                self.answered[answer.json().get("level", "")] += 1
            self._answers.set()

    async def _ask(self, client: Client) -> httpx2.Response | None:
        sent = {"said": client.turns + 1, "data": {"session": client.envelope}}
        headers = {} if client.user is None else {"user": client.user}
        for _ in range(ATTEMPTS):
            try:
                answer = await self._source.choice(self.workers.clients).post("/chat", json=sent, headers=headers)
            except httpx2.TransportError:  # it was being replaced, and has taken the connection at most
                await asyncio.sleep(PAUSE_S)
                continue
            if answer.status_code != 503:
                return answer
            assert (answer.json()["code"], "retry-after" in answer.headers) == ("session-unavailable", True)
            self.unavailable += 1
            await asyncio.sleep(0)
        return None


@asynccontextmanager
async def conversing(workers: Workers, users: Sequence[str | None]) -> AsyncIterator[Traffic]:
    """Have a client of each user take turns while the block runs."""
    traffic = Traffic(workers, [Client(user) for user in users])
    try:
        async with asyncio.TaskGroup() as group:
            for client in traffic.clients:
                group.create_task(traffic.converse(client))
            try:
                await traffic.go_on(1)
                yield traffic
            finally:
                traffic.is_over = True
    finally:
        await workers.close()


async def find_history(sessions: SessionService, client: Client, session_id: str) -> list[Any]:
    """What the service has of what a client said."""
    found, after = [], 0
    while page := (await sessions.messages(user=client.user, id=session_id, limit=1_000, after=after)).items:
        found += [message.content for message in page]
        after = page[-1].number or 0
    return found
