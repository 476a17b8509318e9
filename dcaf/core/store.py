"""The interface for servers that keep sessions: a store opens each session of each turn, and its lease commits what is sealed.

    open      every session, before the application runs: one that arrived, a new, a restarted, an imported one
    spend     what may be used once, before what it allows is done
    give_back what was spent, where what it allows has not begun after all
    latest    a newer state, for stores that merge, before this turn's state is sealed
    commit    the finished envelope, before it is sent
    end       in place of a commit, where the application has ended the session
    rotate    before a commit that begins another session with the same state, and ends this one
    release   always, however the turn ended

>>> import asyncio
>>> lease = asyncio.run(StatelessStore().open(OpenRequest("A" * 22, None, Binding("shop"))))
>>> lease.revision, lease.sequence
(0, 1)

What a reader gets wrong: a store neither opens nor makes a token. It is asked about verified claims, and gets the finished token.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from dcaf.core.arguments import has_methods, kind_of, require_plain_function
from dcaf.core.base64url import Payload
from dcaf.core.claims import MAX_INTEGER, PLACE, Binding, Claims
from dcaf.core.errors import (
    ConfigurationError,
    IdempotencyKeyReused,
    QuotaExceededError,
    SessionClosedError,
    SessionConflict,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
    describe_raised,
)
from dcaf.core.merging import CommutingChange
from dcaf.core.parts import ABSENT

P = ParamSpec("P")
T = TypeVar("T")

FAILED: Final = "store"
"""The reason of a refusal where the store failed, or does not have the state that a token says it keeps."""

STEPS: Final = ("spend", "give_back", "latest", "commit", "end", "rotate", "release")
"""The methods of a lease."""

PLAIN: Final = "a plain function: no event loop runs yet"

COUNTS: Final = ("revision", "sequence", "version")
"""The attributes of a lease that are always numbers."""

REFUSALS: Final = (
    SessionConflict,
    SessionEnded,
    SessionSuperseded,
    IdempotencyKeyReused,
    QuotaExceededError,
    SessionUnavailable,
    SessionClosedError,
)
"""The errors that a store may raise. It cannot know the reasons for any other refusal."""

logger: Final[logging.Logger] = logging.getLogger("dcaf")


def _no_identity() -> bytes | None:
    return None


def _find_none(_: str) -> CommutingChange | None:
    return None


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A session whose turn begins.

    Attributes:
        session_id: The session's id; a new one has one, too.
        claims: The verified claims of its token; None where no token seals it: a session that is new, restarted, or imported from
            a plain object.
        binding: Its binding, in clear.
        is_safe: Whether the method of the request promises to change nothing (RFC 9110, section 9.2.1), or nothing was asked yet:
            the handshake of a WebSocket.
        idempotency_key: The header ``Idempotency-Key``; None where there is none.
        identity: Returns what tells this request from others, the SHA-256 of its method, path, query, Content-Type and body; None
            where the body was not read whole, or this is no request. It is computed when it is called.
    """

    session_id: str = field(repr=False)
    claims: Claims | None = field(repr=False)
    binding: Binding
    is_safe: bool = False
    idempotency_key: str | None = field(default=None, repr=False)
    identity: Callable[[], bytes | None] = field(default=_no_identity, repr=False)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The settings of a middleware or a ``SessionHost`` that its store has to agree with.

    Attributes:
        audience: The service whose sessions it opens.
        absolute_timeout: How long a session lives in all.
        has_subject: Whether sessions can be bound to a caller: ``subject=`` is given, or each turn names its own.
        max_state_bytes: How large a state may be that a token carries; None for no limit.
    """

    audience: str
    absolute_timeout: timedelta
    has_subject: bool
    max_state_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """A state that is frozen, sealed, and not yet sent.

    Attributes:
        payload: The whole state, wherever it is kept.
        claims: The claims of its token: ``seq`` is its number, ``sv`` the version of its schema.
        token: The token.
        envelope: What the client gets at ``data.session``, as JSON; empty where a header or a cookie carries the token alone.
        is_changed: Whether the state differs from the one that the turn began with, or that was committed last.
        keep: Returns token and mirror, encrypted, for a store that keeps them for a client whose answer is lost: it raises
            ``SessionConflict(kept=...)``. It needs the extra ``crypto``, and is computed when it is called.
        find_commuting: Tells of a key by which increments or appends it was changed; None where it was in another way.
    """

    payload: Payload = field(repr=False)
    claims: Claims = field(repr=False)
    token: bytes = field(repr=False)
    envelope: bytes = field(repr=False)
    is_changed: bool
    keep: Callable[[], bytes] = field(repr=False)
    find_commuting: Callable[[str], CommutingChange | None] = field(default=_find_none, repr=False)


class Lease(Protocol):
    """One turn's hold on one session.

    A lease may also have ``journal``, a ``dcaf.core.journal.Journal``: what the turn adds beside its state, which the lease commits
    with it; and ``shared``, a tuple of what the keys begin with that other sessions have, too: no migration of one session changes
    these.

    Attributes:
        revision: The number of the state that the turn begins with: that of the token, 0 for a new session; where the lease gives a
            payload, the number of that.
        sequence: The number of the next changed state, reserved for this turn.
        epoch: The claim ``ep`` of what is sealed from now on; None for none.
        place: The claim ``at`` of what is sealed from now on: where the state is kept; None where the token carries it.
        payload: The state that the server keeps; None where the token carries it.
        version: The version of the application's schema that the payload is of.
        may_retry: Whether a client whose answer was lost may send its turn again: the store knows what was done. Its envelopes
            have the hint ``retry`` then.
    """

    revision: int
    sequence: int
    epoch: int | None
    place: str | None
    payload: Payload | None
    version: int
    may_retry: bool

    async def spend(self, keys: Sequence[str]) -> bool:
        """Use up keys that may be used once in a session, all or none, before what they allow is done; False where one was used.

        Raises:
            SessionError: The session is revoked by now, or another turn has taken it over.
            SessionUnavailable: Nobody can tell. Then nothing is used up, as far as the store knows.
        """

    async def give_back(self, keys: Sequence[str]) -> None:
        """Make keys usable again that this turn used up: what they allow has not begun, and will not in this turn.

        Keys that another turn used up stay so: a turn whose question was not answered gives back what it had asked for.

        Raises:
            SessionUnavailable: The store failed. Then the keys stay used up.
        """

    async def latest(self) -> Payload | None:
        """A newer state than the turn began with, over which the turn's changes are laid; None where there is none.

        Only stores that merge have one; ``revision`` and ``sequence`` are those of the newer state from then on.
        """

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        """Keep a sealed state, if no other turn came first. It is sent after this returns.

        Streams and sockets call it several times, and after ``release`` for later changes: those are kept only while no other turn
        holds the session. ``sequence`` is the next number when it returns.

        Args:
            sealed: The state that will be sent.
            ends_turn: Whether it is a whole answer or the end of a stream's turn, after which others may hold the session. False
                for a checkpoint.

        Raises:
            SessionConflict, SessionSuperseded, SessionEnded: Another turn came first, or the session was revoked.
            QuotaExceededError: It would have more than it may have.
            SessionUnavailable: It could not be written.
        """

    async def end(self) -> None:
        """End the session for good, in place of a commit: the application has called ``session.end()``.

        No token of it is accepted afterwards, and no later commit brings it back. After ``rotate``, without a commit since, it is
        the session of before that ends. It may come after ``release``, as a commit may.

        Raises:
            SessionError: Another turn came first.
            SessionUnavailable: It could not be written.
        """

    async def rotate(self, request: OpenRequest) -> None:
        """Go on as another session with the same state: the application has called ``session.rotate()``.

        The next commit begins that session, and ends this one, both or none. ``revision``, ``sequence`` and ``epoch`` are those of
        the new session when this returns. What was used up in this one stays used up in the new one. Where the commit fails this
        may be called again, with another new session in place of the one that did not begin.

        Args:
            request: The new session: its id, and its binding.

        Raises:
            SessionUnavailable: The store failed.
        """

    async def release(self) -> None:
        """Release the session: called once, however the turn ended.

        After a commit there may be nothing to do. It is awaited through every cancellation, as ``commit`` is, and without a limit,
        because a store has time-outs of its own.
        """


class SessionStore(Protocol):
    """Keeps sessions between turns: a ledger, a session service, or a store of your own.

    A store may also have ``check_settings(self, settings: StoreSettings) -> None``, which is called when a middleware or a
    ``SessionHost`` is made with the store, and raises ConfigurationError where the two do not fit together. It is no async
    function, and asks no server: whoever imports the application calls it.

    Attributes:
        level: The level that operators see, for instance in telemetry: ``"L2"``, or a name of your own.
    """

    level: str

    async def open(self, request: OpenRequest) -> Lease:
        """Open a session before the application runs. A call that is cancelled holds nothing.

        Raises:
            SessionEnded: It was revoked, or is of an older epoch.
            SessionConflict: Another turn of it is in progress, or an answer to it was lost.
            SessionSuperseded: It is not the newest.
            IdempotencyKeyReused: The key of the request was used for another one.
            QuotaExceededError: It would be kept, and may not be.
            SessionUnavailable: Nobody can tell. Whatever else is raised counts as this.
        """


class StoreSource(Protocol):
    """What makes a store for the service that it is mounted in, such as a session service.

    Attributes:
        level: As of the store.
    """

    level: str

    def as_store(self, settings: StoreSettings) -> SessionStore:
        """The store for a middleware or a ``SessionHost`` with these settings.

        Raises:
            ConfigurationError: The two do not fit together.
        """


class StatelessLease:
    """The lease of a store that keeps nothing, and a base for those that keep something.

    Args:
        request: The session.

    Raises:
        ConfigurationError: It is no OpenRequest.

    Attributes:
        request: As above.
        revision: The number in the token; 0 for a new session.
        sequence: The next number.
        epoch: None: there are no epochs.
        place: None: the token carries the state.
        payload: None, for the same reason.
        version: 0, which nobody reads where there is no payload.
        may_retry: False: nobody knows what was done.
    """

    def __init__(self, request: OpenRequest) -> None:
        if not isinstance(request, OpenRequest):
            raise ConfigurationError(
                f"StatelessLease takes the OpenRequest that its store was given to open, not {kind_of(request)}."
            )
        self.request: OpenRequest = request
        self.revision: int = 0 if request.claims is None else request.claims.seq
        self.sequence: int = self.revision + 1
        self.epoch: int | None = None
        self.place: str | None = None
        self.payload: Payload | None = None
        self.version: int = 0
        self.may_retry: bool = False

    async def spend(self, keys: Sequence[str]) -> bool:  # noqa: ARG002
        """True: a second use cannot be told from the first."""
        return True

    async def give_back(self, keys: Sequence[str]) -> None:
        """Nothing is remembered."""

    async def latest(self) -> Payload | None:
        """None: there is no newer one."""
        return None

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:  # noqa: ARG002
        """Count."""
        self.sequence = sealed.claims.seq + 1

    async def end(self) -> None:
        """Nothing is remembered: the client alone drops the session, and a copy of its token stays good until it expires."""

    async def rotate(self, request: OpenRequest) -> None:
        """Begin to count anew; as for ``end``, nobody remembers that the session before is over."""
        self.request, self.revision, self.sequence = request, 0, 1

    async def release(self) -> None:
        """Nothing is held."""


class StatelessStore:
    """Level L0: keeps nothing, opens every session that was verified, and counts its changes.

    The middleware without ``store=`` does the same, and does not ask.

    Attributes:
        level: ``"L0"``.
    """

    level: str = "L0"

    async def open(self, request: OpenRequest) -> Lease:
        """Open it: without a server's memory there is no older and no newer."""
        return StatelessLease(request)


