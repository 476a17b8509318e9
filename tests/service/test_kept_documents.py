"""Documents: a plain dict says what each program must find, in turns, in transactions, and call by call, on every engine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dcaf.core import Session, transaction
from dcaf.core.errors import (
    ConfigurationError,
    DocumentConflictError,
    SessionClosedError,
    SessionTypeError,
    SessionValueError,
    StaleSessionError,
    UnknownSessionError,
)
from dcaf.engines import AnyOf, Delete, Engine, Exists, MemoryEngine, Not, Transaction
from dcaf.service import Document, Documents, SessionService, SyncDocuments, document_drafts, document_plans, document_rows
from dcaf.service.document_drafts import DocumentDraft
from dcaf.service.document_rows import LIMIT_BYTES, DocumentChange, DocumentScope
from dcaf.service.tables import DOCUMENTS
from dcaf.tools import ToolRunner, tool
from tests.service.kept_places import KINDS, Calls, KeptPlace, Watched, find_kept_place

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES: Final = max(40, round(2_000 * SCALE))
ROUNDS: Final = max(20, round(1_000 * SCALE))

NAMES: Final = st.sampled_from(["a", "a/1", "a/2", "a/10", "b", "ü", "ü\0", "k" * 200])
PREFIXES: Final = st.sampled_from(["", "a", "a/", "a/1", "ü", "none"])
VALUES: Final = st.sampled_from(
    [0, -(2**63), 2**64 - 1, 1.5, "a\0", [], [1, {"a": None}], {"b": -0.0}, None, b"", b"\0\xff", b"{}"]
)
EXPECTS: Final = st.sampled_from(["any", "any", "right", "absent", "stale"])
ORDERS: Final = st.sampled_from(["ascending", "descending"])
CALLS: Final = st.one_of(
    st.tuples(st.just("put"), NAMES, VALUES, EXPECTS),
    st.tuples(st.just("put"), NAMES, VALUES, EXPECTS),
    st.tuples(st.just("delete"), NAMES, EXPECTS),
    st.tuples(st.just("get"), NAMES),
    st.tuples(st.just("scan"), PREFIXES, st.integers(1, 4), ORDERS),
    st.tuples(st.just("clear"), PREFIXES),
)
STEPS: Final = st.tuples(st.sampled_from(["session", "space", "batch"]), st.booleans(), st.lists(CALLS, min_size=1, max_size=6))
PROGRAMS: Final = st.lists(STEPS, min_size=1, max_size=12)

WHOLE: Final[Any] = [
    ("put", "a/1", 1, "absent"),
    ("put", "a/1", b"\0", "right"),
    ("put", "a/1", 2, "stale"),
    ("put", "a/2", [1], "any"),
    ("put", "b", 1, "absent"),
    ("scan", "a", 1, "descending"),
    ("delete", "a/2", "right"),
    ("delete", "a/2", "any"),
    ("put", "a/2", 1, "right"),
    ("scan", "", 2, "ascending"),
    ("clear", "a/"),
    ("get", "a/1"),
]


class Model:
    """Documents as a dict: key -> value and revision."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Any, int]] = {}
        self.seen: list[int] = []

    def play(self, documents: Any, calls: list[Any], *, committed: bool = True) -> None:
        """Do calls on documents, and on the dict; where the turn is to be given up, on a copy of it."""
        view = self.kept if committed else {**self.kept}
        for kind, *arguments in calls:
            getattr(self, f"do_{kind}")(documents, view, *arguments)

    def expect(self, view: dict[str, tuple[Any, int]], key: str, expect: str) -> int | None:
        there = view[key][1] if key in view else 0
        return {"any": None, "right": there, "absent": 0, "stale": next((old for old in self.seen if old != there), 77)}[expect]

    def do_put(self, documents: Any, view: Any, key: str, value: Any, expect: str) -> None:
        revision = self.expect(view, key, expect)
        if revision not in {None, view[key][1] if key in view else 0}:
            with pytest.raises(DocumentConflictError):
                documents.put(key, value, expect=revision)
            return
        made = documents.put(key, value, expect=revision)
        assert made not in self.seen
        self.seen.append(made)
        view[key] = value, made

    def do_delete(self, documents: Any, view: Any, key: str, expect: str) -> None:
        revision = self.expect(view, key, expect)
        if revision not in {None, view[key][1] if key in view else 0}:
            with pytest.raises(DocumentConflictError):
                documents.delete(key, expect=revision)
            return
        assert documents.delete(key, expect=revision) is (key in view)
        view.pop(key, None)

    def do_get(self, documents: Any, view: Any, key: str) -> None:
        found = documents.get(key)
        assert (found and (found.key, found.value, found.revision)) == ((key, *view[key]) if key in view else None)

    def do_scan(self, documents: Any, view: Any, prefix: str, limit: int, order: str) -> None:
        found, cursor = list[Document](), None
        while True:
            page = documents.scan(prefix, limit=limit, cursor=cursor, order=order)
            assert len(page.items) == limit or page.cursor is None
            found, cursor = [*found, *page.items], page.cursor
            if cursor is None:
                break
        keys = sorted((key for key in view if key.startswith(prefix)), reverse=order == "descending")
        assert [(one.key, one.value, one.revision) for one in found] == [(key, *view[key]) for key in keys]
        assert [type(one.value) for one in found] == [type(view[key][0]) for key in keys]

    def do_clear(self, documents: Any, view: Any, prefix: str) -> None:
        gone = [key for key in view if key.startswith(prefix)]
        assert documents.clear(prefix) == len(gone)
        for key in gone:
            del view[key]


