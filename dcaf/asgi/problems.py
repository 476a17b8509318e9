"""What a refused client is told: problem details (RFC 9457), static text, one body a code, byte for byte.

>>> from dcaf.core import SessionInvalid
>>> json_body(SessionInvalid(reason="mac"))["code"]
'session-invalid'

What a reader gets wrong: the reason is for the log. Whatever the cause, two answers of one code are the same bytes.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

from dcaf.asgi.flight import IN_FLIGHT
from dcaf.core.envelope import RESTART
from dcaf.core.errors import SessionError, SessionUnavailable

RETRY_AFTER_S: Final = {"session-conflict": "1", "session-unavailable": "1"}
START_OVER: Final = {"session": orjson.loads(RESTART)}
UNREAD: Final = (413, 415)


def json_body(refusal: SessionError | SessionUnavailable) -> dict[str, Any]:
    """The members of the answer; ``data.session`` only where the client should drop the session it has."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(refusal.http_status).phrase,
        "status": refusal.http_status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    return body | ({"data": START_OVER} if refusal.offers_restart else {})


def problem(refusal: SessionError | SessionUnavailable, *, http_version: str = "1.1") -> Response:
    """The whole answer. Where the body was not read to its end it closes the connection, on HTTP/1.1 alone."""
    headers = {"Cache-Control": "no-store"}
    if refusal.code in RETRY_AFTER_S:
        headers["Retry-After"] = RETRY_AFTER_S[refusal.code]
    unread = refusal.http_status in UNREAD or refusal.reason == IN_FLIGHT
    if unread and http_version.startswith("1"):
        headers["Connection"] = "close"
    return Response(orjson.dumps(json_body(refusal)), refusal.http_status, headers, "application/problem+json")
