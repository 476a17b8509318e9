"""What a token shows to anybody who has no key.

>>> from dcaf.core.keys import Keyring
>>> from dcaf.testing import sealed
>>> found = in_clear(sealed({"n": 1}, keys=Keyring.ephemeral(), audience="shop")["dcaf"]["token"])
>>> found.suite, found.claims.aud
('dcaf1s (signed)', 'shop')
>>> in_clear("dcaf1s.cut")
Clear(suite='no known suite', kid=None, claims=None)

What a reader gets wrong: anybody can write a token that shows anything. Here nothing is believed.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dcaf.core.base64url import decode
from dcaf.core.claims import Claims
from dcaf.core.errors import SessionInvalid
from dcaf.core.seal import SHAPE

ENCRYPTED: Final = re.compile(r"dcaf1e\.([A-Za-z0-9]{1,16})\.[\w-]{54,}", re.ASCII)
"""As ``dcaf.core.encrypted`` has it, which cannot be loaded without the package that decrypts."""

ENCRYPTED_SUITE: Final = "dcaf1e (encrypted)"


class Clear(NamedTuple):
    """What stands in a token for all to read.

    Attributes:
        suite: How it was sealed, in words.
        kid: Id of the key that it names; None where it has not the shape of a token.
        claims: What it says of itself; None where that cannot be read.
    """

    suite: str
    kid: str | None = None
    claims: Claims | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether only the key shows more."""
        return self.suite == ENCRYPTED_SUITE


def in_clear(token: str) -> Clear:
    """Read what can be read without a key."""
    if sealed := ENCRYPTED.fullmatch(token):
        return Clear(ENCRYPTED_SUITE, sealed[1])
    found = SHAPE.fullmatch(token.encode())
    return Clear("no known suite") if found is None else Clear("dcaf1s (signed)", found[1].decode(), _claims(found[2]))


def _claims(segment: bytes) -> Claims | None:
    try:
        return Claims.read(decode(segment))
    except (ValueError, SessionInvalid):
        return None
