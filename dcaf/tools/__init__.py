"""Floor 1: giving a function its session."""

from dcaf.tools.conflicts import Conflict
from dcaf.tools.platform import PlatformContext
from dcaf.tools.results import Call, Result
from dcaf.tools.runner import ToolRunner
from dcaf.tools.tool import Tool, tool

__all__ = ["Call", "Conflict", "PlatformContext", "Result", "Tool", "ToolRunner", "tool"]
