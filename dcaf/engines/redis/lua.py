"""The scripts of a Redis engine, in Lua: one that does any transaction, and two that go through an index.

>>> TRANSACTING.call([b"dcaf:{0}:hits:home"], [b"1", b"1", b"0", b";"])[2:]
(b'1', b'dcaf:{0}:hits:home', b'1', b'1', b'0', b';')

A transaction is data to its script, and no value is ever a part of its text. Most transactions have a script of their shape, see
``shapes``, which takes values alone; this one takes what is too large for that. Both keep the same order. They read and work out
everything first and write last, because what a script has written before an error stays. And they write in an order that does no
harm where they end early: what comes into the sorted sets, the rows, what leaves the sets. A member without a row is dropped later;
a row without its member would never be found.

A cluster that moves rows to another server refuses a key that is not here, in the midst of a script, too. So no key is gone while
there is more to do with it.

What a reader gets wrong: numbers in Lua are floating, and exact to 53 bits only. So integers stay decimal text, in the rows as in
the script, which compares and adds them digit by digit where it must.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Final

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

PAGES: Final = r"""
local function find_page(set, low, high, most, backwards)
  local found, stale, before = {}, {}, string.gsub(set, '=%a+$', ':')
  local size, members
  most = tonumber(most)
  repeat
    size = math.min(most - #found, 1000)
    members = backwards and call('ZREVRANGEBYLEX', set, high, low, 'LIMIT', 0, size)
      or call('ZRANGEBYLEX', set, low, high, 'LIMIT', 0, size)
    for _, key in ipairs(members) do
      local flat, row = read(before .. key)
      if row then found[#found + 1] = {key, flat} else stale[#stale + 1] = key end
    end
    if backwards then high = '(' .. (members[#members] or '') else low = '(' .. (members[#members] or '') end
  until #found == most or #members < size
  for at = 1, #stale, 1000 do redis.pcall('ZREM', set, unpack(stale, at, math.min(at + 999, #stale))) end
  return found
end
"""
"""What scripts that read ranges share: a page of keys and rows. Members that stand for no row are dropped."""

INDEXES: Final = r"""
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
"""
"""What scripts that write rows with an index share: which members come into which sorted set, and which leave it."""

TRANSACT: Final = (
    NUMBERS
    + PAGES
    + r"""
local cursor = 0
local function take() cursor = cursor + 1; return ARGV[cursor] end
local returned, count = tonumber(take()), tonumber(take())

local flats, rows, stored = {}, {}, {}
for at = 1, count do
  local flat
  flat, rows[at], stored[at] = read(KEYS[at])
  if at <= returned then flats[at] = flat end
end
local pages = {}
for at = 1, tonumber(take()) do
  local backwards, set = take() == 'B', KEYS[tonumber(take())]
  pages[at] = find_page(set, take(), take(), take(), backwards)
end

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
if stack[1] == false then return {0, now, flats, pages} end
"""
    + INDEXES
    + r"""
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
    local name, kind = take(), take()
    local value = kind ~= '-' and take() or nil
    if kind == 'n' or kind == '+' then
      value = add(kind == 'n' and now or row[name] or '0', value)
      if not fits(value) then return {2, now} end
    end
    if value then plan.set[#plan.set + 1] = name; plan.set[#plan.set + 1] = value end
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
return {1, now, flats, pages}
"""
)
"""Takes the keys of the rows, behind them a sorted set for each range, and two for each table that has some and is written; then
how many of the rows are returned, and how many there are; the ranges; a condition, in the order of a stack, up to a semicolon; and
the writes. Says 1, 0 or 2 (applied, the condition does not hold, a number does not fit), the clock, the rows, each as its fields
and values in turn, or nothing, and the pages of the ranges."""

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


TRANSACTING: Final = Script(TRANSACT)
FINDING: Final = Script(FIND)
SWEEPING: Final = Script(SWEEP)
