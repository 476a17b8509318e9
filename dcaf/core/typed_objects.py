"""Typed objects in a session: write one, read it back, tell whether it has changed, and keep what its type does not declare.

>>> from datetime import date
>>> dump(date(2026, 1, 31), date), read_back("2026-01-31", date)
('2026-01-31', datetime.date(2026, 1, 31))

>>> from pydantic import BaseModel
>>> class User(BaseModel):
...     name: str
>>> ada, eve = User(name="ada"), User(name="eve")
>>> kept = Undeclared([{"name": "ada", "admin": True}], [ada], describe(list[User]))
>>> kept.restore({"name": "Ada"}, ada), kept.restore({"name": "eve"}, eve)
({'name': 'Ada', 'admin': True}, {'name': 'eve'})

Undeclared members belong to the very object that was read, and not to its place in the value. A new
object in the same place does not get them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import is_dataclass
from typing import Any, Final, NamedTuple, Self

import orjson
from pydantic import BaseModel, RootModel, ValidationError

from dcaf.core.adapters import Description, Names, Path, describe, describe_read_once
from dcaf.core.errors import ConfigurationError
from dcaf.core.parts import ABSENT, ATOMS, SEQUENCES, SETS, Refusal, base_of, extra_of, holds_non_finite, locate_misfit, parts_of
from dcaf.core.round_trip import find_unwritable, fingerprint, is_same

AS_DECLARED: Final[Any] = {"by_alias": False, "round_trip": True, "warnings": "error"}
WHOLE: Final[Any] = AS_DECLARED | {"serialize_as_any": True}
"""Writes an object of a subclass whole, so that it differs from an object of the declared class."""

STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


class Member(NamedTuple):
    """A stored member that its object does not declare.

    Attributes:
        item: The stored value.
        placed: The declared members that are read from inside it (``AliasPath``), each with its path.
    """

    item: Any
    placed: list[tuple[str, Path]]


class Undeclared:
    """Members that are stored and that the types of the objects read from them do not declare, kept by the identity of the objects.

    Args:
        stored: The value as it is stored.
        given: The object that was read from it.
        description: The type that it was read as.
    """

    def __init__(self, stored: Any, given: object, description: Description) -> None:
        self._description = description
        self._kept: dict[int, tuple[object, dict[str, Member]]] = {}
        self._collect(stored, given)

    def __bool__(self) -> bool:
        return bool(self._kept)

    def union(self, other: Self | None) -> Self:
        """The members of both."""
        if other is None:
            return self
        found = copy(self)
        found._kept = self._kept | other._kept
        return found

    def restrict_to(self, value: object) -> Self | None:
        """The members of those objects that a value holds; None where it holds none of them."""
        found = copy(self)
        found._kept = {}
        self._find(value, found._kept, set())
        return found if found._kept else None

    def _find(self, value: object, kept: dict[int, tuple[object, dict[str, Member]]], seen: set[int]) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if id(value) in self._kept:
            kept[id(value)] = self._kept[id(value)]
        for _, part in parts_of(value):
            self._find(part, kept, seen)

    @property
    def names(self) -> list[str]:
        """The names of all members, each once."""
        return [*dict.fromkeys(name for _, members in self._kept.values() for name in members)]

    def restore(self, written: dict[str, Any], given: object, names: Collection[str] | None = None) -> dict[str, Any]:
        """Add its undeclared members to an object as its type writes it.

        Args:
            written: The object as its type writes it.
            given: The object.
            names: The members to add; None for all.
        """
        _, members = self._kept.get(id(given), (None, {}))
        found = dict(written) if members else written
        for name, (item, placed) in members.items():
            if names is not None and name not in names:
                continue
            for declared, path in placed:
                item = _put(item, path, found.pop(declared)) if declared in found else item  # noqa: PLW2901
            found.setdefault(name, item)
        return found

    def _collect(self, stored: Any, given: Any) -> None:
        names = self._names(given) if isinstance(stored, dict) else None
        if names is not None:
            self._collect_object(stored, given, names)
        elif isinstance(given, RootModel):
            self._collect(stored, given.root)
        elif isinstance(stored, list) and isinstance(given, SEQUENCES):
            for item, part in _pair_items(stored, given):
                self._collect(item, part)
        elif isinstance(stored, dict) and isinstance(given, Mapping) and len(given) == len(stored):
            for item, part in zip(stored.values(), given.values(), strict=True):
                self._collect(item, part)

    def _collect_object(self, stored: dict[str, Any], given: Any, names: Names) -> None:
        extra = extra_of(given)
        rest = {key: Member(item, []) for key, item in stored.items() if key not in names.keys and key not in extra}
        for name, paths in names.paths.items():
            path = next((path for path in paths if _at(stored, path) is not ABSENT), (name,))
            item = _at(stored, path)
            if isinstance(item, dict | list):
                self._collect(item, _part(given, name))
            if len(path) > 1:
                root = str(path[0])
                rest.setdefault(root, Member(stored[root], [])).placed.append((name, path[1:]))
        if rest:
            self._kept[id(given)] = (given, rest)  # the object too, so that its id stays its own

    def _names(self, given: Any) -> Names | None:
        """How the members of an object are read; None where it declares none."""
        kind = type(given)
        found = self._description.names.get(kind)
        if found is not None or kind is list:
            return found
        if isinstance(given, BaseModel) or is_dataclass(kind):
            return describe(kind).names.get(kind)
        rows = [row.paths for row in self._description.rows if isinstance(given, dict) and given.keys() <= row.paths.keys()]
        # Nobody can tell which TypedDict a dict was read as: what all the possible ones declare counts as declared.
        return Names.of({name: [path for row in rows for path in row[name]] for name in given}) if rows else None


def snapshot(value: object, kind: Description | None) -> bytes | None:
    """Write an object the fast way, to see later whether it has changed; None where it cannot be written.

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


