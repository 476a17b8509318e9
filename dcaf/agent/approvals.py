"""Approvals in the HelpDesk protocol: what a message decides, and the approved calls, run so that each runs once.

>>> [said.rejection_reason for said in read_decisions(Data(approvals=[Approval(id="c1", name="drop", rejection_reason="no")]))]
['no']

What the client says, in two forms, is read here; none of it is proven. Which calls wait, and what a decision comes to, the tools
package reads from the session.

What a reader gets wrong: a call is used up in the step in which it begins, and not before. Between the two nothing can stop it: no
client that leaves, no end of the turn's time, no wait for a thread. Where the client reads a stream, it is sent the session in
which the call is used before the call begins; if it cannot be reached, nothing has run and the call still waits.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Generator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from threading import Lock, get_ident
from typing import Any, Final

import anyio
import anyio.from_thread
from anyio.abc import TaskStatus

from dcaf.agent.helpdesk import Approval, Data, Message, PendingToolCall
from dcaf.agent.run_state import Clock
from dcaf.asgi.streams import SendCheckpoint, checkpoint_sender
from dcaf.core.context import current_session
from dcaf.core.errors import ConfigurationError, SessionConflict, SessionUnavailable, ToolApprovalError
from dcaf.core.lifecycle import run_shielded
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.state import State
from dcaf.tools.callables import layers
from dcaf.tools.decisions import BEFORE, DecidedCall, Verdict
from dcaf.tools.proposals import Proposal, give_back, is_digest_of, is_sealed_as_waiting, pending_in, root_of, tag_of, use_up
from dcaf.tools.results import Call, format_error
from dcaf.tools.runner import ToolRunner
from dcaf.tools.tool import Tool

LAST_S: Final = 1.0
"""How long a message may take that says that a call waits again: its client may have left."""

MOST_TRIES: Final = 4
"""Times that the arguments of one waiting call are looked for: a client could send thousands of its id."""

NOT_BEGUN: Final = "Not run: the turn ended before it began. It waits on"
STOPPED: Final = "Stopped: it took longer than one turn may take. How far it came is not known."
OVER: Final = "the turn is over"


def find_waiting_calls(
    session: Session, mentions: Sequence[Approval], tools: Mapping[str, Tool[..., Any]], *, now: float
) -> dict[str, Approval]:
    """The calls that wait and whose arguments the conversation has. A mention that is not as it was proposed is passed over.

    Args:
        session: Whose calls they are: it alone says which calls wait.
        mentions: As ``find_mentions`` found them; anybody may have written them.
        tools: Those whose calls can be decided, which describe them.
        now: Seconds since the epoch.

    Returns:
        Digest of the proposal -> the call, as a person is shown it.
    """
    pending, tries = pending_in(session, now), Counter[str]()
    found: dict[str, Approval] = {}
    for item in mentions if pending else ():
        proposal, tool = pending.get(item.id), tools.get(item.name)
        if proposal is None or tool is None or proposal.digest in found or tries[item.id] == MOST_TRIES:
            continue
        tries[item.id] += 1
        if is_digest_of(proposal.digest, item.id, item.name, item.input):
            found[proposal.digest] = _restore_call(item, tool, proposal)
    return found


def find_mentions(messages: Sequence[Message], ids: Container[str]) -> list[Approval]:
    """What a conversation says of the calls with some ids, in either form, newest first."""
    found: list[Approval] = []
    for message in reversed(messages):
        if message.data is not None:
            found += (item for item in message.data.approvals if item.id in ids)
            found += (_to_newer_form(item) for item in message.data.tool_calls if item.id in ids)
    return found


def read_decisions(data: Data | None) -> list[Approval]:
    """What a message says of calls: the older form counts too, where the newer one does not say the same of that call."""
    if data is None:
        return []
    said = {(item.id, item.execute, item.rejection_reason) for item in data.approvals}
    return [
        *data.approvals,
        *(_to_newer_form(item) for item in data.tool_calls if (item.id, item.execute, item.rejection_reason) not in said),
    ]


def to_decided_call(item: Approval) -> DecidedCall:
    """What a client says of a call, in the words of every transport."""
    return DecidedCall(item.id, item.name, item.input, item.execute, item.rejection_reason)


def find_older_decisions(data: Data | None) -> set[str]:
    """The ids of the calls that a message decides about in the older form."""
    return {item.id for item in (data.tool_calls if data else ()) if item.execute or item.rejection_reason is not None}


@dataclass(slots=True, eq=False)
class ApprovedCall:
    """One call that a person has approved.

    Attributes:
        verdict: What was decided.
        tool: Its tool.
        output: What came of it so far.
        used: In which states it was used up; none where it has not begun.
        error: Why it could not begin; None where nothing was wrong.
        is_kept: Whether what came of it was kept at once.
    """

    verdict: Verdict
    tool: Tool[..., Any]
    output: str = field(default=NOT_BEGUN, repr=False)
    used: list[tuple[State, Proposal]] = field(default_factory=list, repr=False)
    error: Exception | None = None
    is_kept: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether it is used up, and so has run, or runs."""
        return bool(self.used)


