r"""The conversation that a server keeps for an agent: how it is read for a turn, and what a turn adds to it.

It is kept in the shape of OpenAI's chat, and read as messages of the HelpDesk protocol. A call comes with its result, before the
text that came of it; one that has no result yet stands among the approvals of its answer:

>>> call = build_calls([ExecutedToolCall(id="c1", name="find", input={"day": 2})])
>>> said = [call, build_result("c1", "At 2 pm."), {"role": "assistant", "content": "On Tuesday at 2 pm."}]
>>> [answer] = read_conversation(said)
>>> answer.content, [(item.name, item.output) for item in answer.data.executed_tool_calls]
('On Tuesday at 2 pm.', [('find', 'At 2 pm.')])
>>> [waits] = read_conversation([call])
>>> [(item.id, item.input) for item in waits.data.approvals]
[('c1', {'day': 2})]

What a reader gets wrong: in this mode a client says what the user says, and nothing else. What an assistant said and what came of a
call is the server's word; a client that sends either is refused, because a model could not tell it from what was kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from pydantic_core import from_json

from dcaf.agent.helpdesk import LONGEST_ID, READ, Approval, Data, ExecutedToolCall, Message, Shape, SystemMessage
from dcaf.core.errors import ConfigurationError, MalformedRequest, SessionValueError
from dcaf.core.journal import History, find_history
from dcaf.core.mapping import state_of
from dcaf.core.session import Session

HistoryMode: TypeAlias = Literal["client", "server"]
"""Who keeps the conversation: the client, which sends all of it with each turn, or the server, which is sent what is new."""

SERVER: Final = "server"
OPERATORS: Final = ("system", "developer")
SHOWN: Final = ("user", "assistant")

NOT_KEPT: Final = (
    'history="server" needs a store that keeps the conversation, and the one of this service does not: pass create_app '
    "store=SessionService(...), or leave history= out, and let the client send all messages."
)
NOT_YOURS: Final = (
    "this service keeps the conversation: send only what the user says now, without what was said before and without results of "
    'tools, as {"messages": [{"role": "user", "content": "..."}]}'
)
NEVER_RUN: Final = "This call has not run."
TOO_LONG: Final = "The result of this call was too long to be kept."


def require_history(mode: object) -> HistoryMode:
    """Require one of the two modes.

    Raises:
        ConfigurationError: It is something else.
    """
    if mode not in get_args(HistoryMode):
        raise ConfigurationError('history= is "client", which sends all messages with each turn, or "server", which keeps them.')
    return cast("HistoryMode", mode)


def find_kept(session: Session) -> History:
    """The conversation of a session that a store keeps.

    Raises:
        ConfigurationError: None keeps it.
    """
    found = find_history(session)
    if found is None:
        raise ConfigurationError(NOT_KEPT)
    return found


def read_kept(session: Session) -> list[Message]:
    """The conversation of a session, as far as it was read, oldest first.

    Raises:
        ConfigurationError: No store keeps it.
    """
    with state_of(session).lock:
        kept = find_kept(session).read_messages()
    return read_conversation(kept)


def list_shown(messages: Iterable[Message], waiting: Mapping[str, Approval]) -> list[dict[str, Any]]:
    """A conversation as its user may see it: without what the operator has said.

    Args:
        messages: The messages, as ``read_kept`` gives them.
        waiting: Id -> call: those that wait for a person. No other call is among the approvals.
    """
    return [_show(message, waiting) for message in messages if message.role in SHOWN]


def check_new(messages: Sequence[Message]) -> None:
    """Refuse what a client may not say where the server keeps the conversation: anything that is not the user's.

    Raises:
        MalformedRequest: A message is the assistant's, or has results of tools.
    """
    for at, message in enumerate(messages):
        data = message.data
        if message.role != "user":
            raise MalformedRequest([(f"messages.{at}.role", NOT_YOURS)])
        if data is not None and (data.executed_tool_calls or data.executed_approvals):
            raise MalformedRequest([(f"messages.{at}.data", NOT_YOURS)])


def find_new(messages: Sequence[Message], said: Sequence[Message]) -> list[Message]:
    """What is to be kept of what the user has said, after interceptors.

    Args:
        messages: What the interceptors have left: an interceptor may have written in a message, or put another one in its place.
        said: The messages that were sent, oldest first.
    """
    own = {id(message) for message in said}
    found = [message for message in messages if id(message) in own]
    return found if len(found) == len(said) else [item for item in messages if item.role == "user"][-len(said) :]


def add_messages(session: Session, messages: Iterable[Mapping[str, Any]]) -> None:
    """Add to the conversation of a session. The result of a call that is too long to be kept is kept as a sentence that says so.

    Raises:
        ConfigurationError: No store keeps it.
        SessionValueError: One may not be stored. Those before it were added.
    """
    with state_of(session).lock:
        kept = find_kept(session)
        for message in messages:
            _add(kept, message)


def add_outcome(session: Session, item: ExecutedToolCall) -> None:
    """Add what came of a call that a person decided about.

    A call that is not in the conversation, because the client kept it when the call was proposed, comes before its result.

    Raises:
        ConfigurationError: No store keeps the conversation.
        SessionValueError: It may not be stored.
    """
    with state_of(session).lock:
        kept, result = find_kept(session), build_result(item.id, item.output)
        try:
            _add(kept, result)
        except ConfigurationError:
            _add(kept, build_calls([item]))
            _add(kept, result)


def build_user(message: Message) -> list[Mapping[str, Any]]:
    """The message that is kept of the user: none where it has no text, but decides."""
    return [{"role": "user", "content": _sound(message.content)}] if message.content else []


def build_calls(calls: Sequence[ExecutedToolCall | Approval], text: str = "") -> Mapping[str, Any]:
    """The message of an assistant that calls tools, and says a text with it."""
    made = [{"id": item.id, "type": "function", "function": {"name": item.name, "arguments": _write(item.input)}} for item in calls]
    return {"role": "assistant", "content": _sound(text) or None, "tool_calls": made}


def build_result(id_: str, output: str) -> Mapping[str, Any]:
    """The message of a tool: what the model reads of the result of a call."""
    return {"role": "tool", "tool_call_id": id_, "content": _sound(output)}


def build_step(calls: Sequence[ExecutedToolCall]) -> list[Mapping[str, Any]]:
    """Calls that were made together, and then their results."""
    return [build_calls(calls), *(build_result(item.id, item.output) for item in calls)] if calls else []


def build_answer(text: str, waiting: Sequence[Approval]) -> list[Mapping[str, Any]]:
    """What an assistant has said in the end, and the calls that wait for a person since."""
    if waiting:
        return [build_calls(waiting, text)]
    return [{"role": "assistant", "content": _sound(text)}] if text else []


def read_conversation(kept: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Read messages in the shape of OpenAI's chat as those of the HelpDesk protocol.

    A result whose call is not among them is left out: the call was said too long ago to be read.

    Args:
        kept: The messages, oldest first.
    """
    reader = _Reader()
    for message in kept:
        reader.take(message)
    return reader.list_messages()