async def ask(question: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask a store. Any exception that is not one of its refusals counts as a failure of the store.

    Raises:
        SessionError: The store refuses the session.
        SessionClosedError: The turn is over.
        SessionUnavailable: The store failed; the log says with what, and where.
    """
    try:
        return await question(*args, **kwargs)
    except REFUSALS:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a store raises, nobody can tell whether the session is current
        # Only type and place: drivers quote statements in messages and tracebacks, and so state and subjects.
        logger.error("dcaf: the store failed with %s", describe_raised(error))  # noqa: TRY400
        raise SessionUnavailable(reason=FAILED) from None


def check_lease(lease: Lease, last: int | None = None) -> None:
    """Refuse what is no lease, and a lease with which nothing could be sealed that this service would open again.

    Args:
        lease: What the store returned.
        last: The number of the state that was sealed last; None where nothing is to be sealed now.

    Raises:
        SessionUnavailable: The lease is wrong; the log says how.
    """
    try:
        wrong = _find_problem(lease, last)
    except Exception as error:  # noqa: BLE001 - an attribute may be computed, and fail like any other question
        wrong = f"that cannot be read: {type(error).__qualname__}"
    if wrong is not None:
        logger.error("dcaf: the store gave a lease %s", wrong)
        raise SessionUnavailable(reason=FAILED)


def _find_problem(lease: Lease, last: int | None) -> str | None:
    if not has_methods(lease, *STEPS):
        return f"that has not the methods {', '.join(STEPS)}, but is {kind_of(lease)}"
    return _find_wrong_number(lease, last) or _find_wrong_kind(lease)


def _find_wrong_number(lease: Lease, last: int | None) -> str | None:
    for name in COUNTS if getattr(lease, "epoch", ABSENT) is None else (*COUNTS, "epoch"):
        value = getattr(lease, name, None)
        if type(value) is not int or not 0 <= value <= MAX_INTEGER:
            return f"whose {name} is no number from 0 to 2**53 - 1"
    if last is not None and lease.sequence <= last:
        return "whose sequence is not larger than the number of what was sealed last"
    return None


def _find_wrong_kind(lease: Lease) -> str | None:
    place = getattr(lease, "place", ABSENT)
    if place is not None and not (type(place) is str and PLACE.fullmatch(place)):
        return "whose place is not 1 to 16 letters from a to z"
    if not isinstance(getattr(lease, "payload", ABSENT), Payload | None):
        return "whose payload is neither a Payload nor None"
    if type(getattr(lease, "may_retry", None)) is not bool:
        return "whose may_retry is neither True nor False"
    return None


def shared_of(lease: Lease) -> tuple[str, ...]:
    """What the keys begin with that a session shares with others; empty where it shares none."""
    found: tuple[str, ...] = getattr(lease, "shared", ())
    return found


def check_kept(claims: Claims, lease: Lease | None) -> None:
    """Refuse a token whose epoch or state a server keeps, where no store here has them, perhaps in a process of an older release.

    Raises:
        SessionUnavailable: Nobody here has its epoch, or its state.
    """
    has_epoch = lease is not None and lease.epoch is not None
    # A lease with a state and without a place puts the state into the token again, wherever it was kept.
    has_state = lease is not None and lease.payload is not None and lease.place in (None, claims.at)
    if (claims.ep is not None and not has_epoch) or (claims.at is not None and not has_state):
        raise SessionUnavailable(reason=FAILED)


def digest_parts(*parts: bytes) -> bytes:
    """SHA-256 over parts, each with its length in four bytes before it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()


def require_store(store: SessionStore | StoreSource | None) -> None:
    """Require a store, what makes one, or None.

    Raises:
        ConfigurationError: It has neither ``open`` nor ``as_store``, or is a class.
    """
    if store is not None and not (has_methods(store, "open") or has_methods(store, "as_store")):
        raise ConfigurationError(
            "store= takes Ledger(url, audience=...), SessionService(url, app=...), another SessionStore, which is an object with "
            f"`async def open(self, request)`, or None for no store; not {kind_of(store)}."
        )


def find_store(store: SessionStore | StoreSource | None, settings: StoreSettings) -> SessionStore | None:
    """The store for a middleware or a host; one that has ``check_settings`` says whether it fits.

    Raises:
        ConfigurationError: It is none, it does not fit, or its ``check_settings`` is async.
    """
    require_store(store)
    found: Any = store
    if store is not None and has_methods(store, "as_store"):
        found = require_plain_function("store.as_store", found.as_store, PLAIN)(settings)
    if found is not None and has_methods(found, "check_settings"):
        require_plain_function("store.check_settings", found.check_settings, PLAIN)(settings)
    made: SessionStore | None = found
    return made


def level_of(store: SessionStore | StoreSource | None) -> str:
    """The level of a store, for operators and for the chat page: ``custom`` where it has none, L0 for None."""
    found: str = getattr(store, "level", "custom") if store is not None else StatelessStore.level
    return found
