r"""Commands as bytes, the script that Redis has forgotten, and the first look at a server: what event loops and threads share.

>>> pack([(b"PING",), (b"GET", b"a")])
b'*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from dcaf.core.errors import DcafError
from dcaf.core.importing import extra
from dcaf.engines.redis.calls import HERE, Node, Request
from dcaf.engines.redis.errors import build_error, find_code
from dcaf.engines.redis.lua import Script
from dcaf.engines.redis.settings import Settings, read_settings

with extra("dcaf.engines.redis.engine", "dcaf[redis]"):
    import hiredis
    from redis import exceptions as library
    from redis.asyncio.connection import Connection as AsyncConnection
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.asyncio.sentinel import Sentinel as AsyncSentinel
    from redis.backoff import NoBackoff
    from redis.connection import Connection
    from redis.retry import Retry
    from redis.sentinel import Sentinel

REPLIES: Final[tuple[type[Exception], ...]] = (library.ResponseError, library.BusyLoadingError, library.AuthenticationError)
"""Errors that are replies: the connection is as good as before."""

LOST: Final[tuple[type[Exception], ...]] = (library.RedisError, OSError, UnicodeError)
"""What a connection raises that cannot be made, also as its host is no name, or does not hold."""

UNREACHED: Final[tuple[type[Exception], ...]] = (*LOST, DcafError)
"""What ends the attempt to make one: a server may not keep what was promised."""

REFUSALS: Final = ("ERR", "NOPERM")
"""The codes with which a server says that it has not a command, or not for this user."""

RESP: Final = 2


def pack(commands: Iterable[tuple[bytes, ...]]) -> bytes:
    """Commands as Redis takes them, one after the other."""
    return b"".join(map(_PACK, commands))


_PACK: Final[Any] = hiredis.pack_command
"""Redis-py's own way takes ten times as long in an event loop, and the type of this one allows only one word."""


def list_commands(requests: Iterable[Request], *, with_text: bool = False) -> list[tuple[bytes, ...]]:
    """The commands of requests; one that asks for rows that are just moved has another before it.

    Args:
        requests: The requests.
        with_text: Whether the first of each script has its text, with which the server has it for the others, too.
    """
    commands: list[tuple[bytes, ...]] = []
    told: set[Script] = set()
    for request in requests:
        if request.is_asking:
            commands.append((b"ASKING",))
        command, script = request.command, request.script
        if with_text and script is not None and script not in told:
            told.add(script)
            command = (b"EVAL", script.text, *command[2:])
        commands.append(command)
    return commands


def has_forgotten(reply: object) -> bool:
    """Whether a reply says that the server has not the script. Then it has done nothing."""
    return isinstance(reply, library.NoScriptError)


def is_demoted(replies: Iterable[object]) -> bool:
    """Whether the server says that it takes no writes: then the next connection may find another one."""
    return any(isinstance(reply, Exception) and find_code(reply) == "READONLY" for reply in replies)


def judge(replies: Sequence[object], settings: Settings) -> None:
    """Look at the replies of a server to the first look.

    Raises:
        ConfigurationError: It does not keep what was promised.
        EngineError: It lets nobody in, or answers nobody just now.
    """
    for reply in replies:
        if isinstance(reply, Exception) and find_code(reply) not in REFUSALS:
            raise build_error(reply, writes=False)
    settings.judge(read_settings(replies))


def build_pool_arguments(settings: Settings, node: Node, sentinel: Any, connect: Any, *, is_async: bool) -> dict[str, Any]:
    """The arguments of a pool of connections to a server.

    Args:
        settings: Of the engine.
        node: The server; ``HERE`` for the one of the url.
        sentinel: What finds the server; None for none.
        connect: What is called for each new connection.
        is_async: Whether it is for an event loop.
    """
    kind = AsyncRetry if is_async else Retry
    arguments: dict[str, Any] = {
        "socket_connect_timeout": settings.timeout_s,
        "socket_timeout": None if is_async else settings.timeout_s,
        "socket_keepalive": True,
        "driver_info": None,
        **settings.build_arguments(is_async=is_async),
        "protocol": RESP,
        "retry": kind(NoBackoff(), 0),  # what was sent may have been done: nobody but us knows whether to send it again
        "retry_on_timeout": False,
        "redis_connect_func": connect,
    }
    if arguments.get("path") is not None:
        arguments.pop("socket_keepalive")
    if node != HERE:
        arguments["host"], arguments["port"] = node
    if sentinel is not None:
        for name in ("host", "port"):
            arguments.pop(name, None)
        arguments = {**sentinel.connection_kwargs, **arguments}
    return arguments


def build_sentinel(sentinel: Any, settings: Settings, *, is_async: bool) -> Any:
    """An object of the client library of our own that asks the same Sentinels, each once and for a part of a call's time.

    Args:
        sentinel: The one that the engine was given. As it comes, it asks one that is away for seconds.
        settings: Of the engine.
        is_async: Whether it is for an event loop.
    """
    kind: Any = AsyncSentinel if is_async else Sentinel
    clients = [client.connection_pool.connection_kwargs for client in sentinel.sentinels]
    part_s, given = settings.timeout_s / (len(clients) + 1), sentinel.sentinel_kwargs
    waits = {name: min(part_s, given.get(name) or part_s) for name in ("socket_timeout", "socket_connect_timeout")}
    return kind(
        [(client["host"], client["port"]) for client in clients],
        min_other_sentinels=sentinel.min_other_sentinels,
        sentinel_kwargs={**given, **waits, "retry": (AsyncRetry if is_async else Retry)(NoBackoff(), 0)},
        force_master_ip=sentinel._force_master_ip,
        **sentinel.connection_kwargs,
    )


def build_connection(settings: Settings, node: Node, connect: Any, *, is_async: bool, **others: Any) -> Any:
    """A connection to a server that belongs to no pool.

    Args:
        settings, node, connect, is_async: As for a pool.
        others: Arguments of the client library's that replace those of a pool.
    """
    arguments = {**build_pool_arguments(settings, node, None, connect, is_async=is_async), **others}
    kind = arguments.pop("connection_class", AsyncConnection if is_async else Connection)
    return kind(**arguments)


def drop_class(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments for a pool whose server a Sentinel finds: it has classes of connections of its own."""
    kept = {name: value for name, value in arguments.items() if name != "connection_class"}
    return {**kept, "ssl": True} if "connection_class" in arguments else kept
