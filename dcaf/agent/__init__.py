"""Floor 2: one turn of an agent: messages in, an answer and its session out.

>>> from dcaf import Session
>>> def counter(messages, context, session: Session) -> AgentResult:
...     return AgentResult(f"{len(messages)} messages, {session.incr('turns')} turns.")
>>> Agent(counter).run("hi").text
'1 messages, 1 turns.'

What a reader gets wrong: the agent and its service are two. ``Agent.run`` needs no server, and any ASGI application can call it.
"""

from dcaf.agent.agent import Agent
from dcaf.agent.app import create_app
from dcaf.agent.config import RunConfig, StreamingMode
from dcaf.agent.function_agent import AgentResult, ProposedCall
from dcaf.agent.interceptors import InterceptedRequest, InterceptedResponse
from dcaf.agent.models import Approval, Data, Message
from dcaf.agent.page import Page
from dcaf.agent.response import AgentResponse
from dcaf.agent.server import serve
from dcaf.core.errors import AgentError, InterceptorError, MalformedRequest, ModelFailedError, ModelLimitError, TurnTimeoutError
from dcaf.tools.platform_context import PlatformContext

__all__ = [
    "Agent",
    "AgentError",
    "AgentResponse",
    "AgentResult",
    "Approval",
    "Data",
    "InterceptedRequest",
    "InterceptedResponse",
    "InterceptorError",
    "MalformedRequest",
    "Message",
    "ModelFailedError",
    "ModelLimitError",
    "Page",
    "PlatformContext",
    "ProposedCall",
    "RunConfig",
    "StreamingMode",
    "TurnTimeoutError",
    "create_app",
    "serve",
]
