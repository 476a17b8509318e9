"""What each command of `dcaf sessions` does: it opens the service of an application, asks it, and prints the answer.

>>> _draw_row({"id": "v1", "messages": 4, "revision": 2, "updated": "2026-01-02T00:00:00Z", "ends": None, "title": "First visit"})
'v1                               4         2  2026-01-02T00:00:00Z  never                 First visit'
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, TypeAlias
from uuid import uuid4

import anyio

from dcaf.cli.databases import PATIENCE, has_table, open_database, path_of, read_name
from dcaf.cli.inspect.render import count, plain, tree
from dcaf.core.errors import ConfigurationError, UnknownSessionError
from dcaf.core.json_values import write
from dcaf.core.keys import Keyring
from dcaf.engines import Engine, Table
from dcaf.engines.sqlite.engine import SqliteEngine
from dcaf.service import HistoryPage, Imported, Kept, KeptSession, ListPage, Message, SessionService
from dcaf.service.encryption import find_sealed
from dcaf.service.lines import MOST_LINE_BYTES
from dcaf.service.tables import SESSIONS

Act: TypeAlias = Callable[[SessionService, argparse.Namespace], Awaitable[int]]
"""What a command does; returns the exit code."""

MAKES: Final = ("import",)
"""Commands that may make the tables."""

REENCRYPT: Final = "re-encrypt"

ROW: Final = "{:24}  {:>8}  {:>8}  {:20}  {:20}  {}"
HEADING: Final = ROW.format("id", "messages", "revision", "updated", "ends", "title")
USER: Final = "{:24}  {}"
NOBODY: Final = "-"
"""What stands for the user of an anonymous session, which has none."""

NO_SESSIONS: Final = "There are no sessions in {place}: a service makes them with its first turn. Is that the url of the service?"
NO_ID: Final = "An anonymous session is found by its id alone: name it."
WHICH: Final = "Name one session by --user and its id, or all that are idle by --idle alone."
WRONG_TIME: Final = "--idle takes a time such as 30d, 12h, 90m or 30s."
NOT_BOTH: Final = "With --all-users no id is named: all sessions are exported."
NONE: Final = "No session is known in this application."
NONE_OF_USER: Final = "No session of this user is known in this application."
UNKNOWN: Final = "There is no such session of this user in this application."
NOTHING: Final = "Nothing of this user is known in this application."
REFUSED: Final = (
    "{} cannot be opened, and nothing of it was changed: somebody else has written it, or its key is not in DCAF_KEYS_VERIFY. Keep "
    "the older keys in the ring until this is clear.\n"
)
TIME: Final = re.compile(r"([0-9]{1,6})([dhms])")
UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
SECRET_MODE: Final = 0o600


def run(options: argparse.Namespace) -> int:
    """Run the command that was parsed. Returns the exit code.

    Raises:
        ConfigurationError: An argument is wrong, or there are no sessions.
        EngineError: The database cannot be used.
    """
    return anyio.run(_act, options)


async def _act(options: argparse.Namespace) -> int:
    if getattr(options, "user", None) is not None:
        options.user = read_name(options.user, "user")
    engine = open_database(options.url, PATIENCE)
    try:
        is_encrypted = options.encrypted or options.act == REENCRYPT
        ring = Keyring.from_environment() if is_encrypted else None
        sessions = SessionService(engine, app=options.app, artifacts=options.artifacts, encrypt=ring)
        if options.act not in MAKES:
            _require_sessions(engine, find_sealed(SESSIONS) if is_encrypted else SESSIONS)
        return await ACTS[options.act](sessions, options)
    except UnknownSessionError:
        sys.stderr.write(f"{UNKNOWN}\n")
        return 1
    finally:
        await engine.aclose()


def _require_sessions(engine: Engine, table: Table) -> None:
    """Refuse a file that has no sessions yet: a first transaction would make it.

    Raises:
        ConfigurationError: It has none.
        EngineError: It cannot be read.
    """
    if isinstance(engine, SqliteEngine) and not has_table(engine, table):
        raise ConfigurationError(NO_SESSIONS.format(place=path_of(engine)))


async def _list(sessions: SessionService, options: argparse.Namespace) -> int:
    number, cursor, is_of_all = 0, options.cursor, options.user is None
    while True:
        page = await _read_page(sessions, options, cursor)
        if not options.json and number == 0 and page.items:
            print(USER.format("user", HEADING) if is_of_all else HEADING)
        for kept in page.items:
            print(json.dumps(_describe(kept, has_user=is_of_all)) if options.json else _draw_kept(kept, has_user=is_of_all))
        number, cursor = number + len(page.items), page.cursor
        if cursor is None or not options.all:
            break
    if not options.json and (number or cursor is None):
        print(f"{count(number, 'session')}." if number else NONE if is_of_all else NONE_OF_USER)
    if cursor is not None:
        sys.stderr.write(f"There are more: pass --all, or --cursor {cursor}\n")
    return 0


async def _read_page(sessions: SessionService, options: argparse.Namespace, cursor: str | None) -> ListPage[Kept]:
    if options.user is None:
        return await sessions.list_all(limit=options.limit, cursor=cursor, archived=options.archived)
    return await sessions.list(user=options.user, limit=options.limit, cursor=cursor, archived=options.archived)


def _describe(kept: Kept, *, has_user: bool) -> dict[str, Any]:
    user = {"user": kept.user} if has_user else {}
    return user | {
        "id": kept.id,
        "messages": kept.messages,
        "revision": kept.revision,
        "updated": _text_of(kept.updated_at),
        "ends": None if kept.ends_at is None else _text_of(kept.ends_at),
        "title": kept.title,
    }


def _draw_kept(kept: Kept, *, has_user: bool) -> str:
    row = _draw_row(_describe(kept, has_user=False))
    return USER.format(NOBODY if kept.user is None else plain(kept.user), row) if has_user else row


def _draw_row(described: dict[str, Any]) -> str:
    ends, title = described["ends"] or "never", plain(described["title"] or "")
    return ROW.format(*(described | {"id": plain(described["id"]), "ends": ends, "title": title}).values()).rstrip()


async def _show(sessions: SessionService, options: argparse.Namespace) -> int:
    session = await sessions.get(user=options.user, id=options.id)
    if session is None:
        raise UnknownSessionError(UNKNOWN)
    page = HistoryPage([], session.messages.total)
    if options.messages:
        page = await sessions.messages(user=options.user, id=options.id, limit=options.messages)
    if options.json:
        print(json.dumps(_describe_whole(session, page, has_values=options.values)))
    else:
        print("\n".join(_draw_whole(session, page, has_values=options.values)))
    return 0


def _describe_whole(session: KeptSession, page: HistoryPage, *, has_values: bool) -> dict[str, Any]:
    state = session.to_dict()
    return {
        "id": session.id,
        "revision": session.revision,
        "created": _text_of(session.created_at),
        "updated": _text_of(session.updated_at),
        "ends": None if session.expires_at is None else _text_of(session.expires_at),
        "title": session.title,
        "messages": page.total,
        "state": state if has_values else {name: _measure(value) for name, value in state.items()},
        "newest": [_describe_message(message, has_values=has_values) for message in page.items],
    }


def _describe_message(message: Message, *, has_values: bool) -> dict[str, Any]:
    if has_values:
        return message.to_dict(whole=True)
    at = None if message.at is None else _text_of(message.at)
    return {"number": message.number, "at": at, "role": message.role, "bytes": _measure(message.to_dict())}


def _draw_whole(session: KeptSession, page: HistoryPage, *, has_values: bool) -> Iterator[str]:
    found = _describe_whole(session, page, has_values=has_values)
    words = {name: found[name] for name in ("revision", "created", "updated", "ends", "title", "messages")}
    about = [(name, plain(str(value))) for name, value in words.items() if value is not None]
    yield from tree(f"session {plain(session.id)}", about)
    state = found["state"]
    yield from tree(count(len(state), "key"), [(plain(name), _draw(value, has_values=has_values)) for name, value in state.items()])
    messages = [(f"{message.number} {message.role}", _draw_message(message, has_values=has_values)) for message in page.items]
    yield from tree(f"{count(len(page.items), 'message')} of {page.total:,}", messages)


def _draw_message(message: Message, *, has_values: bool) -> str:
    said = message.to_dict() if has_values else _measure(message.to_dict())
    return f"{'' if message.at is None else _text_of(message.at)}  {_draw(said, has_values=has_values)}"


def _draw(value: Any, *, has_values: bool) -> str:
    return json.dumps(value) if has_values else count(value, "byte")


def _measure(value: Any) -> int:
    return len(write(value))


async def _export(sessions: SessionService, options: argparse.Namespace) -> int:
    if options.anonymous and options.id is None:
        raise ConfigurationError(NO_ID)
    if options.all_users and options.id is not None:
        raise ConfigurationError(NOT_BOTH)
    lines = sessions.export(user=options.user, id=options.id)
    if options.output is None:
        await _write_lines(lines, sys.stdout.buffer)
    else:
        await _write_file(lines, Path(options.output))
    return 0


async def _write_file(lines: AsyncIterator[bytes], path: Path) -> None:
    """Write a file that its owner alone reads; it is there when it is whole."""
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE), "wb") as file:  # noqa: ASYNC230, PTH123
            await _write_lines(lines, file)
        os.replace(beside, path)  # noqa: PTH105
    finally:
        beside.unlink(missing_ok=True)


async def _write_lines(lines: AsyncIterator[bytes], file: IO[bytes]) -> None:
    async for line in lines:
        file.write(line)
    file.flush()


async def _import(sessions: SessionService, options: argparse.Namespace) -> int:
    if options.file == "-":
        imported = await sessions.import_lines(_read_lines(sys.stdin.buffer), replace=options.replace)
    else:
        with open(options.file, "rb") as file:  # noqa: ASYNC230, PTH123
            imported = await sessions.import_lines(_read_lines(file), replace=options.replace)
    print(json.dumps(imported._asdict()) if options.json else _draw_imported(imported))
    return 0 if imported.sessions or imported.shared else 1


def _read_lines(file: IO[bytes]) -> Iterable[bytes]:
    """The lines of a file, none of them longer than is refused."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        yield line


