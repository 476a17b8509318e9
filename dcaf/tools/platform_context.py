"""What the platform around a conversation says of it, for its tools alone: who asks, from where, with which credentials.

>>> with within_platform({"user_id": "mira", "duplo_token": "secret"}):
...     here = current_platform()
>>> here["user_id"], here
('mira', <PlatformContext: 2 members>)

What a reader gets wrong: it is the client's word. It is not verified, and it may hold credentials: it is never stored in the
session, never logged, and no model sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from copy import deepcopy
from typing import Any, Final

from dcaf.core.arguments import describe_framework
from dcaf.core.context import Within
from dcaf.core.errors import ConfigurationError

PLATFORM: Final = "platform_context"
"""The name by which a parameter that takes a dict asks for it, and the member of a body that it stands in."""


class PlatformContext:
    """The members of ``platform_context``, to read. It is no mapping, so that no session takes it for a value.

    Args:
        members: Name -> JSON value; None is none.

    Raises:
        ConfigurationError: They are no mapping.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, Any] | None = None) -> None:
        if members is not None and not isinstance(members, Mapping):
            raise ConfigurationError(f"platform_context is a dict, name -> value, and not a {type(members).__name__}.")
        self._members: dict[str, Any] = dict(members or {})

    def get(self, name: str, default: Any = None) -> Any:
        """One member, or the default where there is none."""
        return self._members.get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def to_dict(self) -> dict[str, Any]:
        """The members in a dict of its own.

        Raises:
            ConfigurationError: They are nested so deep that they cannot be copied.
        """
        try:
            return deepcopy(self._members)
        except RecursionError:
            raise ConfigurationError("platform_context is nested so deep that it cannot be copied.") from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} members>"

    def __reduce__(self) -> Any:
        raise TypeError("a PlatformContext is not pickled: it may hold credentials")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise ConfigurationError(
            describe_framework(f"A {cls.__name__}")
            or f"A {cls.__name__} is filled by dcaf's @tool, in a parameter of a tool. Read from a model's arguments, it would be "
            "the model's word."
        )


_current: Final[ContextVar[PlatformContext]] = ContextVar("dcaf_platform")


def current_platform() -> PlatformContext:
    """What the platform says of the turn that is running; empty where it says nothing, or no turn is running."""
    return _current.get(None) or PlatformContext()


def within_platform(members: Mapping[str, Any] | None) -> Within[PlatformContext]:
    """Say for the code inside what the platform says of its turn."""
    return Within(_current, PlatformContext(members))
