"""The shape of ``data.session``: the library's member with the token, and the mirror, a plain copy of the state for display.

    {"step": 2, "dcaf": {"token": "dcaf1s.k7…", "expires_at": 1789000000}}

>>> read_token({"step": 2, "dcaf": {"token": "dcaf1s.k7…", "expires_at": 1789000000}})
'dcaf1s.k7…'
>>> from dcaf.core.base64url import Payload
>>> from dcaf.core.state import State
>>> Mirror({"id"}).render(State(Payload(b'{"id":1152921504606846976,"secret":1}')))
b'{"id":"1152921504606846976"}'

What a reader gets wrong: only ``dcaf.token`` is ever read back. The client may edit, reorder or drop the other members without
effect, and a mirror hides nothing when the token is only signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dcaf.core.arguments import texts_of
from dcaf.core.base64url import Payload
from dcaf.core.claims import MAX_INTEGER, Standing
from dcaf.core.errors import ConfigurationError, SessionMalformed, SessionUnsigned
from dcaf.core.json_values import JSON, read, write
from dcaf.core.signing import Pieces
from dcaf.core.slots import RESERVED
from dcaf.core.state import State

NEW: Final = "new"
"""The token that is the explicit wish for a fresh start."""

RESTART: Final = b'{"dcaf":{"token":"new"}}'
"""The envelope of a fresh start. The body of a refusal carries it: a client that adopts it drops the refused session."""

OWN_ALONE: Final = b'{"dcaf":{"token":"'
OWN_AFTER_OTHERS: Final = b',"dcaf":{"token":"'
"""How the library's own member begins."""

DIGITS: Final = bytes(ord("0") if chr(code) in "0123456789" else ord(" ") for code in range(256))
"""A table for ``bytes.translate``: every digit becomes 0 and every other byte a space."""

LONG: Final = b"0" * 16
"""The digits of the smallest integer that JavaScript may round."""

EACH: Final = 4
"""One of so many bytes is looked at first: a row of 16 digits has four of them in sequence."""


