"""What an operator sees of a ledger: the sessions that are live, page by page, and what a purge removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from dcaf.core.claims import SKEW_S
from dcaf.engines import Engine, Row
from dcaf.ledger.rules import number
from dcaf.ledger.tables import SESSIONS, session_id_of

PAGE: Final = 200


class LiveSession(NamedTuple):
    """A session that is not over.

    Attributes:
        id: Its id, as ``session.id``.
        sequence: The number of its newest state.
        created_at: When it began, in UTC.
        expires_at: When it ends unless another turn comes, in UTC.
        is_busy: Whether a turn of it is in progress.
    """

    id: str
    sequence: int
    created_at: datetime
    expires_at: datetime
    is_busy: bool


class Purged(NamedTuple):
    """How many rows were removed, because they had expired.

    Attributes:
        sessions: Sessions and tombstones.
        answers: Answers that nobody has asked for again.
        uses: What was used up in sessions that are over.
    """

    sessions: int
    answers: int
    uses: int


async def scan_live(
    engine: Engine, subject: bytes | None, *, now_ms: int, restored_ms: int
) -> AsyncIterator[tuple[int, LiveSession]]:
    """Epoch and description of each session that has not ended by itself, in the order of the ids.

    Args:
        engine: Where the rows are.
        subject: The digest of whom they are bound to; None for all.
        now_ms: The engine's clock.
        restored_ms: When the store was marked as restored; 0 for never.
    """
    after = b""
    while True:
        page = await engine.scan(SESSIONS, equal=subject, after=after, limit=PAGE)
        for key, row in page:
            if _is_live(row, now_ms, restored_ms):
                yield number(row, "epoch"), _describe(key, row, now_ms)
        if len(page) < PAGE:
            return
        after = page[-1][0]


def _is_live(row: Row, now_ms: int, restored_ms: int) -> bool:
    is_over = (number(row, "ends") + SKEW_S) * 1000 <= now_ms
    written_ms = number(row, "committed") or number(row, "born") * 1000  # it was adopted, and nothing was committed since
    return row["ended"] is None and not is_over and written_ms >= restored_ms


def _describe(key: bytes, row: Row, now_ms: int) -> LiveSession:
    return LiveSession(
        session_id_of(key),
        number(row, "sequence"),
        datetime.fromtimestamp(number(row, "born"), UTC),
        datetime.fromtimestamp(number(row, "ends"), UTC),
        row["claim"] is not None and number(row, "until") > now_ms,
    )
