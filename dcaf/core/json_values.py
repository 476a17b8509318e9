"""Convert Python values to JSON values and back, exactly, and refuse what would not come back the same.

>>> from datetime import date
>>> to_json({"due": date(2026, 1, 31), "tags": ("a", "b")}, path="order")
{'due': '2026-01-31', 'tags': ['a', 'b']}
>>> from_json(b'"2026-01-31"', date, path="order.due")
datetime.date(2026, 1, 31)

What a reader gets wrong: nothing is coerced. A value that JSON cannot say exactly (NaN, an integer beyond 64 bits, a lone
surrogate, a key that is no string) is refused with its path, and so is an object that its own type would read back as another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

import orjson
from pydantic import ValidationError

from dcaf.core.adapters import adapter, describe
from dcaf.core.errors import ConfigurationError, DcafError, SessionInvalid, SessionTypeError, SessionValueError
from dcaf.core.parts import ATOMS, SEQUENCES, SETS, Refusal, base_of, describe_misfit
from dcaf.core.round_trip import NOT_FINITE, require_same
from dcaf.core.typed_objects import Undeclared, arrange, dump, read_back, with_undeclared

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
"""A plain JSON value: exactly these builtin types, no subclasses."""

MAX_DEPTH: Final = 64
"""Containers inside one another, at most; orjson writes 254, so what is stored can always be written."""

MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1


def to_json(value: object, as_type: Any = None, *, path: str, kept: Undeclared | None = None) -> JSON:
    """Copy a value into plain JSON.

    Args:
        value: Anything that pydantic can describe, in containers of any of Python's own kinds.
        as_type: The declared type that writes it, in JSON mode. None: mappings, sequences and sets are walked, and
            anything else is written by its own class.
        path: The path of the value, for the message of a refusal.
        kept: The undeclared members of its objects, which are written with them.

    Raises:
        SessionValueError: It cannot be stored exactly, or its type would not read it back the same.
    """
    try:
        return _walk(value, MAX_DEPTH, kept) if as_type is None else _walk_dumped(value, as_type, MAX_DEPTH, kept)
    except Refusal as refusal:
        raise SessionValueError(f"{path}{refusal.path}: {refusal.problem}") from None


def from_json(value: bytes, as_type: Any, *, path: str) -> Any:
    """Read a written JSON value as a type.

    Field names and aliases are both understood, so whatever a model wrote it can read.

    Raises:
        SessionTypeError: The value does not fit; the message has one path and problem a line, never the value.
        ConfigurationError: pydantic cannot describe the type, or a value of it could be iterated only once.
    """
    validates = adapter(as_type).validate_json
    return _validate(lambda: validates(value, by_alias=True, by_name=True), as_type, path)


def fit(value: object, as_type: Any, *, path: str) -> Any:
    """Validate a Python value as a type.

    Raises:
        SessionTypeError, ConfigurationError: As ``from_json``.
    """
    validates = adapter(as_type).validate_python
    return _validate(lambda: validates(value, by_alias=True, by_name=True), as_type, path)


def _validate(validate: Callable[[], Any], as_type: Any, path: str) -> Any:
    try:
        return validate()
    except ValidationError as error:
        raise SessionTypeError(describe_misfit(path, as_type, error)) from None
    except DcafError:
        raise
    except Exception as error:  # noqa: BLE001 - validators are code of the application, or of some other library
        raise SessionTypeError(f"{path}: the value does not fit: the type's own code raised {type(error).__name__}") from None


def write(value: JSON) -> bytes:
    """Write a plain JSON value as compact UTF-8 bytes."""
    return orjson.dumps(value)


def write_atom(value: object) -> bytes | None:
    """Write a value without parts that can be stored as it is; None where ``to_json`` must check it."""
    kind = type(value)
    if (
        (kind is int and MIN_INTEGER <= value <= MAX_INTEGER)  # type: ignore[operator]
        or (kind is str and value.isascii())  # type: ignore[attr-defined]
        or kind is bool
        or value is None
    ):
        return orjson.dumps(value)
    return None


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


def _walk(value: object, depth: int, kept: Undeclared | None = None) -> JSON:
    kind = type(value)
    if kind is str:
        return _text(str(value))
    if kind in ATOMS:
        return _number(value)
    if not isinstance(value, (Mapping, *SEQUENCES)):
        return _walk_other(value, depth, kept)
    if depth == 0:
        raise Refusal(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        found = _walk_mapping(value, depth - 1, kept)
        return found if kept is None else dict(kept.restore(found, value))
    if isinstance(value, tuple) and _is_record(kind):
        return _walk_dumped(value, kind, depth, kept)
    items = _walk_sequence(value, depth - 1, kept)
    return sorted(items, key=write) if isinstance(value, SETS) else items


def _is_record(kind: type) -> bool:
    """Whether a tuple has annotated members that pydantic can describe."""
    if not hasattr(kind, "_fields") or not any(map(_has_annotations, kind.__mro__)):
        return False
    try:
        describe(kind)
    except ConfigurationError:
        return False
    return True


def _has_annotations(kind: type) -> bool:
    return bool(getattr(kind, "__annotate__", None) or getattr(kind, "__annotations__", None))


def _walk_other(value: object, depth: int, kept: Undeclared | None) -> JSON:
    """An object that is no container: of a subclass of a plain type, or written by its own class."""
    base = value if isinstance(value, Enum) else base_of(value)
    if base is not value:
        return _walk(base, depth)
    return _walk_dumped(value, type(value), depth, kept)


def _walk_dumped(value: object, as_type: Any, depth: int, kept: Undeclared | None) -> JSON:
    """Write an object by a type, if the type reads it back the same."""
    dumped = dump(value, as_type)
    if not isinstance(dumped, (Mapping, *SEQUENCES, *ATOMS)):  # no plain value: its type would have to write it again
        raise Refusal(f"is of type {type(value).__name__}, which cannot be stored")
    written: JSON = _walk(dumped, depth)
    require_same(value, read_back(written, as_type))
    if kept:
        return _walk(with_undeclared(written, value, as_type, kept), depth)
    if describe(as_type).has_sets:
        written = arrange(written, value)
    return written


def _walk_mapping(value: Mapping[Any, Any], depth: int, kept: Undeclared | None) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise Refusal(f"has a key of type {type(key).__name__}; keys must be strings")
        try:
            found[_text(str.__str__(key))] = _walk(item, depth, kept)
        except Refusal as refusal:
            raise refusal.under(key) from None
    return found


def _walk_sequence(value: Iterable[Any], depth: int, kept: Undeclared | None) -> list[JSON]:
    found: list[JSON] = []
    for index, item in enumerate(value):
        try:
            found.append(_walk(item, depth, kept))
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
        raise Refusal(NOT_FINITE)
    if type(value) is int and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise Refusal("is an integer beyond 64 bits; store it as a string")
    number: JSON = value
    return number
