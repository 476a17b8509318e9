"""The places of a text where sessions stood, and which of them counts.

>>> Site("data.session", {"step": 2, "dcaf": {"token": "dcaf1s.k7"}}).told()
'token of 9 bytes'
>>> Site("data.session", {"step": 2}).told()
'a plain object, which nobody has sealed'

What a reader gets wrong: a place is a candidate by what stands there alone. Whether its seal is good plays no part, so a session
that is refused is never replaced by another one of the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dcaf.core.envelope import NEW
from dcaf.core.state import RESERVED


@dataclass(frozen=True, slots=True)
class Site:
    """One place.

    Attributes:
        where: Its name, for instance ``messages[2].data.session``.
        member: What stands there; what a header or a cookie brought, as it would have stood in a body.
    """

    where: str
    member: Any = field(repr=False)

    @property
    def token(self) -> str | None:
        """The token that stands there; None where there is none."""
        own = self.member.get(RESERVED) if isinstance(self.member, dict) else None
        token = own.get("token") if isinstance(own, dict) else None
        return token if isinstance(token, str) else None

    @property
    def mirror(self) -> dict[str, Any]:
        """The keys that stand beside the token."""
        return {key: value for key, value in self.member.items() if key != RESERVED} if isinstance(self.member, dict) else {}

    def told(self) -> str:
        """What stands there, in a few words that have none of it."""
        if self.member in (None, {}):
            return f"{'null' if self.member is None else '{}'}, as if it were not there"
        if not isinstance(self.member, dict):
            return "no object, where one is due"
        if RESERVED not in self.member:
            return "a plain object, which nobody has sealed"
        if self.token is None:
            return "an object whose `dcaf` has no token"
        return "the wish for a new session" if self.token == NEW else f"token of {len(self.token):,} bytes"


@dataclass(frozen=True, slots=True)
class Found:
    """What a text turned out to be.

    Attributes:
        what: Which kind of text, in words.
        sites: Its sessions, the one first that would count before the others.
        winner: The one that counts; None where there is none.
        why: Why that one.
        lack: Why there is none; empty where there is one.
        notes: What else is worth knowing, one sentence each.
        is_answer: Whether a service wrote it; None where that cannot be told.
    """

    what: str
    sites: Sequence[Site] = ()
    winner: Site | None = None
    why: str = ""
    lack: str = ""
    notes: tuple[str, ...] = ()
    is_answer: bool | None = None
