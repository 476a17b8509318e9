"""One answer, on whatever wire it came: its text, its events, its session and its refusal.

>>> reply = Reply.of_frames(['{"type":"text_delta","text":"Hi"}', '{"type":"done","data":{"session":{"step":2}}}'], sent_bytes=9)
>>> reply.text, reply.session, reply.code
('Hi', {'step': 2}, None)
>>> [event["type"] for event in reply.events]
['text_delta', 'done']

What a reader gets wrong: a stream that was refused on its way has the status 200. Ask for ``code``, which says on every wire
whether the turn was served.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Final, Self

from dcaf.client.arguments import check, check_many
from dcaf.client.arrival import LINES, SUCCESS, is_json, session_in
from dcaf.client.reply import Event, gathered
from dcaf.testing.arrival import events_in, held, is_stream

SWITCHED: Final = 101
"""Switching Protocols: what a service answers that opens a WebSocket (RFC 6455, section 1.3)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        status: HTTP status; 101 for a turn on a WebSocket.
        body: The JSON body; None where it is something else.
        headers: By lower-case name; none for a turn on a WebSocket.
        sent_bytes: Length of the request's body, or of the frame.
        content: The bytes of the body. Of a WebSocket each frame as one line.
        close_code: With what the service closed the WebSocket before the turn had ended; 1006 where it only broke off, and
            None where it did not.

    Raises:
        ConfigurationError: One of them is of a wrong type.
    """

    status: int
    body: Any
    headers: Mapping[str, str]
    sent_bytes: int
    content: bytes = field(default=b"", repr=False)
    close_code: int | None = None

    def __post_init__(self) -> None:
        for name in ("status", "sent_bytes"):
            check(name, getattr(self, name), int, "a number")
        check("headers", self.headers, Mapping, "a mapping: lower-case name -> value")
        check("content", self.content, bytes, "the bytes of the body")
        check("close_code", self.close_code, (int, NoneType), "a close code, or None")

    @classmethod
    def of_answer(cls, status: int, headers: Mapping[str, str], content: bytes, *, sent_bytes: int) -> Self:
        """The reply that an HTTP answer is.

        Raises:
            ConfigurationError: An argument is of a wrong type.
        """
        check("content", content, bytes, "the bytes of the body")
        takes = "a mapping of texts: name -> value"
        found = check("headers", headers, Mapping, takes)
        lower = {check("headers", name, str, takes).lower(): check("headers", value, str, takes) for name, value in found.items()}
        body = _value(content) if is_json(lower.get("content-type", "")) else None
        return cls(status, body, lower, sent_bytes, content)

    @classmethod
    def of_frames(cls, frames: Iterable[str | bytes], *, sent_bytes: int, close_code: int | None = None) -> Self:
        """The reply that the frames of one turn are.

        Raises:
            ConfigurationError: An argument is of a wrong type.
        """
        takes = "frames: texts, or bytes"
        given = check_many("frames", frames, takes)
        lines = [_bytes_of(frame) if isinstance(frame, str) else check("frames", frame, bytes, takes) for frame in given]
        # a line feed in JSON is white space, for in a string it is escaped
        content = b"".join(line.replace(b"\n", b" ") + b"\n" for line in lines)
        return cls(SWITCHED, None, {}, sent_bytes, content, close_code)

    @property
    def content_type(self) -> str:
        """What the content is; the frames of a WebSocket are newline-delimited JSON."""
        return LINES[0] if self.status == SWITCHED else self.headers.get("content-type", "")

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream that the service has begun, or the frames of a WebSocket."""
        return self.status == SWITCHED or (self.status in SUCCESS and is_stream(self.content_type))

    @property
    def events(self) -> list[Any]:
        """The JSON values of a stream or of a WebSocket's frames, in order; none for an answer in one piece."""
        return events_in(self.content_type, self.content)

    @property
    def envelope(self) -> dict[str, Any] | None:
        """What stands at ``data.session``, in a stream of the last event that has one; None where nothing does."""
        if self.body is None:
            return held(self.content_type, self.content, None, whole=True)
        return session_in(self.body)

    @property
    def session(self) -> dict[str, Any]:
        """The state as the client can read it: the mirror."""
        return {key: value for key, value in (self.envelope or {}).items() if key != "dcaf"}

    @property
    def message(self) -> dict[str, Any] | None:
        """The answer as a message of the history, with its session; of a stream what its events amount to. None for neither."""
        if isinstance(self.body, dict):
            return self.body
        typed = [Event(event) for event in self.events if isinstance(event, dict) and isinstance(event.get("type"), str)]
        return gathered(typed) if typed else None

    @property
    def text(self) -> str | None:
        """What the assistant said: ``content``, or all ``text_delta`` events in one."""
        return (self.message or {}).get("content")

    @property
    def code(self) -> str | None:
        """Code of the problem, or of a stream's first error event; None where the request was served."""
        if isinstance(self.body, dict):
            return self.body.get("code")
        errors = [event for event in self.events if isinstance(event, dict) and event.get("type") == "error"]
        return errors[0].get("code", "error") if errors else None


def _bytes_of(frame: str) -> bytes:
    return frame.encode(errors="surrogatepass")


def _value(content: bytes) -> Any:
    """The JSON value of a body; None for what is no JSON after all."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
