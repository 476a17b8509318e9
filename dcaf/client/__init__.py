"""A small client of an agent service, which keeps the session and sends it back."""

from dcaf.client.client import AsyncClient, Client
from dcaf.client.conversation import Conversation, HistoryMode, OnDead
from dcaf.client.errors import (
    AnswerUnreadable,
    Applied,
    ApprovalUnknown,
    ClientError,
    ServiceError,
    ServiceFailed,
    ServiceUnreachable,
    SessionDead,
    TurnConflict,
    TurnOvertaken,
    TurnTooLarge,
    TurnUnfinished,
)
from dcaf.client.reply import Approval, Decision, Event, Reply
from dcaf.client.retries import Retries
from dcaf.client.stream import AsyncStream, Stream
from dcaf.client.turn import Turn
from dcaf.client.websocket import AsyncSocket, Socket

__all__ = [
    "AnswerUnreadable",
    "Applied",
    "Approval",
    "ApprovalUnknown",
    "AsyncClient",
    "AsyncSocket",
    "AsyncStream",
    "Client",
    "ClientError",
    "Conversation",
    "Decision",
    "Event",
    "HistoryMode",
    "OnDead",
    "Reply",
    "Retries",
    "ServiceError",
    "ServiceFailed",
    "ServiceUnreachable",
    "SessionDead",
    "Socket",
    "Stream",
    "Turn",
    "TurnConflict",
    "TurnOvertaken",
    "TurnTooLarge",
    "TurnUnfinished",
]
