"""The demo's agent under Litestar: one JSON answer, newline-delimited JSON, server-sent events, and a WebSocket.

Run it with: pip install litestar uvicorn websockets && uvicorn litestar_app:app --app-dir examples
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from litestar import Litestar, Request, Response, WebSocket, post, websocket
from litestar.di import NamedDependency, Provide
from litestar.response import ServerSentEvent, Stream

from dcaf import DcafError, Keyring, Session, SessionMiddleware, current_session
from dcaf.agent import ChatRequest, build_done_event, build_error_event, build_problem
from dcaf.demo import create_agent

agent = create_agent()


async def read(request: Request[Any, Any, Any]) -> ChatRequest:
    """A dependency: what the client asks."""
    return ChatRequest.read(await request.body())


async def session() -> Session:
    """Another one: the session of the turn. Of ``current_session`` itself Litestar would read the argument from the query."""
    return current_session()


@post("/api/chat", status_code=200)
async def chat(asked: NamedDependency[ChatRequest], session: NamedDependency[Session]) -> dict[str, Any]:
    """Answer in one piece; the middleware seals the session into it."""
    return asked.build_answer(await agent.run_async(asked.messages, session=session, context=asked.context))


@post("/api/chat-stream", status_code=200)
async def chat_stream(asked: NamedDependency[ChatRequest]) -> Stream:
    """Answer as it comes, a line for each event."""
    return Stream((json.dumps(event) + "\n" async for event in events(asked)), media_type="application/x-ndjson")


@post("/api/chat-events", status_code=200)
async def chat_events(asked: NamedDependency[ChatRequest]) -> ServerSentEvent:
    """The same as server-sent events, for EventSource and fetch."""
    return ServerSentEvent(json.dumps(event) async for event in events(asked))


@websocket("/api/chat-ws")
async def chat_ws(socket: WebSocket[Any, Any, Any]) -> None:
    """Turn after turn: a frame asks, and frames answer."""
    await socket.accept()
    async for text in socket.iter_data("text"):
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


def refused(_: Request[Any, Any, Any], error: DcafError) -> Response[Any]:
    """What went wrong before an answer began, as a problem."""
    return Response(build_problem(error), status_code=error.http_status, media_type="application/problem+json")


api = Litestar(
    [chat, chat_stream, chat_events, chat_ws],
    dependencies={"asked": Provide(read), "session": Provide(session)},
    exception_handlers={DcafError: refused},
)
keys = None if "DCAF_KEYS" in os.environ else Keyring.ephemeral()
app = SessionMiddleware(api, keys=keys, audience="deploy-agent")  # type: ignore[arg-type]
