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
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from dcaf.agent.agent import problems_of
from dcaf.agent.functions import OWN
from dcaf.agent.helpdesk import Done, Error, Event, Message, MetaData, Turn
from dcaf.agent.response import AgentResponse
from dcaf.core.errors import AgentError, DcafError, MalformedRequest
from dcaf.tools.frames import trace
from dcaf.tools.platform import PLATFORM

logger: Final[logging.Logger] = logging.getLogger("dcaf")

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
        try:
            turn = Turn.model_validate_json(body)
        except ValidationError as error:
            raise MalformedRequest(problems_of(error)) from None
        named = [message.platform_context for message in reversed(turn.messages) if message.platform_context is not None]
        platform = named[0] if named else turn.platform_context
        context = {**turn.further, PLATFORM: platform or {}}
        return cls([_bare(message) for message in turn.messages], context, _echoed(turn.further))

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
    logger.error("dcaf: a turn failed with %s", trace(error))
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


def _bare(message: Message) -> Message:
    """A message without what is not for the conversation."""
    data = None if message.data is None else message.data.model_copy(update={"session": None})
    return message.model_copy(update={"platform_context": None, "data": data})


def _echoed(further: dict[str, Any]) -> dict[str, Any] | None:
    return further if further and len(written(further)) <= CONTEXT_BYTES else None
