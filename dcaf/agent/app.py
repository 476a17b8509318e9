"""The HelpDesk service of an agent: JSON, newline-delimited JSON and a WebSocket.

>>> from dcaf.core.keys import Keyring
>>> app = create_app(lambda messages, context: "Hello.", keys=Keyring.ephemeral(), audience="greeter")

What a reader gets wrong: the endpoints do not carry the session. They run the agent on it, and the middleware around them seals it
into whatever they answer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from inspect import signature
from typing import Any, ClassVar, Final

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from dcaf.agent.agent import Agent
from dcaf.agent.approvals import find_mentions, find_waiting_calls
from dcaf.agent.codec import ChatRequest, build_done_event, build_error_event, build_problem, encode_json, report_failure
from dcaf.agent.config import describe_kind
from dcaf.agent.helpdesk import Approval, Message
from dcaf.agent.kept_conversation import NOT_KEPT, SERVER, HistoryMode, check_new, list_shown, read_kept, require_history
from dcaf.agent.openapi import HISTORY_PATH, build_openapi
from dcaf.agent.page import Page, build_page_routes
from dcaf.agent.websocket import ChatSocket
from dcaf.asgi import SessionMiddleware
from dcaf.asgi.body import off_the_loop
from dcaf.asgi.carriers import BODY
from dcaf.asgi.config import parse_routes as exempted
from dcaf.core.context import current_session
from dcaf.core.errors import ConfigurationError, MalformedRequest
from dcaf.core.journal import Facts, find_history
from dcaf.core.session import Session
from dcaf.core.store import SessionStore, StoreSource, level_of, require_store
from dcaf.tools.proposals import pending_in

logger: Final[logging.Logger] = logging.getLogger("dcaf")

NDJSON: Final = "application/x-ndjson"
JSON_PATHS: Final = ("/api/chat", "/api/sendMessage")
STREAM_PATHS: Final = ("/api/chat-stream", "/api/sendMessageStream")
SOCKET_PATH: Final = "/api/chat-ws"
OPEN_PATHS: Final = ("/", "/health", "/openapi.json")
WHITE: Final = b" \t\r\n"
"""White space of JSON (RFC 8259, section 2)."""

WITHOUT_HISTORY: Final = frozenset({"L0", "L1", "L2"})
"""The levels at which a server keeps no conversation."""

BLANKS: Final = 64 * 1024
"""Bytes of white space before a body that are read."""

TWICE: Final = (
    "dcaf: %s has tools that need approval, and no ledger: one approval can be used twice in five minutes. "
    'Pass store=Ledger("sqlite:///dcaf.db", audience=...) to create_app.'
)

MOUNTED_TWICE: Final = (
    "create_app() brings a SessionMiddleware of its own: mount it as it is, and name its path in exempt= of the one outside, for "
    'instance exempt=lambda scope: scope["path"].startswith("/support/").'
)
NO_SETTINGS: Final = frozenset({"agent", "app", "settings"})
SETTINGS: Final = "It takes store=, page=, history= and the settings of SessionMiddleware."


def create_app(
    agent: Agent | Callable[..., Any],
    *,
    keys: Any = None,
    audience: str = "",
    store: SessionStore | StoreSource | None = None,
    page: Page | bool = False,
    history: HistoryMode = "client",
    **settings: Any,
) -> ASGIApp:
    """The service of an agent.

    Args:
        agent: The agent, or an agent function.
        keys: A Keyring, the text of a key, or None for ``DCAF_KEYS``, as SessionMiddleware takes them.
        audience: The service's name, which must be given: no other service's session is accepted.
        store: What opens each session on the server, and knows which approvals were used: a ``Ledger`` of the same audience, or a
            store of your own; None keeps nothing.
        page: Whether a chat page is at ``/``, which shows the session at work; a Page says what stands on it.
        history: Who keeps the conversation. ``"client"``: each turn has all messages. ``"server"``: the store keeps it, a session
            service for instance, and a turn has what the user says now.
        **settings: Any other setting of ``SessionMiddleware``, for instance ``subject=`` and ``conversation="/thread_id"``.

    Raises:
        ConfigurationError: A setting is wrong, or the store keeps no conversation.
    """
    _check_names(settings)
    require_store(store)
    _check_history(history, store)
    served = agent if isinstance(agent, Agent) else Agent(agent)
    inner = settings | _list_carriers(settings.get("carriers", BODY))
    shown = _require_page(page, history)
    service = HelpDesk(served, history, None if shown is None else shown.memory)
    routes = [*_list_routes(service), *_list_page_routes(shown, service, store, inner)]
    exempt = exempted("exempt", inner.pop("exempt", ()))
    app = _ServiceMiddleware(
        Starlette(routes=routes),
        keys=keys,
        audience=audience,
        store=store,
        exempt=lambda scope: _is_open(scope) or (exempt is not None and exempt(scope)),
        **inner,
    )
    if store is None and served._setup.tools:
        _warn_once(served.name, audience)
    return app


class _ServiceMiddleware(SessionMiddleware):
    """What ``create_app`` gives."""

    _twice: ClassVar[str] = MOUNTED_TWICE


@dataclass(frozen=True, slots=True)
class HelpDesk:
    """The endpoints.

    Attributes:
        agent: Who answers.
        history: Who keeps the conversation.
        memory: What shows the memory of the user beside it; None for nothing.
    """

    agent: Agent
    history: HistoryMode = "client"
    memory: type[Facts] | None = None

    async def chat(self, request: Request) -> Response:
        """Answer in one piece."""
        try:
            asked = await self._read_request(request)
            response = await self.agent.run_async(
                asked.messages, session=current_session(), context=asked.context, history=self.history
            )
            return _json_response(asked.build_answer(response))
        except Exception as error:  # noqa: BLE001 - a client gets an answer, whatever it was
            return _problem_response(error)

    async def stream(self, request: Request) -> Response:
        """Answer as it comes. What is wrong with the body is a problem; what happens later is an event."""
        try:
            return _LinesResponse(self._lines(await self._read_request(request)))
        except (MalformedRequest, ConfigurationError) as error:
            return _problem_response(error)

    async def _lines(self, asked: ChatRequest) -> AsyncGenerator[bytes, None]:
        run = self.agent.run_stream(asked.messages, session=current_session(), context=asked.context, history=self.history)
        try:
            async with aclosing(run) as events:
                async for event in events:
                    yield encode_json(asked.build_event(event)) + b"\n"
        except Exception as error:  # noqa: BLE001 - a client gets an answer, whatever it was
            yield encode_json(build_error_event(report_failure(error))) + b"\n"
            yield encode_json(build_done_event("error")) + b"\n"

    async def socket(self, websocket: WebSocket) -> None:
        """Answer frame by frame, turn after turn."""
        await ChatSocket(websocket, self.agent, self.history).run()

    async def recall(self, _: Request) -> Response:
        """Tell the conversation that is kept to whoever has its session, and what the user remembers where the page shows it."""
        try:
            session = current_session()
            _require_kept(session)
            messages = read_kept(session)
            told: dict[str, Any] = {"messages": list_shown(messages, self._find_waiting(session, messages))}
            if self.memory is not None:
                told["memory"] = {fact.key: fact.value for fact in await self.memory.of(session).all()}
            return _json_response(told)
        except Exception as error:  # noqa: BLE001 - a client gets an answer, whatever it was
            return _problem_response(error)

    async def health(self, _: Request) -> Response:
        """Say that the service runs."""
        return _json_response({"status": "ok"})

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        return _json_response(build_openapi(self.agent, self.history))

    def _find_waiting(self, session: Session, messages: Sequence[Message]) -> dict[str, Approval]:
        """Id -> call: those that wait for a person."""
        setup = self.agent._setup
        now = setup.clock()
        mentions = find_mentions(messages, pending_in(session, now))
        return {item.id: item for item in find_waiting_calls(session, mentions, setup.tools, now=now).values()}

    async def _read_request(self, request: Request) -> ChatRequest:
        asked = await _read_request(request)
        if self.history == SERVER:
            _require_kept(current_session())
            check_new(asked.messages)
        return asked


class _LinesResponse(StreamingResponse):
    """The lines of a turn, which ends where the client leaves.

    Args:
        lines: The lines; closed in any case.
    """

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        super().__init__(lines, media_type=NDJSON)
        self._lines = lines

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send them until the client has left: a turn that says nothing for a minute would not notice before."""
        async with aclosing(self._lines), anyio.create_task_group() as group:
            group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
            with suppress(OSError):
                await self.stream_response(send)
            group.cancel_scope.cancel()


