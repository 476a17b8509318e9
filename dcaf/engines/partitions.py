"""Where rows lie that one transaction is to reach: all of one user, or of one anonymous session, whoever keeps them.

>>> find_partition("ada", "A" * 22, 64) == find_partition("ada", "B" * 22, 64), find_partition(None, "A" * 22, 1)
(True, 0)
"""

from __future__ import annotations

from dcaf.core.store import digest_parts


def find_partition(subject: str | None, session_id: str, partitions: int) -> int:
    """The partition of the rows of a session, and of what it shares.

    Args:
        subject: Whose it is; None for an anonymous one.
        session_id: Its id, which only matters for an anonymous one.
        partitions: How many there are.
    """
    parts = (b"session", session_id.encode()) if subject is None else (b"subject", subject.encode())
    return int.from_bytes(digest_parts(*parts)[:2], "big") % partitions
