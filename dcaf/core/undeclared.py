"""What a stored object has and its type does not declare: kept with the object that it was read into.

>>> class Older:
...     def __init__(self, name): self.name = name
>>> ada, eve = Older("ada"), Older("eve")
>>> kept = Undeclared([{"name": "ada", "admin": True}], [{"name": "ada"}], [ada])
>>> kept.restored([{"name": "eve"}, {"name": "Ada"}], [eve, ada])
[{'name': 'eve'}, {'name': 'Ada', 'admin': True}]

What a reader gets wrong: it goes by identity, not by place and not by what looks alike. A new object that stands where an older
one stood must not take over what that one did not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dcaf.core.values import JSON


class Undeclared:
    """The members that objects were handed out without.

    Args:
        stored: The value as it is stored.
        shown: The same as its type writes it.
        given: The objects that were handed out for it.
    """

    def __init__(self, stored: JSON, shown: JSON, given: object) -> None:
        self._kept: dict[int, tuple[object, dict[str, JSON]]] = {}
        self._collect(stored, shown, given)

    def restored(self, written: JSON, given: object) -> JSON:
        """What objects look like now, with the undeclared members of those that were handed out."""
        inside = dict(_inside(written, given))
        if isinstance(written, list):
            return [self.restored(item, inside.get(index)) for index, item in enumerate(written)]
        if not isinstance(written, dict):
            return written
        _, kept = self._kept.get(id(given), (None, {}))
        found = {key: self.restored(item, inside.get(key)) for key, item in written.items()}
        return found | {key: item for key, item in kept.items() if key not in found}

    def _collect(self, stored: JSON, shown: JSON, given: object) -> None:
        if isinstance(stored, dict) and isinstance(shown, dict):
            kept = {key: item for key, item in stored.items() if key not in shown}
            if kept:
                self._kept[id(given)] = (given, kept)  # the object too, so that its id stays its own
        for key, item in _inside(shown, given):
            there = _at(stored, key)
            if there is not None:
                self._collect(there, _at(shown, key), item)


def _inside(written: JSON, given: object) -> Iterator[tuple[Any, object]]:
    """The objects inside one, by the key or the index under which each was written."""
    if isinstance(written, list) and isinstance(given, list | tuple) and len(given) == len(written):
        yield from enumerate(given)
    elif isinstance(written, dict) and isinstance(given, Mapping):
        yield from zip(written, given.values(), strict=False)
    elif isinstance(written, dict):
        yield from ((key, getattr(given, key)) for key in written if hasattr(given, key))


def _at(value: JSON, key: Any) -> JSON:
    if isinstance(value, dict):
        return value.get(key)
    return value[key] if isinstance(value, list) and type(key) is int and key < len(value) else None
