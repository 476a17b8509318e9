"""One worker: counts the turns of each session. Its key ring is a file that it reads again five times a second.

python worker.py KEY_FILE
"""

import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dcaf import Keyring, SessionMiddleware
from dcaf.core.keys import LiveKeyring
from dcaf.testing import serving


async def count(request: Request) -> JSONResponse:
    """One turn."""
    return JSONResponse({"n": request.session.incr("n")})  # type: ignore[attr-defined]


def main(path: Path) -> None:
    """Serve until the standard input ends."""

    def ring() -> Keyring:
        active, *others = path.read_text().split()
        return Keyring.parse(active, ",".join(others))

    app = Starlette(routes=[Route("/api/chat", count, methods=["POST"])])
    keys = LiveKeyring(ring, every_s=0.2)
    with serving(SessionMiddleware(app, keys=keys, audience="shop")) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
