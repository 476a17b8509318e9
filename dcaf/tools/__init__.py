"""Floor 1: giving a function its session."""

from dcaf.tools.platform import PlatformContext
from dcaf.tools.results import Call, Result
from dcaf.tools.tool import Tool, tool
from dcaf.tools.turn import Conflict, Turn

__all__ = ["Call", "Conflict", "PlatformContext", "Result", "Tool", "Turn", "tool"]
