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
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from dcaf.agent.config import kind_of, require
from dcaf.agent.models import Data, Message
from dcaf.agent.run_state import begin_overlay, commit_overlay
from dcaf.core.context import running
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.callables import label, starts_on_loop
from dcaf.tools.queue import Conflict
from dcaf.tools.threads import call_and_wait, contained


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
        ConfigurationError: One of them returned something else, or left what cannot be gone on from.
    """
    for interceptor in interceptors:
        session = begin_overlay(seen.session)
        shown = replace(seen, session=session)
        with running(session), contained():
            result = await call_and_wait(functools.partial(interceptor, shown), on_loop=starts_on_loop(interceptor), abandon=True)
        if result is not None and type(result) is not type(seen):
            raise ConfigurationError(
                f"{label(interceptor)} returned {kind_of(result)}: return the {type(seen).__name__}, or nothing."
            )
        found = _checked(shown if result is None else result, label(interceptor))
        clashes = commit_overlay(session, label(interceptor))
        if conflicts is not None:
            conflicts += clashes
        seen = replace(found, session=seen.session)
    return seen


def listed(name: str, value: Any) -> list[Any]:
    """One interceptor, several, or none, as a list.

    Raises:
        ConfigurationError: Something else is among them, or a function that does not take one argument.
    """
    items = list(value) if isinstance(value, list | tuple) else [value] if value is not None else []
    for item in items:
        if not callable(item) or isinstance(item, type):
            raise ConfigurationError(f"{name}= takes a function or a list of functions, not {kind_of(item)}.")
        _check_takes_one(name, item)
    return items


def _check_takes_one(name: str, function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with what it is to see; one whose parameters nobody can read is taken."""
    try:
        signature(function).bind(None)
    except TypeError:
        raise ConfigurationError(
            f"{name}=: {label(function)} is called with one argument, and takes none, or needs more."
        ) from None
    except ValueError:
        return


def _checked(seen: Seen, who: str) -> Seen:
    """What an interceptor has left, if it can be gone on from."""
    if isinstance(seen, InterceptedResponse):
        require(f"The text of the response, after {who},", seen.text, str, "a text")
        return seen
    require(f"The messages of the request, after {who},", seen.messages, list | tuple, "a list of Messages")
    try:
        return replace(seen, messages=[Message.model_validate(message) for message in seen.messages])
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_context=False, include_url=False)[0]
        path = ".".join(map(str, wrong["loc"]))
        raise ConfigurationError(f"A message of the request, after {who}, is none: {path}: {wrong['msg']}.") from None
