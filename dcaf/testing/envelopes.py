"""Envelopes for tests: sealed at any age and for anyone, expired, or damaged.

>>> from dcaf import Keyring
>>> envelope = sealed({"step": 2}, keys=Keyring.ephemeral(), audience="shop")
>>> envelope["step"], tampered(envelope)["dcaf"]["token"] == envelope["dcaf"]["token"]
(2, False)

What a reader gets wrong: these are real seals, made with the real keys. An application accepts them if they are right.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from dcaf.asgi.config import lifetime, suites
from dcaf.core.claims import SKEW_S
from dcaf.core.envelope import Sealer
from dcaf.core.keys import Keyring
from dcaf.core.migrations import Migrations
from dcaf.testing.clock import FrozenClock

IDLE: Final = timedelta(days=7)
ABSOLUTE: Final = timedelta(days=30)
"""The timeouts of SessionMiddleware, where it is told no others."""

JUST_OVER: Final = timedelta(seconds=SKEW_S + 1)
"""How long after its end a session is refused: the clocks of two servers may be apart."""


def sealed(
    state: Mapping[str, Any],
    *,
    keys: Keyring | str,
    audience: str,
    subject: str | None = None,
    conversation: str | None = None,
    age: timedelta = timedelta(0),
    lived: timedelta = timedelta(0),
    sequence: int = 1,
    version: int = 0,
    encrypt: bool = False,
    idle_timeout: timedelta = IDLE,
    absolute_timeout: timedelta = ABSOLUTE,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """What a client would send at ``data.session``.

    Args:
        state: The values.
        keys: The ring whose active key seals, or a key's text.
        audience: The service it is for.
        subject: Whom it is bound to: the value itself, not the function.
        conversation: The conversation it is bound to, likewise.
        age: How long ago it was sealed.
        lived: How long before that it was begun.
        sequence: Its number.
        version: Of the application's schema, when it was sealed.
        encrypt: Whether it is sealed by the encrypted suite (extra ``crypto``).
        idle_timeout: As of the middleware that sealed it.
        absolute_timeout: Likewise.
        clock: Seconds since the epoch: the middleware's.

    Raises:
        ConfigurationError: A setting that the middleware would refuse, too.
    """
    then = FrozenClock(datetime.fromtimestamp(clock(), UTC) - age - lived)
    (suite,) = suites(encrypt=encrypt, accept_both=False)
    sealer = Sealer(
        keys=Keyring.parse(keys) if isinstance(keys, str) else keys,
        audience=audience,
        lifetime=lifetime(idle_timeout, absolute_timeout),
        migrations=Migrations(version),
        suite=suite,
        mirror=not encrypt,
        clock=then,
    )
    session = sealer.start()
    session.update(state)
    then.tick(lived)
    envelope: dict[str, Any] = orjson.loads(sealer.seal(session, sealer.binding(subject, conversation), sequence=sequence))
    return envelope


def expired(
    state: Mapping[str, Any],
    *,
    keys: Keyring | str,
    audience: str,
    idle_timeout: timedelta = IDLE,
    **settings: Any,
) -> dict[str, Any]:
    """What a client sends that was away for too long: genuine, its own, and just past its idle end; 409 ``session-ended``.

    Args:
        state: The values.
        keys: The ring whose active key seals, or a key's text.
        audience: The service it is for.
        idle_timeout: As of the middleware.
        **settings: Any other of ``sealed``, but ``age``.
    """
    return sealed(state, keys=keys, audience=audience, idle_timeout=idle_timeout, age=idle_timeout + JUST_OVER, **settings)


def tampered(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The same envelope with one character of what is sealed in it changed."""
    changed = copy.deepcopy(dict(envelope))
    parts = changed["dcaf"]["token"].split(".")
    sealed_part = parts[min(3, len(parts) - 1)]
    parts[min(3, len(parts) - 1)] = ("f" if sealed_part[0] != "f" else "e") + sealed_part[1:]
    changed["dcaf"]["token"] = ".".join(parts)
    return changed
