r"""Check that a value comes back as it was written, and find the part of it that its type cannot write.

>>> require_same({"a": [1, 2.0]}, {"a": [1, 2.0]})
>>> require_same({"a": [1, (True, None)]}, {"a": [1, [True, None]]})
Traceback (most recent call last):
...
dcaf.core.parts.Refusal: is of type tuple, and would come back as list

>>> from pydantic import BaseModel, TypeAdapter
>>> class Page(BaseModel):
...     thumb: bytes
>>> def dump(include):
...     return TypeAdapter(list[Page]).dump_python(pages, mode="json", include=include)
>>> pages = [Page(thumb=b"ab"), Page(thumb=b"\xff")]
>>> refusal = find_unwritable(pages, dump)
>>> refusal.path, refusal.problem[:28]
('[1].thumb', 'holds bytes that are no text')

Objects are compared part by part, and neither by what they are written as nor by their own ``==``. A type
that masks a member writes it the same a second time, and an object may call itself equal to one that it is not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Final, TypeAlias
from uuid import UUID

from pydantic import BaseModel, RootModel

from dcaf.core.parts import (
    ABSENT,
    ATOMS,
    DATE,
    DATETIME,
    SETS,
    TIME,
    TIMEDELTA,
    Refusal,
    Step,
    base_of,
    extra_of,
    fields_of,
    is_equal,
    key_step,
    parts_of,
)

NOT_FINITE: Final = "is not a finite number, which JSON cannot say"
ANOTHER: Final = "would come back as another value: its type does not write all of it, or reads it otherwise"
EXCLUDED: Final = (
    "has exclude=True, so it is not written, and would come back as another value. What is not to be stored belongs in a "
    "private attribute"
)
PLAIN: Final = frozenset([str, int, bool, NoneType])
"""Types in which equal values of one type are the same."""

NO_EQUALITY: Final[Any] = object.__eq__
TEXT: Final = frozenset([str])

Pairs: TypeAlias = dict[tuple[int, int], tuple[object, object]]
"""The objects that were compared, by their ids. They are kept here, so that no other object gets their ids."""

Dump: TypeAlias = Callable[[Any], object]
"""Writes the parts of a value that are included: ``{"pages": {1: {"thumb": True}}}``."""

DEEPEST: Final = 64
AS_BASE64: Final = (
    'holds bytes that are no text. In the model\'s configuration write ser_json_bytes="base64" and val_json_bytes="base64"'
)


def require_same(given: Any, back: Any) -> None:
    """Refuse a value that did not come back the same.

    Args:
        given: The value.
        back: What was read of it, after it was written.

    Raises:
        Refusal: A part is of another type or has another value; the first of them, with its path.
    """
    try:
        _same(given, back, {})
    except RecursionError:
        raise Refusal("holds objects inside one another, deeper than can be compared") from None


def is_same(given: Any, back: Any) -> bool:
    """Whether a value came back the same."""
    try:
        require_same(given, back)
    except Refusal:
        return False
    return True


def fingerprint(value: Any) -> Any:
    """Something hashable that two values share if they may be the same, whatever their ``==`` says: to find an item of a set."""
    kind = type(value)
    if kind is float and value.is_integer():
        kind, value = int, int(value)  # a whole number where a float is declared comes back as one
    if kind in PLAIN:
        return kind, value
    if kind in FINGERPRINTS:
        return kind, FINGERPRINTS[kind](value)
    base = base_of(value)
    return fingerprint(base) if base is not value else (kind, *_fingerprint_parts(value))


def find_unwritable(value: Any, dump: Dump) -> Refusal:
    """Find the innermost part that cannot be written, by asking pydantic for fewer and fewer parts."""
    whole, path = value, list[Step]()
    while len(path) < DEEPEST:
        parts = [] if isinstance(value, SETS) else [*parts_of(value)]
        step = _first([step for step, _ in parts if step is not None], lambda steps: _fails(dump, path, steps))
        if step is None:
            return _under(path, Refusal(_problem(value)))
        path.append(step)
        value = next(part for key, part in parts if key == step)
    return Refusal(f"is of type {type(whole).__name__}, and nested deeper than {DEEPEST}, or holds itself")


def _same(given: Any, back: Any, pairs: Pairs) -> None:
    kind = type(back)
    if type(given) is not kind:
        given = _of_kind(given, back)
    if kind in PLAIN:
        if given != back:
            raise Refusal(ANOTHER)
        return
    compare = COMPARED.get(kind)
    if compare is not None:
        compare(given, back, pairs)
    elif issubclass(kind, BaseModel) or is_dataclass(kind):
        _same_members(given, back, pairs)
    else:
        _same_other(given, back, pairs)


def _of_kind(given: Any, back: Any) -> Any:
    """Turn a value into one of the type that came back, where the two are equal and docs/guides/session.md allows it."""
    base = base_of(given)
    if isinstance(base, float) and not math.isfinite(base):
        raise Refusal(NOT_FINITE)
    if type(base) is int and type(back) is float and base == back:
        return back
    if type(base) is not type(back):
        raise _another_type(given, back)
    return base


def _another_type(given: Any, back: Any) -> Refusal:
    kind, other = type(given).__name__, type(back).__name__
    if given is ABSENT or back is ABSENT:
        return Refusal(f"is not there, and would come back as {other}" if given is ABSENT else "would not come back")
    if not (isinstance(back, BaseModel) or is_dataclass(back)):
        return Refusal(f"is of type {kind}, and would come back as {other}")
    if isinstance(given, type(back)):
        return Refusal(
            f"is a {kind}, where {other} is declared, and would come back without what {kind} adds. Declare {kind} there."
        )
    return Refusal(f"is a {kind}, where {other} belongs. Put {other}(...) there.")


def _same_members(given: Any, back: Any, pairs: Pairs) -> None:
    if _is_known(given, back, pairs):
        return
    kind = type(back)
    for name in fields_of(kind):
        try:
            _same(getattr(given, name, ABSENT), getattr(back, name, ABSENT), pairs)
        except Refusal as refusal:
            raise _of_member(refusal, kind, name) from None
    if extra_of(given) or extra_of(back):
        _same_entries(extra_of(given), extra_of(back), pairs)


def _of_member(refusal: Refusal, kind: type, name: str) -> Refusal:
    if issubclass(kind, RootModel):
        return refusal
    if issubclass(kind, BaseModel) and kind.model_fields[name].exclude:
        return Refusal(EXCLUDED).under(name)
    return refusal.under(name)


def _is_known(given: Any, back: Any, pairs: Pairs) -> bool:
    """Whether two objects have been compared, or are being compared further out: one may hold the one that holds it."""
    pair = (id(given), id(back))
    if pair in pairs:
        return True
    pairs[pair] = (given, back)
    return False


def _same_items(given: Any, back: Any, pairs: Pairs) -> None:
    if len(given) != len(back):
        raise Refusal(f"has {len(given)} items, and would come back with {len(back)}")
    kinds = set(map(type, given))
    if kinds <= PLAIN and given == back and [*map(type, given)] == [*map(type, back)]:
        return
    for index, (item, other) in enumerate(zip(given, back, strict=True)):
        try:
            _same(item, other, pairs)
        except Refusal as refusal:
            raise refusal.under(index) from None


def _same_entries(given: Mapping[Any, Any], back: Mapping[Any, Any], pairs: Pairs) -> None:
    keys = None if {*map(type, given), *map(type, back)} <= TEXT else {fingerprint(key): key for key in back}
    for key, item in given.items():
        other = key if keys is None else keys.get(fingerprint(key), ABSENT)
        if other not in back:
            raise _lost_key(key, back)
        if keys is not None:
            _same(key, other, pairs)
        try:
            _same(item, back[other], pairs)
        except Refusal as refusal:
            raise refusal.under(key_step(key)) from None
    if len(given) != len(back):
        raise Refusal(f"has {len(given)} members, and would come back with {len(back)}")


def _lost_key(key: Any, back: Mapping[Any, Any]) -> Refusal:
    if isinstance(key, str):
        return Refusal("would not come back: its type does not declare it, or does not write it").under(key)
    kinds = {type(other).__name__ for other in back}
    return Refusal(f"has a key of type {type(key).__name__}, which would come back as {' or '.join(sorted(kinds)) or 'nothing'}")


def _same_set(given: Iterable[Any], back: Iterable[Any], pairs: Pairs) -> None:
    others = {fingerprint(item): item for item in back}
    given = [*given]
    if len(given) != len(others):
        raise Refusal(f"has {len(given)} items, and would come back with {len(others)}")
    for item in given:
        other = others.get(fingerprint(item), ABSENT)
        if other is ABSENT:
            raise Refusal(f"has an item of type {type(item).__name__}, which would come back as another value")
        _same(item, other, pairs)


def _same_value(given: Any, back: Any, _: Pairs) -> None:
    if fingerprint(given) != fingerprint(back):
        raise Refusal(ANOTHER)


def _same_number(given: float, back: float, _: Pairs) -> None:
    if not math.isfinite(given):
        raise Refusal(NOT_FINITE)
    if given != back or (not given and math.copysign(1, given) != math.copysign(1, back)):
        raise Refusal(ANOTHER)


def _same_other(given: Any, back: Any, pairs: Pairs) -> None:
    """Compare two objects of any other class: containers, and objects that define their own ``==``."""
    if given is back:
        return
    if isinstance(back, Mapping):
        _same_entries(given, back, pairs)
    elif isinstance(back, tuple | list | deque):
        _same_items(given, back, pairs)
    elif isinstance(back, SETS):
        _same_set(given, back, pairs)
    elif isinstance(back, Enum) or type(back).__eq__ is not NO_EQUALITY:
        if not is_equal(given, back):
            raise Refusal(ANOTHER)
    elif not _is_known(given, back, pairs):
        # An object without an ``==`` of its own is equal only to itself, so its attributes are compared.
        _same_entries(_attributes_of(given), _attributes_of(back), pairs)


def _attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


def _fingerprint_parts(value: Any) -> Iterator[Any]:
    if isinstance(value, BaseModel) or is_dataclass(value):
        return (fingerprint(getattr(value, name, None)) for name in fields_of(type(value)))
    if isinstance(value, tuple):
        return map(fingerprint, value)
    return iter([frozenset(map(fingerprint, value))] if isinstance(value, SETS) else [value] if isinstance(value, Hashable) else [])


def _first(steps: list[Any], fails: Callable[[list[Any]], bool]) -> Any:
    """The first step at which writing fails, found by halves; None where it fails at none."""
    if not steps or not fails(steps):
        return None
    while len(steps) > 1:
        half = steps[: len(steps) // 2]
        steps = half if fails(half) else steps[len(half) :]
    return steps[0]


def _fails(dump: Dump, path: Sequence[Step], steps: Sequence[Step]) -> bool:
    include: Any = dict.fromkeys(steps, True)
    for step in reversed(path):
        include = {step: include}
    try:
        dump(include)
    except Exception:  # noqa: BLE001 - serializers are code of the application, or of some other library
        return True
    return False


def _under(path: Sequence[Step], refusal: Refusal) -> Refusal:
    for step in reversed(path):
        refusal.under(step)
    return refusal


def _problem(value: object) -> str:
    if isinstance(value, bytes):
        return AS_BASE64
    if isinstance(value, str) and not _is_text(value):
        return "has a lone surrogate, which is no Unicode text"
    if type(value) in ATOMS:
        return "cannot be written: the type's own code failed at it"
    return f"is of type {type(value).__name__}, which cannot be stored"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


FINGERPRINTS: Final[Mapping[type, Callable[[Any], Any]]] = {
    # One clock time with one offset from UTC. In an hour that comes twice Python calls no two zones equal (PEP 495).
    DATETIME: lambda value: (value.replace(tzinfo=None, fold=0), value.tzinfo is None, value.utcoffset()),
    TIME: lambda value: (value.replace(tzinfo=None, fold=0), value.tzinfo is None, value.utcoffset()),
    DATE: lambda value: value,
    TIMEDELTA: lambda value: value,
    Decimal: Decimal.as_tuple,
    UUID: lambda value: value.int,
    bytes: lambda value: value,
    bytearray: bytes,
    float: repr,
    list: lambda value: tuple(map(fingerprint, value)),
    dict: lambda value: frozenset((fingerprint(key), fingerprint(item)) for key, item in value.items()),
}


COMPARED: Final[Mapping[type, Callable[[Any, Any, Pairs], None]]] = {
    **dict.fromkeys((DATETIME, TIME, DATE, TIMEDELTA, Decimal, UUID, bytes, bytearray), _same_value),
    float: _same_number,
    dict: _same_entries,
    **dict.fromkeys((list, tuple, deque), _same_items),
    **dict.fromkeys(SETS, _same_set),
}
