"""dcaf's session service under the related systems' contracts: its public calls, and nothing else."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

from dcaf.core.errors import ConfigurationError, SessionClosedError, SessionExistsError, StaleSessionError, UnknownSessionError
from dcaf.engines import Engine, Outcome, Transaction
from dcaf.service import (
    ArtifactStore,
    CreateSessionRequest,
    DeleteSessionRequest,
    GetSessionRequest,
    Kept,
    KeptSession,
    ListSessionsRequest,
    Message,
    MessageEvent,
    SessionService,
    State,
)
from tests.related.related_systems import CLINIC, Event, FileVersion, Seen, System

PICTURE = "data:image/png;base64,"
MINUTE_S = 60


class Stop(Exception):
    """What breaks a turn off."""


class Later:
    """An engine whose clock can be put forward, for what the service reads of it.

    Args:
        engine: The engine, which does the work.

    Attributes:
        by_ms: By how much it is.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.by_ms = 0
        self.url, self.partitions, self.sync = engine.url, engine.partitions, engine.sync
        self.declare = engine.declare
        self.scan, self.purge, self.check, self.aclose = engine.scan, engine.purge, engine.check, engine.aclose

    async def transact(self, transaction: Transaction) -> Outcome:
        outcome = await self._engine.transact(transaction)
        return outcome._replace(now_ms=outcome.now_ms + self.by_ms)


class Logging(Later):
    """An engine of one's own, which logs each transaction."""

    def __init__(self, engine: Engine, log: list[str]) -> None:
        super().__init__(engine)
        self._log = log

    async def transact(self, transaction: Transaction) -> Outcome:
        self._log.append("transact")
        return await super().transact(transaction)


