"""Sessions that are kept on the server: state, history, and what the sessions of a user share."""

from __future__ import annotations

from dcaf.service.blocks import Imported
from dcaf.service.checkpoints import Checkpoint
from dcaf.service.conversation import Messages
from dcaf.service.encryption import EncryptedEngine, Reencrypted
from dcaf.service.events import Event, MessageEvent, StateEvent
from dcaf.service.history import HistoryPage
from dcaf.service.kept import Kept
from dcaf.service.listing import ListPage
from dcaf.service.memory import Memory, SyncMemory
from dcaf.service.messages import Message
from dcaf.service.purging import Erased, Purged
from dcaf.service.remembered import Remembered
from dcaf.service.requests import CreateSessionRequest, DeleteSessionRequest, GetSessionRequest, ListSessionsRequest
from dcaf.service.service import SessionService
from dcaf.service.session import KeptSession
from dcaf.service.state import State
from dcaf.service.sync_service import SyncSessionService
from dcaf.service.turns import ServiceTurn
from dcaf.service.user_memory import SyncUserMemory, UserMemory
from dcaf.service.windows import WindowTooSmallError

del annotations  # no public name of this package

__all__ = [
    "Checkpoint",
    "CreateSessionRequest",
    "DeleteSessionRequest",
    "EncryptedEngine",
    "Erased",
    "Event",
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
    "Reencrypted",
    "Remembered",
    "ServiceTurn",
    "SessionService",
    "State",
    "StateEvent",
    "SyncMemory",
    "SyncSessionService",
    "SyncUserMemory",
    "UserMemory",
    "WindowTooSmallError",
]
