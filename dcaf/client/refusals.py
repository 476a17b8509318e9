"""An answer that is no success -> the error that says so.

>>> refused(503, {"retry-after": "2"}, {"code": "session-unavailable"}).retry_after
datetime.timedelta(seconds=2)
>>> failed({"type": "error", "error": "The tool broke.", "code": "tool"}).code
'tool'

What a reader gets wrong: a session is dead only where the status, the code and the envelope in the answer all say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from dcaf.client.envelopes import is_dead_by, value_at
from dcaf.client.errors import ServiceError, ServiceFailed, SessionDead, TurnConflict, TurnTooLarge

SERVER_ERRORS: Final = 500
TOO_LARGE: Final = 413
CONFLICT: Final = "session-conflict"
TOO_LARGE_CODES: Final = ("body-too-large", "session-too-large")


def code_of(value: Any, *, otherwise: str) -> str:
    """The code that an answer gives."""
    code = value_at(value, "code")
    return code if isinstance(code, str) and code else otherwise


def refused(status: int, headers: Mapping[str, str], value: Any) -> ServiceError:
    """The error of an HTTP answer.

    Args:
        status: Of the answer, not a success.
        headers: By lower-case name.
        value: Its JSON value; None where it is something else.
    """
    code = code_of(value, otherwise=f"http-{status}")
    return _error(code, value, status=status, detail=_text(value, "detail"), retry_after=_seconds(headers.get("retry-after", "")))


def failed(event: Mapping[str, Any]) -> ServiceError:
    """The error of an error event."""
    return _error(code_of(event, otherwise="error"), event, status=None, detail=_text(event, "error"), retry_after=None)


def _error(code: str, value: Any, *, status: int | None, detail: str, retry_after: timedelta | None) -> ServiceError:
    if code == CONFLICT:
        applied = value.get("applied")
        told = applied if isinstance(applied, bool) else None
        return TurnConflict(code, status=status, detail=detail, retry_after=retry_after, applied=told)
    return _class(code, value, status)(code, status=status, detail=detail, retry_after=retry_after)


def _class(code: str, value: Any, status: int | None) -> type[ServiceError]:
    if is_dead_by(value, status=status):
        return SessionDead
    if status == TOO_LARGE or code in TOO_LARGE_CODES:
        return TurnTooLarge
    return ServiceFailed if status is None or status >= SERVER_ERRORS else ServiceError


def _text(value: Any, name: str) -> str:
    """The service's own words; what is no text could be an echo of the request."""
    text = value_at(value, name)
    return text if isinstance(text, str) else ""


def _seconds(text: str) -> timedelta | None:
    """A Retry-After of seconds (RFC 9110, section 10.2.3); None for its other form, a date."""
    return timedelta(seconds=int(text)) if text.isascii() and text.isdigit() and len(text) < len(str(timedelta.max.days)) else None
