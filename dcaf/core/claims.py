"""For whom a session was sealed, since when, until when, and which number of it this is.

>>> life = Lifetime(idle_s=600, absolute_s=3600)
>>> claims = Claims(aud="shop", sid="A" * 22, seq=1, born=1000, iat=4500, exp=life.end(1000, 4500))
>>> claims.exp
4600
>>> Claims.read(claims.write()) == claims
True

What a reader gets wrong: the order of the checks is part of the protocol. Time comes after audience, subject and
conversation, so that only the rightful holder ever learns that a token expired.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

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
REQUIRED: Final = frozenset({"aud", "sid", "seq", "born", "iat", "exp"})
INTEGERS: Final = ("seq", "born", "iat", "exp", "sv", "ep")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of itself, in the order in which it is written.

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
    ix: tuple[int, ...] | None = None

    def write(self) -> bytes:
        """Write the claims as a compact JSON object, absent ones left out."""
        values = {"aud": self.aud, "sid": self.sid, "seq": self.seq, "born": self.born, "iat": self.iat, "exp": self.exp}
        optional = {"sub": self.sub, "cid": self.cid, "sv": self.sv, "ep": self.ep, "ix": self.ix}
        return orjson.dumps(values | {name: value for name, value in optional.items() if value is not None})

    @classmethod
    def read(cls, data: bytes) -> Claims:
        """Read claims whose seal was verified.

        Raises:
            SessionInvalid: A claim is missing, unknown or of another type.
        """
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise SessionInvalid(reason="claims") from None
        if not isinstance(values, dict) or not _fit(values):
            raise SessionInvalid(reason="claims")
        index = values.pop("ix", None)
        return cls(**values, ix=None if index is None else tuple(index))


NAMES: Final = frozenset(field.name for field in fields(Claims))


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a session lives, in seconds: without a turn, and in all."""

    idle_s: int
    absolute_s: int

    def end(self, born: int, now: int) -> int:
        """When a token sealed now ends: min(iat + idle, born + absolute)."""
        return min(now + self.idle_s, born + self.absolute_s)


@dataclass(frozen=True, slots=True)
class Binding:
    """Whom a session is bound to in this turn.

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
        subject, conversation = self.digests(suite, key)
        for name, found, expected in (
            ("aud", claims.aud, self.audience),
            ("sub", claims.sub, subject),
            ("cid", claims.cid, conversation),
        ):
            if found != expected:
                raise SessionInvalid(reason=name)


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
    """Show a value only to those who hold the key: the first 16 bytes of an HMAC-SHA-256, as 22 characters."""
    mac = hmac.digest(secret, length_prefixed(role) + length_prefixed(value), "sha256")
    return encode(mac[:16])


def _fit(values: Mapping[str, Any]) -> bool:
    known = REQUIRED <= values.keys() <= NAMES
    return (
        known
        and isinstance(values["aud"], str)
        and _matches(CHARACTERS_22, values["sid"])
        and all(_matches(CHARACTERS_22, values[name]) for name in ("sub", "cid") if name in values)
        and all(_is_count(values[name]) for name in INTEGERS if name in values)
        and ("ix" not in values or (isinstance(values["ix"], list) and all(map(_is_count, values["ix"]))))
    )


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_INTEGER