class _Reader:
    """The messages that were read so far.

    Calls wait for their results, and calls with results for the text that came of them.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._open: dict[str, tuple[Message, Approval]] = {}
        self._done: list[ExecutedToolCall] = []

    def take(self, kept: Mapping[str, Any]) -> None:
        """Read the next one."""
        role, text = kept["role"], _read_text(kept.get("content"))
        if role == "tool":
            self._take_result(kept["tool_call_id"], text)
        elif role == "assistant":
            self._take_answer(text, kept.get("tool_calls") or ())
        else:
            self._flush()
            is_user = role not in OPERATORS
            self._messages.append(Message(role="user", content=text) if is_user else SystemMessage(content=text))

    def list_messages(self) -> list[Message]:
        """All of them. A message that only called tools has nothing in it, once they have their results."""
        self._flush()
        for message, waits in self._open.values():
            message.data = message.data or Data()
            message.data.approvals.append(waits)
        return [message for message in self._messages if message.content or message.data]

    def _take_answer(self, text: str, calls: Iterable[Mapping[str, Any]]) -> None:
        message = Message(role="assistant", content=text)
        if text:
            self._add_done(message)
        self._messages.append(message)
        for call in calls:
            if 0 < len(call["id"]) <= LONGEST_ID:
                self._open[call["id"]] = message, _read_call(call, text)

    def _take_result(self, id_: str, text: str) -> None:
        if id_ in self._open:
            _, call = self._open.pop(id_)
            members = {"id": id_, "name": call.name, "input": call.input, "output": text}
            self._done.append(ExecutedToolCall.model_validate(members, context=READ))

    def _flush(self) -> None:
        """Have a message for the calls after which nothing was said."""
        if self._done:
            message = Message(role="assistant")
            self._add_done(message)
            self._messages.append(message)

    def _add_done(self, message: Message) -> None:
        if self._done:
            message.data = Data(executed_tool_calls=self._done)
            self._done = []


def _show(message: Message, waiting: Mapping[str, Approval]) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.data is None:
        return found
    calls, waits = message.data.executed_tool_calls, [waiting[item.id] for item in message.data.approvals if item.id in waiting]
    lists: dict[str, Sequence[Shape]] = {"executed_tool_calls": calls, "approvals": waits}
    data = {name: [item.model_dump(mode="json") for item in items] for name, items in lists.items() if items}
    return found | ({"data": data} if data else {})


def _add(kept: History, message: Mapping[str, Any]) -> None:
    try:
        kept.add_message(message)
    except SessionValueError:
        if message["role"] != "tool":
            raise
        kept.add_message({**message, "content": TOO_LONG})
    except ConfigurationError:
        if not message.get("tool_calls"):
            raise
        _close_calls(kept, message["tool_calls"])
        kept.add_message(message)


def _close_calls(kept: History, calls: Iterable[Mapping[str, Any]]) -> None:
    """End calls that nobody can decide about any more, and whose ids a model has given to others."""
    for call in calls:
        with suppress(ConfigurationError):
            kept.add_message(build_result(call["id"], NEVER_RUN))


def _read_call(call: Mapping[str, Any], text: str) -> Approval:
    function = call["function"]
    members = {"id": call["id"], "name": function["name"], "input": _read(function["arguments"]), "intent": text or None}
    return Approval.model_validate(members, context=READ)


def _read_text(content: Any) -> str:
    """The text of a message, which may have parts of other kinds that nobody here can read."""
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))


def _read(arguments: str) -> dict[str, Any]:
    """The arguments of a call; none where a model has written no object."""
    try:
        found = from_json(arguments)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(arguments: Mapping[str, Any]) -> str:
    return _sound(json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), default=str))


def _sound(text: str) -> str:
    """A text that UTF-8 can say: a model may have made half of a surrogate pair."""
    return text.encode(errors="replace").decode()
