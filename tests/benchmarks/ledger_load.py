"""uvicorn under load, with something to remember: one worker and one way at a time, in rounds; each client has its session.

    python -m tests.benchmarks.ledger_load NAME FOLDER

is one of the servers: it says where it is, and serves until it is terminated.

What a reader gets wrong: Redis and PostgreSQL are processes of their own, and run on the client's core; the engine over SQLite has
two threads in the server's process, on the server's core. So they have the better place.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import uvicorn

from tests.benchmarks import store_servers
from tests.benchmarks.following import written
from tests.benchmarks.harness import folder
from tests.benchmarks.ledger_ways import IN_POSTGRES, IN_REDIS, REDIS, REDIS_SYNCED, WAYS
from tests.benchmarks.load import CLIENT_CORE, EXTRAS, ROOT, SERVER_CORE, Load, on, together
from tests.benchmarks.server import loop_of

FULL: Final = Load(rounds=3, connections=8, warm_up_s=0.5, seconds=2.0)
QUICK: Final = Load(rounds=1, connections=8, warm_up_s=0.2, seconds=0.8)

IN_SERVERS: Final = {REDIS: store_servers.AS_INSTALLED, REDIS_SYNCED: store_servers.SYNCED, IN_REDIS: store_servers.SYNCED}
"""Row -> how its Redis is started."""


def measured(load: Load) -> dict[str, Any]:
    """Row -> the median of the rounds, for each figure; None for what needs a server that is not here."""
    names = [name for name in WAYS if is_here(name)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    drawn = random.Random(0)
    for _ in range(load.rounds):
        drawn.shuffle(names)
        for name in names:
            found[name].append(once(name, load))
    return {name: together(found[name]) if name in found else None for name in WAYS}


def is_here(name: str) -> bool:
    """Whether what a row needs is on this machine."""
    if name == IN_POSTGRES:
        return store_servers.find_postgres() is not None
    return name not in IN_SERVERS or store_servers.find_redis() is not None


def once(name: str, load: Load) -> dict[str, Any]:
    """Start one server, drive it, and stop it."""
    with folder() as place, server_for(name, place), served(name, place) as server:
        arguments = [server["port"], load.connections, load.warm_up_s, load.seconds]
        done = subprocess.run(
            [*on(CLIENT_CORE), sys.executable, "-m", "tests.benchmarks.following", *map(str, arguments)],
            input=written(WAYS[name][1]),
            capture_output=True,
            cwd=ROOT,
            check=True,
            timeout=60,
        )
    return {**json.loads(done.stdout), "http": server["http"], "loop": server["loop"]}


@contextmanager
def served(name: str, place: Path) -> Iterator[dict[str, Any]]:
    """A server while the block runs: its port, its HTTP parser and its loop."""
    environment = {**os.environ, "PYTHONPATH": str(EXTRAS)}
    command = [*on(SERVER_CORE), sys.executable, "-m", "tests.benchmarks.ledger_load", name, str(place)]
    with _running(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


def server_for(name: str, place: Path) -> AbstractContextManager[object]:
    """What a row needs beside its worker, while the block runs; on the client's core."""
    if name == IN_POSTGRES:
        return store_servers.postgres(place / "pg", before=on(CLIENT_CORE))
    return store_servers.redis(place, IN_SERVERS[name], before=on(CLIENT_CORE)) if name in IN_SERVERS else nullcontext()


@contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, cwd=ROOT, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


def main(name: str, place: str) -> None:
    """Serve until terminated. The socket listens before the line is written, so a client may connect at once."""
    logging.disable()
    config = uvicorn.Config(WAYS[name][0](Path(place)), access_log=False, lifespan="off")
    config.load()
    listener = socket.create_server(("127.0.0.1", 0))
    parts = {"http": config.http_protocol_class.__name__, "loop": loop_of(config)}
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1], **parts}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
