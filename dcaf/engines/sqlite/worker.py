"""Give calls to one thread, many at a time, and bring what they return back to the event loops and threads that wait for it.

>>> class Echo:
...     def serve(self, calls):
...         for job in calls.begin(calls.collect()):
...             job.finish(job.call)
...     def close(self): ...
>>> worker = Worker(Echo(), name="echo", timeout_s=1)
>>> worker.wait(Job("hello", writes=False))
'hello'
>>> worker.stop()

A thread of its own, and no pool: SQLite has one writer, and what comes while it writes is one more commit for all of it. Results go
back in one wake-up for each event loop. A loop that was closed in the meantime is nobody's harm.

What a reader gets wrong: a caller that gives up takes a call back that has not begun. One that has begun is finished by the thread,
whoever still waits for it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum, auto
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Final, Protocol

from dcaf.core.errors import CommitUnknownError, DcafError, EngineError, describe_raised

MOST_AT_ONCE: Final = 256
"""How many calls are one commit at most, so that the first of them does not wait for thousands."""

CLOSED: Final = "The engine is closed."
BUSY: Final = "The database was busy for {:g} s: with other transactions, or in the hands of another program. Nothing was written."
UNKNOWN: Final = "The database has not answered for {:g} s, and nobody can tell whether it has written."
SLOW: Final = "The database has not answered for {:g} s."


class _State(Enum):
    WAITS = auto()
    BEGUN = auto()
    DONE = auto()
    GIVEN_UP = auto()


class Job:
    """One call, and who waits for it.

    Args:
        call: What is to be done, in the terms of the one that serves.
        writes: Whether it may have written where its end is not seen.
        durable: Whether what it writes must survive a power cut.
    """

    __slots__ = ("_error", "_result", "call", "durable", "home", "state", "woken", "writes")

    def __init__(self, call: Any, *, writes: bool, durable: bool = False) -> None:
        self.call: Any = call
        self.writes: bool = writes
        self.durable: bool = durable
        self.state: _State = _State.WAITS
        self.home: Any = None
        self.woken: Any = None
        self._result: Any = None
        self._error: DcafError | None = None

    def finish(self, result: Any) -> None:
        """Note what it has come to."""
        self._result = result
        self.state = _State.DONE

    def fail(self, error: DcafError) -> None:
        """Note why it could not be done."""
        self._error = error
        self.state = _State.DONE

    def take(self) -> Any:
        """Its result; raises the error where it failed."""
        if self._error is not None:
            raise self._error
        return self._result


class Server(Protocol):
    """Does the calls, in the thread."""

    def serve(self, calls: Calls) -> None:
        """Do what waits: ``begin(collect())``, then ``finish`` or ``fail`` for each."""

    def close(self) -> None:
        """Let go of files. What is served afterwards opens them again."""


class Calls(Protocol):
    """What waits for the thread."""

    def collect(self) -> list[Job]:
        """Take what has come until now."""

    def begin(self, jobs: Iterable[Job]) -> list[Job]:
        """Those that somebody still wants. From here on nobody takes them back."""

    def pass_on(self, job: Job, other: Worker) -> None:
        """Let another thread do a call that was begun."""


class Worker:
    """A thread, which starts with the first call, and the calls that wait for it.

    Args:
        server: Does the calls.
        name: What the thread is called.
        timeout_s: Seconds until a call must have begun; and the same time again until it must have ended.
    """

    def __init__(self, server: Server, *, name: str, timeout_s: float) -> None:
        self._server = server
        self._name = name
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._queue: SimpleQueue[Job | Pause | None] = SimpleQueue()
        self._next: Job | Pause | None = None
        self._taken: list[Job] = []
        self._thread: Thread | None = None
        self._is_closed = False

    @property
    def was_used(self) -> bool:
        """Whether its thread was ever started."""
        return self._thread is not None

    def put(self, job: Job) -> None:
        """Let a call wait for the thread.

        Raises:
            EngineError: The worker was stopped.
        """
        with self._lock:
            if self._is_closed:
                raise EngineError(CLOSED)
            if self._thread is None:
                self._thread = Thread(target=self._main, name=self._name, daemon=True)
                self._thread.start()
            self._queue.put(job)

    def wait(self, job: Job) -> Any:
        """Put a call, and wait for it in a thread.

        Raises:
            EngineError: It did not begin in time, or failed.
            CommitUnknownError: Its end did not come in time.
        """
        job.woken = Lock()
        job.woken.acquire()
        self.put(job)
        try:
            if not job.woken.acquire(timeout=self._timeout_s) and not self._give_up(job):
                job.woken.acquire(timeout=self._timeout_s)
        except BaseException:  # an interrupt: the call is taken back where it can be
            self._give_up(job)
            raise
        return self._take(job)

    async def wait_async(self, job: Job) -> Any:
        """Put a call, and wait for it in an event loop of asyncio or trio.

        Raises:
            EngineError, CommitUnknownError: As ``wait``.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await self._wait_in_trio(job, sys.modules["trio"])
        else:
            await self._wait_in_asyncio(job, loop)
        return self._take(job)

    def pause(self) -> Pause:
        """Let the thread finish what it does, close its files and stand still, until ``resume`` of what this returns."""
        pause = Pause()
        with self._lock:
            if self._thread is None or self._is_closed:
                pause.reached.set()
            else:
                self._queue.put(pause)
        return pause

    def stop(self) -> None:
        """Finish what waits, close the files and end the thread. Happens once."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join(max(5.0, 3 * self._timeout_s))  # a thread that waits for another program's lock is left to itself

    def collect(self) -> list[Job]:
        """Take what has come until now, in its order."""
        while self._next is None and len(self._taken) < MOST_AT_ONCE and not self._queue.empty():
            item = self._queue.get_nowait()
            if isinstance(item, Job):
                self._taken.append(item)
            else:
                self._next = item or _END
        return self._taken

    def begin(self, jobs: Iterable[Job]) -> list[Job]:
        """Those that somebody still wants. From here on nobody takes them back."""
        with self._lock:
            found = [job for job in jobs if job.state is _State.WAITS]
            for job in found:
                job.state = _State.BEGUN
        return found

    def pass_on(self, job: Job, other: Worker) -> None:
        """Let another thread do a call that was begun."""
        self._taken.remove(job)
        job.state = _State.WAITS
        try:
            other.put(job)
        except EngineError as error:
            job.fail(error)
            self._taken.append(job)

    def _main(self) -> None:
        while True:
            item, self._next = self._next or self._queue.get(), None
            if isinstance(item, Job):
                self._serve(item)
            elif item is None or item is _END:
                return self._close()
            else:
                self._stand_still(item)

    def _serve(self, job: Job) -> None:
        self._taken = [job]
        try:
            self._server.serve(self)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the thread goes on, and nobody waits in vain
            for other in self._taken:
                if other.state in {_State.WAITS, _State.BEGUN}:
                    other.fail(EngineError(f"The engine failed: {describe_raised(error)}."))
        jobs, self._taken = self._taken, []
        _wake([other for other in jobs if other.state is _State.DONE])

    def _close(self) -> None:
        with suppress(Exception):
            self._server.close()

    def _stand_still(self, pause: Pause) -> None:
        self._close()
        pause.reached.set()
        pause.over.wait()

    async def _wait_in_asyncio(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        job.home, job.woken = loop, future
        self.put(job)
        timer = loop.call_later(self._timeout_s, self._expire, job, future, loop)
        try:
            await future
        except BaseException:
            self._give_up(job)
            raise
        finally:
            timer.cancel()

    def _expire(self, job: Job, future: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
        if self._give_up(job):
            _settle(future)
        else:
            loop.call_later(self._timeout_s, _settle, future)

    async def _wait_in_trio(self, job: Job, trio: Any) -> None:
        job.home, job.woken = trio.lowlevel.current_trio_token(), trio.Event()
        self.put(job)
        try:
            with trio.move_on_after(self._timeout_s) as waiting:
                await job.woken.wait()
            if waiting.cancelled_caught and not self._give_up(job):
                with trio.move_on_after(self._timeout_s):
                    await job.woken.wait()
        except BaseException:
            self._give_up(job)
            raise

    def _give_up(self, job: Job) -> bool:
        with self._lock:
            if job.state is not _State.WAITS:
                return False
            job.state = _State.GIVEN_UP
        return True

    def _take(self, job: Job) -> Any:
        if job.state is _State.DONE:
            return job.take()
        if job.state is _State.GIVEN_UP:
            raise EngineError(BUSY.format(self._timeout_s))
        if job.writes:
            raise CommitUnknownError(UNKNOWN.format(2 * self._timeout_s))
        raise EngineError(SLOW.format(2 * self._timeout_s))


class Pause:
    """The thread stands still.

    Attributes:
        reached: It does now, and holds no file.
        over: It may go on.
    """

    __slots__ = ("over", "reached")

    def __init__(self) -> None:
        self.reached: Event = Event()
        self.over: Event = Event()


_END: Final = Pause()
"""What ends the thread, where it was taken out of the queue among calls."""


def _wake(jobs: Sequence[Job]) -> None:
    """Wake those who wait: each event loop once."""
    homes: dict[Any, list[Any]] = {}
    for job in jobs:
        homes.setdefault(job.home, []).append(job.woken)
    for home, woken in homes.items():
        if home is None:
            for lock in woken:
                lock.release()
            continue
        is_asyncio = isinstance(home, asyncio.AbstractEventLoop)
        with suppress(RuntimeError):  # the loop was closed, and nobody waits there
            home.call_soon_threadsafe(_settle_all, woken) if is_asyncio else home.run_sync_soon(_set_all, woken)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settle_all(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        _settle(future)


def _set_all(events: Sequence[Any]) -> None:
    for event in events:
        event.set()
