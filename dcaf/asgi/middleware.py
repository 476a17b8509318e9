"""SessionMiddleware: the session of every turn, verified before the application runs and sealed into its answer.

A wrong setting that is found while a framework builds its middleware keeps the server from starting.

Starlette and FastAPI make the middleware of ``add_middleware`` and ``Middleware(...)`` when the first message comes in, which
is the server's question whether the application is ready. Servers take an exception there for an application that knows no
lifespan, and serve it: every request would fail. So the question is answered here: it is not ready, and why.

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
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import wraps
from typing import Any, ClassVar, Concatenate, Final, Literal, ParamSpec, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from dcaf.asgi.body import BytesInFlight, open_nothing
from dcaf.asgi.carriers import Carriers, find_presented_tokens, parse_carriers
from dcaf.asgi.config import MAX_BODY_BYTES, Config, Routes, Terminal, is_done, load_telemetry, parse_routes
from dcaf.asgi.events import Event, Events
from dcaf.asgi.identity import Conversation, Identity, Subject
from dcaf.asgi.lifecycle import find_carriers_to_clear
from dcaf.asgi.problems import refuse
from dcaf.asgi.request import SCOPE_KEY, RequestSession
from dcaf.asgi.websocket import PassingWebSocket, SessionWebSocket, open_handshake
from dcaf.core.arguments import kind_of, require_bool, require_plain_function, texts_of
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable, describe_raised
from dcaf.core.migrations import Import, Migration
from dcaf.core.sealer import MAX_TOKEN_BYTES
from dcaf.core.session_dict import SessionDict
from dcaf.core.settings import ABSOLUTE_TIMEOUT, IDLE_TIMEOUT, Keys, build_sealer, one_of, positive
from dcaf.core.store import SessionStore, level_of, require_store

Made = TypeVar("Made")
P = ParamSpec("P")


def fail_at_startup(make: Callable[Concatenate[Made, P], None]) -> Callable[Concatenate[Made, P], None]:
    """What raises for a wrong setting; while a server asks whether the application is ready, the error is kept for the answer.

    So is whatever a function raises that was given as a setting, and is called at once.

    Args:
        make: The ``__init__`` of a middleware. What it raised there is its ``_failure`` then, and None if all is well.
    """

    @wraps(make)
    def made(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self._failure = None
        try:
            make(self, *args, **kwargs)
        except Exception as failure:
            if not is_in_lifespan():
                raise
            self._failure = failure

    return made


def is_in_lifespan() -> bool:
    """Whether the caller runs within an application that was asked whether it is ready."""
    frame = sys._getframe(1).f_back
    while frame is not None:
        scope = frame.f_locals.get("scope")
        if isinstance(scope, dict) and scope.get("type") == "lifespan":
            return True
        frame = frame.f_back
    return False


async def refuse_start(failure: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Say that the application cannot start; the server logs the message, and ends. Raises the failure for any other connection."""
    if scope["type"] != "lifespan":
        raise failure
    told = str(failure) if isinstance(failure, ConfigurationError | TypeError) else describe_raised(failure)
    await receive()
    await send({"type": "lifespan.startup.failed", "message": f"dcaf: {told}"})


MIB: Final = 1024 * 1024
PLAIN_AND_ENCRYPTED: Final = (
    "plain= with encrypt=True: a plain route reads the whole state in its request body, where frameworks echo it in their "
    "validation errors. Drop one of the two, or pass plain_secret=True."
)
DOOR: Final = ", or an Import(until=, accept=) from dcaf.asgi, which takes plain sessions in until a date"
MOUNTED_TWICE: Final = "SessionMiddleware is mounted twice around one application. Remove one of the two."


