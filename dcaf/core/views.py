"""Typed sessions: a subclass of Session with annotations is a view of the same keys.

>>> from dcaf.core.session import Session
>>> class Deploy(Session):
...     step: int = 1
...     services: list[str] = []
>>> session = Session()
>>> Deploy.of(session).services.append("api")
>>> session.to_dict()
{'services': ['api']}

What a reader gets wrong: a default is not stored until it changes, so an untouched view modifies nothing.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from copy import deepcopy
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_origin, get_type_hints

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dcaf.core.adapters import adapter
from dcaf.core.errors import ConfigurationError, SessionTypeError
from dcaf.core.paths import misfit
from dcaf.core.state import RESERVED

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations
else:
    from inspect import get_annotations

if TYPE_CHECKING:
    from dcaf.core.mapping import StateMapping

NO_DEFAULT: Final = object()


class Field:
    """One annotated name of a typed session: read, validated and written as its type.

    Args:
        owner: The class that declares it.
        name: The attribute and the key.
        default: What an absent key reads as, copied for each session. ``NO_DEFAULT``: reading it raises AttributeError.
        as_type: The annotation with its metadata; None where it cannot be evaluated before it is used.
    """

    def __init__(self, owner: type, name: str, default: Any, as_type: Any) -> None:
        self._owner = owner
        self._name = name
        self._default = default
        self._as_type = as_type

    @property
    def as_type(self) -> Any:
        """The annotation, evaluated.

        Raises:
            ConfigurationError: It names something that cannot be found.
        """
        if self._as_type is None:
            self._as_type = _late_hints(self._owner)[self._name]
        return self._as_type

    def __get__(self, session: StateMapping | None, owner: type) -> Any:
        if session is None:
            return self
        if self._default is not NO_DEFAULT:
            return session.get(self._name, deepcopy(self._default), as_type=self.as_type)
        if self._name in session:
            return session.get(self._name, as_type=self.as_type)
        raise AttributeError(f"{owner.__name__}.{self._name} is not set and has no default")

    def __set__(self, session: StateMapping, value: Any) -> None:
        try:
            validated = adapter(self.as_type).validate_python(value, by_alias=True, by_name=True)
        except ValidationError as error:
            raise SessionTypeError(misfit(self._name, self.as_type, error)) from None
        session._state.put_validated(self._name, validated, value, as_type=self.as_type)

    def __delete__(self, session: StateMapping) -> None:
        del session[self._name]


def fields_of(cls: type, base: type, namespace: dict[str, Any]) -> dict[str, Field]:
    """The fields that a class declares itself: its public annotations that are no ClassVar.

    Args:
        cls: A subclass of Session.
        base: Session itself, whose attributes no field may hide.
        namespace: The local names around the class statement.

    Raises:
        ConfigurationError: A field would hide an attribute of Session, or has a pydantic ``Field`` as its default.
    """
    hints = _early_hints(cls, namespace)
    declared = {name: hint for name, hint in _annotations(cls).items() if not name.startswith("_") and not _is_class_variable(hint)}
    for name in declared:
        _check(cls, base, name)
    return {name: Field(cls, name, vars(cls).get(name, NO_DEFAULT), hints.get(name)) for name in declared}


def locals_around(frame: FrameType | None) -> dict[str, Any]:
    """The local names around a class statement, seen from below its metaclass."""
    while frame is not None and frame.f_globals.get("__name__") == ABCMeta.__module__:
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


def _check(cls: type, base: type, name: str) -> None:
    if name == RESERVED:
        raise ConfigurationError(f"{cls.__name__}.{name}: that key is the library's own. Call the field something else.")
    if hasattr(base, name):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: Session has an attribute of that name. Call the field {name}_value, or use session[{name!r}]."
        )
    if isinstance(vars(cls).get(name), FieldInfo):
        raise ConfigurationError(
            f"{cls.__name__}.{name}: write the default itself, and pydantic's Field into the annotation: "
            f"{name}: Annotated[..., Field(...)] = default. A mutable default is copied for each session."
        )


def _annotations(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        return get_annotations(cls, format=Format.FORWARDREF)
    return get_annotations(cls)


def _is_class_variable(hint: Any) -> bool:
    if isinstance(hint, str):
        return hint.replace("typing.", "").startswith("ClassVar")
    return hint is ClassVar or get_origin(hint) is ClassVar


def _early_hints(cls: type, namespace: dict[str, Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls, localns=namespace, include_extras=True)
    except NameError:
        return {}


@cache
def _late_hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"{cls.__name__}: the annotation names {error.name!r}, which cannot be found. Import it in the module where "
            "the class is defined, outside `if TYPE_CHECKING:`."
        ) from None
