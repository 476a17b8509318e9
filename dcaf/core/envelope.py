"""``data.session`` <-> Session: the mirror for display, the token that counts, and who may have sealed it.

    {"step": 2, "dcaf": {"token": "dcaf1s.k7…", "expires_at": 1789000000}}

>>> from dcaf.core.keys import Key, Keyring
>>> sealer = Sealer(keys=Keyring(Key.generate("k7")), audience="shop", clock=lambda: 1_789_000_000)
>>> session = sealer.start()
>>> session["step"] = 2
>>> envelope = sealer.seal(session, sealer.binding(), sequence=1)
>>> import orjson
>>> sealer.open(orjson.loads(envelope), sealer.binding())["step"]
2

What a reader gets wrong: only ``dcaf.token`` is ever read back. The other members are a mirror: the client may edit,
reorder or drop them without effect.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Final

from dcaf.core.base64url import Payload, encode
from dcaf.core.claims import MAX_INTEGER, Binding, Claims, Lifetime, check_times, digest
from dcaf.core.errors import ConfigurationError, SessionError, SessionMalformed, SessionUnsigned, SessionValueError
from dcaf.core.keys import KID_CHARACTERS, Keyring
from dcaf.core.migrations import Migrations
from dcaf.core.seal import MAC_CHARACTERS, SIGNED, Opened, check_text
from dcaf.core.session import Session, Standing
from dcaf.core.state import RESERVED, State
from dcaf.core.values import JSON, write

NEW: Final = "new"
"""The token that is the explicit wish for a fresh start."""

RESTART: Final = b'{"dcaf":{"token":"new"}}'
"""The envelope of a fresh start; a refusal's body carries it, so that a client which adopts it has dropped its dead one."""

MIRROR_ALL: Final = True
SID_BYTES: Final = 16
DEFAULT_LIFETIME: Final = Lifetime(idle_s=7 * 86_400, absolute_s=30 * 86_400)


