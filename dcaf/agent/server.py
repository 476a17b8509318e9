"""The HelpDesk service of an agent: JSON, newline-delimited JSON and a WebSocket, with the session mounted around them.

>>> from dcaf.core.keys import Keyring
>>> app = create_app(lambda messages, context: "Hello.", keys=Keyring.ephemeral(), audience="greeter")

What a reader gets wrong: the endpoints do not carry the session. They run the agent on it, and the middleware seals it into
whatever they answer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from dcaf.agent.agent import Agent
from dcaf.agent.exchange import Asked, ended, failed, line, problem
from dcaf.agent.openapi import document
from dcaf.agent.socket import Conversation
from dcaf.asgi import SessionMiddleware
from dcaf.core.current import current_session
from dcaf.core.errors import AgentError, DcafError, MalformedRequest
from dcaf.core.keeper import Keeper, Stateless

logger: Final[logging.Logger] = logging.getLogger("dcaf")

NDJSON: Final = "application/x-ndjson"
JSON_PATHS: Final = ("/api/chat", "/api/sendMessage")
STREAM_PATHS: Final = ("/api/chat-stream", "/api/sendMessageStream")
SOCKET_PATH: Final = "/api/chat-ws"
WHITE: Final = b" \t\r\n"
"""White space of JSON (RFC 8259, section 2)."""

BLANKS: Final = 64 * 1024
"""Bytes of white space before a body that are read."""


def create_app(
    agent: Agent | Callable[..., Any],
    *,
    keys: Any = None,
    audience: str,
    keeper: Keeper | None = None,
    **settings: Any,
) -> ASGIApp:
    """The service of an agent.

    Args:
        agent: The agent, or an agent function.
        keys: As of SessionMiddleware: a Keyring, the text of a key, or None for ``DCAF_KEYS``.
        audience: The service's name: no other service's session is accepted.
        keeper: Who keeps sessions fresh, and knows which approvals were used; None is nobody.
        **settings: Any other setting of SessionMiddleware, for instance ``subject=`` and ``conversation="/thread_id"``.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    served = agent if isinstance(agent, Agent) else Agent(agent)
    if keeper is None and any(tool.requires_approval for tool in served.tools.values()):
        logger.warning(
            "dcaf: %s has tools that need approval, and no ledger: one approval can be used twice in five minutes. Pass keeper=.",
            served.name,
        )
    service = HelpDesk(served, keeper or Stateless())
    routes = [
        *(Route(path, service.chat, methods=["POST"]) for path in JSON_PATHS),
        *(Route(path, service.stream, methods=["POST"]) for path in STREAM_PATHS),
        WebSocketRoute(SOCKET_PATH, service.socket),
        Route("/health", service.health),
        Route("/openapi.json", service.openapi),
    ]
    app = Starlette(routes=routes, exception_handlers={DcafError: _refused, Exception: _failed})
    return SessionMiddleware(app, keys=keys, audience=audience, keeper=keeper, **settings)


@dataclass(frozen=True, slots=True)
class HelpDesk:
    """The endpoints.

    Attributes:
        agent: Who answers.
        keeper: Who knows which approvals were used.
    """

    agent: Agent
    keeper: Keeper

    async def chat(self, request: Request) -> Response:
        """Answer in one piece."""
        asked = await _asked(request)
        response = await self.agent.run_async(asked.messages, session=current_session(), context=asked.context, keeper=self.keeper)
        return JSONResponse(asked.answer(response))

    async def stream(self, request: Request) -> Response:
        """Answer as it comes. What is wrong with the body is a problem; what happens later is an event."""
        return StreamingResponse(self._lines(await _asked(request)), media_type=NDJSON)

    async def _lines(self, asked: Asked) -> AsyncGenerator[bytes, None]:
        run = self.agent.run_stream(asked.messages, session=current_session(), context=asked.context, keeper=self.keeper)
        try:
            async with aclosing(run) as events:
                async for event in events:
                    yield line(asked.event(event))
        except DcafError as error:
            _tell(error)
            yield line(failed(error))
            yield line(ended("error"))

    async def socket(self, websocket: WebSocket) -> None:
        """Answer frame by frame, turn after turn."""
        await Conversation(websocket, self.agent, self.keeper).run()

    async def health(self, _: Request) -> Response:
        """Say that the service runs."""
        return JSONResponse({"status": "ok"})

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(document(self.agent))


async def _asked(request: Request) -> Asked:
    """Read a body; one that is no JSON object is not read to its end, for the middleware has set it no limit."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if body.lstrip(WHITE)[:1] not in (b"{", b"") or (len(body) > BLANKS and not body.lstrip(WHITE)):
            raise MalformedRequest([("body", "Input should be a JSON object")])
    return Asked.read(body)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, DcafError)
    _tell(error)
    return _problem(error)


async def _failed(_: Request, error: Exception) -> Response:
    return _problem(AgentError(type(error).__name__))


def _problem(error: DcafError) -> Response:
    return JSONResponse(problem(error), error.http_status, {"Cache-Control": "no-store"}, "application/problem+json")


def _tell(error: DcafError) -> None:
    """Only what it was: its message may quote what a model or a tool has said."""
    logger.warning("dcaf: a turn failed: %s", error.code)
