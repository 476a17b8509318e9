"""Open what clients send at ``data.session``, and seal what they are to keep: with which keys, for whom, and until when.

>>> from dcaf.core.keys import Key, Keyring
>>> sealer = Sealer(keys=Keyring(Key.generate("k7")), audience="shop", clock=lambda: 1_789_000_000)
>>> session = sealer.start()
>>> session["step"] = 2
>>> envelope = sealer.seal(session, sealer.binding(), sequence=1)
>>> import orjson
>>> sealer.open(orjson.loads(envelope), sealer.binding())["step"]
2
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Any, Final, NamedTuple

from dcaf.core.arguments import require_random
from dcaf.core.base64url import Payload, add_index, encode
from dcaf.core.claims import MAX_INTEGER, Binding, Claims, Lifetime, Standing, check_times, digest
from dcaf.core.envelope import NEW, Mirror, build_envelope, read_token
from dcaf.core.errors import (
    ConfigurationError,
    SessionError,
    SessionInvalid,
    SessionSuperseded,
    SessionUnavailable,
    SessionUnsigned,
    SessionValueError,
)
from dcaf.core.json_values import JSON
from dcaf.core.keys import Key, Keyring
from dcaf.core.mapping import state_of
from dcaf.core.migrations import Import, Migrations
from dcaf.core.rebasing import RebasableState
from dcaf.core.session import Session
from dcaf.core.signing import SIGNED, Opened, Pieces, Suite, check_text
from dcaf.core.slots import Resumed
from dcaf.core.state import Frozen, State
from dcaf.core.store import FAILED, Lease, Sealed, shared_of

ELSEWHERE: Final = Payload(b"{}")
"""The state in the token of a session whose state the server keeps."""

MIRROR_ALL: Final = True
SID_BYTES: Final = 16
PREFIX_BYTES: Final = len(b"dcaf1s.")
LONGEST: Final = Claims(
    aud="",
    sid="A" * 22,
    seq=MAX_INTEGER,
    born=MAX_INTEGER,
    iat=MAX_INTEGER,
    exp=MAX_INTEGER,
    sub="A" * 22,
    cid="A" * 22,
    sv=MAX_INTEGER,
    ep=MAX_INTEGER,
)
"""The longest claims that a token with a state can have, except for the audience; with ``at`` there is no state."""
WORN_AFTER: Final = 10
"""An unchanged state keeps its token until this fraction of the idle timeout is over: a tenth."""
MAX_TOKEN_BYTES: Final = 256 * 1024
"""The longest token that is accepted where an application says nothing else."""

DEFAULT_LIFETIME: Final = Lifetime(idle_s=7 * 86_400, absolute_s=30 * 86_400)


class Sealer:
    """Opens what clients send back and seals what they are to keep.

    Args:
        keys: The keys that sign and verify.
        audience: The service that the sessions belong to.
        lifetime: How long a session lives.
        mirror: The keys to show beside the token: True for all, a set of top-level keys, False for none.
        max_token_bytes: The longest token that is accepted, and so the longest that is made.
        migrations: The version of the application's schema and the way to it.
        clock: Returns the seconds since the epoch.
        randomness: Returns as many random bytes as it is asked for.
        suite: The suite that seals, and that a token must have been sealed by.
        also_accepted: Further suites that are accepted, during a migration.

    Attributes:
        anonymous: The binding of a session without a subject.
        most_state_bytes: How many bytes of state fit into a token.

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
        max_token_bytes: int = MAX_TOKEN_BYTES,
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
        self.most_state_bytes: int = _room(suite, audience, max_token_bytes)

    def binding(self, subject: str | None = None, conversation: str | None = None) -> Binding:
        """The binding of a turn's session."""
        return Binding(self._audience, subject, conversation)

    def start(self, *, restarted: str | None = None) -> Session:
        """Begin a new, empty session; ``restarted`` is the code of the refusal that led to it, if one did.

        Raises:
            ConfigurationError: ``randomness`` gives something else than so many bytes.
        """
        now = int(self._clock())
        sid = encode(require_random(self._randomness, SID_BYTES))
        claims = Claims(self._audience, sid, 0, now, now, self._lifetime.end(now, now))
        return Session._over(State(standing=Standing(claims, restarted), limit_bytes=self.most_state_bytes))

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
        token = read_token(member)
        if token == NEW:
            return None
        return self._verify(check_text(token, self._max_token_bytes))

    def opened(self, token: bytes) -> Opened | None:
        """Verify the seal of a token that was found in a larger text; None where ``verify`` would refuse the token."""
        suite = self._suites.get(token[:PREFIX_BYTES])
        if suite is None or len(token) > self._max_token_bytes:
            return None
        try:
            return suite.open(token, self._keys, self._audience)
        except SessionError:
            return None

    def accept(self, opened: Opened | None, binding: Binding) -> Session:
        """Check a verified token against who presents it, and make its session; None starts a new session.

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
        # The same as ``Standing(...)``, which is a function of Python around this one.
        standing = tuple.__new__(Standing, (claims, None, (opened.token,), opened.key.kid))
        payload = opened.payload if claims.ix is None else add_index(opened.payload, claims.ix)
        state = State(payload, standing, limit_bytes=self.most_state_bytes)
        if version != self._migrations.version and claims.at is None:
            self._migrations.upgrade(state, version)
            state.mark_sealed(state.payload(), Standing(claims))
        return Session._over(state)

    def import_plain(self, plain: dict[str, Any], rule: Import) -> Session:
        """Begin a session with the accepted values of a plain one; its birth is set so that it ends no later than the import does.

        Raises:
            SessionUnsigned: The import is over or refuses it, or a value may not be stored.
        """
        now = int(self._clock())
        values = rule.values(plain, now=now)
        born = min(now, rule.until_s - self._lifetime.absolute_s)
        claims = self.claims_of(self.start())._replace(born=born, exp=self._lifetime.end(born, now))
        state = State(standing=Standing(claims), limit_bytes=self.most_state_bytes)
        try:
            state.put_all(values)
        except SessionValueError:
            raise SessionUnsigned(reason="accept") from None
        state.mark_sealed(state.payload(), Standing(claims))
        return Session._over(state)

    def claims_of(self, session: Session) -> Claims:
        """The claims of a session's last token, or those that a new session begins with."""
        return _standing_of(session).claims

    def visible(self, session: Session, *, whole: bool = False) -> bytes:
        """The state that an application may read in its request body: all of it or, when encrypting, the mirrored keys."""
        if whole or self._suite is SIGNED:
            return state_of(session).plain()
        return state_of(session).plain(self._mirror.shows)

    def signing_kid(self) -> str:
        """The id of the key that signs now."""
        return self._keys.signer(self._clock()).kid

    def resume(self, session: Session, lease: Lease, *, is_in_doubt: bool = False) -> list[str]:
        """Apply a store's lease to a session: its number, its epoch, where its state is kept, and the state itself.

        Changes since the last seal, on a socket between two turns, are laid over that state. Returns the keys as ``rebase``.

        Args:
            session: One that ``start`` or ``open`` of this sealer made.
            lease: The lease.
            is_in_doubt: Whether a commit of the changes has failed, so that the store's state may have them already. Where that has
                the number of the last seal, it has not: they are laid over it. Else they are dropped, with what was added beside
                the state, and not laid over it once more.

        Raises:
            SessionEnded: The state that the server keeps is of a schema that is not known here.
            SessionUnavailable: That state cannot be read.
            SessionAliasError, SessionValueError: A change cannot be written, or a migration made a value that may not be stored.
        """
        before = _standing_of(session)
        claims = before.claims._replace(seq=lease.revision, ep=lease.epoch, at=lease.place)
        # A token with other claims is not sent again; the state in it may be the same all the same.
        standing = before._replace(claims=claims, kid=before.kid if claims == before.claims else None)
        if not isinstance(state_of(session), RebasableState):
            # The session was opened or begun just now, so nothing has touched its state yet.
            object.__setattr__(session, "_state", RebasableState(state_of(session).arrived))
        state = state_of(session)
        state.standing, clashes = standing, []
        payload, version = lease.payload, lease.version
        if payload is not None and lease.place is not None and before.claims.at is None:
            # The session comes to the server with this turn: it keeps what it has, under what the server has for it.
            _check_written(State(payload), payload)
            payload, version = state.lay_under(payload), self._migrations.version
        if payload is not None and payload.data != state.arrived.data:
            is_in_doubt = is_in_doubt and lease.revision != before.claims.seq
            if state.is_changed() and not is_in_doubt:
                clashes = self.rebase(session, payload, version, lease.revision, shared=shared_of(lease))
            else:
                state.journal = None if is_in_doubt else state.journal
                state.refill(self._restore(payload, version, standing, shared_of(lease)))
        state.limit_bytes = self.most_state_bytes if lease.place is None else None
        return clashes

    def restore(self, resumed: Resumed) -> Session:
        """Make the session of what a server keeps, which no token seals here.

        Raises:
            SessionEnded, SessionUnavailable, SessionValueError: As ``resume``.
        """
        standing = Standing(resumed.claims)
        return Session._over(self._restore(resumed.payload, resumed.version, standing, resumed.shared))

    def rebase(self, session: Session, newer: Payload, version: int, revision: int, *, shared: tuple[str, ...] = ()) -> list[str]:
        """Lay the changes of a turn over a newer state; returns the keys of which another turn's change was lost.

        Args:
            session: One whose state a store keeps.
            newer: The newer state.
            version: The version of its schema.
            revision: Its number.
            shared: As of ``Migrations.upgrade``.

        Raises:
            SessionEnded: It is of a schema that is not known here.
            SessionAliasError, SessionValueError: A change cannot be written.
        """
        state, before = state_of(session), _standing_of(session)
        standing = before._replace(claims=before.claims._replace(seq=revision), kid=None)
        restored = self._restore(newer, version, standing, shared)
        assert isinstance(state, RebasableState)
        with state.lock:
            state.standing = restored.standing
            return state.rebase(restored.arrived)

    def seal(self, session: Session, binding: Binding, *, sequence: int | None = None) -> bytes:
        """Seal a session as ``pieces``, joined: the whole envelope, a compact JSON object in UTF-8."""
        return b"".join(self.pieces(session, binding, sequence=sequence))

    def pieces(self, session: Session, binding: Binding, *, sequence: int | None = None) -> Pieces:
        """Seal a session: the envelope, in pieces. From then on only what differs from it is a change.

        The token of an unchanged state goes out again, unless a tenth of the idle timeout is over, another key signs now, or the
        binding is another one, as of a session that was begun before its conversation was known.

        Args:
            session: One that ``start`` or ``open`` of this sealer made.
            binding: Its binding from now on.
            sequence: The number of the state. None: one more than the last where no token seals this state.

        Raises:
            SessionAliasError, SessionValueError: A change cannot be written.
        """
        state = state_of(session)
        with state.lock:
            payload = state.payload()
            shown = self._mirror.render(state, payload)
            sealed = self._seal_state(state, payload, binding, sequence)
            if sealed is not state.standing:
                state.mark_sealed(payload, sealed)
        return build_envelope(sealed, shown)

    def token(self, session: Session, binding: Binding, *, sequence: int | None = None) -> bytes:
        """Seal a session as ``pieces``, for a carrier of the token alone."""
        state = state_of(session)
        with state.lock:
            payload = state.payload()
            sealed = self._seal_state(state, payload, binding, sequence)
            if sealed is not state.standing:
                state.mark_sealed(payload, sealed)
        return b"".join(sealed.token)

    def prepare(
        self, session: Session, binding: Binding, *, sequence: int, has_mirror: bool = True, may_retry: bool = False
    ) -> Prepared:
        """Freeze a session and make its token, before a store commits it. What is written meanwhile belongs to the next seal.

        Args:
            session, binding: As ``pieces``.
            sequence: The number of the state, if it has changed since it was sealed last.
            has_mirror: Whether the whole envelope goes out, and not the token alone.
            may_retry: Whether the envelope says that a turn with it may be sent again.

        Raises:
            SessionAliasError, SessionValueError: A change cannot be written.
        """
        state = state_of(session)
        with state.lock:
            frozen, arrived = state.freeze(), _require_standing(state)
            is_changed = frozen.payload is not state.arrived or arrived.token == ()
            is_changed = is_changed or (state.journal is not None and state.has_additions)
            standing = self._seal_state(state, frozen.payload, binding, sequence if is_changed else arrived.claims.seq)
            mirror = self._mirror.render(state, frozen.payload) if has_mirror else b""
        token = b"".join(standing.token)
        envelope = b"".join(build_envelope(standing, mirror, may_retry=may_retry)) if has_mirror else b""
        keep = partial(self._keep, standing.claims.sid, token, mirror)
        sealed = Sealed(frozen.payload, standing.claims, token, envelope, is_changed, keep, state.find_commuting)
        return Prepared(sealed, standing, frozen)

    def reissue(self, kept: bytes, binding: Binding, session_id: str) -> tuple[bytes, bytes]:
        """Seal once more what a store has kept of the newest answer of a session, for the client that never got it.

        Args:
            kept: What ``Sealed.keep`` returned.
            binding: The binding of the session.
            session_id: Its id.

        Returns:
            The token, by the key that seals now, and the envelope with it; an empty one where the answer had the token alone.

        Raises:
            SessionSuperseded: The key that had encrypted or sealed it is not known any more, or it is bound to somebody else: the
                session was rotated to another subject, or the first turn was of another conversation.
        """
        plain = _load_kept().decrypt_kept(self._keys, self._audience, session_id, kept)
        token, _, mirror = (plain or b"").partition(b"\n")
        opened = self.opened(token)
        if opened is None:
            raise SessionSuperseded(reason="key")
        try:
            binding.check(Claims.read(opened.claims), opened.suite, opened.key)
        except SessionInvalid as error:  # to seal it anew would bind it to whoever asks
            raise SessionSuperseded(reason=error.reason) from None
        standing = self._renew(opened, binding)
        pieces = build_envelope(standing, mirror, may_retry=True) if mirror else ()
        return b"".join(standing.token), b"".join(pieces)

    def rotate(self, session: Session) -> None:
        """Make a session another one with the same state: it has a new id, is not sealed yet, and ends no later than before.

        Raises:
            ConfigurationError: ``randomness`` gives something else than so many bytes.
        """
        state, before = state_of(session), _standing_of(session)
        claims = before.claims._replace(sid=encode(require_random(self._randomness, SID_BYTES)), seq=0, ep=None)
        with state.lock:
            state.standing = before._replace(claims=claims, token=(), kid=None)

    def number(self, session: Session, lease: Lease) -> None:
        """Give a session that was made another one the number and the epoch that a store's lease has for it."""
        state, before = state_of(session), _standing_of(session)
        claims = before.claims._replace(seq=lease.revision, ep=lease.epoch, at=lease.place)
        with state.lock:
            state.standing = before._replace(claims=claims)

    def has_token(self, session: Session) -> bool:
        """Whether a token of this session was made, of any of its states."""
        return _standing_of(session).token != ()

    def rests(self, session: Session) -> bool:
        """Whether the last token of a session can go out again, as far as its age, its key and its suite tell."""
        now = int(self._clock())
        return self._rests(_standing_of(session), self._keys.signer(now), now)

    def rest_s(self, session: Session) -> int:
        """The seconds until the last token of a session ends."""
        return max(0, self.claims_of(session).exp - int(self._clock()))

    def rest_of_token_s(self, token: bytes) -> int:
        """The seconds until a token of ours ends; 0 for any other."""
        opened = self.opened(token)
        return 0 if opened is None else max(0, Claims.read(opened.claims).exp - int(self._clock()))

    def recheck(self, session: Session) -> None:
        """Check the times of a session that stays open, on a socket; it no longer counts as restarted.

        Raises:
            SessionEnded: It is over.
        """
        standing = _standing_of(session)._replace(restarted=None)
        state_of(session).standing, claims = standing, standing.claims
        try:
            check_times(claims, self._lifetime, int(self._clock()))
        except SessionError as error:
            error.sid_digest = self.sid_digest(claims.sid)
            raise

    def sid_digest(self, sid: str) -> str:
        """The keyed digest that the log has in place of a session id, the same as long as the active key is the same."""
        secret = self._keys.active.derive(self._suite.prefix, self._audience, "log")
        return digest(secret, "sid", sid)

    def _keep(self, session_id: str, token: bytes, mirror: bytes) -> bytes:
        key, plain = self._keys.signer(self._clock()), b"\n".join((token, mirror))
        kept: bytes = _load_kept().encrypt_kept(key, self._audience, session_id, plain)
        return kept

    def _renew(self, opened: Opened, binding: Binding) -> Standing:
        """The standing of a token that goes out again: sealed by the key that seals now, and the same in everything else."""
        claims, key = Claims.read(opened.claims), self._keys.signer(self._clock())
        if key.kid == opened.key.kid and opened.token.startswith(self._prefix):
            return Standing(claims, None, (opened.token,), key.kid)
        subject, conversation = binding.digests(self._suite.prefix, key)
        claims = claims._replace(sub=subject, cid=conversation)
        return Standing(claims, None, self._suite.pieces(key, self._audience, claims.write(), opened.payload), key.kid)

    def _verify(self, token: bytes) -> Opened:
        suite = self._suites.get(token[:PREFIX_BYTES])
        if suite is None:
            raise SessionInvalid(reason="suite" if token.startswith(b"dcaf1") else "shape")
        return suite.open(token, self._keys, self._audience)

    def _rests(self, standing: Standing, signer: Key, now: int) -> bool:
        if standing.kid != signer.kid or standing.token[0][:PREFIX_BYTES] != self._prefix:
            return False
        return (now - standing.claims.iat) * WORN_AFTER <= self._lifetime.idle_s

    def _restore(self, payload: Payload, version: int, standing: Standing, shared: tuple[str, ...]) -> State:
        """The state that a server keeps, upgraded to the current version of the schema.

        Raises:
            SessionUnavailable: It is of a newer version. A process of a newer release wrote it, and this one must drop nothing.
            SessionEnded: There is no way from its version to the current one.
        """
        if version > self._migrations.version:
            raise SessionUnavailable(reason="version", ran=False)
        self._migrations.check(version)
        state = State(payload, standing)
        _check_written(state, payload)
        if version != self._migrations.version:
            self._migrations.upgrade(state, version, shared)
            state.mark_sealed(state.payload(), standing._replace(token=(), kid=None))
        return state

    def _seal_state(self, state: State, payload: Payload, binding: Binding, sequence: int | None) -> Standing:
        """The standing with a new token for a payload of a state, or with the last token where that goes out again."""
        arrived = state.standing or _require_standing(state)
        now = int(self._clock())
        key = self._keys.signer(now)
        is_sealed = payload is state.arrived and arrived.token != () and (state.journal is None or not state.has_additions)
        subject, conversation = binding.digests(self._suite.prefix, key)
        is_bound = arrived.claims.sub == subject and arrived.claims.cid == conversation
        if is_sealed and is_bound and self._rests(arrived, key, now) and sum(map(len, arrived.token)) <= self._max_token_bytes:
            return arrived
        if sequence is None:
            sequence = arrived.claims.seq + (not is_sealed)
        _, sid, _, born, _, _, _, _, _, epoch, place, _ = arrived.claims
        version = self._migrations.version or None
        end = self._lifetime.end(born, now)
        carried = payload if place is None else ELSEWHERE
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
    """What a store is to commit, and how the session goes on afterwards.

    Attributes:
        sealed: What the store gets.
        standing: The standing of the session once it is committed.
        frozen: The state as it was sealed.
    """

    sealed: Sealed
    standing: Standing
    frozen: Frozen

    def __repr__(self) -> str:
        return "Prepared(...)"

    def mark_sealed(self, session: Session) -> None:
        """Count only what was written since the freeze as a change from now on."""
        with state_of(session).lock:
            state_of(session).mark_sealed(self.frozen.payload, self.standing, self.frozen)