def _check_history(history: HistoryMode, store: SessionStore | StoreSource | None) -> None:
    """Refuse a mode that the store cannot serve, as far as its level tells."""
    if require_history(history) == SERVER and level_of(store) in WITHOUT_HISTORY:
        raise ConfigurationError(NOT_KEPT)


def _require_kept(session: Session) -> None:
    """Refuse a turn whose store keeps no conversation, and tell the operator."""
    if find_history(session) is None:
        logger.error("dcaf: %s", NOT_KEPT)
        raise ConfigurationError(NOT_KEPT)


def _list_carriers(carriers: Any) -> dict[str, Any]:
    """The setting ``carriers``, as a list where it may be one: the page reads it, and then the middleware."""
    if isinstance(carriers, str):
        return {"carriers": [carriers]}
    return {"carriers": list(carriers)} if isinstance(carriers, Iterable) else {}


def _list_routes(service: HelpDesk) -> list[BaseRoute]:
    return [
        *(Route(path, service.chat, methods=["POST"]) for path in JSON_PATHS),
        *(Route(path, service.stream, methods=["POST"]) for path in STREAM_PATHS),
        *([Route(HISTORY_PATH, service.recall, methods=["POST"])] if service.history == SERVER else []),
        WebSocketRoute(SOCKET_PATH, service.socket),
        Route("/health", service.health),
        Route("/openapi.json", service.openapi),
    ]


