"""SessionMiddleware: the session of every turn, verified before the application runs and sealed into its answer.

>>> from dcaf.core import Keyring
>>> async def app(scope, receive, send): ...
>>> SessionMiddleware(app, keys=Keyring.ephemeral(), audience="")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: audience= must name this service, ...

What a reader gets wrong: behind it the application reads the plain protocol. The ``data.session`` that it finds in a
request body *is* the verified state; every other one has been taken out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from dcaf.asgi.holder import Conversation, Holder, Subject
from dcaf.asgi.problems import log_refusal, problem
from dcaf.asgi.request import Body, read_body
from dcaf.asgi.response import Answer
from dcaf.asgi.settings import Routes, keyring, lifetime, positive, routes
from dcaf.core.claims import Binding
from dcaf.core.current import running
from dcaf.core.envelope import Sealer
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable
from dcaf.core.keeper import Keeper, Stateless
from dcaf.core.keys import Keyring
from dcaf.core.migrations import Migration, Migrations
from dcaf.core.session import Session

MIB: Final = 1024 * 1024
SCOPE_KEY: Final = "dcaf.session"
MOUNTED_TWICE: Final = "SessionMiddleware is mounted twice around one application. Remove one of the two."


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: the session, whom it is bound to, the body it came in, and whether one came in at all."""

    session: Session
    binding: Binding
    body: Body
    arrived: bool


class SessionMiddleware:
    """Pure ASGI middleware.

    Args:
        app: The application.
        keys: A Keyring, or the text of one key; None reads DCAF_KEYS and DCAF_KEYS_VERIFY.
        audience: The name of this service; a session of any other is refused.
        subject: Who is calling: a function of the scope, sync or async. None, or a None from it, is anonymous; an empty
            string, another type or an exception refuses the request.
        conversation: Which conversation: a function of (scope, body), or a JSON pointer (RFC 6901) into the body such as
            ``"/thread_id"``. The body has no session in it, and is None where it is not JSON.
        mirror: The keys that the client can read beside the token: True for all, names for some, False for none.
        plain: Routes whose own plain ``data.session`` in an answer is the new state: paths, or a function of the scope.
        idle_timeout: How long a session lives without a turn.
        absolute_timeout: How long it lives in all.
        max_body_bytes: The longest JSON body that is read.
        max_response_bytes: The longest JSON answer that is completed with the session.
        max_token_bytes: The longest token that is accepted, and so the longest that is made.
        exempt: Routes to leave alone: paths, or a function of the scope.
        bind_request_session: Whether ``request.session`` is the Session too.
        version: Version of the application's own schema.
        migrations: ``{n: function}``, each making the values of version n out of those of n - 1.
        clock: Seconds since the epoch.
        randomness: That many random bytes, for session ids.
        keeper: Who judges freshness; None is the stateless one.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keyring | str | None = None,
        audience: str = "",
        subject: Subject | None = None,
        conversation: Conversation | str | None = None,
        mirror: Iterable[str] | bool = True,
        plain: Routes = (),
        idle_timeout: timedelta = timedelta(days=7),
        absolute_timeout: timedelta = timedelta(days=30),
        max_body_bytes: int = 4 * MIB,
        max_response_bytes: int = 16 * MIB,
        max_token_bytes: int = MIB // 4,
        exempt: Routes = (),
        bind_request_session: bool = True,
        version: int = 0,
        migrations: Mapping[int, Migration] | None = None,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
        keeper: Keeper | None = None,
    ) -> None:
        if isinstance(app, SessionMiddleware):
            raise ConfigurationError(MOUNTED_TWICE)
        self.app = app
        self._holder = Holder(subject, conversation)
        self._plain = routes("plain", plain)
        self._exempt = routes("exempt", exempt)
        self._max_body_bytes = positive("max_body_bytes", max_body_bytes)
        self._max_response_bytes = positive("max_response_bytes", max_response_bytes)
        self._bind_request_session = bind_request_session
        self._keeper = keeper or Stateless()
        self._warned: set[str] = set()
        self._sealer = Sealer(
            keys=keyring(keys),
            audience=audience,
            lifetime=lifetime(idle_timeout, absolute_timeout),
            mirror=mirror,
            max_token_bytes=positive("max_token_bytes", max_token_bytes),
            migrations=Migrations(version, migrations),
            clock=clock,
            randomness=randomness,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; anything but HTTP, and exempt routes, pass as they are."""
        if scope["type"] != "http" or self._exempt(scope):
            await self.app(scope, receive, send)
            return
        self._check_scope(scope)
        try:
            turn = await self._open(scope, receive)
        except (SessionError, SessionUnavailable) as refusal:
            log_refusal(refusal)
            await problem(refusal, http_version=scope.get("http_version", "1.1"))(scope, receive, send)
            return
        if not turn.body.disconnected:
            await self._run(turn, scope, receive, send)

    async def _run(self, turn: Turn, scope: Scope, receive: Receive, send: Send) -> None:
        inner = turn.body.scope(scope)
        inner[SCOPE_KEY] = turn.session
        if self._bind_request_session:
            inner["session"] = turn.session
        answer = Answer(
            inner,
            send,
            turn.session,
            arrived=turn.arrived,
            adopts=turn.body.json is not None and self._plain(scope),
            seal=lambda: self._seal(turn),
            max_response_bytes=self._max_response_bytes,
            warned=self._warned,
        )
        with running(turn.session):
            await self.app(inner, turn.body.replay(receive), answer.send)
            answer.look_back()

    async def _open(self, scope: Scope, receive: Receive) -> Turn:
        body = await read_body(scope, receive, self._max_body_bytes)
        candidate = body.candidate()
        opened = None if candidate is None else self._sealer.verify(body.member(candidate))
        binding = self._sealer.binding(*await self._holder.names(scope, body.without_sessions))
        session = self._sealer.accept(opened, binding)
        await self._admit(session)
        body.rewrite(candidate, session._state.plain())
        return Turn(session, binding, body, arrived=candidate is not None)

    async def _admit(self, session: Session) -> None:
        if session._standing and session.sequence:
            await self._keeper.admit(session._standing.claims)

    async def _seal(self, turn: Turn) -> bytes:
        sequence = await self._keeper.commit(turn.session)
        return self._sealer.seal(turn.session, turn.binding, sequence=sequence)

    def _check_scope(self, scope: Scope) -> None:
        if SCOPE_KEY in scope:
            raise ConfigurationError(MOUNTED_TWICE)
        if self._bind_request_session and "session" in scope:
            raise ConfigurationError(
                f"scope['session'] is taken by another session middleware, perhaps Starlette's SessionMiddleware (it holds a "
                f"{type(scope['session']).__name__}). Remove that one, or pass bind_request_session=False to dcaf's and use "
                "dcaf.current_session()."
            )
