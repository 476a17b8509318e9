"""Which calls of tools in a history have no result yet, so that each result answers one of them, once.

>>> from dcaf.service.messages import Message
>>> call = {"id": "c1", "type": "function", "function": {"name": "find_appointment", "arguments": "{}"}}
>>> hello, asked = Message.of(("user", "When?")), Message("assistant", tool_calls=(call,))
>>> open_calls = check_links([hello, asked])
>>> open_calls
('c1',)
>>> check_links([Message("tool", "At 2 pm.", tool_call_id="c1")], open_calls)
()

A session's row has the ids of its open calls, so that nobody reads the history to check a result: at most the newest 256, and of an
id with more than 64 characters a digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from dcaf.core.errors import ConfigurationError
from dcaf.service.messages import Message, require_messages, unpack

MOST_OPEN: Final = 256
"""Of how many open calls a session's row knows: the newest. A result that comes after so many others is refused."""

MOST_ID_CHARACTERS: Final = 64

MARK: Final = b'"tool_call'
"""What a packed message has in it that makes a call or answers one, and hardly any other."""


def check_links(messages: Iterable[Message], open_calls: Iterable[str] = (), *, path: str = "messages") -> tuple[str, ...]:
    """Check that each tool's result answers a call that was made before it, and was not answered yet.

    A call may stay open: its turn waits for an approval, say.

    Args:
        messages: The new messages, oldest first.
        open_calls: The calls that were open before them, as this returns them.
        path: What the messages are called in errors.

    Returns:
        The ids of the calls that are open after them, in the order in which they were made.

    Raises:
        ConfigurationError: A result answers no open call, or a call has the id of one that is open.
    """
    waiting = dict.fromkeys(open_calls)
    for index, message in enumerate(require_messages(path, messages)):
        _link(message, waiting, f"{path}[{index}]")
    return tuple(waiting)


def follow(messages: Iterable[bytes], open_calls: Iterable[str], *, path: str = "messages") -> tuple[str, ...]:
    """The same of packed messages, as a session's row has it. Raises as ``check_links``."""
    waiting = dict.fromkeys(open_calls)
    for index, data in enumerate(messages):
        if MARK in data:
            _link(_unpack(data), waiting, f"{path}[{index}]")
    return tuple(waiting)[-MOST_OPEN:]


def replay(messages: Iterable[bytes], open_calls: Iterable[str]) -> tuple[str, ...]:
    """The same of packed messages that were checked when they were written."""
    waiting = dict.fromkeys(open_calls)
    for data in messages:
        if MARK in data:
            message = _unpack(data)
            waiting.pop(_name(message.tool_call_id or ""), None)
            waiting |= dict.fromkeys(_name(call["id"]) for call in message.tool_calls)
    return tuple(waiting)[-MOST_OPEN:]


def unfollow(messages: Iterable[bytes], open_calls: Iterable[str]) -> tuple[str, ...]:
    """The calls that were open before some messages.

    Args:
        messages: The messages, packed, newest first.
        open_calls: The calls that were open after them.
    """
    waiting = dict.fromkeys(open_calls)
    for data in messages:
        if MARK in data:
            message = _unpack(data)
            for call in message.tool_calls:
                waiting.pop(_name(call["id"]), None)
            if message.tool_call_id is not None:
                waiting[_name(message.tool_call_id)] = None
    return tuple(waiting)[-MOST_OPEN:]


def require_link(message: Message, before: Sequence[Message], open_calls: Sequence[str], *, path: str = "message") -> None:
    """Check one message more, as ``check_links`` does.

    Args:
        message: The message.
        before: Those of the same turn before it, oldest first.
        open_calls: The calls that were open before these.
        path: What the message is called in errors.

    Raises:
        ConfigurationError: As of ``check_links``.
    """
    if message.tool_call_id is not None:
        names = [message.tool_call_id]
    elif message.tool_calls:
        names = [call["id"] for call in message.tool_calls]
    else:
        return
    _link(message, dict.fromkeys(_name(name) for name in names if _is_open(name, before, open_calls)), path)


def _is_open(name: str, before: Sequence[Message], open_calls: Sequence[str]) -> bool:
    """Whether a call is open. What decides is the last message that makes it or answers it, mostly one of the newest."""
    for message in reversed(before):
        if message.tool_call_id == name:
            return False
        if message.tool_calls and any(call["id"] == name for call in message.tool_calls):
            return True
    return _name(name) in open_calls


def _link(message: Message, waiting: dict[str, None], path: str) -> None:
    """Take the calls and the results of a message into account."""
    if message.tool_call_id is not None:
        _answer(message.tool_call_id, waiting, path)
    for place, call in enumerate(message.tool_calls):
        name = _name(call["id"])
        if name in waiting:
            raise ConfigurationError(
                f"{path}.tool_calls[{place}].id is that of a call that has no result yet. Give each call an id of its "
                "own, or write the result of the other one first."
            )
        waiting[name] = None


def _answer(call_id: str, waiting: dict[str, None], path: str) -> None:
    name = _name(call_id)
    if name not in waiting:
        raise ConfigurationError(
            f"{path}.tool_call_id answers no open call: the assistant's message with the call comes first, and each call has one "
            "result."
        )
    del waiting[name]


def _name(call_id: str) -> str:
    """An id as a row has it: of 64 characters, or of 65 where it is a digest."""
    return call_id if len(call_id) <= MOST_ID_CHARACTERS else "#" + hashlib.sha256(call_id.encode()).hexdigest()


def _unpack(data: bytes) -> Message:
    return unpack(data, number=0, at_ms=0)
