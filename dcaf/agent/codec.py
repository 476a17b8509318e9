"""One request of the HelpDesk protocol and its answer, on any wire: what is taken out of a body, and what is written back.

>>> asked = Asked.read(b'{"messages":[{"role":"user","content":"hi"}],"thread_id":"t-1"}')
>>> asked.messages[-1].content, asked.request_context
('hi', {'thread_id': 't-1'})

What a reader gets wrong: the platform's context is taken out of the messages. It is in the context that tools may ask for, and in
nothing that is echoed, stored or shown to a model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from dcaf.agent.function_agent import OWN
from dcaf.agent.history import Fresh, problems_of, read
from dcaf.agent.models import READ, Done, Error, Event, Message, MetaData, Turn
from dcaf.agent.response import AgentResponse
from dcaf.core.errors import AgentError, DcafError, MalformedRequest
from dcaf.tools.platform_context import PLATFORM
from dcaf.tools.results import format_safe_traceback

logger: Final[logging.Logger] = logging.getLogger("dcaf")

MOST_MESSAGES: Final = 5_000
MOST_CALLS: Final = 5_000
"""Of a conversation: what each of them costs, reading, telling a model and answering, is time that nobody else has."""

MOST_DECISIONS: Final = 256
"""Of a message: eight times as many as can wait at once."""

CALLS: Final = ("approvals", "tool_calls", "executed_approvals", "executed_tool_calls")
"""The members of ``data`` that have them; those that a person decides on come first."""

CONTEXT_BYTES: Final = 16 * 1024
"""The longest echo of a request's further members."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks.

    Attributes:
        messages: The conversation, without sessions and without the platform's context.
        context: The body's further members, and ``platform_context``: for interceptors, agent functions and tools.
        request_context: What is echoed of it; None where it is too long, or there is nothing.
    """

    messages: list[Message] = field(repr=False)
    context: dict[str, Any] = field(repr=False)
    request_context: dict[str, Any] | None = field(repr=False)

    @classmethod
    def read(cls, body: bytes | str) -> Asked:
        """Read a body.

        Raises:
            MalformedRequest: It is no turn.
        """
        members = _members(body)
        _check_size(members)
        further = {name: value for name, value in members.items() if name not in Turn.model_fields}
        named = {name: members[name] for name in Turn.model_fields if name in members}
        if isinstance(named.get("messages"), list):
            named["messages"] = read(named["messages"], READ)
        try:
            turn = Turn.model_validate(named, context=READ)
        except ValidationError as error:
            raise MalformedRequest(problems_of(error)) from None
        told = (message.platform_context for message in reversed(turn.messages) if message.platform_context is not None)
        platform = next(told, turn.platform_context)
        return cls(Fresh(map(_bare, turn.messages)), {**further, PLATFORM: platform or {}}, _echoed(further))

    def answer(self, response: AgentResponse) -> dict[str, Any]:
        """The body of an answer in one piece."""
        return {
            "role": "assistant",
            "content": response.text,
            "data": response.data.model_dump(mode="json", exclude={"session"}),
            "meta_data": self._meta_data(response.meta_data),
        }

    def event(self, event: Event | AgentResponse) -> dict[str, Any]:
        """An event, as an object; the last one is the end of the turn."""
        if not isinstance(event, AgentResponse):
            return event.model_dump(mode="json")
        further = event.data.model_dump(mode="json", exclude=set(OWN))
        told = {name: value for name, value in further.items() if value}
        return ended(event.stop_reason, self._meta_data(event.meta_data)) | ({"data": told} if told else {})

    def _meta_data(self, found: MetaData) -> dict[str, Any]:
        echoed = found.model_copy(update={"request_context": self.request_context})
        return echoed.model_dump(mode="json", exclude_none=True)


def ended(stop_reason: str, meta_data: dict[str, Any] | None = None) -> dict[str, Any]:
    """The event that ends a turn."""
    return Done(stop_reason=stop_reason).model_dump(mode="json", exclude={"meta_data", "data"}) | {"meta_data": meta_data or {}}


def failed(error: DcafError) -> dict[str, Any]:
    """The event that says why a turn could not be finished."""
    told = Error(error=_detail(error), code=error.code).model_dump(mode="json")
    return told | {"problems": _problems(error)} if isinstance(error, MalformedRequest) else told


def problem(error: DcafError) -> dict[str, Any]:
    """The body of a refusal: problem details (RFC 9457), without anything of what was sent."""
    status = error.http_status
    told = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _detail(error),
        "code": error.code,
    }
    return told | {"problems": _problems(error)} if isinstance(error, MalformedRequest) else told


def refused(error: Exception) -> DcafError:
    """An error as the client may hear of it, and told to the operator: of one that nobody foresaw, the type and where it was.

    Never its message, which may quote what a model, a tool or a person has said.
    """
    if isinstance(error, DcafError):
        logger.warning("dcaf: a turn failed: %s%s", error.code, _listed(error) if isinstance(error, MalformedRequest) else "")
        return error
    logger.error("dcaf: a turn failed with %s", format_safe_traceback(error))
    return AgentError(type(error).__name__)


def written(value: Any) -> bytes:
    """A value as JSON: integers of any size, and nothing that another parser would refuse."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:  # text that UTF-8 cannot say, which a model or a tool has made
        sound = json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")
        return to_json(json.loads(sound), inf_nan_mode="null")


