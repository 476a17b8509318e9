"""Where the session stands in an answer, whatever kind of answer it is.

>>> session_in({"role": "assistant", "data": {"session": {"step": 2}}})
{'step': 2}
>>> session_in({"data": {"session": None}}) is None
True
>>> is_json("application/problem+json; charset=utf-8"), is_dead({"dcaf": {"token": "new"}})
(True, True)

What a reader gets wrong: the status of the answer plays no part. A refusal that carries a session carries it so that the
client drops the one it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
NEW: Final = "new"
"""The token that wishes for a new session (docs/protocol.md, section 1)."""


def session_in(value: Any) -> dict[str, Any] | None:
    """What stands at ``data.session`` of a JSON value, if it is an object; else None."""
    data = value.get("data") if isinstance(value, Mapping) else None
    found = data.get("session") if isinstance(data, Mapping) else None
    return found if isinstance(found, dict) else None


def is_dead(envelope: Mapping[str, Any] | None) -> bool:
    """Whether an envelope that came in says that the session the client had is of no use any more."""
    own = (envelope or {}).get("dcaf")
    return isinstance(own, Mapping) and own.get("token") == NEW


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether an answer of this type is one JSON text."""
    kind = media_type(content_type)
    return kind == "application/json" or kind.endswith("+json")
