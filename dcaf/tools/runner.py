"""The calls of tools on one session: each sees it as its own until it has returned, and those that write keep their order.

>>> from dcaf.tools.tool import tool
>>> @tool
... def add(item: str, session: Session) -> int:
...     session.append("items", item)
...     return len(session["items"])
>>> session = Session()
>>> calls = [Call(add, {"item": "nut"}), Call(add, {"item": 7}), Call(add, {"item": "bolt"})]
>>> results = ToolRunner.of(session).run_all_sync(calls)
>>> [result.is_error for result in results], session["items"]
([False, True, False], ['nut', 'bolt'])

What a reader gets wrong: a call that fails leaves nothing behind. What it did to its session is gone, however far it came.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Never, Self

import anyio

from dcaf.core.errors import ConfigurationError, ExitError
from dcaf.core.session import Session, require_session
from dcaf.tools.calls import OpenCall
from dcaf.tools.event_loop import wait_for
from dcaf.tools.queue import Conflict
from dcaf.tools.results import Call, Result, said_of, told_of, trace
from dcaf.tools.tool import Tool

logger: Final[logging.Logger] = logging.getLogger("dcaf")

IN_LOOP: Final = "run_all_sync() was called inside a running event loop. Write `await runner.run_all(...)`."


class ToolRunner:
    """Runs tools on one session. All that call on a session share one order, whoever made the runner, in every task and thread.

    Calls of tools that write the session run one after the other, in the order in which they were made; ``@tool(parallel=True)``
    and tools that only read do not wait. Within a call, ``current_session()`` is the call's own session too. A tool may call
    other tools, through the same runner or by themselves: they are part of its call.

    Attributes:
        session: What the calls share, and commit into.
        conflicts: What could not be merged of the calls that were made through this object, in the order in which it was found. The
            later call was kept.

    Raises:
        ConfigurationError: It was made by itself: write ``ToolRunner.of(session)``.
    """

    session: Session
    conflicts: list[Conflict]

    def __init__(self, *_given: Never, **_named: Never) -> None:
        raise ConfigurationError("Write ToolRunner.of(session): all that call on a session share one order.")

    @classmethod
    def of(cls, session: Session) -> Self:
        """What runs tools on a session.

        Raises:
            ConfigurationError: It is no Session.
        """
        made = cls.__new__(cls)
        made.session = require_session(session, "ToolRunner.of()")
        made.conflicts = []
        return made

    async def run(self, tool: Tool[..., Any], arguments: Mapping[str, Any], *, is_approved: bool = False) -> Any:
        """Run a tool, and keep what it did to the session if it returns: ``tool.run`` with this session.

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
        value, _ = await self._open(call).run(arguments, is_approved=is_approved)
        return value

    async def run_all(self, calls: Sequence[Call]) -> list[Result]:
        """Run the calls of one message of a model, and say what came of each, in the same order.

        A call that fails is a Result with an error, and stops no other.

        Raises:
            ConfigurationError: A tool cannot be called at all; the other calls have run. Or this is no list of calls; none has.
        """
        _check_calls(calls)
        results: dict[int, Result] = {}
        opened = [self._opened(call) for call in calls]

        async def one(index: int) -> None:
            results[index] = await _result(calls[index], opened[index])

        try:
            async with anyio.create_task_group() as group:
                for index in range(len(calls)):
                    group.start_soon(one, index)
        finally:
            for call in opened:
                if isinstance(call, OpenCall):
                    call.leave()
        wrong = next((result.error for result in results.values() if isinstance(result.error, ConfigurationError)), None)
        if wrong is not None:
            raise wrong
        return [results.get(index) or _cancelled_by_itself(call) for index, call in enumerate(calls)]

    def run_all_sync(self, calls: Sequence[Call]) -> list[Result]:
        """As ``run_all``, in a thread that has no event loop: in one of an application's own, in a program without a loop.

        The calls run in the loop that this thread works for, or in one that all such threads share; its thread ends with the
        program. The context variables go along.

        Raises:
            ConfigurationError: As ``run_all``. Or an event loop is running in this thread: write ``await runner.run_all(...)``.
        """
        return wait_for(functools.partial(self.run_all, calls), in_loop=IN_LOOP)

    async def stream(
        self, tool: Tool[..., Any], arguments: Mapping[str, Any], *, is_approved: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Run a tool and give what it yields as it comes: ``tool.stream`` with this session. Arguments and errors as there."""
        call = Call(tool, arguments, is_approved=is_approved)
        async with aclosing(self._open(call, is_read=True).stream(arguments, is_approved=is_approved)) as items:
            async for item in items:
                yield item

    def _open(self, call: Call, *, is_read: bool = False) -> OpenCall:
        tool = call.tool
        return OpenCall(
            tool._running,
            self.session,
            id_=call.id,
            writes=tool.writes_session,
            is_read=is_read,
            conflicts=self.conflicts,
        )

    def _opened(self, call: Call) -> OpenCall | ConfigurationError:
        try:
            return self._open(call)
        except ConfigurationError as error:
            return error


async def _result(call: Call, opened: OpenCall | ConfigurationError) -> Result:
    if isinstance(opened, ConfigurationError):
        return Result(call, told_of(call.tool.name, opened), error=opened)
    try:
        value, text = await opened.run(call.arguments, is_approved=call.is_approved, write=said_of)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises, the model is told and the other calls go on
        logger.warning("dcaf: %s failed: %s", call.tool.name, trace(error, call.tool._function))
        return Result(call, told_of(call.tool.name, error), error=error)
    return Result(call, text, value)


def _check_calls(calls: object) -> None:
    if not isinstance(calls, Sequence) or not all(isinstance(call, Call) for call in calls):
        raise ConfigurationError("run_all takes a list of calls: [Call(tool, arguments), ...].")


def _cancelled_by_itself(call: Call) -> Result:
    """What comes of a call whose tool has cancelled the very task that it runs in."""
    error = ExitError("CancelledError")
    return Result(call, told_of(call.tool.name, error), error=error)
