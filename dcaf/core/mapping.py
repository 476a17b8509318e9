"""Typed reading and writing by key, and the dict's views: what a session and each of its scopes have in common.

>>> from dcaf.core.state import State
>>> values = StateMapping(State(), "user:")
>>> values["theme"] = "dark"
>>> values.get("theme", as_type=str), list(values), "theme" in values.keys()
('dark', ['theme'], True)

What a reader gets wrong: containers and typed objects that ``get`` and ``[]`` return are live. Changing one changes the session.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, MappingView, MutableMapping, ValuesView
from operator import attrgetter
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self, TypeVar, overload

from typing_extensions import TypeForm

from dcaf.core.errors import SessionTypeError, SessionValueError
from dcaf.core.json_values import read
from dcaf.core.parts import ABSENT
from dcaf.core.state import State


class View(MappingView):
    """A view of a mapping, with the attribute that a dict's views have besides those of ``collections.abc``."""

    __slots__ = ()
    _mapping: Any

    @property
    def mapping(self) -> MappingProxyType[str, Any]:
        """The mapping, read-only."""
        return MappingProxyType(self._mapping)


class Keys(View, KeysView[str]):
    """The keys, as they are when they are asked for."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __reversed__(self) -> Iterator[str]:
        return iter(reversed(self._mapping))


class Items(View, ItemsView[str, Any]):
    """The keys with their values."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and item[0] in self._mapping and super().__contains__(item)  # noqa: PLR2004

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((key, self._mapping[key]) for key in self._mapping)

    def __reversed__(self) -> Iterator[tuple[str, Any]]:
        return ((key, self._mapping[key]) for key in reversed(self._mapping))


