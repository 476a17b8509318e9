r"""Cut a stream into its events: NDJSON and server-sent events.

>>> cutter = EventStream(limit_bytes=1_000)
>>> [piece.data for piece in cutter.feed(b'data: {"type":\ndata: "done"}\n\n: ping\n\nda')]
[b'{"type":\n"done"}', None, None]
>>> cutter.rest()
Piece(raw=b'da', name=None, data=None, is_part=False)

No byte is changed, and none is held longer than its event: what is held is what a client could not have read yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

LINE_FEED: Final = re.compile(rb"\n")
LINE_END: Final = re.compile(rb"\r\n|\n|\r")
MARK: Final = "\ufeff".encode()
PASSED_AT_ONCE: Final = (b":", b"retry:")
"""Lines of a server-sent event that belong to no event in particular: comments, and the time to reconnect."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a stream: a whole event, a part of one, or what stands between events.

    Attributes:
        raw: The bytes, with the ends of their lines.
        name: Of a server-sent event that names itself.
        data: The event's text, its lines joined by line feeds; None where this is no event.
        is_part: Whether this is a part of an event that is too long to be looked at.
    """

    raw: bytes
    name: str | None = None
    data: bytes | None = None
    is_part: bool = False


class Cutter(Protocol):
    """Cuts one kind of stream, and writes events of that kind."""

    def feed(self, chunk: bytes) -> list[Piece]:
        """The pieces that this chunk completes, in order."""

    def rest(self) -> Piece:
        """The bytes that are still held when the stream ends, perhaps none."""

    def replace_data(self, piece: Piece, data: bytes, /) -> bytes:
        """An event with another text, which has no more lines than its own."""

    def write_event(self, name: str, data: bytes, /) -> bytes:
        """An event of our own, of one line."""

    def close(self, rest: bytes, event: bytes) -> bytes:
        """The last bytes of a stream: the rest of it, and an event of our own."""

    @property
    def is_between(self) -> bool:
        """Whether no event was passed on in part, so that an event of our own may come next."""

    def is_whole(self, chunk: bytes, /) -> bool:
        """Whether a chunk is certainly whole events and nothing is held before them, so that it needs no cutting."""


class Lines:
    """Cuts chunks into lines. A line over the limit is passed on in parts, as it comes.

    Args:
        end: What ends a line.
        limit_bytes: The longest line that is held until it is complete.

    Attributes:
        in_parts: Whether a part of the current line was passed on already.
    """

    def __init__(self, end: re.Pattern[bytes], limit_bytes: int) -> None:
        self._end = end
        self.limit_bytes = limit_bytes
        self._held = bytearray()
        self.in_parts: bool = False
        self._after_return = False

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bool]]:
        """Each line that this chunk completes, with its end, and whether it is whole.

        A carriage return ends its line at once; a line feed that follows in a later chunk comes as a part of its own.
        """
        if not chunk:
            return
        at = 0
        if self._after_return:
            self._after_return = False
            if chunk.startswith(b"\n"):
                yield b"\n", False
                at = 1
        for found in self._end.finditer(chunk, at):
            yield self._complete_line(chunk[at : found.end()])
            at = found.end()
        self._after_return = self._end is LINE_END and chunk.endswith(b"\r")
        self._held += chunk[at:]
        if len(self._held) > self.limit_bytes:
            self.in_parts = True
            yield self.rest(), False

    def rest(self) -> bytes:
        """The incomplete line, which is then no longer held."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _complete_line(self, ended: bytes) -> tuple[bytes, bool]:
        line = self.rest() + ended if self._held else ended
        whole, self.in_parts = not self.in_parts and len(line) <= self.limit_bytes, False
        return line, whole

    @property
    def is_clean(self) -> bool:
        """Whether the next chunk begins a line."""
        return not (self._held or self.in_parts or self._after_return)


