"""Whether a refusal arrives: every client, every server, 15 tries each.

python -m tests.refusals.arrivals [TRIES]
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from tests.refusals.clients import Client, by_aiohttp, by_httpx, by_requests, curl, fetch
from tests.refusals.serving import SERVERS, behind_nginx, served

MB: Final = 1_000_000
BODIES: Final[dict[str, tuple[bytes, dict[str, str], str]]] = {
    "8 MB": (b'{"a":"' + b"x" * 8 * MB + b'"}', {}, "413 body-too-large"),
    "64 MB": (b'{"a":"' + b"x" * 64 * MB + b'"}', {}, "413 body-too-large"),
    "2 MB, gzip": (b'{"a":"' + b"x" * 2 * MB + b'"}', {"content-encoding": "gzip"}, "415 unsupported-content-encoding"),
}
"""What is sent, and what its sender must read."""


def clients(node: str, program: str) -> dict[str, Client]:
    """Name -> client."""
    return {
        "fetch (Node.js)": fetch(node),
        "httpx2": by_httpx,
        "requests": by_requests,
        "aiohttp": by_aiohttp,
        "curl": curl(program),
    }


def rows(
    nginx: str | None, makers: dict[str, Client], bodies: list[str], tries: int
) -> Iterator[tuple[str, str, str, Counter[str], int]]:
    """Server, client, body, what was read, and how often that was the refusal."""
    for server in (*SERVERS, *(["nginx, uvicorn"] if nginx else [])):
        with ExitStack() as stack:
            url = stack.enter_context(served("uvicorn" if nginx and server.startswith("nginx") else server))
            if nginx and server.startswith("nginx"):
                url = stack.enter_context(behind_nginx(nginx, url.rstrip("/")))
            for name, post in makers.items():
                for body in bodies:
                    data, headers, wanted = BODIES[body]
                    found = post(url, data, {"content-type": "application/json", **headers}, tries)
                    yield server, name, body, found, found[wanted]


def main(tries: int) -> None:
    """Print the table."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    makers = clients(shutil.which("node") or "node", shutil.which("curl") or "curl")
    print("| server | client | body | refusal read | else |\n|---|---|---|---:|---|")
    for server, name, body, found, arrived in rows(nginx, makers, list(BODIES), tries):
        others = ", ".join(f"{said}: {count}" for said, count in found.items() if said != BODIES[body][2])
        print(f"| {server} | {name} | {body} | {arrived} of {tries} | {others} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
