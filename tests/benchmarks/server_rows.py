"""Writes the rows of many sessions to a Redis or a PostgreSQL, as one turn of each leaves them, and measures what they take.

What a reader gets wrong: these rows are not written by an engine, which would take minutes, but as the engine writes them. So their
sessions take turns as any other, and a test compares a row of each.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dcaf.engines.partitions import find_partition
from dcaf.engines.redis.calls import PARTITIONS
from dcaf.ledger.tables import SESSIONS, store_row
from tests.benchmarks.ledger_turns import list_rows, number_of, subject_of

AT_ONCE: Final = 1_000
"""So many rows of Redis leave together."""


PREFIX: Final = "dcaf"
"""Of the keys in Redis, as the engine has it by default."""

INDEXES: Final = """SELECT indexname, indexdef FROM pg_indexes
WHERE schemaname = %s AND tablename = %s AND indexdef NOT LIKE 'CREATE UNIQUE%%'"""
"""What is made anew after the rows, which is faster than to keep it up."""


def fill_redis(url: str, number: int, epoch: int) -> None:
    """Write the rows of so many sessions, with their places in the two indexes, to a Redis."""
    from dcaf.engines.redis.script import Keys

    keys = Keys(PREFIX)
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(url.removeprefix("unix://"))
        wire.sendall(_command(b"CONFIG", b"SET", b"appendfsync", b"everysec"))
        wire.sendall(b"".join(_build_stores(keys, epoch)))
        owed = 1 + PARTITIONS
        for rows in _batched(list_rows(number, epoch), AT_ONCE):
            commands = list(_build_commands(keys, rows))
            wire.sendall(b"".join(commands))
            owed = _take_replies(wire, owed) + len(commands)  # of those before: Redis works while the next are made
        wire.sendall(_command(b"CONFIG", b"SET", b"appendfsync", b"always"))
        _take_replies(wire, owed + 1)


def _build_stores(keys: Any, epoch: int) -> Iterator[bytes]:
    """The row of the store in each partition, which a ledger makes when it first uses one."""
    for store in map(store_row, range(PARTITIONS)):
        yield _command(b"HSET", keys.find_rows(store.partition, store.table) + store.key, b"origin", _text(epoch), b".", b"1")


def _build_commands(keys: Any, rows: list[tuple[bytes, Mapping[str, Any]]]) -> Iterator[bytes]:
    """What Redis is told of some rows."""
    indexed: dict[tuple[bytes, bytes], list[tuple[bytes, bytes]]] = defaultdict(list)
    for key, row in rows:
        partition = find_partition(subject_of(number_of(key)), "", PARTITIONS)
        at = keys.find_rows(partition, SESSIONS) + key
        fields = [word for column, value in row.items() if value is not None for word in (column.encode(), _text(value))]
        yield _command(b"HSET", at, *fields, b".", b"1")
        yield _command(b"PEXPIREAT", at, _text(row["expires"]))
        member = len(row["subject"]).to_bytes(4, "big") + row["subject"] + key
        indexed[keys.find_indexes(partition, SESSIONS)].append((key, member))
    for sets, members in indexed.items():
        for at, names in zip(sets, zip(*members, strict=True), strict=True):
            yield _command(b"ZADD", at, *(word for name in names for word in (b"0", name)))


def bytes_in_redis(url: str, number: int) -> dict[str, float]:
    """Bytes that each of so many sessions takes in memory: its row, and the whole server's for each of them."""
    import redis

    with redis.Redis.from_url(url) as client:
        rows = client.scan_iter(match=f"{PREFIX}:{{*}}:{SESSIONS.name}:*", count=1_000)
        sizes = [client.memory_usage(key, samples=0) for key, _ in zip(rows, range(AT_ONCE), strict=False)]
        used = client.info("memory")["used_memory_dataset"]
    return {"row": round(sum(sizes) / len(sizes), 1), "in all": round(used / number, 1)}


def fill_postgres(url: str, schema: str, number: int, epoch: int) -> None:
    """Write the rows of so many sessions to a schema of a PostgreSQL, whose index is made after them."""
    import psycopg

    columns = ", ".join(f'"{column}"' for column in ("key", *SESSIONS.columns))
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        table = f'"{schema}"."{SESSIONS.name}"'
        made = cursor.execute(INDEXES, [schema, SESSIONS.name]).fetchall()
        for name, _ in made:
            cursor.execute(f'DROP INDEX "{schema}"."{name}"'.encode())
        with cursor.copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
            copy.set_types(["bytea", *("int8" if kind is int else "bytea" for kind in SESSIONS.columns.values())])
            for key, row in list_rows(number, epoch):
                copy.write_row((key, *(row.get(column) for column in SESSIONS.columns)))
        for _, definition in made:
            cursor.execute(definition.encode())
        cursor.execute(f"VACUUM (ANALYZE) {table}".encode())


def bytes_in_postgres(url: str, schema: str, number: int) -> dict[str, float]:
    """Bytes that each of so many sessions takes on the disk: its row, and with its places in the indexes."""
    import psycopg

    table = f'"{schema}"."{SESSIONS.name}"'
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(f"SELECT avg(pg_column_size(t.*)) FROM {table} AS t".encode()).fetchone()
        total = connection.execute(f"SELECT pg_total_relation_size('{table}')".encode()).fetchone()
    assert found is not None
    assert total is not None
    return {"row": round(float(found[0]), 1), "in all": round(total[0] / number, 1)}


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


def _text(value: int | bytes) -> bytes:
    return b"%d" % value if isinstance(value, int) else value


def _take_replies(wire: socket.socket, owed: int) -> int:
    """Read so many replies or more, each of one line; returns how many are owed still, which is less than none for the latter."""
    while owed > 0:
        found = wire.recv(1 << 16)
        if b"-" in found:
            raise RuntimeError(f"Redis refuses a row: {found[found.index(b'-') :][:80]!r}")
        owed -= found.count(b"\n")
    return owed


def _batched(rows: Iterator[tuple[bytes, Mapping[str, Any]]], size: int) -> Iterator[list[tuple[bytes, Mapping[str, Any]]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
