"""Imports of what is not in the base installation: where a package is missing, the error says what to install, and for what.

>>> with extra("dcaf.client", "dcaf[client]"):
...     import a_package_that_is_not_there
Traceback (most recent call last):
    ...
ModuleNotFoundError: dcaf.client needs a-package-that-is-not-there: pip install 'dcaf[client]'

What a reader gets wrong: a library is imported in such a block and nowhere else. A module that also imports it by itself may come
first, and then the name of the library is all that is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(module: str, requirement: str) -> Iterator[None]:
    """Import what is not in the base installation.

    Args:
        module: What needs it, for the message.
        requirement: What pip is to install.

    Raises:
        ModuleNotFoundError: It is not installed. Its ``name`` is that of the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise name_extra(module, requirement, error) from None


def name_extra(module: str, requirement: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error that says what to install. A module of dcaf that is missing is nothing that pip could mend: it stays what it is."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "dcaf"}:
        return error
    return ModuleNotFoundError(f"{module} needs {package.replace('_', '-')}: pip install '{requirement}'", name=package)
