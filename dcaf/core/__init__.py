"""Floor 0: what a session is, how it is sealed, with which keys, and who keeps it. No framework and no network.

What a reader gets wrong: it is not without input or a clock. Keys are read from the environment, the envelope and a ring that is
read again look at the time, and what nobody foresaw goes to the log; clock and randomness are arguments. Where there is a store,
``lifecycle`` and ``host`` wait for it.
"""

from dcaf.core.base64url import Payload
from dcaf.core.claims import Binding, Claims
from dcaf.core.context import current_session
from dcaf.core.errors import (
    AgentError,
    BodyTooLarge,
    ConfigurationError,
    DcafError,
    EncodedBody,
    ExitError,
    IdempotencyKeyReused,
    InterceptorError,
    MalformedJSON,
    MalformedRequest,
    ModelFailedError,
    ModelLimitError,
    NotCarriedError,
    SessionAliasError,
    SessionClosedError,
    SessionConflict,
    SessionEnded,
    SessionError,
    SessionInvalid,
    SessionMalformed,
    SessionReadOnlyError,
    SessionSuperseded,
    SessionTooLarge,
    SessionTypeError,
    SessionUnavailable,
    SessionUnsigned,
    SessionValueError,
    StateError,
    StoreError,
    ToolApprovalError,
    ToolArgumentError,
    ToolConflictError,
    ToolError,
    ToolTimeoutError,
    TurnTimeoutError,
)
from dcaf.core.host import HostTurn, SessionHost
from dcaf.core.keys import Key, Keyring
from dcaf.core.readonly import ReadOnlySession
from dcaf.core.session import Session
from dcaf.core.session import SessionKey
from dcaf.core.store import Lease, OpenRequest, Sealed, SessionStore, StatelessLease, StatelessStore
from dcaf.core.transaction import transaction
from dcaf.core.migrations import Import

__all__ = [
    "AgentError",
    "Binding",
    "BodyTooLarge",
    "Claims",
    "ConfigurationError",
    "DcafError",
    "EncodedBody",
    "ExitError",
    "HostTurn",
    "IdempotencyKeyReused",
    "Import",
    "InterceptorError",
    "Key",
    "Keyring",
    "Lease",
    "MalformedJSON",
    "MalformedRequest",
    "ModelFailedError",
    "ModelLimitError",
    "NotCarriedError",
    "OpenRequest",
    "Payload",
    "ReadOnlySession",
    "Sealed",
    "Session",
    "SessionAliasError",
    "SessionClosedError",
    "SessionConflict",
    "SessionEnded",
    "SessionError",
    "SessionHost",
    "SessionInvalid",
    "SessionKey",
    "SessionMalformed",
    "SessionReadOnlyError",
    "SessionStore",
    "SessionSuperseded",
    "SessionTooLarge",
    "SessionTypeError",
    "SessionUnavailable",
    "SessionUnsigned",
    "SessionValueError",
    "StateError",
    "StatelessLease",
    "StatelessStore",
    "StoreError",
    "ToolApprovalError",
    "ToolArgumentError",
    "ToolConflictError",
    "ToolError",
    "ToolTimeoutError",
    "TurnTimeoutError",
    "current_session",
    "transaction",
]
