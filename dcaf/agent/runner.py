"""One turn of an agent, from the messages to the answer: interceptors, decisions, the mind, interceptors, and then the session.

What a reader gets wrong: a turn that fails leaves the session as it was, up to what a person has approved. An approved call that
has begun is used up in the session at once, and what it wrote is kept when it ends; only the rest of the turn can still be lost.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anyio

from dcaf.agent.approvals import Approved, Execution, decided_call, decided_in_older_form, decisions_of, told_in, waiting_calls
from dcaf.agent.config import RunConfig
from dcaf.agent.interceptors import InterceptedRequest, InterceptedResponse, RequestInterceptor, ResponseInterceptor, intercepted
from dcaf.agent.model_loop import BETWEEN
from dcaf.agent.models import (
    READ,
    Approval,
    Data,
    Event,
    ExecutedApproval,
    ExecutedApprovals,
    ExecutedToolCall,
    ExecutedToolCalls,
    Message,
    TextDelta,
)
from dcaf.agent.response import AgentResponse
from dcaf.agent.run_state import Clock, Draft, Mind, Tools, around
from dcaf.core.context import Within
from dcaf.core.errors import DcafError, InterceptorError, MalformedRequest, StateError, ToolArgumentError, TurnTimeoutError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.tools.decisions import BEFORE, UNKNOWN, Spending, Verdict, digesting, judge_message
from dcaf.tools.platform_context import PLATFORM, within_platform
from dcaf.tools.proposals import pending_in, settle
from dcaf.tools.results import told_of, trace

logger: Final[logging.Logger] = logging.getLogger("dcaf")

NOT_WAITING: Final = "No such action waits for a decision in this conversation, so this decision changed nothing."
DECIDED_BEFORE: Final = "That was decided before, so this decision changed nothing."
UNANSWERED: Final = "What you approved was run. The answer could not be finished."
NO_TOOL: Final = "Refused: no such action can be approved now"
NOTHING_SAID: Final = "the last message must be the user's, and say or decide something"


@dataclass(frozen=True, slots=True)
class Service:
    """What stays the same from run to run.

    Attributes:
        mind: What answers.
        tools: Name -> tool: those whose calls a person can decide about.
        config: Its limits.
        before: Sees the request.
        after: Sees the response; while there is one, no text leaves before it has seen it.
        clock: Seconds since the epoch.
        name: The agent's, for the log.
    """

    mind: Mind
    tools: Tools
    config: RunConfig
    before: Sequence[RequestInterceptor]
    after: Sequence[ResponseInterceptor]
    clock: Clock
    name: str = "agent"


@dataclass(slots=True)
class Run:
    """One turn.

    Attributes:
        service: Who serves it.
        messages: The conversation, oldest first, for this turn alone: an interceptor may write in them.
        session: Whose turn it is; written when the turn has ended well, and at once by what a person has approved.
        context: What the caller gave for this turn.
    """

    service: Service
    messages: list[Message]
    session: Session
    context: Mapping[str, Any] = field(repr=False)
    _draft: Draft = field(init=False, repr=False)
    _ends_at: float = field(init=False, repr=False)

    async def events(self) -> AsyncGenerator[Event | AgentResponse, None]:
        """What happens, as it happens; the last is the response.

        Raises:
            MalformedRequest: There is nothing to answer.
            AgentError: The turn could not be finished. The session is as it was.
        """
        limit_s = self.service.config.timeout_s
        self._ends_at = float("inf") if limit_s is None else anyio.current_time() + limit_s
        _check(self.messages)
        draft = self._draft = self._begun()
        try:
            draft.recall(await self._recalled())
            blocked = await self._before(draft)
            if blocked is None:
                async with aclosing(self._answered(draft)) as events:
                    async for event in events:
                        if not (isinstance(event, TextDelta) and self.service.after):
                            yield event
            blocked = await self._after(draft) or blocked
            if draft.text and (self.service.after or blocked):
                yield TextDelta(text=draft.text)
            for event in [*self._kept(draft), *draft.tell_waiting()]:
                yield event
        finally:
            draft.end()
        yield self._response(draft, blocked)

    def _begun(self) -> Draft:
        service = self.service
        return Draft(
            self.session,
            list(self.messages),
            self.context,
            tools=service.tools,
            clock=service.clock,
            agent=service.name,
            outer=around.get(),
            tells_intent=not service.after,
        )

    async def _recalled(self) -> dict[str, Approval]:
        """The calls that waited before this turn."""
        now = self.service.clock()
        pending = pending_in(self.session, now)
        told = told_in(self.messages, pending) if pending else []
        find = functools.partial(waiting_calls, self.session, told, self.service.tools, now=now)
        return await digesting(find, [item.input for item in told])

    async def _before(self, draft: Draft) -> InterceptorError | None:
        shown = InterceptedRequest(draft.messages, draft.session, self.context)
        try:
            with self._within():
                seen = await intercepted(self.service.before, shown, draft.conflicts)
        except InterceptorError as error:
            return _block(draft, error)
        draft.messages = seen.messages
        _check(draft.messages)
        return None

    async def _after(self, draft: Draft) -> InterceptorError | None:
        shown = InterceptedResponse(draft.text, draft.data(), draft.session, self.context)
        try:
            with self._within():
                draft.text = str.__str__((await intercepted(self.service.after, shown, draft.conflicts)).text)  # no subclass
        except InterceptorError as error:
            return _block(draft, error)
        except Exception as error:  # noqa: BLE001 - as of the mind
            draft.text = ""  # which no interceptor has let pass
            _finish(draft, error)
        return None

    def _kept(self, draft: Draft) -> Iterator[Event]:
        """Make what the rest of the turn did part of the session."""
        try:
            draft.commit()
        except StateError as error:
            yield _finish(draft, error)

    async def _answered(self, draft: Draft) -> AsyncGenerator[Event, None]:
        """Run what was approved, and then ask the mind; what was approved is not lost where that fails."""
        told = await self._decide(draft)
        for event in _decided(draft):
            yield event
        if draft.decided and not told and not draft.messages[-1].content:
            draft.text = _not_run(draft.decided)
            yield TextDelta(text=draft.text)
            return
        try:
            async with aclosing(self._stepped(self.service.mind.answer(draft))) as events:
                async for event in events:
                    yield event
        except Exception as error:  # noqa: BLE001 - whatever it was, what a person approved has run
            yield _finish(draft, error)

    async def _decide(self, draft: Draft) -> bool:
        """Run the calls that a person has approved; gives whether the model is told of any decision."""
        last = draft.messages[-1]
        decisions = [item for item in decisions_of(last.data) if decided_call(item).is_decided]
        spending = Spending(self.session, await self._judged(decisions))
        with self._within():
            await spending.spend()
        verdicts = spending.verdicts
        calls = {verdict.id: Approved(verdict, self.service.tools[verdict.name]) for verdict in verdicts if verdict.is_approved}
        try:
            await self._execute(list(calls.values()), draft)
        finally:
            await spending.end([item.verdict for item in calls.values() if item.has_begun])
        refused = [verdict.id for verdict in verdicts if verdict.is_known and not verdict.is_approved]
        if verdicts:
            settle(self.session if draft.has_run else draft.session, refused, now=self.service.clock())
        outputs = [calls[verdict.id].output if verdict.reason is None else verdict.reason for verdict in verdicts]
        draft.decided = [_executed(*pair) for pair in zip(decisions, outputs, strict=True)]
        older = decided_in_older_form(last.data)
        draft.decided_older = [_older(item) for item in draft.decided if item.id in older]
        told = {*refused, *(id_ for id_, item in calls.items() if item.has_begun)}
        known = [item for item, verdict in zip(draft.decided, verdicts, strict=True) if verdict.is_known and item.id in told]
        data = (last.data or Data()).model_copy(update={"executed_approvals": known, "approvals": [], "tool_calls": []})
        draft.messages[-1] = last.model_copy(update={"data": data})
        return bool(known)

    async def _execute(self, calls: Sequence[Approved], draft: Draft) -> None:
        """Run approved calls on the session itself: what they do is kept, however the turn ends.

        What the interceptors did is kept with it, because the calls saw it.
        """
        if not calls:
            return
        draft.commit()
        execution = Execution(self.session, clock=self.service.clock, ends_at=self._ends_at)
        try:
            with self._within():
                await execution.run(calls, draft.runner(self.session))
        except TurnTimeoutError:
            if not any(item.has_begun for item in calls):
                raise
            logger.warning("dcaf: the time of a turn was over while approved calls ran")
        draft.has_run = any(item.has_begun for item in calls)
        draft.usage.tool_calls += sum(item.has_begun for item in calls)
        error = next((item.error for item in calls if item.error is not None), None)
        if error is not None and not draft.has_run:
            raise error

    async def _judged(self, decisions: Sequence[Approval]) -> list[Verdict]:
        """What decisions come to, as far as the session and the tools of today say."""
        verdicts = await judge_message(self.session, [decided_call(item) for item in decisions], now=self.service.clock())
        return [self._fitting(verdict) if verdict.is_approved else verdict for verdict in verdicts]

    def _fitting(self, verdict: Verdict) -> Verdict:
        """A verdict, refused where the tool is gone, or is another one than when its call was proposed."""
        tool = self.service.tools.get(verdict.name)
        if tool is None or not tool.requires_approval:
            return replace(verdict, reason=NO_TOOL)
        try:
            tool.check(verdict.arguments)
        except ToolArgumentError as error:
            return replace(verdict, reason=told_of(tool.name, error))
        return verdict

    async def _stepped(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Each step inside the time limit, and with the platform's context; neither reaches the one who reads."""
        async with aclosing(events):
            while True:
                with self._within():
                    event = await anext(events, None)
                if event is None:
                    return
                yield event

    @contextmanager
    def _within(self) -> Iterator[None]:
        platform, turn = within_platform(self.context.get(PLATFORM)), Within(around, self._draft)
        with platform, turn, anyio.CancelScope(deadline=self._ends_at) as scope:
            yield
        if scope.cancelled_caught:
            raise TurnTimeoutError(f"The turn took longer than {self.service.config.timeout_s:g} seconds (timeout).")

    def _response(self, draft: Draft, blocked: InterceptorError | None) -> AgentResponse:
        data = draft.data()
        stop_reason = "tool_use" if draft.stop_reason == "end_turn" and draft.asks_anew() else draft.stop_reason
        answer = Message(role="assistant", content=draft.text, data=data)
        return AgentResponse(
            draft.text,
            data,
            self.session,
            [*draft.messages, answer],
            draft.total_usage(),
            stop_reason,
            blocked,
            draft.conflicts,
            _plain=state_of(self.session).plain(),
        )


