"""The connections of all threads of a process: a pool to each server, from which a call takes one for itself.

Code without an event loop uses it, and trio, which lets a thread do the call. A thread that nobody waits for any more goes on until
its call has ended, and gives its connection back then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import Any

from dcaf.core.errors import CommitUnknownError, ConfigurationError, DcafError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.redis import wire
from dcaf.engines.redis.calls import Node, Request
from dcaf.engines.redis.cluster import LAST_TRY, SLOTS, Places
from dcaf.engines.redis.errors import BUSY, CLOSED, NONE_FREE, UNKNOWN, build_error, build_unreached
from dcaf.engines.redis.settings import LOOKS, Settings

with extra("dcaf.engines.redis.engine", "dcaf[redis]"):
    from redis.connection import ConnectionPool
    from redis.sentinel import SentinelConnectionPool


class Threads:
    """The servers of an engine, for threads.

    Args:
        settings: Of the engine.
        places: Where partitions are.
        sentinel: The client library's object that finds the server; None for none.
        most_connections: How many connections to each server at most.
    """

    def __init__(self, settings: Settings, places: Places, sentinel: Any, most_connections: int) -> None:
        self._settings = settings
        self._places = places
        self._sentinel = None if sentinel is None else wire.build_sentinel(sentinel, settings, is_async=False)
        self._most_connections = most_connections
        self._lock = Lock()
        self._finding = Lock()
        self._pools: dict[Node, Pool] = {}
        self._is_closed = False

    def ask(self, requests: Sequence[Request], end: float | None = None) -> list[Any]:
        """The replies to requests, in their order.

        Args:
            requests: The requests. Where there is none, find out where partitions are.
            end: When this must have ended, by the monotonic clock; None for the engine's time from now on.

        Raises:
            EngineError, CommitUnknownError, ConfigurationError: One of them could not be done.
        """
        end = time.monotonic() + self._settings.timeout_s if end is None else end
        if not requests:
            self._find(None, end)
        replies: list[Any] = [None] * len(requests)
        left = list(range(len(requests)))
        while left:
            again: list[int] = []
            for node, group in self._group(requests, left, end).items():
                found = self._exchange_with(node, [requests[at] for at in group], end)
                again += self._sort(node, requests, replies, dict(zip(group, found, strict=True)), end)
            left = again
        return replies

    def give_up(self, requests: Sequence[Request]) -> bool:
        """Take requests back for which nobody waits any more; whether one that writes was sent before."""
        with self._lock:
            for request in requests:
                request.is_given_up = True
            return any(request.is_sent and request.writes for request in requests)

    def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()
        for client in () if self._sentinel is None else self._sentinel.sentinels:
            client.close()

    def _group(self, requests: Sequence[Request], left: Sequence[int], end: float) -> dict[Node, list[int]]:
        groups: dict[Node, list[int]] = {}
        for at in left:
            self._find(requests[at], end)
            groups.setdefault(self._places.find(requests[at]), []).append(at)
        return groups

    def _sort(self, node: Node, requests: Sequence[Request], replies: list[Any], found: dict[int, Any], end: float) -> list[int]:
        """Keep the replies, and return which requests are to be sent again."""
        again: list[int] = []
        for at, reply in found.items():
            replies[at] = reply
            if isinstance(reply, Exception) and not requests[at].may_fail:
                pause_s = self._places.redirect(requests[at], reply, node)
                if time.monotonic() + pause_s >= end - (1 - LAST_TRY) * self._settings.timeout_s:
                    raise build_error(reply, writes=False)
                time.sleep(pause_s)
                again.append(at)
        return again

    def _find(self, request: Request | None, end: float) -> None:
        """Find out where a request goes. One thread asks, and the others wait for it."""
        if self._places.knows(request):
            return
        if not self._finding.acquire(timeout=max(0.0, end - time.monotonic())):
            raise EngineError(BUSY.format(self._settings.timeout_s))
        try:
            if not self._places.knows(request):
                self._ask_all(end)
        finally:
            self._finding.release()

    def _ask_all(self, end: float) -> None:
        """Ask one server after the other where partitions are, until one says it. Each has half of the time that is left."""
        failed: DcafError = EngineError(BUSY.format(self._settings.timeout_s))
        for node in self._places.list_candidates(self._settings.seeds):
            part_s = (end - time.monotonic()) / 2
            if part_s <= 0:
                break
            try:
                self._places.take_in(_ask_once(node, self._settings, part_s), node)
            except ConfigurationError:
                raise
            except wire.UNREACHED as error:
                self._places.suspect(node)
                failed = build_unreached(error)
            else:
                return
        raise failed

    def _exchange_with(self, node: Node, requests: Sequence[Request], end: float) -> list[Any]:
        try:
            with self._find_pool(node).lend(end) as connection:
                self._begin(requests, end)
                return _exchange(connection, requests, end)
        except wire.LOST as error:
            self._places.suspect(node)
            if any(request.writes and request.is_sent for request in requests):
                raise CommitUnknownError(UNKNOWN) from None
            raise build_unreached(error) from None

    def _begin(self, requests: Sequence[Request], end: float) -> None:
        """From here on nobody takes them back."""
        with self._lock:
            if time.monotonic() >= end or any(request.is_given_up for request in requests):
                raise EngineError(BUSY.format(self._settings.timeout_s))
            for request in requests:
                request.is_sent = True

    def _find_pool(self, node: Node) -> Pool:
        with self._lock:
            if self._is_closed:
                raise EngineError(CLOSED)
            pool = self._pools.get(node)
            if pool is None:
                for departed in self._places.list_departed(self._pools):
                    self._pools.pop(departed).close()
                pool = self._pools[node] = Pool(self._settings, node, self._sentinel, self._most_connections)
        return pool


class Pool:
    """The connections to one server. Who finds all in use waits for one until its time is over.

    Args:
        settings: Of the engine.
        node: The server.
        sentinel: What finds it; None for none.
        most: How many connections at most.
    """

    def __init__(self, settings: Settings, node: Node, sentinel: Any, most: int) -> None:
        self._timeout_s = settings.timeout_s
        self._free = BoundedSemaphore(most)
        self._is_closed = False
        arguments = wire.build_pool_arguments(settings, node, sentinel, partial(_look, settings), is_async=False)
        arguments["max_connections"] = most
        self._pool: Any = (
            ConnectionPool(**arguments)
            if sentinel is None
            else SentinelConnectionPool(settings.service, sentinel, **wire.drop_class(arguments))  # type: ignore[no-untyped-call]
        )

    @contextmanager
    def lend(self, end: float) -> Iterator[Any]:
        """A connection that is made, for one exchange.

        Raises:
            EngineError: None is free in time, or the server lets nobody in.
            ConfigurationError: The server does not keep what was promised.
            Exception: It cannot be made: one of ``wire.LOST``.
        """
        if not self._free.acquire(timeout=max(0.0, end - time.monotonic())):
            raise EngineError(NONE_FREE.format(self._timeout_s))
        try:
            connection = self._pool.get_connection()
            try:
                yield connection
            finally:
                self._pool.release(connection)
                if self._is_closed:
                    connection.disconnect()
        finally:
            self._free.release()

    def close(self) -> None:
        """Close the connections that nobody uses now, and each of the others after its use."""
        self._is_closed = True
        with suppress(*wire.LOST):
            self._pool.disconnect(inuse_connections=False)


def _ask_once(node: Node, settings: Settings, part_s: float) -> Any:
    """What a server says of where partitions are, on a connection for this alone: nothing waits before it."""
    waits = {"socket_connect_timeout": part_s, "socket_timeout": part_s}
    connection = wire.build_connection(settings, node, partial(_look, settings), is_async=False, **waits)
    try:
        connection.connect()
        connection.send_packed_command([wire.pack([SLOTS])], check_health=False)
        return _read(connection)
    finally:
        connection.disconnect()


def _look(settings: Settings, connection: Any) -> None:
    """Look at a server to which a connection was just made."""
    connection.on_connect()
    try:
        connection.send_packed_command([wire.pack(LOOKS)], check_health=False)
        wire.judge([_read(connection) for _ in LOOKS], settings)
    except BaseException:
        connection.disconnect()
        raise


def _exchange(connection: Any, requests: Sequence[Request], end: float) -> list[Any]:
    """Send requests together, and read the replies. Where the server has not their script, they are sent again with its text.

    A connection whose replies were not all read is closed.
    """
    replies: list[Any] = [None] * len(requests)
    left, with_text = list(range(len(requests))), False
    try:
        while left:
            found = _send(connection, [requests[at] for at in left], end, with_text=with_text)
            for at, reply in zip(left, found, strict=True):
                replies[at] = reply
            left, with_text = [at for at in left if wire.has_forgotten(replies[at])], True
    except BaseException:
        connection.disconnect()
        raise
    if wire.is_demoted(replies):
        connection.disconnect()
    return replies


def _send(connection: Any, requests: Sequence[Request], end: float, *, with_text: bool = False) -> list[Any]:
    commands = wire.list_commands(requests, with_text=with_text)
    connection.send_packed_command([wire.pack(commands)], check_health=False)
    replies = []
    for request in requests:
        if request.is_asking:
            _read(connection)
        replies.append(_read(connection, end))
    return replies


def _read(connection: Any, end: float | None = None) -> Any:
    wait = {} if end is None else {"timeout": max(0.001, end - time.monotonic())}
    try:
        return connection.read_response(disable_decoding=True, disconnect_on_error=False, **wait)
    except wire.REPLIES as error:
        return error
