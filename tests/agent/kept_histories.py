"""A store that keeps conversations in memory, for agents whose server keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dcaf import Session
from dcaf.core import Lease, OpenRequest, Sealed, StatelessLease, StatelessStore
from dcaf.core.journal import Journal

Kept = list[Mapping[str, Any]]


class MemoryHistory:
    """The journal of a turn, or of a call in it: what was kept before, and what is added."""

    def __init__(self, kept: Kept, below: MemoryHistory | None = None) -> None:
        self.kept = kept
        self.added: Kept = []
        self.frozen = 0
        self._below = below

    @property
    def is_empty(self) -> bool:
        return not self.added

    def begin(self) -> MemoryHistory:
        return MemoryHistory(self.kept, self)

    def check(self, call: Journal) -> None:
        """Everything fits."""

    def freeze(self) -> None:
        self.frozen = len(self.added)

    def take_over(self, before: Journal) -> None:
        assert isinstance(before, MemoryHistory)
        self.added += before.added

    def read_messages(self) -> Kept:
        below = [*self.kept] if self._below is None else self._below.read_messages()
        return [*below, *self.added]

    def add_message(self, message: Mapping[str, Any]) -> None:
        self.added.append(message)

    def commit(self) -> None:
        self.kept += self.added[: self.frozen]
        del self.added[: self.frozen]
        self.frozen = 0


class HistoryLease(StatelessLease):
    """A turn."""

    def __init__(self, request: OpenRequest, kept: Kept) -> None:
        super().__init__(request)
        self.journal = MemoryHistory(kept)

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        await super().commit(sealed, ends_turn=ends_turn)
        self.journal.commit()


class HistoryStore(StatelessStore):
    """Keeps the conversation of each session, and leaves its state in the token.

    Attributes:
        kept: Session id -> its conversation.
    """

    level = "L3"

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}

    async def open(self, request: OpenRequest) -> Lease:
        return HistoryLease(request, self.kept.setdefault(request.session_id, []))

    @property
    def said(self) -> list[tuple[Any, ...]]:
        """The one conversation that has anything in it: role and text, or names of tools that were called."""
        found = [kept for kept in self.kept.values() if kept]
        assert len(found) < 2, "one conversation"
        return [_describe(message) for kept in found for message in kept]


def _describe(message: Mapping[str, Any]) -> tuple[Any, ...]:
    calls = [call["function"]["name"] for call in message.get("tool_calls") or ()]
    return (message["role"], *([message["content"]] if message.get("content") else []), *calls)


@dataclass
class Remembered:
    key: str
    value: Any


class Recollection:
    """What the users of a test remember."""

    kept: ClassVar[dict[str, Any]] = {}

    @classmethod
    def of(cls, _: Session) -> Recollection:
        return cls()

    async def all(self) -> list[Remembered]:
        return [Remembered(*item) for item in self.kept.items()]
