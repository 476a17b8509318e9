"""What the related systems are asked in: one small interface, which dcaf's service and theirs are put behind.

A behaviour (``adk_contract``, ``core_contract``, ``pyai_contract``, ``genai_contract``) is a function of a system. It returns where
the system holds it, and says otherwise what the system does. What a system has no call for raises ``NotThere``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, TypeAlias

CLINIC, BANK = "clinic", "bank"
"""Two applications."""


class NotThere(Exception):
    """The system has no such call."""


class Missing(Exception):
    """The system has said that there is no such session, by returning nothing."""


class Otherwise(Exception):
    """The system does something else; the message says what."""


def require(found: object, otherwise: str) -> None:
    """Go on where something is so; else say what happened."""
    if not found:
        raise Otherwise(otherwise)


@contextmanager
def refused(errors: tuple[type[Exception], ...], otherwise: str) -> Iterator[None]:
    """A call that is to be refused with one of these errors. A system that has none of them refuses nothing."""
    try:
        yield
    except errors:
        return
    raise Otherwise(otherwise)


@dataclass
class Event:
    """What is appended to a session.

    Attributes:
        text: What is said; None where tools are called.
        role: Who speaks.
        state: Keys of the state that it changes.
        at: When it was said, in seconds since the epoch; None for now.
        data: A picture that goes with it.
        call: A call of a tool: its id, the tool's name and its arguments as JSON.
        answers: The id of the call that it is the result of.
        metadata: What else is to be known of it.
        number: What the system calls it, where it was read.
    """

    text: str | None = None
    role: str = "user"
    state: dict[str, Any] = field(default_factory=dict)
    at: float | None = None
    data: bytes | None = None
    call: tuple[str, str, str] | None = None
    answers: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    number: Any = None


@dataclass
class Seen:
    """A session as it was read.

    Attributes:
        id, user, state: As they were read.
        events: Oldest first.
        held: What the system itself has given.
        about: Its metadata.
        created_at, updated_at: In seconds since the epoch; None where the system does not say.
        app: The application.
    """

    id: Any
    user: str | None
    state: dict[str, Any]
    events: list[Event]
    held: Any
    about: dict[str, Any] = field(default_factory=dict)
    created_at: float | None = None
    updated_at: float | None = None
    app: str = CLINIC

    @property
    def texts(self) -> list[str | None]:
        return [event.text for event in self.events]


@dataclass
class FileVersion:
    """What is known of a version of an artifact.

    Attributes:
        version, mime, metadata: As they were read.
        created_at: In seconds since the epoch; None where the system does not say.
    """

    version: int
    mime: str | None
    metadata: dict[str, Any]
    created_at: float | None


class System:
    """A system under contract, without sessions.

    Attributes:
        title: What it is called in tables, with a place for its version.
        package: What pip calls it.
        taken, stale, unknown, wrong, closed: The errors with which it refuses an id that is taken, a session that has changed since
            it was read, one that is not there, an argument that is none, and a session that was closed or archived.
        saves_once: Whether its documents save the question of a turn together with the answer, and not before a model is asked.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    taken: ClassVar[tuple[type[Exception], ...]] = ()
    stale: ClassVar[tuple[type[Exception], ...]] = ()
    unknown: ClassVar[tuple[type[Exception], ...]] = ()
    wrong: ClassVar[tuple[type[Exception], ...]] = ()
    closed: ClassVar[tuple[type[Exception], ...]] = ()
    saves_once: ClassVar[bool] = False

    async def aclose(self) -> None:
        """Let go of what it holds."""

    async def restart(self) -> None:
        """Begin anew, over the same rows."""
        self._refuse()

    async def wait(self) -> None:
        """Let so much time pass that lists tell a change before from one after."""

    async def create(
        self,
        user: str = "ann",
        id: str | None = None,
        *,
        state: dict[str, Any] | None = None,
        app: str = CLINIC,
        metadata: dict[str, Any] | None = None,
    ) -> Seen:
        self._refuse()

    async def get(
        self, user: str, id: str, *, app: str = CLINIC, last: int | None = None, since: float | None = None
    ) -> Seen | None:
        """A session with its events: all, the newest so many, or those from a moment on."""
        self._refuse()

    async def open(self, user: str, id: str, *, app: str = CLINIC) -> Seen:
        """A session, by the call that raises where there is none."""
        self._refuse()

    async def get_or_create(self, user: str, id: str | None = None) -> Seen:
        self._refuse()

    async def append(self, seen: Seen, *events: Event) -> None:
        """Append events as the holder of a session that was read, which changes with them. All are one turn."""
        self._refuse()

    async def break_off(self, seen: Seen, event: Event) -> None:
        """Append an event that is only begun."""
        self._refuse()

    async def list_sessions(self, user: str, *, app: str = CLINIC) -> list[Seen]:
        """All sessions of a user, the one that changed last at the end."""
        self._refuse()

    async def list_all(self, *, app: str = CLINIC) -> list[Seen]:
        """All sessions of all users."""
        self._refuse()

    async def delete(self, user: str, id: str, *, app: str = CLINIC) -> bool:
        self._refuse()

    async def rewind(self, seen: Seen, to: int) -> None:
        """Take a session back to what it was when it had so many events, which were appended one by one."""
        self._refuse()

    async def user_state(self, user: str, *, app: str = CLINIC) -> dict[str, Any]:
        """The keys that the sessions of a user share, without ``user:``, asked for without a session."""
        self._refuse()

    async def add(self, user: str, id: str, messages: list[dict[str, Any]], *, app: str = CLINIC) -> int:
        """Add messages in the shape of OpenAI's chat without having read the session; returns a count."""
        self._refuse()

    async def page(self, user: str, id: str, *, limit: int, offset: int = 0) -> tuple[list[Event], int]:
        """Messages from an offset on, oldest first, and how many there are."""
        self._refuse()

    async def remember(self, user: str, key: str, value: object, *, id: str | None = None) -> None:
        """Remember a fact of a user, or of one session."""
        self._refuse()

    async def recall(self, user: str, *, id: str | None = None) -> dict[str, Any]:
        self._refuse()

    async def forget(self, user: str, key: str, *, id: str | None = None) -> bool:
        self._refuse()

    async def forget_all(self, user: str) -> int:
        self._refuse()

    async def clear(self, user: str) -> int:
        """Drop all sessions of a user."""
        self._refuse()

    async def list_events(self, user: str, id: str) -> list[Event]:
        """Everything that has happened to a session, oldest first; a change of its state alone is an event without a text."""
        self._refuse()

    async def close(self, seen: Seen) -> None:
        """Close a session for writing."""
        self._refuse()

    def make_state(self, value: dict[str, Any], delta: dict[str, Any]) -> Any:
        """A state with changes that are pending, by itself."""
        self._refuse()

    def call_without_await(self, user: str, id: str, event: Event) -> Seen:
        """Make a session, append an event, read it and delete it, without ``await``."""
        self._refuse()

    async def call_with_objects(self, user: str, id: str, state: dict[str, Any]) -> tuple[Seen, list[Any]]:
        """Make a session, read it, list the ids of the user's sessions, and delete it: each call takes one object."""
        self._refuse()

    async def window(self, user: str, id: str, *, tokens: int) -> list[Event]:
        """What a model is shown of a session: the newest messages that fit, where each character is a token."""
        self._refuse()

    def with_ttl(self, ttl_s: float) -> System:
        """The same, but its sessions end so many seconds after they have changed last."""
        self._refuse()

    def with_own_store(self, log: list[str]) -> System:
        """The same over a store that its users have written, which logs each call."""
        self._refuse()

    async def archive(self, user: str, id: str) -> None:
        self._refuse()

    async def archive_idle(self, idle_s: float) -> int:
        """Archive all sessions that nobody has changed for so many seconds; returns how many."""
        self._refuse()

    async def checkpoint(self, seen: Seen, name: str) -> None:
        """Give what a session is now a name."""
        self._refuse()

    async def rewind_to(self, seen: Seen, name: str) -> None:
        """Take a session back to what has a name."""
        self._refuse()

    async def rewind_before(self, seen: Seen, event: Event) -> None:
        """Take a session back to what it was before an event that was read."""
        self._refuse()

    async def save_file(
        self,
        user: str,
        id: str | None,
        name: str,
        data: bytes,
        *,
        mime: str = "text/plain",
        metadata: dict[str, Any] | None = None,
        app: str = CLINIC,
    ) -> int:
        """Save a version of an artifact; returns its number."""
        self._refuse()

    async def load_file(
        self, user: str, id: str | None, name: str, *, version: int | None = None, app: str = CLINIC
    ) -> tuple[bytes, str | None] | None:
        """The bytes and the media type of a version, the newest for None; None where there is none."""
        self._refuse()

    async def list_files(self, user: str, id: str) -> list[str]:
        self._refuse()

    async def list_file_versions(self, user: str, id: str, name: str) -> list[FileVersion]:
        """The versions of an artifact, oldest first."""
        self._refuse()

    async def delete_file(self, user: str, id: str, name: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotThere


class Contract:
    """The behaviours that one document or one suite of tests promises.

    Args:
        title: What it is a contract of.
        source: Where it stands.

    Attributes:
        behaviours: Name -> what a system is asked.
    """

    def __init__(self, title: str, source: str) -> None:
        self.title = title
        self.source = source
        self.behaviours: dict[str, Behaviour] = {}

    def promises(self, behaviour: Behaviour) -> Behaviour:
        """Add a behaviour, by its name."""
        self.behaviours[behaviour.__name__] = behaviour
        return behaviour


Behaviour: TypeAlias = Callable[[System], Awaitable[None]]


def read_chat(message: dict[str, Any]) -> Event:
    """A message in the shape of OpenAI's chat."""
    call = None
    for found in message.get("tool_calls") or []:
        call = (found["id"], found["function"]["name"], found["function"]["arguments"])
    return Event(message.get("content"), message["role"], call=call, answers=message.get("tool_call_id"))


async def find(system: System, user: str, id: str, *, app: str = CLINIC) -> Seen:
    """A session that is there."""
    found = await system.get(user, id, app=app)
    require(found is not None, "the session is not found")
    assert found is not None
    return found