class SessionMiddleware:
    """Pure ASGI middleware.

    Args:
        app: The application.
        keys: A Keyring, or the text of one key. A path of a file with one key a line, the active one first, or a function
            that gives a Keyring: these are read again every minute. None reads DCAF_KEYS and DCAF_KEYS_VERIFY.
        audience: The name of this service; a session of any other is refused.
        subject: Who is calling: a function of the scope, sync or async. None, or a None from it, is anonymous; an empty
            string, another type or an exception refuses the request.
        conversation: Which conversation: a function of (scope, body), or a JSON pointer (RFC 6901) into the body such as
            ``"/thread_id"``. The body has no session in it, and is None where it is not JSON.
        encrypt: Whether nobody without the key can read the state (extra ``crypto``). The body that the application reads
            shows only the mirrored keys then; tools see all.
        accept_both: Whether tokens of the other suite are accepted too, during a migration to or from encryption.
        mirror: The keys that the client can read beside the token: True for all, names for some, False for none. None is
            all when signing, none when encrypting.
        plain: Routes whose own plain ``data.session`` in an answer is the new state: paths, or a function of the scope.
        plain_secret: With ``encrypt``, that the plain routes may read the whole state in their request bodies.
        idle_timeout: How long a session lives without a turn.
        absolute_timeout: How long it lives in all.
        on_refused: ``"restart"`` starts an empty session instead of refusing one that is invalid or has ended, with the code
            in ``session.restarted``. An emptied session has lost its guards: refuse unless the client cannot start over. None
            refuses what came by the body or the header, and restarts what came by a cookie.
        unsigned: ``"ignore"`` starts an empty session in place of a plain one; an ``Import`` takes plain ones in until a date.
        max_body_bytes: The longest JSON body that is read.
        max_bytes_in_flight: How many bytes of JSON bodies are read at once in this process; a request over it is answered
            with 503.
        max_response_bytes: The longest JSON answer, event or frame that is completed with the session.
        max_token_bytes: The longest token that is accepted, and so the longest that is made.
        terminal: Which event of a stream, and which frame of a WebSocket, ends a turn: a function of its name, None where it has
            none, and its value, None where it is not JSON. By default a JSON object with the type ``"done"``, or a server-sent
            event of that name.
        pass_streams: Routes whose streams pass byte for byte: paths, or a function of the scope. A change there is an error.
        exempt: Routes to leave alone: paths, or a function of the scope.
        carriers: What the session travels in: ``"body"``, ``"header"`` (``DCAF-Session``), ``"cookie"``, or a HeaderCarrier or
            CookieCarrier with settings of its own. It returns by what it came by.
        bind_request_session: Whether ``request.session`` is the Session too.
        version: Version of the application's own schema.
        migrations: ``{n: function}``, each making the values of version n out of those of n - 1.
        on_event: Told of each refusal and each other event that an operator counts; must not block.
        clock: Seconds since the epoch.
        randomness: That many random bytes, for session ids.
        store: Opens every session and commits what is sealed of it: a ledger, a session service, or a SessionStore of your own; see
            the guide on stores. None keeps nothing.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.
    """

    _twice: ClassVar[str] = MOUNTED_TWICE
    _shown_as: ClassVar[type[SessionDict] | None] = None
    _failure: Exception | None

    @fail_at_startup
    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys = None,
        audience: str = "",
        subject: Subject | None = None,
        conversation: Conversation | str | None = None,
        encrypt: bool = False,
        accept_both: bool = False,
        mirror: Iterable[str] | bool | None = None,
        plain: Routes = (),
        plain_secret: bool = False,
        idle_timeout: timedelta = IDLE_TIMEOUT,
        absolute_timeout: timedelta = ABSOLUTE_TIMEOUT,
        on_refused: Literal["reject", "restart"] | None = None,
        unsigned: Import | Literal["reject", "ignore"] = "reject",
        max_body_bytes: int = MAX_BODY_BYTES,
        max_bytes_in_flight: int = 256 * MIB,
        max_response_bytes: int = 16 * MIB,
        max_token_bytes: int = MAX_TOKEN_BYTES,
        terminal: Terminal = is_done,
        pass_streams: Routes = (),
        exempt: Routes = (),
        carriers: Carriers = ("body",),
        bind_request_session: bool = True,
        version: int = 0,
        migrations: Mapping[int, Migration] | None = None,
        on_event: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
        store: SessionStore | None = None,
    ) -> None:
        if isinstance(app, SessionMiddleware):
            raise ConfigurationError(app._twice)
        self.app = app
        self._exempt = parse_routes("exempt", exempt)
        if encrypt and (callable(plain) or texts_of(plain)) and not require_bool("plain_secret=", plain_secret):
            raise ConfigurationError(PLAIN_AND_ENCRYPTED)
        positive("max_token_bytes", max_token_bytes)
        in_body, others_by = parse_carriers(carriers)
        room = max_token_bytes if in_body else min(max_token_bytes, max(carrier.room_bytes for carrier in others_by))
        sealer = build_sealer(
            keys=keys,
            audience=audience,
            encrypt=encrypt,
            accept_both=accept_both,
            mirror=mirror,
            idle_timeout=idle_timeout,
            absolute_timeout=absolute_timeout,
            max_token_bytes=room,
            version=version,
            migrations=migrations,
            clock=clock,
            randomness=randomness,
        )
        require_store(store)
        told = None if on_event is None else require_plain_function("on_event=", on_event)
        self._config = Config(
            sealer=sealer,
            identity=Identity(subject, conversation),
            store=store,
            events=Events(told, load_telemetry(level_of(store))),
            restarts=None if on_refused is None else one_of("on_refused", on_refused, ("reject", "restart")) == "restart",
            unsigned=unsigned if isinstance(unsigned, Import) else one_of("unsigned", unsigned, ("reject", "ignore"), DOOR),
            is_plain=parse_routes("plain", plain),
            passes_streams=parse_routes("pass_streams", pass_streams),
            terminal=require_plain_function("terminal=", terminal),
            verify=sealer.opened if in_body else open_nothing,
            bytes_in_flight=BytesInFlight(positive("max_bytes_in_flight", max_bytes_in_flight)),
            max_body_bytes=positive("max_body_bytes", max_body_bytes),
            max_response_bytes=positive("max_response_bytes", max_response_bytes),
            in_body=in_body,
            carriers=others_by,
            binds_request_session=require_bool("bind_request_session=", bind_request_session),
            shown_as=self._shown_as,
        )
        if not callable(app) or isinstance(app, type):
            raise ConfigurationError(f"SessionMiddleware() takes the ASGI application first, not {kind_of(app)}.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; a lifespan, and exempt routes, pass as they are."""
        if self._failure is not None:
            await refuse_start(self._failure, scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket") or (self._exempt is not None and self._exempt(scope)):
            await self.app(scope, receive, send)
            return
        if SCOPE_KEY in scope or (self._config.binds_request_session and "session" in scope):
            self._check_scope(scope)
        if scope["type"] == "http":
            await RequestSession(self._config, scope, receive, send).serve(self.app)
        else:
            await self._serve_socket(scope, receive, send)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        config = self._config
        presented = find_presented_tokens(config.carriers, scope)
        try:
            turn = await open_handshake(config, scope, presented)
        except (SessionError, SessionUnavailable) as refusal:
            config.events.report_refusal(refusal)
            await refuse(refusal, scope, receive, send, find_carriers_to_clear(refusal, presented))
            return
        try:
            turn.scope = inner = {**scope, SCOPE_KEY: turn.session}
            if config.binds_request_session:
                inner["session"] = turn.session if config.shown_as is None else config.shown_as.of(turn.session)
            socket = (SessionWebSocket if config.in_body else PassingWebSocket)(turn, inner, receive, send)
        except BaseException:  # what plain= raises, perhaps
            await turn.release()
            raise
        await socket.run(self.app)

    def _check_scope(self, scope: Scope) -> None:
        if SCOPE_KEY in scope:
            raise ConfigurationError(self._twice)
        raise ConfigurationError(
            f"scope['session'] is taken by another session middleware, perhaps Starlette's SessionMiddleware (it holds a "
            f"{type(scope['session']).__name__}). Remove that one, or pass bind_request_session=False to dcaf's and use "
            "dcaf.current_session()."
        )
