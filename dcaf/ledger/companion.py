"""What another part of a store reads and writes in the transactions of a ledger, for the session of one turn.

A ledger says who holds a session, and which of its tokens is the newest. A part that keeps the state, too, has to do so in the same
transaction: it gives each turn a companion. The turn of a ledger alone has one that keeps nothing, which is this class.

    when a session is opened    ``reads`` and ``ranges`` go along, ``see`` gets what was found, ``finish`` what else there is to do
    when it is committed        ``prepare``, then ``plan`` goes along; ``take_committed``, or ``take_refused`` where that failed
    when it ends or rotates     ``end``, ``rotate``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dcaf.core.base64url import Payload
from dcaf.core.journal import Journal
from dcaf.core.store import OpenRequest, Sealed
from dcaf.engines import Condition, Outcome, Page, Range, Record, Row, Write


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a transaction.

    Attributes:
        reads: Rows that are read, and compared.
        conditions: What has to hold.
        writes: What is written then.
    """

    reads: Sequence[Record] = ()
    conditions: Sequence[Condition] = ()
    writes: Sequence[Write] = field(default=(), repr=False)


NOTHING = Part()


class Companion:
    """Goes along with one turn of a session. This one reads and writes nothing.

    Attributes:
        reads: The rows that it reads when the session is opened.
        ranges: The same of ranges of rows.
        elsewhere: The same of ranges in another partition. They are read at the same time, in a transaction of their own.
        place, payload, version: Of the lease: where the state is kept, the state, and the version of its schema.
        journal: What the turn adds beside the state; None for nothing.
        shared: What the keys begin with that other sessions have, too.
    """

    reads: Sequence[Record] = ()
    ranges: Sequence[Range] = ()
    elsewhere: Sequence[Range] = ()
    place: str | None = None
    payload: Payload | None = None
    version: int = 0
    journal: Journal | None = None
    shared: tuple[str, ...] = ()

    @property
    def is_due(self) -> bool:
        """Whether a commit has something to write also where the state has not changed."""
        return False

    def see(self, rows: Mapping[Record, Row | None], pages: Sequence[Page], now_ms: int) -> None:
        """Take what was read; the last call counts.

        Args:
            rows: All rows of the transaction.
            pages: Of the ranges, and of those elsewhere.
            now_ms: The engine's clock.
        """

    async def finish(self) -> None:
        """Do what is left when the ledger has opened the session.

        Raises:
            SessionEnded: There is no such state.
        """

    async def prepare(self) -> None:
        """Do what has to come before a commit."""

    def plan(self, sealed: Sealed) -> Part:  # noqa: ARG002
        """What a commit compares and writes."""
        return NOTHING

    async def take_refused(self, outcome: Outcome) -> bool:  # noqa: ARG002
        """Whether a commit that did not apply is worth another one, because it was this part's rows that had changed.

        Args:
            outcome: With the rows of the plan, in its order.

        Raises:
            SessionConflict, SessionEnded: Another one has committed the session, or it is gone.
        """
        return False

    async def take_back(self) -> None:
        """Drop what was written of a session that was rotated elsewhere: that of before could not be ended with it."""

    async def take_committed(self, outcome: Outcome) -> None:
        """Go on from what was committed.

        Args:
            outcome: As of ``take_refused``.
        """

    async def latest(self) -> Payload | None:
        """As of a lease."""
        return None

    def plan_end(self) -> Part:
        """What is written with the end of the session. Where it does not apply, the session ends without it."""
        return NOTHING

    async def end(self) -> None:
        """The session has ended."""

    async def rotate(self, request: OpenRequest) -> None:
        """The session goes on as another one, from the next commit on."""


ALONE = Companion()
