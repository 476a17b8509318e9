r"""One answer, on whatever wire it came: its text, its events, its session and its refusal; and what a part of one amounts to.

>>> reply = Reply.of_frames(['{"type":"text_delta","text":"Hi"}', '{"type":"done","data":{"session":{"step":2}}}'], sent_bytes=9)
>>> reply.text, reply.session, reply.code
('Hi', {'step': 2}, None)
>>> answer = b'{"data":{"session":{"step":2}}}\n{"data":{"session":{"step":3}}}\n'
>>> held("application/x-ndjson", cut(answer, 40), {"step": 1})
{'step': 2}
>>> events_in("text/event-stream", b'event: done\ndata: {"text":"Hi"}\n\ndata: [DONE]\n\n')
[{'type': 'done', 'text': 'Hi'}]

An event without its end counts as not there, even where all of its text has come. Browsers drop it, and no client can tell it from
one that was cut.

What a reader gets wrong: a stream that was refused on its way has the status 200. Ask for ``code``, which says on every wire
whether the turn was served.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Final, Self

import orjson

from dcaf.client.arguments import check, check_many
from dcaf.client.envelopes import LINES, SUCCESS, choose_session, find_session, is_json, media_type, parse_json
from dcaf.client.reply import Event, gather_events
from dcaf.core.errors import ConfigurationError

EVENTS: Final = "text/event-stream"
LINE_END: Final = re.compile(rb"\r\n|\n|\r")
MARK: Final = "\ufeff".encode()


def cut(body: bytes, at: int) -> bytes:
    """The first ``at`` bytes of a body.

    Args:
        body: An answer, or a request.
        at: From 0, nothing has come, to its length, all has come.

    Raises:
        ConfigurationError: The body has no such place, so nothing would be cut.
    """
    check("body", body, bytes, "bytes")
    check("at", at, int, "a number of bytes")
    if not 0 <= at <= len(body):
        raise ConfigurationError(f"a body of {len(body)} bytes cannot be cut at {at}")
    return body[:at]


def held(content_type: str, text: bytes, old: dict[str, Any] | None, *, whole: bool = False) -> dict[str, Any] | None:
    """The session that a client holds after it has read so much of an answer.

    Args:
        content_type: Of the answer: JSON, newline-delimited JSON or server-sent events; any other has no session.
        text: What has come of it.
        old: The session that the client held before; None for none.
        whole: Whether the answer ended by itself. A last line of newline-delimited JSON counts then without its line feed.

    Raises:
        ConfigurationError: An argument is of a wrong type.
    """
    check("content_type", content_type, str, "the Content-Type of the answer, a text")
    check("text", text, bytes, "what has come, in bytes")
    found = None if old is None else check("old", old, dict, "the session that the client held, or None")
    return last_session(content_type, text, found, whole=whole)


def last_session(content_type: str, text: bytes, found: dict[str, Any] | None, *, whole: bool) -> dict[str, Any] | None:
    """The session after what has come, as ``held``; what was there before may be anything, as a hostile client has it."""
    for _, event in _split_events(media_type(content_type), text, whole=whole):
        found = choose_session(found, _parse_strict(event))
    return found


def events_in(content_type: str, text: bytes) -> list[Any]:
    """The JSON values of a stream that ended by itself, in order; what is no JSON is left out, and no stream has none.

    The name of a server-sent event stands at ``type``, where the event says nothing else there.

    Args:
        content_type: Of the answer: newline-delimited JSON or server-sent events.
        text: The answer.

    Raises:
        ConfigurationError: An argument is of a wrong type.
    """
    check("text", text, bytes, "the answer, in bytes")
    kind = media_type(check("content_type", content_type, str, "the Content-Type of the answer, a text"))
    if not is_stream(kind):
        return []
    found = [(name, _parse_strict(event)) for name, event in _split_events(kind, text, whole=True)]
    return [_add_type(name, value) for name, value in found if value is not None]


def is_stream(content_type: str) -> bool:
    """Whether an answer of this type is a stream of events."""
    kind = media_type(content_type)
    return kind == EVENTS or kind in LINES


def _split_events(kind: str, text: bytes, *, whole: bool) -> Iterator[tuple[bytes, bytes]]:
    """The name of each event, empty where it has none, and its data."""
    if kind == EVENTS:
        yield from _split_server_sent(text)
    elif kind in LINES:
        yield from ((b"", line) for line in (text if whole else text[: text.rfind(b"\n") + 1]).split(b"\n"))
    elif is_json(kind):
        yield b"", text


def _split_server_sent(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each event that an empty line ends (HTML, section 9.2.6, "Interpreting an event stream")."""
    *lines, _ = LINE_END.split(text.removeprefix(MARK))
    name, data = b"", list[bytes]()
    for line in lines:
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value)  # the space after the colon is white space in JSON, too
        elif field == b"event":
            name = value.removeprefix(b" ")
        elif not line:
            yield name, b"\n".join(data)
            name, data = b"", []


def _add_type(name: bytes, value: Any) -> Any:
    return {"type": name.decode(errors="replace"), **value} if name and isinstance(value, dict) else value


def _parse_strict(event: bytes) -> Any:
    """The value of an event; None where it is not JSON."""
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:
        return None


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
        body = parse_json(content) if is_json(lower.get("content-type", "")) else None
        return cls(status, body, lower, sent_bytes, content)

    @classmethod
    def of_frames(cls, frames: Iterable[str | bytes], *, sent_bytes: int, close_code: int | None = None) -> Self:
        """The reply that the frames of one turn are.

        Raises:
            ConfigurationError: An argument is of a wrong type.
        """
        takes = "frames: texts, or bytes"
        given = check_many("frames", frames, takes)
        lines = [_encode_frame(frame) if isinstance(frame, str) else check("frames", frame, bytes, takes) for frame in given]
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
        return find_session(self.body)

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
        return gather_events(typed) if typed else None

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


def _encode_frame(frame: str) -> bytes:
    return frame.encode(errors="surrogatepass")
