"""What a plan asks for together is asked for at the same time, and comes back as one outcome; so a turn begins after one trip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from dcaf.core import Key, Keyring, SessionHost
from dcaf.core.errors import EngineError, StoreError
from dcaf.engines import MemoryEngine, Outcome, Put, Range, Record, Table, Transaction
from dcaf.engines.together import join_outcomes
from dcaf.service import SessionService
from dcaf.service.places import Place
from dcaf.service.plans import Plan, run, run_async
from dcaf.service.reading import MOST_KEYS
from dcaf.service.tables import Owner

RING = Keyring(Key.from_bytes("k7", bytes(range(32))))
PARTITIONS = 8
HITS = Table("hits", {"n": int}, ordered=True)
PATIENCE_S = 0.3

on_each_loop = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Meeting(MemoryEngine):
    """Answers what only reads when as many calls are there as are to come together.

    Attributes:
        expected: How many.
    """

    expected: int = 1

    def __init__(self) -> None:
        super().__init__(partitions=PARTITIONS)
        self._waiting = 0
        self._met = anyio.Event()

    async def transact(self, transaction: Transaction) -> Outcome:
        if transaction.ranges:
            await self._meet()
        return await super().transact(transaction)

    async def _meet(self) -> None:
        met = self._met
        self._waiting += 1
        if self._waiting >= self.expected:
            self._waiting, self._met = 0, anyio.Event()
            met.set()
        try:
            with anyio.fail_after(PATIENCE_S):
                await met.wait()
        except TimeoutError:
            raise EngineError("The others have not come.") from None


class Fails(MemoryEngine):
    """Fails in one partition."""

    async def transact(self, transaction: Transaction) -> Outcome:
        if transaction.partition == 1:
            raise EngineError("The server of this partition is down.")
        return await super().transact(transaction)


def users(*, with_app: bool) -> Iterator[str]:
    """Users whose rows lie where those of the application do, or elsewhere."""
    names = (f"p-{number}" for number in range(1_000))
    return (
        name
        for name in names
        if Place("clinic", Owner("clinic", name, partitions=PARTITIONS), "v", PARTITIONS).is_with_app is with_app
    )


def reading(partition: int) -> Transaction:
    return Transaction([Record(HITS, b"home", partition)], ranges=[Range(HITS, b"", None, 9, partition=partition)])


def read_together(*partitions: int) -> Plan[Outcome]:
    outcome = yield tuple(map(reading, partitions))
    return outcome


def fill(engine: MemoryEngine) -> MemoryEngine:
    engine.declare([HITS])
    for partition in range(PARTITIONS):
        engine.sync.transact(Transaction([], writes=[Put(Record(HITS, b"home", partition), {"n": partition})]))
    return engine


@on_each_loop
def test_an_outcome_has_the_rows_and_pages_of_all_in_their_order(backend: str) -> None:
    engine = fill(MemoryEngine(partitions=PARTITIONS))
    found = anyio.run(run_async, read_together(5, 0, 3), engine, backend=backend)
    assert found == run(read_together(5, 0, 3), engine)._replace(now_ms=found.now_ms)
    assert found.applied
    assert found.rows == ({"n": 5}, {"n": 0}, {"n": 3})
    assert [page[0][1]["n"] for page in found.pages] == [5, 0, 3]


def test_joined_outcomes_are_applied_where_all_were_and_have_the_first_clock() -> None:
    outcomes = [Outcome(applied=True, rows=(), now_ms=2), Outcome(applied=False, rows=(None,), now_ms=1)]
    assert join_outcomes(outcomes) == Outcome(applied=False, rows=(None,), now_ms=2)
    assert join_outcomes(outcomes[:1]).applied


@on_each_loop
def test_an_error_of_one_of_them_is_thrown_into_the_plan_as_it_is(backend: str) -> None:
    engine = fill(Fails(partitions=PARTITIONS))

    def falls_back() -> Plan[str]:
        try:
            yield reading(0), reading(1)
        except EngineError as error:
            return str(error)
        return ""

    assert anyio.run(run_async, falls_back(), engine, backend=backend) == "The server of this partition is down."
    with pytest.raises(EngineError, match="is down"):
        anyio.run(run_async, read_together(1, 0), engine, backend=backend)


async def _open_first(service: SessionService, user: str) -> dict[str, Any]:
    async with service.open(user=user) as session:
        return session.to_dict()


async def _open_later(service: SessionService, user: str) -> dict[str, Any]:
    async with service.open(user=user, id="v") as session:
        return session.to_dict()


async def _open_as_store(service: SessionService, user: str) -> dict[str, Any]:
    host = SessionHost(keys=RING, audience="clinic", store=service)
    async with host.turn(None, subject=user) as turn:
        return turn.session.to_dict()


OPENED: dict[str, Callable[[SessionService, str], Any]] = {
    "first turn": _open_first,
    "later turn": _open_later,
    "behind a middleware": _open_as_store,
}


def open_one(opened: str, user: str, expected: int, backend: str) -> dict[str, Any]:
    engine = Meeting()
    service = SessionService(engine, app="clinic")
    service.sync.create(user=user, id="v", state={"app:opens": 8, "user:theme": "dark"})
    engine.expected = expected
    found: dict[str, Any] = anyio.run(OPENED[opened], service, user, backend=backend)
    return {key: value for key, value in found.items() if ":" in key}


@on_each_loop
@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("with_app", [True, False])
def test_a_turn_begins_after_one_trip_wherever_the_keys_of_the_application_lie(opened: str, with_app: bool, backend: str) -> None:
    expected = 1 if with_app else 2
    assert open_one(opened, next(users(with_app=with_app)), expected, backend) == {"app:opens": 8, "user:theme": "dark"}


@pytest.mark.parametrize("opened", OPENED)
def test_control_one_after_the_other_never_meet(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_turn(transact: Callable[[Transaction], Any], transactions: Any) -> Outcome:
        return join_outcomes([await transact(one) for one in transactions])

    for module in ("dcaf.service.plans", "dcaf.ledger.opening"):
        monkeypatch.setattr(f"{module}.transact_together", in_turn)
    with pytest.raises(StoreError):
        open_one(opened, next(users(with_app=False)), 2, "asyncio")


@pytest.mark.parametrize("with_app", [True, False])
@pytest.mark.parametrize("prefix", ["", "user:", "app:"])
def test_more_keys_than_are_read_at_first_come_with_the_messages(with_app: bool, prefix: str) -> None:
    service = SessionService(MemoryEngine(partitions=PARTITIONS), app="clinic").sync
    user = next(users(with_app=with_app))
    state = {f"{prefix}{number}": number for number in range(MOST_KEYS + 1)}
    service.create(user=user, id="v", state=state)
    service.append(user=user, id="v", messages=[("user", "one"), ("user", "two")])
    with service.open(user=user, id="v", last=1) as session:
        assert session.to_dict() == state
        assert [message.content for message in session.messages] == ["two"]
