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
    SessionReadOnlyError,
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
from dcaf.core.readonly import ReadOnlySession
from dcaf.core.session import Session
from dcaf.core.session_key import SessionKey

__all__ = [
    "BodyTooLarge",
    "ConfigurationError",
    "DcafError",
    "EncodedBody",
    "Key",
    "Keyring",
    "MalformedJSON",
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
    "StoreError",
    "ToolArgumentError",
    "current_session",
]
