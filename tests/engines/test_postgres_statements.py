"""What the PostgreSQL engine asks the server for: whose operators it uses, which rows and columns are meant, what a role may do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest

from dcaf.core.errors import EngineError
from dcaf.engines import AtMost, Delete, Engine, Exists, Is, MemoryEngine, Not, Now, Plus, Put, Record, Table, Transaction, Write
from dcaf.engines.postgres import functions, large, tables
from dcaf.engines.postgres.engine import PostgresEngine
from dcaf.engines.postgres.functions import Shape
from dcaf.engines.postgres.sql import NOW_SQL
from tests.engines.postgres_processes import COUNTS, add, count, open_counts
from tests.engines.postgres_servers import Server, bouncing, execute, get_server, name_schema, wait_until

PATIENCE: Final = timedelta(seconds=10)
MANY: Final = [Record(COUNTS, b"%03d" % number) for number in range(17)]
"""More rows than a function takes."""

ROOM: Final = 64
"""For how many locks of each connection PostgreSQL has room."""


@pytest.fixture
def server() -> Server:
    return get_server()


@pytest.fixture
def schema() -> str:
    return name_schema()


@pytest.fixture
def url(server: Server, schema: str) -> str:
    return f"{server.url()}&schema={schema}"


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    found = open_counts(url)
    yield found
    found.sync.close()


def open_tables(url: str, *declared: Table) -> PostgresEngine:
    engine = PostgresEngine(url, timeout=PATIENCE)
    engine.declare(declared)
    return engine


# Operators and functions of other roles

TYPES: Final = ("bigint", "integer", "smallint", "numeric", "float8", "bytea", "text", "varchar", "boolean", "name", "oid")
OPERATORS: Final = dict.fromkeys("*+-&", "compute") | dict.fromkeys(("<", ">", "<=", ">=", "=", "<>"), "compare")
FUNCTIONS: Final = ("floor", "unnest", "count", "max", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared", "current_setting")
LISTS: Final = ("bigint[]", "bytea[]", "boolean[]")


@pytest.fixture(scope="module")
def trapped() -> str:
    """A database with operators and functions of all types in ``public``; each one fails where it is used."""
    fail = "LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''caught''; END'"
    lines = [f"CREATE FUNCTION public.{name}({kind}) RETURNS {kind} {fail}" for name in FUNCTIONS for kind in (*TYPES, *LISTS)]
    lines += [
        f"CREATE FUNCTION public.set_config({first}, {second}, boolean) RETURNS text {fail}"
        for first in ("text", "varchar", "name")
        for second in ("text", "varchar", "name")
    ]
    for left in TYPES:
        for right in TYPES:
            lines.append(f"CREATE FUNCTION public.compute({left}, {right}) RETURNS numeric {fail}")
            lines.append(f"CREATE FUNCTION public.compare({left}, {right}) RETURNS boolean {fail}")
            lines += [
                f"CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.{does})"
                for name, does in OPERATORS.items()
            ]
    url = get_server().make_database()
    execute(url, ";".join(["SET client_min_messages = error", *lines]))
    return url


def use_everything(url: str) -> None:
    """Let each kind of statement of an engine run once."""
    engine = open_counts(url)
    with closing(engine.sync):
        record = Record(COUNTS, b"a")
        some: dict[str, Any] = {"count": Plus(1), "holder": b"ada", "expires": Now(60_000)}
        is_late = Not(AtMost(record, "expires", Now()))
        writes: list[Write] = [Put(record, some), Delete(Record(COUNTS, b"b"))]
        for durable in (True, False):
            reads = [record, Record(COUNTS, b"b")]
            assert engine.sync.transact(Transaction(reads, when=is_late, writes=writes, durable=durable)).applied
            assert engine.sync.transact(Transaction(MANY, writes=[Put(one, some) for one in MANY], durable=durable)).applied
        assert engine.sync.transact(Transaction([*MANY, record], when=Is(record, "holder", b"ada"))).applied
        assert len(engine.sync.scan(COUNTS)) == len(engine.sync.scan(COUNTS, equal=b"ada")) == 1 + len(MANY)
        assert engine.sync.purge(COUNTS) == 0
        keys = Table("keys", {})
        engine.declare([keys])
        records = [Record(keys, one.key) for one in MANY]
        assert engine.sync.transact(Transaction(records, writes=[Put(one, {}) for one in records])).applied
        engine.sync.check()


def test_an_operator_of_another_role_is_never_used(trapped: str, schema: str) -> None:
    use_everything(f"{trapped}&schema={schema}")


def test_control_in_a_function_it_is_where_the_function_looks_everywhere(
    trapped: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "SAFETY", "")
    with pytest.raises(EngineError, match="P0001"):
        use_everything(f"{trapped}&schema={schema}")


@pytest.mark.parametrize("module", [large, tables])
def test_control_in_a_statement_it_is_where_it_fits_better(
    module: Any, trapped: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEGUN_SQL", module.BEGUN_SQL.replace("OPERATOR(pg_catalog.*)", "*"))
    with pytest.raises(EngineError, match="P0001"):
        use_everything(f"{trapped}&schema={schema}")


# Columns


def compare_in_any_order(engine: Engine) -> list[bool]:
    """Compare and write columns of one table, by Tables that are equal and have them in another order."""
    found: list[bool] = []
    for names in (("a", "b", "c"), ("c", "b", "a"), ("b", "a", "c")):
        record = Record(Table("t", dict.fromkeys(names, int)), b"k")
        if not found:
            engine.declare([record.table])
            engine.sync.transact(Transaction([record], writes=[Put(record, {"a": 1, "b": 20, "c": 300})]))
        conditions = [Is(record, column, number) for column in "abc" for number in (1, 20, 300)]
        found += [engine.sync.transact(Transaction([record], when=condition)).applied for condition in conditions]
        found += [engine.sync.transact(Transaction([record], when=AtMost(record, column, 20))).applied for column in "abc"]
        engine.sync.transact(Transaction([record], writes=[Put(record, {"b": Plus(0), "c": Plus(0)})]))
        (row,) = engine.sync.transact(Transaction([record])).rows
        assert row == {"a": 1, "b": 20, "c": 300}
    return found


def test_equal_tables_may_have_their_columns_in_another_order(url: str) -> None:
    engine = PostgresEngine(url, timeout=PATIENCE)
    with closing(engine.sync):
        assert compare_in_any_order(engine) == compare_in_any_order(MemoryEngine())


def make_again(url: str, others: int, *, is_read: bool = True) -> dict[str, Any]:
    """Let a row of a newer release expire, and an older one write it again with so many others; returns the row."""
    old, new = (Table("t", {"a": int, "expires": int, **more}) for more in ({}, {"flag": int}))
    record, newer = Record(old, b"k"), Record(new, b"k")
    rows = [record, *(Record(old, b"%d" % number) for number in range(others))]
    with closing(open_tables(url, new).sync) as sync:
        sync.transact(Transaction([newer], writes=[Put(newer, {"a": 1, "flag": 1, "expires": 1})]))
        with closing(open_tables(url, old).sync) as older:
            value: dict[str, Any] = {"a": Plus(2)} if is_read else {"a": 2, "expires": None}
            found = older.transact(Transaction(rows if is_read else [], writes=[Put(row, value) for row in rows])).rows
            assert set(found) <= {None}
        return dict(sync.transact(Transaction([newer])).rows[0] or {})


@pytest.mark.parametrize("others", [0, 16])
def test_a_new_row_has_nothing_of_the_one_that_has_expired(others: int, url: str) -> None:
    assert make_again(url, others) == {"a": 2, "expires": None, "flag": None}


@pytest.mark.parametrize("others", [0, 16])
def test_one_that_is_written_whole_and_not_read_has_nothing_of_it_either(others: int, url: str) -> None:
    assert make_again(url, others, is_read=False) == {"a": 2, "expires": None, "flag": None}


def test_control_where_one_that_has_expired_is_updated_its_newer_columns_stay(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shape, "_lives", lambda shape, at: "")
    assert make_again(url, 0, is_read=False) == {"a": 2, "expires": None, "flag": 1}


def test_control_where_the_old_row_stays_its_newer_columns_do(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Shape._write

    def keep(shape: Shape, write: Any) -> list[str]:
        return [re.sub("DELETE FROM .*; INSERT", "INSERT", line) for line in whole(shape, write)]

    monkeypatch.setattr(Shape, "_write", keep)
    assert make_again(url, 0) == {"a": 2, "expires": None, "flag": 1}


ODD: Final = [
    Table("t", {"xmin": int, "ctid": bytes, "tableoid": int, "expires": int}, indexed="ctid"),
    Table("seats", {"holder": bytes}, indexed="holder"),
    Table("seats_by_holder", {"a": int}),
    Table("seats_pkey", {"a": int}),
    Table("excluded", {"a": int, "excluded": int}),
    Table("select", {"o_now": int, "k0": bytes, "r0_0": int, "e0": int, "t": int}, indexed="k0"),
    Table("a" * 40, {"b" * 40: bytes}, indexed="b" * 40),
    Table("pg_class", {}),
]


@pytest.mark.parametrize("others", [0, 16])
def test_names_that_mean_something_to_postgresql_are_names_like_others(others: int, url: str) -> None:
    engine = open_tables(url, *ODD)
    with closing(engine.sync):
        for table in ODD:
            records = [Record(table, b"%d" % number) for number in range(1 + others)]
            row = {name: 7 if kind is int else b"7" for name, kind in table.columns.items() if name != "expires"}
            for _ in range(2):  # made, and written again
                engine.sync.transact(Transaction(records, writes=[Put(record, row) for record in records]))
            whole = dict.fromkeys(table.columns) | row
            assert engine.sync.transact(Transaction(records)).rows == (whole,) * len(records)
            assert engine.sync.scan(table, equal=b"7" if table.indexed else None)[0] == (b"0", whole)
    again = open_tables(url, *ODD)
    with closing(again.sync):
        again.sync.check()  # what is there is known for what it is


def test_rows_of_many_columns_are_found(url: str) -> None:
    wide = Table("wide", {f"c{number}": int for number in range(130)})
    records = [Record(wide, b"%d" % number) for number in range(14)]
    engine = open_tables(url, wide)
    with closing(engine.sync):
        assert engine.sync.transact(Transaction(records, writes=[Put(records[0], {"c129": 5})])).applied
        first, *others = engine.sync.transact(Transaction(records)).rows
    assert first is not None
    assert first["c129"] == 5
    assert others == [None] * 13


# Numbers, clocks, times


def write_small_and_large(url: str) -> None:
    pair = Table("pair", {"a": int, "b": int})
    records = [Record(pair, b"%d" % number) for number in range(17)]
    engine = open_tables(url, pair)
    with closing(engine.sync):
        for row in ({"a": 1, "b": 2**40}, {"a": 2**40, "b": 1}, {"a": None, "b": 2**40}, {"a": 1, "b": None}, {"a": 2**63 - 1}):
            engine.sync.transact(Transaction(records, writes=[Delete(records[0])]))
            engine.sync.transact(Transaction(records, writes=[Put(records[0], row)]))
            assert engine.sync.transact(Transaction(records)).rows[0] == {"a": None, "b": None, **row}


def test_in_steps_a_small_number_and_a_large_one_are_of_one_type(url: str) -> None:
    write_small_and_large(url)


def test_control_as_lists_of_psycopg_they_are_not(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LISTS", {int: list, bytes: list})
    with pytest.raises(EngineError):
        write_small_and_large(url)


def read_while_it_is_prolonged(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Read a row that is prolonged between the snapshot of the reader and its clock; returns whether it was found."""
    body: Any = Shape.__dict__["body"]

    def wait(shape: Shape) -> str:
        return str(body.func(shape)).replace("BEGIN\n", "BEGIN\n" if shape.writes else "BEGIN\nPERFORM pg_sleep(0.6);\n", 1)

    monkeypatch.setattr(Shape, "body", property(wait))
    record = Record(COUNTS, b"a")
    prolong = Transaction([record], writes=[Put(record, {"count": Plus(1), "expires": Now(400)})])
    engine.sync.transact(Transaction([Record(COUNTS, b"b")]))
    for _ in range(2):
        engine.sync.transact(prolong)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(engine.sync.transact, Transaction([record]))
        while not reading.done():
            time.sleep(0.05)
            assert engine.sync.transact(prolong).rows[0] is not None
        return reading.result().rows[0] is not None


