"""What the promises of the ledger share: a service over one place, a client's part of a turn, and several processes at once.

The processes are forked from a server that has loaded dcaf. Each has an engine and a ledger of its own over the same place.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from random import Random
from typing import Any, Final

import anyio

from dcaf import Key, Keyring, SessionMiddleware, current_session
from dcaf.asgi import HeaderCarrier, checkpoint
from dcaf.core import SessionStore
from dcaf.core.errors import SessionError, StoreError
from dcaf.ledger import Ledger
from tests.forked import CONTEXT
from tests.promises.places import Place

AUDIENCE: Final = "shop"
RING: Final = Keyring(Key.from_bytes("k7", Random(20).randbytes(32)))
LEASE: Final = timedelta(seconds=1)
DIED_S: Final = 60.0
PATIENCE: Final = timedelta(seconds=20)
"""For calls of tests in which a store is busy and never down."""

Make = Callable[[Place], SessionStore | None]
"""What makes the store of a process: the real one, or a broken one."""


def make_ledger(place: Place) -> Ledger:
    """The ledger of one process."""
    return Ledger(place.open_engine(PATIENCE), audience=AUDIENCE, lease=LEASE)


def make_nothing(place: Place) -> None:
    """Level L0."""


@dataclass
class Service:
    """A service that counts, and notes what it was told.

    Args:
        store: What keeps its sessions; None for nothing.
        keys: The keys.
        uses_once: Whether it does something once in each turn. Without a ledger a session has no more than 256 of that.

    Attributes:
        runs: Message -> how often the application ran for it.
        effects: Message -> how often it did what may be done once for it.
        begun: User -> id of the session in which the application ran last for that user.
        pause: Is awaited in the middle of each turn.
    """

    store: SessionStore | None
    keys: Keyring = RING
    uses_once: bool = True
    runs: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    begun: dict[str | None, str] = field(default_factory=dict)
    pause: Callable[[str], Any] | None = None

    def __post_init__(self) -> None:
        self.app: Any = SessionMiddleware(
            self._answer, keys=self.keys, audience=AUDIENCE, subject=find_user, store=self.store, carriers=("body", HeaderCarrier())
        )

    def do(self, message: str) -> None:
        """Do what may be done once for a message."""
        self.effects[message] += 1

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError  # it knows no lifespan
        try:
            await self._take_turn(scope, receive, send)
        except (SessionError, StoreError) as error:  # session.once() was refused, or could not be asked
            if scope["path"] == "/stream":
                raise
            await _send_json(send, {"code": error.code}, error.http_status)

    async def _take_turn(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _read(receive)
        message: str = json.loads(body)["say"] if body else "look"
        self.runs[message] += 1
        self.begun[find_user(scope)] = str(current_session().id)
        if scope["method"] == "GET":
            await _send_json(send, {"n": current_session().get("n")})
        elif scope["path"] == "/stream":
            await self._answer_in_pieces(message, send)
        else:
            await self._take_note(message)
            await _send_json(send, {"n": current_session()["n"], "id": current_session().id})

    async def _answer_in_pieces(self, message: str, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")]})
        await send({"type": "http.response.body", "body": b'{"type":"text_delta","text":"one"}\n', "more_body": True})
        await self._take_note(message)
        await checkpoint()
        await send({"type": "http.response.body", "body": b'{"type":"text_delta","text":"two"}\n', "more_body": True})
        current_session().incr("whole")
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n'})

    async def _take_note(self, message: str) -> None:
        session = current_session()
        if self.uses_once and await session.once(message):
            self.do(message)
        session.incr("n")
        session["said"] = [*session.get("said", [])[-40:], message]
        if self.pause is not None:
            await self.pause(message)


def find_user(scope: Any) -> str | None:
    """The subject is what the client says it is: no promise here is about that."""
    found: str = dict(scope["headers"]).get(b"x-user", b"").decode()
    return found or None


@dataclass(frozen=True)
class Got:
    """What a client has read of an answer.

    Attributes:
        status: Its status; 0 where nothing came.
        values: The JSON values that came whole.
    """

    status: int
    values: list[Any]

    @property
    def code(self) -> str | None:
        found = self.values[-1].get("code") if self.values else None
        return found if isinstance(found, str) else None

    @property
    def applied(self) -> Any:
        return self.values[-1].get("applied") if self.values else None

    @property
    def session(self) -> Any:
        """The last session that came; None for none."""
        found = [value["data"]["session"] for value in self.values if "session" in (value.get("data") or {})]
        return found[-1] if found else None

    @property
    def newest(self) -> Any:
        """The same, where it is one to go on with."""
        return self.session if self.session and self.session["dcaf"]["token"] != "new" else None


class Left(OSError):
    """What a server raises in the application where its client has left."""


async def exchange(
    app: Any,
    say: str,
    session: Any = None,
    *,
    path: str = "/chat",
    method: str = "POST",
    user: str | None = None,
    key: str | None = None,
    reads: int | None = None,
) -> Got:
    """One request, of whose answer the client reads so many messages before its connection breaks; None for all of them."""
    headers = [(b"content-type", b"application/json")]
    headers += [(b"x-user", user.encode())] if user else []
    headers += [(b"idempotency-key", key.encode())] if key else []
    token = session["dcaf"]["token"].encode() if session else b""
    headers += [(HeaderCarrier.field, token)] if method == "GET" and token else []
    body = b"" if method == "GET" else json.dumps({"say": say, "data": {"session": session}}).encode()
    status, received, left = 0, bytearray(), reads
    pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return pending.pop() if pending else await anyio.sleep_forever()

    async def send(message: Any) -> None:
        nonlocal status, left
        if left is not None:
            if left <= 0:
                raise Left
            left -= 1
        status = message.get("status", status)
        received.extend(message.get("body", b""))

    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": b"", "headers": headers}
    with suppress(Left, SessionError, StoreError):  # a server ends the connection
        await app(scope, receive, send)
    return Got(status, list(find_values(bytes(received))))


def find_values(received: bytes) -> Iterator[Any]:
    """The JSON values of an answer, or of the lines of a stream, that came whole: all messages here end with a value."""
    for line in received.split(b"\n"):
        if line:
            yield json.loads(line)


async def _read(receive: Any) -> bytes:
    body, is_open = b"", True
    while is_open:
        message = await receive()
        body, is_open = body + message.get("body", b""), message.get("more_body", False)
    return body


async def _send_json(send: Any, value: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def in_time(jobs: Sequence[Any], at_once: int) -> list[Any]:
    """What coroutines return, so many at a time, in their order."""
    limit = asyncio.Semaphore(at_once)

    async def run(job: Any) -> Any:
        async with limit:
            return await job

    return await asyncio.gather(*map(run, jobs))


@asynccontextmanager
async def closing(store: SessionStore | None) -> AsyncGenerator[None]:
    """Close the engine of a ledger at the end."""
    try:
        yield
    finally:
        if isinstance(store, Ledger):
            await store.engine.aclose()


# processes


class Worker:
    """A process that does what it is asked, one thing after the other, and can be killed."""

    def __init__(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, function: Callable[..., Any], *args: Any) -> None:
        self.pipe.send((function, args))

    def answer(self) -> Any:
        assert self.pipe.poll(DIED_S * 10), "a process does not answer"
        is_good, found = self.pipe.recv()
        assert is_good, found
        return found

    def stop(self) -> None:
        self.pipe.close()
        self.process.join(5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


def _work(pipe: Connection) -> None:
    while True:
        try:
            function, args = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = True, function(*args)
        except BaseException as error:  # noqa: BLE001 - the one that asked raises it
            import traceback

            answer = False, "".join(traceback.format_exception(error))
        pipe.send(answer)


@contextmanager
def workers(number: int = 2) -> Iterator[list[Worker]]:
    """So many processes."""
    found = [Worker() for _ in range(number)]
    try:
        yield found
    finally:
        for worker in found:
            worker.stop()


def at_once(asked: Sequence[Worker], function: Callable[..., Any], *arguments: tuple[Any, ...]) -> list[Any]:
    """What processes give that do something at the same time, each with its own arguments."""
    for worker, args in zip(asked, arguments, strict=True):
        worker.ask(function, *args)
    return [worker.answer() for worker in asked]
