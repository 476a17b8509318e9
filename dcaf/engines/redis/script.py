"""Rows and transactions as Redis has them: the keys, what the script of a transaction takes, and what it says.

>>> from dcaf.engines.transactions import Plus, Put, Record, Table, Transaction
>>> hits = Record(Table("hits", {"n": int}), b"home")
>>> call = Keys("dcaf").encode(Transaction([hits], writes=[Put(hits, {"n": Plus(2)})]))
>>> call.keys, call.pieces, call.values
([b'dcaf:{0}:hits:home'], [b'1', b'1', b'0', b';', b'P', b'1', b'0', b'1', b'n', b'+', None], [b'2'])

A row is a hash: a field for each column that is not None, and one whose name is a dot, so that a row without any is there, too.
Rows of a table with an indexed column stand in two sorted sets as well, whose members are ordered by their bytes: one of keys, one
of values with keys. Those of an ordered table stand in the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from dcaf.core.errors import EngineError
from dcaf.engines.transactions import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Now,
    Outcome,
    Page,
    Plus,
    Put,
    Range,
    Record,
    Row,
    Table,
    Transaction,
    Value,
    Write,
)

LONGEST_KEY: Final = b"\xff" * 257
"""Comes after each key."""

TAG: Final = re.compile(rb"[0-9]{1,5}")
"""The partition in a key."""


Piece: TypeAlias = "bytes | None"
"""A piece of a transaction; None stands for the next of its values."""


class Call(NamedTuple):
    """A transaction as scripts take it.

    Attributes:
        tables: The table of each row that it names.
        keys: The keys of the rows, and behind them those of sorted sets.
        pieces: All but its values: what two transactions of one shape have in common.
        values: What it compares and writes, and the keys of rows with an index.
    """

    tables: Sequence[Table]
    keys: list[bytes]
    pieces: list[Piece]
    values: list[bytes]

    def fill_in(self) -> list[bytes]:
        """Pieces and values in one, for the script that takes any transaction."""
        values = iter(self.values)
        return [next(values) if piece is None else piece for piece in self.pieces]


class Keys:
    """Where things stand in Redis, and a transaction as a script takes it.

    Args:
        prefix: Stands before each key.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._before: dict[tuple[int, str], bytes] = {}

    def find_rows(self, partition: int, table: Table) -> bytes:
        """What stands before the key of a row."""
        found = self._before.get((partition, table.name))
        if found is None:
            found = b"%b:{%d}:%b:" % (self._prefix, partition, table.name.encode())
            self._before[partition, table.name] = found
        return found

    def find_indexes(self, partition: int, table: Table) -> tuple[bytes, bytes]:
        """The sorted set of keys, and that of values with keys. No row has such a key: a table's name has no equals sign."""
        rows = self.find_rows(partition, table)[:-1]
        return rows + b"=keys", rows + b"=values"

    def build_pattern(self, table: Table) -> bytes:
        """What the keys of all rows of a table match."""
        return b"%b:{*}:%b:*" % (self._prefix, table.name.encode())

    def take_apart(self, table: Table, key: bytes) -> tuple[int, bytes] | None:
        """The partition and the key of a row, of its key in Redis; None where that is of somebody else."""
        tag = key[len(self._prefix) + 2 :].partition(b"}")[0]
        if not TAG.fullmatch(tag):
            return None
        before = self.find_rows(int(tag), table)
        return (int(tag), key[len(before) :]) if key.startswith(before) else None

    def encode(self, transaction: Transaction) -> Call:
        """A transaction as scripts take it."""
        records = transaction.records
        keys = [self.find_rows(record.partition, record.table) + record.key for record in records]
        returned = len(set(transaction.reads))
        call = Call([record.table for record in records], keys, [b"%d" % returned, b"%d" % len(records)], [])
        call.pieces.append(b"%d" % len(transaction.ranges))
        for wanted in transaction.ranges:
            keys.append(self.find_indexes(wanted.partition, wanted.table)[0])
            _encode_range(wanted, len(keys), call)
        at = {record: b"%d" % number for number, record in enumerate(records, 1)}
        if transaction.when is not None:
            _encode_condition(transaction.when, at, call)
        call.pieces.append(b";")
        indexes: dict[str, bytes] = {}
        for write in transaction.writes:
            table = write.record.table
            if has_sets(table) and table.name not in indexes:
                indexes[table.name] = b"%d" % (len(keys) + 1)
                keys += self.find_indexes(write.record.partition, table)
            _encode_write(write, at, indexes, call)
        return call


