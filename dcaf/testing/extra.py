"""What a test is told that has no HTTP library.

>>> told(ModuleNotFoundError(name="httpx2"))("SessionClient")
Traceback (most recent call last):
    ...
ModuleNotFoundError: dcaf.testing needs httpx2: pip install 'dcaf[testing]'

What a reader gets wrong: it is told when a name is asked for, not when the package is imported. pytest imports the plugin in this
package wherever dcaf is installed, with the extra ``testing`` or without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcaf.core.extras import name_extra


def told(missing: ModuleNotFoundError) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module whose names need a package that is not installed.

    Raises:
        ModuleNotFoundError: What is missing is a module of dcaf.
    """
    error = name_extra("dcaf.testing", "dcaf[testing]", missing)
    if error is missing:
        raise missing

    def asked(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(str(error), name=error.name)

    return asked
