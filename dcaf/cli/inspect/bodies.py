r"""A JSON text or a stream of events -> the sessions in it, and which of them counts.

>>> found = read_json_text(b'{"messages":[{"data":{"session":{"step":1}}},{"data":{"session":{"step":2}}}]}')
>>> found.what, found.winner, found.why
('a JSON request of 2 messages, 78 bytes', Site(where='messages[1].data.session'), 'the last message that has one')
>>> found = read_lines(b'{"type":"session","data":{"session":{"step":1}}}\n{"type":"done","data":{"session":{"step":2}}}\n')
>>> [site.where for site in found.sites], found.why
(['event 2, done', 'event 1, session'], 'the last event that carries one')

The middleware's own reader finds the places and their order, so that the two cannot differ; this module only names them. Whether a
seal is good plays no part, so a session that is refused is never replaced by another one of the same text.

What a reader gets wrong: an event in the middle counts only as long as none follows it. A stream that was cut leaves its client
with that one, or with the one that it had sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import anyio
import orjson

from dcaf.asgi.body import find_sessions, open_nothing
from dcaf.asgi.config import MAX_BODY_BYTES, is_done
from dcaf.asgi.framing import EventStream, LineStream, Piece
from dcaf.cli.inspect.render import count, plain
from dcaf.cli.inspect.verdict import REASONS
from dcaf.core.envelope import NEW
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable
from dcaf.core.state import RESERVED

TOP: Final = "data.session"
ITSELF: Final = "the object itself"
TOO_LARGE: Final = f"A service whose max_body_bytes is the default, {MAX_BODY_BYTES:,}, refuses this body: 413 body-too-large."

RefusalClass: TypeAlias = "type[SessionError | SessionUnavailable]"

CODES: Final[dict[str, RefusalClass]] = {SessionUnavailable.code: SessionUnavailable} | {
    kind.code: kind for kind in SessionError.__subclasses__()
}
"""Code of a refusal -> its class."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place.

    Attributes:
        where: Its name, for instance ``messages[2].data.session``.
        member: What stands there; what a header or a cookie brought, as it would have stood in a body.
    """

    where: str
    member: Any = field(repr=False)

    @property
    def token(self) -> str | None:
        """The token that stands there; None where there is none."""
        own = self.member.get(RESERVED) if isinstance(self.member, dict) else None
        token = own.get("token") if isinstance(own, dict) else None
        return token if isinstance(token, str) else None

    @property
    def mirror(self) -> dict[str, Any]:
        """The keys next to the token: what a client can read."""
        return {key: value for key, value in self.member.items() if key != RESERVED} if isinstance(self.member, dict) else {}

    def describe(self) -> str:
        """What stands there, in a few words that have none of it."""
        if self.member in (None, {}):
            return f"{'null' if self.member is None else '{}'}, as if it were not there"
        if not isinstance(self.member, dict):
            return "no object, where one is due"
        if RESERVED not in self.member:
            return "a plain object, which nobody has sealed"
        if self.token is None:
            return "an object whose `dcaf` has no token"
        return "the wish for a new session" if self.token == NEW else f"token of {len(self.token):,} bytes"


@dataclass(frozen=True, slots=True)
class Found:
    """What a text turned out to be.

    Attributes:
        what: Which kind of text, in words.
        sites: Its sessions, the one first that would count before the others.
        winner: The one that counts; None where there is none.
        why: Why that one.
        lack: Why there is none; empty where there is one.
        notes: What else is worth knowing, one sentence each.
        is_answer: Whether a service wrote it; None where that is not known.
    """

    what: str
    sites: Sequence[Site] = ()
    winner: Site | None = None
    why: str = ""
    lack: str = ""
    notes: tuple[str, ...] = ()
    is_answer: bool | None = None


def read_json_text(data: bytes, *, is_answer: bool | None = None) -> Found:
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
    refusal = find_refusal(value.get("code")) if is_answer else None
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


def find_refusal(code: object) -> RefusalClass | None:
    """The refusal that has a code; None where none has."""
    return CODES.get(code) if isinstance(code, str) else None


def _sessions(data: bytes) -> tuple[dict[str, Any], list[Site], Site | None]:
    """What the text means, its sessions, and the one that the middleware would verify."""
    try:
        body = anyio.run(find_sessions, data, open_nothing)
    except SessionError as refusal:
        problem = position(data) or REASONS.get(refusal.reason, refusal.reason)
        raise ConfigurationError(
            f"This looks like JSON, and a service would answer {refusal.http_status} {refusal.code}: {problem}. "
            "Give the text as it was sent, from its first brace to its last."
        ) from None
    value: dict[str, Any] = body.text.value
    sites = [Site(name, place.value) for name, place in zip(_names(value), body.places, strict=True)]
    candidate = body.find_candidate()
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
    is_answer = find_refusal(value.get("code")) or value.get("role") == "assistant" or isinstance(value.get("type"), str)
    return True if is_answer else None


def _what(value: Mapping[str, Any], refusal: RefusalClass | None, *, is_answer: bool | None) -> str:
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


def _lack(value: Mapping[str, Any], sites: list[Site], refusal: RefusalClass | None) -> str:
    if refusal:
        return f"{refusal.code} carries none, so the client keeps the one that it has"
    if sites:
        return "; ".join(f"{site.where} is {site.describe()}" for site in sites[:3])
    if not isinstance(value.get("data"), dict | None):
        return "`data` is no object, and a session stands in one"
    return "neither `dcaf` nor `data.session` stands in it. A plain object that was a session is one that nobody has sealed"


def _notes(refusal: RefusalClass | None, data: bytes) -> Iterator[str]:
    if refusal:
        yield f"The service says: {refusal.detail}"
    if len(data) > MAX_BODY_BYTES:
        yield TOO_LARGE


class StreamEvent(NamedTuple):
    """One event: its place in the stream from 1, the name of a server-sent one, and its JSON value; None where it has none."""

    number: int
    name: str | None
    value: Any

    @property
    def session(self) -> Any:
        """What it carries; None where it carries nothing."""
        data = self.value.get("data") if isinstance(self.value, dict) else None
        found = data.get("session") if isinstance(data, dict) else None
        return found if isinstance(found, dict) and found else None

    @property
    def site(self) -> Site:
        """The place of its session."""
        kind = self.value.get("type", self.name)
        return Site(f"event {self.number}, {plain(kind)}" if isinstance(kind, str) else f"event {self.number}", self.session)


def read_lines(data: bytes) -> Found:
    """Find the sessions of newline-delimited JSON."""
    cutter = LineStream(len(data))
    return _read_pieces("an NDJSON stream", [*cutter.feed(data), cutter.rest()], data, rest=b"")


def read_events(data: bytes) -> Found:
    """Find the sessions of server-sent events. What no empty line ends is no event."""
    cutter = EventStream(len(data))
    pieces = cutter.feed(data)
    return _read_pieces("an SSE stream", pieces, data, rest=cutter.rest().raw.strip())


def _read_pieces(kind: str, pieces: Iterable[Piece], data: bytes, *, rest: bytes) -> Found:
    read = [piece for piece in pieces if piece.data is not None]
    events = [StreamEvent(number, piece.name, _value(piece.data)) for number, piece in enumerate(read, 1)]
    sites = [event.site for event in reversed(events) if event.session]
    return Found(
        f"{kind} of {count(len(events), 'event')}, {count(len(data), 'byte')}",
        sites,
        sites[0] if sites else None,
        "the last event that carries one" if len(sites) > 1 else "",
        "" if sites else "no event carries one at data.session",
        tuple(_stream_notes(events, rest)),
        is_answer=True,
    )


def _stream_notes(events: list[StreamEvent], rest: bytes) -> Iterable[str]:
    refusal = next((kind for event in events if (kind := _refusal_of_event(event.value))), None)
    if refusal:
        yield f"The service ended the stream with the error {refusal.code}."
    elif not any(is_done(event.name, event.value) for event in events):
        yield "No event ends the turn (type `done`): the stream was cut, or the service has another `terminal=`."
    if rest:
        yield f"The last {count(len(rest), 'byte')} are no event, because no empty line ends them: the stream was cut."


def _refusal_of_event(value: Any) -> Any:
    return find_refusal(value.get("code")) if isinstance(value, dict) and value.get("type") == "error" else None


def _value(data: bytes | None) -> Any:
    try:
        return orjson.loads(data or b"")
    except orjson.JSONDecodeError:
        return None
