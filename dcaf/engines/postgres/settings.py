"""What a PostgreSQL engine is told, and what it requires of its server before it trusts it.

>>> settings = read_settings("postgresql://app:secret@db.example/shop?schema=state&vouch=fsync")
>>> settings.url, settings.schema, settings.vouched
('postgresql://app@db.example/shop', 'state', frozenset({'fsync'}))
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

from dcaf.core.arguments import require, require_bool, texts_of
from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import extra
from dcaf.engines.base import Durability, require_promise
from dcaf.engines.postgres.errors import READ_ONLY

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

SCHEMES: Final = ("postgresql", "postgres")

TIMEOUT: Final = timedelta(seconds=1)
"""How long a call takes at most. A turn that cannot be checked in this time is answered with a 503."""

POOL_SIZE: Final = 10
SCHEMA: Final = "dcaf"

MOST_CONNECTIONS: Final = 1_000

OLDEST: Final = 130_000
"""PostgreSQL 13, as ``server_version_num`` says it."""

NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")

VOUCHABLE: Final = frozenset(["fsync", "full_page_writes", "synchronous_commit"])
"""What an operator may vouch for."""

OPTIONS: Final = frozenset(["schema", "pool_size", "prepared", "vouch"])
"""What a url may say to dcaf, and libpq does not know."""

EXAMPLE: Final = "postgresql://app@db.example/shop"

UNESCAPED: Final = (
    "The url has an @ after its host, or a port that is no number: in a user and a password, write %2F for a slash, %40 for an @, "
    "%3A for a colon and %3F for a question mark."
)
"""What is refused: libpq takes a part of such a password for the host, the port or the database, which are shown."""

DEFAULTS: Final[dict[str, str | int]] = {
    "fallback_application_name": "dcaf",
    "connect_timeout": 2,
    "target_session_attrs": "read-write",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""What libpq is told unless the url says otherwise."""

ASK: Final = """SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync'),
current_setting('full_page_writes'), (SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name = 'synchronous_commit'),
current_setting('default_transaction_isolation'),
CASE WHEN pg_is_in_recovery() THEN 'on' ELSE current_setting('transaction_read_only') END"""
"""What tells a server's settings, in one row. The last one says whether nothing can be written. Of synchronous_commit it tells what
server, database and role say, and not what another client has told the session behind PgBouncer: transactions go by that, too."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is told.

    Attributes:
        url: Where the rows are, without a password.
        connect: What libpq takes.
        schema: The schema of tables and functions.
        durability: What must survive of an acknowledged write.
        timeout_s: Seconds that a call takes at most.
        pool_size: How many connections there are at most, for each event loop.
        is_prepared: Whether statements are prepared.
        vouched: Settings for which the operator vouches.
    """

    url: str
    connect: Mapping[str, Any] = field(repr=False)
    schema: str
    durability: Durability
    timeout_s: float
    pool_size: int
    is_prepared: bool
    vouched: frozenset[str]


def read_settings(
    url: str,
    *,
    schema: str = SCHEMA,
    durability: Durability = "acknowledged",
    timeout: timedelta = TIMEOUT,
    pool_size: int = POOL_SIZE,
    prepared: bool = True,
    vouched: Collection[str] = (),
) -> Settings:
    """The settings of an engine: its arguments, and what the url says in their place.

    Raises:
        ConfigurationError: One is wrong. A password is never in the message.
    """
    plain, options = _split_options(require("url=", url, str, f"a url, such as {EXAMPLE}"))
    connect = _parse(plain)
    schema = options.get("schema", schema)
    if not isinstance(schema, str) or not NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigurationError("schema= takes a name of small letters, digits and underscores, at most 40 of them.")
    timeout_s = require_promise(durability, timeout)
    return Settings(
        url=_mask(connect),
        connect={**DEFAULTS, **connect},
        schema=schema,
        durability=durability,
        timeout_s=timeout_s,
        pool_size=_read_size(options.get("pool_size", pool_size)),
        is_prepared=_read_prepared(options.get("prepared", prepared)),
        vouched=_read_vouched(options["vouch"].split(",") if "vouch" in options else vouched),
    )