class InSpace:
    """Documents of a space as if they were of a turn, each call written at once."""

    def __init__(self, sessions: SessionService) -> None:
        self._documents = sessions.sync.documents

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._documents, name)
        return lambda *given, **arguments: method("space", *given, **arguments)


class Abandoned(Exception):
    """What ends a turn that is to be given up."""


def play(engine: Engine, program: list[Any]) -> None:
    sessions = SessionService(engine, app=uuid4().hex)
    sessions.sync.create(user="p", id="v")
    ours, theirs = Model(), Model()
    for where, is_committed, calls in program:
        with suppress(Abandoned):
            if where == "space":
                theirs.play(InSpace(sessions), calls)
            elif where == "batch":
                with sessions.sync.documents.transaction("space") as documents:
                    theirs.play(documents, calls, committed=is_committed)
                    end(is_committed)
            else:
                with sessions.sync.open(user="p", id="v") as session:
                    ours.play(session.documents.sync, calls, committed=is_committed)
                    end(is_committed)
        if where == "batch" and is_committed:  # a clear of a batch takes what was there; nothing else has happened
            theirs.play(InSpace(sessions), [("scan", "", 3, "ascending")])
    found = sessions.sync.get(user="p", id="v")
    assert found is not None
    left: list[tuple[Model, Any]] = [(ours, found.documents.sync), (theirs, InSpace(sessions))]
    for model, documents in left:
        model.play(documents, [("scan", "", 3, "descending"), ("scan", "a", 2, "ascending"), ("get", "b")])


def end(is_committed: bool) -> None:
    if not is_committed:
        raise Abandoned


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Engine]]:
    """One of each kind."""
    with TemporaryDirectory() as folder:
        places = [find_kept_place(kind, Path(folder)) for kind in KINDS]
        yield [place.open_engine() for place in places]
        for place in places:
            place.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(KINDS) - 1), PROGRAMS)
