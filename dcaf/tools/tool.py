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

import copy
import functools
import inspect
import logging
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import timedelta
from types import MethodType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast, overload

from dcaf.core.current import calling, current_session
from dcaf.core.errors import ConfigurationError, ToolApprovalError
from dcaf.core.session import Session
from dcaf.tools.annotations import Names
from dcaf.tools.callables import is_written_in_class, name_of, outcome, starts_on_loop, waits_for_object
from dcaf.tools.explanation import Explanation
from dcaf.tools.reading import Reading
from dcaf.tools.streams import is_stream, items
from dcaf.tools.strict import strict as strict_form

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)

logger: Final[logging.Logger] = logging.getLogger("dcaf")


class Tool(Generic[P, R_co]):
    """A function that a model may call; in the body of a class a method, which every object of the class has as a tool of its own.

    Args:
        function: Anything that is called: a function, sync or async, a generator, a method, a partial, an object.
        name: What the model calls it; None takes the function's own name.
        description: What the model is told of it; None takes it from the docstring.
        input_schema: A JSON Schema that was written by hand, to be shown in place of the one that is made.
        strict: Show the model the strict form of the schema.
        requires_approval: A person must approve each call before it runs.
        parallel: In a turn, do not wait for other calls; what they did side by side is merged.
        timeout: How long a call in a turn may take; None is without end. A sync function cannot be stopped: it is left to itself,
            and what it does to its session afterwards goes nowhere.

    Attributes:
        name: As above.
        requires_approval: As above.
        parallel: As above.
        timeout: As above.
        forged: Name -> how often a model sent something for a parameter that dcaf fills, or for ``session``; it was dropped.

    Raises:
        ConfigurationError: A parameter can be neither injected nor described.
    """

    def __init__(
        self,
        function: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        input_schema: Mapping[str, Any] | None = None,
        strict: bool = False,
        requires_approval: bool = False,
        parallel: bool = False,
        timeout: timedelta | None = None,
    ) -> None:
        self.requires_approval: bool = requires_approval
        self.parallel: bool = parallel
        self.timeout: timedelta | None = _time(timeout)
        self._is_of_class = isinstance(function, classmethod)
        is_wrapped = isinstance(function, classmethod | staticmethod)
        called: Callable[..., Any] = cast("Any", function).__func__ if is_wrapped else function
        self._function = called
        self._waits = self._is_of_class or (not is_wrapped and waits_for_object(called))
        self._is_stray = not is_wrapped and not self._waits and is_written_in_class(called)
        self.name: str = name or name_of(called)
        self.forged: Counter[str] = Counter()
        self._description = description
        names = Names.of(called, sys._getframe(1))
        self._read = Reading(called, names, tool=self.name, waits=self._waits, given=input_schema, is_strict=strict)
        self._starts_on_loop = starts_on_loop(called)
        functools.update_wrapper(self, called, updated=())

    @property
    def description(self) -> str:
        """What the model is told of it."""
        return self._read.finished().said.description if self._description is None else self._description

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the arguments that the model fills; nothing of an injected parameter.

        Raises:
            ConfigurationError: The annotation of a parameter could not be resolved, and might mean a session.
        """
        return self._read.finished().schema

    @property
    def strict_schema(self) -> dict[str, Any]:
        """The same for providers that take only strict schemas: all required, nothing more allowed, null for what is left out.

        Raises:
            ConfigurationError: A parameter cannot be described that way; or as ``input_schema``.
        """
        return strict_form(self._read.finished().arguments.schema, tool=self.name)

    @property
    def writes_session(self) -> bool:
        """Whether a parameter takes the session, or one of its keys, to write. Raises as ``input_schema``."""
        return self._read.finished().plan.writes

    def explain(self) -> Explanation:
        """Say for every parameter who fills it and why. Raises as ``input_schema``."""
        return Explanation.of(self.name, self._read.finished().plan)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself."""
        missing = self._read.arguments.defaults()
        if missing:
            bound = inspect.signature(self._function).bind_partial(*args, **kwargs).arguments
            kwargs.update({name: value for name, value in missing.items() if name not in bound})
        return cast("R_co", self._function(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self: Tool[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None) -> Tool[Q, R_co]: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        """The tool of one object, or, of a class method, of one class."""
        holder = owner if self._is_of_class else instance
        if holder is None or not self._waits:
            return self
        bound = copy.copy(self)
        bound._function = bound.__wrapped__ = MethodType(self._function, holder)  # type: ignore[attr-defined]
        bound._waits = False
        return bound

    def __set_name__(self, owner: type, name: str) -> None:
        if self._is_stray and inspect.signature(self._function).parameters:
            raise ConfigurationError(
                f"{owner.__name__}.{name}: call the first parameter of a method self, or write @tool above @staticmethod."
            )

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validate a model's arguments without calling the function.

        Args:
            arguments: Name -> value, as the model sent them.

        Returns:
            The same, without those that are not the model's to fill.

        Raises:
            ToolArgumentError: They do not fit.
        """
        read = self._read.finished()
        own = self._own(arguments, read.hidden)
        read.arguments.validate(own)
        return dict(own)

    def complete(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validate a model's arguments without calling the function, and fill in the defaults: what a call of them will get.

        Args:
            arguments: Name -> value, as the model sent them.

        Returns:
            The arguments as JSON, converted as their types say, with the defaults of what was left out, at every depth. What does
            not read back from JSON as the same value (a secret that hides itself, an object) stays as it was sent; a default of
            that kind is left out, and the call makes it.

        Raises:
            ToolArgumentError: They do not fit.
        """
        read = self._read.finished()
        return read.arguments.completed(self._own(arguments, read.hidden))

    async def run(self, arguments: Mapping[str, Any], *, session: Session | None = None) -> Any:
        """Validate a model's arguments and call the function; a sync one runs in a thread, with its context variables.

        Args:
            arguments: Name -> value, as the model sent them.
            session: None takes the session of the turn that is running, where the function declares one. Where no turn is
                running, a parameter that may be None is None.

        Returns:
            What the function returns; of a generator, a list of what it yields.

        Raises:
            ToolArgumentError: The arguments do not fit. The function did not run.
            ToolApprovalError: It needs approval. A ``Turn`` can be told that it has one.
            ConfigurationError: The function takes a session, and there is none; or it is a method without its object.
        """
        self._check_approval()
        return await self._collected(arguments, session)

    async def stream(self, arguments: Mapping[str, Any], *, session: Session | None = None) -> AsyncGenerator[Any, None]:
        """Run it, and give what it yields as it comes; of a function that is no generator, its one result.

        Whoever stops early closes it, with ``contextlib.aclosing``. Arguments and errors are those of ``run``.
        """
        self._check_approval()
        async with aclosing(self._pieces(arguments, session)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(self, arguments: Mapping[str, Any], session: Session | None) -> AsyncGenerator[Any, None]:
        result = await self._result(arguments, session)
        if not is_stream(result):
            yield result
            return
        async with aclosing(items(result)) as found:
            async for item in found:
                yield item

    async def _collected(self, arguments: Mapping[str, Any], session: Session | None, *, abandon: bool = False) -> Any:
        result = await self._result(arguments, session, abandon=abandon)
        if not is_stream(result):
            return result
        async with aclosing(items(result, abandon=abandon)) as found:
            return [item async for item in found]

    async def _result(self, arguments: Mapping[str, Any], session: Session | None, *, abandon: bool = False) -> Any:
        """Call the function; with ``abandon``, a cancelled call does not wait for its thread, which has a session of its own."""
        if self._waits:
            raise ConfigurationError(
                f"{self.name} is a method, and there is no object: run the tool of one, thing.{self.name}. On a class method "
                "write @tool above @classmethod."
            )
        read = self._read.finished()
        values = read.arguments.validate(self._own(arguments, read.hidden))
        call = functools.partial(read.plan.call, self._function, values, self._session(read, session))
        with calling():
            return await outcome(call, on_loop=self._starts_on_loop, abandon=abandon)

    def _check_approval(self) -> None:
        if self.requires_approval:
            raise ToolApprovalError(f"{self.name} needs the approval of a person. Run it in a Turn, with is_approved=True.")

    def _own(self, arguments: Mapping[str, Any], hidden: frozenset[str]) -> Mapping[str, Any]:
        """The arguments without those that only dcaf may fill."""
        if not isinstance(arguments, Mapping) or hidden.isdisjoint(arguments):
            return arguments
        forged = sorted(hidden & set(arguments))
        self.forged.update(forged)
        logger.warning("%s: the model sent %s, which is not its to fill; dropped", self.name, ", ".join(forged))
        return {name: value for name, value in arguments.items() if name not in hidden}

    def _session(self, read: Reading, given: Session | None) -> Session | None:
        if given is not None or not read.plan.injected:
            return given
        try:
            return current_session()
        except ConfigurationError:
            if read.plan.needs_session:
                raise
            return None

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"


@overload
def tool(function: Callable[P, R_co], /) -> Tool[P, R_co]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    input_schema: Mapping[str, Any] | None = None,
    strict: bool = False,
    requires_approval: bool = False,
    parallel: bool = False,
    timeout: timedelta | None = None,
) -> Callable[[Callable[P, R_co]], Tool[P, R_co]]: ...


def tool(function: Any = None, /, **settings: Any) -> Any:
    """Make a tool of a function: ``@tool``, or ``@tool(name=..., timeout=...)`` with any of the settings of ``Tool``.

    Raises:
        ConfigurationError: As ``Tool``.
    """
    if function is None:
        return functools.partial(tool, **settings)
    if not callable(function) and not isinstance(function, classmethod):
        raise ConfigurationError("@tool takes a function; its settings are keyword arguments.")
    return Tool(function._function if isinstance(function, Tool) else function, **settings)


def _time(timeout: timedelta | None) -> timedelta | None:
    if timeout is not None and (not isinstance(timeout, timedelta) or timeout <= timedelta()):
        raise ConfigurationError("timeout= takes a timedelta over zero, for instance timeout=timedelta(seconds=30).")
    return timeout
