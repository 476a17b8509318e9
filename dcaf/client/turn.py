r"""One turn of a conversation: a body goes out; an answer, a stream or frames come in; a reply is there. No I/O.

>>> turn = Turn(Conversation(), "hello")
>>> turn.request()
b'{"messages":[{"role":"user","content":"hello"}]}'
>>> events = turn.feed(b'{"type":"text_delta","text":"Hi"}\n{"type":"done","data":{"session":{"step":1}}}\n')
>>> [event.type for event in events], turn.reply
(['text_delta', 'done'], <Reply: 2 characters, 0 approvals, session of 1 keys>)

The loop around it is the same on every wire: send ``request()`` and give what comes to ``answered``, ``feed`` and ``ended``, or
``frame``, until ``reply`` is there. It takes two rounds where the session was dead and the turn begins a new one.

What a reader gets wrong: events are read as they are asked for. What the caller never asks for has no effect, so a stream
that is left early leaves the session of before, but for one that has been given already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dcaf.client.approvals import Decision, decided
from dcaf.client.arrival import is_json
from dcaf.client.conversation import Conversation
from dcaf.client.errors import AnswerUnreadable, ServiceUnreachable, TurnOvertaken
from dcaf.client.refusals import code_of, failed, refused
from dcaf.client.reply import Event, Reply, gathered

SUCCESS: Final = range(200, 300)


class Turn:
    """One turn. A conversation has one at a time: a turn that begins overtakes one that has not ended.

    Args:
        conversation: What it belongs to.
        said: The user's words, or a whole message.
        decisions: About approvals that wait, by id: True, or the reason why not.
        fields: Further top-level members of the body.

    Attributes:
        reply: The answer; None until the turn has ended well.
        restarted: Code of the refusal after which the turn began a new session; None where the session went on.

    Raises:
        ApprovalUnknown: A decision is about nothing that waits, or a refusal gives no reason.
    """

    def __init__(
        self,
        conversation: Conversation,
        said: str | Mapping[str, Any] = "",
        *,
        decisions: Mapping[str, Decision] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        message: dict[str, Any] = {"role": "user", "content": said} if isinstance(said, str) else dict(said)
        if decisions:
            message["data"] = {**(message.get("data") or {}), "approvals": decided(conversation.waiting, decisions)}
        self.reply: Reply | None = None
        self.restarted: str | None = None
        self._conversation = conversation
        self._message = message
        self._decided = list(decisions or ())
        self._fields = fields or {}
        self._events: list[Event] = []
        self._line = b""
        self._is_again = False
        conversation.turn = self

    def request(self) -> bytes:
        """The JSON body to send, as it is to be sent now."""
        self._is_again = False
        return self._conversation.body(self._message, self._fields)

    def answered(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """Take a whole answer. If there is no reply after it, the request is to be sent once more.

        Args:
            status: HTTP status.
            headers: By lower-case name.
            content: The body.

        Raises:
            ServiceError: The service refused the turn, or could not do it.
            AnswerUnreadable: A success that is no message.
            TurnOvertaken: Another turn began before this one had ended.
        """
        value = _value(content) if is_json(headers.get("content-type", "")) else None
        is_dead = self._adopt(value)
        if status in SUCCESS:
            self._finish(_message(value))
        elif not (is_dead and self._starts_over(code_of(value, otherwise=f"http-{status}"))):
            raise refused(status, headers, value)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that some bytes of a stream complete, each read when it is asked for.

        Raises:
            ServiceError: An error event.
            AnswerUnreadable: A line that is no event.
            TurnOvertaken: Another turn began before this one had ended.
        """
        *lines, self._line = (self._line + chunk).split(b"\n")
        for line in lines:
            event = self.frame(line) if line.strip() and not self._is_again else None
            if event is not None:
                yield event

    def ended(self) -> Iterator[Event]:
        """The last event of a stream that ended by itself, where no line feed ended it. Raises as ``feed``.

        Raises:
            ServiceUnreachable: The stream ended before the turn did.
        """
        try:
            yield from self.feed(b"\n")
        except AnswerUnreadable as error:
            raise ServiceUnreachable(
                "The stream broke off in the middle of an event. The turn may have run: ask before you send it again."
            ) from error
        if self.reply is None and not self._is_again:
            self._close()

    def frame(self, text: bytes | str) -> Event | None:
        """Take one event. None if the request is to be sent once more. Raises as ``feed``."""
        value = _value(text)
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise AnswerUnreadable('An event is no JSON object with a "type". Check that the path is that of an agent service.')
        is_dead = self._adopt(value)
        if value["type"] == "error" and self.reply is None:
            if is_dead and self._starts_over(code_of(value, otherwise="error")):
                return None
            raise failed(value)
        self._events.append(Event(value))
        if value["type"] == "done" or self.reply is not None:
            self._finish(gathered(self._events))
        return self._events[-1]

    def overheard(self, text: bytes | str) -> None:
        """Take a frame that came on a WebSocket before this turn was sent: its session counts, and nothing else in it.

        Raises:
            SessionDead: It says that the session is dead, and the conversation is not to begin a new one by itself.
        """
        value = _value(text)
        if self._adopt(value):
            if self._conversation.on_dead == "raise":
                raise failed(value)
            self.restarted = code_of(value, otherwise="error")

    def _adopt(self, value: Any) -> bool:
        if self._conversation.turn is not self:
            raise TurnOvertaken(
                "Another turn of this conversation began before this one had ended, so its answer is not kept. "
                "Say one thing at a time, or make a client for each conversation."
            )
        return self._conversation.adopt(value)

    def _starts_over(self, code: str) -> bool:
        """Whether to say the turn once more: not twice, and not after a part of its answer has been given."""
        if self._conversation.on_dead == "raise" or self.restarted is not None or self._events:
            return False
        self.restarted = code
        self._is_again = True
        return True

    def _close(self) -> None:
        """End a stream without ``done``: the middleware ends it with a session, for agents that have no such event."""
        if not self._events or self._events[-1].type != "session":
            raise ServiceUnreachable(
                "The stream ended without its done event. The turn may have run: ask before you send it again."
            )
        self._finish(gathered(self._events))

    def _finish(self, answer: Mapping[str, Any]) -> None:
        if self.reply is None:
            self._conversation.keep(self._message, answer, self._decided)
        self.reply = Reply(answer, self.restarted)


def _value(text: bytes | str) -> Any:
    """The JSON value of an answer or an event; None for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _message(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise AnswerUnreadable(
            'The answer is no JSON object with a text at "content". Check that the path is that of an agent service.'
        )
    return value
