"""Transactions: a part of a turn that is kept as a whole or not at all. A call of a tool is one, too.

>>> from dcaf.core.context import current_session
>>> session = Session.from_dict({"step": 1})
>>> with transaction(session) as draft:
...     draft["step"] = 2
...     session["step"], current_session()["step"]
(1, 2)
>>> session["step"]
2

The session inside is an overlay over the state outside, and is merged into it at the end:

>>> from dcaf.core.base64url import Payload
>>> state = State(Payload(b'{"step":1,"log":["a"]}'))
>>> one, other = Overlay(state), Overlay(state)
>>> one.put("step", 2)
>>> other.find("log").get_live().append("b")
>>> one.commit().clashes, other.commit().clashes, state.plain()
([], [], b'{"step":2,"log":["a","b"]}')

What a reader gets wrong: nobody waits for a transaction, and reading counts. If two of them change one value, the later one is kept
and the log says so; that is a clash even where both wrote the same, if one had read the value first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, TypeVar

from dcaf.core.base64url import Payload
from dcaf.core.context import _current
from dcaf.core.errors import SessionClosedError
from dcaf.core.handles import Slot
from dcaf.core.json_values import write
from dcaf.core.mapping import state_of
from dcaf.core.merging import ROOT, CommutingChange, Path, changes, merge, merge_own, read_value, reapply
from dcaf.core.parts import ABSENT
from dcaf.core.payload import Members
from dcaf.core.rebasing import CommutingState
from dcaf.core.session import Session, require_session
from dcaf.core.state import State

if TYPE_CHECKING:
    from dcaf.core.journal import Journal
    from dcaf.core.store import Lease

Wins = Callable[[str, Path], bool]

NOTHING_ARRIVED: Final = Payload(b"{}")

ALWAYS: Final[Wins] = lambda _key, _path: True  # noqa: E731 - a constant

logger: Final[logging.Logger] = logging.getLogger("dcaf")

S = TypeVar("S", bound=Session)

OUTSIDE: Final = "a change from outside"
"""The name in the log for a change that no call has made."""

_innermost: Final[ContextVar[Transaction | None]] = ContextVar("dcaf_transaction", default=None)


class Clash(NamedTuple):
    """A value that two calls changed, where only one change could be kept.

    Attributes:
        key: The key of the session.
        path: The members below the key; empty for the whole value.
        kind: ``stale-read`` where the call had read the key before it wrote, else ``write-write``.
    """

    key: str
    path: Path
    kind: Literal["stale-read", "write-write"]


Look = Callable[[Sequence[Clash]], None]
"""Sees the clashes of a commit before it is done."""

IGNORE: Final[Look] = lambda _clashes: None  # noqa: E731 - a constant


class Committed(NamedTuple):
    """The result of a commit.

    Attributes:
        written: Key -> the value that the call found, and the value that it left.
        clashes: The values of which only one change could be kept.
    """

    written: dict[str, tuple[bytes | None, bytes | None]]
    clashes: list[Clash]

    def paths(self) -> dict[str, list[Path]]:
        """Key -> the paths below it that the call had changed."""
        return {key: changes(read_value(before), read_value(after)) for key, (before, after) in self.written.items()}


class Overlay(CommutingState):
    """What one call reads and writes, over the state of its turn or over another call's overlay.

    Args:
        parent: The state below. It is read when the call first touches its session, and written by ``commit`` alone.
    """

    __slots__ = ("_parent", "_reads", "_reads_all")

    def __init__(self, parent: State) -> None:
        super().__init__(NOTHING_ARRIVED, parent.standing, limit_bytes=parent.limit_bytes)
        self._parent = parent
        self.lease: Lease | None = parent.lease
        self.journal: Journal | None = None if parent.journal is None else parent.journal.begin()
        self._reads: set[str] = set()
        self._reads_all = False

    def is_over(self, state: State) -> bool:
        """Whether a state is below this one, however deep."""
        below: State = self
        while isinstance(below, Overlay):
            below = below._parent
            if below is state:
                return True
        return False

    def peek(self, key: str) -> Any:
        """As in a state; the key counts as read."""
        self._reads.add(key)
        return super().peek(key)

    def find(self, key: str) -> Slot | None:
        """As in a state; the key counts as read."""
        self._reads.add(key)
        return super().find(key)

    def keys(self, prefix: str = "") -> list[str]:
        """As in a state; every key counts as read."""
        self._reads_all = True
        return super().keys(prefix)

    def plain(self, shows: Callable[[str], bool] | None = None, payload: Payload | None = None) -> bytes:
        """As in a state; every key counts as read."""
        self._reads_all = True
        with self.lock:
            self._load()
            return super().plain(shows, payload)

    def copy(self) -> State:
        """As in a state; every key counts as read."""
        self._reads_all = True
        with self.lock:
            self.write_back()
            copied, present = State(standing=self.standing, limit_bytes=self.limit_bytes), self._current_members()
            for key in present:
                copied.slot(key).data = present.written(key)
            copied._library = self._library
            return copied

    def drop(self, key: str) -> bool:
        """As in a state; to find nothing to drop counts as a read."""
        was_there = super().drop(key)
        if not was_there:
            self._reads.add(key)
        return was_there

    def has_written(self) -> bool:
        """Whether a commit would change anything. Raises as ``write_back``."""
        with self.lock:
            self.write_back()
            has_own = self.closing is not None or self._library != self._own_arrived
            has_own = has_own or (self.journal is not None and self.has_additions)
            return has_own or any(slot.data != slot.arrived for slot in self._slots.values())

    def mark_spent(self) -> None:
        """As in a state; of the session of the turn, below."""
        self._parent.mark_spent()

    def require_open(self) -> None:
        """As in a state; the states below must be open, too."""
        super().require_open()
        self._parent.require_open()

    @property
    def has_ended(self) -> bool:
        """Whether the turn has ended, or the call that this is of."""
        return super().has_ended or self._parent.has_ended

    def commit(self, *, wins: Wins = ALWAYS, look: Look = IGNORE) -> Committed:
        """Make the changes of this call part of the state below: all of them or, when this raises, none.

        Args:
            wins: Tells for a key and a path whether this call comes later than those that committed, so that its change is kept.
            look: Is called with the clashes before anything is written. What it raises ends the commit.

        Raises:
            SessionAliasError, SessionValueError: A change cannot be written, or all of them together would be too large.
        """
        parent = self._parent
        with self.lock, parent.lock:
            if isinstance(parent, Overlay):
                self.pass_reads()
            if self.journal is not None and parent.journal is not None:
                parent.journal.check(self.journal)
            is_untouched = self._members is None and not self._slots
            done = Committed({}, []) if self.is_ending or is_untouched else self._commit_values(parent, wins, look)
            if self.journal is not None:
                self._commit_journal(parent, self.journal)
            if self.closing is not None:
                parent.close(self.closing)
            return done

    def _commit_journal(self, parent: State, journal: Journal) -> None:
        """Add what this call has added to the journal that the turn has by now: on a socket each frame has one of its own."""
        if parent.journal is not None:
            parent.journal.take_over(journal)
        self.journal = None if parent.journal is None else parent.journal.begin()

    def _commit_values(self, parent: State, wins: Wins, look: Look) -> Committed:
        self.write_back()
        values: dict[str, bytes | None] = {}
        commuting: dict[str, CommutingChange] = {}
        written: dict[str, tuple[bytes | None, bytes | None]] = {}
        clashes: list[Clash] = []
        new = {*self._moved}
        for key, slot in self._slots.items():
            if slot.data is slot.arrived or slot.data == slot.arrived:
                continue
            theirs = self._read_below(key)
            values[key], lost = self._merge(slot, theirs, wins)
            written[key] = slot.arrived, slot.data
            clashes += lost
            if theirs is None:
                new.add(key)
            if self._commuting and self._commutes(slot):
                commuting[key] = self._commuting[key]
        if clashes:
            look(clashes)
        own = None if self._library == self._own_arrived else merge_own(self._own_arrived, parent._library, self._library)
        if values or own is not None:
            parent.overwrite(values, commuting, own)
        if new:
            self._place_last(new)
        return Committed(written, clashes)

    def _place_last(self, keys: set[str]) -> None:
        for key in self._slots:
            if key in keys:
                self._parent.move_to_end(key)

    def pass_reads(self) -> None:
        """Count what this call has read as read by the call around it, if there is one."""
        if isinstance(self._parent, Overlay):
            self._parent._reads |= self._reads
            self._parent._reads_all |= self._reads_all

    def _load(self) -> Members:
        """The members of the state below, as they were when this call first read it."""
        members = self._members
        if members is None:
            parent = self._parent
            with parent.lock:
                if parent._slots:
                    parent.write_back()
                members = parent._current_members() if parent._slots else parent._load()
                self._library = self._own_arrived = parent._library
                self._set_members(members, parent._most_bytes)
        return members

    def _is_plain(self) -> bool:
        return False

    def _read_below(self, key: str) -> bytes | None:
        """The current value of a key in the state below."""
        slot = self._parent._find_slot(key)
        if slot is None:
            return None
        if slot.handles:
            slot.write_back()
        return slot.data

    def _commutes(self, slot: Slot) -> bool:
        """Whether the call changed a key by increments or appends alone."""
        return slot.key in self._commuting and not slot.is_rewritten

    def _merge(self, slot: Slot, theirs: bytes | None, wins: Wins) -> tuple[bytes | None, list[Clash]]:
        """The value that a key gets in the state below, and the clashes where a change is lost."""
        if self._commuting and self._commutes(slot):
            counted = slot.data if theirs == slot.arrived else reapply(theirs, slot.key, self._commuting[slot.key])
            if counted is not None:
                return counted, []
        if not (self._reads_all or slot.key in self._reads or slot.key in self._commuting):
            return _merge_blindly(slot, theirs, is_later=wins(slot.key, ROOT))
        if theirs == slot.arrived:
            return slot.data, []
        value, paths = merge(
            read_value(slot.arrived), read_value(theirs), read_value(slot.data), wins=lambda path: wins(slot.key, path)
        )
        return None if value is ABSENT else write(value), [Clash(slot.key, path, "stale-read") for path in paths]


class Transaction:
    """An open transaction. ``with`` makes it the innermost one, and its session the current one.

    Args:
        below: The state that it is committed into.
        kind: The class of its session.

    Attributes:
        outer: The innermost transaction where this one began; None where there was none.
        overlay: Its changes.
        session: The session over the overlay, for the code inside.
    """

    __slots__ = ("_tokens", "outer", "overlay", "session")

    def __init__(self, below: State, kind: type[Session] = Session) -> None:
        self.outer: Transaction | None = _innermost.get()
        self.overlay: Overlay = Overlay(below)
        self.session: Session = kind._over(self.overlay)
        self._tokens: tuple[Token[Transaction | None], Token[Session]] | None = None

    def __enter__(self) -> None:
        self._tokens = _innermost.set(self), _current.set(self.session)

    def __exit__(self, *raised: object) -> None:
        assert self._tokens is not None
        innermost, current = self._tokens
        _current.reset(current)
        _innermost.reset(innermost)


def find_innermost(state: State) -> Transaction | None:
    """Find the innermost open transaction over a state; None where there is none."""
    found = _innermost.get()
    while found is not None:
        if found.overlay.late is not refuse_late and (found.overlay is state or found.overlay.is_over(state)):
            return found
        found = found.outer
    return None


def transaction(session: S) -> AbstractContextManager[S]:
    """Keep all of what the code inside does to a session when it ends, or nothing of it when it raises.

    Inside, ``current_session()`` is the draft, and tools that run there are part of it, whichever of the two sessions they are
    given. A transaction inside another one, or inside a call of a tool, becomes part of that.

    Args:
        session: The session.

    Returns:
        A context manager that gives the draft: a session of the same class, which nobody else sees.

    Raises:
        ConfigurationError: It is no Session.
        SessionAliasError, SessionValueError: At the end, a change cannot be written, or all of them would be too large; nothing is
            kept.
    """
    return _draft(require_session(session, "transaction()"))


def log_clash(kept: str, dropped: str, kind: Literal["stale-read", "write-write"]) -> None:
    """Log that one change was kept over another, without key and value, which may be a user's.

    Args:
        kept: Who made the change that was kept: the name of a tool, or words.
        dropped: Who made the other; OUTSIDE where it has no name.
        kind: As in ``Clash``.
    """
    logger.warning("dcaf: %s was kept over %s (%s)", kept, dropped, kind)


def refuse_late() -> NoReturn:
    """Refuse a change to a draft that was committed already.

    Raises:
        SessionClosedError: Always.
    """
    raise SessionClosedError(
        "The session was changed after the call, or the transaction, that it was of had ended: nobody would have seen the change. "
        "Await what changes it before the end; a task that outlives it takes the session of the turn, and runs a tool of its own."
    )


def _merge_blindly(slot: Slot, theirs: bytes | None, *, is_later: bool) -> tuple[bytes | None, list[Clash]]:
    """Merge a value that was written without a read of the one before: the later one is kept, and two equal ones do not clash."""
    if slot.data == theirs or (is_later and theirs == slot.arrived):
        return slot.data, []
    return slot.data if is_later else theirs, [Clash(slot.key, ROOT, "write-write")]


@contextmanager
def _draft(session: Session) -> Iterator[S]:
    around = find_innermost(state_of(session))
    below = state_of(session) if around is None else around.overlay
    made = Transaction(below, type(session))
    try:
        with made:
            yield made.session  # type: ignore[misc]
        with made.overlay.lock, below.lock:  # in this order, as in a commit
            done = made.overlay.commit()
            made.overlay.late = refuse_late
    finally:
        made.overlay.pass_reads()
    for clash in done.clashes:
        log_clash("a transaction", OUTSIDE, clash.kind)
