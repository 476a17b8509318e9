"""The session that a tool sees: a typed mapping whose changes are noticed wherever they are made.

>>> session = Session.from_dict({"cart": {"items": []}})
>>> session.get("cart")["items"].append("widget")
>>> session.is_modified, session.changes
(True, {'set': {'cart': {'items': ['widget']}}, 'delete': []})

What a reader gets wrong: a session is true even when it is empty, so ``session or Session()`` never swaps a live session
for a detached one. Ask ``session.is_empty``.

One key of the session as a parameter of a tool: ``Annotated[Cart, SessionKey("cart")]``.

>>> SessionKey("cart")
SessionKey(key='cart')

What a reader gets wrong: the *object* is written back. A number or a string cannot change in place, so a tool that must change
one takes the session.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, Final, Never, Self, cast

from dcaf.core.arguments import describe_framework
from dcaf.core.claims import Standing
from dcaf.core.errors import ConfigurationError, SessionValueError
from dcaf.core.json_values import read
from dcaf.core.mapping import StateMapping, state_of
from dcaf.core.slots import RESERVED, TEMPORARY
from dcaf.core.state import State
from dcaf.core.typed import SessionType, declare, keep_variables, locals_around, parametrise

SHARED: Final = ("user:", "app:")


class Session(StateMapping, metaclass=SessionType):
    """What an agent remembers between turns.

    A subclass with annotations is a typed view of the same keys::

        class Deploy(Session):
            step: int = 1
    """

    _prefix = ""

    def __init__(self, *given: Never, **fields: Never) -> None:
        """Start an empty session that belongs to no conversation yet.

        Raises:
            ConfigurationError: Something is given to it: values come in through ``from_dict``.
        """
        if given or fields:
            name = type(self).__name__
            raise ConfigurationError(
                f"{name}() takes nothing. For plain values write {name}.from_dict({{...}}), and for another view of a session "
                f"{name}.of(session)."
            )
        super().__init__(State(), "")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        declare(cls, Session, locals_around(sys._getframe(1)))
        keep_variables(cls)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Self:
        """Start from plain values, as if they had arrived: not modified. None is an empty session.

        Raises:
            SessionValueError: A value may not be stored, or these are no values.
        """
        if isinstance(data, Mapping) or data is None:
            state = State()
            state.put_all(dict(data or {}))
            return cls._over(State(state.payload()))
        raise SessionValueError(
            f"{cls.__name__}.from_dict() takes a dict of plain values, or None, and not a {type(data).__name__}. "
            "Read a text with json.loads() first."
        )

    @classmethod
    def fromkeys(cls, keys: Iterable[str], value: Any = None) -> Self:
        """Start from keys that all have one value, as ``from_dict``. Raises as it."""
        return cls.from_dict(dict.fromkeys(keys, value))

    @classmethod
    def of(cls, session: Session) -> Self:
        """Look at another session through this class: one state, seen by both.

        Raises:
            ConfigurationError: It is no session that may be written.
        """
        return cls._over(state_of(session_behind(session, f"{cls.__name__}.of()", cls.__name__)))

    @classmethod
    def _over(cls, state: State) -> Self:
        view = cls.__new__(cls)
        object.__setattr__(view, "_state", state)  # at each call of a tool: past __setattr__, which is for users
        return view

    @property
    def _standing(self) -> Standing | None:
        return self._state.standing

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON in a dict of its own, without the ``temp:`` keys: what would be sealed now."""
        self._state.look()
        return cast("dict[str, Any]", read(self._state.plain()))

    def clear(self) -> None:
        """Remove the session's own keys and the ``temp:`` ones; ``user:`` and ``app:`` keys stay."""
        self._state.drop_all(kept=SHARED)

    @property
    def temp(self) -> StateMapping:
        """The ``temp:`` keys, which live until the turn ends."""
        return StateMapping(self._state, TEMPORARY)

    @property
    def user(self) -> StateMapping:
        """The ``user:`` keys; a session service shares them among the user's sessions."""
        return StateMapping(self._state, "user:")

    @property
    def app(self) -> StateMapping:
        """The ``app:`` keys; a session service shares them across the application."""
        return StateMapping(self._state, "app:")

    @property
    def is_modified(self) -> bool:
        """Whether what would be sealed now differs from what arrived or was last sealed; setting an equal value is no change."""
        return self._state.is_changed()

    @property
    def is_empty(self) -> bool:
        """Whether no lasting key is present."""
        return not any(not key.startswith(TEMPORARY) for key in self)

    @property
    def changes(self) -> dict[str, Any]:
        """What this turn changed: ``{"set": {key: value}, "delete": [key]}`` against what arrived or was last sealed."""
        changed = self._state.changed()
        now = {key: self._state.slot(key).data for key in changed}
        return {
            "set": {key: read(data) for key, data in now.items() if data is not None},
            "delete": [key for key, data in now.items() if data is None],
        }

    @property
    def id(self) -> str | None:
        """The session's id, the same for its whole life; None outside a conversation."""
        return self._standing.claims.sid if self._standing else None

    @property
    def sequence(self) -> int:
        """How many changed states were sealed so far; 0 for a new session."""
        standing = self._state.standing
        return standing.claims.seq if standing else 0

    @property
    def created_at(self) -> datetime | None:
        """When the session began, in UTC; None outside a conversation."""
        return datetime.fromtimestamp(self._standing.claims.born, UTC) if self._standing else None

    @property
    def expires_at(self) -> datetime | None:
        """When it ends unless another turn comes, in UTC; None outside a conversation."""
        return datetime.fromtimestamp(self._standing.claims.exp, UTC) if self._standing else None

    @property
    def restarted(self) -> str | None:
        """Code of the refusal after which this session was started empty; None where none was refused."""
        return self._standing.restarted if self._standing else None

    def __bool__(self) -> bool:
        return True

    def __copy__(self) -> Self:
        return type(self)._over(self._state.copy())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    if not TYPE_CHECKING:  # they know what Generic and attributes are, and would take any for these

        def __class_getitem__(cls, arguments: Any) -> type[Self]:
            return parametrise(cls, arguments)

        def __setattr__(self, name: str, value: Any) -> None:
            if not hasattr(getattr_static(type(self), name, None), "__set__"):
                raise AttributeError(
                    f"{type(self).__name__} has no field {name!r}, so the value would be lost. Write session[{name!r}] = ..., "
                    "or declare the field in a subclass of Session."
                )
            super().__setattr__(name, value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise ConfigurationError(
            describe_framework(f"A {cls.__name__}")
            or f"A {cls.__name__} is never read from a request body or from a model's arguments, where the client would write it. "
            "Under FastAPI declare `session: SessionDep` (from dcaf.integrations.fastapi); in a tool use dcaf's @tool; "
            f"anywhere else call dcaf.current_session({'' if cls is Session else cls.__name__})."
        )


def session_behind(given: object, what: str, name: str = "Session") -> Session:
    """The session that was given, or that what was given shows.

    Args:
        given: A session, or the dict that ``dcaf.integrations.starlette`` makes of one.
        what: What takes it, for the message.
        name: The class whose ``from_dict`` makes a session of plain values.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(given, Session):
        return given
    found = shown_session(given)
    if not isinstance(found, Session):
        raise ConfigurationError(_not_a_session(given, what, name))
    return found


def shown_session(given: Any) -> Any:
    """The session that a dict shows (``dcaf.integrations.starlette``); anything else as it is."""
    return given.__dcaf_session__ if hasattr(type(given), "__dcaf_session__") else given


def _not_a_session(given: object, what: str, name: str) -> str:
    if isinstance(given, type):
        return f"{what} takes a session, and not the class {given.__name__}. Write {given.__name__}() for an empty one."
    told = f"{what} takes a Session, and not a {type(given).__name__}."
    if isinstance(type(given), SessionType):
        return f"{told} It may only be read: declare `session: Session` where it comes from, to write it too."
    if isinstance(given, StateMapping):
        return f"{told} A scope is a part of one: pass the session, and read the scope from it."
    if isinstance(given, Mapping):
        return f"{told} For plain values write {name}.from_dict({{...}})."
    return f"{told} Below the middleware current_session() gives it."


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Names the key whose value fills a parameter.

    Attributes:
        key: As in ``session[key]``, prefix included: ``SessionKey("user:theme")``.

    Raises:
        ConfigurationError: It is no key that a session can have.
    """

    key: str

    def __post_init__(self) -> None:
        if not isinstance(self.key, str):
            raise ConfigurationError('SessionKey takes the name of a key: Annotated[Cart, SessionKey("cart")].')
        if self.key == RESERVED:
            raise ConfigurationError(f"SessionKey({self.key!r}): that key is the library's own. Choose another.")

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        raise ConfigurationError(
            describe_framework(f"SessionKey({self.key!r})")
            or f"SessionKey({self.key!r}) is filled by dcaf's @tool, in a parameter of a tool. pydantic would read it from a "
            "request body or from a model's arguments, where the client would write it."
        )
