r"""What has come of an answer: its events, and the session that a client holds when the answer broke off.

>>> answer = b'{"data":{"session":{"step":2}}}\n{"data":{"session":{"step":3}}}\n'
>>> held("application/x-ndjson", cut(answer, 40), {"step": 1})
{'step': 2}
>>> held("application/x-ndjson", cut(answer, 10), {"step": 1})
{'step': 1}
>>> events_in("text/event-stream", b'event: done\ndata: {"text":"Hi"}\n\ndata: [DONE]\n\n')
[{'type': 'done', 'text': 'Hi'}]

What a reader gets wrong: an event without its end counts as not there, even where all of its text has come. Browsers drop
it, and no client can tell it from one that was cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from dcaf.client.arguments import check
from dcaf.client.arrival import LINES, is_json, media_type, newest
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
    for _, event in _events(media_type(content_type), text, whole=whole):
        found = newest(found, _read(event))
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
    found = [(name, _read(event)) for name, event in _events(kind, text, whole=True)]
    return [_named(name, value) for name, value in found if value is not None]


def is_stream(content_type: str) -> bool:
    """Whether an answer of this type is a stream of events."""
    kind = media_type(content_type)
    return kind == EVENTS or kind in LINES


def _events(kind: str, text: bytes, *, whole: bool) -> Iterator[tuple[bytes, bytes]]:
    """The name of each event, empty where it has none, and its data."""
    if kind == EVENTS:
        yield from _server_sent(text)
    elif kind in LINES:
        yield from ((b"", line) for line in (text if whole else text[: text.rfind(b"\n") + 1]).split(b"\n"))
    elif is_json(kind):
        yield b"", text


def _server_sent(text: bytes) -> Iterator[tuple[bytes, bytes]]:
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


def _named(name: bytes, value: Any) -> Any:
    return {"type": name.decode(errors="replace"), **value} if name and isinstance(value, dict) else value


def _read(event: bytes) -> Any:
    """The value of an event; None where it is not JSON."""
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:
        return None
