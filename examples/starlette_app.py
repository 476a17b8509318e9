"""The demo's agent under Starlette: one JSON answer, newline-delimited JSON, server-sent events, and a WebSocket.

Run it with: pip install uvicorn websockets && uvicorn starlette_app:app --app-dir examples
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dcaf import DcafError, Keyring, SessionMiddleware, current_session
from dcaf.agent import ChatRequest, build_done_event, build_error_event, build_problem
from dcaf.demo import create_agent

agent = create_agent()


async def chat(request: Request) -> Response:
    """Answer in one piece. ``request.session`` is the session; the middleware seals it into the answer."""
    asked = ChatRequest.read(await request.body())
    response = await agent.run_async(asked.messages, session=request.session, context=asked.context)
    return JSONResponse(asked.build_answer(response))


async def chat_stream(request: Request) -> Response:
    """Answer as it comes, a line for each event."""
    body = await request.body()
    return StreamingResponse((json.dumps(event) + "\n" async for event in events(body)), media_type="application/x-ndjson")


async def chat_events(request: Request) -> Response:
    """The same as server-sent events, for EventSource and fetch."""
    body = await request.body()
    return StreamingResponse((f"data: {json.dumps(event)}\n\n" async for event in events(body)), media_type="text/event-stream")


async def chat_ws(socket: WebSocket) -> None:
    """Turn after turn: a frame asks, and frames answer."""
    await socket.accept()
    async for text in socket.iter_text():
        async for event in events(text):
            await socket.send_json(event)


async def events(body: bytes | str) -> AsyncIterator[dict[str, Any]]:
    """What happens in a turn. The session is that of the turn; what goes wrong is an event too."""
    try:
        asked = ChatRequest.read(body)
        run = agent.run_stream(asked.messages, session=current_session(), context=asked.context)
        async with aclosing(run) as found:
            async for event in found:
                yield asked.build_event(event)
    except DcafError as error:
        yield build_error_event(error)
        yield build_done_event("error")


async def refused(_: Request, error: Any) -> Response:
    """What went wrong in ``chat``, as a problem."""
    return JSONResponse(build_problem(error), error.http_status, media_type="application/problem+json")


api = Starlette(
    routes=[
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/chat-stream", chat_stream, methods=["POST"]),
        Route("/api/chat-events", chat_events, methods=["POST"]),
        WebSocketRoute("/api/chat-ws", chat_ws),
    ],
    exception_handlers={DcafError: refused},
)
app = SessionMiddleware(api, keys=None if "DCAF_KEYS" in os.environ else Keyring.ephemeral(), audience="deploy-agent")
