"""Floor 1: giving a function its session."""

from dcaf.tools.tool import Tool, tool

__all__ = ["Tool", "tool"]