def is_conclusive(found: bytes | None, value: object, kind: Description | None) -> bool:
    """Whether an object with the same snapshot again is surely unchanged: its type writes it whole, and no ``null`` is a NaN."""
    if found is None or not (kind is None or kind.writes_all):
        return False
    try:
        return found.find(b"null") < 0 or not holds_non_finite(value)
    except RecursionError:
        return False


def dump(value: object, as_type: Any) -> object:
    """Write an object by its type, in plain values.

    Raises:
        Refusal: Its type, or something in it, cannot be written.
    """
    try:
        kind = describe(as_type)
    except ConfigurationError as error:
        reason = f": {error}" if isinstance(value, BaseModel) or is_dataclass(value) else ""
        raise Refusal(f"is of type {type(value).__name__}, which cannot be stored{reason}") from None
    if kind.read_once is not None:
        raise Refusal(describe_read_once(kind.read_once))

    def included(include: Any = None) -> object:
        # Written by name, and read by name or alias: so a model reads what it wrote, whatever aliases it has.
        return kind.adapter.dump_python(
            value, mode="json", by_alias=False, round_trip=True, warnings="none", fallback=_plain, include=include
        )

    try:
        return included()
    except Exception:  # noqa: BLE001 - serializers are code of the application, or of some other library
        raise find_unwritable(value, included) from None


def with_undeclared(written: Any, value: object, as_type: Any, kept: Undeclared) -> Any:
    """A written object, arranged, with all undeclared members that do not change what is read from it.

    A validator may read a name that its type does not declare, and would then undo a later change with it.
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
    """Read a written value as a type.

    Raises:
        Refusal: It does not fit, or the type's own code raised.
    """
    reads = describe(as_type).adapter
    try:
        return reads.validate_json(orjson.dumps(written), by_alias=True, by_name=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        raise locate_misfit(found, written) from None
    except Exception as error:  # noqa: BLE001 - validators are code of the application, or of some other library
        raise Refusal(f"would not be read back: its type's own code raised {type(error).__name__}") from None


def arrange(written: Any, value: Any, kept: Undeclared | None = None, names: Collection[str] = ()) -> Any:
    """Sort the sets of a written value, and give its objects their undeclared members; ``value`` is what was written."""
    if isinstance(value, RootModel):
        return arrange(written, value.root, kept, names)
    if isinstance(written, list) and isinstance(value, SEQUENCES) and len(value) == len(written):
        items = [arrange(part, item, kept, names) for part, item in zip(written, value, strict=True)]
        return sorted(items, key=orjson.dumps) if isinstance(value, SETS) else items
    if not isinstance(written, dict):
        return written
    inside = dict(_inside(written, value))
    found = {key: arrange(part, inside[key], kept, names) if key in inside else part for key, part in written.items()}
    return found if kept is None else kept.restore(found, value, names)


def _pair_items(stored: list[Any], given: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Each stored item with the object that was read from it: by place, unless that cannot be, as in a set or after a validator."""
    items = [*given]
    if not isinstance(given, SETS) and len(items) == len(stored):
        pairs = [*zip(stored, items, strict=True)]
        if all(_is_plausible(*pair) for pair in pairs):
            return iter(pairs)
    kinds = {type(item) for item in items if isinstance(item, BaseModel) or is_dataclass(item)}
    parts = {fingerprint(item): item for item in items} if kinds else {}
    read = ((item, parts.get(_read(item, kind), ABSENT)) for item in stored for kind in kinds)
    return ((item, part) for item, part in read if part is not ABSENT)


def _is_plausible(stored: Any, given: Any) -> bool:
    """Whether an object may have been read from a stored item, as far as its plain members tell."""
    if not isinstance(stored, dict) or isinstance(given, Mapping):
        return True
    shown = ((item, getattr(given, key, ABSENT)) for key, item in stored.items() if isinstance(item, ATOMS))
    return all(type(item) is not type(part) or item == part for item, part in shown)


def _read(stored: Any, kind: type) -> Any:
    """The fingerprint of a stored item that is read as a class; ABSENT where it does not fit."""
    try:
        return fingerprint(describe(kind).adapter.validate_json(orjson.dumps(stored), by_alias=True, by_name=True))
    except Exception:  # noqa: BLE001 - then it is no such object, whatever its own code has to say of it
        return ABSENT


def _part(given: Any, name: str) -> Any:
    return given.get(name, ABSENT) if isinstance(given, Mapping) else getattr(given, name, ABSENT)


def _at(value: Any, path: Path) -> Any:
    """The value at a path; ABSENT where it leads nowhere."""
    for step in path:
        if not isinstance(value, dict if isinstance(step, str) else list):
            return ABSENT
        try:
            value = value[step]  # type: ignore[index]
        except LookupError:
            return ABSENT
    return value


def _put(value: Any, path: Path, item: Any) -> Any:
    """A copy of a value with another item at a path."""
    if not path:
        return item
    copied: Any = value.copy()
    copied[path[0]] = _put(value[path[0]], path[1:], item)
    return copied


def _inside(written: dict[str, Any], value: object) -> Iterator[tuple[str, Any]]:
    """The objects inside an object, by the names under which they were written."""
    if isinstance(value, Mapping):
        return zip(written, value.values(), strict=False)
    return ((key, getattr(value, key)) for key in written if hasattr(value, key))


def _plain(value: object) -> object:
    """Write what pydantic does not know as the plain value that it equals (NumPy)."""
    base = base_of(value)
    if base is value:
        raise Refusal(f"is of type {type(value).__name__}, which cannot be stored")
    return base
