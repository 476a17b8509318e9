"""Why a session or a body is refused, in words for the operator.

>>> because("exp", Binding("shop"), None)
'it was not used for longer than the idle timeout'
>>> because("sub", Binding("shop"), Claims(aud="shop", sid="A" * 22, seq=1, born=0, iat=0, exp=0, sub="B" * 22))
'it is bound to a subject: pass --subject'

What a reader gets wrong: these words never leave the operator's terminal. On the wire every cause of a code has one answer.
"""

from __future__ import annotations

from typing import Final

from dcaf.cli.inspection.drawn import plain
from dcaf.core.claims import Binding, Claims

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


def because(reason: str, binding: Binding | None, claims: Claims | None) -> str:
    """Why a session is refused.

    Args:
        reason: As the error has it.
        binding: Whom it should be for; None where nobody was asked.
        claims: What the token says of itself, believed or not; None where that cannot be read.
    """
    if binding is None or claims is None:
        return REASONS.get(reason, reason)
    if reason == "sub":
        return _bound("subject", found=claims.sub, given=binding.subject)
    if reason == "cid":
        return _bound("conversation", found=claims.cid, given=binding.conversation)
    if reason == "mac" and claims.aud != binding.audience:
        return f"it says that it is for {plain(claims.aud)}, and --audience is {plain(binding.audience)}"
    return REASONS.get(reason, reason)


def _bound(whom: str, *, found: str | None, given: str | None) -> str:
    if found is None:
        return f"it is bound to no {whom}, and --{whom} names one"
    return f"it is bound to a {whom}: pass --{whom}" if given is None else f"it is bound to another {whom} than --{whom} names"
