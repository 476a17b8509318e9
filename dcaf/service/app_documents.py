"""Documents of an application, which belong to no session: ``sessions.documents``.

>>> from dcaf.service import SessionService
>>> documents = SessionService("memory://", app="clinic").sync.documents
>>> first = documents.put("threads", "t1/0001", {"step": 1}, expect=0)
>>> with documents.transaction("threads") as batch:
...     second = batch.put("t1/0001", {"step": 2}, expect=first)
...     third = batch.put("t1/log", b"...")
>>> [document.key for document in documents.scan("threads", "t1/").items]
['t1/0001', 't1/log']

They lie in spaces, which a name makes. All of one space are in one partition, so several of them are written in one transaction;
those of two spaces are not. A space is there as long as it has documents.
"""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Final

from dcaf.core.errors import ConfigurationError, SessionClosedError
from dcaf.engines import Engine
from dcaf.service.document_drafts import DocumentDraft
from dcaf.service.document_plans import (
    KeyOrder,
    Scan,
    clear_documents,
    commit_documents,
    delete_document,
    read_document,
    scan_documents,
)
from dcaf.service.document_rows import (
    Document,
    DocumentChange,
    DocumentScope,
    Written,
    check_expect,
    check_key,
    check_prefix,
    describe,
    freeze,
    make_revision,
)
from dcaf.service.documents import Documents, SyncDocuments
from dcaf.service.listing import ListPage
from dcaf.service.places import require_name
from dcaf.service.plans import Plan, run, run_async, run_to_end

OVER: Final = "The transaction is over: nothing that is written now would be kept. Do it in another one."


class AppDocuments:
    """Documents of an application. Each call is a commit of its own; ``transaction`` makes one of several.

    Args:
        engine: Where they are kept.
        app: The application.
    """

    def __init__(self, engine: Engine, app: str) -> None:
        self._engine = engine
        self._plans = _Plans(app, engine)

    def __repr__(self) -> str:
        return "<AppDocuments>"

    async def put(self, space: str, key: str, value: object, *, expect: int | None = None, ttl: timedelta | None = None) -> int:
        """Write a document; returns its new revision.

        Args:
            space: The name of its space: 1 to 256 characters.
            key: Its key: a text of 1 to 200 bytes in UTF-8.
            value: Bytes; or anything that a session may have. At most 4 MiB, as JSON.
            expect: The revision that it has to have; 0 where there must be none; None for any.
            ttl: For how long it is kept; None for ever.

        Raises:
            DocumentConflictError: It is of another revision.
            SessionValueError: The value may not be stored, or is too large, or the key is none.
            ConfigurationError: The space is none, ``expect`` is no number of 0 or more, or the ttl no timedelta of 1 millisecond to
                100 years.
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        return await run_to_end(self._plans.put(space, key, value, expect, ttl), self._engine)

    async def get(self, space: str, key: str) -> Document | None:
        """Read a document; None where there is none.

        Raises:
            SessionValueError, ConfigurationError: The key, or the space, is none.
            EngineError: The engine failed.
        """
        return await run_async(self._plans.get(space, key), self._engine)

    async def scan(
        self, space: str, prefix: str = "", *, limit: int = 100, cursor: str | None = None, order: KeyOrder = "ascending"
    ) -> ListPage[Document]:
        """A page of the documents of a space whose keys begin so, in the order of their keys.

        Args:
            space: The name of the space.
            prefix, limit, cursor, order: As of ``Documents.scan``.

        Raises:
            ConfigurationError: An argument is wrong, or the cursor is another scan's; or the space has more than 10,000 documents
                where the service encrypts.
            EngineError: The engine failed.
        """
        return await run_async(self._plans.scan(space, prefix, limit, cursor, order), self._engine)

    async def delete(self, space: str, key: str, *, expect: int | None = None) -> bool:
        """Delete a document; False where there is none.

        Args:
            space, key, expect: As of ``put``.

        Raises:
            DocumentConflictError, SessionValueError, ConfigurationError, EngineError, CommitUnknownError: As ``put``.
        """
        return await run_to_end(self._plans.delete(space, key, expect), self._engine)

    async def clear(self, space: str, prefix: str = "") -> int:
        """Delete the documents of a space whose keys begin so, in steps; returns how many there were.

        Raises:
            ConfigurationError: The space, or the prefix, is none; or, with a prefix that is not empty, the space has more than
                10,000 documents where the service encrypts.
            EngineError: The engine failed; some may be deleted. Call again.
        """
        return await run_to_end(self._plans.clear(space, prefix), self._engine)

    def transaction(self, space: str) -> DocumentTransaction:
        """Several writes of one space in one commit: ``async with sessions.documents.transaction("threads") as documents``.

        The block has the methods of ``session.documents``, and finds what it has written. A block that raises writes nothing.

        Args:
            space: The name of the space.

        Raises:
            ConfigurationError: The space is none.

        Raises, when the block ends:
            DocumentConflictError: A document is of another revision than was expected. Nothing was written.
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        return DocumentTransaction(self._engine, self._plans.find_scope(space))