def read_token(member: JSON) -> str:
    """The token of what a client sent at ``data.session``.

    Raises:
        SessionMalformed: It is not an object, or ``dcaf`` has no token.
        SessionUnsigned: It is a plain object.
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
        suite: Suite = SIGNED,
        also_accepted: Iterable[Suite] = (),
    ) -> None:
        self._keys = keys
        if not isinstance(audience, str) or not audience or not audience.isprintable():
            raise ConfigurationError(
                "audience= must name this service, for instance audience='deploy-agent': no other service's session is accepted."
            )
        self._audience = audience
        self.anonymous: Binding = Binding(audience)
        self._lifetime = lifetime
        self._mirror = Mirror(mirror)
        self._max_token_bytes = max_token_bytes
        self._migrations = migrations or Migrations()
        self._clock = clock
        self._randomness = randomness
        self._suite = suite
        self._prefix = suite.prefix.encode() + b"."
        self._suites = {accepted.prefix.encode() + dot: accepted for accepted in (suite, *also_accepted) for dot in (b".", b"")}
        self._limit_bytes = _room(suite, audience, max_token_bytes)

    def binding(self, subject: str | None = None, conversation: str | None = None) -> Binding:
        """Whom the session of a turn is bound to."""
        return Binding(self._audience, subject, conversation)

    def start(self, *, restarted: str | None = None) -> Session:
        """Begin a new, empty session; ``restarted`` is the code of the refusal that led to it, if one did.

        Raises:
            ConfigurationError: ``randomness`` gives something else than so many bytes.
        """
        now = int(self._clock())
        sid = encode(_random(self._randomness, SID_BYTES))
        claims = Claims(self._audience, sid, 0, now, now, self._lifetime.end(now, now))
        return Session._over(State(standing=Standing(claims, restarted), limit_bytes=self._limit_bytes))

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
        return self._verified(check_text(token, self._max_token_bytes))

    def opened(self, token: bytes) -> Opened | None:
        """Verify the seal of a token that was found in a larger text; None where ``verify`` would refuse it."""
        suite = self._suites.get(token[:PREFIX_BYTES])
        if suite is None or len(token) > self._max_token_bytes:
            return None
        try:
            return suite.open(token, self._keys, self._audience)
        except SessionError:
            return None

    def accept(self, opened: Opened | None, binding: Binding) -> Session:
        """Take a verified token for its holder, or start anew.

        Raises:
            SessionInvalid: It was sealed for another audience, subject or conversation, or in the future.
            SessionEnded: It is over, or of a schema that is not known here.
            SessionValueError: A migration made a value that may not be stored.
        """
        if opened is None:
            return self.start()
        claims = None
        try:
            claims = Claims.read(opened.claims)
            binding.check(claims, opened.suite, opened.key)
            check_times(claims, self._lifetime, int(self._clock()))
            version = claims.sv or 0
            if version != self._migrations.version:
                self._migrations.check(version)
        except SessionError as error:
            error.kid = opened.key.kid
            error.sid_digest = None if claims is None else self.sid_digest(claims.sid)
            raise
        opened.payload.index = claims.ix
        # The same as ``Standing(...)``, which is a function of Python around this one.
        standing = tuple.__new__(Standing, (claims, None, (opened.token,), opened.key.kid))
        state = State(opened.payload, standing, limit_bytes=self._limit_bytes)
        if version != self._migrations.version and claims.at is None:
            self._migrations.upgrade(state, version)
            state.arrives(state.payload(), Standing(claims))
        return Session._over(state)

    def take_in(self, plain: dict[str, Any], door: Import) -> Session:
        """Begin a session with what is kept of a plain one; it is born so early that it ends no later than the door closes.

        Raises:
            SessionUnsigned: The door is closed or would not have it, or what is kept of it may not be stored.
        """
        now = int(self._clock())
        values = door.values(plain, now=now)
        born = min(now, door.until_s - self._lifetime.absolute_s)
        claims = self.claims_of(self.start())._replace(born=born, exp=self._lifetime.end(born, now))
        state = State(standing=Standing(claims), limit_bytes=self._limit_bytes)
        try:
            state.put_all(values)
        except SessionValueError:
            raise SessionUnsigned(reason="accept") from None
        state.arrives(state.payload(), Standing(claims))
        return Session._over(state)

    def claims_of(self, session: Session) -> Claims:
        """What the last token of a session said of it; of a new one, what it begins with."""
        return _standing_of(session).claims

    def visible(self, session: Session, *, whole: bool = False) -> bytes:
        """What an application may read of the state in its request body: all of it, or, when encrypting, the mirrored keys."""
        if whole or self._suite is SIGNED:
            return session._state.plain()
        return session._state.plain(self._mirror.shows)

    def signing_kid(self) -> str:
        """Id of the key that signs now."""
        return self._keys.signer(self._clock()).kid

    def resume(self, session: Session, lease: Lease, *, is_in_doubt: bool = False) -> list[str]:
        """Go on from what a store says of a session: its number, its epoch, where its state is kept, and the state itself.

        What was changed in it since it was sealed, on a socket between two turns, is laid over that; gives the keys as ``rebase``.

        Args:
            session: One that ``start`` or ``open`` of this sealer made.
            lease: What the store said.
            is_in_doubt: Whether what was changed may be in the store's state already; then it is not laid over that once more.

        Raises:
            SessionEnded: The state that the server keeps is of a schema that is not known here.
            SessionUnavailable: It cannot be read.
            SessionAliasError, SessionValueError: What was done to the session cannot be written, or a migration made a value that
                may not be stored.
        """
        before = _standing_of(session)
        claims = before.claims._replace(seq=lease.revision, ep=lease.epoch, at=lease.place)
        # A token that says something else does not rest; the state that it seals is no other one for that.
        standing = before._replace(claims=claims, kid=before.kid if claims == before.claims else None)
        if not isinstance(session._state, Tracked):
            # Nobody has looked at it yet: it was opened or begun just now.
            object.__setattr__(session, "_state", Tracked(session._state._arrived))
        state = session._state
        state.standing, clashes = standing, []
        if lease.payload is not None and lease.payload.data != state._arrived.data:
            if state.is_changed() and not is_in_doubt:
                clashes = self.rebase(session, lease.payload, lease.version, lease.revision)
            else:
                state.refill(self._restored(lease.payload, lease.version, standing))
        state._limit_bytes = self._limit_bytes if lease.place is None else None
        return clashes

    def rebase(self, session: Session, newer: Payload, version: int, revision: int) -> list[str]:
        """Lay what a turn did over a newer state of its session; gives the keys where another turn's change gave way.

        Args:
            session: One whose state a store keeps.
            newer: The state.
            version: Of the schema that it is of.
            revision: Its number.

        Raises:
            SessionEnded: It is of a schema that is not known here.
            SessionAliasError, SessionValueError: What was done to the session cannot be written.
        """
        state, before = session._state, _standing_of(session)
        standing = before._replace(claims=before.claims._replace(seq=revision), kid=None)
        restored = self._restored(newer, version, standing)
        assert isinstance(state, Tracked)
        with state._lock:
            state.standing = restored.standing
            return state.rebase(restored._arrived)

    def seal(self, session: Session, binding: Binding, *, sequence: int | None = None) -> bytes:
        """Seal a session: the whole envelope, a compact JSON object in UTF-8; ``pieces`` in one. Raises as it."""
        return b"".join(self.pieces(session, binding, sequence=sequence))

    def pieces(self, session: Session, binding: Binding, *, sequence: int | None = None) -> Pieces:
        """Seal a session: the envelope, in pieces. What is sealed counts as what arrived from then on.

        A state that nobody changed rests: its token goes out again, unless the token is worn, another key signs now, or the session
        is bound to somebody else, as one that was begun before its conversation was known.

        Args:
            session: One that ``start`` or ``open`` of this sealer made.
            binding: Whom it is bound to from now on.
            sequence: Its number. None counts: one more than the last where no token seals this state.

        Raises:
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        state = session._state
        with state._lock:
            payload = state.payload()
            shown = self._mirror.shown(state, payload)
            sealed = self._sealed(state, payload, binding, sequence)
            if sealed is not state.standing:
                state.arrives(payload, sealed)
        return _envelope(sealed, shown)

    def token(self, session: Session, binding: Binding, *, sequence: int | None = None) -> bytes:
        """Seal a session as ``pieces``, for what carries a token alone. Raises as it."""
        state = session._state
        with state._lock:
            payload = state.payload()
            sealed = self._sealed(state, payload, binding, sequence)
            if sealed is not state.standing:
                state.arrives(payload, sealed)
        return b"".join(sealed.token)

    def prepare(self, session: Session, binding: Binding, *, sequence: int, has_mirror: bool = True) -> Prepared:
        """Freeze a session and make its token, before a store commits it. What is written meanwhile belongs to the next seal.

        Args:
            session: As of ``pieces``.
            binding: As of ``pieces``.
            sequence: The number of the state, if it is another one than was sealed last.
            has_mirror: Whether the whole envelope goes out, and not the token alone.

        Raises:
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        state = session._state
        with state._lock:
            frozen, arrived = state.freeze(), _standing(state)
            is_changed = frozen.payload is not state._arrived or arrived.token == ()
            standing = self._sealed(state, frozen.payload, binding, sequence if is_changed else arrived.claims.seq)
            pieces = _envelope(standing, self._mirror.shown(state, frozen.payload)) if has_mirror else ()
        sealed = Sealed(frozen.payload, standing.claims, b"".join(standing.token), b"".join(pieces), is_changed)
        return Prepared(sealed, standing, frozen)

    def rests(self, session: Session) -> bool:
        """Whether the last token of a session is the one that goes out: it is not worn, and its key and suite seal now.

        What was changed in the session since is not looked at.
        """
        now = int(self._clock())
        return self._rests(_standing_of(session), self._keys.signer(now), now)

    def rest_s(self, session: Session) -> int:
        """How many seconds the last token of a session is good for."""
        return max(0, self.claims_of(session).exp - int(self._clock()))

    def recheck(self, session: Session) -> None:
        """Judge a session that stays open, on a socket, by the time it is now; it no longer counts as restarted.

        Raises:
            SessionEnded: It is over.
        """
        standing = _standing_of(session)._replace(restarted=None)
        session._state.standing, claims = standing, standing.claims
        try:
            check_times(claims, self._lifetime, int(self._clock()))
        except SessionError as error:
            error.sid_digest = self.sid_digest(claims.sid)
            raise

    def sid_digest(self, sid: str) -> str:
        """What the log shows in place of a session id: a keyed digest, the same as long as the active key is."""
        secret = self._keys.active.derive(self._suite.prefix, self._audience, "log")
        return digest(secret, "sid", sid)

    def _verified(self, token: bytes) -> Opened:
        suite = self._suites.get(token[:PREFIX_BYTES])
        if suite is None:
            raise SessionInvalid(reason="suite" if token.startswith(b"dcaf1") else "shape")
        return suite.open(token, self._keys, self._audience)

    def _rests(self, standing: Standing, signer: Key, now: int) -> bool:
        if standing.kid != signer.kid or standing.token[0][:PREFIX_BYTES] != self._prefix:
            return False
        return (now - standing.claims.iat) * WORN_AFTER <= self._lifetime.idle_s

    def _restored(self, payload: Payload, version: int, standing: Standing) -> State:
        """The state that a server has kept, brought to the present version of the schema.

        Raises:
            SessionUnavailable: It is of a newer one: a process of a newer release has written it, and this one is to drop nothing.
            SessionEnded: There is no way from its version to the present one.
        """
        if version > self._migrations.version:
            raise SessionUnavailable(reason="version")
        self._migrations.check(version)
        state = State(payload, standing)
        _check_written(state, payload)
        if version != self._migrations.version:
            self._migrations.upgrade(state, version)
            state.arrives(state.payload(), standing._replace(token=(), kid=None))
        return state

    def _sealed(self, state: State, payload: Payload, binding: Binding, sequence: int | None) -> Standing:
        """The token of a payload that was made of a state; the last one where that rests."""
        arrived = state.standing or _standing(state)
        now = int(self._clock())
        key = self._keys.signer(now)
        is_sealed = payload is state._arrived and arrived.token != ()
        subject, conversation = binding.digests(self._suite.prefix, key)
        is_bound = arrived.claims.sub == subject and arrived.claims.cid == conversation
        if is_sealed and is_bound and self._rests(arrived, key, now) and sum(map(len, arrived.token)) <= self._max_token_bytes:
            return arrived
        if sequence is None:
            sequence = arrived.claims.seq + (not is_sealed)
        _, sid, _, born, _, _, _, _, _, epoch, place, _ = arrived.claims
        version = self._migrations.version or None
        end = self._lifetime.end(born, now)
        carried = payload if place is None else KEPT
        # The same as ``Claims(...)``, and as ``Standing(...)`` below, which are functions of Python around this one.
        claims = tuple.__new__(
            Claims,
            (self._audience, sid, sequence, born, now, end, subject, conversation, version, epoch, place, carried.index),
        )
        token = self._suite.pieces(key, self._audience, claims.write(), carried)
        length = sum(map(len, token))
        if length > self._max_token_bytes:
            raise SessionValueError(
                f"the token would be {length:,} bytes long, over max_token_bytes={self._max_token_bytes:,}: the session was "
                "sealed under a larger limit. Clear it, or raise the limit"
            )
        return tuple.__new__(Standing, (claims, arrived.restarted, token, key.kid))


class Prepared(NamedTuple):
    """What a store is to commit, and how the session goes on when it has.

    Attributes:
        sealed: As the store gets it.
        standing: The session's, once it is committed.
        frozen: The state as it was sealed.
    """

    sealed: Sealed
    standing: Standing
    frozen: Frozen

    def arrive(self, session: Session) -> None:
        """Take it for what arrived: only what was written since it was frozen is a change."""
        with session._state._lock:
            session._state.arrives(self.frozen.payload, self.standing, self.frozen)


def _envelope(sealed: Standing, shown: bytes) -> Pieces:
    """The mirror, and the library's own member."""
    hint = b"" if sealed.restarted is None else b',"restarted":"%b"' % sealed.restarted.encode()
    end = b'","expires_at":%d%b}}' % (sealed.claims.exp, hint)
    return (EMPTY, *sealed.token, end) if shown == b"{}" else (memoryview(shown)[:-1], OTHERS, *sealed.token, end)


