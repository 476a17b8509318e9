"""One uvicorn worker for one way to have a session, in a process of its own: it says where it is, and serves until terminated.

python -m tests.benchmarks.server 'dcaf, lean'
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from typing import Final

import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.turns import PATH, Turn, asked, turn_of
from tests.benchmarks.ways import WAYS

SIZE: Final = "16 KB"
SAME_BYTES: Final = "no session, the bytes of "


def turn_for(name: str) -> Turn:
    """What is served under a name, and the request for it: one small key is written."""
    way = next(way for way in WAYS if way.name == name.removeprefix(SAME_BYTES))
    turn = turn_of(way, "write", state_of(SIZES[SIZE]), {})
    return same_bytes(turn) if name.startswith(SAME_BYTES) else turn


def same_bytes(turn: Turn) -> Turn:
    """The same bytes in the body of a request and of its answer, without a session."""
    answer = asyncio.run(turn())[-1]["body"]

    async def chat(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    return Turn(asked(WAYS[0], chat, {}).app, turn.headers, turn.body)


def request_of(turn: Turn) -> bytes:
    """The request as it is on the wire."""
    lines = [b"POST %b HTTP/1.1" % PATH.encode(), *(name + b": " + value for name, value in turn.headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + turn.body


def loop_of(config: uvicorn.Config) -> str:
    """Whose event loop it is: ``uvloop`` or ``asyncio``."""
    factory = config.get_loop_factory()
    return "asyncio" if factory is None else factory.__module__.partition(".")[0]


def main(name: str) -> None:
    """Serve until terminated. The socket listens before the line is written, so a client may connect at once."""
    logging.disable()
    config = uvicorn.Config(turn_for(name).app, access_log=False, lifespan="off")
    config.load()
    listener = socket.create_server(("127.0.0.1", 0))
    parts = {"http": config.http_protocol_class.__name__, "loop": loop_of(config)}
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1], **parts}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
