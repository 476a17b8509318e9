"""The claims of a token: for whom a session was sealed, when it began and ends, and the number of its state.

>>> life = Lifetime(idle_s=600, absolute_s=3600)
>>> claims = Claims(aud="shop", sid="A" * 22, seq=1, born=1000, iat=4500, exp=life.end(1000, 4500))
>>> claims.exp
4600
>>> Claims.read(claims.write()) == claims
True

The order of the checks is part of the protocol: time comes after audience, subject and conversation, so that only the rightful
holder learns that a token has expired.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from dcaf.core.base64url import encode
from dcaf.core.errors import SessionEnded, SessionInvalid
from dcaf.core.keys import Key, length_prefixed

SKEW_S: Final = 60
"""How far two clocks may be apart, in seconds (the figure of iron-session and of MCP's request state)."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON parser reads exactly (RFC 8259, section 6)."""

CHARACTERS_22: Final = re.compile(r"[\w-]{22}", re.ASCII)
"""128 bits in base64url: a session id, or the digest of a subject or a conversation."""
PLACE: Final = re.compile(r"[a-z]{1,16}")
"""The name of a place where a state is kept."""
REQUIRED: Final = ("aud", "sid", "seq", "born", "iat", "exp")
OPTIONAL: Final = ("sub", "cid", "sv", "ep", "at", "ix")
BOUND: Final = ("aud", "sub", "cid")
COUNT: Final = frozenset({int})
"""The only type of a count, so that no bool is one."""

COUNTED: Final = r"(0|[1-9][0-9]{0,14})"
WRITTEN: Final = re.compile(
    r'\{"aud":"([^"\\\x00-\x1f]*)","sid":"([\w-]{22})",'
    rf'"seq":{COUNTED},"born":{COUNTED},"iat":{COUNTED},"exp":{COUNTED}'
    r'(?:,"sub":"([\w-]{22})")?(?:,"cid":"([\w-]{22})")?'
    rf'(?:,"sv":{COUNTED})?(?:,"ep":{COUNTED})?(?:,"at":"([a-z]{{1,16}})")?'
    r'(?:,"ix":\[([1-9][0-9]{0,14}(?:,[1-9][0-9]{0,14})*)\])?\}',
    re.ASCII,
)
"""Claims as ``write`` writes them, with all types right; anything else is parsed as JSON and checked claim by claim."""

_required: Final = itemgetter(*REQUIRED)


class Claims(NamedTuple):
    """The claims of a token, in the order in which they are written.

    Attributes:
        aud: Audience: the service that the session belongs to.
        sid: Session id, 22 characters of base64url.
        seq: Number of the state; the first seal has 1, a seal of changed state one more.
        born: When the session began; it never changes. Seconds since the epoch, like the two below.
        iat: When this token was sealed.
        exp: When it ends.
        sub: Digest of the subject; None for an anonymous session.
        cid: Digest of the conversation; None where the service names none.
        sv: Version of the application's schema; None for 0.
        ep: Epoch of the subject; None at level L0.
        at: Where the state is kept: ``"server"``; None where the token itself holds it. Another name is a good claim, and whoever
            opens the session refuses it without a store of that name.
        ix: Byte length of each member of the state, in order; None where there is no index.
    """

    aud: str
    sid: str
    seq: int
    born: int
    iat: int
    exp: int
    sub: str | None = None
    cid: str | None = None
    sv: int | None = None
    ep: int | None = None
    at: str | None = None
    ix: tuple[int, ...] | None = None

    def write(self) -> bytes:
        """Write the claims as a compact JSON object, absent ones left out."""
        aud, sid, seq, born, iat, exp, sub, cid, sv, ep, at, ix = self
        written = f'{{"aud":{_quote(aud)},"sid":"{sid}","seq":{seq},"born":{born},"iat":{iat},"exp":{exp}'
        if sub is not None:
            written += f',"sub":"{sub}"'
        if cid is not None:
            written += f',"cid":"{cid}"'
        if sv is not None:
            written += f',"sv":{sv}'
        if ep is not None:
            written += f',"ep":{ep}'
        if at is not None:
            written += f',"at":"{at}"'
        if ix is not None:
            written += f',"ix":[{",".join(map(str, ix))}]'
        return (written + "}").encode()

    @classmethod
    def read(cls, data: bytes) -> Claims:
        """Read claims whose seal was verified.

        Raises:
            SessionInvalid: A claim is missing, unknown or of another type.
        """
        written = WRITTEN.fullmatch(data.decode()) if data.isascii() else None
        if written is None:
            return cls._parse(data)
        aud, sid, seq, born, iat, exp, sub, cid, sv, ep, at, ix = written.groups()
        index = ix if ix is None else tuple(map(int, ix.split(",")))
        version, epoch = sv if sv is None else int(sv), ep if ep is None else int(ep)
        # The same as ``cls(...)``, which is a function of Python around this one.
        return tuple.__new__(cls, (aud, sid, int(seq), int(born), int(iat), int(exp), sub, cid, version, epoch, at, index))

    @classmethod
    def _parse(cls, data: bytes) -> Claims:
        try:
            values = orjson.loads(data)
            found = cls._make((*_required(values), *map(values.get, OPTIONAL)))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise SessionInvalid(reason="claims") from None
        if len(values) + found.count(None) != len(found) or not _fits(found):
            raise SessionInvalid(reason="claims")
        return found if found.ix is None else found._replace(ix=tuple(found.ix))


class Standing(NamedTuple):
    """The session that a state belongs to, as its last token has it.

    Attributes:
        claims: The claims of its last token; a new session has the sequence 0.
        restarted: The code of the refusal after which the session was started; None where no session was refused.
        token: Its last token, in pieces; empty where none seals this state: of a new session, or after an import or a migration.
        kid: The id of the key that sealed that token; None where there is none.
    """

    claims: Claims
    restarted: str | None = None
    token: tuple[bytes | memoryview, ...] = ()
    kid: str | None = None

    def __repr__(self) -> str:
        return f"Standing(restarted={self.restarted!r})"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a session lives, in seconds: without a turn, and in all."""

    idle_s: int
    absolute_s: int

    def end(self, born: int, now: int) -> int:
        """The end of a token that is sealed now: min(iat + idle, born + absolute)."""
        return min(now + self.idle_s, born + self.absolute_s)


class Binding(NamedTuple):
    """What a session is bound to in a turn.

    Attributes:
        audience: The service.
        subject: The caller, as the application's authentication names it; None is anonymous.
        conversation: The conversation; None where the service names none.
    """

    audience: str
    subject: str | None = None
    conversation: str | None = None

    def __repr__(self) -> str:
        return f"Binding(audience={self.audience!r})"

    def digests(self, suite: str, key: Key) -> tuple[str | None, str | None]:
        """The claims ``sub`` and ``cid`` under one key."""
        if self.subject is None and self.conversation is None:
            return None, None
        secret = key.derive(suite, self.audience, "bind")
        subject = None if self.subject is None else digest(secret, "sub", self.subject)
        return subject, None if self.conversation is None else digest(secret, "cid", self.conversation)

    def check(self, claims: Claims, suite: str, key: Key) -> None:
        """Refuse a token of another audience, subject or conversation; one present and the other absent is another too.

        Raises:
            SessionInvalid: With the reason ``aud``, ``sub`` or ``cid``.
        """
        found = (claims.aud, claims.sub, claims.cid)
        if self.subject is None and self.conversation is None and found == (self.audience, None, None):
            return
        expected = (self.audience, *self.digests(suite, key))
        if found != expected:
            raise SessionInvalid(
                reason=next(name for name, *pair in zip(BOUND, found, expected, strict=True) if pair[0] != pair[1])
            )


def check_times(claims: Claims, lifetime: Lifetime, now: int) -> None:
    """Refuse a token from the future, or one that is over. ``now`` in seconds since the epoch.

    Raises:
        SessionInvalid: It was sealed later than now, beyond the skew of clocks.
        SessionEnded: It was not used for too long, or the session is too old.
    """
    if not claims.iat <= now + SKEW_S:
        raise SessionInvalid(reason="iat")
    if not now <= claims.exp + SKEW_S:
        raise SessionEnded(reason="exp")
    if not now <= claims.born + lifetime.absolute_s + SKEW_S:
        raise SessionEnded(reason="born")


def digest(secret: bytes, role: str, value: str) -> str:
    """Digest a value with a key: the first 16 bytes of an HMAC-SHA-256, as 22 characters."""
    mac = hmac.digest(secret, length_prefixed(role) + length_prefixed(value), "sha256")
    return encode(mac[:16])


@lru_cache(maxsize=64)
def _quote(text: str) -> str:
    """Write a text as JSON."""
    return orjson.dumps(text).decode()


def _fits(claims: tuple[Any, ...]) -> bool:
    """Whether each claim is of its type; None is an absent optional claim."""
    aud, sid, seq, born, iat, exp, sub, cid, sv, ep, at, ix = claims
    return (
        type(aud) is str
        and _is_digest(sid)
        and (sub is None or _is_digest(sub))
        and (cid is None or _is_digest(cid))
        and _are_counts((seq, born, iat, exp, 0 if sv is None else sv, 0 if ep is None else ep))
        and (at is None or _is_place(at))
        and (ix is None or (type(ix) is list and (not ix or _are_counts(ix))))
    )


def _is_digest(value: object) -> bool:
    return type(value) is str and CHARACTERS_22.fullmatch(value) is not None


def _is_place(value: object) -> bool:
    return type(value) is str and PLACE.fullmatch(value) is not None


def _are_counts(values: Collection[Any]) -> bool:
    return COUNT.issuperset(map(type, values)) and min(values) >= 0 and max(values) <= MAX_INTEGER
