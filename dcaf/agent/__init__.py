"""An agent and its service: messages in, an answer and its session out.

>>> from dcaf import Session
>>> def counter(messages, context, session: Session) -> AgentResult:
...     return AgentResult(f"{len(messages)} messages, {session.incr('turns')} turns.")
>>> Agent(counter).run("hi").text
'1 messages, 1 turns.'

What a reader gets wrong: the agent and its service are two. ``Agent.run`` needs no server. ``create_app`` makes a
service; ``ChatRequest`` and the ``build_`` functions are for an endpoint of your own, under any framework.
"""

from dcaf.agent.agent import Agent
from dcaf.agent.app import create_app
from dcaf.agent.codec import ChatRequest, build_done_event, build_error_event, build_problem
from dcaf.agent.config import RunConfig, StreamingMode
from dcaf.agent.function_agent import AgentResult, ProposedCall
from dcaf.agent.helpdesk import (
    Answer,
    Approval,
    Approvals,
    Data,
    ExecutedApproval,
    ExecutedApprovals,
    ExecutedToolCall,
    ExecutedToolCalls,
    IntermittentUpdate,
    Message,
    MetaData,
    PendingToolCall,
    TextDelta,
    ToolCalls,
    Turn,
)
from dcaf.agent.interceptors import InterceptedRequest, InterceptedResponse
from dcaf.agent.page import Page
from dcaf.agent.response import AgentResponse
from dcaf.agent.serving import serve
from dcaf.core.errors import AgentError, InterceptorError, MalformedRequest, ModelFailedError, ModelLimitError, TurnTimeoutError
from dcaf.tools.platform_context import PlatformContext

__all__ = [
    "Agent",
    "AgentError",
    "AgentResponse",
    "AgentResult",
    "Answer",
    "Approval",
    "Approvals",
    "ChatRequest",
    "Data",
    "ExecutedApproval",
    "ExecutedApprovals",
    "ExecutedToolCall",
    "ExecutedToolCalls",
    "InterceptedRequest",
    "InterceptedResponse",
    "InterceptorError",
    "IntermittentUpdate",
    "MalformedRequest",
    "Message",
    "MetaData",
    "ModelFailedError",
    "ModelLimitError",
    "Page",
    "PendingToolCall",
    "PlatformContext",
    "ProposedCall",
    "RunConfig",
    "StreamingMode",
    "TextDelta",
    "ToolCalls",
    "Turn",
    "TurnTimeoutError",
    "build_done_event",
    "build_error_event",
    "build_problem",
    "create_app",
    "serve",
]
