"""One turn of an agent: the interceptors of the request, decisions, the backend, the interceptors of the response, the session.

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

from dcaf.agent.approvals import (
    ApprovedCall,
    Execution,
    find_mentions,
    find_older_decisions,
    find_waiting_calls,
    read_decisions,
    to_decided_call,
)
from dcaf.agent.config import RunConfig
from dcaf.agent.helpdesk import (
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
from dcaf.agent.interceptors import (
    InterceptedRequest,
    InterceptedResponse,
    RequestInterceptor,
    ResponseInterceptor,
    apply_interceptors,
)
from dcaf.agent.kept_conversation import add_outcome, build_answer, build_user, check_new, find_new, read_kept
from dcaf.agent.response import AgentResponse
from dcaf.agent.run_state import BETWEEN, AgentBackend, Clock, RunState, Tools, enclosing
from dcaf.core.context import Within
from dcaf.core.errors import DcafError, InterceptorError, MalformedRequest, StateError, ToolArgumentError, TurnTimeoutError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.tools.decisions import BEFORE, UNKNOWN, Spending, Verdict, judge_message, run_digest
from dcaf.tools.platform_context import PLATFORM, within_platform
from dcaf.tools.proposals import mark_decided, pending_in
from dcaf.tools.results import format_error, format_safe_traceback

logger: Final[logging.Logger] = logging.getLogger("dcaf")

NOT_WAITING: Final = "No such action waits for a decision in this conversation, so this decision changed nothing."
DECIDED_BEFORE: Final = "That was decided before, so this decision changed nothing."
UNANSWERED: Final = "What you approved was run. The answer could not be finished."
NO_TOOL: Final = "Refused: no such action can be approved now"
NOTHING_SAID: Final = "the last message must be the user's, and say or decide something"


@dataclass(frozen=True, slots=True)
class AgentSetup:
    """What stays the same from run to run.

    Attributes:
        backend: What answers.
        tools: Name -> tool: those whose calls a person can decide about.
        config: Its limits.
        before: The interceptors of the request.
        after: The interceptors of the response; while there is one, no text leaves before it has seen it.
        clock: Seconds since the epoch.
        name: The agent's, for the log.
    """

    backend: AgentBackend
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
        setup: The agent's parts.
        messages: The conversation, oldest first, for this turn alone: an interceptor may write in them. Where the server keeps it,
            what the user says now.
        session: Whose turn it is; written when the turn has ended well, and at once by what a person has approved.
        context: What the caller gave for this turn.
        is_kept: Whether the server keeps the conversation.
    """

    setup: AgentSetup
    messages: list[Message]
    session: Session
    context: Mapping[str, Any] = field(repr=False)
    is_kept: bool = False
    _said: list[Message] = field(default_factory=list, repr=False)
    _state: RunState = field(init=False, repr=False)
    _ends_at: float = field(init=False, repr=False)

    async def events(self) -> AsyncGenerator[Event | AgentResponse, None]:
        """What happens, as it happens; the last event is the response.

        Raises:
            MalformedRequest: There is nothing to answer; or the server keeps the conversation, and what was sent is not the user's.
            ConfigurationError: The server is to keep the conversation, and no store keeps it.
            AgentError: The turn could not be finished. The session is as it was.
        """
        limit_s = self.setup.config.timeout_s
        self._ends_at = float("inf") if limit_s is None else anyio.current_time() + limit_s
        _check_last(self.messages)
        self._go_on_from_kept()
        state = self._state = self._begin()
        try:
            state.add_earlier(await self._find_earlier())
            await self._intercept_request(state)
            async with aclosing(self._answer(state)) as events:
                async for event in events:
                    yield event
            await self._intercept_response(state)
            for event in self._finish(state):
                yield event
        finally:
            state.end()
        yield self._build_response(state)

    def _go_on_from_kept(self) -> None:
        """Put the conversation that the server keeps in front of what the user says now."""
        if self.is_kept:
            check_new(self.messages)
            self._said = self.messages
            self.messages = [*read_kept(self.session), *self._said]

    def _begin(self) -> RunState:
        setup = self.setup
        return RunState(
            self.session,
            list(self.messages),
            self.context,
            tools=setup.tools,
            clock=setup.clock,
            agent=setup.name,
            outer=enclosing.get(),
            shows_intent=not setup.after,
            is_kept=self.is_kept,
        )

    async def _find_earlier(self) -> dict[str, Approval]:
        """The calls that waited before this turn, by the digests of their proposals."""
        now = self.setup.clock()
        pending = pending_in(self.session, now)
        mentions = find_mentions(self.messages, pending) if pending else []
        find = functools.partial(find_waiting_calls, self.session, mentions, self.setup.tools, now=now)
        return await run_digest(find, [item.input for item in mentions])

    async def _intercept_request(self, state: RunState) -> None:
        given = InterceptedRequest(state.messages, state.session, self.context)
        try:
            with self._within():
                left = await apply_interceptors(self.setup.before, given, state.add_conflicts)
        except InterceptorError as error:
            state.block(error)
            self._said = []
            return
        state.replace_messages(left.messages)
        _check_last(state.messages)
        self._said = find_new(state.messages, self._said)

    async def _answer(self, state: RunState) -> AsyncGenerator[Event, None]:
        """What happens between the interceptors. Where there are some of the response, no text leaves yet."""
        if state.blocked is not None:
            return
        async with aclosing(self._decide_and_ask(state)) as events:
            async for event in events:
                if not (isinstance(event, TextDelta) and self.setup.after):
                    yield event

    async def _decide_and_ask(self, state: RunState) -> AsyncGenerator[Event, None]:
        """Run what was approved, and then ask the backend; what was approved is not lost where that fails."""
        has_news = await self._decide(state)
        state.keep(message for said in self._said for message in build_user(said))
        for event in _list_decided(state):
            yield event
        if state.decided and not has_news and not state.messages[-1].content:
            state.replace_text(_explain_not_run(state.decided))
            yield TextDelta(text=state.text)
            return
        try:
            async with aclosing(self._step_through(self.setup.backend.answer(state))) as events:
                async for event in events:
                    yield event
        except Exception as error:  # noqa: BLE001 - whatever it was, what a person approved has run
            yield _end_failed(state, error)

    async def _intercept_response(self, state: RunState) -> None:
        given = InterceptedResponse(state.text, state.build_data(), state.session, self.context)
        try:
            with self._within():
                left = await apply_interceptors(self.setup.after, given, state.add_conflicts)
            state.replace_text(str.__str__(left.text))  # no subclass
        except InterceptorError as error:
            state.block(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, what a person approved has run
            state.replace_text("")  # which no interceptor has let pass
            _end_failed(state, error)

    def _finish(self, state: RunState) -> Iterator[Event]:
        """Make what the rest of the turn did part of the session, and yield the events that are still due."""
        if state.text and (self.setup.after or state.blocked):
            yield TextDelta(text=state.text)
        try:
            if self._said:
                state.keep(build_answer(state.text, state.find_new_waiting()))
            state.commit()
        except StateError as error:
            yield _end_failed(state, error)
        yield from state.announce_waiting()

    async def _decide(self, state: RunState) -> bool:
        """Run the calls that a person has approved; gives whether the agent learns of any decision."""
        last = state.messages[-1]
        decisions = [item for item in read_decisions(last.data) if to_decided_call(item).is_decided]
        spending = Spending(self.session, await self._judge(decisions))
        with self._within():
            await spending.spend()
        verdicts = spending.verdicts
        calls = {item.id: ApprovedCall(item, self.setup.tools[item.name]) for item in verdicts if item.is_approved}
        try:
            await self._execute(list(calls.values()), state)
        finally:
            await spending.end([item.verdict for item in calls.values() if item.has_begun])
        refused = [verdict.id for verdict in verdicts if verdict.is_known and not verdict.is_approved]
        if verdicts:
            mark_decided(self.session if state.has_run else state.session, refused, now=self.setup.clock())
        outputs = [calls[verdict.id].output if verdict.reason is None else verdict.reason for verdict in verdicts]
        decided = [_build_executed(*pair) for pair in zip(decisions, outputs, strict=True)]
        done = {*refused, *(id_ for id_, item in calls.items() if item.has_begun)}
        known = [item for item, verdict in zip(decided, verdicts, strict=True) if verdict.is_known and item.id in done]
        for item in known:
            if item.id not in calls or not calls[item.id].is_kept:
                state.keep_outcome(item)
        older = find_older_decisions(last.data)
        state.add_decided(decided, [_to_older_form(item) for item in decided if item.id in older], _replace_decisions(last, known))
        return bool(known)

    async def _judge(self, decisions: Sequence[Approval]) -> list[Verdict]:
        """What decisions come to, as far as the session and the tools of today say."""
        verdicts = await judge_message(self.session, [to_decided_call(item) for item in decisions], now=self.setup.clock())
        return [self._check_tool(verdict) if verdict.is_approved else verdict for verdict in verdicts]

    def _check_tool(self, verdict: Verdict) -> Verdict:
        """A verdict, refused where the tool is gone, or is another one than when its call was proposed."""
        tool = self.setup.tools.get(verdict.name)
        if tool is None or not tool.requires_approval:
            return replace(verdict, reason=NO_TOOL)
        try:
            tool.check(verdict.arguments)
        except ToolArgumentError as error:
            return replace(verdict, reason=format_error(tool.name, error))
        return verdict

    async def _execute(self, calls: Sequence[ApprovedCall], state: RunState) -> None:
        """Run approved calls on the session itself: what they do is kept, however the turn ends.

        What the interceptors did is kept with it, because the calls saw it.
        """
        if not calls:
            return
        state.commit()
        execution = Execution(
            self.session, clock=self.setup.clock, ends_at=self._ends_at, keep=self._keep_outcome if self.is_kept else None
        )
        try:
            with self._within():
                await execution.run(calls, state.make_runner(self.session))
        except TurnTimeoutError:
            if not any(item.has_begun for item in calls):
                raise
            logger.warning("dcaf: the time of a turn was over while approved calls ran")
        state.count_approved(sum(item.has_begun for item in calls))
        error = next((item.error for item in calls if item.error is not None), None)
        if error is not None and not state.has_run:
            raise error

    def _keep_outcome(self, call: ApprovedCall) -> None:
        """Add what came of an approved call to the session itself: it is kept as what the call wrote is, however the turn ends."""
        verdict = call.verdict
        members = {"id": verdict.id, "name": verdict.name, "input": verdict.arguments, "output": call.output}
        add_outcome(self.session, ExecutedToolCall.model_validate(members, context=READ))

    async def _step_through(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Take each step within the time limit and the platform's context, neither of which reaches the one who reads."""
        async with aclosing(events):
            while True:
                with self._within():
                    event = await anext(events, None)
                if event is None:
                    return
                yield event

    @contextmanager
    def _within(self) -> Iterator[None]:
        platform, turn = within_platform(self.context.get(PLATFORM)), Within(enclosing, self._state)
        with platform, turn, anyio.CancelScope(deadline=self._ends_at) as scope:
            yield
        if scope.cancelled_caught:
            raise TurnTimeoutError(f"The turn took longer than {self.setup.config.timeout_s:g} seconds (timeout).")

    def _build_response(self, state: RunState) -> AgentResponse:
        data = state.build_data()
        stop_reason = "tool_use" if state.stop_reason == "end_turn" and state.find_new_waiting() else state.stop_reason
        answer = Message(role="assistant", content=state.text, data=data)
        return AgentResponse(
            state.text,
            data,
            self.session,
            [*state.messages, answer],
            state.sum_usage(),
            stop_reason,
            state.blocked,
            state.conflicts,
            _plain=state_of(self.session).plain(),
        )


def _check_last(messages: Sequence[Message]) -> None:
    """Refuse a conversation that asks for nothing."""
    last = messages[-1] if messages else None
    if last is None or last.role != "user" or not (last.content or _holds_anything(last.data)):
        raise MalformedRequest([("messages", NOTHING_SAID)])


def _holds_anything(data: Data | None) -> bool:
    return data is not None and any(value for name, value in data if name != "session")


def _end_failed(state: RunState, error: Exception) -> TextDelta:
    """End a turn that failed after approved calls had run, so that they stay used; any other failure is raised."""
    if not state.has_run:
        raise error
    found = error.code if isinstance(error, DcafError) else format_safe_traceback(error)
    logger.error("dcaf: a turn failed after approved calls had run: %s", found)
    said = (BETWEEN if state.text else "") + UNANSWERED
    state.replace_text(state.text + said, stop_reason="error")
    return TextDelta(text=said)


def _list_decided(state: RunState) -> Iterator[Event]:
    """The events for what became of decisions, in the forms in which they came."""
    if state.decided:
        yield ExecutedApprovals(executed_approvals=list(state.decided))
    if state.decided_older:
        yield ExecutedToolCalls(executed_tool_calls=list(state.decided_older))


def _explain_not_run(decided: Iterable[ExecutedApproval]) -> str:
    """What the user reads where nothing that was decided has run: why, or that no such call waits."""
    reasons = dict.fromkeys(item.output for item in decided)
    if UNKNOWN in reasons:
        return NOT_WAITING
    return DECIDED_BEFORE if reasons.keys() == {BEFORE} else " ".join(f"{reason}." for reason in reasons)


def _replace_decisions(last: Message, known: list[ExecutedApproval]) -> Message:
    """The last message, with what became of its decisions in their place."""
    data = (last.data or Data()).model_copy(update={"executed_approvals": known, "approvals": [], "tool_calls": []})
    return last.model_copy(update={"data": data})


def _build_executed(decision: Approval, output: str) -> ExecutedApproval:
    members = {"id": decision.id, "type": decision.type, "name": decision.name, "input": decision.input, "output": output}
    return ExecutedApproval.model_validate(members, context=READ)  # the input was looked at when the decision was read


def _to_older_form(item: ExecutedApproval) -> ExecutedToolCall:
    members = {"id": item.id, "name": item.name, "input": item.input, "output": item.output}
    return ExecutedToolCall.model_validate(members, context=READ)
