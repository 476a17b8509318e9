"""The state of one run: what was said, what has run, what waits; and where its parts are committed.

Where a part of a turn is made part of the session, or of a larger part; what gave way there is told, as it is of tools.

>>> session = Session.from_dict({"n": 0})
>>> one, other = begin_overlay(session), begin_overlay(session)
>>> one["n"], other["n"] = one["n"] + 1, other["n"] + 1
>>> commit_overlay(one, "the first"), [(clash.key, clash.kind, clash.kept.tool) for clash in commit_overlay(other, "the second")]
([], [('n', 'stale-read', 'the second')])

What a reader gets wrong: nothing here merges. An overlay does, and says what it could not keep; here nobody may throw that away.

One turn's answer while it is being made: what was said, what has run, what waits.

What a reader gets wrong: which calls wait is not kept here. It is what the session knows as waiting, of the calls whose arguments
the turn knows; a call of an agent that a tool has asked is among them, and one whose tool failed afterwards is not.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from pydantic_ai.usage import RunUsage

from dcaf.agent.models import (
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
from dcaf.core.errors import ToolApprovalError
from dcaf.core.mapping import state_of
from dcaf.core.parts import join_path
from dcaf.core.session import Session
from dcaf.core.transaction import OUTSIDE, Overlay, log_clash
from dcaf.tools.proposals import Proposal, add_proposal, pending_in, root_of
from dcaf.tools.queue import Caller, Conflict
from dcaf.tools.runner import ToolRunner
from dcaf.tools.tool import Tool


def begin_overlay(session: Session) -> Session:
    """A session over another one: what is done to it is its own until it is committed."""
    return Session._over(Overlay(state_of(session)))


def commit_overlay(session: Session, who: str) -> list[Conflict]:
    """Make an overlaid session part of the one below; gives, and tells the operator, what changed there and was not kept.

    Args:
        session: As ``begin_overlay`` gave it.
        who: Whose changes these are, for the log.

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


logger: Final[logging.Logger] = logging.getLogger("dcaf")

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

around: Final[ContextVar[Draft | None]] = ContextVar("dcaf_turn_around", default=None)
"""The turn of an agent that is going on here: one that begins inside it hands back what waits and what it has used."""