def check_server(settings: Settings, found: tuple[Any, ...]) -> Mapping[str, str]:
    """Refuse a server that would lose an acknowledged write, or let one be lost.

    Args:
        settings: The engine's.
        found: The server's, as ``ASK`` has them.

    Returns:
        The server's settings, for an operator.

    Raises:
        ConfigurationError: It is too old, or a setting is refused; the message says what to do.
    """
    number, version, fsync, full_page_writes, synchronous_commit, isolation, is_read_only = found
    if number < OLDEST:
        raise ConfigurationError(f"The server is PostgreSQL {version}, and dcaf needs 13 or newer.")
    for name, value, loses in (
        ("fsync", fsync, "loses acknowledged writes, or the whole database, at a power cut"),
        ("full_page_writes", full_page_writes, "may lose the whole database at a power cut"),
    ):
        _refuse(settings, name, value, loses, is_relaxed=False)
    _refuse(settings, "synchronous_commit", synchronous_commit, "loses acknowledged writes at a power cut", is_relaxed=True)
    if isolation != "read committed":
        raise ConfigurationError(
            f"default_transaction_isolation is {isolation}, and dcaf needs READ COMMITTED, in which a statement sees what was "
            "committed while it waited: ALTER ROLE ... SET default_transaction_isolation = 'read committed'."
        )
    if is_read_only == "on":
        raise ConfigurationError(READ_ONLY)
    return {
        "postgresql": version,
        "fsync": fsync,
        "full_page_writes": full_page_writes,
        "synchronous_commit": synchronous_commit,
        "vouched": ", ".join(sorted(settings.vouched)) or "nothing",
    }


def _refuse(settings: Settings, name: str, value: str, loses: str, *, is_relaxed: bool) -> None:
    if value != "off" or name in settings.vouched or (is_relaxed and settings.durability == "relaxed"):
        return
    other = 'use durability="relaxed" where that may be lost' if is_relaxed else "use another server"
    raise ConfigurationError(
        f"PostgreSQL's {name} is off, and so it {loses}. Set {name} = on in postgresql.conf, or for the role: ALTER ROLE ... SET; "
        f'{other}; or vouch for it, where something else keeps what is written: vouched=["{name}"], or ?vouch={name} in the url.'
        if is_relaxed
        else f"PostgreSQL's {name} is off, and so it {loses}. Set {name} = on in postgresql.conf; {other}; or vouch for it, where "
        f'something else keeps what is written: vouched=["{name}"], or ?vouch={name} in the url.'
    )


def _split_options(url: str) -> tuple[str, dict[str, str]]:
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in SCHEMES or not separator:
        raise ConfigurationError(f"url= takes a url of PostgreSQL, such as {EXAMPLE}.")
    # As libpq does it: user and password end at the first @ if no / comes before.
    login, at, rest = rest.partition("@") if "@" in rest.partition("/")[0] else ("", "", rest)
    place, mark, query = rest.partition("?")
    if "@" in place:
        raise ConfigurationError(UNESCAPED)
    pairs = [(pair.partition("=")[0], pair) for pair in query.split("&") if pair]
    kept = "&".join(pair for name, pair in pairs if name not in OPTIONS)
    return f"postgresql://{login}{at}{place}{mark}{kept}", {
        name: unquote(pair.partition("=")[2]) for name, pair in pairs if name in OPTIONS
    }


def _parse(url: str) -> dict[str, Any]:
    try:
        found = dict(conninfo_to_dict(url))
    except psycopg.Error:  # its text may have the password
        raise ConfigurationError(
            f"libpq does not understand the url: write it as {EXAMPLE}, with %-escapes for what is no letter, and options that "
            "libpq or dcaf knows."
        ) from None
    if not re.fullmatch("[0-9,]*", str(found.get("port") or "")):
        raise ConfigurationError(UNESCAPED)
    return found


def _mask(connect: Mapping[str, Any]) -> str:
    """The url without a password, and without options but the folder of a socket."""
    host, port, user = (str(connect.get(name) or "").strip(",") for name in ("host", "port", "user"))
    is_socket = host.startswith("/") or "," in host
    place = "" if is_socket else f"[{host}]" if ":" in host else quote(host)
    netloc = f"{quote(user)}@" * bool(user) + place + f":{port}" * bool(port and not is_socket)
    query = urlencode({"host": host} | ({"port": port} if port else {}), safe="/,") if is_socket else ""
    return f"postgresql://{netloc}/{quote(str(connect.get('dbname') or ''))}" + f"?{query}" * is_socket


def _read_size(value: object) -> int:
    size = int(value) if isinstance(value, str) and value.isdecimal() else value
    if type(size) is not int or not 1 <= size <= MOST_CONNECTIONS:
        raise ConfigurationError("pool_size= takes a number of connections, from 1 to 1,000.")
    return size


def _read_prepared(value: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if not isinstance(value, str):
        return require_bool("prepared=", value)
    if value.lower() not in words:
        raise ConfigurationError("prepared= of the url takes true or false.")
    return words[value.lower()]


def _read_vouched(value: object) -> frozenset[str]:
    names = texts_of(value)
    if names is None or not set(names) <= VOUCHABLE:
        raise ConfigurationError(f"vouched= takes a list of names of settings: {', '.join(sorted(VOUCHABLE))}.")
    return frozenset(names)
