"""Give a function its session."""

from dcaf.tools.approvals import PendingCall, decide, pending, propose, withdraw
from dcaf.tools.decisions import DecidedCall, Verdict
from dcaf.tools.platform_context import PlatformContext
from dcaf.tools.queue import Conflict
from dcaf.tools.results import Call, Result
from dcaf.tools.runner import ToolRunner
from dcaf.tools.tool import Tool, tool

__all__ = [
    "Call",
    "Conflict",
    "DecidedCall",
    "PendingCall",
    "PlatformContext",
    "Result",
    "Tool",
    "ToolRunner",
    "Verdict",
    "decide",
    "pending",
    "propose",
    "tool",
    "withdraw",
]
