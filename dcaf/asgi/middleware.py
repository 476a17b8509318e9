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
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Final, Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from dcaf.asgi.beside import Beside
from dcaf.asgi.carriers import Carrier, Carriers, carriers_of
from dcaf.asgi.checkpoint import sending
from dcaf.asgi.events import Event, Events
from dcaf.asgi.flight import Flights
from dcaf.asgi.headers import rewritten
from dcaf.asgi.holder import Conversation, Holder, Subject
from dcaf.asgi.parcels import Parcel, parcels_of
from dcaf.asgi.problems import problem
from dcaf.asgi.request import Body, read_body, unopened
from dcaf.asgi.response import Answer
from dcaf.asgi.settings import (
    MAX_BODY_BYTES,
    MAX_TOKEN_BYTES,
    Keys,
    Routes,
    keyring,
    lifetime,
    one_of,
    positive,
    routes,
    suites,
    watcher,
)
from dcaf.asgi.terminal import Terminal, is_done
from dcaf.asgi.turn import Turn, Turns
from dcaf.asgi.websocket import PassingSocket, Socket
from dcaf.core.arguments import kind_of, require_bool, require_clock, require_function, require_plain_function, texts_of
from dcaf.core.current import Within, begin, end, running
from dcaf.core.envelope import Sealer
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable
from dcaf.core.keeper import Keeper, Stateless, level_of, require_keeper
from dcaf.core.migrations import Migration, Migrations
from dcaf.core.unsigned import Import

