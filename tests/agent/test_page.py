"""The chat page as files and headers; tests/browser drives it in a browser."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from dcaf import Keyring
from dcaf.agent import Page, create_app
from dcaf.agent.page import HEADERS, STATIC
from dcaf.core import StatelessStore
from dcaf.core.errors import ConfigurationError

NEW: Final = {"dcaf": {"token": "new"}}
WRONG: Final[list[dict[str, Any]]] = [{"suggestions": "start"}, {"suggestions": [1]}, {"title": 1}]
NO_PATHS: Final = (
    None,
    1,
    True,
    b"/out",
    "out",
    "//other.example/out",
    "/out?now",
    "/out#now",
    "/log out",
    "/out\n",
    "/\ud800",
    "\\out",
)
FILES: Final = sorted(path.name for path in STATIC.iterdir())


def greet(_messages: Any, _context: Any) -> str:
    return "Hello."


def served(**settings: Any) -> TestClient:
    return TestClient(create_app(greet, keys=Keyring.ephemeral(), audience="greeter", **{"page": True, **settings}))


def test_the_page_is_off_by_default() -> None:
    with served(page=False) as client:
        assert [client.get(path).status_code for path in ("/", "/page/page.js", "/page/settings")] == [404, 404, 404]


@pytest.mark.parametrize("path", ["/", "/page/settings", *(f"/page/{name}" for name in FILES)])
def test_every_file_has_the_policy_and_nothing_of_a_session(path: str) -> None:
    with served() as client:
        answer = client.get(path)
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "set-cookie" not in answer.headers


def test_the_policy_allows_the_page_s_own_files_and_nothing_else() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {sources for name, sources in policy.items() if name.endswith("-src") and name != "default-src"} == {"'self'"}
    assert "unsafe" not in str(policy)


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_address_or_has_anything_inline(name: str) -> None:
    text = (STATIC / name).read_text()
    assert set(re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]+", text)) <= {"http://www.w3.org"}, "an SVG names its language so"
    if name.endswith(".html"):
        assert re.findall(r"<style|<script(?![^>]*src=)|\son\w+=|\sstyle=", text) == []


def test_a_file_that_has_not_changed_is_not_sent_again_and_has_the_policy_still() -> None:
    with served() as client:
        first = client.get("/page/page.js")
        again = client.get("/page/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/../__init__.py",
        "/page/%2e%2e/__init__.py",
        "/page/%2e%2e%2f__init__.py",
        "/page//etc/passwd",
        "/page/no.js",
        "/page/page.js%00",
        f"/page/{'a' * 5000}",
    ],
)
def test_nothing_else_is_served(path: str) -> None:
    with served() as client:
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/settings"])
def test_a_socket_to_the_page_is_turned_away(path: str) -> None:
    with served() as client, pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
        pass


@pytest.mark.parametrize("path", ["/", "/page/settings", "/page/page.js", "/health", "/openapi.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_nobody_is_asked_about_is_only_read(path: str, method: str) -> None:
    with served() as client:
        assert client.request(method, path, json={"data": {"session": {"n": 1}}}).status_code == 405


@pytest.mark.parametrize("root", ["", "/", "/page", "/page/", "/health", "/a", "/a/"])
def test_no_way_of_writing_a_path_takes_a_plain_session_past_the_seal(root: str) -> None:
    """Control: where the path is that of the chat, without a session it answers, and with a plain one it refuses."""
    app = create_app(greet, keys=Keyring.ephemeral(), audience="greeter", page=True)
    befores, afters = ("", "/", "/page", "/page/", "/page/..", "/health/..", "/a", "/."), ("/api/chat", "api/chat", "/api/chat/")
    paths = [root + before + after for before in ("", *befores) for after in afters]
    assert {status_of(app, root, path, session=True) for path in paths} <= {307, 400, 404, 405}
    assert {status_of(app, root, path, session=False) for path in paths} >= {200, 404}
    assert status_of(app, root, f"{root}/api/chat", session=True) == 400


def status_of(app: Any, root: str, path: str, *, session: bool) -> int:
    """What a service answers to a turn, with its path as a server gives it: no client has tidied it."""
    data = {"session": {"is_admin": True}} if session else {}
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "data": data}).encode()
    scope = {"type": "http", "method": "POST", "path": path, "root_path": root, "query_string": b"", "headers": []}
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(app(scope, receive, send))
    return int(said[0]["status"])


def test_it_is_told_what_the_service_is() -> None:
    with served() as client:
        assert client.get("/page/settings").json() == {
            "title": "agent",
            "suggestions": [],
            "level": "L0",
            "restarts": False,
            "max_token_bytes": 262144,
            "conversation": "/thread_id",
            "log_out": "",
            "history": "client",
            "memory": False,
        }
    page = Page("Greeter", ["hi"], log_out="/api/log-out")
    settings: dict[str, Any] = {"max_token_bytes": 9000, "conversation": "/meta/id", "store": Fresh(), "on_refused": "restart"}
    with served(page=page, **settings) as client:
        told = client.get("/page/settings").json()
    assert told == {
        "title": "Greeter",
        "suggestions": ["hi"],
        "level": "L2",
        "restarts": True,
        "max_token_bytes": 9000,
        "conversation": "/meta/id",
        "log_out": "./api/log-out",
        "history": "client",
        "memory": False,
    }


class Fresh(StatelessStore):
    level = "L2"


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/settings", "/health", "/openapi.json"])
@pytest.mark.parametrize("prefix", ["", "/agents/greeter"])
def test_nobody_is_asked_whose_session_it_is_where_there_is_none(path: str, prefix: str) -> None:
    """Control: the chat itself is refused by functions that fail."""
    app = create_app(
        greet,
        keys=Keyring.ephemeral(),
        audience="greeter",
        page=True,
        subject=lambda scope: scope["user"],
        conversation=lambda _scope, body: body["thread_id"],
        exempt=lambda scope: scope["path"].endswith("/other"),
    )
    with TestClient(Starlette(routes=[Mount(prefix, app)])) as client:
        assert client.get(prefix + path).status_code == 200
        assert client.post(f"{prefix}/api/chat", json={"messages": []}).json()["code"] == "session-unavailable"
        assert client.post(f"{prefix}/other", json={"messages": []}).status_code == 404, "exempt= goes on to count"


def test_it_works_below_another_path() -> None:
    app = create_app(greet, keys=Keyring.ephemeral(), audience="greeter", page=True)
    client = TestClient(Starlette(routes=[Mount("/agents/greeter", app)]))
    page = client.get("/agents/greeter/")
    linked = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert linked == ["page/icon.svg", "page/page.css", "page/page.js"]
    assert [client.get(f"/agents/greeter/{link}").status_code for link in linked] == [200, 200, 200]


def test_every_file_that_is_used_is_there() -> None:
    texts = "".join((STATIC / name).read_text() for name in FILES)
    used = {*re.findall(r'"page/([\w.]+\.\w+)"', texts), *re.findall(r'from "\./([\w.]+)"', texts), "index.html"}
    assert used == set(FILES)


def test_wrong_settings_say_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r'add "body" to carriers='):
        served(carriers=("cookie",))
    for texts in WRONG:
        with pytest.raises(ConfigurationError, match=r'suggestions=\("start", "help"\)'):
            Page(**texts)
    for path in NO_PATHS:
        with pytest.raises(ConfigurationError, match='log_out="/api/log-out"; empty for no such button'):
            Page(log_out=path)  # type: ignore[arg-type]
    for wrong in (None, "Greeter", 1):
        with pytest.raises(ConfigurationError, match="page= takes True, False or a Page"):
            served(page=wrong)


def test_to_look_for_the_body_among_the_carriers_takes_none_of_them_away() -> None:
    with served(carriers=iter(("body", "header"))) as client:
        answer = client.post("/api/chat", json={"messages": [{"role": "user", "content": "hi"}], "data": {"session": NEW}})
    assert answer.json()["data"]["session"]["dcaf"]["token"].startswith("dcaf1s.")
