"""Which event of a stream, and which frame of a WebSocket, ends a turn.

>>> is_done(None, {"type": "done"}), is_done("done", None), may_be_done(None, b'{"type":"token"}')
(True, True, False)

What a reader gets wrong: the quick looks at the bytes only ever say no. What may be the end is parsed, and then asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from dcaf.asgi.planted import may_plant

Terminal: TypeAlias = Callable[[str | None, Any], bool]
"""Whether an event ends a turn: a function of its name, None where it has none, and its value, None where it is not JSON."""

DONE: Final = "done"


def is_done(name: str | None, value: Any) -> bool:
    """The event that ends a turn, by default: a JSON object with the type ``done``, or a server-sent event of that name."""
    return (isinstance(name, str) and name == DONE) or (isinstance(value, dict) and value.get("type") == DONE)


def may_be_done(name: str | None, data: bytes) -> bool:
    """Whether it is worth while to parse an event to ask ``is_done``; an escaped text could say anything."""
    return name == DONE or data.find(b'"done"') >= 0 or data.find(b"\\u") >= 0


def says_nothing(chunk: bytes) -> bool:
    """Whether no event in some bytes of a stream can be the one that ``is_done`` looks for, nor ``[DONE]``, nor have a session."""
    return chunk.find(b"done") < 0 and chunk.find(b"DONE") < 0 and chunk.find(b"\\u") < 0 and not may_plant(chunk)
