"""The script that does a transaction on Redis, and two that go through an index: their text, what they take, what they say.

>>> from dcaf.engines.transactions import Plus, Put, Record, Table, Transaction
>>> hits = Record(Table("hits", {"n": int}), b"home")
>>> keys, arguments = Keys("dcaf").encode(Transaction([hits], writes=[Put(hits, {"n": Plus(2)})]))
>>> keys, arguments
([b'dcaf:{0}:hits:home'], [b'1', b';', b'P', b'1', b'0', b'1', b'n', b'+', b'2'])

One script for every transaction, which is data to it: so it is loaded once, and no value is ever a part of its text. It reads and
works out everything first and writes last, because what a script has written before an error stays.

What a reader gets wrong: numbers in Lua are floating, and exact to 53 bits only. So integers stay decimal text, in the rows as in
the script, which compares and adds them digit by digit where it must.

A row is a hash: a field for each column that is not None, and one whose name is a dot, so that a row without any is there, too.
Rows of a table with an indexed column stand in two sorted sets as well, whose members are ordered by their bytes: one of keys, one
of values with keys.
"""

from __future__ import annotations

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
  if row.expires and at_most(row.expires, now) then return false, false, true end
  return flat, row, true
end
"""
"""What the scripts share: integers as decimal text, the clock, and a row: as it was found, as a table, and whether its key is."""

TRANSACT: Final = (
    NUMBERS
    + r"""
local cursor = 0
local function take() cursor = cursor + 1; return ARGV[cursor] end
local count = tonumber(take())

local flats, rows, remains = {}, {}, {}
for at = 1, count do flats[at], rows[at], remains[at] = read(KEYS[at]) end

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

local plans = {}
token = take()
while token do
  local at = tonumber(take())
  local row = rows[at] or {}
  local plan = {at = at, is_new = not rows[at], keeps = token == 'P', set = {}, drop = {}, ends = row.expires}
  plan.index = tonumber(take())
  if plan.index > 0 then
    plan.column, plan.key = take(), take()
    plan.held = row[plan.column]
    plan.holds = plan.held
  end
  for _ = 1, plan.keeps and tonumber(take()) or 0 do
    local column, kind, value = take(), take(), take()
    if kind == 'n' or kind == '+' then
      value = add(kind == 'n' and now or row[column] or '0', value)
      if not fits(value) then return {2, now} end
    end
    if kind == '-' then value = nil; plan.drop[#plan.drop + 1] = column
    else plan.set[#plan.set + 1] = column; plan.set[#plan.set + 1] = value end
    if column == 'expires' then plan.ends = value end
    if column == plan.column then plan.holds = value end
  end
  if plan.ends and at_most(plan.ends, now) then plan.keeps = false end
  if not plan.keeps then plan.holds = nil end
  plan.enters = plan.is_new == plan.keeps
  if plan.index > 0 and (plan.enters or plan.held ~= plan.holds) then -- what fails later fails now
    call('ZCARD', KEYS[plan.index])
    call('ZCARD', KEYS[plan.index + 1])
  end
  plan.before = row.expires
  plans[#plans + 1] = plan
  token = take()
end

local function call_in_parts(command, key, items)
  for at = 1, #items, 1000 do call(command, key, unpack(items, at, math.min(at + 999, #items))) end
end
for _, plan in ipairs(plans) do
  local key = KEYS[plan.at]
  if remains[plan.at] and (plan.is_new or not plan.keeps) then call('DEL', key) end
  if plan.keeps then
    if plan.is_new then plan.set[#plan.set + 1] = '.'; plan.set[#plan.set + 1] = '1' end
    call_in_parts('HSET', key, plan.set)
    if not plan.is_new then call_in_parts('HDEL', key, plan.drop) end
    if plan.ends ~= plan.before then
      if plan.ends and at_most(plan.ends, '253402300799999') then call('PEXPIREAT', key, plan.ends)
      elseif plan.before then call('PERSIST', key) end
    end
  end
  if plan.index > 0 then
    local by_key, by_value = KEYS[plan.index], KEYS[plan.index + 1]
    if plan.held ~= plan.holds then
      if plan.held then call('ZREM', by_value, struct.pack('>I4', #plan.held) .. plan.held .. plan.key) end
      if plan.holds then call('ZADD', by_value, 0, struct.pack('>I4', #plan.holds) .. plan.holds .. plan.key) end
    end
    if plan.enters then call(plan.keeps and 'ZADD' or 'ZREM', by_key, unpack(plan.keeps and {0, plan.key} or {plan.key})) end
  end
end
return {1, now, flats}
"""
)
"""Takes the keys of the rows, and behind them two of sorted sets for each table with an index that is written; then how many rows
there are; a condition, in the order of a stack, up to a semicolon; and the writes. Says 1, 0 or 2 (applied, the condition does not
hold, a number does not fit), the clock, and the rows, each as its fields and values in turn, or nothing."""

FIND: Final = (
    NUMBERS
    + r"""
local low, high, skipped, column, value, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local function find(set)
  local found, low, before = {}, low, string.gsub(set, '=%a+$', ':')
  while #found < most do
    local members = call('ZRANGEBYLEX', set, '(' .. low, high, 'LIMIT', 0, 100)
    for _, member in ipairs(members) do
      local key = string.sub(member, skipped + 1)
      local flat, row = read(before .. key)
      if row and (column == '' or row[column] == value) then
        found[#found + 1] = {key, flat}
        if #found == most then break end
      end
    end
    if #members < 100 then break end
    low = members[100]
  end
  return found
end
local pages = {}
for at, set in ipairs(KEYS) do pages[at] = find(set) end
return pages
"""
)
"""Takes sorted sets; a member after which to begin in each, one at which to end (or +), how much of a member stands before the key,
a column and the value that it must have (or nothing), and a limit. Says a page of each, of keys and rows. The keys of rows are not
named beforehand: all have the tag of their sorted set, and so its place."""

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
    local _, row, is_there = read(key)
    if is_there and not row then call('DEL', key) end
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

    def find_probe(self, partition: int) -> bytes:
        """A key that a look writes."""
        return b"%b:{%d}=probe" % (self._prefix, partition)

    def build_pattern(self, table: Table) -> bytes:
        """What the keys of all rows of a table match."""
        return b"%b:{*}:%b:*" % (self._prefix, table.name.encode())

    def take_apart(self, key: bytes) -> tuple[int, bytes]:
        """The partition and the key of a row, of its key in Redis."""
        partition, _, rest = key[len(self._prefix) + 2 :].partition(b"}:")
        return int(partition), rest.partition(b":")[2]

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
    """A row of its fields and values in turn; None where there is none."""
    if not flat:
        return None
    row: dict[str, Value] = dict.fromkeys(table.columns)
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        name = field.decode()
        kind = table.columns.get(name)  # a column of a newer release is none
        if kind is not None:
            row[name] = int(value) if kind is int else value
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
