"""A call of a tool and what it comes to: its result, the words that a model reads, and the traceback that the log has.

>>> format_result({"replicas": 3}), format_result("done")
('{"replicas":3}', 'done')
>>> print(format_error("scale", ToolArgumentError("", [("arguments.replicas", "Input should be a valid integer")])))
{"error":{"code":"tool-argument","message":"The arguments do not fit.","problems":[{"path":"arguments.replicas",\
"problem":"Input should be a valid integer"}]}}

The log has the type of an exception and its frames, and not its message, which may quote what a model, a tool or a person has said.

>>> def note() -> None:
...     raise LookupError("what a person has said")
>>> try:
...     note()
... except LookupError as error:
...     print(format_safe_traceback(error, note))
LookupError
  File "...", line 2, in note
...

What a reader gets wrong: a model does not read the message of an exception either, but its type. What a tool has to say to the
model it raises as a ToolError.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import orjson
from pydantic_core import PydanticSerializationError, to_json

from dcaf.core.errors import (
    ConfigurationError,
    ExitError,
    ToolApprovalError,
    ToolArgumentError,
    ToolConflictError,
    ToolError,
    ToolTimeoutError,
)
from dcaf.tools.callables import find_function
from dcaf.tools.tool import Tool, is_tool

FORESEEN: Final = (ToolApprovalError, ToolArgumentError, ToolError, ToolTimeoutError)
"""Errors whose type says all: nobody has to look for the code that raised them."""

MOST_FRAMES: Final = 50
"""The newest are shown: what calls itself without end has a thousand."""

FAILED: Final = "tool-failed"
"""Code of an exception that is none of ours."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a model asks for.

    Attributes:
        tool: The tool.
        arguments: Name -> value, as the model sent them.
        id: What the model calls this call; None where it does not.
        is_approved: Whether a person has approved it, where that is needed.

    Raises:
        ConfigurationError: One of them is of another type; the arguments are looked at when the call runs.
    """

    tool: Tool[..., Any]
    arguments: Mapping[str, Any] = field(repr=False)
    id: str | None = None
    is_approved: bool = False

    def __post_init__(self) -> None:
        if not is_tool(self.tool):
            raise ConfigurationError(f"A call is of a tool, not of a {type(self.tool).__name__}: write @tool above the function.")
        if self.id is not None and not isinstance(self.id, str):
            raise ConfigurationError("id= takes what the model calls the call, a text, or None.")
        if not isinstance(self.is_approved, bool):
            raise ConfigurationError("is_approved= takes True or False.")


@dataclass(frozen=True, slots=True)
class Result:
    """What a call came to.

    Attributes:
        call: The call.
        text: What the model reads: a string as it is, anything else as JSON, an error as a JSON object.
        value: What the function returned; None of an error.
        error: What it raised; None where it did not.
    """

    call: Call
    text: str = field(repr=False)
    value: Any = field(default=None, repr=False)
    error: Exception | None = field(default=None, repr=False)

    @property
    def is_error(self) -> bool:
        """Whether the call failed. Then nothing of what it did to the session is left."""
        return self.error is not None


def format_result(value: Any) -> str:
    """What a model reads of a result: a string as it is, anything that pydantic can write as JSON.

    Raises:
        TypeError: Nobody can write it as JSON.
    """
    try:
        return value.encode().decode() if isinstance(value, str) else to_json(value, inf_nan_mode="strings").decode()
    except (PydanticSerializationError, UnicodeEncodeError):
        raise TypeError(f"the result is a {type(value).__name__}, which cannot be written as JSON") from None


def format_error(tool: str, error: Exception) -> str:
    """What a model reads of an error."""
    code, message = _code_and_message(tool, error)
    found: dict[str, Any] = {"code": code, "message": message}
    if isinstance(error, ToolArgumentError):
        found["problems"] = [{"path": path, "problem": problem} for path, problem in error.problems]
    return orjson.dumps({"error": found}).decode()


def format_safe_traceback(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """The type of an exception, and under it the newest of the frames that it went through, newest last; never its message.

    Args:
        error: The exception, caught.
        function: Leave out the frames before the first one of this function; None leaves out none.
    """
    if isinstance(error, ExitError) and error.__cause__ is not None:
        error = error.__cause__
    name = type(error).__name__
    if isinstance(error, FORESEEN):
        return name
    if isinstance(error, ToolConflictError):
        return f"{name}: {error}"  # our own words, for the developer
    return "".join([f"{name}\n", *traceback.format_tb(_start_at(error.__traceback__, function), -MOST_FRAMES)]).rstrip()


def _code_and_message(tool: str, error: Exception) -> tuple[str, str]:
    match error:
        case ToolArgumentError():
            return error.code, "The arguments do not fit."
        case ToolError() | ToolApprovalError() | ToolTimeoutError():
            return error.code, " ".join(str(part) for part in error.args).encode(errors="replace").decode()
        case ToolConflictError():
            return error.code, "Another call changed what this one had read. Nothing that it did to the session is left."
        case _:
            kind = error.kind if isinstance(error, ExitError) else type(error).__name__
            return FAILED, f"{tool} failed with {kind}. Nothing that it did to the session is left."


def _start_at(start: TracebackType | None, function: Callable[..., Any] | None) -> TracebackType | None:
    """The part of a traceback that begins with a function, or all of it where the function is not in it."""
    code = None if function is None else getattr(find_function(function), "__code__", None)
    found = start
    while found is not None and found.tb_frame.f_code is not code:
        found = found.tb_next
    return found or start
