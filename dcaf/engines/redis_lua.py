"""The scripts of a Redis engine, in Lua: one that does a transaction, and two that go through an index.

>>> TRANSACTING.call([b"dcaf:{0}:hits:home"], [b"1", b";"])[2:]
(b'1', b'dcaf:{0}:hits:home', b'1', b';')

One script for every transaction, which is data to it: so it is loaded once, and no value is ever a part of its text. It reads and
works out everything first and writes last, because what a script has written before an error stays.

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
