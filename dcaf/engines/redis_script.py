"""The script that does a transaction on Redis, and two that go through an index: their text, what they take, what they say.

>>> from dcaf.engines.transactions import Plus, Put, Record, Table, Transaction
>>> hits = Record(Table("hits", {"n": int}), b"home")
>>> keys, arguments = Keys("dcaf").encode(Transaction([hits], writes=[Put(hits, {"n": Plus(2)})]))
>>> keys, arguments
([b'dcaf:{0}:hits:home'], [b'1', b';', b'P', b'1', b'0', b'1', b'n', b'+', b'2'])

One script for every transaction, which is data to it: so it is loaded once, and no value is ever a part of its text. It reads and
works out everything first and writes last, because what a script has written before an error stays. And it writes in an order that
does no harm where it ends early: what comes into the sorted sets, the rows, what leaves the sets. A member without a row is dropped
later; a row without its member would never be found.

A cluster that moves rows to another server refuses a key that is not here, in the midst of a script, too. So no key is gone while
there is more to do with it.

What a reader gets wrong: numbers in Lua are floating, and exact to 53 bits only. So integers stay decimal text, in the rows as in
the script, which compares and adds them digit by digit where it must.

A row is a hash: a field for each column that is not None, and one whose name is a dot, so that a row without any is there, too.
Rows of a table with an indexed column stand in two sorted sets as well, whose members are ordered by their bytes: one of keys, one
of values with keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final

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
    Plus,
    Put,
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

NUMBERS: Final = r"""
local call, tonumber = redis.call, tonumber
local function at_most(a, b)
  local x, y = tonumber(a), tonumber(b)
  if x ~= y then return x < y end
  if a == b then return true end
  local less = #a < #b
  if #a == #b then less = a < b end
  if string.sub(a, 1, 1) == '-' then return not less end
  return less
end
local function split(a)
  local sign, digits = 1, a
  if string.sub(a, 1, 1) == '-' then sign, digits = -1, string.sub(a, 2) end
  return sign * (tonumber(string.sub(digits, 1, -10)) or 0), sign * tonumber(string.sub(digits, -9))
end
local function add(a, b)
  local sum = tonumber(a) + tonumber(b)
  if math.abs(tonumber(a)) < 2 ^ 52 and math.abs(tonumber(b)) < 2 ^ 52 then return string.format('%.0f', sum) end
  local high, low = split(a)
  local more_high, more_low = split(b)
  high, low = high + more_high, low + more_low
  if low >= 1e9 then high, low = high + 1, low - 1e9 elseif low <= -1e9 then high, low = high - 1, low + 1e9 end
  if high > 0 and low < 0 then high, low = high - 1, low + 1e9 elseif high < 0 and low > 0 then high, low = high + 1, low - 1e9 end
  if high == 0 then return low == 0 and '0' or string.format('%.0f', low) end
  return string.format('%.0f%09.0f', high, math.abs(low))
end
local function fits(a) return #a < 19 or (at_most('-9223372036854775808', a) and at_most(a, '9223372036854775807')) end
local time = call('TIME')
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local function read(key)
  local flat = call('HGETALL', key)
  if #flat == 0 then return false, false, false end
  local row = {}
  for at = 1, #flat, 2 do row[flat[at]] = flat[at + 1] end
  if row.expires and at_most(row.expires, now) then return false, false, row end
  return flat, row, row
end
"""
"""What the scripts share: integers as decimal text, the clock, and a row: as it was found, as a table, and what its key still has,
also where it has expired."""

TRANSACT: Final = (
    NUMBERS
    + r"""
local cursor = 0
local function take() cursor = cursor + 1; return ARGV[cursor] end
local count = tonumber(take())

local flats, rows, stored = {}, {}, {}
for at = 1, count do flats[at], rows[at], stored[at] = read(KEYS[at]) end

local stack, token = {}, take()
while token ~= ';' do
  local top = #stack
  if token == '!' then stack[top] = not stack[top]
  elseif token == '&' then stack[top - 1] = stack[top - 1] and stack[top]; stack[top] = nil
  elseif token == '|' then stack[top - 1] = stack[top - 1] or stack[top]; stack[top] = nil
  else
    local row = rows[tonumber(take())]
    local holds = row and true or false
    if token ~= 'E' then
      local column, value = take(), token ~= 'N' and take() or nil
      local found = row and row[column]
      if token == 'T' then value = add(now, value) end
      if token == 'N' or token == 'I' then holds = holds and found == value
      else holds = found and at_most(found, value) or false end
    end
    stack[top + 1] = holds
  end
  token = take()
end
if stack[1] == false then return {0, now, flats} end

