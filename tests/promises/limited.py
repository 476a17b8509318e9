"""One service with a limit, in a process of its own, whose memory and whose reading can be measured.

python limited.py MAX_BODY_BYTES [keep-alive]

It prints its port, and after each request how many bytes of the body it was given. With ``keep-alive`` it is broken: its
answers have lost their ``Connection`` header.
"""

from __future__ import annotations

import sys
from typing import Any

from dcaf import Keyring, SessionMiddleware
from dcaf.testing import serving


async def length(scope: Any, receive: Any, send: Any) -> None:
    """Read the body to its end, keep it, and answer how long it is."""
    kept, more = [], True
    while more:
        message = await receive()
        kept.append(message.get("body", b""))
        more = message.get("more_body", False)
    answer = b'{"length":%d}' % len(b"".join(kept))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


class Counted:
    """Counts what a service is given of each body before it answers; what it drops afterwards has a limit of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        taken, is_answered = 0, False

        async def counted() -> Any:
            nonlocal taken
            message = await receive()
            taken += 0 if is_answered else len(message.get("body", b""))
            return message

        async def answered(message: Any) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        await self.app(scope, counted, answered)
        print(taken, flush=True)


class KeepsAlive:
    """Broken: a refusal does not close the connection."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def without(message: Any) -> None:
            headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
            await send({**message, "headers": headers} if "headers" in message else message)

        await self.app(scope, receive, without)


def main(max_body_bytes: int, *, keeps_alive: bool) -> None:
    """Serve until the standard input ends."""
    service: Any = SessionMiddleware(length, keys=Keyring.ephemeral(), audience="shop", max_body_bytes=max_body_bytes)
    counted = Counted(service)
    with serving(KeepsAlive(counted) if keeps_alive else counted) as url:
        print(url.rpartition(":")[2], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), keeps_alive="keep-alive" in sys.argv[2:])
