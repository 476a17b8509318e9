"""P39: an effect that was done is never offered again, and none is used up that was not done, however its turn ends.

A turn approves up to three calls, and something happens to it at one point of the event loop: stop, a client that leaves, a
cancellation, an exception, the end of its time. Then the same is approved once more, with the newest session that the client holds.
Each call must have begun once: not twice, and not never. Where a ledger keeps the session, the same is approved with the session of
before that turn, too: whichever the client has, each call begins once.

What L0 cannot promise is not measured here: a JSON answer that never arrives leaves its client with the session of before.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import anyio
import pytest

from dcaf import Session, tool
from dcaf.agent import Agent, AgentResult, ProposedCall, RunConfig, create_app
from dcaf.agent.approvals import ApprovedCall, Execution
from dcaf.agent.run_state import RunState
from dcaf.core import OpenRequest, SessionStore, StoreSettings
from dcaf.core.base64url import encode
from dcaf.core.claims import Binding
from dcaf.engines import MemoryEngine, SqliteEngine
from dcaf.ledger import Ledger
from dcaf.service import SessionService
from dcaf.tools.decisions import Spending
from dcaf.tools.proposals import mark_decided
from tests.asgi.sockets import scope_of as socket_scope
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, messages_of, scope_of

LEVELS: Final = ("L0", "L2 with branches", "L2 with branches, on SQLite", "L2", "L3")
"""What keeps the sessions. Without branches an older session is refused, and its client gets the newest one for it."""

POINTS: Final = 300
LATER_S: Final = 3600.0
LONGEST_S: Final = 1.0
"""How long a call that a thread does may take to begin, where nobody waits for the thread any more."""

SPAN: Final = 110
"""Rounds of the event loop over which the points are spread: more than a turn takes."""

SQLITE_SPAN: Final = 800
"""The same for turns that wait for a thread and a file, meanwhile the loop goes on."""

SQLITE_PART: Final = 6
"""One point in so many is tried there, and without branches."""

SPREAD: Final = [point for first in range(25) for point in range(first, POINTS, 25)]
"""All points, of which neighbours come late: in the order in which a control looks for its first fault."""

ENGINES: Final[dict[str, SqliteEngine]] = {}
"""One for all trials: their sessions have ids of their own."""


@pytest.fixture(scope="module", autouse=True)
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A file for the ledgers. No promise here is about a power cut, or about a loop whose clock is put forward."""
    path = tmp_path_factory.mktemp("effects") / "dcaf.db"
    ENGINES["sqlite"] = SqliteEngine(path, durability="relaxed", timeout=timedelta(days=1))
    yield
    ENGINES.pop("sqlite").sync.close()


def make_store(level: str) -> SessionStore | None:
    """The store of a trial."""
    if level == "L0":
        return None
    engine = ENGINES["sqlite"] if "SQLite" in level else MemoryEngine()
    if level == "L3":
        return SessionService(engine, app=AUDIENCE).as_store(StoreSettings(AUDIENCE, timedelta(days=30), has_subject=False))
    return Ledger(engine, audience=AUDIENCE, branches="branches" in level)


