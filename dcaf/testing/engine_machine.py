"""Compare an engine with a dict, by steps that Hypothesis makes up.

    run_machine(lambda folder: MyEngine(folder / "rows"), tmp_path)

The dict follows the words of ``dcaf.engines.base``, and none of its functions, which the engines of dcaf use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final, TypeAlias

from dcaf.core.errors import EngineError
from dcaf.core.importing import extra
from dcaf.engines import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Engine,
    Exists,
    Is,
    Not,
    Now,
    Plus,
    Put,
    Range,
    Record,
    Table,
    Transaction,
    Value,
    Write,
)

with extra("dcaf.testing.engine_machine", "hypothesis"):
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

Model: TypeAlias = "dict[Record, dict[str, Value]]"

FIRST: Final = Table("machine_first", {"count": int, "holder": bytes, "expires": int}, indexed="holder", ordered=True)
SECOND: Final = Table("machine_second", {"count": int, "holder": bytes}, large=True)
RECORDS: Final = [Record(table, key) for table in (FIRST, SECOND) for key in (b"\x00", b"a", b"a\x00", b"\xff")]

LARGEST: Final = 2**63 - 1
NUMBERS: Final = st.sampled_from([-LARGEST - 1, -1, 0, 1, 2, LARGEST])
HOLDERS: Final = st.sampled_from([b"", b"\x00", b"ada", b"bob"])
MOMENTS: Final = st.sampled_from([Now(-60_000), Now(60_000)])
"""So far from now that it does not matter when exactly a step is done."""

VALUES: Final[dict[str, st.SearchStrategy[Value | Now | Plus]]] = {
    "count": st.one_of(st.none(), NUMBERS, MOMENTS, st.builds(Plus, NUMBERS)),
    "holder": st.one_of(st.none(), HOLDERS),
    "expires": st.one_of(st.none(), MOMENTS, st.sampled_from([1, LARGEST])),
}

BOUNDS: Final = st.sampled_from([b"", b"\x00", b"a", b"a\x00", b"b", b"\xff"])
RANGES: Final = st.builds(Range, st.just(FIRST), BOUNDS, st.one_of(st.none(), BOUNDS), st.integers(1, 4), st.booleans())

EXAMPLES: Final = 30
STEPS: Final = 25


def run_machine(make_engine: Callable[[Path], Engine], folder: Path, *, examples: int = EXAMPLES, shrink: bool = True) -> None:
    """Let an engine and a dict do the same, again and again from the beginning.

    Args:
        make_engine: Makes an engine without rows; takes an empty folder.
        folder: Where those folders are made.
        examples: How often.
        shrink: Whether to look for the shortest steps that fail, which may take minutes.
    """

    class Machine(_Machine):
        def __init__(self) -> None:
            super().__init__(make_engine(Path(mkdtemp(dir=folder))))

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            phases=[phase for phase in Phase if shrink or phase not in {Phase.shrink, Phase.explain}],
        ),
    )


def _conditions(records: list[Record]) -> st.SearchStrategy[Condition]:
    which = st.sampled_from(records)
    leaves: st.SearchStrategy[Any] = st.one_of(
        st.builds(Exists, which),
        st.builds(Is, which, st.just("count"), st.one_of(st.none(), NUMBERS)),
        st.builds(Is, which, st.just("holder"), st.one_of(st.none(), HOLDERS)),
        st.builds(AtMost, which, st.just("count"), st.one_of(NUMBERS, MOMENTS)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.builds(Not, inner), st.builds(AnyOf, inner, inner), st.builds(AllOf, inner, inner)),
        max_leaves=4,
    )


@st.composite
def _transactions(draw: st.DrawFn) -> Transaction:
    records = draw(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=4, unique=True))
    written = draw(st.lists(st.sampled_from(RECORDS), max_size=len(records), unique=True))  # some of them are not read
    return Transaction(
        records,
        when=draw(st.one_of(st.none(), _conditions(records))),
        writes=[draw(_writes(record)) for record in written],
        durable=draw(st.booleans()),
        ranges=draw(st.lists(RANGES, max_size=2)),
    )


def _writes(record: Record) -> st.SearchStrategy[Write]:
    values = {column: VALUES[column] for column in record.table.columns}
    puts = st.fixed_dictionaries({}, optional=values).map(lambda found: Put(record, found))
    return st.one_of(puts, puts, st.just(Delete(record)))


class _Machine(RuleBasedStateMachine):
    """An engine, and a dict beside it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.engine.declare([FIRST, SECOND])
        self.model: Model = {}

    def teardown(self) -> None:
        self.engine.sync.close()

    @rule(write=st.sampled_from(RECORDS).flatmap(_writes))
    def write(self, write: Write) -> None:
        self.transact(Transaction([write.record], writes=[write]))

    @rule(transaction=_transactions())
    def transact(self, transaction: Transaction) -> None:
        now_ms = self.engine.sync.transact(Transaction([RECORDS[0]])).now_ms
        self._forget(now_ms)
        before = [self.model.get(record) for record in transaction.reads]
        pages = [self._find(wanted) for wanted in transaction.ranges]
        is_true = transaction.when is None or _holds(transaction.when, self.model, now_ms)
        if is_true and any(_is_too_large(write, self.model) for write in transaction.writes):
            return self._refuse(transaction)
        outcome = self.engine.sync.transact(transaction)
        assert outcome.applied is is_true
        assert [row and dict(row) for row in outcome.rows] == before
        assert [[(key, dict(row)) for key, row in page] for page in outcome.pages] == pages
        if is_true:
            for write in transaction.writes:
                _write(write, self.model, outcome.now_ms)
        return self._compare()

    def _find(self, wanted: Range) -> list[tuple[bytes, dict[str, Value]]]:
        rows = sorted((record.key, dict(row)) for record, row in self.model.items() if record.table is wanted.table)
        found = [(key, row) for key, row in rows if wanted.start <= key and (wanted.end is None or key < wanted.end)]
        return (found[::-1] if wanted.backwards else found)[: wanted.limit]

    def _compare(self) -> None:
        outcome = self.engine.sync.transact(Transaction(RECORDS))
        self._forget(outcome.now_ms)
        assert [row and dict(row) for row in outcome.rows] == [self.model.get(record) for record in RECORDS]

    def _refuse(self, transaction: Transaction) -> None:
        try:
            self.engine.sync.transact(transaction)
        except EngineError:
            return
        raise AssertionError("A number that does not fit in 64 bits was written.")

    @rule(equal=st.one_of(st.none(), HOLDERS), after=st.sampled_from([b"", b"\x00", b"a", b"b"]), limit=st.integers(1, 4))
    def scan(self, equal: bytes | None, after: bytes, limit: int) -> None:
        self._look(FIRST, equal, after, limit)
        self._look(SECOND, None, after, limit)

    @rule()
    def purge(self) -> None:
        self.engine.sync.purge(FIRST)
        assert self.engine.sync.purge(FIRST) == 0

    def _look(self, table: Table, equal: bytes | None, after: bytes, limit: int) -> None:
        self._forget(self.engine.sync.transact(Transaction([RECORDS[0]])).now_ms)
        rows = sorted((record.key, row) for record, row in self.model.items() if record.table is table)
        found = [(key, row) for key, row in rows if key > after and equal in {None, row["holder"]}]
        assert [(key, dict(row)) for key, row in self.engine.sync.scan(table, equal=equal, after=after, limit=limit)] == found[
            :limit
        ]

    def _forget(self, now_ms: int) -> None:
        for record, row in list(self.model.items()):
            end = row.get("expires")
            if isinstance(end, int) and end <= now_ms:
                del self.model[record]


