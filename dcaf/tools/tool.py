"""@tool: a plain function that a model may call, with its session filled in.

>>> import asyncio
>>> @tool
... def set_service(name: str, session: Session) -> str:
...     '''Choose the service to deploy.'''
...     session.set("service", name)
...     return f"Service: {name}."
>>> session = Session()
>>> asyncio.run(set_service.run({"name": "api"}, session=session)), session["service"]
('Service: api.', 'api')
>>> set_service("web", session)
'Service: web.'

What a reader gets wrong: calling the tool is calling the function, with a session of your own: that is how it is tested.
``run`` is what an agent does with the arguments of a model.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Generic, ParamSpec, TypeVar, overload

import anyio.to_thread

from dcaf.core.current import calling, current_session
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.injection import Plan
from dcaf.tools.schema import Arguments

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Tool(Generic[P, R_co]):
    """A function that a model may call.

    Args:
        function: A function or a coroutine function.
        name: What the model calls it; None takes the function's own name.
        description: What the model is told of it; None takes it from the docstring.

    Attributes:
        name: As above.
        description: As above.
        input_schema: JSON Schema (2020-12) of the arguments that the model fills; nothing of an injected parameter.

    Raises:
        ConfigurationError: A parameter can be neither injected nor described.
    """

    def __init__(self, function: Callable[P, R_co], *, name: str | None = None, description: str | None = None) -> None:
        self._function = function
        self._plan = Plan.of(function, _locals_around(sys._getframe(1)))
        self.name: str = name or _name_of(function)
        self._arguments = Arguments(self.name, self._plan.open, function.__doc__)
        self.description: str = description or self._arguments.description
        self.input_schema: dict[str, Any] = self._arguments.schema
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself."""
        return self._function(*args, **kwargs)

    async def run(self, arguments: Mapping[str, Any], *, session: Session | None = None) -> Any:
        """Validate a model's arguments and call the function; a sync one runs in a thread, with its context variables.

        Args:
            arguments: Name -> value, as the model sent them.
            session: None takes the session of the turn that is running, where the function declares one, optional or not.

        Raises:
            ToolArgumentError: The arguments do not fit. The function did not run.
            ConfigurationError: The function takes a session, and there is none.
        """
        values = self._arguments.validate(arguments)
        taken = current_session() if session is None and self._plan.injected else session
        call = functools.partial(self._plan.call, self._function, values, taken)
        with calling():
            if inspect.iscoroutinefunction(self._function):
                return await call()
            found = await anyio.to_thread.run_sync(call)
            return await found if inspect.isawaitable(found) else found

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"


def _locals_around(frame: FrameType | None) -> dict[str, Any]:
    """The local names where a tool is made."""
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


def _name_of(function: Callable[..., Any]) -> str:
    found: str | None = getattr(function, "__name__", None)
    if found is None:
        raise ConfigurationError(f"A {type(function).__name__} has no name of its own: write @tool(name=...).")
    return found


@overload
def tool(function: Callable[P, R_co], /) -> Tool[P, R_co]: ...
@overload
def tool(*, name: str | None = None, description: str | None = None) -> Callable[[Callable[P, R_co]], Tool[P, R_co]]: ...


def tool(function: Any = None, /, *, name: str | None = None, description: str | None = None) -> Any:
    """Make a tool of a function: ``@tool``, or ``@tool(name=..., description=...)``.

    Raises:
        ConfigurationError: As ``Tool``.
    """
    if function is None:
        return functools.partial(Tool, name=name, description=description)
    if not callable(function):
        raise ConfigurationError("@tool takes a function; name and description are keyword arguments.")
    return Tool(function, name=name, description=description)