class DcafService(System):
    """A service with an engine that others may use, too: its applications have names of their own.

    Args:
        engine: Where it keeps its sessions.
        settings: Of the service.
    """

    title = "dcaf {}"
    package = "dcaf"
    saves_once = True
    taken: ClassVar[tuple[type[Exception], ...]] = (SessionExistsError,)
    stale: ClassVar[tuple[type[Exception], ...]] = (StaleSessionError,)
    unknown: ClassVar[tuple[type[Exception], ...]] = (UnknownSessionError,)
    wrong: ClassVar[tuple[type[Exception], ...]] = (ConfigurationError,)
    closed: ClassVar[tuple[type[Exception], ...]] = (SessionClosedError,)

    def __init__(self, engine: Engine, *, name: str | None = None, **settings: Any) -> None:
        self._engine = Later(engine)
        self._name = uuid4().hex if name is None else name
        self._settings = settings
        self._services: dict[str, SessionService] = {}
        self._files = ArtifactStore("memory://")

    def service(self, app: str = CLINIC) -> SessionService:
        if app not in self._services:
            self._services[app] = SessionService(self._engine, app=f"{app}-{self._name}", artifacts=self._files, **self._settings)
        return self._services[app]

    async def aclose(self) -> None:
        """Close the engine, also one that others use."""
        await self._engine.aclose()

    async def restart(self) -> None:
        self._services.clear()

    async def wait(self) -> None:
        self._engine.by_ms += MINUTE_S * 1000

    async def create(
        self,
        user: str = "ann",
        id: str | None = None,
        *,
        state: dict[str, Any] | None = None,
        app: str = CLINIC,
        metadata: dict[str, Any] | None = None,
    ) -> Seen:
        return see(await self.service(app).create(user=user, id=id, state=state, metadata=metadata), [], app)

    async def get(
        self, user: str, id: str, *, app: str = CLINIC, last: int | None = None, since: float | None = None
    ) -> Seen | None:
        session = await self.service(app).get(user=user, id=id)
        if session is None:
            return None
        if last == 0:
            return see(session, [], app)
        if since is not None:
            moment = datetime.fromtimestamp(since, UTC)
            page = await self.service(app).messages(user=user, id=id, limit=1_000, since=moment)
            return see(session, page.items[-(last or 1_000) :], app)
        page = await self.service(app).messages(user=user, id=id, limit=last or 1_000)
        return see(session, page.items, app)

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
        return await self.service(app).artifacts(user=user, id=id).save(name, data, mime=mime, metadata=metadata)

    async def load_file(
        self, user: str, id: str | None, name: str, *, version: int | None = None, app: str = CLINIC
    ) -> tuple[bytes, str | None] | None:
        found = await self.service(app).artifacts(user=user, id=id).load(name, version)
        return None if found is None else (found.data, found.mime)

    async def list_files(self, user: str, id: str) -> list[str]:
        return [found.name for found in (await self.service().artifacts(user=user, id=id).list()).items]

    async def list_file_versions(self, user: str, id: str, name: str) -> list[FileVersion]:
        found = await self.service().artifacts(user=user, id=id).versions(name)
        return [FileVersion(one.version, one.mime, dict(one.metadata), one.created_at.timestamp()) for one in found]

    async def delete_file(self, user: str, id: str, name: str) -> None:
        await self.service().artifacts(user=user, id=id).delete(name)

    async def open(self, user: str, id: str, *, app: str = CLINIC) -> Seen:
        async with self.service(app).open(user=user, id=id) as session:
            return see(session, session.conversation_history, app)

    async def get_or_create(self, user: str, id: str | None = None) -> Seen:
        if id is None:
            return await self.create(user)
        session = await self.service().get_or_create(user=user, id=id)
        return see(session, (await self.service().messages(user=user, id=id)).items)

    async def append(self, seen: Seen, *events: Event) -> None:
        session: KeptSession = seen.held
        for event in events:
            session.messages.add(read_event(event))
            session.update(event.state)
        seen.state = {**session.to_dict(), **{f"temp:{name}": value for name, value in session.temp.items()}}
        await self.service(seen.app).save(session)
        seen.events += events

    async def break_off(self, seen: Seen, event: Event) -> None:
        with suppress(Stop):
            async with self.service().open(user=seen.user, id=seen.id) as session:
                session.messages.add(read_event(event))
                session.update(event.state)
                raise Stop

    async def list_sessions(self, user: str, *, app: str = CLINIC) -> list[Seen]:
        page = await self.service(app).list(user=user, order="oldest", limit=1_000)
        return [see_kept(kept) for kept in page.items]

    async def list_all(self, *, app: str = CLINIC) -> list[Seen]:
        return [see_kept(kept) for kept in (await self.service(app).list_all(limit=1_000)).items]

    async def delete(self, user: str, id: str, *, app: str = CLINIC) -> bool:
        return await self.service(app).delete(user=user, id=id)

    async def rewind(self, seen: Seen, to: int) -> None:
        await self.service(seen.app).rewind(user=seen.user, id=seen.id, to=to)

    async def user_state(self, user: str, *, app: str = CLINIC) -> dict[str, Any]:
        return await self.service(app).get_user_state(user=user)

    async def add(self, user: str, id: str, messages: list[dict[str, Any]], *, app: str = CLINIC) -> int:
        return await self.service(app).append(user=user, id=id, messages=messages)

    async def page(self, user: str, id: str, *, limit: int, offset: int = 0) -> tuple[list[Event], int]:
        page = await self.service().messages(user=user, id=id, limit=limit, after=offset)
        return [see_message(message) for message in page.items], page.total

    async def remember(self, user: str, key: str, value: object, *, id: str | None = None) -> None:
        if id is None:
            await self.service().memory(user=user).set(key, value)
        else:
            async with self.service().open(user=user, id=id) as session:
                session.memory.here.set(key, value)

    async def recall(self, user: str, *, id: str | None = None) -> dict[str, Any]:
        if id is None:
            facts = await self.service().memory(user=user).all()
        else:
            async with self.service().open(user=user, id=id) as session:
                facts = await session.memory.here.all()
        return {fact.key: fact.value for fact in facts}

    async def forget(self, user: str, key: str, *, id: str | None = None) -> bool:
        if id is None:
            return await self.service().memory(user=user).delete(key)
        async with self.service().open(user=user, id=id) as session:
            was_there = await session.memory.here.get(key) is not None
            session.memory.here.delete(key)
        return was_there

    async def forget_all(self, user: str) -> int:
        return await self.service().memory(user=user).clear()

    async def clear(self, user: str) -> int:
        return (await self.service().erase(user=user)).sessions

    async def list_events(self, user: str, id: str) -> list[Event]:
        page = await self.service().list_events(user=user, id=id, limit=1_000)
        return [
            see_message(entry.message) if isinstance(entry, MessageEvent) else Event(state=entry.set, number=entry.number)
            for entry in page.items
        ]

    async def close(self, seen: Seen) -> None:
        await self.service(seen.app).close(user=seen.user, id=seen.id)

    def make_state(self, value: dict[str, Any], delta: dict[str, Any]) -> Any:
        return State(value, delta)

    def call_without_await(self, user: str, id: str, event: Event) -> Seen:
        calls = self.service().sync
        calls.create(user=user, id=id)
        with calls.open(user=user, id=id) as session:
            session.messages.add(read_event(event))
            session.update(event.state)
        found = calls.get(user=user, id=id)
        assert found is not None
        seen = see(found, calls.messages(user=user, id=id).items)
        calls.delete(user=user, id=id)
        return seen

    async def call_with_objects(self, user: str, id: str, state: dict[str, Any]) -> tuple[Seen, list[Any]]:
        service = self.service()
        await service.create(CreateSessionRequest(user=user, id=id, state=state))
        found = await service.get(GetSessionRequest(user=user, id=id))
        assert found is not None
        listed = await service.list(ListSessionsRequest(user=user))
        await service.delete(DeleteSessionRequest(user=user, id=id))
        return see(found, []), [kept.id for kept in listed.items]

    async def window(self, user: str, id: str, *, tokens: int) -> list[Event]:
        async with self.service().open(user=user, id=id) as session:
            found = session.messages.window(tokens=tokens, count=lambda message: len(str(message.content or "")))
        return [see_message(message) for message in found]

    def with_ttl(self, ttl_s: float) -> System:
        return DcafService(self._engine, name=self._name, ttl=timedelta(seconds=ttl_s))

    def with_own_store(self, log: list[str]) -> System:
        return DcafService(Logging(self._engine, log))

    async def archive(self, user: str, id: str) -> None:
        await self.service().archive(user=user, id=id)

    async def archive_idle(self, idle_s: float) -> int:
        return await self.service().archive(idle=timedelta(seconds=idle_s))

    async def checkpoint(self, seen: Seen, name: str) -> None:
        await self.service(seen.app).checkpoint(user=seen.user, id=seen.id, name=name)

    async def rewind_to(self, seen: Seen, name: str) -> None:
        await self.service(seen.app).rewind(user=seen.user, id=seen.id, checkpoint=name)

    async def rewind_before(self, seen: Seen, event: Event) -> None:
        await self.service(seen.app).rewind(user=seen.user, id=seen.id, message=event.number)


