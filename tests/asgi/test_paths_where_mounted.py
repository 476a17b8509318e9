"""The paths of exempt=, plain= and pass_streams= are those of the application's own routes, wherever and however it is mounted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

from dcaf import SessionMiddleware
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.core.errors import NotCarriedError, SessionMalformed
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, RING, call, envelope, opened

FOREIGN = {"session": {"x": 1}}
ASGI = {"version": "3.0", "spec_version": "2.4"}


async def webhook(request: Request) -> JSONResponse:
    return JSONResponse({"got": (await request.json())["data"], "has": "dcaf.session" in request.scope})


async def old(request: Request) -> JSONResponse:
    found = ((await request.json()).get("data") or {}).get("session") or {}
    return JSONResponse({"data": {"session": {"n": found.get("n", 0) + 1}}})


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(iter(['{"type":"done"}\n']), media_type="application/x-ndjson")


async def hook_socket(socket: Any) -> None:
    await socket.accept()
    frame = await socket.receive_json()
    await socket.send_json({"type": "done", "got": frame["data"], "has": "dcaf.session" in socket.scope})


async def old_socket(socket: Any) -> None:
    await socket.accept()
    async for frame in socket.iter_json():
        found = (frame.get("data") or {}).get("session") or {}
        await socket.send_json({"type": "done", "data": {"session": {"n": found.get("n", 0) + 1}}})


async def passing(request: Request, call_next: Any) -> Any:
    return await call_next(request)


def routes() -> list[Any]:
    ways: dict[str, Any] = {"/webhook": webhook, "/old": old, "/stream": stream, "/webhooks": webhook}
    sockets = {"/hook-socket": hook_socket, "/old-socket": old_socket}
    return [
        *[Route(path, way, methods=["POST"]) for path, way in ways.items()],
        *[WebSocketRoute(*each) for each in sockets.items()],
    ]


def settings(prefix: str = "") -> dict[str, Any]:
    return {
        "keys": RING,
        "audience": AUDIENCE,
        "exempt": (f"{prefix}/webhook", f"{prefix}/hook-socket"),
        "plain": (f"{prefix}/old", f"{prefix}/old-socket"),
        "pass_streams": (f"{prefix}/stream",),
    }


def shop(prefix: str = "") -> SessionMiddleware:
    """A service of its own, its routes below a prefix of its own."""
    inner = Starlette(routes=[Mount(prefix, routes=routes())] if prefix else routes())
    return SessionMiddleware(inner, **settings(prefix))


def alone() -> Any:
    return shop()


def mounted_once() -> Any:
    return Starlette(routes=[Mount("/shop", shop())])


def mounted_twice() -> Any:
    return Starlette(routes=[Mount("/eu", routes=[Mount("/shop", shop())])])


def in_an_application_in_an_application() -> Any:
    return Starlette(routes=[Mount("/eu", Starlette(routes=[Mount("/shop", shop())]))])


def by_a_parameter() -> Any:
    return Starlette(routes=[Mount("/{country}/shop", shop())])


def in_fastapi() -> Any:
    app = FastAPI()
    app.mount("/shop", shop())
    return app


def as_a_middleware() -> Any:
    return Starlette(routes=routes(), middleware=[Middleware(SessionMiddleware, **settings())])


def as_a_middleware_of_a_mount() -> Any:
    return Starlette(routes=[Mount("/shop", routes=routes(), middleware=[Middleware(SessionMiddleware, **settings())])])


def as_a_middleware_of_fastapi() -> Any:
    app = FastAPI(routes=routes())
    app.add_middleware(SessionMiddleware, **settings())
    return app


def below_another() -> Any:
    return Starlette(routes=[Mount("/shop", BaseHTTPMiddleware(shop(), dispatch=passing))])


def with_mounts_inside() -> Any:
    return shop("/v1")


def with_mounts_inside_and_mounted() -> Any:
    return Starlette(routes=[Mount("/shop", shop("/v1"))])


def with_an_application_inside() -> Any:
    inner = Starlette(routes=[Mount("/v1", Starlette(routes=routes()))])
    return SessionMiddleware(inner, **settings("/v1"))


def with_a_router_of_fastapi_inside() -> Any:
    app, inner = FastAPI(), FastAPI(routes=routes())
    app.mount("/v1", inner)
    return SessionMiddleware(app, **settings("/v1"))


PLACES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "alone": (alone, "", ""),
    "mounted": (mounted_once, "/shop", ""),
    "mounted in a mount": (mounted_twice, "/eu/shop", ""),
    "mounted in a mounted application": (in_an_application_in_an_application, "/eu/shop", ""),
    "mounted by a parameter": (by_a_parameter, "/de/shop", ""),
    "mounted in FastAPI": (in_fastapi, "/shop", ""),
    "a middleware": (as_a_middleware, "", ""),
    "a middleware of a mount": (as_a_middleware_of_a_mount, "/shop", ""),
    "a middleware of FastAPI": (as_a_middleware_of_fastapi, "", ""),
    "below another middleware": (below_another, "/shop", ""),
    "mounts inside": (with_mounts_inside, "/v1", ""),
    "mounts inside, and mounted": (with_mounts_inside_and_mounted, "/shop/v1", ""),
    "an application inside": (with_an_application_inside, "/v1", ""),
    "FastAPI inside": (with_a_router_of_fastapi_inside, "/v1", ""),
    "root_path of the server": (alone, "/proxy", "/proxy"),
    "root_path of the server, and mounted": (mounted_once, "/proxy/shop", "/proxy"),
    "root_path of the server, mounts inside": (with_mounts_inside, "/proxy/v1", "/proxy"),
    "a root_path that the proxy has cut off": (alone, "", "/proxy"),
    "a root_path that begins like a route": (alone, "", "/old-"),
    "a root_path that begins like another": (alone, "", "/web"),
    "a root_path like a route's own": (as_a_middleware, "/webhook", "/webhook"),
}


ON_SOCKETS = list(PLACES)


def ask(app: Any, path: str, body: Any, root: str) -> Any:
    return call(app, body, path=path, root_path=root, asgi=ASGI)


def assert_the_paths_hold(make: Callable[[], Any], prefix: str, root: str) -> None:
    """The law: each of the three settings is about the application's own routes, and about no other."""
    app = make()
    assert ask(app, f"{prefix}/webhook", {"data": FOREIGN}, root).json == {"got": FOREIGN, "has": False}
    assert ask(app, f"{prefix}/webhooks", {"data": FOREIGN}, root).code == "session-unsigned"
    first = ask(app, f"{prefix}/old", {}, root)
    assert opened(first.envelope) == {"n": 1}
    assert opened(ask(app, f"{prefix}/old", {"data": {"session": first.envelope}}, root).envelope) == {"n": 2}
    arrived = {"data": {"session": envelope({"n": 1})}}
    assert ask(app, f"{prefix}/stream", arrived, root).body == b'{"type":"done"}\n'


