"""Quotas: how many messages a session may have and how many sessions a user; and what is said where a limit is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from dcaf import SessionMiddleware, current_session
from dcaf.agent import Agent, create_app
from dcaf.core import ConfigurationError, DcafError, Key, Keyring, QuotaExceededError, SessionHost, SessionValueError
from dcaf.engines import MemoryEngine
from dcaf.service import ArtifactStore, KeptSession, Messages, Purged, Quotas, SessionService, commits
from dcaf.service.artifact_values import MOST_METADATA_BYTES
from dcaf.service.document_rows import LIMIT_BYTES as DOCUMENT_BYTES
from dcaf.service.journal import MOST_BYTES as MESSAGE_BYTES
from dcaf.service.memory import LIMIT_BYTES as FACT_BYTES
from dcaf.testing import SessionClient
from tests.service.encrypted_places import BEFORE
from tests.service.kept_places import Calls, KeptPlace, Watched

RING = Keyring(Key.from_bytes("k7", bytes(range(32))))
SECRET = "penicillin"
HERE: dict[str, Any] = {"user": "p", "id": "v"}


def say(count: int) -> list[tuple[str, str]]:
    return [("user", f"{SECRET} {at}") for at in range(count)]


def kept_of(sessions: SessionService, user: str = "p", session_id: str = "v") -> KeptSession:
    found = sessions.sync.get(user=user, id=session_id)
    assert found is not None
    return found


def rows_of(sessions: SessionService) -> list[bytes]:
    """All that is kept."""
    return [*sessions.sync.export()]


def do_turn(sessions: SessionService, messages: int, *, documents: bool = True) -> None:
    """A turn that writes everywhere: state, what is shared, facts, documents, a checkpoint, and so many messages."""
    with sessions.sync.open(**HERE) as session:
        session.append("steps", 1)
        session.user["theme"] = "dark"
        session["app:hits"] = session.get("app:hits", 0) + 1
        session.memory.sync.set("allergy", SECRET)
        if documents:  # a service that encrypts keeps none
            session.documents.sync.put("scan", SECRET)
        session.checkpoint("before")
        for role, content in say(messages):
            session.messages.add(role, content)


# Messages of a session.


STEPS = st.lists(st.tuples(st.sampled_from(["turn", "append", "rewind"]), st.integers(0, 4)), max_size=12)


def check_steps(quotas: Quotas, limit: int, steps: list[tuple[str, int]]) -> None:
    """A session has as many messages as the limit says and not one more; what is refused changes nothing."""
    sessions = SessionService("memory://", app="clinic", quotas=quotas)
    sessions.sync.create(**HERE)
    total = 0
    for step, count in steps:
        if step == "rewind":
            total = min(total, count)
            sessions.sync.rewind(**HERE, to=total)
        elif count and total + count > limit:
            before = rows_of(sessions)
            with pytest.raises(QuotaExceededError) as refused:
                add(sessions, step, count)
            assert (refused.value.quota, refused.value.limit, refused.value.size) == ("messages", limit, total + count)
            assert rows_of(sessions) == before
        else:
            add(sessions, step, count)
            total += count
        assert sessions.sync.messages(**HERE, limit=100).total == total


def add(sessions: SessionService, way: str, count: int) -> None:
    if way == "turn":
        do_turn(sessions, count)
    else:
        sessions.sync.append(**HERE, messages=say(count))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), STEPS)
def test_a_session_has_as_many_messages_as_its_quota_and_not_one_more(limit: int, steps: list[tuple[str, int]]) -> None:
    check_steps(Quotas(messages=limit), limit, steps)


def test_control_a_quota_that_is_one_off_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_steps(Quotas(messages=3), 2, [("append", 3)])


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_turn_over_the_quota_writes_nothing_at_all(kept_place: KeptPlace, encrypted: bool) -> None:
    sessions = kept_place.open_service(quotas=Quotas(messages=3), encrypt=BEFORE if encrypted else None)
    sessions.sync.create(**HERE)
    do_turn(sessions, 2, documents=not encrypted)
    before = rows_of(sessions)
    with pytest.raises(QuotaExceededError):
        do_turn(sessions, 2, documents=not encrypted)
    assert rows_of(sessions) == before
    do_turn(sessions, 1, documents=not encrypted)
    do_turn(sessions, 0, documents=not encrypted)
    assert (kept_of(sessions)["steps"], kept_of(sessions).messages.total) == ([1, 1, 1], 3)


def test_what_another_one_adds_while_a_turn_goes_on_counts(kept_place: KeptPlace) -> None:
    add_beside(kept_place)


def add_beside(kept_place: KeptPlace) -> None:
    """Two turns, while each of which somebody else adds a message: the second one has no room any more when it is committed."""
    sessions, others = (kept_place.open_service(quotas=Quotas(messages=3)) for _ in range(2))
    sessions.sync.create(**HERE)
    for total in (0, 2):
        with pytest.raises(QuotaExceededError) if total else nullcontext(), sessions.sync.open(**HERE) as session:
            session.messages.add("user", "Hello!")
            others.sync.append(**HERE, messages=say(1))
    assert kept_of(sessions).messages.total == 3


def test_control_a_quota_that_no_commit_compares_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "check_messages", lambda *_: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        add_beside(KeptPlace("memory"))


def test_an_append_goes_by_what_is_there_and_not_by_what_was_known_last(kept_place: KeptPlace) -> None:
    sessions, others = (kept_place.open_service(quotas=Quotas(messages=2)) for _ in range(2))
    sessions.sync.create(**HERE)
    assert sessions.sync.append(**HERE, messages=say(2)) == 2
    others.sync.rewind(**HERE, to=0)
    assert sessions.sync.append(**HERE, messages=say(2)) == 2
    with pytest.raises(QuotaExceededError):
        sessions.sync.append(**HERE, messages=say(1))
    assert sessions.sync.append(**HERE, messages=[]) == 2


def test_a_quota_that_comes_later_takes_nothing_away() -> None:
    engine = MemoryEngine()
    SessionService(engine, app="clinic").sync.create(**HERE)
    SessionService(engine, app="clinic").sync.append(**HERE, messages=say(5))
    sessions = SessionService(engine, app="clinic", quotas=Quotas(messages=3))
    do_turn(sessions, 0)
    for refused in (lambda: do_turn(sessions, 1), lambda: sessions.sync.fork(**HERE, new_id="w")):
        with pytest.raises(QuotaExceededError, match=r"[56] messages"):
            refused()
    assert sessions.sync.get(user="p", id="w") is None
    assert sessions.sync.rewind(**HERE, to=2) == 3
    do_turn(sessions, 1)
    assert sessions.sync.fork(**HERE, new_id="w").messages == 3


# Sessions of a user.


def export_one(user: str) -> list[bytes]:
    others = SessionService("memory://", app="clinic")
    others.sync.create(user=user, id="imported")
    return [*others.sync.export()]


def begin_one(sessions: SessionService) -> None:
    with sessions.sync.open(user="p") as session:
        session["step"] = 1


WAYS: dict[str, Callable[[SessionService], object]] = {
    "create": lambda sessions: sessions.sync.create(user="p"),
    "get_or_create": lambda sessions: sessions.sync.get_or_create(user="p", id="w"),
    "open": begin_one,
    "fork": lambda sessions: sessions.sync.fork(**HERE),
    "import_lines": lambda sessions: sessions.sync.import_lines(export_one("p")),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_makes_a_session_is_refused_at_the_quota(way: str) -> None:
    sessions = SessionService("memory://", app="clinic", quotas=Quotas(sessions=2))
    for name in ("v", "u"):
        sessions.sync.create(user="p", id=name)
    before = rows_of(sessions)
    with pytest.raises(QuotaExceededError) as refused:
        WAYS[way](sessions)
    assert (refused.value.quota, refused.value.limit, refused.value.size) == ("sessions", 2, 2)
    assert str(refused.value).startswith("Line 2: The user" if way == "import_lines" else "The user")
    assert rows_of(sessions) == before
    assert sessions.sync.get_or_create(**HERE).id == "v"
    assert sessions.sync.delete(user="p", id="u")
    WAYS[way](sessions)


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_quota_of_sessions_on_every_engine(kept_place: KeptPlace, encrypted: bool) -> None:
    more: dict[str, Any] = {"quotas": Quotas(sessions=2), "encrypt": BEFORE if encrypted else None}
    sessions = kept_place.open_service(**more, ttl=timedelta(days=1))
    sessions.sync.create(**HERE)
    sessions.sync.archive(**HERE)
    sessions.sync.create(user="p", id="w")
    for refused in (lambda: sessions.sync.create(user="p"), lambda: sessions.sync.fork(user="p", id="w")):
        with pytest.raises(QuotaExceededError, match=r"at least 2 sessions, and may have 2\."):
            refused()
    assert len(sessions.sync.list(user="p").items) == len(sessions.sync.list(user="p", archived=True).items) == 1
    for _ in range(3):  # no quota is theirs
        sessions.sync.create(user=None)
    sessions.sync.create(user="q")
    kept_place.open_service(app="other", **more).sync.create(user="p")
    assert sessions.sync.delete(**HERE)
    sessions.sync.create(user="p", id="x")


def test_the_quota_is_asked_in_each_way_of_calling(calls: Calls) -> None:
    async def test(_: Calls) -> None:
        limited = calls.of(SessionService(calls.service.engine, app="limited", quotas=Quotas(sessions=1)))
        async with limited.open(user="p") as session:
            session["step"] = 1
        with pytest.raises(QuotaExceededError):
            async with limited.open(user="p"):
                raise AssertionError
        with pytest.raises(QuotaExceededError):
            await limited.create(user="p")

    calls.run(test)


def test_what_has_ended_counts_until_a_purge() -> None:
    now = [1_000_000.0]
    engine = MemoryEngine(clock=lambda: now[0])
    sessions = SessionService(engine, app="clinic", ttl=timedelta(hours=1), quotas=Quotas(sessions=1))
    sessions.sync.create(**HERE)
    now[0] += 7_200
    assert sessions.sync.get(**HERE) is None
    with pytest.raises(QuotaExceededError, match="until a purge"):
        sessions.sync.create(user="p")
    assert sessions.sync.purge().sessions == 1
    sessions.sync.create(user="p")


def test_an_import_that_replaces_makes_no_session_more() -> None:
    sessions = SessionService("memory://", app="clinic", quotas=Quotas(sessions=1))
    sessions.sync.create(user="p", id="imported")
    assert sessions.sync.import_lines(export_one("p"), replace=True).sessions == 1
    others = SessionService("memory://", app="clinic")
    others.sync.create(**HERE)
    others.sync.append(**HERE, messages=say(2))
    with pytest.raises(QuotaExceededError, match=r"Line 2: The session would have 2 messages, and may have 1\."):
        SessionService("memory://", app="clinic", quotas=Quotas(messages=1)).sync.import_lines(others.sync.export())


@pytest.mark.parametrize("partitions", [1, 8])
def test_a_quota_costs_no_trip(partitions: int) -> None:
    done = []
    for quotas in (None, Quotas(sessions=9, messages=9)):
        engine: Any = Watched(MemoryEngine(partitions=partitions))
        sessions = SessionService(engine, app="clinic", quotas=quotas)
        sessions.sync.create(**HERE)
        do_turn(sessions, 2)
        sessions.sync.append(**HERE, messages=say(1))
        with sessions.sync.open(user="p") as session:
            session["step"] = 1
        done.append(engine.done)
    assert done[0] == done[1]


# Behind a middleware.


def make_client(sessions: SessionService, **more: Any) -> SessionClient:
    """An application that adds as many messages as it is told to, and keeps how often it ran."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session, words = current_session(KeptSession), scope["path"].strip("/").split("-")
        if words[0] == "add":
            session["turns"] = session.get("turns", 0) + 1
            session.memory.sync.set("allergy", SECRET)
            for role, content in say(int(words[1])):
                session.messages.add(role, content)
        await JSONResponse({"content": "done"})(scope, receive, send)

    return SessionClient(SessionMiddleware(app, keys=RING, audience="clinic", store=sessions, subject=lambda _: "p"), **more)


