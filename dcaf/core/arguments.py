"""What somebody gives by mistake: said at once, with the argument's name and what it takes.

>>> require_text("domain=", 7, "the name of a host")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: domain= takes a text, the name of a host, not an int.

What a reader gets wrong: the value itself is in no message. It may be a key, a session, or what a person has said.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from dcaf.core.errors import ConfigurationError

T = TypeVar("T")


def require(argument: str, value: Any, kind: type[T] | tuple[type[T], ...], takes: str) -> T:
    """An argument of a type.

    Args:
        argument: How it is written: ``"keys="``, or ``"Session.of()"`` for the only one.
        value: What was given.
        kind: What it must be an instance of. A boolean is no number here.
        takes: What it takes, in words.

    Raises:
        ConfigurationError: It is of another type.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind is not object):
        raise ConfigurationError(f"{argument} takes {takes}, not {kind_of(value)}.")
    return value


def require_text(argument: str, value: Any, meaning: str) -> str:
    """A text that UTF-8 can say.

    Args:
        argument: As of ``require``.
        value: What was given.
        meaning: What the text is.

    Raises:
        ConfigurationError: It is no text, or has a lone surrogate.
    """
    text = require(argument, value, str, f"a text, {meaning}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigurationError(f"{argument} takes a text, {meaning}, not one with half of a surrogate pair.")
    return text


def require_bool(argument: str, value: Any) -> bool:
    """True or False.

    Raises:
        ConfigurationError: It is something else, such as the text "false", which would count as true.
    """
    return require(argument, value, bool, "True or False")


def require_function(argument: str, value: T, takes: str = "a function") -> T:
    """A function, or anything else that is called.

    Raises:
        ConfigurationError: It is something else.
    """
    if not callable(value):
        raise ConfigurationError(f"{argument} takes {takes}, not {kind_of(value)}.")
    return value


def require_plain_function(argument: str, value: T, takes: str = "a function") -> T:
    """A function that is called and gives its answer at once.

    Raises:
        ConfigurationError: It is something else, or it is async.
    """
    function: Any = require_function(argument, value, takes)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise ConfigurationError(f"{argument} takes {takes}, not an async one.")
    return value


def texts_of(value: object) -> list[str] | None:
    """Several texts; None where it is something else, or one text alone."""
    items = None if isinstance(value, str) else items_of(value)
    return items if items is not None and all(isinstance(item, str) for item in items) else None


def items_of(value: object) -> list[Any] | None:
    """What an iterable has; None where it is none."""
    if not isinstance(value, Iterable) or isinstance(value, type):
        return None
    try:
        return list(value)
    except Exception:  # noqa: BLE001 - whatever an object raises that only looks like several things
        return None


def has_methods(value: object, *names: str) -> bool:
    """Whether an object, and no class, has methods of these names."""
    try:
        return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in names)
    except Exception:  # noqa: BLE001 - whatever an object raises when it is asked
        return False


def kind_of(value: Any) -> str:
    """What something is, in words: of an object its class, of a class that it is one."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    if name.endswith("s"):  # bytes
        return name
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


Clock = Callable[[], float]


def require_clock(argument: str, value: Clock) -> Clock:
    """A function that gives the seconds since the epoch; it is asked once.

    Raises:
        ConfigurationError: It is no function, or gives no number.
    """
    clock = require_plain_function(argument, value, "a function that gives the seconds since the epoch, such as time.time")
    require(f"{argument} gives the seconds since the epoch: it", clock(), (int, float), "a number")
    return clock
