"""`dcaf inspect`: what a session says of itself, and, with the key, whether it is believed and why not.

It reads a token or an envelope from standard input. Without a key it shows claims that nobody has verified, and says so.

What a reader gets wrong: the explanation is for the operator. On the wire every cause has one and the same answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from dcaf.asgi.settings import suites
from dcaf.core.base64url import decode
from dcaf.core.envelope import Sealer
from dcaf.core.errors import ConfigurationError, SessionError
from dcaf.core.keys import Keyring
from dcaf.core.seal import SHAPE

REASONS = {
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
    "aud": "it is for another audience",
    "sub": "it is bound to another subject, or to one where none is given, or to none where one is",
    "cid": "it is bound to another conversation, or to one where none is given, or to none where one is",
    "iat": "it was sealed in the future: the clocks are more than a minute apart",
    "exp": "it was not used for longer than the idle timeout",
    "born": "the session is older than the absolute timeout",
    "version": "its schema version is not known here",
}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    inspect = commands.add_parser("inspect", help="show a token or an envelope from standard input")
    inspect.add_argument("--audience", help="whom it should be for; with DCAF_KEYS set, the seal is verified")
    inspect.add_argument("--subject", help="whom it should be bound to")
    inspect.add_argument("--conversation", help="the conversation that it should be bound to")
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    member = _member(sys.stdin.read().strip())
    _show_unverified(member)
    if not os.environ.get("DCAF_KEYS"):
        print("\nNot verified: anybody could have written this. Set DCAF_KEYS and pass --audience to verify it.")
        return 0
    if options.audience is None:
        raise ConfigurationError("A seal is verified for an audience: pass --audience, as SessionMiddleware(audience=) has it.")
    return _verify(member, options)


def _member(text: str) -> Any:
    """The envelope that was given, or one around the token that was."""
    if not text.startswith("{"):
        return {"dcaf": {"token": text}}
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ConfigurationError("Standard input is neither a token nor a JSON object.") from None


def _show_unverified(member: Any) -> None:
    own = member.get("dcaf") if isinstance(member, dict) else None
    token = own.get("token") if isinstance(own, dict) else None
    found = SHAPE.fullmatch(token.encode(errors="replace")) if isinstance(token, str) else None
    if found is None:
        print("claims     cannot be read without a key")
        return
    try:
        claims = orjson.loads(decode(found[2]))
    except ValueError:
        print("claims     no JSON")
        return
    print(f"key id     {found[1].decode()}\nclaims     {json.dumps(claims)}")
    for name in ("born", "iat", "exp"):
        if isinstance(claims, dict) and type(claims.get(name)) is int:
            print(f"{name:10} {_moment(claims[name])}")


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return "no time that a calendar has"


def _verify(member: Any, options: argparse.Namespace) -> int:
    first, *others = suites(encrypt=False, accept_both=_is_encrypted(member))
    sealer = Sealer(keys=Keyring.from_environment(), audience=options.audience, suite=first, also_accepted=others)
    try:
        session = sealer.open(member, sealer.binding(options.subject, options.conversation))
    except SessionError as refusal:
        print(f"\nRefused: {refusal.code}, because {REASONS.get(refusal.reason, refusal.reason)}.")
        return 1
    print(f"\nVerified. The state has {len(session)} keys: {', '.join(sorted(session)) or 'none'}.")
    return 0


def _is_encrypted(member: Any) -> bool:
    own = member.get("dcaf") if isinstance(member, dict) else None
    return isinstance(own, dict) and str(own.get("token")).startswith("dcaf1e.")