@example(
    0,
    [("session", True, WHOLE), ("session", False, WHOLE), ("batch", False, WHOLE), ("batch", True, WHOLE), ("space", True, WHOLE)],
)
def test_a_program_finds_what_a_dict_would_have(engines: list[Engine], at: int, program: list[Any]) -> None:
    play(engines[at], program)


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_has_documents(engines: list[Engine], kind: str) -> None:
    play(engines[KINDS.index(kind)], [(where, True, WHOLE) for where in ("session", "space", "batch")])


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        (document_plans, "require_choice", lambda *_: "ascending"),
        (document_rows, "is_at", lambda record, _: AnyOf(Exists(record), Not(Exists(record)))),
        (document_drafts, "require_revision", lambda *_: None),
    ],
    ids=["one order alone", "a condition that always holds", "no look at what waits"],
)
def test_control_a_broken_part_is_seen(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, broken: Any) -> None:
    monkeypatch.setattr(module, name, broken)
    with pytest.raises((AssertionError, DocumentConflictError, StaleSessionError, pytest.fail.Exception)):
        play(MemoryEngine(), [(where, True, WHOLE) for where in ("session", "space", "batch")])


def count_up(place: KeptPlace, *, expects: bool) -> int:
    """Two writers count in one document, each so many rounds; returns what it says in the end."""
    first = place.open_service()
    first.sync.documents.put("counts", "n", 0)
    writers = [threading.Thread(target=count_alone, args=(place.open_service(), expects)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = first.sync.documents.get("counts", "n")
    assert found is not None
    return int(found.value)


def count_alone(sessions: SessionService, expects: bool) -> None:
    documents = sessions.sync.documents
    for _ in range(ROUNDS):
        while True:
            found = documents.get("counts", "n")
            assert found is not None
            with suppress(DocumentConflictError):
                documents.put("counts", "n", found.value + 1, expect=found.revision if expects else None)
                break


def test_of_two_writers_none_loses_what_it_has_counted(kept_place: KeptPlace) -> None:
    assert count_up(kept_place, expects=True) == 2 * ROUNDS


def test_control_writers_that_expect_nothing_lose() -> None:
    sessions = SessionService(MemoryEngine(), app="clinic")
    sessions.sync.documents.put("counts", "n", 0)
    found = [sessions.sync.documents.get("counts", "n") for _ in range(2)]
    for each in found:
        assert each is not None
        sessions.sync.documents.put("counts", "n", each.value + 1)
    last = sessions.sync.documents.get("counts", "n")
    assert last is not None
    assert last.value == 1


# Turns


def test_two_turns_that_are_merged_write_what_differs_and_conflict_at_what_does_not(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        merging = calls.of(SessionService(calls.service.engine, app="clinic", on_busy="merge"))
        await calls.create(user="p", id="v")
        async with merging.open(user="p", id="v") as one, merging.open(user="p", id="v") as other:
            first = one.documents.sync.put("a", 1, expect=0)
            other.documents.sync.put("b", 2)
            other["step"] = 1
        assert await keys_of(calls) == ["a", "b"]
        with pytest.raises(DocumentConflictError):
            async with merging.open(user="p", id="v") as one:
                async with merging.open(user="p", id="v") as other:
                    other.documents.sync.put("a", 2, expect=first)
                one["step"] = 2
                one.messages.add("user", "Hello!")
                one.documents.sync.put("c", 3)
                one.documents.sync.put("a", 3, expect=first)
        found = await calls.get(user="p", id="v")
        assert found is not None
        assert (found.to_dict(), found.messages.total, await keys_of(calls)) == ({"step": 1}, 0, ["a", "b"])

    calls.run(test)


async def keys_of(calls: Calls, user: str | None = "p", id: str = "v") -> list[str]:  # noqa: A002
    found = await calls.get(user=user, id=id)
    assert found is not None
    page = found.documents.sync.scan() if calls.way == "sync" else await found.documents.scan()
    return [document.key for document in page.items]


def test_of_two_turns_of_one_revision_the_later_writes_no_document() -> None:
    sessions = make()
    with pytest.raises(StaleSessionError), sessions.sync.open(user="p", id="v") as one:
        one.documents.sync.put("a", 1)
        with sessions.sync.open(user="p", id="v") as other:
            other.documents.sync.put("b", 1)
    assert keys(sessions) == ["b"]


def test_what_a_session_is_saved_for_again_goes_on_from_what_was_committed() -> None:
    sessions = make()
    session = sessions.sync.get(user="p", id="v")
    assert session is not None
    first = session.documents.sync.put("a", 1, expect=0)
    sessions.sync.save(session)
    second = session.documents.sync.put("a", 2, expect=first)
    sessions.sync.save(session)
    sessions.sync.save(session)
    found = session.documents.sync.get("a")
    assert found is not None
    assert (found.value, found.revision, session.revision) == (2, second, 3)
    assert found.value_as(int) == 2
    with pytest.raises(SessionTypeError, match="document"):
        found.value_as(list[str])


def test_what_is_written_between_a_freeze_and_its_commit_comes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Watched(MemoryEngine())
    sessions = SessionService(engine, app="clinic")
    sessions.sync.create(user="p", id="v")
    session = sessions.sync.get(user="p", id="v")
    assert session is not None
    first = session.documents.sync.put("a", 1, expect=0)

    def write() -> None:
        session.documents.sync.put("a", 2, expect=first)
        session.documents.sync.put("b", 1)

    engine.before(0, write)
    sessions.sync.save(session)
    assert [one.value for one in scan(sessions)] == [1]
    sessions.sync.save(session)
    assert [one.value for one in scan(sessions)] == [2, 1]


@tool
async def file(key: str, value: int, documents: Documents) -> int:
    """File a value.

    Args:
        key: Its key.
        value: The value.
    """
    found = await documents.get(key)
    await documents.put(key, value, expect=0 if found is None else found.revision)
    if value < 0:
        raise ValueError
    return value


def test_what_a_tool_writes_is_dropped_where_it_fails() -> None:
    assert list(file.input_schema["properties"]) == ["key", "value"]
    sessions = make()

    async def main() -> None:
        async with sessions.open(user="p", id="v") as session:
            for key, value in (("a", 1), ("a", -1), ("b", -1), ("c", 3), ("c", 4)):
                with suppress(Exception):
                    await ToolRunner.of(session).run(file, {"key": key, "value": value})

    anyio.run(main)
    assert [(one.key, one.value) for one in scan(sessions)] == [("a", 1), ("c", 4)]


def call_at_once(*, expects: bool) -> tuple[list[str], list[Any]]:
    """Two calls of one turn that have read the same document, and write it; returns what they raise, and what is kept."""
    sessions, raised = make(), list[str]()

    async def write(session: Any, number: int, ours: anyio.Event, theirs: anyio.Event) -> None:
        try:
            with transaction(session) as draft:
                found = await draft.documents.get("a")
                draft["step"] = number
                await draft.documents.put("a", number, expect=found.revision if expects else None)
                ours.set()
                await theirs.wait()
        except DocumentConflictError as error:
            raised.append(type(error).__name__)

    async def main() -> None:
        async with sessions.open(user="p", id="v") as session:
            await session.documents.put("a", 0, expect=0)
            first, second = anyio.Event(), anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(write, session, 1, first, second)
                group.start_soon(write, session, 2, second, first)

    anyio.run(main)
    found = sessions.sync.get(user="p", id="v")
    assert found is not None
    return raised, [one.value == found["step"] for one in scan(sessions)]


def test_of_two_calls_that_expect_one_revision_the_later_one_is_refused_with_all_that_it_did() -> None:
    assert call_at_once(expects=True) == (["DocumentConflictError"], [True])
    assert call_at_once(expects=False) == ([], [True])


def test_control_calls_whose_documents_are_not_compared_both_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DocumentDraft, "check", lambda *_: None)
    assert call_at_once(expects=True)[0] == []


def test_a_turn_that_writes_documents_alone_is_a_change() -> None:
    sessions = make()
    with sessions.sync.open(user="p", id="v") as session:
        before = session.is_modified
        session.documents.sync.put("a", 1)
        assert (before, session.is_modified) == (False, True)
        late = session.documents.sync
    found = sessions.sync.get(user="p", id="v")
    assert found is not None
    assert found.revision == 2
    with pytest.raises(SessionClosedError):
        late.put("a", 2)
    with pytest.raises(SessionClosedError):
        late.delete("a")
    with pytest.raises(SessionClosedError):
        late.clear()
    assert repr(session.documents) == "<Documents>"


# What becomes of them


def make(**settings: Any) -> SessionService:
    sessions = SessionService(MemoryEngine(partitions=8), app="clinic", **settings)
    sessions.sync.create(user="p", id="v")
    return sessions


def scan(sessions: SessionService, user: str | None = "p", id: str = "v") -> list[Document]:  # noqa: A002
    found = sessions.sync.get(user=user, id=id)
    assert found is not None
    return found.documents.sync.scan().items


def keys(sessions: SessionService, user: str | None = "p", id: str = "v") -> list[str]:  # noqa: A002
    return [one.key for one in scan(sessions, user, id)]


def test_documents_go_with_their_session_and_stay_where_it_is_taken_back(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()
    for user, id_ in (("p", "v"), ("p", "w"), ("q", "v"), (None, "v")):
        with sessions.sync.open(user=user, id=sessions.sync.create(user=user, id=id_).id) as session:
            session.messages.add("user", "Hello!")
            for number in range(60):  # more than are read at once
                session.documents.sync.put(f"{id_}/{number:02}", number)
    sessions.sync.documents.put("space", "k", 1)
    assert sessions.sync.rewind(user="p", id="v", to=0) == 1
    assert len(keys(sessions)) == 60
    fork = sessions.sync.fork(user="p", id="v")
    copied = scan(sessions, id=fork.id)
    assert copied == scan(sessions)
    with sessions.sync.open(user="p", id=fork.id) as session:
        session.documents.sync.put("v/00", "other", expect=copied[0].revision)
        assert session.documents.sync.clear("v/1") == 10
    assert [one.value for one in scan(sessions)] == [*range(60)]
    sessions.sync.archive(user="p", id="v")
    assert len(keys(sessions)) == 60
    assert sessions.sync.delete(user="p", id="v")
    sessions.sync.create(user="p", id="v")
    assert keys(sessions) == []
    assert len(keys(sessions, id=fork.id)) == 50
    erased = sessions.sync.erase(user="p")
    assert (erased.sessions, erased.documents) == (3, 110)
    assert keys(sessions, "q") == keys(sessions, None) == [f"v/{number:02}" for number in range(60)]
    found = sessions.sync.documents.get("space", "k")
    assert found is not None
    sessions.sync.delete(user="q", id="v")
    sessions.sync.delete(user=None, id="v")
    assert [key for key, _ in sessions.engine.sync.scan(DOCUMENTS)] == [
        DocumentScope.of_space("clinic", "space", sessions.engine.partitions).row("k").key
    ]


def test_a_session_that_was_made_anew_under_an_old_id_shows_no_document_of_before() -> None:
    sessions = make()
    old = sessions.sync.get(user="p", id="v")
    assert old is not None
    sessions.sync.delete(user="p", id="v")
    with sessions.sync.open(user="p", id=sessions.sync.create(user="p", id="v").id) as session:
        session.documents.sync.put("a", 1)
    assert old.documents.sync.get("a") is None
    assert old.documents.sync.scan().items == []
    old.documents.sync.put("b", 1)
    with pytest.raises(UnknownSessionError):
        sessions.sync.save(old)
    assert keys(sessions) == ["a"]


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_document_ends_when_its_time_is_over() -> None:
    clock = Clock()
    sessions = SessionService(MemoryEngine(clock=clock), app="clinic")
    sessions.sync.documents.put("space", "a", 1, ttl=timedelta(seconds=10))
    with sessions.sync.open(user="p") as session:
        session.documents.sync.put("a", 1, ttl=timedelta(seconds=10))
        session.documents.sync.put("b", 1)
        foreseen = session.documents.sync.get("a")
        clock.now += 5
    found = scan(sessions, id=session.id)
    assert foreseen is not None
    assert [foreseen.expires_at, found[0].expires_at, found[1].expires_at] == [
        foreseen.updated_at + timedelta(seconds=10),
        foreseen.updated_at + timedelta(seconds=15),
        None,
    ]
    clock.now += 6
    assert sessions.sync.documents.get("space", "a") is None
    sessions.sync.documents.put("space", "a", 2, expect=0)
    clock.now += 6
    assert keys(sessions, id=session.id) == ["b"]
    sessions.sync.documents.put("space", "a", 2)
    sessions.sync.purge()
    assert len(sessions.engine.sync.scan(DOCUMENTS)) == 2


# Transactions of several


def test_several_are_written_or_none(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        documents: Any = calls.service.sync.documents if calls.way == "sync" else calls.service.documents
        first = await ask(documents.put("threads", "a", 1, expect=0))
        await several(calls, lambda batch: [batch.put("a", 2, expect=first), batch.put("b", b"\0"), batch.delete("none")])
        with pytest.raises(DocumentConflictError):
            await several(calls, lambda batch: [batch.put("c", 1), batch.put("b", 1, expect=0)])
        with pytest.raises(DocumentConflictError):
            await several(calls, lambda batch: [batch.put("c", 1), batch.put("a", 3), batch.delete("a", expect=first)])
        page = await ask(documents.scan("threads"))
        assert [(one.key, one.value) for one in page.items] == [("a", 2), ("b", b"\0")]
        assert await ask(documents.clear("threads")) == 2
        assert await ask(documents.get("threads", "a")) is None
        assert await ask(documents.delete("threads", "a")) is False

    calls.run(test)


async def ask(found: Any) -> Any:
    return await found if hasattr(found, "__await__") else found


async def several(calls: Calls, write: Callable[[Any], list[Any]]) -> None:
    if calls.way == "sync":
        with calls.service.sync.documents.transaction("threads") as batch:
            write(batch)
        return
    async with calls.service.documents.transaction("threads") as batch:
        for each in write(batch):
            await each
            await batch.scan()


def test_a_conflict_that_comes_before_the_commit_writes_nothing() -> None:
    engine = Watched(MemoryEngine(partitions=8))
    sessions = SessionService(engine, app="clinic")
    first = sessions.sync.documents.put("threads", "a", 1)
    other = SessionService(engine, app="clinic").sync.documents
    with pytest.raises(DocumentConflictError), sessions.sync.documents.transaction("threads") as batch:
        batch.put("a", 2, expect=first)
        batch.put("b", 2)
        other.put("threads", "a", 3)
    assert [(one.key, one.value) for one in other.scan("threads").items] == [("a", 3)]


def test_control_a_transaction_that_compares_nothing_writes_over_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DocumentChange, "conditions", lambda _: [])
    with pytest.raises(pytest.fail.Exception):
        test_a_conflict_that_comes_before_the_commit_writes_nothing()


def test_a_transaction_is_entered_once_and_takes_nothing_when_it_is_over() -> None:
    sessions = make()
    block = sessions.sync.documents.transaction("threads")
    with block as batch:
        batch.put("a", 1)
        assert isinstance(batch, SyncDocuments)
    with pytest.raises(SessionClosedError, match="transaction is over"):
        batch.put("a", 2)
    with pytest.raises(ConfigurationError, match="entered once"), block:
        pass


def test_applications_and_spaces_share_nothing() -> None:
    engine = MemoryEngine(partitions=8)
    apps = [SessionService(engine, app=app).sync.documents for app in ("a", "b")]
    for number, documents in enumerate(apps):
        for space in ("s", "t"):
            documents.put(space, "k", [number, space])
    for number, documents in enumerate(apps):
        assert [one.value for space in ("s", "t") for one in documents.scan(space).items] == [[number, "s"], [number, "t"]]


def test_one_transaction_is_one_trip_and_a_scan_is_one() -> None:
    engine = Watched(MemoryEngine())
    documents = SessionService(engine, app="clinic").sync.documents
    before = engine.done
    with documents.transaction("threads") as batch:
        for number in range(20):
            batch.put(f"{number:02}", number)
    assert engine.done - before == 1
    assert len(documents.scan("threads").items) == 20
    assert engine.done - before == 2


def test_a_turn_of_documents_is_one_trip_to_open_and_one_to_commit() -> None:
    engine = Watched(MemoryEngine())
    sessions = SessionService(engine, app="clinic")
    sessions.sync.create(user="p", id="v")
    before = engine.done
    with sessions.sync.open(user="p", id="v") as session:
        session.documents.sync.put("a", 1)
        session.documents.sync.put("b", b"1")
    assert engine.done - before == 2


# Exports


def test_documents_are_exported_as_lines_and_imported_the_same() -> None:
    lines = [
        '{"dcaf":"sessions","version":1,"app":"clinic"}',
        '{"kind":"space","space":"threads"}',
        '{"kind":"document","key":"t1","revision":9007199254740991,"updated":1,"expires":null,"binary":false,"value":null}',
        '{"kind":"document","key":"t2","revision":1,"updated":2,"expires":null,"binary":true,"value":"AP8="}',
        '{"kind":"end","lines":2}',
        '{"kind":"done","sessions":0}',
    ]
    for partitions in (1, 8):
        sessions = SessionService(MemoryEngine(partitions=partitions), app="clinic")
        assert sessions.sync.import_lines(lines).shared == 2
        assert [line.decode().strip() for line in sessions.sync.export()] == lines
        assert sessions.sync.import_lines(lines).stayed == 2
        sessions.sync.documents.put("threads", "t1", "later")
        assert sessions.sync.import_lines(lines, replace=True).shared == 2
        assert [line.decode().strip() for line in sessions.sync.export()] == lines
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"revision": 0}, "has a revision of 1"),
        ({"revision": 2**53}, "revision of a line"),
        ({"binary": True, "value": "ä"}, "value of a line"),
        ({"binary": True, "value": 7}, "value of a line"),
        ({"key": ""}, "1 to 200 bytes"),
        ({"key": "k" * 201}, "1 to 200 bytes"),
        ({"value": "x" * LIMIT_BYTES}, "may have"),
    ]
    for changed, problem in wrong:
        broken = {**json.loads(lines[2]), **changed}
        with pytest.raises((ConfigurationError, SessionValueError), match=problem) as caught:
            make().sync.import_lines([lines[0], lines[1], json.dumps(broken)])
        assert str(caught.value).startswith("Line 3")
    with pytest.raises(ConfigurationError, match="Line 3 does not belong"):
        make().sync.import_lines([lines[0], lines[1], '{"kind":"state","key":"a","value":1}'])
    with pytest.raises(ConfigurationError, match="Line 2: space"):
        make().sync.import_lines([lines[0], '{"kind":"space","space":""}'])


