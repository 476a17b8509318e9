"""What a caller gives by mistake: a wrong type ends in one error, which names the argument and says what it takes.

>>> check("timeout", 5, timedelta, "a timedelta, or None")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: timeout= takes a timedelta, or None, not int.
>>> write_json("fields", {"thread_id": "th-1"})
b'{"thread_id":"th-1"}'

The value itself is never in the message: it may be a session, or what a user has said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

from dcaf.core.errors import ConfigurationError

T = TypeVar("T")
MOST_DAYS: Final = 365
"""The longest wait: event loops and sockets fail at lengths that nobody means."""


def refuse(name: str, value: object, takes: str) -> NoReturn:
    """Say that an argument is of a wrong type.

    Raises:
        ConfigurationError: In any case.
    """
    found = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    raise ConfigurationError(f"{name}= takes {takes}, not {found}.")


def check(name: str, value: Any, kind: type[T] | tuple[type[T], ...], takes: str) -> T:
    """An argument of a type.

    Args:
        name: Of the argument.
        value: What was given.
        kind: What it must be an instance of. A boolean is no number here.
        takes: What it takes, in words.

    Raises:
        ConfigurationError: It is of another type.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in {int, float}):
        refuse(name, value, takes)
    return value


def check_function(name: str, value: T, takes: str) -> T:
    """A function, or an object that can be called.

    Raises:
        ConfigurationError: It is something else, or a class where an object of it is due.
    """
    if not callable(value) or isinstance(value, type):
        refuse(name, value, takes)
    return value


def check_path(name: str, value: Any) -> str:
    """A path of a service.

    Raises:
        ConfigurationError: It is no text that begins with a slash.
    """
    path = check(name, value, str, 'a path that begins with a slash, such as "/api/chat"')
    if not path.startswith("/"):
        raise ConfigurationError(f'{name}= must begin with a slash: "/api/chat". What stands before it is the base URL.')
    if not path.isprintable() or "#" in path:
        raise ConfigurationError(f'{name}= has a character that no path has. Write it as in an address: "/api/chat?v=1".')
    return path


def check_url(name: str, value: Any) -> str:
    """The base URL of a service, without a slash at its end.

    Raises:
        ConfigurationError: It begins with neither http:// nor https://, or is no address of a service.
    """
    url = check(name, value, str, "a URL that begins with http:// or https://")
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{name}= must begin with http:// or https://, for a WebSocket too: https://agent.example")
    if not _is_address(url):
        raise ConfigurationError(f"{name}= has no host, a port that there is not, or a query: write it as https://agent.example")
    return url.rstrip("/")


def _is_address(url: str) -> bool:
    """Whether a URL has a host, a port that can be, and nothing behind its path, so that another path can follow."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        is_port = parts.port is None or parts.port > 0
    except (ValueError, UnicodeError):
        return False
    return bool(host) and is_port and not (parts.query or parts.fragment) and url.isprintable() and " " not in url


def check_wait(name: str, value: Any) -> float:
    """How long to wait, in seconds.

    Raises:
        ConfigurationError: It is no timedelta, nothing, or more than a year.
    """
    wait = check(name, value, timedelta, "a timedelta")
    if not timedelta(0) < wait <= timedelta(days=MOST_DAYS):
        raise ConfigurationError(f"{name}= must be more than nothing and at most a year, for instance timedelta(seconds=10).")
    return wait.total_seconds()


def check_seconds(name: str, value: Any) -> float | None:
    """How long to wait, in seconds; None waits forever.

    Raises:
        ConfigurationError: It is no number, nothing, or more than a year.
    """
    if value is None:
        return None
    wait = check(name, value, (int, float), "seconds, or None")
    if not 0 < wait <= timedelta(days=MOST_DAYS).total_seconds():
        raise ConfigurationError(f"{name}= must be more than nothing and at most a year, in seconds.")
    return float(wait)


def check_headers(name: str, value: Any) -> dict[str, str]:
    """Headers: name -> value; None is none.

    Raises:
        ConfigurationError: They are no mapping of texts, or a text that no header can have.
    """
    found = {} if value is None else dict(check(name, value, Mapping, "a mapping of texts: name -> value"))
    if not all(isinstance(key, str) and key and isinstance(item, str) for key, item in found.items()):
        raise ConfigurationError(f"{name}= takes a mapping of texts: one of its names or values is no text.")
    written = "".join([*found, *found.values()])
    if not written.isascii() or any(mark in written for mark in "\r\n\0"):
        raise ConfigurationError(f"{name}= has a name or a value that no header can have: use ASCII, on one line.")
    return found


def check_many(name: str, value: Any, takes: str) -> Iterable[Any]:
    """Several values, where one alone, a text or a mapping, is a mistake.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping) or not isinstance(value, Iterable):
        refuse(name, value, takes)
    return value


def check_messages(name: str, value: Any) -> list[dict[str, Any]]:
    """Messages, oldest first, each a mapping that can be written as JSON.

    Raises:
        ConfigurationError: They are something else; the message says which one.
    """
    given = check_many(name, value, "messages, oldest first: a list of mappings with role and content")
    found = [dict(check(f"{name}[{at}]", one, Mapping, "a mapping with role and content")) for at, one in enumerate(given)]
    write_json(name, found)
    return found


def check_object(name: str, value: Any, takes: str) -> dict[str, Any]:
    """A mapping that can be written as JSON, as a dict.

    Raises:
        ConfigurationError: It is something else.
    """
    found = dict(check(name, value, Mapping, takes))
    if not all(isinstance(key, str) for key in found):
        raise ConfigurationError(f"{name}= takes {takes}: one of its names is no text.")
    write_json(name, found)
    return found


def write_json(name: str, value: Any) -> bytes:
    """Compact JSON in the order given, without escapes that are not needed, as most clients write it.

    Halves of a character (UTF-16 surrogates) that follow each other are made whole, and a half alone is replaced: no strict
    parser would read it, and a conversation that holds one could not go on.

    Args:
        name: Of the argument, for the message.
        value: A JSON value.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{name}: a value in it cannot be written as JSON ({type(error).__name__}). "
            "Give texts, finite numbers, booleans, None, and lists and dicts of them; convert others first."
        ) from None
    return text.encode() if is_whole(text) else make_whole(text).encode()


def is_whole(text: str) -> bool:
    """Whether a text has no half of a character (UTF-16 surrogates), so that UTF-8 can say it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_whole(text: str) -> str:
    """A text whose halves of a character (UTF-16 surrogates) are made whole; a half alone is replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