class LineStream:
    """Newline-delimited JSON: each line is an event.

    Args:
        limit_bytes: The longest event that is looked at; a longer one passes as it comes.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._lines = Lines(LINE_FEED, limit_bytes)

    def feed(self, chunk: bytes) -> list[Piece]:
        return [
            Piece(line, data=line if whole and line.strip() else None, is_part=not whole) for line, whole in self._lines.feed(chunk)
        ]

    def rest(self) -> Piece:
        line = self._lines.rest()
        return Piece(line, data=line if line.strip() and self.is_between else None, is_part=not self.is_between)

    def replace_data(self, _piece: Piece, data: bytes, /) -> bytes:
        return data  # the text of a piece has the end of its line

    def write_event(self, _name: str, data: bytes, /) -> bytes:
        return data + b"\n"

    def close(self, rest: bytes, event: bytes) -> bytes:
        apart = b"" if self.is_between and (not rest or rest.endswith(b"\n")) else b"\n"
        return rest + apart + event

    @property
    def is_between(self) -> bool:
        return not self._lines.in_parts

    def is_whole(self, chunk: bytes, /) -> bool:
        return chunk.endswith(b"\n") and self._lines.is_clean


class EventStream:
    """Server-sent events, as the HTML standard reads them (section 9.2.6, "Interpreting an event stream").

    Args:
        limit_bytes: The longest event that is looked at; a longer one passes as it comes.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._lines = Lines(LINE_END, limit_bytes)
        self._limit_bytes = limit_bytes
        self._opening: bytes | None = b""
        self._event: list[bytes] = []
        self._held_bytes = 0
        self._passing = False

    def feed(self, chunk: bytes) -> list[Piece]:
        pieces, chunk = self._split_mark(chunk)
        for line, whole in self._lines.feed(chunk):
            pieces += self._take_line(line, whole=whole)
        return pieces

    def rest(self) -> Piece:
        # Without an empty line at its end it is no event, so the piece has no data.
        raw = (self._opening or b"") + b"".join(self._event) + self._lines.rest()
        self._opening, self._event, self._held_bytes = None, [], 0
        return Piece(raw)

    def replace_data(self, piece: Piece, data: bytes, /) -> bytes:
        texts = iter(data.split(b"\n"))
        lines = [_replace_value(line, texts) if _field(line)[0] == b"data" else line for line in _split_lines(piece.raw)]
        return b"".join(lines)

    def write_event(self, name: str, data: bytes, /) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    def close(self, rest: bytes, event: bytes) -> bytes:
        # Before a rest that no empty line ends: a browser drops that, as it would have without us.
        return event + rest if self.is_between else rest + b"\n\n" + event

    @property
    def is_between(self) -> bool:
        return not self._passing

    def is_whole(self, chunk: bytes, /) -> bool:
        begins = self._lines.is_clean and not self._event and not self._passing and self._opening is None
        return begins and chunk.endswith((b"\n\n", b"\r\n\r\n"))

    def _split_mark(self, chunk: bytes) -> tuple[list[Piece], bytes]:
        """The byte order mark that may stand at the very beginning of a stream, and the chunk without it."""
        if self._opening is None:
            return [], chunk
        chunk = self._opening + chunk
        if len(chunk) < len(MARK) and MARK.startswith(chunk):
            self._opening = chunk
            return [], b""
        self._opening = None
        return ([Piece(MARK)], chunk[len(MARK) :]) if chunk.startswith(MARK) else ([], chunk)

    def _take_line(self, line: bytes, *, whole: bool) -> list[Piece]:
        text = line.rstrip(b"\r\n")
        if self._passing or not whole:
            return self._pass_on(line, ends=whole and not text)
        if not text:
            self._event.append(line)
            return [self._complete_event()]
        if not self._event and text.startswith(PASSED_AT_ONCE):
            return [Piece(line)]
        self._event.append(line)
        self._held_bytes += len(line)
        return self._pass_on(b"", ends=False) if self._held_bytes > self._limit_bytes else []

    def _pass_on(self, line: bytes, *, ends: bool) -> list[Piece]:
        """Pass on a part of an event that is too long, or the second half of a line end."""
        if line == b"\n" and not self._passing:
            if not self._event:
                return [Piece(line)]
            self._event[-1] += line
            return []
        raw = b"".join(self._event) + line
        self._event, self._held_bytes, self._passing = [], 0, not ends
        return [Piece(raw, is_part=True)]

    def _complete_event(self) -> Piece:
        raw = b"".join(self._event)
        fields = [_field(line) for line in self._event]
        self._event, self._held_bytes = [], 0
        data = [value for name, value in fields if name == b"data"]
        names = [value for name, value in fields if name == b"event"]
        if not data and not names:
            return Piece(raw)
        return Piece(raw, names[-1].decode(errors="replace") if names else None, b"\n".join(data))


def _split_lines(raw: bytes) -> list[bytes]:
    ends = [found.end() for found in LINE_END.finditer(raw)]
    return [raw[start:end] for start, end in zip([0, *ends], [*ends, len(raw)], strict=True)]


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a line."""
    name, _, value = line.rstrip(b"\r\n").partition(b":")
    return name, value.removeprefix(b" ")


def _replace_value(line: bytes, texts: Iterator[bytes]) -> bytes:
    """The line with the next of the texts; nothing where there is none left."""
    text = next(texts, None)
    if text is None:
        return b""
    bare = line.rstrip(b"\r\n")
    value = _field(line)[1]
    if b":" not in bare:
        return bare + b":" + text + line[len(bare) :]
    return bare[: len(bare) - len(value)] + text + line[len(bare) :]
