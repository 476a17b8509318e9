"""Typed sessions: a subclass of Session with annotations, generic or not, is a view of the same keys.

Typed sessions: a subclass of Session with annotations is a view of the same keys.

>>> from dcaf.core.session import Session
>>> class Deploy(Session):
...     step: int = 1
...     services: list[str] = []
>>> session = Session()
>>> Deploy.of(session).services.append("api")
>>> session.to_dict()
{'services': ['api']}

What a reader gets wrong: a default is not stored until it changes, so an untouched view modifies nothing.

Generic typed sessions: ``class Basket(Session, Generic[Item])``, and ``Basket[int]``, which is a class of its own.

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

import dataclasses
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from inspect import getattr_static
from types import FrameType, UnionType, new_class
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Protocol, TypeVar, Union, get_args, get_origin
from weakref import WeakSet

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typing_extensions import NoDefault

from dcaf.core.annotations import annotations_of, is_constant_hint, need_hint, read_hint
from dcaf.core.class_attributes import check_attribute, check_class, has_attribute
from dcaf.core.errors import ConfigurationError
from dcaf.core.handles import IMMUTABLE
from dcaf.core.json_values import fit, from_json, to_json, write
from dcaf.core.mapping import StateMapping, state_of
from dcaf.core.slots import RESERVED

if TYPE_CHECKING:
    Metaclass = ABCMeta
else:
    Metaclass = type(Protocol)  # of abstract classes too; so a typed session may say which protocol it has

NO_DEFAULT: Final = object()
MAKES_CLASSES: Final = frozenset({"abc", "typing", "typing_extensions"})
"""Modules whose frames stand between a class statement and its metaclass."""


class SessionType(Metaclass):
    """The class of session classes: what is set on one later is checked like what was in it from the beginning."""

    if not TYPE_CHECKING:  # they would take it for a class on which anything may be set
        __instancecheck__ = ABCMeta.__instancecheck__  # that of protocols asks every class whether it is one
        __subclasscheck__ = ABCMeta.__subclasscheck__

        def __setattr__(cls, name: str, value: object) -> None:  # noqa: N805 - this is a metaclass
            if isinstance(getattr(cls, name, None), Field) and not isinstance(value, Field):
                raise ConfigurationError(
                    f"{cls.__name__}.{name} = ... would write it for all users. Write it on the session: session.{name} = ..."
                )
            check_attribute(cls, name, value, allowed=Field, is_declared=False)
            super().__setattr__(name, value)


class Field:
    """One annotated name of a typed session: read, validated and written as its type.

    Args:
        name: The attribute and the key.
        default: What an absent key reads as, made anew for each session. ``NO_DEFAULT``: reading it raises AttributeError.
        find_type: Gives the annotation with its metadata; it is asked at the first use, when everything is there that it names.
    """

    def __init__(self, name: str, default: Any, find_type: Callable[[], Any]) -> None:
        self._name = name
        self._default = default
        self._find_type = find_type
        self._as_type: Any = None
        self._written: bytes | None = None

    @property
    def as_type(self) -> Any:
        """The annotation, evaluated.

        Raises:
            ConfigurationError: It names something that cannot be found.
        """
        if self._as_type is None:
            self._as_type = self._find_type()
        return self._as_type

    def of_type(self, change: Callable[[Any], Any]) -> Field:
        """The same field of another type, which is made of its own."""
        return Field(self._name, self._default, lambda: change(self.as_type))

    def __get__(self, session: StateMapping | None, owner: type) -> Any:
        if session is None:
            return self
        slot = state_of(session).find(self._name)
        if slot is not None and slot.data is not None:
            return session.get(self._name, as_type=self.as_type)
        if self._default is not NO_DEFAULT:
            return session.get(self._name, self._new_default(), as_type=self.as_type)
        raise AttributeError(f"{owner.__name__}.{self._name} is not set and has no default")

    def __set__(self, session: StateMapping, value: Any) -> None:
        validated = fit(value, self.as_type, path=self._name)
        state_of(session).put_validated(self._name, validated, value, as_type=self.as_type)

    def __delete__(self, session: StateMapping) -> None:
        del session[self._name]

    def _new_default(self) -> Any:
        """The default as it would come back from a session: no part of it is the object that stands in the class."""
        if isinstance(self._default, IMMUTABLE):
            return self._default
        if self._written is None:
            self._written = write(to_json(self._default, self.as_type, path=self._name))
        return from_json(self._written, self.as_type, path=self._name)


def declare(cls: type, base: type, namespace: Mapping[str, Any]) -> None:
    """Make fields of the public annotations of a class, and refuse what is neither a field, nor a method, nor a constant.

    Args:
        cls: A subclass of Session that was just made.
        base: Session itself, whose attributes no field may hide.
        namespace: The local names around the class statement.

    Raises:
        ConfigurationError: Something in the class would be shared by all users, or cannot be a field; the message says what
            to write.
    """
    for name, field in _fields(cls, base, namespace):
        setattr(cls, name, field)
    check_class(cls, base, allowed=Field, namespace=namespace)


def refuse_fields(cls: type, base: type, namespace: Mapping[str, Any]) -> None:
    """Refuse what ``declare`` refuses, and fields as well: of a class that reads, and has none.

    Raises:
        ConfigurationError: As ``declare``, or there is a field.
    """
    for name, _ in _fields(cls, base, namespace):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: a {base.__name__} has no fields. Read session.get({name!r}, as_type=...), or declare it in a "
            "subclass of Session."
        )
    check_class(cls, base, allowed=Field, namespace=namespace)


def locals_around(frame: FrameType | None) -> Mapping[str, Any]:
    """The local names around a class statement, seen from below its metaclass."""
    while frame is not None and frame.f_globals.get("__name__") in MAKES_CLASSES:
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


def _fields(cls: type, base: type, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Field]]:
    for name, written in annotations_of(cls).items():
        hint = read_hint(cls, name, namespace)
        if name.startswith("_") or is_constant_hint(written if hint is None else hint):
            continue
        _check(cls, base, name)
        yield name, Field(name, vars(cls).get(name, NO_DEFAULT), _finder(cls, name, hint))


def _finder(cls: type, name: str, hint: Any) -> Callable[[], Any]:
    """What gives the type of a field: at once where it is known, else when it is asked."""
    if hint is None:
        return lambda: _without_default(cls, name, need_hint(cls, name))
    found = _without_default(cls, name, hint)
    return lambda: found


def _check(cls: type, base: type, name: str) -> None:
    if name == RESERVED:
        raise ConfigurationError(f"{cls.__name__}.{name}: that key is the library's own. Call the field something else.")
    if has_attribute(base, name):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: {base.__name__} has an attribute of that name. Call the field {name}_value, or use "
            f"session[{name!r}]."
        )
    default = vars(cls).get(name)
    if isinstance(default, FieldInfo | dataclasses.Field):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: write the default itself, and pydantic's Field into the annotation: "
            f"{name}: Annotated[..., Field(...)] = default. A mutable default is copied for each session."
        )
    if callable(default) or hasattr(type(default), "__get__"):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: the default is a {type(default).__name__}, which no session can hold. Write the value itself, "
            f"as in {name}: list[str] = []. It is copied for each session."
        )


def _without_default(cls: type, name: str, hint: Any) -> Any:
    """An annotation, in which no default may stand: it would be a second place for it.

    Raises:
        ConfigurationError: There is one.
    """
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    if any(isinstance(item, FieldInfo) and not item.is_required() for item in metadata):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: the default stands in pydantic's Field. Write it after the annotation: "
            f"{name}: Annotated[..., Field(...)] = default."
        )
    return hint


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
