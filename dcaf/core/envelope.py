"""The shape of ``data.session``: the library's member with the token, and the mirror, a plain copy of the state for display.

    {"step": 2, "dcaf": {"token": "dcaf1s.k7…", "expires_at": 1789000000}}

>>> read_token({"step": 2, "dcaf": {"token": "dcaf1s.k7…", "expires_at": 1789000000}})
'dcaf1s.k7…'
>>> from dcaf.core.base64url import Payload
>>> from dcaf.core.state import State
>>> Mirror({"id"}).render(State(Payload(b'{"id":1152921504606846976,"secret":1}')))
b'{"id":"1152921504606846976"}'

What a reader gets wrong: only ``dcaf.token`` is ever read back. The client may edit, reorder or drop the other members without
effect, and a mirror hides nothing when the token is only signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dcaf.core.arguments import texts_of
from dcaf.core.base64url import Payload
from dcaf.core.claims import MAX_INTEGER, Standing
from dcaf.core.errors import ConfigurationError, SessionMalformed, SessionUnsigned
from dcaf.core.json_values import JSON, read, write
from dcaf.core.signing import Pieces
from dcaf.core.slots import RESERVED
from dcaf.core.state import State

NEW: Final = "new"
"""The token that is the explicit wish for a fresh start."""

RESTART: Final = b'{"dcaf":{"token":"new"}}'
"""The envelope of a fresh start. The body of a refusal carries it: a client that adopts it drops the refused session."""

RETRY: Final = b',"retry":true'
"""The hint that a turn with this session may be sent again."""

OWN_ALONE: Final = b'{"dcaf":{"token":"'
OWN_AFTER_OTHERS: Final = b',"dcaf":{"token":"'
"""How the library's own member begins."""

DIGITS: Final = bytes(ord("0") if chr(code) in "0123456789" else ord(" ") for code in range(256))
"""A table for ``bytes.translate``: every digit becomes 0 and every other byte a space."""

LONG: Final = b"0" * 16
"""The digits of the smallest integer that JavaScript may round."""

EACH: Final = 4
"""One of so many bytes is looked at first: a row of 16 digits has four of them in sequence."""


def read_token(member: JSON) -> str:
    """The token of what a client sent at ``data.session``.

    Raises:
        SessionMalformed: It is not an object, or ``dcaf`` has no token.
        SessionUnsigned: It is a plain object.
    """
    if not isinstance(member, dict):
        raise SessionMalformed(reason="member")
    if RESERVED not in member:
        raise SessionUnsigned(reason="plain")
    own = member[RESERVED]
    token = own.get("token") if isinstance(own, dict) else None
    if not isinstance(token, str):
        raise SessionMalformed(reason="token")
    return token


def build_envelope(standing: Standing, mirror: bytes, *, may_retry: bool = False) -> Pieces:
    """The mirror and the library's own member, as one JSON object in pieces.

    Args:
        standing: What the token is.
        mirror: The mirror.
        may_retry: Whether a turn with this session may be sent again where its answer is lost.
    """
    hint = b"" if standing.restarted is None else b',"restarted":"%b"' % standing.restarted.encode()
    end = b'","expires_at":%d%b%b}}' % (standing.claims.exp, hint, RETRY if may_retry else b"")
    if mirror == b"{}":
        return (OWN_ALONE, *standing.token, end)
    return (memoryview(mirror)[:-1], OWN_AFTER_OTHERS, *standing.token, end)


class Mirror:
    """Which keys are shown.

    Args:
        keys: True for all, names for some, False for none.

    Raises:
        ConfigurationError: It is something else.
    """

    def __init__(self, keys: Iterable[str] | bool) -> None:
        self._keys: bool | frozenset[str] = keys if isinstance(keys, bool) else _names(keys)

    def shows(self, key: str) -> bool:
        """Whether a key is shown."""
        return self._keys if isinstance(self._keys, bool) else key in self._keys

    def render(self, state: State, payload: Payload | None = None) -> bytes:
        """Write the shown keys; integers beyond 2**53 - 1, which JavaScript would round, become strings.

        Args:
            state: The state.
            payload: The payload that is being sealed, which need not be written again.
        """
        if self._keys is False:
            return b"{}"
        data = state.plain(None if self._keys is True else self.shows, payload)
        # Without a long row of digits nothing needs to be parsed.
        return write(_exact(read(data))) if _has_long(data) else data


def _names(keys: Iterable[str]) -> frozenset[str]:
    names = texts_of(keys)
    if names is None:
        raise ConfigurationError('mirror= takes True, False, or the keys to show, for instance mirror={"wizard_step"}.')
    return frozenset(names)


def _has_long(data: bytes) -> bool:
    """Whether a number may have so many digits that it is rounded; for most states a part of the bytes tells that."""
    some = data[::EACH].translate(DIGITS)
    return some.find(LONG[: len(LONG) // EACH]) >= 0 and data.translate(DIGITS).find(LONG) >= 0


def _exact(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if type(value) is int and abs(value) > MAX_INTEGER:
        return str(value)
    return value
