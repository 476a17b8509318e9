"""A conversation as an echoing client has it: what is sent next, and what is kept of an answer. No I/O.

>>> from dcaf.testing.reply import Reply
>>> client = Echoing(fields={"thread_id": "t-1"})
>>> client.asked({"role": "user", "content": "hi"}, {})
b'{"thread_id":"t-1","messages":[{"role":"user","content":"hi"}],"data":{"session":null}}'
>>> answer = b'{"content":"Hello.","data":{"session":{"step":1,"dcaf":{"token":"t"}}}}'
>>> _ = client.kept(client.adopted(Reply.of_answer(200, {"Content-Type": "application/json"}, answer, sent_bytes=87)))
>>> client.envelope, len(client.messages)
({'step': 1, 'dcaf': {'token': 't'}}, 2)

What a reader gets wrong: the session is adopted from any answer that has one, refusals and streams too. That is how a client gets
rid of a session that has ended, and why it keeps its own through an answer that has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dcaf.client.arrival import session_in
from dcaf.testing.reply import Reply

Echo: TypeAlias = Callable[[Mapping[str, Any]], bytes]
"""How a client writes the session that it sends back: the envelope -> its JSON text."""


class Echoing:
    """What is said and kept, on every wire alike.

    Args:
        envelope: A session to begin with, as ``sealed`` makes one; None begins without.
        fields: Further top-level members of every body, such as ``thread_id``.
        echo: How the session is written that is sent back, as ``HARMLESS`` has them; None writes it as it came.

    Attributes:
        envelope: The session that the next turn will carry.
        messages: The conversation so far; each answer keeps the session that it carried.
    """

    def __init__(
        self, *, envelope: dict[str, Any] | None = None, fields: Mapping[str, Any] | None = None, echo: Echo | None = None
    ) -> None:
        self._fields = dict(fields or {})
        self._echo = echo or written
        self.envelope = envelope
        self.messages: list[dict[str, Any]] = []

    def asked(self, message: dict[str, Any], fields: Mapping[str, Any]) -> bytes:
        """Say a message: the body that carries it, the history and the session."""
        self.messages.append(message)
        return self.body(fields)

    def decided(self, decision: bool | str, text: str) -> bytes:
        """Decide about every call that the last answer waits with: the body that says so."""
        said = {"execute": True} if decision is True else {"rejection_reason": decision}
        waiting = (self.messages[-1].get("data") or {}).get("approvals", []) if self.messages else []
        return self.asked({"role": "user", "content": text, "data": {"approvals": [item | said for item in waiting]}}, {})

    def body(self, fields: Mapping[str, Any] | None = None) -> bytes:
        """The conversation as it would be sent now."""
        session = b"null" if self.envelope is None else self._echo(self.envelope)
        before = {**self._fields, **(fields or {}), "messages": self.messages}
        before.pop("data", None)
        return written(before)[:-1] + b',"data":{"session":' + session + b"}}"

    def adopted(self, reply: Reply) -> Reply:
        """Keep the session of an answer, if it has one."""
        if reply.envelope is not None:
            self.envelope = reply.envelope
        return reply

    def kept(self, reply: Reply) -> Reply:
        """Keep an answer in the history, if the turn was served."""
        if reply.code is None and reply.message is not None:
            self.messages.append(reply.message)
        return reply

    def overheard(self, value: Any) -> None:
        """Keep the session of a frame that came between two turns, if it has one."""
        found = session_in(value)
        self.envelope = self.envelope if found is None else found


def user(text: str) -> dict[str, Any]:
    """What a user says, as a message."""
    return {"role": "user", "content": text}


def content_of(body: Any) -> bytes:
    """A body as it is sent: bytes as they are, anything else as JSON."""
    return body if isinstance(body, bytes) else written(body)


def written(value: Any) -> bytes:
    """Compact JSON in the order given, without escapes that are not needed, as most clients write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
