"""What a refused client gets: problem details (RFC 9457), and the JSON Schemas of refusals and envelopes for a service's documents.

>>> from dcaf.core import SessionInvalid
>>> build_body(SessionInvalid(reason="mac"))["code"]
'session-invalid'
>>> sorted(REFUSED)
[400, 409, 413, 415, 503]

The text is static: the reason is for the log, and whatever it is, two answers of one code are the same bytes. Nothing is validated
against the schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import anyio
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dcaf.asgi.body import IN_FLIGHT, read_content_length
from dcaf.asgi.headers import Raw
from dcaf.core.envelope import RESTART
from dcaf.core.errors import SessionConflict, SessionError, SessionUnavailable
from dcaf.core.slots import RESERVED

RETRY_AFTER_S: Final = {"session-conflict": "1", "session-unavailable": "1"}
START_OVER: Final = {"session": orjson.loads(RESTART)}
UNREAD: Final = (413, 415)
TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Phrases of RFC 9110 that Python had in another form before 3.13: one answer is the same bytes, whichever runs it."""

POLICY: Final = 1008
"""Close code: a message that violates the policy of the service (RFC 6455, section 7.4.1)."""

LINGER_S: Final = 2.0
UNREAD_S: Final = 0.25
LINGER_BYTES: Final = 512 * 1024
ANNOUNCED_BYTES: Final = 8 * 1024 * 1024
"""For how long, and up to how many bytes, the body of a refused request is read and dropped, so that its client reads the answer: a
connection that is closed while bytes come in is reset, and the answer is lost. A body of an announced length is read whole up to
the last figure; after a longer one the connection stays open for a moment, in which its sender cannot go on and reads."""

ENVELOPE: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Session",
    "description": (
        "The session. A client keeps the object and sends it back as it is; only dcaf.token counts, and the other members show the "
        'state. {"dcaf": {"token": "new"}} asks for a fresh start.'
    ),
    "properties": {
        "dcaf": {
            "type": "object",
            "title": "Seal",
            "properties": {
                "token": {"type": "string"},
                "expires_at": {"type": "integer", "description": "Seconds since the epoch."},
                "restarted": {"type": "string", "description": "Code of the refusal after which this session was started."},
                "retry": {"type": "boolean", "description": "Whether a turn with this session may be sent again."},
            },
            "required": ["token"],
        }
    },
    "required": ["dcaf"],
    "additionalProperties": True,
}
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details (RFC 9457). A session in data replaces the client's.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "applied": {"enum": [True, False, "partial"], "description": "Whether what was asked for was done before."},
        "ran": {"type": "boolean", "description": "Whether the application had run when the session could not be checked."},
        "data": {"type": "object", "properties": {"session": ENVELOPE}, "required": ["session"]},
    },
    "required": ["title", "status", "detail", "code"],
}
REFUSED: Final[dict[int, str]] = {
    400: "The body, or the session in it, is refused.",
    409: "The session has ended, or has moved on, or would have more than it may have.",
    413: "The body or the session is too large.",
    415: "The body is compressed.",
    503: "The session cannot be checked right now.",
}
"""Status of an answer that the middleware may give instead of the application -> what it means."""


def build_body(refusal: SessionError | SessionUnavailable) -> dict[str, Any]:
    """The members of the answer; ``data.session`` only where the client is to drop its session, or to adopt another one."""
    body = {
        "type": "about:blank",
        "title": TITLES.get(refusal.http_status) or HTTPStatus(refusal.http_status).phrase,
        "status": refusal.http_status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    return body | find_members(refusal)


def find_members(refusal: SessionError | SessionUnavailable) -> dict[str, Any]:
    """What a refusal says of the session: that the client is to drop it, or the current envelope where an answer was lost.

    ``applied`` tells whether to send this request again. That envelope has the hint ``retry``, as every one of a store that can
    repair a lost answer, and in any case where the request was not applied. Beside a token that goes
    out in a header or a cookie there is none.
    """
    if refusal.offers_restart:
        return {"data": START_OVER}
    if isinstance(refusal, SessionUnavailable) and refusal.ran is not None:
        return {"ran": refusal.ran}
    if not isinstance(refusal, SessionConflict):
        return {}
    found: dict[str, Any] = {} if refusal.applied is None else {"applied": refusal.applied}
    session = None if refusal.envelope is None else _read_envelope(refusal.envelope)
    if session is not None:
        if refusal.applied is False:
            session[RESERVED]["retry"] = True
        found["data"] = {"session": session}
    return found


def _read_envelope(envelope: bytes) -> dict[str, Any] | None:
    """The envelope that a store gives once more; None where it has only a token, as of a session in a header or a cookie."""
    try:
        session = orjson.loads(envelope)
        return session if isinstance(session[RESERVED]["token"], str) else None
    except (ValueError, TypeError, LookupError):
        return None


def build_problem(refusal: SessionError | SessionUnavailable, *, http_version: str = "1.1") -> Response:
    """The whole answer. On HTTP/1.1 it closes the connection where the body was not read to its end."""
    headers = {"Cache-Control": "no-store"}
    if refusal.code in RETRY_AFTER_S:
        headers["Retry-After"] = RETRY_AFTER_S[refusal.code]
    if is_unread(refusal) and http_version.startswith("1"):
        headers["Connection"] = "close"
    return Response(orjson.dumps(build_body(refusal)), refusal.http_status, headers, "application/problem+json")


def is_unread(refusal: SessionError | SessionUnavailable) -> bool:
    """Whether the body may not have been read to its end."""
    return refusal.http_status in UNREAD or refusal.reason == IN_FLIGHT


def build_error(code: str, **members: Any) -> bytes:
    """The text of an error, as an event or a frame."""
    return orjson.dumps({"type": "error", "code": code, **members})


async def refuse(
    refusal: SessionError | SessionUnavailable,
    scope: Scope,
    receive: Receive,
    send: Send,
    carry: Callable[[Raw], Raw],
    *,
    is_coming: bool = False,
) -> None:
    """Answer with a problem; a WebSocket is closed where the server cannot answer its handshake.

    Args:
        refusal: Why.
        scope, receive, send: Those of the request or of the socket.
        carry: Adds to the headers of the answer what they say of the client's session.
        is_coming: Whether a part of the body is still to be received.
    """
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY, "reason": refusal.code})
        return
    version = scope.get("http_version", "1.1")
    answer = build_problem(refusal, http_version=version)
    answer.raw_headers = list(carry(answer.raw_headers))
    if not is_coming or not version.startswith("1"):
        await answer(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    await _linger(dict(scope["headers"]), receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _linger(headers: Mapping[bytes, bytes], receive: Receive) -> None:
    """Read and drop the rest of a body, as far as the limits allow."""
    announced = read_content_length(headers)
    limit_bytes = ANNOUNCED_BYTES if 0 < announced <= ANNOUNCED_BYTES else LINGER_BYTES
    with anyio.move_on_after(LINGER_S):
        while limit_bytes > 0:
            message = await receive()
            if not message.get("more_body", False):
                return
            limit_bytes -= len(message.get("body", b""))
        if announced:
            await anyio.sleep(UNREAD_S)