def _draw_imported(imported: Imported) -> str:
    made = f"Made {count(imported.sessions, 'session')} with {count(imported.messages, 'message')}."
    shared = f" Of what sessions share, {imported.shared:,} were written, and {imported.stayed:,} stayed as they were."
    ended = f" {count(imported.ended, 'session')} had ended."
    return made + (shared if imported.shared or imported.stayed else "") + (ended if imported.ended else "")


async def _archive(sessions: SessionService, options: argparse.Namespace) -> int:
    if (options.idle is None) == (options.id is None):
        raise ConfigurationError(WHICH)
    if options.idle is None:
        number = await sessions.archive(user=options.user, id=options.id)
    else:
        number = await sessions.archive(idle=_read_time(options.idle))
    print(f"Archived {count(number, 'session')}.")
    return 0 if number else 1


def _read_time(text: str) -> timedelta:
    found = TIME.fullmatch(text)
    if found is None:
        raise ConfigurationError(WRONG_TIME)
    return timedelta(**{UNITS[found[2]]: int(found[1])})


async def _restore(sessions: SessionService, options: argparse.Namespace) -> int:
    is_restored = await sessions.restore(user=options.user, id=options.id)
    print("Restored: it can be written again." if is_restored else "It is not archived.")
    return 0 if is_restored else 1


