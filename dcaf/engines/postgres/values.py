"""How values travel to PostgreSQL: each type always as the same type of the server, so that a statement is prepared once.

Psycopg chooses the smallest type that has room for a number, and none for None: each choice would be another statement.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dcaf.core.importing import extra

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
    import psycopg
    from psycopg.abc import Buffer
    from psycopg.adapt import AdaptersMap, Dumper
    from psycopg.pq import Format
    from psycopg.types.numeric import Int8BinaryDumper

NUMBER: Final = psycopg.adapters.types["int8"]
BYTES: Final = psycopg.adapters.types["bytea"]
MARK: Final = psycopg.adapters.types["bool"]


class Numbers(list[Any]):
    """Integers, and None."""


class Texts(list[Any]):
    """Bytes, and None."""


class Marks(list[bool]):
    """Truth values."""


LISTS: Final[Mapping[type, type[list[Any]]]] = {int: Numbers, bytes: Texts}
"""What a list of the values of a column is."""


class _ListDumper(Dumper):
    format = Format.BINARY


class _NumbersDumper(_ListDumper):
    oid = NUMBER.array_oid

    def dump(self, obj: Numbers) -> Buffer:
        return _pack(NUMBER.oid, [None if number is None else struct.pack("!q", number) for number in obj])


class _TextsDumper(_ListDumper):
    oid = BYTES.array_oid

    def dump(self, obj: Texts) -> Buffer:
        return _pack(BYTES.oid, obj)


class _MarksDumper(_ListDumper):
    oid = MARK.array_oid

    def dump(self, obj: Marks) -> Buffer:
        return _pack(MARK.oid, [b"\1" if mark else b"\0" for mark in obj])


def _pack(oid: int, items: list[bytes | None]) -> bytes:
    """A list in PostgreSQL's binary form: one dimension that begins at 1, its length, and each item with its own."""
    head = struct.pack("!iiIii", 1, None in items, oid, len(items), 1)
    return b"".join([head, *_pack_items(items)])


def _pack_items(items: list[bytes | None]) -> Iterable[bytes]:
    for item in items:
        yield struct.pack("!i", -1 if item is None else len(item))
        if item is not None:
            yield item


def _build_adapters() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(Numbers, _NumbersDumper)
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Marks, _MarksDumper)
    return adapters


class Context:
    """Tells psycopg how values travel."""

    adapters: AdaptersMap = _build_adapters()
    connection: None = None
