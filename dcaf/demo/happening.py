"""What happens in `dcaf demo`, as values: a step that begins, a turn that has ended, a check of what was found.

>>> turn = Turn("two", "Noted.", before={"step": 1, "note": "x"}, state={"step": 2, "count": 2}, envelope_bytes=345)
>>> [(entry.key, entry.value, entry.mark) for entry in turn.entries]
[('step', 2, 'changed'), ('count', 2, 'new'), ('note', 'x', 'gone')]
>>> turn.outcome
'step 2, count 2, note gone'

What a reader gets wrong: marks and outcome compare two states that the client saw. They are for display, as the mirror itself is; a
check compares the whole state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["turn", "cheat"]
Mark = Literal["", "new", "changed", "gone"]

ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is about to be tried.

    Attributes:
        kind: A turn of the conversation, or an attempt to cheat.
        number: From 1.
        of: How many of this kind there are.
        what: What the user says, or how somebody cheats.
    """

    kind: Kind
    number: int
    of: int
    what: str

    @classmethod
    def each(cls, kind: Kind, whats: Sequence[str]) -> list[Step]:
        """One step for each, numbered."""
        return [cls(kind, number, len(whats), what) for number, what in enumerate(whats, 1)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the state after a turn; of a key that is gone, the value that it had."""

    key: str
    value: Any
    mark: Mark


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that waits for somebody to approve it."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said in one turn, and what came back.

    Attributes:
        said: What the user said.
        text: What the assistant said; None where the answer has no text.
        before: The state that the turn began with.
        state: The state that it left.
        envelope_bytes: Length of ``data.session`` as JSON.
        waiting: The calls that now wait for an approval.
    """

    said: str
    text: str | None
    before: Mapping[str, Any]
    state: Mapping[str, Any]
    envelope_bytes: int
    waiting: Sequence[Waiting] = ()

    @property
    def entries(self) -> list[Entry]:
        """The state key by key, with what this turn did to each; at the end the keys that are gone."""
        there = [Entry(key, value, self._mark(key)) for key, value in self.state.items()]
        return there + [Entry(key, value, "gone") for key, value in self.before.items() if key not in self.state]

    @property
    def outcome(self) -> str:
        """What the turn did, in a line: the changes, what is gone, and what waits."""
        found = list(changes(self.before, self.state))
        gone = ", ".join(path for path, value in found if not value)
        said = [f"{path} {value}" for path, value in found if value]
        said += [f"{gone} gone"] if gone else []
        said += [f"{call.name} waits" for call in self.waiting]
        return ", ".join(said) or "no change"

    def _mark(self, key: str) -> Mark:
        if key not in self.before:
            return "new"
        return "" if self.before[key] == self.state[key] else "changed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the closing table.

    Attributes:
        what: What was tried.
        expected: What had to come, whole.
        found: What came, whole.
        brief: What came, as the table has it; empty where it has all of it.
    """

    what: str
    expected: str
    found: str
    brief: str = ""

    @property
    def held(self) -> bool:
        """Whether it happened as it must."""
        return self.expected == self.found

    @property
    def came(self) -> str:
        """What the table shows."""
        return self.brief or self.found


def changes(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What differs between two states: the path of each change, and the new value as JSON, which is empty where it is gone.

    >>> list(changes({"cart": [{"name": "soup", "quantity": 2}]}, {"cart": [{"name": "soup", "quantity": 3}]}))
    [('cart[0].quantity', '3')]
    """
    if before == after:
        return
    old, new = _members(before), _members(after)
    if not old.keys() & new.keys() and path:
        yield path, json.dumps(after, ensure_ascii=False)
        return
    for step, value in new.items():
        yield from changes(old.get(step, ABSENT), value, f"{path}{step}".lstrip("."))
    yield from ((f"{path}{step}".lstrip("."), "") for step in old if step not in new)


def _members(value: Any) -> dict[str, Any]:
    """What a value is made of, by the last step of each path."""
    if isinstance(value, Mapping):
        return {f".{key}": item for key, item in value.items()}
    return {f"[{number}]": item for number, item in enumerate(value)} if isinstance(value, list) else {}
