"""What stands behind a callable: the function that was written, its documentation, and how it has to be called.

>>> from functools import partial
>>> def greet(name: str, times: int) -> str:
...     '''Greet the person.'''
>>> written(partial(greet, times=2)) is greet, documentation(partial(greet, times=2)), fixed(partial(greet, times=2))
(True, 'Greet the person.', frozenset({'times'}))

What a reader gets wrong: the object that is called and the function that was written are often two: a partial, a bound method and
a decorated function each stand before another one, and only that one knows the names in its annotations.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

import anyio.to_thread

from dcaf.core.errors import ConfigurationError

LAMBDA: Final = "<lambda>"


def written(function: Callable[..., Any]) -> Callable[..., Any]:
    """The innermost function: below partials, methods, decorators with ``wraps``, and objects that are called."""
    while True:
        below = _below(function)
        if below is None:
            return function
        function = below


def documentation(function: Callable[..., Any]) -> str | None:
    """The docstring of what was written; of an object that is called, that of its ``__call__``, else that of its class."""
    of_function: str | None = written(function).__doc__
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


def fixed(function: Callable[..., Any]) -> frozenset[str]:
    """The parameters whose values partials have decided by keyword."""
    names: set[str] = set()
    while isinstance(function, functools.partial):
        names.update(function.keywords)
        function = function.func
    return frozenset(names)


def starts_on_loop(function: Callable[..., Any]) -> bool:
    """Whether calling it does no work yet: it makes a coroutine or a generator."""
    called = type(function).__call__ if _is_object(function) else function
    return any(kind(called) for kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction))


async def outcome(call: Callable[[], Any], *, on_loop: bool, abandon: bool = False) -> Any:
    """Make a call and wait for what comes of it.

    Args:
        call: The call.
        on_loop: As ``starts_on_loop`` says; any other call runs in a thread, with the caller's context variables.
        abandon: A cancelled call does not wait for its thread.
    """
    result = call() if on_loop else await anyio.to_thread.run_sync(call, abandon_on_cancel=abandon)
    return await result if inspect.isawaitable(result) else result


def is_written_in_class(function: Callable[..., Any]) -> bool:
    """Whether it is a plain function out of the body of a class, and so waits for an object."""
    around = getattr(function, "__qualname__", "").rpartition(".")[0]
    return inspect.isfunction(function) and around != "" and not around.endswith("<locals>")


def waits_for_object(function: Callable[..., Any]) -> bool:
    """Whether it is such a function, and its first parameter is named as that of a method."""
    code = getattr(written(function), "__code__", None)
    return is_written_in_class(function) and code is not None and code.co_argcount > 0 and code.co_varnames[0] in {"self", "cls"}


def _below(function: Any) -> Callable[..., Any] | None:
    if isinstance(function, functools.partial):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    if hasattr(function, "__wrapped__"):
        found: Callable[..., Any] = function.__wrapped__
        return found
    return type(function).__call__ if _is_object(function) and inspect.isfunction(type(function).__call__) else None


def _is_object(function: Any) -> bool:
    """Whether it is called by way of its class."""
    plain = inspect.isroutine(function) or isinstance(function, (type, functools.partial))
    return not plain and callable(function)
