"""The related systems that can be installed, each by its own public calls: imported in an environment of their own.

What a reader gets wrong: a call that a system does not have is not made up for it. Where it has one that does nearly the same,
that is called.
"""

from __future__ import annotations

import base64
import json
from abc import abstractmethod
from itertools import count
from pathlib import Path
from typing import Any

from tests.related.related_systems import CLINIC, Event, FileVersion, Missing, Seen, System, read_chat

IMAGE = "data:image/png;base64,"
A_MINUTE_S = 60


class Installed(System):
    """A related system over a folder of its own.

    Args:
        folder: Where it keeps its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def add(self, user: str, id: str, messages: list[dict[str, Any]], *, app: str = CLINIC) -> int:
        """A session is read, and then written: it has no other call."""
        found = await self.get(user, id, app=app)
        if found is None:
            raise Missing
        await self.append(found, *(read_chat(message) for message in messages))
        return len(messages)


class AdkService(Installed):
    """One of google-adk's session services; its events are those of google-adk, and so is its ``Runner``, which rewinds."""

    package = "google-adk"

    def __init__(self, folder: Path) -> None:
        from google.adk.errors import StaleSessionError
        from google.adk.errors.already_exists_error import AlreadyExistsError
        from google.adk.errors.session_not_found_error import SessionNotFoundError

        super().__init__(folder)
        self.taken, self.stale, self.unknown = (AlreadyExistsError,), (StaleSessionError,), (SessionNotFoundError, Missing)
        self._service = self.make()
        self._files = self.make_files()
        self._numbers = count(1)
        self._later_s = 0

    taken: tuple[type[Exception], ...]  # type: ignore[misc]
    stale: tuple[type[Exception], ...]  # type: ignore[misc]
    unknown: tuple[type[Exception], ...]  # type: ignore[misc]

    @abstractmethod
    def make(self) -> Any:
        """The service."""

    def make_files(self) -> Any:
        """The artifact service."""
        from google.adk.artifacts import FileArtifactService

        return FileArtifactService(self.folder / "files")

    async def wait(self) -> None:
        self._later_s += A_MINUTE_S

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
        from google.genai import types

        part = types.Part.from_bytes(data=data, mime_type=mime)
        saved: int = await self._files.save_artifact(
            app_name=app, user_id=user, session_id=id, filename=name, artifact=part, custom_metadata=metadata
        )
        return saved

    async def load_file(
        self, user: str, id: str | None, name: str, *, version: int | None = None, app: str = CLINIC
    ) -> tuple[bytes, str | None] | None:
        found = await self._files.load_artifact(app_name=app, user_id=user, session_id=id, filename=name, version=version)
        return None if found is None else (found.inline_data.data, found.inline_data.mime_type)

    async def list_files(self, user: str, id: str) -> list[str]:
        found: list[str] = await self._files.list_artifact_keys(app_name=CLINIC, user_id=user, session_id=id)
        return found

    async def list_file_versions(self, user: str, id: str, name: str) -> list[FileVersion]:
        found = await self._files.list_artifact_versions(app_name=CLINIC, user_id=user, session_id=id, filename=name)
        return [FileVersion(one.version, one.mime_type, one.custom_metadata, one.create_time) for one in found]

    async def delete_file(self, user: str, id: str, name: str) -> None:
        await self._files.delete_artifact(app_name=CLINIC, user_id=user, session_id=id, filename=name)

    async def create(
        self,
        user: str = "ann",
        id: str | None = None,
        *,
        state: dict[str, Any] | None = None,
        app: str = CLINIC,
        metadata: dict[str, Any] | None = None,
    ) -> Seen:
        if metadata is not None:
            self._refuse()
        return _see_adk(await self._service.create_session(app_name=app, user_id=user, state=state, session_id=id))

    async def get(
        self, user: str, id: str, *, app: str = CLINIC, last: int | None = None, since: float | None = None
    ) -> Seen | None:
        from google.adk.sessions.base_session_service import GetSessionConfig

        config = GetSessionConfig(num_recent_events=last, after_timestamp=since)
        found = await self._service.get_session(app_name=app, user_id=user, session_id=id, config=config)
        return None if found is None else _see_adk(found)

    async def get_or_create(self, user: str, id: str | None = None) -> Seen:
        found = None if id is None else await self.get(user, id)
        return await self.create(user, id) if found is None else found

    async def append(self, seen: Seen, *events: Event) -> None:
        for event in events:
            await self._service.append_event(seen.held, self._write(event))
        seen.state = dict(seen.held.state)

    async def break_off(self, seen: Seen, event: Event) -> None:
        written = self._write(event)
        written.partial = True
        await self._service.append_event(seen.held, written)

    async def list_sessions(self, user: str, *, app: str = CLINIC) -> list[Seen]:
        return [_see_adk(found) for found in (await self._service.list_sessions(app_name=app, user_id=user)).sessions]

    async def list_all(self, *, app: str = CLINIC) -> list[Seen]:
        return [_see_adk(found) for found in (await self._service.list_sessions(app_name=app)).sessions]

    async def delete(self, user: str, id: str, *, app: str = CLINIC) -> bool:
        was_there = await self.get(user, id, app=app) is not None  # theirs returns nothing
        await self._service.delete_session(app_name=app, user_id=user, session_id=id)
        return was_there

    async def rewind(self, seen: Seen, to: int) -> None:
        from google.adk.agents import Agent
        from google.adk.runners import Runner

        runner = Runner(app_name=CLINIC, agent=Agent(name="helper"), session_service=self._service)
        before = _find_timeline(seen.held)[to].invocation_id
        await runner.rewind_async(user_id=seen.user, session_id=seen.id, rewind_before_invocation_id=before)

    async def user_state(self, user: str, *, app: str = CLINIC) -> dict[str, Any]:
        found: dict[str, Any] = await self._service.get_user_state(app_name=app, user_id=user)
        return found

    def make_state(self, value: dict[str, Any], delta: dict[str, Any]) -> Any:
        from google.adk.sessions import State

        return State(value, delta)

    async def page(self, user: str, id: str, *, limit: int, offset: int = 0) -> tuple[list[Event], int]:
        found = await self.get(user, id)  # it has no pages: a session is read whole
        assert found is not None
        return found.events[offset : offset + limit], len(found.events)

    def _write(self, event: Event) -> Any:
        from google.adk.events import Event as AdkEvent
        from google.adk.events import EventActions
        from google.genai import types

        parts = [] if event.text is None or event.answers else [types.Part(text=event.text)]
        if event.data is not None:
            parts.append(types.Part(inline_data=types.Blob(data=event.data, mime_type="image/png")))
        if event.call is not None:
            call_id, name, arguments = event.call
            parts.append(types.Part(function_call=types.FunctionCall(id=call_id, name=name, args=json.loads(arguments))))
        if event.answers is not None:
            answer = types.FunctionResponse(id=event.answers, name="tool", response={"result": event.text})
            parts.append(types.Part(function_response=answer))
        written = AdkEvent(
            invocation_id=f"turn-{next(self._numbers)}",
            author=event.role,
            content=types.Content(parts=parts, role="user" if event.role == "user" else "model"),
            actions=EventActions(state_delta=dict(event.state)),
            custom_metadata=event.metadata or None,
        )
        written.timestamp = written.timestamp + self._later_s if event.at is None else event.at
        return written


