"""What each command of `dcaf ledger` does: it opens the ledger that is there, asks it, and prints the answer.

>>> print(_draw_session(LiveSession("A" * 22, 3, datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 9, tzinfo=UTC), False)))
AAAAAAAAAAAAAAAAAAAAAA       3  2026-01-02T00:00:00Z  2026-01-09T00:00:00Z  no    ilvbTMFRZBJs
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import anyio

from dcaf.cli.databases import PATIENCE, has_table, open_database, path_of, read_name
from dcaf.cli.inspect.render import count, moment, tree
from dcaf.core.claims import CHARACTERS_22
from dcaf.core.errors import ConfigurationError
from dcaf.engines import Engine, Transaction
from dcaf.engines.sqlite.engine import SqliteEngine
from dcaf.ledger import Ledger, LiveSession
from dcaf.ledger.events import digest_session
from dcaf.ledger.tables import STORE, store_row

Act: TypeAlias = Callable[[Ledger, argparse.Namespace], Awaitable[int]]
"""What a command does; returns the exit code."""

LIFETIME: Final = timedelta(days=3660)
"""For how long a session stays revoked that the ledger does not know: longer than any service has its sessions live."""

ANY_AUDIENCE: Final = "any"
"""Stands for the audience where a command is about no subject."""

ROW: Final = "{:22}  {:>6}  {:20}  {:20}  {:4}  {}"
HEADING: Final = ROW.format("session", "number", "began", "ends", "busy", "in the log")

NO_AUDIENCE: Final = "A subject is known to one audience: pass --audience, as SessionMiddleware(audience=) has it."
NO_LEDGER: Final = "There is no ledger in {place}: a service makes it with its first turn. Is that the url of the service?"
NO_YES: Final = (
    "This ends every session that is open now, since nobody can tell which of them were logged out after the copy was made. "
    "Pass --yes to do it."
)
NONE_OF_SUBJECT: Final = "No live session of this subject is known for this audience."
LOGGED_OUT_NONE: Final = (
    "Logged out. No live session was known: the subject had none, or has another --audience, or the ledger keeps no rows of "
    "sessions (level L1)."
)
REVOKED_UNKNOWN: Final = (
    "Revoked. No such session was known: it was over, or is in another database, or the ledger keeps no rows of "
    "sessions (level L1)."
)


def run(options: argparse.Namespace) -> int:
    """Run the command that was parsed. Returns the exit code.

    Raises:
        ConfigurationError: An argument is wrong, or there is no ledger.
        EngineError: The database cannot be used.
    """
    return anyio.run(_act, options)


async def _act(options: argparse.Namespace) -> int:
    audience = getattr(options, "audience", None)
    if audience is None and getattr(options, "subject", None) is not None:
        raise ConfigurationError(NO_AUDIENCE)
    engine = open_database(options.url, PATIENCE)
    # What a command does is the same at both levels, and level L1 needs no encryption.
    named = ANY_AUDIENCE if audience is None else audience
    ledger = Ledger(engine, audience=named, absolute_timeout=LIFETIME, freshness=False)
    try:
        await _require_ledger(engine)
        code = await ACTS[options.act](ledger, options)
    finally:
        await engine.aclose()
    return code


async def _require_ledger(engine: Engine) -> None:
    """Refuse an engine that has no ledger yet: its first transaction would make one.

    Raises:
        ConfigurationError: It has none.
        EngineError: The database cannot be read.
    """
    if isinstance(engine, SqliteEngine):
        place, is_there = str(path_of(engine)), has_table(engine, STORE)
    else:
        (row,) = (await engine.transact(Transaction([store_row(0)]))).rows
        place, is_there = engine.url, row is not None
    if not is_there:
        raise ConfigurationError(NO_LEDGER.format(place=place))


async def _list(ledger: Ledger, options: argparse.Namespace) -> int:
    is_about_one = options.subject is not None
    number = 0
    async for live in _find_sessions(ledger, options.subject):
        if number == 0 and not options.json:
            print(HEADING)
        print(json.dumps(_describe(live)) if options.json else _draw_session(live))
        number += 1
    if not options.json:
        print((NONE_OF_SUBJECT if is_about_one else "No live session.") if number == 0 else f"{count(number, 'session')}.")
    return 0


async def _find_sessions(ledger: Ledger, subject: str | None) -> AsyncIterator[LiveSession]:
    if subject is None:
        async for live in ledger.all_sessions():
            yield live
        return
    for live in sorted(await ledger.sessions(read_name(subject, "subject")), key=lambda live: live.created_at):
        yield live


def _describe(live: LiveSession) -> dict[str, str | int | bool]:
    return {
        "session": live.id,
        "number": live.sequence,
        "began": _text_of(live.created_at),
        "ends": _text_of(live.expires_at),
        "busy": live.is_busy,
        "log": digest_session(live.id),
    }


def _draw_session(live: LiveSession) -> str:
    return ROW.format(*(_describe(live) | {"busy": "yes" if live.is_busy else "no"}).values())


async def _revoke(ledger: Ledger, options: argparse.Namespace) -> int:
    is_known = CHARACTERS_22.fullmatch(options.session) is not None and await _is_known(ledger, options.session)
    await ledger.revoke(options.session)
    print("Revoked: none of its tokens is accepted any more." if is_known else REVOKED_UNKNOWN)
    return 0


async def _is_known(ledger: Ledger, session_id: str) -> bool:
    first, *_ = await ledger.find_rows(session_id)
    return (await ledger.transact(Transaction([first]))).rows != (None,)


async def _log_out(ledger: Ledger, options: argparse.Namespace) -> int:
    subject = read_name(options.subject, "subject")
    number = len(await ledger.sessions(subject))
    await ledger.log_out(subject)
    print(f"Logged out: {count(number, 'live session')} ended." if number else LOGGED_OUT_NONE)
    return 0


async def _unlock(ledger: Ledger, options: argparse.Namespace) -> int:
    is_unlocked = await ledger.unlock(options.session)
    print("Unlocked: the next turn gets the session." if is_unlocked else "No turn holds this session.")
    return 0 if is_unlocked else 1


async def _purge(ledger: Ledger, _: argparse.Namespace) -> int:
    purged = await ledger.purge()
    print(f"Removed {count(purged.sessions, 'session')}, {count(purged.answers, 'answer')}, {count(purged.uses, 'use')}.")
    return 0


async def _restored(ledger: Ledger, options: argparse.Namespace) -> int:
    if not options.yes:
        raise ConfigurationError(NO_YES)
    await ledger.mark_restored()
    print("Every session that was open has ended. Those that begin from now on are accepted.")
    return 0


async def _check(ledger: Ledger, options: argparse.Namespace) -> int:
    health = await ledger.check()
    (store,) = (await ledger.transact(Transaction([store_row(0)]))).rows
    assert store is not None  # Ledger.check makes it
    found = {
        "durability": health.durability,
        "took_ms": round(health.took_ms, 1),
        "made_ms": store["origin"],
        "restored_ms": store["restored"],
        **health.details,
        **_measure_files(ledger.engine),
    }
    print(json.dumps({"url": ledger.engine.url, **found}) if options.json else "\n".join(_draw(ledger.engine.url, found)))
    return 0


def _draw(url: str, found: dict[str, Any]) -> list[str]:
    return tree(f"{url} works", list(_rows(found, int(time.time()))))


def _rows(found: dict[str, Any], now: int) -> Iterator[tuple[str, str]]:
    """A name and some words for each thing that is known."""
    for name, value in found.items():
        if name.endswith("_bytes"):
            yield name.removesuffix("_bytes"), count(value, "byte")
        elif name == "took_ms":
            yield "took", f"{value} ms"
        elif name.endswith("_ms"):
            yield name.removesuffix("_ms"), "never" if value is None else moment(int(value) // 1000, now)
        else:
            yield name, str(value)


def _measure_files(engine: Engine) -> dict[str, int]:
    """The sizes of the database and of its log; a log that only grows is held by a program that reads, and does not end."""
    if not isinstance(engine, SqliteEngine):
        return {}
    path = path_of(engine)
    files = {"file_bytes": path, "wal_bytes": path.with_name(f"{path.name}-wal")}
    return {name: file.stat().st_size for name, file in files.items() if file.exists()}


def _text_of(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


ACTS: Final[dict[str, Act]] = {
    "list": _list,
    "revoke": _revoke,
    "log-out": _log_out,
    "unlock": _unlock,
    "purge": _purge,
    "restored": _restored,
    "check": _check,
}
"""Name of a command -> what it does."""
