"""What a Redis engine asks of its servers for one call of each kind: a transaction, a scan, a purge, a look.

Each is a generator: it yields what is to be asked at once, is sent the replies in that order, and returns what the call returns. So
it is written once, for event loops and for threads, which differ in how they ask.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines.base import Health
from dcaf.engines.redis.lua import FINDING, SWEEPING, TRANSACTING, Script
from dcaf.engines.redis.script import Keys, build_bounds, decode_outcome, decode_row, has_sets
from dcaf.engines.redis.settings import LOOKS, Settings, describe_settings, read_settings
from dcaf.engines.redis.shapes import Shapes
from dcaf.engines.transactions import Delete, Now, Outcome, Put, Record, Row, Table, Transaction, Write

T = TypeVar("T")

PARTITIONS: Final = 64
"""How many places rows have. Each is a hash tag, and so all rows of a transaction are on one server of a cluster."""

Node: TypeAlias = "tuple[str, int]"
"""Host and port of a server; one that is no cluster is ``HERE``."""

HERE: Final[Node] = ("", 0)

SCANNED_AT_ONCE: Final = 1000
SWEPT_AT_ONCE: Final = 32
"""Keys in a step of SCAN, and scripts in a step of a purge: so that nobody waits long behind them."""

PROBE: Final = Table("probe", {"number": int, "name": bytes, "expires": int}, indexed="name")
"""Of a look: it is nobody else's, as the prefix of its keys has a character that no other prefix has."""

FEW: Final = 8
"""How many rows each partition gives to a page at first: of 64 partitions, most have fewer in it."""


class Wanted(NamedTuple):
    """What a scan looks for.

    Attributes:
        table: Their table.
        equal: The value of its indexed column; None for any.
        after: Only keys that come after this one.
        limit: How many at most.
    """

    table: Table
    equal: bytes | None
    after: bytes
    limit: int

    def find_bounds(self) -> tuple[bytes, bytes, int]:
        """Where it begins and ends in a sorted set, and how much of a member stands before the key there."""
        return (self.after, b"+", 0) if self.equal is None else build_bounds(self.equal, self.after)

    def build(self, keys: Keys, lows: Mapping[int, bytes], most: int) -> Request:
        """The request that looks for it.

        Args:
            keys: Of the engine.
            lows: Partition -> the member of its sorted set after which to begin.
            most: How many rows of each.
        """
        _, high, skipped = self.find_bounds()
        column = b"" if self.equal is None else (self.table.indexed or "").encode()
        sets = [keys.find_indexes(partition, self.table)[self.equal is not None] for partition in lows]
        arguments = [high, b"%d" % skipped, column, self.equal or b"", b"%d" % most, *lows.values()]
        return Request.running(FINDING, sets, arguments, partition=min(lows), needs_all=True)


class Request:
    """A command, and where it goes.

    Args:
        command: Its words.
        partition: The partition of its keys; None where a server is named.
        node: The server.
        writes: Whether it may have written where its end is not seen.
        may_fail: Whether a reply that is an error is taken as a reply.
        needs_all: Whether it goes through keys that it does not name. A server that only just takes them over cannot do it: it
            would take what has not come yet for what is not there.

    Attributes:
        script: The script that it runs; None for a command of another kind.
        is_sent: Whether the server may have it.
        is_given_up: Whether nobody waits for it any more, so that it must not be sent.
        is_asking: Whether it goes to a server that only just takes its rows over.
        turns: How often a server has sent it elsewhere.
    """

    __slots__ = (
        *("command", "is_asking", "is_given_up", "is_sent", "may_fail", "needs_all", "node", "partition", "script", "turns"),
        "writes",
    )

    def __init__(
        self,
        command: tuple[bytes, ...],
        *,
        partition: int | None = None,
        node: Node | None = None,
        writes: bool = False,
        may_fail: bool = False,
        needs_all: bool = False,
    ) -> None:
        self.command: tuple[bytes, ...] = command
        self.script: Script | None = None
        self.partition: int | None = partition
        self.node: Node | None = node
        self.writes: bool = writes
        self.may_fail: bool = may_fail
        self.needs_all: bool = needs_all
        self.is_sent: bool = False
        self.is_given_up: bool = False
        self.is_asking: bool = False
        self.turns: int = 0

    @classmethod
    def running(cls, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes], **others: Any) -> Request:
        """A request that runs a script, whose text is sent where the server has it not."""
        request = cls(script.call(keys, arguments), **others)
        request.script = script
        return request

    @property
    def size(self) -> int:
        """About how many bytes its command has."""
        return sum(map(len, self.command))