class AdkInMemory(AdkService):
    title = "google-adk {}, InMemory"

    def make(self) -> Any:
        from google.adk.sessions import InMemorySessionService

        return InMemorySessionService()

    def make_files(self) -> Any:
        from google.adk.artifacts import InMemoryArtifactService

        return InMemoryArtifactService()


class AdkDatabase(AdkService):
    title = "google-adk {}, Database on SQLite"

    def make(self) -> Any:
        from google.adk.sessions import DatabaseSessionService

        return DatabaseSessionService(f"sqlite+aiosqlite:///{self.folder / 'database.db'}")

    async def restart(self) -> None:
        await self.aclose()
        self._service = self.make()

    async def aclose(self) -> None:
        await self._service.db_engine.dispose()


class AdkSqlite(AdkService):
    title = "google-adk {}, Sqlite"

    def make(self) -> Any:
        from google.adk.sessions.sqlite_session_service import SqliteSessionService

        return SqliteSessionService(str(self.folder / "sqlite.db"))

    async def restart(self) -> None:
        self._service = self.make()


class AgentsSqlite(Installed):
    """A session of openai-agents is a list of items under an id. It has no users, no state and no list of sessions."""

    title = "openai-agents {}, SQLiteSession"
    package = "openai-agents"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._open: list[Any] = []
        self._made: set[str] = set()

    async def aclose(self) -> None:
        for session in self._open:
            session.close()
        self._open.clear()

    restart = aclose

    async def create(
        self,
        user: str = "ann",
        id: str | None = None,
        *,
        state: dict[str, Any] | None = None,
        app: str = CLINIC,
        metadata: dict[str, Any] | None = None,
    ) -> Seen:
        if id is None or user != "ann" or app != CLINIC or state or metadata:
            self._refuse()
        self._made.add(id)
        return Seen(id, user, {}, [], self._session(id))

    async def get(
        self, user: str, id: str, *, app: str = CLINIC, last: int | None = None, since: float | None = None
    ) -> Seen | None:
        if user != "ann" or app != CLINIC or since is not None:
            self._refuse()
        session = self._session(id)
        items = await session.get_items(limit=last)
        if not items and id not in self._made:  # an empty session is as good as none
            return None
        return Seen(id, user, {}, [_see_item(item) for item in items], session)

    async def get_or_create(self, user: str, id: str | None = None) -> Seen:
        if id is None:
            self._refuse()
        found = await self.get(user, id)
        return await self.create(user, id) if found is None else found

    async def append(self, seen: Seen, *events: Event) -> None:
        if any(event.state or event.at or event.metadata for event in events):
            self._refuse()
        await seen.held.add_items([_write_item(event) for event in events])
        seen.events += events

    async def add(self, user: str, id: str, messages: list[dict[str, Any]], *, app: str = CLINIC) -> int:
        if user != "ann" or app != CLINIC:
            self._refuse()
        await self._session(id).add_items(messages)
        return len(messages)

    async def page(self, user: str, id: str, *, limit: int, offset: int = 0) -> tuple[list[Event], int]:
        found = await self.get_or_create(user, id)  # it has no pages but the newest
        return found.events[offset : offset + limit], len(found.events)

    async def delete(self, user: str, id: str, *, app: str = CLINIC) -> bool:
        if user != "ann" or app != CLINIC:
            self._refuse()
        session = self._session(id)
        was_there = bool(await session.get_items(limit=1))
        await session.clear_session()
        self._made.discard(id)
        return was_there

    async def rewind(self, seen: Seen, to: int) -> None:
        for _ in range(len(seen.events) - to):
            await seen.held.pop_item()

    def _session(self, id: str) -> Any:
        from agents import SQLiteSession

        session = SQLiteSession(id, self.folder / "agents.db")
        self._open.append(session)
        return session