class Execution:
    """Runs the approved calls of one turn.

    Args:
        session: The session in which they wait; what they write is committed into it, as each ends.
        clock: Seconds since the epoch.
        ends_at: When the time of the turn is over, on the event loop's clock.
        keep: Keeps what came of a call as soon as the call has ended; None where nobody does.
    """

    def __init__(
        self, session: Session, *, clock: Clock, ends_at: float, keep: Callable[[ApprovedCall], None] | None = None
    ) -> None:
        self._session = session
        self._clock = clock
        self._ends_at = ends_at
        self._keep = keep
        self._send = _find_sender(session)
        self._is_over = False
        self._lock = Lock()
        self._sending = anyio.Lock()

    async def run(self, calls: Sequence[ApprovedCall], runner: ToolRunner) -> None:
        """Run calls, side by side as far as their tools allow. Each notes what came of it, also where this is cancelled."""
        try:
            async with anyio.create_task_group() as group:
                for item in calls:
                    await group.start(self._run_one, item, runner)
        finally:
            with self._lock:  # what a thread begins later would be sealed by nobody
                self._is_over = True
            await run_shielded(self._wait_for_message)

    async def _wait_for_message(self) -> None:
        """Wait for the message of a call that begins in a thread: until it is sent, the use may still be taken back."""
        async with self._sending:
            pass

    async def _run_one(self, item: ApprovedCall, runner: ToolRunner, *, task_status: TaskStatus[None]) -> None:
        verdict = item.verdict
        call = Call(self._wrap_tool(item), verdict.arguments, id=verdict.id, is_approved=True)
        task_status.started()  # goes on here, so that the calls take their places in this order
        try:
            (result,) = await runner.run_all([call])
        except ConfigurationError as error:
            item.error, item.output = error, format_error(item.tool.name, error)
            return
        if item.has_begun:
            item.output = result.text
            if self._keep is not None:
                self._keep(item)
                item.is_kept = True
            await self._send_result()

    def _wrap_tool(self, item: ApprovedCall) -> Tool[..., Any]:
        """The tool, whose function uses the call up when it begins."""
        tool, way = item.tool, item.tool._target
        begin, begin_in_thread = functools.partial(self._begin, item), functools.partial(self._begin_in_thread, item)
        made: Tool[..., Any] = tool._copy_with(_target=replace(way, function=_prepend(begin, begin_in_thread, way.function)))
        made._reaches = tool._is_undeclared_writer()  # which is read off the code of the function alone
        return made

    def _begin_in_thread(self, item: ApprovedCall) -> None:
        if self._send is None:
            self._use(item)
        else:
            anyio.from_thread.run(self._begin, item)

    async def _begin(self, item: ApprovedCall) -> None:
        """Use a call up, and send the client the session in which it is used.

        Raises:
            ToolApprovalError: The call is not to run, and still waits; ``item.error`` has the cause, where there is one.
        """
        if self._send is None:
            self._use_in_time(item)
            return
        async with self._sending:  # no message of another call has a use in it that may be taken back
            self._use_in_time(item)
            try:
                await self._send_use(self._send, item.verdict.id)
            except BaseException as error:
                self._take_back(item, error)
                await run_shielded(functools.partial(self._send_as_waiting, self._send))
                if isinstance(error, Exception):
                    raise ToolApprovalError(OVER) from error
                raise

    def _use_in_time(self, item: ApprovedCall) -> None:
        if anyio.current_effective_deadline() <= anyio.current_time():
            raise ToolApprovalError(OVER)
        self._use(item)

    def _use(self, item: ApprovedCall) -> None:
        with self._lock:
            if self._is_over:
                raise ToolApprovalError(OVER)
            verdict = item.verdict
            item.used = use_up(state_of(self._session), verdict.id, verdict.use, now=self._clock())
            item.output = STOPPED if item.used else BEFORE
        if not item.used:
            raise ToolApprovalError(BEFORE)

    def _take_back(self, item: ApprovedCall, error: BaseException) -> None:
        give_back(item.used, item.verdict.id, now=self._clock())
        item.used, item.output = [], NOT_BEGUN
        item.error = error if isinstance(error, Exception) else None

    async def _send_as_waiting(self, send: SendCheckpoint) -> None:
        """Send the session in which a call waits again, whoever gets it: a store may keep the one in which it was used up."""
        with anyio.move_on_after(LAST_S), suppress(Exception):
            await send()

    async def _send_use(self, send: SendCheckpoint, id_: str) -> None:
        """Send the session in which a call is used. Where nothing carries it before the turn ends, the call runs all the same.

        It cannot be stopped: nobody could tell whether the client has got it.

        Raises:
            SessionUnavailable: The client cannot be reached, or not in time.
            SessionConflict: Another turn came first.
        """
        was_sent = None
        with anyio.CancelScope(shield=True, deadline=self._ends_at):
            try:
                was_sent = await send()
            except OSError as error:
                raise SessionUnavailable(reason="client") from error
        if was_sent is None:
            raise SessionUnavailable(reason="slow")
        if was_sent and is_sealed_as_waiting(root_of(state_of(self._session)), id_):
            raise SessionConflict(reason="unsent")

    async def _send_result(self) -> None:
        """Send the session with what a call wrote; what is wrong with that is met again at the end of the turn."""
        if self._send is not None:
            async with self._sending:
                with suppress(Exception):
                    await self._send()


