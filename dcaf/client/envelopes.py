"""Where the session stands in an answer, whatever kind of answer it is, and which session a client holds after it.

>>> find_session({"role": "assistant", "data": {"session": {"step": 2}}})
{'step': 2}
>>> find_session({"data": {"session": None}}) is None
True
>>> old, new = {"step": 2, "dcaf": {"token": "dcaf1s.k7"}}, {"data": {"session": {"dcaf": {"token": "new"}}}}
>>> choose_session(old, {"code": "session-ended", **new}, status=409)
{'dcaf': {'token': 'new'}}
>>> choose_session(old, {"code": "session-unavailable", **new}, status=503) == old
True

An answer that cannot tell, such as one of a proxy, must not end a session that is good. ``choose_session`` is the one place that
decides, for every client and every wire.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
NEW: Final = "new"
"""The token that wishes for a new session (docs/protocol.md, section 1)."""

SUCCESS: Final = range(200, 300)
SEALED: Final = (*SUCCESS, *range(400, 500))
"""Statuses of answers that the service may have sealed a session into: not a redirect, and nothing from 500 on (section 3)."""

REFUSED: Final = (400, 409)
ENDINGS: Final = ("session-unsigned", "session-malformed", "session-invalid", "session-ended")
"""Status and code of the refusals that say that the session is of no use (section 6). After any other one it may be good."""


def find_session(value: Any) -> dict[str, Any] | None:
    """What stands at ``data.session`` of a JSON value, if it is an object; else None."""
    data = value.get("data") if isinstance(value, Mapping) else None
    found = data.get("session") if isinstance(data, Mapping) else None
    return found if isinstance(found, dict) else None


def is_sealed(envelope: Mapping[str, Any] | None) -> bool:
    """Whether an object has a token, as every session of this protocol has."""
    return isinstance(value_at(value_at(envelope, "dcaf"), "token"), str)


def is_dead(envelope: Mapping[str, Any] | None) -> bool:
    """Whether an envelope that came in says that the session the client had is of no use any more."""
    return bool(value_at(value_at(envelope, "dcaf"), "token") == NEW)


def is_dead_by(value: Any, *, status: int | None = None) -> bool:
    """Whether a refusal says that the session is dead: its own status and code say so, and the session in it.

    Args:
        value: The JSON value of an answer, an event or a frame.
        status: Of the answer; None for an event or a frame.
    """
    is_refusal = status in REFUSED if status is not None else _is_error(value)
    return is_refusal and value_at(value, "code") in ENDINGS and is_dead(find_session(value))


def choose_session(held: dict[str, Any] | None, value: Any, *, status: int | None = None) -> dict[str, Any] | None:
    """The session that a client holds after an answer: that of the answer, where it has one, else the one from before.

    Args:
        held: The one from before; None for none.
        value: The JSON value of the whole answer, of an event or a frame; None where it is no JSON.
        status: Of the answer; None for an event or a frame.
    """
    found = find_session(value)
    if found is None or not (status is None or status in SEALED):
        return held
    if is_dead(found) and not _is_served(value, status) and not is_dead_by(value, status=status):
        return held
    return held if is_sealed(held) and not is_sealed(found) else found


def value_at(value: Any, name: str) -> Any:
    """A member of a JSON value; None where it is no object, or has none of that name."""
    return value.get(name) if isinstance(value, Mapping) else None


def parse_json(text: bytes | str) -> Any:
    """The JSON value of an answer, an event or a frame; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether an answer of this type is one JSON text."""
    kind = media_type(content_type)
    return kind == "application/json" or kind.endswith("+json")


def _is_error(value: Any) -> bool:
    return bool(value_at(value, "type") == "error")


def _is_served(value: Any, status: int | None) -> bool:
    """Whether the turn was served: then ``new`` is the application's own word, which has ended the session."""
    return status in SUCCESS if status is not None else not _is_error(value)
