r"""Make of each shape of a transaction one function of the server, so that a transaction is one round trip.

>>> from dcaf.engines.transactions import Plus, Put, Record, Table, Transaction
>>> hits = Record(Table("hits", {"n": int}), b"home")
>>> plan = plan_call(Transaction([hits], writes=[Put(hits, {"n": Plus(2)})]), Names("dcaf"), is_waited_for=True)
>>> print(plan.shape.body)
#variable_conflict use_variable
BEGIN
IF current_setting('transaction_isolation') <> 'read committed' THEN RAISE EXCEPTION USING ERRCODE = 'DC001'; END IF;
o_ok := CASE WHEN set_config('lock_timeout', w::text, TRUE) IS NULL THEN FALSE ... ELSE TRUE END;
o_now := floor(extract(epoch FROM clock_timestamp()) OPERATOR(pg_catalog.*) 1000)::bigint;
SELECT t."n" INTO r0_0 FROM "dcaf"."hits" AS t WHERE t."key" = k0;
e0 := FOUND;
o_ok := TRUE;
IF o_ok THEN
IF e0 THEN UPDATE "dcaf"."hits" AS t SET "n" = COALESCE(r0_0, 0) + a0 WHERE t."key" = k0; END IF;
IF NOT e0 OR NOT FOUND THEN INSERT INTO "dcaf"."hits" AS t ... ON CONFLICT ("key") DO UPDATE SET "n" = excluded."n"; END IF;
END IF;
END

Two transactions that differ in keys and values alone have one shape, and one function. It first locks every row that it names, then
reads the clock and the rows, then compares, then writes: each statement of it sees what was committed before the statement began.
Of a row that it only writes it reads no more than it keeps, which is mostly nothing.
Rows that are not there have no lock of their own in PostgreSQL; so the locks are advisory ones, in the order of their numbers, and
two transactions never wait for each other.

A transaction that writes nothing takes no lock: its function is STABLE, and sees one snapshot.
"""

# ruff: noqa: S608 - the names in its statements are what a pattern allows; values are never in the text

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat
from typing import Any, Final, NamedTuple

from dcaf.engines.postgres.errors import WRONG_ISOLATION
from dcaf.engines.postgres.sql import (
    BEGUN_SQL,
    KINDS,
    NOW_SQL,
    Key,
    insert_row,
    list_compared,
    quote_column,
    render_condition,
    render_value,
    set_commit,
)
from dcaf.engines.postgres.statements import Statement, build_statement
from dcaf.engines.postgres.walk import Walk
from dcaf.engines.transactions import (
    EXPIRES,
    Outcome,
    Page,
    Record,
    Row,
    Table,
    Transaction,
    Value,
)

MOST_ROWS: Final = 16
MOST_ARGUMENTS: Final = 90
MOST_FOUND: Final = 1_600
"""What a function takes, and how many columns it returns; PostgreSQL allows 100 arguments, and 1,664 columns. What has more goes
another way, see ``large``."""

MOST_NUMBERS: Final = 4_096
"""Of how many rows a process keeps the number of the lock: each turn takes those of its session twice."""

LISTS: Final[Mapping[type, Any]] = {int: list[int], bytes: list[bytes]}

BOUNDS: Final[Mapping[str, type]] = {"start": bytes, "end": bytes, "limit": int}
"""What a range is given."""

PLANNING: Final = "SET enable_seqscan = off SET plan_cache_mode = force_generic_plan"
"""A plan is made once for a connection, and not anew for each of the first calls. One that was made while a table was small would
go through all of it when it is large."""

SAFETY: Final = "SET search_path = pg_catalog, pg_temp"
"""A function takes no operator and no function from a schema in which other roles may have made one."""

MAKE_SAFE: Final = "IF NOT FOUND THEN PERFORM pg_logical_emit_message(TRUE, 'dcaf', ''); END IF;"
"""Where there is nothing to delete, it may be that the one who deleted it has not waited for the disk. A commit waits for the disk,
and for all that was written before, where it has written something itself."""


