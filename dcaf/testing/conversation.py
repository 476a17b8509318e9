"""The conversation of a testing client: what is sent next and what is kept of an answer, on HTTP and on a WebSocket. No I/O.

>>> from dcaf.testing.reply import Reply
>>> client = EchoConversation(fields={"thread_id": "t-1"})
>>> client.asked({"role": "user", "content": "hi"}, {})
b'{"thread_id":"t-1","messages":[{"role":"user","content":"hi"}],"data":{"session":null}}'
>>> answer = b'{"content":"Hello.","data":{"session":{"step":1,"dcaf":{"token":"t"}}}}'
>>> _ = client.kept(client.adopted(Reply.of_answer(200, {"Content-Type": "application/json"}, answer, sent_bytes=87)))
>>> client.envelope, len(client.messages)
({'step': 1, 'dcaf': {'token': 't'}}, 2)

The session is adopted from refusals and streams too: that is how a client gets rid of a session that has ended. It keeps its own
through an answer that has none, and through one from 500 on, whatever that has.

On a WebSocket the frames of a turn are collected until one ends it:

>>> turn = TurnFrames(is_end)
>>> [turn.take(frame) for frame in ('{"type":"text_delta","text":"Hi"}', '{"type":"done"}')]
[False, True]
>>> turn.reply(sent_bytes=9).text
'Hi'

What a reader gets wrong: an error in words is not the last frame. A ``done`` follows, and the session in it counts. What may come
after that belongs to no turn, so the client leaves that WebSocket and opens another one for its next turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dcaf.client.arguments import check, check_function, check_messages, check_object, is_whole, refuse
from dcaf.client.conversation import FIELDS, SESSION, HistoryMode, check_history
from dcaf.client.envelopes import choose_session, is_dead, parse_json, value_at
from dcaf.client.errors import ApprovalUnknown
from dcaf.client.reply import close_approvals, drop_executed, find_waiting
from dcaf.client.turn import LAST_WORDS_S
from dcaf.core.errors import ConfigurationError
from dcaf.testing.reply import Reply, last_session

Echo: TypeAlias = Callable[[Mapping[str, Any]], bytes]
"""How a client writes the session that it sends back: the envelope -> its JSON text."""

Terminal: TypeAlias = Callable[[str | None, Any], bool]
"""Whether a frame ends a turn, as ``SessionMiddleware(terminal=)`` takes it: a function of None and the frame's JSON value."""

