"""Make of each shape of a transaction one script, so that Redis does not take each transaction apart as data.

>>> from dcaf.engines.redis.script import Keys
>>> from dcaf.engines.transactions import Plus, Put, Record, Table, Transaction
>>> hits = Record(Table("hits", {"n": int, "by": bytes}), b"home")
>>> call = Keys("dcaf").encode(Transaction([hits], writes=[Put(hits, {"n": Plus(2), "by": None})]))
>>> print(write_script(call).removeprefix(NUMBERS + ROWS))
local f1, r1, s1 = read(KEYS[1])
v[1] = add(r1 and r1['n'] or '0', ARGV[1])
if not fits(v[1]) then return {2, now} end
local d1 = r1 and r1.expires or nil
local p1 = not (d1 and at_most(d1, now))
local x1 = {}
if not r1 then leave_all_but(x1, s1, {['.'] = 1, ['n'] = 1}) else
  if r1['by'] then x1[#x1 + 1] = 'by' end
end
if p1 then
  call('HSET', KEYS[1], '.', '1', 'n', v[1])
  finish(KEYS[1], x1, d1, s1)
elseif s1 then call('DEL', KEYS[1]) end
return {1, now, {f1}, {}}

Two transactions that differ in keys and values alone have one shape. Its script knows its rows, columns and conditions, and takes
the values. It does the same as that of ``lua``, in the same order, in two thirds of the time.

A name of a table or a column is what a pattern allows, so that it can be a part of the text; values never are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dcaf.engines.redis.lua import INDEXES, NUMBERS, PAGES, Script
from dcaf.engines.redis.script import Call, Piece
from dcaf.engines.transactions import EXPIRES, Table

MOST_ROWS: Final = 16
MOST_PIECES: Final = 240
"""How much has a script of its own at most: Lua has room for 200 variables, for 250 arguments and for 200 brackets in brackets."""

MOST_SHAPES: Final = 500
"""How many scripts an engine remembers. A ledger has some fifty; what comes later is done by the script that takes all."""

ROWS: Final = r"""
local v = {}
local function leave_all_but(stale, stored, given)
  for name in pairs(stored or {}) do if not given[name] then stale[#stale + 1] = name end end
end
local function finish(key, stale, ends, stored)
  if #stale > 0 then call('HDEL', key, unpack(stale)) end
  local before = stored and stored.expires or nil
  if ends == before then return end
  if ends and at_most(ends, '253402300799999') then call('PEXPIREAT', key, ends)
  elseif before then call('PERSIST', key) end
end
"""
"""What scripts that write rows share: values that are worked out, the fields of a row that has expired, and what is done behind a
row's new fields."""

LOOKING: Final = "for _, sets in ipairs({entering, leaving}) do for at in pairs(sets) do call('ZCARD', KEYS[at]) end end"
"""What fails later fails now, before anything is written: where a key is no sorted set."""

ENTERING: Final = "for at, items in pairs(entering) do call('ZADD', KEYS[at], unpack(items)) end"
LEAVING: Final = "for at, items in pairs(leaving) do call('ZREM', KEYS[at], unpack(items)) end"


class Shapes:
    """The scripts of an engine."""

    def __init__(self) -> None:
        self._scripts: dict[tuple[object, ...], Script] = {}

    def find(self, call: Call) -> Script | None:
        """The script of a transaction's shape; None where it has none of its own."""
        if len(call.tables) > MOST_ROWS or len(call.pieces) > MOST_PIECES:
            return None
        key = (*[table.name for table in call.tables], *call.pieces)
        found = self._scripts.get(key)
        if found is None and len(self._scripts) < MOST_SHAPES:
            found = self._scripts[key] = Script(write_script(call))
        return found


def write_script(call: Call) -> str:
    """The script of a transaction's shape: it takes the keys and the values, and says what that of ``lua`` says."""
    return _Writer(call.tables, call.pieces).write()


@dataclass
class _Put:
    """A row that is written.

    Attributes:
        at: Its place among the keys.
        given: Column -> what it becomes, in Lua.
        empty: The columns that become empty.
        steps: What works out the values.
    """

    at: int
    given: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


class _Writer:
    """Goes through the pieces of a transaction once, and writes its script."""

    def __init__(self, tables: Sequence[Table], pieces: Sequence[Piece]) -> None:
        self._tables = tables
        self._pieces: Iterator[Piece] = iter(pieces)
        self._value = 0

    def write(self) -> str:
        returned, count = int(self._take()), int(self._take())
        reads = [f"local f{at}, r{at}, s{at} = read(KEYS[{at}])" for at in range(1, count + 1)]
        pages = self._pages()
        flats = "{" + ", ".join(f"f{at}" for at in range(1, returned + 1)) + "}"
        found = f"{flats}, {{{', '.join(f'g{at}' for at in range(1, len(pages) + 1))}}}"
        condition = self._condition()
        compares = [] if condition is None else [f"if not {condition} then return {{0, now, {found}}} end"]
        plans: list[str] = []
        writes: list[str] = []
        has_index = False
        for kind in self._pieces:
            has_index |= self._write(kind, plans, writes)
        indexes = [INDEXES] if has_index else []
        watched = [LOOKING, ENTERING] if has_index else []
        left = [LEAVING] if has_index else []
        shared = NUMBERS + (PAGES if pages else "") + (ROWS if writes else "")
        lines = [*reads, *pages, *compares, *indexes, *plans, *watched, *writes, *left, f"return {{1, now, {found}}}"]
        return shared + "\n".join(lines)

    def _take(self) -> str:
        piece = next(self._pieces)
        assert piece is not None
        return piece.decode()

    def _take_value(self) -> str:
        assert next(self._pieces) is None
        self._value += 1
        return f"ARGV[{self._value}]"

    def _pages(self) -> list[str]:
        lines = []
        for at in range(1, int(self._take()) + 1):
            backwards = "true" if self._take() == "B" else "false"
            place, bounds = self._take(), [self._take_value() for _ in range(3)]
            lines.append(f"local g{at} = find_page(KEYS[{place}], {', '.join(bounds)}, {backwards})")
        return lines

    def _condition(self) -> str | None:
        """The condition as one expression, which is true or false; None for none."""
        stack: list[str] = []
        while (piece := self._take()) != ";":
            if piece == "!":
                inner = stack.pop()
                stack.append(inner.removeprefix("not ") if inner.startswith("not ") else f"not {inner}")
            elif piece in "&|":
                second, first = stack.pop(), stack.pop()
                stack.append(f"({first} {'and' if piece == '&' else 'or'} {second})")
            else:
                stack.append(self._leaf(piece, f"r{self._take()}"))
        return stack.pop() if stack else None

    def _leaf(self, piece: str, row: str) -> str:
        if piece == "E":
            return f"({row} and true or false)"
        column = f"{row}['{self._take()}']"
        if piece == "N":
            return f"({row} and {column} == nil or false)"
        value = self._take_value()
        if piece == "I":
            return f"({row} and {column} == {value} or false)"
        most = f"add(now, {value})" if piece == "T" else value
        return f"({row} and {column} and at_most({column}, {most}) or false)"

    def _write(self, kind: Piece, plans: list[str], writes: list[str]) -> bool:
        """Add what works out a write, and what does it; returns whether the row has an index."""
        at, index = int(self._take()), int(self._take())
        column, key = (self._take(), self._take_value()) if index else ("", "")
        if kind == b"D":
            put = None
            holds = keeps = "false"
            writes.append(f"if s{at} then call('DEL', KEYS[{at}]) end")
        else:
            put = self._put(at)
            plans += self._plan(put)
            writes += self._do(put)
            holds, keeps = self._find_value(put, column), f"p{at}"
        if index:
            was, held = f"r{at} and true or false", f"r{at} and r{at}['{column}'] or nil"
            plans.append(f"note_index({index}, {key}, {was}, {keeps}, {held}, {keeps} and {holds} or nil)")
        return bool(index)

    def _put(self, at: int) -> _Put:
        put = _Put(at)
        for _ in range(int(self._take())):
            column, kind = self._take(), self._take()
            if kind == "-":
                put.empty.append(column)
            elif kind == "=":
                put.given[column] = self._take_value()
            else:
                value = self._take_value()
                before = "now" if kind == "n" else f"r{at} and r{at}['{column}'] or '0'"
                made = f"v[{self._value}]"
                put.given[column] = made
                put.steps += [f"{made} = add({before}, {value})", f"if not fits({made}) then return {{2, now}} end"]
        return put

    def _find_value(self, put: _Put, column: str) -> str:
        """What a column has afterwards, in Lua."""
        if column in put.empty:
            return "nil"
        return put.given.get(column, f"r{put.at} and r{put.at}['{column}'] or nil")

    def _plan(self, put: _Put) -> list[str]:
        at = put.at
        given = ", ".join(f"['{name}'] = 1" for name in (".", *put.given))
        ends = put.given.get(EXPIRES) or ("nil" if EXPIRES in put.empty else f"r{at} and r{at}.expires or nil")
        return [
            *put.steps,
            f"local d{at} = {ends}",
            f"local p{at} = not (d{at} and at_most(d{at}, now))",
            f"local x{at} = {{}}",
            f"if not r{at} then leave_all_but(x{at}, s{at}, {{{given}}}) else",
            *(f"  if r{at}['{name}'] then x{at}[#x{at} + 1] = '{name}' end" for name in put.empty),
            "end",
        ]

    def _do(self, put: _Put) -> list[str]:
        at = put.at
        fields = "".join(f", '{name}', {value}" for name, value in put.given.items())
        return [
            f"if p{at} then",
            f"  call('HSET', KEYS[{at}], '.', '1'{fields})",
            f"  finish(KEYS[{at}], x{at}, d{at}, s{at})",
            f"elseif s{at} then call('DEL', KEYS[{at}]) end",
        ]
