"""SessionMiddleware: the session of every turn, verified before the application runs and sealed into its answer.

>>> from dcaf.core import Keyring
>>> async def app(scope, receive, send): ...
>>> SessionMiddleware(app, keys=Keyring.ephemeral(), audience="")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: audience= must name this service, ...

Behind it the application reads the plain protocol. The ``data.session`` that it finds in a request body *is* the verified state;
every other one has been taken out.

A wrong setting keeps the server from starting. Starlette and FastAPI build the middleware of ``add_middleware`` and
``Middleware(...)`` only when the server asks whether the application is ready. Servers take an exception there to mean that the
application knows no lifespan, and serve it: every request would fail. So the middleware answers the question itself: the
application is not ready, and why.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, ClassVar, Concatenate, Final, Literal, ParamSpec, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from dcaf.asgi.body import BytesInFlight, open_nothing
from dcaf.asgi.carriers import Carrier, Carriers, find_presented_tokens, parse_carriers
from dcaf.asgi.config import MAX_BODY_BYTES, Config, Routes, Terminal, is_done, load_telemetry, parse_routes
from dcaf.asgi.identity import Conversation, Identity, Subject
from dcaf.asgi.lifecycle import prepare_refusal
from dcaf.asgi.lifespan import ClosingLifespan, find_closer
from dcaf.asgi.operator_events import Event, Events
from dcaf.asgi.problems import refuse
from dcaf.asgi.request import SCOPE_KEY, RequestSession
from dcaf.asgi.websocket import PassingWebSocket, SessionWebSocket, open_handshake
from dcaf.core.arguments import kind_of, require_bool, require_plain_function, texts_of
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable, describe_raised
from dcaf.core.migrations import Import, Migration
from dcaf.core.sealer import MAX_TOKEN_BYTES
from dcaf.core.session_dict import SessionDict
from dcaf.core.settings import ABSOLUTE_TIMEOUT, IDLE_TIMEOUT, Keys, build_sealer, require_choice, require_positive
from dcaf.core.store import SessionStore, StoreSettings, StoreSource, find_store, level_of

Made = TypeVar("Made")
P = ParamSpec("P")

MIB: Final = 1024 * 1024
PLAIN_AND_ENCRYPTED: Final = (
    "plain= with encrypt=True: a plain route reads the whole state in its request body, where frameworks echo it in their "
    "validation errors. Drop one of the two, or pass plain_secret=True."
)
OR_IMPORT: Final = ", or an Import(until=, accept=) from dcaf.asgi, which takes plain sessions in until a date"
MOUNTED_TWICE: Final = "SessionMiddleware is mounted twice around one application. Remove one of the two."


def fail_at_startup(make: Callable[Concatenate[Made, P], None]) -> Callable[Concatenate[Made, P], None]:
    """Keep what an ``__init__`` raises while the server asks whether the application is ready; at any other time raise it.

    Args:
        make: The ``__init__`` of a middleware. Its ``_failure`` is what was kept, and None if all is well.
    """

    @wraps(make)
    def make_or_keep(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self._failure = None
        try:
            make(self, *args, **kwargs)
        except Exception as failure:
            if not is_in_lifespan():
                raise
            self._failure = failure

    return make_or_keep


class SessionMiddleware:
    """Pure ASGI middleware: it opens the session of each request, and seals it into the answer.

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
        on_event: Called with each refusal and each other event that an operator counts; must not block.
        clock: Seconds since the epoch.
        randomness: That many random bytes, for session ids.
        store: Opens every session and commits what is sealed of it: a ledger, a session service, or a SessionStore of your own; see
            the guide on stores. None keeps nothing. One that has ``aclose`` is closed when the lifespan ends.

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
        store: SessionStore | StoreSource | None = None,
    ) -> None:
        if isinstance(app, SessionMiddleware):
            raise ConfigurationError(app._twice)
        self.app = app
        self._exempt = parse_routes("exempt", exempt)
        _check_plain(plain, encrypt=encrypt, plain_secret=plain_secret)
        limit_bytes = require_positive("max_token_bytes", max_token_bytes)
        in_body, others_by = parse_carriers(carriers)
        sealer = build_sealer(
            keys=keys,
            audience=audience,
            encrypt=encrypt,
            accept_both=accept_both,
            mirror=mirror,
            idle_timeout=idle_timeout,
            absolute_timeout=absolute_timeout,
            max_token_bytes=_limit_token(limit_bytes, others_by, in_body=in_body),
            version=version,
            migrations=migrations,
            clock=clock,
            randomness=randomness,
        )
        kept = find_store(
            store, StoreSettings(audience, absolute_timeout, subject is not None, max_state_bytes=sealer.most_state_bytes)
        )
        self._close = find_closer(kept)
        events = _make_events(on_event, kept)
        self._config = Config(
            sealer=sealer,
            identity=Identity(subject, conversation),
            store=kept,
            events=events,
            restarts=None if on_refused is None else require_choice("on_refused", on_refused, ("reject", "restart")) == "restart",
            unsigned=_require_unsigned(unsigned),
            is_plain=parse_routes("plain", plain),
            passes_streams=parse_routes("pass_streams", pass_streams),
            terminal=require_plain_function("terminal=", terminal),
            verify=sealer.opened if in_body else open_nothing,
            bytes_in_flight=BytesInFlight(require_positive("max_bytes_in_flight", max_bytes_in_flight)),
            max_body_bytes=require_positive("max_body_bytes", max_body_bytes),
            max_response_bytes=require_positive("max_response_bytes", max_response_bytes),
            in_body=in_body,
            carriers=others_by,
            binds_request_session=require_bool("bind_request_session=", bind_request_session),
            shown_as=self._shown_as,
        )
        _check_application(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; exempt routes pass as they are, and a lifespan too, at whose end the store is closed."""
        if self._failure is not None:
            await refuse_start(self._failure, scope, receive, send)
            return
        if scope["type"] == "lifespan" and self._close is not None:
            await ClosingLifespan(self._close, receive, send).run(self.app, scope)
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
            await refuse(refusal, scope, receive, send, prepare_refusal(config, refusal, scope, presented))
            return
        try:
            turn.scope = inner = {**scope, SCOPE_KEY: turn.session}
            if config.binds_request_session:
                inner["session"] = turn.session if config.shown_as is None else config.shown_as.of(turn.session)
            socket = (SessionWebSocket if config.in_body else PassingWebSocket)(turn, inner, receive, send)
        except BaseException:  # plain= is a function of the application's own
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


def is_in_lifespan() -> bool:
    """Whether the server is asking this application whether it is ready: a caller up the stack serves the lifespan."""
    frame = sys._getframe(1).f_back
    while frame is not None:
        scope = frame.f_locals.get("scope")
        if isinstance(scope, dict) and scope.get("type") == "lifespan":
            return True
        frame = frame.f_back
    return False


async def refuse_start(failure: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Tell the server that the application cannot start: it logs the message and ends. Raises the failure for other connections."""
    if scope["type"] != "lifespan":
        raise failure
    message = str(failure) if isinstance(failure, ConfigurationError | TypeError) else describe_raised(failure)
    await receive()
    await send({"type": "lifespan.startup.failed", "message": f"dcaf: {message}"})


def _check_application(app: Any) -> None:
    if not callable(app) or isinstance(app, type):
        raise ConfigurationError(f"SessionMiddleware() takes the ASGI application first, not {kind_of(app)}.")


def _check_plain(plain: Routes, *, encrypt: bool, plain_secret: bool) -> None:
    """Refuse a plain route on an encrypted session that nobody has allowed."""
    if encrypt and (callable(plain) or texts_of(plain)) and not require_bool("plain_secret=", plain_secret):
        raise ConfigurationError(PLAIN_AND_ENCRYPTED)


def _require_unsigned(unsigned: Import | Literal["reject", "ignore"]) -> Import | Literal["reject", "ignore"]:
    return unsigned if isinstance(unsigned, Import) else require_choice("unsigned", unsigned, ("reject", "ignore"), OR_IMPORT)


def _limit_token(max_token_bytes: int, carriers: Sequence[Carrier], *, in_body: bool) -> int:
    """The longest token that anything carries."""
    return max_token_bytes if in_body else min(max_token_bytes, max(carrier.room_bytes for carrier in carriers))


def _make_events(on_event: Callable[[Event], None] | None, store: SessionStore | None) -> Events:
    on_event = None if on_event is None else require_plain_function("on_event=", on_event)
    return Events(on_event, load_telemetry(level_of(store)))
