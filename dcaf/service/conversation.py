"""The history of the session of a turn, for the code of the turn and for tools: ``session.messages``, ``messages: Messages``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Self

from dcaf.core.errors import ConfigurationError
from dcaf.core.journal import Injected
from dcaf.core.mapping import state_of
from dcaf.core.session import Session, require_session
from dcaf.core.state import State
from dcaf.service import windows
from dcaf.service.history import HistoryPage, read_history
from dcaf.service.journal import MOST_BYTES, TurnJournal
from dcaf.service.kept import require_moment
from dcaf.service.messages import Message
from dcaf.service.places import Place
from dcaf.service.plans import Plan, run, run_async
from dcaf.service.search import FoundMessage, search_session
from dcaf.service.tables import Owner


class Messages(Injected):
    """The history of the session of a turn: those of the newest messages that were read, and what the turn adds.

    To go through it gives just these, oldest first; ``total`` counts all. A tool gets it by a parameter: ``messages: Messages``.
    What a tool adds is dropped where the tool fails.

    Args:
        state: Of the session.

    Raises:
        ConfigurationError: No session service keeps the session.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        journal_of(state)

    @classmethod
    def is_for(cls, session: Session) -> bool:
        """Whether a session service keeps the session."""
        return is_kept(session)

    @classmethod
    def of(cls, session: Session) -> Self:
        """The history of a session.

        Raises:
            ConfigurationError: No session service keeps the session.
        """
        return cls(state_of(require_session(session, "of()")))

    def __repr__(self) -> str:
        return f"<Messages, {self.total} of them>"

    def __iter__(self) -> Iterator[Message]:
        return self._journal.list_messages()

    @property
    def _journal(self) -> TurnJournal:
        """That of the turn that goes on now: on a socket each frame has one of its own."""
        return journal_of(self._state)

    @property
    def total(self) -> int:
        """How many there are, those of this turn included."""
        return self._journal.total

    def add(self, message: Message | Mapping[str, Any] | str, content: Any = None, **members: Any) -> Message:
        """Add a message, which is written with the turn: ``add("user", "Hello!")``, or a whole one.

        Args:
            message: A role; or a message, as ``Message.of`` takes it, alone.
            content: What it says.
            members: The other members of a message: ``tool_calls``, ``tool_call_id``, ``name``, ``metadata``, ``at``.

        Raises:
            ConfigurationError: It is no message, or the result of a tool that answers no open call.
            SessionValueError: A value may not be stored.
            SessionClosedError: The turn is over.
        """
        given: Any = {"role": message, "content": content, **members} if isinstance(message, str) else message
        found = Message.of(given, limit_bytes=MOST_BYTES)
        with self._state.lock:
            self._state.require_open()
            self._journal.add(found)
        return found

    def window(
        self, *, last: int | None = None, tokens: int | None = None, count: Callable[[Message], int] | None = None
    ) -> list[Message]:
        """What a model is shown: of the messages that were read the newest, never a call without its results.

        Args:
            last: How many at most.
            tokens: How many tokens at most.
            count: Counts the tokens of a message; needed with ``tokens``.

        Raises:
            ConfigurationError: Neither or both are given.
            WindowTooSmallError: Not even the newest ones fit.
        """
        if last is not None and tokens is None:
            self._require_read(last)
            return windows.last(self, last)
        if last is None and tokens is not None and count is not None:
            return windows.tokens(self, tokens, count)
        raise ConfigurationError("window() takes last=, or tokens= with count=, which counts the tokens of a message.")

    def summarize(self, fn: windows.Summarize, *, keep: int) -> list[Message]:
        """The newest of the messages that were read as they are, and one message instead of all that are older.

        Args:
            fn: Gets the older ones, and returns what stands for them: a text, which becomes a message of the user, or a Message.
            keep: How many messages are kept as they are, at most.

        Raises:
            ConfigurationError: The number is less than 1, or the function is async or returns no message.
            WindowTooSmallError: The newest of them belong together, and are more than that.
        """
        return windows.summarize(self, keep, fn)

    def layers(self, *older: windows.Summary | Message | str, keep: int) -> list[Message]:
        """A window in layers: texts as they are, summaries of what is older, and the newest messages as they are.

        Args:
            older: What stands before the newest messages, in this order: a text or a Message as it is, a Summary of the messages
                next to those that come after it.
            keep: How many messages are kept as they are, at most.

        Raises:
            ConfigurationError: As ``summarize``, or something is of a wrong type.
            WindowTooSmallError: As ``summarize``.
        """
        return windows.layers(self, *older, keep=keep)

    @property
    def sync(self) -> SyncMessages:
        """``page`` and ``search`` without ``await``."""
        return SyncMessages(self)

    async def page(
        self, *, limit: int = 50, before: int | None = None, after: int | None = None, since: datetime | None = None
    ) -> HistoryPage:
        """A page of the whole history, oldest first: of what is committed, without what this turn adds.

        Args:
            limit, before, after, since: As of ``SessionService.messages``.

        Raises:
            UnknownSessionError: The session was deleted meanwhile.
            ConfigurationError: An argument is wrong, or several of the last three are given.
            EngineError: The engine failed.
        """
        return await run_async(self._plan_page(limit, before, after, since), self._journal.opened.engine)

    def _plan_page(self, limit: int, before: int | None, after: int | None, since: datetime | None) -> Plan[HistoryPage]:
        since_ms = None if since is None else require_moment("since=", since)
        found = read_history(self._place, limit=limit, before=before, after=after, since_ms=since_ms)
        return found if self._journal.opened.kept.revision else _find_no_page()

    async def search(self, query: str, *, limit: int = 10) -> list[FoundMessage]:
        """Messages of the whole history that have any of some words, the best first.

        What this turn adds is found when it is committed.

        Args:
            query: The words. As of ``SessionService.search``.
            limit: How many messages at most, up to 100.

        Raises:
            UnknownSessionError: The session was deleted meanwhile.
            SessionArchivedError: It was archived meanwhile.
            ConfigurationError: An argument is wrong, or the engine cannot search: Redis cannot.
            EngineError: The engine failed.
        """
        return await run_async(self._plan_search(query, limit), self._journal.opened.engine)

    def _plan_search(self, query: str, limit: int) -> Plan[list[FoundMessage]]:
        opened = self._journal.opened
        found = search_session(self._place, opened.engine, query, limit, opened.kept.birth)
        return found if opened.kept.revision else _find_nothing()

    @property
    def _place(self) -> Place:
        """Where the session lies."""
        opened = self._journal.opened
        kept, partitions = opened.kept, opened.engine.partitions
        return Place(opened.app, Owner(opened.app, kept.user, kept.id, partitions=partitions), kept.id, partitions)

    def _require_read(self, last: int) -> None:
        read = sum(1 for _ in self)
        if type(last) is int and read < min(last, self.total):
            raise ConfigurationError(
                f"Of the messages of the session, {read} were read: give open(last=) so many as window(last=)."
            )