def test_a_row_that_is_there_all_the_time_is_found(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_while_it_is_prolonged(engine, monkeypatch)


def test_control_by_a_clock_after_the_snapshot_it_is_not(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "BEGUN_SQL", NOW_SQL)
    assert not read_while_it_is_prolonged(engine, monkeypatch)


@pytest.mark.parametrize("rows", [1, 17])
def test_a_call_may_take_longer_than_postgresql_can_be_told_to_wait(rows: int, url: str) -> None:
    engine = open_counts(url, timeout=timedelta(days=60))
    with closing(engine.sync):
        engine.sync.transact(add(*(record.key for record in MANY[:rows])))
        assert count(engine, MANY[0].key) == 1


# The disk, locks, roles


def note_commits(server: Server, schema: str) -> set[str]:
    """What a commit waits for, behind a PgBouncer another client of which has told the session not to wait."""
    with bouncing(server, "default_pool_size = 1") as route:
        url = route(server.url())
        with closing(open_counts(f"{url}&schema={schema}", prepared=False).sync) as sync:
            execute(url, "SET synchronous_commit = off")
            sync.check()
            note = f"BEGIN INSERT INTO {schema}.noted VALUES (current_setting($$synchronous_commit$$)); RETURN NULL; END"
            execute(url, f"CREATE TABLE {schema}.noted (found text)")
            execute(url, f"CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS '{note}'")
            execute(url, f"CREATE TRIGGER note AFTER INSERT ON {schema}.counts FOR EACH ROW EXECUTE FUNCTION {schema}.note()")
            sync.transact(add())
            sync.transact(add(*(record.key for record in MANY)))
        return {found for (found,) in execute(url, f"SELECT found FROM {schema}.noted")}


def test_a_commit_waits_for_the_disk_whatever_another_client_of_pgbouncer_has_said(server: Server, schema: str) -> None:
    assert note_commits(server, schema) == {"on"}


def test_control_where_the_session_is_believed_it_does_not(server: Server, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "set_commit", lambda **_: "1")
    assert note_commits(server, schema) == {"on", "off"}


def count_locks(engine: PostgresEngine, server: Server, rows: int) -> int:
    """How many locks of rows a transaction has when it waits for the last one."""
    transaction = add(*(b"%05d" % number for number in range(rows)))
    names = engine._calls.names
    engine.sync.check()
    last = max(names.lock(record) for record in transaction.reads)
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(server.url()) as other, ThreadPoolExecutor(1) as pool:
        other.execute(f"SELECT pg_advisory_xact_lock_shared({names.gate}), pg_advisory_xact_lock({last})".encode())
        writing = pool.submit(engine.sync.transact, transaction)
        wait_until(lambda: len(server.execute(waiting)) == 1, "Nobody waits")
        found = server.execute(f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid IN ({waiting})")
        other.rollback()
        assert writing.result().applied
    assert count(engine, b"00000") == 1
    return int(found[0][0])


@pytest.mark.parametrize("rows", [16, 17, large.MOST_LOCKED, 999])
def test_a_transaction_takes_no_more_locks_than_there_is_room_for(rows: int, engine: PostgresEngine, server: Server) -> None:
    assert count_locks(engine, server, rows) < ROOM


def test_control_one_for_each_of_many_rows_is_more(engine: PostgresEngine, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "MOST_LOCKED", 1_000)
    assert count_locks(engine, server, 999) > ROOM


def test_a_role_that_may_not_make_a_function_does_the_same_in_steps(server: Server, schema: str, engine: PostgresEngine) -> None:
    engine.sync.transact(add())
    role = f"guest_of_{schema}"
    allow = f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"
    server.execute(f"CREATE ROLE {role} LOGIN; {allow}")
    made = f"SELECT count(*) FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace"
    before = server.execute(made)
    record = Record(COUNTS, b"new")
    with closing(open_counts(f"{server.url(user=role)}&schema={schema}").sync) as guest:
        guest.transact(add())  # that function is there
        for number in range(3):
            write = Put(record, {"count": Plus(1), "data": b"%d" % number})
            assert guest.transact(Transaction([record, MANY[0]], when=Not(Exists(MANY[0])), writes=[write])).applied
            assert not guest.transact(Transaction([record, MANY[0]], when=Exists(MANY[0]))).applied
        (row,) = guest.transact(Transaction([record])).rows
        assert row == {"count": 3, "holder": None, "expires": None, "data": b"2"}
    assert server.execute(made) == before
    assert count(engine) == 2
