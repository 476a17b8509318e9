"""P17: thousands of turns at once, a fifth of them cancelled, and nobody sees the session of anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dcaf import ConfigurationError, Session, current_session
from dcaf.core.state import State
from tests.asgi.wire import envelope, mounted, scope_of

REQUESTS: Final = 10_000
USERS: Final = 100
ONE_IN: Final = 5
"""Of so many requests one is cancelled."""
LARGE, LARGE_IN = 300_000, 97
"""One body in so many is parsed in a thread."""

PATHS: Final = ("/api/chat", "/api/sync")
LONGEST_S: Final = 0.004
AT_LAST_S: Final = 60
"""A turn that is to be cancelled waits here, so that none ends before."""

Current = Callable[[], Session]


@dataclass
class Result:
    """What went on in one run.

    Attributes:
        foreign: What somebody saw that was not theirs.
        served: How many requests were answered.
        cancelled: How many were cancelled.
        at_once: How many were in the service at the same time, at most.
        variables: Context variables that were not as before when a request had ended.
        tasks: Tasks that were still there when all had ended.
        outside: Where a session was still to be had when all had ended.
    """

    foreign: list[Any] = field(default_factory=list)
    served: int = 0
    cancelled: int = 0
    at_once: int = 0
    variables: set[str] = field(default_factory=set)
    tasks: int = 0
    outside: list[str] = field(default_factory=list)


def assert_isolated(result: Result) -> None:
    """The law."""
    assert result.foreign == []
    assert result.variables == set()
    assert result.tasks == 0
    assert result.outside == []


class Turn:
    """One request of one user: what it does, in which order, and where it is cancelled."""

    def __init__(self, number: int, source: random.Random) -> None:
        self.number = number
        self.say = "x" * (LARGE if number % LARGE_IN == 0 else 1)
        self.user = f"user-{source.randrange(USERS)}"
        self.path = source.choice((PATHS[0], PATHS[0], PATHS[1]))
        self.steps = [source.choice(("sleep", "thread", "task", "yield")) for _ in range(source.randrange(2, 6))]
        self.naps = [source.random() * LONGEST_S for _ in range(12)]
        points = 4 + (len(self.steps) if self.path == PATHS[0] else 0)
        self.cancelled_at = source.randrange(points) if number % ONE_IN == 0 else None
        self.is_cut_by_asyncio = source.random() < 0.5
        self.at = 0
        self.has_written = False
        self.cancel: Callable[[], object] = lambda: None


class World:
    """The users, the envelope that each holds, and what they see of one another."""

    def __init__(self, seed: int, number: int, current: Current) -> None:
        source = random.Random(seed)
        self.turns = [Turn(each, source) for each in range(number)]
        self.envelopes = {name: envelope({"owner": name}, subject=name) for name in {turn.user for turn in self.turns}}
        self.current = current
        self.result = Result()
        self.running = 0
        self.group: TaskGroup

    async def point(self, turn: Turn) -> None:
        """Somewhere in a turn: it may be cancelled from here on, in whatever it waits for next."""
        if turn.at == turn.cancelled_at:
            self.group.start_soon(_called, turn.cancel)
        turn.at += 1
        await anyio.sleep(turn.naps[turn.at % len(turn.naps)] + 0.0001)

    def look(self, turn: Turn, *sessions: Any) -> None:
        """Look at the session, however one gets it."""
        for session in (self.current(), *sessions):
            seen = session.get("owner"), session.get("turn") if turn.has_written else turn.number
            if seen != (turn.user, turn.number):
                self.result.foreign.append((turn.user, turn.number, seen))

    def write(self, turn: Turn) -> None:
        """Write what no other turn writes."""
        self.current().set("turn", turn.number)
        self.current().incr("count")
        turn.has_written = True

    def keep(self, turn: Turn, body: bytes) -> None:
        """Take the answer: the next turns of this user send what is in it."""
        found = json.loads(body)["data"]["session"]
        if (found.get("owner"), found.get("turn")) != (turn.user, turn.number):
            self.result.foreign.append((turn.user, turn.number, found))
        self.envelopes[turn.user] = found
        self.result.served += 1


async def _called(function: Callable[[], object]) -> None:
    function()


def application(world: World) -> Starlette:
    """Endpoints that read and write the session in every way there is."""

    async def chat(request: Request) -> JSONResponse:
        turn = request.scope["turn"]
        body = await request.json()
        world.look(turn, request.session, request.scope["dcaf.session"], body["data"]["session"])
        world.write(turn)
        for step in turn.steps:
            await world.point(turn)
            await STEPS[step](world, turn)
            world.look(turn, request.session)
        return JSONResponse({"ok": True})

    def in_a_thread(request: Request) -> JSONResponse:
        turn = request.scope["turn"]
        world.look(turn, request.session)
        world.write(turn)
        time.sleep(turn.naps[0] / 4)
        world.look(turn, request.session)
        return JSONResponse({"ok": True})

    return Starlette(
        routes=[Route(PATHS[0], chat, methods=["POST"]), Route(PATHS[1], in_a_thread, methods=["POST"])],
    )


async def _sleep(world: World, turn: Turn) -> None:
    await anyio.sleep(turn.naps[1])
    world.write(turn)


async def _yield(world: World, turn: Turn) -> None:
    for _ in range(3):
        world.look(turn)
        await anyio.lowlevel.checkpoint()


async def _thread(world: World, turn: Turn) -> None:
    def work() -> None:
        world.look(turn)
        time.sleep(turn.naps[2] / 4)
        world.write(turn)
        world.look(turn)

    await anyio.to_thread.run_sync(work)


async def _task(world: World, turn: Turn) -> None:
    async def child(nap_s: float) -> None:
        world.look(turn)
        await anyio.sleep(nap_s)
        world.write(turn)

    async with anyio.create_task_group() as group:
        for nap_s in turn.naps[3:5]:
            group.start_soon(child, nap_s)


STEPS: Final = {"sleep": _sleep, "thread": _thread, "task": _task, "yield": _yield}


class Client:
    """One request on the wire; each message takes a while."""

    def __init__(self, world: World, turn: Turn) -> None:
        self.world, self.turn = world, turn
        self.pending: list[bytes] = []
        self.status = 0
        self.body = b""

    async def send(self, app: Any) -> None:
        """Send it, and take the answer."""
        turn = self.turn
        data = json.dumps({"data": {"session": self.world.envelopes[turn.user]}, "say": turn.say}).encode()
        self.pending = [data[:50], data[50:]]
        await app(scope_of(path=turn.path, user=turn.user, turn=turn), self._receive, self._take)
        assert self.status == 200, self.body
        self.world.keep(turn, self.body)

    async def _receive(self) -> Any:
        await self.world.point(self.turn)
        if not self.pending:
            return {"type": "http.disconnect"}
        chunk = self.pending.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self.pending)}

    async def _take(self, message: Any) -> None:
        await self.world.point(self.turn)
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        if self.body and self.turn.cancelled_at is not None:
            await anyio.sleep(AT_LAST_S)


async def one(world: World, app: Any, turn: Turn) -> None:
    """One turn, in a task of its own; afterwards its context must be as it was."""
    result = world.result
    await anyio.sleep(turn.naps[5] * 5)
    before = dict(contextvars.copy_context())
    world.running += 1
    result.at_once = max(result.at_once, world.running)
    was_cancelled = await _cut(world, app, turn)
    result.cancelled += was_cancelled
    world.running -= 1
    after = dict(contextvars.copy_context())
    result.variables |= {name.name for name in {*before, *after} if before.get(name) is not after.get(name)}


async def _cut(world: World, app: Any, turn: Turn) -> bool:
    """Whether the turn was cancelled: by its scope, or in the way of asyncio alone."""
    client = Client(world, turn)
    with anyio.CancelScope() as scope:
        turn.cancel = scope.cancel
        if turn.is_cut_by_asyncio and (task := _asyncio_task()) is not None:
            turn.cancel = task.cancel
            try:
                await client.send(app)
            except asyncio.CancelledError:
                task.uncancel()
                return True
        else:
            await client.send(app)
    return scope.cancelled_caught


def _asyncio_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _others() -> set[Any]:
    """What runs in the event loop besides this."""
    try:
        return asyncio.all_tasks() - {asyncio.current_task()}
    except RuntimeError:
        return set(range(trio.lowlevel.current_statistics().tasks_living))


async def all_at_once(world: World, make: Callable[[Any], Any]) -> None:
    """Every turn in a task of its own; then look for what is left."""
    app = make(application(world))
    before = _others()
    async with anyio.create_task_group() as world.group:
        for turn in world.turns:
            world.group.start_soon(one, world, app, turn)
    world.result.tasks = len(_others() - before)
    for where, run in (("task", _here), ("thread", anyio.to_thread.run_sync)):
        with contextlib.suppress(ConfigurationError):
            await run(current_session)
            world.result.outside.append(where)


async def _here(function: Callable[[], Any]) -> Any:
    return function()


def by_user(app: Any) -> Any:
    return mounted(app, subject=lambda scope: scope["user"])


def run(number: int, make: Callable[[Any], Any] = by_user, current: Current = current_session, backend: Any = "asyncio") -> Result:
    """So many turns at once."""
    world = World(17, number, current)
    anyio.run(all_at_once, world, make, backend=backend)
    assert world.result.served + world.result.cancelled == number
    return world.result


@pytest.mark.promise(17)
def test_no_turn_sees_anything_of_another_and_none_leaves_anything(scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(300, int(REQUESTS * scale))
    result = run(number)
    assert_isolated(result)
    assert result.cancelled == number // ONE_IN
    assert result.at_once > number / 10
    measured(
        17,
        f"0 foreign values, 0 tasks and 0 context variables left in {number:,} concurrent requests of {USERS} users, "
        f"{result.cancelled:,} of them cancelled, {result.at_once:,} in the service at once",
    )


@pytest.mark.promise(17)
def test_nor_under_trio(scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(150, int(REQUESTS * scale / 5))
    result = run(number, backend="trio")
    assert_isolated(result)
    assert result.cancelled == number // ONE_IN
    measured(17, f"nor in {number:,} under trio, {result.cancelled:,} of them cancelled")


HELD: Final[list[Session]] = []


def held() -> Session:
    return HELD[-1]


def by_a_global(app: Any) -> Any:
    """Broken: the session of the turn stands in a global."""

    async def keeping(scope: Any, receive: Any, send: Any) -> None:
        HELD[:] = [scope["dcaf.session"]]
        await app(scope, receive, send)

    return by_user(keeping)


@pytest.mark.promise(17)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_control_a_session_in_a_global_that_never_ends_is_seen_by_others(backend: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(State, "end", lambda *_: None)
    result = run(200, by_a_global, held, backend)
    assert len(result.foreign) > 100
    with pytest.raises(AssertionError):
        assert_isolated(result)


LEFT: Final[contextvars.ContextVar[Session]] = contextvars.ContextVar("left")


def leaving_a_variable(app: Any) -> Any:
    """Broken: the variable is set, and reset only where the turn ends well."""

    async def setting(scope: Any, receive: Any, send: Any) -> None:
        token = LEFT.set(scope["dcaf.session"])
        await app(scope, receive, send)
        LEFT.reset(token)

    return by_user(setting)


def leaving_a_task(app: Any) -> Any:
    """Broken: something goes on when the turn has ended."""
    kept = []

    async def starting(scope: Any, receive: Any, send: Any) -> None:
        kept.append(asyncio.create_task(asyncio.sleep(60)))
        await app(scope, receive, send)

    return by_user(starting)


@pytest.mark.promise(17)
@pytest.mark.parametrize("broken", [leaving_a_variable, leaving_a_task])
def test_control_what_a_cancelled_turn_leaves_is_found(broken: Callable[[Any], Any]) -> None:
    result = run(100, broken)
    assert result.tasks > 50 if broken is leaving_a_task else result.variables == {"left"}
    with pytest.raises(AssertionError):
        assert_isolated(result)
