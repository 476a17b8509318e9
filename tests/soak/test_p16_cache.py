"""P16: a cache in front of the service, told to keep everything, never serves one user's answer to another."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from dcaf import Key, Keyring, SessionMiddleware
from dcaf.testing import sealed, serving, tampered
from tests.conftest import program

ANSWERS: Final = int(10_000 * float(os.environ.get("DCAF_SCALE", "0.1")))
CLIENTS: Final = 8
USERS: Final = 40
START_S: Final = 10.0
RING: Final = Keyring(Key.generate("k7"))
KEYS: Final = {"the address alone": "$request_method$request_uri", "the address and the body": "$request_uri|$request_body"}

PATHS: Final = {"first": "/chat", "next": "/chat", "look": "/look", "follow": "/follow", "refused": "/chat", "public": "/public"}
FORGED: Final = tampered(sealed({"who": "nobody"}, keys=RING, audience="shop"))

CONFIGURATION: Final = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_body_buffer_size 64k;
  proxy_cache_path cache keys_zone=all:4m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {service};
      proxy_cache all;
      proxy_cache_methods GET HEAD POST;
      proxy_cache_key "{key}";
      proxy_cache_valid any 60s;
      add_header X-Cache $upstream_cache_status always;
    }}
  }}
}}
"""


async def chat(request: Request) -> Response:
    """Remember who it is, and answer what is remembered."""
    request.session.setdefault("who", request.headers["x-user"])
    return JSONResponse({"who": request.session["who"]})


async def look(request: Request) -> Response:
    """Answer what is remembered, in plain text, which carries no session."""
    return PlainTextResponse(f"who={request.session.get('who')}")


async def follow(request: Request) -> Response:
    """The same as events."""
    who = request.session.setdefault("who", request.headers["x-user"])
    return StreamingResponse(iter([f'{{"who":"{who}"}}\n', '{"type":"done"}\n']), media_type="application/x-ndjson")


async def public(_request: Request) -> Response:
    """The same for everybody, and nobody's: this may be kept."""
    return PlainTextResponse("public")


class Forgets:
    """Broken: what is outside of the middleware lets every answer be kept."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def keepable(message: Any) -> None:
            if "headers" in message:
                headers = [(name, value) for name, value in message["headers"] if name.lower() != b"cache-control"]
                message = {**message, "headers": [*headers, (b"cache-control", b"max-age=60")]}
            await send(message)

        await self.app(scope, receive, keepable)


def service() -> Any:
    methods = ["GET", "POST"]
    paths = {"/chat": chat, "/look": look, "/follow": follow, "/public": public}
    routes = [Route(path, endpoint, methods=methods) for path, endpoint in paths.items()]
    return SessionMiddleware(Starlette(routes=routes), keys=RING, audience="shop", subject=user_of)


def user_of(scope: Any) -> str | None:
    found = dict(scope["headers"]).get(b"x-user")
    return found.decode() if found else None


@contextmanager
def cached(nginx: str, folder: Path, app: Any, key: str) -> Iterator[str]:
    """nginx before a server of the application; its base URL."""
    with serving(app) as url, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        user = "user root;" if os.geteuid() == 0 else ""
        path = folder / "nginx.conf"
        path.write_text(CONFIGURATION.format(user=user, port=port, service=url, key=key))
        command = [nginx, "-p", str(folder), "-c", str(path), "-e", "stderr"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                _wait(process, port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait(process: subprocess.Popen[str], port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("nginx did not start")


@dataclass
class Seen:
    """What the users were served."""

    answers: int = 0
    foreign: list[str] = field(default_factory=list)
    kept: int = 0
    public: int = 0


class Load:
    """Users who send the same requests as each other, and look at whose answer they get."""

    def __init__(self, url: str, number: int) -> None:
        self.url = url
        self.number = number
        self.seen = Seen()

    def run(self) -> Seen:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for found in pool.map(self._some, range(CLIENTS)):
                self.seen.answers += found.answers
                self.seen.foreign += found.foreign
                self.seen.kept += found.kept
                self.seen.public += found.public
        return self.seen

    def _some(self, seed: int) -> Seen:
        source, seen = random.Random(seed), Seen()
        sessions: dict[str, Any] = {}
        with httpx2.Client(base_url=self.url) as http:
            for _ in range(self.number // CLIENTS):
                user = f"user-{source.randrange(USERS)}"
                self._one(http, source, user, sessions, seen)
        return seen

    def _one(self, http: httpx2.Client, source: random.Random, user: str, sessions: dict[str, Any], seen: Seen) -> None:
        kind = source.choice(("first", "next", "next", "look", "follow", "refused", "public"))
        method = source.choice(("GET", "POST", "POST"))
        answer = http.request(method, PATHS[kind], json=body_of(kind, user, sessions), headers={"x-user": user})
        seen.answers += 1
        seen.public += kind == "public" and answer.headers["x-cache"] == "HIT"
        seen.kept += kind != "public" and answer.headers["x-cache"] == "HIT"
        if not is_own(kind, answer, user):
            seen.foreign.append(f"{method} {kind}")
        if kind in ("first", "next") and answer.status_code == 200:
            sessions[user] = answer.json()["data"]["session"]


def body_of(kind: str, user: str, sessions: dict[str, Any]) -> dict[str, Any]:
    """A body; the first turn, and one whose session is refused, are the same bytes for everybody."""
    if kind in ("first", "follow", "public"):
        return {"messages": ["hello"]}
    if kind == "refused":
        return {"messages": ["hello"], "data": {"session": FORGED}}
    own = sessions.setdefault(user, sealed({"who": user}, keys=RING, audience="shop", subject=user))
    return {"messages": ["hello"], "data": {"session": own}}


def is_own(kind: str, answer: httpx2.Response, user: str) -> bool:
    """Whether an answer was made for this user and this request."""
    if kind == "public":
        return answer.text == "public"
    if kind == "refused":
        return answer.status_code == 400 and "who" not in answer.text
    if kind == "look":
        return answer.text == f"who={user}"
    names = {name for name in answer.text.split('"') if name.startswith("user-")}
    return answer.status_code == 200 and names == {user}


def assert_private(seen: Seen) -> None:
    """The law."""
    assert seen.foreign == []
    assert seen.kept == 0


@pytest.fixture
def nginx() -> str:
    return program("nginx", Path("/usr/sbin/nginx"), Path("/usr/local/sbin/nginx"))


@pytest.mark.soak
@pytest.mark.parametrize("key", KEYS)
def test_no_answer_of_one_user_is_served_to_another(nginx: str, tmp_path: Path, key: str) -> None:
    with cached(nginx, tmp_path, service(), KEYS[key]) as url:
        seen = Load(url, ANSWERS).run()
    kept = f"{seen.public:,} that are everybody's were kept"
    print(f"P16: {len(seen.foreign)} of {seen.answers:,} answers were another user's, cached by {key}; {kept}")
    assert_private(seen)
    assert seen.public > 0


@pytest.mark.soak
@pytest.mark.parametrize("key", KEYS)
def test_control_without_the_header_users_get_the_answers_of_others(nginx: str, tmp_path: Path, key: str) -> None:
    with cached(nginx, tmp_path, Forgets(service()), KEYS[key]) as url:
        seen = Load(url, 200).run()
    assert len(seen.foreign) > 10
    with pytest.raises(AssertionError):
        assert_private(seen)
