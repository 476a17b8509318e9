"""What an agent wants to do and waits for a person's word, and that word.

>>> asked = Approval.read({"id": "ap-31", "type": "tool_call", "name": "drop_volume", "input": {"volume": "pg"}, "execute": False})
>>> asked
Approval(id='ap-31', name='drop_volume')
>>> decided({"ap-31": asked}, {"ap-31": "Not during trading hours"})[0]["rejection_reason"]
'Not during trading hours'

What a reader gets wrong: a refusal is its reason. ``False`` would be a refusal that the agent cannot explain to anyone, so
there is no such decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

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
    """

    id: str
    name: str
    input: Any = field(repr=False)
    description: str = field(repr=False)
    intent: str = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> Approval:
        """An item of ``data.approvals``; what it lacks is empty."""
        name, description, intent = (str(item.get(key) or "") for key in ("name", "description", "intent"))
        return cls(str(item["id"]), name, item.get("input"), description, intent, item)


def approvals_in(items: Any) -> list[Approval]:
    """The approvals of a list, but for items that nobody could decide about: no object, or no id."""
    found = items if isinstance(items, list) else []
    return [Approval.read(item) for item in found if isinstance(item, Mapping) and isinstance(item.get("id"), str)]


def decided(waiting: Mapping[str, Approval], decisions: Mapping[str, Decision]) -> list[dict[str, Any]]:
    """The items that carry decisions back.

    Args:
        waiting: What may be decided about, by id.
        decisions: By id. What is left out stays undecided.

    Raises:
        ApprovalUnknown: An id is not waiting, or a refusal gives no reason.
    """
    return [_item(waiting, id_, decision) for id_, decision in decisions.items()]


def left(waiting: Mapping[str, Approval], decisions: Iterable[str], new: Iterable[Approval]) -> dict[str, Approval]:
    """What waits after a turn: what waited and was not decided, and what the turn asked for."""
    gone = set(decisions)
    return {id_: one for id_, one in waiting.items() if id_ not in gone} | {one.id: one for one in new}


def _item(waiting: Mapping[str, Approval], id_: str, decision: object) -> dict[str, Any]:
    if id_ not in waiting:
        known = ", ".join(waiting) or "none"
        raise ApprovalUnknown(f"No approval {id_!r} waits for a decision. Waiting: {known}. Decide about one of reply.approvals.")
    if decision is True:
        return {**waiting[id_].body, "execute": True, "rejection_reason": None}
    if not isinstance(decision, str) or not decision:
        raise ApprovalUnknown(
            f"The decision about {id_!r} is neither True nor a reason. To refuse, write why: {{{id_!r}: 'reason'}}."
        )
    return {**waiting[id_].body, "execute": False, "rejection_reason": decision}