class Values(View, ValuesView[Any]):
    """The values."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return (self._mapping[key] for key in self._mapping)

    def __reversed__(self) -> Iterator[Any]:
        return (self._mapping[key] for key in reversed(self._mapping))


T = TypeVar("T")
D = TypeVar("D")


state_of: Final[Callable[[StateMapping], State]] = attrgetter("_state")
"""The state behind a session or a scope, for the rest of the library; no user of a session sees it."""


class StateMapping(MutableMapping[str, Any]):
    """The keys of a state that begin with a prefix, without it."""

    _state: State
    _prefix: str

    def __init__(self, state: State, prefix: str) -> None:
        object.__setattr__(self, "_state", state)
        object.__setattr__(self, "_prefix", prefix)

    @overload
    def get(self, key: str, default: D, *, as_type: TypeForm[T]) -> T | D: ...
    @overload
    def get(self, key: str, *, as_type: TypeForm[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: Any = None, *, as_type: None = None) -> Any: ...

    def get(self, key: str, default: Any = None, *, as_type: Any = None) -> Any:
        """Read a value.

        Args:
            key: The key.
            default: What to return where the key is absent. Given together with ``as_type`` it is live: it is stored as
                soon as it changes.
            as_type: Any type that pydantic understands: the value comes back validated as it, and the same object
                each time. None returns the JSON value; a container is live.

        Returns:
            The value; the default, or None, where the key is absent.

        Raises:
            SessionTypeError: The stored value does not fit ``as_type``; the message has key and path.
            SessionAliasError: The value was changed through two objects handed out of it.
            SessionValueError: An object handed out of it holds something that may not be stored.
        """
        name = self._prefix + key if type(key) is str else self._name(key)
        if name is not None and as_type is None:
            found = self._state.peek(name)
            if found is not ABSENT:
                return found
        slot = None if name is None else self._state.find(name)
        if slot is not None:
            found = slot.get_live() if as_type is None else slot.get_live_as(as_type)
            if found is not ABSENT:
                return found
        if as_type is None or default is None or name is None:
            return default
        return self._state.slot(name).get_default(default, as_type)

    def set(self, key: str, value: object) -> None:
        """Convert, check and store a value at once. The object stays live: it is stored again if it changes.

        Raises:
            SessionValueError: It may not be stored; the message has the path. Nothing was changed.
        """
        self[key] = value

    def has(self, key: str) -> bool:
        """Whether the key is present."""
        return key in self

    def delete(self, key: str) -> None:
        """Remove a key; removing an absent one changes nothing."""
        name = self._name(key)
        if name is not None:
            self._state.drop(name)

    def incr(self, key: str, by: int = 1) -> int:
        """Add to a number and return the sum; an absent key counts as 0.

        Raises:
            SessionTypeError: The stored value is not an integer, or what is to be added is none.
            SessionValueError: The sum is too large to be stored, or there may be no such key.
        """
        if type(by) is not int:
            raise SessionTypeError(f"incr({key!r}): what is to be added is not an integer")
        return self._state.add(self._new_name(key), by)

    def append(self, key: str, value: object) -> None:
        """Add a copy of one item to the end of a list; an absent key counts as an empty list.

        Raises:
            SessionTypeError: The stored value is not a list.
            SessionValueError: The item may not be stored, or there may be no such key. Nothing was changed.
        """
        self._state.append(self._new_name(key), value)

    def update(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **values: Any) -> None:  # type: ignore[override]
        """Store several values, or, when one of them is refused, none.

        Raises:
            SessionValueError: As ``set``.
            TypeError: It is given neither a mapping nor pairs.
        """
        try:
            coming: dict[Any, Any] = dict(other, **values)
        except ValueError:
            raise TypeError(f"update() takes a mapping, or pairs of a key and a value, not {type(other).__name__}") from None
        self._state.put_all({self._new_name(key): value for key, value in coming.items()})

    def clear(self) -> None:
        """Remove every key."""
        self._state.drop_all(prefix=self._prefix)

    def copy(self) -> dict[str, Any]:
        """The values as plain JSON in a new dict, ``temp:`` keys too."""
        length = len(self._prefix)
        return {key[length:]: read(data) for key, data in self._state.values(self._prefix).items()}

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key, and return it with its value.

        Raises:
            KeyError: There is none.
        """
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("popitem(): the session is empty")

    def keys(self) -> KeysView[str]:
        """The keys, in the order in which they were set."""
        return Keys(self)

    def items(self) -> ItemsView[str, Any]:
        """The keys with their values, which are live."""
        return Items(self)

    def values(self) -> ValuesView[Any]:
        """The values, which are live."""
        return Values(self)

    def __getitem__(self, key: str) -> Any:
        found = self.get(key, ABSENT)
        if found is ABSENT:
            raise KeyError(key)
        return found

    def __setitem__(self, key: str, value: object) -> None:
        self._state.put(self._prefix + key if type(key) is str else self._new_name(key), value)

    def __delitem__(self, key: str) -> None:
        name = self._name(key)
        if name is None or not self._state.drop(name):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        name = self._name(key)
        return name is not None and name in self._state

    def __iter__(self) -> Iterator[str]:
        return self._iterate(self._keys())

    def __reversed__(self) -> Iterator[str]:
        return self._iterate(self._keys()[::-1])

    def __len__(self) -> int:
        return len(self._state.keys(self._prefix))

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.copy() == (other.copy() if isinstance(other, StateMapping) else dict(other))

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} keys={sorted(self)}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} is not pickled: seal it, or take to_dict()")

    def _name(self, key: object) -> str | None:
        """The key with the prefix; None where it is no string, and so is absent."""
        if isinstance(key, str):
            return self._prefix + key
        hash(key)  # raises TypeError as a dict does for what cannot be a key at all
        return None

    def _new_name(self, key: object) -> str:
        """The key with the prefix, for a value that is to be stored.

        Raises:
            SessionValueError: It is no string.
        """
        if not isinstance(key, str):
            raise SessionValueError(f"a key of type {type(key).__name__} cannot be stored; keys must be strings")
        return self._prefix + key

    def _keys(self) -> list[str]:
        length = len(self._prefix)
        return [key[length:] for key in self._state.keys(self._prefix)]

    def _iterate(self, keys: list[str]) -> Iterator[str]:
        """Iterate over the keys as long as none comes or goes.

        Raises:
            RuntimeError: One came or went, as in a dict.
        """
        before = self._state.size_changes

        def go() -> Iterator[str]:
            seen = before
            for key in [*keys, None]:
                if self._state.size_changes != seen and {*self._keys()} != {*keys}:
                    raise RuntimeError("the session changed size during iteration. Go through list(session) instead")
                seen = self._state.size_changes
                if key is not None:
                    yield key

        return go()
