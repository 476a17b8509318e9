"""Which part of a typed value is not of the type that is declared for it, where pydantic says only that something is not.

>>> def fits(value, as_type):
...     return value == [] or (isinstance(as_type, type) and isinstance(value, as_type))
>>> refusal = misplaced({"a": [], "b": [1, "2"]}, dict[str, list[int]], fits)
>>> refusal.path, refusal.problem
('.b[1]', 'is a str, where int belongs')

What a reader gets wrong: it is asked only after a value was refused, to find the words for that. What it cannot tell is refused
all the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel

from dcaf.core.paths import Refusal

Part: TypeAlias = "tuple[str | int, Any, Any]"
"""The step to a part, the part, and the type that is declared for it."""

SEQUENCES: Final = (list, tuple, set, frozenset, deque)


def misplaced(value: Any, as_type: Any, fits: Callable[[Any, Any], bool]) -> Refusal | None:
    """Why a value that does not fit its type does not, at the innermost part; None where that cannot be told.

    Args:
        value: The value.
        as_type: The type.
        fits: Whether a part can be written as the type that is declared for it.
    """
    as_type = _arm(value, as_type)
    if not _is_of(value, as_type):
        return Refusal(f"is a {type(value).__name__}, where {_name(as_type)} belongs{_remedy(as_type)}")
    for step, part, declared in _parts(value, as_type):
        if not fits(part, declared):
            found = misplaced(part, declared, fits)
            return None if found is None else found.under(step)
    return None


def _arm(value: Any, as_type: Any) -> Any:
    """The type without its metadata; of a union the arm that the value is an instance of, or the only one that is not None."""
    if get_origin(as_type) is Annotated:
        return _arm(value, get_args(as_type)[0])
    if get_origin(as_type) not in (Union, UnionType):
        return as_type
    arms = [arm for arm in get_args(as_type) if arm is not type(None)]
    otherwise = arms[0] if len(arms) == 1 else as_type
    return next((arm for arm in arms if _is_of(value, arm)), otherwise)


def _is_of(value: Any, as_type: Any) -> bool:
    """Whether a value is an instance of a type, as far as Python can tell: of a TypedDict it cannot."""
    kind = get_origin(as_type) or as_type
    try:
        return isinstance(value, kind)
    except TypeError:
        return not isinstance(kind, UnionType) and kind is not Union


def _parts(value: Any, as_type: Any) -> Iterator[Part]:
    inner = get_args(as_type)
    if isinstance(value, Mapping) and len(inner) == 2:  # noqa: PLR2004 - of keys and of values
        return ((key, item, inner[1]) for key, item in value.items() if isinstance(key, str))
    if isinstance(value, SEQUENCES) and inner:
        types = inner if isinstance(value, tuple) and inner[-1] is not ... else repeat(inner[0])
        return ((index, item, of_item) for index, (item, of_item) in enumerate(zip(value, types, strict=False)))
    return ((name, getattr(value, name), declared) for name, declared in _members(type(value)).items() if hasattr(value, name))


def _members(kind: type) -> dict[str, Any]:
    """Name -> type of the members that a class declares; none where it is no model and no dataclass."""
    if issubclass(kind, BaseModel):
        return {name: field.rebuild_annotation() for name, field in kind.model_fields.items()}
    # An annotation that is still text is not evaluated here: then the refusal names the object, and not the member.
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return {field.name: field.type for field in fields if not isinstance(field.type, str)}


def _name(as_type: Any) -> str:
    if isinstance(as_type, type) and not get_args(as_type):
        return as_type.__name__
    return re.sub(r"\b(\w+\.)+(?=[A-Za-z_])", "", str(as_type))


def _remedy(as_type: Any) -> str:
    """What to write, where it is the object of a class."""
    is_made = isinstance(as_type, type) and (issubclass(as_type, BaseModel) or dataclasses.is_dataclass(as_type))
    return f". Put {as_type.__name__}(...) there." if is_made else ""
