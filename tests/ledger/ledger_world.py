"""A service over a ledger, its clients' requests, and what they get: in process, by ASGI messages.

A request names what the application does by its path. A client is anybody who holds envelopes: the tests keep those themselves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dcaf.asgi import SessionMiddleware, checkpoint
from dcaf.core import Key, Keyring
from dcaf.engines import Record
from dcaf.engines.partitions import find_partition
from dcaf.ledger import Ledger, LedgerEvent
from dcaf.ledger.tables import epoch_row, session_row, store_row
from dcaf.service import SessionService
from tests.asgi.wire import JSON_TYPE, scope_of

AUDIENCE = "shop"
RING = Keyring(Key.from_bytes("k7", bytes(range(32))))
LINES = (b"content-type", b"application/x-ndjson")
TEXT = (b"content-type", b"text/plain")


@dataclass
class Answer:
    """What reached a client.

    Attributes:
        status: 0 where nothing came.
        values: Each JSON that came: one, or a line each.
        headers: Of the answer.
    """

    status: int = 0
    values: list[Any] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def value(self) -> Any:
        return self.values[-1] if self.values else {}

    @property
    def code(self) -> Any:
        return self.value.get("code")

    @property
    def told(self) -> Any:
        return self.status, self.code

    @property
    def session(self) -> Any:
        """The session that the client holds afterwards; None where the answer has none."""
        found = [(value.get("data") or {}).get("session") for value in self.values]
        return next((session for session in reversed(found) if session is not None), None)

    @property
    def sessions(self) -> list[Any]:
        """Each that came, in order."""
        found = [(value.get("data") or {}).get("session") for value in self.values]
        return [session for session in found if session is not None]


class World:
    """A service, its ledger, and what they saw.

    Args:
        engine: The engine.
        clock: Of the application.
        middleware: Further settings of the middleware.
        settings: Of the ledger.

    Attributes:
        ran: The path of each turn that the application ran.
        entered, go: Set when a turn that waits has begun; lets it go on.
        used: What ``session.once`` said.
    """

    def __init__(self, engine: Any, *, clock: Any = time.time, middleware: Any = None, **settings: Any) -> None:
        self.events: list[LedgerEvent] = []
        self.clock = clock
        settings.setdefault("on_event", self.events.append)
        self.ledger = Ledger(engine, audience=AUDIENCE, **settings)
        self.engine = engine
        self.ran: list[str] = []
        self.used: list[bool] = []
        self.entered = asyncio.Event()
        self.go = asyncio.Event()
        self.in_turn: Callable[[Any], Any] = lambda session: None
        store = self.make_store()
        given = {"keys": RING, "audience": AUDIENCE, "store": store, "subject": find_subject, "clock": clock}
        self.service = SessionMiddleware(self._app, **{**given, **(middleware or {})})

    def make_store(self) -> Any:
        """What the middleware gets."""
        return self.ledger

    def session_row(self, session_id: str, subject: str | None = "ada") -> Record:
        """The row of a session of a subject; None for an anonymous one."""
        if subject is None:
            return session_row(session_id, find_partition(None, session_id, self.ledger.partitions))
        return session_row(session_id, self.epoch_row(subject).partition)

    def epoch_row(self, subject: str = "ada") -> Record:
        """The row of the epoch of a subject."""
        return epoch_row(AUDIENCE, subject, self.ledger.partitions)

    def store_row(self, subject: str = "ada") -> Record:
        """The row of the store where those of a subject are."""
        return store_row(self.epoch_row(subject).partition)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    async def turn(
        self,
        session: Any = None,
        how: str = "count",
        *,
        key: str | None = None,
        method: str = "POST",
        subject: str | None = "ada",
        say: Any = None,
        leaves_after: int | None = None,
    ) -> Answer:
        """One request.

        Args:
            session: The envelope that is sent; None for none.
            how: What the application does.
            key: Its Idempotency-Key.
            method: Its method.
            subject: Who asks; None for an anonymous client.
            say: What tells its body from another.
            leaves_after: After how many messages of the answer the client has left.
        """
        body = json.dumps({"say": say, "data": {"session": session}}).encode()
        headers = [JSON_TYPE, *([(b"idempotency-key", key.encode())] if key else [])]
        headers += [(b"x-user", subject.encode())] if subject else []
        return await self.exchange(scope_of(method, f"/{how}", headers), body, leaves_after)

    async def exchange(self, scope: Any, body: bytes, leaves_after: int | None = None, *, more: bytes | None = None) -> Answer:
        pending, answer, sent = [{"type": "http.request", "body": body, "more_body": more is not None}], Answer(), 0
        pending = [*([] if more is None else [{"type": "http.request", "body": more, "more_body": False}]), *pending]

        async def receive() -> Any:
            return pending.pop() if pending else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal sent
            if leaves_after is not None and sent >= leaves_after:
                raise OSError("the client has left")
            sent += 1
            _take(answer, message)

        with suppress(RuntimeError, OSError):
            await self.service(scope, receive, send)
        if answer.body:
            answer.values += [json.loads(line) for line in answer.body.split(b"\n") if line.startswith(b"{")]
        return answer

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        session, how = scope["dcaf.session"], scope["path"].removeprefix("/")
        await receive()
        self.ran.append(how)
        found = self.in_turn(session)
        if asyncio.iscoroutine(found):
            await found
        if how == "text":
            await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
            await send({"type": "http.response.body", "body": b"hi"})
            return
        if how.startswith("stream"):
            await self._stream(session, send, how)
            return
        await self._act(session, how)
        await send({"type": "http.response.start", "status": 500 if how.endswith("500") else 200, "headers": [JSON_TYPE]})
        await send({"type": "http.response.body", "body": json.dumps({"n": session.get("n", 0)}).encode()})

    async def _act(self, session: Any, how: str) -> None:
        if how == "read":
            return
        if how == "end":
            session.end()
            return
        if how.startswith("rotate"):
            session.rotate(subject=how.partition("-")[2] or None)
            return
        if how.startswith("once"):
            self.used.append(await session.once(how))
            return
        session.incr("n")
        if how == "blocks":
            time.sleep(1.0)  # noqa: ASYNC251 - the loop is blocked on purpose
        if how.startswith("waits"):
            go = self.go
            self.entered.set()
            await go.wait()
        if how.endswith("raises"):
            raise RuntimeError("a bug")

    async def _stream(self, session: Any, send: Any, how: str) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LINES]})
        session.incr("n")
        await send({"type": "http.response.body", "body": b'{"type":"text"}\n', "more_body": True})
        await checkpoint()
        if how == "stream-waits":
            self.entered.set()
            await self.go.wait()
        if how == "stream-raises":
            raise RuntimeError("a bug")
        if how != "stream-same":
            session.incr("n")
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n', "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class KeptWorld(World):
    """The same, with a session service that keeps the states: each rule of the ledger holds there, too."""

    def make_store(self) -> Any:
        is_fresh = self.ledger.terms.freshness and not self.ledger.terms.branches
        return SessionService(self.ledger.engine, app=AUDIENCE, ledger=self.ledger) if is_fresh else self.ledger


def find_subject(scope: Any) -> str | None:
    found = dict(scope["headers"]).get(b"x-user")
    return None if found is None else found.decode()


def claims_of(envelope: Any) -> Any:
    """The claims in a token that is signed, unverified."""
    part = envelope["dcaf"]["token"].split(".")[2]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def number_of(envelope: Any) -> int:
    return int(claims_of(envelope)["seq"])


def run(scenario: Callable[[], Any]) -> Any:
    """Run a scenario in an event loop of its own; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(scenario(), 20))


def _take(answer: Answer, message: Any) -> None:
    if message["type"] == "http.response.start":
        answer.status = message["status"]
        answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        return
    answer.body += message.get("body", b"")
