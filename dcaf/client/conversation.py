r"""One conversation of a client: what was said, and the session that goes with it. No I/O: whoever has a wire can use it.

>>> conversation = Conversation(fields={"thread_id": "th-1"})
>>> conversation.body({"role": "user", "content": "hello"}, {})
b'{"thread_id":"th-1","messages":[{"role":"user","content":"hello"}]}'
>>> conversation.adopt({"role": "assistant", "content": "Hi.", "data": {"session": {"step": 1, "dcaf": {"token": "t"}}}})
False
>>> conversation
<Conversation: 0 messages, session of 1 keys>

A message is kept when its turn has ended well, the session as soon as it comes. After a turn that failed the conversation is what
it was, but for a session that the service gave in the meantime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

from dcaf.client.arguments import check, check_messages, check_object, write_json
from dcaf.client.envelopes import choose_session, find_session, is_dead
from dcaf.client.reply import Approval, close_approvals, drop_executed, find_waiting
from dcaf.client.retries import Retries
from dcaf.core.errors import ConfigurationError

OnDead: TypeAlias = Literal["restart", "raise"]
"""What to do when the service says that the session is of no use: say the turn once more in a new one, or raise SessionDead."""

HistoryMode: TypeAlias = Literal["client", "server"]
"""Who keeps the conversation for the agent: the client, which sends all of it with each turn, or the service."""

RETRIES: Final = Retries()
OURS: Final = ("messages", "data")
KEPT: Final = ("content", "data")
FIELDS: Final = "a mapping: name -> JSON value"
SESSION: Final = "the session object of an answer, as client.envelope has it, or None"
MESSAGE: Final = "a text, or a mapping with role and content"


class Conversation:
    """What a client remembers between turns.

    Args:
        fields: Further top-level members of every body, such as ``thread_id``.
        session: A session object to go on with, as an answer had it at ``data.session``; None begins without.
        messages: What was said before, oldest first.
        on_dead: What to do when the service says that the session is of no use.
        retries: How often a turn is sent again by itself, where the service can tell what became of the first one.
        history: ``"server"`` where the service keeps the conversation (``create_app(history="server")``): a turn has its own
            message alone. ``"client"`` sends all of them.

    Attributes:
        envelope: The session that the next turn will carry, as it came; None for none.
        messages: What was said, oldest first; the answers without their sessions.
        restarted: Code of the refusal after which a new session was begun, until a reply has shown it.

    Raises:
        ConfigurationError: An argument is of a wrong type, or ``on_dead`` or ``history`` is neither of its two values.
    """

    def __init__(
        self,
        *,
        fields: Mapping[str, Any] | None = None,
        session: dict[str, Any] | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
        on_dead: OnDead = "restart",
        retries: Retries = RETRIES,
        history: HistoryMode = "client",
    ) -> None:
        if on_dead not in get_args(OnDead):
            raise ConfigurationError('on_dead= is one of two: write on_dead="restart" or on_dead="raise".')
        self._is_kept = check_history(history) == "server"
        self._fields = check_fields({} if fields is None else fields)
        self.envelope: dict[str, Any] | None = None if session is None else check_object("session", session, SESSION)
        self.messages: list[Mapping[str, Any]] = [*check_messages("messages", messages)]
        self.on_dead: OnDead = on_dead
        self.retries: Retries = check("retries", retries, Retries, "Retries, for instance Retries(pauses=())")
        self.restarted: str | None = None
        self.turn: object = None
        """The turn that goes on, or the last one."""

    @property
    def session(self) -> dict[str, Any]:
        """The state as the client can read it: for display, and as much of it as the service shows."""
        return {key: item for key, item in (self.envelope or {}).items() if key != "dcaf"}

    @property
    def waiting(self) -> dict[str, Approval]:
        """The approvals that may be decided about, by id: read from the messages and the session, and held nowhere else."""
        return {} if is_dead(self.envelope) else find_waiting(self.messages)

    def body(self, message: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
        """The request of a turn: every message, none of them with a session, and the session at the top.

        Where the service keeps the conversation it has the new message alone.

        Args:
            message: What is said now.
            fields: Further top-level members; they win over those of the conversation.

        Raises:
            ConfigurationError: An argument, or a message that was kept, is no JSON.
        """
        members = {**self._fields, **check_fields(fields)}
        data = _data_without_session(members) | ({} if self.envelope is None else {"session": self.envelope})
        around = {key: item for key, item in members.items() if key not in OURS}
        before = () if self._is_kept else self.messages
        said = [_without_session(check("message", one, Mapping, MESSAGE)) for one in (*before, message)]
        return write_json("messages", {**around, "messages": said, **({"data": data} if data else {})})

    def adopt(self, value: Any, *, status: int | None = None) -> bool:
        """Keep the session of an answer, an event or a frame, if it has one that counts. True if the one before is dead now.

        Args:
            value: The JSON value.
            status: Of a whole answer; None for an event or a frame.
        """
        before, self.envelope = self.envelope, choose_session(self.envelope, value, status=status)
        return self.envelope is not before and is_dead(self.envelope)

    def settle(self, items: list[Any]) -> None:
        """Remove what was executed, in a turn whose answer is not kept, from the approvals that wait.

        Args:
            items: What became of decisions, as events ``executed_approvals`` have it.

        Raises:
            ConfigurationError: They are no list.
        """
        if check("items", items, list, "the list of an event executed_approvals"):
            self.messages[:] = drop_executed(self.messages, items)

    def keep(self, message: Mapping[str, Any], answer: Mapping[str, Any], *, begins: bool = False) -> None:
        """Keep what was said and what was answered.

        Args:
            message: What was said.
            answer: The answer, as a message.
            begins: Whether the turn has begun a new session: then nothing waits that waited before.

        Raises:
            ConfigurationError: One of them is no message.
        """
        closed = close_approvals(check("answer", answer, Mapping, MESSAGE), find_waiting(self.messages), begins=begins)
        kept = {"role": "assistant"} | {key: closed[key] for key in KEPT if key in closed}
        self.messages += [_without_session(check("message", message, Mapping, MESSAGE)), _without_session(kept)]
        self.restarted = None

    def __repr__(self) -> str:
        return f"<Conversation: {len(self.messages)} messages, session of {len(self.session)} keys>"


def check_history(history: HistoryMode) -> HistoryMode:
    """Require one of the two that keep a conversation.

    Raises:
        ConfigurationError: It is something else.
    """
    if history not in get_args(HistoryMode):
        raise ConfigurationError('history= is one of two: write history="client" or history="server".')
    return history


def check_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Further members of a body.

    Raises:
        ConfigurationError: They are none, or would take the place of the messages or the session.
    """
    found = check_object("fields", fields, FIELDS)
    if "messages" in found:
        raise ConfigurationError("fields= cannot have messages: they are the conversation's own (messages=, client.messages).")
    if "data" in found:
        check("fields: data", found["data"], Mapping, "a mapping")
        if find_session(found) is not None:
            raise ConfigurationError("fields= cannot have a session in data: the conversation has its own (session=).")
    return found


def _data_without_session(members: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` without the session."""
    data = members.get("data")
    return {key: item for key, item in data.items() if key != "session"} if isinstance(data, Mapping) else {}


def _without_session(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message without a session, and without a ``data`` that holds nothing else."""
    if "data" not in message:
        return message
    data, rest = _data_without_session(message), {key: item for key, item in message.items() if key != "data"}
    return {**rest, "data": data} if data else rest
