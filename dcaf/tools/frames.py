"""Where an exception of somebody else's code came from, for the log: its type and its frames.

>>> def note() -> None:
...     raise LookupError("what a person has said")
>>> try:
...     note()
... except LookupError as error:
...     print(trace(error, note))
LookupError
  File "...", line 2, in note
...

What a reader gets wrong: its message is not there on purpose. It may quote what a model, a tool or a person has said; the lines
of the program cannot.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from dcaf.core.errors import ExitError, ToolApprovalError, ToolArgumentError, ToolConflictError, ToolError, ToolTimeoutError
from dcaf.tools.callables import written

FORESEEN: Final = (ToolApprovalError, ToolArgumentError, ToolError, ToolTimeoutError)
"""What says all by its type: the code that raised it is not to be looked for."""

MOST: Final = 50
"""Frames that are shown, the newest: what calls itself without end has a thousand."""


def trace(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """The type of an exception, and under it the frames that it went through, newest last and no more than MOST; never its message.

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
    return "".join([f"{name}\n", *traceback.format_tb(_from(error.__traceback__, function), -MOST)]).rstrip()


def _from(start: TracebackType | None, function: Callable[..., Any] | None) -> TracebackType | None:
    """The part of a traceback that begins with a function, or all of it where the function is not in it."""
    code = None if function is None else getattr(written(function), "__code__", None)
    found = start
    while found is not None and found.tb_frame.f_code is not code:
        found = found.tb_next
    return found or start
