"""The state that a server keeps: its token says where, its turns merge, and what they stage is written with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest

from dcaf import Session
from dcaf.asgi import checkpoint
from dcaf.core import OpenRequest, Payload, SessionStore, SessionValueError, StatelessLease
from dcaf.core.base64url import decode
from dcaf.core.rebasing import RebasableState
from tests.asgi.sockets import Peer
from tests.asgi.wire import Recorder, call, mounted
from tests.seam.seam_turns import Client, cancelled, service
from tests.stores_for_tests import MemoryService, ServiceLease


def at(session: Any) -> Any:
    return {"data": {"session": session}}


def parts(envelope: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The claims and the state of a signed token."""
    _, _, claims, state, _ = envelope["dcaf"]["token"].split(".")
    return json.loads(decode(claims)), json.loads(decode(state))


def served(store: SessionStore, tool: Any, session: Any = None, **settings: Any) -> Any:
    sent = call(mounted(Recorder(tool=tool), store=store, **settings), {} if session is None else at(session))
    assert sent.status == 200, sent.body
    return sent.envelope


def test_the_token_says_where_the_state_is_and_the_mirror_shows_it() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(step=1, cart=["a"]))
    claims, state = parts(first)
    assert (claims["at"], claims["seq"], state) == ("server", 1, {})
    assert {key: value for key, value in first.items() if key != "dcaf"} == {"step": 1, "cart": ["a"]}
    second = served(store, lambda session: session["cart"].append("b"), first)
    assert (parts(second)[0]["seq"], second["cart"]) == (2, ["a", "b"])


def test_an_untouched_session_rests() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(step=1))
    assert served(store, None, first) == first


def test_an_older_token_goes_on_from_the_newest_state() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.incr("n"))
    served(store, lambda session: session.incr("n"), first)
    third = served(store, None, first)
    assert (third["n"], parts(third)[0]["seq"]) == (2, 2)


def test_a_session_moves_to_the_server_and_keeps_its_number() -> None:
    store = MemoryService()
    first = served(None, lambda session: session.update(step=1))  # type: ignore[arg-type]
    second = served(store, None, first)
    assert (parts(second)[0]["seq"], parts(second)[0]["at"], second["step"]) == (1, "server", 1)
    assert served(store, lambda session: session.incr("step"), second)["step"] == 2


def test_a_state_on_the_server_has_not_the_limit_of_a_token() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(long="x" * 5000), max_token_bytes=2000, mirror=False)
    assert len(first["dcaf"]["token"]) < 600
    assert served(store, lambda session: session.incr("n"), first, max_token_bytes=2000)["long"] == "x" * 5000


def test_a_state_of_an_older_schema_is_brought_to_the_present_one() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(step=1))
    settings: dict[str, Any] = {"version": 1, "migrations": {1: lambda values: {"stage": values["step"]}}}
    second = served(store, None, first, **settings)
    assert ({key: value for key, value in second.items() if key != "dcaf"}, parts(second)[0]["seq"]) == ({"stage": 1}, 2)
    assert store.sessions[parts(second)[0]["sid"]].version == 1
    assert served(store, lambda session: session.incr("stage"), first, **settings)["stage"] == 2


async def side_by_side(store: MemoryService, first: Any, *tools: Any) -> list[Any]:
    """Turns that have all been opened before the first of them commits."""
    opened, barrier = [], asyncio.Event()

    def application(tool: Any) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            tool(scope["dcaf.session"])
            opened.append(1)
            if len(opened) == len(tools):
                barrier.set()
            await barrier.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": b"{}"})

        return app

    clients = [Client(service(store, application(tool), subject=None), first) for tool in tools]
    return [found["data"]["session"] for found in await asyncio.gather(*(client.turn() for client in clients))]


