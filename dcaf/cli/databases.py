"""Find the database that a command is about, and see whether it has what the command looks for: no command makes one by mistake."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from dcaf.core.errors import ConfigurationError
from dcaf.engines import Engine, Table, open_engine
from dcaf.engines.memory import MemoryEngine
from dcaf.engines.sqlite.engine import SqliteEngine
from dcaf.engines.sqlite.errors import build_error, is_busy

PATIENCE: Final = timedelta(seconds=10)
"""How long a command waits for a database that is busy; a turn waits for one second."""

NO_MEMORY: Final = (
    "memory:// is the memory of the service's own process, where no command can look: name its database, as in "
    "--url sqlite:////var/lib/shop/dcaf.db."
)


def open_database(url: str | None, patience: timedelta = PATIENCE) -> Engine:
    """The engine of a url; of the environment where it is None.

    Raises:
        ConfigurationError: The url names no engine, or the memory of another process.
    """
    engine = open_engine(url, timeout=patience)
    if isinstance(engine, MemoryEngine):
        raise ConfigurationError(NO_MEMORY)
    return engine


def has_table(engine: SqliteEngine, table: Table) -> bool:
    """Whether there is a file, and a table in it. To ask makes neither.

    Raises:
        EngineError: The file cannot be read.
    """
    path = path_of(engine)
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table.name,)).fetchone()
    except sqlite3.Error as error:
        if is_busy(error):  # the engine waits for it, and says what is wrong
            return True
        raise build_error(error) from None
    return found is not None


def path_of(engine: SqliteEngine) -> Path:
    """The file."""
    return Path(engine.url.removeprefix("sqlite:///"))


def read_name(text: str, what: str) -> str:
    """What was typed; or what standard input has on one line, where that is ``-`` so that the running programs do not show it.

    Args:
        text: What was typed.
        what: What it is, for messages: ``"subject"``.

    Raises:
        ConfigurationError: There is none.
    """
    if text == "-":
        if sys.stdin.isatty():
            sys.stderr.write(f"Type the {what}, then press Return.\n")
        text = sys.stdin.buffer.readline().rstrip(b"\r\n").decode(errors="surrogateescape")
    if not text:
        raise ConfigurationError(f"There is no {what} on standard input: write it on one line, in UTF-8.")
    return text
