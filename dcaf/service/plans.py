"""Calls that ask an engine several times, written once for code with ``await`` and for code without.

>>> from dcaf.engines import MemoryEngine, Plus, Put, Record, Table, Transaction
>>> hits = Record(Table("hits", {"n": int}), b"home")
>>> def count():
...     outcome = yield Transaction([hits], writes=[Put(hits, {"n": Plus(1)})])
...     return outcome.rows[0]
>>> engine = MemoryEngine()
>>> engine.declare([hits.table])
>>> run(count(), engine), run(count(), engine)
(None, {'n': 1})

Each is a generator: it yields a transaction, is sent what that came to, or thrown that the engine failed, and returns what the call
returns. What it reads in several partitions it yields as a tuple of transactions: they are asked for at the same time, and it is
sent one outcome with the rows and the pages of all of them. Of a search, which an engine must be able to do, it is sent an outcome
with one page. What is to be done beside the engine it yields as an ``Aside``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, NamedTuple, TypeAlias, TypeVar, cast

import anyio.to_thread

from dcaf.core.errors import EngineError
from dcaf.core.lifecycle import run_shielded
from dcaf.engines import Engine, Outcome, Page, Search, SearchEngine, Transaction
from dcaf.engines.together import join_outcomes, transact_together

T = TypeVar("T")


class Aside(NamedTuple):
    """Something that blocks, and is done beside the engine: in an event loop, on a thread.

    Attributes:
        work: Does it. Where it raises an EngineError, the plan is thrown that.
    """

    work: Callable[[], None]


Asked: TypeAlias = "Transaction | tuple[Transaction, ...] | Search | Aside"
"""A transaction; or several that only read, of several partitions; or a search; or what is done beside the engine."""

Plan: TypeAlias = "Generator[Asked, Outcome, T]"

Stream: TypeAlias = "Generator[Transaction | bytes, Outcome | None, T]"
"""As a Plan, and besides it yields lines, for which it is sent nothing."""

DONE: Final = Outcome(applied=True, rows=(), now_ms=0)
"""What a plan is sent for an Aside."""


def run(plan: Plan[T], engine: Engine) -> T:
    """Do a call without an event loop. Raises what the plan and the engine raise."""
    try:
        asked = next(plan)
        while True:
            try:
                outcome = ask(engine, asked)
            except EngineError as error:
                asked = plan.throw(error)
            else:
                asked = plan.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result


async def run_to_end(plan: Plan[T], engine: Engine) -> T:
    """Do a call that writes, in an event loop, also where whoever asked for it is cancelled. Raises as ``run_async``."""
    found: list[T] = []

    async def work() -> None:
        found.append(await run_async(plan, engine))

    await run_shielded(work)
    return found[0]


async def run_async(plan: Plan[T], engine: Engine) -> T:
    """Do a call in an event loop. Raises what the plan and the engine raise."""
    try:
        asked = next(plan)
        while True:
            try:
                outcome = await _ask_async(engine, asked)
            except EngineError as error:
                asked = plan.throw(error)
            else:
                asked = plan.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result


def read_once(transaction: Transaction) -> Stream[Outcome]:
    """One step of a stream."""
    outcome = yield transaction
    assert outcome is not None  # it is sent for each transaction
    return outcome


def ask(engine: Engine, asked: Asked) -> Outcome:
    """Do one step of a plan. Raises what the engine raises."""
    transact = engine.sync.transact
    if isinstance(asked, Search):
        return _found(cast("SearchEngine", engine).sync.search(asked))
    if isinstance(asked, Aside):
        asked.work()
        return DONE
    return transact(asked) if isinstance(asked, Transaction) else join_outcomes([transact(one) for one in asked])


async def _ask_async(engine: Engine, asked: Asked) -> Outcome:
    if isinstance(asked, Search):
        return _found(await cast("SearchEngine", engine).search(asked))
    if isinstance(asked, Aside):
        await anyio.to_thread.run_sync(asked.work)
        return DONE
    return await (engine.transact(asked) if isinstance(asked, Transaction) else transact_together(engine.transact, asked))


def _found(page: Page) -> Outcome:
    return Outcome(applied=True, rows=(), now_ms=0, pages=(page,))
