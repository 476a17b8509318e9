"""The errors of SQLite in words: what has happened, what helps, and whether anything was written.

What a reader gets wrong: SQLite's own text of an error may have a part of a statement in it. So it is never passed on; SQLite's
name of the error is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from typing import Final

from dcaf.core.errors import EngineError

NEWER: Final = (
    "The database was written by a newer release of dcaf, or by another program: install that release, or name another file."
)
GONE: Final = (
    "The database file was removed or replaced while it was in use. Nothing was written; the next call opens what is there now."
)
NO_WAL: Final = "SQLite cannot keep a write-ahead log beside this file: name a file on a disk of this machine."

REASONS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: "another program holds the database",
    sqlite3.SQLITE_LOCKED: "another program holds the database",
    sqlite3.SQLITE_READONLY: "the database cannot be written: see who owns file and folder, or whether the disk is read-only",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk answers with an error",
    sqlite3.SQLITE_CORRUPT: "the database is damaged: restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database: name another file",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: see whether its folder is there, and who may write it",
    sqlite3.SQLITE_TOOBIG: "a value is too large",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}

UNTOLD: Final = frozenset(
    [
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR,
    ]
)
"""Errors of a commit after which the log may have all of it."""


def build_error(error: Exception) -> EngineError:
    """An error for one caller. It has no text of a statement, no key and no value."""
    if isinstance(error, EngineError):
        return type(error)(*error.args)
    return EngineError(f"Nothing was written: {describe(error)}.")


def describe(error: Exception) -> str:
    """What has happened, in words, and what SQLite or the system call it."""
    if isinstance(error, OSError):
        return f"the database, or the lock beside it, cannot be opened: see who owns them ({os.strerror(error.errno or 0)})"
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{REASONS.get(find_code(error) & 0xFF, 'SQLite answers with an error')} ({name})"


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another program holds the database."""
    return find_code(error) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def find_code(error: Exception) -> int:
    """SQLite's extended code of an error; that of an error without one is SQLITE_ERROR."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code
