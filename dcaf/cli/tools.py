"""`dcaf tools module:name`: who fills each parameter of a tool, of a list of tools, or of all tools of a module, and why.

The module is imported from the folder that the command runs in, or from what is installed.

What a reader gets wrong: importing a module runs it. A module that starts a server when it is imported does so here too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import load_target
from dcaf.tools import Tool


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    tools = commands.add_parser("tools", help="show who fills each parameter of a tool, and why")
    tools.add_argument("target", metavar="module:name", help="a tool, a list of tools, or a module for all of its tools")
    tools.set_defaults(run=_tools)


def _tools(options: argparse.Namespace) -> int:
    found = _found(options.target)
    print("\n\n".join(str(tool.explain()) for tool in found))
    return 0


def _found(target: str) -> list[Tool[..., Any]]:
    """The tools that a target names, each once.

    Raises:
        ConfigurationError: There is none.
    """
    value = load_target(target)
    found: dict[int, Tool[..., Any]] = {id(item): item for item in _items(value) if isinstance(item, Tool)}
    if not found:
        raise ConfigurationError(f"{target} is no tool, and has none: make one with @tool.")
    return list(found.values())


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, ModuleType):
        return vars(value).values()
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple | set | frozenset) else [value]