def test_many_spaces_of_many_documents_are_exported_in_one_order_whatever_the_partitions() -> None:
    first = SessionService(MemoryEngine(partitions=8), app="clinic")
    for space in range(12):
        for key in range(60 if space == 3 else 2):
            first.sync.documents.put(f"space {space}", f"{key}", key)
    written = list(first.sync.export())
    other = SessionService(MemoryEngine(), app="clinic")
    assert other.sync.import_lines(written).shared == 82
    assert list(other.sync.export()) == written


def export_with_a_turn_between() -> list[bytes]:
    engine = Watched(MemoryEngine())
    sessions = SessionService(engine, app="clinic")
    with sessions.sync.open(user="p") as session:
        session["step"] = 1
        session.documents.sync.put("step", 1)

    def go_on() -> None:
        with sessions.sync.open(user="p", id=session.id) as later:
            later["step"] = 2
            later.documents.sync.put("step", 2)

    engine.before(2, go_on)
    return list(sessions.sync.export(user="p", id=session.id))


def test_an_exported_session_has_state_and_documents_of_one_moment() -> None:
    lines = export_with_a_turn_between()
    whole = lines[lines.index(b'{"kind":"void"}\n') :]
    assert any(b'"step","value":2' in line for line in whole)
    assert sum(line.startswith(b'{"kind":"document"') for line in whole) == 1


