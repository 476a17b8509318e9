"""A stand-in for a language model: a few rules that choose a tool for what the user says.

>>> plan("service api").tool.name
'set_service'
>>> plan("hello") is None
True

What a reader gets wrong: there is no model here. A real agent chooses tools by itself; the tools and the session are the
same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from dcaf.demo.tools import add_item, execute_deploy, one_more, set_replicas, set_service, start_deploy
from dcaf.tools import Tool

RULES: Final[tuple[tuple[str, Tool[..., str]], ...]] = (
    (r"start", start_deploy),
    (r"service (?P<name>\S+)", set_service),
    (r"(?P<count>\d+) replicas?", set_replicas),
    (r"execute", execute_deploy),
    (r"add (?P<quantity>\d+) (?P<name>\w+)", add_item),
    (r"one more (?P<name>\w+)", one_more),
)


@dataclass(frozen=True, slots=True)
class Call:
    """The tool to call, with its arguments as text."""

    tool: Tool[..., str]
    arguments: dict[str, Any]


def plan(text: str) -> Call | None:
    """The call for a message; None where no rule fits."""
    for pattern, tool in RULES:
        found = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
        if found:
            return Call(tool, found.groupdict())
    return None
