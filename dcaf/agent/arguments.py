"""What a public entry is given by mistake: said at once, with the argument's name and what it takes.

>>> require("text=", 7, str, "a text")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: text= takes a text, not an int.

What a reader gets wrong: the message never shows the value, which may be what a person has said.
"""

from __future__ import annotations

from typing import Any

from dcaf.core.errors import ConfigurationError


def require(argument: str, value: Any, kind: Any, takes: str) -> None:
    """Refuse an argument of another kind.

    Args:
        argument: How the user writes it.
        value: What was given.
        kind: What it must be an instance of: a class, or a union of some.
        takes: The same in words.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{argument} takes {takes}, not {kind_of(value)}.")


def kind_of(value: Any) -> str:
    """What something is, in words: of an instance its class, of a class that it is one."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
