"""What a Redis engine is told, and whether the server it finds keeps what was promised: settings are read, and not assumed.

>>> settings = Settings("redis+cluster://app:secret@one,two:7001/?vouch=appendfsync", timeout_s=1.0)
>>> settings.url, settings.seeds, sorted(settings.vouched)
('redis+cluster://one,two:7001/', [('one', 6379), ('two', 7001)], ['appendfsync'])
>>> settings.judge({"redis_version": "7.2.4", "appendonly": "yes", "maxmemory": "0", "cluster_enabled": "1"})
>>> settings.judge({"redis_version": "7.2.4", "appendonly": "no", "maxmemory": "0", "cluster_enabled": "1"})
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: Redis has appendonly no, and so loses what it has acknowledged: ...

What a reader gets wrong: a managed Redis often forbids CONFIG, which alone knows ``appendfsync``. Then the operator vouches for it
by name, which is better than a check that is skipped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.base import Durability
from dcaf.engines.redis.errors import REASONS

with extra("dcaf.engines.redis.engine", "dcaf[redis]"):
    from redis.asyncio.connection import Connection as AsyncConnection
    from redis.asyncio.connection import parse_url as parse_async_url
    from redis.connection import Connection, parse_url
    from redis.exceptions import RedisError

SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
PORT: Final = 6379
OLDEST: Final = (6, 2)

NAMES: Final = ("appendonly", "appendfsync", "maxmemory-policy")
"""What an operator may vouch for."""

LOOKS: Final = ((b"INFO",), (b"CONFIG", b"GET", b"*append*"), (b"CONFIG", b"GET", b"maxmemory*"))
"""What a new connection asks first. The second and the third may be forbidden; Redis 6.2 takes one pattern at a time."""


class Kept(NamedTuple):
    """A setting that decides what survives.

    Attributes:
        name: Its name in Redis.
        vouch: The name by which an operator vouches for it.
        good: The values that keep what was acknowledged.
        relaxed: The values that are enough where a power cut may take the last second.
        loss: What happens with another value.
    """

    name: str
    vouch: str
    good: Sequence[str]
    relaxed: Sequence[str]
    loss: str


KEPT: Final = (
    Kept("appendonly", "appendonly", ["yes"], ["yes"], "loses what it has acknowledged"),
    Kept("appendfsync", "appendfsync", ["always"], ["always", "everysec"], "loses what it has acknowledged when the power goes"),
    Kept(
        "no-appendfsync-on-rewrite",
        "appendfsync",
        ["no"],
        ["no"],
        "loses what it has acknowledged when the power goes while it rewrites its log",
    ),
    Kept(
        "maxmemory-policy",
        "maxmemory-policy",
        ["noeviction"],
        ["noeviction"],
        "drops rows when its memory is full: a log-out or a use that was dropped never happened",
    ),
)

DATABASE: Final = re.compile(r"/?[0-9]*/?")
"""The path of a url, but for that of a socket."""

FAILOVER: Final = "loses what the new server has not got yet, though it was acknowledged"


class Settings:
    """The arguments of an engine, as its parts need them.

    Args:
        url: The url. Its parameter ``vouch`` names settings, too; the client library gets the others.
        timeout_s: Seconds until a call must have ended.
        durability: What must survive of an acknowledged write.
        vouched: Settings for which the operator vouches.
        prefix: Stands before each key.
        has_sentinel: Whether Sentinels are asked for the server.

    Attributes:
        has_failover: Whether another server may take the place of one that is lost.
        url: Where the rows are, without a user, a password and parameters.
        is_cluster: Whether the rows are spread over several servers.
        seeds: Host and port of each server that the url names.
        service: What the url names where Sentinels are asked for the server: the name of its service.

    Raises:
        ConfigurationError: The url is none of Redis, or a name is not among the settings.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        durability: Durability = "acknowledged",
        vouched: Collection[str] = (),
        prefix: str = "dcaf",
        has_sentinel: bool = False,
    ) -> None:
        scheme, hosts, rest, named = _take_apart(url)
        self.url: str = f"{scheme}://{','.join(hosts)}{rest.partition('?')[0]}"
        self.is_cluster: bool = scheme.endswith("+cluster")
        self.has_failover: bool = self.is_cluster or has_sentinel
        self.timeout_s: float = timeout_s
        self.durability: Durability = durability
        self.prefix: str = prefix
        self.vouched: frozenset[str] = frozenset(_check_names([*vouched, *named]))
        self.seeds: list[tuple[str, int]] = [] if scheme == "unix" else [_split_host(host) for host in hosts]
        self.service: str = self.seeds[0][0] if self.seeds else ""
        self._plain = _build_plain(url, scheme, hosts, rest)
        _try_arguments(self.build_arguments(is_async=False), Connection)
        _try_arguments(self.build_arguments(is_async=True), AsyncConnection)

    def build_arguments(self, *, is_async: bool) -> dict[str, Any]:
        """The arguments of a connection of the client library, with the connection's class among them.

        Raises:
            ConfigurationError: The library does not take the url.
        """
        parse: Any = parse_async_url if is_async else parse_url
        try:
            arguments: dict[str, Any] = dict(parse(self._plain))
        except ValueError as error:
            text = str(error) if str(error).startswith("Invalid value for") else "the client library does not take it"
            raise ConfigurationError(f"The url of Redis cannot be used: {text}.") from None
        return arguments

    def judge(self, found: Mapping[str, str]) -> None:
        """Refuse a server that does not keep what was promised.

        Args:
            found: Its settings, of ``read_settings``; what cannot be read is missing.

        Raises:
            ConfigurationError: It is too old, is not what the url says, or a setting is not as it must be.
            EngineError: It is a replica. A failover may be under way, and end that.
        """
        version = tuple(map(int, re.findall(r"\d+", found.get("redis_version", ""))[:2]))
        if version and version < OLDEST:
            raise ConfigurationError(f"Redis {found['redis_version']} is too old: the engine needs 6.2 or newer, or Valkey.")
        if "cluster_enabled" in found and (found["cluster_enabled"] == "1") is not self.is_cluster:
            raise ConfigurationError(
                "The url has redis+cluster://, and the server is not part of a cluster: write redis://."
                if self.is_cluster
                else "The server is part of a cluster: write redis+cluster:// (or rediss+cluster://) instead of redis://."
            )
        if not self.is_cluster and found.get("role") == "slave":
            raise EngineError(f"Nothing was written: {REASONS['READONLY']}.")
        for kept in KEPT:
            if kept.vouch not in self.vouched:
                self._judge_setting(kept, found)

    def _judge_setting(self, kept: Kept, found: Mapping[str, str]) -> None:
        if kept.name == "maxmemory-policy" and found.get("maxmemory") == "0":
            return
        good = kept.good if self.durability == "acknowledged" else kept.relaxed
        value = found.get(kept.name)
        if value in good:
            return
        vouch = f'vouched=("{kept.vouch}",)'
        if value is None:
            raise ConfigurationError(
                f"Redis does not let its setting {kept.name} be read. See to it that it is {' or '.join(good)}, and vouch for it: "
                f"{vouch}, or ?vouch={kept.vouch} in the url. Or let the user of the url run INFO and CONFIG GET."
            )
        ways = [
            f"set {kept.name} {good[0]}",
            f"vouch for it where the server keeps rows in another way ({vouch}, ?vouch={kept.vouch})",
        ]
        if value in kept.relaxed:
            ways.insert(1, 'say durability="relaxed" where that may be lost')
        raise ConfigurationError(f"Redis has {kept.name} {value}, and so {kept.loss}: {', or '.join(ways)}.")