def test_behind_a_middleware_the_client_gets_a_problem_and_nothing_is_written(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service(quotas=Quotas(messages=3))
    client = make_client(sessions, path="/add-2")
    assert client.send("hi").status == 200
    before, envelope = rows_of(sessions), client.envelope
    refused = client.send("hi")
    assert (refused.status, refused.body["code"], refused.body["title"]) == (409, "quota-exceeded", "Conflict")
    assert refused.body["detail"] == QuotaExceededError.detail
    assert "data" not in refused.body  # its session is good
    assert rows_of(sessions) == before
    statuses = []
    for path in ("/add-1", "/add-1", "/add-0"):
        client = make_client(sessions, path=path)
        client.envelope = envelope
        statuses.append(client.send("hi").status)
        envelope = client.envelope
    assert statuses == [200, 409, 200]
    kept = sessions.sync.list(user="p").items[0]
    assert (kept.messages, kept_of(sessions, "p", kept.id)["turns"]) == (3, 3)


def test_behind_a_middleware_a_session_too_many_is_refused_when_it_would_be_kept(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service(quotas=Quotas(sessions=1))
    first = make_client(sessions, path="/add-1")
    assert first.send("hi").status == 200
    before = rows_of(sessions)
    refused = make_client(sessions, path="/add-1").send("hi")
    assert (refused.status, refused.body["code"]) == (409, "quota-exceeded")
    assert make_client(sessions, path="/nothing").send("hi").status == 200  # it keeps none: a way to make room stays open
    assert rows_of(sessions) == before
    assert first.send("hi").status == 200
    assert len(sessions.sync.list(user="p").items) == 1


def test_whoever_logs_in_takes_a_session_along_whatever_the_quota() -> None:
    sessions = SessionService("memory://", app="clinic", quotas=Quotas(sessions=1, messages=2))
    sessions.sync.create(**HERE)
    host = SessionHost(keys=RING, audience="clinic", store=sessions)

    async def test() -> None:
        async with host.turn(None) as turn:
            Messages.of(turn.session).add("user", "Hello!")
        envelope = turn.envelope
        with pytest.raises(QuotaExceededError):
            async with host.turn(envelope) as turn:
                turn.session.rotate(subject="p")
                for role, content in say(2):
                    Messages.of(turn.session).add(role, content)
        assert sessions.sync.purge() == Purged(0, 0, 0)  # nothing was copied before it was refused
        async with host.turn(envelope) as turn:
            turn.session.rotate(subject="p")
        async with host.turn(turn.envelope, subject="p") as turn:
            Messages.of(turn.session).add("user", "Bye!")

    anyio.run(test)
    assert [item.messages for item in sessions.sync.list(user="p").items] == [2, 0]


def test_sessions_that_are_begun_in_the_same_moment_may_all_be_kept() -> None:
    sessions = SessionService("memory://", app="clinic", quotas=Quotas(sessions=1))
    with sessions.sync.open(user="p") as one, sessions.sync.open(user="p") as other:
        one["step"] = other["step"] = 1
    assert len(sessions.sync.list(user="p").items) == 2  # as the guide says
    with pytest.raises(QuotaExceededError):
        sessions.sync.create(user="p")


def test_an_agent_that_keeps_its_conversation_asks_no_model_where_nothing_can_be_kept() -> None:
    asked = []

    def agent(messages: Any, context: Any) -> str:
        asked.append(len(messages))
        return "How many replicas?"

    sessions = SessionService("memory://", app="clinic", quotas=Quotas(messages=3))
    app = create_app(Agent(agent, name="agent"), keys=RING, audience="clinic", store=sessions, history="server")
    client, session = TestClient(app), None
    statuses = []
    for _ in range(3):
        body = {"messages": [{"role": "user", "content": SECRET}], "data": {"session": session}}
        answer = client.post("/api/chat", json=body)
        statuses.append((answer.status_code, answer.json().get("code")))
        session = answer.json().get("data", {}).get("session", session)
    (kept,) = sessions.sync.list_all().items
    assert statuses == [(200, None), (409, "quota-exceeded"), (409, "quota-exceeded")]
    assert (kept.messages, asked) == (2, [1, 3, 3])  # there was room for what the user said, and not for an answer
    sessions.sync.append(user=None, id=kept.id, messages=say(1))
    assert client.post("/api/chat", json=body).status_code == 409
    assert len(asked) == 3


# What is said.


def limited() -> SessionService:
    store = ArtifactStore("memory://", limit_bytes=100, most_names=1, most_versions=2)
    sessions = SessionService("memory://", app="clinic", artifacts=store, quotas=Quotas(sessions=1, messages=1))
    sessions.sync.create(**HERE)
    sessions.sync.append(**HERE, messages=say(1))
    for _ in range(2):
        sessions.sync.artifacts(**HERE).save("scan", b"1")
    return sessions


def save_to(store: ArtifactStore, text: str) -> None:
    SessionService("memory://", app="clinic", artifacts=store).artifacts(user="p").sync.save("user:scan", text)


def long(count: int) -> str:
    return (SECRET * (count // len(SECRET) + 1))[:count]


LIMITS: dict[str, tuple[Callable[[SessionService, KeptSession], object], str, str]] = {
    "messages": (lambda sessions, _: sessions.sync.append(**HERE, messages=say(1)), "1", "2"),
    "sessions": (lambda sessions, _: sessions.sync.create(user="p"), "1", "1"),
    "a message": (lambda _, one: one.messages.add("user", long(MESSAGE_BYTES)), f"{MESSAGE_BYTES:,}", "1,048,6"),
    "a fact": (lambda _, one: one.memory.sync.set("k", long(FACT_BYTES)), f"{FACT_BYTES:,}", f"{FACT_BYTES + 2:,}"),
    "the key of a fact": (lambda _, one: one.memory.sync.set(long(257), 1), "256", "257"),
    "a document": (
        lambda _, one: one.documents.sync.put("k", long(DOCUMENT_BYTES)),
        f"{DOCUMENT_BYTES:,}",
        f"{DOCUMENT_BYTES + 2:,}",
    ),
    "the bytes of a document": (
        lambda _, one: one.documents.sync.put("k", long(DOCUMENT_BYTES + 1).encode()),
        f"{DOCUMENT_BYTES:,}",
        f"{DOCUMENT_BYTES + 1:,}",
    ),
    "the key of a document": (lambda _, one: one.documents.sync.put(long(201), 1), "200", "201"),
    "the beginning of keys": (lambda _, one: one.documents.sync.scan(long(201)), "200", "201"),
    "an artifact": (lambda _, one: save_to(ArtifactStore("memory://", limit_bytes=100), long(101)), "100", "more than"),
    "names of artifacts": (lambda _, one: one.artifacts.sync.save("other", "1"), "1", "so many there are"),
    "versions of an artifact": (lambda _, one: one.artifacts.sync.save("scan", "1"), "2", "so many it has"),
    "the name of an artifact": (lambda _, one: one.artifacts.sync.save(long(257), "1"), "256", "257"),
    "the metadata of an artifact": (
        lambda _, one: one.artifacts.sync.save("scan", "1", metadata={"k": long(MOST_METADATA_BYTES)}),
        f"{MOST_METADATA_BYTES:,}",
        f"{MOST_METADATA_BYTES + 8:,}",
    ),
    "a media type": (lambda _, one: one.artifacts.sync.save("scan", "1", mime="text/" + long(251)), "255", "256"),
    "the id of a session": (lambda sessions, _: sessions.sync.create(user="q", id=long(257)), "256", "257"),
    "a user": (lambda sessions, _: sessions.sync.create(user=long(300)), "256", "300"),
    "an application": (lambda _, __: SessionService("memory://", app=long(300)), "256", "300"),
    "a checkpoint": (lambda _, one: one.checkpoint(long(257)), "256", "257"),
    "a space": (lambda sessions, _: sessions.sync.documents.put(long(257), "k", 1), "256", "257"),
}
"""What is limited -> what goes beyond it, the limit, and the size or what stands for it."""


def find_leaks(said: str) -> Iterator[str]:
    """What of the content is in a text."""
    yield from (word for word in (SECRET, SECRET[:5]) if word in said)


@pytest.mark.parametrize("what", LIMITS)
def test_an_error_of_a_limit_has_the_limit_and_the_size_and_nothing_of_the_content(what: str) -> None:
    sessions = limited()
    before, (act, limit, size) = rows_of(sessions), LIMITS[what]
    with pytest.raises((QuotaExceededError, SessionValueError, ConfigurationError)) as refused:
        act(sessions, kept_of(sessions))
    said = str(refused.value)
    assert limit in said
    assert size in said
    for text in (said, repr(refused.value), repr(refused.value.__cause__), repr(refused.value.__context__)):
        assert [*find_leaks(text)] == []
    assert isinstance(refused.value, DcafError)
    assert rows_of(sessions) == before


def test_control_an_error_that_quotes_what_was_given_is_found() -> None:
    assert [*find_leaks(str(SessionValueError(f"{long(257)} is too long")))]


@pytest.mark.parametrize("wrong", [0, -1, True, "5", 1.5])
@pytest.mark.parametrize("name", ["sessions", "messages"])
def test_a_quota_is_a_number_from_1_up(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}= "):
        Quotas(**{name: wrong})


def test_a_quota_of_sessions_is_10_000_at_most_and_a_service_takes_quotas_alone() -> None:
    assert Quotas(sessions=10_000, messages=10**9).sessions == 10_000
    with pytest.raises(ConfigurationError, match="1 to 10,000"):
        Quotas(sessions=10_001)
    with pytest.raises(ConfigurationError, match="quotas="):
        SessionService("memory://", app="clinic", quotas=5)  # type: ignore[arg-type]
