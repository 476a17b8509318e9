"""What the service would say of a session: whether its seal is good, and for whom.

>>> from dcaf.core.keys import Key, Keyring
>>> judge = Judge(Keyring(Key.generate("k7")), Binding("shop"), clock=lambda: 1_789_000_000)
>>> judge.verdict({"step": 2}).refusal.reason
'plain'
>>> without_key({"dcaf": {"token": "cut"}}).reason
'shape'

What a reader gets wrong: it is told for the default limits and timeouts, and for whatever version of the schema the session has. A
service with settings of its own may refuse what is verified here, or take what is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from dcaf.core.claims import Binding, Claims
from dcaf.core.envelope import Sealer
from dcaf.core.errors import SessionError
from dcaf.core.keys import Key, Keyring
from dcaf.core.migrations import Migrations
from dcaf.core.mirror import Mirror
from dcaf.core.seal import Opened
from dcaf.core.settings import suites

ENCRYPTED: Final = "dcaf1e."
BEFORE_THE_KEY: Final = frozenset({"member", "plain", "token", "ascii", "shape"})
"""Reasons that are the same with any key."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided.

    Attributes:
        kid: Id of the key that had sealed it; None where none of ours had.
        claims: What the seal vouches for; None where it is not good.
        sid_digest: What the service's log shows in place of the session's id; None likewise.
        state: The keys and values that the application gets; None where the service refuses.
        shown: The mirror as the service would write it with ``mirror=True``; None likewise.
        refusal: Why it refuses; None where it does not.
    """

    kid: str | None = None
    claims: Claims | None = None
    sid_digest: str | None = None
    state: dict[str, Any] | None = field(default=None, repr=False)
    shown: dict[str, Any] | None = field(default=None, repr=False)
    refusal: SessionError | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Opens sessions as a service with these keys does for one caller.

    Attributes:
        keys: The service's.
        binding: Service, subject and conversation.
        clock: Seconds since the epoch.
    """

    keys: Keyring
    binding: Binding = field(repr=False)
    clock: Callable[[], float]

    def verdict(self, member: Any) -> Verdict:
        """Decide about what stood at ``data.session``, which is not the wish for a new session.

        Raises:
            ConfigurationError: The audience is empty, or a package is missing that decrypts.
        """
        sealer = self._sealer(member)
        try:
            opened = sealer.verify(member)
            assert opened is not None
            claims = Claims.read(opened.claims)
        except SessionError as refusal:
            return Verdict(refusal=refusal)
        return self._accepted(member, opened, claims, sealer.sid_digest(claims.sid))

    def _accepted(self, member: Any, opened: Opened, claims: Claims, sid_digest: str) -> Verdict:
        try:
            session = self._sealer(member, claims.sv or 0).accept(opened, self.binding)
            state, shown = session.to_dict(), orjson.loads(Mirror(keys=True).shown(session._state))
        except SessionError as refusal:
            return Verdict(opened.key.kid, claims, sid_digest, refusal=refusal)
        return Verdict(opened.key.kid, claims, sid_digest, state, shown)

    def _sealer(self, member: Any, version: int = 0) -> Sealer:
        first, *others = suites(encrypt=False, accept_both=_is_encrypted(member))
        return Sealer(
            keys=self.keys,
            audience=self.binding.audience,
            suite=first,
            also_accepted=others,
            migrations=Migrations(version),
            clock=self.clock,
        )


def without_key(member: Any) -> SessionError | None:
    """Why any service refuses what stood at ``data.session``, whatever its keys are; None where the key decides."""
    try:
        Sealer(keys=Keyring(Key.generate()), audience="any", max_token_bytes=10**9).verify(member)
    except SessionError as refusal:
        if refusal.reason in BEFORE_THE_KEY:
            return refusal
    return None


def _is_encrypted(member: Any) -> bool:
    own = member.get("dcaf") if isinstance(member, dict) else None
    return isinstance(own, dict) and str(own.get("token")).startswith(ENCRYPTED)
