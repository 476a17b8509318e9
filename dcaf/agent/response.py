"""What an agent answers: the text, its data, and the session after the turn.

What a reader gets wrong: ``session`` is the state as a dict, to be read. Give the next turn ``state``: it has the calls that wait
for approval, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python

from dcaf.agent.config import require
from dcaf.agent.helpdesk import COMPLETE, Approval, Data, Message, MetaData
from dcaf.core.errors import ConfigurationError, InterceptorError
from dcaf.core.session import Session
from dcaf.tools.queue import Conflict


@dataclass(frozen=True, slots=True)
class AgentResponse:
    """The answer of one turn.

    Attributes:
        text: What the user reads.
        data: The calls that have run and those that wait, and what the agent adds; the session is not in it.
        state: The session after the turn.
        messages: The conversation with this answer at its end, to go on from.
        usage: What the model has used, summed over its calls.
        stop_reason: How the turn ended: ``end_turn``, ``tool_use`` where calls wait, ``max_tokens`` where it was cut off, and
            others, with the same words as on the wire.
        blocked: The interceptor's error; None where none ended the turn.
        conflicts: What another turn of the same session has changed at the same time, of which one change was not kept.
        type: ``done``: the response is the last event of a run.
    """

    text: str = field(repr=False)
    data: Data = field(repr=False)
    state: Session
    messages: list[Message] = field(repr=False)
    usage: RunUsage
    stop_reason: str = "end_turn"
    blocked: InterceptorError | None = None
    conflicts: list[Conflict] = field(default_factory=list, repr=False)
    _plain: bytes | None = field(default=None, repr=False)
    type: ClassVar[str] = "done"

    @property
    def session(self) -> dict[str, Any]:
        """The state after the turn, as plain JSON in a dict of its own; it stays what it was when the state goes on."""
        found: dict[str, Any] = self.state.to_dict() if self._plain is None else orjson.loads(self._plain)
        return found

    @property
    def needs_approval(self) -> bool:
        """Whether calls wait for a person."""
        return bool(self.data.approvals)

    @property
    def approvals(self) -> list[Approval]:
        """The calls that wait for a person."""
        return list(self.data.approvals)

    @property
    def meta_data(self) -> MetaData:
        """What a client may show of the turn."""
        return MetaData(
            has_pending_approvals=self.needs_approval,
            is_complete=not self.needs_approval and self.stop_reason in COMPLETE,
            stop_reason=self.stop_reason,
            blocked=None if self.blocked is None else _describe_block(self.blocked),
            request_context=None,
        )

    def to_message(self) -> dict[str, Any]:
        """The message of the HelpDesk protocol, with the session as plain state in its ``data``."""
        data = self.data.model_dump(mode="json", exclude_none=True) | {"session": self.session}
        return {"role": "assistant", "content": self.text, "data": data}

    def decided(self, decisions: Mapping[str, bool | str], text: str = "") -> Message:
        """The user's next message: decisions about the calls that wait.

        Args:
            decisions: Id of a call -> True to run it, or the reason why not.
            text: What else the user says.

        Raises:
            ConfigurationError: No such call waits; or False, for which a reason is due; or an argument is of another kind.
        """
        require("decisions= of decided()", decisions, Mapping, "a dict, id of a call -> True or the reason why not")
        require("text= of decided()", text, str, "a text")
        waiting = {item.id: item for item in self.data.approvals}
        made = []
        for id_, decision in decisions.items():
            if id_ not in waiting:
                raise ConfigurationError(f"No call {id_!r} waits. Those that do: {', '.join(waiting) or 'none'}.")
            if decision is not True and not (isinstance(decision, str) and decision):
                raise ConfigurationError(
                    f"{id_!r}: a yes is True, and a no is its reason, for the model to know: give it as a text."
                )
            said = {"execute": True} if decision is True else {"rejection_reason": decision}
            made.append(waiting[id_].model_copy(update=said))
        return Message(role="user", content=text, data=Data(approvals=made))


def _describe_block(error: InterceptorError) -> dict[str, Any]:
    """What a program may read of why a turn was ended; details that are no JSON as their text, or not at all."""
    try:
        details = to_jsonable_python(error.details, serialize_unknown=True)
    except (ValueError, RecursionError):
        details = None
    return {"reason": error.reason, "details": details}
