"""Describe why an answer cannot carry the session, in words for whoever wrote the route.

>>> start = {"status": 200, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
>>> describe_answer("POST", start, b"hello", limit_bytes=1024)
'is text/plain, which cannot carry it'

This is found only when the error is raised, since most answers carry the session. Nothing of an answer's content is in it.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Message

from dcaf.asgi.headers import find_encoding, is_json_type, media_type
from dcaf.asgi.lifecycle import parse
from dcaf.asgi.streams import choose_cutter

PARTIAL: Final = 206
BODILESS: Final = (204, 205, 304)
NOT_WHOLE: Final = (*BODILESS, PARTIAL)
"""Statuses of answers without a body, and with a part of one."""

REDIRECTS: Final = (301, 302, 303, 307, 308)
NAMES: Final[dict[type, str]] = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}

COMPRESSED: Final = "mount compression outside SessionMiddleware"
PASSED: Final = "is a stream that pass_streams= leaves alone"
REMEDY: Final = (
    "Answer with a JSON object whose `data` is an object, absent or null, with NDJSON or with server-sent events; or let the "
    'session travel in a header or a cookie, SessionMiddleware(..., carriers=("header",)); or leave the session alone.'
)


def describe_uncarried(route: str, finding: str) -> str:
    """The whole message: the route, the finding, and what to do."""
    remedy = "" if finding.endswith(COMPRESSED) else f" {REMEDY}"
    return f"{route} changed the session, and its answer {finding}.{remedy}"


def describe_answer(method: str, start: Message, data: bytes | bytearray | None, *, limit_bytes: int) -> str:
    """What it is about an answer that keeps it from carrying the session.

    Args:
        method: Of the request.
        start: The start of the answer.
        data: Its body, or the beginning of one that is too long; None where the middleware has not read it.
        limit_bytes: The longest body that is completed.
    """
    kind, encoded = media_type(start["headers"]), find_encoding(start["headers"])
    if method == "HEAD" or start["status"] in BODILESS:
        return "is one to HEAD, which has no body" if method == "HEAD" else f"has no body ({start['status']})"
    if start["status"] == PARTIAL:
        return "is partial (206)"
    if encoded:
        return f"is compressed ({encoded}): {COMPRESSED}"
    return _describe_body(data, limit_bytes) if is_json_type(kind) else _describe_kind(kind, start["status"])


def _describe_kind(kind: str, status: int) -> str:
    if choose_cutter(kind, 1) is not None:
        return PASSED
    if status in REDIRECTS:
        return f"is a redirect ({status})"
    return f"is {kind}, which cannot carry it" if kind else "has no Content-Type"


def _describe_body(data: bytes | bytearray | None, limit_bytes: int) -> str:
    if not data:
        return "is empty" if data == b"" else "is sent by the server itself"
    if len(data) > limit_bytes:
        return f"is over max_response_bytes ({limit_bytes:,})"
    text = parse(bytes(data))
    return "is not strict JSON" if text is None else _describe_value(text.value)


def _describe_value(value: Any) -> str:
    if not isinstance(value, dict):
        return f"is a JSON {NAMES[type(value)]}"
    below = value.get("data")
    if below is not None and not isinstance(below, dict):
        return f'has a {"list" if isinstance(below, list) else NAMES[type(below)]} at "data"'
    return "repeats a member on the way to data.session, or is nested too deep"
