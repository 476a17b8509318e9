"""The queue of writers of one session, from whatever thread and event loop, and the conflicts between those that did not wait.

Two changes of one session that could not both be kept: which one was, and a line of the log that says so.

>>> Conflict("cart", ".items", "stale-read", Caller(1, "put", None), None).kept.tool
'put'

What a reader gets wrong: the log has the names of the two, and neither key nor value, which may be a user's.

Who may write a session next, of all that call on it, from whatever thread and whatever event loop.

>>> from dcaf.core.state import State
>>> state = State()
>>> queue_of(state) is queue_of(state)
True

What a reader gets wrong: a loop can stop without its tasks, and a writer with it. So whoever waits looks at the one in front once a
second, and one whose loop does not run is passed over. If it runs again, what it waits for is its turn, from the end of the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Final, Literal, TypeAlias

import anyio

from dcaf.core.errors import ConfigurationError
from dcaf.core.merging import Path
from dcaf.core.state import State
from dcaf.tools.event_loop import running_loop

Kind: TypeAlias = Literal["stale-read", "write-write"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Which call of a turn it was.

    Attributes:
        index: Its place in the order in which the calls were made, from 0.
        tool: Name of its tool.
        id: What the model calls it; None where it does not.
    """

    index: int
    tool: str
    id: str | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """One value that two calls changed, and of which one change was kept.

    Attributes:
        key: The key of the session.
        path: Where below the key, as in ``.items``; empty for the whole value.
        kind: ``stale-read`` where the second call to commit had read the key before it wrote, else ``write-write``.
        kept: The call whose change was kept: the later one of the model.
        dropped: The other; None where the session was changed by something that is no call of this turn.
    """

    key: str
    path: str
    kind: Kind
    kept: Caller
    dropped: Caller | None


PATIENCE_S: Final = 1.0
"""How long one waits before it looks whether the loop of the one in front still runs."""


@dataclass(slots=True, eq=False)
class Ticket:
    """The place of one writer.

    Attributes:
        loop: The event loop that it runs in.
        due: Set when it is the first; None where it was so from the start.
        reader: The task that reads its stream; None where it gives none.
    """

    loop: Any
    due: anyio.Event | None = None
    reader: int | None = None

    @property
    def is_lost(self) -> bool:
        """Whether nothing comes of it: its loop does not run, and may never do so again."""
        return isinstance(self.loop, asyncio.AbstractEventLoop) and not self.loop.is_running()

    def call(self) -> bool:
        """Say that it is the first; False where nobody is there to hear it."""
        if self.due is None:
            return True
        if self.loop is running_loop():
            self.due.set()
            return True
        tell = self.loop.call_soon_threadsafe if isinstance(self.loop, asyncio.AbstractEventLoop) else self.loop.run_sync_soon
        try:
            tell(self.due.set)
        except RuntimeError:  # it has been closed
            return False
        return True


@dataclass(slots=True, eq=False)
class Queue:
    """The calls on one session, those that write in the order in which they came.

    Attributes:
        present: How many calls are going on.
        writers: Key -> what the calls that are going on, and those that ended meanwhile, have committed, and which call it was.
            Whoever touches it has the lock of the session's state.
    """

    present: int = 0
    writers: dict[str, list[tuple[Path, Caller]]] = field(default_factory=dict)
    _called: int = 0
    _tickets: deque[Ticket] = field(default_factory=deque)
    _lock: AbstractContextManager[object] = field(
        default_factory=RLock
    )  # collecting garbage may end a call, whatever a thread does

    def enter(self, tool: str, *, waits: bool, is_read: bool = False) -> tuple[int, Ticket | None]:
        """Begin a call; gives its place in the order of all of them, and, where it waits for the writers before it, its ticket.

        Args:
            tool: Name of the tool, for a message.
            waits: Whether it writes, and not side by side with others.
            is_read: Whether this task will read what the tool yields.

        Raises:
            ConfigurationError: As ``line_up``. The call has not begun.
        """
        with self._lock:
            ticket = self.line_up(tool, is_read=is_read) if waits else None
            self.present += 1
            self._called += 1
            return self._called - 1, ticket

    def leave(self, ticket: Ticket | None) -> None:
        """End a call, and call the next writer. When the last call has left, nobody needs to know who wrote what."""
        with self._lock:
            self.present -= 1
            if not self.present:
                self.writers.clear()
            if ticket is not None and ticket in self._tickets:
                self._tickets.remove(ticket)
            while self._tickets and not self._tickets[0].call():
                self._tickets.popleft()

    def line_up(self, tool: str, *, is_read: bool = False) -> Ticket:
        """Take the next place among the writers. Arguments as of ``enter``.

        Raises:
            ConfigurationError: This very task reads the stream of a writer, and so would wait for itself.
        """
        with self._lock:
            ticket = Ticket(running_loop())
            if is_read or self._tickets:
                self._check_reader(tool, ticket, is_read=is_read)
                self._pass_over()
            self._tickets.append(ticket)
            if self._tickets[0] is not ticket:
                ticket.due = anyio.Event()
            return ticket

    async def wait(self, ticket: Ticket) -> None:
        """Wait until it is the first."""
        if ticket.due is None:
            return
        while not self._is_first(ticket):
            with anyio.move_on_after(PATIENCE_S):
                await ticket.due.wait()

    def latest(self, key: str, path: Path) -> Caller | None:
        """The latest call of the model that has committed a change there, above or below."""
        found = [caller for written, caller in self.writers.get(key, ()) if _is_related(written, path)]
        return max(found, key=lambda caller: caller.index, default=None)

    def _is_first(self, ticket: Ticket) -> bool:
        with self._lock:
            self._pass_over()
            if ticket not in self._tickets:  # it was passed over, and its loop runs again
                ticket.due = anyio.Event()
                self._tickets.append(ticket)
            return self._tickets[0] is ticket

    def _pass_over(self) -> None:
        while self._tickets and self._tickets[0].is_lost:
            self._tickets.popleft()

    def _check_reader(self, tool: str, ticket: Ticket, *, is_read: bool) -> None:
        task = anyio.get_current_task().id
        if any(other.reader == task for other in self._tickets):
            raise ConfigurationError(
                f"{tool} would wait for the stream that this task is reading. Read the stream to its end, or close it, "
                "or run the tool from another task."
            )
        ticket.reader = task if is_read else None


def queue_of(state: State) -> Queue:
    """The one queue of a state."""
    queue = state.queue
    if queue is None:
        with state.lock:
            queue = state.queue = state.queue or Queue()
    assert isinstance(queue, Queue)
    return queue


def _is_related(one: Path, other: Path) -> bool:
    """Whether one path leads to the other, or to what holds it."""
    return all(first == second for first, second in zip(one, other, strict=False))
