r"""A stream of events -> the sessions that they carried; the last one counts.

>>> found = in_lines(b'{"type":"session","data":{"session":{"step":1}}}\n{"type":"done","data":{"session":{"step":2}}}\n')
>>> [site.where for site in found.sites], found.why
(['event 2, done', 'event 1, session'], 'the last event that carries one')

What a reader gets wrong: an event in the middle counts only as long as none follows it. A stream that was cut leaves its client
with that one, or with the one that it had sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from dcaf.asgi.lines import EventStream, LineStream, Piece
from dcaf.asgi.terminal import is_done
from dcaf.cli.inspect.bodies import refused
from dcaf.cli.inspection.drawn import count, plain
from dcaf.cli.inspection.sites import Found, Site

DATA: Final = "data"


class Event(NamedTuple):
    """One event: its place in the stream from 1, the name of a server-sent one, and its JSON value; None where it has none."""

    number: int
    name: str | None
    value: Any

    @property
    def session(self) -> Any:
        """What it carries; None where it carries nothing."""
        data = self.value.get(DATA) if isinstance(self.value, dict) else None
        found = data.get("session") if isinstance(data, dict) else None
        return found if isinstance(found, dict) and found else None

    @property
    def site(self) -> Site:
        """The place of its session."""
        kind = self.value.get("type", self.name)
        return Site(f"event {self.number}, {plain(kind)}" if isinstance(kind, str) else f"event {self.number}", self.session)


def in_lines(data: bytes) -> Found:
    """Find the sessions of newline-delimited JSON."""
    cutter = LineStream(len(data))
    return _found("an NDJSON stream", [*cutter.feed(data), cutter.rest()], data, rest=b"")


def in_events(data: bytes) -> Found:
    """Find the sessions of server-sent events. What no empty line ends is no event."""
    cutter = EventStream(len(data))
    pieces = cutter.feed(data)
    return _found("an SSE stream", pieces, data, rest=cutter.rest().raw.strip())


def _found(kind: str, pieces: Iterable[Piece], data: bytes, *, rest: bytes) -> Found:
    read = [piece for piece in pieces if piece.data is not None]
    events = [Event(number, piece.name, _value(piece.data)) for number, piece in enumerate(read, 1)]
    sites = [event.site for event in reversed(events) if event.session]
    return Found(
        f"{kind} of {count(len(events), 'event')}, {count(len(data), 'byte')}",
        sites,
        sites[0] if sites else None,
        "the last event that carries one" if len(sites) > 1 else "",
        "" if sites else "no event carries one at data.session",
        tuple(_notes(events, rest)),
        is_answer=True,
    )


def _notes(events: list[Event], rest: bytes) -> Iterable[str]:
    refusal = next((kind for event in events if (kind := _refusal_of(event.value))), None)
    if refusal:
        yield f"The service ended the stream with the error {refusal.code}."
    elif not any(is_done(event.name, event.value) for event in events):
        yield "No event ends the turn (type `done`): the stream was cut, or the service has another `terminal=`."
    if rest:
        yield f"The last {count(len(rest), 'byte')} are no event, because no empty line ends them: the stream was cut."


def _refusal_of(value: Any) -> Any:
    return refused(value.get("code")) if isinstance(value, dict) and value.get("type") == "error" else None


def _value(data: bytes | None) -> Any:
    try:
        return orjson.loads(data or b"")
    except orjson.JSONDecodeError:
        return None
