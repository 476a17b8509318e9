"""Ask the application who is calling and in which conversation: once a turn, after its body was read.

>>> import asyncio
>>> identity = Identity(lambda scope: scope["user"], "/thread_id")
>>> asyncio.run(identity.find({"user": "ada"}, lambda: {"thread_id": "t-7"}))
('ada', 't-7')

If a function returns something else than a name or None, the request is refused. If it raises, the answer is 503: the session is
neither served nor dropped. Treating either as anonymous would give one user's session to another.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from starlette.types import Scope

from dcaf.core.errors import ConfigurationError, SessionInvalid, SessionUnavailable, describe_raised

MaybeName: TypeAlias = "str | Awaitable[str | None] | None"
Subject: TypeAlias = Callable[[Scope], MaybeName]
"""Who is calling: a function of the scope, sync or async, that gives a text, or None for nobody."""

Conversation: TypeAlias = Callable[[Scope, Any], MaybeName]
"""Which conversation: a function of the scope and the parsed body, sync or async, that gives a text, or None for none."""


INDEX: Final = re.compile("0|[1-9][0-9]{0,8}")
"""The index of an array in a JSON pointer (RFC 6901, section 4), of a length that a body can have."""

logger: Final[logging.Logger] = logging.getLogger("dcaf")


class Identity:
    """Asks the application who is calling, and in which conversation.

    Args:
        subject: A function of the scope; None: every session is anonymous.
        conversation: A function of the scope and the body, or a JSON pointer into the body; None: no session has a conversation.

    Attributes:
        is_anonymous: Whether both are None, so that there is nothing to ask.

    Raises:
        ConfigurationError: One of them can never be asked.
    """

    def __init__(self, subject: Subject | None, conversation: Conversation | str | None) -> None:
        if subject is not None and not callable(subject):
            raise ConfigurationError(
                f"subject= takes a function of the scope, not {type(subject).__name__}: it is asked in every turn."
            )
        if conversation is not None and not callable(conversation) and not isinstance(conversation, str):
            raise ConfigurationError(
                f"conversation= takes a function of (scope, body) or a JSON pointer, not {type(conversation).__name__}."
            )
        self.is_anonymous: bool = subject is None and conversation is None
        self._subject = subject
        self._conversation = _read_pointer(conversation) if isinstance(conversation, str) else conversation

    async def find_subject(self, scope: Scope) -> str | None:
        """The subject alone, of a handshake for instance. Raises as ``find``."""
        return await _ask("subject", self._subject, scope) if self._subject else None

    async def find(self, scope: Scope, body: Callable[[], Any]) -> tuple[str | None, str | None]:
        """Subject and conversation; None where there is none.

        Args:
            scope: Of the request.
            body: Gives the parsed body without any session, None where it is not JSON; called only if it is needed.

        Raises:
            SessionInvalid: A function returned an empty text, or neither a text nor None.
            SessionUnavailable: A function raised.
        """
        subject = await self.find_subject(scope)
        conversation = await _ask("conversation", self._conversation, scope, body()) if self._conversation else None
        return subject, conversation


async def _ask(name: str, function: Callable[..., Any], *arguments: Any) -> str | None:
    try:
        found = function(*arguments)
        if inspect.isawaitable(found):
            found = await found
    except Exception as error:  # noqa: BLE001 - whatever it raises, the identity is unknown
        # Its type and place only: its message may name the caller.
        logger.error("dcaf: %s= raised %s", name, describe_raised(error))  # noqa: TRY400
        raise SessionUnavailable(reason=name, ran=False) from None
    if found is None:
        return None
    if not isinstance(found, str) or not _is_text(found):
        raise SessionInvalid(reason=name)
    return found


def _is_text(found: str) -> bool:
    """Whether it is not empty, and UTF-8 can encode it."""
    try:
        return found.encode() != b""
    except UnicodeEncodeError:
        return False


def _read_pointer(pointer: str) -> Conversation:
    """Read a JSON pointer (RFC 6901, section 4)."""
    if not pointer.startswith("/"):
        raise ConfigurationError(
            'conversation= takes a JSON pointer that begins with "/", for instance "/thread_id", or a function.'
        )
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]

    def follow(_scope: Scope, body: Any) -> Any:
        for step in steps:
            body = _member(body, step)
        return body

    return follow


def _member(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and INDEX.fullmatch(step) and int(step) < len(value):
        return value[int(step)]
    return None
