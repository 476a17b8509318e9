"""What the service would say of a session, and what its token shows to anybody: in words for the operator.

>>> from dcaf.core.keys import Key, Keyring
>>> judge = Judge(Keyring(Key.generate("k7")), Binding("shop"), clock=lambda: 1_789_000_000)
>>> judge.verdict({"step": 2}).refusal.reason
'plain'
>>> explain_refusal("exp", Binding("shop"), None)
'it was not used for longer than the idle timeout'
>>> from dcaf.testing import sealed
>>> found = read_clear(sealed({"n": 1}, keys=Keyring.ephemeral(), audience="shop")["dcaf"]["token"])
>>> found.suite, found.claims.aud
('dcaf1s (signed)', 'shop')

What a token shows without a key is not believed: anybody can write a token that shows anything. These words never leave the
operator's terminal; on the wire every cause of a code has one answer.

What a reader gets wrong: the verdict is for the default limits and timeouts, and for whatever version of the schema the session
has. A service with settings of its own may refuse what is verified here, or take what is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from dcaf.cli.inspect.render import plain
from dcaf.core.base64url import decode
from dcaf.core.claims import Binding, Claims
from dcaf.core.envelope import Mirror
from dcaf.core.errors import SessionError, SessionInvalid
from dcaf.core.keys import Key, Keyring
from dcaf.core.mapping import state_of
from dcaf.core.migrations import Migrations
from dcaf.core.sealer import Sealer
from dcaf.core.settings import choose_suites
from dcaf.core.signing import SHAPE, Opened

REASONS: Final = {
    "member": "it is not an object",
    "plain": "it is a plain object without `dcaf`: nobody has sealed it",
    "token": "`dcaf` has no string `token`",
    "ascii": "the token has other characters than ASCII",
    "length": "the token is longer than max_token_bytes",
    "shape": "the token has not the shape of one; it was cut, or is something else",
    "suite": "it was sealed by a suite that is not accepted",
    "kid": "no key of the ring has the id that the token names, or that key is revoked",
    "mac": "the token was changed, or sealed by another key of the same id, or for another audience",
    "tag": "the token was changed, or sealed by another key of the same id, or for another audience",
    "base64": "the token is spelled in another way than it was made",
    "claims": "the claims are not those of the protocol; another program has the key",
    "state": "the state is no JSON object; another program has the key",
    "aud": "it is for another audience",
    "iat": "it was sealed in the future: the clocks are more than a minute apart",
    "exp": "it was not used for longer than the idle timeout",
    "born": "the session is older than the absolute timeout, of which 30 days is the default",
    "header": "the header is longer than 8 KiB",
    "headers": "there are several headers of this name",
    "cookies": "there are several cookies of this name",
    "depth": "it is nested too deep",
    "duplicate": "a member is repeated on the way to a session, so that two parsers could read two sessions",
    "sessions": "it has more sessions than are read",
    "structure": "it has more braces, brackets and commas than are read",
}
"""``error.reason`` -> why."""

ENCRYPTED_TOKEN: Final = re.compile(r"dcaf1e\.([A-Za-z0-9]{1,16})\.[\w-]{54,}", re.ASCII)
"""As ``dcaf.core.encryption`` has it, which cannot be loaded without the package that decrypts."""

ENCRYPTED_SUITE: Final = "dcaf1e (encrypted)"
ENCRYPTED_PREFIX: Final = "dcaf1e."
BEFORE_THE_KEY: Final = frozenset({"member", "plain", "token", "ascii", "shape"})
"""Reasons that are the same with any key."""


def explain_refusal(reason: str, binding: Binding | None, claims: Claims | None) -> str:
    """Why a session is refused.

    Args:
        reason: As the error has it.
        binding: Whom it should be for; None where nobody was asked.
        claims: What the token says of itself, believed or not; None where that cannot be read.
    """
    if binding is None or claims is None:
        return REASONS.get(reason, reason)
    if reason == "sub":
        return _explain_binding("subject", found=claims.sub, given=binding.subject)
    if reason == "cid":
        return _explain_binding("conversation", found=claims.cid, given=binding.conversation)
    if reason == "mac" and claims.aud != binding.audience:
        return f"it says that it is for {plain(claims.aud)}, and --audience is {plain(binding.audience)}"
    return REASONS.get(reason, reason)


def _explain_binding(whom: str, *, found: str | None, given: str | None) -> str:
    if found is None:
        return f"it is bound to no {whom}, and --{whom} names one"
    return f"it is bound to a {whom}: pass --{whom}" if given is None else f"it is bound to another {whom} than --{whom} names"


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


def read_clear(token: str) -> Clear:
    """Read what can be read without a key."""
    if sealed := ENCRYPTED_TOKEN.fullmatch(token):
        return Clear(ENCRYPTED_SUITE, sealed[1])
    found = SHAPE.fullmatch(token.encode())
    return Clear("no known suite") if found is None else Clear("dcaf1s (signed)", found[1].decode(), _claims(found[2]))


def _claims(segment: bytes) -> Claims | None:
    try:
        return Claims.read(decode(segment))
    except (ValueError, SessionInvalid):
        return None


@dataclass(frozen=True, slots=True)
class SealVerdict:
    """What was decided.

    Attributes:
        kid: Id of the key that had sealed it; None where none of ours had.
        claims: What the seal vouches for; None where it is not good.
        sid_digest: What the service's log shows in place of the session's id; None likewise.
        state: The keys and values that the application gets; None where the service refuses, or keeps them itself.
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

    def verdict(self, member: Any) -> SealVerdict:
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
            return SealVerdict(refusal=refusal)
        return self._accepted(member, opened, claims, sealer.sid_digest(claims.sid))

    def _accepted(self, member: Any, opened: Opened, claims: Claims, sid_digest: str) -> SealVerdict:
        try:
            session = self._sealer(member, claims.sv or 0).accept(opened, self.binding)
            state, shown = session.to_dict(), orjson.loads(Mirror(keys=True).render(state_of(session)))
        except SessionError as refusal:
            return SealVerdict(opened.key.kid, claims, sid_digest, refusal=refusal)
        if claims.at is not None:  # the state is there, and the token has none
            return SealVerdict(opened.key.kid, claims, sid_digest)
        return SealVerdict(opened.key.kid, claims, sid_digest, state, shown)

    def _sealer(self, member: Any, version: int = 0) -> Sealer:
        first, *others = choose_suites(encrypt=False, accept_both=_is_encrypted(member))
        return Sealer(
            keys=self.keys,
            audience=self.binding.audience,
            suite=first,
            also_accepted=others,
            migrations=Migrations(version),
            clock=self.clock,
        )


def refuse_without_key(member: Any) -> SessionError | None:
    """Why any service refuses what stood at ``data.session``, whatever its keys are; None where the key decides."""
    try:
        Sealer(keys=Keyring(Key.generate()), audience="any", max_token_bytes=10**9).verify(member)
    except SessionError as refusal:
        if refusal.reason in BEFORE_THE_KEY:
            return refusal
    return None


def _is_encrypted(member: Any) -> bool:
    own = member.get("dcaf") if isinstance(member, dict) else None
    return isinstance(own, dict) and str(own.get("token")).startswith(ENCRYPTED_PREFIX)
