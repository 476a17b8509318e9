"""Find the newest token of a kept session again, for its user, who is on another device and has none.

What a reader gets wrong: nothing is written. The session is as before, and whoever had its token goes on with it, too, until one of
them has done a turn; the other one is superseded then, and asks again.

Whatever is not the user's to go on with looks like a session that is not there: one of another user, an anonymous one, one that was
deleted, closed or archived, one that was revoked, logged out, or of before a restored ledger, and one that never had a token.
"""

from __future__ import annotations

from typing import Final, NoReturn, cast

from dcaf.core.claims import Binding, Claims
from dcaf.core.errors import ConfigurationError, StaleSessionError, UnknownSessionError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.slots import Closing, Resumed
from dcaf.core.store import OpenRequest
from dcaf.engines import Outcome, Row, Transaction
from dcaf.ledger.rules import Presented, Rows, current_epoch, is_held_by_another, number
from dcaf.service.calls import Calls
from dcaf.service.companion import SERVER
from dcaf.service.kept import Kept, join_state
from dcaf.service.places import APP, UNKNOWN, USER, Place, require_name
from dcaf.service.plans import Plan
from dcaf.service.reading import gather, list_ranges, list_ranges_elsewhere
from dcaf.service.store import find_lease

BUSY: Final = "A turn of the session is in progress: its newest token is still to come. Ask again when it is over."


def plan_resume(calls: Calls, session: Session, subject: str, session_id: str) -> Plan[Resumed] | None:
    """What ``SessionService.resume`` asks; None where the session is the turn's own already.

    Raises:
        ConfigurationError: The session is of no turn of this service, or of another subject's, or it has changed; or an argument
            is wrong.
    """
    lease, place = find_lease(session, calls), calls.place_of(require_name("subject=", subject), require_name("id=", session_id))
    bound = lease.request.binding
    if bound.subject not in {None, subject}:
        raise ConfigurationError("resume() takes the subject of the turn: the caller of this one is another.")
    if bound.subject is not None and lease.request.session_id == session_id:
        return None
    require_unchanged(session)
    return find_newest(place, bound.audience)


def give_way(session: Session, subject: str, resumed: Resumed) -> None:
    """Have the answer carry another session in place of this one.

    Raises:
        ConfigurationError: The session has changed meanwhile.
        SessionClosedError: The turn is over, or the session was ended.
    """
    state = state_of(session)
    with state.lock:
        require_unchanged(session)
        state.close(Closing(rotates=False, subject=subject, resumed=resumed))


def require_unchanged(session: Session) -> None:
    """Require a session that was only read in its turn.

    Raises:
        ConfigurationError: It was changed.
    """
    if state_of(session).is_changed():
        raise ConfigurationError("resume() is for a turn that has not changed its own session: the change would be lost.")


def find_newest(place: Place, audience: str) -> Plan[Resumed]:
    """What the newest token of a session says, and its state.

    Args:
        place: Where it lies: in a partition of its user.
        audience: Of its ledger.

    Raises:
        UnknownSessionError: There is no such session of this user, or it cannot go on.
        StaleSessionError: A turn of it is in progress.
    """
    presented = _present(place, audience)
    own = Transaction([place.row, *presented.reads()], ranges=list_ranges(place, 0))
    elsewhere = list_ranges_elsewhere(place)
    outcome = yield (own, Transaction([], ranges=elsewhere)) if elsewhere else own
    row = _find_row(presented, outcome)
    found = yield from gather(place, 0, outcome)
    if found.row is None or not found.is_kept or not (kept := Kept.of(found.row)).is_open:
        _refuse()
    born = number(row, "born")
    claims = Claims(audience, place.id, number(row, "sequence"), born, born, born, ep=cast("int", row["epoch"]), at=SERVER)
    return Resumed(claims, join_state(found.own, *found.shared), kept.version, (USER, APP))


def _present(place: Place, audience: str) -> Presented:
    """The rows of a ledger.

    Raises:
        UnknownSessionError: No ledger has a session of such an id.
    """
    request = OpenRequest(place.id, None, Binding(audience, place.owner.user))
    try:
        return Presented.of(request, place.partitions)
    except ValueError:
        _refuse()


def _find_row(presented: Presented, outcome: Outcome) -> Row:
    """The row of the ledger of a session that may go on.

    Raises:
        UnknownSessionError, StaleSessionError: As ``find_newest``.
    """
    rows: Rows = dict(zip(presented.reads(), outcome.rows[1:], strict=False))
    row = rows[presented.row]
    is_whole = row is not None and row["subject"] == presented.subject and number(row, "sequence") > 0
    if row is None or not is_whole or row["ended"] is not None or row["epoch"] != current_epoch(presented, rows):
        _refuse()
    if number(row, "committed") < number(rows[presented.store], "restored"):
        _refuse()
    if is_held_by_another(row, None, outcome.now_ms):
        raise StaleSessionError(BUSY)
    return row


def _refuse() -> NoReturn:
    raise UnknownSessionError(UNKNOWN)
