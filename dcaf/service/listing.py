"""Find the sessions of a user, page by page.

>>> read_cursor(write_cursor(b"owner" + b"key"), b"owner")
b'ownerkey'
>>> read_cursor(write_cursor(b"other" + b"key"), b"owner")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: cursor= is that of a page of the same list, or None for the first page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from dcaf.core.arguments import require
from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError
from dcaf.core.json_values import read
from dcaf.engines import Page, Range, Row, Transaction
from dcaf.service.kept import Kept, is_there, value_of
from dcaf.service.places import APP, USER
from dcaf.service.plans import Plan
from dcaf.service.tables import DIGEST_BYTES, LISTS, Owner, app_row

T = TypeVar("T")

Order: TypeAlias = Literal["newest", "oldest"]

MOST_LIMIT: Final = 1_000
LOOKED_AT_ONCE: Final = 200
MOST_LOOKED: Final = 2_000
"""How many sessions a page looks at, where not all of them are wanted."""

READ_AT_ONCE: Final = 4_000
"""How many rows are read in one transaction."""

WRONG_CURSOR: Final = "cursor= is that of a page of the same list, or None for the first page."


@dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """A page of a list.

    Attributes:
        items: What is on it, in the list's order.
        cursor: What to give as ``cursor=`` for the next page; None where there is none.
    """

    items: list[T] = field(repr=False)
    cursor: str | None = field(repr=False)  # it may have the key of a document, or the name of an artifact


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions of a list are wanted, and what of their states.

    Attributes:
        app: The application.
        partitions: Of the engine.
        keys: The keys of a state whose values come along.
        labels: Those that a session has at least.
        archived: Whether it is the list of archived sessions.
    """

    app: str
    partitions: int
    keys: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    archived: bool = False

    @property
    def own_keys(self) -> list[str]:
        """The keys that each session has for itself."""
        return [name for name in self.keys if not name.startswith((USER, APP))]

    @property
    def user_keys(self) -> list[str]:
        """The keys that all of them share."""
        return [name for name in self.keys if name.startswith(USER)]

    @property
    def app_keys(self) -> list[str]:
        """The keys of the application."""
        return [name for name in self.keys if name.startswith(APP)]

    def has_labels(self, kept: Kept) -> bool:
        """Whether a session has all of the labels."""
        return self.labels.items() <= kept.labels.items()

    def has(self, kept: Kept) -> bool:
        """Whether a session is wanted, of whatever list it is."""
        return (kept.archived_at is not None) is self.archived and self.has_labels(kept)


def list_sessions(owner: Owner, wanted: Wanted, *, limit: int, order: Order, cursor: str | None) -> Plan[ListPage[Kept]]:
    """A page of the sessions of a user, ordered by the minute in which their last committed turn began.

    A page looks at 2,000 sessions at most. So one that asks for labels may be short, or empty, and have a cursor all the same.

    Args:
        owner: The user.
        wanted: Which sessions, and what of their states.
        limit: How many at most.
        order: Which come first.
        cursor: Where the page before ended; None for the first page.

    Raises:
        ConfigurationError: The limit is not 1 to 1,000, or the cursor is another list's.
    """
    require_limit(limit)
    prefix = owner.list_key(archived=wanted.archived)
    at = None if cursor is None else read_cursor(cursor, prefix)
    return _list(owner, wanted, limit, at, backwards=order == "newest")


def _list(owner: Owner, wanted: Wanted, limit: int, at: bytes | None, *, backwards: bool) -> Plan[ListPage[Kept]]:
    found: list[tuple[bytes, Kept]] = []
    app = (yield from read_app_state(wanted)) if wanted.app_keys else {}
    looked = 0
    while True:
        count = max(limit - len(found), LOOKED_AT_ONCE if wanted.labels else 0)
        rest = _rest_of(owner, at, count + 1, backwards=backwards, archived=wanted.archived)
        (page,) = (yield Transaction([], ranges=[rest])).pages
        rows = page[:count]
        found += yield from _read_listed(owner, wanted, rows, app)
        at, looked = rows[-1][0] if rows else at, looked + len(rows)
        has_more = len(page) > len(rows)
        if len(found) > limit:
            return _make_page(found[:limit], found[limit - 1][0], backwards=backwards)
        if not has_more:
            return _make_page(found, None, backwards=backwards)
        if len(found) == limit or looked >= MOST_LOOKED:
            return _make_page(found, at, backwards=backwards)