def _check(messages: Sequence[Message]) -> None:
    """Refuse a conversation that asks for nothing."""
    last = messages[-1] if messages else None
    if last is None or last.role != "user" or not (last.content or _holds_anything(last.data)):
        raise MalformedRequest([("messages", NOTHING_SAID)])


def _holds_anything(data: Data | None) -> bool:
    return data is not None and any(value for name, value in data if name != "session")


def _block(draft: Draft, error: InterceptorError) -> InterceptorError:
    draft.text = error.user_message
    draft.stop_reason = "blocked"
    return error


def _finish(draft: Draft, error: Exception) -> TextDelta:
    """End a turn that failed after approved calls had run, so that they stay used; any other failure goes on."""
    if not draft.has_run:
        raise error
    found = error.code if isinstance(error, DcafError) else trace(error)
    logger.error("dcaf: a turn failed after approved calls had run: %s", found)
    draft.stop_reason = "error"
    said = (BETWEEN if draft.text else "") + UNANSWERED
    draft.text += said
    return TextDelta(text=said)


def _decided(draft: Draft) -> Iterator[Event]:
    """The events that tell what became of decisions, in the forms in which they came."""
    if draft.decided:
        yield ExecutedApprovals(executed_approvals=list(draft.decided))
    if draft.decided_older:
        yield ExecutedToolCalls(executed_tool_calls=list(draft.decided_older))


def _not_run(decided: Iterable[ExecutedApproval]) -> str:
    """What the user reads where nothing that was decided has run: why, or that no such call waits."""
    reasons = dict.fromkeys(item.output for item in decided)
    if UNKNOWN in reasons:
        return NOT_WAITING
    return DECIDED_BEFORE if reasons.keys() == {BEFORE} else " ".join(f"{reason}." for reason in reasons)


def _executed(decision: Approval, output: str) -> ExecutedApproval:
    told = {"id": decision.id, "type": decision.type, "name": decision.name, "input": decision.input, "output": output}
    return ExecutedApproval.model_validate(told, context=READ)  # the input was looked at when the decision was read


def _older(item: ExecutedApproval) -> ExecutedToolCall:
    told = {"id": item.id, "name": item.name, "input": item.input, "output": item.output}
    return ExecutedToolCall.model_validate(told, context=READ)
