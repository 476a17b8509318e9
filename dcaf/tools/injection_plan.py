"""Which parameters of a function dcaf fills itself: read once when it is decorated, filled at each call.

>>> from dcaf.core.session import Session
>>> def greet(name: str, session: Session) -> str: ...
>>> plan = Plan.of(greet)
>>> list(plan.injected), [parameter.name for parameter in plan.open]
(['session'], ['name'])

What a reader gets wrong: the annotation decides, by identity. Another library's ``Session`` is not ours, and a parameter
named ``session`` that is annotated as something else is an ordinary one.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any, Final

from pydantic.fields import FieldInfo

from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.annotations import Names, Unresolved
from dcaf.tools.callables import find_decided, find_default_factory, label
from dcaf.tools.injectables import RESERVED, Fill, find_fill, find_fill_by_name, format_annotation, is_injectable, unset

if sys.version_info >= (3, 14):
    from annotationlib import Format

REST: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with each parameter.

    Attributes:
        injected: Name -> what dcaf puts there.
        open: The others, which the model fills, in the order of the signature, their annotations evaluated.
        rest: ``*args`` and ``**kwargs``, which nobody fills.
        positional: Name -> default of those that can only be passed by position, in order.
        made: Name -> what makes the default of an open one for each call that leaves it out, where a call could change it.
        lost: Name -> what its annotation names that cannot be found. Such a parameter is open, to any JSON value.
        reasons: Name -> what in the signature asks for the injection.
        writes: Whether something of it takes the session to write.
    """

    injected: Mapping[str, Fill]
    open: tuple[Parameter, ...]
    rest: tuple[Parameter, ...]
    positional: tuple[tuple[str, Any], ...]
    made: tuple[tuple[str, Callable[[], Any]], ...]
    lost: Mapping[str, str]
    reasons: Mapping[str, str]
    writes: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "writes", any(fill.writes for fill in self.injected.values()))

    @classmethod
    def of(cls, function: Callable[..., Any], names: Names | None = None, *, waits: bool = False, is_named: bool = True) -> Plan:
        """Read a signature.

        Args:
            function: What is to be called.
            names: Where its annotations look for names; None takes what the function itself knows.
            waits: It was written in a class, and its first parameter is the object that it waits for.
            is_named: Whether the signature must name what the model fills; False where a schema by hand does.

        Raises:
            ConfigurationError: A parameter can be filled by nobody, its default cannot be copied, or all of them are hidden behind
                ``*args`` and ``**kwargs``.
        """
        names = names or Names.of(function)
        parameters = _parameters(function)[1 if waits else 0 :]
        rest = tuple(item for item in parameters if item.kind in REST)
        if is_named and rest and len(rest) == len(parameters):
            raise ConfigurationError(
                f"{label(function)}: {_star(rest[0])} has no names that a model could fill. Declare the parameters; a decorator "
                "keeps those of its function with functools.wraps."
            )
        read = [_read_parameter(label(function), item, names) for item in parameters]
        named = [item for item in read if item.parameter.kind not in REST]
        free = tuple(item.parameter for item in named if item.fill is None)
        return cls(
            {item.parameter.name: item.fill for item in named if item.fill is not None},
            free,
            tuple(item.parameter for item in read if item.parameter.kind in REST),
            tuple((item.name, item.default) for item in parameters if item.kind is item.POSITIONAL_ONLY),
            tuple(_default_factories(label(function), free)),
            {item.parameter.name: item.lost for item in named if item.lost is not None},
            {item.parameter.name: _reason(item.parameter) for item in named if item.fill is not None},
        )

    @property
    def hidden(self) -> frozenset[str]:
        """The names under which a model may send nothing: those of what dcaf fills, and the reserved ones that are not open."""
        return frozenset({*self.injected, *RESERVED} - {parameter.name for parameter in self.open})

    @property
    def declares_session(self) -> bool:
        """Whether something of it takes the session, or one of its keys, be it to read."""
        return any(fill.takes_session for fill in self.injected.values())

    @property
    def needs_session(self) -> bool:
        """Whether it cannot be called without one."""
        return any(fill.needs_session for fill in self.injected.values())

    def call(self, function: Callable[..., Any], values: dict[str, Any], session: Session | None) -> Any:
        """Call the function with the model's values, and the session in every parameter that takes one.

        Args:
            function: The one that the plan is of, or the same bound to an object.
            values: The model's, validated; they become this call's own.
            session: None where no session is running: then what may be None is.

        Raises:
            ConfigurationError: It takes a session, and there is none.
        """
        if session is None:
            self._check_needless(function)
        for name, fill in self.injected.items():
            values[name] = fill(session)
        for name, make in self.made:
            if name not in values:
                values[name] = make()
        if not self.positional:
            return function(**values)
        return function(*[values.pop(name, default) for name, default in self.positional], **values)

    def _check_needless(self, function: Callable[..., Any]) -> None:
        if self.needs_session:
            raise ConfigurationError(f"{label(function)} takes a session: pass session=, or run it below SessionMiddleware.")


