"""The calls of a session service for code that runs on no event loop: ``sessions.sync``."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, overload

from dcaf.core.errors import ConfigurationError
from dcaf.service.app_documents import SyncAppDocuments
from dcaf.service.artifacts import SyncArtifacts
from dcaf.service.blocks import Imported
from dcaf.service.calls import Calls
from dcaf.service.checkpoints import Checkpoint
from dcaf.service.encryption import Reencrypted, plan_reencryption, require_encrypted
from dcaf.service.events import Event
from dcaf.service.exporting import stream
from dcaf.service.history import HistoryPage
from dcaf.service.importing import import_lines, require_lines
from dcaf.service.kept import Kept
from dcaf.service.listing import ListPage, Order
from dcaf.service.plans import Plan, run
from dcaf.service.purging import Erased, Purged
from dcaf.service.requests import (
    MISSING,
    CreateSessionRequest,
    DeleteSessionRequest,
    GetSessionRequest,
    Given,
    ListSessionsRequest,
    take,
)
from dcaf.service.search import FoundMessage
from dcaf.service.session import KeptSession
from dcaf.service.tables import DOCUMENTS, MEMORY
from dcaf.service.turns import ServiceTurn
from dcaf.service.user_memory import SyncUserMemory


class SyncSessionService:
    """The methods of a service for code that runs on no event loop. They block.

    Args:
        calls: Of the service.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def open(self, *, user: str | None, id: str | None = None, last: int = 50) -> ServiceTurn:
        """As of the service, as ``with sessions.sync.open(...) as session``."""
        return ServiceTurn(self._calls, self._calls.open(user, id, last))

    @overload
    def create(self, request: CreateSessionRequest) -> KeptSession: ...
    @overload
    def create(
        self,
        *,
        user: str | None,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KeptSession: ...

    def create(
        self,
        request: CreateSessionRequest | None = None,
        *,
        user: str | Given | None = MISSING,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KeptSession:
        """As of the service."""
        arguments = {"user": user, "id": id, "state": state, "title": title, "labels": labels, "metadata": metadata}
        wanted = take(CreateSessionRequest, request, arguments)
        return run(self._calls.create(wanted), self._calls.engine)

    @overload
    def get(self, request: GetSessionRequest) -> KeptSession | None: ...
    @overload
    def get(self, *, user: str | None, id: str) -> KeptSession | None: ...

    def get(
        self, request: GetSessionRequest | None = None, *, user: str | Given | None = MISSING, id: str | Given = MISSING
    ) -> KeptSession | None:
        """As of the service."""
        wanted = take(GetSessionRequest, request, {"user": user, "id": id})
        return run(self._calls.get(wanted), self._calls.engine)

    def save(self, session: KeptSession) -> None:
        """As of the service."""
        run(self._calls.save(session), self._calls.engine)

    @overload
    def delete(self, request: DeleteSessionRequest) -> bool: ...
    @overload
    def delete(self, *, user: str | None, id: str) -> bool: ...

    def delete(
        self, request: DeleteSessionRequest | None = None, *, user: str | Given | None = MISSING, id: str | Given = MISSING
    ) -> bool:
        """As of the service."""
        wanted = take(DeleteSessionRequest, request, {"user": user, "id": id})
        return run(self._calls.delete(wanted), self._calls.engine)

    def get_or_create(self, *, user: str | None, id: str) -> KeptSession:
        """As of the service."""
        return run(self._calls.get_or_create(user, id), self._calls.engine)

    def messages(
        self,
        *,
        user: str | None,
        id: str,
        limit: int = 50,
        before: int | None = None,
        after: int | None = None,
        since: datetime | None = None,
    ) -> HistoryPage:
        """As of the service."""
        return run(self._calls.messages(user, id, limit, before=before, after=after, since=since), self._calls.engine)

    def list_events(
        self, *, user: str | None, id: str, limit: int = 50, before: str | None = None, after: str | None = None
    ) -> ListPage[Event]:
        """As of the service."""
        return run(self._calls.list_events(user, id, limit, before, after), self._calls.engine)

    def search(self, query: str, *, user: str | None, id: str | None = None, limit: int = 10) -> builtins.list[FoundMessage]:
        """As of the service."""
        return run(self._calls.search(query, user, id, limit), self._calls.engine)

    def append(self, *, user: str | None, id: str, messages: Iterable[Any]) -> int:
        """As of the service."""
        return run(self._calls.append(user, id, messages), self._calls.engine)

    def merge(self, *, user: str | None, id: str, state: Mapping[str, Any]) -> None:
        """As of the service."""
        run(self._calls.merge(user, id, state), self._calls.engine)

    def get_user_state(self, *, user: str) -> dict[str, Any]:
        """As of the service."""
        return run(self._calls.get_user_state(user), self._calls.engine)

    def get_app_state(self) -> dict[str, Any]:
        """As of the service."""
        return run(self._calls.get_app_state(), self._calls.engine)

    def merge_user_state(self, *, user: str, state: Mapping[str, Any]) -> None:
        """As of the service."""
        run(self._calls.merge_user_state(user, state), self._calls.engine)

    def merge_app_state(self, *, state: Mapping[str, Any]) -> None:
        """As of the service."""
        run(self._calls.merge_app_state(state), self._calls.engine)

    @overload
    def list(self, request: ListSessionsRequest) -> ListPage[Kept]: ...
    @overload
    def list(
        self,
        *,
        user: str,
        limit: int = 50,
        order: Order = "newest",
        cursor: str | None = None,
        state: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        archived: bool = False,
    ) -> ListPage[Kept]: ...

    def list(
        self,
        request: ListSessionsRequest | None = None,
        *,
        user: str | Given = MISSING,
        limit: int = 50,
        order: Order = "newest",
        cursor: str | None = None,
        state: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        archived: bool = False,
    ) -> ListPage[Kept]:
        """As of the service."""
        arguments = {"user": user, "limit": limit, "order": order, "cursor": cursor, "state": state, "labels": labels}
        wanted = take(ListSessionsRequest, request, {**arguments, "archived": archived})
        return run(self._calls.list(wanted), self._calls.engine)

    def list_all(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        state: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        archived: bool = False,
    ) -> ListPage[Kept]:
        """As of the service."""
        return run(self._calls.list_all(limit, cursor, state=state, labels=labels, archived=archived), self._calls.engine)

    @overload
    def rewind(self, *, user: str | None, id: str, to: int) -> int: ...
    @overload
    def rewind(self, *, user: str | None, id: str, checkpoint: str) -> int: ...
    @overload
    def rewind(self, *, user: str | None, id: str, message: int) -> int: ...

    def rewind(
        self, *, user: str | None, id: str, to: int | None = None, checkpoint: str | None = None, message: int | None = None
    ) -> int:
        """As of the service."""
        return run(self._calls.rewind(user, id, to, checkpoint, message), self._calls.engine)

    def checkpoint(self, *, user: str | None, id: str, name: str) -> int:
        """As of the service."""
        return run(self._calls.checkpoint(user, id, name), self._calls.engine)

    def checkpoints(self, *, user: str | None, id: str) -> builtins.list[Checkpoint]:
        """As of the service."""
        return run(self._calls.checkpoints(user, id), self._calls.engine)

    def fork(self, *, user: str, id: str, new_id: str | None = None, at: int | None = None) -> Kept:
        """As of the service."""
        return run(self._calls.fork(user, id, new_id, at), self._calls.engine)

    def reencrypt(self) -> Reencrypted:
        """As of the service."""
        engine = require_encrypted(self._calls.engine)
        return run(plan_reencryption(engine), engine.below)

    def memory(self, *, user: str) -> SyncUserMemory:
        """As of the service."""
        return self._calls.memory(user).sync

    @property
    def documents(self) -> SyncAppDocuments:
        """As of the service."""
        return SyncAppDocuments(self._calls.engine, self._calls.app)

    def artifacts(self, *, user: str | None, id: str | None = None) -> SyncArtifacts:
        """As of the service."""
        return self._calls.artifacts(user, id).sync

    def close(self, *, user: str | None, id: str) -> bool:
        """As of the service."""
        return run(self._calls.close(user, id), self._calls.engine)

    @overload
    def archive(self, *, user: str | None, id: str) -> int: ...
    @overload
    def archive(self, *, idle: timedelta) -> int: ...

    def archive(self, *, user: str | Given | None = MISSING, id: str | Given = MISSING, idle: timedelta | Given = MISSING) -> int:
        """As of the service."""
        return run(plan_archive(self._calls, user, id, idle), self._calls.engine)

    def restore(self, *, user: str | None, id: str) -> bool:
        """As of the service."""
        return run(self._calls.restore(user, id), self._calls.engine)

    def purge(self, *, user: str | None = None, before: datetime | None = None) -> Purged:
        """As of the service."""
        purged = run(self._calls.purge(user, before), self._calls.engine)
        self._purge_ended()
        return purged

    def erase(self, *, user: str) -> Erased:
        """As of the service."""
        erased = run(self._calls.erase(user), self._calls.engine)
        self._purge_ended()
        return erased

    def _purge_ended(self) -> None:
        for table in (MEMORY, DOCUMENTS):
            self._calls.engine.sync.purge(table)

    def export(self, *, user: str | None = None, id: str | None = None) -> Iterator[bytes]:
        """As of the service, as ``for line in sessions.sync.export()``."""
        return stream(self._calls.export(user, id), self._calls.engine)

    def import_lines(self, lines: Iterable[bytes | str], *, replace: bool = False) -> Imported:
        """As of the service."""
        return import_lines(self._calls.begin_import(replace), require_lines(lines, is_async=False), self._calls.engine)


def plan_archive(calls: Calls, user: str | Given | None, session_id: str | Given, idle: timedelta | Given) -> Plan[int]:
    """What ``archive`` does.

    Raises:
        ConfigurationError: It is not clear which sessions are meant.
    """
    if idle is not MISSING and user is MISSING and session_id is MISSING:
        return calls.archive_idle(idle)
    if idle is MISSING and user is not MISSING and session_id is not MISSING:
        return calls.archive(user, session_id)
    raise ConfigurationError("archive() takes user= and id=, for one session, or idle= alone, for all that are idle.")
