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
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio

from dcaf.core.current import Within, running
from dcaf.core.errors import ConfigurationError, ToolApprovalError, ToolTimeoutError
from dcaf.core.overlay import Clash, Overlay
from dcaf.core.session import Session
from dcaf.tools.results import Call, Result, said_of, told_of
from dcaf.tools.tool import Tool

END: Final = object()

logger: Final[logging.Logger] = logging.getLogger("dcaf")


@dataclass(frozen=True, slots=True)
class Conflict:
    """One value that two calls changed, and of which one change was kept.

    Attributes:
        key: The key of the session.
        path: Where below the key, as in ``.items[0]``; empty for the whole value.
        kind: ``stale-read`` where the second call to commit had read the key before it wrote, else ``write-write``.
        kept: Name of the tool whose change was kept: the one that the model called later.
        dropped: Name of the other; None where it was no call of this turn.
    """

    key: str
    path: str
    kind: Literal["stale-read", "write-write"]
    kept: str | None
    dropped: str | None


@dataclass(slots=True, eq=False)
class _Place:
    """The place of one call in its turn."""

    index: int
    tool: str
    session: Session
    conflicts: list[Conflict]
    may_run: anyio.Event = field(default_factory=anyio.Event)
    _within: Turn | None = None

    def within(self) -> Turn:
        """The turn of the calls that this call makes: they see its session, and commit into it."""
        if self._within is None:
            self._within = Turn(self.session)
            self._within.conflicts = self.conflicts
        return self._within


_here: Final[ContextVar[tuple[Turn, _Place]]] = ContextVar("dcaf_tool_call")


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
    """

    def __init__(self, session: Session) -> None:
        self.session: Session = session
        self.conflicts: list[Conflict] = []
        self._queue: deque[_Place] = deque()
        self._called = 0
        self._writers: dict[str, _Place] = {}

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
            ConfigurationError: As ``Tool.run``.
        """
        call = Call(tool, arguments, is_approved=is_approved)
        turn = self._here()
        return await turn._run(call, turn._enter(call))

    async def run_all(self, calls: Sequence[Call]) -> list[Result]:
        """Run the calls of one message of a model, and say what came of each, in the same order.

        A call that fails is a Result with an error, and stops no other.

        Raises:
            ConfigurationError: A tool cannot be called at all. The other calls have run.
        """
        turn = self._here()
        places = [turn._enter(call) for call in calls]
        results: dict[int, Result] = {}

        async def one(index: int) -> None:
            results[index] = await turn._result(calls[index], places[index])

        try:
            async with anyio.create_task_group() as group:
                for index in range(len(calls)):
                    group.start_soon(one, index)
        finally:
            for place in places:
                turn._leave(place)
        wrong = next((result.error for result in results.values() if isinstance(result.error, ConfigurationError)), None)
        if wrong is not None:
            raise wrong
        return [results[index] for index in range(len(calls))]

    async def stream(
        self, tool: Tool[..., Any], arguments: Mapping[str, Any], *, is_approved: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Run a tool and give what it yields as it comes; what it did to the session is kept when it has ended by itself.

        Whoever stops early closes it, with ``contextlib.aclosing``; then nothing is kept. Arguments and errors are those of
        ``run``, but for the timeout, which is the reader's here.
        """
        call = Call(tool, arguments, is_approved=is_approved)
        turn = self._here()
        place = turn._enter(call)
        async with turn._overlaid(call, place) as session, aclosing(tool.stream(arguments, session=session)) as items:
            while True:
                with running(session), Within(_here, (turn, place)):
                    item = await anext(items, END)
                if item is END:
                    break
                yield item

    def _here(self) -> Turn:
        """This turn, or, inside one of its own calls, that call's."""
        turn, place = _here.get((None, None))
        return place.within() if turn is self and place is not None else self

    async def _result(self, call: Call, place: _Place) -> Result:
        try:
            value = await self._run(call, place, check=said_of)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises, the model is told and the turn goes on
            # Only the type: the message of another program's error may quote what it read.
            logger.warning("dcaf: %s failed: %s", call.tool.name, type(error).__name__)
            return Result(call, told_of(call.tool.name, error), error=error)
        return Result(call, said_of(value), value)

    async def _run(self, call: Call, place: _Place, check: Any = None) -> Any:
        """Run a call; ``check`` raises where nothing can be done with its value, and then nothing is kept either."""
        async with self._overlaid(call, place) as session:
            with running(session), Within(_here, (self, place)), _in_time(call.tool):
                value = await call.tool._collected(call.arguments, session, abandon=True)
            if check is not None:
                check(value)
            return value

    @asynccontextmanager
    async def _overlaid(self, call: Call, place: _Place) -> AsyncIterator[Session]:
        """A session for one call, when its time has come; committed where the block ends, gone where it raises."""
        try:
            if call.tool.requires_approval and not call.is_approved:
                raise ToolApprovalError(f"{call.tool.name} needs the approval of a person. Ask for it.")
            await place.may_run.wait()
            yield place.session
            self._commit(place)
        finally:
            self._leave(place)

    def _enter(self, call: Call) -> _Place:
        """Take a place, at once: the order of calls is that of entering."""
        session = Session._over(Overlay(self.session._state))
        place = _Place(self._called, call.tool.name, session, self.conflicts)
        self._called += 1
        if call.tool.writes_session and not call.tool.parallel:
            self._queue.append(place)
            self._queue[0].may_run.set()
        else:
            place.may_run.set()
        return place

    def _leave(self, place: _Place) -> None:
        if place in self._queue:
            self._queue.remove(place)
            if self._queue:
                self._queue[0].may_run.set()

    def _commit(self, place: _Place) -> None:
        overlay = place.session._state
        assert isinstance(overlay, Overlay)
        done = overlay.commit(wins=lambda key: key not in self._writers or self._writers[key].index < place.index)
        for clash in done.clashes:
            self._note(clash, place, self._writers.get(clash.key))
        for key in done.keys:
            if key not in self._writers or self._writers[key].index < place.index:
                self._writers[key] = place

    def _note(self, clash: Clash, place: _Place, other: _Place | None) -> None:
        name = None if other is None else other.tool
        kept, dropped = (name, place.tool) if other is not None and other.index > place.index else (place.tool, name)
        self.conflicts.append(Conflict(clash.key, clash.path, clash.kind, kept, dropped))
        logger.warning("dcaf: %s and %s changed one value (%s); the change of %s was kept", place.tool, name, clash.kind, kept)


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
