"""Two workers of uvicorn on one SQLite file behind nginx, whose keys change, whose sessions are revoked, and which are killed.

Clients hold conversations through nginx. One answer in twenty they do not read. What is not answered is sent once more.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from dcaf import Key
from tests.conftest import program
from tests.promises.ledgers import Got, find_values, make_ledger
from tests.promises.test_p19_lost_answers import LOST, Client

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = 8
STUCK_S: Final = 30.0
START_S: Final = 30.0
PAUSE_S: Final = 0.05
REVOKED: Final = 0.05
KEY_EVERY_S: Final = 1.0
"""A new key is known for so long before it signs; a worker reads the ring every fifth of a second."""

KEPT_KEYS: Final = 20
"""How many older keys verify: as for any operator, a key must stay longer than a client keeps its token."""

SERVER_ERRORS: Final = 500
NGINX: Final = """
daemon off; master_process off; pid {folder}/pid; error_log /dev/null;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream workers {{ {servers} }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://workers; proxy_http_version 1.1; }} }}
}}
"""


class Workers:
    """Two workers, each on its port.

    Args:
        folder: Where keys, database and the file of what was done are.
        is_kept: Whether they have a ledger.
    """

    def __init__(self, folder: Path, *, is_kept: bool) -> None:
        self.folder, self.is_kept = folder, is_kept
        self.ports = [find_port(), find_port()]
        self.processes = [self._start(port) for port in self.ports]
        self.killed = 0
        for process, port in zip(self.processes, self.ports, strict=True):
            wait_for(process, port)

    def kill(self, which: int) -> None:
        """Kill one, and start it anew."""
        self.processes[which].kill()
        self.processes[which].wait()
        self.processes[which] = self._start(self.ports[which])
        wait_for(self.processes[which], self.ports[which])
        self.killed += 1

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "critical"]
        given = {"DCAF_TEST_FOLDER": str(self.folder), "DCAF_TEST_KEPT": "yes" if self.is_kept else "no", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*command, "--factory", "tests.promises.nginx_worker:create_app"],
            cwd=ROOT,
            env={**os.environ, **given},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@dataclass
class Load:
    """What clients do, and what came of it.

    Attributes:
        url: Of nginx.
        folder: Of the database.
        left: How many turns are still to be done.
        done: Conversations that are over.
        unanswered: Requests without an answer: the worker was killed, or the client did not read it.
        revoked: Sessions that were revoked.
        resurrected: Those that went on all the same.
    """

    url: str
    folder: Path
    is_kept: bool
    left: int
    done: list[Client] = field(default_factory=list)
    unanswered: int = 0
    revoked: int = 0
    resurrected: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Hold conversations with some clients at once until all turns are done."""
        threads = [threading.Thread(target=self._converse, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _converse(self, number: int) -> None:
        rng = random.Random(number)
        with httpx2.Client(timeout=STUCK_S) as http:
            for at in range(10**6):
                if self.left <= 0:
                    return
                client = Client(f"c{number}.{at}", f"user-{number}.{at}" if at % 3 else None)
                self._hold(http, client, rng)
                with self.lock:
                    self.done.append(client)

    def _hold(self, http: httpx2.Client, client: Client, rng: random.Random) -> None:
        """Hold one conversation."""
        while not client.is_over:
            before, end = len(client.done), time.monotonic() + STUCK_S
            while len(client.done) == before and not client.is_stuck:
                client.is_stuck = time.monotonic() > end
                found = self._send(http, client, rng)
            with self.lock:
                self.left -= 1
            if self.is_kept and found and rng.random() < REVOKED:
                self._revoke(http, client, found)
                return

    def _send(self, http: httpx2.Client, client: Client, rng: random.Random) -> str | None:
        """Send what is to be sent; the id of the session where it was answered."""
        request = client.pending or client.say(rng)
        got = post(http, self.url, request, client.user)
        is_read = got.status and not (client.may_lose and rng.random() < LOST)
        if not is_read or got.status >= SERVER_ERRORS:
            client.pending = request if client.may_lose else None
            self.unanswered += 1
            time.sleep(PAUSE_S if got.status else 0)
        elif got.code == "session-conflict" and got.newest is None:
            client.pending = request  # the turn of a worker that was killed still has its lease
            time.sleep(PAUSE_S)
        else:
            client.pending = None
            client.take(request, got, is_whole=is_whole(got))
            client.tries = 0
        found = got.values[-1].get("id") if got.values and got.status < SERVER_ERRORS else None
        return found if isinstance(found, str) else None

    def _revoke(self, http: httpx2.Client, client: Client, session_id: str) -> None:
        """Revoke a session from this process, and try it."""
        asyncio.run(self._revoke_one(session_id))
        got = Got(0, [])
        while not got.status or got.status >= SERVER_ERRORS:
            time.sleep(PAUSE_S)
            got = post(http, self.url, {"say": "after", "session": client.session, "path": "/chat", "key": None}, client.user)
        with self.lock:
            self.revoked += 1
            self.resurrected += got.code != "session-ended"

    async def _revoke_one(self, session_id: str) -> None:
        ledger = make_ledger(self.folder / "dcaf.db")
        try:
            await ledger.revoke(session_id)
        finally:
            await ledger.aclose()


def post(http: httpx2.Client, url: str, request: dict[str, Any], user: str | None) -> Got:
    """Send a request; status 0 where no whole answer came."""
    headers = {"x-user": user} if user else {}
    headers |= {"idempotency-key": request["key"]} if request["key"] else {}
    body = {"say": request["say"], "data": {"session": request["session"]}}
    try:
        answer = http.post(url + request["path"], json=body, headers=headers)
        return Got(answer.status_code, list(find_values(answer.content)) if answer.status_code < SERVER_ERRORS else [{}])
    except (httpx2.HTTPError, ValueError):
        return Got(0, [])


def is_whole(got: Got) -> bool:
    """Whether an answer came to its end: a stream says so."""
    kinds = [value.get("type") for value in got.values if "type" in value]
    return not kinds or kinds[-1] == "done" or got.code is not None


@dataclass
class Sums:
    """What came of it."""

    turns: int
    stuck: int
    twice: int
    missing: int
    unanswered: int
    revoked: int
    resurrected: int
    killed: int
    rotated: int


def run(folder: Path, turns: int, *, kills: int, is_kept: bool = True) -> Sums:
    """Have so many turns done, while keys change and workers are killed, at about even times."""
    ring = [Key.generate(f"k{at}") for at in range(2)]
    write_ring(folder, ring, active=0)
    over = threading.Event()
    with ExitStack() as stack:
        workers = Workers(folder, is_kept=is_kept)
        stack.callback(workers.stop)
        load = Load(stack.enter_context(behind(folder, workers.ports)), folder, is_kept, turns)
        rotating = threading.Thread(target=rotate, args=(folder, ring, over))
        killing = threading.Thread(target=kill, args=(workers, load, turns, kills, over))
        rotating.start()
        killing.start()
        try:
            load.run()
        finally:
            over.set()
            killing.join()
            rotating.join()
    return summed(folder, load, workers, len(ring) - 2)


def kill(workers: Workers, load: Load, turns: int, kills: int, over: threading.Event) -> None:
    """Kill a worker each time that a part of the turns is done."""
    for at in range(kills):
        while load.left > turns - (at + 1) * turns // (kills + 1):
            if over.wait(0.005):
                return
        workers.kill(at % 2)


def rotate(folder: Path, ring: list[Key], over: threading.Event) -> None:
    """Replace the key that signs, again and again: a new one is known everywhere before it signs."""
    while not over.wait(KEY_EVERY_S):
        write_ring(folder, ring, active=len(ring) - 1)
        if over.wait(KEY_EVERY_S):
            return
        ring.append(Key.generate(f"k{len(ring)}"))
        write_ring(folder, ring, active=len(ring) - 2)


def write_ring(folder: Path, ring: list[Key], *, active: int) -> None:
    """Write the key that signs, and after it those that are known."""
    known = [key for key in ring[-KEPT_KEYS:] if key is not ring[active]]
    fresh = folder / "keys.new"
    fresh.write_text("\n".join(key.text() for key in (ring[active], *known)))
    fresh.replace(folder / "keys")


def summed(folder: Path, load: Load, workers: Workers, rotated: int) -> Sums:
    effects = Counter((folder / "done").read_text().split("\n")[:-1])
    twice, missing = sum(count > 1 for count in effects.values()), 0
    for client in load.done:
        said = (client.session or {}).get("said", [])
        twice += len(said) - len(set(said))
        missing += not client.is_stuck and said != client.done
    turns = sum(len(client.done) for client in load.done)
    stuck = sum(client.is_stuck for client in load.done)
    return Sums(turns, stuck, twice, missing, load.unanswered, load.revoked, load.resurrected, workers.killed, rotated)


@contextmanager
def behind(folder: Path, ports: list[int]) -> Iterator[str]:
    """nginx before the workers; its URL."""
    nginx, port = program("nginx", Path("/usr/sbin/nginx")), find_port()
    servers = " ".join(f"server 127.0.0.1:{each} fail_timeout=1s;" for each in ports)
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, port=port, servers=servers))
    with subprocess.Popen([nginx, "-c", str(path), "-e", "/dev/null"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} did not start")


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
