"""Write to a session beside whatever turn of it is in progress, which is laid over that: messages, keys, and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dcaf.core.errors import CommitUnknownError, EngineError, UnknownSessionError
from dcaf.engines import AllOf, Is, Now, Put, Transaction
from dcaf.service.changes import Change, KeyChange
from dcaf.service.commits import HALF, log_change, write_messages, write_open_calls, write_state
from dcaf.service.kept import Kept, is_alive, is_at, is_there
from dcaf.service.links import follow
from dcaf.service.places import UNKNOWN, Place, require_there
from dcaf.service.plans import Plan
from dcaf.service.tables import Columns


def append(place: Place, messages: Sequence[tuple[bytes, int | None]]) -> Plan[int]:
    """Add messages beside whatever turn is in progress; returns how many there are then.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
        ConfigurationError: A result of a tool answers no open call.
    """
    row = place.row
    while True:
        kept = Kept.of(require_there((yield Transaction([row]))))
        total, calls = kept.messages + len(messages), follow([data for data, _ in messages], kept.open_calls)
        writes = [
            Put(row, {"messages": total, "updated": Now(), **write_open_calls(kept, calls)}),
            *write_messages(place, kept, kept.revision, Change({}, messages)),
        ]
        if (yield Transaction([row], when=is_at(row, kept), writes=writes)).applied:
            return total


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
