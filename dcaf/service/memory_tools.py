"""Tools with which a model remembers, and forgets: they work on the memory of whoever's session the turn is of.

What a reader gets wrong: a model writes here what a user has said, and reads it in later sessions of the user as if it was true. It
must allow nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import Field, JsonValue

from dcaf.core.errors import ToolError
from dcaf.service.memory import Memory
from dcaf.tools import Tool, tool

Name = Annotated[str, Field(min_length=1, max_length=256)]
Days = Annotated[int, Field(ge=1, le=36_500)]


@tool
async def remember(name: Name, value: JsonValue, memory: Memory, days: Days | None = None) -> str:
    """Remember something about the user in all later conversations, in place of what was remembered under this name.

    Args:
        name: A short name, for instance "allergies".
        value: What is to be remembered.
        days: For how many days; without it for ever.
    """
    memory.set(name, value, ttl=None if days is None else timedelta(days=days))
    return f"Remembered {name!r}."


@tool
async def recall(memory: Memory, name: Name | None = None) -> Any:
    """Look up what is remembered about the user: what stands under a name or, without one, everything.

    Args:
        name: The name.
    """
    found = {fact.key: fact.value for fact in await memory.all()}
    if name is None:
        return found
    if name not in found:
        raise ToolError(f"Nothing is remembered under {name!r}. There are: {', '.join(sorted(found)) or 'none'}.")
    return found[name]


@tool
async def forget(name: Name, memory: Memory) -> str:
    """Forget what is remembered about the user under a name.

    Args:
        name: The name.
    """
    memory.delete(name)
    return f"Forgot {name!r}."


MEMORY_TOOLS: Final[tuple[Tool[..., Any], ...]] = (remember, recall, forget)
