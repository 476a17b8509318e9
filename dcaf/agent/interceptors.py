"""Functions before and after the agent: they see the request and the response, and the session of both.

>>> import asyncio
>>> async def shout(response: InterceptedResponse) -> None:
...     response.text = response.text.upper()
>>> response = InterceptedResponse("hello", Data(), Session(), {})
>>> asyncio.run(apply_interceptors([shout], response)).text
'HELLO'

What a reader gets wrong: what an interceptor does to the session is kept when it returns, and dropped if it raises.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from dcaf.agent.config import describe_kind, require
from dcaf.agent.helpdesk import Data, Message
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
        data: The calls that have run, and those that wait; to read.
        session: The session, to read and to write.
        context: The same as in the request.
    """

    text: str = field(repr=False)
    data: Data
    session: Session
    context: Mapping[str, Any] = field(repr=False)


Intercepted = TypeVar("Intercepted", InterceptedRequest, InterceptedResponse)
Returned: TypeAlias = "Intercepted | Awaitable[Intercepted | None] | None"
RequestInterceptor: TypeAlias = Callable[[InterceptedRequest], "Returned[InterceptedRequest]"]
ResponseInterceptor: TypeAlias = Callable[[InterceptedResponse], "Returned[InterceptedResponse]"]


def list_interceptors(name: str, value: Any) -> list[Any]:
    """One interceptor, several, or none, as a list.

    Raises:
        ConfigurationError: Something else is among them, or a function that does not take one argument.
    """
    items = list(value) if isinstance(value, list | tuple) else [value] if value is not None else []
    for item in items:
        if not callable(item) or isinstance(item, type):
            raise ConfigurationError(f"{name}= takes a function or a list of functions, not {describe_kind(item)}.")
        _check_takes_one(name, item)
    return items


async def apply_interceptors(
    interceptors: Iterable[Callable[[Intercepted], Any]],
    given: Intercepted,
    report: Callable[[list[Conflict]], None] = lambda _: None,
) -> Intercepted:
    """Call each interceptor in turn; sync ones run in a thread.

    Args:
        interceptors: Each returns the object, another of its kind, or None for the one that it got.
        given: What the first of them gets.
        report: Gets what could not be merged when one of them returns.

    Returns:
        What the last of them has left.

    Raises:
        InterceptorError: One of them ended the turn.
        ConfigurationError: One of them returned something else, or left what cannot be gone on from.
    """
    for interceptor in interceptors:
        session = begin_overlay(given.session)
        result = await _call(interceptor, replace(given, session=session))
        report(commit_overlay(session, label(interceptor)))
        given = replace(result, session=given.session)
    return given


async def _call(interceptor: Callable[[Intercepted], Any], given: Intercepted) -> Intercepted:
    with running(given.session), contained():
        result = await call_and_wait(functools.partial(interceptor, given), on_loop=starts_on_loop(interceptor), abandon=True)
    if result is not None and type(result) is not type(given):
        raise ConfigurationError(
            f"{label(interceptor)} returned {describe_kind(result)}: return the {type(given).__name__}, or nothing."
        )
    return _check_result(given if result is None else result, label(interceptor))


def _check_result(result: Intercepted, who: str) -> Intercepted:
    """What an interceptor has left, if the turn can go on from it; its messages are validated."""
    if isinstance(result, InterceptedResponse):
        require(f"The text of the response, after {who},", result.text, str, "a text")
        return result
    require(f"The messages of the request, after {who},", result.messages, list | tuple, "a list of Messages")
    try:
        return replace(result, messages=[Message.model_validate(message) for message in result.messages])
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_context=False, include_url=False)[0]
        path = ".".join(map(str, wrong["loc"]))
        raise ConfigurationError(f"A message of the request, after {who}, is none: {path}: {wrong['msg']}.") from None


def _check_takes_one(name: str, function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with one argument; one whose parameters nobody can read is taken."""
    try:
        signature(function).bind(None)
    except TypeError:
        raise ConfigurationError(
            f"{name}=: {label(function)} is called with one argument, and takes none, or needs more."
        ) from None
    except ValueError:
        return
