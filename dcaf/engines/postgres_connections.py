"""The connections of one event loop to PostgreSQL: opened when they are needed, kept, and dropped when they are of no use.

What a reader gets wrong: a connection whose statement was cut off is never used again, and one that the server has closed while
nobody used it is noticed before something is sent on it, since afterwards nobody could tell whether it has arrived.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

from dcaf.core.errors import EngineError
from dcaf.core.importing import extra
from dcaf.engines.postgres_errors import EXHAUSTED, SILENT, describe_refusal
from dcaf.engines.postgres_settings import Settings
from dcaf.engines.postgres_values import Context

with extra("dcaf.engines.postgres", "dcaf[postgres]"):
    import psycopg
    from psycopg.pq import TransactionStatus

OLD_S: Final = 3600.0
"""How long a connection is used: after that, the server that the name of the host means today is asked."""

IDLE_S: Final = 600.0
"""How long a connection is kept that nobody uses."""

KEPT_STATEMENTS: Final = 300
"""How many statements a connection has prepared at most."""

UNTIL_FOUND: Final = 0.5
UNTIL_CANCELLED: Final = 0.75
UNTIL_CUT: Final = 0.9
"""Parts of a call's time: until it has a connection, until the server is told to give up, and until nobody listens any more."""


class _Raw(psycopg.AsyncConnection[Any]):
    def __del__(self) -> None:  # type: ignore[override]
        """Say nothing: connections of a loop that was closed, or of a parent process, cannot be closed in order."""


class Connection:
    """One connection.

    Args:
        raw: Psycopg's.
        is_prepared: Whether statements are prepared.

    Attributes:
        is_cut: Whether a statement of it was cancelled, so that it is not used again.
        is_committing: Whether what it was asked last writes and commits by itself.
        used: When it was used last, by the clock of the event loop.
    """

    def __init__(self, raw: psycopg.AsyncConnection[Any], *, is_prepared: bool) -> None:
        self.is_cut: bool = False
        self.is_committing: bool = False
        self._raw = raw
        self._is_prepared = is_prepared
        self._cursor = raw.cursor(binary=True)
        self._cancelling: asyncio.Task[None] | None = None
        self._has_more = watch(raw.fileno())
        now = asyncio.get_running_loop().time()
        self._born: float = now
        self.used: float = now

    async def ask(self, statement: str, values: Sequence[Any] = (), *, is_frequent: bool = False) -> list[tuple[Any, ...]]:
        """Send a statement, and return the rows of its answer.

        Raises:
            psycopg.Error: It failed.
        """
        cursor = await self._cursor.execute(statement, values, prepare=is_frequent and self._is_prepared)
        answer = cursor.pgresult
        return await cursor.fetchall() if answer is not None and answer.nfields else []

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent on it."""
        return self._raw.closed

    @property
    def is_idle(self) -> bool:
        """Whether what was asked has come to its end."""
        return not self.is_cut and self._raw.pgconn.transaction_status == TransactionStatus.IDLE

    def is_fresh(self, now: float) -> bool:
        """Whether it can be used: it is not old, and the server has not said anything unasked, such as that it goes."""
        is_old = now - self._born > OLD_S or now - self.used > IDLE_S
        return self.is_idle and not is_old and not self._has_more()

    def cancel(self) -> None:
        """Tell the server to give up what it does."""
        self.is_cut = True
        self._cancelling = asyncio.ensure_future(self._cancel())

    async def _cancel(self) -> None:
        with suppress(Exception):
            await self._raw.cancel_safe(timeout=5)

    def cut(self) -> None:
        """Stop to listen: whoever waits for an answer has an error instead."""
        self.is_cut = True
        with suppress(OSError), socket.socket(fileno=os.dup(self._raw.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        with suppress(Exception):
            self._raw.pgconn.finish()

    def abandon(self) -> None:
        """Let go of it in a process that was forked: its server serves the parent, and must not hear of this."""
        with suppress(Exception):
            os.close(self._raw.fileno())


def watch(file: int) -> Callable[[], object]:
    """What tells whether there is something to read: that is at once, and does not read it."""
    if not hasattr(select, "poll"):  # on Windows
        return lambda: select.select([file], [], [], 0)[0]
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return lambda: poll.poll(0)


class Pool:
    """The connections of one event loop.

    Args:
        settings: What the engine was told.
        loop: The event loop.

    Attributes:
        in_use: How many are in use.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.in_use: int = 0
        self._settings = settings
        self._loop = loop
        self._free = asyncio.Semaphore(settings.pool_size)
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._is_closed = False

    async def take(self, end: float) -> Connection:
        """A connection that works.

        Args:
            end: Until when, by the clock of the event loop.

        Raises:
            EngineError: All are in use, or the server cannot be reached.
        """
        try:
            async with asyncio.timeout_at(end) if self._free.locked() else nullcontext():
                await self._free.acquire()
        except TimeoutError:
            raise EngineError(EXHAUSTED.format(self._settings.pool_size, UNTIL_FOUND * self._settings.timeout_s)) from None
        try:
            connection = self._find() or await self._open(end)
        except BaseException:
            self._release()
            raise
        self.in_use += 1
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next call, or close it where it is of no use."""
        self.in_use -= 1
        connection.is_committing = False
        if self._is_closed or not connection.is_idle:
            self._drop(connection)
        else:
            connection.used = self._loop.time()
            self._idle.append(connection)
        self._release()

    def close(self) -> None:
        """Close those that nobody uses, and each other one as soon as it is given back."""
        self._is_closed = True
        while self._idle:
            self._drop(self._idle.pop())

    def drop_all(self) -> None:
        """Close all, where their event loop was closed."""
        self._is_closed = True
        for connection in list(self._all):
            self._drop(connection)

    def abandon(self) -> None:
        """Let go of all in a process that was forked."""
        for connection in self._all:
            connection.abandon()

    def _find(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fresh(now):
                return connection
            self._drop(connection)
        return None

    async def _open(self, end: float) -> Connection:
        settings = self._settings
        try:
            async with asyncio.timeout_at(end):
                raw = await _Raw.connect(
                    **settings.connect,
                    autocommit=True,
                    prepare_threshold=0 if settings.is_prepared else None,
                    cursor_factory=psycopg.AsyncRawCursor,
                    context=Context(),
                )
        except TimeoutError:
            raise EngineError(SILENT.format(UNTIL_FOUND * settings.timeout_s)) from None
        except psycopg.Error as error:
            raise EngineError(f"Nothing was written: {describe_refusal(error)}.") from None
        raw.prepared_max = KEPT_STATEMENTS
        connection = Connection(raw, is_prepared=settings.is_prepared)
        self._all.add(connection)
        return connection

    def _drop(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.close()

    def _release(self) -> None:
        with suppress(RuntimeError):  # the loop was closed, and nobody waits there
            self._free.release()


@contextmanager
def limit(connection: Connection, end: float, timeout_s: float) -> Iterator[None]:
    """Let what is asked on a connection come to an end in time.

    Args:
        connection: The connection.
        end: When the call must have ended, by the clock of the event loop.
        timeout_s: How long the whole call may take.
    """
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def cancel() -> None:
        connection.cancel()
        timers.append(loop.call_at(end - (1 - UNTIL_CUT) * timeout_s, connection.cut))

    timers.append(loop.call_at(end - (1 - UNTIL_CANCELLED) * timeout_s, cancel))
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
