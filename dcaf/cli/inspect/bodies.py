"""A JSON text -> the sessions in it: an envelope, the body of a request, or that of an answer.

>>> found = in_json(b'{"messages":[{"data":{"session":{"step":1}}},{"data":{"session":{"step":2}}}]}')
>>> found.what, found.winner, found.why
('a JSON request of 2 messages, 78 bytes', Site(where='messages[1].data.session'), 'the last message that has one')

What a reader gets wrong: the places and their order are not told here. The middleware's own reader finds them, so that the two
cannot differ; this only gives them names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import anyio
import orjson

from dcaf.asgi.body import find_sessions, unopened
from dcaf.asgi.config import MAX_BODY_BYTES
from dcaf.cli.inspection.drawn import count
from dcaf.cli.inspection.reasons import REASONS
from dcaf.cli.inspection.sites import Found, Site
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable
from dcaf.core.state import RESERVED

TOP: Final = "data.session"
ITSELF: Final = "the object itself"
TOO_LARGE: Final = f"A service whose max_body_bytes is the default, {MAX_BODY_BYTES:,}, refuses this body: 413 body-too-large."

Refusal: TypeAlias = "type[SessionError | SessionUnavailable]"

CODES: Final[dict[str, Refusal]] = {SessionUnavailable.code: SessionUnavailable} | {
    kind.code: kind for kind in SessionError.__subclasses__()
}
"""Code of a refusal -> its class."""


def in_json(data: bytes, *, is_answer: bool | None = None) -> Found:
    """Find the sessions of a JSON text.

    Args:
        data: A text whose first byte after white space is a brace.
        is_answer: Whether a service wrote it; None to tell it from the text.

    Raises:
        ConfigurationError: A strict parser refuses it, as the middleware would.
    """
    value, sites, winner = _sessions(data)
    is_answer = _is_answer(value) if is_answer is None else is_answer
    if is_answer and winner is not None and winner.where != TOP:
        winner = None
    if RESERVED in value:
        sites.append(Site(ITSELF, value))
        winner = winner or sites[-1]
    refusal = refused(value.get("code")) if is_answer else None
    return Found(
        f"{_what(value, refusal, is_answer=is_answer)}, {count(len(data), 'byte')}",
        sites,
        winner,
        _why(winner, sites),
        "" if winner else _lack(value, sites, refusal),
        tuple(_notes(refusal, data)),
        is_answer,
    )


def position(data: bytes) -> str:
    """What the strict parser says of a text that it refuses, and where; empty where it refuses nothing."""
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return f"{error.msg.partition(':')[0]}, at line {error.lineno}, column {error.colno}"
    return ""


def refused(code: object) -> Refusal | None:
    """The refusal that has a code; None where none has."""
    return CODES.get(code) if isinstance(code, str) else None


def _sessions(data: bytes) -> tuple[dict[str, Any], list[Site], Site | None]:
    """What the text means, its sessions, and the one that the middleware would verify."""
    try:
        body = anyio.run(find_sessions, data, unopened)
    except SessionError as refusal:
        problem = position(data) or REASONS.get(refusal.reason, refusal.reason)
        raise ConfigurationError(
            f"This looks like JSON, and a service would answer {refusal.http_status} {refusal.code}: {problem}. "
            "Give the text as it was sent, from its first brace to its last."
        ) from None
    value: dict[str, Any] = body.text.value
    sites = [Site(name, place.value) for name, place in zip(_names(value), body.places, strict=True)]
    candidate = body.candidate()
    return value, sites, None if candidate is None else sites[body.places.index(candidate)]


def _names(value: Mapping[str, Any]) -> list[str]:
    """Where the sessions of a body stand, in the order of ``JSONText.find_sessions``."""
    messages = value.get("messages")
    items = list(enumerate(messages)) if isinstance(messages, list) else []
    below = [f"messages[{index}].{TOP}" for index, item in reversed(items) if _has_one(item)]
    return [TOP, *below] if _has_one(value) else below


def _has_one(value: Any) -> bool:
    data = value.get("data") if isinstance(value, dict) else None
    return isinstance(data, dict) and "session" in data


def _is_answer(value: Mapping[str, Any]) -> bool | None:
    if isinstance(value.get("messages"), list):
        return False
    is_told = refused(value.get("code")) or value.get("role") == "assistant" or isinstance(value.get("type"), str)
    return True if is_told else None


def _what(value: Mapping[str, Any], refusal: Refusal | None, *, is_answer: bool | None) -> str:
    if refusal:
        return f"a refusal, {refusal.http_status} {refusal.code}"
    if is_answer is False and isinstance(value.get("messages"), list):
        return f"a JSON request of {count(len(value['messages']), 'message')}"
    if RESERVED in value and not _has_one(value):
        return "an envelope"
    return f"a JSON {'body' if is_answer is None else 'answer' if is_answer else 'request'}"


def _why(winner: Site | None, sites: list[Site]) -> str:
    if winner is None or len(sites) == 1:
        return ""
    if winner.where == TOP:
        return "the top level comes first"
    return "nothing else has one" if winner.where == ITSELF else "the last message that has one"


def _lack(value: Mapping[str, Any], sites: list[Site], refusal: Refusal | None) -> str:
    if refusal:
        return f"{refusal.code} carries none, so the client keeps the one that it has"
    if sites:
        return "; ".join(f"{site.where} is {site.told()}" for site in sites[:3])
    if not isinstance(value.get("data"), dict | None):
        return "`data` is no object, and a session stands in one"
    return "neither `dcaf` nor `data.session` stands in it. A plain object that was a session is one that nobody has sealed"


def _notes(refusal: Refusal | None, data: bytes) -> Iterator[str]:
    if refusal:
        yield f"The service says: {refusal.detail}"
    if len(data) > MAX_BODY_BYTES:
        yield TOO_LARGE
