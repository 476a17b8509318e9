"""``keys()``, ``items()`` and ``values()`` of a session, which do what a dict's do.

>>> from dcaf.core.session import Session
>>> session = Session.from_dict({"a": 1, "b": [2]})
>>> list(reversed(session.keys())), "a" in session.items()
(['b', 'a'], False)

What a reader gets wrong: they show the session as it is when they are asked, and not as it was when they were made.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from types import MappingProxyType
from typing import Any


class Keys(KeysView[str]):
    """The keys."""

    __slots__ = ()
    _mapping: Any

    @property
    def mapping(self) -> MappingProxyType[str, Any]:
        """What they are of, to read."""
        return MappingProxyType(self._mapping)

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __reversed__(self) -> Iterator[str]:
        return iter(reversed(self._mapping))


class Items(ItemsView[str, Any]):
    """The keys with their values."""

    __slots__ = ()
    _mapping: Any
    mapping = Keys.mapping

    def __contains__(self, item: object) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and item[0] in self._mapping and super().__contains__(item)  # noqa: PLR2004

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((key, self._mapping[key]) for key in self._mapping)

    def __reversed__(self) -> Iterator[tuple[str, Any]]:
        return ((key, self._mapping[key]) for key in reversed(self._mapping))


class Values(ValuesView[Any]):
    """The values."""

    __slots__ = ()
    _mapping: Any
    mapping = Keys.mapping

    def __iter__(self) -> Iterator[Any]:
        return (self._mapping[key] for key in self._mapping)

    def __reversed__(self) -> Iterator[Any]:
        return (self._mapping[key] for key in reversed(self._mapping))
