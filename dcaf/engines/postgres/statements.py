"""Statements that are asked again and again, without a cursor: each turn asks two, and a cursor costs a third of a round trip.

What a reader gets wrong: a statement is prepared under a name that says all of it. So what another client has prepared by that
name, on a connection that a pooler shares, is the same statement.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dcaf.core.importing import extra
from dcaf.engines.postgres.values import BYTES, MARK, NUMBER

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
    from psycopg.errors import error_from_result
    from psycopg.generators import execute
    from psycopg.pq import ExecStatus, Format

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGresult

TYPES: Final[Mapping[type, int]] = {int: NUMBER.oid, bytes: BYTES.oid, bool: MARK.oid}

_pack_number: Final = struct.Struct("!q").pack


def _read_number(text: bytes) -> int:
    return int.from_bytes(text, signed=True)


def _read_mark(text: bytes) -> bool:
    return text == b"\1"


def _list_items(text: bytes) -> Iterator[bytes | None]:
    """The items of an array of one dimension: after 20 bytes of what it is, each has four for its length, which is -1 for NULL."""
    at = 20
    while at < len(text):
        length = int.from_bytes(text[at : at + 4], signed=True)
        at += 4
        yield None if length < 0 else text[at : at + length]
        at += max(0, length)


def _read_numbers(text: bytes) -> list[int | None]:
    return [None if item is None else _read_number(item) for item in _list_items(text)]


def _read_texts(text: bytes) -> list[bytes | None]:
    return list(_list_items(text))


_READERS: Final[Mapping[Any, Callable[[bytes], Any]]] = {
    int: _read_number,
    bytes: bytes,
    bool: _read_mark,
    list[int]: _read_numbers,
    list[bytes]: _read_texts,
}


class Statement(NamedTuple):
    """A statement that returns one row.

    Attributes:
        name: A name that no other statement has.
        text: Its text, with ``$1``, ``$2`` and so on.
        types: The numbers of the types of its arguments.
        formats: The format of each argument, which is binary.
        readers: What reads each column of its answer, unless it is NULL.
    """

    name: bytes
    text: bytes
    types: Sequence[int]
    formats: Sequence[int]
    readers: Sequence[Callable[[bytes], Any]]


def build_statement(name: str, text: str, given: Sequence[type], found: Sequence[Any]) -> Statement:
    """A statement.

    Args:
        name: A name that no other statement has.
        text: Its text.
        given: The types of its arguments: int or bytes, each of which may be None.
        found: The types of the columns of its answer: int, bytes, bool, list[int] or list[bytes].
    """
    formats = [int(Format.BINARY)] * len(given)
    return Statement(name.encode(), text.encode(), [TYPES[kind] for kind in given], formats, [_READERS[kind] for kind in found])


async def ask_for_row(
    connection: psycopg.AsyncConnection[Any],
    statement: Statement,
    values: Sequence[int | bytes | None],
    prepared: set[bytes] | None,
) -> list[Any]:
    """Send a statement, and return the row of its answer.

    Args:
        connection: A connection that nobody else uses.
        statement: The statement.
        values: Its arguments.
        prepared: The names of the statements that were prepared on this connection; None where none may be.

    Raises:
        psycopg.Error: It failed.
    """
    texts = [_pack_number(value) if isinstance(value, int) else value for value in values]
    server = connection.pgconn
    if prepared is None:
        server.send_query_params(statement.text, texts, statement.types, statement.formats, Format.BINARY)
    else:
        if statement.name not in prepared:
            server.send_prepare(statement.name, statement.text, statement.types)
            await _take_answer(connection)
            prepared.add(statement.name)
        server.send_query_prepared(statement.name, texts, statement.formats, Format.BINARY)
    answer = await _take_answer(connection)
    read = answer.get_value
    return [None if (text := read(0, at)) is None else reader(text) for at, reader in enumerate(statement.readers)]


async def _take_answer(connection: psycopg.AsyncConnection[Any]) -> PGresult:
    answer: PGresult = (await connection.wait(execute(connection.pgconn)))[-1]
    if answer.status not in {ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK}:
        raise error_from_result(answer)
    return answer
