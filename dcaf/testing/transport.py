"""The four wires of the testing clients: where their turns go, what they ask for, and which frame ends a turn.

>>> path_of("websocket", None), path_of("sse", "/ask")
('/api/chat-ws', '/ask')
>>> is_end(None, {"type": "done"}), is_end(None, {"type": "text_delta"})
(True, False)

What a reader gets wrong: a wire is what the client asks for. How an answer is read is decided by the answer, so a stream that is
refused with a JSON problem is read as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

from dcaf.client.arguments import check, check_headers, check_path
from dcaf.core.errors import ConfigurationError

Wire: TypeAlias = Literal["json", "ndjson", "sse", "websocket"]
"""How a turn travels: answered in one piece, as a stream of lines or of server-sent events, or frame by frame."""

Terminal: TypeAlias = Callable[[str | None, Any], bool]
"""Whether a frame ends a turn, as ``SessionMiddleware(terminal=)`` takes it: a function of None and the frame's JSON value."""

SOCKET: Final[Wire] = "websocket"
PATHS: Final[Mapping[Wire, str]] = MappingProxyType(
    {"json": "/api/chat", "ndjson": "/api/chat-stream", "sse": "/api/chat-events", SOCKET: "/api/chat-ws"}
)
ACCEPTED: Final[Mapping[Wire, str]] = MappingProxyType(
    {"json": "*/*", "ndjson": "application/x-ndjson", "sse": "text/event-stream", SOCKET: "*/*"}
)
ENDS: Final = ("done", "error")


def path_of(wire: Wire, path: str | None) -> str:
    """Where the turns of a wire go; None takes the path that agent services of this library have.

    Raises:
        ConfigurationError: There is no such wire, or the path is none.
    """
    known = ", ".join(map(repr, get_args(Wire)))
    if check("wire", wire, str, f"one of {known}") not in PATHS:
        raise ConfigurationError(f"wire={wire!r} is unknown: write one of {known}.")
    return PATHS[wire] if path is None else check_path("path", path)


def headers_of(wire: Wire, headers: Mapping[str, str] | None) -> dict[str, str]:
    """What is sent with every turn: the headers given, which win, and what the wire says of itself.

    Raises:
        ConfigurationError: The headers are none.
    """
    given = check_headers("headers", headers)
    own = {"accept": ACCEPTED[wire]} if wire == SOCKET else {"accept": ACCEPTED[wire], "content-type": "application/json"}
    names = {name.lower() for name in given}
    return given | {name: value for name, value in own.items() if name not in names}


def is_end(_: str | None, value: Any) -> bool:
    """The frame that ends a turn, by default: one of the type ``done``, or ``error``."""
    return isinstance(value, dict) and value.get("type") in ENDS