async def _reencrypt(sessions: SessionService, _options: argparse.Namespace) -> int:
    found = await sessions.reencrypt()
    print(f"Encrypted {count(found.rows, 'row')} anew; {found.current:,} were under the active key.")
    if found.refused:
        sys.stderr.write(REFUSED.format(count(found.refused, "row")))
    return 1 if found.refused else 0


async def _erase(sessions: SessionService, options: argparse.Namespace) -> int:
    erased = await sessions.erase(user=options.user)
    if options.report:
        print(json.dumps({"app": sessions.app, "erased": _text_of(datetime.now(UTC)), **erased._asdict()}))
    elif any(erased):
        shared = f"{count(erased.facts, 'fact')}, and {count(erased.shared, 'key')} that they shared"
        files = f", {count(erased.artifacts, 'artifact')}" if erased.artifacts else ""
        print(f"Erased {count(erased.sessions, 'session')}{files}, {shared}.")
    else:
        print(NOTHING)
    return 0 if any(erased) else 1


def _text_of(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


ACTS: Final[dict[str, Act]] = {
    "list": _list,
    "show": _show,
    "export": _export,
    "import": _import,
    "archive": _archive,
    "restore": _restore,
    "erase": _erase,
    REENCRYPT: _reencrypt,
}
"""Name of a command -> what it does."""
