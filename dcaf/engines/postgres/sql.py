"""Pieces of SQL that functions and statements of a PostgreSQL engine share: clocks, names of columns, conditions, whole rows.

What a reader gets wrong: PostgreSQL looks for an operator or a function without a schema in ``public``, too, where other roles may
make one. Theirs is taken if it fits the arguments better than PostgreSQL's own, and does what it likes as the engine's role. So
arguments and operands have the very types of PostgreSQL's own, or the name has its schema; and a function looks nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from dcaf.engines.transactions import Table

Key: TypeAlias = "tuple[Any, ...]"
"""What is equal for two transactions of one shape."""

_CLOCK: Final = "floor(extract(epoch FROM {}()) OPERATOR(pg_catalog.*) 1000)::bigint"

NOW_SQL: Final = _CLOCK.format("clock_timestamp")
"""The clock, in milliseconds since the epoch. Not ``now()``: that is when the transaction began, before it has waited."""

BEGUN_SQL: Final = _CLOCK.format("transaction_timestamp")
"""The clock of what only reads: when its transaction began, and so before its snapshot. By a later clock, a row might have ended
that others have prolonged since the snapshot, and that was there all the time."""

KINDS: Final[Mapping[type, str]] = {int: "bigint", bytes: "bytea"}

SYSTEM_COLUMNS: Final = frozenset(["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"])
"""Columns that each table of PostgreSQL has already."""


def name_column(column: str) -> str:
    """A column's name on the server; no column of a Table is called like a renamed one."""
    return f"{column}-" if column in SYSTEM_COLUMNS else column


def quote_column(column: str) -> str:
    """A column's name, for SQL."""
    return f'"{name_column(column)}"'


def insert_row(name: str, table: Table, values: str, *, is_values: bool) -> str:
    """What writes whole rows, in the place of those that are there.

    Args:
        name: The table, for SQL.
        table: The table.
        values: The values of key and columns, or a query for them.
        is_values: Whether these are values.
    """
    columns = [quote_column(column) for column in table.columns]
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns)
    source = f"VALUES ({values})" if is_values else values
    conflict = f"UPDATE SET {changes}" if changes else "NOTHING"
    # Its other name lets a table be called `excluded`.
    return f'INSERT INTO {name} AS t ({", ".join([quote_column("key"), *columns])}) {source} ON CONFLICT ("key") DO {conflict}'


def render_condition(condition: Key | None, variables: Sequence[Mapping[str, str]]) -> str:  # noqa: PLR0911 - one for each kind
    """A condition as SQL, which is TRUE or FALSE and never NULL.

    Args:
        condition: The condition, in terms of the rows' places; None for none.
        variables: For each row, column -> the variable that has it.
    """
    match condition:
        case None:
            return "TRUE"
        case "NOT", inner:
            return f"(NOT {render_condition(inner, variables)})"
        case "exists", at:
            return f"e{at}"
        case "is", at, column, value:
            return f"(e{at} AND {variables[at][column]} IS NOT DISTINCT FROM a{value})"
        case "most", at, column, value:
            return f"COALESCE({variables[at][column]} <= a{value}, FALSE)"
        case "past", at, column:
            return f"COALESCE({variables[at][column]} <= o_now, FALSE)"
        case "past", at, column, value:  # numeric: the sum may have more than 64 bits
            return f"COALESCE({variables[at][column]}::numeric <= o_now::numeric + a{value}::numeric, FALSE)"
        case word, first, second:
            return f"({render_condition(first, variables)} {word} {render_condition(second, variables)})"
    raise AssertionError(condition)


def list_compared(condition: Key) -> list[Key]:
    """The parts of a condition that have an argument, in the order of the arguments: kind, row, column, number of the argument."""
    match condition:
        case (("AND" | "OR"), first, second):
            return [*list_compared(first), *list_compared(second)]
        case "NOT", inner:
            return list_compared(inner)
        case "is" | "most" | "past", _, _, _:
            return [condition]
    return []


def render_value(what: str, before: str, value: int) -> str:
    """What is written into a column, as SQL.

    Args:
        what: ``"now"``, ``"plus"`` or ``"is"``.
        before: The variable with the value before.
        value: The number of the argument.
    """
    if what == "now":
        return f"o_now + a{value}"
    return f"COALESCE({before}, 0) + a{value}" if what == "plus" else f"a{value}"


def set_commit(*, is_waited_for: bool) -> str:
    """What sets whether the commit of a transaction waits for the disk.

    Args:
        is_waited_for: Whether it does as server, database and role say: behind PgBouncer, another client may have told the session
            otherwise.
    """
    value = "NULL" if is_waited_for else "'off'"
    return f"set_config('synchronous_commit'::text, {value}::text, TRUE)"
