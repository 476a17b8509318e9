"""What a refused client is told: problem details (RFC 9457), static text, one body a code, byte for byte.

>>> from dcaf.core import SessionInvalid
>>> json_body(SessionInvalid(reason="mac"))["code"]
'session-invalid'

What a reader gets wrong: the reason is for the log. Whatever the cause, two answers of one code are the same bytes.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

from dcaf.core.errors import SessionError, SessionUnavailable

RETRY_AFTER_S: Final = {"session-conflict": "1", "session-unavailable": "1"}
RESTART: Final = {"session": {"dcaf": {"token": "new"}}}
UNREAD: Final = (413, 415)

logger: Final[logging.Logger] = logging.getLogger("dcaf")


def json_body(refusal: SessionError | SessionUnavailable) -> dict[str, Any]:
    """The members of the answer; ``data.session`` only where the client should drop the session it has."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(refusal.http_status).phrase,
        "status": refusal.http_status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    return body | ({"data": RESTART} if refusal.offers_restart else {})


def log_refusal(refusal: SessionError | SessionUnavailable) -> None:
    """Tell the operator why, once: the key id and a digest of the session, never a token, a key, state or a subject.

    Nor the path: before the request is routed nobody knows which part of it names the caller.
    """
    reason, kid, sid = (getattr(refusal, name, None) for name in ("reason", "kid", "sid_digest"))
    level = logging.ERROR if reason == "sub" else logging.WARNING
    logger.log(level, "dcaf: refused: %s (reason %s, kid %s, session %s)", refusal.code, reason, kid, sid)


def problem(refusal: SessionError | SessionUnavailable, *, http_version: str = "1.1") -> Response:
    """The whole answer. Where the body was not read to its end it closes the connection, on HTTP/1.1 alone."""
    headers = {"Cache-Control": "no-store"}
    if refusal.code in RETRY_AFTER_S:
        headers["Retry-After"] = RETRY_AFTER_S[refusal.code]
    if refusal.http_status in UNREAD and http_version.startswith("1"):
        headers["Connection"] = "close"
    return Response(orjson.dumps(json_body(refusal)), refusal.http_status, headers, "application/problem+json")
