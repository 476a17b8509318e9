"""Session services of one process of a test: the real one, and some that are broken on purpose, for controls.

What breaks a service stays broken for the whole process: it is one of ``ledgers.Worker``, or is killed afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from dcaf.engines import Exists, PostgresEngine
from dcaf.service import SessionService, beside, calls, commits, turns
from dcaf.service.changes import Change
from dcaf.service.commits import Committed, commit
from dcaf.service.kept import Kept
from dcaf.service.places import Place as Kept_at
from dcaf.service.plans import Plan, run_async
from dcaf.service.recent import Recent
from dcaf.service.session import KeptState
from tests.promises.ledgers import PATIENCE
from tests.promises.places import Place

APP: Final = "clinic"
LATE_S: Final = 0.1

MakeService = Callable[[Place], SessionService]
"""What makes the service of a process."""

_whole: Final = commit


def make_service(place: Place) -> SessionService:
    """The service of one process."""
    return SessionService(place.open_engine(PATIENCE), app=APP)


def make_merging(place: Place) -> SessionService:
    """One whose turns are laid over those that came first."""
    return SessionService(place.open_engine(PATIENCE), app=APP, on_busy="merge")


def make_relaxed(place: Place) -> SessionService:
    """Broken for who kills the server: what PostgreSQL acknowledges is still in its memory."""
    return SessionService(PostgresEngine(place.url, timeout=PATIENCE, durability="relaxed"), app=APP)


def make_unchecked(place: Place) -> SessionService:
    """Broken: a commit does not compare the revision."""
    _replace(commits, "is_at", lambda row, _: Exists(row))
    _replace(commits, "_catch_up", lambda kept, _: kept)
    return make_service(place)


def make_forgetful(place: Place) -> SessionService:
    """Broken: a turn that comes later takes over the revision of the one that came first, and not what it did."""
    _replace(KeptState, "rebase", lambda state, newer: [])
    return make_merging(place)


def make_by_halves(place: Place) -> SessionService:
    """Broken: messages are written one by one, and the rest of a turn after them."""
    _replace(calls, "commit", commit_by_halves)
    return make_merging(place)


def make_early(place: Place) -> SessionService:
    """Broken: a turn is acknowledged first, and committed a tenth of a second later."""
    late: set[asyncio.Task[Any]] = set()

    async def begin(plan: Plan[Any], engine: Any) -> None:
        async def finish() -> None:
            await asyncio.sleep(LATE_S)
            await run_async(plan, engine)

        late.add(asyncio.create_task(finish()))

    _replace(turns, "run_to_end", begin)
    return make_service(place)


def commit_by_halves(place: Kept_at, kept: Kept, change: Change, now_ms: int) -> Plan[Committed]:
    for message in change.messages if kept.revision else ():
        total = yield from beside.append(place, [message], Recent())
        kept = replace(kept, messages=total)
    return (yield from _whole(place, kept, replace(change, messages=()) if kept.revision else change, now_ms))


def _replace(owner: Any, name: str, broken: Any) -> None:
    setattr(owner, name, broken)
