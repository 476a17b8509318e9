"""The connections of one event loop to PostgreSQL: opened when they are needed, kept, and dropped when they are of no use.

What a reader gets wrong: a connection whose statement was cut off is never used again, and one that the server has closed while
nobody used it is noticed before something is sent on it, since afterwards nobody could tell whether it has arrived.

A connection is opened in the background, and kept though whoever asked for it has gone: a server that greets slowly, or comes after
one that says nothing, is reached in the end. Each new connection looks at its server before it is used: it may be another one.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from dcaf.core.errors import ConfigurationError, DcafError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.postgres.errors import CLOSED, EXHAUSTED, SILENT, build_refusal
from dcaf.engines.postgres.limits import UNTIL_FOUND, Watch
from dcaf.engines.postgres.settings import ASK, Settings, check_server
from dcaf.engines.postgres.statements import Statement, ask_for_row
from dcaf.engines.postgres.values import Context
from dcaf.engines.transactions import Value

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
    import psycopg
    import psycopg_pool
    from psycopg.pq import TransactionStatus

OLD_S: Final = 3600.0
"""How long a connection is used: after that, the server that the name of the host means today is asked."""

IDLE_S: Final = 60.0
"""How often one connection is closed, where some were not used."""

LATE_S: Final = 0.1
"""How much later than a call itself the pool ends its wait."""

AGAIN_S: Final = 0.1
"""How long after an attempt that has failed the next one begins, however many callers there are."""

LOOK_S: Final = 2.0
"""How long a new connection may take to look at its server."""

WARNING: Final = "01000"
"""What the server calls a warning that is of no special kind."""


class Connection(Protocol):
    """One connection.

    Attributes:
        is_committing: Whether what it was asked last writes and commits by itself.
        has_warned: Whether the server has warned of something: that a commit which it tells of has not reached a standby.
        watch: What lets each call on it come to an end in time.
    """

    is_committing: bool
    has_warned: bool
    watch: Watch

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent on it."""

    @property
    def is_idle(self) -> bool:
        """Whether what was asked has come to its end, and was not cancelled."""

    async def ask(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Send a statement, and return the rows of its answer.

        Raises:
            psycopg.Error: It failed.
        """

    async def ask_for_row(self, statement: Statement, values: Sequence[Value]) -> list[Any]:
        """Send a statement that is asked again and again, and return the row of its answer.

        Raises:
            psycopg.Error: It failed.
        """

    def give_up(self) -> None:
        """Tell the server to give up what it does."""

    def cut(self) -> None:
        """Stop to listen: whoever waits for an answer has an error instead."""

    def drop(self) -> None:
        """Close it, also where its event loop was closed."""


class _Connection(psycopg.AsyncConnection[Any]):
    """One connection of psycopg's.

    Attributes:
        is_cut: Whether a statement of it was cancelled, so that it is not used again.
        prepared: The names of the statements that are prepared on it; None where none may be.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_cut: bool = False
        self.is_committing: bool = False
        self.has_warned: bool = False
        self.watch: Watch = Watch(self)
        self.add_notice_handler(self._hear)
        self.prepared: set[bytes] | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._has_more = watch(self.fileno())

    def __del__(self) -> None:  # type: ignore[override]
        """Say nothing: connections of a loop that was closed, or of a parent process, cannot be closed in order."""

    async def ask(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Send a statement, and return the rows of its answer.

        Raises:
            psycopg.Error: It failed.
        """
        cursor = await self.cursor(binary=True).execute(statement.encode(), values, prepare=False)
        answer = cursor.pgresult
        return await cursor.fetchall() if answer is not None and answer.nfields else []

    async def ask_for_row(self, statement: Statement, values: Sequence[Value]) -> list[Any]:
        """Send a statement that is asked again and again, and return the row of its answer.

        Raises:
            psycopg.Error: It failed.
        """
        return await ask_for_row(self, statement, values, self.prepared)

    async def look(self, settings: Settings) -> None:
        """Look at the server, and at what is between. Through a pooler nothing is prepared: two clients may call two statements by
        one name, and what is between them may mix them up.

        Raises:
            ConfigurationError: The server is refused.
            psycopg.Error: It could not be asked.
        """
        ((*found, process),) = await self.ask(f"{ASK}, pg_backend_pid()")
        check_server(settings, tuple(found))
        if process != self.info.backend_pid:
            self.prepared = None

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        self.has_warned = self.has_warned or notice.sqlstate == WARNING

    @property
    def is_idle(self) -> bool:
        """Whether what was asked has come to its end."""
        return not self.is_cut and self.pgconn.transaction_status == TransactionStatus.IDLE

    def is_fresh(self) -> bool:
        """Whether it can be used: the server has not said anything unasked, such as that it goes."""
        return self.is_idle and not self._has_more()

    def give_up(self) -> None:
        """Tell the server to give up what it does."""
        self.is_cut = True
        self._cancelling = asyncio.ensure_future(self._give_up())

    async def _give_up(self) -> None:
        with suppress(Exception):
            await self.cancel_safe(timeout=5)

    def cut(self) -> None:
        """Stop to listen: whoever waits for an answer has an error instead."""
        self.is_cut = True
        with suppress(OSError), socket.socket(fileno=os.dup(self.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Close it, also where its event loop was closed."""
        with suppress(Exception):
            self.pgconn.finish()

    def abandon(self) -> None:
        """Let go of it in a process that was forked: its server serves the parent, and must not hear of this."""
        with suppress(Exception):
            os.close(self.fileno())


def watch(file: int) -> Callable[[], object]:
    """What tells whether there is something to read: that is at once, and does not read it."""
    if not hasattr(select, "poll"):  # on Windows
        return lambda: select.select([file], [], [], 0)[0]
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return lambda: poll.poll(0)


class _Opener:
    """What the pool of psycopg takes for a class of connections.

    Args:
        connect: What opens one.
    """

    def __init__(self, connect: Callable[..., Any]) -> None:
        self.connect = connect


class Pool:
    """The connections of one event loop.

    Args:
        settings: What the engine was told.

    Attributes:
        in_use: How many are in use.
    """

    def __init__(self, settings: Settings) -> None:
        self.in_use: int = 0
        self._settings = settings
        self._pool: psycopg_pool.AsyncConnectionPool[Any] = psycopg_pool.AsyncConnectionPool(
            connection_class=cast("type[Any]", _Opener(self._open)),
            open=False,
            min_size=0,
            max_size=settings.pool_size,
            max_idle=IDLE_S,
            max_lifetime=OLD_S,
            reconnect_timeout=0,  # the next call tries again
        )
        self._all: set[_Connection] = set()
        self._waiting: set[asyncio.Timeout] = set()
        self._error: DcafError | None = None
        self._next = 0.0
        self._is_closed = False
        self._closing: asyncio.Task[None] | None = None

    async def take(self, end: float) -> Connection:
        """A connection that works.

        Args:
            end: Until when, by the clock of the event loop.

        Raises:
            ConfigurationError: The server is refused.
            EngineError: All are in use, or the server cannot be reached.
        """
        try:
            async with asyncio.timeout_at(end) as scope:
                self._waiting.add(scope)
                connection = await self._find(end)
        except (TimeoutError, psycopg_pool.PoolTimeout):
            raise self._explain() from None
        except psycopg_pool.PoolClosed:
            raise EngineError(CLOSED) from None
        finally:
            self._waiting.discard(scope)
        self.in_use += 1
        return connection

    async def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next call, or close it where it is of no use."""
        self.in_use -= 1
        connection.is_committing = connection.has_warned = False
        if not connection.is_idle:
            connection.drop()
        await self._pool.putconn(connection)

    def close_soon(self) -> None:
        """Close it as soon as the event loop goes on, in which this is called."""
        self._closing = asyncio.ensure_future(self.close())

    async def close(self) -> None:
        """Close those that nobody uses, and each other one as soon as it is given back."""
        self._is_closed = True
        await self._pool.close(timeout=LOOK_S)

    def drop_all(self) -> None:
        """Close all, where their event loop was closed."""
        self._is_closed = True
        for connection in self._all:
            connection.drop()

    def abandon(self) -> None:
        """Let go of all in a process that was forked."""
        for connection in self._all:
            connection.abandon()

    async def _find(self, end: float) -> _Connection:
        if self._pool.closed and not self._is_closed:
            await self._start()
        while True:
            # The time-out around this may get lost: where a connection comes just then, ``wait_for`` of Python 3.11 returns it.
            left_s = max(0.0, end - asyncio.get_running_loop().time()) + LATE_S
            connection: _Connection = await self._pool.getconn(timeout=left_s)
            if connection.is_fresh():
                return connection
            connection.drop()
            await self._pool.putconn(connection)

    async def _start(self) -> None:
        others = asyncio.all_tasks()
        await self._pool.open()
        for task in asyncio.all_tasks() - others:  # a process that is forked, or ends, leaves them as they are
            with suppress(AttributeError):
                task._log_destroy_pending = False  # type: ignore[attr-defined]

    def _explain(self) -> DcafError:
        """Why nobody gave a connection, for one caller."""
        waited_s = UNTIL_FOUND * self._settings.timeout_s
        if self.in_use >= self._settings.pool_size:
            return EngineError(EXHAUSTED.format(self._settings.pool_size, waited_s))
        if self._error is not None:
            return type(self._error)(*self._error.args)
        return EngineError(SILENT.format(waited_s))

    async def _open(self, _url: str) -> _Connection:
        """Open a connection, in a task of the library."""
        self._all = {connection for connection in self._all if not connection.closed}
        try:
            await asyncio.sleep(self._next - asyncio.get_running_loop().time())
            connection = await self._connect()
        except ConfigurationError as error:
            self._fail(error)
            raise
        except psycopg.Error as error:
            self._fail(build_refusal(error))
            raise
        except asyncio.CancelledError:
            _end(asyncio.current_task())
            raise
        self._error = None
        self._all.add(connection)
        return connection

    async def _connect(self) -> _Connection:
        settings = self._settings
        connection = await _Connection.connect(
            **settings.connect,
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.AsyncRawCursor,
            context=Context(),
        )
        connection.prepared = set() if settings.is_prepared else None
        connection.watch.begin(asyncio.get_running_loop().time() + LOOK_S, LOOK_S)
        try:
            await connection.look(settings)
        except BaseException:
            connection.drop()
            raise
        finally:
            connection.watch.finish()
        return connection

    def _fail(self, error: DcafError) -> None:
        """Tell those who wait, where no other connection may be given back to them."""
        self._error = error
        self._next = asyncio.get_running_loop().time() + AGAIN_S
        if not all(connection.closed for connection in self._all):
            return
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(0)


def _end(task: asyncio.Task[Any] | None) -> None:
    """End a task of the library: it takes a cancellation for an attempt that failed, and ``asyncio.run`` would wait for ever."""
    if task is not None and not task.done():
        task.cancel()
        asyncio.get_running_loop().call_soon(_end, task)