def assert_the_paths_of_sockets_hold(make: Callable[[], Any], prefix: str, root: str) -> None:
    with Peer(make(), f"{prefix}/hook-socket", root_path=root) as peer:
        assert peer.ask({"data": FOREIGN}) == {"type": "done", "got": FOREIGN, "has": False}
    with Peer(make(), f"{prefix}/old-socket", root_path=root) as peer:
        first = peer.ask({})["data"]["session"]
        assert opened(first) == {"n": 1}
        assert opened(peer.ask({"data": {"session": first}})["data"]["session"]) == {"n": 2}


@pytest.mark.parametrize("place", PLACES)
def test_the_paths_are_those_of_the_application_wherever_it_is(place: str) -> None:
    assert_the_paths_hold(*PLACES[place])


@pytest.mark.parametrize("place", ON_SOCKETS)
def test_and_on_sockets(place: str) -> None:
    assert_the_paths_of_sockets_hold(*PLACES[place])


@pytest.mark.parametrize("place", [name for name, (_, prefix, _) in PLACES.items() if prefix not in ("", "/v1")])
def test_control_the_path_of_the_server_is_caught(place: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.config.route_path", lambda scope: scope["path"])
    with pytest.raises(AssertionError):
        assert_the_paths_hold(*PLACES[place])
    with pytest.raises(AssertionError):
        assert_the_paths_of_sockets_hold(*PLACES[place])


@pytest.mark.parametrize("place", ["mounts inside", "an application inside", "mounts inside, and mounted"])
def test_control_the_scope_that_the_application_has_routed_is_caught(place: str, monkeypatch: Any) -> None:
    def asked_late(turn: ASGITurn) -> bool:
        root = next((name for name in ("/shop/v1", "/v1") if turn.outer["path"].startswith(name)), "")
        is_plain = turn.config.is_plain
        return is_plain is not None and is_plain({**turn.outer, "root_path": root})

    monkeypatch.setattr(ASGITurn, "is_plain", property(asked_late))
    with pytest.raises((AssertionError, SessionMalformed)):
        assert_the_paths_hold(*PLACES[place])


def test_the_same_path_of_another_application_is_none_of_these() -> None:
    app = Starlette(routes=[Mount("/shop", shop()), Mount("/blog", shop("/other")), Route("/webhook", webhook, methods=["POST"])])
    assert ask(app, "/shop/webhook", {"data": FOREIGN}, "").json["has"] is False
    assert ask(app, "/blog/other/webhook", {"data": FOREIGN}, "").json["has"] is False
    assert ask(app, "/blog/webhook", {"data": FOREIGN}, "").code == "session-unsigned"
    assert ask(app, "/shop/shop/webhook", {"data": FOREIGN}, "").code == "session-unsigned"


@pytest.mark.parametrize("place", ["mounted", "mounts inside", "root_path of the server"])
def test_a_change_in_a_stream_that_passes_is_an_error_at_each_of_them(place: str) -> None:
    make, prefix, root = PLACES[place]

    async def write(request: Request) -> StreamingResponse:
        request.session["late"] = 1
        return await stream(request)

    app = make()
    for each in found_routes(app):
        if each.path == "/stream":
            each.app = Route("/stream", write, methods=["POST"]).app
    with pytest.raises(NotCarriedError):
        ask(app, f"{prefix}/stream", {}, root)


def found_routes(app: Any) -> list[Any]:
    """All the routes below an application, through mounts and the middleware."""
    if isinstance(app, SessionMiddleware):
        return found_routes(app.app)
    own = [*getattr(app, "routes", [])]
    return [each for route in own for each in ([route] if isinstance(route, Route) else found_routes(getattr(route, "app", None)))]


def test_a_function_of_the_scope_has_the_scope_as_the_server_made_it() -> None:
    seen: list[Any] = []

    def is_plain(scope: Any) -> bool:
        seen.append((scope["path"], scope.get("root_path")))
        return True

    inner = Starlette(routes=[Mount("/v1", routes=routes())])
    app = Starlette(routes=[Mount("/shop", SessionMiddleware(inner, keys=RING, audience=AUDIENCE, plain=is_plain))])
    assert opened(ask(app, "/shop/v1/old", {}, "").envelope) == {"n": 1}
    assert {*seen} == {("/shop/v1/old", "/shop")}


def test_the_log_advises_a_path_that_then_holds_where_it_is_mounted(caplog: Any) -> None:
    app = Starlette(routes=[Mount("/shop", SessionMiddleware(Starlette(routes=routes()), keys=RING, audience=AUDIENCE))])
    ask(app, "/shop/old", {"x": 1}, "")
    assert "plain=('/old',)" in caplog.text
