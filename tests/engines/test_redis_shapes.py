"""A transaction of a shape has a script of its own, up to what Lua takes; what is larger is done by the script that takes any."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any
from uuid import uuid4

import pytest

from dcaf.core.errors import EngineError
from dcaf.engines import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Now,
    Plus,
    Put,
    Record,
    RedisEngine,
    Table,
    Transaction,
)
from dcaf.engines.redis import calls, shapes
from dcaf.engines.redis.lua import TRANSACTING, Script
from dcaf.engines.redis.script import Keys
from dcaf.engines.redis.shapes import MOST_PIECES, MOST_ROWS, Shapes
from tests.engines.redis_servers import RedisServer, share_server

WIDE = Table("wide", {f"column_{number:03}": int for number in range(150)})
ROWS = Table("rows", {"n": int, "m": int, "who": bytes, "expires": int}, indexed="who")


@pytest.fixture(scope="module")
def server() -> RedisServer:
    return share_server()


@pytest.fixture
def engine(server: RedisServer) -> Iterator[RedisEngine]:
    engine = RedisEngine(server.socket_url, prefix=f"test-{uuid4().hex[:16]}")
    engine.declare([WIDE, ROWS])
    yield engine
    engine.sync.close()


def is_of_a_shape(transaction: Transaction) -> bool:
    return Shapes().find(Keys("dcaf").encode(transaction)) is not None


def widest() -> Transaction:
    """One row with as many columns as a shape has pieces for."""
    record = Record(WIDE, b"a")
    count = (MOST_PIECES - 7) // 3
    return Transaction([record], writes=[Put(record, {name: Plus(1) for name in list(WIDE.columns)[:count]})])


def deepest(*, first: bool) -> Transaction:
    """A condition as deep as a shape has pieces for, in the first or in the second part of each pair."""
    record = Record(ROWS, b"a")
    leaves: list[Condition] = [Exists(record)] * ((MOST_PIECES - 3) // 3)
    return Transaction([record], when=reduce(lambda deep, leaf: AnyOf(deep, leaf) if first else AnyOf(leaf, deep), leaves))


def most_negated() -> Transaction:
    """A condition that is negated as often as a shape has pieces for."""
    record = Record(ROWS, b"a")
    condition: Condition = Exists(record)
    for _ in range(MOST_PIECES - 6):
        condition = Not(condition)
    return Transaction([record], when=condition)


def deepest_negated() -> Transaction:
    """Both by turns."""
    record = Record(ROWS, b"a")
    condition: Condition = Exists(record)
    for _ in range((MOST_PIECES - 5) // 4):
        condition = AnyOf(Exists(record), Not(condition))
    return Transaction([record], when=Not(condition))


def longest() -> Transaction:
    """As many rows as a shape has."""
    records = [Record(ROWS, b"%d" % number) for number in range(MOST_ROWS)]
    writes = [Put(record, {"n": Plus(1), "m": Now(), "expires": None}) for record in records]
    return Transaction(records, when=AllOf(Not(Exists(records[0])), Not(Is(records[1], "n", 1))), writes=writes)


@pytest.mark.parametrize(
    "transaction", [widest(), deepest(first=True), deepest(first=False), most_negated(), deepest_negated(), longest()]
)
def test_the_largest_of_a_shape_is_done(transaction: Transaction, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_of_a_shape(transaction)
    outcome = engine.sync.transact(transaction)
    engine.sync.transact(Transaction([], writes=[Delete(record) for record in transaction.records]))
    monkeypatch.setattr(shapes, "MOST_PIECES", 0)
    assert engine.sync.transact(transaction)[:2] == outcome[:2]


def test_control_lua_does_not_take_much_more(engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MOST_PIECES", 600)
    record = Record(WIDE, b"a")
    with pytest.raises(EngineError):
        engine.sync.transact(Transaction([record], writes=[Put(record, dict.fromkeys(WIDE.columns, 1))]))


@pytest.mark.parametrize("number", [MOST_ROWS, MOST_ROWS + 1])
def test_more_rows_than_a_shape_has_are_done_as_well(number: int, engine: RedisEngine) -> None:
    records = [Record(ROWS, b"%d" % at) for at in range(number)]
    transaction = Transaction(records, writes=[Put(record, {"n": Plus(1), "who": b"ada"}) for record in records])
    assert is_of_a_shape(transaction) is (number == MOST_ROWS)
    assert engine.sync.transact(transaction).rows == (None,) * number
    assert [row["n"] for _, row in engine.sync.scan(ROWS, equal=b"ada", limit=number + 1)] == [1] * number


def test_two_transactions_of_one_shape_have_one_script() -> None:
    found = Shapes()
    scripts = [found.find(Keys("dcaf").encode(change(b"%d" % number, n=number))) for number in range(9)]
    assert len(set(scripts)) == 1
    others = [change(b"a", m=1), change(b"a", n=None), change(b"a", n=Plus(1)), change(b"a", n=Now()), change(b"a", n=1, m=1)]
    assert len({found.find(Keys("dcaf").encode(one)) for one in others} | set(scripts)) == 6


def change(key: bytes, **values: Any) -> Transaction:
    record = Record(ROWS, key)
    return Transaction([record], when=Not(AtMost(record, "n", 0)), writes=[Put(record, values)])


def test_an_engine_remembers_no_more_shapes_than_it_says(engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MOST_SHAPES", 2)
    used: list[bool] = []
    running = calls.Request.running

    def note(script: Script, *others: Any, **named: Any) -> calls.Request:
        used.append(script is TRANSACTING)
        return running(script, *others, **named)

    monkeypatch.setattr(calls.Request, "running", note)
    for values in ({"n": 1}, {"m": 1}, {"n": 2, "m": 2}, {"n": 3}, {"who": b"ada"}):
        assert engine.sync.transact(change(b"a", **values)).applied
    assert used == [False, False, True, False, True]
    assert engine.sync.transact(Transaction([Record(ROWS, b"a")])).rows == ({"n": 3, "m": 2, "who": b"ada", "expires": None},)


def test_a_server_that_has_forgotten_a_script_is_given_its_text(engine: RedisEngine, server: RedisServer) -> None:
    for number in range(3):
        assert engine.sync.transact(change(b"a", n=number + 1)).applied
        with server.client() as client:
            client.script_flush()
    assert engine.sync.transact(Transaction([], writes=[Delete(Record(ROWS, b"a"))])).applied