def _check_written(state: State, payload: Payload) -> None:
    """Refuse a kept state that cannot be read. A client may drop a broken token, but nobody may drop a state of the server.

    Raises:
        SessionUnavailable: It is no object.
    """
    try:
        if isinstance(payload, Payload) and isinstance(payload.data, bytes):
            state._load()
            return
    except (SessionInvalid, ValueError):
        pass
    raise SessionUnavailable(reason=FAILED, ran=False)


def _standing_of(session: Session) -> Standing:
    return _require_standing(state_of(session))


def _require_standing(state: State) -> Standing:
    standing = state.standing
    if standing is None:
        raise ConfigurationError("Only a session that the middleware began or opened can be sealed.")
    return standing


def _room(suite: Suite, audience: str, max_token_bytes: int) -> int:
    """The bytes of state that fit into a token with the longest claims of this audience."""
    room = suite.room(len(LONGEST._replace(aud=audience).write()), max_token_bytes)
    if room < len(b"{}"):
        taken = max_token_bytes - room * 4 // 3
        raise ConfigurationError(f"max_token_bytes={max_token_bytes} leaves no room for a state; the claims alone take {taken}.")
    return room


def _load_kept() -> Any:
    # Only a store that keeps answers needs the extra ``crypto``.
    return import_module("dcaf.core.kept")