class OpenStackAI(Installed):
    """PYAI's sessions, under the newer name of the package. A session is saved whole; its state is called ``context``."""

    package = "openstackai"
    unknown = (Missing,)
    saves_once = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._manager = self.make()

    @abstractmethod
    def make(self) -> Any:
        """The manager."""

    async def create(
        self,
        user: str = "ann",
        id: str | None = None,
        *,
        state: dict[str, Any] | None = None,
        app: str = CLINIC,
        metadata: dict[str, Any] | None = None,
    ) -> Seen:
        if app != CLINIC:
            self._refuse()
        return _see_stack(self._manager.create(session_id=id, user_id=user, context=state or {}, metadata=metadata or {}))

    async def get(
        self, user: str, id: str, *, app: str = CLINIC, last: int | None = None, since: float | None = None
    ) -> Seen | None:
        if app != CLINIC or since is not None:
            self._refuse()
        found = self._manager.get(id)  # it asks for no user
        if found is None:
            return None
        seen = _see_stack(found)
        seen.events = [_see_said(message) for message in found.get_messages(last_n=last)]
        return seen

    async def get_or_create(self, user: str, id: str | None = None) -> Seen:
        if id is None:
            return await self.create(user)
        return _see_stack(self._manager.get_or_create(id, user_id=user))

    async def append(self, seen: Seen, *events: Event) -> None:
        if any(event.data for event in events):
            self._refuse()
        for event in events:
            seen.held.context.update(event.state)
            _say(seen.held, event)
        seen.state = dict(seen.held.context)
        self._manager.save(seen.held)

    async def break_off(self, seen: Seen, event: Event) -> None:
        _say(seen.held, event)  # and it is not saved

    async def list_sessions(self, user: str, *, app: str = CLINIC) -> list[Seen]:
        if app != CLINIC:
            self._refuse()
        return [_see_stack(found) for found in reversed(self._manager.list(user_id=user))]

    async def list_all(self, *, app: str = CLINIC) -> list[Seen]:
        return [_see_stack(found) for found in self._manager.list()]

    async def delete(self, user: str, id: str, *, app: str = CLINIC) -> bool:
        if app != CLINIC:
            self._refuse()
        return bool(self._manager.delete(id))

    async def rewind(self, seen: Seen, to: int) -> None:
        seen.held.rewind_n_messages(len(seen.events) - to)
        self._manager.save(seen.held)

    async def rewind_before(self, seen: Seen, event: Event) -> None:
        seen.held.rewind(event.number)
        self._manager.save(seen.held)

    async def checkpoint(self, seen: Seen, name: str) -> None:
        seen.held.checkpoint(name)
        self._manager.save(seen.held)

    async def rewind_to(self, seen: Seen, name: str) -> None:
        seen.held.rewind_to_checkpoint_by_name(name)
        self._manager.save(seen.held)

    async def page(self, user: str, id: str, *, limit: int, offset: int = 0) -> tuple[list[Event], int]:
        found = self._manager.get(id)
        return [_see_said(message) for message in found.messages[offset : offset + limit]], found.message_count

    def with_own_store(self, log: list[str]) -> System:
        found = type(self)(self.folder)
        found._manager = _manage_own_store(log)
        return found

    async def clear(self, user: str) -> int:
        number = self._manager.store.count  # the store clears what all users have
        self._manager.store.clear()
        return int(number)


