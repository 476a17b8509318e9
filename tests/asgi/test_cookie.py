"""The session in a cookie: what is set when, what a browser keeps, and what another site's page cannot do."""

from __future__ import annotations

import string
from contextlib import suppress
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dcaf import ConfigurationError, Key, Keyring
from dcaf.asgi.carriers import COOKIE_BYTES, NAME, CookieCarrier, is_foreign
from dcaf.core.errors import NotCarriedError, SessionInvalid, SessionValueError
from dcaf.core.sealer import Sealer
from dcaf.testing import tampered
from tests.asgi.wire import AUDIENCE, RING, Recorder, call, envelope, mounted, opened

NOW = 1_789_000_000
DAY = 86_400
TEXT = ((b"content-type", b"text/plain"),)
HOST = (b"host", b"shop.example")
CROSS = (b"sec-fetch-site", b"cross-site")
EVIL = (b"origin", b"https://evil.example")


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


def count(session: Any) -> None:
    session.incr("n")


def clear(session: Any) -> None:
    session.clear()


def look(session: Any) -> None:
    session.get("n")


def token(state: Any = None, **options: Any) -> str:
    found: str = envelope(state, **options)["dcaf"]["token"]
    return found


class Untouched:
    """An application that never looks at the session, unless it is given something to do with it."""

    def __init__(self, tool: Any = None, headers: Any = TEXT, status: int = 200) -> None:
        self.tool, self.headers, self.status = tool, headers, status
        self.session: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.session = scope["session"]
        if self.tool:
            self.tool(self.session)
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})


def asked(value: str | None = None, app: Any = None, *, headers: Any = (HOST,), method: str = "GET", **settings: Any) -> Any:
    """One request with a cookie, or without."""
    sent_along = [] if value is None else [(b"cookie", b"a=1; __Host-dcaf=" + value.encode() + b"; b=2")]
    service = mounted(app or Untouched(), **{"carriers": ("cookie",), **settings})
    return call(service, b"", method=method, headers=[*headers, *sent_along])


def set_by(sent: Any) -> Any:
    """The one cookie that an answer sets: its value and its attributes; None where it sets none."""
    found = [value for name, value in sent.headers if name == "set-cookie"]
    assert len(found) < 2, found
    if not found:
        return None
    return SimpleCookie(found[0])["__Host-dcaf"]


def state_set_by(sent: Any) -> Any:
    morsel = set_by(sent)
    return morsel and opened({"dcaf": {"token": morsel.value}})


# What is set when


def test_a_change_is_set_with_the_attributes_of_a_safe_cookie() -> None:
    sent = asked(None, Untouched(count), clock=lambda: NOW)
    said = next(value for name, value in sent.headers if name == "set-cookie")
    assert said.startswith("__Host-dcaf=dcaf1s.k7.")
    assert said.partition("; ")[2] == "Max-Age=604800; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert (sent.header("vary"), sent.header("cache-control")) == ("Cookie", "no-store")


def test_the_cookie_ends_with_the_session() -> None:
    sealer = Sealer(keys=RING, audience=AUDIENCE, clock=lambda: NOW - 29 * DAY)
    session = sealer.start()
    session["n"] = 1
    kept = sealer.token(session, sealer.binding(), sequence=1).decode()
    later: Any = {"idle_timeout": timedelta(days=30), "absolute_timeout": timedelta(days=30), "clock": lambda: NOW}
    renewed = asked(kept, Untouched(count), idle_timeout=timedelta(days=30), clock=lambda: NOW - 24 * DAY)
    assert set_by(asked(set_by(renewed).value, Untouched(count), **later))["max-age"] == str(DAY)


def test_a_session_that_nobody_looked_at_adds_nothing_to_an_answer() -> None:
    sent = asked(token({"n": 1}))
    assert sent.headers == [("content-type", "text/plain")]


@pytest.mark.parametrize("value", [None, token({"n": 1})])
def test_a_session_that_was_read_makes_the_answer_private_and_sets_nothing(value: Any) -> None:
    vary = [*TEXT, (b"vary", b"Accept"), (b"cache-control", b"public")]
    sent = asked(value, Untouched(look, headers=vary))
    assert (set_by(sent), sent.header("vary"), sent.header("cache-control")) == (None, "Accept, Cookie", "no-store")


