"""The state of one run: what was said, what has run, what waits; and the protocol of what answers.

Each part of a turn works on an overlay of the session. ``commit_overlay`` makes it part of the session below, and gives what could
not be merged there:

>>> session = Session.from_dict({"n": 0})
>>> one, other = begin_overlay(session), begin_overlay(session)
>>> one["n"], other["n"] = one["n"] + 1, other["n"] + 1
>>> commit_overlay(one, "the first"), [(clash.key, clash.kind, clash.kept.tool) for clash in commit_overlay(other, "the second")]
([], [('n', 'stale-read', 'the second')])

What a reader gets wrong: a run state does not decide which calls wait. The session does; the run state only knows the arguments of
those calls. A call that an agent inside a tool has proposed is among them, and one whose tool failed afterwards is not.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from pydantic_ai.usage import RequestUsage, RunUsage

from dcaf.agent.helpdesk import (
    Approval,
    Approvals,
    Data,
    Event,
    ExecutedApproval,
    ExecutedToolCall,
    Message,
    PendingToolCall,
    ToolCalls,
)
from dcaf.agent.kept_conversation import add_messages, add_outcome, build_step
from dcaf.core.errors import InterceptorError, ToolApprovalError
from dcaf.core.mapping import state_of
from dcaf.core.parts import join_path
from dcaf.core.session import Session
from dcaf.core.transaction import OUTSIDE, Overlay, log_clash
from dcaf.tools.proposals import Proposal, add_proposal, pending_in, root_of
from dcaf.tools.queue import Caller, Conflict
from dcaf.tools.runner import ToolRunner
from dcaf.tools.tool import Tool

logger: Final[logging.Logger] = logging.getLogger("dcaf")

BETWEEN: Final = "\n\n"
"""Stands between two texts of an answer that something stood between: a call of a tool, thinking, a search of the provider's."""

