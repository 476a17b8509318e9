"""Why a turn of a client failed, in one tree, split by what the caller can do; and the answers that say so.

    DcafError
    └── ClientError                   this turn's message is not kept: send it again, or say something else
        ├── ServiceError                  the service answered with a problem
        │   ├── SessionDead                   400, 409  the session was of no use; the next turn begins a new one
        │   ├── TurnConflict                  409       the session has moved on, or a turn of it is in progress
        │   ├── TurnTooLarge                  413       the conversation or its session is over a limit
        │   └── ServiceFailed                 5xx       the service could not do it; a stream's error event, too
        ├── ServiceUnreachable            no complete answer came
        ├── AnswerUnreadable              an answer came that is not of this protocol
        ├── ApprovalUnknown               a decision about nothing that waits for one
        ├── TurnOvertaken                 another turn of this conversation began before this one had ended
        └── TurnUnfinished                the reply of a stream was asked for before its end

>>> from dcaf.core.errors import SessionError
>>> error = TurnConflict("session-conflict", status=409, retry_after=timedelta(seconds=1))
>>> error.code, error.status, error.retry_after
('session-conflict', 409, datetime.timedelta(seconds=1))
>>> isinstance(error, SessionError), error.http_status
(False, 502)
>>> error_of_answer(503, {"retry-after": "2"}, {"code": "session-unavailable"}).retry_after
datetime.timedelta(seconds=2)
>>> error_of_event({"type": "error", "error": "The tool broke.", "code": "tool"}).code
'tool'

A session is dead only where the status, the code and the envelope in the answer all say so.

What a reader gets wrong: these are not the errors of ``dcaf.core``. An agent may itself be the client of another one, and
what the other refuses must not look like a refusal of its own caller's session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from types import NoneType
from typing import Any, ClassVar, Final, Literal, TypeAlias

from dcaf.client.arguments import check, refuse
from dcaf.client.envelopes import is_dead_by, value_at
from dcaf.core.errors import DcafError

Applied: TypeAlias = Literal[True, False, "partial"] | None
"""Whether a turn was done before, its answer lost; None where the service does not say."""

AGAIN: Final = re.compile(r"\bagain\b", re.IGNORECASE)
TOKEN: Final = re.compile(r"dcaf1[a-z]\.[\w.-]+")
MAX_DETAIL: Final = 300
"""Characters of a service's own words that are repeated: services echo request bodies in validation errors."""


PARTIAL: Final = "partial"
ADVICE: Final[Mapping[Applied, str]] = {
    True: "This very turn was done before, and what it said is lost. The session is current now: go on.",
    PARTIAL: "This very turn was begun before, and did not come to its end. The session is current now: look at it, then go on.",
    False: "This turn was not done. The session is current now: send the turn again.",
}
"""What to do after a turn whose answer, or the one before, was lost."""


class ClientError(DcafError):
    """A turn did not come to its end. Its message is not kept; the session is the last that the service gave.

    Attributes:
        code: What happened, in one stable word: the service's own where it gave one.
    """

    code = "client"
    http_status: ClassVar[int] = 502


class ServiceError(ClientError):
    """The service answered with a problem.

    Args:
        code: The problem's code; ``http-404`` and the like where the answer has none.
        status: HTTP status; None for an error event on a stream or a WebSocket.
        detail: The service's own words; tokens in it are left out, and it is cut.
        retry_after: How long the service asks to wait; None where it does not say so in seconds.

    Raises:
        ConfigurationError: An argument is of a wrong type.
    """

    todo: ClassVar[str] = "Correct the request, then send the turn again."

    def __init__(self, code: str, *, status: int | None = None, detail: str = "", retry_after: timedelta | None = None) -> None:
        check("code", code, str, "a text")
        check("status", status, (int, NoneType), "an HTTP status, or None")
        check("detail", detail, str, "a text")
        check("retry_after", retry_after, (timedelta, NoneType), "a timedelta, or None")
        self.code = code  # type: ignore[misc]  # a class has one code elsewhere in the tree: here the service has the word
        self.status = status
        self.detail: str = TOKEN.sub("[token]", detail)[:MAX_DETAIL]
        self.retry_after = retry_after
        super().__init__(self._message())

    def _message(self) -> str:
        how = "an error event" if self.status is None else str(self.status)
        words = f": {self.detail.rstrip('.')}" if self.detail else ""
        has_advice = AGAIN.search(self.detail) and AGAIN.search(self.todo) and self._advice() == self.todo
        todo = "" if has_advice else f" {self._advice()}"
        wait = f" It asks to wait {self.retry_after.total_seconds():g} s." if self.retry_after is not None else ""
        return f"The service answered with {how}, {self.code}{words}.{todo}{wait}"

    def _advice(self) -> str:
        return self.todo


