"""A real browser keeps the cookie: login, cart, logout, rotation, overflow, and a page of another site."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Route, WebSocketRoute

from dcaf import Key, Keyring, SessionMiddleware
from dcaf.asgi import CookieCarrier
from dcaf.core.errors import SessionValueError

NAME = "__Host-dcaf"
OLD, NEW = Key.generate("k7"), Key.generate("k8")
START_S = 10.0


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


async def home(request: Any) -> Any:
    return HTMLResponse(
        f"<p>{request.session.get('user')}: {request.session.get('cart', {}).get('items')}</p>"
        "<form id=in method=post action=/in><button>in</button></form>"
        "<form id=add method=post action=/add><button>add</button></form>"
        "<form id=out method=post action=/out><button>out</button></form>"
    )


async def log_in(request: Any) -> Any:
    request.session["user"] = "ada"
    return RedirectResponse("/", 303)


async def add(request: Any) -> Any:
    request.session.setdefault("cart", {"items": []})["items"].append("widget")
    return RedirectResponse("/", 303)


async def fill(request: Any) -> Any:
    try:
        request.session["large"] = "x" * 5000
    except SessionValueError:
        raise HTTPException(507) from None
    return RedirectResponse("/", 303)


async def log_out(request: Any) -> Any:
    request.session.clear()
    return RedirectResponse("/", 303)


async def seen(request: Any) -> Any:
    return JSONResponse(request.session.to_dict())


async def echo(websocket: Any) -> None:
    await websocket.accept()
    await websocket.send_json(websocket.session.to_dict())
    await websocket.close()


def shop(*, ring: Keyring | None = None, **cookie: Any) -> Any:
    routes = [
        Route("/", home),
        Route("/in", log_in, methods=["POST"]),
        Route("/add", add, methods=["POST"]),
        Route("/fill", fill, methods=["POST"]),
        Route("/out", log_out, methods=["POST"]),
        Route("/seen", seen, methods=["GET", "POST"]),
        WebSocketRoute("/ws", echo),
    ]
    carriers = (CookieCarrier(**cookie),)
    return SessionMiddleware(Starlette(routes=routes), keys=ring or Keyring(OLD), audience="shop", carriers=carriers)


class Moving:
    """An application that is exchanged while its server runs."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@contextmanager
def served(app: Any) -> Iterator[int]:
    """A port on which it is served."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + START_S
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(START_S)


def cookie_of(page: Any) -> Any:
    found = [cookie for cookie in page.context.cookies() if cookie["name"] == NAME]
    return found[0] if found else None


def press(page: Any, form: str) -> str:
    """Press the button of a form, and read what the page says then."""
    with page.expect_navigation():
        page.click(f"#{form} button")
    text: str = page.inner_text("p")
    return text


def test_a_visitor_logs_in_fills_a_cart_and_logs_out(page: Any) -> None:
    with served(shop()) as port:
        page.goto(f"http://localhost:{port}/")
        assert page.inner_text("p") == "None: None"
        assert cookie_of(page) is None
        assert press(page, "in") == "ada: None"
        assert press(page, "add") == "ada: ['widget']"
        assert press(page, "add") == "ada: ['widget', 'widget']"
        cookie = cookie_of(page)
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")
        assert page.evaluate("document.cookie") == ""
        assert press(page, "out") == "None: None"
        assert cookie_of(page) is None


def test_a_key_is_rotated_under_a_visitor_who_stays_logged_in(page: Any) -> None:
    app = Moving(shop())
    with served(app) as port:
        page.goto(f"http://localhost:{port}/")
        press(page, "in")
        assert cookie_of(page)["value"].startswith("dcaf1s.k7.")
        app.app = shop(ring=Keyring(NEW, OLD))
        assert press(page, "add") == "ada: ['widget']"
        assert cookie_of(page)["value"].startswith("dcaf1s.k8.")
        app.app = shop(ring=Keyring(NEW))
        assert press(page, "add") == "ada: ['widget', 'widget']"
        app.app = shop(ring=Keyring(OLD))
        page.goto(f"http://localhost:{port}/")
        assert page.inner_text("p") == "None: None"


def test_what_the_browser_would_not_keep_is_refused_and_the_session_stays(page: Any) -> None:
    with served(shop()) as port:
        page.goto(f"http://localhost:{port}/")
        press(page, "in")
        before = cookie_of(page)["value"]
        assert page.evaluate("fetch('/fill', {method: 'POST'}).then(answer => answer.status)") == 507
        assert cookie_of(page)["value"] == before


def test_control_this_browser_does_not_keep_a_cookie_over_its_limit(page: Any) -> None:
    async def large(_: Any) -> Any:
        answer = HTMLResponse("<p>large</p>")
        answer.set_cookie("fits", "x" * (4096 - len("fits")))
        answer.set_cookie("large", "x" * (4097 - len("large")))
        return answer

    with served(Starlette(routes=[Route("/", large)])) as port:
        page.goto(f"http://localhost:{port}/")
        assert [cookie["name"] for cookie in page.context.cookies()] == ["fits"]


HEARD = "new Promise(done => { const socket = new WebSocket(URL); socket.onmessage = event => done(event.data) })"


def heard(page: Any, port: int) -> str:
    """What a socket that the page opens is told of the session."""
    told: str = page.evaluate(HEARD.replace("URL", f"'ws://localhost:{port}/ws'"))
    return told


def test_a_socket_of_the_sites_own_page_has_its_session(page: Any) -> None:
    with served(shop(secure=False, cookie="dcaf")) as port:
        page.goto(f"http://localhost:{port}/")
        press(page, "in")
        assert heard(page, port) == '{"user":"ada"}'


def forged(page: Any, **cookie: Any) -> tuple[str, bool]:
    """What the visitor of a shop sees after a page of another site sent a form in his name, and whether his cookie is as it was."""

    async def evil(request: Any) -> Any:
        action = f"http://localhost:{request.query_params['port']}/add"
        return HTMLResponse(f"<form id=evil method=post action={action}><button>x</button></form>")

    with served(shop(**cookie)) as port, served(Starlette(routes=[Route("/", evil)])) as other:
        page.goto(f"http://localhost:{port}/")
        press(page, "in")
        before = cookie_of(page)["value"]
        page.goto(f"http://127.0.0.1:{other}/?port={port}")
        with page.expect_navigation():
            page.click("#evil button")
        page.goto(f"http://localhost:{port}/")
        return page.inner_text("p"), cookie_of(page)["value"] == before


@pytest.mark.parametrize("same_site", ["lax", "none"])
def test_a_page_of_another_site_can_neither_act_for_the_visitor_nor_log_him_out(page: Any, same_site: str) -> None:
    assert forged(page, same_site=same_site) == ("ada: None", True)


def test_control_without_the_check_the_page_of_another_site_acts_for_the_visitor(page: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.carriers.is_foreign", lambda scope: False)
    assert forged(page, same_site="none") == ("ada: ['widget']", False)