Plan: TypeAlias = "Generator[Sequence[Request], Sequence[Any], T]"


def run(plan: Plan[T], ask: Callable[[Sequence[Request]], Sequence[Any]]) -> T:
    """Do a call in a thread."""
    try:
        requests = next(plan)
        while True:
            requests = plan.send(ask(requests))
    except StopIteration as end:
        result: T = end.value
        return result


async def run_async(plan: Plan[T], ask: Callable[[Sequence[Request]], Awaitable[Sequence[Any]]]) -> T:
    """Do a call in an event loop."""
    try:
        requests = next(plan)
        while True:
            requests = plan.send(await ask(requests))
    except StopIteration as end:
        result: T = end.value
        return result


def transact(transaction: Transaction, keys: Keys, shapes: Shapes) -> Plan[Outcome]:
    """A transaction: one script, that of its shape where it has one."""
    call = keys.encode(transaction)
    script = shapes.find(call) or TRANSACTING
    arguments = call.values if script is not TRANSACTING else call.fill_in()
    writes = bool(transaction.writes)
    needs_all = bool(transaction.ranges)
    replies = yield [
        Request.running(script, call.keys, arguments, partition=transaction.partition, writes=writes, needs_all=needs_all)
    ]
    return decode_outcome(transaction, replies[0])


def find(wanted: Wanted, keys: Keys, *, is_cluster: bool) -> Plan[list[tuple[bytes, Row]]]:
    """A scan of a table with an indexed column: a page of each partition, and more of those that are not ahead of what is returned.

    Args:
        wanted: What is looked for.
        keys: Of the engine.
        is_cluster: Whether a script reaches one partition alone. Else one goes through all.
    """
    found: list[tuple[bytes, Any]] = []
    low, _, skipped = wanted.find_bounds()
    most = wanted.limit if wanted.equal is not None else min(wanted.limit, FEW)
    lows = dict.fromkeys(range(PARTITIONS), low)
    while lows:
        groups = _group(lows, is_cluster=is_cluster)
        replies = yield [wanted.build(keys, {partition: lows[partition] for partition in group}, most) for group in groups]
        pages = dict(zip(chain(*groups), chain(*replies), strict=True))
        found += [(key, flat) for _, page in pages.values() for key, flat in page]
        found = sorted(found, key=itemgetter(0))[: wanted.limit]
        last = found[-1][0] if len(found) == wanted.limit else None
        lows = {
            partition: low for partition, (low, _) in pages.items() if low is not None and (last is None or low[skipped:] < last)
        }
        most = min(wanted.limit, most * 4)
    return [(key, row) for key, flat in found if (row := decode_row(wanted.table, flat)) is not None]


def scan(wanted: Wanted, keys: Keys, nodes: Sequence[Node]) -> Plan[list[tuple[bytes, Row]]]:
    """A scan of a table without an index: all keys of all servers are looked through, and put in order here."""
    places = yield from _list_keys(wanted.table, keys, nodes)
    left = sorted((key, partition) for partition, key in places if key > wanted.after)
    step = min(wanted.limit, SCANNED_AT_ONCE)
    found: list[tuple[bytes, Row]] = []
    while left and len(found) < wanted.limit:
        page, left = left[:step], left[step:]
        found += yield from _read(wanted.table, page, keys)
    return found[: wanted.limit]


