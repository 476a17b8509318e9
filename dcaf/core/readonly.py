"""A session for code that must not change it: every read, and no write.

>>> from dcaf.core.session import Session
>>> session = Session.from_dict({"cart": {"items": ["widget"]}})
>>> seen = ReadOnlySession.of(session)
>>> seen["cart"]["items"].append("bolt")  # changes a copy
>>> seen["cart"], session.is_modified
({'items': ['widget']}, False)

What a reader gets wrong: it is no snapshot. Each read shows the session as it is at that moment; only the values are copies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import datetime
from typing import Any, ClassVar, Final, Self, TypeVar, overload

from typing_extensions import TypeForm

from dcaf.core.arguments import describe_framework
from dcaf.core.errors import ConfigurationError, SessionReadOnlyError
from dcaf.core.json_values import from_json, read
from dcaf.core.mapping import Items, Keys, StateMapping, Values, state_of
from dcaf.core.parts import ABSENT
from dcaf.core.session import Session, require_session
from dcaf.core.slots import TEMPORARY
from dcaf.core.typed import SessionType, locals_around, refuse_fields

T = TypeVar("T")
D = TypeVar("D")

WRITERS: Final = (
    *("set", "delete", "clear", "update", "incr", "append", "pop", "popitem", "setdefault", "end", "rotate", "once"),
    *("__setitem__", "__delitem__", "__ior__", "__setattr__", "__delattr__"),
)
"""The methods that change a Session; here each of them raises."""


def _build_refusal(name: str) -> Callable[..., Any]:
    def refuse(_: ReadOnlySession, *__: object, **___: object) -> Any:
        raise SessionReadOnlyError(
            f"a ReadOnlySession cannot be written, and {name} writes. Declare the parameter as `session: Session` to write."
        )

    refuse.__name__ = name
    return refuse


class ReadOnlySession(Mapping[str, Any], metaclass=SessionType):
    """A session that can be read and not changed."""

    __slots__ = ("_prefix", "_session")
    _prefix: str
    _session: Session

    def __init__(self) -> None:
        """View an empty session that belongs to no conversation."""
        self._bind(Session(), "")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_fields(cls, ReadOnlySession, locals_around(sys._getframe(1)))

    @classmethod
    def of(cls, session: Session | ReadOnlySession) -> Self:
        """View a session.

        Raises:
            ConfigurationError: It is no session.
        """
        if isinstance(session, ReadOnlySession) and not session._prefix:
            return cls.__new__(cls)._bind(session._session, "")
        return cls.__new__(cls)._bind(require_session(session, f"{cls.__name__}.of()"), "")

    def _bind(self, session: Session, prefix: str) -> Self:
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_prefix", prefix)
        return self

    @overload
    def get(self, key: str, default: D, *, as_type: TypeForm[T]) -> T | D: ...
    @overload
    def get(self, key: str, *, as_type: TypeForm[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: Any = None, *, as_type: None = None) -> Any: ...

    def get(self, key: str, default: Any = None, *, as_type: Any = None) -> Any:
        """Read a value: a new copy each time.

        Args:
            key: The key.
            default: What to return where the key is absent.
            as_type: Any type that pydantic understands: the value comes back validated as it. None returns the JSON value.

        Raises:
            SessionTypeError: The stored value does not fit ``as_type``; the message has key and path.
            SessionAliasError, SessionValueError: As ``Session.get``.
        """
        data = self._data(key)
        if data is None:
            return default
        return read(data) if as_type is None else from_json(data, as_type, path=self._prefix + key)

    def has(self, key: str) -> bool:
        """Whether the key is present."""
        return key in self

    def copy(self) -> dict[str, Any]:
        """The values as plain JSON in a new dict, ``temp:`` keys too."""
        return self._values.copy()

    def keys(self) -> KeysView[str]:
        """The keys, in the order in which they were set."""
        return Keys(self)

    def items(self) -> ItemsView[str, Any]:
        """The keys with copies of their values."""
        return Items(self)

    def values(self) -> ValuesView[Any]:
        """Copies of the values."""
        return Values(self)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON in a new dict, without the ``temp:`` keys."""
        return {key: value for key, value in self.copy().items() if self._prefix or not key.startswith(TEMPORARY)}

    @property
    def temp(self) -> ReadOnlySession:
        """The ``temp:`` keys, to read."""
        return self._scope(TEMPORARY)

    @property
    def user(self) -> ReadOnlySession:
        """The ``user:`` keys, to read."""
        return self._scope("user:")

    @property
    def app(self) -> ReadOnlySession:
        """The ``app:`` keys, to read."""
        return self._scope("app:")

    @property
    def is_empty(self) -> bool:
        """Whether no lasting key is present."""
        return not self.to_dict()

    @property
    def id(self) -> str | None:
        """The session's id, as ``Session.id``."""
        return self._session.id

    @property
    def sequence(self) -> int:
        """As ``Session.sequence``."""
        return self._session.sequence

    @property
    def created_at(self) -> datetime | None:
        """As ``Session.created_at``."""
        return self._session.created_at

    @property
    def expires_at(self) -> datetime | None:
        """As ``Session.expires_at``."""
        return self._session.expires_at

    @property
    def restarted(self) -> str | None:
        """As ``Session.restarted``."""
        return self._session.restarted

    def _scope(self, prefix: str) -> ReadOnlySession:
        return ReadOnlySession.__new__(ReadOnlySession)._bind(self._session, prefix)

    @property
    def _values(self) -> StateMapping:
        """The mapping of the keys below the prefix."""
        return StateMapping(state_of(self._session), self._prefix)

    def _data(self, key: object) -> bytes | None:
        """The written value, changes of live objects included; None where the key is absent."""
        if key not in self._values:
            return None
        slot = state_of(self._session).find(f"{self._prefix}{key}")
        return None if slot is None else slot.data

    def __getitem__(self, key: str) -> Any:
        found = self.get(key, ABSENT)
        if found is ABSENT:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return self._data(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self.copy() == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.copy(), **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self.copy()} if isinstance(other, Mapping) else NotImplemented

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} keys={sorted(self)}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} is not pickled: take to_dict()")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise ConfigurationError(
            describe_framework(f"A {cls.__name__}")
            or f"A {cls.__name__} is never read from a request body or from a model's arguments, where the client would write it. "
            "In a tool declare `session: ReadOnlySession`; elsewhere call dcaf.current_session()."
        )


for _name in WRITERS:  # here, where no type checker sees them: it refuses them before they run
    setattr(ReadOnlySession, _name, _build_refusal(_name))
