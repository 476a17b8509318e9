"""One turn on a WebSocket: what was heard so far, whether it is over, and the reply that it amounts to. No I/O.

>>> turn = Frames(is_end)
>>> [turn.take(frame) for frame in ('{"type":"text_delta","text":"Hi"}', '{"type":"done"}')]
[False, True]
>>> turn.reply(sent_bytes=9).text
'Hi'

What a reader gets wrong: an error in words is not the last frame. A ``done`` follows, and the session in it counts. What may come
after that belongs to no turn, so the client leaves that socket and opens another one for its next turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dcaf.client.arrival import value_at
from dcaf.client.turn import LAST_WORDS_S
from dcaf.testing.reply import Reply
from dcaf.testing.transport import Terminal, is_end

BROKEN: Final = 1006
"""What stands for the close code of a connection that was not closed but broke off (RFC 6455, section 7.1.5)."""

CLOSING: Final = (1000, 1001)
"""Close codes of an end that nothing went wrong with: done, and going away (RFC 6455, section 7.4.1)."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is closed, and nothing more will come.

    Attributes:
        code: With what the service closed it.
    """

    code: int = BROKEN


@dataclass(frozen=True, slots=True)
class Refusal:
    """The HTTP answer of a service that opens no WebSocket."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""


Heard: TypeAlias = "str | bytes | Closed"


class Frames:
    """The frames of one turn.

    Args:
        terminal: Which of them ends it.

    Attributes:
        has_failed: Whether an error in words has come, so that nothing but its ``done`` is waited for.
    """

    def __init__(self, terminal: Terminal = is_end) -> None:
        self._terminal = terminal
        self._frames: list[str | bytes] = []
        self._closed: Closed | None = None
        self.has_failed: bool = False

    def take(self, heard: Heard) -> bool:
        """Take what came; True if it ends the turn."""
        if isinstance(heard, Closed):
            self._closed = heard
            return True
        self._frames.append(heard)
        value = value_of(heard)
        if not self._terminal(None, value):
            return False
        is_worded = value_at(value, "type") == "error" and isinstance(value_at(value, "error"), str)
        self.has_failed = self.has_failed or is_worded
        return not is_worded

    def patience(self, timeout_s: float) -> float:
        """How long to wait for the next frame."""
        return min(timeout_s, LAST_WORDS_S) if self.has_failed else timeout_s

    def reply(self, *, sent_bytes: int) -> Reply:
        """The reply, after the frame that ended the turn."""
        return Reply.of_frames(self._frames, sent_bytes=sent_bytes, close_code=self._closed.code if self._closed else None)

    def too_late(self, timeout_s: float) -> TimeoutError:
        """The error of a turn that does not end."""
        return TimeoutError(
            f"The turn did not end: nothing came for {timeout_s:g} s after {len(self._frames)} frames. "
            "It ends with a frame of the type done or error; terminal= names another one, and timeout= how long to wait."
        )


def is_missed(reply: Reply) -> bool:
    """Whether a turn met a service that was closing the socket, so that it was not heard, and can be said on another one."""
    return not reply.content and reply.close_code in CLOSING


def frame_of(content: bytes) -> str | bytes:
    """A body as a frame: as text, where it is text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def value_of(frame: str | bytes) -> Any:
    """The JSON value of a frame; None where it is something else."""
    try:
        return json.loads(frame)
    except (ValueError, RecursionError):
        return None
