"""The demo's agent under Quart: one JSON answer, newline-delimited JSON, server-sent events, and a WebSocket.

Run it with: pip install quart hypercorn && cd examples && hypercorn quart_app:app
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from quart import Quart, request, websocket

from dcaf import DcafError, Keyring, SessionMiddleware, current_session
from dcaf.agent import ChatRequest, build_done_event, build_error_event, build_problem
from dcaf.demo import create_agent

agent = create_agent()
app = Quart(__name__)


@app.post("/api/chat")
async def chat() -> dict[str, Any]:
    """Answer in one piece; the middleware seals the session into it."""
    asked = ChatRequest.read(await request.get_data())
    return asked.build_answer(await agent.run_async(asked.messages, session=current_session(), context=asked.context))


@app.post("/api/chat-stream")
async def chat_stream() -> Any:
    """Answer as it comes, a line for each event."""
    body = await request.get_data()
    return (json.dumps(event) + "\n" async for event in events(body)), {"Content-Type": "application/x-ndjson"}


@app.post("/api/chat-events")
async def chat_events() -> Any:
    """The same as server-sent events, for EventSource and fetch."""
    body = await request.get_data()
    return (f"data: {json.dumps(event)}\n\n" async for event in events(body)), {"Content-Type": "text/event-stream"}


@app.websocket("/api/chat-ws")
async def chat_ws() -> None:
    """Turn after turn: a frame asks, and frames answer."""
    while True:
        async for event in events(await websocket.receive()):
            await websocket.send(json.dumps(event))


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


@app.errorhandler(DcafError)
async def refused(error: Any) -> Any:
    """What went wrong in ``chat``, as a problem."""
    return build_problem(error), error.http_status, {"Content-Type": "application/problem+json"}


keys = None if "DCAF_KEYS" in os.environ else Keyring.ephemeral()
app.asgi_app = SessionMiddleware(app.asgi_app, keys=keys, audience="deploy-agent")  # type: ignore[method-assign, assignment, arg-type]
