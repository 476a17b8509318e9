"""Open the engine that a url names, or that the environment does.

>>> open_engine("memory://").url
'memory://'
>>> open_engine("postgresql+asyncpg://app:secret@db/shop")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: Write postgresql:// and what comes after it, and no driver: dcaf brings its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from dcaf.core.arguments import has_methods, kind_of, require
from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import load_module
from dcaf.core.parts import ABSENT
from dcaf.engines.base import Durability, Engine
from dcaf.engines.memory import URL as MEMORY
from dcaf.engines.memory import MemoryEngine
from dcaf.engines.sqlite.engine import TIMEOUT, SqliteEngine

URL_VARIABLE: Final = "DB_CONNECTION_STRING"
KIND_VARIABLE: Final = "SESSION_STORAGE"
"""The environment variables: a url, or else ``memory`` or ``sqlite``; ``redis`` and ``postgres`` need a url, too."""

DEFAULT_FILE: Final = "sqlite:///dcaf.db"
"""Where ``SESSION_STORAGE=sqlite`` keeps rows: in the folder in which the program was started."""

REDIS: Final = frozenset({"redis", "rediss", "unix", "redis+cluster", "rediss+cluster"})
POSTGRES: Final = frozenset({"postgresql", "postgres"})
"""The schemes that the engines of servers take."""

INSTEAD: Final = {
    "valkey": "Valkey speaks as Redis does: write redis:// instead of valkey://.",
    "valkeys": "Valkey speaks as Redis does: write rediss:// instead of valkeys://.",
    **{scheme + "+": "Write postgresql:// and what comes after it, and no driver: dcaf brings its own." for scheme in POSTGRES},
}
"""Schemes that others use, the plus sign of a driver included, and what to write instead."""

WITH_URL: Final = {
    "redis": "redis://host:6379/0",
    "valkey": "redis://host:6379/0",
    "postgres": "postgresql://user:password@host/database",
    "postgresql": "postgresql://user:password@host/database",
}
"""What ``SESSION_STORAGE`` may name where ``DB_CONNECTION_STRING`` says where it is."""

ADVICE: Final = (
    "Write sqlite:////var/lib/shop/dcaf.db (four slashes before an absolute path), sqlite:///dcaf.db, redis://host:6379/0, "
    "postgresql://host/database, or memory:// for tests."
)


def require_engine(what: str, engine: Engine | str) -> Engine:
    """An engine, or the one of a url.

    Args:
        what: Who takes it, for the message.
        engine: The engine or the url.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(engine, str):
        return open_engine(engine)
    is_engine = has_methods(engine, "transact", "scan", "purge", "declare", "check", "aclose")
    if not is_engine or not has_methods(getattr(engine, "sync", ABSENT), "transact"):
        raise ConfigurationError(f'{what} takes a url or an engine, for instance "sqlite:///dcaf.db", not {kind_of(engine)}.')
    return engine


def open_engine(
    url: str | None = None,
    *,
    durability: Durability = "acknowledged",
    timeout: timedelta = TIMEOUT,
    clock: Callable[[], float] = time.time,
) -> Engine:
    """Open the engine of a url.

    Args:
        url: ``sqlite:///a/relative/path``, ``sqlite:////an/absolute/path``, ``redis://host:6379/0``,
            ``postgresql://user:password@host/database`` and what else RedisEngine and PostgresEngine take, or ``memory://``; None
            for what the environment says: the url in ``DB_CONNECTION_STRING``, else ``SESSION_STORAGE=sqlite`` (``dcaf.db`` in
            the current folder) or ``memory``.
        durability: What must survive of an acknowledged write: ``"acknowledged"``, all, a power cut, too; ``"relaxed"``, all but
            the last seconds before one. Memory keeps nothing, and says so: whoever names it wants that.
        timeout: Until a call must have begun; on a server, until it must have ended.
        clock: Returns seconds since the epoch. An engine in this process reads it; a server has its own.

    Raises:
        ConfigurationError: No url is given, or there is no such engine, or it cannot be used. A password is never in the message.
    """
    found = _read_environment() if url is None else require("open_engine()", url, str, "a url, such as sqlite:///dcaf.db")
    if found == MEMORY:
        return MemoryEngine(clock=clock)
    scheme, separator, rest = found.partition("://")
    scheme = scheme.lower() if separator else ""
    if scheme == "sqlite":
        return SqliteEngine(_find_path(rest), durability=durability, timeout=timeout, clock=clock)
    if scheme in REDIS | POSTGRES:
        return _open_server(found, scheme, durability, timeout)
    instead = INSTEAD.get(scheme) or INSTEAD.get(scheme.partition("+")[0] + "+")
    if instead is not None:
        raise ConfigurationError(instead)
    if scheme == "memory":
        raise ConfigurationError("memory:// takes nothing after it.")
    raise ConfigurationError(f"{mask(found)} names no engine. {ADVICE}")


def _open_server(url: str, scheme: str, durability: Durability, timeout: timedelta) -> Engine:
    """Open the engine of a server, whose client library is an extra."""
    name, cls = ("redis", "RedisEngine") if scheme in REDIS else ("postgres", "PostgresEngine")
    module = load_module(f"dcaf.engines.{name}.engine", what=f"{scheme}://", extra=name)
    engine: Engine = getattr(module, cls)(url, durability=durability, timeout=timeout)
    return engine


def mask(url: str) -> str:
    """A url for a message: its scheme, its host and its path where nothing in it can be a password, else its scheme alone."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "The url, which has no scheme,"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme}://..."
    is_plain = "@" not in rest and not parts.query and not parts.fragment
    return url if is_plain else f"{scheme}://..."


def _read_environment() -> str:
    url = os.environ.get(URL_VARIABLE, "").strip()
    kind = os.environ.get(KIND_VARIABLE, "").strip().lower()
    if url:
        return url
    if kind in {"memory", "sqlite"}:
        return MEMORY if kind == "memory" else DEFAULT_FILE
    if kind in WITH_URL:
        raise ConfigurationError(f"With {KIND_VARIABLE}={kind}, {URL_VARIABLE} says where: {WITH_URL[kind]}.")
    if kind:
        raise ConfigurationError(f"{KIND_VARIABLE} takes sqlite, memory, redis or postgres.")
    raise ConfigurationError(f"Name an engine: a url, or {URL_VARIABLE}, or {KIND_VARIABLE}=sqlite. {ADVICE}")


def _find_path(rest: str) -> str:
    path = rest.removeprefix("/")
    if not rest.startswith("/"):
        raise ConfigurationError(
            f"A sqlite url has three slashes before a relative path, and four before an absolute one. {ADVICE}"
        )
    if not path or path == ":memory:":
        raise ConfigurationError(
            f"The sqlite url names no file: SQLite's own memory has one connection, and no second thread. {ADVICE}"
        )
    if "?" in path or "#" in path:
        raise ConfigurationError("A sqlite url has no options: durability= and timeout= are arguments.")
    return path
