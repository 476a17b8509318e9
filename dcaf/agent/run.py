"""One turn of an agent, from the messages to the answer: interceptors, decisions, the mind, interceptors, and then the session.

What a reader gets wrong: all of it works on an overlay of the session. It is committed at the very end, so whatever fails before
leaves the session as it was.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anyio

from dcaf.agent.approvals import UNKNOWN, Verdict, decide, decisions_of
from dcaf.agent.config import RunConfig
from dcaf.agent.draft import BETWEEN, Clock, Draft, Mind, Tools
from dcaf.agent.helpdesk import Data, Event, ExecutedApproval, ExecutedApprovals, Message, TextDelta
from dcaf.agent.interceptors import InterceptedRequest, InterceptedResponse, RequestInterceptor, ResponseInterceptor, intercepted
from dcaf.agent.response import AgentResponse
from dcaf.core.errors import DcafError, InterceptorError, MalformedRequest, TurnTimeoutError
from dcaf.core.keeper import Keeper, Stateless
from dcaf.core.overlay import Overlay
from dcaf.core.session import Session
from dcaf.tools.frames import trace
from dcaf.tools.platform import PLATFORM, within_platform
from dcaf.tools.results import Call
from dcaf.tools.turn import Turn

logger: Final[logging.Logger] = logging.getLogger("dcaf")

NOT_REQUESTED: Final = "That action was not requested in this conversation, so it was not run."
UNANSWERED: Final = "What you approved was run. The answer could not be finished."
NO_TOOL: Final = "Refused: no such action can be approved now"
USED: Final = "Refused: this approval was used before"
STOPPED: Final = "Stopped: it took longer than one turn may take. How far it came is not known."
NOTHING_SAID: Final = "the last message must be the user's, and say or decide something"


@dataclass(frozen=True, slots=True)
class Service:
    """What stays the same from run to run.

    Attributes:
        mind: What answers.
        tools: Name -> tool.
        config: Its limits.
        before: Sees the request.
        after: Sees the response; while there is one, no text leaves before it has seen it.
        clock: Seconds since the epoch.
    """

    mind: Mind
    tools: Tools
    config: RunConfig
    before: Sequence[RequestInterceptor]
    after: Sequence[ResponseInterceptor]
    clock: Clock


@dataclass(slots=True)
class Run:
    """One turn.

    Attributes:
        service: Who serves it.
        messages: The conversation, oldest first.
        session: Whose turn it is; written when the turn has ended well.
        context: What the caller gave for this turn.
        keeper: Who knows which approvals were used.
    """

    service: Service
    messages: list[Message]
    session: Session
    context: Mapping[str, Any] = field(repr=False)
    keeper: Keeper = field(default_factory=Stateless)
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
        state = Overlay(self.session._state)
        draft = Draft(Session._over(state), self._own_messages(), self.context, tells_intent=not self.service.after)
        blocked = await self._before(draft)
        if blocked is None:
            async with aclosing(self._answered(draft)) as events:
                async for event in events:
                    if not (isinstance(event, TextDelta) and self.service.after):
                        yield event
        blocked = await self._after(draft) or blocked
        if draft.text and (self.service.after or blocked):
            yield TextDelta(text=draft.text)
        response = self._response(draft, blocked)
        state.commit()
        yield replace(response, _plain=self.session._state.plain())

    def _own_messages(self) -> list[Message]:
        """The messages, for this turn alone: an interceptor may write in them."""
        return [message.model_copy(deep=True) if self.service.before else message for message in self.messages]

    async def _before(self, draft: Draft) -> InterceptorError | None:
        shown = InterceptedRequest(draft.messages, draft.session, self.context)
        try:
            with self._within():
                seen = await intercepted(self.service.before, shown)
        except InterceptorError as error:
            return _block(draft, error)
        draft.messages = [Message.model_validate(message) for message in seen.messages]
        _check(draft.messages)
        return None

    async def _after(self, draft: Draft) -> InterceptorError | None:
        shown = InterceptedResponse(draft.text, draft.data(self.service.tools), draft.session, self.context)
        try:
            with self._within():
                draft.text = str.__str__((await intercepted(self.service.after, shown)).text)
        except InterceptorError as error:
            return _block(draft, error)
        except Exception as error:  # noqa: BLE001 - as of the mind
            draft.text = ""  # which no interceptor has let pass
            _finish(draft, error)
        return None

    async def _answered(self, draft: Draft) -> AsyncGenerator[Event, None]:
        """Run what was approved, and then ask the mind; what was approved is not lost where that fails."""
        told = await self._decide(draft)
        if draft.decided:
            yield ExecutedApprovals(executed_approvals=list(draft.decided))
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
        verdicts = decide(draft.session, decisions_of(last.data), now=self.service.clock())
        with self._within():
            asked = [await self._call(verdict, draft.session) for verdict in verdicts]
        calls = [found for found in asked if isinstance(found, Call)]
        draft.has_run = bool(calls)
        ran = iter(await self._ran(calls, draft.session))
        outputs = [next(ran) if isinstance(found, Call) else found for found in asked]
        draft.decided = [_executed(verdict, output) for verdict, output in zip(verdicts, outputs, strict=True)]
        known = [item for item, verdict in zip(draft.decided, verdicts, strict=True) if verdict.is_known]
        data = (last.data or Data()).model_copy(update={"executed_approvals": known, "approvals": [], "tool_calls": []})
        draft.messages[-1] = last.model_copy(update={"data": data})
        return bool(known)

    async def _ran(self, calls: Sequence[Call], session: Session) -> list[str]:
        """Run calls; gives what each came to. They are used up, so that the turn goes on where their time is over."""
        try:
            with self._within():
                return [result.text for result in await Turn(session).run_all(calls)]
        except TurnTimeoutError:
            return [STOPPED] * len(calls)

    async def _call(self, verdict: Verdict, session: Session) -> Call | str:
        """The call that was approved, or why it does not run. It is used up before it runs."""
        if verdict.said is not None:
            return verdict.said
        tool = self.service.tools.get(verdict.name)
        if tool is None or not tool.requires_approval:
            return NO_TOOL
        if not await self.keeper.spend(session, f"approval:{verdict.use}"):
            return USED
        return Call(tool, verdict.input, id=verdict.id, is_approved=True)

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
        with within_platform(self.context.get(PLATFORM)), anyio.CancelScope(deadline=self._ends_at) as scope:
            yield
        if scope.cancelled_caught:
            raise TurnTimeoutError(f"The turn took longer than {self.service.config.timeout_s:g} seconds (timeout).")

    def _response(self, draft: Draft, blocked: InterceptorError | None) -> AgentResponse:
        data = draft.data(self.service.tools)
        answer = Message(role="assistant", content=draft.text, data=data)
        messages = [*draft.messages, answer]
        return AgentResponse(draft.text, data, self.session, messages, draft.usage, draft.stop_reason, blocked)


def _check(messages: Sequence[Message]) -> None:
    """Refuse a conversation that asks for nothing."""
    last = messages[-1] if messages else None
    if last is None or last.role != "user" or not (last.content or _holds_anything(last.data)):
        raise MalformedRequest([("messages", NOTHING_SAID)])


def _holds_anything(data: Data | None) -> bool:
    return data is not None and any(value for value in data.model_dump(exclude={"session"}).values())


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


def _not_run(decided: Sequence[ExecutedApproval]) -> str:
    """What the user reads where nothing that was decided has run: why, or that nobody had asked for it."""
    reasons = dict.fromkeys(item.output for item in decided)
    return NOT_REQUESTED if UNKNOWN in reasons else " ".join(f"{reason}." for reason in reasons)


def _executed(verdict: Verdict, output: str) -> ExecutedApproval:
    return ExecutedApproval(id=verdict.id, type=verdict.type, name=verdict.name, input=verdict.input, output=output)