def test_control_an_export_that_does_not_look_at_the_revision_is_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    from dcaf.service import exporting

    look = exporting._is_as_read
    monkeypatch.setattr(exporting, "_is_as_read", lambda place, row, **_: look(place, row, has_documents=False))
    with pytest.raises(ValueError, match="not in list"):
        test_an_exported_session_has_state_and_documents_of_one_moment()


# Wrong arguments


WRONG: Final[list[tuple[str, dict[str, Any], type[Exception], str]]] = [
    ("put", {"key": "", "value": 1}, SessionValueError, "1 to 200 bytes"),
    ("put", {"key": "ü" * 101, "value": 1}, SessionValueError, "not 202"),
    ("put", {"key": 7, "value": 1}, SessionValueError, "is a text"),
    ("put", {"key": "\ud800", "value": 1}, SessionValueError, "the key of a document"),
    ("put", {"key": "k", "value": {"a": object()}}, SessionValueError, "document.a"),
    ("put", {"key": "k", "value": b"\0" * (LIMIT_BYTES + 1)}, SessionValueError, "4,194,305 bytes, and may have 4,194,304"),
    ("put", {"key": "k", "value": "s" * LIMIT_BYTES}, SessionValueError, "4,194,306 bytes as JSON"),
    ("put", {"key": "k", "value": 1, "expect": -1}, ConfigurationError, "expect="),
    ("put", {"key": "k", "value": 1, "expect": 2**64}, ConfigurationError, "expect="),
    ("put", {"key": "k", "value": 1, "expect": True}, ConfigurationError, "expect="),
    ("put", {"key": "k", "value": 1, "ttl": timedelta()}, ConfigurationError, "ttl="),
    ("put", {"key": "k", "value": 1, "ttl": 7}, ConfigurationError, "ttl="),
    ("get", {"key": None}, SessionValueError, "is a text"),
    ("delete", {"key": "k", "expect": "1"}, ConfigurationError, "expect="),
    ("scan", {"prefix": "k" * 201}, ConfigurationError, "prefix="),
    ("scan", {"prefix": None}, ConfigurationError, "prefix="),
    ("scan", {"limit": 0}, ConfigurationError, "limit="),
    ("scan", {"limit": 1_001}, ConfigurationError, "limit="),
    ("scan", {"cursor": 7}, ConfigurationError, "cursor="),
    ("scan", {"prefix": "a", "cursor": "b"}, ConfigurationError, "cursor="),
    ("scan", {"order": "newest"}, ConfigurationError, "order"),
    ("clear", {"prefix": b""}, ConfigurationError, "prefix="),
]


