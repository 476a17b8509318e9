"""What two transactions of one shape have in common, and what each has of its own.

>>> from dcaf.engines.transactions import Plus, Put, Record, Table
>>> hits = Record(Table("hits", {"n": int}), b"home")
>>> walk = Walk({hits: 0})
>>> walk.condition(Not(Is(hits, "n", 7))), walk.write(Put(hits, {"n": Plus(2)})), walk.values
(('NOT', ('is', 0, 'n', 0)), ('put', 0, (('n', 'plus', 1),)), [7, 2])
"""

from __future__ import annotations

from collections.abc import Mapping

from dcaf.engines.postgres.sql import Key
from dcaf.engines.transactions import AllOf, AnyOf, AtMost, Condition, Delete, Is, Not, Now, Plus, Record, Value, Write


class Walk:
    """Goes through a transaction, and tells its shape from its values.

    Args:
        places: For each row, its place.

    Attributes:
        values: The values, in the order in which they were met.
    """

    def __init__(self, places: Mapping[Record, int]) -> None:
        self.values: list[Value] = []
        self._places = places

    def condition(self, condition: Condition) -> Key:
        """A condition in terms of the rows' places."""
        if isinstance(condition, Is):
            record, column, value = condition
            return "is", self._places[record], column, self._take(value)
        if isinstance(condition, AllOf):
            return "AND", self.condition(condition.first), self.condition(condition.second)
        if isinstance(condition, AnyOf):
            return "OR", self.condition(condition.first), self.condition(condition.second)
        if isinstance(condition, AtMost):
            return self._compare(*condition)
        if isinstance(condition, Not):
            return "NOT", self.condition(condition.condition)
        return "exists", self._places[condition.record]

    def _compare(self, record: Record, column: str, value: int | Now) -> Key:
        at = self._places[record]
        if not isinstance(value, Now):
            return "most", at, column, self._take(value)
        if value.plus_ms == 0:
            return "past", at, column
        return "past", at, column, self._take(value.plus_ms)

    def write(self, write: Write) -> Key:
        """A write in terms of the rows' places."""
        record = write.record
        at = self._places[record]
        if isinstance(write, Delete):
            return "delete", at
        return "put", at, tuple([self._value(column, value) for column, value in write.values.items()])

    def _value(self, column: str, value: Value | Now | Plus) -> Key:
        if isinstance(value, Now):
            return column, "now", self._take(value.plus_ms)
        if isinstance(value, Plus):
            return column, "plus", self._take(value.by)
        return column, "is", self._take(value)

    def _take(self, value: Value) -> int:
        self.values.append(value)
        return len(self.values) - 1
