"""What a test is told that has no HTTP library.

>>> told("httpx2")("SessionClient")
Traceback (most recent call last):
    ...
ModuleNotFoundError: dcaf.testing needs httpx2: pip install 'dcaf[testing]'

What a reader gets wrong: it is told when a name is asked for, not when the package is imported. pytest imports the plugin in this
package wherever dcaf is installed, with the extra ``testing`` or without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

PACKAGES: Final = ("httpx2", "websockets")
"""What the extra ``testing`` installs."""


def told(package: str | None) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module whose names need a package that is not installed.

    Raises:
        ModuleNotFoundError: The package is none of the extra.
    """
    if package not in PACKAGES:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    def asked(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(f"dcaf.testing needs {package}: pip install 'dcaf[testing]'", name=package)

    return asked
