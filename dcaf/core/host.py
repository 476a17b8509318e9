"""Turns without a request: for jobs, queues, tools over stdio, and tests.

>>> import asyncio
>>> from dcaf.core.keys import Keyring
>>> host = SessionHost(keys=Keyring.ephemeral(), audience="jobs")
>>> async def count(envelope):
...     async with host.turn(envelope) as turn:
...         turn.session.incr("done")
...     return turn.envelope
>>> first = asyncio.run(count(None))
>>> asyncio.run(count(first))["done"]
2

What a reader gets wrong: nothing is sent for you. Whoever sent the envelope has to get the new one, as ``data.session`` of a
message, and send it with the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import Token
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import orjson

from dcaf.core.arguments import require_text
from dcaf.core.context import begin, end
from dcaf.core.errors import ConfigurationError
from dcaf.core.lifecycle import SessionTurn
from dcaf.core.mapping import state_of
from dcaf.core.migrations import Migration
from dcaf.core.sealer import MAX_TOKEN_BYTES
from dcaf.core.session import Session
from dcaf.core.settings import ABSOLUTE_TIMEOUT, IDLE_TIMEOUT, Keys, build_sealer
from dcaf.core.store import SessionStore, StoreSettings, StoreSource, find_store


class SessionHost:
    """Opens and seals sessions without a middleware; a middleware with the same settings accepts them, and the other way round.

    Args:
        keys, audience, store, encrypt, accept_both, mirror: As in ``SessionMiddleware``.
        idle_timeout, absolute_timeout, max_token_bytes, version, migrations, clock, randomness: As in ``SessionMiddleware``.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.
    """

    def __init__(
        self,
        *,
        keys: Keys = None,
        audience: str = "",
        store: SessionStore | StoreSource | None = None,
        encrypt: bool = False,
        accept_both: bool = False,
        mirror: Iterable[str] | bool | None = None,
        idle_timeout: timedelta = IDLE_TIMEOUT,
        absolute_timeout: timedelta = ABSOLUTE_TIMEOUT,
        max_token_bytes: int = MAX_TOKEN_BYTES,
        version: int = 0,
        migrations: Mapping[int, Migration] | None = None,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._sealer = build_sealer(
            keys=keys,
            audience=audience,
            encrypt=encrypt,
            accept_both=accept_both,
            mirror=mirror,
            idle_timeout=idle_timeout,
            absolute_timeout=absolute_timeout,
            max_token_bytes=max_token_bytes,
            version=version,
            migrations=migrations,
            clock=clock,
            randomness=randomness,
        )
        settings = StoreSettings(audience, absolute_timeout, has_subject=True, max_state_bytes=self._sealer.most_state_bytes)
        self._store = find_store(store, settings)

    def turn(
        self, envelope: Mapping[str, Any] | None = None, *, subject: str | None = None, conversation: str | None = None
    ) -> HostTurn:
        """One turn, as ``async with host.turn(envelope) as turn``.

        Args:
            envelope: What came at ``data.session`` of the message; None begins a session.
            subject: Who is calling; None is anonymous.
            conversation: Which conversation; None where the service names none.

        Raises:
            ConfigurationError: The subject or the conversation is empty, or no text that UTF-8 can say.
        """
        for name, value in (("subject", subject), ("conversation", conversation)):
            if value is not None and not require_text(f"{name}=", value, "or None"):
                raise ConfigurationError(f"{name}= is a text that is not empty, or None.")
        turn = SessionTurn(self._sealer, self._store)
        turn.binding = self._sealer.binding(subject, conversation)
        return HostTurn(turn, envelope)


class HostTurn:
    """One turn without a request. Inside the block ``current_session()`` is its session.

    The session is opened when the block begins, and sealed when it ends. A block that raises seals nothing: the envelope of before
    stays good.

    Args:
        turn: The turn.
        given: The envelope that came in.

    Raises, when the block begins:
        SessionError: The session is refused.
        SessionUnavailable: Its store cannot tell.

    Raises, when it ends:
        SessionError: Another turn came first, or the session was revoked.
        SessionUnavailable: It could not be written.
        SessionAliasError, SessionValueError: What was done to the session cannot be written.
    """

    def __init__(self, turn: SessionTurn, given: Mapping[str, Any] | None) -> None:
        self._turn = turn
        self._given = given
        self._envelope: dict[str, Any] | None = None
        self._is_used = False
        self._session: Session | None = None
        self._before: Token[Session] | None = None

    @property
    def session(self) -> Session:
        """The session, from the beginning of the block on.

        Raises:
            ConfigurationError: The block has not begun.
        """
        if self._session is None:
            raise ConfigurationError("turn.session is there inside the block of `async with host.turn(...) as turn`.")
        return self._session

    @property
    def envelope(self) -> dict[str, Any]:
        """The new envelope for ``data.session`` of the answer, when the block has ended.

        Raises:
            ConfigurationError: The block has not ended, or has raised.
        """
        if self._envelope is None:
            raise ConfigurationError(
                "turn.envelope is there when the block of `async with host.turn(...) as turn` has ended; one that raised seals "
                "nothing, and the envelope of before stays good."
            )
        return self._envelope

    async def __aenter__(self) -> Self:
        if self._is_used:
            raise ConfigurationError("A turn is used once. Call host.turn(...) for each.")
        self._is_used = True
        try:
            self._session = await _open(self._turn, self._given)
        except BaseException:
            await self._turn.release()
            raise
        self._before = begin(self._session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._envelope = await _seal(self._turn)
        finally:
            state_of(self._turn.session).end(_ignore_late)
            if self._before is not None:
                # A generator that is not read to its end leaves its block in another context, which has variables of its own.
                with suppress(ValueError):
                    end(self._before)
            await self._turn.release()


async def _open(turn: SessionTurn, given: Mapping[str, Any] | None) -> Session:
    if given is None:
        turn.session = turn.sealer.start()
        await turn.hold(None)
        return turn.session
    turn.arrived = True
    opened = turn.sealer.verify(dict(given) if isinstance(given, Mapping) else given)
    turn.session = turn.sealer.accept(opened, turn.binding)
    turn.kid = None if opened is None else opened.key.kid
    await turn.hold(None if opened is None else turn.sealer.claims_of(turn.session))
    return turn.session


async def _seal(turn: SessionTurn) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(b"".join(await turn.seal(ends_turn=True)))
    return found


def _ignore_late() -> None:
    """A late write raises where it is made, and nothing else happens."""
