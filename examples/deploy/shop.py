"""A shop whose customers have a basket in their session, for several workers that share a ledger in Redis or PostgreSQL.

Run it with: examples/deploy/run redis, or examples/deploy/run postgres
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Scope

from dcaf import SessionMiddleware, current_session
from dcaf.core import EngineError
from dcaf.engines import open_engine
from dcaf.ledger import Ledger

ledger = Ledger(open_engine(), audience="shop")
"""Where DB_CONNECTION_STRING says."""


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Look whether the ledger works: a server that would lose a commit stops the start, and not the first turn."""
    await ledger.check()
    yield


async def chat(request: Request) -> JSONResponse:
    """Put what was said into the basket."""
    said = (await request.json())["messages"][-1]["content"]
    session = current_session()
    session.append("basket", said)
    return JSONResponse({"role": "assistant", "content": f"In your basket: {', '.join(session['basket'])}."})


async def health(_: Request) -> JSONResponse:
    """Whether turns can be served, for what watches the workers."""
    try:
        found = await ledger.check()
    except EngineError:
        return JSONResponse({"is_healthy": False}, status_code=503)
    return JSONResponse({"is_healthy": True, "durability": found.durability})


def subject(scope: Scope) -> str | None:
    """The user whom nginx has authenticated. Nobody else reaches a worker's socket, so nobody else writes this header."""
    return dict(scope["headers"]).get(b"x-user", b"").decode() or None


routes = [Route("/api/chat", chat, methods=["POST"]), Route("/health", health)]
app = SessionMiddleware(Starlette(routes=routes, lifespan=lifespan), audience="shop", subject=subject, store=ledger)
