"""What an agent is made of: a model or a function that answers, and tools. What can be no part of one is refused here, at once.

>>> tools_of([lambda: "now"])
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: A lambda has no name of its own: write tool(name=...).

What a reader gets wrong: an Agent of another framework is no model. Its model is one; the whole is asked in an agent function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model

from dcaf.agent.arguments import kind_of
from dcaf.agent.run_state import Tools
from dcaf.core.errors import ConfigurationError
from dcaf.tools.tool import Tool, tool

TOOLS: Final = "a list of tools or functions"
INSTRUCTIONS: Final = "a text, a function of the session, or None"


def model_of(model: Any) -> Model | Callable[..., Any]:
    """The model that was meant, or the agent function.

    Raises:
        ConfigurationError: It is neither, or the model cannot be used.
    """
    if isinstance(model, str):
        return _named(model)
    if isinstance(model, Model):
        return model
    if isinstance(model, type | Tool) or not callable(model) or _is_foreign_agent(model):
        raise ConfigurationError(_why_not(model))
    function: Callable[..., Any] = model
    return function


def instructions_of(instructions: Any) -> Any:
    """What the model is told first.

    Raises:
        ConfigurationError: Nobody can be told it.
    """
    if isinstance(instructions, type) or not (instructions is None or isinstance(instructions, str) or callable(instructions)):
        raise ConfigurationError(f"instructions= takes {INSTRUCTIONS}, not {kind_of(instructions)}.")
    return instructions


def tools_of(tools: Any) -> Tools:
    """Name -> tool; functions are made tools.

    Raises:
        ConfigurationError: It is no list, two tools have one name, or something in it cannot be called.
    """
    found: dict[str, Tool[..., Any]] = {}
    for item in _listed(tools):
        made = _tool(item)
        if made.name in found:
            raise ConfigurationError(f"Two tools are named {made.name!r}. Give one another name: @tool(name=...).")
        found[made.name] = made
    return found


def _named(name: str) -> Model:
    try:
        return infer_model(name)
    except (UserError, ValueError, ImportError) as error:
        raise ConfigurationError(f"The model cannot be used: {error}") from error


def _is_foreign_agent(model: Any) -> bool:
    """Whether something that can be called is an agent of another framework: those are given a text, and no messages."""
    kind = type(model)
    if kind.__name__ != "Agent":
        return False
    try:
        return "messages" not in inspect.signature(model).parameters
    except (TypeError, ValueError):
        return True


def _why_not(model: Any) -> str:
    """Why something is not what answers, and what to write."""
    kind = type(model)
    package = kind.__module__.partition(".")[0]
    if package == "dcaf" and kind.__name__ == "Agent":
        return "This is an Agent already: use it as it is."
    if isinstance(model, Tool):
        return f"{model.name} is a tool. A model comes first: Agent(model, tools=[{model.name}])."
    if kind.__name__.endswith("Agent"):
        return (
            f"This {kind.__name__} is one of {package}, and none of dcaf. Pass the model that it asks, Agent(model, tools=[...]), "
            "or call it in an agent function: def answer(messages, context): ..."
        )
    made = f" Make one: {model.__name__}(...)." if isinstance(model, type) and issubclass(model, Model) else ""
    named = kind_of(model)
    return f"{named[0].upper()}{named[1:]} is neither an Agent, a model, the name of one, nor an agent function.{made}"


def _listed(tools: Any) -> Iterable[Any]:
    if isinstance(tools, Tool) or inspect.isroutine(tools):
        name = getattr(tools, "name", getattr(tools, "__name__", "it"))
        raise ConfigurationError(f"tools= takes {TOOLS}. This is one: write tools=[{name}].")
    if isinstance(tools, str | bytes | Mapping | type) or not isinstance(tools, Iterable):
        raise ConfigurationError(f"tools= takes {TOOLS}, not {kind_of(tools)}.")
    return tools


def _tool(item: Any) -> Tool[..., Any]:
    if not isinstance(item, Tool) and not callable(item):
        raise ConfigurationError(f"tools= takes {TOOLS}, and there is {kind_of(item)} among them.")
    made = item if isinstance(item, Tool) else tool(item)
    if made._way.waits:
        name = getattr(made._way.function, "__qualname__", made.name)
        raise ConfigurationError(
            f"{name} is a method, and there is no object to call it on: pass that of one, as tools=[thing.{made.name}]."
        )
    return made