local entering, leaving = {}, {}
local function note(sets, at, ...)
  local items = sets[at] or {}
  sets[at] = items
  for _, item in ipairs({...}) do items[#items + 1] = item end
end
local function note_index(at, key, was, is, held, holds)
  if was ~= is then
    if is then note(entering, at, 0, key) else note(leaving, at, key) end
  end
  if held ~= holds then
    if held then note(leaving, at + 1, struct.pack('>I4', #held) .. held .. key) end
    if holds then note(entering, at + 1, 0, struct.pack('>I4', #holds) .. holds .. key) end
  end
end

local plans = {}
token = take()
while token do
  local at = tonumber(take())
  local row, old = rows[at] or {}, stored[at] or {}
  local plan = {key = KEYS[at], keeps = token == 'P', set = {}, drop = {}, old = old, ends = row.expires}
  local given, index, column, key = {}, tonumber(take())
  if index > 0 then column, key = take(), take() end
  local holds = column and row[column]
  for _ = 1, plan.keeps and tonumber(take()) or 0 do
    local name, kind, value = take(), take(), take()
    if kind == 'n' or kind == '+' then
      value = add(kind == 'n' and now or row[name] or '0', value)
      if not fits(value) then return {2, now} end
    end
    if kind == '-' then value = nil else plan.set[#plan.set + 1] = name; plan.set[#plan.set + 1] = value end
    given[name] = value or false
    if name == 'expires' then plan.ends = value end
    if name == column then holds = value end
  end
  if plan.ends and at_most(plan.ends, now) then plan.keeps = false end
  if plan.keeps and not rows[at] then plan.set[#plan.set + 1] = '.'; plan.set[#plan.set + 1] = '1'; given['.'] = true end
  for name in pairs(old) do
    if given[name] == false or not (rows[at] or given[name]) then plan.drop[#plan.drop + 1] = name end
  end
  if index > 0 then note_index(index, key, rows[at] and true, plan.keeps, row[column], plan.keeps and holds or nil) end
  plans[#plans + 1] = plan
  token = take()
end
for _, sets in ipairs({entering, leaving}) do
  for at in pairs(sets) do call('ZCARD', KEYS[at]) end -- what fails later fails now
end

local function call_in_parts(command, key, items)
  for at = 1, #items, 1000 do call(command, key, unpack(items, at, math.min(at + 999, #items))) end
end
for at, items in pairs(entering) do call_in_parts('ZADD', KEYS[at], items) end
for _, plan in ipairs(plans) do
  if plan.keeps then
    call_in_parts('HSET', plan.key, plan.set)
    call_in_parts('HDEL', plan.key, plan.drop)
    if plan.ends ~= plan.old.expires then
      if plan.ends and at_most(plan.ends, '253402300799999') then call('PEXPIREAT', plan.key, plan.ends)
      elseif plan.old.expires then call('PERSIST', plan.key) end
    end
  elseif next(plan.old) then call('DEL', plan.key) end
end
for at, items in pairs(leaving) do call_in_parts('ZREM', KEYS[at], items) end
return {1, now, flats}
"""
)
"""Takes the keys of the rows, and behind them two of sorted sets for each table with an index that is written; then how many rows
there are; a condition, in the order of a stack, up to a semicolon; and the writes. Says 1, 0 or 2 (applied, the condition does not
hold, a number does not fit), the clock, and the rows, each as its fields and values in turn, or nothing."""

FIND: Final = (
    NUMBERS
    + r"""
local high, skipped, column, value, most = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local left = 1000
local function find(set, low)
  local found, stale, before = {}, {}, string.gsub(set, '=%a+$', ':')
  while low and #found < most and left > 0 do
    local size = math.min(most - #found, left)
    local members = call('ZRANGEBYLEX', set, '(' .. low, high, 'LIMIT', 0, size)
    for _, member in ipairs(members) do
      local key = string.sub(member, skipped + 1)
      local flat, row = read(before .. key)
      if row and (column == '' or row[column] == value) then found[#found + 1] = {key, flat} else stale[#stale + 1] = member end
    end
    left = left - #members
    low = #members == size and members[size]
  end
  left = left - 1
  if #stale > 0 then redis.pcall('ZREM', set, unpack(stale)) end
  return {low, found}
end
local pages = {}
for at, set in ipairs(KEYS) do pages[at] = find(set, ARGV[5 + at]) end
return pages
"""
)
"""Takes sorted sets; a member at which to end in each (or +), how much of a member stands before the key, a column and the value
that it must have (or nothing), a limit; and for each set a member after which to begin. Says for each up to which member it has
looked, nothing where that was the last, and a page of keys and rows. It stops after a thousand members, so that nobody waits long,
and drops those that stand for no row. The keys of rows are not named beforehand: all have the tag of their sorted set, and so its
place."""

SWEEP: Final = (
    NUMBERS
    + r"""
local function sweep(set, low, is_by_value)
  local before = string.gsub(set, '=%a+$', ':')
  local members = call('ZRANGEBYLEX', set, low, '+', 'LIMIT', 0, 200)
  local over, size = {}, 0
  for _, member in ipairs(members) do
    if is_by_value then size = 4 + struct.unpack('>I4', member) end
    local key = before .. string.sub(member, size + 1)
    local _, row, stored = read(key)
    if stored and not row then call('DEL', key) end
    if not row or (is_by_value and row[ARGV[3]] ~= string.sub(member, 5, size)) then over[#over + 1] = member end
  end
  if #over > 0 then call('ZREM', set, unpack(over)) end
  return #over, #members, members[200] and '(' .. members[200]
end
local dropped, looked, at, low = 0, 0, tonumber(ARGV[1]), ARGV[2]
while at <= #KEYS and looked < 400 do
  local is_by_value = at % 2 == 0
  local over, members, after = sweep(KEYS[at], low, is_by_value)
  if not is_by_value then dropped = dropped + over end
  looked = looked + members + 1
  if after then low = after else at, low = at + 1, '-' end
end
return {dropped, at, low}
"""
)
"""Takes sorted sets in pairs, of keys and of values with keys; with which to begin, and where in it; and the indexed column. Drops
what stands for no row, and stops after some hundred members, so that nobody waits long. Says how many keys it dropped, and where to
go on; behind the last set at the end."""


class Script:
    """The text of a script, and what Redis calls it once it is loaded."""

    def __init__(self, text: str) -> None:
        self.text: bytes = text.encode()
        self.sha: bytes = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: Sequence[bytes], arguments: Sequence[bytes]) -> tuple[bytes, ...]:
        """The command that runs it."""
        return (b"EVALSHA", self.sha, b"%d" % len(keys), *keys, *arguments)


SCRIPTS: Final = {script.sha: script for script in (Script(TRANSACT), Script(FIND), Script(SWEEP))}
TRANSACTING, FINDING, SWEEPING = SCRIPTS.values()


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

    def encode(self, transaction: Transaction) -> tuple[list[bytes], list[bytes]]:
        """The keys and the arguments of the script for a transaction."""
        reads = transaction.reads
        keys = [self.find_rows(record.partition, record.table) + record.key for record in reads]
        at = {record: b"%d" % number for number, record in enumerate(reads, 1)}
        arguments = [b"%d" % len(reads)]
        if transaction.when is not None:
            _encode_condition(transaction.when, at, arguments)
        arguments.append(b";")
        indexes: dict[str, bytes] = {}
        for write in transaction.writes:
            table = write.record.table
            if table.indexed is not None and table.name not in indexes:
                indexes[table.name] = b"%d" % (len(keys) + 1)
                keys += self.find_indexes(write.record.partition, table)
            _encode_write(write, at, indexes, arguments)
        return keys, arguments


def decode_outcome(transaction: Transaction, reply: Any) -> Outcome:
    """What a transaction came to, of what the script says.

    Raises:
        EngineError: A number does not fit in 64 bits.
    """
    if reply[0] == 2:  # noqa: PLR2004 - see TRANSACT
        raise EngineError("A number would not fit in 64 bits. Nothing was written.")
    rows = tuple(decode_row(record.table, flat) for record, flat in zip(transaction.reads, reply[2], strict=True))
    return Outcome(reply[0] == 1, rows, int(reply[1]))


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


def _encode_condition(condition: Condition, at: dict[Record, bytes], arguments: list[bytes]) -> None:
    if isinstance(condition, AllOf | AnyOf):
        _encode_condition(condition.first, at, arguments)
        _encode_condition(condition.second, at, arguments)
        arguments.append(b"&" if isinstance(condition, AllOf) else b"|")
    elif isinstance(condition, Not):
        _encode_condition(condition.condition, at, arguments)
        arguments.append(b"!")
    elif isinstance(condition, Exists):
        arguments += (b"E", at[condition.record])
    else:
        _encode_comparison(condition, at, arguments)


def _encode_comparison(condition: Is | AtMost, at: dict[Record, bytes], arguments: list[bytes]) -> None:
    where, column, value = at[condition.record], condition.column.encode(), condition.value
    if value is None:
        arguments += (b"N", where, column)
    elif isinstance(value, Now):
        arguments += (b"T", where, column, b"%d" % value.plus_ms)
    else:
        arguments += (b"I" if isinstance(condition, Is) else b"M", where, column, _encode_value(value))


def _encode_write(write: Write, at: dict[Record, bytes], indexes: dict[str, bytes], arguments: list[bytes]) -> None:
    table = write.record.table
    arguments += (b"D" if isinstance(write, Delete) else b"P", at[write.record])
    if table.indexed is None:
        arguments.append(b"0")
    else:
        arguments += (indexes[table.name], table.indexed.encode(), write.record.key)
    if isinstance(write, Put):
        arguments.append(b"%d" % len(write.values))
        for column, value in write.values.items():
            arguments += (column.encode(), *_encode_change(value))


def _encode_change(value: Value | Now | Plus) -> tuple[bytes, bytes]:
    if value is None:
        return b"-", b""
    if isinstance(value, Now | Plus):
        return b"n" if isinstance(value, Now) else b"+", b"%d" % value[0]
    return b"=", _encode_value(value)


def _encode_value(value: int | bytes) -> bytes:
    return b"%d" % value if isinstance(value, int) else value