NOBODY: Final = "{tool} needs the approval of a person, and nobody can be asked for it here. It was not proposed."
UNREACHABLE: Final = (
    "dcaf: %s wanted the approval of %s, inside a turn of %s, whose answer cannot ask for it: that agent does not know the tool. "
    "Write Agent(..., agents=[...]) with the agent that has it."
)
APART: Final = (
    "dcaf: %s waits for the approval of %s in a session of its own, inside a turn of %s: whoever has that session can decide about "
    "it, and nobody else. Leave session= out, or pass the tool's own, for the call to be asked for in the answer."
)

Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch."""

Tools: TypeAlias = Mapping[str, Tool[..., Any]]
"""Name -> tool."""

enclosing: Final[ContextVar[RunState | None]] = ContextVar("dcaf_enclosing_run", default=None)
"""The run that is going on here. A run that begins inside it reports to it which calls wait and what it has used."""


class AgentBackend(Protocol):
    """What answers a conversation: a model with its tools, or a function that somebody wrote."""

    def answer(self, state: RunState) -> AsyncGenerator[Event, None]:
        """Go on from the messages of a run, note in its state what happens, and yield an event for it.

        Raises:
            AgentError: It could not be finished.
        """


@dataclass(slots=True, eq=False)
class RunState:
    """What one run has collected so far. Its methods alone write its fields.

    Attributes:
        base: The session that the turn is about.
        messages: The conversation; the decisions of the last message are replaced by what became of them.
        context: What the caller gave for this turn.
        tools: Those whose calls a person can decide about.
        clock: Seconds since the epoch.
        agent: The agent's name, for the log.
        outer: The run in whose tool or agent function this one was begun; None where there is none.
        session: The turn's own session, an overlay of the base.
        text: What was said so far.
        executed: The calls that have run.
        decided: What became of a person's decisions.
        decided_older: The same for those decisions that came in the older form.
        pending: The calls that this run has proposed itself.
        known: Digest -> call: the calls whose arguments are known here. Those that the session knows too wait for a person.
        further: Members of the answer's ``data`` that the agent adds.
        usage: What the model has used.
        inner_usage: What the runs inside this one have used.
        conflicts: What could not be merged.
        stop_reason: How the run ended, one of the words of the protocol.
        blocked: The error of the interceptor that ended the turn; None where none did.
        has_run: Whether calls that a person approved have begun. Then the turn ends with an answer, whatever comes after.
        shows_intent: Whether a person who decides reads what the model said with a call.
        is_kept: Whether the server keeps the conversation, so that what is said in this run is added to it.
        is_over: Whether the run has ended.
    """

    base: Session
    messages: list[Message]
    context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tools: Tools = field(default_factory=dict)
    clock: Clock = time.time
    agent: str = "agent"
    outer: RunState | None = field(default=None, repr=False)
    session: Session = field(init=False)
    text: str = field(default="", repr=False)
    executed: list[ExecutedToolCall] = field(default_factory=list)
    decided: list[ExecutedApproval] = field(default_factory=list)
    decided_older: list[ExecutedToolCall] = field(default_factory=list)
    pending: list[Approval] = field(default_factory=list)
    known: dict[str, Approval] = field(default_factory=dict, repr=False)
    further: dict[str, Any] = field(default_factory=dict, repr=False)
    usage: RunUsage = field(default_factory=RunUsage)
    inner_usage: list[RunUsage] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    stop_reason: str = "end_turn"
    blocked: InterceptorError | None = None
    has_run: bool = False
    shows_intent: bool = True
    is_kept: bool = False
    is_over: bool = False
    _earlier: frozenset[str] = frozenset()
    _announced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = begin_overlay(self.base)

    def add_text(self, text: str) -> None:
        """Go on with the answer."""
        self.text += text

    def replace_text(self, text: str, *, stop_reason: str | None = None) -> None:
        """Answer something else instead; None leaves how the run ended."""
        self.text = text
        self.stop_reason = stop_reason or self.stop_reason

    def block(self, error: InterceptorError) -> None:
        """Answer what an interceptor says that has ended the turn."""
        self.blocked = error
        self.replace_text(error.user_message, stop_reason="blocked")

    def end_as(self, stop_reason: str) -> None:
        """Note how the run ended."""
        self.stop_reason = stop_reason

    def replace_messages(self, messages: list[Message]) -> None:
        """Go on from another conversation."""
        self.messages = messages

    def add_data(self, members: Mapping[str, Any]) -> None:
        """Add members to the answer's ``data``."""
        self.further.update(members)

    def add_executed(self, calls: Sequence[ExecutedToolCall], *, count: int) -> None:
        """Note calls that have run, or were refused; ``count`` of them have run.

        Raises:
            SessionValueError: The server keeps the conversation, and what a model wrote into a call may not be stored.
        """
        self.keep(build_step(calls))
        self.executed += calls
        self.usage.tool_calls += count

    def count_model_call(self, usage: RequestUsage) -> None:
        """Note that the model has answered once more, and what that has used."""
        self.usage += usage
        self.usage.requests += 1

    def add_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        """Note what could not be merged."""
        self.conflicts += conflicts

    def count_approved(self, count: int) -> None:
        """Note how many calls that a person approved have begun."""
        self.has_run = count > 0
        self.usage.tool_calls += count

    def add_decided(self, decided: Sequence[ExecutedApproval], older: Sequence[ExecutedToolCall], last: Message) -> None:
        """Note what became of a person's decisions.

        Args:
            decided: Each decision, with what came of it.
            older: Those among them that came in the older form.
            last: The last message, as the agent is to see it.
        """
        self.decided, self.decided_older = list(decided), list(older)
        self.messages[-1] = last

    def keep(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Add messages to the conversation, where the server keeps it: with the next ``commit``.

        Raises:
            SessionValueError: One may not be stored.
        """
        if self.is_kept:
            add_messages(self.session, messages)

    def keep_outcome(self, item: ExecutedToolCall) -> None:
        """The same for what came of a call that a person decided about."""
        if self.is_kept:
            add_outcome(self.session, item)

    def make_runner(self, session: Session | None = None) -> ToolRunner:
        """What runs calls, and adds what clashes among them to this run; None takes the turn's own session."""
        made = ToolRunner.of(self.session if session is None else session)
        made.conflicts = self.conflicts
        return made

    def commit(self) -> None:
        """Make what was done so far part of the base, and go on over that.

        Raises:
            SessionAliasError, SessionValueError: What was done cannot be written. Nothing was committed.
        """
        self._log_same_ids()
        self.add_conflicts(commit_overlay(self.session, self.agent))
        self.session = begin_overlay(self.base)

    def propose(self, tool: Tool[..., Any], id_: str, arguments: dict[str, Any], intent: str | None) -> None:
        """Have a call wait for a person. Inside another run it gets an id that no other run of the session can have.

        Raises:
            ToolApprovalError: Nobody could decide about it: the run around this one does not know the tool.
            ToolArgumentError, SessionValueError: The arguments cannot be proposed. Nothing waits then.
        """
        self._check_reach(tool)
        id_ = id_ if self.outer is None else uuid.uuid4().hex
        shown = intent if self.shows_intent else None
        digest = add_proposal(self.session, id_, tool.name, arguments, now=self.clock(), intent=shown)
        item = Approval(id=id_, name=tool.name, input=arguments, description=tool.description or tool.name, intent=shown)
        self.known[digest] = item
        self.pending.append(item)
        self.stop_reason = "tool_use"

    def add_earlier(self, known: Mapping[str, Approval]) -> None:
        """Note the calls that waited before this turn, as ``find_waiting_calls`` found them."""
        self.known.update(known)
        self._earlier = frozenset(known)

    def find_new_waiting(self) -> list[Approval]:
        """The calls that wait and did not before this turn, oldest first."""
        return [self.known[proposal.digest] for proposal in self._find_proposals() if proposal.digest not in self._earlier]

    def find_waiting(self) -> list[Approval]:
        """The calls that wait for a person, oldest first."""
        return [self.known[proposal.digest] for proposal in self._find_proposals()]

    def announce_waiting(self) -> Iterator[Event]:
        """The events for the calls that wait, the newer form and then the older one, unless they were announced already."""
        waiting = self.find_waiting()
        ids = [item.id for item in waiting]
        if ids != self._announced:
            self._announced = ids
            yield Approvals(approvals=waiting)
            yield ToolCalls(tool_calls=self._to_older_form(waiting))

    def build_data(self) -> Data:
        """The ``data`` of the answer."""
        waiting = self.find_waiting()
        return Data(
            **self.further,
            tool_calls=self._to_older_form(waiting),
            executed_tool_calls=[*self.decided_older, *self.executed],
            approvals=waiting,
            executed_approvals=list(self.decided),
        )

    def sum_usage(self) -> RunUsage:
        """What this run and those inside it have used."""
        total = RunUsage()
        for one in (self.usage, *self.inner_usage):
            total.incr(one)
        return total

    def end(self) -> None:
        """End the run, and report to the one around it."""
        self.is_over = True
        if self.outer is not None:
            self.outer._add_inner(self)

    def _add_inner(self, inner: RunState) -> None:
        self.known.update(inner.known)
        self.inner_usage.append(inner.sum_usage())
        self.add_conflicts(inner.conflicts)

    def _find_proposals(self) -> list[Proposal]:
        """What waits in the session, of the calls that are known here."""
        waiting = pending_in(self.session, self.clock()) if self.known else {}
        return [proposal for proposal in waiting.values() if proposal.digest in self.known]

    def _log_same_ids(self) -> None:
        """Log it where another turn of this session has proposed a call by the same id meanwhile."""
        own = {item.id for item in self.pending}
        theirs = pending_in(self.base, self.clock()) if own else {}
        if any(id_ in own and proposal.digest not in self.known for id_, proposal in theirs.items()):
            logger.warning("dcaf: a call that waited for approval gave way to another turn's call of the same id")

    def _check_reach(self, tool: Tool[..., Any]) -> None:
        """Refuse a call that would wait without anybody being asked, before it is sealed that it waits."""
        if self.outer is None:
            return
        asker = self._find_asker()
        if asker is not self and asker.tools.get(tool.name) != tool:
            logger.warning(UNREACHABLE, self.agent, tool.name, asker.agent)
            raise ToolApprovalError(NOBODY.format(tool=tool.name))
        if asker is self and root_of(state_of(self.base)).standing is None:
            logger.warning(APART, self.agent, tool.name, self.outer.agent)

    def _find_asker(self) -> RunState:
        """The outermost run over the same session: its answer is the one that a person reads."""
        root, found, outer = root_of(state_of(self.base)), self, self.outer
        while outer is not None:
            if not outer.is_over and root_of(state_of(outer.base)) is root:
                found = outer
            outer = outer.outer
        return found

    def _to_older_form(self, waiting: list[Approval]) -> list[PendingToolCall]:
        return [
            PendingToolCall(
                id=item.id,
                name=item.name,
                input=item.input,
                tool_description=item.description,
                input_description=self.tools[item.name].input_schema.get("properties", {}),
                intent=item.intent,
            )
            for item in waiting
            if item.name in self.tools
        ]


def begin_overlay(session: Session) -> Session:
    """A session over another one: what is done to it is its own until it is committed."""
    return Session._over(Overlay(state_of(session)))


def commit_overlay(session: Session, who: str) -> list[Conflict]:
    """Make an overlay part of the session below.

    Args:
        session: As ``begin_overlay`` gave it.
        who: Whose changes these are, for the log.

    Returns:
        What changed below and was not kept; the log says so too.

    Raises:
        SessionAliasError, SessionValueError: What was done to it cannot be written. Nothing was committed.
    """
    state = state_of(session)
    assert isinstance(state, Overlay)
    clashes = [
        Conflict(clash.key, join_path(clash.path), clash.kind, Caller(0, who, None), None) for clash in state.commit().clashes
    ]
    for clash in clashes:
        log_clash(who, OUTSIDE, clash.kind)
    return clashes