class SyncMessages:
    """Pages and the search of a history for code that runs on no event loop. They block.

    Args:
        messages: The history.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def page(
        self, *, limit: int = 50, before: int | None = None, after: int | None = None, since: datetime | None = None
    ) -> HistoryPage:
        """As of the history."""
        return run(self._messages._plan_page(limit, before, after, since), self._messages._journal.opened.engine)

    def search(self, query: str, *, limit: int = 10) -> list[FoundMessage]:
        """As of the history."""
        return run(self._messages._plan_search(query, limit), self._messages._journal.opened.engine)


def _find_no_page() -> Plan[HistoryPage]:
    """The history of a session that is not kept yet."""
    yield from ()
    return HistoryPage([], 0)


def _find_nothing() -> Plan[list[FoundMessage]]:
    """What a search finds in a session that is not kept yet."""
    yield from ()
    return []


def is_kept(session: Session) -> bool:
    """Whether a session service keeps a session."""
    return isinstance(state_of(require_session(session, "is_for()")).journal, TurnJournal)


def journal_of(state: State) -> TurnJournal:
    """The journal of the turn, or of the call, that a state is of.

    Raises:
        ConfigurationError: No session service keeps the session.
    """
    if not isinstance(state.journal, TurnJournal):
        raise ConfigurationError(
            "This session has no history and no memory on the server: no session service keeps it. "
            "Open it with SessionService.open(), or give the middleware store=SessionService(...)."
        )
    return state.journal
