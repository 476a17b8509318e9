"""Envelopes for tests: sealed at any age and for anyone, expired, or damaged; with keys that are the same in every run.

>>> from dcaf import Keyring
>>> envelope = sealed({"step": 2}, keys=Keyring.ephemeral(), audience="shop")
>>> envelope["step"], tampered(envelope)["dcaf"]["token"] == envelope["dcaf"]["token"]
(2, False)
>>> fixed_keys()
Keyring(active='testonly', kids=['testonly'])

These are real seals, made with the real keys, so an application accepts them if they are right.

What a reader gets wrong: everybody has the fixed keys. A token that begins with ``dcaf1s.testonly.`` vouches for nothing outside of
a test.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from dcaf.client.arguments import check, check_function, is_whole, refuse
from dcaf.client.envelopes import is_sealed
from dcaf.core.claims import SKEW_S
from dcaf.core.errors import ConfigurationError
from dcaf.core.keys import Key, Keyring
from dcaf.core.migrations import Migrations
from dcaf.core.sealer import Sealer
from dcaf.core.settings import build_lifetime, choose_suites
from dcaf.testing.clock import FrozenClock

KID: Final = "testonly"


def fixed_keys() -> Keyring:
    """A ring with one key that is known to everybody."""
    return Keyring(Key.from_bytes(KID, hashlib.sha256(b"dcaf.testing").digest()))


IDLE: Final = timedelta(days=7)
ABSOLUTE: Final = timedelta(days=30)
"""The timeouts of SessionMiddleware by default."""

LONGEST: Final = timedelta(days=365 * 50)
"""Further back lies the beginning of the epoch, which claims cannot be before."""

PARTS: Final = 3
"""Of a token: its suite, its key, and what is sealed."""

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
        idle_timeout: As for the middleware that sealed it.
        absolute_timeout: Likewise.
        clock: Seconds since the epoch: the middleware's.

    Raises:
        ConfigurationError: A setting that the middleware would refuse, too.
    """
    _check_numbers(age=age, lived=lived, sequence=sequence, version=version)
    check("state", state, Mapping, "the values of the session, a mapping")
    check("encrypt", encrypt, bool, "True or False")
    for name, value in (("subject", subject), ("conversation", conversation)):
        if value is not None and (not isinstance(value, str) or not value or not is_whole(value)):
            refuse(name, value, "the value itself, a text that is not empty, or None")
    then = FrozenClock(_read_clock(clock))
    then.tick(-age - lived)
    (suite,) = choose_suites(encrypt=encrypt, accept_both=False)
    sealer = Sealer(
        keys=Keyring.parse(keys) if isinstance(keys, str) else check("keys", keys, Keyring, "a Keyring, or the text of a key"),
        audience=audience,
        lifetime=build_lifetime(idle_timeout, absolute_timeout),
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
        idle_timeout: As for the middleware.
        **settings: Any other of ``sealed``, but ``age``.

    Raises:
        ConfigurationError: As ``sealed``.
    """
    if check("idle_timeout", idle_timeout, timedelta, "a timedelta") > LONGEST:
        raise ConfigurationError(f"idle_timeout= is longer than a session can be told: at most {LONGEST.days} days.")
    return sealed(state, keys=keys, audience=audience, idle_timeout=idle_timeout, age=idle_timeout + JUST_OVER, **settings)


def tampered(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The same envelope with one character of what is sealed in it changed.

    Raises:
        ConfigurationError: It has no token in which something is sealed.
    """
    takes = "an envelope: what stands at data.session of an answer, or what sealed() gives"
    changed = dict(check("envelope", envelope, Mapping, takes))
    parts = changed["dcaf"]["token"].split(".") if is_sealed(changed) else []
    if len(parts) < PARTS or not all(parts):
        raise ConfigurationError(f"envelope= takes {takes}; this one has no token in which something is sealed.")
    sealed_part = parts[min(3, len(parts) - 1)]
    parts[min(3, len(parts) - 1)] = ("f" if sealed_part[0] != "f" else "e") + sealed_part[1:]
    return {**changed, "dcaf": {**changed["dcaf"], "token": ".".join(parts)}}


def _read_clock(clock: Callable[[], float]) -> datetime:
    """What a clock says.

    Raises:
        ConfigurationError: It is none.
    """
    takes = "a function that gives the seconds since the epoch, as time.time"
    seconds = check_function("clock", clock, takes)()
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        refuse("clock", seconds, f"{takes}, within the calendar")


def _check_numbers(*, age: timedelta, lived: timedelta, sequence: int, version: int) -> None:
    """Refuse lengths and numbers that no session has.

    Raises:
        ConfigurationError: One of them is.
    """
    for name, length in (("age", age), ("lived", lived)):
        if check(name, length, timedelta, "a timedelta, for instance timedelta(days=8)") > LONGEST:
            raise ConfigurationError(f"{name}= is longer than a session can be told: at most {LONGEST.days} days.")
    for name, number in (("sequence", sequence), ("version", version)):
        if not 0 <= check(name, number, int, "a number, from 0 up") < 2**53:
            raise ConfigurationError(f"{name}= takes a number from 0 to 2**53 - 1.")