ENDS: Final = ("done", "error")
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
class HandshakeRefusal:
    """The HTTP answer of a service that opens no WebSocket."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""


Received: TypeAlias = "str | bytes | Closed"
"""A frame, or the end of the connection."""


def is_end(_: str | None, value: Any) -> bool:
    """The frame that ends a turn, by default: one of the type ``done``, or ``error``.

    >>> is_end(None, {"type": "done"}), is_end(None, {"type": "text_delta"})
    (True, False)
    """
    return isinstance(value, dict) and value.get("type") in ENDS


class EchoConversation:
    """What is said and kept, on every wire alike.

    Args:
        envelope: A session to begin with, as ``sealed`` makes one; None begins without.
        messages: What was said before, oldest first.
        fields: Further top-level members of every body, such as ``thread_id``.
        echo: How the session is written that is sent back, as ``HARMLESS`` has them; None writes it as it came.
        history: ``"server"`` where the service keeps the conversation: a body has the new message alone. ``"client"`` sends all.

    Attributes:
        envelope: The session that the next turn will carry.
        messages: The conversation so far; each answer keeps the session that it carried.

    Raises:
        ConfigurationError: An argument is of a wrong type, or no JSON.
    """

    def __init__(
        self,
        *,
        envelope: dict[str, Any] | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
        fields: Mapping[str, Any] | None = None,
        echo: Echo | None = None,
        history: HistoryMode = "client",
    ) -> None:
        self._is_kept = check_history(history) == "server"
        self._fields = check_object("fields", {} if fields is None else fields, FIELDS)
        self._echo = encode_json if echo is None else check_function("echo", echo, "a function of the envelope, or None")
        self._begins = False
        self.envelope: dict[str, Any] | None = None if envelope is None else check_object("envelope", envelope, SESSION)
        self.messages: list[dict[str, Any]] = check_messages("messages", messages)

    @property
    def approvals(self) -> list[dict[str, Any]]:
        """The calls that wait for a decision, as the answer had them that asked; ``decide`` decides about all of them."""
        waiting = {} if is_dead(self.envelope) else find_waiting(self.messages)
        return [dict(one.body) for one in waiting.values()]

    def asked(self, message: dict[str, Any], fields: Mapping[str, Any]) -> bytes:
        """Say a message: the body that carries it, the history and the session."""
        body = self._build_body([message] if self._is_kept else [*self.messages, message], fields)
        self.messages.append(message)
        return body

    def decided(self, decision: bool | str, text: str) -> bytes:
        """Decide about every call that waits: the body that says so.

        Raises:
            ApprovalUnknown: None waits, or the decision is neither True nor a reason.
        """
        if not self.approvals:
            raise ApprovalUnknown("Nothing waits for a decision: no answer has asked for one that is still due (client.approvals).")
        if decision is not True and (not isinstance(decision, str) or not decision):
            raise ApprovalUnknown("decision= is True to run the calls, or the reason why not, a text.")
        said = {"execute": True} if decision is True else {"rejection_reason": decision}
        return self.asked({**user_message(text), "data": {"approvals": [item | said for item in self.approvals]}}, {})

    def body(self, fields: Mapping[str, Any] | None = None) -> bytes:
        """All of the conversation, as it would be sent now.

        Raises:
            ConfigurationError: A field or a message is no JSON, or ``echo=`` does not write bytes.
        """
        return self._build_body(self.messages, {} if fields is None else fields)

    def adopted(self, reply: Reply) -> Reply:
        """Keep the session of an answer, if it has one that counts."""
        if reply.body is not None:
            self.envelope = choose_session(self.envelope, reply.body, status=reply.status)
        elif reply.is_stream:
            self.envelope = last_session(reply.content_type, reply.content, self.envelope, whole=True)
        return reply

    def kept(self, reply: Reply) -> Reply:
        """Keep an answer in the history, if the turn was served; if not, what it has executed all the same waits no more."""
        if reply.code is None and reply.message is not None:
            self.messages.append(
                close_approvals({"role": "assistant", **reply.message}, find_waiting(self.messages), begins=self._begins)
            )
        else:
            for event in reply.events:
                self.messages[:] = drop_executed(self.messages, value_at(event, "executed_approvals"))
        return reply

    def overheard(self, value: Any) -> None:
        """Keep the session of a frame that came between two turns, if it has one that counts."""
        self.envelope = choose_session(self.envelope, value)

    def _build_body(self, messages: list[dict[str, Any]], fields: Mapping[str, Any]) -> bytes:
        self._begins = is_dead(self.envelope)
        session = b"null" if self.envelope is None else self._echo(self.envelope)
        if not isinstance(session, bytes):
            refuse("echo", session, "a function that gives the JSON text of the envelope, in bytes")
        before = {**self._fields, **check_object("fields", fields, FIELDS), "messages": messages}
        before.pop("data", None)
        return encode_json(before)[:-1] + b',"data":{"session":' + session + b"}}"


class TurnFrames:
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

    def take(self, received: Received) -> bool:
        """Take what came; True if it ends the turn."""
        if isinstance(received, Closed):
            self._closed = received
            return True
        self._frames.append(received)
        value = parse_json(received)
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


def user_message(text: str) -> dict[str, Any]:
    """What a user says, as a message.

    Raises:
        ConfigurationError: It is no text.
    """
    said = check("text", text, str, "what the user says, a text; post takes a whole body")
    if not is_whole(said):
        raise ConfigurationError(
            "text= has half a character, which UTF-8 cannot say (a lone surrogate). post sends bytes as they are."
        )
    return {"role": "user", "content": said}


def encode_body(body: Any) -> bytes:
    """A body as it is sent: bytes as they are, anything else as JSON.

    Raises:
        ConfigurationError: It is neither.
    """
    return body if isinstance(body, bytes) else encode_json(body)


def encode_json(value: Any) -> bytes:
    """Compact JSON in the order given, without escapes that are not needed, as most clients write it.

    Halves of a character (UTF-16 surrogates) are escaped, as browsers do it.

    Raises:
        ConfigurationError: It is no JSON value.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"A value of the body cannot be written as JSON ({type(error).__name__}). post sends bytes as they are."
        ) from None


def is_missed(reply: Reply) -> bool:
    """Whether a turn met a service that was closing the socket, so that it was not received, and can be said on another one."""
    return not reply.content and reply.close_code in CLOSING


def frame_of(content: bytes) -> str | bytes:
    """A body as a frame: as text, where it is text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
