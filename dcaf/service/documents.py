"""What a turn puts under its session beside the state: ``session.documents``, for what is large, binary, or many.

    async with sessions.open(user="p-123") as session:
        await session.documents.put("scan/1", b"...", expect=0)          # only where there is none
        page = await session.documents.scan("scan/", limit=20)
        await session.documents.put("report", {"text": "..."}, expect=report.revision)

What a reader gets wrong: a document is part of its turn. It is written with the commit at the turn's end, all of them or nothing;
``get`` and ``scan`` of the same turn find it already. And a value is a copy: to change it, put it again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Self

from dcaf.core.journal import Injected
from dcaf.core.mapping import state_of
from dcaf.core.session import Session, require_session
from dcaf.engines import Engine, Transaction
from dcaf.service.conversation import is_kept, journal_of
from dcaf.service.document_drafts import DocumentDraft
from dcaf.service.document_plans import KeyOrder, Scan, find_keys, read_document, scan_documents
from dcaf.service.document_rows import (
    ABSENT,
    Document,
    Written,
    check_expect,
    check_key,
    check_prefix,
    describe,
    foresee,
    freeze,
    make_revision,
    require_revision,
    revision_of,
)
from dcaf.service.listing import ListPage
from dcaf.service.plans import Plan, run, run_async


class Documents(Injected):
    """The documents of a session, in a turn; or those of a space, in a transaction. What is written comes with the commit.

    A tool gets those of its session by a parameter: ``documents: Documents``. What a tool writes is dropped where the tool fails.

    Args:
        engine: Where they are kept.
        find_draft: Finds what is going to be written, of the turn that goes on now.
        require_open: Refuses to write where the turn is over.
    """

    def __init__(self, engine: Engine, find_draft: Callable[[], DocumentDraft], require_open: Callable[[], None]) -> None:
        self._engine = engine
        self._find_draft = find_draft
        self._require_open = require_open

    @classmethod
    def is_for(cls, session: Session) -> bool:
        """Whether a session service keeps the session."""
        return is_kept(session)

    @classmethod
    def of(cls, session: Session) -> Self:
        """The documents of a session.

        Raises:
            ConfigurationError: No session service keeps the session.
        """
        state = state_of(require_session(session, "of()"))
        return cls(journal_of(state).opened.engine, lambda: journal_of(state).documents, state.require_open)

    def __repr__(self) -> str:
        return "<Documents>"

    @property
    def sync(self) -> SyncDocuments:
        """The same methods without ``await``."""
        return SyncDocuments(self)

    async def put(self, key: str, value: object, *, expect: int | None = None, ttl: timedelta | None = None) -> int:
        """Write a document from now on; returns its new revision.

        Args:
            key: Its key: a text of 1 to 200 bytes in UTF-8.
            value: Bytes; or anything that a session may have. At most 4 MiB, as JSON.
            expect: The revision that it has to have now, and until the commit; 0 where there must be none; None for any.
            ttl: For how long it is kept, from the commit on; None for ever.

        Raises:
            DocumentConflictError: It is of another revision. The commit raises it, too, where another one has written it meanwhile.
            SessionValueError: The value may not be stored, or is too large, or the key is none. Nothing was changed.
            ConfigurationError: ``expect`` is no number of 0 or more, or the ttl no timedelta of 1 millisecond to 100 years.
            SessionClosedError: The turn is over.
            EngineError: The engine failed; it is asked where a revision is expected.
        """
        return await run_async(self._put(key, value, expect, ttl), self._engine)

    async def get(self, key: str) -> Document | None:
        """Read a document, as this turn has written it, or else as it is kept now; None where there is none.

        Raises:
            SessionValueError: The key is none.
            EngineError: The engine failed.
        """
        return await run_async(self._get(key), self._engine)

    async def scan(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None, order: KeyOrder = "ascending"
    ) -> ListPage[Document]:
        """A page of the documents whose keys begin so, in the order of their keys. What this turn has written counts.

        Args:
            prefix: What the keys begin with.
            limit: How many at most, up to 1,000.
            cursor: Where the page before ended (``page.cursor``), or any key that begins so: only what comes behind it, in this
                order. None for the first page.
            order: ``"ascending"``; or ``"descending"``, the last key first: where keys end with a moment, the newest.

        Raises:
            ConfigurationError: An argument is wrong, or the cursor is another scan's; or there are more than 10,000 documents where
                the service encrypts.
            EngineError: The engine failed.
        """
        return await run_async(self._scan(prefix, limit, cursor, order), self._engine)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """Delete a document; False where there is none.

        Args:
            key, expect: As of ``put``.

        Raises:
            DocumentConflictError, SessionValueError, ConfigurationError, SessionClosedError, EngineError: As ``put``.
        """
        return await run_async(self._delete(key, expect), self._engine)

    async def clear(self, prefix: str = "") -> int:
        """Delete the documents whose keys begin so and that are there now, all of them or none; returns how many.

        Raises:
            ConfigurationError: The prefix is none; or there are more than 10,000 documents where the service encrypts.
            SessionClosedError: The turn is over.
            EngineError: The engine failed.
        """
        return await run_async(self._clear(prefix), self._engine)

    def _put(self, key: str, value: object, expect: int | None, ttl: timedelta | None) -> Plan[int]:
        written = Written(freeze(value, ttl), make_revision(), check_expect(expect))
        yield from self._write(check_key(key), written)
        return written.revision

    def _delete(self, key: str, expect: int | None) -> Plan[bool]:
        return self._write(check_key(key), Written(None, ABSENT, check_expect(expect)), is_read=True)

    def _write(self, key: str, written: Written, *, is_read: bool = False) -> Plan[bool]:
        """Write a document; returns whether there was one, where that is read."""
        self._require_open()
        pending, was_there = self._find_draft().find(key), False
        if pending is not None:
            was_there = pending.content is not None
        elif is_read or written.expect is not None:
            row = yield from read_document(self._find_draft().scope, key)
            require_revision(written.expect, revision_of(row))
            was_there = row is not None
        self._require_open()
        self._find_draft().put(key, written)
        return was_there

    def _get(self, key: str) -> Plan[Document | None]:
        draft, name = self._find_draft(), check_key(key)
        if (pending := draft.find(name)) is None:
            row = yield from read_document(draft.scope, name)
            return None if row is None else describe(row)
        return foresee(name, pending, (yield Transaction([draft.scope.row(name)])).now_ms)

    def _scan(self, prefix: str, limit: int, cursor: str | None, order: KeyOrder) -> Plan[ListPage[Document]]:
        draft, wanted = self._find_draft(), Scan.of(prefix, limit=limit, cursor=cursor, order=order)
        return scan_documents(draft.scope, draft.find_all(), wanted)

    def _clear(self, prefix: str) -> Plan[int]:
        self._require_open()
        draft, stem = self._find_draft(), check_prefix(prefix)
        there = dict.fromkeys((yield from find_keys(draft.scope, stem)), True)
        pending = {key: written.content is not None for key, written in draft.find_all().items() if key.startswith(stem)}
        found = [key for key, is_there in {**there, **pending}.items() if is_there]
        self._require_open()
        for key in found:
            self._find_draft().put(key, Written(None, ABSENT, None))
        return len(found)


class SyncDocuments:
    """The methods of documents for code that runs on no event loop. They block.

    Args:
        documents: The documents.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def put(self, key: str, value: object, *, expect: int | None = None, ttl: timedelta | None = None) -> int:
        """As of the documents."""
        return run(self._documents._put(key, value, expect, ttl), self._documents._engine)

    def get(self, key: str) -> Document | None:
        """As of the documents."""
        return run(self._documents._get(key), self._documents._engine)

    def scan(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None, order: KeyOrder = "ascending"
    ) -> ListPage[Document]:
        """As of the documents."""
        return run(self._documents._scan(prefix, limit, cursor, order), self._documents._engine)

    def delete(self, key: str, *, expect: int | None = None) -> bool:
        """As of the documents."""
        return run(self._documents._delete(key, expect), self._documents._engine)

    def clear(self, prefix: str = "") -> int:
        """As of the documents."""
        return run(self._documents._clear(prefix), self._documents._engine)
