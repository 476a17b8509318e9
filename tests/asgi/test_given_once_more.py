"""A session whose answer was lost goes out once more by what the refused one came by: body, header, cookie, or a handshake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcaf.asgi import SessionMiddleware, lifecycle
from dcaf.core import Key, Keyring, OpenRequest, SessionConflict, SessionSuperseded, StatelessStore
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, Recorder, Sent, call, envelope, opened
from tests.stores_for_tests import MemoryLedger

CARRIERS = ("body", "header", "cookie")
CROSS = (b"sec-fetch-site", b"cross-site")
ANSWERS: dict[str, Any] = {"websocket.http.response": {}}


def service(store: Any, **settings: Any) -> SessionMiddleware:
    app = Recorder(tool=lambda session: session.incr("n"))
    given: dict[str, Any] = {"keys": RING, "audience": AUDIENCE, "carriers": CARRIERS, "subject": lambda _: "ada", "store": store}
    return SessionMiddleware(app, **{**given, **settings})


async def talk(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        scope["dcaf.session"].incr("n")
        await send({"type": "websocket.send", "text": '{"type":"done"}'})


def socket_service(store: Any) -> SessionMiddleware:
    given: dict[str, Any] = {"keys": RING, "audience": AUDIENCE, "carriers": CARRIERS, "subject": lambda _: "ada", "store": store}
    return SessionMiddleware(talk, **given)


def by(carrier: str, token: str) -> Any:
    """The headers of a request with a token."""
    value = token.encode()
    field = (b"dcaf-session", value) if carrier == "header" else (b"cookie", b"__Host-dcaf=" + value)
    return (JSON_TYPE, field)


def written(sent: Any, carrier: str) -> str | None:
    """The token that an answer puts into a carrier; None where it puts none."""
    fields = dict(sent.start["headers"])
    if carrier == "header":
        found = fields.get(b"dcaf-session")
        return None if found is None else found.decode()
    found = fields.get(b"set-cookie")
    return None if found is None else found.split(b";")[0].partition(b"=")[2].decode()


def lose(app: Any, carrier: str, *, asks: Any = None) -> tuple[str, str, Sent]:
    """A turn, a second whose answer is lost, and that once more or another one: first and second token, and the refusal."""
    first = written(call(app, {"a": 1}, headers=by(carrier, "new")), carrier)
    assert first is not None
    second = written(call(app, {"a": 2}, headers=by(carrier, first)), carrier)
    assert second is not None
    return first, second, call(app, asks or {"a": 2}, headers=by(carrier, first))


@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_it_comes_by_the_carrier_and_its_client_goes_on(carrier: str) -> None:
    app = service(MemoryLedger())
    _, second, refused = lose(app, carrier)
    assert (refused.status, refused.code, refused.json["applied"]) == (409, "session-conflict", True)
    assert written(refused, carrier) == second
    assert "data" not in refused.json
    assert second.encode() not in refused.body
    again = written(call(app, {"a": 3}, headers=by(carrier, second)), carrier)
    assert again is not None
    assert call(app, {"a": 4}, headers=by(carrier, again)).status == 200


def test_control_a_refusal_that_brings_nothing_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(lifecycle, "_write_token", lambda carrier, scope, token, life_s, headers: headers)
    with pytest.raises(AssertionError):
        test_it_comes_by_the_carrier_and_its_client_goes_on("cookie")


@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_what_was_not_applied_is_told_and_may_be_sent_again(carrier: str) -> None:
    app = service(MemoryLedger())
    _, second, refused = lose(app, carrier, asks={"a": "another"})
    assert refused.json["applied"] is False
    assert written(refused, carrier) == second
    assert call(app, {"a": "another"}, headers=by(carrier, second)).status == 200


def test_the_cookie_lives_as_long_as_its_token_does() -> None:
    now = [1_789_000_000]
    app = service(MemoryLedger(clock=lambda: now[0]), clock=lambda: now[0])
    first = written(call(app, {"a": 1}, headers=by("cookie", "new")), "cookie")
    assert first is not None
    call(app, {"a": 2}, headers=by("cookie", first))
    now[0] += 400
    fields = dict(call(app, {"a": 2}, headers=by("cookie", first)).start["headers"])
    assert f"Max-Age={7 * 86_400 - 400};".encode() in fields[b"set-cookie"]
    assert fields[b"cache-control"] == b"no-store"


def test_where_the_body_had_the_session_the_body_brings_it_and_no_header_does() -> None:
    app = service(MemoryLedger())
    first = call(app, {"data": {"session": {"dcaf": {"token": "new"}}}}).envelope
    second = call(app, {"data": {"session": first}}).envelope
    refused = call(app, {"data": {"session": first}})
    assert refused.envelope == second
    assert written(refused, "header") is written(refused, "cookie") is None


def test_a_cookie_client_gets_by_its_cookie_what_was_lost_in_a_body() -> None:
    """Scripts can read a body, and no cookie of ours."""
    app = service(MemoryLedger())
    first = call(app, {"data": {"session": {"dcaf": {"token": "new"}}}}).envelope
    second = call(app, {"data": {"session": first}}).envelope
    refused = call(app, {"a": 2}, headers=by("cookie", first["dcaf"]["token"]))
    assert written(refused, "cookie") == second["dcaf"]["token"]
    assert b"dcaf1" not in refused.body


def test_an_unsafe_request_of_another_site_gets_no_cookie() -> None:
    app = service(MemoryLedger())
    first, second, _ = lose(app, "cookie")
    foreign = call(app, {"a": 2}, headers=(*by("cookie", first), CROSS))
    assert written(foreign, "cookie") is None
    assert second.encode() not in b"".join(value for _, value in foreign.start["headers"]) + foreign.body


@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_after_a_rotation_of_keys_it_is_of_the_new_one(carrier: str) -> None:
    old, new, ledger = Key.generate("k6"), Key.generate("k7"), MemoryLedger()
    first, second, _ = lose(service(ledger, keys=Keyring(old)), carrier)
    refused = call(service(ledger, keys=Keyring(new, old)), {"a": 2}, headers=by(carrier, first))
    found = written(refused, carrier)
    assert found is not None
    assert found.startswith("dcaf1s.k7.")
    assert found != second
    assert call(service(ledger, keys=Keyring(new)), {"a": 3}, headers=by(carrier, found)).status == 200


class Losing(StatelessStore):
    """Whoever comes had lost an answer, which cannot be decrypted here."""

    async def open(self, request: OpenRequest) -> Any:
        if request.claims is None:
            return await super().open(request)
        raise SessionConflict(reason="lost", kept=b"k9.nothing", applied=True)


@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_where_its_key_is_gone_the_session_is_superseded_and_nothing_is_dropped(carrier: str) -> None:
    token = envelope({"n": 1}, subject="ada")["dcaf"]["token"]
    refused = call(service(Losing()), {"a": 2}, headers=by(carrier, token))
    assert (refused.status, refused.code) == (409, SessionSuperseded.code)
    assert written(refused, carrier) is None
    assert "data" not in refused.json
    assert "applied" not in refused.json


@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_a_handshake_brings_it_where_the_server_can_answer_one(carrier: str) -> None:
    app = service(MemoryLedger())
    first, second, _ = lose(app, carrier)
    headers = [*by(carrier, first), (b"host", b"shop.example"), (b"origin", b"https://shop.example")]
    with Peer(app, headers=headers, extensions=ANSWERS) as peer:
        start, body = peer.opening, peer.hear()
        peer.join()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 409)
    assert written(Sent([start]), carrier) == second
    assert json.loads(body["body"])["code"] == "session-conflict"
    with Peer(app, headers=headers) as peer:
        assert peer.opening == {"type": "websocket.close", "code": 1008, "reason": "session-conflict"}
        peer.join()


def test_a_handshake_of_another_site_gets_no_cookie() -> None:
    ledger = MemoryLedger()
    first, _, _ = lose(service(ledger), "cookie")
    headers = [*by("cookie", first), (b"host", b"shop.example"), (b"origin", b"https://evil.example")]
    with Peer(socket_service(ledger), headers=headers, extensions=ANSWERS) as peer:
        assert peer.opening == {"type": "websocket.accept"}


def test_on_a_socket_the_error_frame_has_it_and_the_next_frame_goes_on() -> None:
    ledger = MemoryLedger()
    app = service(ledger)
    first = call(app, {"data": {"session": {"dcaf": {"token": "new"}}}}).envelope
    second = call(app, {"data": {"session": first}}).envelope

    with Peer(socket_service(ledger)) as peer:
        refused = peer.ask({"data": {"session": first}})
        assert (refused["type"], refused["code"], refused["applied"]) == ("error", "session-conflict", False)
        given = refused["data"]["session"]
        assert given == second
        assert given["dcaf"]["retry"] is True
        assert peer.ask({"data": {"session": given}})["data"]["session"]["n"] == 3


def test_every_envelope_of_such_a_store_has_the_hint_and_none_of_another_has() -> None:
    for store, hint in ((MemoryLedger(), True), (StatelessStore(), None), (None, None)):
        found = call(service(store), {"data": {"session": {"dcaf": {"token": "new"}}}}).envelope
        assert found["dcaf"].get("retry") is hint


def test_the_helper_reads_what_it_writes() -> None:
    app = service(None, subject=None)
    token = written(call(app, {"a": 1}, headers=by("header", "new")), "header")
    assert token is not None
    assert opened({"dcaf": {"token": token}}) == {"n": 1}
