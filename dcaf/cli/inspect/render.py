r"""Trees, columns, claims and times in plain ASCII; and where a mirror differs from the state that was sealed.

>>> print("\n".join(tree("two things", [("a", "1 byte"), ("long", "2 bytes")], marked=1)))
two things
|-- a      1 byte
`-> long   2 bytes
>>> describe_claims(Claims(aud="shop", sid="A" * 22, seq=3, born=0, iat=7200, exp=612_000), now=14_400)[2:5]
[('seq', '3: changed 3 times'), ('born', '1970-01-01T00:00:00Z, 4 hours ago'), ('iat', '1970-01-01T02:00:00Z, 2 hours ago')]
>>> rows({"step": 9, "admin": True}, {"step": 2, "cart": []}, {"step": 2, "cart": []})
[('admin', '4 bytes, planted: it is not in the state'), ('cart', '2 bytes, not mirrored'), ('step', '1 byte, edited in the mirror')]

Names come from whoever sent the text, so no control character of theirs is printed. Names and sizes are shown, and never a value: a
state may be private, and what is printed ends in tickets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import orjson

from dcaf.core.claims import SKEW_S, Claims

LONGEST: Final = 60
"""Characters of a name that are shown, at most."""

UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def tree(title: str, rows: Sequence[tuple[str, str]], *, marked: int | None = None) -> list[str]:
    """A title, and below it rows of a name and some words.

    Args:
        title: The first line.
        rows: The others; an empty name is allowed.
        marked: Which row has an arrow; None for none.
    """
    width = max((len(name) for name, _ in rows), default=0)
    drawn = [title]
    for index, (name, words) in enumerate(rows):
        corner, end = "`" if index == len(rows) - 1 else "|", ">" if index == marked else "-"
        drawn.append(f"{corner}-{end} {name:{width}}   {words}".rstrip())
    return drawn


def columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Names and words, the words below one another."""
    return [f"{name:10} {words}".rstrip() for name, words in rows]


def plain(text: str) -> str:
    """A name as it is, without what is not printed, and not too long."""
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text[:LONGEST])
    return shown if len(text) <= LONGEST else f"{shown}..."


def count(number: int, word: str) -> str:
    """A number of things: ``1 message``, ``2 messages``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def describe_claims(claims: Claims, now: int) -> list[tuple[str, str]]:
    """Each claim that is there, by its name, and whether there is a binding; ``now`` in seconds since the epoch."""
    rows = [
        ("aud", plain(claims.aud)),
        ("sid", claims.sid),
        ("seq", f"{claims.seq:,}: changed {_times(claims.seq)}"),
        ("born", moment(claims.born, now)),
        ("iat", moment(claims.iat, now) + _ahead(claims.iat, now)),
        ("exp", moment(claims.exp, now) + _over(claims.exp, now)),
        ("sub", "bound to a subject" if claims.sub else "bound to no subject: whoever has the token can use it"),
        ("cid", "bound to a conversation" if claims.cid else "bound to no conversation"),
    ]
    return rows + [(name, words) for name, words in _optional(claims) if words]


def moment(seconds: int, now: int) -> str:
    """A time in UTC, and how far it is from now."""
    try:
        shown = datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return "no time that a calendar has"
    if seconds == now:
        return f"{shown}, now"
    return f"{shown}, in {span(seconds - now)}" if seconds > now else f"{shown}, {span(now - seconds)} ago"


def span(seconds: int) -> str:
    """How long, in the largest unit that fits and the one below it."""
    for (large, size), (small, part) in pairwise(UNITS):
        if seconds >= size:
            rest = seconds % size // part
            return count(seconds // size, large) + (f" and {count(rest, small)}" if rest else "")
    return count(seconds, "second")


def _times(number: int) -> str:
    return "once" if number == 1 else count(number, "time")


def _ahead(sealed: int, now: int) -> str:
    return ": the clock that sealed it is ahead of this one" if sealed > now + SKEW_S else ""


def _over(end: int, now: int) -> str:
    if end >= now:
        return ""
    return ": it has expired" if now > end + SKEW_S else f": it has expired, and is taken for {SKEW_S} seconds more"


def _optional(claims: Claims) -> list[tuple[str, str]]:
    return [
        ("sv", "" if claims.sv is None else f"version {claims.sv:,} of the application's schema"),
        ("ep", "" if claims.ep is None else f"epoch {claims.ep:,} of the subject"),
        ("at", "" if claims.at is None else f"the state is kept elsewhere: {plain(claims.at)}"),
        ("ix", "" if claims.ix is None else f"an index of {count(len(claims.ix), 'key')}"),
    ]


def sizes(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each key by its name, and the bytes of its value as compact JSON."""
    return [(name, size(values[name])) for name in sorted(values)]


def rows(mirror: Mapping[str, Any], state: Mapping[str, Any], shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each key of a mirror and of the state, by its name, with what became of it.

    Args:
        mirror: As it came in; an empty one is none, and no key of the state is missing in it.
        state: What was sealed.
        shown: The mirror as it would have gone out.
    """
    return [
        (name, f"{size(state.get(name, mirror.get(name)))}{_describe_change(name, mirror, shown)}")
        for name in sorted({*mirror, *state})
    ]


def is_changed(mirror: Mapping[str, Any], shown: Mapping[str, Any]) -> bool:
    """Whether a mirror shows what the state has not; what it leaves out it may leave out."""
    return any(name not in shown or not _is_same(mirror[name], shown[name]) for name in mirror)


def size(value: Any) -> str:
    """How many bytes a value takes."""
    try:
        return count(len(orjson.dumps(value)), "byte")
    except orjson.JSONEncodeError:
        return "nested too deep to be written"


def _describe_change(name: str, mirror: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    if name not in shown:
        return ", planted: it is not in the state"
    if name not in mirror:
        return ", not mirrored" if mirror else ""
    return ", mirrored" if _is_same(mirror[name], shown[name]) else ", edited in the mirror"


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal to a client that knows one kind of number and no order of members."""
    try:
        return bool(_bare(one) == _bare(other))
    except RecursionError:
        return False


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return (value,) if isinstance(value, bool) else value  # in Python True is 1
