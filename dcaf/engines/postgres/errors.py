"""The errors of PostgreSQL in words: what has happened, what helps, and whether anything was written.

What a reader gets wrong: the server's own text of an error may have a key or a value in it. So it is never passed on; its code
(SQLSTATE) is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dcaf.core.errors import CommitUnknownError, ConfigurationError, DcafError, EngineError
from dcaf.core.importing import extra

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
    import psycopg
    from psycopg import errors as codes

CLOSED: Final = "The engine is closed."
UNFIT: Final = "A number would not fit in 64 bits. Nothing was written."
BUSY: Final = "Other transactions held these rows for too long. Nothing was written."
SLOW: Final = "The server has not answered in time, and was told to give up. Nothing was written."
EXHAUSTED: Final = (
    "All {} connections were in use for {:g} s. Nothing was written. pool_size= says how many there are, for each event loop."
)
SILENT: Final = "The server could not be reached within {:g} s. Nothing was written."
UNKNOWN: Final = "The connection to the server has ended before it answered, and nobody can tell whether it has written."
UNREACHABLE: Final = "the server cannot be reached, or refuses the connection: see whether it runs, and the url"
UNANSWERED: Final = "The engine has not answered in several times its time. Nothing was written."
UNANSWERED_WRITE: Final = "The engine has not answered in several times its time, and nobody can tell whether it has written."
UNREPLICATED: Final = (
    "It was written to the server, and no standby has confirmed it in time, as synchronous_standby_names requires: nobody can tell "
    "whether it stays."
)
LOST: Final = "The connection to the server has ended before it answered. Nothing was written."
SETTING_UP: Final = "The tables were not ready within {:g} s, and are being made. Nothing was written."

READ_ONLY: Final = (
    "The server takes no writes, it is read-only: a standby, or default_transaction_read_only is on. Name the primary, or all "
    "servers: the one that takes writes is found."
)
"""What is said of a server that libpq calls read-only, or that calls itself so."""

WRONG_ISOLATION: Final = "DC001"
"""What a function raises where a transaction is not READ COMMITTED."""

BOUNCED: Final = (
    "its prepared statements get lost on the way: behind a PgBouncer older than 1.21, or one with max_prepared_statements = 0, "
    "say prepared=False"
)

REASONS: Final[Mapping[str, str]] = {
    WRONG_ISOLATION: "its transactions are not READ COMMITTED: remove default_transaction_isolation from the server, the database "
    "and the role",
    "25006": "it is read-only: a standby, or default_transaction_read_only is on. Name the primary",
    "26000": BOUNCED,
    "42P05": BOUNCED,
    "28000": "it refuses this user, or this address: see pg_hba.conf",
    "28P01": "it refuses the password",
    "3D000": "there is no such database",
    "3F000": "the schema is not there",
    "42501": "the role of the url may not do this: GRANT it CREATE and USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE "
    "on its tables; or let the role that owns them make them first",
    "42P01": "a table is not there",
    "42703": "a column is not there",
    "42883": "a function is not there",
    "53100": "its disk is full",
    "53200": "it has no memory left",
    "53300": "it has no connection left: max_connections, and pool_size= of each process",
    "54000": "a value is too large",
    "57P01": "it is shutting down, or an operator has ended the connection",
    "57P02": "it has crashed, and is starting again",
    "57P03": "it is starting, or shutting down",
    "58030": "its disk answers with an error",
    "XX001": "its data are damaged: restore them from a backup",
    "XX002": "an index is damaged: REINDEX it",
}

REFUSALS: Final[Mapping[str, str]] = {
    "Connection refused": "the server cannot be reached: nobody listens at that host and port",
    "No such file or directory": "the server cannot be reached: there is no such socket, so it does not run, or keeps it elsewhere",
    "could not translate host name": "the server cannot be reached: the name of its host is unknown",
    "failed to resolve host": "the server cannot be reached: the name of its host is unknown",
    "too many ": "PostgreSQL has no connection left: see max_connections, limits of role and database, and pool_size=",
    "password": "PostgreSQL refuses the password of the url, or wants one",
    "no pg_hba.conf entry": "PostgreSQL refuses this user from this address: see pg_hba.conf",
    'role "': "PostgreSQL has no such user, or does not let it log in",
    'database "': "PostgreSQL has no such database, or does not let this user in",
    "remaining connection slots": "PostgreSQL has no connection left: see max_connections, and pool_size=",
    "the database system is": "PostgreSQL is starting, or shutting down",
    "certificate": "the server's certificate is refused: see sslmode and sslrootcert of the url",
    "SSL": "PostgreSQL and the url disagree on TLS: see sslmode",
}
"""A part of what libpq says -> what it means."""

MISSING: Final = frozenset(["42P01", "42703", "42883", "3F000"])
"""Something was dropped, or restored from an older backup, while this process ran."""


def build_error(error: psycopg.Error, *, may_have_written: bool, is_lost: bool) -> EngineError:
    """An error for one caller. It has no text of a statement, no key and no value.

    Args:
        error: What psycopg raised.
        may_have_written: Whether a write was on its way that commits by itself.
        is_lost: Whether the connection has ended with it.
    """
    if is_lost:
        return CommitUnknownError(UNKNOWN) if may_have_written else EngineError(LOST)
    if isinstance(error, codes.NumericValueOutOfRange):
        return EngineError(UNFIT)
    if isinstance(error, codes.LockNotAvailable):
        return EngineError(BUSY)
    if isinstance(error, codes.QueryCanceled):
        return EngineError(SLOW)
    return EngineError(f"Nothing was written: {describe(error)}.")


def build_refusal(error: psycopg.Error) -> DcafError:
    """Why there is no connection. libpq says it in text alone, in the server's language; what is not known is told as unknown."""
    text = str(error)
    if "read-only" in text:
        return ConfigurationError(READ_ONLY)
    found = next((reason for part, reason in REFUSALS.items() if part in text), UNREACHABLE)
    return EngineError(f"Nothing was written: {found}.")


def describe(error: psycopg.Error) -> str:
    """What has happened, in words, and the code by which the server calls it."""
    state = error.sqlstate
    if state is None:
        return f"psycopg has failed ({type(error).__name__})"
    reason = REASONS.get(state, "it answers with an error")
    return (
        f"PostgreSQL says that {reason} ({state})" if reason[:3] != "it " else f"{reason.replace('it', 'PostgreSQL', 1)} ({state})"
    )
