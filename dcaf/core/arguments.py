"""Check what a caller gives by mistake: the error names the argument and says what to write.

>>> require_text("domain=", 7, "the name of a host")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: domain= takes a text, the name of a host, not an int.

No message has the value itself, which may be a key, a session, or what a person has said.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from types import FrameType
from typing import Any, Final, TypeVar

from dcaf.core.errors import ConfigurationError

T = TypeVar("T")

Clock = Callable[[], float]

FRAMEWORKS: Final = {
    "pydantic_ai": ("pydantic-ai", "pydantic_ai"),
    "agents.function_schema": ("openai-agents", "openai_agents"),
    "langchain_core": ("LangChain", "langgraph"),
    "fastmcp": ("FastMCP", "fastmcp"),
    "mcp.server": ("The MCP SDK", "mcp"),
    "google.adk": ("google-adk", "adk"),
}
"""Module that reads a function's parameters -> the name of the framework, and of dcaf's integration, which need not exist."""


def require(argument: str, value: Any, kind: type[T] | tuple[type[T], ...], takes: str) -> T:
    """Require an argument of a type.

    Args:
        argument: Its name in the message: ``"keys="``, or ``"Session.of()"`` for the only argument of a function.
        value: The argument.
        kind: The type. A boolean is no number here.
        takes: The type in words.

    Raises:
        ConfigurationError: It is of another type.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind is not object):
        raise ConfigurationError(f"{argument} takes {takes}, not {kind_of(value)}.")
    return value


def require_text(argument: str, value: Any, meaning: str) -> str:
    """Require a text that UTF-8 can encode.

    Args:
        argument, value: As ``require``.
        meaning: What the text is.

    Raises:
        ConfigurationError: It is no text, or has a lone surrogate.
    """
    text = require(argument, value, str, f"a text, {meaning}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigurationError(f"{argument} takes a text, {meaning}, not one with half of a surrogate pair.")
    return text


def require_bool(argument: str, value: Any) -> bool:
    """Require True or False.

    Raises:
        ConfigurationError: It is something else, such as the text "false", which would count as true.
    """
    return require(argument, value, bool, "True or False")


def require_function(argument: str, value: T, takes: str = "a function") -> T:
    """Require a callable.

    Raises:
        ConfigurationError: It is something else.
    """
    if not callable(value):
        raise ConfigurationError(f"{argument} takes {takes}, not {kind_of(value)}.")
    return value


def require_plain_function(argument: str, value: T, takes: str = "a function") -> T:
    """Require a callable that is not async.

    Raises:
        ConfigurationError: It is something else, or it is async.
    """
    function: Any = require_function(argument, value, takes)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise ConfigurationError(f"{argument} takes {takes}, not an async one.")
    return value


def texts_of(value: object) -> list[str] | None:
    """The texts of an iterable; None for anything else, a single text included."""
    items = None if isinstance(value, str) else items_of(value)
    return items if items is not None and all(isinstance(item, str) for item in items) else None


def items_of(value: object) -> list[Any] | None:
    """The items of an iterable; None for anything else."""
    if not isinstance(value, Iterable) or isinstance(value, type):
        return None
    try:
        return list(value)
    except Exception:  # noqa: BLE001 - whatever an object raises that only looks like several things
        return None


def has_methods(value: object, *names: str) -> bool:
    """Whether a value has methods of these names and is no class."""
    try:
        return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in names)
    except Exception:  # noqa: BLE001 - whatever an object raises when it is asked
        return False


def kind_of(value: Any) -> str:
    """Describe a value by its class, in words; a class is called one."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    if name.endswith("s"):  # bytes
        return name
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def require_clock(argument: str, value: Clock) -> Clock:
    """Require a function that returns the seconds since the epoch; it is called once.

    Raises:
        ConfigurationError: It is no function, or returns no number.
    """
    clock = require_plain_function(argument, value, "a function that gives the seconds since the epoch, such as time.time")
    require(f"{argument} gives the seconds since the epoch: it", clock(), (int, float), "a number")
    return clock


def require_random(randomness: Callable[[int], bytes], number: int) -> bytes:
    """So many random bytes.

    Args:
        randomness: Gives as many as it is asked for.
        number: How many.

    Raises:
        ConfigurationError: It gave something else.
    """
    try:
        found = randomness(number)
    except TypeError:
        found = b""
    if type(found) is not bytes or len(found) != number:
        raise ConfigurationError("randomness= takes a function that gives as many random bytes as it is asked for: os.urandom.")
    return found


def describe_framework(what: str) -> str | None:
    """Say what to write instead, where an agent framework asks for a schema; None where none does.

    No framework is imported for this: the one that asks is known by the frames of the stack.

    Args:
        what: The subject of the sentence.
    """
    name = _find_framework()
    if name is None:
        return None
    title, integration = FRAMEWORKS[name]
    advice = _describe_alternative(integration)
    return f"{what} is filled by dcaf, and never by a model. {title} takes no tool of dcaf's as it is: {advice}"


def _describe_alternative(integration: str) -> str:
    module = f"dcaf.integrations.{integration}"
    if find_spec(module) is not None:
        return f"import {module}, which makes one of its own of it."
    return "give it a function that awaits `tool.run(arguments)`, with `tool.name`, `tool.description` and `tool.input_schema`."


def _find_framework() -> str | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = f"{frame.f_globals.get('__name__')}."
        found = next((name for name in FRAMEWORKS if module.startswith(f"{name}.")), None)
        if found is not None:
            return found
        frame = frame.f_back
    return None
