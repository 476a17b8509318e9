"""``session.rotate()``: another id with the same state, bound to whom it says, or, where that fails, the session as it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dcaf import Session, tool, transaction
from dcaf.asgi import checkpoint
from dcaf.core import SessionAliasError, SessionConflict, SessionUnavailable, SessionValueError, StatelessStore
from dcaf.core.claims import Claims
from dcaf.core.lifecycle import SessionTurn
from dcaf.core.sealer import Sealer
from dcaf.core.settings import choose_suites
from dcaf.core.transaction import Overlay
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, RING, call
from tests.seam.turns_that_act import Acting, count, one, session_of
from tests.stores_for_tests import MemoryLedger, MemoryService, ToldStore

WAYS = ("json", "stream", "socket", "host")
STORES: dict[str, Any] = {"none": lambda: None, "L0": StatelessStore, "ledger": MemoryLedger, "service": MemoryService}
KEEPING = ("ledger", "service")


def rotate(session: Session) -> None:
    session.rotate()


def log_in(session: Session) -> None:
    session.rotate(subject="ada")


def claims_of(envelope: Any) -> Claims:
    first, *others = choose_suites(encrypt=True, accept_both=True)
    sealer = Sealer(keys=RING, audience=AUDIENCE, suite=first, also_accepted=others)
    opened = sealer.opened(envelope["dcaf"]["token"].encode())
    assert opened is not None
    return Claims.read(opened.claims)


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


class Ticking:
    """A clock that moves on with each question, so that two births would differ."""

    def __init__(self) -> None:
        self.now = 1_789_000_000

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("encrypt", [False, True], ids=["signed", "encrypted"])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("way", WAYS)
def test_it_goes_on_under_another_id_with_the_same_state(way: str, store: str, encrypt: bool) -> None:
    service = Acting(store=STORES[store](), encrypt=encrypt, mirror=True, clock=Ticking())
    first = session_of(service.turn(count, session_of(service.turn(count, way=way)), way=way))
    rotated = session_of(service.turn(rotate, first, way=way))
    before, after = claims_of(first), claims_of(rotated)
    assert after.sid != before.sid
    assert (after.seq, before.seq, after.born) == (1, 2, before.born)
    assert after.exp <= before.born + 30 * 86_400
    assert rotated["n"] == first["n"] == 2
    assert session_of(service.turn(count, rotated, way=way))["n"] == 3


def _with_a_birth_of_its_own(self: Any, session: Session) -> None:
    state: Any = session._state
    now = int(self._clock())
    state.standing = state.standing._replace(claims=state.standing.claims._replace(sid="A" * 22, seq=0, born=now), token=())


def test_control_a_session_that_is_born_again_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(Sealer, "rotate", _with_a_birth_of_its_own)
    with pytest.raises(AssertionError):
        test_it_goes_on_under_another_id_with_the_same_state("json", "none", encrypt=False)


@pytest.mark.parametrize("way", WAYS)
def test_with_a_ledger_no_token_of_before_is_good(way: str) -> None:
    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(count, way=way))
    service.turn(rotate, first, way=way)
    assert service.turn(count, first, way=way)["code"] == "session-ended"


def test_control_a_ledger_that_keeps_the_session_of_before_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.stores_for_tests.LedgerLease._go_over", lambda self: self._row)
    with pytest.raises(KeyError):
        test_with_a_ledger_no_token_of_before_is_good("json")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("way", WAYS)
def test_it_is_bound_to_whom_it_says(way: str, store: str) -> None:
    service = Acting(store=STORES[store]())
    rotated = session_of(service.turn(log_in, session_of(service.turn(count, way=way)), way=way))
    assert service.turn(count, rotated, way=way)["code"] == "session-invalid"
    service.subject = "grace"
    assert service.turn(count, rotated, way=way)["code"] == "session-invalid"
    service.subject = "ada"
    assert session_of(service.turn(count, rotated, way=way))["n"] == 2


@pytest.mark.parametrize("way", WAYS)
def test_without_a_subject_it_is_bound_as_before(way: str) -> None:
    service = Acting(store=None)
    service.subject = "ada"
    rotated = session_of(service.turn(rotate, session_of(service.turn(count, way=way)), way=way))
    assert session_of(service.turn(count, rotated, way=way))["n"] == 2
    service.subject = None
    assert service.turn(count, rotated, way=way)["code"] == "session-invalid"


def test_a_second_rotation_of_a_turn_keeps_the_subject_of_the_first() -> None:
    def twice(session: Session) -> None:
        session.rotate(subject="ada")
        with transaction(session) as draft:
            draft.rotate()

    service = Acting(store=None)
    rotated = session_of(service.turn(twice, session_of(service.turn(count))))
    service.subject = "ada"
    assert session_of(service.turn(count, rotated))["n"] == 2


@pytest.mark.parametrize("way", ["json", "stream", "socket"])
def test_it_stays_of_its_conversation(way: str) -> None:
    named: dict[str, str] = {"to": "t-1"}
    service = Acting(store=MemoryLedger(), conversation=lambda scope, body: named["to"])
    rotated = session_of(service.turn(log_in, session_of(service.turn(count, way=way)), way=way))
    service.subject = "ada"
    named["to"] = "t-2"
    assert service.turn(count, rotated, way=way)["code"] == "session-invalid"
    named["to"] = "t-1"
    assert session_of(service.turn(count, rotated, way=way))["n"] == 2


def test_rotated_and_then_ended_it_has_ended_and_nothing_else_has_begun() -> None:
    def both(session: Session) -> None:
        session.rotate(subject="ada")
        session.end()

    store = MemoryLedger()
    service = Acting(store=store)
    first = session_of(service.turn(count))
    assert session_of(service.turn(both, first)) == {"dcaf": {"token": "new"}}
    assert len(store.rows) == 1
    assert service.turn(count, first)["code"] == "session-ended"


@pytest.mark.parametrize("store", STORES)
def test_on_a_socket_the_session_goes_on_as_the_new_one(store: str) -> None:
    service = Acting(store=STORES[store]())
    with Peer(service.middleware) as peer:
        service.act = count
        first = session_of(peer.ask({}))
        service.act = rotate
        rotated = session_of(peer.ask({}))
        service.act = count
        third = session_of(peer.ask({}))
    assert third["n"] == 2
    assert claims_of(first).sid != claims_of(rotated).sid == claims_of(third).sid
    assert claims_of(third).seq == 2


@pytest.mark.parametrize("store", STORES)
def test_after_a_checkpoint_it_keeps_what_the_turn_has_written(store: str) -> None:
    async def write_and_rotate(session: Session) -> None:
        session["early"] = True
        await checkpoint()
        session.rotate()
        session["late"] = True

    service = Acting(store=STORES[store]())
    with Peer(service.middleware) as peer:
        service.act = count
        peer.ask({})
        service.act = write_and_rotate
        peer.ask({})
        rotated = session_of(peer.frame())
    assert (rotated["early"], rotated["late"], rotated["n"]) == (True, True, 1)
    service.turn(one, rotated)
    assert service.seen[-1] == {"n": 1, "early": True, "late": True}


REFUSALS: dict[str, Any] = {
    "taken": SessionConflict(reason="taken"),
    "unavailable": SessionUnavailable(),
    "failed": OSError("db:5432 is away"),
}


@pytest.mark.parametrize("step", ["rotate", "commit"])
@pytest.mark.parametrize("error", REFUSALS)
@pytest.mark.parametrize("way", WAYS)
def test_where_the_store_refuses_the_client_keeps_its_session(way: str, error: str, step: str) -> None:
    store = ToldStore()
    service = Acting(store=store)
    first = session_of(service.turn(count, way=way))
    store.happening[step] = REFUSALS[error]
    found = service.turn(log_in, first, way=way)
    assert found.get("ran") == (None if error == "taken" else True)
    assert session_of(found) is None
    store.happening.clear()
    assert session_of(service.turn(count, first, way=way))["n"] == 2


@pytest.mark.parametrize("step", ["rotate", "commit"])
@pytest.mark.parametrize("error", REFUSALS)
def test_on_a_socket_no_other_session_begins_where_the_store_refuses(step: str, error: str) -> None:
    """Else whoever rotates would leave a session behind that was revoked meanwhile, and take its state along."""
    store = ToldStore()
    service = Acting(store=store)
    with Peer(service.middleware) as peer:
        service.act = count
        first = session_of(peer.ask({}))
        store.happening[step] = REFUSALS[error]
        service.act = rotate
        assert "code" in peer.ask({})
        service.act = count
        store.happening.clear()
        peer.ask({})
        next_one = session_of(peer.ask({}))
    opened = [(request.session_id, request.claims is None) for request in store.requests]
    assert opened[-2:] == [(claims_of(first).sid, False)] * 2
    assert claims_of(next_one).sid == claims_of(first).sid  # the turn that was refused has not rotated it, and no later one does


async def _rotate_for_good(self: Any, closing: Any, seal: Any) -> Any:
    self.session._state.closing = None
    self.sealer.rotate(self.session)
    if self.lease is not None:
        await self.lease.rotate(self.describe(None))
        self.sealer.number(self.session, self.lease)
    return await seal()


@pytest.mark.parametrize("step", ["rotate", "commit"])
def test_control_a_rotation_that_is_not_taken_back_is_caught(step: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(SessionTurn, "_rotate", _rotate_for_good)
    with pytest.raises(AssertionError):
        test_on_a_socket_no_other_session_begins_where_the_store_refuses(step, "taken")


def test_an_answer_that_cannot_carry_it_leaves_the_rotation_to_the_next_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        session = scope["dcaf.session"]
        session.rotate()
        twin = session.get("list", as_type=list[int]), session["list"]
        twin[0].append(1)
        twin[1].append(2)
        with pytest.raises(SessionAliasError):
            await _answer(send)
        session["list"] = []
        await _answer(send)

    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(lambda session: session.update(list=[])))
    service.middleware.app = app
    assert claims_of(session_of(service.turn(one, first))).sid != claims_of(first).sid


async def _answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


@tool
async def move(session: Session, *, fails: bool) -> str:
    """Rotate."""
    session["moved"] = True
    session.rotate()
    if fails:
        raise LookupError("a bug")
    return "done"


@pytest.mark.parametrize("fails", [False, True])
def test_a_tool_rotates_it_where_it_returns(fails: bool) -> None:
    async def act(_: Session) -> None:
        await asyncio.gather(move.run({"fails": fails}), return_exceptions=True)

    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(count))
    second = session_of(service.turn(act, first))
    assert (claims_of(second).sid == claims_of(first).sid) is fails
    assert ("moved" in second) is not fails


def test_a_transaction_that_cannot_be_kept_has_not_rotated_it() -> None:
    reached: list[bool] = []

    def act(session: Session) -> None:
        session["text"] = ""
        with pytest.raises(SessionValueError), transaction(session) as draft:
            draft.rotate()
            draft["text"] = "x" * 600
            session["more"] = "y" * 600
            reached.append(True)

    service = Acting(store=None, max_token_bytes=2000)
    first = session_of(service.turn(count))
    second = session_of(service.turn(act, first))
    assert reached == [True]
    assert claims_of(second).sid == claims_of(first).sid


def _close_first(self: Any, **options: Any) -> Any:
    if self.closing is not None:
        self._parent.close(self.closing)
    return _COMMIT(self, **options)


_COMMIT = Overlay.commit


def test_control_a_rotation_before_the_values_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(Overlay, "commit", _close_first)
    with pytest.raises(AssertionError):
        test_a_transaction_that_cannot_be_kept_has_not_rotated_it()


def test_with_a_ledger_what_was_used_once_stays_used() -> None:
    found: list[bool] = []

    async def use(session: Session) -> None:
        found.append(await session.once("charge-42"))

    service = Acting(store=MemoryLedger())
    first = session_of(service.turn(use, session_of(service.turn(count))))
    service.turn(use, session_of(service.turn(rotate, first)))
    assert found == [True, False]


@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_a_header_or_a_cookie_gets_the_new_one_and_the_others_are_dropped(carrier: str) -> None:
    service = Acting(store=None, carriers=("body", "header", "cookie"))
    token = session_of(service.turn(count))["dcaf"]["token"].encode()
    by = {"header": (b"dcaf-session", token), "cookie": (b"cookie", b"__Host-dcaf=" + token)}
    service.act = rotate
    sent = call(service.middleware, {}, headers=((b"content-type", b"application/json"), by[carrier]))
    fields = dict(sent.start["headers"])
    written = fields[b"dcaf-session"] if carrier == "header" else fields[b"set-cookie"].split(b";")[0].partition(b"=")[2]
    assert claims_of({"dcaf": {"token": written.decode()}}).sid != claims_of({"dcaf": {"token": token.decode()}}).sid


@pytest.mark.parametrize("what", ["rotate", "end"])
def test_a_cookie_beside_the_body_is_dropped_with_the_session_of_before(what: str) -> None:
    service = Acting(store=None, carriers=("body", "cookie"))
    first = session_of(service.turn(count))
    cookie = (b"cookie", b"__Host-dcaf=" + first["dcaf"]["token"].encode())
    service.act = lambda session: getattr(session, what)()
    sent = call(service.middleware, {"data": {"session": first}}, headers=((b"content-type", b"application/json"), cookie))
    assert b"null; Expires=" in dict(sent.start["headers"])[b"set-cookie"]
    assert session_of(sent.json)["dcaf"]["token"] != first["dcaf"]["token"]


def test_control_a_cookie_that_stays_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.lifecycle.ASGITurn.drop_others", lambda _: None)
    with pytest.raises(KeyError):
        test_a_cookie_beside_the_body_is_dropped_with_the_session_of_before("rotate")


@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_an_ended_session_is_cleared_where_it_came_from(carrier: str) -> None:
    service = Acting(store=MemoryLedger(), carriers=("header", "cookie"))
    service.act = count
    fields = dict(call(service.middleware, {}, headers=((b"content-type", b"application/json"),)).start["headers"])
    token = fields[b"dcaf-session"]
    by = {"header": (b"dcaf-session", token), "cookie": (b"cookie", b"__Host-dcaf=" + token)}
    service.act = lambda session: session.end()
    fields = dict(call(service.middleware, {}, headers=((b"content-type", b"application/json"), by[carrier])).start["headers"])
    if carrier == "header":
        assert fields[b"dcaf-session"] == b"new"
    else:
        assert fields[b"set-cookie"].startswith(b"__Host-dcaf=null; Expires=")