def _detail(error: DcafError) -> str:
    found = getattr(error, "detail", AgentError.detail)
    return found if isinstance(found, str) else AgentError.detail


def _problems(error: MalformedRequest) -> list[dict[str, str]]:
    return [{"path": path, "problem": problem} for path, problem in error.problems]


def _listed(error: MalformedRequest) -> str:
    """Path and problem of each misfit, on one line: a path may have a client's own names in it."""
    found = "; ".join(f"{repr(path)[1:-1]}: {problem}" for path, problem in error.problems)
    return f" ({found})" if found else ""


def _members(body: bytes | str) -> dict[str, Any]:
    try:
        found = from_json(body, cache_strings=False)
    except ValueError as error:
        raise MalformedRequest([("", f"Invalid JSON: {error}")]) from None
    if not isinstance(found, dict):
        raise MalformedRequest([("", "Input should be an object")])
    return found


def _check_size(members: Mapping[str, Any]) -> None:
    """Refuse a conversation that is larger than any is, before it is looked at: it would take the loop from all others."""
    messages = members.get("messages")
    if not isinstance(messages, list) or not messages:
        return
    if len(messages) > MOST_MESSAGES:
        raise MalformedRequest([("messages", f"a conversation may have {MOST_MESSAGES} messages at most")])
    calls = [_count_calls(message) for message in messages]
    if sum(map(sum, calls)) > MOST_CALLS:
        raise MalformedRequest([("messages", f"a conversation may have {MOST_CALLS} calls of tools at most")])
    if max(calls[-1][:2]) > MOST_DECISIONS:
        raise MalformedRequest([(f"messages.{len(messages) - 1}.data", f"a message may decide {MOST_DECISIONS} calls at most")])


def _count_calls(message: Any) -> list[int]:
    """How many calls of each kind a message has, in the order of CALLS."""
    data = message.get("data") if isinstance(message, dict) else None
    lists = [data.get(name) if isinstance(data, dict) else None for name in CALLS]
    return [len(found) if isinstance(found, list) else 0 for found in lists]


def _bare(message: Message) -> Message:
    """A message without what is not for the conversation."""
    if message.platform_context is not None:
        message.platform_context = None
    if message.data is not None and message.data.session is not None:
        message.data.session = None
    return message


def _echoed(further: dict[str, Any]) -> dict[str, Any] | None:
    return further if further and len(written(further)) <= CONTEXT_BYTES else None
