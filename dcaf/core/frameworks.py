"""What to write where an agent framework was given a tool of dcaf's, or a function that takes a session, as if it were its own.

>>> describe_framework("A Session") is None  # nobody's code is below this one
True

What a reader gets wrong: no framework is imported here, and none is needed. The one that asks is known by its frames.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import FrameType
from typing import Final

FRAMEWORKS: Final = {
    "pydantic_ai": ("pydantic-ai", "pydantic_ai"),
    "agents.function_schema": ("openai-agents", "openai_agents"),
    "langchain_core": ("LangChain", "langgraph"),
    "fastmcp": ("FastMCP", "fastmcp"),
    "mcp.server": ("The MCP SDK", "mcp"),
    "google.adk": ("google-adk", "adk"),
}
"""Module that reads a function's parameters -> what the framework is called, and its integration, where dcaf has one."""


def describe_framework(what: str) -> str | None:
    """What to write instead, where an agent framework is asking for a schema; None where none is.

    Args:
        what: What it asks about, as the first words of a sentence.
    """
    name = _asking()
    if name is None:
        return None
    title, integration = FRAMEWORKS[name]
    return f"{what} is filled by dcaf, and never by a model. {title} takes no tool of dcaf's as it is: {_instead(integration)}"


def _instead(integration: str) -> str:
    module = f"dcaf.integrations.{integration}"
    if find_spec(module) is not None:
        return f"import {module}, which makes one of its own of it."
    return "give it a function that awaits `tool.run(arguments)`, with `tool.name`, `tool.description` and `tool.input_schema`."


def _asking() -> str | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = f"{frame.f_globals.get('__name__')}."
        found = next((name for name in FRAMEWORKS if module.startswith(f"{name}.")), None)
        if found is not None:
            return found
        frame = frame.f_back
    return None
