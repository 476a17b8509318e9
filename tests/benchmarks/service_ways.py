"""A turn of a session service in dcaf's words, and the names of the rows; other libraries have their words in ``service_peers``.

A turn shows a model the newest 50 messages, and writes four (what a user says, a call of a tool, its result, the answer) and two
keys of the state.

What a reader gets wrong: this module runs in two environments, that of the tests and that of the other libraries. So it imports
what both have.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol

from dcaf.engines import Engine
from dcaf.engines.sqlite.connection import Connection
from dcaf.engines.sqlite.engine import SqliteEngine
from dcaf.engines.sqlite.worker import Job
from dcaf.service import SessionService

SQLITE: Final = "SQLite"
POSTGRES: Final = "PostgreSQL"
REDIS: Final = "Redis"

DCAF: Final = "dcaf"
AGENTS_SQLITE: Final = "openai-agents SQLiteSession"
AGENTS_SQLALCHEMY: Final = "openai-agents SQLAlchemySession"
AGENTS_REDIS: Final = "openai-agents RedisSession"
ADK_SQLITE: Final = "google-adk SqliteSessionService"
ADK_DATABASE: Final = "google-adk DatabaseSessionService"
IN_ONE: Final = ", all four in one call"
IN_WAL: Final = ", its file in WAL mode"
"""What follows the name of a library that is not used as its own runner uses it, or as it ships."""

APP: Final = "benchmark"
LAST: Final = 50
"""So many of the newest messages are read in a turn."""

SAID: Final = "When can I come to see the doctor? I have a cough, and Tuesday or Thursday in the afternoon would suit me best."
TOOL: Final = "find_slot"
ARGUMENTS: Final = '{"doctor":"Meier","days":["Tuesday","Thursday"],"from":"13:00","until":"17:30","minutes":20}'
FOUND: Final = (
    '{"slots":[{"day":"Tuesday","at":"14:00","room":"4"},{"day":"Tuesday","at":"16:20","room":"2"},'
    '{"day":"Thursday","at":"15:00","room":"4"}]}'
)
ANSWER: Final = (
    "Doctor Meier has time for you on Tuesday at 2 pm or at 4.20 pm, and on Thursday at 3 pm. Which of the three suits you? Please "
    "bring the card of your insurance with you."
)
CALL: Final = {"id": "c1", "type": "function", "function": {"name": TOOL, "arguments": ARGUMENTS}}
MESSAGES: Final[tuple[dict[str, Any], ...]] = (
    {"role": "user", "content": SAID},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": FOUND, "tool_call_id": "c1"},
    {"role": "assistant", "content": ANSWER},
)
"""Those of a turn, in dcaf's shape."""

BEGINNING: Final[dict[str, Any]] = {"step": 0, "slot": None}
"""The state of a new session."""

FILLED_AT_ONCE: Final = 1_000


class Conversation(Protocol):
    """One session of a library."""

    def turn(self) -> Awaitable[object]:
        """One turn."""

    def append(self) -> Awaitable[object]:
        """Add one message, without a turn around it."""

    def read(self) -> Awaitable[list[Any]]:
        """Read the newest messages, as a turn does."""


class Library(Protocol):
    """A library that keeps sessions."""

    async def begin(self, number: int, messages: int, last: int = LAST) -> Conversation:
        """Make a session.

        Args:
            number: Its id and its user follow from it.
            messages: How many it has already.
            last: How many of the newest a turn reads.
        """

    async def ask(self) -> str:
        """What its own connection says of its durability."""

    async def aclose(self) -> None:
        """Close its connections."""


def state_of(step: int) -> dict[str, Any]:
    """The two keys that a turn writes."""
    return {"step": step, "slot": {"day": "Tuesday", "at": f"14:{step % 60:02}", "room": "4"}}


def find_message(at: int, number: int) -> dict[str, Any]:
    """One of so many messages of a history that ends with a whole turn."""
    first = number % len(MESSAGES)
    return MESSAGES[0 if at < first else (at - first) % len(MESSAGES)]


def name_user(number: int) -> str:
    """The user of a session."""
    return f"user-{number}"


def name_session(number: int) -> str:
    """The id of a session."""
    return f"session-{number}"


class DcafConversation:
    """A session of dcaf's service, as ``Conversation``.

    Args:
        service: The service.
        number: Its id and its user follow from it.
        last: How many of its newest messages a turn reads.
    """

    def __init__(self, service: SessionService, number: int, last: int = LAST) -> None:
        self._service = service
        self._user = name_user(number)
        self._id = name_session(number)
        self._last = last
        self._step = 0

    async def turn(self) -> None:
        self._step += 1
        async with self._service.open(user=self._user, id=self._id, last=self._last) as session:
            [message.to_dict() for message in session.messages]
            session.messages.add("user", SAID)
            session.messages.add("assistant", tool_calls=[CALL])
            session.update(state_of(self._step))
            session.messages.add("tool", FOUND, tool_call_id="c1")
            session.messages.add("assistant", ANSWER)

    async def append(self) -> None:
        await self._service.append(user=self._user, id=self._id, messages=MESSAGES[:1])

    async def read(self) -> list[Any]:
        page = await self._service.messages(user=self._user, id=self._id, limit=self._last)
        return [message.to_dict() for message in page.items]


class Dcaf:
    """dcaf's service over an engine, as ``Library``.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.service: SessionService = SessionService(engine, app=APP)

    async def begin(self, number: int, messages: int, last: int = LAST) -> DcafConversation:
        user, session = name_user(number), name_session(number)
        await self.service.create(user=user, id=session, state=BEGINNING)
        for first in range(0, messages, FILLED_AT_ONCE):
            some = [find_message(at, messages) for at in range(first, min(first + FILLED_AT_ONCE, messages))]
            await self.service.append(user=user, id=session, messages=some)
        return DcafConversation(self.service, number, last)

    async def ask(self) -> str:
        engine = self.service.engine
        if isinstance(engine, SqliteEngine):
            return await ask_writer(engine)
        details = (await engine.check()).details
        if "appendonly" in details:
            return describe_redis(details["appendonly"], details["appendfsync"])
        return f"synchronous_commit {details['synchronous_commit']}"

    async def aclose(self) -> None:
        await self.service.aclose()


async def ask_writer(engine: SqliteEngine) -> str:
    """What the connection that writes says when it has begun what is to be durable."""

    def look(connection: Connection, _: int) -> str:
        return describe_sqlite(connection.get_pragma("journal_mode"), connection.get_pragma("synchronous"))

    told: str = await engine._calls._writer.wait_async(Job(look, writes=False, durable=True))
    return told


def describe_sqlite(journal: Any, synchronous: Any) -> str:
    """What a connection to SQLite says of its durability."""
    return f"journal {journal}, synchronous {('OFF', 'NORMAL', 'FULL', 'EXTRA')[synchronous]}"


def describe_redis(appendonly: str, appendfsync: str) -> str:
    """What a Redis says of its durability."""
    return f"appendonly {appendonly}, appendfsync {appendfsync}"