def read_settings(replies: Sequence[object]) -> dict[str, str]:
    """The settings that a server says, of its replies to ``LOOKS``; one that it has refused is an error among them."""
    information, *configurations = replies
    found: dict[str, str] = {}
    if isinstance(information, bytes):
        lines = information.decode(errors="replace").splitlines()
        found = dict(line.split(":", 1) for line in lines if ":" in line and line[0] != "#")
        found["appendonly"] = {"1": "yes", "0": "no"}.get(found.get("aof_enabled", ""), "")
        found["maxmemory-policy"] = found.get("maxmemory_policy", "")
    for reply in configurations:
        if isinstance(reply, list | tuple):
            texts = [item.decode(errors="replace") for item in reply]
            found.update(zip(texts[::2], texts[1::2], strict=True))
    return {name: value for name, value in found.items() if value}


def describe_settings(found: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """What an operator wants to know of a server; no password."""
    names = ("redis_version", "valkey_version", "role", "connected_slaves", "maxmemory", *(kept.name for kept in KEPT))
    known = {name: found[name] for name in names if name in found}
    if settings.has_failover or found.get("connected_slaves", "0") != "0":
        known["failover"] = FAILOVER
    return {"url": settings.url, **known, "vouched": ", ".join(sorted(settings.vouched)) or "nothing"}


def _try_arguments(arguments: dict[str, Any], kind: Any) -> None:
    """Make a connection that is never connected, to see whether it takes what the url says."""
    others = {name: value for name, value in arguments.items() if name != "connection_class"}
    try:
        arguments.get("connection_class", kind)(**others)
    except (TypeError, ValueError, RedisError):  # their texts may have a part of a password
        raise ConfigurationError(
            "The url of Redis has something behind its ? that a connection does not take: that is vouch, and the arguments of "
            "redis.Connection (redis://) or redis.SSLConnection (rediss://), such as ssl_ca_certs. How long a call takes, and how "
            "many connections there are, is said with timeout= and most_connections= of RedisEngine."
        ) from None


def _take_apart(url: str) -> tuple[str, list[str], str, list[str]]:
    """The scheme, the hosts, the rest of a url without ``vouch``, and the names in that."""
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError("The url of Redis cannot be read: write a password with percent-encoding.") from None
    if not separator or scheme not in SCHEMES:
        raise ConfigurationError(f"A url of Redis begins with one of {', '.join(f'{name}://' for name in SCHEMES)}.")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if len(hosts) > 1 and not scheme.endswith("+cluster"):
        raise ConfigurationError("Only the url of a cluster names several hosts: redis+cluster://one:6379,two:6379.")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    is_path = scheme == "unix" or DATABASE.fullmatch(parts.path)
    if not is_path or any("@" in text for text in (parts.path, *(name for name, _ in pairs))):
        raise ConfigurationError(
            "The url of Redis has more behind its host than the number of a database: redis://host:6379/0. Write a password, and "
            "the path of a socket, with percent-encoding: %2F for /, %40 for @."
        )
    if parts.fragment:
        raise ConfigurationError("The url of Redis has a #: write it as %23 where it belongs to a password.")
    named = [name for key, value in pairs if key == "vouch" for name in value.split(",")]
    rest = urlunsplit(("", "", parts.path, urlencode([pair for pair in pairs if pair[0] != "vouch"], quote_via=quote), ""))
    return scheme, hosts, rest, named


def _build_plain(url: str, scheme: str, hosts: Sequence[str], rest: str) -> str:
    """The url as the client library takes it: without what is ours."""
    who, separator, _ = urlsplit(url).netloc.rpartition("@")
    return f"{scheme.removesuffix('+cluster')}://{who}{separator}{hosts[0]}{rest}"


def _split_host(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    try:
        port = parts.port or PORT
    except ValueError:
        raise ConfigurationError("The url of Redis has a port that is no number: write redis://host:6379.") from None
    return parts.hostname or "localhost", port


def _check_names(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in NAMES:
            raise ConfigurationError(f"vouched= takes the names {', '.join(NAMES)}.")
    return names