def _make_page(found: Sequence[tuple[bytes, Kept]], at: bytes | None, *, backwards: bool) -> ListPage[Kept]:
    """A page, on which those of one minute stand by the moments of their last commits."""
    ordered = sorted(found, key=lambda one: (one[0][:-DIGEST_BYTES], one[1].updated_at), reverse=backwards)
    return ListPage([kept for _, kept in ordered], None if at is None else write_cursor(at))


def _read_listed(owner: Owner, wanted: Wanted, rows: Page, app: Mapping[str, Any]) -> Plan[list[tuple[bytes, Kept]]]:
    """The sessions that are there, of rows of a list: each with its place in it, and with what was asked for of its state."""
    listed = [(key, found.decode()) for key, row in rows if isinstance(found := row["session"], bytes)]
    shared = [owner.shared_row(name) for name in wanted.user_keys]
    at_once = max(1, READ_AT_ONCE // (1 + len(wanted.own_keys)))
    items: list[tuple[bytes, Kept]] = []
    for part in (listed[first : first + at_once] for first in range(0, len(listed), at_once)):
        own = [owner.state_row(session_id, name) for _, session_id in part for name in wanted.own_keys]
        outcome = yield Transaction([*shared, *(owner.session_row(session_id) for _, session_id in part), *own])
        ours = {**app, **read_values(wanted.user_keys, outcome.rows)}
        states = iter(outcome.rows[len(shared) + len(part) :])
        for (key, _), row in zip(part, outcome.rows[len(shared) :], strict=False):
            state = read_values(wanted.own_keys, states)
            if row is not None and is_there(row, outcome.now_ms) and wanted.has_labels(kept := Kept.of(row)):
                items.append((key, replace(kept, state={**state, **ours})))
    return items


def read_values(names: Sequence[str], rows: Iterable[Row | None]) -> dict[str, Any]:
    """Key -> value, of as many rows as there are keys; absent ones are left out."""
    found = zip(names, rows, strict=False)  # the names come first, so that no row too many is taken
    return {name: read(data) for name, row in found if (data := value_of(row)) is not None}


def read_app_state(wanted: Wanted) -> Plan[dict[str, Any]]:
    """The values of the keys of the application, as far as they are there."""
    outcome = yield Transaction([app_row(wanted.app, name, partitions=wanted.partitions) for name in wanted.app_keys])
    return read_values(wanted.app_keys, outcome.rows)


def _rest_of(owner: Owner, at: bytes | None, limit: int, *, backwards: bool, archived: bool) -> Range:
    """What comes after a key in the list of a user."""
    whole = Range.of_prefix(LISTS, owner.list_key(archived=archived), limit, backwards=backwards, partition=owner.partition)
    if at is None:
        return whole
    start, end = (whole.start, at) if backwards else (at + b"\0", whole.end)
    return Range(LISTS, start, end, limit, backwards, owner.partition)


def require_limit(limit: object) -> None:
    """Require a number of sessions for a page.

    Raises:
        ConfigurationError: It is not 1 to 1,000.
    """
    if not 1 <= require("limit=", limit, int, "a number of sessions, 1 or more") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT}.")


def write_cursor(key: bytes) -> str:
    """A key as a text."""
    return encode(key)


def read_cursor(cursor: str, prefix: bytes) -> bytes:
    """The key of a cursor.

    Raises:
        ConfigurationError: It is none, or of another list than the one whose keys begin so.
    """
    try:
        key = decode(require("cursor=", cursor, str, "the cursor of a page, or None").encode())
    except ValueError:
        raise ConfigurationError(WRONG_CURSOR) from None
    if not key.startswith(prefix):
        raise ConfigurationError(WRONG_CURSOR)
    return key
