"""dcaf's SessionMiddleware in the place of Starlette's: the same behaviour, and where it differs, it is said here."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections.abc import Callable
from datetime import timedelta
from itertools import product
from typing import Any

import jinja2
import orjson
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as Original
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from dcaf import ConfigurationError, Key, Keyring, Session, current_session
from dcaf.core import SessionValueError
from dcaf.integrations.starlette import SessionMiddleware


class Basket(Session):
    items_seen: int = 0


RING = Keyring(Key.generate("k7"))
NOW = 1_789_000_000


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


async def view(request: Any) -> Any:
    return JSONResponse({"session": dict(request.session)})


async def update(request: Any) -> Any:
    request.session.update(await request.json())
    return JSONResponse({"session": dict(request.session)})


async def clear(request: Any) -> Any:
    request.session.clear()
    return JSONResponse({"session": dict(request.session)})


async def nothing(_: Any) -> Any:
    return PlainTextResponse("nothing")


async def log_in(request: Any) -> Any:
    request.session["user"] = (await request.json())["user"]
    return RedirectResponse("/", 303)


async def log_out(request: Any) -> Any:
    request.session.pop("user", None)
    return RedirectResponse("/", 303)


async def home(request: Any) -> Any:
    user = request.session.get("user")
    flashed = request.session.pop("flash", [])
    return JSONResponse({"user": user, "flash": flashed})


async def flash(request: Any) -> Any:
    request.session.setdefault("flash", []).append("saved")
    return RedirectResponse("/", 303)


async def cart(request: Any) -> Any:
    request.session.setdefault("cart", {"items": []})["items"].append("widget")
    return JSONResponse(request.session["cart"])


async def echo(websocket: Any) -> None:
    await websocket.accept()
    await websocket.send_json({"session": dict(websocket.session)})
    await websocket.close()


ROUTES = [
    Route("/view", view),
    Route("/update", update, methods=["POST"]),
    Route("/clear", clear, methods=["POST"]),
    Route("/nothing", nothing),
    Route("/log_in", log_in, methods=["POST"]),
    Route("/log_out", log_out, methods=["POST"]),
    Route("/", home),
    Route("/flash", flash, methods=["POST"]),
    Route("/cart", cart, methods=["POST"]),
    WebSocketRoute("/ws", echo),
]


def ours(**settings: Any) -> Starlette:
    made: Any = {"keys": RING, "audience": "shop", **settings}
    return Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware, **made)])


def theirs(**settings: Any) -> Starlette:
    return Starlette(routes=ROUTES, middleware=[Middleware(Original, secret_key="x" * 32, **settings)])


def visitor(app: Any, cookie: str) -> TestClient:
    """A client that has a cookie already, as if the application had set it."""
    client = TestClient(app)
    client.cookies.set("session", cookie, domain="testserver.local")
    return client


BOTH = [pytest.param(theirs, id="starlette"), pytest.param(ours, id="dcaf")]


def attributes(answer: Any) -> Any:
    """The attributes of the one cookie that an answer sets, in lower case; None where it sets none."""
    found = answer.headers.get_list("set-cookie")
    assert len(found) < 2
    if not found:
        return None
    _, *parts = found[0].split("; ")
    return sorted(part.lower() for part in parts)


# The same as Starlette's (its own tests of the session middleware, on both)


@pytest.mark.parametrize("made", BOTH)
def test_a_session_begins_changes_and_ends(made: Any) -> None:
    client = TestClient(made())
    assert client.get("/view").json() == {"session": {}}
    assert client.post("/update", json={"some": "data"}).json() == {"session": {"some": "data"}}
    assert "httponly" in attributes(client.post("/update", json={"some": "more"}))
    assert client.get("/view").json() == {"session": {"some": "more"}}
    assert client.post("/clear").json() == {"session": {}}
    assert "session" not in client.cookies
    assert client.get("/view").json() == {"session": {}}


@pytest.mark.parametrize("made", BOTH)
def test_login_and_logout(made: Any) -> None:
    client = TestClient(made())
    assert client.get("/").json()["user"] is None
    assert client.post("/log_in", json={"user": "ada"}).json()["user"] == "ada"
    assert client.get("/").json()["user"] == "ada"
    assert client.post("/log_out").json()["user"] is None
    assert "session" not in client.cookies


@pytest.mark.parametrize("made", BOTH)
def test_a_flash_is_shown_once(made: Any) -> None:
    client = TestClient(made())
    client.post("/log_in", json={"user": "ada"})
    assert client.post("/flash").json() == {"user": "ada", "flash": ["saved"]}
    assert client.get("/").json() == {"user": "ada", "flash": []}


@pytest.mark.parametrize("made", BOTH)
def test_headers_are_added_where_the_session_was_looked_at(made: Any) -> None:
    client = TestClient(made())
    assert client.get("/view").headers["vary"] == "Cookie"
    assert "vary" not in client.get("/nothing").headers
    client.post("/update", json={"a": 1})
    answer = client.get("/nothing")
    assert ("vary" in answer.headers, attributes(answer)) == (False, None)
    answer = client.get("/view")
    assert (answer.headers["vary"], attributes(answer)) == ("Cookie", None)


@pytest.mark.parametrize("made", BOTH)
def test_a_cookie_that_is_none_of_ours_is_an_empty_session(made: Any) -> None:
    client = visitor(made(), "invalid")
    assert client.get("/view").json() == {"session": {}}


@pytest.mark.parametrize("made", BOTH)
def test_a_websocket_reads_the_session(made: Any) -> None:
    client = TestClient(made())
    client.post("/update", json={"a": 1})
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_json() == {"session": {"a": 1}}


@pytest.mark.parametrize("made", BOTH)
def test_a_connection_has_the_session(made: Any) -> None:
    found: list[Any] = []

    async def endpoint(request: Any) -> Any:
        found.append(HTTPConnection(request.scope).session is request.session)
        return PlainTextResponse("x")

    app = made()
    app.router.routes.append(Route("/same", endpoint))
    TestClient(app).get("/same")
    assert found == [True]


SETTINGS = [
    dict(zip(("max_age", "path", "same_site", "https_only", "domain"), values, strict=True))
    for values in product((None, 3600), ("/", "/second"), ("lax", "strict"), (False, True), (None, "example.com"))
]
SETTINGS += [{"same_site": "none", "https_only": True, "partitioned": True, "session_cookie": "mine"}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_attributes_of_the_cookie_are_starlettes(settings: Any) -> None:
    path = settings.get("path", "/")
    base = f"https://example.com{'' if path == '/' else path}"

    def said(made: Any) -> Any:
        app = made(**settings)
        outer = app if path == "/" else Starlette(routes=[_mounted(path, app)])
        client = TestClient(outer, base_url=base)
        first = client.post("/update", json={"a": 1})
        name = first.headers["set-cookie"].partition("=")[0]
        return name, attributes(first), attributes(client.post("/clear"))

    assert said(ours) == said(theirs)


def _mounted(path: str, app: Any) -> Any:
    from starlette.routing import Mount

    return Mount(path, app=app)


# More than Starlette's


def test_nested_changes_are_kept() -> None:
    client, before = TestClient(ours()), TestClient(theirs())
    for n in (1, 2, 3):
        assert len(client.post("/cart").json()["items"]) == n
        assert len(before.post("/cart").json()["items"]) == min(n, 2)  # the first list alone was stored


def test_the_state_is_encrypted_on_request() -> None:
    for encrypt in (True, False):
        client = TestClient(ours(encrypt=encrypt))
        client.post("/update", json={"card": "4111-1111"})
        segments = client.cookies["session"].split(".")[2:]
        shown = b"".join(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in segments)
        assert (b"4111-1111" in shown) is not encrypt
        assert client.get("/view").json() == {"session": {"card": "4111-1111"}}


def test_keys_are_rotated_without_a_logout() -> None:
    old, new = RING.active, Key.generate("k8")
    client = TestClient(ours(keys=Keyring(old, new)))
    client.post("/log_in", json={"user": "ada"})
    assert client.cookies["session"].startswith("dcaf1s.k7.")
    client = visitor(ours(keys=Keyring(new, old)), client.cookies["session"])
    assert client.get("/").json()["user"] == "ada"
    client.post("/flash")
    kept = client.cookies["session"]
    assert kept.startswith("dcaf1s.k8.")
    assert visitor(ours(keys=Keyring(new)), kept).get("/").json()["user"] == "ada"
    assert visitor(ours(keys=Keyring(old)), kept).get("/").json()["user"] is None


def test_it_ends_on_both_clocks_and_is_renewed_by_reading() -> None:
    now = [NOW]
    client = TestClient(ours(max_age=1000, absolute_timeout=timedelta(seconds=3000), clock=lambda: now[0]))
    client.post("/log_in", json={"user": "ada"})
    for _ in range(3):
        now[0] += 900
        assert client.get("/").json()["user"] == "ada"
    now[0] = NOW + 3000 + 61
    assert client.get("/").json()["user"] is None
    client.post("/log_in", json={"user": "ada"})
    now[0] += 1061
    assert client.get("/").json()["user"] is None


def test_another_sites_form_cannot_act_for_its_visitor() -> None:
    for made, acted in ((ours, False), (theirs, True)):
        client = TestClient(made())
        client.post("/update", json={"a": 1})
        answer = client.post("/update", json={"b": 2}, headers={"sec-fetch-site": "cross-site"})
        assert ("a" in answer.json()["session"], attributes(answer) is not None) == (acted, acted)


def test_a_state_too_large_for_a_cookie_is_refused_by_set_and_by_starlette_not_at_all() -> None:
    with pytest.raises(Exception, match="the largest keys are 'a'"):
        TestClient(ours()).post("/update", json={"a": "x" * 5000})
    assert len(TestClient(theirs()).post("/update", json={"a": "x" * 5000}).headers["set-cookie"]) > 4096


def test_the_default_lifetimes() -> None:
    client = TestClient(ours(clock=lambda: NOW))
    assert "max-age=1209600" in attributes(client.post("/update", json={"a": 1}))
    year = 365 * 86_400
    client = TestClient(ours(max_age=year, clock=lambda: NOW))
    assert f"max-age={year}" in attributes(client.post("/update", json={"a": 1}))
    client = TestClient(ours(max_age=None))
    assert not any(part.startswith("max-age") for part in attributes(client.post("/update", json={"a": 1})))


def test_it_restarts_a_refused_cookie_unless_told_otherwise() -> None:
    client = visitor(ours(on_refused="reject"), "invalid")
    answer = client.get("/view")
    assert (answer.status_code, answer.json()["code"]) == (400, "session-invalid")
    assert client.get("/view").json() == {"session": {}}


# What a view does with its session, as of a dict: on both, the same


def flash_and_cart(request: Any) -> Any:
    session = request.session
    session.setdefault("cart", []).append(1)
    session |= {"flash": ["hi"]}
    session["cart"] += [2]
    return JSONResponse({"popped": session.pop("flash"), "gone": session.pop("gone", None), "rest": session, "n": len(session)})


def as_template(request: Any) -> Any:
    request.session.update(user="ada", id=7)
    return PlainTextResponse(
        jinja2.Template("{{ session.user }} {{ session.id }} {{ session.nothing }}").render(session=request.session)
    )


def cleared(request: Any) -> Any:
    request.session["user:theme"] = "dark"
    request.session.clear()
    return JSONResponse([request.session, bool(request.session), request.session == {}])


def swapped(request: Any) -> Any:
    before = copy.deepcopy(request.session)
    request.session.clear()
    request.session.update(before, a=1)
    return JSONResponse([before, request.session, pickle.loads(pickle.dumps(dict(request.session)))])


VIEWS: dict[str, Callable[[Any], Any]] = {
    "JSONResponse(session)": lambda request: JSONResponse(request.session),
    "json.dumps": lambda request: PlainTextResponse(json.dumps(request.session)),
    "orjson": lambda request: Response(orjson.dumps(request.session)),
    "isinstance": lambda request: JSONResponse(isinstance(request.session, dict)),
    "|": lambda request: JSONResponse([request.session | {"b": 2}, {"b": 2} | request.session]),
    "**": lambda request: JSONResponse([{**request.session}, dict(**request.session)]),
    "bool": lambda request: JSONResponse([bool(request.session), not request.session]),
    "scope": lambda request: JSONResponse(request.scope["session"]),
    "flash and cart": flash_and_cart,
    "template": as_template,
    "cleared": cleared,
    "swapped": swapped,
}


@pytest.mark.parametrize("row", VIEWS)
def test_a_view_that_was_written_for_starlettes_dict_answers_the_same(row: str) -> None:
    def answers(made: Any) -> list[bytes]:
        app = made()
        app.router.routes.append(Route("/row", VIEWS[row]))
        client = TestClient(app)
        client.get("/row")
        client.post("/update", json={"a": {"b": [1, {"c": None}]}})
        return [client.get("/row").content, client.get("/row").content, client.get("/view").content]

    assert answers(ours) == answers(theirs)


def test_fastapi_answers_with_the_session_as_with_a_dict() -> None:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, keys=RING, audience="shop")

    @app.get("/")
    def whole(request: Request) -> dict[str, Any]:
        request.session["n"] = request.session.get("n", 0) + 1
        return request.session

    client = TestClient(app)
    assert [client.get("/").json() for _ in range(2)] == [{"n": 1}, {"n": 2}]


def test_below_it_current_session_and_request_session_are_one() -> None:
    async def endpoint(request: Any) -> Any:
        request.session["a"] = [1]
        current_session()["a"].append(2)
        request.session["a"].append(3)
        current_session(Basket).items_seen += 1
        return JSONResponse([request.session, request.scope["dcaf.session"].to_dict()])

    app = ours()
    app.router.routes.append(Route("/both", endpoint))
    expected = {"a": [1, 2, 3], "items_seen": 1}
    client = TestClient(app)
    assert client.get("/both").json() == [expected, expected]
    assert client.get("/view").json() == {"session": expected}


def test_whoever_reads_the_whole_session_is_answered_for_himself_alone() -> None:
    for read in (
        lambda request: current_session().to_dict(),
        lambda request: dict(request.session),
        lambda request: request.session,
    ):
        app = ours()
        app.router.routes.append(Route("/whole", lambda request, read=read: JSONResponse(read(request))))
        client = TestClient(app)
        client.post("/update", json={"a": 1})
        answer = client.get("/whole")
        assert (answer.json(), answer.headers["vary"], answer.headers["cache-control"]) == ({"a": 1}, "Cookie", "no-store")
    assert "vary" not in client.get("/nothing").headers


def test_it_is_left_alone_where_the_session_is_not_bound() -> None:
    async def endpoint(request: Any) -> Any:
        return JSONResponse(["session" in request.scope, current_session().incr("n")])

    app = ours(bind_request_session=False)
    app.router.routes.append(Route("/unbound", endpoint))
    client = TestClient(app)
    assert [client.get("/unbound").json() for _ in range(2)] == [[False, 1], [False, 2]]


def test_what_cannot_be_kept_is_refused_where_it_is_written_and_the_rest_stays() -> None:
    def endpoint(request: Any) -> Any:
        with pytest.raises(SessionValueError, match="keys must be strings"):
            request.session[1] = 2
        with pytest.raises(SessionValueError, match="x: is not a finite number"):
            request.session.update(u=1, x=float("nan"))
        with pytest.raises(AttributeError, match="current_session"):
            request.session.incr("n")
        return JSONResponse(request.session)

    app = ours()
    app.router.routes.append(Route("/refused", endpoint))
    client = TestClient(app)
    client.post("/update", json={"a": 1})
    assert client.get("/refused").json() == client.get("/view").json()["session"] == {"a": 1}


def test_a_session_of_a_body_is_no_session_here() -> None:
    answer = TestClient(ours()).post("/update", json={"data": {"session": {"admin": True}}})
    assert answer.json() == {"session": {"data": {}}}


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"secret_key": "x" * 32}, "dcaf keys new"),
        ({"keys": "not-a-key"}, "dcaf keys new"),
        ({"keys": None}, "dcaf keys new"),
        ({"carriers": ("body",)}, "dcaf.SessionMiddleware"),
        ({"idle_timeout": timedelta(days=1)}, "max_age="),
        ({"audience": ""}, "audience="),
        ({"max_age": 0}, "max_age="),
        ({"max_age": 1.5}, "max_age="),
        ({"max_age": True}, "max_age="),
        ({"same_site": "none"}, "secure=True"),
        ({"max_age": 3600, "absolute_timeout": timedelta(seconds=60)}, "absolute_timeout"),
    ],
)
def test_a_wrong_setting_is_told_when_it_is_built(settings: Any, message: str, monkeypatch: Any) -> None:
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    with pytest.raises(ConfigurationError, match=message):
        SessionMiddleware(Starlette(), **{"keys": RING, "audience": "shop", **settings})


def test_both_middlewares_together_are_told() -> None:
    app = Starlette(middleware=[Middleware(Original, secret_key="x"), Middleware(SessionMiddleware, keys=RING, audience="shop")])
    with pytest.raises(ConfigurationError, match="Starlette"):
        TestClient(app).get("/")


def test_starlettes_own_cookie_is_started_anew() -> None:
    before = TestClient(theirs())
    before.post("/update", json={"a": 1})
    assert json.loads(base64.b64decode(before.cookies["session"].split(".")[0])) == {"a": 1}
    client = visitor(ours(), before.cookies["session"])
    assert client.get("/view").json() == {"session": {}}
    assert "session" not in client.cookies
