"""Floor 0: what a session is. Pure: no input or output, no clock, no framework."""

from dcaf.core.current import current_session
from dcaf.core.errors import (
    BodyTooLarge,
    ConfigurationError,
    DcafError,
    EncodedBody,
    MalformedJSON,
    NotCarriedError,
    SessionAliasError,
    SessionConflict,
    SessionEnded,
    SessionError,
    SessionInvalid,
    SessionMalformed,
    SessionTooLarge,
    SessionTypeError,
    SessionUnavailable,
    SessionUnsigned,
    SessionValueError,
    StateError,
    StoreError,
    ToolArgumentError,
)
from dcaf.core.keys import Key, Keyring
from dcaf.core.session import Session

__all__ = [
    "BodyTooLarge",
    "ConfigurationError",
    "DcafError",
    "EncodedBody",
    "Key",
    "Keyring",
    "MalformedJSON",
    "NotCarriedError",
    "Session",
    "SessionAliasError",
    "SessionConflict",
    "SessionEnded",
    "SessionError",
    "SessionInvalid",
    "SessionMalformed",
    "SessionTooLarge",
    "SessionTypeError",
    "SessionUnavailable",
    "SessionUnsigned",
    "SessionValueError",
    "StateError",
    "StoreError",
    "ToolArgumentError",
    "current_session",
]
