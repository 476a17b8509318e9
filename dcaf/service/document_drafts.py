"""Documents that a turn, a call of a tool in it, or a transaction is going to write: part of one commit, or nothing.

>>> from dcaf.service.document_rows import freeze
>>> from dcaf.service.tables import Owner
>>> draft = DocumentDraft(DocumentScope.of_session(Owner("clinic", "p-123", partitions=1), "visit-1"))
>>> draft.put("report", Written(freeze("Well.", None), revision=7, expect=0))
>>> call = draft.begin()
>>> call.put("report", Written(freeze("Ill.", None), revision=8, expect=7))
>>> draft.find("report").revision, call.find("report").revision
(7, 8)
>>> draft.take_over(call)
>>> draft.find("report").revision, draft.find("report").expect
(8, 0)
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock

from dcaf.service.document_rows import DocumentChange, DocumentScope, Written, require_revision


class DocumentDraft:
    """What is going to be written to the documents of one scope.

    Args:
        scope: Where they lie.
        below: The draft of the turn, or of the call around this one; None for that of the turn itself.
    """

    def __init__(self, scope: DocumentScope, below: DocumentDraft | None = None) -> None:
        self.scope: DocumentScope = scope
        self._below = below
        self._lock: RLock = RLock() if below is None else below._lock
        self._written: dict[str, Written] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self._written

    def put(self, key: str, written: Written) -> None:
        """Write a document, or delete it.

        Raises:
            DocumentConflictError: It was written in this turn, and is of another revision than is expected.
        """
        with self._lock:
            self._require_expected(key, written)
            self._lay(key, written)

    def find(self, key: str) -> Written | None:
        """What is going to be under a key; None where only the engine knows."""
        with self._lock:
            if key in self._written:
                return self._written[key]
            return None if self._below is None else self._below.find(key)

    def find_all(self) -> dict[str, Written]:
        """All that is going to be written."""
        with self._lock:
            return {**({} if self._below is None else self._below.find_all()), **self._written}

    def begin(self) -> DocumentDraft:
        """A draft over this one."""
        return DocumentDraft(self.scope, self)

    def check(self, other: DocumentDraft) -> None:
        """Refuse what another draft is going to do where it does not fit what this one is by now.

        Raises:
            DocumentConflictError: A document is of another revision than was expected there.
        """
        with self._lock:
            for key, written in other._written.items():
                self._require_expected(key, written)

    def take_over(self, other: DocumentDraft) -> None:
        """Do what another draft is going to do after what this one is."""
        with self._lock:
            for key, written in other._written.items():
                self._lay(key, written)

    def move(self, scope: DocumentScope) -> None:
        """Write to other documents from now on, which are copies of these."""
        self.scope = scope

    def find_changes(self) -> list[DocumentChange]:
        """What is to be committed: one change, or none."""
        with self._lock:
            return [DocumentChange(self.scope, dict(self._written))] if self._written else []

    def take_committed(self, written: Mapping[str, Written]) -> None:
        """Count only what came after ``find_changes`` as a change; it goes on from what was committed."""
        with self._lock:
            for key, done in written.items():
                now = self._written.get(key)
                if now is done:
                    del self._written[key]
                elif now is not None and now.expect is not None:
                    self._written[key] = now._replace(expect=done.revision)

    def _require_expected(self, key: str, written: Written) -> None:
        found = self.find(key)
        if found is not None:
            require_revision(written.expect, found.revision)

    def _lay(self, key: str, written: Written) -> None:
        """Write behind what is going to be written here, which says what has to be there until then."""
        before = self._written.get(key)
        self._written[key] = written if before is None else written._replace(expect=before.expect)
