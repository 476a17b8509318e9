"""Transactions: a part of a turn that is kept as a whole or not at all, and the session as it sees it.

The session as one call of a tool sees it: its own until it has returned, and then part of the session, or gone.

>>> from dcaf.core.base64url import Payload
>>> state = State(Payload(b'{"step":1,"log":["a"]}'))
>>> one, other = Overlay(state), Overlay(state)
>>> one.put("step", 2)
>>> other.find("log").lend().append("b")
>>> one.commit().clashes, other.commit().clashes, state.plain()
([], [], b'{"step":2,"log":["a","b"]}')

What a reader gets wrong: reading counts. A call that read a key, and writes it after another call did, has written something that
was computed from what is no longer there. That is a clash even where both wrote the same.

A part of a turn that is kept as a whole, or not at all.

>>> from dcaf.core.context import current_session
>>> session = Session.from_dict({"step": 1})
>>> with transaction(session) as draft:
...     draft["step"] = 2
...     session["step"], current_session()["step"]
(1, 2)
>>> session["step"]
2

What a reader gets wrong: nobody waits for a transaction. What changed in the session meanwhile, and in the transaction too, is
merged as of two calls of tools that run side by side; where only one change can be kept, it is that of the transaction, and the log
says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, TypeVar

from dcaf.core.base64url import Payload
from dcaf.core.context import _current
from dcaf.core.errors import SessionClosedError
from dcaf.core.handles import ABSENT, Slot
from dcaf.core.json_values import write
from dcaf.core.mapping import state_of
from dcaf.core.merging import ROOT, Added, Growth, Path, changes, grow_again, merge, merge_own, value_of
from dcaf.core.payload import Members
from dcaf.core.rebasing import Growing
from dcaf.core.session import Session, session_behind
from dcaf.core.state import State

if TYPE_CHECKING:
    from dcaf.core.store import Lease

Wins = Callable[[str, Path], bool]

NOTHING: Final = Added(0)
"""What is remembered of a key that a call within this one wrote otherwise than by counting and appending."""

NOTHING_ARRIVED: Final = Payload(b"{}")

ALWAYS: Final[Wins] = lambda _key, _path: True  # noqa: E731 - a constant


class Clash(NamedTuple):
    """A value that two calls changed, where one change had to give way.

    Attributes:
        key: The key of the session.
        path: The members below the key; empty for the whole value.
        kind: ``stale-read`` where the call had read the key before it wrote, else ``write-write``.
    """

    key: str
    path: Path
    kind: Literal["stale-read", "write-write"]


Look = Callable[[Sequence[Clash]], None]

IGNORE: Final[Look] = lambda _clashes: None  # noqa: E731 - a constant


class Committed(NamedTuple):
    """What a commit did.

    Attributes:
        written: Key -> what the call had found there, and what it made of it.
        clashes: Where two changes could not both be kept.
    """

    written: dict[str, tuple[bytes | None, bytes | None]]
    clashes: list[Clash]

    def paths(self) -> dict[str, list[Path]]:
        """Key -> the paths below it that the call had changed."""
        return {key: changes(value_of(before), value_of(after)) for key, (before, after) in self.written.items()}


class Overlay(Growing):
    """What one call reads and writes, over the state of its turn, or over another call's.

    Args:
        parent: The state below. It is looked at when the call first touches its session, and not written before ``commit``.
    """

    __slots__ = ("_parent", "_reads", "_reads_all")

    def __init__(self, parent: State) -> None:
        super().__init__(NOTHING_ARRIVED, parent.standing, limit_bytes=parent.limit_bytes)
        self._parent = parent
        self.lease: Lease | None = parent.lease
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
        """As of a state; the key counts as read."""
        self._reads.add(key)
        return super().peek(key)

    def find(self, key: str) -> Slot | None:
        """As of a state; the key counts as read."""
        self._reads.add(key)
        return super().find(key)

    def keys(self, prefix: str = "") -> list[str]:
        """As of a state; every key counts as read."""
        self._reads_all = True
        return super().keys(prefix)

    def plain(self, shows: Callable[[str], bool] | None = None, payload: Payload | None = None) -> bytes:
        """As of a state; every key counts as read."""
        self._reads_all = True
        with self.lock:
            self._loaded()
            return super().plain(shows, payload)

    def copy(self) -> State:
        """As of a state; every key counts as read."""
        self._reads_all = True
        with self.lock:
            self.settle()
            copied, present = State(standing=self.standing, limit_bytes=self.limit_bytes), self._now()
            for key in present:
                copied.slot(key).data = present.written(key)
            copied._library = self._library
            return copied

    def drop(self, key: str) -> bool:
        """As of a state; that there was nothing to drop is a read."""
        was_there = super().drop(key)
        if not was_there:
            self._reads.add(key)
        return was_there

    def has_written(self) -> bool:
        """Whether a commit would change anything. Raises as ``settle``."""
        with self.lock:
            self.settle()
            return self._library != self._own_arrived or any(slot.data != slot.arrived for slot in self._slots.values())

    def commit(self, *, wins: Wins = ALWAYS, look: Look = IGNORE) -> Committed:
        """Make what this call did part of the state below, all of it or, when this raises, nothing.

        Args:
            wins: Whether this call's change, of a key and at a path, is kept over what others have committed: it comes later.
            look: Sees the clashes before anything is written. What it raises ends the commit.

        Raises:
            SessionAliasError, SessionValueError: What the call did cannot be written, or would be too large together.
        """
        parent = self._parent
        with self.lock, parent.lock:
            if isinstance(parent, Overlay):
                self.pass_reads()
            if self._members is None and not self._slots:
                return Committed({}, [])
            self.settle()
            values: dict[str, bytes | None] = {}
            growths: dict[str, Growth] = {}
            written: dict[str, tuple[bytes | None, bytes | None]] = {}
            clashes: list[Clash] = []
            new = {*self._moved}
            for key, slot in self._slots.items():
                if slot.data is slot.arrived or slot.data == slot.arrived:
                    continue
                theirs = self._below(key)
                values[key], written[key] = self._merged(slot, theirs, wins, clashes), (slot.arrived, slot.data)
                if theirs is None:
                    new.add(key)
                if self._grown and self._commutes(slot):
                    growths[key] = self._grown[key]
            if clashes:
                look(clashes)
            own = None if self._library == self._own_arrived else merge_own(self._own_arrived, parent._library, self._library)
            if values or own is not None:
                parent.overwrite(values, growths, own)
            if new:
                self._place_last(new)
            return Committed(written, clashes)

    def _place_last(self, keys: set[str]) -> None:
        for key in self._slots:
            if key in keys:
                self._parent.move_to_end(key)

    def pass_reads(self) -> None:
        """Count what this call has read as read by the call that it was made within, if it was."""
        if isinstance(self._parent, Overlay):
            self._parent._reads |= self._reads
            self._parent._reads_all |= self._reads_all

    def overwrite(
        self,
        values: Mapping[str, bytes | None],
        changes: Mapping[str, Growth],
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """As of a state; changes that commute stay what they are."""
        super().overwrite(values, changes, own)
        for key in values:
            slot = self._slots[key]
            slot.is_rewritten = slot.is_rewritten or key not in changes
            self._remember(key, changes.get(key, NOTHING))

    def _loaded(self) -> Members:
        """What stood in the state below when it was first looked at."""
        members = self._members
        if members is None:
            parent = self._parent
            with parent.lock:
                if parent._slots:
                    parent.settle()
                members = parent._now() if parent._slots else parent._loaded()
                self._library = self._own_arrived = parent._library
                self._hold(members, parent._most_bytes)
        return members

    def _is_plain(self) -> bool:
        return False

    def _below(self, key: str) -> bytes | None:
        """What a key is in the state below, now."""
        slot = self._parent._found(key)
        if slot is None:
            return None
        if slot.handles:
            slot.settle()
        return slot.data

    def _commutes(self, slot: Slot) -> bool:
        """Whether all that the call did to a key was to count and to append."""
        return slot.key in self._grown and not slot.is_rewritten

    def _merged(self, slot: Slot, theirs: bytes | None, wins: Wins, clashes: list[Clash]) -> bytes | None:
        """What a key is to be in the state below; where one change gives way is noted."""
        if self._grown and self._commutes(slot):
            counted = slot.data if theirs == slot.arrived else grow_again(theirs, slot.key, self._grown[slot.key])
            if counted is not None:
                return counted
        if not (self._reads_all or slot.key in self._reads or slot.key in self._grown):
            return _written_blindly(slot, theirs, clashes, is_later=wins(slot.key, ROOT))
        if theirs == slot.arrived:
            return slot.data
        value, paths = merge(value_of(slot.arrived), value_of(theirs), value_of(slot.data), wins=lambda path: wins(slot.key, path))
        clashes += [Clash(slot.key, path, "stale-read") for path in paths]
        return None if value is ABSENT else write(value)


def _written_blindly(slot: Slot, theirs: bytes | None, clashes: list[Clash], *, is_later: bool) -> bytes | None:
    """One whole value that was written without a look at what it replaces: the later one is kept, and two equal ones are one."""
    if slot.data == theirs or (is_later and theirs == slot.arrived):
        return slot.data
    clashes.append(Clash(slot.key, ROOT, "write-write"))
    return slot.data if is_later else theirs


logger: Final[logging.Logger] = logging.getLogger("dcaf")

S = TypeVar("S", bound=Session)

OUTSIDE: Final = "a change from outside"
"""What the log calls a change that no call has made."""

_innermost: Final[ContextVar[Transaction | None]] = ContextVar("dcaf_transaction", default=None)


class Transaction:
    """One that is open; a call of a tool is one, too. ``with`` makes it the innermost one, and its session the current one.

    Args:
        below: What it is committed into.
        kind: The class of its session.

    Attributes:
        outer: The one that was the innermost where this one began.
        overlay: What is done in it.
        session: The same, as those who do it see it.
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


