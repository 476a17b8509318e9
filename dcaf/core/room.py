"""How much room the keys of a state take in its token, and what is said where they are too large for it.

>>> size_of({"step": b"1"}, 0, 100), at_most("step", b"1")
(10, 29)

What a reader gets wrong: the first is exact and looks at every key. The second is what one key can add at most; while their sum
fits, nobody needs to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dcaf.core.errors import SessionValueError
from dcaf.core.json_values import write

AROUND: Final = len('"":,')
WIDEST: Final = 6
"""Bytes of one character of a written key, at most: that of an escape."""


def at_most(key: str, data: bytes) -> int:
    """The bytes of one key and its written value, at most."""
    return WIDEST * len(key) + len(data) + AROUND


def size_of(lasting: Mapping[str, bytes], own_bytes: int, limit_bytes: int) -> int:
    """The bytes of a written state.

    Args:
        lasting: Its keys and their written values.
        own_bytes: Of the library's own member.
        limit_bytes: How many fit into its token.

    Raises:
        SessionValueError: There are more; the message names the largest keys.
    """
    sizes = {key: len(write(key)) + len(data) + len(":,") for key, data in lasting.items()}
    size = sum(sizes.values()) + own_bytes + 1
    if size > limit_bytes:
        largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
        listed = ", ".join(f"{key!r} ({sizes[key]:,} bytes)" for key in largest)
        raise SessionValueError(
            f"the session would be larger than the {limit_bytes:,} bytes that fit into its token; the largest keys "
            f"are {listed}. Store less, raise max_token_bytes, or keep the state on the server"
        )
    return size
