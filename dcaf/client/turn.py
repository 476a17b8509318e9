r"""One turn of a conversation: a body goes out; an answer, a stream or frames come in; a reply is there. No I/O.

>>> turn = Turn(Conversation(), "hello")
>>> turn.request()
b'{"messages":[{"role":"user","content":"hello"}]}'
>>> events = turn.feed(b'{"type":"text_delta","text":"Hi"}\n{"type":"done","data":{"session":{"step":1}}}\n')
>>> [event.type for event in events], turn.reply
(['text_delta', 'done'], <Reply: 2 characters, 0 approvals, session of 1 keys>)

The loop around it is the same on every wire: send ``request()`` while the turn ``is_due``, and give what comes to ``answered``, to
``feed`` and ``ended``, or to ``frame``, until ``reply`` is there. Where nothing whole comes, ask ``lost()``. It takes several
rounds where the session was dead and the turn begins a new one, and where a service can tell what became of a lost answer's turn.

Events are read as they are asked for, and what the caller never asks for is not kept. But the events ``session`` and
``executed_approvals`` count as soon as they have come: they say what was done and must not be done again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from dcaf.client.arguments import check, check_many, check_object, refuse
from dcaf.client.conversation import MESSAGE, Conversation, check_fields
from dcaf.client.envelopes import LINES, SUCCESS, find_session, is_dead, is_dead_by, is_json, media_type, parse_json, value_at
from dcaf.client.errors import (
    AnswerUnreadable,
    ClientError,
    ServiceError,
    ServiceUnreachable,
    TurnConflict,
    TurnOvertaken,
    code_of,
    error_of_answer,
    error_of_event,
)
from dcaf.client.reply import Decision, Event, Reply, build_decisions, gather_events
from dcaf.client.retries import GATEWAY, UNAVAILABLE, Attempts, has_current_session
from dcaf.core.errors import ConfigurationError

AGAIN: Final = "again"
CHECKPOINT: Final = "session"
EXECUTED: Final = "executed_approvals"
TYPE: Final = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,40}")
"""A media type that a message can repeat."""

LAST_WORDS_S: Final = 2.0
"""How long a WebSocket is listened to after an error in words: a ``done`` follows, and with it the session."""


class Turn:
    """One turn. A conversation has one at a time: a turn that begins overtakes one that has not ended.

    Args:
        conversation: What it belongs to.
        said: The user's words, or a whole message.
        decisions: About approvals that wait, by id: True, or the reason why not.
        fields: Further top-level members of the body.

    Attributes:
        is_due: Whether the request is to be sent, when ``wait`` is over.
        restarted: Code of the refusal after which a new session was begun; None where the session went on.
        failure: Why the turn has failed, while its last events may still come; None where it has not.

    Raises:
        ApprovalUnknown: A decision is about nothing that waits, or a refusal gives no reason.
        ConfigurationError: An argument is of a wrong type, or no JSON.
    """

    def __init__(
        self,
        conversation: Conversation,
        said: str | Mapping[str, Any] = "",
        *,
        decisions: Mapping[str, Decision] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        check("conversation", conversation, Conversation, "a Conversation")
        self._message = _build_message(said)
        self._fields = check_fields({} if fields is None else fields)
        if decisions is not None:
            items = build_decisions(conversation.waiting, decisions)
            self._message |= {"data": {**(self._message.get("data") or {}), "approvals": items}} if items else {}
        self.is_due: bool = True
        self.restarted: str | None = conversation.restarted
        self.failure: ServiceError | None = None
        self._conversation = conversation
        self._attempts = Attempts(conversation.retries)
        self._body = b""
        self._is_told_of = False
        self._has_begun_anew = False
        self._begins = False
        self._events: list[Event] = []
        self._executed: list[Any] = []
        self._rest = bytearray()
        self._answer: Mapping[str, Any] | None = None
        self._reply: Reply | None = None
        conversation.turn = self

    @property
    def reply(self) -> Reply | None:
        """The answer; None until the turn has ended well."""
        if self._reply is None and self._answer is not None:
            answer = gather_events(self._events) if self._events else self._answer
            self._reply = Reply(answer, self.restarted, self._attempts.count)
        return self._reply

    @property
    def wait(self) -> timedelta:
        """How long to wait before the request is sent; nothing at first."""
        return self._attempts.wait

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the request that was made last, beside its Content-Type; none on a WebSocket."""
        return {} if self._attempts.key is None else {"Idempotency-Key": self._attempts.key}

    def request(self) -> bytes:
        """The JSON body to send, as it is to be sent now: the last one once more, or another one.

        Raises:
            TurnOvertaken: Another turn began before this one could be sent once more.
            ConfigurationError: A message that was kept is no JSON.
        """
        if self._attempts.count:
            self._require_own_turn()
        if not self._attempts.is_same:
            self._begins = is_dead(self._conversation.envelope)
            self._body = self._conversation.body(self._message, self._fields)
            self._attempts.begin(self._conversation.envelope)
        self.is_due = False
        self._attempts.count += 1
        return self._body

    def announce(self) -> Iterator[Event]:
        """What the caller is told before the request is sent: an event ``again``, if events of an answer that was lost were given.

        They are not in the reply.
        """
        if self._is_told_of:
            self._is_told_of = False
            yield Event({"type": AGAIN, "attempt": self._attempts.count + 1})

    def lost(self) -> bool:
        """Take that no whole answer came: no connection, a time-out, or it broke off.

        Returns:
            Whether the turn is due, because the service can tell what became of it. What came of the lost answer counts no more,
            but for a session, and for what was executed.
        """
        is_unsure = self.failure is None or self.failure.code == UNAVAILABLE
        is_open = self._answer is None and self._conversation.turn is self
        if not (is_open and is_unsure and self._attempts.allow_after_loss()):
            return False
        self._is_told_of |= bool(self._events)
        self._events.clear()
        self._rest.clear()
        self.failure = None
        self.is_due = True
        return True

    def answered(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """Take a whole answer. If the turn is due after it, the request is to be sent once more.

        Args:
            status: HTTP status.
            headers: By lower-case name.
            content: The body.

        Raises:
            ServiceError: The service refused the turn, or could not do it.
            AnswerUnreadable: A success that is no message.
            TurnOvertaken: Another turn began before this one had ended.
            ConfigurationError: An argument is of a wrong type.
        """
        check("status", status, int, "the HTTP status, a number")
        check("content", content, bytes, "the body, in bytes")
        kind = _content_type(headers)
        value = parse_json(content) if is_json(kind) else None
        self._adopt(value, status=status)
        if status in SUCCESS:
            self._finish(_require_answer(value, media_type(kind)))
            return
        error = error_of_answer(status, headers, value)
        is_of_proxy = status in GATEWAY and value_at(value, "code") is None
        if not (self.lost() if is_of_proxy else self._goes_on(error, value)):
            raise self._settled(error, value)

    def is_stream(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether an answer is to be fed as it comes; ``answered`` takes any other, once all of it is there.

        Args:
            status: HTTP status.
            headers: By lower-case name.

        Raises:
            ConfigurationError: An argument is of a wrong type.
        """
        check("status", status, int, "the HTTP status, a number")
        return status in SUCCESS and media_type(_content_type(headers)) in LINES

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that some bytes of a stream complete, each read when it is asked for.

        Raises:
            ServiceError: An error event: when its stream has ended.
            AnswerUnreadable: A line that is no event.
            TurnOvertaken: Another turn began before this one had ended.
            ConfigurationError: The chunk is not bytes.
        """
        *lines, rest = check("chunk", chunk, bytes, "a piece of the body, in bytes").split(b"\n")
        if lines:
            lines[0] = bytes(self._rest + lines[0])
            self._rest.clear()
        self._rest += rest
        values = [parse_json(line) for line in lines if line.strip()]
        return self._read(values, self._adopt_first(values))

    def ended(self) -> Iterator[Event]:
        """The last event of a stream that ended by itself, where no line feed ended it.

        Raises:
            ServiceError: An error event had come.
            ServiceUnreachable: The stream ended before the turn did.
            TurnOvertaken: Another turn began before this one had ended.
        """
        try:
            yield from self.feed(b"\n")
        except AnswerUnreadable as error:
            if not self.lost():
                raise self.failure or ServiceUnreachable(
                    "The stream broke off in the middle of an event. The turn may have run: ask before you send it again."
                ) from error
            return
        if self.failure is not None:
            if not self.lost():
                raise self.failure
        elif self._answer is None:
            self._close()

    def frame(self, text: bytes | str) -> Event | None:
        """Take one frame of a WebSocket; None where there is no event for the caller in it.

        Raises:
            ServiceError: An error event: when no more frames of its turn can come.
            AnswerUnreadable: A frame that is no event.
            TurnOvertaken: Another turn began before this one had ended.
            ConfigurationError: The frame is neither text nor bytes.
        """
        value = _parse_frame("text", text)
        is_first = not (self._events or self.failure or self._answer)
        event = self._take(value)
        if self.failure is None or value_at(value, "type") != "error":
            return event
        if isinstance(value_at(value, "error"), str):
            return None  # the words of an agent, whose turn has run: a done follows
        if not (is_first and self._goes_on(self.failure, value)):
            raise self._settled(self.failure, value)  # a refusal has a code alone, and is the last frame of its turn
        self.failure = None
        return None

    def overheard(self, text: bytes | str) -> None:
        """Take a frame that came on a WebSocket before this turn was sent: its session counts, and nothing else in it.

        Raises:
            SessionDead: It says that the session is dead, and the conversation is not to begin a new one by itself.
            TurnOvertaken: Another turn has begun.
            ConfigurationError: The frame is neither text nor bytes.
        """
        value = _parse_frame("text", text)
        if self._adopt(value) and is_dead_by(value):
            if self._conversation.on_dead == "raise":
                raise error_of_event(value)
            self._remember(code_of(value, otherwise="error"))

    def patience(self, timeout_s: float | None) -> float | None:
        """How long to wait for the next frame: as long as nothing may come, but for a turn that has failed."""
        return timeout_s if self.failure is None else min(LAST_WORDS_S, timeout_s or LAST_WORDS_S)

    def leave(self, frames: Iterable[bytes | str] = ()) -> None:
        """Leave a turn in the middle; what it has executed waits no more. Nothing happens where it has ended, or is overtaken.

        Args:
            frames: Those of a WebSocket that have come, and that nobody will ask for. Checkpoints in them count.

        Raises:
            ConfigurationError: They are no frames.
        """
        given = check_many("frames", frames, "frames: texts, or bytes")
        if self._answer is None and self._conversation.turn is self:
            self._adopt_first(_parse_frame("frames", frame) for frame in given)
            self._conversation.settle(self._executed)

    def _adopt(self, value: Any, *, status: int | None = None) -> bool:
        self._require_own_turn()
        return self._conversation.adopt(value, status=status)

    def _require_own_turn(self) -> None:
        if self._conversation.turn is not self:
            raise TurnOvertaken(
                "Another turn of this conversation began before this one had ended, so its answer is not kept. "
                "Say one thing at a time, or make a client for each conversation."
            )

    def _adopt_first(self, values: Iterable[Any]) -> int:
        """Keep the sessions of the checkpoints that come before anything else that carries one, and note what was executed.

        Returns:
            How many values were looked at.
        """
        passed = 0
        for value in values:
            kind = value_at(value, "type")
            if kind == CHECKPOINT:
                self._adopt(value)
            elif kind == EXECUTED:
                self._note_executed(value)
            elif not isinstance(kind, str) or kind in {"done", "error"} or find_session(value) is not None:
                break
            passed += 1
        return passed

    def _note_executed(self, value: Mapping[str, Any]) -> None:
        """Note what was executed, in case that the turn has no reply to tell it."""
        items = value.get(EXECUTED)
        self._executed += items if isinstance(items, list) else []

    def _read(self, values: list[Any], adopted: int) -> Iterator[Event]:
        for at, value in enumerate(values):
            event = self._take(value, is_adopted=at < adopted)
            if event is not None:
                yield event

    def _take(self, value: Any, *, is_adopted: bool = False) -> Event | None:
        """Take an event; None once the turn has failed."""
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise self.failure or AnswerUnreadable(
                'An event is no JSON object with a "type". Check that the path is that of an agent service.'
            )
        self._adopt(None if is_adopted else value)
        if value["type"] == EXECUTED and not is_adopted:
            self._note_executed(value)
        if self.failure is not None or (value["type"] == "error" and self._answer is None):
            self._fail(value)
            return None
        self._events.append(Event(value))
        self._reply = None
        if value["type"] == "done" and self._answer is None:
            self._finish(gather_events(self._events))
        return self._events[-1]

    def _fail(self, value: dict[str, Any]) -> None:
        """Note why the turn has failed, and raise it when all that comes after it has come."""
        if self.failure is not None and value["type"] == "done":
            raise self.failure
        self.failure = self.failure or error_of_event(value)

    def _goes_on(self, error: ServiceError, value: Any) -> bool:
        """Whether the turn is due once more after a refusal."""
        if is_dead_by(value, status=error.status):
            self.is_due = self._starts_over(error.code)
        else:
            self.is_due = self._attempts.allow_after_refusal(value, status=error.status, wait=error.retry_after)
        return self.is_due

    def _starts_over(self, code: str) -> bool:
        """Whether to say the turn once more in a new session: the service has not served it, and not twice."""
        if self._conversation.on_dead == "raise" or self._has_begun_anew:
            return False
        self._remember(code)
        self._has_begun_anew = True
        self._attempts.start_over()
        return True

    def _settled(self, error: ServiceError, value: Any) -> ClientError:
        """The error of a refusal, after the conversation was told what the turn has done all the same."""
        if not isinstance(error, TurnConflict):
            return error
        if error.applied is True:
            decided = value_at(self._message.get("data"), "approvals")
            self._conversation.settle(decided if isinstance(decided, list) else [])
        is_unsaid = not error.applied and has_current_session(value)
        if is_unsaid and self._attempts.is_lost:  # a service that does not know a frame again may take it for another turn
            return ServiceUnreachable(
                "No complete answer came, and the session has moved on: the turn has probably run. The session is current now: "
                "look at it before you send the turn again."
            )
        return error

    def _remember(self, code: str) -> None:
        """Have a reply tell that a new session was begun: this one, or that of a later turn if this one fails."""
        self.restarted = self._conversation.restarted = code

    def _close(self) -> None:
        """End a stream without ``done``: the middleware ends it with a session, for agents that have no such event."""
        if self._events and self._events[-1].type == CHECKPOINT:
            self._finish(gather_events(self._events))
        elif not self.lost():
            raise ServiceUnreachable(
                "The stream ended without its done event. The turn may have run: ask before you send it again."
            )

    def _finish(self, answer: Mapping[str, Any]) -> None:
        self._conversation.keep(self._message, answer, begins=self._begins)
        self._answer = answer


def _build_message(said: str | Mapping[str, Any]) -> dict[str, Any]:
    """What is said, as a message."""
    message = {"role": "user", "content": said} if isinstance(said, str) else check_object("said", said, MESSAGE)
    if message.get("role") == "assistant":
        raise ConfigurationError("said= is a message of the user. Its role cannot be assistant: what waits is read from answers.")
    if message.get("data") is not None:
        check("said: data", message["data"], Mapping, "a mapping")
    return message


def _content_type(headers: Mapping[str, str]) -> str:
    found = check("headers", headers, Mapping, "a mapping: lower-case name -> value").get("content-type")
    return found if isinstance(found, str) else ""


def _parse_frame(name: str, text: bytes | str) -> Any:
    if not isinstance(text, str | bytes):
        refuse(name, text, "what is in a frame: a text, or bytes")
    return parse_json(text)


def _require_answer(value: Any, kind: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        subject = f"The answer ({kind})" if TYPE.fullmatch(kind) else "The answer"
        raise AnswerUnreadable(
            f'{subject} is no JSON object with a text at "content". Check that the path is that of an agent service.'
        )
    return value