def purge(table: Table, keys: Keys, *, is_cluster: bool) -> Plan[int]:
    """A purge: Redis drops rows by itself, and what is left of them in the sorted sets is dropped here."""
    if not has_sets(table):
        return 0
    column = (table.indexed or "").encode()
    groups = [
        (group, [name for partition in group for name in keys.find_indexes(partition, table)])
        for group in _group(range(PARTITIONS), is_cluster=is_cluster)
    ]
    count = 0
    for first in range(0, len(groups), SWEPT_AT_ONCE):
        left = {group[0]: (names, 1, b"-") for group, names in groups[first : first + SWEPT_AT_ONCE]}
        while left:
            replies = yield [
                Request.running(SWEEPING, names, [b"%d" % at, low, column], partition=partition, needs_all=True)
                for partition, (names, at, low) in left.items()
            ]
            count += sum(dropped for dropped, _, _ in replies)
            found = zip(left.items(), replies, strict=True)
            left = {partition: (names, at, low) for (partition, (names, _, _)), (_, at, low) in found if at <= len(names)}
    return count


def check(settings: Settings, places: dict[Node, int]) -> Plan[Health]:
    """A look at each server: it runs all that the scripts do, and keeps what was promised.

    Args:
        settings: Of the engine.
        places: Server -> one of its partitions.
    """
    for requests in zip(*(_list_probes(settings, partition) for partition in places.values()), strict=True):
        began = time.perf_counter()
        yield requests
        took_ms = (time.perf_counter() - began) * 1000
    found: dict[str, str] = {}
    for node in places:
        replies = yield [Request(look, node=node, may_fail=True) for look in LOOKS]
        found = read_settings(replies)
        try:
            settings.judge(found)
        except ConfigurationError as error:
            raise EngineError(str(error)) from None
    return Health(settings.durability, took_ms, {**describe_settings(found, settings), "servers": str(len(places))})


def _list_probes(settings: Settings, partition: int) -> list[Request]:
    """What is asked one after the other: a row is made, changed, looked for and dropped, so that the scripts run all commands."""
    keys = Keys(f"{settings.prefix}:=probe")
    record = Record(PROBE, b"probe", partition)
    changes: list[Write] = [
        Put(record, {"number": 1, "name": b"first", "expires": Now(60_000)}),
        Put(record, {"number": None, "name": b"second", "expires": None}),
        Delete(record),
    ]
    shapes = Shapes()
    make, change, drop = [next(transact(Transaction([record], writes=[write]), keys, shapes))[0] for write in changes]
    wanted = Wanted(PROBE, None, b"", 1)
    look = wanted.build(keys, {partition: b""}, 1)
    sets = keys.find_indexes(partition, PROBE)
    sweep = Request.running(SWEEPING, sets, [b"1", b"-", b"name"], partition=partition, needs_all=True)
    return [make, change, look, sweep, drop]


def _group(partitions: Iterable[int], *, is_cluster: bool) -> list[list[int]]:
    """Partitions that one script reaches: on a cluster each by itself, else all."""
    return [[partition] for partition in partitions] if is_cluster else [list(partitions)]


def _list_keys(table: Table, keys: Keys, nodes: Sequence[Node]) -> Plan[set[tuple[int, bytes]]]:
    """Partition and key of each row of a table."""
    pattern, places = keys.build_pattern(table), set[tuple[int, bytes]]()
    cursors = dict.fromkeys(nodes, b"0")
    while cursors:
        steps = list(cursors.items())
        replies = yield [
            Request((b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % SCANNED_AT_ONCE), node=node) for node, cursor in steps
        ]
        for (node, _), (cursor, found) in zip(steps, replies, strict=True):
            places.update(place for key in found if (place := keys.take_apart(table, key)) and place[0] < PARTITIONS)
            cursors[node] = cursor
            if cursor == b"0":
                del cursors[node]
    return places


def _read(table: Table, page: Sequence[tuple[bytes, int]], keys: Keys) -> Plan[list[tuple[bytes, Row]]]:
    """The rows of a page that are there, in its order."""
    groups: dict[int, list[bytes]] = {}
    for key, partition in page:
        groups.setdefault(partition, []).append(key)
    replies = yield [
        Request.running(
            TRANSACTING,
            [keys.find_rows(partition, table) + key for key in group],
            [b"%d" % len(group), b"%d" % len(group), b"0", b";"],
            partition=partition,
        )
        for partition, group in groups.items()
    ]
    flats = {
        (key, partition): flat
        for (partition, group), reply in zip(groups.items(), replies, strict=True)
        for key, flat in zip(group, reply[2], strict=True)
    }
    return [(place[0], row) for place in page if (row := decode_row(table, flats[place])) is not None]
