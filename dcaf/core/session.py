"""The session that a tool sees: a typed mapping whose changes are noticed wherever they are made.

>>> session = Session.from_dict({"cart": {"items": []}})
>>> session.get("cart")["items"].append("widget")
>>> session.is_modified, session.changes
(True, {'set': {'cart': {'items': ['widget']}}, 'delete': []})

What a reader gets wrong: a session is true even when it is empty, so ``session or Session()`` never swaps a live session
for a detached one. Ask ``session.is_empty``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, Final, Never, Self, cast

from dcaf.core.arguments import describe_framework, require_text
from dcaf.core.claims import Standing
from dcaf.core.errors import ConfigurationError, SessionValueError
from dcaf.core.json_values import read
from dcaf.core.mapping import StateMapping, state_of
from dcaf.core.single_use import use_once
from dcaf.core.slots import RESERVED, TEMPORARY, Closing
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
            ConfigurationError: It was called with arguments; values come in through ``from_dict``.
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
            SessionValueError: A value may not be stored, or ``data`` is no mapping.
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
        """Start from keys that all have one value. Raises as ``from_dict``."""
        return cls.from_dict(dict.fromkeys(keys, value))

    @classmethod
    def of(cls, session: Session) -> Self:
        """View another session through this class: both share one state.

        Raises:
            ConfigurationError: It is no session that may be written.
        """
        return cls._over(state_of(require_session(session, f"{cls.__name__}.of()", cls.__name__)))

    @classmethod
    def _over(cls, state: State) -> Self:
        view = cls.__new__(cls)
        object.__setattr__(view, "_state", state)  # __setattr__ is for users, and slower
        return view

    @property
    def _standing(self) -> Standing | None:
        return self._state.standing

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON in a new dict, without the ``temp:`` keys: what would be sealed now."""
        self._state.mark_seen()
        return cast("dict[str, Any]", read(self._state.plain()))

    def clear(self) -> None:
        """Remove the session's own keys and the ``temp:`` ones; ``user:`` and ``app:`` keys stay."""
        self._state.drop_all(kept=SHARED)

    def end(self) -> None:
        """End the session: the answer tells the client to drop it, and the client's next turn begins a new one.

        With a ledger no token of it is accepted afterwards. Without one the client drops it, and a copy of its token stays good
        until it expires. Nothing can be written to it from now on. Where the turn fails, or the call of the tool that asked for it,
        the session has not ended.

        Raises:
            SessionClosedError: The turn is over, or the session was ended before.
        """
        self._state.close(Closing(rotates=False))

    def rotate(self, *, subject: str | None = None) -> None:
        """Go on under a new id with the same state, for instance at a login: the session of before ends with this turn.

        ``session.id`` is the new one when the answer is sealed. The session ends no later than it would have. With a ledger no
        token of before is accepted afterwards.

        Args:
            subject: Whom the session is bound to from now on, as ``subject=`` of the middleware names the caller in the next turn;
                None for the same as before.

        Raises:
            ConfigurationError: The subject is empty, or no text.
            SessionClosedError: The turn is over, or the session was ended before.
        """
        if subject is not None and not require_text("subject=", subject, "or None"):
            raise ConfigurationError("subject= is a text that is not empty, or None for the same as before.")
        self._state.close(Closing(rotates=True, subject=subject))

    async def once(self, key: str) -> bool:
        """Use up a key of the session before something is done that may be done once; False where it was used before.

        With a ledger that holds for the whole session, also after ``rotate``, whatever became of the turn that used it. Without one
        the session itself remembers, so it holds in the newest session alone: an older one may use the key again.

        Raises:
            ConfigurationError: The key is empty, no text, or longer than 256 characters.
            SessionError: The session is revoked by now, or another turn has taken it over.
            SessionUnavailable: Nobody can tell; then do not do it.
            SessionClosedError: The turn is over.
            SessionValueError: The session remembers as many keys as it can, without a ledger.
        """
        return await use_once(self, key)

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
        changed = self._state.changed_keys()
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
        """The code of the refusal after which this session was started empty; None where no session was refused."""
        return self._standing.restarted if self._standing else None

    def __bool__(self) -> bool:
        return True

    def __copy__(self) -> Self:
        return type(self)._over(self._state.copy())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    if not TYPE_CHECKING:  # type checkers would accept any argument and any attribute because of these

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


def require_session(given: object, what: str, name: str = "Session") -> Session:
    """Require a session, or the dict of ``dcaf.integrations.starlette`` that shows one; returns the session.

    Args:
        given: The argument.
        what: The function that takes it, for the message.
        name: The class whose ``from_dict`` makes a session of plain values, for the message.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(given, Session):
        return given
    found = unwrap_session(given)
    if not isinstance(found, Session):
        raise ConfigurationError(_describe_wrong_type(given, what, name))
    return found


def unwrap_session(given: Any) -> Any:
    """The session that a dict of ``dcaf.integrations.starlette`` shows; anything else as it is."""
    return given.__dcaf_session__ if hasattr(type(given), "__dcaf_session__") else given


def _describe_wrong_type(given: object, what: str, name: str) -> str:
    if isinstance(given, type):
        return f"{what} takes a session, and not the class {given.__name__}. Write {given.__name__}() for an empty one."
    problem = f"{what} takes a Session, and not a {type(given).__name__}."
    if isinstance(type(given), SessionType):
        return f"{problem} It may only be read: declare `session: Session` where it comes from, to write it too."
    if isinstance(given, StateMapping):
        return f"{problem} A scope is a part of one: pass the session, and read the scope from it."
    if isinstance(given, Mapping):
        return f"{problem} For plain values write {name}.from_dict({{...}})."
    return f"{problem} Below the middleware current_session() gives it."


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Fills a parameter of a tool with the value of one key: ``Annotated[Cart, SessionKey("cart")]``.

    >>> SessionKey("cart")
    SessionKey(key='cart')

    The object is written back when it changes. A number or a text cannot change in place, so a tool that is to change one takes the
    session.

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