def read_event(event: Event) -> Message:
    """An event as a message: a picture is a part of its content, as in OpenAI's chat."""
    content: Any = event.text
    if event.data is not None:
        url = PICTURE + base64.b64encode(event.data).decode()
        content = [{"type": "text", "text": event.text}, {"type": "image_url", "image_url": {"url": url}}]
    calls = []
    if event.call is not None:
        call_id, name, arguments = event.call
        calls = [{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}]
    given: dict[str, Any] = {"role": event.role, "content": content, "tool_calls": calls, "tool_call_id": event.answers}
    at = None if event.at is None else datetime.fromtimestamp(event.at, UTC)
    return Message.of(given | {"metadata": event.metadata or None, "at": at})


def see_message(message: Message) -> Event:
    """A message as an event."""
    text, data = message.content, None
    if isinstance(text, list):
        data = base64.b64decode(text[1]["image_url"]["url"].removeprefix(PICTURE))
        text = text[0]["text"]
    call = None
    if message.tool_calls:
        (found,) = message.tool_calls
        call = (found["id"], found["function"]["name"], found["function"]["arguments"])
    return Event(
        text,
        message.role,
        at=None if message.at is None else message.at.timestamp(),
        data=data,
        call=call,
        answers=message.tool_call_id,
        metadata=message.metadata or {},
        number=message.number,
    )


def see(session: KeptSession, messages: list[Message], app: str = CLINIC) -> Seen:
    return Seen(
        session.id,
        session.user_id,
        dict(session.state),
        [see_message(message) for message in messages],
        session,
        dict(session.metadata),
        session.created_at.timestamp(),
        session.updated_at.timestamp(),
        app,
    )


def see_kept(kept: Kept) -> Seen:
    """What a list says of a session."""
    about = dict(kept.metadata)
    return Seen(kept.id, kept.user, {}, [], kept, about, kept.created_at.timestamp(), kept.updated_at.timestamp())
