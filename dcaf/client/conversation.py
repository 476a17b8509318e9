r"""One conversation of a client: what was said, and the session that goes with it. No I/O: whoever has a wire can use it.

>>> conversation = Conversation(fields={"thread_id": "th-1"})
>>> conversation.body({"role": "user", "content": "hello"}, {})
b'{"thread_id":"th-1","messages":[{"role":"user","content":"hello"}]}'
>>> conversation.adopt({"role": "assistant", "content": "Hi.", "data": {"session": {"step": 1, "dcaf": {"token": "t"}}}})
False
>>> conversation
<Conversation: 0 messages, session of 1 keys>

What a reader gets wrong: a message is kept when its turn has ended well, the session as soon as it comes. After a turn that
failed the conversation is what it was, but for a session that the service gave in the meantime.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

from dcaf.client.approvals import Approval, approvals_in, left
from dcaf.client.arrival import is_dead, session_in
from dcaf.core.errors import ConfigurationError

OnDead: TypeAlias = Literal["restart", "raise"]
"""What to do when the service says that the session is of no use: say the turn once more in a new one, or raise SessionDead."""

OURS: Final = ("messages", "data")


class Conversation:
    """What a client remembers between turns.

    Args:
        fields: Further top-level members of every body, such as ``thread_id``.
        session: A session object to go on with, as an answer had it at ``data.session``; None begins without.
        messages: What was said before, oldest first.
        on_dead: What to do when the service says that the session is of no use.

    Attributes:
        envelope: The session that the next turn will carry, as it came; None for none.
        messages: What was said, oldest first; the answers without their sessions.
        waiting: The approvals that may be decided about, by id.

    Raises:
        ConfigurationError: ``on_dead`` is neither of its two values.
    """

    def __init__(
        self,
        *,
        fields: Mapping[str, Any] | None = None,
        session: dict[str, Any] | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
        on_dead: OnDead = "restart",
    ) -> None:
        if on_dead not in get_args(OnDead):
            raise ConfigurationError(f'on_dead={on_dead!r} is unknown: write on_dead="restart" or on_dead="raise".')
        self._fields = dict(fields or {})
        self.envelope = session
        self.messages: list[Mapping[str, Any]] = [*messages]
        self.waiting: dict[str, Approval] = {}
        self.on_dead = on_dead
        self.turn: object = None
        """The turn that goes on, or the last one."""

    @property
    def session(self) -> dict[str, Any]:
        """The state as the client can read it: for display, and as much of it as the service shows."""
        return {key: item for key, item in (self.envelope or {}).items() if key != "dcaf"}

    def body(self, message: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
        """The request of a turn: every message, none of them with a session, and the session at the top.

        Args:
            message: What is said now.
            fields: Further top-level members; they win over those of the conversation.
        """
        members = {**self._fields, **fields}
        data = _data(members) | ({} if self.envelope is None else {"session": self.envelope})
        around = {key: item for key, item in members.items() if key not in OURS}
        said = [_bare(one) for one in (*self.messages, message)]
        return _written({**around, "messages": said, **({"data": data} if data else {})})

    def adopt(self, value: Any) -> bool:
        """Keep the session of an answer, an event or a frame, if it has one. True if it says that the one before is dead."""
        found = session_in(value)
        if found is None:
            return False
        self.envelope = found
        if is_dead(found):
            self.waiting = {}
        return is_dead(found)

    def keep(self, message: Mapping[str, Any], answer: Mapping[str, Any], decided: Iterable[str]) -> None:
        """Keep what was said and what was answered, and know what waits for a decision now.

        Args:
            message: What was said.
            answer: The answer, as a message.
            decided: Ids of the approvals that the message decided about.
        """
        self.messages += [_bare(message), _bare({key: answer[key] for key in ("role", "content", "data") if key in answer})]
        self.waiting = left(self.waiting, decided, approvals_in(_data(answer).get("approvals")))

    def __repr__(self) -> str:
        return f"<Conversation: {len(self.messages)} messages, session of {len(self.session)} keys>"


def _data(members: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` without the session."""
    data = members.get("data")
    return {key: item for key, item in data.items() if key != "session"} if isinstance(data, Mapping) else {}


def _bare(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message without a session, and without a ``data`` that holds nothing else."""
    if "data" not in message:
        return message
    data, rest = _data(message), {key: item for key, item in message.items() if key != "data"}
    return {**rest, "data": data} if data else rest


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
