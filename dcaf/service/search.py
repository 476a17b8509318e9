"""Find messages by their words: of one session, or of all sessions of a user.

    hits = await sessions.search("penicillin", user="p-123", limit=10)
    hits[0].session, hits[0].message.number, hits[0].snippet.text

A search first indexes what lies behind (``search_index``), then asks, and then reads what it has found: so whatever was deleted,
rewound away or archived since is not shown.

What a reader gets wrong: a turn's own messages are found when the turn is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError, SessionArchivedError, UnknownSessionError
from dcaf.engines import Engine, Record, Row, Search, Transaction, can_search
from dcaf.service.encryption import EncryptedEngine
from dcaf.service.encryption_layout import NO_SEARCH
from dcaf.service.kept import is_there
from dcaf.service.messages import Message, unpack
from dcaf.service.places import ARCHIVED, UNKNOWN, Place
from dcaf.service.plans import Plan
from dcaf.service.search_index import catch_up, catch_up_owner, is_searched, text_of
from dcaf.service.search_words import Snippet, build_snippet, read_query
from dcaf.service.tables import MESSAGES, NUMBER_BYTES, SESSIONS, WORDS, Owner, unpack_number

MOST_LIMIT: Final = 100

CANNOT: Final = (
    "This engine cannot search messages: keep the sessions in SQLite (sqlite:///...) or in PostgreSQL (postgresql://...). What is "
    "remembered can be searched in every engine: memory.search()."
)


class FoundMessage(NamedTuple):
    """A message that a search has found.

    Attributes:
        session: The id of its session.
        message: The message.
        snippet: The part of it that has most of the words.
    """

    session: str
    message: Message
    snippet: Snippet

    def __repr__(self) -> str:
        return f"FoundMessage({self.message!r})"


def search_session(
    place: Place, engine: Engine, query: object, limit: object, birth: bytes | None = None
) -> Plan[list[FoundMessage]]:
    """Find messages of one session.

    Args:
        place: Where it lies.
        engine: Where it is asked.
        query: Words, in a text.
        limit: How many messages at most.
        birth: Of the session; None for whichever has its id.

    Raises:
        ConfigurationError: An argument is wrong, or the engine cannot search.
        UnknownSessionError: There is no such session.
        SessionArchivedError: It was archived.
    """
    require_search(engine)
    return _search_session(place, read_query(query), require_limit(limit), birth)


def search_owner(app: str, owner: Owner, engine: Engine, query: object, limit: object) -> Plan[list[FoundMessage]]:
    """Find messages of all sessions of a user.

    Args:
        app: The application.
        owner: The user.
        engine, query, limit: As of ``search_session``.

    Raises:
        ConfigurationError: An argument is wrong, or the engine cannot search.
    """
    require_search(engine)
    return _search_owner(app, owner, engine.partitions, read_query(query), require_limit(limit))


def require_search(engine: Engine) -> None:
    """Require that the messages in an engine can be searched.

    Raises:
        ConfigurationError: They cannot, and why.
    """
    if not can_search(engine):
        raise ConfigurationError(NO_SEARCH if isinstance(engine, EncryptedEngine) else CANNOT)


def require_limit(limit: object) -> int:
    """Require how many hits a search gives.

    Raises:
        ConfigurationError: It is no number from 1 to 100.
    """
    if not 1 <= require("limit=", limit, int, "a number of hits, 1 or more") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT}.")
    return cast("int", limit)


def _search_session(place: Place, words: Sequence[str], limit: int, birth: bytes | None) -> Plan[list[FoundMessage]]:
    outcome = yield Transaction([place.row, place.owner.indexed_row(place.id)])
    row, mark = outcome.rows
    if row is None or not is_there(row, outcome.now_ms) or birth not in {None, row["birth"]}:
        raise UnknownSessionError(UNKNOWN)
    if row["archived"] is not None:
        raise SessionArchivedError(ARCHIVED)
    if not words:
        return []
    yield from catch_up(place, row, mark, outcome.now_ms)
    return (yield from _find(place.owner, place.row.key, words, limit))


def _search_owner(app: str, owner: Owner, partitions: int, words: Sequence[str], limit: int) -> Plan[list[FoundMessage]]:
    if not words:
        return []
    yield from catch_up_owner(app, owner, partitions)
    return (yield from _find(owner, owner.key, words, limit))


def _find(owner: Owner, prefix: bytes, words: Sequence[str], limit: int) -> Plan[list[FoundMessage]]:
    """Ask, and read what was found as it is now."""
    page = (yield Search(WORDS, prefix, words, limit, owner.partition)).pages[0]
    pairs = [(_session_of(key, owner), Record(MESSAGES, key, owner.partition)) for key, _ in page]
    records = list(dict.fromkeys(record for pair in pairs for record in pair))
    if not records:
        return []
    outcome = yield Transaction(records)
    rows = dict(zip(records, outcome.rows, strict=True))
    return [
        _build(cast("Row", rows[session]), message.key, cast("Row", rows[message]), words)
        for (session, message), (_, indexed) in zip(pairs, page, strict=True)
        if is_searched(rows[session], outcome.now_ms) and _is_same(rows[session], rows[message], indexed)
    ]


def _session_of(key: bytes, owner: Owner) -> Record:
    """The row of the session of a message."""
    return Record(SESSIONS, key[:-NUMBER_BYTES], owner.partition)


def _is_same(session: Row | None, message: Row | None, indexed: Row) -> bool:
    """Whether a message is the one whose words were indexed."""
    if session is None or message is None:
        return False
    return (session["birth"], message["revision"]) == (indexed["birth"], indexed["revision"])


def _build(session: Row, key: bytes, row: Row, words: Sequence[str]) -> FoundMessage:
    message = unpack(cast("bytes", row["data"]), number=unpack_number(key), at_ms=cast("int", row["at"]))
    return FoundMessage(cast("bytes", session["id"]).decode(), message, build_snippet(text_of(message), words))