class Sealer:
    """Opens what clients send back and seals what they are to keep.

    Args:
        keys: Who may vouch.
        audience: The service the sessions belong to.
        lifetime: How long a session lives.
        mirror: The keys to show beside the token: True for all, a set of top-level keys, False for none.
        max_token_bytes: The longest token that is accepted, and so the longest that is made.
        migrations: The version of the application's schema and the way to it.
        clock: Seconds since the epoch.
        randomness: That many random bytes.

    Raises:
        ConfigurationError: The audience is empty, the mirror is neither a bool nor keys, or no state would fit into a token.
    """

    def __init__(
        self,
        *,
        keys: Keyring,
        audience: str,
        lifetime: Lifetime = DEFAULT_LIFETIME,
        mirror: Iterable[str] | bool = MIRROR_ALL,
        max_token_bytes: int = 256 * 1024,
        migrations: Migrations | None = None,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._keys = keys
        if not isinstance(audience, str) or not audience:
            raise ConfigurationError(
                "audience= must name this service, for instance audience='deploy-agent': no other service's session is accepted."
            )
        self._audience = audience
        self._lifetime = lifetime
        self._mirror = _shown(mirror)
        self._max_token_bytes = max_token_bytes
        self._migrations = migrations or Migrations()
        self._clock = clock
        self._randomness = randomness
        self._limit_bytes = _room(audience, max_token_bytes)

    def binding(self, subject: str | None = None, conversation: str | None = None) -> Binding:
        """Whom the session of a turn is bound to."""
        return Binding(self._audience, subject, conversation)

    def start(self, *, restarted: str | None = None) -> Session:
        """Begin a new, empty session; ``restarted`` is the code of the refusal that led to it, if one did."""
        now = int(self._clock())
        sid = encode(self._randomness(SID_BYTES))
        claims = Claims(self._audience, sid, 0, now, now, self._lifetime.end(now, now))
        return Session._over(State(limit_bytes=self._limit_bytes), Standing(claims, restarted))

    def open(self, member: JSON, binding: Binding) -> Session:
        """Open what a client sent at ``data.session``: ``verify`` and ``accept`` in one.

        Raises:
            SessionError: As either.
        """
        return self.accept(self.verify(member), binding)

    def verify(self, member: JSON) -> Opened | None:
        """Verify the seal of what a client sent at ``data.session``; None is the explicit wish for a fresh start.

        Raises:
            SessionMalformed: It is not an object, or ``dcaf`` has no token.
            SessionUnsigned: It is a plain object.
            SessionInvalid: The token was not sealed by us.
            SessionTooLarge: It is over the limit.
        """
        token = _token(member)
        if token == NEW:
            return None
        return SIGNED.open(check_text(token, self._max_token_bytes), self._keys, self._audience)

    def accept(self, opened: Opened | None, binding: Binding) -> Session:
        """Take a verified token for its holder, or start anew.

        Raises:
            SessionInvalid: It was sealed for another audience, subject or conversation, or in the future.
            SessionEnded: It is over, or of a schema that is not known here.
            SessionValueError: A migration made a value that may not be stored.
        """
        if opened is None:
            return self.start()
        claims = self._claims(opened, binding)
        state = State(opened.payload, limit_bytes=self._limit_bytes)
        self._migrations.upgrade(state, claims.sv or 0)
        return Session._over(state, Standing(claims))

    def seal(self, session: Session, binding: Binding, *, sequence: int) -> bytes:
        """Seal a session: the whole envelope, a compact JSON object in UTF-8.

        Args:
            session: One that ``start`` or ``open`` of this sealer made.
            binding: Whom it is bound to from now on: the same as when it was opened.
            sequence: Its number, as the keeper gave it.

        Raises:
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        standing = session._standing
        if standing is None:
            raise ConfigurationError("Only a session that the middleware began or opened can be sealed.")
        payload = session._state.payload()
        claims, token = self._token_of(standing.claims, binding, sequence, payload)
        shown = write(self._shown(session))
        hint = b'"dcaf":{"token":"%b","expires_at":%d}}' % (token.encode(), claims.exp)
        return shown[:-1] + (b"," if shown != b"{}" else b"") + hint

    def sid_digest(self, sid: str) -> str:
        """What the log shows in place of a session id: a keyed digest, the same as long as the active key is."""
        secret = self._keys.active.derive(SIGNED.prefix, self._audience, "log")
        return digest(secret, "sid", sid)

    def _claims(self, opened: Opened, binding: Binding) -> Claims:
        claims = None
        try:
            claims = Claims.read(opened.claims)
            binding.check(claims, SIGNED.prefix, opened.key)
            check_times(claims, self._lifetime, int(self._clock()))
            self._migrations.check(claims.sv or 0)
        except SessionError as error:
            error.kid = opened.key.kid
            error.sid_digest = None if claims is None else self.sid_digest(claims.sid)
            raise
        return claims

    def _token_of(self, arrived: Claims, binding: Binding, sequence: int, payload: Payload) -> tuple[Claims, str]:
        now = int(self._clock())
        key = self._keys.signer(now)
        subject, conversation = binding.digests(SIGNED.prefix, key)
        claims = Claims(
            aud=self._audience,
            sid=arrived.sid,
            seq=sequence,
            born=arrived.born,
            iat=now,
            exp=self._lifetime.end(arrived.born, now),
            sub=subject,
            cid=conversation,
            sv=self._migrations.version or None,
        )
        token = SIGNED.seal(key, self._audience, claims.write(), payload)
        if len(token) > self._max_token_bytes:
            raise SessionValueError(
                f"the token would be {len(token):,} bytes long, over max_token_bytes={self._max_token_bytes:,}: the session was "
                "sealed under a larger limit. Clear it, or raise the limit"
            )
        return claims, token

    def _shown(self, session: Session) -> JSON:
        if self._mirror is False:
            return {}
        values = session.to_dict()
        if self._mirror is not True:
            values = {key: value for key, value in values.items() if key in self._mirror}
        return exact_for_clients(values)


def _shown(mirror: Iterable[str] | bool) -> bool | frozenset[str]:
    if isinstance(mirror, bool):
        return mirror
    keys = list(mirror) if isinstance(mirror, Iterable) else [None]
    if isinstance(mirror, str) or not all(isinstance(key, str) for key in keys):
        raise ConfigurationError('mirror= takes True, False, or the keys to show, for instance mirror={"wizard_step"}.')
    return frozenset(str(key) for key in keys)


def exact_for_clients(value: JSON) -> JSON:
    """A copy in which the integers that JavaScript would round, those beyond 2**53 - 1, are strings."""
    if isinstance(value, dict):
        return {key: exact_for_clients(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact_for_clients(item) for item in value]
    if type(value) is int and abs(value) > MAX_INTEGER:
        return str(value)
    return value


def _token(member: JSON) -> str:
    if not isinstance(member, dict):
        raise SessionMalformed(reason="member")
    if RESERVED not in member:
        raise SessionUnsigned(reason="plain")
    own = member[RESERVED]
    token = own.get("token") if isinstance(own, dict) else None
    if not isinstance(token, str):
        raise SessionMalformed(reason="token")
    return token


def _room(audience: str, max_token_bytes: int) -> int:
    """How many bytes of state fit into a token beside the longest claims of this audience."""
    most = MAX_INTEGER
    claims = Claims(audience, "A" * 22, most, most, most, most, "A" * 22, "A" * 22, most, most)
    beside = len(SIGNED.prefix) + KID_CHARACTERS + len(encode(claims.write())) + MAC_CHARACTERS + len("....")
    room = (max_token_bytes - beside) * 3 // 4
    if room < len(b"{}"):
        raise ConfigurationError(f"max_token_bytes={max_token_bytes} leaves no room for a state; the claims alone take {beside}.")
    return room