class SyncAppDocuments:
    """The methods of an application's documents for code that runs on no event loop. They block.

    Args:
        engine: Where they are kept.
        app: The application.
    """

    def __init__(self, engine: Engine, app: str) -> None:
        self._engine = engine
        self._plans = _Plans(app, engine)

    def put(self, space: str, key: str, value: object, *, expect: int | None = None, ttl: timedelta | None = None) -> int:
        """As of the documents."""
        return run(self._plans.put(space, key, value, expect, ttl), self._engine)

    def get(self, space: str, key: str) -> Document | None:
        """As of the documents."""
        return run(self._plans.get(space, key), self._engine)

    def scan(
        self, space: str, prefix: str = "", *, limit: int = 100, cursor: str | None = None, order: KeyOrder = "ascending"
    ) -> ListPage[Document]:
        """As of the documents."""
        return run(self._plans.scan(space, prefix, limit, cursor, order), self._engine)

    def delete(self, space: str, key: str, *, expect: int | None = None) -> bool:
        """As of the documents."""
        return run(self._plans.delete(space, key, expect), self._engine)

    def clear(self, space: str, prefix: str = "") -> int:
        """As of the documents."""
        return run(self._plans.clear(space, prefix), self._engine)

    def transaction(self, space: str) -> DocumentTransaction:
        """As of the documents, as ``with sessions.sync.documents.transaction("threads") as documents``."""
        return DocumentTransaction(self._engine, self._plans.find_scope(space))


class DocumentTransaction:
    """Several writes of one space in one commit, with ``async with``, or with ``with`` and without ``await``.

    Args:
        engine: Where they are kept.
        scope: The space.
    """

    def __init__(self, engine: Engine, scope: DocumentScope) -> None:
        self._engine = engine
        self._draft = DocumentDraft(scope)
        self._is_entered = self._is_over = False

    async def __aenter__(self) -> Documents:
        return self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        changes = self._end()
        if error is None:
            await run_to_end(commit_documents(changes), self._engine)

    def __enter__(self) -> SyncDocuments:
        return self._begin().sync

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        changes = self._end()
        if error is None:
            run(commit_documents(changes), self._engine)

    def _begin(self) -> Documents:
        if self._is_entered:
            raise ConfigurationError("A transaction is entered once: call documents.transaction(...) again for the next one.")
        self._is_entered = True
        return Documents(self._engine, lambda: self._draft, self._require_open)

    def _require_open(self) -> None:
        if self._is_over:
            raise SessionClosedError(OVER)

    def _end(self) -> list[DocumentChange]:
        """What is to be committed. Whoever reads from now on finds what is kept, also where that is nothing of it."""
        self._is_over = True
        changes, self._draft = self._draft.find_changes(), DocumentDraft(self._draft.scope)
        return changes


class _Plans:
    """What documents of an application do outside of a transaction."""

    def __init__(self, app: str, engine: Engine) -> None:
        self._app = app
        self._partitions = engine.partitions

    def find_scope(self, space: str) -> DocumentScope:
        """Where the documents of a space lie."""
        return DocumentScope.of_space(self._app, require_name("space=", space), self._partitions)

    def put(self, space: str, key: str, value: object, expect: int | None, ttl: timedelta | None) -> Plan[int]:
        written = Written(freeze(value, ttl), make_revision(), check_expect(expect))
        yield from commit_documents([DocumentChange(self.find_scope(space), {check_key(key): written})])
        return written.revision

    def get(self, space: str, key: str) -> Plan[Document | None]:
        row = yield from read_document(self.find_scope(space), check_key(key))
        return None if row is None else describe(row)

    def scan(self, space: str, prefix: str, limit: int, cursor: str | None, order: KeyOrder) -> Plan[ListPage[Document]]:
        return scan_documents(self.find_scope(space), {}, Scan.of(prefix, limit=limit, cursor=cursor, order=order))

    def delete(self, space: str, key: str, expect: int | None) -> Plan[bool]:
        return delete_document(self.find_scope(space), check_key(key), check_expect(expect))

    def clear(self, space: str, prefix: str) -> Plan[int]:
        return clear_documents(self.find_scope(space), check_prefix(prefix))