def _check_written(state: State, payload: Payload) -> None:
    """Refuse what a server has kept and nobody can read; what a token holds is its client's to drop, and this is not.

    Raises:
        SessionUnavailable: It is no object.
    """
    try:
        if isinstance(payload, Payload) and isinstance(payload.data, bytes):
            state._loaded()
            return
    except (SessionInvalid, ValueError):
        pass
    raise SessionUnavailable(reason=FAILED)


def _standing_of(session: Session) -> Standing:
    return _standing(session._state)


def _standing(state: State) -> Standing:
    standing = state.standing
    if standing is None:
        raise ConfigurationError("Only a session that the middleware began or opened can be sealed.")
    return standing


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


def build_envelope(standing: Standing, mirror: bytes) -> Pieces:
    """The mirror and the library's own member, as one JSON object in pieces."""
    hint = b"" if standing.restarted is None else b',"restarted":"%b"' % standing.restarted.encode()
    end = b'","expires_at":%d%b}}' % (standing.claims.exp, hint)
    if mirror == b"{}":
        return (OWN_ALONE, *standing.token, end)
    return (memoryview(mirror)[:-1], OWN_AFTER_OTHERS, *standing.token, end)


class Mirror:
    """Which keys are shown.

    Args:
        keys: True for all, names for some, False for none.

    Raises:
        ConfigurationError: It is something else.
    """

    def __init__(self, keys: Iterable[str] | bool) -> None:
        self._keys: bool | frozenset[str] = keys if isinstance(keys, bool) else _names(keys)

    def shows(self, key: str) -> bool:
        """Whether a key is shown."""
        return self._keys if isinstance(self._keys, bool) else key in self._keys

    def render(self, state: State, payload: Payload | None = None) -> bytes:
        """Write the shown keys; integers beyond 2**53 - 1, which JavaScript would round, become strings.

        Args:
            state: The state.
            payload: The payload that is being sealed, which need not be written again.
        """
        if self._keys is False:
            return b"{}"
        data = state.plain(None if self._keys is True else self.shows, payload)
        # Without a long row of digits nothing needs to be parsed.
        return write(_exact(read(data))) if _has_long(data) else data


def _names(keys: Iterable[str]) -> frozenset[str]:
    names = texts_of(keys)
    if names is None:
        raise ConfigurationError('mirror= takes True, False, or the keys to show, for instance mirror={"wizard_step"}.')
    return frozenset(names)


def _has_long(data: bytes) -> bool:
    """Whether a number may have so many digits that it is rounded; for most states a part of the bytes tells that."""
    some = data[::EACH].translate(DIGITS)
    return some.find(LONG[: len(LONG) // EACH]) >= 0 and data.translate(DIGITS).find(LONG) >= 0


def _exact(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if type(value) is int and abs(value) > MAX_INTEGER:
        return str(value)
    return value
