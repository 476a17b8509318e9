"""Move a session that goes on under another id, perhaps as another user's: what is copied before it is committed, and what is not.

messages       are copied, before the commit that makes the new session; documents and artifacts, too
state          is written with that commit
facts          those of the session, and of an anonymous one its own as a user, are remembered anew with that commit
user: keys     of an anonymous session come along where its user has none of that name; those of a user stay that user's

What the turn has changed of shared keys is laid over what is there.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcaf.core.json_values import write
from dcaf.core.merging import CommutingChange
from dcaf.service.artifact_remains import copy_artifacts
from dcaf.service.changes import KeyChange
from dcaf.service.document_plans import has_documents
from dcaf.service.document_rows import DocumentScope
from dcaf.service.drafts import MemoryDraft
from dcaf.service.journal import TurnJournal
from dcaf.service.kept import Kept
from dcaf.service.memory_plans import read_all, read_memory
from dcaf.service.places import APP, USER, Place
from dcaf.service.plans import Plan
from dcaf.service.reading import read_shared, values_in
from dcaf.service.remembered import Fact, MemoryScope
from dcaf.service.rewinding import begin_copy


class Move:
    """A session on its way.

    Args:
        before: Where it lies.
        kept: What is known of it.
        target: Where it is going to lie.
        birth: Of what it is going to be.
        arrived: The state as it was read there, key -> value.
        is_carried: Whether it came with its token, so that nobody can tell what of it the turn has changed.

    Attributes:
        before, kept, arrived: As above.
        after: What is known of what it is going to be.
    """

    def __init__(
        self, before: Place, kept: Kept, target: Place, birth: bytes, *, arrived: Mapping[str, bytes], is_carried: bool
    ) -> None:
        self.before: Place = before
        self.kept: Kept = kept
        self.after: Kept = kept.moved(target.id, target.owner.user, birth)
        self.arrived: Mapping[str, bytes] = arrived
        self._is_carried = is_carried
        self._target = target
        self._shared: dict[str, bytes] = {}
        self._is_copied = False

    def begin(self, turn: TurnJournal) -> Plan[dict[str, bytes]]:
        """Have the turn remember what the session takes along; returns what is there where it is going to lie, key -> value."""
        self._shared = values_in((yield from read_shared(self._target)).payload)
        owner, session_id, birth = self._target.owner, self._target.id, self.after.birth
        yield from _take_along(turn.here, MemoryScope.of_session(owner, session_id, birth))
        turn.documents.move(DocumentScope.of_session(owner, session_id, birth))
        user = MemoryScope.of_user(owner, session_id, birth)
        if turn.user.scope.session is None:
            turn.user.move(user)
        else:
            yield from _take_along(turn.user, user)
        return self._shared

    def lay(self, key: str, data: bytes | None, change: CommutingChange | None) -> KeyChange:
        """What is done to a key where the session is going to lie.

        Args:
            key: The key.
            data: Its value where the session lies now; None for absent.
            change: The increments or appends that led to it; None where it was changed in another way.
        """
        was, there, is_shared = self.arrived.get(key), self._shared.get(key), key.startswith((USER, APP))
        was_anonymous = key.startswith(USER) and self.before.owner.user is None
        if there is None and (was_anonymous or not is_shared):
            return KeyChange(None, data, change)
        stays = data == was or (was_anonymous and data is None) or (was is None and self._is_carried)
        return KeyChange(there, there) if stays else KeyChange(was, data, change).over(key, there)

    @property
    def is_apart(self) -> bool:
        """Whether no transaction reaches both places."""
        return self.before.owner.partition != self._target.owner.partition

    def go_on(self, kept: Kept) -> None:
        """Go on from what is known by now of the session where it lies; its messages are copied once more."""
        self.kept, self._is_copied = kept, False
        self.after = kept.moved(self.after.id, self.after.user, self.after.birth)

    def copy(self) -> Plan[None]:
        """Copy the messages, the documents and the artifacts, once."""
        if not self._is_copied and (self.kept.messages or (yield from has_documents(self.before))):
            yield from begin_copy(self.before, self._target, self.after, self.after.birth, self.kept.messages)
        if not self._is_copied:
            yield from copy_artifacts(self.before, self.kept.birth, self._target, self.after.birth)
        self._is_copied = True


def _take_along(draft: MemoryDraft, scope: MemoryScope) -> Plan[None]:
    """Have the facts of a memory remembered in another one, but for those that are there.

    Args:
        draft: What is going to be written, to the one and from now on to the other.
        scope: The other.
    """
    facts, now_ms = yield from read_all(draft.scope, draft.generation)
    pending, is_cleared = draft.find_all()
    for name, fact in {} if is_cleared else facts.items():
        if name not in pending and (scope.session is not None or (yield from read_memory(scope, name)).row is None):
            left = None if fact.expires_at is None else max(1, int(fact.expires_at.timestamp() * 1000) - now_ms)
            draft.put(name, Fact(write(fact.value), left))
    draft.move(scope)
