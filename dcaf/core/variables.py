"""Generic typed sessions: ``class Basket(Session, Generic[Item])``, and ``Basket[int]``, which is a class of its own.

>>> from typing import Generic, TypeVar
>>> from dcaf.core.session import Session
>>> Item = TypeVar("Item")
>>> class Basket(Session, Generic[Item]):
...     numbers: list[Item] = []
>>> session = Session()
>>> Basket[int].of(session).numbers.append(7)
>>> session.to_dict(), Basket[int] is Basket[int]
({'numbers': [7]}, True)

What a reader gets wrong: ``Basket`` without brackets takes any item, as ``list`` does.
"""

from __future__ import annotations

from functools import lru_cache
from inspect import getattr_static
from types import UnionType, new_class
from typing import Any, Final, Generic, TypeVar, Union, get_args, get_origin
from weakref import WeakSet

from pydantic import BaseModel
from typing_extensions import NoDefault

from dcaf.core.errors import ConfigurationError
from dcaf.core.typed import Field

_made: Final[WeakSet[type]] = WeakSet()


def parametrise(cls: type, arguments: Any) -> type:
    """A generic typed session with its type variables replaced: a class of its own, the same one each time.

    Raises:
        ConfigurationError: The class has no type variables, or another number of them; or an argument is no type.
    """
    given = arguments if isinstance(arguments, tuple) else (arguments,)
    try:
        return _parametrised(cls, given, repr(given))
    except TypeError:  # an argument that cannot be hashed
        return _parametrised.__wrapped__(cls, given, "")


def keep_variables(cls: type) -> None:
    """Let a subclass of ``Basket[Other]`` have its type variables, as a subclass of any other generic class has."""
    if not getattr(cls, "__parameters__", ()):
        inherited = [getattr(base, "__parameters__", ()) for base in cls.__bases__ if base in _made]
        _set_variables(cls, tuple(dict.fromkeys(each for found in inherited for each in found)))


@lru_cache(maxsize=1024)
def _parametrised(cls: type, arguments: tuple[Any, ...], _spelled: str) -> type:
    """As ``parametrise``; spelled too, because ``int | str`` and ``str | int`` are equal, and are read in another order."""
    types = _types(cls, arguments)
    free = tuple(dict.fromkeys(each for argument in types.values() for each in _variables(argument)))
    bases = (cls, Generic[free]) if free else (cls,)  # type: ignore[index]  # mypy knows only variables that stand there
    names = ", ".join(each.__name__ if isinstance(each, type) else str(each) for each in types.values())
    made = new_class(f"{cls.__name__}[{names}]", bases, exec_body=lambda body: body.update(__module__=cls.__module__))
    _set_variables(made, free)
    _made.add(made)
    for name in dir(cls):
        field = getattr_static(cls, name, None)
        if isinstance(field, Field):
            setattr(made, name, field.of_type(lambda as_type: _replaced(as_type, types)))
    return made


def _types(cls: type, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Each type variable of a class, and what stands for it."""
    variables = getattr(cls, "__parameters__", ())
    if not variables or not all(isinstance(each, TypeVar) for each in variables):
        raise ConfigurationError(
            f"{cls.__name__}[...]: {cls.__name__} has no type variables to replace. Declare fields in a subclass, "
            "`class Deploy(Session): step: int = 1`, or variables, `class Basket(Session, Generic[Item])`."
        )
    otherwise = [getattr(each, "__default__", NoDefault) for each in variables[len(arguments) :]]
    if len(arguments) > len(variables) or NoDefault in otherwise:
        raise ConfigurationError(f"{cls.__name__}[...] takes {len(variables)} types, and has {len(arguments)}.")
    if any(isinstance(each, str) for each in arguments):
        raise ConfigurationError(f"{cls.__name__}[...] takes types, not their names: write {cls.__name__}[Item] below the type.")
    return dict(zip(variables, (*arguments, *otherwise), strict=True))


def _replaced(hint: Any, types: dict[Any, Any]) -> Any:
    """A type with other types in the place of its variables, however deep they stand."""
    if isinstance(hint, TypeVar):
        return types.get(hint, hint)
    inner = _inner(hint)
    found = tuple(_replaced(each, types) for each in inner)
    if all(one is other for one, other in zip(found, inner, strict=True)):
        return hint
    origin = get_origin(hint) or hint
    return Union[found] if origin in (Union, UnionType) else origin[found]  # noqa: UP007 - as many as there are


def _variables(hint: Any) -> tuple[Any, ...]:
    """The type variables in a type, each once, as they stand."""
    if isinstance(hint, TypeVar):
        return (hint,)
    return tuple(dict.fromkeys(each for part in _inner(hint) for each in _variables(part)))


def _inner(hint: Any) -> tuple[Any, ...]:
    """What stands in the brackets of a type; of a generic model, which pydantic makes a class, the variables that are left."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return tuple(hint.__pydantic_generic_metadata__["parameters"])
    return get_args(hint)


def _set_variables(cls: type, variables: tuple[Any, ...]) -> None:
    cls.__parameters__ = variables  # type: ignore[attr-defined]  # as of every generic class
