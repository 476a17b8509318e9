"""The demo's agent under FastAPI: one JSON answer, newline-delimited JSON, server-sent events, and a WebSocket.

Run it with: pip install fastapi uvicorn websockets && uvicorn fastapi_app:app --app-dir examples
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

from dcaf import DcafError, Keyring, SessionMiddleware, current_session
from dcaf.agent import ChatRequest, Turn, build_done_event, build_error_event, build_problem
from dcaf.demo import create_agent
from dcaf.integrations.fastapi import SessionDep

agent = create_agent()
api = FastAPI()


async def read(request: Request, turn: Turn) -> ChatRequest:  # noqa: ARG001
    """A dependency: FastAPI checks and documents the ``turn``."""
    return ChatRequest.read(await request.body())


AskedDep = Annotated[ChatRequest, Depends(read)]


@api.post("/api/chat")
async def chat(asked: AskedDep, session: SessionDep) -> dict[str, Any]:
    """Answer in one piece; the middleware seals the session into it."""
    return asked.build_answer(await agent.run_async(asked.messages, session=session, context=asked.context))


@api.post("/api/chat-stream")
async def chat_stream(asked: AskedDep) -> StreamingResponse:
    """Answer as it comes, a line for each event."""
    return StreamingResponse((json.dumps(event) + "\n" async for event in events(asked)), media_type="application/x-ndjson")


@api.post("/api/chat-events")
async def chat_events(asked: AskedDep) -> StreamingResponse:
    """The same as server-sent events, for EventSource and fetch."""
    return StreamingResponse((f"data: {json.dumps(event)}\n\n" async for event in events(asked)), media_type="text/event-stream")


@api.websocket("/api/chat-ws")
async def chat_ws(socket: WebSocket) -> None:
    """Turn after turn: a frame asks, and frames answer."""
    await socket.accept()
    async for text in socket.iter_text():
        async for event in events(text):
            await socket.send_json(event)


async def events(body: ChatRequest | str) -> AsyncIterator[dict[str, Any]]:
    """What happens in a turn. The session is that of the turn; what goes wrong is an event too."""
    try:
        asked = ChatRequest.read(body) if isinstance(body, str) else body
        run = agent.run_stream(asked.messages, session=current_session(), context=asked.context)
        async with aclosing(run) as found:
            async for event in found:
                yield asked.build_event(event)
    except DcafError as error:
        yield build_error_event(error)
        yield build_done_event("error")


@api.exception_handler(DcafError)
async def refused(_: Request, error: Any) -> JSONResponse:
    """What went wrong in ``chat``, as a problem."""
    return JSONResponse(build_problem(error), error.http_status, media_type="application/problem+json")


app = SessionMiddleware(api, keys=None if "DCAF_KEYS" in os.environ else Keyring.ephemeral(), audience="deploy-agent")
