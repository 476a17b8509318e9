"""What a store is asked, in which order, and what its answers come to."""

from __future__ import annotations

import asyncio
import json
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcaf import Key, Keyring, SessionHost
from dcaf.asgi import Import
from dcaf.core import (
    Binding,
    IdempotencyKeyReused,
    OpenRequest,
    SessionClosedError,
    SessionConflict,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
    StatelessStore,
)
from dcaf.core.claims import Claims
from dcaf.core.single_use import spend
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, Recorder, call, envelope, mounted
from tests.seam.seam_turns import Client, service
from tests.stores_for_tests import MemoryLedger, MemoryService, ToldStore


def at(session: Any) -> Any:
    return {"data": {"session": session}}


def count(session: Any) -> None:
    session.incr("n")


BEGINNINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "new": ({}, {}),
    "arrived": (at(envelope({"n": 1})), {}),
    "a fresh start that was wished": (at({"dcaf": {"token": "new"}}), {}),
    "restarted": (at({"dcaf": {"token": "dcaf1s.x.y.z.w"}}), {"on_refused": "restart"}),
    "imported": (
        at({"n": 3}),
        {"unsigned": Import(until=datetime.now(UTC) + timedelta(days=2), accept=lambda plain: plain)},
    ),
    "ignored": (at({"n": 3}), {"unsigned": "ignore"}),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_every_session_is_opened_before_the_application_runs(beginning: str) -> None:
    body, settings = BEGINNINGS[beginning]
    store = ToldStore()

    def run(session: Any) -> None:
        store.steps.append("application")  # type: ignore[arg-type]
        count(session)

    sent = call(mounted(Recorder(tool=run), store=store, **settings), body)
    assert (sent.status, store.steps) == (200, ["open", "application", "latest", "commit", "release"])
    request, (sealed, ends_turn) = store.requests[0], store.committed[0]
    assert (request.claims is None, request.is_safe) == (beginning != "arrived", False)
    assert (request.session_id, sealed.is_changed, ends_turn) == (sealed.claims.sid, True, True)
    assert json.loads(sealed.envelope) == sent.envelope
    assert sent.envelope["dcaf"]["token"].encode() == sealed.token


def test_the_store_without_a_memory_does_what_no_store_does() -> None:
    """To the byte: with the same clock and the same randomness."""
    settings: dict[str, Any] = {"clock": lambda: 1_900_000_000.0, "randomness": lambda size: b"r" * size}
    bodies: list[Any] = [{}, at(envelope({"n": 1}, clock=lambda: 1_900_000_000.0))]
    for body in bodies:
        answers = [call(mounted(Recorder(tool=count), store=store, **settings), body).body for store in (None, StatelessStore())]
        assert answers[0] == answers[1]


REFUSALS: dict[str, tuple[BaseException, int, str]] = {
    "ended": (SessionEnded(reason="revoked"), 409, "session-ended"),
    "busy": (SessionConflict(reason="busy"), 409, "session-conflict"),
    "superseded": (SessionSuperseded(reason="seq"), 409, "session-superseded"),
    "reused": (IdempotencyKeyReused(reason="key"), 422, "idempotency-key-reused"),
    "away": (SessionUnavailable(reason="down"), 503, "session-unavailable"),
    "a driver's error": (ConnectionError("password=hunter2"), 503, "session-unavailable"),
    "a bug": (KeyError("subject"), 503, "session-unavailable"),
    "a time-out": (TimeoutError(), 503, "session-unavailable"),
}


