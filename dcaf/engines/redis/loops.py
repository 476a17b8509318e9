"""The connections of one event loop of asyncio: what waits together for a server leaves as one pipeline.

One connection to each server, which one task has. While a pipeline is under way, what comes waits, and is the next one. So a caller
that is cancelled has no part in the connection: what was sent is finished by the task, and what was not is never sent.

What a reader gets wrong: a connection belongs to its event loop. The task ends with the loop (``asyncio.run`` cancels it), and
closes its connection then.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from dcaf.core.errors import CommitUnknownError, ConfigurationError, DcafError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.redis import wire
from dcaf.engines.redis.calls import Node, Request
from dcaf.engines.redis.cluster import LAST_TRY, SLOTS, Places
from dcaf.engines.redis.errors import BUSY, CLOSED, ENDED, SLOW, UNKNOWN, build_error, build_unreached
from dcaf.engines.redis.settings import LOOKS, Settings

with extra("dcaf.engines.redis.engine", "dcaf[redis]"):
    from redis.asyncio.connection import ConnectionPool
    from redis.asyncio.sentinel import SentinelConnectionPool

MOST_AT_ONCE: Final = 256
MOST_BYTES_AT_ONCE: Final = 1_000_000
"""How many commands are one pipeline at most, and how large it is, unless one command alone is larger: all have the same time."""


class Loop:
    """The servers of an engine, for one event loop.

    Args:
        settings: Of the engine.
        places: Where partitions are.
        sentinel: The client library's object, of which this makes one for the loop; None for none.
    """

    def __init__(self, settings: Settings, places: Places, sentinel: Any) -> None:
        self._settings = settings
        self._places = places
        self._sentinel = None if sentinel is None else wire.build_sentinel(sentinel, settings, is_async=True)
        self._lanes: dict[Node, Lane] = {}
        self._finding: asyncio.Task[DcafError | None] | None = None

    async def ask(self, requests: Sequence[Request], end: float | None = None) -> list[Any]:
        """The replies to requests, in their order. Where there is none, find out where partitions are.

        Args:
            requests: The requests.
            end: When this must have ended, by the loop's clock; None for the engine's time from now on.

        Raises:
            EngineError, CommitUnknownError, ConfigurationError: One of them could not be done.
        """
        end = asyncio.get_running_loop().time() + self._settings.timeout_s if end is None else end
        if not requests:
            await self._find(None, end)
        if len(requests) == 1:
            return [await self._ask(requests[0], end)]
        tasks = [asyncio.ensure_future(self._ask(request, end)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """Finish what waits, and close the connections."""
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))

    def stop(self) -> None:
        """Begin to close, in the loop itself."""
        for lane in self._lanes.values():
            lane.stop()

    async def _ask(self, request: Request, end: float) -> Any:
        loop, places = asyncio.get_running_loop(), self._places
        while True:
            await self._find(request, end)
            node = places.find(request)
            try:
                reply = await self._find_lane(node).run(request, end)
            except EngineError:
                places.suspect(node)
                raise
            if not isinstance(reply, Exception) or request.may_fail:
                return reply
            pause_s = places.redirect(request, reply, node)
            if loop.time() + pause_s >= end - (1 - LAST_TRY) * self._settings.timeout_s:
                raise build_error(reply, writes=False)
            await asyncio.sleep(pause_s)

    async def _find(self, request: Request | None, end: float) -> None:
        """Find out where a request goes. All who want to know it wait for the same task, each for its own time."""
        if self._places.knows(request):
            return
        loop = asyncio.get_running_loop()
        if self._finding is None or self._finding.done():
            self._finding = loop.create_task(self._ask_all(), context=contextvars.Context())
        finding = self._finding
        await asyncio.wait([finding], timeout=end - loop.time())
        if not finding.done():
            raise EngineError(BUSY.format(self._settings.timeout_s))
        failed = EngineError(ENDED) if finding.cancelled() else finding.result()
        if failed is not None:
            raise type(failed)(*failed.args)

    async def _ask_all(self) -> DcafError | None:
        """Ask one server after the other where partitions are, until one says it. Each has half of the time that is left."""
        loop, failed = asyncio.get_running_loop(), None
        end = loop.time() + self._settings.timeout_s
        for node in self._places.list_candidates(self._settings.seeds):
            try:
                async with asyncio.timeout((end - loop.time()) / 2):
                    self._places.take_in(await _ask_once(node, self._settings), node)
            except ConfigurationError as error:
                return error
            except wire.UNREACHED as error:
                self._places.suspect(node)
                failed = build_unreached(error)
            else:
                return None
        return failed

    def _find_lane(self, node: Node) -> Lane:
        lane = self._lanes.get(node)
        if lane is None:
            for departed in self._places.list_departed(self._lanes):
                self._lanes.pop(departed).stop()
            lane = self._lanes[node] = Lane(self._settings, node, self._sentinel)
        return lane


class Lane:
    """The connection to one server, the task that has it, and what waits for it.

    Args:
        settings: Of the engine.
        node: The server.
        sentinel: What finds it; None for none.

    Attributes:
        pipelines: How many were sent.
    """

    def __init__(self, settings: Settings, node: Node, sentinel: Any) -> None:
        self._settings = settings
        self._sentinel = sentinel
        self._waiting: deque[_Call] = deque()
        self._begun: list[_Call] = []
        self._wake = asyncio.Event()
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None
        self._connection: Any = None
        self.pipelines: int = 0
        arguments = wire.build_pool_arguments(settings, node, sentinel, partial(_look, settings), is_async=True)
        kind: Any = ConnectionPool if sentinel is None else SentinelConnectionPool
        of_sentinel = () if sentinel is None else (settings.service, sentinel)
        self._pool: Any = kind(*of_sentinel, **(arguments if sentinel is None else wire.drop_class(arguments)))

    async def run(self, request: Request, end: float) -> Any:
        """The reply to a request, or the error that is its reply.

        Args:
            request: The request.
            end: When this must have ended, by the clock of the loop. After it nothing is sent.

        Raises:
            EngineError: It was not done.
            CommitUnknownError: Its end was not seen.
        """
        if self._is_closed:
            raise EngineError(CLOSED)
        loop = asyncio.get_running_loop()
        call = _Call(request, loop.create_future(), end)
        self._waiting.append(call)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._serve(), context=contextvars.Context())
        self._wake.set()
        timer = loop.call_at(end, self._expire, call)
        try:
            return await call.future
        finally:
            timer.cancel()

    def stop(self) -> None:
        """Take nothing more, and finish what waits."""
        self._is_closed = True
        self._wake.set()

    async def close(self) -> None:
        """Stop, and wait for the end."""
        self.stop()
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._task])

    async def _serve(self) -> None:
        try:
            while self._waiting or not self._is_closed:
                if self._waiting:
                    await self._send()
                else:
                    self._wake.clear()
                    await self._wake.wait()
        except GeneratorExit:  # the loop was closed without a word: there is nothing in which to wait
            raise
        except BaseException:
            self._begun += self._waiting
            self._waiting.clear()
            self._fail(EngineError(ENDED))
            await self._end()
            raise
        await self._end()

    async def _send(self) -> None:
        self._begun = self._take()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._connect()
        except wire.UNREACHED as error:
            await self._drop()
            return self._fail(build_unreached(error))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._exchange(_list_wanted(self._begun))
        except wire.LOST as error:
            await self._drop()
            self._fail(build_unreached(error))
        return None

    def _take(self) -> list[_Call]:
        """The calls of the next pipeline; at least one."""
        taken, size = [self._waiting.popleft()], 0
        while self._waiting and len(taken) < MOST_AT_ONCE:
            size += taken[-1].request.size
            if size + self._waiting[0].request.size > MOST_BYTES_AT_ONCE:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _connect(self) -> None:
        if self._connection is None:
            self._connection = self._pool.make_connection()
        await self._pool.ensure_connection(self._connection)

    async def _exchange(self, calls: list[_Call], *, is_again: bool = False) -> None:
        """Send calls together, and settle them. Where the server has not their script, they are sent again with its text."""
        if not calls:
            return
        for call in calls:
            call.request.is_sent = True
        self.pipelines += 1
        commands = wire.list_commands([call.request for call in calls], with_text=is_again)
        await self._connection.send_packed_command([wire.pack(commands)], check_health=False)
        missing: list[_Call] = []
        demoted = False
        for call in calls:
            reply = await self._read(call)
            if wire.has_forgotten(reply):
                call.request.is_sent = False
                missing.append(call)
            else:
                demoted = demoted or wire.is_demoted([reply])
                call.settle(reply)
        if missing:
            await self._exchange(_list_wanted(missing), is_again=True)
        if demoted:
            await self._drop()

    async def _read(self, call: _Call) -> Any:
        if call.request.is_asking:
            await _read(self._connection)
        return await _read(self._connection)

    async def _drop(self, *, waits: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        writer = getattr(connection, "_writer", None)
        with suppress(*wire.LOST):
            await connection.disconnect(nowait=not waits)
        if writer is not None and not waits:
            writer.transport.abort()  # else what is half sent keeps it open, also when the event loop ends

    async def _end(self) -> None:
        await self._drop(waits=True)  # TLS says good-bye, and this loop may have no other chance to hear the answer
        if self._sentinel is not None:
            await self._sentinel.aclose()

    def _fail(self, error: DcafError) -> None:
        begun, self._begun = self._begun, []
        for call in begun:
            if not call.future.done():
                call.future.set_exception(_build_end(call.request, error))

    def _expire(self, call: _Call) -> None:
        if not call.future.done():
            slow = SLOW if call.request.is_sent else BUSY
            call.future.set_exception(_build_end(call.request, EngineError(slow.format(self._settings.timeout_s))))


class _Call:
    """A request, who waits for its reply, and until when."""

    __slots__ = ("end", "future", "request")

    def __init__(self, request: Request, future: asyncio.Future[Any], end: float) -> None:
        self.request = request
        self.future = future
        self.end = end

    def settle(self, reply: Any) -> None:
        if not self.future.done():
            self.future.set_result(reply)


def _list_wanted(calls: Sequence[_Call]) -> list[_Call]:
    """Those for which somebody waits, and whose time is not over."""
    now = asyncio.get_running_loop().time()
    return [call for call in calls if not call.future.done() and now < call.end]


def _build_end(request: Request, error: DcafError) -> DcafError:
    """The error of a request whose reply does not come."""
    if request.is_sent and request.writes:
        return CommitUnknownError(UNKNOWN)
    return type(error)(*error.args)


async def _ask_once(node: Node, settings: Settings) -> Any:
    """What a server says of where partitions are, on a connection for this alone: nothing waits before it."""
    connection = wire.build_connection(settings, node, partial(_look, settings), is_async=True)
    try:
        await connection.connect()
        await connection.send_packed_command([wire.pack([SLOTS])], check_health=False)
        reply = await _read(connection)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    with suppress(*wire.LOST):
        await connection.disconnect()
    return reply


async def _look(settings: Settings, connection: Any) -> None:
    """Look at a server to which a connection was just made."""
    await connection.on_connect()
    try:
        await connection.send_packed_command([wire.pack(LOOKS)], check_health=False)
        wire.judge([await _read(connection) for _ in LOOKS], settings)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise


async def _read(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except wire.REPLIES as error:
        return error
