"""Claims and times in words.

>>> told(Claims(aud="shop", sid="A" * 22, seq=3, born=0, iat=7200, exp=612_000), now=14_400)[2:5]
[('seq', '3: changed 3 times'), ('born', '1970-01-01T00:00:00Z, 4 hours ago'), ('iat', '1970-01-01T02:00:00Z, 2 hours ago')]
>>> span(597_600)
'6 days and 22 hours'

What a reader gets wrong: these are the words of the token. Whether anybody vouches for them is another question, which has its own
line.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from dcaf.cli.inspection.drawn import count, plain
from dcaf.core.claims import SKEW_S, Claims

UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def told(claims: Claims, now: int) -> list[tuple[str, str]]:
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
