"""What comes back: the events of a stream, the answer that they amount to, and the calls that wait for approval.

>>> pieces = [Event({"type": "text_delta", "text": "Hel"}), Event({"type": "text_delta", "text": "lo"}), Event({"type": "done"})]
>>> Reply(gather_events(pieces)).text
'Hello'
>>> asked = Approval.read({"id": "ap-31", "type": "tool_call", "name": "drop_volume", "input": {"volume": "pg"}, "execute": False})
>>> find_waiting([{"role": "assistant", "content": "Shall I?", "data": {"approvals": [asked.body]}}])
{'ap-31': Approval(id='ap-31', name='drop_volume')}
>>> build_decisions({"ap-31": asked}, {"ap-31": "Not during trading hours"})[0]["rejection_reason"]
'Not during trading hours'

What a reader gets wrong: a refusal is its reason. ``False`` would be a refusal that the agent cannot explain to anyone, so there is
no such decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from dcaf.client.arguments import check, make_whole, refuse
from dcaf.client.envelopes import find_session, value_at
from dcaf.client.errors import ApprovalUnknown

Decision: TypeAlias = Literal[True] | str
"""Yes, or why not."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One action that waits for a decision.

    Attributes:
        id: What a decision names.
        name: The tool, or the kind of command.
        input: Its arguments.
        description: What it does, for the person who decides.
        intent: Why the agent wants it.
        body: The item as it came, with whatever else it has.

    Raises:
        ConfigurationError: A text is no text, or the body no mapping.
    """

    id: str
    name: str
    input: Any = field(repr=False)
    description: str = field(repr=False)
    intent: str = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("id", "name", "description", "intent"):
            check(name, getattr(self, name), str, "a text")
        check("body", self.body, Mapping, "the item as it came, a mapping")

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> Approval:
        """An item of ``data.approvals``; what it lacks is empty.

        Raises:
            ConfigurationError: It is no mapping, or has no text at ``id``.
        """
        takes = "an item of data.approvals, a mapping with a text at id"
        if not isinstance(check("item", item, Mapping, takes).get("id"), str):
            refuse("item", item, takes)
        name, description, intent = (str(item.get(key) or "") for key in ("name", "description", "intent"))
        return cls(item["id"], name, item.get("input"), description, intent, item)


def read_approvals(items: Any) -> list[Approval]:
    """The approvals of a list, each id once, but for items that nobody could decide about: no object, or no id."""
    return [Approval.read(item) for item in {item["id"]: item for item in _with_ids(items)}.values()]


def find_waiting(messages: Sequence[Mapping[str, Any]]) -> dict[str, Approval]:
    """What waits for a decision at the end of a conversation, by id.

    An answer lists all that waits after it. So the newest list counts, but for what was executed since; an answer that was stopped
    has none. Only answers are read: a user's message says what was decided, and can make nothing wait.

    Args:
        messages: What was said and answered, oldest first.
    """
    executed: set[str] = set()
    for message in reversed(messages):
        data = value_at(message, "data") if value_at(message, "role") == "assistant" else None
        if isinstance(value_at(data, "approvals"), list):
            found = read_approvals(value_at(data, "approvals"))
            return {one.id: one for one in found if one.id not in executed}
        executed |= {item["id"] for item in _with_ids(value_at(data, "executed_approvals"))}
    return {}


def drop_executed(messages: Sequence[Mapping[str, Any]], items: Any) -> list[dict[str, Any]]:
    """Messages without the approvals that were executed, or refused, in a turn whose answer may never be complete.

    Args:
        messages: What was said and answered, oldest first.
        items: What the service says that became of decisions.
    """
    gone = {item["id"] for item in _with_ids(items)}
    return [_drop_from(message, gone) for message in messages]


def _drop_from(message: Mapping[str, Any], gone: set[str]) -> dict[str, Any]:
    data = value_at(message, "data") if value_at(message, "role") == "assistant" else None
    asked = value_at(data, "approvals")
    left = [item for item in asked if value_at(item, "id") not in gone] if isinstance(asked, list) else asked
    return dict(message) if left == asked else {**message, "data": {**(data or {}), "approvals": left}}


def close_approvals(answer: Mapping[str, Any], waiting: Mapping[str, Approval], *, begins: bool) -> dict[str, Any]:
    """An answer as it is to be kept: with an empty list of approvals where nothing waits after it and it does not say so itself.

    Args:
        answer: The answer, as a message.
        waiting: What waited before.
        begins: Whether its turn has begun a new session, in which nothing waits that waited before.
    """
    data = answer.get("data")
    is_over = begins or value_at(answer.get("meta_data"), "has_pending_approvals") is False
    if not (waiting and is_over) or isinstance(value_at(data, "approvals"), list):
        return dict(answer)
    return {**answer, "data": {**(data if isinstance(data, Mapping) else {}), "approvals": []}}


def build_decisions(waiting: Mapping[str, Approval], decisions: Mapping[str, Decision]) -> list[dict[str, Any]]:
    """The items that carry decisions back.

    Args:
        waiting: What may be decided about, by id.
        decisions: By id. What is left out stays undecided.

    Raises:
        ApprovalUnknown: An id is not waiting, or a refusal gives no reason.
        ConfigurationError: The decisions are no mapping.
    """
    check("decisions", decisions, Mapping, "a mapping: id of an approval -> True, or the reason why not")
    return [_build_decision(waiting, id_, decision) for id_, decision in decisions.items()]


def _with_ids(items: Any) -> list[Mapping[str, Any]]:
    """Those of a list that have an id."""
    return [item for item in items if isinstance(value_at(item, "id"), str)] if isinstance(items, list) else []


def _build_decision(waiting: Mapping[str, Approval], id_: str, decision: object) -> dict[str, Any]:
    if id_ not in waiting:
        known = ", ".join(waiting) or "none"
        raise ApprovalUnknown(
            f"No approval {id_!r} waits for a decision. Waiting: {known}. Decide about one of client.approvals; "
            "a client that goes on elsewhere needs messages= and session= of the one before."
        )
    if decision is True:
        return {**waiting[id_].body, "execute": True, "rejection_reason": None}
    if not isinstance(decision, str) or not decision:
        raise ApprovalUnknown(
            f"The decision about {id_!r} is neither True nor a reason. To refuse, write why: {{{id_!r}: 'reason'}}."
        )
    return {**waiting[id_].body, "execute": False, "rejection_reason": decision}


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """One event of a stream or a WebSocket.

    Attributes:
        body: All of it. The types of this protocol are ``text_delta``, ``intermittent_update``, ``tool_calls``,
            ``executed_tool_calls``, ``approvals``, ``executed_approvals``, ``session`` and ``done``; there may be others. One
            is the client's own: ``again`` says that the answer broke off, what came of it is void, and the turn was sent again.

    Raises:
        ConfigurationError: The body is no mapping, or has no text at ``type``.
    """

    body: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(check("body", self.body, Mapping, "a mapping").get("type"), str):
            refuse("body", self.body, "a mapping with a text at type")

    @property
    def type(self) -> str:
        """Which event it is."""
        return str(self.body["type"])

    @property
    def text(self) -> str:
        """A piece of the answer, or words about its progress; empty where the event has none."""
        text = self.body.get("text")
        return text if isinstance(text, str) else ""

    def __repr__(self) -> str:
        return f"Event({self.type!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """One turn's answer.

    Attributes:
        body: The answer as a message, as it came; of a stream, what its events amount to.
        restarted: Code of the refusal after which a new session was begun; None where the session went on.
        attempts: How often the turn was sent: more than once where it was sent again by itself.

    Raises:
        ConfigurationError: The body is no mapping, the code no text, or the attempts no number.
    """

    body: Mapping[str, Any] = field(default_factory=dict)
    restarted: str | None = None
    attempts: int = 1

    def __post_init__(self) -> None:
        check("body", self.body, Mapping, "a mapping")
        check("attempts", self.attempts, int, "how often the turn was sent, a number")
        check("restarted", self.restarted, (str, type(None)), "a code, or None")

    @property
    def text(self) -> str:
        """What the assistant said."""
        content = self.body.get("content")
        return content if isinstance(content, str) else ""

    @property
    def data(self) -> Mapping[str, Any]:
        """What the answer carries besides its text, without the session."""
        return {key: item for key, item in _object(self.body.get("data")).items() if key != "session"}

    @property
    def session(self) -> dict[str, Any]:
        """The state as the client can read it: for display, and as much of it as the service shows."""
        return {key: item for key, item in (find_session(self.body) or {}).items() if key != "dcaf"}

    @property
    def approvals(self) -> list[Approval]:
        """What the agent asks to be allowed to do, in its order; what waited before this turn and still does is among it."""
        return read_approvals(self.data.get("approvals"))

    @property
    def executed_approvals(self) -> list[Any]:
        """What was done, or refused, after decisions."""
        return _list(self.data.get("executed_approvals"))

    @property
    def executed_tool_calls(self) -> list[Any]:
        """The tools that ran in this turn."""
        return _list(self.data.get("executed_tool_calls"))

    @property
    def meta_data(self) -> Mapping[str, Any]:
        """What the service says about the answer."""
        return _object(self.body.get("meta_data"))

    def __repr__(self) -> str:
        counts = f"{len(self.text)} characters, {len(self.approvals)} approvals, session of {len(self.session)} keys"
        return f"<Reply: {counts}{f', restarted: {self.restarted}' if self.restarted else ''}>"


def gather_events(events: Iterable[Event]) -> dict[str, Any]:
    """The message that a stream amounts to: its text joined, its lists one after the other, its last session.

    Raises:
        ConfigurationError: Something else than events.
    """
    text: list[str] = []
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    data: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {}
    for event in check("events", events, Iterable, "events"):
        items = check("events", event, Event, "events").body.get(event.type)
        if event.type == "text_delta":
            text.append(event.text)
        elif isinstance(items, list):
            if data.get(event.type) is not lists.get(event.type):  # an event has put another list there
                lists[event.type] = list(_list(data[event.type]))
            data[event.type] = lists.setdefault(event.type, [])
            data[event.type].extend(items)
        data |= _object(event.body.get("data"))
        message |= {key: event.body[key] for key in ("meta_data", "stop_reason") if event.type == "done" and key in event.body}
    return message | {"content": make_whole("".join(text))} | ({"data": data} if data else {})


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
