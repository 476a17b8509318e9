"""One call of a tool on a session: a transaction that waits for the writers before it.

What a reader gets wrong: the order is that of arrival. A call that writes takes its place when it is made, not when it first
writes; what only reads, and what is ``parallel``, takes none, and begins at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from dcaf.core.errors import ToolConflictError
from dcaf.core.mapping import state_of
from dcaf.core.merging import Path
from dcaf.core.parts import join_path
from dcaf.core.session import Session
from dcaf.core.transaction import IGNORE, OUTSIDE, Clash, Look, Transaction, find_innermost, log_clash, refuse_late
from dcaf.tools.execution import END, Running
from dcaf.tools.queue import Caller, Conflict, queue_of
from dcaf.tools.threads import contained


class OpenCall(Transaction):
    """One call that has arrived. Inside another call on its session, or inside a transaction, it is part of that.

    Args:
        running: The tool.
        session: What it is called on.
        id_: What the model calls the call; None where it does not.
        writes: Whether the tool may write the session.
        is_read: Whether this task will read what it yields.
        conflicts: Where to note what could not be merged.

    Attributes:
        caller: Which call it is.
        conflicts: What could not be merged of the calls inside it; it counts where this one is kept.

    Raises:
        ConfigurationError: As ``Queue.line_up``. The call has not arrived.
    """

    __slots__ = ("_has_left", "_noted_in", "_queue", "_running", "_ticket", "caller", "conflicts")

    def __init__(
        self,
        running: Running,
        session: Session,
        *,
        id_: str | None = None,
        writes: bool,
        is_read: bool = False,
        conflicts: list[Conflict] | None = None,
    ) -> None:
        state = state_of(session)
        around = find_innermost(state)
        below = state if around is None else around.overlay
        self._running = running
        self._queue = queue_of(below)
        index, self._ticket = self._queue.enter(running.tool, waits=writes and not running.is_parallel, is_read=is_read)
        super().__init__(below)
        self.caller: Caller = Caller(index, running.tool, id_)
        self.conflicts: list[Conflict] = []
        self._noted_in = [around.conflicts] if isinstance(around, OpenCall) else []
        if conflicts is not None and (below is state or not self._noted_in):
            self._noted_in.append(conflicts)
        self._has_left = False

    async def run(
        self, arguments: Mapping[str, Any], *, is_approved: bool, write: Callable[[Any], str] | None = None
    ) -> tuple[Any, str]:
        """Run it; gives its value and its text. Where that cannot be written, nothing is kept.

        Raises:
            ToolApprovalError, ToolTimeoutError, ConfigurationError: As of ``Tool.run``.
        """
        running = self._running
        try:
            if is_approved is not False or running.needs_approval:
                running.check_approval(is_approved=is_approved)
            if self._ticket is not None and self._ticket.due is not None:  # to ask it is quicker than to wait for nothing
                await self._queue.wait(self._ticket)
            with contained():  # a result is written, and a change is committed, by code of the application too
                with self:
                    value = await running.collected(arguments, self.session, is_approved=is_approved)
                text = "" if write is None else write(value)
                self._commit(IGNORE if self._ticket is not None else await self._line_up_late())
            return value, text
        finally:
            self.leave()

    async def stream(self, arguments: Mapping[str, Any], *, is_approved: bool) -> AsyncGenerator[Any, None]:
        """Run it and give what it yields as it comes; it is kept when it has ended by itself."""
        running = self._running
        try:
            running.check_approval(is_approved=is_approved)
            if self._ticket is not None:
                await self._queue.wait(self._ticket)
            items = running.pieces(arguments, self.session, is_approved=is_approved)
            try:
                while True:
                    with self:
                        item = await anext(items, END)
                    if item is END:
                        break
                    yield item
            finally:
                with self:
                    await items.aclose()
            with contained():
                self._commit(IGNORE if self._ticket is not None else await self._line_up_late())
        finally:
            self.leave()

    def leave(self) -> None:
        """Make room for the next one; nothing more is kept of this one."""
        if self._has_left:
            return
        self._has_left = True
        if self.outer is not None:
            self.overlay.pass_reads()
        self._queue.leave(self._ticket)

    async def _line_up_late(self) -> Look:
        """Wait to commit what has written and declares no session: after the writers before it, and if none has undone it."""
        if self._running.is_parallel or not self.overlay.has_written():
            return IGNORE
        self._ticket = self._queue.line_up(self._running.tool)
        await self._queue.wait(self._ticket)
        return self._refuse_stale

    def _commit(self, look: Look) -> None:
        """Commit what it did, note which change gave way, and remember, as long as anybody may ask, who wrote what.

        Raises:
            ToolConflictError: Another call has changed what it had read, and it declares no session.
        """
        below = self.overlay._parent
        with self.overlay.lock, below.lock:
            done = self.overlay.commit(wins=self._is_later, look=look)
            for clash in done.clashes:
                self._note(clash)
            if self._queue.present > 1:
                for key, paths in done.paths().items():
                    self._queue.writers.setdefault(key, []).extend((path, self.caller) for path in paths)
            self.overlay.late = refuse_late
        for noted in self._noted_in:
            noted.extend(self.conflicts)

    def _is_later(self, key: str, path: Path) -> bool:
        other = self._queue.latest(key, path)
        return other is None or other.index <= self.caller.index

    def _note(self, clash: Clash) -> None:
        other = self._queue.latest(clash.key, clash.path)
        kept, dropped = (other, self.caller) if other is not None and other.index > self.caller.index else (self.caller, other)
        self.conflicts.append(Conflict(clash.key, join_path(clash.path), clash.kind, kept, dropped))
        log_clash(kept.tool, OUTSIDE if dropped is None else dropped.tool, clash.kind)

    def _refuse_stale(self, clashes: Sequence[Clash]) -> None:
        if any(clash.kind == "stale-read" for clash in clashes):
            raise ToolConflictError(
                f"{self.caller.tool} wrote the session, and another call had changed what it read. Declare `session: Session`, and "
                "its calls wait for each other."
            )