@pytest.mark.parametrize("step", ["open", "latest", "commit"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_whatever_a_store_raises_has_its_answer(refusal: str, step: str, caplog: pytest.LogCaptureFixture) -> None:
    error, status, code = REFUSALS[refusal]
    happening: dict[str, Any] = {step: error}
    store = ToldStore(**happening)
    sent = call(mounted(Recorder(tool=count), store=store), at(envelope({"n": 1})))
    assert (sent.status, sent.code) == (status, code)
    assert "hunter2" not in caplog.text
    assert "hunter2" not in sent.body.decode()
    assert store.steps[-1] == ("release" if step != "open" else "open")


@pytest.mark.parametrize("step", ["open", "commit"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_on_a_socket_it_is_an_error_frame_and_the_connection_stays(refusal: str, step: str) -> None:
    error, _, code = REFUSALS[refusal]
    store = ToldStore()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            count(scope["dcaf.session"])
            await send({"type": "websocket.send", "text": '{"type":"done"}'})

    with Peer(mounted(app, store=store)) as peer:
        store.happening[step] = error
        told = peer.ask(at(envelope({"n": 1})))
        assert (told["type"], told["code"]) == ("error", code)
        store.happening.clear()
        assert peer.ask(at(envelope({"n": 1})))["data"]["session"]["n"] == 2


def test_a_store_that_cannot_release_is_told_of_and_the_answer_stays(caplog: pytest.LogCaptureFixture) -> None:
    sent = call(mounted(Recorder(tool=count), store=ToldStore(release=ConnectionError("hunter2"))), {})
    assert (sent.status, sent.envelope["n"]) == (200, 1)
    assert "could not release a session: ConnectionError" in caplog.text
    assert "hunter2" not in caplog.text


def test_one_user_is_one_under_every_key() -> None:
    one, two, store, session = Key.generate("one"), Key.generate("two"), ToldStore(), None
    for ring in (Keyring(one), Keyring(one), Keyring(two, one), Keyring(two, one)):
        app = mounted(Recorder(tool=count), keys=ring, store=store, subject=lambda scope: "ada")
        session = call(app, at(session)).envelope
    assert {request.binding.subject for request in store.requests} == {"ada"}
    assert "ada" not in repr(store.requests)


def test_what_is_committed_is_what_is_sealed_whatever_is_written_meanwhile() -> None:
    """And that belongs to the next seal."""
    sessions: list[Any] = []

    def write_meanwhile(_: Any) -> None:
        if len(store.committed) == 0:
            sessions[0]["b"] = 2
            sessions[0]["list"].append("x")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["dcaf.session"]
        sessions.append(session)
        session["a"], session["list"] = 1, []
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")]})
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n', "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    store = ToldStore(commit=write_meanwhile)
    sent = call(mounted(app, store=store), {})
    committed = [(sealed.claims.seq, json.loads(sealed.payload.data)) for sealed, _ in store.committed]
    assert committed == [(1, {"a": 1, "list": []}), (2, {"a": 1, "list": ["x"], "b": 2})]
    told = [json.loads(line)["data"]["session"] for line in sent.body.splitlines()]
    assert [{key: value for key, value in state.items() if key != "dcaf"} for state in told] == [state for _, state in committed]
    assert [state["dcaf"]["token"].encode() for state in told] == [sealed.token for sealed, _ in store.committed]


def test_a_request_is_known_by_all_of_it() -> None:
    seen: list[bytes | None] = []
    store = ToldStore(open=lambda request: seen.append(request.identity()))
    app = mounted(Recorder(), store=store)
    asks: list[dict[str, Any]] = [
        {},
        {"method": "PUT"},
        {"path": "/other"},
        {"query_string": b"a=1"},
        {"headers": ((b"content-type", b"application/json; charset=utf-8"),)},
    ]
    for members in asks:
        for _ in range(2):
            call(app, b'{"a":1}', **members)
    call(app, b'{"a":2}')
    call(app, [b'{"a"', b":1}"])
    assert all(seen)
    assert seen[0:10:2] == seen[1:10:2]
    assert len(set(seen[:11])) == 6
    assert seen[11] == seen[0]


def test_a_body_that_was_not_read_whole_has_no_identity() -> None:
    seen: list[Any] = []
    store = ToldStore(open=lambda request: seen.append(request.identity()))
    call(mounted(Recorder(), store=store), [b"text", b"more"])
    assert seen == [None]


@pytest.mark.parametrize(
    ("method", "is_safe"), [("GET", True), ("HEAD", True), ("OPTIONS", True), ("POST", False), ("DELETE", False)]
)
def test_a_store_knows_whether_the_method_is_safe_and_the_key_of_the_request(method: str, is_safe: bool) -> None:
    store = ToldStore()
    call(mounted(Recorder(), store=store), b"", method=method, headers=(JSON_TYPE, (b"idempotency-key", b"k1")))
    assert [(request.is_safe, request.idempotency_key) for request in store.requests] == [(is_safe, "k1")]


def test_the_handshake_of_a_socket_is_safe_and_its_frames_are_not() -> None:
    store = ToldStore()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": '{"type":"done"}'})
        await receive()

    with Peer(mounted(app, store=store)) as peer:
        peer.ask(at(envelope({"n": 1})))
    assert [request.is_safe for request in store.requests] == [True, False]


@pytest.mark.parametrize("store", [None, StatelessStore(), MemoryLedger()])
def test_a_process_that_does_not_have_what_a_token_says_is_kept_drops_nothing(store: Any) -> None:
    client = Client(service(MemoryService(), subject=None))
    asyncio.run(client.turn())
    found = call(mounted(Recorder(), store=store, on_refused="restart"), at(client.session))
    assert (found.status, found.code) == ((503, "session-unavailable") if store is None or store.level == "L0" else (200, None))
    assert "data" not in found.json or found.status == 200


def test_an_epoch_that_nobody_here_knows_is_unavailable() -> None:
    client = Client(service(MemoryLedger(), subject=lambda scope: "ada"))
    asyncio.run(client.turn())
    found = call(mounted(Recorder(), subject=lambda scope: "ada", on_refused="restart"), at(client.session))
    assert (found.status, found.code, "data" in found.json) == (503, "session-unavailable", False)


def test_an_answer_that_was_lost_is_given_once_more() -> None:
    ledger = MemoryLedger()
    client = Client(service(ledger))
    asyncio.run(client.turn())
    older = client.session
    asyncio.run(client.turn())
    newer, client.session = client.session, older
    found = asyncio.run(client.turn())
    assert client.answers[-1] == (409, "session-conflict")
    assert found["applied"] is True  # to send it again would do it twice
    assert client.session == newer
    assert client.session["dcaf"]["retry"] is True  # of a later turn: this service knows what was done
    assert asyncio.run(client.turn())["n"] == 3


def test_a_request_that_was_not_applied_may_be_sent_again() -> None:
    ledger = MemoryLedger()
    client = Client(service(ledger))
    asyncio.run(client.turn())
    older = client.session
    asyncio.run(client.turn("stream"))
    client.session = older
    found = asyncio.run(client.turn("ok"))
    assert (found["code"], found["applied"], found["data"]["session"]["dcaf"]["retry"]) == ("session-conflict", False, True)


def test_the_newer_session_is_given_to_nobody_who_is_not_bound_and_asks_for_something_else() -> None:
    client = Client(service(MemoryLedger(), subject=None))
    asyncio.run(client.turn())
    older = client.session
    asyncio.run(client.turn())
    client.session = older
    found = asyncio.run(client.turn("stream"))
    assert client.answers[-1] == (409, "session-superseded")
    assert "data" not in found


def test_an_old_session_is_superseded_when_the_newer_one_has_come_back() -> None:
    ledger = MemoryLedger()
    client = Client(service(ledger))
    asyncio.run(client.turn())
    older = client.session
    asyncio.run(client.turn())
    asyncio.run(client.turn())
    client.session = older
    found = asyncio.run(client.turn())
    assert client.answers[-1] == (409, "session-superseded")
    assert "data" not in found


def test_a_user_is_logged_out_everywhere_and_a_session_alone() -> None:
    ledger = MemoryLedger()
    app = service(ledger, subject=lambda scope: "ada")
    one, other = Client(app), Client(app)
    for client in (one, other):
        asyncio.run(client.turn())
    ledger.revoke(next(iter(ledger.rows)))
    asyncio.run(one.turn())
    asyncio.run(other.turn())
    assert one.answers[-1] == (409, "session-ended")
    assert other.answers[-1] == (200, None)
    ledger.log_out(AUDIENCE, "ada")
    asyncio.run(other.turn())
    assert other.answers[-1] == (409, "session-ended")
    asyncio.run(other.turn())
    assert other.answers[-1] == (200, None)


def test_branches_have_numbers_of_their_own() -> None:
    ledger = MemoryLedger(branches=True)
    client = Client(service(ledger))
    asyncio.run(client.turn())
    first = client.session
    for _ in range(3):
        client.session = first
        assert asyncio.run(client.turn())["n"] == 2
    assert ([status for status, _ in client.answers], ledger.doubles) == ([200] * 4, [])


def test_the_lease_is_asked_for_what_may_be_used_once() -> None:
    ledger = MemoryLedger()
    found: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.extend([await spend(scope["dcaf.session"], keys) for keys in (["a", "b"], ["b", "c"], ["c"])])
        await Recorder()(scope, receive, send)

    call(mounted(app, store=ledger), {})
    assert found == [True, False, True]


def test_nothing_is_spent_when_the_turn_is_over() -> None:
    app = Recorder()
    call(mounted(app, store=MemoryLedger()), {})
    with pytest.raises(SessionClosedError):
        asyncio.run(spend(app.scopes[0]["dcaf.session"], ["a"]))


def test_without_a_store_nothing_is_awaited_and_all_may_be_used() -> None:
    def use(session: Any) -> None:
        with pytest.raises(StopIteration) as stopped:
            spend(session, ["a"]).send(None)
        assert stopped.value.value is True

    assert call(mounted(Recorder(tool=use)), {}).status == 200


def test_nothing_of_a_request_is_in_its_repr() -> None:
    claims = Claims("shop", "A" * 22, 1, 2, 3, 4, sub="B" * 22)
    request = OpenRequest("A" * 22, claims, Binding("shop", "ada", "t1"), idempotency_key="secret")
    assert not any(text in repr(request) for text in ("ada", "t1", "secret", "A" * 22, "B" * 22))


@pytest.mark.parametrize("step", ["open", "spend", "latest", "commit"])
def test_the_text_of_a_drivers_error_is_in_no_traceback(step: str) -> None:
    happening: dict[str, Any] = {step: ConnectionError("password=hunter2")}

    async def run() -> None:
        async with SessionHost(keys=RING, audience=AUDIENCE, store=ToldStore(**happening)).turn() as turn:
            await spend(turn.session, ["a"])

    with pytest.raises(SessionUnavailable) as caught:
        asyncio.run(run())
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("given", [b"", b"[]", b"{}", b'{"dcaf":1}', b'{"dcaf":{"token":7}}', b"\xff", "no bytes", 7])
def test_an_envelope_that_is_none_is_not_given_again(given: Any) -> None:
    """As that of a session which a header or a cookie carried."""
    sent = call(mounted(Recorder(), store=ToldStore(open=SessionConflict(envelope=given, applied=False))), at(envelope({"n": 1})))
    assert (sent.status, sent.code, sent.json.get("data")) == (409, "session-conflict", None)