@dataclass(frozen=True, slots=True)
class _ReadParameter:
    """One parameter: its annotation evaluated, what fills it (None: the model), and what its annotation has lost, if anything."""

    parameter: Parameter
    fill: Fill | None = None
    lost: str | None = None


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    try:
        if sys.version_info >= (3, 14):
            found = inspect.signature(function, annotation_format=Format.FORWARDREF)
        else:
            found = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{label(function)}: its parameters cannot be read: {error}.") from None
    names = find_decided(function)
    return [item for item in found.parameters.values() if item.name not in names]


def _read_parameter(tool: str, parameter: Parameter, names: Names) -> _ReadParameter:
    where = f"{tool}: the annotation of {parameter.name!r}"
    if parameter.kind in REST and parameter.name in RESERVED:
        raise ConfigurationError(f"{tool}: {_star(parameter)} is filled by nobody. Declare {parameter.name!r} without the stars.")
    try:
        if parameter.annotation is unset:
            return _ReadParameter(parameter, find_fill_by_name(parameter.name, unset, parameter.default))
        found = parameter.replace(annotation=names.evaluate(parameter.annotation, where=where))
        asked = found.annotation, parameter.default
        fill = find_fill(*asked) or find_fill_by_name(parameter.name, *asked)
    except Unresolved as lost:
        return _read_unresolved(where, parameter, names, lost.name)
    except NameError as error:  # in the value of an alias, which Python reads late
        return _read_unresolved(where, parameter, names, str(error.name))
    except ConfigurationError as error:
        message = str(error)
        raise ConfigurationError(message if message.startswith(where) else f"{where} {message}") from None
    if fill is not None and parameter.kind in REST:
        raise ConfigurationError(f"{where}: {_star(parameter)} is never filled with sessions. Declare one parameter for each.")
    return _ReadParameter(found, fill)


def _default_factories(tool: str, parameters: Iterable[Parameter]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What makes the defaults that a call could change; those in a pydantic ``Field`` are made where arguments are validated."""
    for parameter in parameters:
        if parameter.default is unset or isinstance(parameter.default, FieldInfo):
            continue
        try:
            make = find_default_factory(parameter.default)
        except ConfigurationError as error:
            raise ConfigurationError(f"{tool}: the parameter {parameter.name!r} {error}") from None
        if make is not None:
            yield parameter.name, make


def _reason(parameter: Parameter) -> str:
    if parameter.annotation is unset:
        return f"has no annotation and is named {parameter.name}"
    return f"annotated as {format_annotation(parameter.annotation)}"


def _read_unresolved(where: str, parameter: Parameter, names: Names, name: str) -> _ReadParameter:
    """A parameter whose annotation cannot be resolved: any JSON value, unless it could be meant for the session."""
    hidden = names.find_hidden(parameter.annotation)
    if hidden is not None and names.is_last:
        raise ConfigurationError(
            f"{where} names {hidden!r}, which is defined where dcaf cannot see it, and might be a session. Define it in the "
            "module, or decorate the function where it is written."
        )
    is_meant = parameter.name in RESERVED or any(is_injectable(part) for part in names.find_parts(parameter.annotation))
    if is_meant and names.is_last:
        raise ConfigurationError(f"{where} names {name!r}, which cannot be found. Import it in the function's module.")
    return _ReadParameter(parameter.replace(annotation=Any), None, name)


def _star(parameter: Parameter) -> str:
    return f"{'**' if parameter.kind is parameter.VAR_KEYWORD else '*'}{parameter.name}"
