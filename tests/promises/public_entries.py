"""A right call of everything public: what to call, with which arguments, and what to do with what comes of it.

A public callable without a line here fails the promise. A line has the arguments by name; the promise changes them one at a time.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dcaf import Key, Keyring, ReadOnlySession, Session, SessionMiddleware, current_session, tool
from dcaf.agent import Agent, AgentError, AgentResponse, AgentResult, ChatRequest, Data, ProposedCall, create_app
from dcaf.asgi import Import
from dcaf.client import Approval, AsyncClient, Client, Conversation, Turn
from dcaf.core import OpenRequest, Payload, SessionHost, StatelessStore
from dcaf.core.claims import Binding, Claims
from dcaf.core.context import running
from dcaf.core.store import StoreSettings
from dcaf.engines import (
    AllOf,
    AnyOf,
    Condition,
    Delete,
    Engine,
    Exists,
    Is,
    MemoryEngine,
    PostgresEngine,
    Put,
    Range,
    Record,
    RedisEngine,
    Search,
    SqliteEngine,
    Table,
    Tables,
    Transaction,
    Write,
)
from dcaf.ledger import Ledger
from dcaf.service import (
    Artifacts,
    ArtifactStore,
    Document,
    Documents,
    EncryptedEngine,
    KeptSession,
    Memory,
    Message,
    Messages,
    ServiceTurn,
    SessionService,
    State,
)
from dcaf.service.tables import STATE as KEPT_STATE
from dcaf.testing import MISUSES, AsyncSessionClient, FrozenClock, Reply, SessionClient, serving
from dcaf.tools import Call, DecidedCall, PlatformContext, ToolRunner, decide, pending, propose
from tests.asgi.wire import call
from tests.documents.reference import names_of
from tests.engines.postgres_servers import get_server
from tests.engines.redis_servers import share_server

PACKAGES = (
    "dcaf.core",
    "dcaf.tools",
    "dcaf.asgi",
    "dcaf.agent",
    "dcaf.client",
    "dcaf.demo",
    "dcaf.engines",
    "dcaf.ledger",
    "dcaf.service",
    "dcaf.integrations.fastapi",
    "dcaf.integrations.starlette",
    "dcaf.testing",
)
DUNDERS = ("__getitem__", "__setitem__", "__delitem__", "__contains__", "__eq__", "__or__", "__ror__", "__ior__")
RING = Keyring(Key.generate("k7"))
UNTIL = datetime(2999, 1, 1, tzinfo=UTC)
CLAIMS = Claims(aud="shop", sid="a" * 22, seq=1, born=1, iat=1, exp=2)
TEXT = Key.generate("k8").text()
OPENED = OpenRequest("A" * 22, None, Binding("shop"))


@dataclass(frozen=True)
class Entry:
    """A right call.

    Attributes:
        valid: Name -> argument; what is not named takes its default.
        on: Makes the object whose method is called; None where the callable stands for itself.
        then: What a caller does with what comes back, or with the object that was made.
        extra: Names for arguments that a callable takes by ``**``.
        given: Arguments that a callable takes by ``**``, and needs.
        is_model: A model of pydantic, which raises pydantic's own errors, as everybody who declares one expects.
        within: Where it is called.
        fails: The right call ends in a DcafError too, because what it needs is not there.
    """

    valid: dict[str, Any] = field(default_factory=dict)
    on: Callable[[], Any] | None = None
    then: Callable[[Any], Any] = lambda found: found
    extra: tuple[str, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)
    is_model: bool = False
    within: Callable[[], Any] = nullcontext
    fails: bool = False


class Fresh:
    """An argument that is made anew for each call."""

    def __init__(self, made: Callable[[], Any]) -> None:
        self.made = made


def state() -> Session:
    return Session.from_dict({"a": 1, "n": 2, "l": [1], "user:u": 1})


def read_only() -> ReadOnlySession:
    return ReadOnlySession.of(state())


def hosting() -> SessionHost:
    return SessionHost(keys=RING, audience="jobs")


def ledger() -> Ledger:
    return Ledger("memory://", audience="jobs")


def kept() -> SessionService:
    """A service that keeps a session with two messages."""
    found = SessionService("memory://", app="jobs", artifacts="memory://")
    found.sync.create(user="ada", id="v1", state={"a": 1, "n": 2, "l": [1], "user:u": 1})
    found.sync.append(user="ada", id="v1", messages=[("user", "Hello!"), ("assistant", "Hi!")])
    return found


def kept_session() -> KeptSession:
    found = kept().sync.get(user="ada", id="v1")
    assert found is not None
    return found


def ask(method: str, request: Any) -> Any:
    """A call of a service with one object."""
    return getattr(kept().sync, method)(request)


def pending_state() -> State:
    return State({"a": 1}, {"b": [2]})


def history() -> Messages:
    found = kept_session().messages
    found.add("user", "And?")
    return found


async def entered_async(turn: ServiceTurn) -> None:
    async with turn as session:
        session["n"] = 3


def memory_entries(name: str, memory: Callable[[], Any]) -> dict[str, Entry]:
    """What a memory has, with await and without."""
    calls: dict[str, dict[str, Any]] = {
        "get": {"key": "k", "as_type": int},
        "set": {"key": "k", "value": 1, "ttl": timedelta(days=1)},
        "delete": {"key": "k"},
        "all": {},
        "search": {"query": "one", "limit": 1},
        "clear": {},
    }
    return {f"dcaf.service.{name}.{call}": Entry(valid, on=memory) for call, valid in calls.items()}


def encrypted_engine() -> EncryptedEngine:
    """An engine that encrypts, in which a service has kept a session."""
    found = EncryptedEngine(MemoryEngine(), app="jobs", keys=RING)
    SessionService(found, app="jobs").sync.create(user="ada", id="v1", state={"a": 1})
    return found


def encrypting() -> SessionService:
    return SessionService(encrypted_engine(), app="jobs")


def document_entries(name: str, documents: Callable[[], Any], **where: str) -> dict[str, Entry]:
    """What documents have, with await and without; those of a space are named by it first."""
    calls: dict[str, dict[str, Any]] = {
        "put": {"key": "k", "value": b"1", "expect": 0, "ttl": timedelta(days=1)},
        "get": {"key": "k"},
        "scan": {"prefix": "k", "limit": 1, "cursor": "k", "order": "descending"},
        "delete": {"key": "k", "expect": 0},
        "clear": {"prefix": "k"},
    }
    return {f"dcaf.service.{name}.{call}": Entry({**where, **valid}, on=documents) for call, valid in calls.items()}


async def batched_async(block: Any) -> None:
    async with block as documents:
        await documents.put("k", 1)


def batched(block: Any) -> None:
    with block as documents:
        documents.put("k", 1)


def artifact_entries(name: str, artifacts: Callable[[], Any]) -> dict[str, Entry]:
    """What artifacts have, with await and without."""
    calls: dict[str, dict[str, Any]] = {
        "save": {"name": "a.png", "data": b"1", "mime": "image/png", "metadata": {"k": 1}},
        **{key: {"name": "a.png", "version": 0} for key in ("load", "open", "delete")},
        "versions": {"name": "a.png"},
        "list": {"limit": 1},
    }
    return {f"dcaf.service.{name}.{call}": Entry(valid, on=artifacts) for call, valid in calls.items()}


def service_entries(name: str, service: Callable[[], Any], then: Callable[[Any], Any]) -> dict[str, Entry]:
    """What a service has, with await and without."""
    whose = {"user": "ada", "id": "v1"}
    about = {"title": "T", "labels": {"a": "b"}, "metadata": {"k": 1}}
    calls: dict[str, dict[str, Any]] = {
        "create": {"user": "ada", "id": "v2", "state": {"n": 1}, **about},
        **dict.fromkeys(("get", "get_or_create", "delete"), whose),
        "messages": {**whose, "limit": 1, "before": None, "after": None, "since": UNTIL},
        "append": {**whose, "messages": [{"role": "user", "content": "And?"}]},
        "merge": {**whose, "state": {"n": 5}},
        "get_user_state": {"user": "ada"},
        "get_app_state": {},
        "merge_user_state": {"user": "ada", "state": {"u": 5}},
        "merge_app_state": {"state": {"a": 5}},
        "search": {"query": "hello", **whose, "limit": 1},
        "list": {"user": "ada", "limit": 1, "order": "newest", "state": ["a"], "labels": {"a": "b"}, "archived": False},
        "list_all": {"limit": 1, "cursor": None, "state": ["a"], "labels": {"a": "b"}, "archived": False},
        "list_events": {**whose, "limit": 1},
        "checkpoint": {**whose, "name": "here"},
        **dict.fromkeys(("archive", "restore", "checkpoints"), whose),
        "rewind": {**whose, "to": 1},
        "fork": {**whose, "new_id": "v3", "at": 1},
        "purge": {"user": "ada", "before": UNTIL},
        **{key: {"user": "ada"} for key in ("erase", "memory")},
        "export": whose,
        "artifacts": whose,
        "import_lines": {"lines": list(kept().sync.export()), "replace": True},
    }
    return {
        f"{name}.open": Entry({**whose, "last": 2}, on=service, then=then),
        **{f"{name}.{call}": Entry(valid, on=service) for call, valid in calls.items()},
    }


async def served_by(turn: Any) -> Any:
    """A turn without a request, and the envelope that it leaves."""
    async with turn:
        turn.session["n"] = 1
    return turn.envelope


@tool
def deploy(name: str, session: Session) -> str:
    """Deploy something."""
    session["name"] = name
    return name


def proposed() -> Session:
    session = state()
    propose(session, Call(deploy, {"name": "x"}, id="c1"))
    return session


def decided(call: DecidedCall) -> Any:
    return decide(proposed(), [call])


def greet(name: str) -> str:
    """Greet somebody."""
    return name


@tool(requires_approval=True)
def erase(name: str) -> str:
    """Erase something."""
    return name


@tool
async def several(number: int) -> AsyncIterator[int]:
    """Some numbers."""
    for each in range(number):
        yield each


def answers(messages: Any, context: Any, session: Session) -> AgentResult:
    waits = [ProposedCall(erase, {"name": "x"})] if "erase" in messages[-1].content else []
    return AgentResult(f"{session.incr('turns')}", approvals=waits)


def agent() -> Agent:
    return Agent(answers, tools=[deploy, erase])


def chat_request() -> ChatRequest:
    return ChatRequest.read(b'{"messages":[{"role":"user","content":"hi"}]}')


def answer() -> AgentResponse:
    return agent().run("erase x", session={})


async def application(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    current_session().incr("n")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


def entered(found: Any) -> None:
    """Use a context manager."""
    with found as made:
        made["n"] = 2


def asked(service: Any) -> Any:
    """Two requests, with a session and without one."""
    found = call(service, {"messages": []})
    return call(service, {"messages": [], "data": {"session": found.envelope if found.body else None}}) if found.messages else found


def plain_asked(service: Any) -> Any:
    return call(service, {"data": {"session": {"step": 2}}})


def mounted(door: Any) -> Any:
    return plain_asked(SessionMiddleware(application, keys=RING, audience="shop", unsigned=door))


def carried(carrier: Any) -> Any:
    return asked(SessionMiddleware(application, keys=RING, audience="shop", carriers=("body", carrier)))


@cache
def url() -> str:
    """A service of an agent that runs as long as the tests."""
    served = serving(create_app(agent(), keys=RING, audience="shop"))
    _OPEN.append(served)
    return served.__enter__()


_OPEN: list[Any] = []


def stop() -> None:
    """Stop the service, and close the engine."""
    while _OPEN:
        _OPEN.pop().__exit__(None, None, None)
    url.cache_clear()
    for engine in (sqlite, redis, postgres):
        engine.cache_clear()


def read(found: Any) -> Any:
    """Read a stream to its end."""
    return [*found] if hasattr(found, "__iter__") else read_async(found)


async def read_async(found: Any) -> Any:
    return [event async for event in found]


def client(**settings: Any) -> Any:
    return Client(url(), **settings)


def async_client(**settings: Any) -> Any:
    return AsyncClient(url(), **settings)


def said(found: Any) -> Any:
    """Send one turn with a client, and close it."""
    with found:
        return found.send("hello")


async def said_async(found: Any) -> Any:
    async with found:
        return await found.send("hello")


def served() -> Any:
    return create_app(agent(), keys=RING, audience="shop")


def proposes(call: Any) -> Any:
    """An agent function that asks for a call."""
    return lambda messages, context, session: AgentResult("?", approvals=[call])


def gives(found: Any) -> Any:
    """An agent function that gives what it was given."""
    return lambda messages, context, session: found


def waiting() -> Any:
    found = SessionClient(served())
    found.send("erase x")
    return found


def waiting_async() -> Any:
    """The same, with what the other has learned."""
    known = waiting()
    return AsyncSessionClient(served(), envelope=known.envelope, messages=known.messages)


def socket_url() -> str:
    return f"ws{url().removeprefix('http')}/api/chat-ws"


def turn() -> Turn:
    return Turn(Conversation(), "hello")


SEATS = Table("seats", {"holder": bytes, "count": int, "expires": int}, indexed="holder")
LOG = Table("log", {"n": int}, ordered=True)
NOTES = Table("notes", {"words": bytes}, ordered=True, searchable="words")
WANTED = Search(NOTES, b"ada---", ["hello"], 1)
SEAT = Record(SEATS, b"12A")


def memory() -> MemoryEngine:
    found = MemoryEngine()
    found.declare([SEATS, LOG, NOTES])
    return found


@cache
def sqlite() -> SqliteEngine:
    """An engine over a file that is there as long as the tests."""
    folder = TemporaryDirectory(ignore_cleanup_errors=True)
    found = SqliteEngine(Path(folder.__enter__()) / "rows.db")
    found.declare([SEATS, LOG, NOTES])
    _OPEN.extend([folder, closing(found.sync)])
    return found


def another_sqlite() -> SqliteEngine:
    """One that nobody has used, and that the call closes."""
    return SqliteEngine(sqlite().url.removeprefix("sqlite:///"))


@cache
def redis() -> RedisEngine:
    """An engine over a server that all tests of this process share."""
    found = RedisEngine(share_server().url, prefix="entries", timeout=timedelta(seconds=20))
    found.declare([SEATS, LOG, NOTES])
    _OPEN.append(closing(found.sync))
    return found


def another_redis() -> RedisEngine:
    """One that nobody has used, and that the call closes."""
    return RedisEngine(share_server().url)


@cache
def postgres() -> PostgresEngine:
    """An engine over a server that all tests of this process share."""
    found = PostgresEngine(get_server().make_database(), timeout=timedelta(seconds=20))
    found.declare([SEATS, LOG, NOTES])
    _OPEN.append(closing(found.sync))
    return found


def another_postgres() -> PostgresEngine:
    """One that nobody has used, and that the call closes."""
    return PostgresEngine(get_server().url())


async def tried(engine: Engine, *transactions: Transaction) -> None:
    for each in transactions:
        await engine.transact(each)


def holding(when: Condition) -> Any:
    """Ask both engines whether a condition holds, of a row that is there."""
    there = Transaction([SEAT], writes=[Put(SEAT, {"holder": b"ada", "count": 1})])
    return trying(there, Transaction([SEAT], when=when))


def writing(write: Write) -> Any:
    return trying(Transaction([SEAT], writes=[write]))


async def trying(*transactions: Transaction) -> None:
    await tried(memory(), *transactions)
    await tried(sqlite(), *transactions)


def tables() -> Tables:
    found = Tables()
    found.declare([SEATS, LOG, NOTES])
    return found


def engine_entries(name: str, engine: Callable[[], Engine], other: Callable[[], Engine]) -> dict[str, Entry]:
    """What every engine has."""
    return {
        f"dcaf.engines.{name}.declare": Entry({"tables": [SEATS]}, on=engine),
        f"dcaf.engines.{name}.transact": Entry({"transaction": Transaction([SEAT])}, on=engine),
        f"dcaf.engines.{name}.scan": Entry({"table": SEATS, "equal": b"ada", "after": b"", "limit": 1}, on=engine),
        f"dcaf.engines.{name}.purge": Entry({"table": SEATS}, on=engine),
        f"dcaf.engines.{name}.check": Entry(on=engine),
        f"dcaf.engines.{name}.aclose": Entry(on=other),
    }


LINE = b'{"type":"text_delta","text":"Hi"}\n{"type":"done","data":{}}\n'
SCOPE = {"type": "http", "method": "GET", "headers": [], "path": "/"}
DONE = '{"type":"done","data":{}}'
JSON = {"content-type": "application/json"}


ENTRIES: dict[str, Entry] = {
    # service
    "dcaf.service.SessionService": Entry(
        {"engine": "memory://", "app": "jobs", "ttl": timedelta(days=1), "on_busy": "merge", "last": 5, "encrypt": RING},
        then=lambda service: service.sync.create(user="ada", state={"n": 1}),
    ),
    **service_entries("dcaf.service.SessionService", kept, entered_async),
    **service_entries("dcaf.service.SyncSessionService", lambda: kept().sync, entered),
    "dcaf.service.SessionService.reencrypt": Entry(on=encrypting),
    "dcaf.service.SyncSessionService.reencrypt": Entry(on=lambda: encrypting().sync),
    "dcaf.service.EncryptedEngine": Entry({"engine": "memory://", "app": "jobs", "keys": RING}),
    "dcaf.service.EncryptedEngine.declare": Entry({"tables": [KEPT_STATE]}, on=encrypted_engine),
    "dcaf.service.EncryptedEngine.transact": Entry(
        {"transaction": Transaction([Record(KEPT_STATE, bytes(16) + b"=a")])}, on=encrypted_engine
    ),
    "dcaf.service.EncryptedEngine.scan": Entry({"table": KEPT_STATE, "after": b"", "limit": 1}, on=encrypted_engine),
    "dcaf.service.EncryptedEngine.purge": Entry({"table": KEPT_STATE}, on=encrypted_engine),
    "dcaf.service.EncryptedEngine.check": Entry(on=encrypted_engine),
    "dcaf.service.EncryptedEngine.aclose": Entry(on=encrypted_engine),
    "dcaf.service.SessionService.close": Entry({"user": "ada", "id": "v1"}, on=kept),
    "dcaf.service.SessionService.aclose": Entry(on=kept),
    "dcaf.service.SessionService.as_store": Entry({"settings": StoreSettings("jobs", timedelta(days=1), True)}, on=kept),
    "dcaf.service.SessionService.draining": Entry(on=kept),
    "dcaf.service.SessionService.resume": Entry({"subject": "ada", "id": "A" * 22}, on=kept, fails=True),  # no turn is running
    "dcaf.service.SyncSessionService.close": Entry({"user": "ada", "id": "v1"}, on=lambda: kept().sync),
    **document_entries("Documents", lambda: kept_session().documents),
    **document_entries("SyncDocuments", lambda: kept_session().documents.sync),
    **document_entries("AppDocuments", lambda: kept().documents, space="s"),
    **document_entries("SyncAppDocuments", lambda: kept().sync.documents, space="s"),
    "dcaf.service.AppDocuments.transaction": Entry({"space": "s"}, on=lambda: kept().documents, then=batched_async),
    "dcaf.service.SyncAppDocuments.transaction": Entry({"space": "s"}, on=lambda: kept().sync.documents, then=batched),
    "dcaf.service.Documents.of": Entry({"session": kept_session()}, on=lambda: Documents),
    "dcaf.service.Documents.is_for": Entry({"session": kept_session()}, on=lambda: Documents),
    "dcaf.service.Document.value_as": Entry({"as_type": int}, on=lambda: Document("k", 1, 1, UNTIL, None)),
    **memory_entries("Memory", lambda: kept_session().memory),
    **memory_entries("SyncMemory", lambda: kept_session().memory.sync),
    **memory_entries("UserMemory", lambda: kept().memory(user="ada")),
    **memory_entries("SyncUserMemory", lambda: kept().sync.memory(user="ada")),
    **artifact_entries("Artifacts", lambda: kept().artifacts(user="ada", id="v1")),
    **artifact_entries("SyncArtifacts", lambda: kept().sync.artifacts(user="ada", id="v1")),
    "dcaf.service.Artifacts.of": Entry({"session": kept_session()}, on=lambda: Artifacts),
    "dcaf.service.Artifacts.is_for": Entry({"session": kept_session()}, on=lambda: Artifacts),
    "dcaf.service.ArtifactStore": Entry(
        {"place": "memory://", "limit_bytes": 9, "most_names": 9, "most_versions": 9, "part_bytes": 9}
    ),
    "dcaf.service.ArtifactStore.of": Entry({"place": "memory://"}, on=lambda: ArtifactStore),
    "dcaf.service.Quotas": Entry({"sessions": 9, "messages": 9}),
    "dcaf.service.UserMemory.page": Entry({"limit": 1}, on=lambda: kept().memory(user="ada")),
    "dcaf.service.SyncUserMemory.page": Entry({"limit": 1}, on=lambda: kept().sync.memory(user="ada")),
    "dcaf.service.Messages.of": Entry({"session": kept_session()}, on=lambda: Messages),
    "dcaf.service.Messages.is_for": Entry({"session": kept_session()}, on=lambda: Messages),
    "dcaf.service.Messages.summarize": Entry({"fn": lambda _: "Before.", "keep": 1}, on=history),
    "dcaf.service.Messages.layers": Entry({"keep": 1}, on=history),
    "dcaf.service.Memory.tools": Entry(on=lambda: Memory),
    "dcaf.service.Memory.of": Entry({"session": kept_session()}, on=lambda: Memory),
    "dcaf.service.Memory.is_for": Entry({"session": kept_session()}, on=lambda: Memory),
    "dcaf.service.Messages.add": Entry({"message": "user", "content": "Hi!"}, on=history, given={"name": "ada"}),
    "dcaf.service.Messages.search": Entry({"query": "hello", "limit": 1}, on=history),
    "dcaf.service.SyncMessages.search": Entry({"query": "hello", "limit": 1}, on=lambda: history().sync),
    "dcaf.service.Messages.page": Entry({"limit": 1, "before": None, "after": None, "since": UNTIL}, on=history),
    "dcaf.service.SyncMessages.page": Entry({"limit": 1, "before": None, "after": None, "since": UNTIL}, on=lambda: history().sync),
    "dcaf.service.Messages.window": Entry({"last": 1}, on=history),
    "dcaf.service.KeptSession.checkpoint": Entry({"name": "here"}, on=kept_session),
    "dcaf.service.State": Entry({"value": {"a": 1}, "delta": {}}, then=lambda found: found.to_dict()),
    "dcaf.service.State.get": Entry({"key": "a", "default": 1}, on=pending_state),
    "dcaf.service.State.setdefault": Entry({"key": "a", "default": 1}, on=pending_state),
    "dcaf.service.State.update": Entry({"delta": {"a": 1}}, on=pending_state),
    **{f"dcaf.service.State.{name}": Entry(on=pending_state) for name in ("has_delta", "to_dict")},
    "dcaf.service.State.__getitem__": Entry({"key": "a"}, on=pending_state),
    "dcaf.service.State.__setitem__": Entry({"key": "a", "value": 1}, on=pending_state),
    "dcaf.service.State.__contains__": Entry({"key": "a"}, on=pending_state),
    **{
        f"dcaf.service.{name}SessionRequest": Entry({"user": "ada", "id": "v1"}, then=partial(ask, name.lower()))
        for name in ("Get", "Delete")
    },
    "dcaf.service.CreateSessionRequest": Entry({"user": "ada", "id": "v2"}, then=partial(ask, "create")),
    "dcaf.service.ListSessionsRequest": Entry({"user": "ada", "limit": 1}, then=partial(ask, "list")),
    "dcaf.service.Message": Entry({"role": "user", "content": "Hi!"}, then=lambda message: message.to_dict()),
    "dcaf.service.Message.of": Entry({"given": {"role": "user", "content": "Hi!"}}, on=lambda: Message),
    "dcaf.service.Message.to_dict": Entry({"whole": True}, on=lambda: Message("user", "Hi!")),
    # ledger
    "dcaf.ledger.Ledger": Entry({"engine": "memory://", "audience": "jobs"}, then=lambda ledger: ledger.sessions("ada")),
    "dcaf.ledger.Ledger.open": Entry({"request": OpenRequest("A" * 22, None, Binding("jobs"))}, on=ledger),
    "dcaf.ledger.Ledger.check_settings": Entry({"settings": StoreSettings("jobs", timedelta(days=1), True)}, on=ledger),
    "dcaf.ledger.Ledger.log_out": Entry({"subject": "ada"}, on=ledger),
    **{f"dcaf.ledger.Ledger.{name}": Entry({"session_id": "A" * 22}, on=ledger) for name in ("revoke", "unlock")},
    "dcaf.ledger.Ledger.sessions": Entry({"subject": "ada"}, on=ledger),
    **{f"dcaf.ledger.Ledger.{name}": Entry(on=ledger) for name in ("all_sessions", "purge", "mark_restored", "check", "aclose")},
    "dcaf.ledger.Ledger.prepare": Entry(on=ledger),
    "dcaf.ledger.Ledger.find_rows": Entry({"session_id": "A" * 22}, on=ledger),
    "dcaf.ledger.Ledger.transact": Entry({"transaction": Transaction([])}, on=ledger),
    "dcaf.ledger.LedgerEvent": Entry({"name": "busy", "session": "abc"}),
    "dcaf.ledger.LiveSession": Entry({"id": "A" * 22, "sequence": 1, "created_at": UNTIL, "expires_at": UNTIL, "is_busy": False}),
    "dcaf.ledger.Purged": Entry({"sessions": 1, "answers": 2, "uses": 3}),
    # engines
    "dcaf.engines.open_engine": Entry({"url": "memory://"}),
    "dcaf.engines.MemoryEngine": Entry({"partitions": 2}, then=lambda engine: engine.sync.check()),
    **engine_entries("MemoryEngine", memory, memory),
    "dcaf.engines.SqliteEngine": Entry({"path": Fresh(lambda: Path(sqlite().url.removeprefix("sqlite:///")))}),
    **engine_entries("SqliteEngine", sqlite, another_sqlite),
    "dcaf.engines.RedisEngine": Entry({"url": "redis://localhost:6379/0"}),
    **engine_entries("RedisEngine", redis, another_redis),
    "dcaf.engines.PostgresEngine": Entry({"url": "postgresql://app@db/shop"}),
    **engine_entries("PostgresEngine", postgres, another_postgres),
    "dcaf.engines.Table": Entry(
        {"name": "seats", "columns": {"holder": bytes}, "indexed": "holder", "large": False},
        then=lambda table: MemoryEngine().declare([table]),
    ),
    "dcaf.engines.Record": Entry(
        {"table": SEATS, "key": b"12A", "partition": 0}, then=lambda record: trying(Transaction([record]))
    ),
    "dcaf.engines.Transaction": Entry(
        {"reads": [SEAT], "when": Exists(SEAT), "writes": [Put(SEAT, {"count": 1})], "durable": False}, then=trying
    ),
    "dcaf.engines.Exists": Entry({"record": SEAT}, then=holding),
    "dcaf.engines.Is": Entry({"record": SEAT, "column": "holder", "value": b"ada"}, then=holding),
    "dcaf.engines.AtMost": Entry({"record": SEAT, "column": "count", "value": 1}, then=holding),
    "dcaf.engines.Not": Entry({"condition": Exists(SEAT)}, then=holding),
    **{
        f"dcaf.engines.{kind.__name__}": Entry({"first": Exists(SEAT), "second": Is(SEAT, "count", 1)}, then=holding)
        for kind in (AnyOf, AllOf)
    },
    "dcaf.engines.Put": Entry({"record": SEAT, "values": {"count": 1}}, then=writing),
    "dcaf.engines.Delete": Entry({"record": SEAT}, then=writing),
    "dcaf.engines.Now": Entry({"plus_ms": 60_000}, then=lambda now: writing(Put(SEAT, {"expires": now}))),
    "dcaf.engines.Plus": Entry({"by": 1}, then=lambda plus: writing(Put(SEAT, {"count": plus}))),
    "dcaf.engines.Tables": Entry(then=list),
    "dcaf.engines.Tables.declare": Entry({"tables": [SEATS]}, on=tables),
    "dcaf.engines.Tables.require": Entry({"table": SEATS}, on=tables),
    "dcaf.engines.Range": Entry(
        {"table": LOG, "start": b"a", "end": b"b", "limit": 1, "backwards": True, "partition": 0},
        then=lambda wanted: trying(Transaction([], ranges=[wanted])),
    ),
    "dcaf.engines.Range.of_prefix": Entry({"table": LOG, "prefix": b"a", "limit": 1}, on=lambda: Range),
    "dcaf.engines.Search": Entry(
        {"table": NOTES, "prefix": b"ada---", "words": ["hello"], "limit": 1, "partition": 0},
        then=lambda wanted: memory().search(wanted),
    ),
    "dcaf.engines.can_search": Entry({"engine": MemoryEngine()}),
    "dcaf.engines.check_search": Entry({"wanted": WANTED, "partitions": 1}),
    **{
        f"dcaf.engines.{name}.search": Entry({"wanted": WANTED}, on=engine)
        for name, engine in (("MemoryEngine", memory), ("SqliteEngine", sqlite), ("PostgresEngine", postgres))
    },
    "dcaf.engines.find_page": Entry({"keys": [b"a", b"b"], "wanted": Range(LOG, b"", None, 1), "read": lambda key: {"n": 1}}),
    "dcaf.engines.apply": Entry({"transaction": Transaction([SEAT], writes=[Delete(SEAT)]), "rows": {SEAT: None}, "now_ms": 1}),
    "dcaf.engines.check_scan": Entry({"table": SEATS, "equal": b"ada", "limit": 1}),
    "dcaf.engines.exists": Entry({"row": {"holder": b"ada", "expires": 2}, "now_ms": 1}),
    # core
    "dcaf.core.Binding": Entry({"audience": "shop", "subject": "ada"}),
    "dcaf.core.Claims": Entry(CLAIMS._asdict()),
    "dcaf.core.Import": Entry({"until": UNTIL, "accept": lambda plain: plain}, then=mounted),
    "dcaf.core.Import.values": Entry({"plain": {"a": 1}, "now": 1.0}, on=lambda: Import(UNTIL, lambda plain: plain)),
    "dcaf.core.Key": Entry({"kid": "k7", "secret": bytes(range(32))}, then=lambda key: key.text()),
    "dcaf.core.Key.generate": Entry({"kid": "k7"}, on=lambda: Key),
    "dcaf.core.Key.from_bytes": Entry({"kid": "k7", "secret": bytes(range(32))}, on=lambda: Key, then=lambda key: key.text()),
    "dcaf.core.Key.parse": Entry({"text": TEXT}, on=lambda: Key),
    "dcaf.core.Key.text": Entry(on=Key.generate),
    "dcaf.core.Key.derive": Entry({"suite": "dcaf1s", "audience": "shop", "role": "mac"}, on=Key.generate),
    "dcaf.core.Keyring": Entry(
        {"active": Key.generate("k1"), "verify_only": Key.generate("k2")}, then=lambda ring: ring.signer(1.0)
    ),
    "dcaf.core.Keyring.parse": Entry({"active": TEXT}, on=lambda: Keyring),
    "dcaf.core.Keyring.from_environment": Entry({"environment": {"DCAF_KEYS": TEXT}}, on=lambda: Keyring),
    "dcaf.core.Keyring.ephemeral": Entry(on=lambda: Keyring),
    "dcaf.core.Keyring.signer": Entry({"now": 1.0}, on=lambda: RING),
    "dcaf.core.Keyring.find": Entry({"kid": "k7"}, on=lambda: RING),
    "dcaf.core.OpenRequest": Entry({"session_id": "A" * 22, "claims": CLAIMS, "binding": Binding("shop")}),
    "dcaf.core.Payload": Entry({"data": b"{}"}),
    "dcaf.core.ReadOnlySession": Entry(then=lambda session: session.to_dict()),
    "dcaf.core.ReadOnlySession.of": Entry(
        {"session": Fresh(state)}, on=lambda: ReadOnlySession, then=lambda found: found.to_dict()
    ),
    "dcaf.core.ReadOnlySession.get": Entry({"key": "a", "as_type": int}, on=read_only),
    "dcaf.core.ReadOnlySession.has": Entry({"key": "a"}, on=read_only),
    "dcaf.core.ReadOnlySession.copy": Entry(on=read_only),
    "dcaf.core.ReadOnlySession.to_dict": Entry(on=read_only),
    **{f"dcaf.core.ReadOnlySession.{name}": Entry(on=read_only) for name in ("keys", "items", "values")},
    **{f"dcaf.core.ReadOnlySession.{name}": Entry({"other": {"b": 1}}, on=read_only) for name in ("__or__", "__ror__")},
    "dcaf.core.ReadOnlySession.__eq__": Entry({"other": {"a": 1}}, on=read_only),
    "dcaf.core.ReadOnlySession.__getitem__": Entry({"key": "a"}, on=read_only),
    "dcaf.core.ReadOnlySession.__contains__": Entry({"key": "a"}, on=read_only),
    **{
        f"dcaf.core.ReadOnlySession.{name}": Entry({"__": "a"}, on=read_only, fails=True)
        for name in (
            "set",
            "delete",
            "clear",
            "update",
            "incr",
            "append",
            "pop",
            "popitem",
            "setdefault",
            "end",
            "rotate",
            "once",
            "__delitem__",
            "__setitem__",
            "__ior__",
        )
    },
    "dcaf.core.Sealed": Entry(
        {"payload": Payload(b"{}"), "claims": CLAIMS, "token": b"", "envelope": b"", "is_changed": True, "keep": bytes}
    ),
    "dcaf.core.Session": Entry(),
    "dcaf.core.Session.from_dict": Entry({"data": {"a": 1}}, on=lambda: Session, then=lambda found: found.to_dict()),
    "dcaf.core.Session.of": Entry({"session": Fresh(state)}, on=lambda: Session, then=lambda found: found.to_dict()),
    "dcaf.core.Session.get": Entry({"key": "a", "as_type": int}, on=state),
    "dcaf.core.Session.set": Entry({"key": "a", "value": 1}, on=state),
    "dcaf.core.Session.end": Entry(on=state),
    "dcaf.core.Session.rotate": Entry({"subject": "ada"}, on=state),
    "dcaf.core.Session.once": Entry({"key": "charge-42"}, on=state),
    "dcaf.core.Session.incr": Entry({"key": "n"}, on=state),
    "dcaf.core.Session.append": Entry({"key": "l", "value": 1}, on=state),
    "dcaf.core.Session.update": Entry({"other": {"b": 1}}, on=state, extra=("c",)),
    "dcaf.core.Session.pop": Entry({"key": "a"}, on=state),
    **{f"dcaf.core.Session.{name}": Entry(on=state) for name in ("keys", "items", "values")},
    "dcaf.core.Session.fromkeys": Entry({"keys": ["a"], "value": 1}, on=lambda: Session, then=lambda found: found.to_dict()),
    "dcaf.core.Session.popitem": Entry(on=state),
    "dcaf.core.Session.setdefault": Entry({"key": "b", "default": 1}, on=state),
    **{
        f"dcaf.core.Session.{name}": Entry({"key": "a"}, on=state)
        for name in ("has", "delete", "__getitem__", "__delitem__", "__contains__")
    },
    **{f"dcaf.core.Session.{name}": Entry(on=state) for name in ("to_dict", "clear", "copy")},
    **{f"dcaf.core.Session.{name}": Entry({"other": {"b": 1}}, on=state) for name in ("__eq__", "__or__", "__ror__", "__ior__")},
    "dcaf.core.Session.__setitem__": Entry({"key": "a", "value": 1}, on=state),
    "dcaf.core.SessionHost": Entry({"keys": RING, "audience": "jobs"}, then=lambda host: served_by(host.turn())),
    "dcaf.core.SessionHost.turn": Entry({"envelope": None, "subject": "ada"}, on=hosting, then=served_by),
    "dcaf.core.SessionKey": Entry({"key": "cart"}),
    "dcaf.integrations.starlette.Session": Entry(),
    "dcaf.core.StatelessLease": Entry({"request": OPENED}),
    "dcaf.core.StatelessStore": Entry(),
    "dcaf.core.StoreSettings": Entry({"audience": "shop", "absolute_timeout": timedelta(days=30), "has_subject": True}),
    "dcaf.core.StatelessStore.open": Entry({"request": OPENED}, on=StatelessStore),
    "dcaf.core.current_session": Entry(within=lambda: running(state())),
    "dcaf.core.transaction": Entry({"session": Fresh(state)}, then=entered),
    # tools
    "dcaf.tools.Call": Entry({"tool": deploy, "arguments": {"name": "x"}}, then=lambda one: ToolRunner.of(state()).run_all([one])),
    "dcaf.tools.Conflict": Entry({"key": "a", "path": "", "kind": "write-write", "kept": None, "dropped": None}),
    "dcaf.tools.DecidedCall": Entry({"id": "c1", "name": "deploy", "arguments": {}, "execute": True}, then=decided),
    "dcaf.tools.PendingCall.matches": Entry({"name": "deploy", "arguments": {"name": "x"}}, on=lambda: pending(proposed())[0]),
    "dcaf.tools.decide": Entry(
        {"session": Fresh(proposed), "decisions": [DecidedCall("c1", "deploy", {"name": "x"}, execute=True)], "clock": time.time}
    ),
    "dcaf.tools.pending": Entry({"session": Fresh(proposed), "clock": time.time}),
    "dcaf.tools.propose": Entry({"session": Fresh(state), "call": Call(deploy, {"name": "x"}), "clock": time.time}),
    "dcaf.tools.withdraw": Entry({"session": Fresh(proposed), "ids": ["c1"], "clock": time.time}),
    "dcaf.tools.PlatformContext": Entry({"members": {"a": 1}}, then=lambda found: found.to_dict()),
    "dcaf.tools.PlatformContext.get": Entry({"name": "a"}, on=lambda: PlatformContext({"a": 1})),
    "dcaf.tools.PlatformContext.to_dict": Entry(on=lambda: PlatformContext({"a": 1})),
    "dcaf.tools.Result": Entry({"call": None, "text": "x"}),
    "dcaf.tools.Tool": Entry({"function": greet}, then=lambda found: found.run({"name": "x"})),
    "dcaf.tools.Tool.require_runnable": Entry(on=lambda: deploy),
    "dcaf.tools.Tool.complete": Entry({"arguments": {"name": "x"}}, on=lambda: deploy),
    "dcaf.tools.Tool.explain": Entry(on=lambda: deploy),
    "dcaf.tools.Tool.check": Entry({"arguments": {"name": "x"}}, on=lambda: deploy),
    "dcaf.tools.Tool.run": Entry({"arguments": {"name": "x"}, "session": Fresh(state)}, on=lambda: deploy),
    "dcaf.tools.Tool.stream": Entry({"arguments": {"number": 2}}, on=lambda: several, then=read),
    "dcaf.tools.ToolRunner": Entry(fails=True),
    "dcaf.tools.ToolRunner.of": Entry(
        {"session": Fresh(state)}, on=lambda: ToolRunner, then=lambda found: found.run(deploy, {"name": "x"})
    ),
    "dcaf.tools.ToolRunner.run": Entry({"tool": deploy, "arguments": {"name": "x"}}, on=lambda: ToolRunner.of(state())),
    "dcaf.tools.ToolRunner.run_all": Entry({"calls": [Call(deploy, {"name": "x"})]}, on=lambda: ToolRunner.of(state())),
    "dcaf.tools.ToolRunner.run_all_sync": Entry({"calls": [Call(deploy, {"name": "x"})]}, on=lambda: ToolRunner.of(state())),
    "dcaf.tools.ToolRunner.stream": Entry(
        {"tool": several, "arguments": {"number": 2}}, on=lambda: ToolRunner.of(state()), then=read
    ),
    "dcaf.tools.tool": Entry(
        {"function": greet}, extra=("name", "description", "requires_approval", "parallel", "timeout", "strict", "nothing")
    ),
    # asgi
    "dcaf.asgi.SessionMiddleware": Entry({"app": application, "keys": RING, "audience": "shop"}, then=asked),
    "dcaf.asgi.CookieCarrier": Entry({"secure": False, "cookie": "c"}, then=carried),
    "dcaf.asgi.HeaderCarrier": Entry(then=carried),
    "dcaf.asgi.Event": Entry({"name": "lost"}),
    "dcaf.asgi.checkpoint": Entry(fails=True),
    "dcaf.asgi.is_done": Entry({"name": None, "value": {"type": "done"}}),
    # agent
    "dcaf.agent.Agent": Entry({"model": answers, "tools": [deploy]}, then=lambda found: found.run_async("hi")),
    "dcaf.agent.Agent.run": Entry({"messages": "hi", "session": {"a": 1}}, on=agent),
    "dcaf.agent.Agent.chat": Entry({"text": "hi", "session": {"a": 1}}, on=agent),
    "dcaf.agent.Agent.chat_async": Entry({"text": "hi", "after": None}, on=agent),
    "dcaf.agent.Agent.run_async": Entry(
        {"messages": [{"role": "user", "content": "hi"}], "session": Fresh(state), "history": "client"}, on=agent
    ),
    "dcaf.agent.Agent.run_stream": Entry({"messages": "hi", "context": {"a": 1}}, on=agent, then=read),
    "dcaf.agent.AgentResponse.to_message": Entry(on=answer),
    "dcaf.agent.AgentResponse.decided": Entry({"decisions": {}, "text": "x"}, on=answer),
    "dcaf.agent.AgentResult": Entry({"text": "x"}, then=lambda found: Agent(gives(found)).run_async("hi")),
    "dcaf.agent.Approval": Entry({"id": "c1", "type": "tool_call", "name": "x", "input": {}}, is_model=True),
    "dcaf.agent.Data": Entry(is_model=True),
    "dcaf.agent.InterceptedRequest": Entry({"messages": [], "session": Fresh(state), "context": {}}),
    "dcaf.agent.InterceptedResponse": Entry({"text": "x", "data": Data(), "session": Fresh(state), "context": {}}),
    "dcaf.agent.Message": Entry({"role": "user", "content": "hi"}, is_model=True),
    "dcaf.agent.Page": Entry({"title": "x", "suggestions": ["y"], "log_out": "/z"}),
    "dcaf.agent.ProposedCall": Entry(
        {"tool": erase, "arguments": {"name": "x"}}, then=lambda found: Agent(proposes(found), tools=[erase]).run_async("hi")
    ),
    "dcaf.agent.RunConfig": Entry({"max_model_calls": 2}, then=lambda found: Agent(answers, config=found).run_async("hi")),
    "dcaf.agent.Answer": Entry(is_model=True),
    "dcaf.agent.Approvals": Entry({"approvals": [{"id": "c1", "name": "x"}]}, is_model=True),
    "dcaf.agent.ChatRequest.read": Entry(
        {"body": b'{"messages":[{"role":"user","content":"hi"}]}'},
        on=lambda: ChatRequest,
        then=lambda found: found.messages,
    ),
    "dcaf.agent.ChatRequest.build_answer": Entry({"response": Fresh(answer)}, on=chat_request),
    "dcaf.agent.ChatRequest.build_event": Entry({"event": Fresh(answer)}, on=chat_request),
    "dcaf.agent.ExecutedApproval": Entry({"id": "c1", "name": "x"}, is_model=True),
    "dcaf.agent.ExecutedApprovals": Entry({"executed_approvals": [{"id": "c1", "name": "x"}]}, is_model=True),
    "dcaf.agent.ExecutedToolCall": Entry({"id": "c1", "name": "x", "output": "y"}, is_model=True),
    "dcaf.agent.ExecutedToolCalls": Entry({"executed_tool_calls": [{"id": "c1", "name": "x"}]}, is_model=True),
    "dcaf.agent.IntermittentUpdate": Entry({"text": "x"}, is_model=True),
    "dcaf.agent.MetaData": Entry(is_model=True),
    "dcaf.agent.PendingToolCall": Entry({"id": "c1", "name": "x"}, is_model=True),
    "dcaf.agent.TextDelta": Entry({"text": "x"}, is_model=True),
    "dcaf.agent.ToolCalls": Entry({"tool_calls": [{"id": "c1", "name": "x"}]}, is_model=True),
    "dcaf.agent.Turn": Entry({"messages": [{"role": "user", "content": "hi"}]}, is_model=True),
    "dcaf.agent.build_done_event": Entry({"stop_reason": "error"}),
    "dcaf.agent.build_error_event": Entry({"error": AgentError("x")}),
    "dcaf.agent.build_problem": Entry({"error": AgentError("x")}),
    "dcaf.agent.create_app": Entry(
        {"agent": Fresh(agent), "keys": RING, "audience": "shop", "history": "client"},
        then=lambda app: call(app, {"messages": [{"role": "user", "content": "x"}]}),
        extra=("plain", "exempt", "nothing"),
    ),
    "dcaf.agent.serve": Entry(
        {"agent": Fresh(agent), "host": "127.0.0.1", "port": 1},
        extra=("audience", "keys", "nothing"),
        given={"audience": "shop", "keys": RING},
    ),
    # client
    "dcaf.client.Approval": Entry({"id": "c1", "name": "x", "input": {}, "description": "", "intent": "", "body": {}}),
    "dcaf.client.Approval.read": Entry({"item": {"id": "c1"}}, on=lambda: Approval),
    "dcaf.client.Client": Entry({"base_url": Fresh(url)}, then=said),
    "dcaf.client.Client.send": Entry({"said": "hello", "decisions": None}, on=client, extra=("thread_id",)),
    "dcaf.client.Client.stream": Entry({"said": "hello", "decisions": None}, on=client, then=read, extra=("thread_id",)),
    "dcaf.client.Client.socket": Entry(on=client),
    "dcaf.client.Client.close": Entry(on=client),
    "dcaf.client.AsyncClient": Entry({"base_url": Fresh(url)}, then=said_async),
    "dcaf.client.AsyncClient.send": Entry({"said": "hello", "decisions": None}, on=async_client, extra=("thread_id",)),
    "dcaf.client.AsyncClient.stream": Entry({"said": "hello", "decisions": None}, on=async_client, then=read, extra=("thread_id",)),
    "dcaf.client.AsyncClient.socket": Entry(on=async_client),
    "dcaf.client.AsyncClient.close": Entry(on=async_client),
    "dcaf.client.AsyncSocket": Entry(
        {"conversation": Fresh(Conversation), "url": Fresh(socket_url), "headers": {}, "timeout_s": 5.0}, then=said_async
    ),
    "dcaf.client.AsyncSocket.send": Entry(
        {"said": "hello", "decisions": None}, on=lambda: async_client().socket(), extra=("thread_id",)
    ),
    "dcaf.client.AsyncSocket.stream": Entry({"said": "hello"}, on=lambda: async_client().socket(), then=read, extra=("thread_id",)),
    "dcaf.client.AsyncSocket.close": Entry(on=lambda: async_client().socket()),
    "dcaf.client.Socket": Entry(
        {"conversation": Fresh(Conversation), "url": Fresh(socket_url), "headers": {}, "timeout_s": 5.0}, then=said
    ),
    "dcaf.client.Socket.send": Entry({"said": "hello", "decisions": None}, on=lambda: client().socket(), extra=("thread_id",)),
    "dcaf.client.Socket.stream": Entry({"said": "hello"}, on=lambda: client().socket(), then=read, extra=("thread_id",)),
    "dcaf.client.Socket.close": Entry(on=lambda: client().socket()),
    "dcaf.client.Conversation": Entry({"fields": {"a": 1}}, then=lambda found: found.body({"role": "user", "content": "x"}, {})),
    "dcaf.client.Conversation.body": Entry({"message": {"role": "user", "content": "x"}, "fields": {}}, on=Conversation),
    "dcaf.client.Conversation.adopt": Entry({"value": {"data": {"session": {"a": 1}}}}, on=Conversation),
    "dcaf.client.Conversation.settle": Entry({"items": [{"id": "a"}]}, on=Conversation),
    "dcaf.client.Conversation.keep": Entry({"message": {"content": "x"}, "answer": {"content": "y"}}, on=Conversation),
    "dcaf.client.Event": Entry({"body": {"type": "x"}}, then=lambda found: (found.type, found.text)),
    "dcaf.client.Reply": Entry(
        {"body": {"content": "x"}}, then=lambda found: (found.text, found.data, found.session, found.approvals)
    ),
    "dcaf.client.Retries": Entry(
        {"pauses": (timedelta(0),), "patience": timedelta(seconds=1)}, then=lambda found: Conversation(retries=found)
    ),
    "dcaf.client.Turn": Entry({"conversation": Fresh(Conversation), "said": "hello"}, then=lambda found: found.request()),
    "dcaf.client.Turn.request": Entry(on=turn),
    "dcaf.client.Turn.answered": Entry({"status": 200, "headers": JSON, "content": b'{"content":"x"}'}, on=turn),
    "dcaf.client.Turn.feed": Entry({"chunk": LINE}, on=turn, then=read),
    "dcaf.client.Turn.lost": Entry(on=turn),
    "dcaf.client.Turn.announce": Entry(on=turn, then=read),
    "dcaf.client.Turn.ended": Entry(on=turn, then=read, fails=True),
    "dcaf.client.Turn.frame": Entry({"text": DONE}, on=turn),
    "dcaf.client.Turn.is_stream": Entry({"status": 200, "headers": JSON}, on=turn),
    "dcaf.client.Turn.patience": Entry({"timeout_s": 1.0}, on=turn),
    "dcaf.client.Turn.leave": Entry({"frames": [DONE]}, on=turn),
    "dcaf.client.Turn.overheard": Entry({"text": DONE}, on=turn),
    # demo
    "dcaf.demo.create_agent": Entry({"pace": timedelta(0)}, then=lambda found: found.run_async("start")),
    "dcaf.demo.create_demo": Entry(
        {"keys": RING, "pace": timedelta(0)},
        then=lambda app: call(app, {"messages": [{"role": "user", "content": "start"}]}),
        extra=("plain", "exempt", "nothing"),
    ),
    # integrations
    "dcaf.integrations.fastapi.SessionData": Entry({"session": {"a": 1}}, is_model=True),
    "dcaf.integrations.starlette.SessionMiddleware": Entry(
        {"app": application, "keys": RING, "audience": "shop"}, then=asked, extra=("encrypt", "exempt", "secret_key", "nothing")
    ),
    # testing
    "dcaf.testing.SessionClient": Entry({"app": Fresh(served)}),  # an application that answers nothing is told by its transport
    "dcaf.testing.SessionClient.send": Entry({"text": "hello"}, on=lambda: SessionClient(served()), extra=("thread_id",)),
    "dcaf.testing.SessionClient.decide": Entry({"decision": True, "text": ""}, on=waiting),
    "dcaf.testing.SessionClient.post": Entry({"body": {"messages": []}}, on=lambda: SessionClient(served())),
    "dcaf.testing.SessionClient.close": Entry(on=lambda: SessionClient(served())),
    "dcaf.testing.AsyncSessionClient": Entry({"app": Fresh(served)}),
    "dcaf.testing.AsyncSessionClient.send": Entry({"text": "hello"}, on=lambda: AsyncSessionClient(served()), extra=("thread_id",)),
    "dcaf.testing.AsyncSessionClient.decide": Entry({"decision": True, "text": ""}, on=waiting_async),
    "dcaf.testing.AsyncSessionClient.post": Entry({"body": {"messages": []}}, on=lambda: AsyncSessionClient(served())),
    "dcaf.testing.AsyncSessionClient.close": Entry(on=lambda: AsyncSessionClient(served())),
    "dcaf.testing.FrozenClock": Entry(then=lambda clock: clock()),
    "dcaf.testing.FrozenClock.tick": Entry({"by": timedelta(seconds=1)}, on=FrozenClock),
    "dcaf.testing.Misuse": Entry({"level": "L0", "status": 400, "code": "x", "setting": None, "play": print}),
    "dcaf.testing.Misuse.expected": Entry({"settings": {"subject"}}, on=lambda: MISUSES["swap users"]),
    "dcaf.testing.Reply": Entry(
        {"status": 200, "body": {"content": "x"}, "headers": JSON, "sent_bytes": 1},
        then=lambda found: (found.session, found.text, found.code),
    ),
    "dcaf.testing.Reply.of_answer": Entry({"status": 200, "headers": JSON, "content": b"{}", "sent_bytes": 1}, on=lambda: Reply),
    "dcaf.testing.Reply.of_frames": Entry({"frames": [DONE], "sent_bytes": 1}, on=lambda: Reply),
    "dcaf.testing.aborted": Entry({"client": Fresh(lambda: SessionClient(served())), "text": "hello"}),
    "dcaf.testing.cut": Entry({"body": b"abc", "at": 1}),
    "dcaf.testing.expired": Entry({"state": {"a": 1}, "keys": RING, "audience": "shop"}, extra=("subject", "nothing")),
    "dcaf.testing.fixed_keys": Entry(),
    "dcaf.testing.held": Entry({"content_type": "application/json", "text": b"{}", "old": None}),
    "dcaf.testing.sealed": Entry({"state": {"a": 1}, "keys": RING, "audience": "shop"}),
    "dcaf.testing.serving": Entry({"app": application, "port": 0}),  # the server runs where it is entered
    "dcaf.testing.tampered": Entry({"envelope": {"dcaf": {"token": "dcaf1s.k7.e30.e30.c2ln"}}}),
}
"""Name of a public callable -> a right call of it."""

NOBODYS: frozenset[str] = frozenset(
    [
        *(
            f"dcaf.testing.{kind}EngineContract{name}" for kind in ("", "Search") for name in ("", ".make_engine")
        ),  # made by pytest; written by its user
        *(
            f"dcaf.asgi.{made}.{name}"
            for made in ("CookieCarrier", "HeaderCarrier")
            for name in ("serves", "read", "write", "clear", "varied")
        ),
        *(
            f"dcaf.testing.{made}.{name}"
            for made in ("SessionClient", "AsyncSessionClient")
            for name in ("asked", "decided", "body", "adopted", "kept", "overheard")
        ),
        *(f"dcaf.client.{made}{name}" for made in ("Stream", "AsyncStream") for name in ("", ".close")),  # made by a client
        *("dcaf.engines.Outcome", "dcaf.engines.Health"),  # made by an engine
        "dcaf.tools.PendingCall",  # made by pending()
        "dcaf.tools.Verdict",  # made by decide()
        "dcaf.agent.StreamingMode",  # a choice of three
        "dcaf.agent.AgentResponse",  # made by a run
        "dcaf.agent.ChatRequest",  # made by ChatRequest.read()
        "dcaf.core.Claims.read",
        "dcaf.core.Claims.write",
        *(f"dcaf.core.Binding.{name}" for name in ("check", "digests")),
        *(
            f"dcaf.core.StatelessLease.{name}" for name in ("spend", "give_back", "latest", "commit", "end", "rotate", "release")
        ),  # a turn asks its lease
        "dcaf.core.HostTurn",  # made by a host
        "dcaf.service.Imported",  # made by an import
        *(f"dcaf.service.{name}" for name in ("Memory", "SyncMemory", "UserMemory", "SyncUserMemory", "Remembered")),
        *(f"dcaf.service.{name}" for name in ("Documents", "SyncDocuments", "AppDocuments", "SyncAppDocuments")),
        *(f"dcaf.service.{name}" for name in ("Document", "DocumentTransaction")),
        *(f"dcaf.service.{name}" for name in ("Artifact", "ArtifactVersion", "ArtifactStream", "Artifacts", "SyncArtifacts")),
        *(f"dcaf.service.{name}" for name in ("Checkpoint", "MessageEvent", "Purged", "StateEvent")),
        *(f"dcaf.service.{name}" for name in ("FoundFact", "FoundMessage", "Snippet", "SyncMessages")),  # made by a search
        *(
            f"dcaf.service.{name}"
            for name in (
                "Erased",
                "Reencrypted",
                "Reencrypted.plus",
                "HistoryPage",
                "Kept",
                "Kept.new",
                "Kept.of",
                "Kept.after",
                "Kept.moved",
                "ListPage",
            )
        ),
        *(f"dcaf.service.{name}" for name in ("KeptSession", "Message.placed", "ServiceTurn", "Messages", "SyncSessionService")),
        "dcaf.ledger.Ledger.open_with",  # for a store that goes along with it
        *(
            f"dcaf.service.{name}.save" for name in ("SessionService", "SyncSessionService")
        ),  # asked with a session that it has made
    ]
)
"""What only the library itself calls."""


ENTRIES.update(
    {
        name.replace("dcaf.core.Session.", "dcaf.service.KeptSession."): replace(entry, on=kept_session)
        for name, entry in list(ENTRIES.items())
        if name.startswith("dcaf.core.Session.") and entry.on is state
    }
)
ENTRIES.update(  # a service ends the sessions that it keeps
    {
        f"dcaf.service.KeptSession.{name}": replace(ENTRIES[f"dcaf.service.KeptSession.{name}"], fails=True)
        for name in ("end", "rotate")
    }
)
ENTRIES.update(
    {f"dcaf.service.KeptSession.{name}": ENTRIES[f"dcaf.core.Session.{name}"] for name in ("from_dict", "of", "fromkeys")}
)


def callables() -> Iterator[tuple[str, Any]]:
    """Every public callable, by its name: functions, classes, and the methods of classes that dcaf has written."""
    told: set[int] = set()
    for package in PACKAGES:
        module = import_module(package)
        for name in names_of(module):
            value = getattr(module, name)
            if id(value) in told or not _is_ours(value):
                continue
            told.add(id(value))
            yield f"{package}.{name}", value
            if isinstance(value, type) and not issubclass(value, dict):  # whose methods end as a dict's do
                yield from ((f"{package}.{name}.{method}", value) for method in _methods(value))


def _is_ours(value: Any) -> bool:
    """Whether it is called: no exception, whose arguments are words, no alias of types and no Protocol."""
    is_made = isinstance(value, type) and not issubclass(value, Exception) and not getattr(value, "_is_protocol", False)
    return is_made or inspect.isroutine(value)


def _methods(value: type) -> list[str]:
    found: dict[str, None] = {}
    for base in value.__mro__:
        for name, member in vars(base).items():
            is_ours = base.__module__.startswith("dcaf") and not name.startswith(("_", "test_"))  # tests are called by pytest
            is_mapping = issubclass(value, Session | ReadOnlySession) and (
                name in DUNDERS or name in ("pop", "popitem", "setdefault")
            )
            if (is_ours or is_mapping) and base is not object and inspect.isroutine(getattr(member, "__func__", member)):
                found[name] = None
    return list(found)
