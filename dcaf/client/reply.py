"""What comes back: the events of a stream, one by one, and the answer that they amount to.

>>> pieces = [Event({"type": "text_delta", "text": "Hel"}), Event({"type": "text_delta", "text": "lo"}), Event({"type": "done"})]
>>> Reply(gathered(pieces)).text
'Hello'
>>> Event({"type": "done", "data": {"session": {"step": 2}}})
Event('done')

What a reader gets wrong: a streamed turn has a reply, too, the same as if it had been answered at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dcaf.client.approvals import Approval, approvals_in
from dcaf.client.arguments import check, make_whole, refuse
from dcaf.client.envelopes import session_in


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """One event of a stream or a WebSocket.

    Attributes:
        body: All of it. The types of this protocol are ``text_delta``, ``intermittent_update``, ``tool_calls``,
            ``executed_tool_calls``, ``approvals``, ``executed_approvals``, ``session`` and ``done``; there may be others.

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

    Raises:
        ConfigurationError: The body is no mapping, or the code no text.
    """

    body: Mapping[str, Any] = field(default_factory=dict)
    restarted: str | None = None

    def __post_init__(self) -> None:
        check("body", self.body, Mapping, "a mapping")
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
        return {key: item for key, item in (session_in(self.body) or {}).items() if key != "dcaf"}

    @property
    def approvals(self) -> list[Approval]:
        """What the agent asks to be allowed to do, in its order; what waited before this turn and still does is among it."""
        return approvals_in(self.data.get("approvals"))

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


def gathered(events: Iterable[Event]) -> dict[str, Any]:
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
