"""Sessions that are kept on the server: state, history, and what the sessions of a user share."""

from __future__ import annotations

from dcaf.service.conversation import Messages
from dcaf.service.history import HistoryPage
from dcaf.service.kept import Kept
from dcaf.service.listing import Erased, ListPage
from dcaf.service.memory import Memory, SyncMemory
from dcaf.service.messages import Message
from dcaf.service.remembered import Remembered
from dcaf.service.service import SessionService, SyncSessionService
from dcaf.service.session import KeptSession
from dcaf.service.turns import ServiceTurn
from dcaf.service.user_memory import SyncUserMemory, UserMemory
from dcaf.service.windows import WindowTooSmallError

del annotations  # no public name of this package

__all__ = [
    "Erased",
    "HistoryPage",
    "Kept",
    "KeptSession",
    "ListPage",
    "Memory",
    "Message",
    "Messages",
    "Remembered",
    "ServiceTurn",
    "SessionService",
    "SyncMemory",
    "SyncSessionService",
    "SyncUserMemory",
    "UserMemory",
    "WindowTooSmallError",
]
