"""One object and the type that writes it: how it is written, how it is read back, and whether it looks as it did.

>>> from datetime import date
>>> dump(date(2026, 1, 31), date), read_back("2026-01-31", date)
('2026-01-31', datetime.date(2026, 1, 31))
>>> arrange([{"n": 2}, {"n": 1}], {("n", 2), ("n", 1)})
[{'n': 1}, {'n': 2}]

What a reader gets wrong: an object is written by the names of its members, whatever aliases they have, and read by either. Then it
reads what it wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Final

import orjson
from pydantic import BaseModel, RootModel, ValidationError

from dcaf.core.adapters import Description, describe, once
from dcaf.core.round_trip import is_same
from dcaf.core.errors import ConfigurationError
from dcaf.core.parts import SEQUENCES, SETS, base_of, holds_non_finite
from dcaf.core.paths import Refusal, locate
from dcaf.core.typed_objects import Undeclared
from dcaf.core.unwritable import find_unwritable

AS_DECLARED: Final[Any] = {"by_alias": False, "round_trip": True, "warnings": "error"}
WHOLE: Final[Any] = AS_DECLARED | {"serialize_as_any": True}
"""How an object of a subclass is written so that it is seen in the place of one of the class that is declared."""

STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def mark(value: object, kind: Description | None) -> bytes | None:
    """Say cheaply how an object is written now; None where it cannot be.

    Args:
        value: The object.
        kind: The type that writes it; None for a container of plain values.
    """
    try:
        if kind is None:
            return orjson.dumps(value, option=STRICT)
        return kind.adapter.dump_json(value, **(WHOLE if kind.has_subclasses else AS_DECLARED))
    except Exception:  # noqa: BLE001 - serializers are code of the application, or of some other library
        return None


def tells_all(found: bytes | None, value: object, kind: Description | None) -> bool:
    """Whether an object that has the same mark again is unchanged. It is not sure where a type does not write all that it has.

    A ``null`` in a mark may be a number that is not finite.
    """
    if found is None or not (kind is None or kind.writes_all):
        return False
    try:
        return found.find(b"null") < 0 or not holds_non_finite(value)
    except RecursionError:
        return False


def dump(value: object, as_type: Any) -> object:
    """Write an object as its type does, in plain values.

    Raises:
        Refusal: Its type, or something in it, cannot be written.
    """
    try:
        kind = describe(as_type)
    except ConfigurationError as error:
        reason = f": {error}" if isinstance(value, BaseModel) or is_dataclass(value) else ""
        raise Refusal(f"is of type {type(value).__name__}, which cannot be stored{reason}") from None
    if kind.read_once is not None:
        raise Refusal(once(kind.read_once))

    def included(include: Any = None) -> object:
        # By name, and read by name or alias: then whatever aliases a model has, it reads what it wrote.
        return kind.adapter.dump_python(
            value, mode="json", by_alias=False, round_trip=True, warnings="none", fallback=_plain, include=include
        )

    try:
        return included()
    except Exception:  # noqa: BLE001 - serializers are code of the application, or of some other library
        raise find_unwritable(value, included) from None


def with_undeclared(written: Any, value: object, as_type: Any, kept: Undeclared) -> Any:
    """A written object, arranged, with as many of its undeclared members as change nothing of what is read.

    A validator may read a name that its type does not declare: what it makes of it would stand in the place of a later change.
    """

    def agrees(names: list[str]) -> bool:
        try:
            return is_same(value, read_back(arrange(written, value, kept, names), as_type))
        except Refusal:
            return False

    def most(names: list[str], chosen: list[str]) -> list[str]:
        if agrees([*chosen, *names]):
            return [*chosen, *names]
        half = len(names) // 2
        return most(names[half:], most(names[:half], chosen)) if half else chosen

    return arrange(written, value, kept, most(kept.names, []))


def read_back(written: Any, as_type: Any) -> Any:
    """What a type reads of a written value.

    Raises:
        Refusal: It does not read it.
    """
    reads = describe(as_type).adapter
    try:
        return reads.validate_json(orjson.dumps(written), by_alias=True, by_name=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        raise locate(found, written) from None
    except Exception as error:  # noqa: BLE001 - validators are code of the application, or of some other library
        raise Refusal(f"would not be read back: its type's own code raised {type(error).__name__}") from None


def arrange(written: Any, value: Any, kept: Undeclared | None = None, names: Collection[str] = ()) -> Any:
    """What was written, beside what it was written from: sets in one order, and undeclared members with their objects."""
    if isinstance(value, RootModel):
        return arrange(written, value.root, kept, names)
    if isinstance(written, list) and isinstance(value, SEQUENCES) and len(value) == len(written):
        items = [arrange(part, item, kept, names) for part, item in zip(written, value, strict=True)]
        return sorted(items, key=orjson.dumps) if isinstance(value, SETS) else items
    if not isinstance(written, dict):
        return written
    inside = dict(_inside(written, value))
    found = {key: arrange(part, inside[key], kept, names) if key in inside else part for key, part in written.items()}
    return found if kept is None else kept.restored(found, value, names)


def _inside(written: dict[str, Any], value: object) -> Iterator[tuple[str, Any]]:
    """The objects inside one, by the names under which they were written."""
    if isinstance(value, Mapping):
        return zip(written, value.values(), strict=False)
    return ((key, getattr(value, key)) for key in written if hasattr(value, key))


def _plain(value: object) -> object:
    """What pydantic does not know, as a plain value where it equals one (NumPy)."""
    base = base_of(value)
    if base is value:
        raise Refusal(f"is of type {type(value).__name__}, which cannot be stored")
    return base