def innermost(state: State) -> Transaction | None:
    """The innermost transaction that is open here, and is of a state or over it; None where there is none."""
    found = _innermost.get()
    while found is not None:
        if found.overlay._late is None and (found.overlay is state or found.overlay.is_over(state)):
            return found
        found = found.outer
    return None


def transaction(session: S) -> AbstractContextManager[S]:
    """Keep all of what the code inside does to a session when it ends, or nothing of it when it raises.

    Inside, ``current_session()`` is the draft, and the tools that run there are part of it, whichever of the two sessions they are
    given. A transaction inside another one, or inside a call of a tool, is part of that.

    Args:
        session: The session.

    Returns:
        A context manager that gives the draft: a session of the same class, which nobody else sees.

    Raises:
        ConfigurationError: It is no Session.
        SessionAliasError, SessionValueError: At the end, what was done cannot be written, or would be too large together. Then
            nothing is kept.
    """
    return _drafted(session_behind(session, "transaction()"))


@contextmanager
def _drafted(session: Session) -> Iterator[S]:
    around = innermost(state_of(session))
    below = state_of(session) if around is None else around.overlay
    made = Transaction(below, type(session))
    try:
        with made:
            yield made.session  # type: ignore[misc]
        with made.overlay.lock, below.lock:  # in this order, as of a commit
            done = made.overlay.commit()
            made.overlay._late = refuse_late
    finally:
        made.overlay.pass_reads()
    for clash in done.clashes:
        log_clash("a transaction", OUTSIDE, clash.kind)


def log_clash(kept: str, dropped: str, kind: Literal["stale-read", "write-write"]) -> None:
    """Say that one change was kept over another. Neither key nor value is in it, which may be a user's.

    Args:
        kept: Whose change was kept: the name of a tool, or words.
        dropped: Whose was not; OUTSIDE where it has no name.
        kind: As of a ``dcaf.core.transaction.Clash``.
    """
    logger.warning("dcaf: %s was kept over %s (%s)", kept, dropped, kind)


def refuse_late() -> NoReturn:
    """Refuse a change to a session that was committed already: called at once where it is what an overlay has for ``end``.

    Raises:
        SessionClosedError: Always.
    """
    raise SessionClosedError(
        "The session was changed after the call, or the transaction, that it was of had ended: nobody would have seen the change. "
        "Await what changes it before the end; a task that outlives it takes the session of the turn, and runs a tool of its own."
    )
