"""A parameter's default, made anew for each call that leaves it out: Python itself makes it once, for all calls.

>>> made = maker(["nut"])
>>> made(), made() is made()
(['nut'], False)
>>> maker("nut") is None
True

What a reader gets wrong: it is copied as it was when the tool was made. What a plain call of the function does to its own default
reaches no call of a model.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from dcaf.core.errors import ConfigurationError
from dcaf.core.handles import IMMUTABLE


def maker(default: Any) -> Callable[[], Any] | None:
    """What makes a default for one call; None where all calls have the same object: it cannot change, or is told by its identity.

    Raises:
        ConfigurationError: It cannot be copied; the message goes on after the parameter's name.
    """
    if isinstance(default, IMMUTABLE) or _is_marker(default):
        return None
    try:
        found = deepcopy(default)
    except Exception:  # noqa: BLE001 - whatever an object raises that cannot be copied
        raise ConfigurationError(
            f"has a {type(default).__name__} as its default, which cannot be copied, so that all calls would share it. Write None "
            "as the default and make the object in the function, or decide the parameter with functools.partial."
        ) from None
    return None if found is default else partial(deepcopy, found)


def _is_marker(value: Any) -> bool:
    """Whether it is told by its identity alone, as ``MISSING = object()``: it holds nothing, and its class has nothing to hold."""
    names = {name for kind in type(value).__mro__ for name in vars(kind)}
    return not getattr(value, "__dict__", None) and all(name.startswith("__") for name in names)
