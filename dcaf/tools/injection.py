"""Which parameters of a function dcaf fills itself: read once when it is decorated, filled at each call.

>>> def greet(name: str, session: Session) -> str: ...
>>> plan = Plan.of(greet)
>>> list(plan.injected), [parameter.name for parameter in plan.open]
(['session'], ['name'])

What a reader gets wrong: the annotation decides, by identity. Another library's ``Session`` is not ours, and a parameter
named ``session`` that is annotated as something else is an ordinary one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session

UNNAMED: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with each parameter.

    Attributes:
        injected: Name -> the class of session that it gets.
        open: The others, which the model fills, in the order of the signature, their annotations evaluated.
        positional: Name -> default of those that can only be passed by position, in order.
    """

    injected: Mapping[str, type[Session]]
    open: tuple[inspect.Parameter, ...]
    positional: Mapping[str, Any]

    @classmethod
    def of(cls, function: Callable[..., Any], around: Mapping[str, Any] | None = None) -> Plan:
        """Read a signature.

        Args:
            function: What is to be called.
            around: The local names where it was decorated, which its annotations may use.

        Raises:
            ConfigurationError: An annotation cannot be evaluated, or a parameter has no name for the model to use.
        """
        parameters = [
            _evaluated(function, parameter, around or {}) for parameter in inspect.signature(function).parameters.values()
        ]
        kinds = {parameter.name: _session_class(parameter) for parameter in parameters}
        return cls(
            {name: kind for name, kind in kinds.items() if kind is not None},
            tuple(parameter for parameter in parameters if kinds[parameter.name] is None),
            {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY},
        )

    def call(self, function: Callable[..., Any], values: Mapping[str, Any], session: Session | None) -> Any:
        """Call the function with the model's values, and the session in every parameter that takes one.

        Raises:
            ConfigurationError: It takes a session, and there is none.
        """
        if self.injected and session is None:
            raise ConfigurationError(f"{function.__name__} takes a session: pass session=, or run it below SessionMiddleware.")
        named = dict(values)
        for name, kind in self.injected.items():
            assert session is not None
            named[name] = session if type(session) is kind else kind.of(session)
        return function(*[named.pop(name, default) for name, default in self.positional.items()], **named)


def _evaluated(function: Callable[..., Any], parameter: inspect.Parameter, around: Mapping[str, Any]) -> inspect.Parameter:
    if _is_unbound_self(function, parameter):
        raise ConfigurationError(f"{_name(function)}: a method is made a tool where it is bound: tool(thing.{_name(function)}).")
    if parameter.kind in UNNAMED:
        raise ConfigurationError(
            f"{_name(function)}: *{parameter.name} has no names that a model could fill. Declare the parameters."
        )
    plain = inspect.unwrap(function)
    names = {**getattr(plain, "__globals__", {}), **around, **_nonlocals(plain)}
    try:
        return parameter.replace(annotation=_value(parameter.annotation, names))
    except NameError as error:
        raise ConfigurationError(
            f"{_name(function)}: the annotation of {parameter.name!r} names {error.name!r}, which cannot be found. Import it in "
            "the function's module, outside `if TYPE_CHECKING:`."
        ) from None
    except (AttributeError, SyntaxError, TypeError) as error:
        raise ConfigurationError(f"{_name(function)}: the annotation of {parameter.name!r} cannot be evaluated: {error}.") from None


def _is_unbound_self(function: Callable[..., Any], parameter: inspect.Parameter) -> bool:
    """Whether this is the first parameter of a function in the body of a class."""
    around = getattr(function, "__qualname__", "").rpartition(".")[0]
    in_class = around != "" and not around.endswith("<locals>") and inspect.isfunction(function)
    return in_class and parameter.name in {"self", "cls"} and parameter.annotation is parameter.empty


def _value(annotation: Any, names: dict[str, Any]) -> Any:
    """The annotation itself, with whatever is quoted in it; under PEP 563 all of it is."""
    holder = type("Holder", (), {"__annotations__": {"value": annotation}})
    return get_type_hints(holder, names, include_extras=True)["value"]


def _nonlocals(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return dict(inspect.getclosurevars(function).nonlocals)
    except TypeError:  # a callable object has no closure
        return {}


def _session_class(parameter: inspect.Parameter) -> type[Session] | None:
    if parameter.annotation is inspect.Parameter.empty:
        return Session if parameter.name == "session" else None
    return _class_in(parameter.annotation)


def _class_in(annotation: Any) -> type[Session] | None:
    """The session class of ``Session``, ``Session | None``, ``Optional[Session]`` and ``Annotated[Session, ...]``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _class_in(get_args(annotation)[0])
    if origin in (Union, UnionType):
        others = [item for item in get_args(annotation) if item is not type(None)]
        return _class_in(others[0]) if len(others) == 1 else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Session) else None


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)
