"""The session of a turn of a session service: the same as everywhere, and what the service knows of it.

What a reader gets wrong: ``session["user:theme"]`` is ``session.user["theme"]``, and stands in every session of the user. It is
written with the turn, and read when the turn begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from dcaf.core.arguments import kind_of
from dcaf.core.claims import Claims, Standing
from dcaf.core.errors import ConfigurationError
from dcaf.core.mapping import state_of
from dcaf.core.payload import members_of
from dcaf.core.rebasing import RebasableState
from dcaf.core.session import Session
from dcaf.core.slots import Closing
from dcaf.core.state import Frozen
from dcaf.engines import Engine
from dcaf.service import windows
from dcaf.service.changes import Change, KeyChange, Mark
from dcaf.service.history import unpack_page
from dcaf.service.kept import Kept
from dcaf.service.links import require_link
from dcaf.service.memory import Memory, end_memory, find_changes, take_committed
from dcaf.service.messages import Message, pack
from dcaf.service.places import APP, USER, require_name
from dcaf.service.reading import Read

LAST_S: Final = 253_402_300_799
MOST_BYTES: Final = 1024 * 1024
"""How large a message may be, as JSON."""


class KeptState(RebasableState):
    """The state of a session that a service keeps.

    Args:
        kept: What is known of the session.
        read: Its state, as it was read.
        memory: What its user and it remember.
        app: The application that it is one of.
        engine: Where it is kept.

    Attributes:
        kept, memory, app, engine: As above.
        now_ms: The engine's clock when it was read.
        read: Messages that were read, oldest first.
        added: New messages, packed, each with its moment in milliseconds; None for that of the commit.
        marks: Name -> the checkpoint that was set under it.
    """

    __slots__ = ("added", "app", "engine", "kept", "marks", "memory", "now_ms", "read")

    def __init__(self, kept: Kept, read: Read, memory: Memory, app: str, engine: Engine) -> None:
        super().__init__(read.payload, _describe(kept, app))
        self.app: str = app
        self.engine: Engine = engine
        self.kept: Kept = kept
        self.memory: Memory = memory
        self.now_ms: int = read.now_ms
        self.read: list[Message] = unpack_page(read.messages)
        self.added: list[Message] = []
        self.marks: dict[str, Mark] = {}

    def find_change(self, ttl_ms: int | None) -> tuple[Frozen, Change]:
        """The state as it is committed, and what is to be written. Raises as ``freeze``."""
        with self.lock:
            frozen = self.freeze()
            values = {name: KeyChange(*both, self.find_commuting(name)) for name, both in self.changed_values().items()}
            messages = [(pack(message), message.at_ms) for message in self.added]
            return frozen, Change(values, messages, ttl_ms, find_changes(self.memory), {**self.marks})

    def copy(self) -> KeptState:
        """As of a state. It has the memory of the session that it is copied from."""
        with self.lock:
            copied = KeptState(self.kept, Read(None, self.arrived, (), self.now_ms), self.memory, self.app, self.engine)
            copied.refill(super().copy())
            copied.read, copied.added, copied.marks = [*self.read], [*self.added], {**self.marks}
            return copied

    def take_committed(self, kept: Kept, laid: Mapping[str, bytes | None], frozen: Frozen, change: Change) -> None:
        """Count only what comes later as a change.

        Args:
            kept: What is known of the session now.
            laid: Shared keys that were laid over what other sessions had written -> their values.
            frozen, change: As of ``find_change``.
        """
        with self.lock:
            self.mark_sealed(frozen.payload, _describe(kept, self.app), frozen)
            if laid:
                self.rebase(members_of(frozen.payload).updated(laid).payload())
            count = len(change.messages)
            first, at_ms = kept.messages - count + 1, int(kept.updated_at.timestamp() * 1000)
            for at, message in enumerate(self.added[:count]):
                said_ms = at_ms if message.at_ms is None else message.at_ms
                self.read.append(message.placed(number=first + at, at_ms=said_ms))
            del self.added[:count]
            take_committed(self.memory, change.memory)
            self.marks = {name: mark for name, mark in self.marks.items() if change.marks.get(name) is not mark}
            self.kept, self.now_ms = kept, at_ms

    def close(self, closing: Closing) -> None:
        """Refuse it: a service ends the sessions that it keeps.

        Raises:
            ConfigurationError: Always.
        """
        name = "rotate" if closing.rotates else "end"
        raise ConfigurationError(f"session.{name}() is not for a session that a service keeps: await sessions.delete(user=, id=).")

    def end(self, late: Callable[[], None]) -> None:
        """As of a state; the memory takes no change any more, either."""
        super().end(late)
        end_memory(self.memory)

    def mark(self, name: str) -> None:
        """Set a checkpoint, which is written with the turn. Raises as ``payload``."""
        with self.lock:
            self.require_open()
            members = members_of(self.payload())
            shared = [key for key in members if key.startswith((USER, APP))]
            self.marks[name] = Mark(members.updated(dict.fromkeys(shared)).payload().data, len(self.added))


def _describe(kept: Kept, app: str) -> Standing:
    """The session, for views of it that know nothing of a service. One that is kept for ever ends with the year 9999 there."""
    born, updated = int(kept.created_at.timestamp()), int(kept.updated_at.timestamp())
    ends = LAST_S if kept.ends_at is None else int(kept.ends_at.timestamp())
    return Standing(Claims(app, kept.id, kept.revision, born, updated, ends))


class SessionMessages:
    """The history of the session of a turn: those of the newest messages that were read, and what the turn adds.

    To go through it gives just these, oldest first; ``total`` counts all.

    Args:
        state: Of the session.
    """

    def __init__(self, state: KeptState) -> None:
        self._state = state

    def __iter__(self) -> Iterator[Message]:
        return iter([*self._state.read, *self._state.added])

    @property
    def total(self) -> int:
        """How many there are, those of this turn included."""
        return self._state.kept.messages + len(self._state.added)

    def add(self, message: Message | Mapping[str, Any] | str, content: Any = None, **members: Any) -> Message:
        """Add a message, which is written with the turn: ``add("user", "Hello!")``, or a whole one.

        Args:
            message: A role; or a message, as ``Message.of`` takes it, alone.
            content: What it says.
            members: The other members of a message: ``tool_calls``, ``tool_call_id``, ``name``, ``metadata``, ``at``.

        Raises:
            ConfigurationError: It is no message, or the result of a tool that answers no open call.
            SessionValueError: A value may not be stored.
            SessionClosedError: The turn is over.
        """
        given: Any = {"role": message, "content": content, **members} if isinstance(message, str) else message
        found = Message.of(given, limit_bytes=MOST_BYTES)
        with self._state.lock:
            self._state.require_open()
            require_link(found, self._state.added, self._state.kept.open_calls)
            self._state.added.append(found)
        return found

    def window(
        self, *, last: int | None = None, tokens: int | None = None, count: Callable[[Message], int] | None = None
    ) -> list[Message]:
        """What a model is shown: of the messages that were read the newest, never a call without its results.

        Args:
            last: How many at most.
            tokens: How many tokens at most.
            count: Counts the tokens of a message; needed with ``tokens``.

        Raises:
            ConfigurationError: Neither or both are given.
            WindowTooSmallError: Not even the newest ones fit.
        """
        if last is not None and tokens is None:
            self._require_read(last)
            return windows.last(self, last)
        if last is None and tokens is not None and count is not None:
            return windows.tokens(self, tokens, count)
        raise ConfigurationError("window() takes last=, or tokens= with count=, which counts the tokens of a message.")

    def _require_read(self, last: int) -> None:
        read = len(self._state.read) + len(self._state.added)
        if type(last) is int and read < min(last, self.total):
            raise ConfigurationError(
                f"Of the messages of the session, {read} were read: give open(last=) so many as window(last=)."
            )


class KeptSession(Session):
    """A session that a service keeps, as ``SessionService.open`` and ``get`` give it."""

    @property
    def id(self) -> str:
        """Its id."""
        return self._kept.id

    @property
    def messages(self) -> SessionMessages:
        """Its history."""
        return SessionMessages(state_of_kept(self))

    @property
    def user_id(self) -> str | None:
        """Whose it is; None for an anonymous one."""
        return self._kept.user

    @property
    def revision(self) -> int:
        """How many turns of it were committed."""
        return self._kept.revision

    @property
    def created_at(self) -> datetime:
        """When it was made, in UTC."""
        return self._kept.created_at

    @property
    def updated_at(self) -> datetime:
        """When it was committed last, in UTC."""
        return self._kept.updated_at

    @property
    def expires_at(self) -> datetime | None:
        """When it ends unless it is committed again, in UTC; None for never."""
        return self._kept.ends_at

    @property
    def title(self) -> str | None:
        """Its title; None for none."""
        return self._kept.title

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self._kept.labels

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else the application wrote of it."""
        return self._kept.metadata

    @property
    def memory(self) -> Memory:
        """What the user remembers, across all of the user's sessions; ``memory.here`` is what this session alone remembers."""
        return state_of_kept(self).memory

    @property
    def state(self) -> Mapping[str, Any]:
        """Its state, as a mapping that nobody can write: what the session itself shows, also later."""
        return MappingProxyType(self)

    @property
    def conversation_history(self) -> list[Message]:
        """Of its history the newest messages that were read, and what this turn has added, oldest first."""
        return [*self.messages]

    def checkpoint(self, name: str) -> None:
        """Give this point of the turn a name, to which ``sessions.rewind(checkpoint=name)`` takes the session back.

        It is written with the turn, in place of an older one of the name. What the session shares with others is no part of it.

        Args:
            name: Its name.

        Raises:
            ConfigurationError: The name is no text of 1 to 256 characters.
            SessionAliasError, SessionValueError: What was done to the session cannot be written.
            SessionClosedError: The turn is over.
        """
        state_of_kept(self).mark(require_name("checkpoint()", name))

    @property
    def _kept(self) -> Kept:
        return state_of_kept(self).kept


def make_session(kept: Kept, read: Read, memory: Memory, app: str, engine: Engine) -> KeptSession:
    """A session of what was read."""
    return KeptSession._over(KeptState(kept, read, memory, app, engine))


def state_of_kept(session: object) -> KeptState:
    """The state of a session that a service keeps.

    Raises:
        ConfigurationError: It is none.
    """
    state = state_of(session) if isinstance(session, Session) else None
    if not isinstance(state, KeptState):
        raise ConfigurationError(f"A session service takes a session that it has opened or made, not {kind_of(session)}.")
    return state
