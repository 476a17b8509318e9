"""One call of a tool on a session: a transaction that waits for the writers before it.

The order is that of arrival. A call that writes takes its place when it is made, not when it first writes. What only reads, and
what is ``parallel``, takes none, and begins at once.
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
from dcaf.tools.execution import END, Executor
from dcaf.tools.queue import Caller, Conflict, queue_of
from dcaf.tools.threads import contained


class OpenCall(Transaction):
    """One call that has arrived. Inside another call on its session, or inside a transaction, it is part of that.

    Args:
        executor: What runs the tool's function.
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

    __slots__ = ("_executor", "_has_left", "_noted_in", "_queue", "_ticket", "caller", "conflicts")

    def __init__(
        self,
        executor: Executor,
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
        self._executor = executor
        self._queue = queue_of(below)
        index, self._ticket = self._queue.enter(executor.tool, waits=writes and not executor.is_parallel, is_read=is_read)
        super().__init__(below)
        self.caller: Caller = Caller(index, executor.tool, id_)
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
            ToolApprovalError, ToolTimeoutError, ConfigurationError: As for ``Tool.run``.
        """
        executor = self._executor
        try:
            if is_approved is not False or executor.needs_approval:
                executor.check_approval(is_approved=is_approved)
            if self._ticket is not None and self._ticket.due is not None:  # to ask it is quicker than to wait for nothing
                await self._queue.wait(self._ticket)
            with contained():  # a result is written, and a change is committed, by code of the application too
                with self:
                    value = await executor.run(arguments, self.session, is_approved=is_approved)
                text = "" if write is None else write(value)
                self._commit(IGNORE if self._ticket is not None else await self._line_up_late())
            return value, text
        finally:
            self.leave()

    async def stream(self, arguments: Mapping[str, Any], *, is_approved: bool) -> AsyncGenerator[Any, None]:
        """Run it and give what it yields as it comes; it is kept when it has ended by itself."""
        executor = self._executor
        try:
            executor.check_approval(is_approved=is_approved)
            if self._ticket is not None:
                await self._queue.wait(self._ticket)
            items = executor.stream(arguments, self.session, is_approved=is_approved)
            try:
                while (item := await self._advance(items)) is not END:
                    yield item
            finally:
                with self:
                    await items.aclose()
            with contained():
                self._commit(IGNORE if self._ticket is not None else await self._line_up_late())
        finally:
            self.leave()

    def leave(self) -> None:
        """Let the next one begin; nothing more is kept of this one."""
        if self._has_left:
            return
        self._has_left = True
        if self.outer is not None:
            self.overlay.pass_reads()
        self._queue.leave(self._ticket)

    async def _advance(self, items: AsyncGenerator[Any, None]) -> Any:
        with self:
            return await anext(items, END)

    async def _line_up_late(self) -> Look:
        """Wait to commit what has written and declares no session: after the writers before it, and if none has undone it."""
        if self._executor.is_parallel or not self.overlay.has_written():
            return IGNORE
        self._ticket = self._queue.line_up(self._executor.tool)
        await self._queue.wait(self._ticket)
        return self._refuse_stale

    def _commit(self, look: Look) -> None:
        """Commit what it did, note which change was dropped, and remember who wrote what while other calls go on.

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