def find_points(level: str, scale: float) -> range:
    """The points to try."""
    part = SQLITE_PART if level in LEVELS[2:] else 1
    return range(0, POINTS, min(POINTS // 6, part * max(1, int(1 / scale) // 2)))


class Broken(Exception):
    """What fails in a turn."""


class TurnedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def find_ada(_: Any) -> str:
    """Who calls."""
    return "ada"


@dataclass
class Trial:
    """One turn with what happens to it.

    Attributes:
        kinds: The tool of each call.
        pause: How long each stage takes, in rounds of the loop.
        begun: How often each call has begun.
        breaks: Whether the next step of the application raises.
        is_gone: Whether the client has left.
        leaves_after: After how many messages it leaves, in the very step in which it gets the last.
        way_s: How long a message is on its way, in seconds.
        store: What keeps the sessions; None for nothing.
        session_id: Of the session of turns in a program.
    """

    kinds: list[str]
    pause: Callable[[], int]
    way_s: float = 0
    store: SessionStore | None = None
    session_id: str = field(default_factory=lambda: encode(os.urandom(16)))
    begun: Counter[str] = field(default_factory=Counter)
    breaks: bool = False
    is_gone: bool = False
    leaves_after: int | None = None

    def receive(self) -> bool:
        """Count a message that has reached the client; gives whether it leaves now."""
        if self.leaves_after is not None:
            self.leaves_after -= 1
            self.is_gone = self.is_gone or self.leaves_after <= 0
        return self.is_gone

    @property
    def app(self) -> Any:
        """The service."""
        # Of a subject: what an anonymous client has lost on a socket, where no request is known again, is lost for good.
        return APP if self.store is None else create_app(AGENT, keys=RING, audience=AUDIENCE, store=self.store, subject=find_ada)

    @asynccontextmanager
    async def session(self, held: Session | None) -> AsyncGenerator[Session]:
        """The session of a turn in a program."""
        session = copy.copy(held) if held else Session()
        lease = session._state.lease = (
            await self.store.open(OpenRequest(self.session_id, None, Binding(AUDIENCE))) if self.store else None
        )
        try:
            yield session
        finally:
            if lease is not None:
                await lease.release()

    async def step(self) -> None:
        """Some rounds of the loop in the application's own code."""
        for _ in range(self.pause()):
            await asyncio.sleep(0)
            if self.breaks:
                self.breaks = False
                raise Broken


TRIAL: Final[ContextVar[Trial]] = ContextVar("trial")


async def slowly(to: str, session: Session) -> str:
    TRIAL.get().begun[to] += 1
    await TRIAL.get().step()
    session.append("paid", to)
    await TRIAL.get().step()
    return f"paid {to}"


def in_thread(to: str, session: Session) -> str:
    TRIAL.get().begun[to] += 1
    session.append("paid", to)
    time.sleep(0.0002)
    return f"paid {to}"


def in_pieces(to: str, session: Session) -> Generator[str]:
    TRIAL.get().begun[to] += 1
    yield "paying"
    session.append("paid", to)
    yield f"paid {to}"


async def as_it_comes(to: str, session: Session) -> AsyncGenerator[str]:
    TRIAL.get().begun[to] += 1
    await TRIAL.get().step()
    yield "paying"
    session.append("paid", to)
    await TRIAL.get().step()
    yield f"paid {to}"


def decorated(function: Callable[..., Awaitable[str]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    return call


KINDS: Final = {
    name: tool(name=name, requires_approval=True, parallel=parallel)(function)
    for name, function, parallel in (
        ("slowly", slowly, False),
        ("in_thread", in_thread, False),
        ("in_pieces", in_pieces, False),
        ("as_it_comes", as_it_comes, False),
        ("decorated", decorated(slowly), False),
        ("beside", slowly, True),
        ("in_thread_beside", in_thread, True),
    )
}


THREADED: Final = ("in_thread", "in_pieces", "in_thread_beside")
"""Those that a thread does."""


async def agent_function(messages: Any, context: Any, session: Session) -> AgentResult:
    await TRIAL.get().step()
    session.incr("turns")
    if messages[-1].content == "pay":
        return AgentResult(
            "?", approvals=[ProposedCall(KINDS[kind], {"to": f"c{at}"}, f"c{at}") for at, kind in enumerate(TRIAL.get().kinds)]
        )
    await TRIAL.get().step()
    return AgentResult("It is done.")


async def before(request: Any) -> None:
    request.session.incr("requests")
    await TRIAL.get().step()


async def after(response: Any) -> None:
    response.session.incr("responses")
    await TRIAL.get().step()


AGENT: Final = Agent(
    agent_function,
    tools=KINDS.values(),
    request_interceptors=before,
    response_interceptors=after,
    config=RunConfig(timeout=timedelta(seconds=60)),
)
APP: Final = create_app(AGENT, keys=RING, audience=AUDIENCE)
ASK: Final = {"role": "user", "content": "pay"}


def approved(trial: Trial) -> dict[str, Any]:
    items = [{"id": f"c{at}", "name": kind, "input": {"to": f"c{at}"}, "execute": True} for at, kind in enumerate(trial.kinds)]
    return {"role": "user", "content": "", "data": {"approvals": items}}


# wires: each takes a turn, and says what the client holds after it


def body_of(message: Any, held: Any) -> dict[str, Any]:
    return {"messages": [message], "data": {"session": held}}


def newest(lines: list[Any], held: Any) -> Any:
    """The last session that came."""
    for line in lines:
        held = (line.get("data") or {}).get("session") or held
    return held


async def over_http(trial: Trial, message: Any, held: Any, act: Any, *, path: str) -> Any:
    received, gone = bytearray(), asyncio.Event()
    coming = messages_of(json.dumps(body_of(message, held)).encode())

    async def receive() -> Any:
        if coming:
            return coming.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(sent: Any) -> None:
        await asyncio.sleep(trial.way_s)
        if trial.is_gone:
            raise OSError
        if trial.breaks and path != "/api/chat":  # a JSON answer that was not sent is none
            trial.breaks = False
            raise Broken
        received.extend(sent.get("body", b""))
        if trial.receive():
            gone.set()
        await asyncio.sleep(0)

    task = asyncio.ensure_future(trial.app(scope_of("POST", path, [JSON_TYPE]), receive, send))
    await act(trial, task, gone=gone)
    with suppress(asyncio.CancelledError, Exception):
        await task
    is_one = path == "/api/chat" or received.startswith(b'{"type":"about:blank"')  # a refusal, which is no stream
    *whole, _ = bytes(received + b"\n" if is_one else received).split(b"\n")
    return newest([json.loads(line) for line in whole if line], held)


async def over_json(trial: Trial, message: Any, held: Any, act: Any) -> Any:
    return await over_http(trial, message, held, act, path="/api/chat")


async def over_lines(trial: Trial, message: Any, held: Any, act: Any) -> Any:
    return await over_http(trial, message, held, act, path="/api/chat-stream")


async def over_socket(trial: Trial, message: Any, held: Any, act: Any) -> Any:
    inbound: asyncio.Queue[Any] = asyncio.Queue()
    heard: list[Any] = []
    is_done = asyncio.Event()

    async def send(sent: Any) -> None:
        await asyncio.sleep(trial.way_s)
        if trial.is_gone:
            raise OSError
        if sent["type"] == "websocket.send":
            heard.append(json.loads(sent["text"]))
            is_refusal = "code" in heard[-1] and "error" not in heard[-1]  # after which nothing comes; words are followed by a done
            if heard[-1]["type"] == "done" or is_refusal:
                is_done.set()
            if trial.receive():
                inbound.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.sleep(0)

    for frame in ({"type": "websocket.connect"}, {"type": "websocket.receive", "text": json.dumps(body_of(message, held))}):
        inbound.put_nowait(frame)
    task = asyncio.ensure_future(trial.app(socket_scope("/api/chat-ws"), inbound.get, send))
    await act(trial, task, inbound=inbound)
    if not trial.is_gone:
        await asyncio.wait({task, asyncio.ensure_future(is_done.wait())}, return_when=asyncio.FIRST_COMPLETED)
        inbound.put_nowait({"type": "websocket.disconnect", "code": 1000})
    with suppress(OSError):
        await task
    return newest(heard, held)


async def in_process(trial: Trial, message: Any, held: Any, act: Any) -> Any:
    async with trial.session(held) as session:
        task = asyncio.ensure_future(AGENT.run_async([message], session=session))
        await act(trial, task)
        with suppress(asyncio.CancelledError, Exception):
            await task
    return session


async def in_a_scope(trial: Trial, message: Any, held: Any, act: Any) -> Any:
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await AGENT.run_async([message], session=session)

    async with trial.session(held) as session:
        task = asyncio.ensure_future(run())
        await act(trial, scope)
        with suppress(Exception):
            await task
    return session


async def by_events(trial: Trial, message: Any, held: Any, act: Any) -> Any:
    async def run() -> None:
        async with aclosing(AGENT.run_stream([message], session=session)) as events:
            async for _ in events:
                await asyncio.sleep(0)
                if trial.is_gone:
                    break

    async with trial.session(held) as session:
        task = asyncio.ensure_future(run())
        await act(trial, task)
        with suppress(asyncio.CancelledError, Exception):
            await task
    return session


# what happens


async def stop(trial: Trial, task: Any, *, inbound: Any) -> None:
    inbound.put_nowait({"type": "websocket.receive", "text": "stop"})


async def leave(trial: Trial, task: Any, *, gone: Any = None, inbound: Any = None) -> None:
    trial.is_gone = True
    if gone is not None:
        gone.set()
    if inbound is not None:
        inbound.put_nowait({"type": "websocket.disconnect", "code": 1001})


async def leave_with_a_message(trial: Trial, task: Any, **_: Any) -> None:
    trial.leaves_after = trial.pause() + 1


async def cancel(trial: Trial, task: Any, **_: Any) -> None:
    task.cancel()


async def fail(trial: Trial, task: Any, **_: Any) -> None:
    trial.breaks = True


async def run_late(trial: Trial, task: Any, **_: Any) -> None:
    asyncio.get_running_loop().ahead_s += LATER_S  # type: ignore[attr-defined]


async def nothing(trial: Trial, task: Any, **_: Any) -> None:
    """Let the turn end."""


ENDS: Final[dict[Any, list[Any]]] = {
    over_json: [fail, run_late],
    over_lines: [leave, leave_with_a_message, cancel, fail, run_late],
    over_socket: [stop, leave, leave_with_a_message, fail, run_late],
    in_process: [cancel, fail, run_late],
    in_a_scope: [cancel],
    by_events: [cancel, leave, fail, run_late],
}
WORDS: Final = {
    over_json: "JSON",
    over_lines: "a stream",
    over_socket: "a socket",
    in_process: "run_async",
    in_a_scope: "run_async in a cancel scope",
    by_events: "run_stream",
    fail: "an exception",
    run_late: "a time-out",
    leave: "the client leaves",
    leave_with_a_message: "it leaves as a message arrives",
    cancel: "a cancellation",
    stop: "stop",
}


async def tried(
    wire: Any, happens: Any, point: int, among: Sequence[str] = tuple(KINDS), way_s: float = 0, *, level: str = "L0", least: int = 1
) -> tuple[int, int]:
    """How many calls have begun twice, and how many were used up and never begun, of some that are chosen among kinds."""
    rng = random.Random(point)
    kinds = [rng.choice(among) for _ in range(rng.randint(least, 3))]
    trial = Trial(kinds, lambda: rng.randint(0, 6), way_s, make_store(level))
    TRIAL.set(trial)
    round_ = point * (SQLITE_SPAN if "SQLite" in level else SPAN) // POINTS

    async def act(trial: Trial, task: Any, **how: Any) -> None:
        for _ in range(round_):
            await asyncio.sleep(0)
        await happens(trial, task, **how)

    before = await wire(trial, ASK, None, nothing)
    held = await wire(trial, approved(trial), before, act)
    trial.breaks, trial.is_gone, trial.leaves_after = False, False, None
    for session in (held,) if level == "L0" else (before, held):
        newer = await wire(trial, approved(trial), session, nothing)
        if level in {"L2", "L3"}:  # it was perhaps given the newest session, and nothing else
            await wire(trial, approved(trial), newer, nothing)
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_S):
            while any(kind in THREADED and f"c{at}" not in trial.begun for at, kind in enumerate(kinds)):  # noqa: ASYNC110 - it counts
                await asyncio.sleep(0.001)
    counts = [trial.begun[f"c{at}"] for at in range(len(kinds))]
    return sum(count > 1 for count in counts), sum(count == 0 for count in counts)


def swept(wire: Any, happens: Any, points: Sequence[int], *, until: int | None = None, **how: Any) -> tuple[int, int]:
    """The same at each point; ``until`` there is one of that kind."""

    async def run() -> tuple[int, int]:
        found = [(0, 0)]
        for point in points:
            if until is None or not found[-1][until]:
                found.append(await tried(wire, happens, point, **how))
        return sum(twice for twice, _ in found), sum(never for _, never in found)

    with asyncio.Runner(loop_factory=TurnedLoop) as runner:
        return runner.run(run())


@pytest.mark.promise(39)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("wire", ENDS, ids=WORDS.get)
def test_what_was_approved_begins_once_however_its_turn_ends(
    wire: Any, level: str, scale: float, measured: Callable[[int, str], None]
) -> None:
    points = find_points(level, scale)
    found = {happens: swept(wire, happens, points, level=level) for happens in ENDS[wire]}
    twice, never = (sum(counts) for counts in zip(*found.values(), strict=True))
    ends = ", ".join(WORDS[happens] for happens in found)
    measured(
        39,
        f"{WORDS[wire]}, {level}: {twice} begun twice, {never} used up and never begun, "
        f"at {len(points)} points for each of: {ends}",
    )
    assert twice == 0
    assert never == 0


def test_what_was_used_up_in_a_message_that_did_not_arrive_is_offered_again_at_level_2(scale: float) -> None:
    """The store has the state in which the call is used up, and gives that to the client whose message was lost."""
    assert swept(over_lines, leave, find_points("L0", scale), level="L2") == (0, 0)


AT_ONCE: Final[dict[str, Any]] = {"among": ["beside", "in_thread_beside"], "way_s": 0.001}
"""Calls of which several begin while the message of the first is on its way."""


@pytest.mark.promise(39)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("wire", [over_lines, over_socket], ids=WORDS.get)
def test_of_calls_that_begin_at_once_none_is_used_up_by_the_message_of_another(
    wire: Any, level: str, scale: float, measured: Callable[[int, str], None]
) -> None:
    points = find_points(level, scale)
    twice, never = swept(wire, leave_with_a_message, points, level=level, **AT_ONCE)
    measured(
        39,
        f"{WORDS[wire]}, {level}, calls side by side: {twice} begun twice, {never} used up and never begun, "
        f"at {len(points)} points",
    )
    assert twice == 0
    assert never == 0


# controls: each breaks one part of what makes it so

AMONG: Final = {"twice": tuple(KINDS), "never": tuple(kind for kind in KINDS if kind not in THREADED)}
"""The kinds among which a control finds that fault. For a call that never begins in a thread, a second would be waited."""


class RollsBack:
    """All that a turn does counts at its end, and is gone where it fails: what was decided, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: dict[int, list[str]] = {}
        commits = RunState.commit

        def commit(state: RunState) -> None:
            mark_decided(state.session, self.used.pop(id(state.base._state), []), now=state.clock())
            commits(state)

        monkeypatch.setattr("dcaf.agent.approvals.use_up", self.take)
        monkeypatch.setattr("dcaf.agent.approvals.give_back", lambda *_, **__: None)
        monkeypatch.setattr("dcaf.agent.approvals.is_sealed_as_waiting", lambda *_: False)
        monkeypatch.setattr(RunState, "commit", commit)

    def take(self, state: Any, id_: str, use: str, *, now: float) -> list[Any]:
        self.used.setdefault(id(state), []).append(id_)
        return [(state, None)]


def uses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All calls are used up before the first begins: in one step, and then they wait for their turn, or for a thread."""
    runs = Execution.run

    async def run(execution: Execution, calls: Any, turn: Any) -> None:
        for item in calls:
            execution._use(item)
        await runs(execution, calls, turn)

    async def begin(execution: Execution, item: ApprovedCall) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Execution, "run", run)
    monkeypatch.setattr(Execution, "_begin", begin)
    monkeypatch.setattr(Execution, "_begin_in_thread", lambda *_: None)


def tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets the session at the end of the turn alone."""

    async def tell(*_: Any) -> None:
        """Nothing."""

    monkeypatch.setattr(Execution, "_send_use", tell)


class NoLock:
    """One that everybody has."""

    async def __aenter__(self) -> None:
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        """Nothing."""


def tells_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may be used up while the message of another one is on its way."""
    made = Execution.__init__

    def make(execution: Execution, *args: Any, **named: Any) -> None:
        made(execution, *args, **named)
        execution._sending = NoLock()  # type: ignore[assignment]

    monkeypatch.setattr(Execution, "__init__", make)


def can_be_stopped_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation reaches the step between using a call up and its beginning."""

    async def tell(execution: Execution, send: Any, id_: str) -> None:
        await send()

    monkeypatch.setattr(Execution, "_send_use", tell)


@pytest.mark.promise(39)
@pytest.mark.parametrize("wire", [over_lines, over_socket], ids=WORDS.get)
def test_calls_that_are_used_up_together_are_caught(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tells_together(monkeypatch)
    assert swept(wire, leave_with_a_message, SPREAD, until=1, least=3, **AT_ONCE)[1]


def gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store has used up stays used up, whether it has begun or not."""

    async def end(*_: Any) -> None:
        """Nothing."""

    monkeypatch.setattr(Spending, "end", end)


def gives_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun is given back with the rest."""
    ends = Spending.end

    async def end(spending: Spending, begun: Any) -> None:
        await ends(spending, ())

    monkeypatch.setattr(Spending, "end", end)


@pytest.mark.promise(39)
@pytest.mark.parametrize(
    ("broken", "wire", "happens", "kind"),
    [
        (gives_nothing_back, in_process, cancel, "never"),
        (gives_nothing_back, over_socket, stop, "never"),
        (gives_nothing_back, over_lines, leave, "never"),
        (gives_all_back, over_lines, leave, "twice"),
        (gives_all_back, in_process, cancel, "twice"),
    ],
    ids=lambda one: str(getattr(one, "__name__", one)),
)
def test_what_is_broken_at_the_store_is_caught(
    broken: Any, wire: Any, happens: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    at = ["twice", "never"].index(kind)
    assert swept(wire, happens, SPREAD, until=at, among=AMONG[kind], level="L2 with branches")[at]


CONTROLS: Final = [
    (RollsBack, over_socket, stop, "twice"),
    (RollsBack, over_lines, leave, "twice"),
    (RollsBack, in_process, cancel, "twice"),
    (RollsBack, by_events, leave, "twice"),
    (uses_at_once, in_process, cancel, "never"),
    (uses_at_once, over_socket, stop, "never"),
    (tells_nobody, over_lines, leave, "twice"),
    (tells_nobody, over_socket, leave, "twice"),
    (can_be_stopped_between, over_lines, leave_with_a_message, "never"),
]


@pytest.mark.promise(39)
@pytest.mark.parametrize(("broken", "wire", "happens", "kind"), CONTROLS, ids=lambda one: str(getattr(one, "__name__", one)))
def test_what_is_broken_is_caught(broken: Any, wire: Any, happens: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    at = ["twice", "never"].index(kind)
    assert swept(wire, happens, SPREAD, until=at, among=AMONG[kind])[at]