@pytest.mark.parametrize(("age", "is_set"), [(0, False), (DAY // 2, False), (DAY * 7 // 10, False), (DAY * 7 // 10 + 1, True)])
def test_a_token_is_made_anew_after_a_tenth_of_the_idle_timeout(age: int, is_set: bool) -> None:
    kept = set_by(asked(None, Untouched(count), clock=lambda: NOW)).value
    sent = asked(kept, clock=lambda: NOW + age)
    assert (set_by(sent) is not None) is is_set
    assert sent.header("cache-control") == ("no-store" if is_set else None)


def test_parallel_requests_do_not_set_the_state_of_before() -> None:
    before = token({"n": 1})
    assert state_set_by(asked(before, Untouched(count))) == {"n": 2}
    assert set_by(asked(before, Untouched(look))) is None


def test_both_clocks_end_it() -> None:
    now = [NOW]
    settings: Any = {"clock": lambda: now[0], "idle_timeout": timedelta(days=2), "absolute_timeout": timedelta(days=5)}
    kept, app = None, Untouched(count)
    for _ in range(5):
        kept = set_by(asked(kept, app, **settings)).value
        now[0] += DAY
    assert app.session["n"] == 5
    now[0] += 61
    asked(kept, app, **settings)
    assert (app.session["n"], app.session.restarted) == (1, "session-ended")
    kept = set_by(asked(None, app, **settings)).value
    now[0] += 2 * DAY + 61
    asked(kept, app, **settings)
    assert (app.session["n"], app.session.restarted) == (1, "session-ended")


def test_an_emptied_session_deletes_the_cookie() -> None:
    sent = asked(token({"n": 1}), Untouched(clear))
    morsel = set_by(sent)
    assert (morsel.value, morsel["expires"], morsel["path"]) == ("null", "Thu, 01 Jan 1970 00:00:00 GMT", "/")
    assert sent.header("cache-control") == "no-store"


def test_an_empty_session_with_a_member_of_the_librarys_own_is_kept() -> None:
    def keep(session: Any) -> None:
        session.clear()
        session._state.keep({"once": ["a"]})

    assert set_by(asked(token({"n": 1}), Untouched(keep))).value.startswith("dcaf1s.")


def test_nothing_is_told_of_a_session_that_was_emptied() -> None:
    seen: list[Any] = []
    asked(token({"n": 1}), Untouched(clear), on_event=seen.append)
    assert seen == []


def test_a_token_of_a_key_that_signs_no_more_does_not_rest() -> None:
    old, ring = set_by(asked(None, Untouched(count), clock=lambda: NOW)).value, Keyring(Key.generate("k8"), RING.active)
    for tool, later in ((count, NOW), (look, NOW), (look, NOW + DAY)):
        sent = asked(old, Untouched(tool), keys=ring, clock=lambda: later)  # noqa: B023
        assert set_by(sent).value.startswith("dcaf1s.k8.")


def test_a_server_error_sets_nothing() -> None:
    sent = asked(token({"n": 1}), Untouched(count, status=500))
    assert (set_by(sent), sent.header("cache-control")) == (None, "no-store")


def test_the_application_reads_the_state_of_the_cookie_and_returns_it_by_the_cookie_also_in_json() -> None:
    app = Recorder(tool=count)
    sent = asked(token({"n": 4}), app, carriers=("body", "cookie"), method="POST")
    assert (app.states, state_set_by(sent), sent.json) == ([{"n": 4}], {"n": 5}, {"ok": True})


# Too long


def grow(session: Any) -> None:
    session["large"] = "x" * 5000


def test_a_state_that_no_browser_would_keep_is_refused_by_set() -> None:
    with pytest.raises(SessionValueError, match="the largest keys are 'large'"):
        asked(None, Untouched(grow))


def test_where_bodies_carry_more_a_cookie_is_refused_when_it_is_set() -> None:
    with pytest.raises(NotCarriedError, match=r"longer than the 4,084 that a cookie carries. The largest keys are 'large'"):
        asked(token({"n": 1}), Untouched(grow), carriers=("body", "cookie"))


@given(st.integers(2000, 2800))
def test_a_browser_keeps_every_cookie_that_is_set(length: int) -> None:
    def fill(session: Any) -> None:
        session["a"] = "x" * length

    try:
        sent = asked(None, Untouched(fill))
    except SessionValueError:
        return
    morsel = set_by(sent)
    assert len(morsel.key) + 1 + len(morsel.value) <= COOKIE_BYTES


def test_a_cookie_that_is_too_long_now_is_replaced_for_its_client_could_not_drop_it() -> None:
    app = Untouched(count)
    sent = asked(token({"a": "x" * 3500}), app)
    assert (app.session.restarted, state_set_by(sent)) == ("session-too-large", {"n": 1})
    refused = asked(token({"a": "x" * 3500}), on_refused="reject")
    assert (refused.status, set_by(refused).value) == (413, "null")


# Refused


WRONG = [
    tampered(envelope({"n": 1}))["dcaf"]["token"],
    "null",
    '"x"',
    token({"n": 1}, age=timedelta(days=8)),
    token({}, audience="b"),
]


@pytest.mark.parametrize("value", WRONG)
def test_a_refused_cookie_is_started_anew_and_replaced(value: str) -> None:
    app = Untouched(count)
    sent = asked(value, app)
    assert sent.status == 200
    assert app.session.restarted in ("session-invalid", "session-ended")
    assert state_set_by(sent) == {"n": 1}


def test_a_refused_cookie_is_deleted_where_nothing_takes_its_place() -> None:
    assert set_by(asked("x")).value == "null"


@pytest.mark.parametrize("value", WRONG)
def test_where_the_application_refuses_the_problem_deletes_the_cookie(value: str) -> None:
    app = Recorder()
    sent = asked(value, app, on_refused="reject")
    assert (sent.status >= 400, app.reached, set_by(sent).value) == (True, False, "null")
    assert sent.header("cache-control") == "no-store"


def test_only_a_cookie_is_started_anew_by_default() -> None:
    assert asked(carriers=("body", "header", "cookie"), headers=[HOST, (b"dcaf-session", b"x")]).code == "session-invalid"


def test_several_cookies_of_one_name_are_refused() -> None:
    both = [HOST, (b"cookie", b"__Host-dcaf=" + token({"n": 9}).encode()), (b"cookie", b"__Host-dcaf=" + token({"n": 8}).encode())]
    app = Untouched(look)
    sent = asked(None, app, headers=both)
    assert (app.session.to_dict(), app.session.restarted) == ({}, "session-invalid")
    assert asked(None, app, headers=both, on_refused="reject").code == "session-invalid"
    assert set_by(sent).value == "null"


def test_another_users_cookie_is_started_anew() -> None:
    app = Untouched(look)
    asked(token({"n": 9}, subject="eve"), app, subject=lambda scope: "ada")
    assert app.session.to_dict() == {}


# Another site


FOREIGN = [[HOST, CROSS], [HOST, EVIL], [HOST, CROSS, (b"origin", b"https://shop.example")], [HOST, (b"origin", b"null")]]
FOREIGN += [[HOST, (b"origin", b"http://[")], [EVIL], [HOST, (b"origin", b"https://shop.example.evil.example")]]
OWN = [[HOST], [HOST, (b"origin", b"https://SHOP.example")], [HOST, (b"sec-fetch-site", b"same-origin"), EVIL]]
OWN += [[HOST, (b"sec-fetch-site", b"none")], [HOST, (b"sec-fetch-site", b"same-site")]]


def assert_untouched(headers: Any, method: str = "POST") -> None:
    """A cross-site page can neither use the session of its visitor nor give him another."""
    seen: list[Any] = []
    app = Untouched(count)
    for value in (token({"n": 4}), None, "x"):
        sent = asked(value, app, headers=headers, method=method, on_event=seen.append)
        assert (sent.status, app.session["n"], set_by(sent)) == (200, 1, None)
    assert [event.name for event in seen] == ["lost"] * 3


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "ANYTHING"])
def test_on_an_unsafe_request_of_another_site_the_cookie_is_neither_read_nor_set(headers: Any, method: str) -> None:
    assert_untouched(headers, method)


@pytest.mark.parametrize("headers", FOREIGN)
def test_control_without_the_check_another_site_acts_for_its_visitor(headers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.carriers.is_foreign", lambda scope: False)
    with pytest.raises(AssertionError):
        assert_untouched(headers)


@pytest.mark.parametrize("headers", OWN)
def test_the_sites_own_pages_and_clients_that_are_no_browser_are_not_another_site(headers: Any) -> None:
    assert state_set_by(asked(token({"n": 4}), Untouched(count), headers=headers, method="POST")) == {"n": 5}


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_link_of_another_site_finds_the_session(headers: Any) -> None:
    assert state_set_by(asked(token({"n": 4}), Untouched(count), headers=headers)) == {"n": 5}


def test_the_header_is_no_matter_of_another_site() -> None:
    sent = asked(None, Untouched(count), headers=[HOST, CROSS], method="POST", carriers=("cookie", "header"))
    assert sent.header("dcaf-session") is not None
    assert set_by(sent) is None


def test_where_bodies_carry_a_cross_site_request_with_an_answer_of_text_loses_the_change_and_is_told() -> None:
    seen: list[Any] = []
    asked(None, Untouched(count), headers=[HOST, CROSS], method="POST", carriers=("body", "cookie"), on_event=seen.append)
    assert [event.name for event in seen] == ["lost"]


def test_a_handshake_is_no_safe_request() -> None:
    assert is_foreign({"type": "websocket", "headers": [HOST, EVIL]})
    assert not is_foreign({"type": "websocket", "headers": [HOST]})


# What the cookie is called and says


@pytest.mark.parametrize(
    "settings",
    [
        {"cookie": "a b"},
        {"cookie": ""},
        {"cookie": "a=b"},
        {"cookie": "ü"},
        {"cookie": "a\r\n"},
        {"cookie": "__Host-a", "path": "/x"},
        {"cookie": "__Host-a", "secure": False},
        {"cookie": "__Host-a", "domain": "shop.example"},
        {"cookie": "__Secure-a", "secure": False},
        {"cookie": "a", "secure": False, "same_site": "none"},
        {"cookie": "a", "secure": False, "partitioned": True},
        {"same_site": "Lax"},
        {"cookie": "a", "path": "/; Secure"},
        {"cookie": "a", "domain": "a\r\nSet-Cookie: b"},
    ],
)
def test_a_cookie_that_browsers_would_not_keep_is_told_at_once(settings: Any) -> None:
    with pytest.raises(ConfigurationError):
        CookieCarrier(**settings)


def scope_of(*headers: Any) -> Any:
    return {"type": "http", "method": "GET", "headers": list(headers)}


NAMES = st.text(st.sampled_from(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"), min_size=1, max_size=12)
ANY = st.text(max_size=20)
BREAKS = set("\r\n\x00;,")


@given(name=ANY, path=ANY, domain=st.none() | ANY, same_site=st.sampled_from(["lax", "strict", "none"]), secure=st.booleans())
@example(name="a", path="/\r\nx: y", domain=None, same_site="lax", secure=True)
@example(name="a", path="/", domain="b; Path=/evil", same_site="lax", secure=True)
@example(name="a\n", path="/", domain=None, same_site="lax", secure=True)
@example(name="a", path="/\x7f", domain="\x85", same_site="lax", secure=True)
@example(name="a", path="/ü", domain="日", same_site="lax", secure=True)
def test_no_setting_breaks_out_of_its_place(name: str, path: str, domain: Any, same_site: Any, secure: bool) -> None:
    try:
        carrier = CookieCarrier(name, path=path, domain=domain, same_site=same_site, secure=secure)
    except ConfigurationError:
        return
    written = carrier.write(scope_of(), [], b"dcaf1s.k.e30.e30.mac", life_s=60)
    assert written is not None
    ((field, line),) = written
    parts = line.decode("ascii").split("; ")
    assert (field, parts[0]) == (b"set-cookie", f"{name}=dcaf1s.k.e30.e30.mac")
    assert not BREAKS & set("".join(parts))
    assert all(part.isprintable() for part in parts)
    expected = ["Max-Age=60", f"Path={path}", "HttpOnly", f"SameSite={same_site.capitalize()}"]
    expected += ([f"Domain={domain}"] if domain else []) + (["Secure"] if secure else [])
    assert parts[1:] == expected


@given(NAMES, st.binary(max_size=60))
@example("a", b"x; a=y")
@example("a", b'"x"')
def test_what_is_read_of_any_cookie_line_has_no_break_in_it(name: str, line: bytes) -> None:
    assert NAME.fullmatch(name)
    carrier = CookieCarrier(name)
    headers = [(b"cookie", line + b"; " + name.encode() + b"=dcaf1s.k")]
    with suppress(SessionInvalid):
        assert carrier.read(scope_of(*headers)) == "dcaf1s.k"


# In an application


async def add(request: Any) -> Any:
    request.session.setdefault("cart", {"items": []})["items"].append("widget")
    return PlainTextResponse(str(len(request.session["cart"]["items"])))


async def leave(request: Any) -> Any:
    request.session.clear()
    return RedirectResponse("/add", 303)


async def show(request: Any) -> Any:
    return JSONResponse(request.session.to_dict())


ROUTES = [Route("/add", add), Route("/leave", leave, methods=["POST"]), Route("/show", show)]


@pytest.mark.parametrize("carriers", [("cookie",), ("body", "cookie"), ("header", "cookie")])
def test_a_browser_keeps_a_cart_and_loses_it_at_logout(carriers: Any) -> None:
    client = TestClient(mounted(Starlette(routes=ROUTES), carriers=carriers), base_url="https://shop.example")
    first = client.get("/add")
    if "header" in carriers:
        assert "dcaf-session" in first.headers
        client.headers["dcaf-session"] = first.headers["dcaf-session"]
        assert client.get("/add").text == "2"
        return
    assert client.get("/add").text == "2"
    assert client.get("/show").json() == {"cart": {"items": ["widget", "widget"]}}
    assert client.post("/leave", headers={"sec-fetch-site": "cross-site"}, follow_redirects=False).status_code == 303
    assert client.get("/add").text == "3"
    assert client.post("/leave").text == "1"


def test_an_encrypted_cookie_shows_nothing() -> None:
    sent = asked(None, Untouched(lambda session: session.set("card", "4111")), encrypt=True)
    assert set_by(sent).value.startswith("dcaf1e.")
    app = Untouched(look)
    asked(set_by(sent).value, app, encrypt=True)
    assert app.session["card"] == "4111"
