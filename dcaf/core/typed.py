"""Typed sessions: a subclass of Session with annotations, generic or not, is a view of the same keys.

>>> from typing import Generic, TypeVar
>>> from dcaf.core.session import Session
>>> class Deploy(Session):
...     step: int = 1
...     services: list[str] = []
>>> Item = TypeVar("Item")
>>> class Basket(Session, Generic[Item]):
...     numbers: list[Item] = []
>>> session = Session()
>>> Deploy.of(session).services.append("api")
>>> Basket[int].of(session).numbers.append(7)
>>> session.to_dict(), Basket[int] is Basket[int]
({'services': ['api'], 'numbers': [7]}, True)

What a reader gets wrong: a default is not stored until it changes, so an untouched view modifies nothing.
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
    Metaclass = type(Protocol)  # a subclass of ABCMeta, so that a typed session may name a protocol as its base

NO_DEFAULT: Final = object()
_made: Final[WeakSet[type]] = WeakSet()
MAKES_CLASSES: Final = frozenset({"abc", "typing", "typing_extensions"})
"""Modules whose frames lie between a class statement and its metaclass."""


class SessionType(Metaclass):
    """The metaclass of sessions: an attribute that is set on a class later is checked like one of its body."""

    if not TYPE_CHECKING:  # type checkers would allow any attribute because of __setattr__
        __instancecheck__ = ABCMeta.__instancecheck__  # the one of protocols checks every class, which is slow
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
        default: The value of an absent key, made anew for each session. ``NO_DEFAULT``: reading one raises AttributeError.
        find_type: Returns the annotation with its metadata. It is called at the first use, when all names in it are defined.
    """

    def __init__(self, name: str, default: Any, find_type: Callable[[], Any]) -> None:
        self._name = name
        self._default = default
        self._find_type = find_type
        self._as_type: Any = None
        self._written: bytes | None = None

    @property
    def as_type(self) -> Any:
        """The evaluated annotation.

        Raises:
            ConfigurationError: A name in it cannot be found.
        """
        if self._as_type is None:
            self._as_type = self._find_type()
        return self._as_type

    def of_type(self, change: Callable[[Any], Any]) -> Field:
        """The same field with another type, made from its own."""
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
        """A copy of the default as it would come back from a session, so that no session shares the object in the class."""
        if isinstance(self._default, IMMUTABLE):
            return self._default
        if self._written is None:
            self._written = write(to_json(self._default, self.as_type, path=self._name))
        return from_json(self._written, self.as_type, path=self._name)


def declare(cls: type, base: type, namespace: Mapping[str, Any]) -> None:
    """Make fields of the public annotations of a class, and refuse all other attributes but methods and constants.

    Args:
        cls: A new subclass of Session.
        base: Session itself, whose attributes no field may hide.
        namespace: The local names around the class statement.

    Raises:
        ConfigurationError: An attribute would be shared by all users, or cannot be a field; the message says what to write.
    """
    for name, field in _fields(cls, base, namespace):
        setattr(cls, name, field)
    check_class(cls, base, allowed=Field, namespace=namespace)


def refuse_fields(cls: type, base: type, namespace: Mapping[str, Any]) -> None:
    """Refuse what ``declare`` refuses, and fields as well, in a read-only class.

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


def parametrise(cls: type, arguments: Any) -> type:
    """Replace the type variables of a generic typed session; the same types give the same class.

    Raises:
        ConfigurationError: The class has no type variables, or another number of them, or an argument is no type.
    """
    given = arguments if isinstance(arguments, tuple) else (arguments,)
    try:
        return _parametrise_cached(cls, given, repr(given))
    except TypeError:  # an argument that cannot be hashed
        return _parametrise_cached.__wrapped__(cls, given, "")


def keep_variables(cls: type) -> None:
    """Give a subclass of ``Basket[Other]`` the type variables of its base, as Python does for other generic classes."""
    if not getattr(cls, "__parameters__", ()):
        inherited = [getattr(base, "__parameters__", ()) for base in cls.__bases__ if base in _made]
        _set_variables(cls, tuple(dict.fromkeys(each for found in inherited for each in found)))


def _fields(cls: type, base: type, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Field]]:
    for name, written in annotations_of(cls).items():
        hint = read_hint(cls, name, namespace)
        if name.startswith("_") or is_constant_hint(written if hint is None else hint):
            continue
        _check_field(cls, base, name)
        yield name, Field(name, vars(cls).get(name, NO_DEFAULT), _type_finder(cls, name, hint))


def _type_finder(cls: type, name: str, hint: Any) -> Callable[[], Any]:
    """A function that returns the type of a field, evaluated now where that is possible, else at the first call."""
    if hint is None:
        return lambda: _require_no_default(cls, name, need_hint(cls, name))
    found = _require_no_default(cls, name, hint)
    return lambda: found


def _check_field(cls: type, base: type, name: str) -> None:
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


def _require_no_default(cls: type, name: str, hint: Any) -> Any:
    """Refuse an annotation that has a default in it.

    Raises:
        ConfigurationError: It has one.
    """
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    if any(isinstance(item, FieldInfo) and not item.is_required() for item in metadata):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: the default stands in pydantic's Field. Write it after the annotation: "
            f"{name}: Annotated[..., Field(...)] = default."
        )
    return hint


@lru_cache(maxsize=1024)
def _parametrise_cached(cls: type, arguments: tuple[Any, ...], _spelled: str) -> type:
    """As ``parametrise``. The text is a part of the key, because ``int | str`` equals ``str | int`` and reads differently."""
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
            setattr(made, name, field.of_type(lambda as_type: _replace(as_type, types)))
    return made


def _types(cls: type, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Each type variable of a class with the type that replaces it."""
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


def _replace(hint: Any, types: dict[Any, Any]) -> Any:
    """Replace the type variables in a type, at any depth."""
    if isinstance(hint, TypeVar):
        return types.get(hint, hint)
    inner = _inner(hint)
    found = tuple(_replace(each, types) for each in inner)
    if all(one is other for one, other in zip(found, inner, strict=True)):
        return hint
    origin = get_origin(hint) or hint
    return Union[found] if origin in (Union, UnionType) else origin[found]  # noqa: UP007 - as many as there are


def _variables(hint: Any) -> tuple[Any, ...]:
    """The type variables in a type, each once, in order."""
    if isinstance(hint, TypeVar):
        return (hint,)
    return tuple(dict.fromkeys(each for part in _inner(hint) for each in _variables(part)))


def _inner(hint: Any) -> tuple[Any, ...]:
    """The arguments of a generic type; of a generic model, which pydantic makes a class, the variables that are left."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return tuple(hint.__pydantic_generic_metadata__["parameters"])
    return get_args(hint)


def _set_variables(cls: type, variables: tuple[Any, ...]) -> None:
    cls.__parameters__ = variables  # type: ignore[attr-defined]  # as of every generic class