class OpenStackAIMemory(OpenStackAI):
    title = "openstackai {}, Memory"

    def make(self) -> Any:
        from openstackai.sessions import MemorySessionStore, SessionManager

        return SessionManager(store=MemorySessionStore())


class OpenStackAISqlite(OpenStackAI):
    title = "openstackai {}, SQLite"

    def make(self) -> Any:
        from openstackai.sessions import SessionManager, SQLiteSessionStore

        return SessionManager(store=SQLiteSessionStore(db_path=str(self.folder / "stack.db")))

    async def restart(self) -> None:
        self._manager = self.make()


INSTALLED: tuple[type[Installed], ...] = (
    AdkInMemory,
    AdkDatabase,
    AdkSqlite,
    AgentsSqlite,
    OpenStackAIMemory,
    OpenStackAISqlite,
)


def _manage_own_store(log: list[str]) -> Any:
    from openstackai.sessions import SessionManager
    from openstackai.sessions.base import BaseSessionStore

    class OwnStore(BaseSessionStore):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kept: dict[str, str] = {}

        def save(self, session: Any) -> None:
            log.append("save")
            self.kept[session.id] = session.to_json()

        def load(self, session_id: str) -> Any:
            from openstackai.sessions import Session

            return Session.from_json(self.kept[session_id]) if session_id in self.kept else None

        def delete(self, session_id: str) -> bool:
            return self.kept.pop(session_id, None) is not None

        def list_sessions(self, user_id: str | None = None, agent_id: str | None = None, limit: int = 100) -> list[Any]:
            found = [self.load(kept) for kept in self.kept]
            return [session for session in found if user_id in (None, session.user_id)][:limit]

    return SessionManager(store=OwnStore())


