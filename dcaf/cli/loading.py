"""A module that only one command needs, loaded when that command runs: the others do not wait for an agent framework.

>>> loaded("dcaf.core.keys", what="the keys", extra="server").__name__
'dcaf.core.keys'

What a reader gets wrong: the names are constants in this package. Nothing of them comes from the command line.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import name_extra


def loaded(module: str, *, what: str, extra: str) -> ModuleType:
    """Load a module of dcaf.

    Args:
        module: Its name.
        what: What needs it, for the message.
        extra: What to install where a package is missing.

    Raises:
        ConfigurationError: A package is missing.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        named = name_extra(what, f"dcaf[{extra}]", error)
        if named is error:
            raise
        raise ConfigurationError(str(named)) from None
