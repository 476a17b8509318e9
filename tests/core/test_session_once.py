"""``session.once()``: one True for each key, whatever becomes of whoever asked; the store is asked where there is one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dcaf import Session, current_session, tool, transaction
from dcaf.core import ConfigurationError, SessionEnded, SessionUnavailable, SessionValueError, single_use
from dcaf.core.context import running
from dcaf.core.mapping import state_of
from dcaf.core.single_use import MOST_CHARACTERS, MOST_USED
from dcaf.tools.decisions import _key
from tests.asgi.wire import call
from tests.seam.turns_that_act import Acting, count, session_of
from tests.stores_for_tests import MemoryLedger, ToldStore

WAYS = ("json", "stream", "socket", "host")


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@tool
async def charge(key: str, *, fails: bool = False) -> bool:
    """Charge once."""
    await asyncio.sleep(0)
    found = await current_session().once(key)
    await asyncio.sleep(0)
    if fails:
        raise LookupError("a bug")
    return found


def using(found: list[bool], key: str = "charge-42") -> Any:
    async def act(session: Session) -> None:
        found.append(await session.once(key))

    return act


@pytest.mark.parametrize("store", [lambda: None, MemoryLedger], ids=["none", "ledger"])
@pytest.mark.parametrize("way", WAYS)
def test_a_key_is_used_once_in_a_session_and_another_one_beside_it(way: str, store: Any) -> None:
    service, found = Acting(store=store()), list[bool]()
    session = None
    for key in ("a", "a", "b", "a"):
        session = session_of(service.turn(using(found, key), session, way=way))
    assert found == [True, False, True, False]
    service.turn(using(found, "a"), None, way=way)
    assert found[-1] is True  # of another session


def test_without_a_store_an_older_session_may_use_it_again_and_the_newest_not() -> None:
    service, found = Acting(store=None), list[bool]()
    older = session_of(service.turn(count))
    newest = session_of(service.turn(using(found), older))
    service.turn(using(found), newest)
    service.turn(using(found), older)
    assert found == [True, False, True]


def test_what_a_client_and_a_tool_read_has_nothing_of_it() -> None:
    service, found = Acting(store=None), list[bool]()
    envelope = session_of(service.turn(using(found, "charge ada")))
    assert set(envelope) == {"dcaf"}
    service.turn(count, envelope)
    assert service.seen[-1] == {}


@pytest.mark.parametrize("store", [lambda: None, MemoryLedger], ids=["none", "ledger"])
def test_it_outlives_a_transaction_that_is_rolled_back_and_a_tool_that_raises(store: Any) -> None:
    found: list[Any] = []

    async def act(session: Session) -> None:
        session["n"] = 1
        with pytest.raises(LookupError), transaction(session) as draft, transaction(draft) as inner:
            draft["n"] = 2
            found.append(await inner.once("a"))
            raise LookupError("a bug")
        await asyncio.gather(charge.run({"key": "b", "fails": True}), return_exceptions=True)
        found.extend([await session.once("a"), await session.once("b"), session["n"]])

    service = Acting(store=store())
    session = session_of(service.turn(act, session_of(service.turn(count))))
    assert found == [True, False, False, 1]
    service.turn(using(found, "a"), session)
    assert found[-1] is False


def _remember_above(state: Any, digest: str) -> bool:
    own = state.own()
    used = own.get("once", {})
    if digest in used:
        return False
    state.keep({**own, "once": {**used, digest: 1}})
    return True


def test_control_what_is_remembered_in_the_draft_alone_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(single_use, "_remember", _remember_above)
    with pytest.raises(AssertionError):
        test_it_outlives_a_transaction_that_is_rolled_back_and_a_tool_that_raises(lambda: None)


@tool
async def charge_declared(key: str, session: Session) -> bool:
    """Charge once."""
    await asyncio.sleep(0)
    return await session.once(key)


async def charge_in_a_draft(session: Session) -> bool:
    with transaction(session) as draft:
        await asyncio.sleep(0)
        found = await draft.once("a")
        await asyncio.sleep(0)
    return found


KINDS: dict[str, Any] = {
    "declared": lambda _: charge_declared.run({"key": "a"}),
    "undeclared": lambda _: charge.run({"key": "a"}),
    "drafts": charge_in_a_draft,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", [lambda: None, MemoryLedger], ids=["none", "ledger"])
def test_of_twenty_at_once_exactly_one_is_first(store: Any, kind: str) -> None:
    found: list[bool] = []

    async def act(session: Session) -> None:
        found.extend(await asyncio.gather(*(asyncio.ensure_future(KINDS[kind](session)) for _ in range(20))))
        found.append(await session.once("a"))

    service = Acting(store=store())
    session = session_of(service.turn(act, session_of(service.turn(count))))
    assert sorted(found) == [False] * 20 + [True]
    service.turn(using(found, "a"), session)
    assert sorted(found) == [False] * 21 + [True]


def test_control_a_use_that_each_draft_remembers_for_itself_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(single_use, "_remember", _remember_above)
    with pytest.raises(AssertionError):
        test_of_twenty_at_once_exactly_one_is_first(lambda: None, "drafts")


def test_a_session_remembers_so_many_keys_and_says_what_to_do_then() -> None:
    async def main() -> None:
        session = Session()
        assert [await session.once(str(number)) for number in range(MOST_USED)] == [True] * MOST_USED
        with pytest.raises(SessionValueError, match="Use a ledger"):
            await session.once("one more")
        assert await session.once("0") is False
        with pytest.raises(SessionValueError), transaction(session) as draft:
            await draft.once("one more")

    asyncio.run(main())


def test_with_a_store_there_is_no_such_limit_and_the_session_has_nothing_of_it() -> None:
    async def act(session: Session) -> None:
        assert all([await session.once(str(number)) for number in range(MOST_USED + 5)])
        assert state_of(session).own() == {}

    store = ToldStore()
    Acting(store=store).turn(act)
    assert store.steps.count("spend") == MOST_USED + 5


@pytest.mark.parametrize("key", ["", 7, None, "x" * (MOST_CHARACTERS + 1), "\ud800", b"a"])
@pytest.mark.parametrize("store", [None, ToldStore()], ids=["none", "store"])
def test_what_is_no_key_is_an_error_before_anything_is_used(key: Any, store: Any) -> None:
    async def act(session: Session) -> None:
        with pytest.raises(ConfigurationError):
            await session.once(key)
        assert await session.once("x" * MOST_CHARACTERS)

    Acting(store=store).turn(act)


def test_a_key_of_an_application_is_never_that_of_an_approval() -> None:
    seen: list[str] = []
    store = ToldStore(spend=seen.extend)
    Acting(store=store).turn(using([], _key("x")))
    assert seen == ["once:approval:x"]
    assert not _key("x").startswith("once:")


REFUSALS: dict[str, Any] = {
    "revoked": (SessionEnded(reason="revoked"), SessionEnded),
    "unavailable": (SessionUnavailable(), SessionUnavailable),
    "failed": (OSError("db:5432 is away"), SessionUnavailable),
}


@pytest.mark.parametrize("error", REFUSALS)
def test_what_the_store_refuses_is_raised_and_not_done(error: str) -> None:
    raised, expected = REFUSALS[error]

    async def act(session: Session) -> None:
        with pytest.raises(expected) as caught:
            await session.once("a")
        assert getattr(caught.value, "ran", None) is (True if expected is SessionUnavailable else None)

    Acting(store=ToldStore(spend=raised)).turn(act)


def test_a_tool_that_outlives_the_end_of_the_session_uses_nothing() -> None:
    found: list[Any] = []

    @tool
    async def use_late(session: Session) -> None:
        """Use a key when the session was ended."""
        await asyncio.sleep(0.01)
        found.append(await asyncio.gather(session.once("a"), return_exceptions=True))

    async def act(session: Session) -> None:
        task = asyncio.ensure_future(use_late.run({}))
        await asyncio.sleep(0)
        session.end()
        await asyncio.gather(task, return_exceptions=True)

    store = ToldStore()
    Acting(store=store).turn(act)
    assert [type(each[0]).__name__ for each in found] == ["SessionClosedError"]
    assert "spend" not in store.steps


def test_a_new_session_whose_key_a_store_has_used_up_goes_out_in_a_cookie_too() -> None:
    found: list[bool] = []
    service = Acting(store=MemoryLedger(), carriers=("cookie",))
    service.act = using(found)
    fields = dict(call(service.middleware, {}).start["headers"])
    cookie = (b"cookie", fields[b"set-cookie"].split(b";")[0])
    call(service.middleware, {}, headers=((b"content-type", b"application/json"), cookie))
    assert found == [True, False]


def test_outside_of_a_turn_a_session_remembers_by_itself() -> None:
    session = Session()
    with running(session):
        assert asyncio.run(charge.run({"key": "a"})) is True
        assert asyncio.run(charge.run({"key": "a"})) is False