class Names:
    """The names of a schema, and the numbers of its locks.

    Args:
        schema: The schema.

    Attributes:
        schema: The schema.
        gate: The lock that every transaction that writes shares, so that one of thousands of rows can have it alone.
        making: The lock of who makes tables and functions.
    """

    def __init__(self, schema: str) -> None:
        self.schema: str = schema
        self.gate: int = self.number(b"gate")
        self.making: int = self.number(b"making")

    def number(self, *parts: bytes) -> int:
        """A number of 64 bits for a lock, the same in every process."""
        return _number(self.schema, *parts)

    def lock(self, record: Record) -> int:
        """The lock of a row."""
        return self.number(b"row", record.table.name.encode(), record.key)

    def quote(self, name: str) -> str:
        """A table or a function of the schema, for SQL."""
        return f'"{self.schema}"."{name}"'


@lru_cache(maxsize=MOST_NUMBERS)
def _number(schema: str, *parts: bytes) -> int:
    digest = hashlib.blake2b(b"\0".join((schema.encode(), *parts)), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


class Plan(NamedTuple):
    """A call of a function.

    Attributes:
        shape: The function.
        values: Its arguments, but for how long it waits for locks, which comes first where it writes.
        order: For each row of the answer, its place among the rows that the function reads.
    """

    shape: Shape
    values: list[Value]
    order: Sequence[int]


@dataclass(frozen=True)
class Shape:
    """One function of the server.

    Attributes:
        names: The schema.
        tables: The table of each row that it names; those that are returned come first.
        reads: How many of them are returned.
        is_waited_for: Whether its commit waits for the disk.
        when: The condition, in terms of the rows' places.
        writes: What it writes, in terms of the rows' places.
        pages: For each range that it reads: the table, whether it has an end, and whether it goes down.
    """

    names: Names
    tables: tuple[Table, ...]
    reads: int
    is_waited_for: bool
    when: Key | None
    writes: tuple[Key, ...]
    pages: tuple[tuple[Table, bool, bool], ...] = ()

    @property
    def key(self) -> Key:
        """What is equal for two transactions of one shape, where tables of one name are equal."""
        pages = tuple([(table.name, *others) for table, *others in self.pages])
        return tuple([table.name for table in self.tables]), self.reads, self.is_waited_for, self.when, self.writes, pages

    @cached_property
    def statement(self) -> Statement:
        """The statement that calls it."""
        given = [kind for _, kind in self._arguments]
        places = ", ".join(f"${at + 1}" for at in range(len(given)))
        found: list[Any] = [int, bool]
        for table in self.tables[: self.reads]:
            found += [bool, *table.columns.values()]
        for table, *_ in self.pages:
            found += [LISTS[bytes], *(LISTS[kind] for kind in table.columns.values())]
        return build_statement(self.name, f"SELECT * FROM {self.names.quote(self.name)}({places})", given, found)

    @cached_property
    def name(self) -> str:
        """Its name, which says everything of it: two releases never call two functions by one name."""
        return f"t_{hashlib.blake2b(self._definition.encode(), digest_size=12).hexdigest()}"

    @cached_property
    def make(self) -> str:
        """The statement that makes it, unless it is there; one process at a time."""
        # Not to_regprocedure: that has not heard of what was made while the lock was waited for.
        is_there = (
            "SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace "
            f"WHERE n.nspname = '{self.names.schema}' AND p.proname = '{self.name}'"
        )
        create = f"CREATE FUNCTION {self.names.quote(self.name)}{self._definition}"
        return (
            f"DO $do$ BEGIN PERFORM pg_advisory_xact_lock('{self.names.making}'::bigint); "
            f"IF NOT EXISTS ({is_there}) THEN {create}; END IF; END $do$"
        )

    @cached_property
    def body(self) -> str:
        """What it does."""
        lines = ["#variable_conflict use_variable", *self._declare_kept(), "BEGIN"]
        if self.writes:
            lines += [self._check_isolation(), self._take_locks()]
        lines.append(f"o_now := {NOW_SQL if self.writes else BEGUN_SQL};")
        for at in range(self.reads):
            lines += [self._read(at), f"e{at} := FOUND;"]
        lines += [self._read_page(at) for at in range(len(self.pages))]
        lines.append(f"o_ok := {render_condition(self.when, self._variables)};")
        if self.writes:
            lines += ["IF o_ok THEN", *(line for write in self.writes for line in self._write(write)), "END IF;"]
        return "\n".join([*lines, "END"])

    @cached_property
    def _definition(self) -> str:
        given = [f"{name} {KINDS[kind]}" for name, kind in self._arguments]
        found = ["OUT o_now bigint", "OUT o_ok boolean"]
        for at in range(self.reads):
            found += [f"OUT {variable}" for variable in self._list_variables(at)]
        for at, (table, *_) in enumerate(self.pages):
            kinds = [KINDS[bytes], *(KINDS[kind] for kind in table.columns.values())]
            found += [f"OUT g{at}_{number} {kind}[]" for number, kind in enumerate(kinds)]
        volatility = "VOLATILE" if self.writes else "STABLE"
        head = f"({', '.join(given + found)}) RETURNS record LANGUAGE plpgsql {volatility} {PLANNING} {SAFETY}"
        return f"{head} AS $dcaf$\n{self.body}\n$dcaf$"

    @cached_property
    def _variables(self) -> list[dict[str, str]]:
        """For each row, column -> the variable that has it."""
        return [{column: f"r{at}_{number}" for number, column in enumerate(table.columns)} for at, table in enumerate(self.tables)]

    @cached_property
    def _arguments(self) -> list[tuple[str, type]]:
        rows = range(len(self.tables))
        locks = [(name, int) for name in ("w", "m", *(f"l{at}" for at in rows))] if self.writes else []
        keys = [(f"k{at}", bytes) for at in rows]
        bounds = [(f"p{at}_{name}", kind) for at in range(len(self.pages)) for name, kind in BOUNDS.items()]
        return [*locks, *keys, *bounds, *((f"a{at}", kind) for at, kind in enumerate(self._list_kinds()))]

    def _list_kinds(self) -> list[type]:
        """The types of the values, in their order."""
        leaves = [] if self.when is None else list_compared(self.when)
        columns = [(at, column) for _, at, column, _ in leaves]
        columns += [(at, column) for _, at, *rest in self.writes for found in rest for column, _, _ in found]
        return [self.tables[at].columns[column] for at, column in columns]

    def build_outcome(self, answer: Sequence[Any], order: Sequence[int]) -> Outcome:
        """What the function's answer says."""
        rows: list[Row | None] = []
        at = 2
        for table in self.tables[: self.reads]:
            end = at + 1 + len(table.columns)
            rows.append(dict(zip(table.columns, answer[at + 1 : end], strict=True)) if answer[at] else None)
            at = end
        pages = []
        for table, *_ in self.pages:
            end = at + 1 + len(table.columns)
            pages.append(_build_page(table, *answer[at:end]))
            at = end
        return Outcome(answer[1], tuple([rows[place] for place in order]), answer[0], tuple(pages))

    def _check_isolation(self) -> str:
        # In REPEATABLE READ the rows would be those of before the locks.
        is_wrong = "current_setting('transaction_isolation') <> 'read committed'"
        return f"IF {is_wrong} THEN RAISE EXCEPTION USING ERRCODE = '{WRONG_ISOLATION}'; END IF;"

    def _take_locks(self) -> str:
        """Not PERFORM, each of which is a query: what is assigned is only worked out. Who has waited has a new snapshot."""
        parts = [
            "set_config('lock_timeout', w::text, TRUE)",
            set_commit(is_waited_for=self.is_waited_for),
            f"pg_advisory_xact_lock_shared({self.names.gate})",
        ]
        parts += [
            f"CASE WHEN m & {1 << at} <> 0 THEN pg_advisory_xact_lock(l{at}) ELSE pg_advisory_xact_lock_shared(l{at}) END"
            for at in range(len(self.tables))
        ]
        return f"o_ok := CASE {' '.join([f'WHEN {part} IS NULL THEN FALSE' for part in parts])} ELSE TRUE END;"

    def _read(self, at: int) -> str:
        variables = self._variables[at]
        columns = ", ".join(f"t.{quote_column(column)}" for column in variables)
        what = f"SELECT {columns} INTO {', '.join(variables.values())}" if variables else "PERFORM 1"
        return f"{what} FROM {self._find(at)}{self._lives(at)};"

    def _read_page(self, at: int) -> str:
        """One statement: it sees the same as the reads of rows, whose locks all who write these rows must have."""
        table, has_end, backwards = self.pages[at]
        names = [quote_column("key"), *map(quote_column, table.columns)]
        order = f't."key"{" DESC" if backwards else ""}'
        bounds = f't."key" >= p{at}_start{f" AND t.{chr(34)}key{chr(34)} < p{at}_end" if has_end else ""}'
        rows = f"SELECT {', '.join(f't.{name}' for name in names)} FROM {self.names.quote(table.name)} AS t"
        page = f"{rows} WHERE {bounds}{find_lives(table)} ORDER BY {order} LIMIT p{at}_limit"
        lists = ", ".join(f"array_agg(t.{name} ORDER BY {order})" for name in names)
        return f"SELECT {lists} INTO {', '.join(f'g{at}_{number}' for number in range(len(names)))} FROM ({page}) AS t;"

    def _find(self, at: int) -> str:
        return f'{self.names.quote(self.tables[at].name)} AS t WHERE t."key" = k{at}'

    def _lives(self, at: int) -> str:
        return find_lives(self.tables[at])

    def _list_variables(self, at: int) -> list[str]:
        """Whether a row is there, and its columns, each with its type."""
        kinds = self.tables[at].columns
        return [f"e{at} boolean", *(f"{variable} {KINDS[kinds[column]]}" for column, variable in self._variables[at].items())]

    def _replaces(self, write: Key) -> bool:
        """Whether nothing of what a row was is needed to write it, or returned."""
        kind, at, *columns = write
        if at < self.reads:
            return False
        if kind == "delete":
            return True
        is_whole: bool = len(columns[0]) == len(self.tables[at].columns) > 0
        return is_whole and all(what != "plus" for _, what, _ in columns[0])

    def _declare_kept(self) -> list[str]:
        """The variables of rows that are not returned, and of which something is kept."""
        kept = [write[1] for write in self.writes if write[1] >= self.reads and not self._replaces(write)]
        lines = [f"{variable};" for at in kept for variable in self._list_variables(at)]
        return ["DECLARE", *lines] if lines else []

    def _write(self, write: Key) -> list[str]:
        kind, at, *columns = write
        if kind == "delete":
            return [f"DELETE FROM {self._find(at)};", *([MAKE_SAFE] if self.is_waited_for else [])]
        variables = self._variables[at]
        found = {column: render_value(what, variables[column], value) for column, what, value in columns[0]}
        insert = self._insert(at, [found.get(column, variable) for column, variable in variables.items()])
        changes = ", ".join(f"{quote_column(column)} = {value}" for column, value in found.items())
        update = f'UPDATE {self.names.quote(self.tables[at].name)} AS t SET {changes} WHERE t."key" = k{at}'
        if self._replaces(write):
            return [f"{update}{self._lives(at)};", f"IF NOT FOUND THEN {insert} END IF;"]
        read = [] if at < self.reads else [self._read(at), f"e{at} := FOUND;"]
        if not found:
            return [*read, f"IF NOT e{at} THEN {insert} END IF;"]
        # A purge may have dropped the row since it was read.
        return [*read, f"IF e{at} THEN {update}; END IF;", f"IF NOT e{at} OR NOT FOUND THEN {insert} END IF;"]

    def _insert(self, at: int, values: Sequence[str]) -> str:
        table = self.tables[at]
        # A row that has expired may have columns of a newer release: the new one does not take them over.
        clear = f"DELETE FROM {self._find(at)}; " if EXPIRES in table.columns else ""
        return clear + insert_row(self.names.quote(table.name), table, ", ".join([f"k{at}", *values]), is_values=True) + ";"


def _build_page(table: Table, keys: Sequence[bytes] | None, *columns: Sequence[Value]) -> Page:
    """The page of a range of its keys and its columns; None where it is empty."""
    if keys is None:
        return []
    rows = zip(*columns, strict=True) if columns else repeat((), len(keys))
    return [(key, dict(zip(table.columns, row, strict=True))) for key, row in zip(keys, rows, strict=True)]


def find_lives(table: Table) -> str:
    """The condition that a row of a table has not expired, after others."""
    return f' AND (t."{EXPIRES}" IS NULL OR t."{EXPIRES}" > o_now)' if EXPIRES in table.columns else ""


def plan_call(
    transaction: Transaction,
    names: Names,
    *,
    is_waited_for: bool,
    remember: Callable[[Key, Callable[[], Shape | None]], Shape | None] = lambda key, build: build(),  # noqa: ARG005
) -> Plan | None:
    """The call of a function that is a transaction; None where it is too large for one, or its shape has none.

    Args:
        transaction: The transaction. Its tables that have one name are equal.
        names: The schema.
        is_waited_for: Whether its commit waits for the disk.
        remember: Returns the shape of a key that was there before, or the one that it builds; None where it has no function.
    """
    records = transaction.records
    if len(records) > MOST_ROWS:
        return None
    places = {record: at for at, record in enumerate(records)}
    walk = Walk(places)
    when = None if transaction.when is None else walk.condition(transaction.when)
    writes = tuple([walk.write(write) for write in transaction.writes])
    pages = tuple([(wanted.table, wanted.end is not None, wanted.backwards) for wanted in transaction.ranges])
    if 2 * len(records) + len(BOUNDS) * len(pages) + len(walk.values) > MOST_ARGUMENTS:
        return None
    order = [places[record] for record in transaction.reads]
    reads = 1 + max(order, default=-1)

    def build() -> Shape | None:
        tables = tuple([record.table for record in records])
        found = 2 + sum(1 + len(table.columns) for table in (*tables[:reads], *(table for table, *_ in pages)))
        return Shape(names, tables, reads, is_waited_for, when, writes, pages) if found <= MOST_FOUND else None

    named = tuple([(wanted.table.name, wanted.end is not None, wanted.backwards) for wanted in transaction.ranges])
    shape = remember((tuple([record.table.name for record in records]), reads, is_waited_for, when, writes, named), build)
    if shape is None:
        return None
    bounds = [bound for wanted in transaction.ranges for bound in (wanted.start, wanted.end, wanted.limit)]
    values = [*(list_locks(transaction, names) if writes else ()), *[record.key for record in records], *bounds, *walk.values]
    return Plan(shape, values, order)


def order_locks(transaction: Transaction, names: Names) -> list[tuple[int, bool]]:
    """The locks of a transaction's rows in the order in which all take them, and whether each is needed alone."""
    written = {write.record for write in transaction.writes}
    found: dict[int, bool] = {}
    for record in transaction.records:
        number = names.lock(record)
        found[number] = found.get(number, False) or record in written
    return sorted(found.items())


def list_locks(transaction: Transaction, names: Names) -> list[int]:
    """The arguments of a function for its locks: which are needed alone, a bit each, and their numbers."""
    locks = order_locks(transaction, names)
    count = len(transaction.records)
    locks += locks[-1:] * (count - len(locks))  # two rows of one number, which happens once in some billions of billions
    mask = sum(1 << at for at, (_, is_alone) in enumerate(locks) if is_alone)
    return [mask, *(number for number, _ in locks)]
