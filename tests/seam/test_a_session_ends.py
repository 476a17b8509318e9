"""``session.end()``: the client is told to drop the session, the store ends it, and a turn that fails has not ended it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dcaf import Session, current_session, tool, transaction
from dcaf.asgi import checkpoint
from dcaf.core import SessionConflict, SessionEnded, SessionUnavailable, StatelessStore
from dcaf.core.errors import NotCarriedError
from dcaf.core.lifecycle import SessionTurn
from tests.asgi.sockets import Peer
from tests.asgi.wire import call
from tests.seam.turns_that_act import Acting, count, one, refuses, session_of
from tests.stores_for_tests import MemoryLedger, MemoryService, ToldStore

WAYS = ("json", "stream", "socket", "host")
NEW = {"dcaf": {"token": "new"}}
STORES: dict[str, Any] = {"none": lambda: None, "L0": StatelessStore, "ledger": MemoryLedger, "service": MemoryService}


def end(session: Session) -> None:
    session.end()


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("way", WAYS)
def test_the_client_is_told_to_drop_it_and_begins_anew(way: str, store: str) -> None:
    service = Acting(store=STORES[store]())
    first = session_of(service.turn(count, way=way))
    ended = session_of(service.turn(end, first, way=way))
    assert ended == NEW
    assert session_of(service.turn(count, ended, way=way))["n"] == 1
    assert service.seen[-1] == {}


@pytest.mark.parametrize("way", WAYS)
def test_with_a_ledger_no_token_of_it_is_good_any_more(way: str) -> None:
    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(count, way=way))
    second = session_of(service.turn(count, first, way=way))
    service.turn(end, second, way=way)
    for older in (first, second):
        assert service.turn(count, older, way=way)["code"] == "session-ended"


@pytest.mark.parametrize("way", WAYS)
def test_control_without_one_a_copy_of_the_token_is_good(way: str) -> None:
    service = Acting(store=None)
    first = session_of(service.turn(count, way=way))
    service.turn(end, first, way=way)
    assert session_of(service.turn(count, first, way=way))["n"] == 2


async def _ignore_end(self: Any) -> None:
    self._row.claim = None


def test_control_a_ledger_that_forgets_the_end_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.stores_for_tests.LedgerLease.end", _ignore_end)
    with pytest.raises(AssertionError):
        test_with_a_ledger_no_token_of_it_is_good_any_more("json")


@pytest.mark.parametrize("way", WAYS)
def test_a_new_session_can_be_ended_too(way: str) -> None:
    service = Acting(store=MemoryLedger())
    assert session_of(service.turn(end, way=way)) == NEW


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_written_to_it_afterwards(way: str) -> None:
    found: list[bool] = []

    def end_and_write(session: Session) -> None:
        session.end()
        writes = (lambda: session.incr("n"), lambda: session.update(a=1), session.end, session.rotate, session.clear)
        found.extend(map(refuses, writes))
        found.append(session["n"] == 1)

    async def use_after(session: Session) -> None:
        end_and_write(session)
        found.append(refuses(lambda: session.once("late").send(None)))

    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(count, way=way))
    assert session_of(service.turn(use_after, first, way=way)) == NEW
    assert found == [True] * 7


@pytest.mark.parametrize("error", [SessionConflict(reason="taken"), SessionEnded(reason="revoked")], ids=lambda e: e.code)
@pytest.mark.parametrize("way", WAYS)
def test_where_the_store_refuses_that_is_the_answer(way: str, error: Exception) -> None:
    service = Acting(store=ToldStore(end=error))
    found = service.turn(end, session_of(service.turn(count, way=way)), way=way)
    assert found["code"] == error.code  # type: ignore[attr-defined]
    assert "ran" not in found


@pytest.mark.parametrize("error", [SessionUnavailable(), OSError("db:5432 is away")], ids=["refused", "failed"])
@pytest.mark.parametrize("way", WAYS)
def test_where_the_store_fails_the_client_learns_that_the_turn_ran_and_keeps_its_session(way: str, error: Exception) -> None:
    store = ToldStore(end=error)
    service = Acting(store=store)
    first = session_of(service.turn(count, way=way))
    found = service.turn(end, first, way=way)
    assert (found["code"], found["ran"], session_of(found)) == ("session-unavailable", True, None)
    store.happening.clear()
    assert session_of(service.turn(end, first, way=way)) == NEW


def test_on_a_socket_the_next_frame_without_a_session_begins_a_new_one() -> None:
    service = Acting(store=MemoryLedger())
    with Peer(service.middleware) as peer:
        service.act = count
        first = session_of(peer.ask({}))
        service.act = end
        assert session_of(peer.ask({})) == NEW
        service.act = count
        assert session_of(peer.ask({}))["n"] == 1
        assert peer.ask({"data": {"session": first}})["code"] == "session-ended"
        assert session_of(peer.ask({}))["n"] == 2


def test_on_a_socket_without_a_store_the_token_of_before_opens_a_session_that_can_be_written() -> None:
    service = Acting(store=None)
    with Peer(service.middleware) as peer:
        service.act = count
        first = session_of(peer.ask({}))
        service.act = end
        peer.ask({})
        service.act = count
        assert session_of(peer.ask({"data": {"session": first}}))["n"] == 2


@pytest.mark.parametrize("error", [SessionConflict(reason="taken"), OSError("away")], ids=["refuses", "fails"])
def test_on_a_socket_a_session_whose_end_was_refused_goes_on(error: Exception) -> None:
    store = ToldStore(end=error)
    service = Acting(store=store)
    with Peer(service.middleware) as peer:
        service.act = count
        peer.ask({})
        service.act = end
        assert "code" in peer.ask({})
        service.act = count
        assert session_of(peer.ask({}))["n"] == 2
        store.happening.clear()
        service.act = end
        assert session_of(peer.ask({})) == NEW


def test_on_a_socket_an_end_between_two_turns_comes_before_the_next() -> None:
    store = MemoryLedger()
    service = Acting(store=store)

    with Peer(service.middleware) as peer:
        sessions: list[Session] = []

        def keep(session: Session) -> None:
            sessions.append(session)
            session.incr("n")

        service.act = keep
        first = session_of(peer.ask({}))
        sessions[0].end()
        service.act = count
        peer.say({})
        assert session_of(peer.frame()) == NEW
        assert session_of(peer.frame())["n"] == 1
        assert peer.ask({"data": {"session": first}})["code"] == "session-ended"


def test_a_checkpoint_ends_it_at_once() -> None:
    store = ToldStore()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["dcaf.session"].end()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")]})
        await send({"type": "http.response.body", "body": b'{"type":"text"}\n', "more_body": True})
        await checkpoint()
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n', "more_body": False})

    service = Acting(store=store)
    service.middleware.app = app
    lines = call(service.middleware, {"data": {"session": NEW}}).body.splitlines()
    assert [b'"token":"new"' in line for line in lines] == [False, True, True]
    assert store.steps == ["open", "end", "release"]


@tool
async def leave(session: Session) -> str:
    """Log out."""
    session.end()
    return "bye"


@tool
async def leave_and_fail(session: Session) -> str:
    """Log out, and raise."""
    session.end()
    raise LookupError("a bug")


@tool
async def write(session: Session) -> str:
    """Write."""
    session["written"] = True
    return "done"


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_can_end_it_and_one_that_raises_has_not(way: str) -> None:
    async def fail(_: Session) -> None:
        with pytest.raises(LookupError):
            await leave_and_fail.run({})
        current_session().incr("n")

    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(count, way=way))
    second = session_of(service.turn(fail, first, way=way))
    assert second["n"] == 2
    assert session_of(service.turn(lambda _: leave.run({}), second, way=way)) == NEW
    assert service.turn(count, second, way=way)["code"] == "session-ended"


def test_what_a_tool_writes_beside_the_one_that_ends_it_is_refused() -> None:
    async def both(session: Session) -> None:
        found = await asyncio.gather(leave.run({}), write.run({}), write.run({}), return_exceptions=True)
        assert "bye" in found
        assert "written" not in session or session["written"]

    service = Acting(store=MemoryLedger())
    assert session_of(service.turn(both, session_of(service.turn(count)))) == NEW


def test_a_transaction_that_is_rolled_back_has_not_ended_it_and_one_that_is_kept_has() -> None:
    async def roll_back(session: Session) -> None:
        with pytest.raises(LookupError), transaction(session) as draft:
            draft.end()
            assert refuses(lambda: draft.incr("n"))
            raise LookupError("a bug")
        session.incr("n")

    def keep(session: Session) -> None:
        with transaction(session) as draft:
            draft.end()
        assert refuses(lambda: session.incr("n"))

    service = Acting(store=MemoryLedger())
    second = session_of(service.turn(roll_back, session_of(service.turn(count))))
    assert second["n"] == 2
    assert session_of(service.turn(keep, second)) == NEW


def test_a_tool_inside_a_transaction_that_has_ended_it_writes_nothing_below() -> None:
    async def act(session: Session) -> None:
        with pytest.raises(LookupError), transaction(session) as draft:
            draft.end()
            await asyncio.gather(write.run({}), return_exceptions=True)
            raise LookupError("a bug")
        assert "written" not in session

    service = Acting(store=MemoryLedger())
    service.turn(act, session_of(service.turn(count)))


def test_an_answer_that_cannot_say_so_is_an_error_and_nothing_has_ended() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["dcaf.session"].end()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(count))
    answering, service.middleware.app = service.middleware.app, app
    with pytest.raises(NotCarriedError):
        service.turn(one, first)
    service.middleware.app = answering
    assert session_of(service.turn(count, first))["n"] == 2


@pytest.mark.parametrize("way", WAYS)
def test_control_an_end_that_is_not_asked_of_the_store_is_caught(way: str, monkeypatch: Any) -> None:
    async def forget(self: Any) -> None:
        self.session._state.mark_closed()

    monkeypatch.setattr(SessionTurn, "_end", forget)
    with pytest.raises(AssertionError):
        test_with_a_ledger_no_token_of_it_is_good_any_more(way)
