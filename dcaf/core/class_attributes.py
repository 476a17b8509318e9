"""Check the attributes of a typed session's class: fields, methods, properties and immutable constants are allowed.

>>> is_constant(("nut", 2)), is_constant(["nut", 2])
(True, False)

What a reader gets wrong: a class is one object for all users. A list in it is no part of any session, so what a tool appends for
one user is read by all others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, partialmethod, singledispatchmethod
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from types import EllipsisType, FunctionType, MappingProxyType, MemberDescriptorType, NotImplementedType
from typing import Any, Final, Generic, Protocol
from uuid import UUID

import typing_extensions
from pydantic import BaseModel

from dcaf.core.annotations import annotations_of, constants_of
from dcaf.core.errors import ConfigurationError

SCALARS: Final = (
    *(str, bytes, int, float, complex, bool, type(None), range, EllipsisType, NotImplementedType),
    *(date, time, timedelta, tzinfo, Decimal, Fraction, UUID, IPv4Address, IPv6Address, PurePath, re.Pattern),
)
"""Types whose objects nobody can change, unless a subclass gives them attributes."""

BY_TYPE: Final[tuple[tuple[type, str], ...]] = (
    (
        MemberDescriptorType,
        "is a slot: what is written into it is lost with the view. Take it out of __slots__, and annotate it as a field.",
    ),
    (
        cached_property,
        "is a cached_property, which keeps its value for one view of the session and forgets it with the next. Write @property.",
    ),
    (
        type,
        "is a class inside the class, which all users share. Write it beside the session's class, and use it in an annotation.",
    ),
)
"""The messages for attributes of some types."""

MUTABLE: Final = (
    "is declared as a constant, and is a {kind} that can be changed: one for all users. Drop ClassVar, so that it is a field of "
    "each session, or make it a tuple, a frozenset or a MappingProxyType of constants."
)
DESCRIPTOR: Final = (
    "is a {kind}, which is no field, no method and no property, and is one object for all users. Write a method or a @property."
)
PRIVATE: Final = (
    "begins with an underscore, so that it is no field: one {kind} for all users, or lost. Give a field a name without one, or "
    "declare a constant: `{name}: ClassVar[...] = ...`."
)
BARE: Final = (
    "has no annotation, so that it is no field: one {kind} for all users. Write `{name}: ... = ...` with its type, also where "
    "it overrides a field that is inherited; for a constant `{name}: ClassVar[...] = ...`."
)

OF_TYPING: Final = frozenset({object, Generic, Protocol, typing_extensions.Protocol})
"""Bases that stand for no attributes of their own."""

WRITTEN_BY_PYTHON: Final = frozenset(
    {
        *("__dict__", "__weakref__", "__slots__", "__orig_bases__", "__parameters__", "__type_params__", "__class_getitem__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__conditional_annotations__"),
        *("__abstractmethods__", "__protocol_attrs__", "__non_callable_proto_members__", "__classdictcell__"),
        *("_abc_impl", "_is_protocol", "_is_runtime_protocol"),
    }
)
"""What Python itself, ``abc`` and ``typing`` write into a class."""


def check_class(cls: type, base: type, *, allowed: type, namespace: Mapping[str, Any]) -> None:
    """Check the attributes of a new class, and those that it inherits from classes that were never checked.

    Args:
        cls: The class.
        base: The library's own class, which is not checked, nor are its subclasses again.
        allowed: The type of the fields.
        namespace: The local names around the class statement.

    Raises:
        ConfigurationError: An attribute would be shared by all users, or lost; the message says what to write.
    """
    constants = constants_of(cls, namespace)
    for name, value in vars(cls).items():
        check_attribute(cls, name, value, allowed=allowed, is_declared=name in constants)
    for name in constants:
        if has_attribute(base, name):
            raise ConfigurationError(f"{cls.__name__}.{name}: {base.__name__} has an attribute of that name. Choose another.")
    for name in annotations_of(cls):
        if name.startswith("_") and name not in {*vars(cls), *constants}:
            raise ConfigurationError(f"{cls.__name__}.{name} {PRIVATE.format(name=name, kind='value')}")
    for mixin in _mixins(cls, base):
        _check_mixin(cls, base, mixin, allowed)


def check_attribute(cls: type, name: str, value: object, *, allowed: type, is_declared: bool) -> None:
    """Check one attribute.

    Args:
        cls: The class that has it, or gets it.
        name: Its name.
        value: The attribute.
        allowed: The type of the fields.
        is_declared: Whether it is declared as a constant.

    Raises:
        ConfigurationError: As ``check_class``.
    """
    if name in WRITTEN_BY_PYTHON or isinstance(value, allowed) or is_method(value):
        return
    if not (is_constant(value) and (is_declared or _is_dunder(name))):
        problem = _describe_problem(name, value, is_declared=is_declared)
        raise ConfigurationError(f"{cls.__name__}.{name} {problem.format(name=name, kind=type(value).__name__)}")


def has_attribute(base: type, name: str) -> bool:
    """Whether a class or one of its bases defines an attribute of a name."""
    return any(name in vars(each) for each in base.__mro__)


def is_method(value: object) -> bool:
    """Whether an attribute of a class is a function, one in a wrapper of Python's own, or a property."""
    if type(value) in (staticmethod, classmethod):
        return is_method(value.__func__)  # type: ignore[attr-defined]  # as the line above says
    if type(value) in (partialmethod, singledispatchmethod):
        return is_method(value.func)  # type: ignore[attr-defined]  # as above
    return type(value) in (FunctionType, property)


