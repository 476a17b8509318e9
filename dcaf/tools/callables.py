"""What stands behind a callable: the function that was written, its docstring, its defaults, and how it has to be called.

>>> from functools import partial
>>> def greet(name: str, times: int) -> str:
...     '''Greet the person.'''
>>> twice = partial(greet, times=2)
>>> find_function(twice) is greet, find_docstring(twice), find_decided(twice)
(True, 'Greet the person.', frozenset({'times'}))

Python makes the default of a parameter once, for all calls. A tool makes it anew for each call that leaves it out, as it was when
the tool was made.

>>> factory = find_default_factory(["nut"])
>>> factory(), factory() is factory(), find_default_factory("nut") is None
(['nut'], False, True)

The object that is called and the function that was written are often two: a partial, a bound method and a decorated function each
stand before another one, and only that one knows the names in its annotations.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any, Final, cast

from dcaf.core.errors import ConfigurationError
from dcaf.core.handles import IMMUTABLE

LAMBDA: Final = "<lambda>"
MOST_LAYERS: Final = 100
"""An object that makes up an attribute for each name has no end of them."""


def layers(function: Any) -> Iterator[Any]:
    """What is called, and what stands behind it, the innermost last: below partials, methods, decorators and objects."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen and len(seen) < MOST_LAYERS:
        seen.add(id(function))
        yield function
        function = _below(function)


def find_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The innermost function."""
    *_, innermost = layers(function)
    return cast("Callable[..., Any]", innermost)


def find_docstring(function: Callable[..., Any]) -> str | None:
    """The docstring of what was written; of an object that is called, that of its ``__call__``, else that of its class."""
    of_function: str | None = find_function(function).__doc__
    if not _is_object(function):
        return (None if isinstance(function, functools.partial) else function.__doc__) or of_function
    return of_function or function.__doc__


def name_of(function: Callable[..., Any]) -> str:
    """The name that it was given.

    Raises:
        ConfigurationError: It has none that a model could call.
    """
    found: str | None = getattr(function, "__name__", None)
    if found is None or found == LAMBDA:
        what = "lambda" if found == LAMBDA else type(function).__name__
        raise ConfigurationError(f"A {what} has no name of its own: write tool(name=...).")
    return found


def label(function: Callable[..., Any]) -> str:
    """What messages call it, named or not."""
    found: str = getattr(function, "__name__", type(function).__name__)
    return found


def find_decided(function: Callable[..., Any]) -> frozenset[str]:
    """The parameters whose values partials have decided, wherever they stand behind the function."""
    names: set[str] = set()
    for layer in layers(function):
        if isinstance(layer, functools.partial):
            left = _names(layer)
            names.update(layer.keywords, (name for name in _names(layer.func) if name not in left))
    return frozenset(names)


def starts_on_loop(function: Callable[..., Any]) -> bool:
    """Whether calling it does no work yet: it makes a coroutine or a generator."""
    called = type(function).__call__ if _is_object(function) else function
    return any(kind(called) for kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction))


def find_default_factory(default: Any) -> Callable[[], Any] | None:
    """What makes a default for one call; None where all calls share the object: it cannot change, or its identity is its meaning.

    Raises:
        ConfigurationError: It cannot be copied; the message goes on after the parameter's name.
    """
    if isinstance(default, IMMUTABLE) or _is_marker(default):
        return None
    try:
        found = deepcopy(default)
    except Exception:  # noqa: BLE001 - whatever an object raises that cannot be copied
        raise ConfigurationError(
            f"has a {type(default).__name__} as its default, which cannot be copied, so that all calls would share it. Write None "
            "as the default and make the object in the function, or decide the parameter with functools.partial."
        ) from None
    return None if found is default else partial(deepcopy, found)


@dataclass(frozen=True, slots=True)
class CallTarget:
    """How a function is called.

    Attributes:
        function: The function.
        is_of_class: It is a class method, and waits for a class.
        waits: Its first parameter is an object, or a class, that it waits for.
        is_stray: It was written in a class, and is no method by its first parameter.
        starts_on_loop: As the function above says of it, asked once.
    """

    function: Callable[..., Any]
    is_of_class: bool = False
    waits: bool = False
    is_stray: bool = False
    starts_on_loop: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts_on_loop", starts_on_loop(self.function))

    @classmethod
    def of(cls, function: Any) -> CallTarget:
        """That of anything that is called, or of what ``classmethod`` and ``staticmethod`` make.

        Raises:
            ConfigurationError: It is nothing of the kind.
        """
        if isinstance(function, classmethod | staticmethod):
            is_of_class = isinstance(function, classmethod)
            return cls(function.__func__, is_of_class, is_of_class)
        if not callable(function):
            raise ConfigurationError("@tool takes a function; its settings are keyword arguments.")
        waits = _waits_for_object(function)
        return cls(function, waits=waits, is_stray=not waits and _is_written_in_class(function))

    def bind(self, owner: object) -> CallTarget:
        """The same with its object, or its class."""
        return CallTarget(MethodType(self.function, owner))


def _is_written_in_class(function: Callable[..., Any]) -> bool:
    """Whether it is a plain function out of the body of a class, and so waits for an object."""
    around = getattr(function, "__qualname__", "").rpartition(".")[0]
    return inspect.isfunction(function) and around != "" and not around.endswith("<locals>")


def _waits_for_object(function: Callable[..., Any]) -> bool:
    """Whether it is such a function that nobody has bound, and its first parameter is named as that of a method."""
    if not _is_written_in_class(function) or any(inspect.ismethod(layer) for layer in layers(function)):
        return False
    code = getattr(find_function(function), "__code__", None)
    return code is not None and code.co_argcount > 0 and code.co_varnames[0] in {"self", "cls"}


def _below(function: Any) -> Any:
    if isinstance(function, functools.partial):
        return function.func
    if inspect.ismethod(function) or isinstance(function, classmethod | staticmethod):
        return function.__func__
    if hasattr(function, "__wrapped__"):
        return function.__wrapped__
    completed = getattr(function, "__partialmethod__", getattr(function, "_partialmethod", None))
    if isinstance(completed, functools.partialmethod):
        return completed.func
    call = inspect.getattr_static(type(function), "__call__", None) if _is_object(function) else None
    return call if inspect.isfunction(call) or hasattr(call, "__wrapped__") else None


def _names(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError, NameError):  # whoever reads it says so
        return []


def _is_object(function: Any) -> bool:
    """Whether it is called by way of its class."""
    plain = inspect.isroutine(function) or isinstance(function, (type, functools.partial))
    return not plain and callable(function)


def _is_marker(value: Any) -> bool:
    """Whether its identity is all its meaning, as of ``MISSING = object()``: it holds nothing, and neither does its class."""
    names = {name for kind in type(value).__mro__ for name in vars(kind)}
    return not getattr(value, "__dict__", None) and all(name.startswith("__") for name in names)