class SessionDead(ServiceError):
    """The session was of no use to the service, and has been dropped: the next turn begins a new one."""

    todo = "This client has dropped the session: the next turn must say once more what it knew."


class TurnConflict(ServiceError):
    """The session has moved on, or a turn of it is in progress. If the service gave the current one, it is kept now.

    Args:
        code: As for ServiceError.
        status: As for ServiceError.
        detail: As for ServiceError.
        retry_after: As for ServiceError.
        applied: Whether this very turn has been done before, its answer lost: True, and what it said is lost, while the session is
            current; ``"partial"`` where it did not come to its end; False where it was not done; None where the service does not
            say.

    Raises:
        ConfigurationError: An argument is of a wrong type.
    """

    todo = "When the other turn has ended, send this one again."

    def __init__(
        self,
        code: str,
        *,
        status: int | None = None,
        detail: str = "",
        retry_after: timedelta | None = None,
        applied: Applied = None,
    ) -> None:
        if not (isinstance(applied, bool | NoneType) or applied == PARTIAL):
            refuse("applied", applied, 'True, False, "partial", or None')
        self.applied: Applied = applied
        super().__init__(code, status=status, detail=detail, retry_after=retry_after)

    def _advice(self) -> str:
        return self.todo if self.applied is None else ADVICE[self.applied]


class TurnTooLarge(ServiceError):
    """The conversation or its session is over a limit of the service."""

    todo = "Shorten the conversation (client.messages), or have the agent store less, then send the turn again."


class ServiceFailed(ServiceError):
    """The service could not do it. The client's session is good, so the turn can be sent again."""

    todo = "Send the turn again later."


class ServiceUnreachable(ClientError):
    """No complete answer came: no connection, a timeout, or a stream that broke off. Whether the turn ran is not known."""

    code = "service-unreachable"


class AnswerUnreadable(ClientError):
    """An answer came that is not of this protocol: probably the address or the path is another service's."""

    code = "answer-unreadable"


class ApprovalUnknown(ClientError):
    """A decision about nothing that waits for one, or a refusal that gives no reason. Nothing was sent."""

    code = "approval-unknown"


class TurnOvertaken(ClientError):
    """Another turn of the conversation began before this one had ended. A conversation has one turn at a time."""

    code = "turn-overtaken"


class TurnUnfinished(ClientError):
    """The reply of a stream was asked for before its end. Read its events to the last one first."""

    code = "turn-unfinished"


SERVER_ERRORS: Final = 500
TOO_LARGE: Final = 413
CONFLICT: Final = "session-conflict"
TOO_LARGE_CODES: Final = ("body-too-large", "session-too-large")


def code_of(value: Any, *, otherwise: str) -> str:
    """The code that an answer gives."""
    code = value_at(value, "code")
    return code if isinstance(code, str) and code else otherwise


def error_of_answer(status: int, headers: Mapping[str, str], value: Any) -> ServiceError:
    """The error of an HTTP answer.

    Args:
        status: Of the answer, not a success.
        headers: By lower-case name.
        value: Its JSON value; None where it is something else.
    """
    code = code_of(value, otherwise=f"http-{status}")
    return _build_error(
        code, value, status=status, detail=_text_at(value, "detail"), retry_after=_parse_seconds(headers.get("retry-after", ""))
    )


def error_of_event(event: Mapping[str, Any]) -> ServiceError:
    """The error of an error event."""
    return _build_error(code_of(event, otherwise="error"), event, status=None, detail=_text_at(event, "error"), retry_after=None)


def _build_error(code: str, value: Any, *, status: int | None, detail: str, retry_after: timedelta | None) -> ServiceError:
    if code == CONFLICT:
        applied = value.get("applied")
        known: Applied = applied if isinstance(applied, bool) or applied == PARTIAL else None
        return TurnConflict(code, status=status, detail=detail, retry_after=retry_after, applied=known)
    return _choose_class(code, value, status)(code, status=status, detail=detail, retry_after=retry_after)


def _choose_class(code: str, value: Any, status: int | None) -> type[ServiceError]:
    if is_dead_by(value, status=status):
        return SessionDead
    if status == TOO_LARGE or code in TOO_LARGE_CODES:
        return TurnTooLarge
    return ServiceFailed if status is None or status >= SERVER_ERRORS else ServiceError


def _text_at(value: Any, name: str) -> str:
    """The service's own words; what is no text could be an echo of the request."""
    text = value_at(value, name)
    return text if isinstance(text, str) else ""


def _parse_seconds(text: str) -> timedelta | None:
    """A Retry-After of seconds (RFC 9110, section 10.2.3); None for its other form, a date."""
    return timedelta(seconds=int(text)) if text.isascii() and text.isdigit() and len(text) < len(str(timedelta.max.days)) else None
