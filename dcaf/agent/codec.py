"""The HelpDesk protocol on any wire: what is taken out of a request's body, and what is written back.

>>> request = ChatRequest.read(b'{"messages":[{"role":"user","content":"hi"}],"thread_id":"t-1"}')
>>> request.messages[-1].content, request.request_context
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

from dcaf.agent.config import require
from dcaf.agent.function_agent import LIBRARY_MEMBERS
from dcaf.agent.helpdesk import READ, Done, Error, Event, Message, MetaData, Shape, Turn
from dcaf.agent.history import OwnMessages, list_problems, read_messages
from dcaf.agent.response import AgentResponse
from dcaf.core.errors import AgentError, ConfigurationError, DcafError, MalformedRequest, SessionUnavailable
from dcaf.tools.platform_context import PLATFORM
from dcaf.tools.results import format_safe_traceback

logger: Final[logging.Logger] = logging.getLogger("dcaf")

MOST_MESSAGES: Final = 5_000
"""Messages of a conversation: to read one and to build a model's history of it takes time that other requests do not have."""

MOST_CALLS: Final = 5_000
"""Calls of tools in a conversation, for the same reason."""

MOST_DECISIONS: Final = 256
"""Decisions of a message: eight times as many as calls can wait at once."""

CALLS: Final = ("approvals", "tool_calls", "executed_approvals", "executed_tool_calls")
"""The members of ``data`` that have calls; those that a person decides on come first."""

CONTEXT_BYTES: Final = 16 * 1024
"""The longest echo of a request's further members."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
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
    def read(cls, body: bytes | str) -> ChatRequest:
        """Read a body.

        Raises:
            MalformedRequest: It is no turn.
            ConfigurationError: It is neither bytes nor a text, or has half of a surrogate pair.
        """
        require("body=", body, bytes | bytearray | str, "the bytes or the text of a body")
        members = _parse_object(body)
        _check_size(members)
        further = {name: value for name, value in members.items() if name not in Turn.model_fields}
        named = {name: members[name] for name in Turn.model_fields if name in members}
        if isinstance(named.get("messages"), list):
            named["messages"] = read_messages(named["messages"], READ)
        try:
            turn = Turn.model_validate(named, context=READ)
        except ValidationError as error:
            raise MalformedRequest(list_problems(error)) from None
        context = {**further, PLATFORM: _find_platform(turn) or {}}
        return cls(OwnMessages(map(_strip_message, turn.messages)), context, _limit_echo(further))

    def build_answer(self, response: AgentResponse) -> dict[str, Any]:
        """The body of an answer in one piece.

        Raises:
            ConfigurationError: It is no AgentResponse.
        """
        require("response=", response, AgentResponse, "the AgentResponse of run_async()")
        return {
            "role": "assistant",
            "content": response.text,
            "data": response.data.model_dump(mode="json", exclude={"session"}),
            "meta_data": self._build_meta_data(response.meta_data),
        }

    def build_event(self, event: Event | AgentResponse) -> dict[str, Any]:
        """What ``run_stream`` yields, as the object of a line or a frame; a response ends the turn.

        Raises:
            ConfigurationError: It is neither an event nor an AgentResponse.
        """
        if not isinstance(event, AgentResponse):
            require("event=", event, Shape, "what run_stream() yields")
            return event.model_dump(mode="json")
        members = event.data.model_dump(mode="json", exclude=set(LIBRARY_MEMBERS))
        data = {name: value for name, value in members.items() if value}
        done = build_done_event(event.stop_reason) | {"meta_data": self._build_meta_data(event.meta_data)}
        return done | ({"data": data} if data else {})

    def _build_meta_data(self, found: MetaData) -> dict[str, Any]:
        echoed = found.model_copy(update={"request_context": self.request_context})
        return echoed.model_dump(mode="json", exclude_none=True)


def build_done_event(stop_reason: str) -> dict[str, Any]:
    """The event that ends a turn which has no answer, for instance with ``"error"``.

    Raises:
        ConfigurationError: The reason is no text.
    """
    require("stop_reason=", stop_reason, str, "a text, as 'error'")
    return Done(stop_reason=stop_reason).model_dump(mode="json", exclude={"meta_data", "data"}) | {"meta_data": {}}


def build_error_event(error: DcafError) -> dict[str, Any]:
    """The event that says why a turn could not be finished.

    Raises:
        ConfigurationError: It is no DcafError.
    """
    require("error=", error, DcafError, "a DcafError")
    event = Error(error=_read_detail(error), code=error.code).model_dump(mode="json")
    return event | _build_problems(error)


def build_problem(error: DcafError) -> dict[str, Any]:
    """The body of a refusal: problem details (RFC 9457), without anything of what was sent.

    Raises:
        ConfigurationError: It is no DcafError.
    """
    require("error=", error, DcafError, "a DcafError")
    status = error.http_status
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _read_detail(error),
        "code": error.code,
    }
    ran = error.ran if isinstance(error, SessionUnavailable) else None
    return problem | _build_problems(error) | ({} if ran is None else {"ran": ran})


def report_failure(error: Exception) -> DcafError:
    """Log an error, and return the one that the client may read.

    Of an error that nobody foresaw the client reads the type, and the log has the type and the place. Neither has its message,
    which may quote what a model, a tool or a person has said.
    """
    if isinstance(error, DcafError):
        logger.warning("dcaf: a turn failed: %s%s", error.code, _join_problems(error))
        return error
    logger.error("dcaf: a turn failed with %s", format_safe_traceback(error))
    return AgentError(type(error).__name__)


def encode_json(value: Any) -> bytes:
    """A value as JSON: integers of any size, and nothing that another parser would refuse."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:  # text that UTF-8 cannot say, which a model or a tool has made
        sound = json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")
        return to_json(json.loads(sound), inf_nan_mode="null")