def test_turns_side_by_side_lose_nothing() -> None:
    """Counts, appends and members of their own, by the session and by what was handed out of it."""
    store = MemoryService()
    first = served(store, lambda session: session.update(n=1, log=["a"], cart={"x": 1}))

    def one(session: Session) -> None:
        session.incr("n", 10)
        session.append("log", "one")
        session["cart"]["one"] = 1
        session["mine"] = True

    def other(session: Session) -> None:
        session.incr("n", 100)
        session.append("log", "other")
        session["cart"]["other"] = 2
        session["temp:x"] = 1

    found = asyncio.run(side_by_side(store, first, one, other))
    kept = json.loads(next(iter(store.sessions.values())).payload.data)
    earlier, later = sorted(found, key=lambda envelope: parts(envelope)[0]["seq"])
    order = ["a", "other", "one"] if "mine" not in earlier else ["a", "one", "other"]
    assert kept == {"n": 111, "log": order, "cart": {"x": 1, "one": 1, "other": 2}, "mine": True}
    assert {key: value for key, value in later.items() if key != "dcaf"} == kept
    assert [parts(envelope)[0]["seq"] for envelope in (earlier, later)] == [2, 3]


def test_ten_turns_side_by_side_lose_nothing() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(n=0))
    asyncio.run(side_by_side(store, first, *[lambda session: session.incr("n")] * 10))
    assert json.loads(next(iter(store.sessions.values())).payload.data) == {"n": 10}


def test_where_both_changed_one_value_the_later_is_kept_and_the_operator_is_told(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(name="a"))
    tools = [lambda session, name=name: session.update(name=name) for name in "bc"]
    later = max(asyncio.run(side_by_side(store, first, *tools)), key=lambda envelope: parts(envelope)[0]["seq"])
    assert json.loads(next(iter(store.sessions.values())).payload.data) == {"name": later["name"]}
    assert "another turn had changed 1 values" in caplog.text


