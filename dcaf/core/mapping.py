"""Typed reading and writing by key: what a session and each of its scopes have in common.

>>> from dcaf.core.state import State
>>> values = StateMapping(State(), "user:")
>>> values["theme"] = "dark"
>>> values.get("theme", as_type=str), list(values)
('dark', ['theme'])

What a reader gets wrong: what ``get`` and ``[]`` return is live. Changing it changes the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar, Self, TypeVar, cast, overload

from typing_extensions import TypeForm

from dcaf.core.errors import SessionTypeError
from dcaf.core.handles import ABSENT
from dcaf.core.state import State
from dcaf.core.values import read, to_json, write

T = TypeVar("T")
D = TypeVar("D")


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
        slot = self._state.find(self._prefix + key) if isinstance(key, str) else None
        if slot is not None:
            found = slot.lend() if as_type is None else slot.lend_as(as_type)
            if found is not ABSENT:
                return found
        if as_type is None or default is None or not isinstance(key, str):
            return default
        return self._state.slot(self._prefix + key).offer(default, as_type)

    def set(self, key: str, value: object) -> None:
        """Convert, check and store a value at once. The object stays live: it is stored again if it changes.

        Raises:
            SessionValueError: It may not be stored; the message has the path. Nothing was changed.
        """
        self._state.put(self._prefix + key if isinstance(key, str) else key, value)

    def has(self, key: str) -> bool:
        """Whether the key is present."""
        return key in self

    def delete(self, key: str) -> None:
        """Remove a key; removing an absent one changes nothing."""
        self._state.drop(self._prefix + key)

    def incr(self, key: str, by: int = 1) -> int:
        """Add to a number and return the sum; an absent key counts as 0.

        Raises:
            SessionTypeError: The stored value is not an integer.
        """
        if type(by) is not int:
            raise SessionTypeError(f"incr({key!r}): what is to be added is not an integer")
        found = 0

        def increased(data: bytes | None) -> bytes:
            nonlocal found
            number = 0 if data is None else read(data)
            if type(number) is not int:
                raise SessionTypeError(f"incr({key!r}): the stored value is not an integer")
            found = number + by
            return write(to_json(found, path=key))

        self._state.amend(self._prefix + key, increased)
        return found

    def append(self, key: str, value: object) -> None:
        """Add a copy of one item to the end of a list; an absent key counts as an empty list.

        Raises:
            SessionTypeError: The stored value is not a list.
            SessionValueError: The item may not be stored. Nothing was changed.
        """
        items: list[Any] = []

        def longer(data: bytes | None) -> bytes:
            found = [] if data is None else read(data)
            if type(found) is not list:
                raise SessionTypeError(f"append({key!r}): the stored value is not a list")
            if not items:
                items.append(to_json(value, path=f"{key}[{len(found)}]"))
            return write([*found, *items])

        self._state.amend(self._prefix + key, longer)

    def update(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **values: Any) -> None:  # type: ignore[override]
        """Store several values, or, when one of them is refused, none.

        Raises:
            SessionValueError: As ``set``.
        """
        coming: dict[Any, Any] = dict(other, **values)
        self._state.put_all({self._prefix + key if isinstance(key, str) else key: value for key, value in coming.items()})

    def clear(self) -> None:
        """Remove every key."""
        self._state.drop_all(prefix=self._prefix)

    def copy(self) -> dict[str, Any]:
        """The values as plain JSON in a dict of its own, ``temp:`` keys too."""
        return {key: read(cast("bytes", self._state.slot(self._prefix + key).data)) for key in self}

    def __getitem__(self, key: str) -> Any:
        found = self.get(key, ABSENT)
        if found is ABSENT:
            raise KeyError(key)
        return found

    def __setitem__(self, key: str, value: object) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not isinstance(key, str) or not self._state.drop(self._prefix + key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._prefix + key in self._state

    def __iter__(self) -> Iterator[str]:
        length = len(self._prefix)
        return (key[length:] for key in list(self._state) if key.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

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
