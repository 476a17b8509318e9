"""What a turn adds to a kept session beside its state: messages, facts and documents; and what it has read.

>>> from dcaf.engines import MemoryEngine
>>> from dcaf.service.kept import About, Kept
>>> from dcaf.service.tables import Owner
>>> kept = Kept.new("visit-1", "p-123", b"birth", About(), 0)
>>> owner = Owner("clinic", "p-123", partitions=1)
>>> turn = TurnJournal.of(Opened(kept, "clinic", MemoryEngine(), 0), owner)
>>> call = turn.begin()
>>> call.add(Message.of({"role": "user", "content": "Hello!"}))
>>> turn.list_added(), [message.content for message in call.list_added()]
([], ['Hello!'])
>>> turn.take_over(call)
>>> [message.content for message in turn.list_added()]
['Hello!']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from dcaf.core.errors import ConfigurationError, SessionValueError
from dcaf.core.journal import Journal
from dcaf.engines import Engine
from dcaf.service.artifact_contents import Files
from dcaf.service.changes import Mark
from dcaf.service.document_drafts import DocumentDraft
from dcaf.service.document_rows import DocumentChange, DocumentScope
from dcaf.service.drafts import MemoryDraft
from dcaf.service.kept import Kept
from dcaf.service.links import require_link
from dcaf.service.messages import Message, pack
from dcaf.service.quotas import UNLIMITED, Quotas, check_messages, check_sessions
from dcaf.service.remembered import MemoryChange, MemoryScope
from dcaf.service.tables import Owner

MOST_BYTES: Final = 1024 * 1024
"""How large a message may be, as JSON."""


@dataclass(slots=True)
class Opened:
    """A session as a turn has read it, and as it has committed it since.

    Attributes:
        kept: What is known of it.
        app: The application.
        engine: Where it is kept.
        now_ms: The engine's clock when it was read.
        messages: Its newest messages, as many as were read, oldest first.
        files: Where the bytes of its artifacts are; None where the service has none.
        quotas: How much the session, and its user, may have.
        owned: How many sessions its user had, where it is not kept yet and there is a quota of them; else 0.
    """

    kept: Kept
    app: str
    engine: Engine = field(repr=False)
    now_ms: int
    messages: list[Message] = field(default_factory=list, repr=False)
    files: Files | None = field(default=None, repr=False)
    quotas: Quotas = UNLIMITED
    owned: int = 0

    def require_room(self, added: int) -> None:
        """Refuse to add so many messages, and to keep a session that is not kept yet, where a quota does not allow it.

        Raises:
            QuotaExceededError: It does not.
        """
        if added:
            check_messages(self.quotas, self.kept.messages + added)
        if not self.kept.revision:
            check_sessions(self.quotas, self.owned)


class Additions(NamedTuple):
    """What is to be committed beside a state.

    Attributes:
        messages: New messages.
        memory: What was done to the memories.
        marks: Name -> the checkpoint that was set under it.
        documents: What was done to the documents of the session.
    """

    messages: Sequence[Message] = ()
    memory: Sequence[MemoryChange] = ()
    marks: Mapping[str, Mark] = {}
    documents: Sequence[DocumentChange] = ()

    def __repr__(self) -> str:
        return "Additions(...)"

    def pack_messages(self) -> list[tuple[bytes, int | None]]:
        """The messages, each with its moment in milliseconds; None for that of the commit."""
        return [(pack(message), message.at_ms) for message in self.messages]


class TurnJournal:
    """A ``dcaf.core.journal.Journal``, and a ``History``.

    Args:
        opened: The session.
        user, here: What is going to be remembered of the user, and by the session alone.
        documents: What is going to be written to the documents of the session.
        below: The journal of the turn, or of the call around this one; None for that of the turn itself.

    Attributes:
        opened, user, here, documents: As above.
    """

    def __init__(
        self,
        opened: Opened,
        user: MemoryDraft,
        here: MemoryDraft,
        documents: DocumentDraft,
        below: TurnJournal | None = None,
    ) -> None:
        self.opened: Opened = opened
        self.user: MemoryDraft = user
        self.here: MemoryDraft = here
        self.documents: DocumentDraft = documents
        self._below = below
        self._messages: list[Message] = []
        self._marks: dict[str, Mark] = {}
        self._frozen = Additions()

    @classmethod
    def of(cls, opened: Opened, owner: Owner) -> TurnJournal:
        """The journal of a turn."""
        session_id, birth = opened.kept.id, opened.kept.birth
        user = MemoryScope.of_user(owner, session_id, birth)
        here = MemoryScope.of_session(owner, session_id, birth)
        documents = DocumentDraft(DocumentScope.of_session(owner, session_id, birth))
        return cls(opened, MemoryDraft(user), MemoryDraft(here), documents)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be committed."""
        return not (self._messages or self._marks) and self.user.is_empty and self.here.is_empty and self.documents.is_empty

    @property
    def total(self) -> int:
        """How many messages the session has, those of this turn included."""
        return self.opened.kept.messages + len(self.list_added())

    def begin(self) -> TurnJournal:
        """As of a journal."""
        return TurnJournal(self.opened, self.user.begin(), self.here.begin(), self.documents.begin(), self)

    def freeze(self) -> None:
        """As of a journal."""
        memory = [*self.user.find_changes(), *self.here.find_changes()]
        self._frozen = Additions(list(self._messages), memory, dict(self._marks), self.documents.find_changes())

    def take_over(self, before: Journal) -> None:
        """As of a journal."""
        if isinstance(before, TurnJournal):
            self._take_added(before)
            self.user.take_over(before.user)
            self.here.take_over(before.here)
            self.documents.take_over(before.documents)

    def add(self, message: Message) -> None:
        """Add a message.

        Raises:
            ConfigurationError: It is the result of a tool that answers no open call, or makes a call that is open.
        """
        require_link(message, self.list_added(), self.opened.kept.open_calls)
        self._messages.append(message)

    def check(self, call: Journal) -> None:
        """As of a journal: of two results for one call of a tool the later one is refused, and of two writes of one revision.

        Raises:
            SessionValueError, DocumentConflictError: It is the later one.
        """
        if not isinstance(call, TurnJournal):
            return
        self.documents.check(call.documents)
        found = self.list_added()
        for message in call._messages:
            try:
                require_link(message, found, self.opened.kept.open_calls)
            except ConfigurationError as error:
                raise SessionValueError(str(error)) from None
            found.append(message)

    def mark(self, name: str, data: bytes) -> None:
        """Set a checkpoint behind the messages that are there, in place of one of its name.

        Args:
            name: Its name.
            data: The session's own state, as JSON.
        """
        self._marks[name] = Mark(data, len(self._messages))

    def list_added(self) -> list[Message]:
        """The messages that the turn, and this call, have added."""
        return [*([] if self._below is None else self._below.list_added()), *self._messages]

    def list_messages(self) -> Iterator[Message]:
        """The messages that were read, and those that were added, oldest first."""
        return iter([*self.opened.messages, *self.list_added()])

    def read_messages(self) -> list[Mapping[str, Any]]:
        """As of a history."""
        return [message.to_dict() for message in self.list_messages()]

    def add_message(self, message: Mapping[str, Any]) -> None:
        """As of a history: an agent, which does this before it asks a model, learns at once that it cannot be kept.

        Raises as ``add``, and as ``Opened.require_room``.
        """
        self.opened.require_room(len(self.list_added()) + 1)
        self.add(Message.of(message, limit_bytes=MOST_BYTES))

    @property
    def frozen(self) -> Additions:
        """What was there when the state was frozen last."""
        return self._frozen

    def take_committed(self, kept: Kept, memory: Sequence[MemoryChange]) -> None:
        """Count only what came after the state was frozen as an addition.

        Args:
            kept: What is known of the session now.
            memory: What was done to the memories, as it was committed.
        """
        messages = self._frozen.messages
        first, at_ms = kept.messages - len(messages) + 1, int(kept.updated_at.timestamp() * 1000)
        for at, message in enumerate(messages):
            said_ms = at_ms if message.at_ms is None else message.at_ms
            self.opened.messages.append(message.placed(number=first + at, at_ms=said_ms))
        del self._messages[: len(messages)]
        self._marks = {
            name: mark._replace(messages=mark.messages - len(messages))
            for name, mark in self._marks.items()
            if self._frozen.marks.get(name) is not mark
        }
        for change in memory:
            (self.user if change.scope == self.user.scope else self.here).take_committed(change)
        for document in self._frozen.documents:
            self.documents.take_committed(document.written)
        self.opened.kept, self.opened.now_ms, self._frozen = kept, at_ms, Additions()

    def _take_added(self, other: TurnJournal) -> None:
        """Have the messages and the checkpoints of another one come behind those of this one."""
        count = len(self._messages)
        self._marks |= {name: mark._replace(messages=count + mark.messages) for name, mark in other._marks.items()}
        self._messages += other._messages