def decode_outcome(transaction: Transaction, reply: Any) -> Outcome:
    """What a transaction came to, of what the script says.

    Raises:
        EngineError: A number does not fit in 64 bits.
    """
    if reply[0] == 2:  # noqa: PLR2004 - see TRANSACT
        raise EngineError("A number would not fit in 64 bits. Nothing was written.")
    rows = [decode_row(record.table, flat) for record, flat in zip(transaction.records, reply[2], strict=False)]
    if len(rows) != len(transaction.reads):  # one is named twice
        found = dict(zip(transaction.records, rows, strict=False))
        rows = [found[record] for record in transaction.reads]
    pages = tuple([_decode_page(wanted.table, page) for wanted, page in zip(transaction.ranges, reply[3], strict=True)])
    return Outcome(reply[0] == 1, tuple(rows), int(reply[1]), pages)


def _decode_page(table: Table, page: Sequence[Any]) -> Page:
    return [(key, row) for key, flat in page if (row := decode_row(table, flat)) is not None]


def decode_row(table: Table, flat: Sequence[bytes] | None) -> Row | None:
    """A row of its fields and values in turn; None where there is none.

    Raises:
        EngineError: It is none of this engine's.
    """
    if not flat:
        return None
    row: dict[str, Value] = dict.fromkeys(table.columns)
    try:
        for field, value in zip(flat[::2], flat[1::2], strict=True):
            name = field.decode()
            kind = table.columns.get(name)  # a column of a newer release is none
            if kind is not None:
                row[name] = int(value) if kind is int else value
    except ValueError:
        raise EngineError(f"A row of {table.name} holds something else: another program uses the same prefix.") from None
    return row


def build_bounds(value: bytes, after: bytes) -> tuple[bytes, bytes, int]:
    """Where rows of a value begin and end in the sorted set of values, after a key; and how much stands before the keys there."""
    start = len(value).to_bytes(4, "big") + value
    return start + after, b"(" + start + LONGEST_KEY, len(start)


def has_sets(table: Table) -> bool:
    """Whether the keys of a table's rows stand in sorted sets."""
    return table.ordered or table.indexed is not None


def _encode_range(wanted: Range, place: int, call: Call) -> None:
    call.pieces.extend((b"B" if wanted.backwards else b"F", b"%d" % place, None, None, None))
    end = b"+" if wanted.end is None else b"(" + wanted.end
    call.values.extend((b"[" + wanted.start, end, b"%d" % wanted.limit))


def _encode_condition(condition: Condition, at: dict[Record, bytes], call: Call) -> None:
    if isinstance(condition, AllOf | AnyOf):
        _encode_condition(condition.first, at, call)
        _encode_condition(condition.second, at, call)
        call.pieces.append(b"&" if isinstance(condition, AllOf) else b"|")
    elif isinstance(condition, Not):
        _encode_condition(condition.condition, at, call)
        call.pieces.append(b"!")
    elif isinstance(condition, Exists):
        call.pieces.extend((b"E", at[condition.record]))
    else:
        _encode_comparison(condition, at, call)


def _encode_comparison(condition: Is | AtMost, at: dict[Record, bytes], call: Call) -> None:
    where, column, value = at[condition.record], condition.column.encode(), condition.value
    if value is None:
        call.pieces.extend((b"N", where, column))
        return
    if isinstance(value, Now):
        kind, value = b"T", value.plus_ms
    else:
        kind = b"I" if isinstance(condition, Is) else b"M"
    call.pieces.extend((kind, where, column, None))
    call.values.append(_encode_value(value))


def _encode_write(write: Write, at: dict[Record, bytes], indexes: dict[str, bytes], call: Call) -> None:
    table = write.record.table
    call.pieces.extend((b"D" if isinstance(write, Delete) else b"P", at[write.record]))
    if not has_sets(table):
        call.pieces.append(b"0")
    else:
        call.pieces.extend((indexes[table.name], (table.indexed or "").encode(), None))
        call.values.append(write.record.key)
    if isinstance(write, Put):
        call.pieces.append(b"%d" % len(write.values))
        for column, value in write.values.items():
            _encode_change(column, value, call)


def _encode_change(column: str, value: Value | Now | Plus, call: Call) -> None:
    if value is None:
        call.pieces.extend((column.encode(), b"-"))
        return
    if isinstance(value, Now | Plus):
        kind, value = b"n" if isinstance(value, Now) else b"+", value[0]
    else:
        kind = b"="
    call.pieces.extend((column.encode(), kind, None))
    call.values.append(_encode_value(value))


def _encode_value(value: int | bytes) -> bytes:
    return b"%d" % value if isinstance(value, int) else value
