"""What happens in `dcaf demo`, as values: a step that begins, a turn that has ended, a check of what was found.

>>> turn = Turn("two", "Noted.", before={"step": 1, "note": "x"}, state={"step": 2, "count": 2}, envelope_bytes=345)
>>> [(entry.key, entry.value, entry.mark) for entry in turn.entries]
[('step', 2, 'changed'), ('count', 2, 'new'), ('note', 'x', 'gone')]

What a reader gets wrong: the marks compare two states that the client saw. They are for display, as the mirror itself is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["turn", "cheat"]
Mark = Literal["", "new", "changed", "gone"]


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

    def _mark(self, key: str) -> Mark:
        if key not in self.before:
            return "new"
        return "" if self.before[key] == self.state[key] else "changed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the closing table."""

    what: str
    expected: str
    found: str

    @property
    def held(self) -> bool:
        """Whether it happened as it must."""
        return self.expected == self.found
