"""When a store was made, marked as restored, or opened for a roll-out: its one row, of which each partition has a copy.

A copy is made when a turn first misses it, and again where it was lost: then with a new moment, which ends the tokens that have the
epoch of the old one. What was lost is no permission.
"""

from __future__ import annotations

from dcaf.engines import AnyOf, Exists, Is, Not, Now, Put, Record, Transaction
from dcaf.ledger.kernel import Kernel
from dcaf.ledger.rules import number
from dcaf.ledger.tables import Columns, store_row


async def make_store(ledger: Kernel, store: Record) -> None:
    """Note when a partition of the store was made, where that is not noted.

    Raises:
        EngineError: The engine failed.
    """
    is_bare = AnyOf(Not(Exists(store)), Is(store, "origin", None))
    await ledger.transact(Transaction([store], when=is_bare, writes=[Put(store, {"origin": Now()})]))


async def mark_roll_out(ledger: Kernel) -> int:
    """Mark the store as the one into which sessions are adopted: the same mark in each partition, whichever process comes first.

    Returns:
        The mark.

    Raises:
        EngineError: The engine failed.
    """
    first = store_row(0)
    unmarked = Is(first, "adopting", None)
    await ledger.transact(Transaction([first], when=unmarked, writes=[Put(first, {"adopting": Now()})]))
    (row,) = (await ledger.transact(Transaction([first]))).rows
    marker = number(row, "adopting")
    for store in map(store_row, range(1, ledger.partitions)):
        await make_store(ledger, store)
        is_other = Not(Is(store, "adopting", marker))
        await ledger.transact(Transaction([store], when=is_other, writes=[Put(store, {"adopting": marker})]))
    return marker


async def mark_restored(ledger: Kernel, store: Record) -> None:
    """End every token of a partition that was sealed so far.

    Raises:
        EngineError: The engine failed.
    """
    await make_store(ledger, store)
    is_marked = False
    while not is_marked:
        outcome = await ledger.transact(Transaction([store]))
        before = number(outcome.rows[0], "origin")
        # It is the epoch of every subject from now on, and one that no log-out of this moment has given.
        origin: Columns = {"origin": max(before, outcome.now_ms) + 1, "restored": Now()}
        unchanged = Is(store, "origin", before)
        is_marked = (await ledger.transact(Transaction([store], when=unchanged, writes=[Put(store, origin)]))).applied
