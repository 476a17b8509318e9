"""A Python value <-> a JSON value, exactly: what may be stored, and how a typed value comes back.

>>> from datetime import date
>>> to_json({"due": date(2026, 1, 31), "tags": ("a", "b")}, path="order")
{'due': '2026-01-31', 'tags': ['a', 'b']}
>>> from_json(b'"2026-01-31"', date, path="order.due")
datetime.date(2026, 1, 31)

What a reader gets wrong: nothing is coerced on the way in. A value that JSON cannot say exactly (NaN, an integer
beyond 64 bits, a lone surrogate, a key that is no string) is refused at once, with its path.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NewType, TypeAlias, TypeVar, cast
from uuid import UUID

import orjson
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from dcaf.core.errors import ConfigurationError, SessionInvalid, SessionTypeError, SessionValueError, StateError
from dcaf.core.misplaced import misplaced
from dcaf.core.paths import Refusal, misfit

T = TypeVar("T")

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
"""A plain JSON value: exactly these builtin types, no subclasses."""

MAX_DEPTH: Final = 64
"""Containers inside one another, at most; orjson writes 254, so what is stored can always be written."""

MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1

ATOMS: Final = (str, int, float, bool, type(None))
CONTAINERS: Final = (dict, list)
STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
SECRET: Final = b'"**********"'
"""How pydantic writes a secret: the value is gone."""

EXACT: Final = (Decimal, date, time, timedelta, UUID, Enum, bytes)
"""Types in which equality says everything, so that one that does not come back equal is refused."""

SETS: Final = (set, frozenset)
SEQUENCES: Final = (list, tuple, set, frozenset, deque)
CONFIG: Final = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


def to_json(value: object, as_type: Any = None, *, path: str) -> JSON:
    """Copy a value into plain JSON.

    Args:
        value: Anything that pydantic can describe, in containers of any of Python's own kinds.
        as_type: The declared type that writes it, in JSON mode. None: mappings, sequences and sets are walked, and
            anything else is written by its own class.
        path: Where the value will stand, for the message of a refusal.

    Raises:
        SessionValueError: It cannot be stored exactly.
    """
    try:
        return _walk(value, MAX_DEPTH) if as_type is None else _walk_dumped(value, as_type, MAX_DEPTH)
    except Refusal as refusal:
        raise SessionValueError(f"{path}{refusal.path}: {refusal.problem}") from None


def from_json(value: bytes, as_type: Any, *, path: str) -> Any:
    """Read a written JSON value as a type.

    Field names and aliases are both understood, so whatever a model wrote it can read.

    Raises:
        SessionTypeError: The value does not fit; the message has one path and problem a line, never the value.
        ConfigurationError: pydantic cannot describe the type.
    """
    try:
        return adapter(as_type).validate_json(value, by_alias=True, by_name=True)
    except ValidationError as error:
        raise SessionTypeError(misfit(path, as_type, error)) from None


def write(value: JSON) -> bytes:
    """Write a plain JSON value as compact UTF-8 bytes."""
    return orjson.dumps(value)


def write_atom(value: object) -> bytes | None:
    """Write a value that has no parts and can be stored as it is; None where the careful way must look at it."""
    kind = type(value)
    if (
        (kind is int and MIN_INTEGER <= value <= MAX_INTEGER)  # type: ignore[operator]
        or (kind is str and value.isascii())  # type: ignore[attr-defined]
        or kind is bool
        or value is None
    ):
        return orjson.dumps(value)
    return None


def mark(value: object, as_type: Any) -> bytes | None:
    """Say cheaply how an object looks now: two equal marks mean an unchanged object.

    None where only the careful way can tell: the object holds something that JSON cannot say, or may hold one of
    the non-finite numbers that both writers show as ``null``.
    """
    try:
        found = orjson.dumps(value, option=STRICT) if as_type is None else _fast_dump(value, as_type)
    except (TypeError, ValueError):
        return None
    return None if found.find(b"null") >= 0 else found


def read(data: bytes) -> JSON:
    """Read back what ``write`` wrote.

    Raises:
        SessionInvalid: It is not JSON: another program that has our key sealed it.
    """
    try:
        value: JSON = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise SessionInvalid(reason="state") from None
    return value


def adapter(as_type: Any) -> TypeAdapter[Any]:
    """The one TypeAdapter of a type, cached where the type can be hashed.

    Raises:
        ConfigurationError: pydantic cannot describe the type.
    """
    try:
        return _cached_adapter(as_type)
    except TypeError:
        return _build_adapter(as_type)


def _build_adapter(as_type: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(as_type, config=CONFIG)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise ConfigurationError(f"pydantic cannot describe {as_type!r}: {error.message}") from None
    # A dataclass or TypedDict takes no config of its own here, but would inherit one inside a list. Under another name it
    # inherits it alone too, so that a value is written the same wherever it stands. Models keep their own.
    return TypeAdapter(cast("Any", NewType)("_", as_type), config=CONFIG)


_cached_adapter = lru_cache(maxsize=1024)(_build_adapter)


def _walk(value: object, depth: int) -> JSON:
    kind = type(value)
    if kind is str:
        return _text(str(value))
    if kind in ATOMS:
        return _number(value)
    if not isinstance(value, (Mapping, *SEQUENCES)):
        return _walk_dumped(value, kind, depth)
    if depth == 0:
        raise Refusal(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return _walk_mapping(value, depth - 1)
    if isinstance(value, SETS):
        return sorted(_walk_sequence(value, depth - 1), key=write)
    return _walk_sequence(value, depth - 1)


def _walk_dumped(value: object, as_type: Any, depth: int) -> JSON:
    """What an object's own type makes of it, if the type reads it back as what it was."""
    dumped = _dump(value, as_type)
    found: JSON = _faithful(_walk(dumped, depth), adapter(as_type).dump_python(value, round_trip=True, warnings="none"))
    data = write(found)
    try:
        back = from_json(data, as_type, path="")
    except StateError:
        raise Refusal(f"is a {type(value).__name__} that its own type would not read back") from None
    if _is_another(back, value, as_type, data):
        raise Refusal(f"is a {type(value).__name__} that would come back as another value")
    return found


