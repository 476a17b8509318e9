"""What the parts of a ledger need of it: its settings, its engine, and what reports and renews."""

from __future__ import annotations

from typing import Protocol

from dcaf.engines import Outcome, Transaction
from dcaf.ledger.events import LedgerEvents
from dcaf.ledger.renewals import Renewals
from dcaf.ledger.settings import Terms


class Kernel(Protocol):
    """A ledger, for its parts.

    Attributes:
        terms, events, renewals: Of the ledger.
        marker: What the row of the store has as ``adopting``; None where nothing is adopted.
        partitions: Of its engine.
    """

    terms: Terms
    events: LedgerEvents
    renewals: Renewals
    marker: int | None

    @property
    def partitions(self) -> int:
        """As above."""

    async def transact(self, transaction: Transaction) -> Outcome:
        """Have the engine apply a transaction."""