def _holds(condition: Condition, model: Model, now_ms: int) -> bool:
    if isinstance(condition, Not):
        return not _holds(condition.condition, model, now_ms)
    if isinstance(condition, AnyOf | AllOf):
        both = [_holds(part, model, now_ms) for part in condition]
        return any(both) if isinstance(condition, AnyOf) else all(both)
    row = model.get(condition.record)
    if row is None or isinstance(condition, Exists):
        return row is not None
    found, value = row[condition.column], condition.value
    if isinstance(condition, Is):
        return bool(found == value)
    most = now_ms + value.plus_ms if isinstance(value, Now) else value
    return isinstance(found, int) and isinstance(most, int) and found <= most


def _write(write: Write, model: Model, now_ms: int) -> None:
    if isinstance(write, Delete):
        model.pop(write.record, None)
        return
    row = model.setdefault(write.record, dict.fromkeys(write.record.table.columns))
    for column, value in write.values.items():
        if isinstance(value, Now):
            row[column] = now_ms + value.plus_ms
        elif isinstance(value, Plus):
            before = row[column]
            row[column] = (before if isinstance(before, int) else 0) + value.by
        else:
            row[column] = value


def _is_too_large(write: Write, model: Model) -> bool:
    plus = write.values.get("count") if isinstance(write, Put) else None
    if not isinstance(plus, Plus):
        return False
    before = model.get(write.record, {}).get("count")
    return not -LARGEST - 1 <= (before if isinstance(before, int) else 0) + plus.by <= LARGEST
