"""What a call of a service asks for, as one object: for callers that hand on one object, as those of the related systems do.

>>> from dcaf.service import SessionService
>>> sessions = SessionService("memory://", app="clinic")
>>> session = sessions.sync.create(CreateSessionRequest(user="p-123", id="visit-1", state={"step": 1}))
>>> sessions.sync.get(GetSessionRequest(user="p-123", id="visit-1"))["step"]
1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypeVar

from dcaf.core.arguments import kind_of
from dcaf.core.errors import ConfigurationError
from dcaf.service.listing import Order

R = TypeVar("R", bound="CreateSessionRequest | GetSessionRequest | ListSessionsRequest | DeleteSessionRequest")


class Missing(Enum):
    """Stands for an argument that was not given, where None says something."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING

Given: TypeAlias = Literal[Missing.MISSING]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSessionRequest:
    """What ``SessionService.create`` takes. What is wrong with it, that call says.

    Args:
        user, id, state, title, labels, metadata: As the attributes.

    Attributes:
        user, id, state, title, labels, metadata: As of ``SessionService.create``.
    """

    user: str | None = field(repr=False)
    id: str | None = None
    state: Mapping[str, Any] | None = field(default=None, repr=False)
    title: str | None = field(default=None, repr=False)
    labels: Mapping[str, str] | None = field(default=None, repr=False)
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetSessionRequest:
    """What ``SessionService.get`` takes.

    Args:
        user, id: As the attributes.

    Attributes:
        user, id: As of ``SessionService.get``.
    """

    user: str | None = field(repr=False)
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSessionRequest:
    """What ``SessionService.delete`` takes.

    Args:
        user, id: As the attributes.

    Attributes:
        user, id: As of ``SessionService.delete``.
    """

    user: str | None = field(repr=False)
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSessionsRequest:
    """What ``SessionService.list`` takes.

    Args:
        user, limit, order, cursor, state, labels, archived: As the attributes.

    Attributes:
        user, limit, order, cursor, state, labels, archived: As of ``SessionService.list``.
    """

    user: str = field(repr=False)
    limit: int = 50
    order: Order = "newest"
    cursor: str | None = None
    state: Sequence[str] = ()
    labels: Mapping[str, str] | None = field(default=None, repr=False)
    archived: bool = False


def take(kind: type[R], request: R | None, arguments: Mapping[str, Any]) -> R:
    """What was asked for, by one object or by arguments.

    Args:
        kind: The class of the object.
        request: The object; None where there are arguments.
        arguments: Name -> argument, all of those that the object has.

    Raises:
        ConfigurationError: It is neither or both, or an argument is missing.
    """
    defaults = {item.name: item.default for item in fields(kind)}
    if request is None:
        missing = [f"{name}=" for name, value in arguments.items() if value is MISSING]
        if missing:
            raise ConfigurationError(f"This takes {' and '.join(missing)}, or a {kind.__name__} alone.")
        return kind(**arguments)
    if not isinstance(request, kind):
        raise ConfigurationError(f"This takes a {kind.__name__}, or arguments by name, not {kind_of(request)}.")
    if any(value is not MISSING and value is not defaults[name] for name, value in arguments.items()):
        raise ConfigurationError(f"This takes a {kind.__name__} alone, or arguments by name, not both.")
    return request
