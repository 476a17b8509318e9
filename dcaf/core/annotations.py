"""The annotations of a class, each evaluated by itself, so that one that cannot be evaluated does not affect the others.

>>> class Deploy:
...     LIMIT: "ClassVar[int]" = 3
...     step: "Later" = 1
>>> read_hint(Deploy, "LIMIT"), is_constant_hint(read_hint(Deploy, "LIMIT"))
(typing.ClassVar[int], True)
>>> read_hint(Deploy, "step") is None
True

An annotation that names something further down in its module cannot be evaluated while the class is made. It is evaluated again
when the field is first used.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Final, get_origin, get_type_hints

from dcaf.core.errors import ConfigurationError

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations
else:
    from inspect import get_annotations

CONSTANT: Final = re.compile(r"\b(ClassVar|Final)\b")


def annotations_of(cls: type) -> dict[str, Any]:
    """The annotations of a class itself, unevaluated where they are texts."""
    if sys.version_info >= (3, 14):
        return get_annotations(cls, format=Format.FORWARDREF)
    return get_annotations(cls)


def read_hint(cls: type, name: str, namespace: Mapping[str, Any] | None = None) -> Any:
    """Evaluate the annotation of one name, with its metadata; None where a name in it is not defined yet.

    Args:
        cls: The class that annotates it.
        name: The name.
        namespace: The local names around the class statement.

    Raises:
        ConfigurationError: It is no expression of types.
    """
    try:
        return _evaluate(cls, name, namespace)
    except (NameError, AttributeError):
        return None


def need_hint(cls: type, name: str) -> Any:
    """Evaluate the annotation of one name where all names in it must be defined.

    Raises:
        ConfigurationError: It names something that cannot be found, or is no expression of types.
    """
    try:
        return _evaluate(cls, name, None)
    except (NameError, AttributeError) as error:
        raise ConfigurationError(
            f"{cls.__name__}: the annotation names {error.name!r}, which cannot be found. Import it in the module where "
            "the class is defined, outside `if TYPE_CHECKING:`."
        ) from None


def is_constant_hint(hint: Any) -> bool:
    """Whether an annotation, evaluated or not, declares a constant of the class: ClassVar or Final."""
    if isinstance(hint, str):
        return CONSTANT.search(hint) is not None
    return (get_origin(hint) or hint) in (ClassVar, Final)


def constants_of(cls: type, namespace: Mapping[str, Any] | None = None) -> frozenset[str]:
    """The names that a class itself declares as constants."""
    found = {name: read_hint(cls, name, namespace) or written for name, written in annotations_of(cls).items()}
    return frozenset(name for name, hint in found.items() if is_constant_hint(hint))


def _evaluate(cls: type, name: str, namespace: Mapping[str, Any] | None) -> Any:
    """Evaluate one annotation, where ``get_type_hints`` would evaluate all of a class and its bases, or none."""
    alone = {
        "__annotations__": {name: annotations_of(cls)[name]},
        "__module__": cls.__module__,
        "__type_params__": getattr(cls, "__type_params__", ()),
    }
    try:
        return get_type_hints(type(cls.__name__, (), alone), localns=dict(namespace or {}), include_extras=True)[name]
    except (NameError, AttributeError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever the expression raises
        raise ConfigurationError(
            f"{cls.__name__}.{name}: the annotation is no type ({type(error).__name__}). Write one, as in {name}: int = 1."
        ) from None
