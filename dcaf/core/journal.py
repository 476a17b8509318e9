"""The interface for what a turn adds to its session beside the state, where a store keeps it: messages, remembered facts.

    begin     a call of a tool, or a transaction, has a journal of its own over that of the turn
    check     what the call added has to fit what others have added meanwhile, before any of it is kept
    freeze    what is there by now goes with the state that is being sealed
    take_over what such a call added, in one step with its changes of the state; and on a socket whose next turn begins, what was
              added after the last commit

A store that keeps more than a state gives its leases an attribute ``journal``; the session of the turn has it as its own. What a
call of a tool adds is dropped where the call fails, as its changes of the state are.

What a reader gets wrong: a journal writes nothing. The commit of the lease does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from dcaf.core.arguments import has_methods
from dcaf.core.mapping import state_of

if TYPE_CHECKING:
    from dcaf.core.session import Session


class Journal(Protocol):
    """What a turn, or a call in it, adds beside the state.

    The methods are called under the lock of the state that it belongs to.

    Attributes:
        is_empty: Whether nothing waits to be committed.
    """

    @property
    def is_empty(self) -> bool:
        """As above."""

    def begin(self) -> Journal:
        """A journal over this one, which sees what is in it."""

    def check(self, call: Journal) -> None:
        """Refuse what was added to the journal of a call where it does not fit what others have added meanwhile.

        Raises:
            SessionValueError: It does not.
        """

    def freeze(self) -> None:
        """Mark what is there: the next commit of the lease writes this, and what comes later is for the one after it."""

    def take_over(self, before: Journal) -> None:
        """Go on with what was added to the journal of a call, or to that of the turn before, and not committed."""


class History(Protocol):
    """The conversation of a session, where a store keeps it. A ``Journal`` that has one has these methods, too."""

    def read_messages(self) -> Sequence[Mapping[str, Any]]:
        """The newest messages that were read and those of this turn, oldest first, in the shape of OpenAI's chat."""

    def add_message(self, message: Mapping[str, Any]) -> None:
        """Add one, in that shape, to be written with the turn.

        Raises:
            ConfigurationError: It is no message.
            SessionValueError: It may not be stored.
        """


class Fact(Protocol):
    """One thing that is remembered."""

    @property
    def key(self) -> str:
        """Its name."""

    @property
    def value(self) -> Any:
        """Its value, as JSON has it."""


class Facts(Protocol):
    """What the user of a session remembers, where a store keeps it: ``dcaf.service.Memory`` is such a class."""

    @classmethod
    def of(cls, session: Session) -> Self:
        """Of the user of a session.

        Raises:
            ConfigurationError: No store keeps it.
        """

    async def all(self) -> Sequence[Fact]:
        """All of it.

        Raises:
            DcafError: It cannot be read now.
        """


def find_history(session: Session) -> History | None:
    """The conversation of a session, to read and to add to; None where no store keeps it.

    Args:
        session: The session of a turn, or of a call in it: what is added to that of a call is dropped where the call fails.
    """
    journal: Any = state_of(session).journal
    return journal if has_methods(journal, "read_messages", "add_message") else None


class Injected:
    """A base for what a tool asks for by the annotation of a parameter, and gets made of the session of its turn.

    A class of your own is one with ``of``: no model sees the parameter, and none can fill it.

    >>> from dcaf.core.session import Session
    >>> class Basket(Injected):
    ...     def __init__(self, session):
    ...         self.items = session.get("items", [])
    ...
    ...     @classmethod
    ...     def of(cls, session):
    ...         return cls(session)
    >>> Basket.of(Session.from_dict({"items": ["tea"]})).items
    ['tea']
    """

    writes: ClassVar[bool] = True
    """Whether it can change the session, so that calls with it are kept in order."""

    @classmethod
    def is_for(cls, session: Session) -> bool:  # noqa: ARG003 - of subclasses it is asked
        """Whether a session has what it needs; where not, a parameter that may be None is None."""
        return True

    @classmethod
    def of(cls, session: Session) -> Self:
        """Make it for a session.

        Raises:
            ConfigurationError: The session has not what it needs.
        """
        raise NotImplementedError(f"{cls.__qualname__} has no method of().")
