"""Read and write what sessions share, without one of them: the ``user:`` keys of a user, the ``app:`` keys of the application.

>>> from dcaf.service import SessionService
>>> sessions = SessionService("memory://", app="clinic")
>>> sessions.sync.merge_user_state(user="p-123", state={"theme": "dark"})
>>> sessions.sync.create(user="p-123").to_dict(), sessions.sync.get_user_state(user="p-123")
({'user:theme': 'dark'}, {'theme': 'dark'})

What a reader gets wrong: the keys have no ``user:`` and no ``app:`` here, as in ``session.user`` and ``session.app``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError
from dcaf.core.json_values import read
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.slots import TEMPORARY
from dcaf.engines import Put, Range, Record, Transaction
from dcaf.service.kept import values_of
from dcaf.service.places import APP, USER
from dcaf.service.plans import Plan


def read_keys(rows: Range, prefix: str) -> Plan[dict[str, Any]]:
    """The keys of some rows, without what all of them begin with, and their values."""
    outcome = yield Transaction([], ranges=[rows])
    return {name.removeprefix(prefix): read(value) for name, value in values_of(*outcome.pages).items()}


def write_keys(values: Mapping[str, bytes], find_row: Callable[[str], Record]) -> Plan[None]:
    """Write keys beside whatever turns are in progress: each is laid over them when it is committed.

    Args:
        values: Key -> value as JSON.
        find_row: Gives the row of a key; all of them lie in one partition.
    """
    writes = [Put(find_row(name), {"name": name.encode(), "value": value}) for name, value in values.items()]
    if writes:
        yield Transaction([], writes=writes)


def pack_keys(prefix: str, state: object) -> dict[str, bytes]:
    """Keys as they are kept -> their values as JSON.

    Args:
        prefix: What they begin with.
        state: The keys without it, and their values.

    Raises:
        ConfigurationError: It is no mapping, or a key has a prefix.
        SessionTypeError, SessionValueError: A key or a value may not be stored.
    """
    given = require("state=", state, Mapping, f"a dict of plain values, whose keys have no {prefix}")
    for name in given:
        if isinstance(name, str) and name.startswith((USER, APP, TEMPORARY)):
            raise ConfigurationError(f'state= takes keys as of a session without {prefix}: {{"theme": "dark"}}.')
    session = Session.from_dict(None)
    (session.user if prefix == USER else session.app).update(given)
    return {name: after for name, (_, after) in state_of(session).changed_values().items() if after is not None}