def test_control_a_store_that_is_not_asked_for_the_latest_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its compare-and-set refuses the later turn: nothing is lost silently."""

    async def latest(self: Any) -> None:
        return None

    monkeypatch.setattr("tests.stores_for_tests.ServiceLease.latest", latest)
    store = MemoryService()
    first = served(store, lambda session: session.update(n=0))
    with pytest.raises(KeyError):
        asyncio.run(side_by_side(store, first, *[lambda session: session.incr("n")] * 2))


def test_control_a_rebase_that_forgets_what_counts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RebasableState, "_remember", lambda *_: None)
    with pytest.raises(AssertionError):
        test_ten_turns_side_by_side_lose_nothing()


def test_what_a_turn_stages_is_written_with_its_state_or_not_at_all() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(n=0))

    def say(session: Session) -> None:
        session._state.lease.messages.append("hello")  # type: ignore[union-attr]
        session.incr("n")

    def fail(session: Session) -> None:
        say(session)
        raise RuntimeError

    second = served(store, say, first)
    with pytest.raises(RuntimeError):
        call(mounted(Recorder(tool=fail), store=store), at(second))
    assert next(iter(store.sessions.values())).messages == ["hello"]


def test_a_socket_keeps_one_session_whose_state_others_write_too() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(n=0, log=[]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["dcaf.session"]
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            session.incr("n")
            session["log"].append("socket")
            await send({"type": "websocket.send", "text": '{"type":"done"}'})

    with Peer(mounted(app, store=store)) as peer:
        one = peer.ask(at(first))["data"]["session"]
        served(store, lambda session: (session.incr("n", 10), session.append("log", "request")), one)
        two = peer.ask({})["data"]["session"]
        served(store, lambda session: (session.incr("n", 10), session.append("log", "request")), one)
        three = peer.ask(at(two))["data"]["session"]
    assert [found["n"] for found in (one, two, three)] == [1, 12, 23]
    assert three["log"] == ["socket", "request", "socket", "request", "socket"]


def test_a_turn_may_be_cancelled_at_every_await() -> None:
    for shape in ("ok", "stream"):
        for after in range(40):
            store = MemoryService()
            client = Client(service(store))
            asyncio.run(client.turn())
            asyncio.run(cancelled(client.turn(shape), after, "task"))
            asyncio.run(client.turn())
            assert client.answers[-1] == (200, None), (shape, after)


class Mirroring:
    """Keeps a state, which the token carries too: as while it moves back to its clients."""

    level = "mirroring"

    def __init__(self, *payloads: bytes) -> None:
        self.payloads = payloads

    async def open(self, request: OpenRequest) -> Any:
        return MirroringLease(request, self.payloads)


class MirroringLease(StatelessLease):
    def __init__(self, request: OpenRequest, payloads: Any) -> None:
        super().__init__(request)
        self.coming = [*payloads]
        self.payload = Payload(self.coming.pop(0)) if self.coming else None

    async def latest(self) -> Payload | None:
        if not self.coming:
            return None
        self.revision, self.sequence = self.sequence, self.sequence + 1
        return Payload(self.coming.pop(0))


@pytest.mark.parametrize("payloads", [[b'{"n":5}', b'{"n":20}'], [b'{"n":20}']])
def test_a_state_that_the_token_carries_too_merges_as_well(payloads: list[bytes]) -> None:
    class Store(Mirroring):
        async def open(self, request: OpenRequest) -> Any:
            lease = await super().open(request)
            lease.payload, lease.coming = (lease.payload, lease.coming) if len(payloads) > 1 else (None, [*payloads])
            return lease

    store = Store(*payloads)
    found = served(store, lambda session: session.incr("n"), served(store, lambda session: session.incr("n")))
    assert (found["n"], parts(found)[1]) == (21, {"n": 21})


def test_a_state_that_moves_back_into_the_token_has_its_limit() -> None:
    def fill(session: Session) -> None:
        with pytest.raises(SessionValueError, match="larger than"):
            session["more"] = "x" * 3000

    first = served(MemoryService(), lambda session: session.update(n=1))
    found = served(Mirroring(b'{"n":1}'), fill, first, max_token_bytes=2000)
    assert (found["n"], "at" in parts(found)[0], parts(found)[1]) == (1, False, {"n": 1})


def test_a_commit_whose_turn_is_cancelled_meanwhile_is_not_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of a stream, under a time-out of the application's own."""
    original = ServiceLease.commit

    async def slowly(self: Any, sealed: Any, *, ends_turn: bool) -> None:
        before = self.revision, self.sequence
        await original(self, sealed, ends_turn=ends_turn)
        after, (self.revision, self.sequence) = (self.revision, self.sequence), before
        await anyio.sleep(0.05)  # the answer of the store is on its way
        self.revision, self.sequence = after

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")]})
        scope["dcaf.session"].incr("n")
        with anyio.move_on_after(0.01):
            await checkpoint()
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n'})

    store = MemoryService()
    first = served(store, lambda session: session.update(n=0))
    monkeypatch.setattr(ServiceLease, "commit", slowly)
    call(mounted(app, store=store), at(first))
    assert json.loads(next(iter(store.sessions.values())).payload.data) == {"n": 1}


def test_a_commit_whose_answer_was_lost_is_not_laid_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next frame of a socket goes on from what the store has."""
    original, calls = ServiceLease.commit, []

    async def lost(self: Any, sealed: Any, *, ends_turn: bool) -> None:
        before = self.revision, self.sequence
        await original(self, sealed, ends_turn=ends_turn)
        calls.append(1)
        if len(calls) == 1:
            self.revision, self.sequence = before
            raise ConnectionError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            scope["dcaf.session"].incr("n")
            await send({"type": "websocket.send", "text": '{"type":"done"}'})

    store = MemoryService()
    first = served(store, lambda session: session.update(n=0))
    monkeypatch.setattr(ServiceLease, "commit", lost)
    with Peer(mounted(app, store=store)) as peer:
        assert peer.ask(at(first))["code"] == "session-unavailable"
        assert peer.ask({})["data"]["session"]["n"] == 2


def test_a_state_of_a_newer_schema_is_dropped_by_nobody() -> None:
    store = MemoryService()
    first = served(store, lambda session: session.update(step=1))
    next(iter(store.sessions.values())).version = 3
    sent = call(mounted(Recorder(), store=store, on_refused="restart"), at(first))
    assert (sent.status, sent.code) == (503, "session-unavailable")
    assert "data" not in sent.json
