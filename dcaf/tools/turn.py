"""The calls of tools in one turn: each sees the session as its own until it has returned, and those that write keep their order.

>>> from dcaf.tools.tool import tool
>>> @tool
... def add(item: str, session: Session) -> int:
...     session.append("items", item)
...     return len(session["items"])
>>> session = Session()
>>> calls = [Call(add, {"item": "nut"}), Call(add, {"item": 7}), Call(add, {"item": "bolt"})]
>>> results = anyio.run(Turn(session).run_all, calls)
>>> [result.is_error for result in results], session["items"]
([False, True, False], ['nut', 'bolt'])

What a reader gets wrong: a call that fails leaves nothing behind. What it did to its session is gone, however far it came.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from dcaf.core.current import Within, running
from dcaf.core.errors import ConfigurationError, ExitError, ToolApprovalError, ToolConflictError, ToolTimeoutError
from dcaf.core.merge import Path
from dcaf.core.overlay import IGNORE, Clash, Look, Overlay
from dcaf.core.paths import join
from dcaf.core.session import Session, session_behind
from dcaf.tools.conflicts import OUTSIDE, Caller, Conflict, log_conflict
from dcaf.tools.contained import contained
from dcaf.tools.frames import trace
from dcaf.tools.results import Call, Result, said_of, told_of
from dcaf.tools.streams import END
from dcaf.tools.tool import Tool

logger: Final[logging.Logger] = logging.getLogger("dcaf")


@dataclass(slots=True, eq=False)
class _Place:
    """The place of one call in its turn."""

    caller: Caller
    session: Session
    outer: _Place | None
    may_run: anyio.Event = field(default_factory=anyio.Event)
    reader: int | None = None
    inner: Turn | None = None

    @property
    def overlay(self) -> Overlay:
        """What the call does to its session."""
        assert isinstance(self.session._state, Overlay)
        return self.session._state

    def within(self) -> Turn:
        """The turn of the calls that this call makes: they see its session, and commit into it."""
        if self.inner is None:
            self.inner = Turn(self.session)
        return self.inner


_innermost: Final[ContextVar[_Place | None]] = ContextVar("dcaf_tool_call", default=None)


class Turn:
    """The calls of one turn.

    Calls of tools that write the session run one after the other, in the order in which they were made; ``@tool(parallel=True)``
    and tools that only read do not wait. Within a call, ``current_session()`` is the call's own session too. A tool may call
    other tools through the same turn: they are part of its call.

    Args:
        session: What the calls share, and commit into.

    Attributes:
        session: As above.
        conflicts: What could not be merged, in the order in which it was found. The later call of the model was kept.

    Raises:
        ConfigurationError: It is no Session.
    """

    def __init__(self, session: Session) -> None:
        self.session: Session = session_behind(session, "Turn(...)")
        self.conflicts: list[Conflict] = []
        self._queue: deque[_Place] = deque()
        self._called = 0
        self._writers: dict[str, list[tuple[Path, Caller]]] = {}

    async def run(self, tool: Tool[..., Any], arguments: Mapping[str, Any], *, is_approved: bool = False) -> Any:
        """Run a tool, and keep what it did to the session if it returns.

        Args:
            tool: The tool.
            arguments: Name -> value, as the model sent them.
            is_approved: Whether a person has approved it, where that is needed.

        Raises:
            ToolApprovalError: It needs approval, and has none. It did not run.
            ToolArgumentError: The arguments do not fit. It did not run.
            ToolTimeoutError: It took longer than it may.
            SessionAliasError, SessionValueError: What it did to the session cannot be written.
            ConfigurationError: As ``Tool.run``; or it would wait for a stream that this very task is reading.
        """
        call = Call(tool, arguments, is_approved=is_approved)
        turn = self._innermost()
        value, _ = await turn._run(call, turn._enter(call))
        return value

    async def run_all(self, calls: Sequence[Call]) -> list[Result]:
        """Run the calls of one message of a model, and say what came of each, in the same order.

        A call that fails is a Result with an error, and stops no other.

        Raises:
            ConfigurationError: A tool cannot be called at all; the other calls have run. Or this is no list of calls; none has.
        """
        _check_calls(calls)
        turn = self._innermost()
        results: dict[int, Result] = {}
        places: list[_Place | ConfigurationError] = [turn._entered(call) for call in calls]

        async def one(index: int) -> None:
            place = places[index]
            if isinstance(place, _Place):
                results[index] = await turn._result(calls[index], place)
            else:
                results[index] = Result(calls[index], told_of(calls[index].tool.name, place), error=place)

        try:
            async with anyio.create_task_group() as group:
                for index in range(len(calls)):
                    group.start_soon(one, index)
        finally:
            for place in places:
                if isinstance(place, _Place):
                    turn._leave(place)
        wrong = next((result.error for result in results.values() if isinstance(result.error, ConfigurationError)), None)
        if wrong is not None:
            raise wrong
        return [results.get(index) or _cancelled_by_itself(call) for index, call in enumerate(calls)]

    async def stream(
        self, tool: Tool[..., Any], arguments: Mapping[str, Any], *, is_approved: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Run a tool and give what it yields as it comes; what it did to the session is kept when it has ended by itself.

        Whoever stops early closes it, with ``contextlib.aclosing``; then nothing is kept. While a stream of a writer is read, the
        same task cannot run another writer. Arguments and errors are those of ``run``, but for the timeout, which is the
        reader's here.
        """
        call = Call(tool, arguments, is_approved=is_approved)
        turn = self._innermost()
        place = turn._enter(call)
        place.reader = anyio.get_current_task().id
        async with turn._overlaid(call, place) as session:
            items = tool._running.pieces(arguments, session, is_approved=is_approved)
            try:
                while True:
                    with running(session), Within(_innermost, place):
                        item = await anext(items, END)
                    if item is END:
                        break
                    yield item
            finally:
                with running(session), Within(_innermost, place):
                    await items.aclose()

    def _innermost(self) -> Turn:
        """This turn; or, inside one of its calls, however deep, that of the innermost call over this turn's session."""
        place = _innermost.get()
        while place is not None:
            if place.overlay.is_over(self.session._state):
                return place.within()
            place = place.outer
        return self

    async def _result(self, call: Call, place: _Place) -> Result:
        try:
            value, text = await self._run(call, place, write=said_of)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises, the model is told and the turn goes on
            logger.warning("dcaf: %s failed: %s", call.tool.name, trace(error, call.tool._function))
            return Result(call, told_of(call.tool.name, error), error=error)
        return Result(call, text, value)

    async def _run(self, call: Call, place: _Place, write: Callable[[Any], str] | None = None) -> tuple[Any, str]:
        """Run a call; gives its value and its text. Where that cannot be written, nothing is kept."""
        with contained():  # a result is written, and a change is committed, by code of the application too
            return await self._run_over(call, place, write)

    async def _run_over(self, call: Call, place: _Place, write: Callable[[Any], str] | None) -> tuple[Any, str]:
        async with self._overlaid(call, place) as session:
            with running(session), Within(_innermost, place), _in_time(call.tool):
                value = await call.tool._running.collected(call.arguments, session, abandon=True, is_approved=call.is_approved)
            return value, "" if write is None else write(value)

    @asynccontextmanager
    async def _overlaid(self, call: Call, place: _Place) -> AsyncIterator[Session]:
        """A session for one call, when its time has come; committed where the block ends, gone where it raises."""
        try:
            if call.tool.requires_approval and not call.is_approved:
                raise ToolApprovalError(f"{call.tool.name} needs the approval of a person. Ask for it.")
            await place.may_run.wait()
            yield place.session
            if not (call.tool.parallel or call.tool.writes_session) and place.overlay.has_written():
                await self._commit_undeclared(call.tool, place)
            else:
                self._commit(place)
        finally:
            place.overlay.pass_reads()
            self._leave(place)

    def _enter(self, call: Call) -> _Place:
        """Take a place, at once: the order of calls is that of entering."""
        waits = call.tool.writes_session and not call.tool.parallel
        if waits:
            self._check_reader(call.tool)
        session = Session._over(Overlay(self.session._state))
        place = _Place(Caller(self._called, call.tool.name, call.id), session, _innermost.get())
        self._called += 1
        if waits:
            self._wait(place)
        else:
            place.may_run.set()
        return place

    def _wait(self, place: _Place) -> None:
        self._queue.append(place)
        self._queue[0].may_run.set()

    def _check_reader(self, tool: Tool[..., Any]) -> None:
        if any(place.reader == anyio.get_current_task().id for place in self._queue):
            raise ConfigurationError(
                f"{tool.name} would wait for the stream that this task is reading. Read the stream to its end, or close it, "
                "or run the tool from another task."
            )

    def _entered(self, call: Call) -> _Place | ConfigurationError:
        try:
            return self._enter(call)
        except ConfigurationError as error:
            return error

    def _leave(self, place: _Place) -> None:
        if place in self._queue:
            self._queue.remove(place)
            if self._queue:
                self._queue[0].may_run.set()

    async def _commit_undeclared(self, tool: Tool[..., Any], place: _Place) -> None:
        """Commit a call that has written the session and declares none: after the writers before it, and if none has undone it.

        Raises:
            ToolConflictError: Another call has changed what it had read.
        """

        def refuse(clashes: Sequence[Clash]) -> None:
            if any(clash.kind == "stale-read" for clash in clashes):
                raise ToolConflictError(
                    f"{tool.name} wrote the session, and another call had changed what it read. Declare `session: Session`, and "
                    "its calls wait for each other."
                )

        self._check_reader(tool)
        place.may_run = anyio.Event()
        self._wait(place)
        await place.may_run.wait()
        self._commit(place, refuse)

    def _commit(self, place: _Place, look: Look = IGNORE) -> None:
        """Commit a call's overlay, note who gave way, and remember who wrote what."""
        caller = place.caller
        done = place.overlay.commit(wins=lambda key, path: self._latest(key, path, caller).index <= caller.index, look=look)
        self.conflicts += () if place.inner is None else place.inner.conflicts
        for clash in done.clashes:
            other = self._latest(clash.key, clash.path, None)
            kept, dropped = (other, caller) if other is not None and other.index > caller.index else (caller, other)
            self.conflicts.append(Conflict(clash.key, join(clash.path), clash.kind, kept, dropped))
            log_conflict(kept.tool, OUTSIDE if dropped is None else dropped.tool, clash.kind)
        for key, paths in done.paths.items():
            self._writers.setdefault(key, []).extend((path, caller) for path in paths)

    def _latest(self, key: str, path: Path, otherwise: Any) -> Any:
        """The latest call of the model that has committed a change there, above or below."""
        found = [caller for written, caller in self._writers.get(key, ()) if _related(written, path)]
        return max(found, key=lambda caller: caller.index, default=otherwise)


def _check_calls(calls: object) -> None:
    if not isinstance(calls, Sequence) or not all(isinstance(call, Call) for call in calls):
        raise ConfigurationError("run_all takes a list of calls: [Call(tool, arguments), ...].")


def _cancelled_by_itself(call: Call) -> Result:
    """What comes of a call whose tool has cancelled the very task that it runs in."""
    error = ExitError("CancelledError")
    return Result(call, told_of(call.tool.name, error), error=error)


def _related(one: Path, other: Path) -> bool:
    """Whether one path leads to the other, or to what holds it."""
    return all(first == second for first, second in zip(one, other, strict=False))


@contextmanager
def _in_time(tool: Tool[..., Any]) -> Iterator[None]:
    """Stop what runs inside when the tool's time is over."""
    limit_s = None if tool.timeout is None else tool.timeout.total_seconds()
    with anyio.move_on_after(limit_s) as scope:
        yield
    if scope.cancelled_caught:
        raise ToolTimeoutError(
            f"{tool.name} took longer than {limit_s:g} seconds and was stopped. Nothing that it did to the session is left."
        )