def _is_another(back: Any, value: Any, as_type: Any, data: bytes) -> bool:
    """Whether something of an object is gone: a type that masks or rounds it, or that was meant for its base class."""
    again = _faithful(_plain(back, as_type), adapter(as_type).dump_python(back, round_trip=True, warnings="none"))
    if write(again) != data:
        return True
    if isinstance(value, EXACT) or SECRET in data:
        return bool(back != value)
    return type(back) is type(value) and back != value and _plain(value, as_type, any_class=True) != _plain(value, as_type)


def _faithful(written: Any, value: Any) -> Any:
    """What was written, beside what it was written from: sets in one order, and no number that JSON cannot say.

    pydantic writes a set as it iterates, and a non-finite number as null where it is not declared as a float.
    """
    if isinstance(value, float):
        _number(float(value))
    if isinstance(value, Mapping) and isinstance(written, dict) and len(value) == len(written):
        return {key: _under(key, written[key], item) for key, item in zip(written, value.values(), strict=True)}
    if isinstance(value, SEQUENCES) and isinstance(written, list) and len(value) == len(written):
        items = [_under(index, part, item) for index, (part, item) in enumerate(zip(written, value, strict=True))]
        return sorted(items, key=write) if isinstance(value, SETS) else items
    return written


def _under(step: str | int, written: Any, value: Any) -> Any:
    try:
        return _faithful(written, value)
    except Refusal as refusal:
        raise refusal.under(step) from None


def _walk_mapping(value: Mapping[Any, Any], depth: int) -> JSON:
    found: dict[str, JSON] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise Refusal(f"has a key of type {type(key).__name__}; keys must be strings")
        try:
            found[_text(str.__str__(key))] = _walk(item, depth)
        except Refusal as refusal:
            raise refusal.under(key) from None
    return found


def _walk_sequence(value: Iterable[Any], depth: int) -> list[JSON]:
    found: list[JSON] = []
    for index, item in enumerate(value):
        try:
            found.append(_walk(item, depth))
        except Refusal as refusal:
            raise refusal.under(index) from None
    return found


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refusal("has a lone surrogate, which is no Unicode text") from None
    return value


def _number(value: Any) -> JSON:
    if type(value) is float and not math.isfinite(value):
        raise Refusal("is not a finite number, which JSON cannot say")
    if type(value) is int and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise Refusal("is an integer beyond 64 bits; store it as a string")
    number: JSON = value
    return number


def _dump(value: object, as_type: Any) -> object:
    try:
        return _plain(value, as_type)
    except (PydanticSerializationError, ValueError, RecursionError):
        raise _unwritable(value, as_type) from None
    except (PydanticUserError, ConfigurationError):
        raise Refusal(_unknown(value)) from None


def _plain(value: object, as_type: Any, *, any_class: bool = False) -> Any:
    # By name, and read by name or alias: then whatever aliases a model has, it reads what it wrote.
    kind = adapter(as_type)
    return kind.dump_python(value, mode="json", by_alias=False, round_trip=True, warnings="error", serialize_as_any=any_class)


def _fast_dump(value: object, as_type: Any) -> bytes:
    return adapter(as_type).dump_json(value, by_alias=False, round_trip=True, warnings="none")


def _unwritable(value: object, as_type: Any) -> Refusal:
    """Find out where an object holds something that its own type does not allow."""
    try:
        from_json(_fast_dump(value, as_type), as_type, path="value")
    except SessionTypeError as error:
        return Refusal(str(error))
    except (ValueError, RecursionError):
        return Refusal(_unknown(value))
    return misplaced(value, as_type, _fits) or Refusal(_unknown(value))


def _fits(value: object, as_type: Any) -> bool:
    try:
        _plain(value, as_type)
    except (PydanticSerializationError, PydanticUserError, ConfigurationError, ValueError, RecursionError):
        return False
    return True


def _unknown(value: object) -> str:
    return f"is of type {type(value).__name__}, which cannot be stored"
