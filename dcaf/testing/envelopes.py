"""Envelopes for tests: sealed at any age and for anyone, or damaged.

>>> from dcaf import Keyring
>>> envelope = sealed({"step": 2}, keys=Keyring.ephemeral(), audience="shop")
>>> envelope["step"], tampered(envelope)["dcaf"]["token"] == envelope["dcaf"]["token"]
(2, False)

What a reader gets wrong: these are real seals, made with the real keys. An application accepts them if they are right.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import orjson

from dcaf.asgi.settings import suites
from dcaf.core.envelope import Sealer
from dcaf.core.keys import Keyring


def sealed(
    state: Mapping[str, Any],
    *,
    keys: Keyring | str,
    audience: str,
    subject: str | None = None,
    conversation: str | None = None,
    age: timedelta = timedelta(0),
    sequence: int = 1,
    encrypt: bool = False,
) -> dict[str, Any]:
    """What a client would send at ``data.session``.

    Args:
        state: The values.
        keys: The ring whose active key seals, or a key's text.
        audience: The service it is for.
        subject: Whom it is bound to: the value itself, not the function.
        conversation: The conversation it is bound to, likewise.
        age: How long ago it was begun and sealed, with the default timeouts.
        sequence: Its number.
        encrypt: Whether it is sealed by the encrypted suite (extra ``crypto``).
    """
    ring = Keyring.parse(keys) if isinstance(keys, str) else keys
    (suite,) = suites(encrypt=encrypt, accept_both=False)
    sealer = Sealer(keys=ring, audience=audience, suite=suite, mirror=not encrypt, clock=lambda: time.time() - age.total_seconds())
    session = sealer.start()
    session.update(state)
    envelope: dict[str, Any] = orjson.loads(sealer.seal(session, sealer.binding(subject, conversation), sequence=sequence))
    return envelope


def tampered(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The same envelope with one character of what is sealed in it changed."""
    changed = copy.deepcopy(dict(envelope))
    parts = changed["dcaf"]["token"].split(".")
    sealed_part = parts[min(3, len(parts) - 1)]
    parts[min(3, len(parts) - 1)] = ("f" if sealed_part[0] != "f" else "e") + sealed_part[1:]
    changed["dcaf"]["token"] = ".".join(parts)
    return changed
