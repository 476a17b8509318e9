"""Floor 0: what a session is, how it is sealed, and with which keys. No framework, no network and no event loop.

What a reader gets wrong: it is not without input or a clock. Keys are read from the environment, the envelope and a ring that is
read again look at the time, and what nobody foresaw goes to the log; clock and randomness are arguments.
"""

from dcaf.core.claims import Claims
from dcaf.core.current import current_session
from dcaf.core.errors import (
    AgentError,
    BodyTooLarge,
    ConfigurationError,
    DcafError,
    EncodedBody,
    ExitError,
    InterceptorError,
    MalformedJSON,
    MalformedRequest,
    ModelFailedError,
    ModelLimitError,
    NotCarriedError,
    SessionAliasError,
    SessionConflict,
    SessionEnded,
    SessionError,
    SessionInvalid,
    SessionMalformed,
    SessionReadOnlyError,
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
from dcaf.core.keeper import Keeper, Stateless
from dcaf.core.keys import Key, Keyring
from dcaf.core.readonly import ReadOnlySession
from dcaf.core.session import Session
from dcaf.core.session_key import SessionKey
from dcaf.core.transaction import transaction
from dcaf.core.unsigned import Import

__all__ = [
    "AgentError",
    "BodyTooLarge",
    "Claims",
    "ConfigurationError",
    "DcafError",
    "EncodedBody",
    "ExitError",
    "Import",
    "InterceptorError",
    "Keeper",
    "Key",
    "Keyring",
    "MalformedJSON",
    "MalformedRequest",
    "ModelFailedError",
    "ModelLimitError",
    "NotCarriedError",
    "ReadOnlySession",
    "Session",
    "SessionAliasError",
    "SessionConflict",
    "SessionEnded",
    "SessionError",
    "SessionInvalid",
    "SessionKey",
    "SessionMalformed",
    "SessionReadOnlyError",
    "SessionTooLarge",
    "SessionTypeError",
    "SessionUnavailable",
    "SessionUnsigned",
    "SessionValueError",
    "StateError",
    "Stateless",
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
