"""Write to a session beside whatever turn of it is in progress, which is laid over that: messages, keys, and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError, QuotaExceededError, UnknownSessionError
from dcaf.engines import AllOf, Is, Now, Put, Transaction
from dcaf.service.changes import Change, KeyChange
from dcaf.service.commits import HALF, log_change, write_messages, write_open_calls, write_state
from dcaf.service.kept import Kept, is_alive, is_at, is_there
from dcaf.service.links import follow
from dcaf.service.places import UNKNOWN, Place, require_there
from dcaf.service.plans import Plan
from dcaf.service.quotas import check_messages
from dcaf.service.recent import Recent
from dcaf.service.tables import Columns


def append(place: Place, messages: Sequence[tuple[bytes, int | None]], recent: Recent[Kept]) -> Plan[int]:
    """Add messages beside whatever turn is in progress; returns how many there are then.

    Args:
        place: Where the session lies.
        messages: The messages, packed, each with its moment in milliseconds; None for that of the commit.
        recent: What was known last of sessions. Where that still holds, the engine is asked once.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
        ConfigurationError: A result of a tool answers no open call.
        QuotaExceededError: It would have more messages than it may have.
    """
    row = place.row
    planned = _plan_known(place, recent.find(row.key), messages)
    while True:
        outcome = yield Transaction([row]) if planned is None else planned.transaction
        if planned is not None and outcome.applied:
            recent.note(row.key, planned.after)
            return planned.after.messages
        planned = _plan_append(place, Kept.of(require_there(outcome)), messages)


class _Planned(NamedTuple):
    """What adds messages, and what is known of the session once they stand, without what the application wrote of it."""

    transaction: Transaction
    after: Kept


def _plan_known(place: Place, known: Kept | None, messages: Sequence[tuple[bytes, int | None]]) -> _Planned | None:
    """A plan by what was known last; None where nothing was, or that would have refused the messages: it may be old."""
    try:
        return None if known is None else _plan_append(place, known, messages)
    except (ConfigurationError, QuotaExceededError):
        return None


def _plan_append(place: Place, kept: Kept, messages: Sequence[tuple[bytes, int | None]]) -> _Planned:
    row, total = place.row, kept.messages + len(messages)
    if messages:
        check_messages(place.quotas, total)
    calls = follow([data for data, _ in messages], kept.open_calls)
    writes = [
        Put(row, {"messages": total, "updated": Now(), **write_open_calls(kept.open_calls, calls)}),
        *write_messages(place, kept, kept.revision, Change({}, messages)),
    ]
    after = replace(kept, messages=total, open_calls=calls, title=None, labels={}, metadata={}, user=None)
    return _Planned(Transaction([row], when=is_at(row, kept), writes=writes), after)


def merge_into(place: Place, values: Mapping[str, bytes | None]) -> Plan[None]:
    """Write keys of a state beside whatever turn is in progress: it is laid over them.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
    """
    row = place.row
    change = Change({name: KeyChange(None, value) for name, value in values.items()})
    own = change if place.is_with_app else change.only(app=False)
    while True:
        kept = Kept.of(require_there((yield Transaction([row]))))
        columns: Columns = {"changes": kept.changes + 1, "updated": Now()}
        writes = [
            Put(row, columns),
            *write_state(place, own),
            log_change(place, kept.changes + 1, kept.revision, own, kept.messages),
        ]
        if (yield Transaction([row], when=is_at(row, kept), writes=writes)).applied:
            break
    apart = change.only(app=True)
    if own is not change and apart.values:
        try:
            yield Transaction([], writes=write_state(place, apart))
        except EngineError as error:
            raise CommitUnknownError(HALF) from error


def close(place: Place) -> Plan[bool]:
    """Close a session for writing; False where that was done before.

    Raises:
        UnknownSessionError: There is no such session.
    """
    is_open = AllOf(is_alive(place.row), Is(place.row, "closed", None))
    outcome = yield Transaction([place.row], when=is_open, writes=[Put(place.row, {"closed": Now()})])
    if not outcome.applied and not is_there(outcome.rows[0], outcome.now_ms):
        raise UnknownSessionError(UNKNOWN)
    return outcome.applied
