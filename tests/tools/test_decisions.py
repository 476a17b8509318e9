"""Approvals without an agent: what `dcaf.tools` proposes, shows, decides and withdraws."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from dcaf import ConfigurationError, Session, tool
from dcaf.core import OpenRequest, SessionStore, SessionUnavailable, StatelessLease, ToolArgumentError
from dcaf.core.claims import Binding
from dcaf.tools import Call, DecidedCall, ToolRunner, Verdict, decide, pending, propose, withdraw
from dcaf.tools.decisions import BEFORE, INLINE_BYTES, LATE, LEFT, REJECTED, TWICE, UNKNOWN, USED
from dcaf.tools.proposals import MOST_BYTES, MOST_PENDING, VALID_S
from tests.stores_for_tests import MemoryLedger, ToldStore

NOW = 1_789_000_000.0


@tool(requires_approval=True)
def drop(volume: str, session: Session, *, force: bool = False) -> str:
    """Delete a volume."""
    session.append("dropped", volume)
    return f"{volume} dropped"


def waiting(*volumes: str) -> Session:
    """A session in which a call waits for each volume, by its name."""
    session = Session()
    for volume in volumes:
        propose(session, Call(drop, {"volume": volume}, id=volume))
    return session


def yes(volume: str, **changes: Any) -> DecidedCall:
    told: dict[str, Any] = {"id": volume, "name": "drop", "arguments": {"volume": volume, "force": False}, "execute": True}
    return DecidedCall(**told | changes)


def no(volume: str) -> DecidedCall:
    return yes(volume, execute=False, rejection_reason="not now")


def ids(session: Session) -> list[str]:
    return [call.id for call in pending(session)]


async def held(session: Session, store: SessionStore) -> Session:
    """A copy of a session, as a turn has it whose store is this."""
    session = copy.copy(session)
    session._state.lease = await store.open(OpenRequest("A" * 22, None, Binding("tests")))
    return session


async def decided(session: Session, *decisions: DecidedCall) -> list[str | None]:
    return [verdict.reason for verdict in await decide(session, decisions)]


async def decided_on(store: SessionStore, session: Session, *decisions: DecidedCall) -> list[str | None]:
    kept = await held(session, store)
    try:
        return await decided(kept, *decisions)
    finally:
        assert kept._state.lease is not None
        await kept._state.lease.release()


# a whole round


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_is_proposed_shown_approved_and_run(backend: str) -> None:
    async def run() -> tuple[Session, Any]:
        session = Session()
        call = propose(session, Call(drop, {"volume": "pg"}))
        said = DecidedCall(call.id or "", call.tool.name, call.arguments, execute=True)
        verdicts = await decide(session, [said])
        calls = [Call(drop, verdict.arguments, id=verdict.id, is_approved=True) for verdict in verdicts if verdict.is_approved]
        return session, await ToolRunner.of(session).run_all(calls)

    session, results = anyio.run(run, backend=backend)
    assert [result.text for result in results] == ["pg dropped"]
    assert (session.to_dict(), ids(session)) == ({"dropped": ["pg"]}, [])


def test_a_call_waits_with_an_id_and_with_its_defaults_filled_in() -> None:
    session = Session()
    call = propose(session, Call(drop, {"volume": "pg"}))
    assert call.arguments == {"volume": "pg", "force": False}
    assert call.id
    assert ids(session) == [call.id]
    assert not call.is_approved


def test_what_waits_is_told_oldest_first_with_its_end_and_can_be_matched() -> None:
    session = Session()
    propose(session, Call(drop, {"volume": "a"}, id="a"), clock=lambda: NOW)
    propose(session, Call(drop, {"volume": "b"}, id="b"), clock=lambda: NOW + 60)
    first, second = pending(session, clock=lambda: NOW + 60)
    assert (first.id, second.id) == ("a", "b")
    assert (first.expires_at.timestamp(), second.expires_at.timestamp()) == (NOW + VALID_S, NOW + 60 + VALID_S)
    assert first.matches("drop", {"volume": "a", "force": False})
    assert not first.matches("drop", {"volume": "a", "force": True})
    assert not first.matches("wipe", {"volume": "a", "force": False})
    assert not first.matches("drop", {"volume": "b", "force": False})
    assert [call.id for call in pending(session, clock=lambda: NOW + VALID_S + 1)] == ["b"]


def test_arguments_that_do_not_fit_or_are_too_long_are_not_proposed() -> None:
    session = Session()
    for arguments in ({}, {"volume": 7}, {"volume": "x" * MOST_BYTES}, {"volume": "\ud800"}):
        with pytest.raises(ToolArgumentError):
            propose(session, Call(drop, arguments))
    assert ids(session) == []


def test_the_oldest_of_too_many_gives_way() -> None:
    session = waiting(*(f"v{number}" for number in range(MOST_PENDING + 1)))
    assert (len(ids(session)), "v0" in ids(session)) == (MOST_PENDING, False)


# decisions


def test_each_decision_has_its_verdict_in_order_and_those_that_say_nothing_have_none() -> None:
    session = waiting("a", "b", "c", "d")
    said = [yes("a"), yes("c", execute=False), no("b"), yes("z"), yes("d", arguments={"volume": "pg"}), yes("d"), yes("d")]
    verdicts = asyncio.run(decide(session, said))
    assert [(item.id, item.reason, item.is_known) for item in verdicts] == [
        ("a", None, True),
        ("b", f"{REJECTED}not now", True),
        ("z", UNKNOWN, False),
        ("d", TWICE, False),
        ("d", TWICE, False),
        ("d", TWICE, False),
    ]
    assert ids(session) == ["c", "d"]
    assert asyncio.run(decided(session, yes("a"), yes("b"), yes("d"))) == [BEFORE, BEFORE, None]


def test_a_decision_that_comes_late_is_refused() -> None:
    session = Session()
    propose(session, Call(drop, {"volume": "a"}, id="a"), clock=lambda: NOW)
    (verdict,) = asyncio.run(decide(session, [yes("a")], clock=lambda: NOW + VALID_S + 1))
    assert (verdict.reason, verdict.is_approved) == (LATE, False)


def test_what_is_decided_in_a_call_that_is_rolled_back_stays_used() -> None:
    @tool
    async def approve(session: Session) -> str:
        """Decide, and fail."""
        (verdict,) = await decide(session, [yes("a")])
        assert verdict.is_approved
        raise ValueError

    async def run() -> Session:
        session = waiting("a")
        (result,) = await ToolRunner.of(session).run_all([Call(approve, {})])
        assert result.is_error
        return session

    session = anyio.run(run)
    assert ids(session) == []
    assert asyncio.run(decided(session, yes("a"))) == [BEFORE]


def test_long_arguments_are_digested_off_the_loop_and_those_of_calls_that_do_not_wait_not_at_all() -> None:
    long, huge = "x" * (INLINE_BYTES * 2), [{"a": number} for number in range(100_000)]
    session = waiting(long)
    unknown = [yes(f"z{number}", arguments={"list": huge}) for number in range(100)]
    begun = time.perf_counter()
    assert asyncio.run(decided(session, yes(long), *unknown)) == [None] + [UNKNOWN] * 100
    assert time.perf_counter() - begun < 1.0


def test_a_decision_and_a_verdict_show_no_arguments_and_no_words_of_a_person() -> None:
    session = waiting("canary")
    said = no("canary")
    (verdict,) = asyncio.run(decide(session, [DecidedCall("canary", "drop", said.arguments, rejection_reason="canary")]))
    shown = [repr(said), repr(verdict), *map(repr, pending(waiting("canary")))]
    assert not any("canary'}" in one or "not now" in one or "Rejected" in one for one in shown)


# withdrawing


def test_a_call_that_is_withdrawn_cannot_be_approved_and_the_others_wait_on() -> None:
    session = waiting("a", "b")
    withdraw(session, ["a", "z"])
    assert ids(session) == ["b"]
    assert asyncio.run(decided(session, yes("a"), yes("b"))) == [UNKNOWN, None]


@pytest.mark.parametrize("wrong", ["a", [1], None, 7])
def test_what_is_no_list_of_ids_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"withdraw\(\) takes the ids of calls, a list of texts"):
        withdraw(waiting("a"), wrong)


@pytest.mark.parametrize("wrong", [None, 7, yes("a"), [{"id": "a"}], Verdict("a", "drop", {}, None)])
def test_what_is_no_list_of_decisions_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"decide\(\) takes a list of DecidedCall"):
        asyncio.run(decide(waiting("a"), wrong))


# at a store


def test_the_approvals_of_one_message_are_asked_for_in_one_question() -> None:
    asked: list[Any] = []
    store, session = ToldStore(spend=asked.append), waiting("a", "b", "c")
    assert anyio.run(decided_on, store, session, yes("a"), no("b"), yes("c")) == [None, f"{REJECTED}not now", None]
    assert [len(keys) for keys in asked] == [2]
    assert len(store.used) == 2


def test_nothing_is_asked_where_nothing_is_approved() -> None:
    store = ToldStore()
    anyio.run(decided_on, store, waiting("a"), no("a"), yes("z"))
    assert store.steps == ["open", "release"]


def test_of_several_of_which_one_was_used_before_the_others_are_approved() -> None:
    store, session = ToldStore(), waiting("a", "b", "c")
    assert anyio.run(decided_on, store, session, yes("b")) == [None]
    assert anyio.run(decided_on, store, session, yes("a"), yes("b"), yes("c")) == [None, USED, None]
    assert anyio.run(decided_on, store, session, yes("a"), yes("b"), yes("c")) == [USED, USED, USED]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_store_that_is_away_at_any_question_has_used_up_nothing_and_all_wait_on(at: int) -> None:
    """The first message asks for one, the second for three: together, and then, as one was used before, each alone."""
    questions = 0

    def be_away(_: Any) -> None:
        nonlocal questions
        questions += 1
        if questions == at + 1:
            raise SessionUnavailable(reason="away")

    store, session = ToldStore(spend=be_away), waiting("a", "b", "c")
    assert anyio.run(decided_on, store, session, yes("b")) == [None]
    used = set(store.used)
    with pytest.raises(SessionUnavailable):
        anyio.run(decided_on, store, session, yes("a"), yes("b"), yes("c"))
    assert store.used == used
    assert ids(session) == ["a", "b", "c"]
    assert anyio.run(decided_on, store, session, yes("a"), yes("b"), yes("c")) == [None, USED, None]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whoever_is_cancelled_while_the_store_answers_has_used_up_nothing(backend: str) -> None:
    async def run(store: ToldStore, session: Session) -> None:
        kept = await held(session, store)
        with anyio.CancelScope() as scope:
            store.happening["spend"] = lambda _: scope.cancel()
            await decided(kept, yes("a"))
        assert scope.cancelled_caught
        assert ids(kept) == ["a"]

    store, session = ToldStore(wait_s=0), waiting("a")
    anyio.run(run, store, session, backend=backend)
    assert (store.used, store.steps) == (set(), ["open", "spend", "give_back"])


def test_whoever_is_cancelled_already_asks_nothing() -> None:
    async def run(store: ToldStore, session: Session) -> None:
        kept = await held(session, store)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await decided(kept, yes("a"))
        assert (scope.cancelled_caught, ids(kept)) == (True, ["a"])

    store = ToldStore()
    anyio.run(run, store, waiting("a"))
    assert store.steps == ["open"]


class Database(StatelessLease):
    """A lease that does what it was told, whether somebody still waits for it or not."""

    def __init__(self) -> None:
        super().__init__(OpenRequest("A" * 22, None, Binding("tests")))
        self.used: set[str] = set()
        self.is_asked = asyncio.Event()

    async def spend(self, keys: Sequence[str]) -> bool:
        self.is_asked.set()
        return await asyncio.shield(asyncio.ensure_future(self._use_up(keys)))

    async def give_back(self, keys: Sequence[str]) -> None:
        self.used.difference_update(keys)

    async def _use_up(self, keys: Sequence[str]) -> bool:
        await anyio.sleep(0.02)
        self.used.update(keys)
        return True


def test_a_task_that_is_cancelled_waits_for_the_answer_and_gives_back_what_it_used_up() -> None:
    async def run() -> None:
        session, lease = waiting("a"), Database()
        session._state.lease = lease
        task = asyncio.ensure_future(decided(session, yes("a")))
        await lease.is_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await anyio.sleep(0.05)
        assert (lease.used, ids(session)) == (set(), ["a"])

    asyncio.run(run())


def test_what_an_answer_that_came_too_late_had_used_up_is_given_back_and_what_others_used_is_not() -> None:
    class Slow(MemoryLedger):
        async def reach(self, step: str) -> None:
            await anyio.sleep(5 if step == "spent" and self.rows["A" * 22].used > {"another's"} else 0)

    async def run() -> None:
        store, session = Slow(), waiting("a")
        kept = await held(session, store)
        store.rows["A" * 22].used.add("another's")
        with pytest.raises((SessionUnavailable, TimeoutError)), anyio.fail_after(0.02):
            await decided(kept, yes("a"))
        assert store.rows["A" * 22].used == {"another's"}
        assert ids(kept) == ["a"]

    anyio.run(run)


def test_a_store_that_cannot_take_back_is_told_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    def be_away(_: Any) -> None:
        raise ValueError("secret")

    async def run(store: ToldStore, session: Session) -> None:
        kept = await held(session, store)
        with anyio.CancelScope() as scope:
            store.happening["spend"] = lambda _: scope.cancel()
            await decided(kept, yes("a"))

    anyio.run(run, ToldStore(give_back=be_away, wait_s=0), waiting("a"))
    assert LEFT in caplog.text
    assert "secret" not in caplog.text


def test_a_decision_after_the_turn_gives_back_to_the_turn_that_had_asked() -> None:
    """The session has no store any more when its turn is over; the one that was asked is told."""

    async def run(store: ToldStore, session: Session) -> None:
        kept = await held(session, store)

        def end(_: Any) -> None:
            kept._state.lease = None
            scope.cancel()

        with anyio.CancelScope() as scope:
            store.happening["spend"] = end
            await decided(kept, yes("a"))

    store = ToldStore(wait_s=0)
    anyio.run(run, store, waiting("a"))
    assert (store.used, store.steps[-1]) == (set(), "give_back")


def test_twenty_decisions_at_once_approve_each_call_once() -> None:
    async def run(store: MemoryLedger, session: Session) -> list[str | None]:
        found: list[str | None] = []

        async def one() -> None:
            found.extend(await decided(await held(session, store), yes("a"), yes("b")))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
        return found

    class Shared(MemoryLedger):
        def _check_claim(self, row: Any) -> None:
            """Let everybody in."""

        def is_held(self, row: Any) -> bool:
            return False

    found = anyio.run(run, Shared(branches=True), waiting("a", "b"))
    assert (found.count(None), found.count(USED)) == (2, 38)
