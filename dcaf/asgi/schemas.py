"""What stands at ``data.session``, and what a refusal says, as JSON Schemas for the documents of services.

>>> sorted(REFUSED)
[400, 409, 413, 415, 503]

What a reader gets wrong: nothing is validated against them. The middleware reads the token, and tells a refusal by itself.
"""

from __future__ import annotations

from typing import Any, Final

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
                "retry": {"type": "boolean", "description": "Whether to send the message again with this session."},
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
        "data": {"type": "object", "properties": {"session": ENVELOPE}, "required": ["session"]},
    },
    "required": ["title", "status", "detail", "code"],
}
REFUSED: Final[dict[int, str]] = {
    400: "The body, or the session in it, is refused.",
    409: "The session has ended, or has moved on.",
    413: "The body or the session is too large.",
    415: "The body is compressed.",
    503: "The session cannot be checked right now.",
}
"""Status of an answer that the middleware may give instead of the application -> what it means."""
