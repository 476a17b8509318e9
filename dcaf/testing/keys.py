"""Keys that are the same in every run, so that a failure can be run again.

>>> fixed_keys()
Keyring(active='testonly', kids=['testonly'])

What a reader gets wrong: everybody has these keys. A token that begins with ``dcaf1s.testonly.`` vouches for nothing outside of a
test.
"""

from __future__ import annotations

import hashlib
from typing import Final

from dcaf.core.keys import Key, Keyring

KID: Final = "testonly"


def fixed_keys() -> Keyring:
    """A ring with one key that is known to everybody."""
    return Keyring(Key.from_bytes(KID, hashlib.sha256(b"dcaf.testing").digest()))
