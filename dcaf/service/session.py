"""The session of a turn of a session service: the same as everywhere, and what the service knows of it.

What a reader gets wrong: ``session["user:theme"]`` is ``session.user["theme"]``, and stands in every session of the user. It is
written with the turn, and read when the turn begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from dcaf.core.arguments import kind_of
from dcaf.core.base64url import Payload
from dcaf.core.claims import Claims, Standing
from dcaf.core.errors import ConfigurationError
from dcaf.core.journal import Journal
from dcaf.core.mapping import state_of
from dcaf.core.payload import members_of
from dcaf.core.rebasing import RebasableState
from dcaf.core.session import Session
from dcaf.core.slots import Closing
from dcaf.core.state import Frozen
from dcaf.service.artifacts import Artifacts
from dcaf.service.changes import Change, KeyChange
from dcaf.service.conversation import Messages, journal_of
from dcaf.service.documents import Documents
from dcaf.service.journal import Opened, TurnJournal
from dcaf.service.kept import Kept
from dcaf.service.memory import Memory
from dcaf.service.messages import Message
from dcaf.service.places import APP, USER, require_name

LAST_S: Final = 253_402_300_799


class KeptState(RebasableState):
    """The state of a session that a service keeps.

    Args:
        journal: What is known of the session, and what a turn adds to it beside the state.
        payload: The state, as it was read.
    """

    __slots__ = ()

    def __init__(self, journal: TurnJournal, payload: Payload) -> None:
        super().__init__(payload, _describe(journal.opened))
        self.journal: Journal | None = journal

    @property
    def opened(self) -> Opened:
        """What is known of the session."""
        return self._kept_journal.opened

    def find_change(self, ttl_ms: int | None) -> tuple[Frozen, Change]:
        """The state as it is committed, and what is to be written. Raises as ``freeze``."""
        with self.lock:
            frozen, added = self.freeze(), self._kept_journal.frozen
            values = {name: KeyChange(*both, self.find_commuting(name)) for name, both in self.changed_values().items()}
            return frozen, Change(values, added.pack_messages(), ttl_ms, added.memory, marks=added.marks, documents=added.documents)

    def copy(self) -> KeptState:
        """As of a state. It has the messages and the memory of the session that it is copied from."""
        with self.lock:
            copied = KeptState(self._kept_journal, self.arrived)
            copied.refill(super().copy())
            return copied

    def take_committed(self, kept: Kept, laid: Mapping[str, bytes | None], frozen: Frozen, change: Change) -> None:
        """Count only what comes later as a change.

        Args:
            kept: What is known of the session now.
            laid: Shared keys that were laid over what other sessions had written -> their values.
            frozen, change: As of ``find_change``.
        """
        with self.lock:
            self._kept_journal.take_committed(kept, change.memory)
            self.mark_sealed(frozen.payload, _describe(self.opened), frozen)
            if laid:
                self.rebase(members_of(frozen.payload).updated(laid).payload())

    def close(self, closing: Closing) -> None:
        """Refuse it: a service ends the sessions that it keeps.

        Raises:
            ConfigurationError: Always.
        """
        name = "rotate" if closing.rotates else "end"
        raise ConfigurationError(f"session.{name}() is not for a session that a service keeps: await sessions.delete(user=, id=).")

    @property
    def _kept_journal(self) -> TurnJournal:
        return journal_of(self)


def _describe(opened: Opened) -> Standing:
    """The session, for views of it that know nothing of a service. One that is kept for ever ends with the year 9999 there."""
    kept = opened.kept
    born, updated = int(kept.created_at.timestamp()), int(kept.updated_at.timestamp())
    ends = LAST_S if kept.ends_at is None else int(kept.ends_at.timestamp())
    return Standing(Claims(opened.app, kept.id, kept.revision, born, updated, ends))


class KeptSession(Session):
    """A session that a service keeps, as ``SessionService.open`` and ``get`` give it.

    Behind a middleware with ``store=SessionService(...)``, ``current_session(KeptSession)`` is one, too.
    """

    @property
    def id(self) -> str:
        """Its id."""
        return self._kept.id

    @property
    def messages(self) -> Messages:
        """Its history."""
        return Messages.of(self)

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
        return Memory.of(self)

    @property
    def documents(self) -> Documents:
        """What lies under it beside the state: documents, which go with it."""
        return Documents.of(self)

    @property
    def artifacts(self) -> Artifacts:
        """Its files; those whose names begin with ``user:`` are shared by all of the user's sessions.

        Raises:
            ConfigurationError: The service keeps no artifacts.
        """
        return Artifacts.of(self)

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
        state, found = state_of(self), require_name("checkpoint()", name)
        with state.lock:
            state.require_open()
            journal_of(state).mark(found, state.plain(lambda key: not key.startswith((USER, APP))))

    @property
    def _kept(self) -> Kept:
        return journal_of(state_of(self)).opened.kept


def make_session(journal: TurnJournal, payload: Payload) -> KeptSession:
    """A session of what was read."""
    return KeptSession._over(KeptState(journal, payload))


def state_of_kept(session: object) -> KeptState:
    """The state of a session that a service keeps.

    Raises:
        ConfigurationError: It is none.
    """
    state = state_of(session) if isinstance(session, Session) else None
    if not isinstance(state, KeptState):
        raise ConfigurationError(f"A session service takes a session that it has opened or made, not {kind_of(session)}.")
    return state