MIB: Final = 1024 * 1024
SCOPE_KEY: Final = "dcaf.session"
POLICY: Final = 1008
"""Close code: a message that violates the policy of the service (RFC 6455, section 7.4.1)."""
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
        keeper: Who judges freshness; None is the stateless one.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.
    """

    _twice: ClassVar[str] = MOUNTED_TWICE

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
        idle_timeout: timedelta = timedelta(days=7),
        absolute_timeout: timedelta = timedelta(days=30),
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
        keeper: Keeper | None = None,
    ) -> None:
        if isinstance(app, SessionMiddleware):
            raise ConfigurationError(app._twice)
        self.app = app
        require_bool("encrypt=", encrypt)
        require_bool("accept_both=", accept_both)
        require_bool("plain_secret=", plain_secret)
        require_keeper(keeper)
        self._plain = routes("plain", plain)
        self._exempt = routes("exempt", exempt)
        self._max_body_bytes = positive("max_body_bytes", max_body_bytes)
        self._flights = Flights(positive("max_bytes_in_flight", max_bytes_in_flight))
        self._bind_request_session = require_bool("bind_request_session=", bind_request_session)
        self._events = Events(
            None if on_event is None else require_plain_function("on_event=", on_event), watcher(level_of(keeper))
        )
        suite, *others = suites(encrypt=encrypt, accept_both=accept_both)
        if encrypt and (callable(plain) or texts_of(plain)) and not plain_secret:
            raise ConfigurationError(PLAIN_AND_ENCRYPTED)
        positive("max_token_bytes", max_token_bytes)
        in_body, others_by = carriers_of(carriers)
        room = max_token_bytes if in_body else min(max_token_bytes, max(carrier.room_bytes for carrier in others_by))
        sealer = Sealer(
            keys=keyring(keys),
            audience=audience,
            lifetime=lifetime(idle_timeout, absolute_timeout),
            mirror=(not encrypt) if mirror is None else mirror,
            max_token_bytes=room,
            migrations=Migrations(version, migrations),
            clock=require_clock("clock=", clock),
            randomness=require_function("randomness=", randomness),
            suite=suite,
            also_accepted=others,
        )
        self._turns = Turns(
            sealer=sealer,
            holder=Holder(subject, conversation),
            keeper=keeper or Stateless(),
            events=self._events,
            restarts=None if on_refused is None else one_of("on_refused", on_refused, ("reject", "restart")) == "restart",
            unsigned=unsigned if isinstance(unsigned, Import) else one_of("unsigned", unsigned, ("reject", "ignore"), DOOR),
            is_plain=self._plain,
            passes_streams=routes("pass_streams", pass_streams),
            terminal=require_plain_function("terminal=", terminal),
            limit_bytes=positive("max_response_bytes", max_response_bytes),
            in_body=in_body,
            carriers=others_by,
        )
        self._verify = sealer.opened if in_body else unopened
        if not callable(app) or isinstance(app, type):
            raise ConfigurationError(f"SessionMiddleware() takes the ASGI application first, not {kind_of(app)}.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; a lifespan, and exempt routes, pass as they are."""
        if scope["type"] not in ("http", "websocket") or self._exempt(scope):
            await self.app(scope, receive, send)
            return
        self._check_scope(scope)
        beside = parcels_of(self._turns.carriers, scope) if self._turns.carriers else ()
        serve = self._serve_socket if scope["type"] == "websocket" else self._serve
        await serve(scope, receive, send, beside)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, beside: Sequence[Parcel]) -> None:
        body: Body | None = None
        try:
            with self._flights.begin() as flight:
                body = await read_body(scope, receive, self._max_body_bytes, flight, self._verify)
                if body.disconnected:
                    return
                turn = await self._turns.open(scope, body, beside=beside)
        except (SessionError, SessionUnavailable) as refusal:
            self._events.refused(refusal)
            await _refuse(refusal, scope, receive, send, self._turns.dead(refusal, body, beside))
            return
        await self._run(turn, body, scope, receive, send)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send, beside: Sequence[Parcel]) -> None:
        try:
            turn = await self._turns.first(scope, beside)
        except (SessionError, SessionUnavailable) as refusal:
            self._events.refused(refusal)
            await _refuse(refusal, scope, receive, send, self._turns.dead(refusal, None, beside))
            return
        await self._connect(turn, scope, receive, send)

    async def _run(self, turn: Turn, body: Body, scope: Scope, receive: Receive, send: Send) -> None:
        inner = self._inner(scope, turn)
        if body.is_changed:
            inner["headers"] = rewritten(scope["headers"], len(body.data))
        if turn.carrier is None and self._turns.in_body:
            answer: Beside = Answer(inner, turn, self._turns, send, is_json=body.is_json)
        else:
            answer = Beside(inner, turn, self._turns, send)
        session, checkpoint = begin(turn.session), sending.set(answer.checkpoint)
        try:
            await self.app(inner, body.replay(receive), answer.send)
        except Exception:
            await answer.fail()
            raise
        finally:
            sending.reset(checkpoint)
            end(session)
        answer.look_back()

    async def _connect(self, first: Turn, scope: Scope, receive: Receive, send: Send) -> None:
        inner = self._inner(scope, first)
        limit = self._max_body_bytes
        if self._turns.in_body:
            adopts = self._plain(scope)
            socket: Socket | PassingSocket = Socket(self._turns, inner, receive, send, first, adopts=adopts, max_body_bytes=limit)
        else:
            socket = PassingSocket(self._turns, inner, receive, send, first, max_body_bytes=limit)
        with running(first.session), Within(sending, socket.checkpoint):
            await self.app(inner, socket.receive, socket.send)
            await socket.finish()

    def _inner(self, scope: Scope, turn: Turn) -> Scope:
        inner = {**scope, SCOPE_KEY: turn.session}
        if self._bind_request_session:
            inner["session"] = turn.session
        return inner

    def _check_scope(self, scope: Scope) -> None:
        if SCOPE_KEY in scope:
            raise ConfigurationError(self._twice)
        if self._bind_request_session and "session" in scope:
            raise ConfigurationError(
                f"scope['session'] is taken by another session middleware, perhaps Starlette's SessionMiddleware (it holds a "
                f"{type(scope['session']).__name__}). Remove that one, or pass bind_request_session=False to dcaf's and use "
                "dcaf.current_session()."
            )


async def _refuse(
    refusal: SessionError | SessionUnavailable, scope: Scope, receive: Receive, send: Send, dead: Iterable[Carrier]
) -> None:
    """Answer with a problem; a WebSocket whose server cannot is closed before it is open. The dead sessions are to be dropped."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY, "reason": refusal.code})
        return
    answer = problem(refusal, http_version=scope.get("http_version", "1.1"))
    for carrier in dead:
        answer.raw_headers = list(carrier.clear(scope, answer.raw_headers))
    await answer(scope, receive, send)
