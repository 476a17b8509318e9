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
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from types import MethodType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast, overload
from weakref import WeakValueDictionary

from pydantic_core import core_schema

from dcaf.core.arguments import describe_framework
from dcaf.core.context import current_session, find_session, is_call_approved
from dcaf.core.errors import ConfigurationError, ToolApprovalError
from dcaf.core.session import Session, require_session
from dcaf.tools.annotations import Names
from dcaf.tools.callables import Way, decided, layers, name_of
from dcaf.tools.calls import OpenCall
from dcaf.tools.code_names import named, reached
from dcaf.tools.execution import Running
from dcaf.tools.explain import Explanation
from dcaf.tools.parameters import Reading
from dcaf.tools.schema import strict as strict_form
from dcaf.tools.settings import Settings, overridden, overridden_by, settings_below
from dcaf.tools.threads import contained

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)

NOT_GIVEN: Final = object()

_binding: Final = threading.RLock()  # collecting garbage may run code that looks up a tool


class Tool(Generic[P, R_co]):
    """A function that a model may call; in the body of a class a method, which every object of the class has as a tool of its own.

    What is made of a tool (a tool again, a partial, a method, a function that decorates it) is a tool with its settings; those that
    are given here count before them. A method that overrides a tool keeps of it whether it needs approval, and how it runs.

    Args:
        function: Anything that is called: a function, sync or async, a generator, a method, a partial, an object, a tool.
        name: What the model calls it; None takes the function's own name.
        description: What the model is told of it; None takes it from the docstring.
        input_schema: A JSON Schema that was written by hand, to be shown in place of the one that is made.
        strict: Show the model the strict form of the schema; None is False.
        requires_approval: A person must approve each call before it runs; None is False, and refused where the function names a
            tool that needs approval.
        parallel: In a turn, do not wait for other calls; what they did side by side is merged. None is False.
        timeout: How long a call in a turn may take; None is without end. A sync function cannot be stopped: it is left to itself,
            and what it does to its session afterwards goes nowhere.

    Attributes:
        forged: Name -> how often a model sent something for a parameter that dcaf fills, or for a reserved name; it was dropped.

    Raises:
        ConfigurationError: A setting is of another type. A parameter can be neither injected nor described. The function hides a
            tool that needs approval.
    """

    def __init__(
        self,
        function: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        input_schema: Mapping[str, Any] | None = None,
        strict: bool | None = None,
        requires_approval: bool | None = None,
        parallel: bool | None = None,
        timeout: timedelta | None = None,
    ) -> None:
        own = Settings(name, description, input_schema, strict, requires_approval, parallel, timeout)
        self._way: Way = function._way if is_tool(function) else Way.of(function)  # type: ignore[attr-defined]
        called = self._way.function
        _check_is_no_method_of_tool(function)
        below, above = settings_below(function), overridden_by(function)
        settings = own if below is None else own.over(below.without(decided(called)))
        settings = settings if above is None else settings.overriding(above)
        self._settings: Settings = replace(settings, name=settings.name or name_of(called))
        self._check_hides_nothing()
        self.forged: Counter[str] = Counter()
        self._tools: WeakValueDictionary[int, Tool[..., Any]] = WeakValueDictionary()
        self._reaches: bool | None = None
        self._bound_to: tuple[Tool[..., Any], object] | None = None
        self._read = Reading(
            called,
            Names.of(called, sys._getframe(1)),
            tool=self.name,
            waits=self._way.waits,
            given=self._settings.input_schema,
            is_strict=bool(self._settings.strict),
        )
        self._running: Running = self._as_running()
        functools.update_wrapper(self, called, updated=())

    def _as_running(self) -> Running:
        limit_s = None if self.timeout is None else self.timeout.total_seconds()
        return Running(self.name, self._way, self._read, self.forged, self.requires_approval, self.parallel, limit_s)

    @property
    def _waits(self) -> bool:
        return self._way.waits

    @property
    def _function(self) -> Callable[..., Any]:
        return self._way.function

    @property
    def name(self) -> str:
        """What the model calls it."""
        return cast("str", self._settings.name)

    @property
    def requires_approval(self) -> bool:
        """Whether a person must approve each call before it runs."""
        return bool(self._settings.requires_approval)

    @property
    def parallel(self) -> bool:
        """Whether its calls in a turn do not wait for others."""
        return bool(self._settings.parallel)

    @property
    def timeout(self) -> timedelta | None:
        """How long a call in a turn may take; None is without end."""
        return self._settings.timeout

    @property
    def description(self) -> str:
        """What the model is told of it."""
        given = self._settings.description
        return self._read.finished().said.description if given is None else given

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
        """Whether it may write the session, so that its calls wait for each other.

        A parameter takes it, or one of its keys, to write. Or it declares no session, and its code, or what it names of the same
        package or folder, calls ``current_session``. Raises as ``input_schema``.
        """
        return self._read.finished().plan.writes or self._is_undeclared_writer()

    def _is_undeclared_writer(self) -> bool:
        if self._reaches is None and self._read.finished().plan.declares_session:
            self._reaches = False
        if self._reaches is None:
            self._reaches = False  # while it is looked for: tools may name each other
            self._reaches = any(
                item is current_session or (is_tool(item) and item.writes_session) for item in reached(self._function)
            )
        return self._reaches

    @property
    def __isabstractmethod__(self) -> bool:
        """Whether a class that has it as a method is abstract, as of the function."""
        return bool(getattr(self._function, "__isabstractmethod__", False))

    @property
    def is_stream(self) -> bool:
        """Whether the function is a generator, sync or async, so that its result comes in pieces: for ``stream``."""
        kinds = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        return any(is_kind(layer) for layer in layers(self._function) for is_kind in kinds)

    def explain(self) -> Explanation:
        """Say for every parameter who fills it and why. Raises as ``input_schema``."""
        return Explanation.of(self.name, self._read.finished().plan, reaches_session=self._is_undeclared_writer())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself.

        Raises:
            ToolApprovalError: It needs approval, and is called by another tool that was run without one.
        """
        if self.requires_approval and is_call_approved() is False:
            raise ToolApprovalError(
                f"{self.name} needs the approval of a person, and was called by a tool that was run without one. Give that tool "
                "requires_approval=True, or ask for the call of this one."
            )
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
        """The tool of one object, or, of a class method, of one class: the same one as long as somebody holds it."""
        holder = owner if self._way.is_of_class else instance
        if holder is None or not self._way.waits:
            return self
        with _binding:
            found = self._tools.get(id(holder))
            if found is None:
                found = self._tools[id(holder)] = self._changed(_way=self._way.bound(holder), _bound_to=(self, holder))
            return found

    def __set_name__(self, owner: type, name: str) -> None:
        if self._way.is_stray and inspect.signature(self._function).parameters:
            raise ConfigurationError(
                f"{owner.__name__}.{name}: call the first parameter of a method self, or write @tool above @staticmethod."
            )
        above = overridden(owner, name)
        if above is not None:
            setattr(owner, name, self._changed(_settings=self._settings.overriding(above)))

    def __eq__(self, other: object) -> bool:
        if self._bound_to is None or not isinstance(other, Tool) or other._bound_to is None:
            return self is other
        return all(mine is its for mine, its in zip(self._bound_to, other._bound_to, strict=True))

    def __hash__(self) -> int:
        return object.__hash__(self) if self._bound_to is None else hash(tuple(map(id, self._bound_to)))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Itself, as of a function; that of an object is the tool of the object's copy."""
        if self._bound_to is not None and not self._bound_to[0]._way.is_of_class:
            unbound, holder = self._bound_to
            return unbound.__get__(copy.deepcopy(holder, memo))
        function = copy.deepcopy(self._way.function, memo)
        return self if function is self._way.function else self._changed(_way=replace(self._way, function=function))

    def __replace__(self, /, **settings: Any) -> Tool[P, R_co]:
        """A tool of this one with other settings: ``copy.replace``."""
        return Tool(self, **settings)

    def _check_runnable(self) -> None:
        """Refuse what could not be run, or would hide a tool: for whoever takes tools and runs them later.

        Raises:
            ConfigurationError: It is a method without its object; or it names a tool that needs approval, and needs none.
        """
        self._running.check_has_object()
        self._check_hides_nothing()

    def _changed(self, **members: Any) -> Any:
        """The same tool but for some of its members."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__, _tools=WeakValueDictionary(), _reaches=None, **members)
        made.__dict__["__wrapped__"] = made._way.function
        made._running = made._as_running()
        return made

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validate a model's arguments without calling the function.

        Args:
            arguments: Name -> value, as the model sent them.

        Returns:
            The same, without those that are not the model's to fill.

        Raises:
            ToolArgumentError: They do not fit.
        """
        own = self._running.own(arguments)
        self._read.finished().arguments.validate(own)
        return own

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
        return self._read.finished().arguments.completed(self._running.own(arguments))

    async def run(self, arguments: Mapping[str, Any], *, session: Session | None = None, is_approved: bool = False) -> Any:
        """Validate a model's arguments and call the function; a sync one runs in a thread, with its context variables.

        It is one of the calls on its session, as ``ToolRunner`` describes them: it sees the session as its own, waits for those
        that write before it, and what it did is kept if it returns.

        Args:
            arguments: Name -> value, as the model sent them.
            session: None takes the session of the turn that is running. Where no turn is running, a parameter that may be None is
                None.
            is_approved: Whether a person has approved it, where that is needed.

        Returns:
            What the function returns; of a generator, a list of what it yields.

        Raises:
            ToolApprovalError: It needs approval, and has none. It did not run.
            ToolArgumentError: The arguments do not fit. The function did not run.
            ToolTimeoutError: It took longer than it may.
            ToolConflictError: It declares no session and has written it, after another call had changed what it read.
            SessionAliasError, SessionValueError: What it did to the session cannot be written.
            ConfigurationError: The function takes a session, and there is none; or it is a method without its object; or it would
                wait for a stream that this very task is reading.
        """
        found = session if isinstance(session, Session) else self._session_of(session)
        if found is None:
            self._running.check_approval(is_approved=is_approved)
            with contained():
                return await self._running.collected(arguments, None, is_approved=is_approved)
        value, _ = await OpenCall(self._running, found, writes=self.writes_session).run(arguments, is_approved=is_approved)
        return value

    async def stream(
        self, arguments: Mapping[str, Any], *, session: Session | None = None, is_approved: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Run it, and give what it yields as it comes; of a function that is no generator, its one result.

        What it did is kept when it has ended by itself. Whoever stops early closes it, with ``contextlib.aclosing``; then nothing
        is kept. While the stream of a writer is read, the same task cannot run another writer. Arguments and errors are those of
        ``run``, but for the timeout, which is the reader's here.
        """
        found = self._session_of(session)
        if found is None:
            self._running.check_approval(is_approved=is_approved)
            pieces = self._running.pieces(arguments, None, is_approved=is_approved)
        else:
            call = OpenCall(self._running, found, writes=self.writes_session, is_read=True)
            pieces = call.stream(arguments, is_approved=is_approved)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    def _session_of(self, given: Session | None) -> Session | None:
        """The session that was given, or that of the turn; None where there is none and it needs none."""
        if given is not None:
            return require_session(given, "session=")
        found = find_session()
        return current_session() if found is None and self._read.finished().plan.needs_session else found

    def _check_hides_nothing(self) -> None:
        """Refuse a function that would run a tool which needs approval, and says nothing of its own approval."""
        if self._settings.requires_approval is not None:
            return
        for item in named(self._function):
            if is_tool(item) and item.requires_approval:
                raise ConfigurationError(
                    f"{self.name} names {item.name}, which needs the approval of a person. Give {self.name} "
                    f"requires_approval=True; or requires_approval=False, and then a call of {item.name} in it fails. A decorator "
                    "stands below @tool, or keeps the tool with functools.wraps."
                )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let a field hold a tool; and tell whoever takes a tool for a type, or for a plain function, what to write."""
        if not is_tool(source):
            return core_schema.is_instance_schema(cls)
        raise ConfigurationError(
            describe_framework(f"What {source.name} takes of a session")
            or f"{source.name} is a tool of dcaf's, and no type: `{source.name}.check(arguments)` validates what it takes."
        )

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
    strict: bool | None = None,
    requires_approval: bool | None = None,
    parallel: bool | None = None,
    timeout: timedelta | None = None,
) -> Callable[[Callable[P, R_co]], Tool[P, R_co]]: ...


def tool(function: Any = NOT_GIVEN, /, **settings: Any) -> Any:
    """Make a tool of a function: ``@tool``, or ``@tool(name=..., timeout=...)`` with any of the settings of ``Tool``.

    A tool without further settings is that tool.

    Raises:
        ConfigurationError: As ``Tool``.
    """
    if function is NOT_GIVEN:
        Settings(**settings)  # what is wrong with them is said where they stand
        return functools.partial(tool, **settings)
    if not settings and is_tool(function):
        return function
    return Tool(function, **settings)


def _check_is_no_method_of_tool(function: Any) -> None:
    for layer in layers(function):
        holder: Any = layer.__self__ if isinstance(layer, MethodType) else None
        if is_tool(holder):
            raise ConfigurationError(f"{layer.__name__} is a method of the tool {holder.name}: pass the tool itself.")


def is_tool(value: object) -> bool:
    """Whether it is a tool; asked of its type, since a proxy answers for another object."""
    return issubclass(type(value), Tool)
