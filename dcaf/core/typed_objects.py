"""What a stored object has and its type does not declare: kept with the object that it was read into.

>>> from pydantic import BaseModel
>>> class User(BaseModel):
...     name: str
>>> ada, eve = User(name="ada"), User(name="eve")
>>> kept = Undeclared([{"name": "ada", "admin": True}], [ada], describe(list[User]))
>>> kept.restored({"name": "Ada"}, ada), kept.restored({"name": "eve"}, eve)
({'name': 'Ada', 'admin': True}, {'name': 'eve'})

What a reader gets wrong: it goes by identity, not by place and not by what looks alike. A new object that stands where an older
one stood must not take over what that one did not show.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import is_dataclass
from typing import Any, Final, NamedTuple, Self

import orjson
from pydantic import BaseModel, RootModel

from dcaf.core.adapters import Description, Names, Path, describe
from dcaf.core.round_trip import look
from dcaf.core.parts import ATOMS, SEQUENCES, SETS, extra_of, parts_of

ABSENT: Final = object()


class Member(NamedTuple):
    """One stored member of an object.

    Attributes:
        item: What is stored.
        placed: The declared members that are read from inside it (``AliasPath``), and where.
    """

    item: Any
    placed: list[tuple[str, Path]]


class Undeclared:
    """The members that objects were handed out without.

    Args:
        stored: The value as it is stored.
        given: What was handed out for it.
        description: The type that it was read as.
    """

    def __init__(self, stored: Any, given: object, description: Description) -> None:
        self._description = description
        self._kept: dict[int, tuple[object, dict[str, Member]]] = {}
        self._collect(stored, given)

    def __bool__(self) -> bool:
        return bool(self._kept)

    def joined(self, other: Self | None) -> Self:
        """Those of two."""
        if other is None:
            return self
        found = copy(self)
        found._kept = self._kept | other._kept
        return found

    def within(self, value: object) -> Self | None:
        """Those of the objects that a value holds; None where it holds none of them."""
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
        """The names of all these members, each once."""
        return [*dict.fromkeys(name for _, members in self._kept.values() for name in members)]

    def restored(self, written: dict[str, Any], given: object, names: Collection[str] | None = None) -> dict[str, Any]:
        """An object as its type writes it now, with its undeclared members.

        Args:
            written: How its type writes it.
            given: The object.
            names: The members to keep; None for all.
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
            for item, part in _paired(stored, given):
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
        # Which TypedDict a dict was read as, nobody can tell. What all that it may be declare is taken for declared.
        return Names.of({name: [path for row in rows for path in row[name]] for name in given}) if rows else None


def _paired(stored: list[Any], given: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Each stored item with what was read of it: by its place, unless that cannot be, as in a set or behind a validator."""
    items = [*given]
    if not isinstance(given, SETS) and len(items) == len(stored):
        pairs = [*zip(stored, items, strict=True)]
        if all(_is_plausible(*pair) for pair in pairs):
            return iter(pairs)
    kinds = {type(item) for item in items if isinstance(item, BaseModel) or is_dataclass(item)}
    parts = {look(item): item for item in items} if kinds else {}
    read = ((item, parts.get(_read(item, kind), ABSENT)) for item in stored for kind in kinds)
    return ((item, part) for item, part in read if part is not ABSENT)


def _is_plausible(stored: Any, given: Any) -> bool:
    """Whether a stored item may be what an object was read from, as far as a quick look at its plain members tells."""
    if not isinstance(stored, dict) or isinstance(given, Mapping):
        return True
    shown = ((item, getattr(given, key, ABSENT)) for key, item in stored.items() if isinstance(item, ATOMS))
    return all(type(item) is not type(part) or item == part for item, part in shown)


def _read(stored: Any, kind: type) -> Any:
    """How what is read of a stored item looks; ABSENT where it does not fit."""
    try:
        return look(describe(kind).adapter.validate_json(orjson.dumps(stored), by_alias=True, by_name=True))
    except Exception:  # noqa: BLE001 - then it is no such object, whatever its own code has to say of it
        return ABSENT


def _part(given: Any, name: str) -> Any:
    return given.get(name, ABSENT) if isinstance(given, Mapping) else getattr(given, name, ABSENT)


def _at(value: Any, path: Path) -> Any:
    """What stands at a path; ABSENT where it leads nowhere."""
    for step in path:
        if not isinstance(value, dict if isinstance(step, str) else list):
            return ABSENT
        try:
            value = value[step]  # type: ignore[index]
        except LookupError:
            return ABSENT
    return value


def _put(value: Any, path: Path, item: Any) -> Any:
    """A copy of a value, with another one at a path."""
    if not path:
        return item
    copied: Any = value.copy()
    copied[path[0]] = _put(value[path[0]], path[1:], item)
    return copied
