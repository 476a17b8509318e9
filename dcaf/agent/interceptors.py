"""What stands before and after the agent: functions that see the request and the response, and the session of both.

>>> import asyncio
>>> async def shout(response: InterceptedResponse) -> None:
...     response.text = response.text.upper()
>>> response = InterceptedResponse("hello", Data(), Session(), {})
>>> asyncio.run(intercepted([shout], response)).text
'HELLO'

What a reader gets wrong: what an interceptor does to the session is kept when it returns. If it raises, it is as if it had
never looked at it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from dcaf.agent.commit import begin_overlay, commit_overlay
from dcaf.agent.helpdesk import Data, Message
from dcaf.core.current import running
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.callables import label, outcome, starts_on_loop
from dcaf.tools.turn import Conflict


@dataclass(slots=True)
class InterceptedRequest:
    """What the agent is about to be asked.

    Attributes:
        messages: The conversation, oldest first; may be changed.
        session: The session, to read and to write.
        context: What the caller gave for this turn, and the body's further members; to read.
    """

    messages: list[Message]
    session: Session
    context: Mapping[str, Any] = field(repr=False)


@dataclass(slots=True)
class InterceptedResponse:
    """What the agent is about to answer.

    Attributes:
        text: What the user will read; may be changed. Empty where calls wait for a person and the model said nothing.
        data: What stands beside it: calls that have run, and calls that wait. To read.
        session: The session, to read and to write.
        context: As of the request.
    """

    text: str = field(repr=False)
    data: Data
    session: Session
    context: Mapping[str, Any] = field(repr=False)


Seen = TypeVar("Seen", InterceptedRequest, InterceptedResponse)
RequestInterceptor: TypeAlias = Callable[[InterceptedRequest], "Answered[InterceptedRequest]"]
ResponseInterceptor: TypeAlias = Callable[[InterceptedResponse], "Answered[InterceptedResponse]"]
Answered: TypeAlias = "Seen | Awaitable[Seen | None] | None"


async def intercepted(interceptors: Iterable[Callable[[Seen], Any]], seen: Seen, conflicts: list[Conflict] | None = None) -> Seen:
    """Show something to each interceptor in turn; sync ones run in a thread.

    Args:
        interceptors: Each returns the object, another of its kind, or None for the one that it got.
        seen: What they see.
        conflicts: Takes what could not be merged where they return.

    Raises:
        InterceptorError: One of them ended the turn.
        TypeError: One of them returned something else.
    """
    for interceptor in interceptors:
        shown = replace(seen, session=begin_overlay(seen.session))
        with running(shown.session):
            result = await outcome(functools.partial(interceptor, shown), on_loop=starts_on_loop(interceptor), abandon=True)
        if result is not None and type(result) is not type(seen):
            raise TypeError(
                f"{label(interceptor)} returned a {type(result).__name__}: return the {type(seen).__name__}, or nothing."
            )
        clashes = commit_overlay(shown.session, label(interceptor))
        if conflicts is not None:
            conflicts += clashes
        seen = replace(shown if result is None else result, session=seen.session)
    return seen


def listed(name: str, value: Any) -> list[Any]:
    """One interceptor, several, or none, as a list.

    Raises:
        ConfigurationError: Something else is among them.
    """
    items = list(value) if isinstance(value, Sequence) else [value] if value is not None else []
    if not all(callable(item) for item in items):
        raise ConfigurationError(f"{name}= takes a function or a list of functions.")
    return items
