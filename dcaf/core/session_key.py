"""One key of the session as a parameter of a tool: ``Annotated[Cart, SessionKey("cart")]``.

>>> SessionKey("cart")
SessionKey(key='cart')

What a reader gets wrong: the *object* is written back. A number or a string cannot change in place, so a tool that must change
one takes the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dcaf.core.errors import ConfigurationError
from dcaf.core.frameworks import describe_framework
from dcaf.core.slots import RESERVED


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
