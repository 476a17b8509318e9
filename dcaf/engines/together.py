"""Ask an engine for several transactions at the same time: each lies in a partition of its own, and none waits for another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from dcaf.engines.transactions import Outcome, Transaction


async def transact_together(transact: Callable[[Transaction], Awaitable[Outcome]], transactions: Sequence[Transaction]) -> Outcome:
    """Do several transactions, of which only the first may write, and join what they have come to.

    Args:
        transact: Does one of them.
        transactions: One or more.

    Raises what the one raises that fails first, when all have ended.
    """
    outcomes: dict[int, Outcome] = {}
    errors: list[Exception] = []

    async def do(place: int, transaction: Transaction) -> None:
        try:
            outcomes[place] = await transact(transaction)
        except Exception as error:  # noqa: BLE001 - a task group would wrap it
            errors.append(error)

    async with anyio.create_task_group() as group:
        for place, transaction in enumerate(transactions):
            group.start_soon(do, place, transaction)
    if errors:
        raise errors[0]
    return join_outcomes([outcomes[place] for place in range(len(transactions))])


def join_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """The rows and the pages of all of them, in their order. The clock is that of the first."""
    rows = tuple([row for outcome in outcomes for row in outcome.rows])
    pages = tuple([page for outcome in outcomes for page in outcome.pages])
    return Outcome(all(outcome.applied for outcome in outcomes), rows, outcomes[0].now_ms, pages)