def _read_detail(error: DcafError) -> str:
    found = getattr(error, "detail", AgentError.detail)
    return found if isinstance(found, str) else AgentError.detail


def _build_problems(error: DcafError) -> dict[str, Any]:
    if not isinstance(error, MalformedRequest):
        return {}
    return {"problems": [{"path": path, "problem": problem} for path, problem in error.problems]}


def _join_problems(error: DcafError) -> str:
    """Path and problem of each misfit, on one line: a path may have a client's own names in it."""
    problems = error.problems if isinstance(error, MalformedRequest) else ()
    found = "; ".join(f"{repr(path)[1:-1]}: {problem}" for path, problem in problems)
    return f" ({found})" if found else ""


def _parse_object(body: bytes | str) -> dict[str, Any]:
    try:
        found = from_json(body, cache_strings=False)
    except ValueError as error:
        raise MalformedRequest([("", f"Invalid JSON: {error}")]) from None
    except TypeError:  # of a text that UTF-8 cannot encode: no client can have sent it
        raise ConfigurationError("body= takes the bytes or the text of a body, not one with half of a surrogate pair.") from None
    if not isinstance(found, dict):
        raise MalformedRequest([("", "Input should be an object")])
    return found


def _check_size(members: Mapping[str, Any]) -> None:
    """Refuse a conversation that is larger than any is, before its messages are validated."""
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


def _find_platform(turn: Turn) -> dict[str, Any] | None:
    """The platform's context: that of the newest message that has one, else the turn's own."""
    found = (message.platform_context for message in reversed(turn.messages) if message.platform_context is not None)
    return next(found, turn.platform_context)


def _strip_message(message: Message) -> Message:
    """A message without the session and the platform's context, which are not for the conversation."""
    data = message.data
    if data is not None and data.session is not None:
        data = data.model_copy(update={"session": None})
    elif message.platform_context is None:
        return message
    return message.model_copy(update={"data": data, "platform_context": None})


def _limit_echo(further: dict[str, Any]) -> dict[str, Any] | None:
    return further if further and len(encode_json(further)) <= CONTEXT_BYTES else None