def is_constant(value: object) -> bool:
    """Whether an object and everything in it is immutable."""
    if isinstance(value, Enum):
        return is_constant(value.value)
    parts = _parts(value)
    return parts is not None and all(map(is_constant, parts))


def _parts(value: object) -> Iterator[object] | None:
    """The parts of an object that is immutable itself; None where it is not."""
    if isinstance(value, BaseModel):
        is_fixed = value.model_config.get("frozen") and not value.__pydantic_private__ and not value.__pydantic_extra__
        return iter([getattr(value, name) for name in type(value).model_fields]) if is_fixed else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        is_frozen = value.__dataclass_params__.frozen  # type: ignore[attr-defined]  # every dataclass has them
        return iter(getattr(value, field.name) for field in dataclasses.fields(value)) if is_frozen else None
    if hasattr(value, "__dict__") and not isinstance(value, tzinfo):
        return None
    if isinstance(value, SCALARS):
        return iter(())
    if isinstance(value, MappingProxyType):
        return iter([*value.keys(), *value.values()])
    return iter(value) if isinstance(value, tuple | frozenset) else None


def _mixins(cls: type, base: type) -> Iterator[type]:
    """The bases that are no sessions, and so have not been checked before."""
    known = OF_TYPING.union(base.__mro__)
    return (each for each in cls.__mro__[1:] if each not in known and not issubclass(each, base))


def _check_mixin(cls: type, base: type, mixin: type, allowed: type) -> None:
    constants = constants_of(mixin)
    for name, value in vars(mixin).items():
        try:
            check_attribute(cls, name, value, allowed=allowed, is_declared=name in constants)
        except ConfigurationError:
            raise _of_mixin(cls, base, mixin, name) from None
    for name in annotations_of(mixin):
        if name not in constants and not isinstance(getattr(cls, name, None), (allowed, property)):
            raise _of_mixin(cls, base, mixin, name)


def _of_mixin(cls: type, base: type, mixin: type, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{cls.__name__}.{name} comes from {mixin.__name__}, which is no {base.__name__}, so that no session keeps it: it would be "
        f"one for all users, or lost. Write `class {mixin.__name__}({base.__name__})`, and annotate {name} there."
    )


def _describe_problem(name: str, value: object, *, is_declared: bool) -> str:
    """What is wrong with an attribute, and what to write."""
    for kind, problem in BY_TYPE:
        if isinstance(value, kind):
            return problem
    if is_declared:
        return MUTABLE
    if hasattr(type(value), "__get__"):
        return DESCRIPTOR
    return PRIVATE if name.startswith("_") else BARE


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
