"""Two workers of uvicorn over one store behind nginx: keys change, sessions are revoked, workers and the store's server are killed.

Clients hold conversations through nginx. One answer in twenty they do not read. What is not answered is sent once more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import httpx2

from dcaf import Key
from dcaf.core.errors import StoreError
from tests.conftest import program
from tests.promises.ledgers import Got, closing, find_values, make_ledger
from tests.promises.places import Place, Server
from tests.promises.test_p19_lost_answers import LOST, Client

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = 8
STUCK_S: Final = 30.0
START_S: Final = 30.0
PAUSE_S: Final = 0.05
REVOKED: Final = 0.05
TRIED_AFTER: Final = 5
"""After so many other revocations a session that was revoked is tried once more: while its key is still known."""

KEY_EVERY_S: Final = 1.0
"""A new key is known for so long before it signs; a worker reads the ring every fifth of a second."""

KEPT_KEYS: Final = 20
"""How many older keys verify: as for any operator, a key must stay longer than a client keeps its token."""

SERVER_ERRORS: Final = 500
UNAVAILABLE: Final = "session-unavailable"
"""What a stream ends with whose status had gone out before the store was down."""

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
        folder: Where keys and the file of what was done are.
        place: Where their ledgers have their rows; None for no ledger.
    """

    def __init__(self, folder: Path, place: Place | None) -> None:
        self.folder, self.place = folder, place
        self.ports = [find_port(), find_port()]
        self.processes = [self._start(port) for port in self.ports]
        self.killed, self.store_killed = 0, 0
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
        given = {"DCAF_TEST_FOLDER": str(self.folder), "PYTHONPATH": str(ROOT)}
        given |= {} if self.place is None else {"DCAF_TEST_PLACE": json.dumps(asdict(self.place))}
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
        place: Where the rows of the workers are; None for no ledger.
        left: How many turns are still to be done.
        done: Conversations that are over.
        unanswered: Requests without an answer: the worker was killed, or the client did not read it.
        revoked: The clients whose sessions were revoked.
        resurrected: How many of these went on all the same.
        kills_done: Whether everybody was killed who is to be.
    """

    url: str
    place: Place | None
    left: int
    done: list[Client] = field(default_factory=list)
    unanswered: int = 0
    revoked: list[Client] = field(default_factory=list)
    resurrected: int = 0
    kills_done: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Hold conversations with some clients at once until all turns are done, and all have been killed who are to be."""
        threads = [threading.Thread(target=self._converse, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with httpx2.Client(timeout=STUCK_S) as http:
            self.resurrected += sum(self._goes_on(http, client) for client in self.revoked[-TRIED_AFTER:])

    def _converse(self, number: int) -> None:
        rng = random.Random(number)
        with httpx2.Client(timeout=STUCK_S) as http:
            for at in range(10**6):
                if self.left <= 0 and self.kills_done.is_set():
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
            if self.place and found and rng.random() < REVOKED:
                self._revoke(http, client, self.place, found)
                return

    def _send(self, http: httpx2.Client, client: Client, rng: random.Random) -> str | None:
        """Send what is to be sent; the id of the session where it was answered."""
        request = client.pending or client.say(rng)
        got = post(http, self.url, request, client.user)
        is_read = got.status and not (client.may_lose and rng.random() < LOST)
        if not is_read or got.status >= SERVER_ERRORS or got.code == UNAVAILABLE:
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

    def _revoke(self, http: httpx2.Client, client: Client, place: Place, session_id: str) -> None:
        """Revoke a session from this process, try it, and one that was revoked a while ago: perhaps the store was killed since."""
        asyncio.run(revoke(place, session_id))
        with self.lock:
            self.revoked.append(client)
            ended = [client, *self.revoked[-TRIED_AFTER - 1 : -TRIED_AFTER]]
        came_back = sum(self._goes_on(http, one) for one in ended)
        with self.lock:
            self.resurrected += came_back

    def _goes_on(self, http: httpx2.Client, client: Client) -> bool:
        """Whether a client can go on."""
        got = Got(0, [])
        while not got.status or got.status >= SERVER_ERRORS:
            time.sleep(PAUSE_S)
            got = post(http, self.url, {"say": "after", "session": client.session, "path": "/chat", "key": None}, client.user)
        return got.code != "session-ended"


async def revoke(place: Place, session_id: str) -> None:
    """Revoke a session; where the store is down, until that was acknowledged."""
    ledger, is_revoked = make_ledger(place), False
    async with closing(ledger), asyncio.timeout(STUCK_S):
        while not is_revoked:
            try:
                await ledger.revoke(session_id)
                is_revoked = True
            except StoreError:
                await asyncio.sleep(PAUSE_S)


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
    store_killed: int

    def describe(self) -> str:
        """What a reader of the promises is told."""
        return (
            f"{self.stuck} conversations stuck, {self.twice} of {self.turns:,} turns applied twice, {self.missing} lost, "
            f"{self.resurrected} of {self.revoked} revoked sessions go on; kill -9: {self.killed} times a worker, "
            f"{self.store_killed} times the store; {self.rotated} new keys"
        )


def run(folder: Path, place: Place | None, turns: int, *, kills: int, server: Server | None = None) -> Sums:
    """Have so many turns done, while keys change and workers and their store's server are killed, at about even times.

    Args:
        folder: Where keys and the file of what was done are.
        place: Where the rows of the workers are; None for no ledger.
        turns: How many turns at least.
        kills: How many times somebody is killed: the server, a worker, the server, the other worker, and so on.
        server: The server of the store; None for none, or for one that is left alone.
    """
    ring = [Key.generate(f"k{at}") for at in range(2)]
    write_ring(folder, ring, active=0)
    over = threading.Event()
    with ExitStack() as stack:
        workers = Workers(folder, place)
        stack.callback(workers.stop)
        load = Load(stack.enter_context(behind(folder, workers.ports)), place, turns)
        rotating = threading.Thread(target=rotate, args=(folder, ring, over))
        killing = threading.Thread(target=kill, args=(list_kills(workers, server, kills), load, turns, over))
        rotating.start()
        killing.start()
        try:
            load.run()
        finally:
            over.set()
            killing.join()
            rotating.join()
    return summed(folder, load, workers, len(ring) - 2)


def list_kills(workers: Workers, server: Server | None, kills: int) -> list[Callable[[], None]]:
    """What kills somebody and starts it anew, one after the other."""

    def kill_server() -> None:
        assert server is not None
        server.kill()
        server.start()
        workers.store_killed += 1

    victims: list[Callable[[], None]] = [kill_server, partial(workers.kill, 0), kill_server, partial(workers.kill, 1)]
    return list(islice(cycle(victims if server else victims[1::2]), kills))


def kill(victims: list[Callable[[], None]], load: Load, turns: int, over: threading.Event) -> None:
    """Kill somebody each time that a part of the turns is done."""
    try:
        for at, kill_one in enumerate(victims, 1):
            while load.left > turns - at * turns // (len(victims) + 1):
                if over.wait(0.005):
                    return
            kill_one()
    finally:
        load.kills_done.set()


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
    ends = len(load.revoked), load.resurrected
    return Sums(turns, stuck, twice, missing, load.unanswered, *ends, workers.killed, rotated, workers.store_killed)


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