def _see_adk(session: Any) -> Seen:
    events = [_see_event(event) for event in _find_timeline(session)]
    return Seen(session.id, session.user_id, dict(session.state), events, session, updated_at=session.last_update_time)


def _find_timeline(session: Any) -> list[Any]:
    """Its events as the runner shows them: a rewind is an event that hides those from the one that it names on."""
    found: list[Any] = []
    for event in session.events:
        if (before := event.actions.rewind_before_invocation_id) is None:
            found.append(event)
        else:
            del found[[kept.invocation_id for kept in found].index(before) :]
    return found


def _see_event(event: Any) -> Event:
    found = Event(None, event.author, at=event.timestamp, metadata=event.custom_metadata or {}, number=event.id)
    for part in event.content.parts or []:
        if part.text is not None:
            found.text = part.text
        if part.inline_data is not None:
            found.data = part.inline_data.data
        if part.function_call is not None:
            call = part.function_call
            found.call = (call.id, call.name, json.dumps(call.args))
        if part.function_response is not None:
            found.answers, found.text = part.function_response.id, part.function_response.response["result"]
    return found


def _write_item(event: Event) -> dict[str, Any]:
    if event.call is not None:
        call_id, name, arguments = event.call
        return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    if event.answers is not None:
        return {"type": "function_call_output", "call_id": event.answers, "output": event.text}
    if event.data is not None:
        image = {"type": "input_image", "image_url": IMAGE + base64.b64encode(event.data).decode(), "detail": "auto"}
        return {"role": event.role, "content": [{"type": "input_text", "text": event.text}, image]}
    return {"role": event.role, "content": event.text}


def _see_item(item: dict[str, Any]) -> Event:
    if item.get("type") == "function_call":
        return Event(None, "assistant", call=(item["call_id"], item["name"], item["arguments"]))
    if item.get("type") == "function_call_output":
        return Event(item["output"], "tool", answers=item["call_id"])
    content = item.get("content")
    if isinstance(content, list):
        data = base64.b64decode(content[1]["image_url"].removeprefix(IMAGE))
        return Event(content[0]["text"], item["role"], data=data)
    call = None
    if item.get("tool_calls"):
        found = item["tool_calls"][0]
        call = (found["id"], found["function"]["name"], found["function"]["arguments"])
    return Event(content, item["role"], call=call, answers=item.get("tool_call_id"))


def _say(session: Any, event: Event) -> None:
    calls = None
    if event.call is not None:
        call_id, name, arguments = event.call
        calls = [{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}]
    further: dict[str, Any] = {"metadata": dict(event.metadata), "tool_calls": calls, "tool_call_id": event.answers}
    if event.at is not None:
        from datetime import UTC, datetime

        further["timestamp"] = datetime.fromtimestamp(event.at, UTC)
    session.add_message(event.role, event.text, **further)


def _see_said(message: Any) -> Event:
    call = None
    if message.tool_calls:
        found = message.tool_calls[0]
        call = (found["id"], found["function"]["name"], found["function"]["arguments"])
    return Event(
        message.content,
        message.role,
        at=message.timestamp.timestamp(),
        call=call,
        answers=message.tool_call_id,
        metadata=message.metadata,
        number=message.id,
    )


def _see_stack(session: Any) -> Seen:
    return Seen(
        session.id,
        session.user_id,
        dict(session.context),
        [_see_said(message) for message in session.messages],
        session,
        dict(session.metadata),
        session.created_at.timestamp(),
        session.updated_at.timestamp(),
    )
