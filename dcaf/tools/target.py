"""What a text like ``shop.agents:support`` names: a module, and something in it.

>>> load("dcaf.core.session:Session.from_dict").__name__
'from_dict'

What a reader gets wrong: importing a module runs it. A module that starts a server when it is imported does so here too.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from dcaf.core.errors import ConfigurationError


def load(target: str) -> Any:
    """Import a module, from the folder that the program runs in or from what is installed, and look into it.

    Args:
        target: ``package.module``, or ``package.module:name`` with dots for what is inside of something.

    Raises:
        ConfigurationError: There is no such module, or nothing of that name in it.
    """
    name, _, path = target.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - what Python itself puts there
    try:
        value = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"There is no module {error.name!r} here: give one as package.module:name.") from None
    finally:
        sys.path.pop(0)
    for part in filter(None, path.split(".")):
        if not hasattr(value, part):
            raise ConfigurationError(f"{name} has no {path!r}.")
        value = getattr(value, part)
    return value
