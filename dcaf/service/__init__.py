"""Sessions that are kept on the server: state, history, and what the sessions of a user share."""

from __future__ import annotations

from dcaf.service.app_documents import AppDocuments, DocumentTransaction, SyncAppDocuments
from dcaf.service.artifact_store import ArtifactStore
from dcaf.service.artifact_streams import ArtifactStream
from dcaf.service.artifact_values import Artifact, ArtifactVersion
from dcaf.service.artifacts import Artifacts, SyncArtifacts
from dcaf.service.blocks import Imported
from dcaf.service.checkpoints import Checkpoint
from dcaf.service.conversation import Messages, SyncMessages
from dcaf.service.document_rows import Document
from dcaf.service.documents import Documents, SyncDocuments
from dcaf.service.encryption import EncryptedEngine, Reencrypted
from dcaf.service.events import Event, MessageEvent, StateEvent
from dcaf.service.history import HistoryPage
from dcaf.service.kept import Kept
from dcaf.service.listing import ListPage
from dcaf.service.memory import Memory, SyncMemory
from dcaf.service.memory_search import FoundFact
from dcaf.service.messages import Message
from dcaf.service.purging import Erased, Purged
from dcaf.service.quotas import Quotas
from dcaf.service.remembered import Remembered
from dcaf.service.requests import CreateSessionRequest, DeleteSessionRequest, GetSessionRequest, ListSessionsRequest
from dcaf.service.search import FoundMessage
from dcaf.service.search_words import Snippet
from dcaf.service.service import SessionService
from dcaf.service.session import KeptSession
from dcaf.service.state import State
from dcaf.service.sync_service import SyncSessionService
from dcaf.service.turns import ServiceTurn
from dcaf.service.user_memory import SyncUserMemory, UserMemory
from dcaf.service.windows import WindowTooSmallError

del annotations  # no public name of this package

__all__ = [
    "AppDocuments",
    "Artifact",
    "ArtifactStore",
    "ArtifactStream",
    "ArtifactVersion",
    "Artifacts",
    "Checkpoint",
    "CreateSessionRequest",
    "DeleteSessionRequest",
    "Document",
    "DocumentTransaction",
    "Documents",
    "EncryptedEngine",
    "Erased",
    "Event",
    "FoundFact",
    "FoundMessage",
    "GetSessionRequest",
    "HistoryPage",
    "Imported",
    "Kept",
    "KeptSession",
    "ListPage",
    "ListSessionsRequest",
    "Memory",
    "Message",
    "MessageEvent",
    "Messages",
    "Purged",
    "Quotas",
    "Reencrypted",
    "Remembered",
    "ServiceTurn",
    "SessionService",
    "Snippet",
    "State",
    "StateEvent",
    "SyncAppDocuments",
    "SyncArtifacts",
    "SyncDocuments",
    "SyncMemory",
    "SyncMessages",
    "SyncSessionService",
    "SyncUserMemory",
    "UserMemory",
    "WindowTooSmallError",
]
