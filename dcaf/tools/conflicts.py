"""Two changes of one session that could not both be kept: which one was, and a line of the log that says so.

>>> Conflict("cart", ".items", "stale-read", Caller(1, "put", None), None).kept.tool
'put'

What a reader gets wrong: the log has the names of the two, and neither key nor value, which may be a user's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["stale-read", "write-write"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Which call of a turn it was.

    Attributes:
        index: Its place in the order in which the calls were made, from 0.
        tool: Name of its tool.
        id: What the model calls it; None where it does not.
    """

    index: int
    tool: str
    id: str | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """One value that two calls changed, and of which one change was kept.

    Attributes:
        key: The key of the session.
        path: Where below the key, as in ``.items``; empty for the whole value.
        kind: ``stale-read`` where the second call to commit had read the key before it wrote, else ``write-write``.
        kept: The call whose change was kept: the later one of the model.
        dropped: The other; None where the session was changed by something that is no call of this turn.
    """

    key: str
    path: str
    kind: Kind
    kept: Caller
    dropped: Caller | None