def _require_page(page: Page | bool, history: HistoryMode) -> Page | None:
    """The page that was asked for; None for none."""
    if not isinstance(page, Page | bool):
        raise ConfigurationError(f"page= takes True, False or a Page, not {describe_kind(page)}.")
    found = (Page() if page else None) if isinstance(page, bool) else page
    if found is not None and found.memory is not None and history != SERVER:
        raise ConfigurationError('A Page with memory= needs create_app(..., history="server"), which tells the page.')
    return found


def _list_page_routes(
    page: Page | None, service: HelpDesk, store: SessionStore | StoreSource | None, settings: Mapping[str, Any]
) -> list[BaseRoute]:
    if page is None:
        return []
    return build_page_routes(page, title=service.agent.name, store=store, settings=settings, history=service.history)


@cache
def _warn_once(agent: str, audience: str) -> None:  # noqa: ARG001 - of each service, once
    """Once a process: a module that is imported again, for a reload or by a server's workers, makes its application again."""
    logger.warning(TWICE, agent)


def _check_names(settings: Iterable[str]) -> None:
    """Refuse a setting that there is not, and name the one that may be meant."""
    functions = (create_app, SessionMiddleware)
    known = [name for function in functions for name in signature(function).parameters if name not in NO_SETTINGS]
    for name in settings:
        if name not in known:
            meant = [f"Did you mean {found!r}?" for found in get_close_matches(name, known, n=1)]
            raise ConfigurationError(" ".join([f"create_app() has no setting {name!r}.", *(meant or [SETTINGS])]))


def _is_open(scope: Scope) -> bool:
    """Whether a route has nothing to do with sessions, so that nobody asks ``subject=`` and ``conversation=`` about it."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in OPEN_PATHS or path.startswith("/page/")


async def _cancel_on_disconnect(receive: Receive, turn: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    turn.cancel()


async def _read_request(request: Request) -> ChatRequest:
    """Read a body; one that is no JSON object is not read to its end, for the middleware has set it no limit."""
    body = bytearray()
    is_object = False
    async for chunk in request.stream():
        body += chunk
        if not is_object:
            start = bytes(body.lstrip(WHITE)[:1])
            is_object = start == b"{"
            if start not in {b"{", b""} or (not start and len(body) > BLANKS):
                raise MalformedRequest([("body", "Input should be a JSON object")])
    return await off_the_loop(ChatRequest.read, bytes(body))


def _json_response(value: dict[str, Any]) -> Response:
    return Response(encode_json(value), media_type="application/json")


def _problem_response(error: Exception) -> Response:
    shown = report_failure(error)
    headers = {"Cache-Control": "no-store"}
    return Response(encode_json(build_problem(shown)), shown.http_status, headers, "application/problem+json")