@pytest.mark.parametrize(("method", "arguments", "kind", "problem"), WRONG)
def test_wrong_arguments_are_refused_at_the_call(
    method: str, arguments: dict[str, Any], kind: type[Exception], problem: str
) -> None:
    sessions = make()
    with sessions.sync.open(user="p", id="v") as session:
        for documents in (session.documents.sync, InSpace(sessions)):
            with pytest.raises(kind, match=problem) as caught:
                getattr(documents, method)(**arguments)
            assert "sss" not in str(caught.value)
        assert not session.is_modified
    with pytest.raises(ConfigurationError, match="space="):
        sessions.sync.documents.get("", "k")
    with pytest.raises(ConfigurationError, match="space="):
        sessions.sync.documents.transaction("s" * 257)
    assert sessions.engine.sync.scan(DOCUMENTS) == []


def test_a_session_that_no_service_keeps_has_none() -> None:
    with pytest.raises(ConfigurationError, match="no session service keeps it"):
        Documents.of(Session())
    assert not Documents.is_for(Session())


def test_a_page_that_a_crash_has_left_half_deleted_is_gone_on_with() -> None:
    engine = Watched(MemoryEngine())
    documents = SessionService(engine, app="clinic").sync.documents
    with documents.transaction("threads") as batch:
        for number in range(120):
            batch.put(f"{number:03}", number)
    engine.before(3, stop)
    with pytest.raises(Abandoned):
        documents.clear("threads")
    assert documents.clear("threads") == 70
    assert engine.sync.transact(Transaction([], writes=[Delete(DocumentScope.of_space("clinic", "x", 1).row("k"))])).applied


def stop() -> None:
    raise Abandoned