def _restore_call(item: Approval, tool: Tool[..., Any], proposal: Proposal) -> Approval:
    """A call as it was first shown, of what is proven alone: the client may have written anything else into it."""
    intent = item.intent if tag_of(item.intent) == proposal.intent else None
    return Approval(id=item.id, name=item.name, input=item.input, description=tool.description or tool.name, intent=intent)


def _to_newer_form(item: PendingToolCall) -> Approval:
    return Approval(
        id=item.id,
        name=item.name,
        input=item.input,
        execute=item.execute,
        rejection_reason=item.rejection_reason,
        intent=item.intent,
    )


def _find_sender(session: Session) -> SendCheckpoint | None:
    """What sends a session to its client in the middle of an answer; None where the request's session is another one, or none."""
    thread, send = checkpoint_sender.get((0, None))
    try:
        is_of_request = root_of(state_of(current_session())) is root_of(state_of(session))
    except ConfigurationError:
        return None
    return send if is_of_request and thread == get_ident() else None


def _prepend(begin: Callable[[], Awaitable[None]], begin_in_thread: Callable[[], None], function: Callable[..., Any]) -> Any:
    """A function of the same kind that begins with something else, in the step in which its own body begins.

    A decorator may hide that its function is async: then the body begins only when somebody waits for what it returns.
    """

    @functools.wraps(function)
    async def on_loop(*args: Any, **named: Any) -> Any:
        await begin()
        result = function(*args, **named)
        return await result if inspect.isawaitable(result) else result

    @functools.wraps(function)
    async def as_async_items(*args: Any, **named: Any) -> AsyncGenerator[Any, None]:
        await begin()
        async with aclosing(function(*args, **named)) as items:
            async for item in items:
                yield item

    @functools.wraps(function)
    def as_items(*args: Any, **named: Any) -> Generator[Any, None, Any]:
        begin_in_thread()
        return (yield from function(*args, **named))

    @functools.wraps(function)
    def in_thread(*args: Any, **named: Any) -> Any:
        begin_in_thread()
        return function(*args, **named)

    kinds = {
        inspect.iscoroutinefunction: on_loop,
        inspect.isasyncgenfunction: as_async_items,
        inspect.isgeneratorfunction: as_items,
    }
    return next((made for is_kind, made in kinds.items() if any(map(is_kind, layers(function)))), in_thread)
