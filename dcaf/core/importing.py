"""Import what may be missing or is named by text: optional packages, and ``package.module:name``.

>>> with extra("dcaf.client", "dcaf[client]"):
...     import a_package_that_is_not_there
Traceback (most recent call last):
    ...
ModuleNotFoundError: dcaf.client needs a-package-that-is-not-there: pip install 'dcaf[client]'
>>> load_target("dcaf.core.session:Session.from_dict").__name__
'from_dict'

What a reader gets wrong: every module that imports an optional package does it inside ``extra``. One that imports it bare may come
first, and then the error says only the name of the package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from dcaf.core.errors import ConfigurationError


@contextmanager
def extra(module: str, requirement: str) -> Iterator[None]:
    """Import optional packages inside this context: where one is missing, the error says what to install.

    Args:
        module: The module that needs them, for the message.
        requirement: The requirement for pip.

    Raises:
        ModuleNotFoundError: A package is not installed. The error's ``name`` is that of the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise build_import_error(module, requirement, error) from None


def build_import_error(module: str, requirement: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Build the error that says what to install. That a module of dcaf is missing stays as it is, because pip cannot help."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "dcaf"}:
        return error
    return ModuleNotFoundError(f"{module} needs {package.replace('_', '-')}: pip install '{requirement}'", name=package)


def missing_names(module: str, requirement: str, error: ModuleNotFoundError) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that can be imported without its extra, and whose names cannot.

    >>> missing_names("dcaf.testing", "dcaf[testing]", ModuleNotFoundError(name="httpx2"))("SessionClient")
    Traceback (most recent call last):
        ...
    ModuleNotFoundError: dcaf.testing needs httpx2: pip install 'dcaf[testing]'

    Args:
        module: The package, for the message.
        requirement: The requirement for pip.
        error: The error of the import of its modules.

    Raises:
        ModuleNotFoundError: A module of dcaf is missing.
    """
    named = build_import_error(module, requirement, error)
    if named is error:
        raise error

    def refuse(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(str(named), name=named.name)

    return refuse


def load_target(target: str) -> Any:
    """Import a module from the current folder or from the installed ones, and get a name of it. Importing a module runs it.

    Args:
        target: ``package.module``, or ``package.module:name``, where the name may have dots.

    Raises:
        ConfigurationError: There is no such module, or no such name in it.
    """
    name, _, path = target.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - what Python itself puts there
    try:
        value = import_module(name)
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


def load_module(module: str, *, what: str, extra: str) -> ModuleType:
    """Import a module that needs an extra, where it is needed. Its name is a constant of the program.

    Args:
        module: The name of the module.
        what: What needs it, for the message.
        extra: The extra to install where a package is missing.

    Raises:
        ConfigurationError: A package is missing.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        named = build_import_error(what, f"dcaf[{extra}]", error)
        if named is error:
            raise
        raise ConfigurationError(str(named)) from None