@dataclass(slots=True, eq=False)
class Draft:
    """One answer in the making.

    Attributes:
        base: The session that the turn is about.
        messages: The conversation, the last message with what became of its decisions.
        context: What the caller gave for this turn.
        tools: Those whose calls a person can decide about.
        clock: Seconds since the epoch.
        agent: Whose answer it is, for the log.
        outer: The turn around this one, in a tool of which, or in an agent function, this one was begun.
        session: The turn's own, over the base.
        text: What was said so far.
        executed: The calls that have run.
        decided: What became of a person's decisions.
        decided_older: What became of those among them that came in the older form.
        pending: The calls that this turn has proposed itself.
        known: The calls whose arguments are known here, by their digests; those that the session knows too wait for a person.
        further: Members of the answer's ``data`` that the agent adds.
        usage: What the model has used.
        inner_usage: What the turns inside this one have used.
        conflicts: What could not be merged.
        stop_reason: How it ended, one of the words of the protocol.
        has_run: Whether calls that a person approved have begun: then the turn ends with an answer, whatever comes after.
        tells_intent: Whether a person who decides is told what the model said beside a call.
        is_over: Whether the turn has ended.
    """

    base: Session
    messages: list[Message]
    context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tools: Tools = field(default_factory=dict)
    clock: Clock = time.time
    agent: str = "agent"
    outer: Draft | None = field(default=None, repr=False)
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
    has_run: bool = False
    tells_intent: bool = True
    is_over: bool = False
    _earlier: frozenset[str] = frozenset()
    _told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = begin_overlay(self.base)

    def runner(self, session: Session | None = None) -> ToolRunner:
        """What runs the calls; what clashes among them stands in this draft. None takes the turn's own session."""
        made = ToolRunner.of(self.session if session is None else session)
        made.conflicts = self.conflicts
        return made

    def commit(self) -> None:
        """Make what was done so far part of the base, and go on over that. Raises as ``commit_overlay``."""
        self._tell_of_same_ids()
        self.conflicts += commit_overlay(self.session, self.agent)
        self.session = begin_overlay(self.base)

    def propose(self, tool: Tool[..., Any], id_: str, arguments: dict[str, Any], intent: str | None) -> None:
        """Have a call wait for a person. Inside another turn it gets an id that no turn beside this one can have.

        Raises:
            ToolApprovalError: Nobody could decide about it: the turn around this one does not know the tool.
            ToolArgumentError, SessionValueError: As ``dcaf.tools.propose``. Nothing waits then.
        """
        self._check_reach(tool)
        id_ = id_ if self.outer is None else uuid.uuid4().hex
        told = intent if self.tells_intent else None
        digest = add_proposal(self.session, id_, tool.name, arguments, now=self.clock(), intent=told)
        item = Approval(id=id_, name=tool.name, input=arguments, description=tool.description or tool.name, intent=told)
        self.known[digest] = item
        self.pending.append(item)
        self.stop_reason = "tool_use"

    def recall(self, known: Mapping[str, Approval]) -> None:
        """Know the calls that waited before this turn, as ``waiting_calls`` found them."""
        self.known.update(known)
        self._earlier = frozenset(known)

    def asks_anew(self) -> bool:
        """Whether a call waits that did not before this turn."""
        return any(proposal.digest not in self._earlier for proposal in self._proposals())

    def waiting(self) -> list[Approval]:
        """The calls that wait for a person, oldest first."""
        return [self.known[proposal.digest] for proposal in self._proposals()]

    def tell_waiting(self) -> Iterator[Event]:
        """The events that tell which calls wait, the newer form and then the older one, where that is not what was told last."""
        waiting = self.waiting()
        ids = [item.id for item in waiting]
        if ids != self._told:
            self._told = ids
            yield Approvals(approvals=waiting)
            yield ToolCalls(tool_calls=self._older(waiting))

    def data(self) -> Data:
        """What stands beside the text of the answer."""
        waiting = self.waiting()
        return Data(
            **self.further,
            tool_calls=self._older(waiting),
            executed_tool_calls=[*self.decided_older, *self.executed],
            approvals=waiting,
            executed_approvals=list(self.decided),
        )

    def total_usage(self) -> RunUsage:
        """What this turn has used, and those inside it."""
        total = RunUsage()
        for one in (self.usage, *self.inner_usage):
            total.incr(one)
        return total

    def end(self) -> None:
        """Hand back to the turn around this one what it is to tell."""
        self.is_over = True
        if self.outer is not None:
            self.outer.known.update(self.known)
            self.outer.inner_usage.append(self.total_usage())
            self.outer.conflicts += self.conflicts

    def _proposals(self) -> list[Proposal]:
        """What the session knows as waiting, of the calls that are known here."""
        waiting = pending_in(self.session, self.clock()) if self.known else {}
        return [proposal for proposal in waiting.values() if proposal.digest in self.known]

    def _tell_of_same_ids(self) -> None:
        """Tell the operator where another turn of this session, beside this one, has proposed a call by the same id."""
        own = {item.id for item in self.pending}
        theirs = pending_in(self.base, self.clock()) if own else {}
        if any(id_ in own and proposal.digest not in self.known for id_, proposal in theirs.items()):
            logger.warning("dcaf: a call that waited for approval gave way to another turn's call of the same id")

    def _check_reach(self, tool: Tool[..., Any]) -> None:
        """Refuse a call that would wait without anybody being asked, before it is sealed that it waits."""
        if self.outer is None:
            return
        asker = self._asker()
        if asker is not self and asker.tools.get(tool.name) != tool:
            logger.warning(UNREACHABLE, self.agent, tool.name, asker.agent)
            raise ToolApprovalError(NOBODY.format(tool=tool.name))
        if asker is self and root_of(state_of(self.base)).standing is None:
            logger.warning(APART, self.agent, tool.name, self.outer.agent)

    def _asker(self) -> Draft:
        """The outermost turn over the same session: its answer is the one that a person reads."""
        root, found, outer = root_of(state_of(self.base)), self, self.outer
        while outer is not None:
            if not outer.is_over and root_of(state_of(outer.base)) is root:
                found = outer
            outer = outer.outer
        return found

    def _older(self, waiting: list[Approval]) -> list[PendingToolCall]:
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


class Mind(Protocol):
    """What answers a conversation: a model, or a function that somebody wrote."""

    def answer(self, draft: Draft) -> AsyncGenerator[Event, None]:
        """Go on from the messages of a draft, note in it what happens, and tell of it as it happens.

        Raises:
            AgentError: It could not be finished.
        """
