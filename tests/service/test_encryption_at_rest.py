"""A service that encrypts does what one does that does not; rows that were swapped are refused; keys of before can go."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from dcaf import SessionMiddleware, current_session
from dcaf.core import (
    CommitUnknownError,
    ConfigurationError,
    EngineError,
    Key,
    Keyring,
    SealedRowError,
    Session,
    SessionExistsError,
    UnknownSessionError,
)
from dcaf.core.keys import LiveKeyring
from dcaf.engines import Delete, MemoryEngine, Put, Record, Row, Table, Transaction
from dcaf.ledger import Ledger
from dcaf.service import EncryptedEngine, SessionService
from dcaf.service.encryption import find_sealed
from dcaf.service.encryption_cells import Cells, table_of
from dcaf.service.encryption_layout import LAYOUTS, NAMES
from dcaf.service.tables import ARTIFACTS, MESSAGES, SESSIONS, STATE, Owner
from dcaf.testing import SessionClient
from dcaf.tools import pending
from dcaf.tools.proposals import add_proposal
from tests.service.encrypted_places import AFTER, BEFORE, MEANWHILE, NEW, OLD, WORD, EncryptedPlace, fill
from tests.service.kept_places import KINDS, KeptPlace, Watched, find_kept_place

USER, ID = WORD["user"], WORD["session"]


@pytest.fixture
def place(kept_place: KeptPlace) -> EncryptedPlace:
    """Each kind of place."""
    return EncryptedPlace(kept_place)


@pytest.fixture
def memory() -> Iterator[EncryptedPlace]:
    found = KeptPlace("memory")
    yield EncryptedPlace(found)
    found.close()


# What can be done to a session, of few names, so that steps meet.

NAMES_OF_KEYS = st.sampled_from(["a", "a\0", "user:a", "app:a", "x" * 200])
VALUES = st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.lists(st.booleans(), max_size=2)
STEPS = st.one_of(
    st.tuples(st.just("turn"), st.dictionaries(NAMES_OF_KEYS, VALUES, max_size=2), st.lists(st.text(max_size=3), max_size=2)),
    st.tuples(st.just("remember"), st.sampled_from(["f", "g", "y" * 200]), VALUES),
    st.tuples(st.just("forget"), st.sampled_from(["f", "all"])),
    st.tuples(st.just("append"), st.text(max_size=3)),
    st.tuples(st.just("merge"), NAMES_OF_KEYS, VALUES),
    st.tuples(st.just("checkpoint"), st.sampled_from(["p", "q"])),
    st.tuples(st.just("rewind"), st.integers(0, 3)),
    st.tuples(st.just("fork"), st.sampled_from(["v2", "v3"])),
    st.tuples(st.just("archive")),
    st.tuples(st.just("delete")),
)


class Program:
    """A program of calls, and what a service answers to it.

    Args:
        service: The service.
    """

    def __init__(self, service: SessionService) -> None:
        self.service = service.sync

    def do(self, step: tuple[Any, ...]) -> Any:
        kind, *given = step
        try:
            return getattr(self, kind)(*given)
        except (UnknownSessionError, SessionExistsError, ConfigurationError) as error:
            return type(error)

    def turn(self, values: dict[str, Any], said: list[str]) -> None:
        self.service.get_or_create(user="ada", id="v1")
        with self.service.open(user="ada", id="v1") as session:
            session.update(values)
            for text in said:
                session.messages.add("user", text)

    def remember(self, name: str, value: Any) -> None:
        self.service.memory(user="ada").set(name, value)
        with self.service.open(user="ada", id="v1") as session:
            session.memory.here.set(name, value)

    def forget(self, name: str) -> Any:
        memory = self.service.memory(user="ada")
        return memory.clear() if name == "all" else memory.delete(name)

    def append(self, text: str) -> Any:
        return self.service.append(user="ada", id="v1", messages=[("user", text)])

    def merge(self, name: str, value: Any) -> None:
        self.service.merge(user="ada", id="v1", state={name: value})

    def checkpoint(self, name: str) -> Any:
        return self.service.checkpoint(user="ada", id="v1", name=name)

    def rewind(self, to: int) -> Any:
        return self.service.rewind(user="ada", id="v1", to=to)

    def fork(self, new_id: str) -> None:
        self.service.fork(user="ada", id="v1", new_id=new_id)

    def archive(self) -> Any:
        return self.service.archive(user="ada", id="v1") + self.service.restore(user="ada", id="v1")

    def delete(self) -> Any:
        return self.service.delete(user="ada", id="v1")

    def tell(self) -> Any:
        """All that there is, but for the moments."""
        ids = sorted(kept.id for kept in self.service.list(user="ada").items)
        told: list[Any] = [ids, {fact.key: fact.value for fact in self.service.memory(user="ada").all()}]
        for session_id in ids:
            found = self.service.get(user="ada", id=session_id)
            assert found is not None
            events = self.service.list_events(user="ada", id=session_id).items
            log = [(event.kind, event.number, event.revision, getattr(event, "set", None)) for event in events]
            said = [(message.number, message.content) for message in self.service.messages(user="ada", id=session_id).items]
            points = sorted((point.name, point.messages) for point in self.service.checkpoints(user="ada", id=session_id))
            told.append((dict(sorted(found.to_dict().items())), found.revision, log, said, points))
        return told


@pytest.mark.parametrize("kind", KINDS)
def test_any_program_has_the_same_answers_as_without_encryption(kind: str, tmp_path: Path) -> None:
    found = find_kept_place(kind, tmp_path)
    places, numbers = EncryptedPlace(found), iter(range(10_000))

    @given(st.lists(STEPS, max_size=8))
    @settings(max_examples=25 if kind.startswith("memory") else 3, deadline=None)
    def check(steps: list[tuple[Any, ...]]) -> None:
        app = f"clinic{next(numbers)}"
        alike = MemoryEngine(partitions=places.engine.partitions)  # what lies elsewhere is committed by itself
        plain, encrypted = Program(SessionService(alike, app=app)), Program(places.open_service(app=app))
        for step in steps:
            assert plain.do(step) == encrypted.do(step)
        for program in (plain, encrypted):
            program.service.get_or_create(user="ada", id="last")  # an export of all has those users alone who have sessions
        assert plain.tell() == encrypted.tell()
        lines = list(encrypted.service.export())
        # Keys and facts have no order, and moments are those of each engine.
        for ring in (None, AFTER):
            target = SessionService(MemoryEngine(), app=app, encrypt=ring)
            target.sync.import_lines(lines)
            assert Program(target).tell() == plain.tell()
            assert sorted(target.sync.export()) == sorted(lines)

    check()
    found.close()


def test_pages_of_many_facts_have_each_once(place: EncryptedPlace) -> None:
    memory = place.open_service().sync.memory(user="ada")
    for number in range(25):
        memory.set(f"fact {number}", number)
    found, cursor = [], None
    while True:
        page = memory.page(limit=4, cursor=cursor)
        found += [fact.value for fact in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(found) == list(range(25))
    assert len(found) == 25


def test_pages_of_all_sessions_have_each_once(place: EncryptedPlace) -> None:
    service, other = place.open_service(), place.open_service(AFTER, app="shop")
    for number in range(9):
        service.sync.create(user=f"user {number}", id="v1", labels={"even": str(number % 2 == 0)})
        other.sync.create(user=f"user {number}", id="v1")
    for labels, expected in ((None, 9), ({"even": "True"}, 5)):
        found, cursor = [], None
        while True:
            page = service.sync.list_all(limit=2, cursor=cursor, labels=labels)
            found += [kept.user for kept in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert len(found) == len(set(found)) == expected


def test_two_applications_on_one_engine_share_nothing(place: EncryptedPlace) -> None:
    clinic, shop, plain = place.open_service(), place.open_service(AFTER, app="shop"), place.open_service(None, app="plain")
    for service in (clinic, shop, plain):
        service.sync.create(user="ada", id="v1", state={"of": service.app, "app:all": service.app})
    assert [service.sync.purge().sessions for service in (clinic, shop, plain)] == [0, 0, 0]
    for service in (clinic, shop, plain):
        assert len([line for line in service.sync.export() if b'"session"' in line]) == 1
    assert clinic.sync.erase(user="ada").sessions == 1
    found = shop.sync.get(user="ada", id="v1")
    assert found is not None
    assert found.to_dict() == {"of": "shop", "app:all": "shop"}


# Rows that somebody has moved.


def find_two(place: EncryptedPlace, table: Table, column: str) -> tuple[tuple[Record, Row], tuple[Record, Row]]:
    """Two rows of a table that have a value in a column."""
    found = place.engine.sync.scan(table, limit=100)
    first, second, *_ = [(Record(table, key), row) for key, row in found if row[column] is not None]
    return first, second


CELLS = [
    (table, column)
    for layout in LAYOUTS.values()
    if layout.table != ARTIFACTS  # test_encrypted_artifacts has these
    for table, columns in layout.stored
    for column in columns
]


def fill_twice(service: SessionService) -> None:
    fill(service)
    service.sync.fork(user=USER, id=ID, new_id="fork")
    service.sync.checkpoint(user=USER, id="fork", name="other")
    service.sync.memory(user=USER).set("another", 1)
    service.sync.import_lines(list(service.sync.export(user=USER)), replace=True)
    service.sync.create(user=USER, id="v3", title="t", labels={"a": "b"}, metadata={"m": 1})
    call = {"id": "open", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    service.sync.append(user=USER, id="v3", messages=[{"role": "assistant", "content": "", "tool_calls": [call]}])


def read_all(service: SessionService) -> None:
    for kept in service.sync.list(user=USER).items:
        found = service.sync.get(user=USER, id=kept.id)
        assert found is not None
        found.documents.sync.scan()
        service.sync.messages(user=USER, id=kept.id)
        service.sync.list_events(user=USER, id=kept.id)
        service.sync.checkpoints(user=USER, id=kept.id)
    service.sync.documents.scan(WORD["space"])
    list(service.sync.export(user=USER))


@pytest.mark.parametrize(("table", "column"), CELLS, ids=lambda one: getattr(one, "name", one))
def test_rows_that_were_swapped_are_refused(memory: EncryptedPlace, table: Table, column: str) -> None:
    service = memory.open_service()
    fill_twice(service)
    read_all(service)
    (first, one), (second, other) = find_two(memory, table, column)
    memory.engine.sync.transact(Transaction([], writes=[Put(first, {column: other[column]}), Put(second, {column: one[column]})]))
    with pytest.raises(SealedRowError, match="not the one that was written in its place") as refused:
        read_all(service)
    assert isinstance(refused.value, EngineError)
    assert not [word for word in WORD.values() if word in str(refused.value)]


def test_control_a_cell_that_is_bound_to_its_table_alone_can_be_swapped(
    memory: EncryptedPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, seals = Cells.open, Cells.seal
    monkeypatch.setattr(Cells, "open", lambda self, place, cell: opens(self, table_of(place).encode(), cell))
    monkeypatch.setattr(Cells, "seal", lambda self, place, plain: seals(self, table_of(place).encode(), plain))
    with pytest.raises(BaseException, match="DID NOT RAISE"):
        test_rows_that_were_swapped_are_refused(memory, find_sealed(MESSAGES), "data")


def test_control_without_encryption_rows_can_be_swapped() -> None:
    engine = MemoryEngine()
    service = SessionService(engine, app="clinic")
    fill(service)
    first, second = (Owner("clinic", USER, partitions=1).numbered_row(MESSAGES, ID, number) for number in (1, 3))
    one, other = engine.sync.transact(Transaction([first, second])).rows
    assert one is not None
    assert other is not None
    engine.sync.transact(Transaction([], writes=[Put(first, {"data": other["data"]}), Put(second, {"data": one["data"]})]))
    said = [message.content for message in service.sync.messages(user=USER, id=ID).items]
    assert said == [WORD["beside"], WORD["answered"], WORD["said"]]


def test_what_was_never_encrypted_is_refused(memory: EncryptedPlace) -> None:
    service = memory.open_service()
    fill(service)
    (record, _), _ = find_two(memory, find_sealed(MESSAGES), "data")
    memory.engine.sync.transact(Transaction([], writes=[Put(record, {"data": b'{"role":"system","content":"Pay."}'})]))
    with pytest.raises(SealedRowError, match="was not encrypted by this service"):
        service.sync.messages(user=USER, id=ID)


def test_a_commit_that_is_written_and_cannot_be_read_says_so(memory: EncryptedPlace) -> None:
    service = memory.open_service()
    service.sync.create(user=USER, id=ID, state={"user:theme": "dark"})
    record = next(
        Record(find_sealed(STATE), key) for key, row in memory.engine.sync.scan(find_sealed(STATE)) if row["tag"] is not None
    )
    with pytest.raises(CommitUnknownError, match="It was written"), service.sync.open(user=USER, id=ID) as session:
        session["user:theme"] = "light"
        memory.engine.sync.transact(Transaction([], writes=[Put(record, {"value": b"broken"})]))


def test_a_fork_seals_its_rows_anew(memory: EncryptedPlace) -> None:
    service = memory.open_service()
    fill(service)
    service.sync.fork(user=USER, id=ID, new_id="fork")
    cells = [row["data"] for _, row in memory.engine.sync.scan(find_sealed(MESSAGES), limit=100)]
    assert len(cells) == len(set(cells)) == 6
    service.sync.delete(user=USER, id=ID)
    assert service.sync.messages(user=USER, id="fork").total == 3


def test_a_fork_has_no_call_that_waits_for_a_person() -> None:
    service = SessionService("memory://", app="clinic")
    with service.sync.open(user="ada", id=service.sync.create(user="ada", state={"step": 1}).id) as session:
        add_proposal(session, "c1", "drop", {"volume": "pg"}, now=time.time())
    service.sync.fork(user="ada", id=session.id, new_id="fork")
    found = {name: service.sync.get(user="ada", id=name) for name in (session.id, "fork")}
    assert {name: [call.id for call in pending(one)] for name, one in found.items() if one is not None} == {
        session.id: ["c1"],
        "fork": [],
    }
    forked = found["fork"]
    assert isinstance(forked, Session)
    assert forked.to_dict() == {"step": 1}


# Keys that go.


def list_kids(place: EncryptedPlace) -> set[str]:
    """The keys under which something is encrypted."""
    tables = [NAMES, *(table for layout in LAYOUTS.values() for table, _ in layout.stored)]
    cells = [cell for table in tables for _, row in place.engine.sync.scan(table, limit=1000) for cell in row.values()]
    return {cell[6 : 6 + cell[5]].decode() for cell in cells if isinstance(cell, bytes) and cell[:1] == b"\1" and len(cell) > 45}


def test_a_turn_encrypts_what_it_writes_under_the_newest_key_and_the_command_the_rest(place: EncryptedPlace) -> None:
    fill(place.open_service(BEFORE))
    assert list_kids(place) == {"old"}
    service = place.open_service(MEANWHILE)
    with service.sync.open(user=USER, id=ID) as session:
        session[WORD["key"]] = "newer"
    assert list_kids(place) == {"old", "new"}
    found = service.sync.reencrypt()
    assert found.rows > 10
    assert (found.refused, list_kids(place)) == (0, {"new"})
    assert asyncio.run(service.reencrypt()) == (0, found.rows + found.current, 0, 0)
    after = place.open_service(AFTER)
    kept = after.sync.get(user=USER, id=ID)
    assert kept is not None
    assert kept.state[WORD["key"]] == "newer"
    read_all(after)


def test_control_without_the_command_the_old_key_is_missed(place: EncryptedPlace) -> None:
    fill(place.open_service(BEFORE))
    with pytest.raises(SealedRowError, match="under the key 'old', which the ring does not have"):
        place.open_service(AFTER).sync.get(user=USER, id=ID)
    service = place.open_service(MEANWHILE)
    with service.sync.open(user=USER, id=ID) as session:
        session[WORD["key"]] = "newer"
    with pytest.raises(SealedRowError, match="'old'"):
        place.open_service(AFTER).sync.get(user=USER, id=ID)


def test_what_a_turn_writes_meanwhile_is_not_undone(memory: EncryptedPlace) -> None:
    fill(memory.open_service(BEFORE))
    old = memory.open_service(Keyring(OLD, NEW))
    watched = Watched(memory.engine)
    turns = iter(range(100))

    def write() -> None:
        with old.sync.open(user=USER, id=ID) as session:
            session[WORD["key"]] = f"turn {next(turns)}"

    for number in range(60):
        watched.before(number, write)
    service = SessionService(watched, app="clinic", encrypt=MEANWHILE)
    assert service.sync.reencrypt().rows > 10
    service.sync.reencrypt()
    kept = memory.open_service(AFTER).sync.get(user=USER, id=ID)
    assert kept is not None
    assert kept.state[WORD["key"]] == f"turn {next(turns) - 1}"


def test_a_row_that_cannot_be_opened_is_counted_and_stays(memory: EncryptedPlace) -> None:
    fill(memory.open_service(BEFORE))
    (first, one), (second, other) = find_two(memory, find_sealed(MESSAGES), "data")
    memory.engine.sync.transact(Transaction([], writes=[Put(first, {"data": other["data"]}), Put(second, {"data": one["data"]})]))
    assert memory.open_service(MEANWHILE).sync.reencrypt().refused == 2
    assert memory.engine.sync.transact(Transaction([first])).rows[0] == {**one, "data": other["data"]}


def test_a_ring_that_is_read_again_encrypts_under_its_newest_key(memory: EncryptedPlace) -> None:
    rings, now = iter([BEFORE, MEANWHILE]), [0.0]
    service = memory.open_service(LiveKeyring(lambda: next(rings), clock=lambda: now[0]))
    service.sync.create(user=USER, id=ID)
    assert list_kids(memory) == {"old"}
    now[0] = 61.0
    service.sync.merge(user=USER, id=ID, state={"a": 1})
    assert list_kids(memory) == {"old", "new"}


# What is kept in one way is not kept in the other.

CALLS: list[Callable[[SessionService], Any]] = [
    lambda service: service.sync.get(user=USER, id=ID),
    lambda service: service.sync.list(user=USER),
    lambda service: service.sync.create(user=USER, id="v9", state={"user:a": 1}),
    lambda service: service.sync.append(user=USER, id=ID, messages=[("user", "a")]),
    lambda service: service.sync.memory(user=USER).set("a", 1),
    lambda service: service.sync.purge(),
    lambda service: service.sync.erase(user=USER),
    lambda service: list(service.sync.export()),
    lambda service: asyncio.run(service.merge(user=USER, id=ID, state={"a": 1})),
]


@pytest.mark.parametrize("call", range(len(CALLS)))
def test_without_its_ring_an_encrypted_application_is_refused(place: EncryptedPlace, call: int) -> None:
    fill(place.open_service())
    plain = place.open_service(None)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"are encrypted here\. Give its key ring: encrypt="):
            CALLS[call](plain)
    place.engine.declare([SESSIONS, STATE])
    assert not [table for table in (SESSIONS, STATE) if place.engine.sync.scan(table)]


@pytest.mark.parametrize("call", range(len(CALLS)))
def test_control_where_nobody_looks_it_is_taken_for_an_empty_one(memory: EncryptedPlace, call: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.service.service.guard", lambda engine, app: engine)
    with pytest.raises(BaseException, match=r"DID NOT RAISE|no such session"):
        test_without_its_ring_an_encrypted_application_is_refused(memory, call)


@pytest.mark.parametrize("state", [{"a": 1}, {"app:a": 1}], ids=str)
def test_with_a_ring_an_application_that_is_not_encrypted_is_refused(place: EncryptedPlace, state: dict[str, Any]) -> None:
    plain = place.open_service(None)
    plain.sync.create(user=USER, id=ID, state=state)
    if "app:a" in state:
        plain.sync.delete(user=USER, id=ID)
    for call in CALLS[:3]:
        with pytest.raises(ConfigurationError, match="has sessions or documents here that are not encrypted"):
            call(place.open_service())
    found = plain.sync.get(user=USER, id=ID)
    assert (found is None) == ("app:a" in state)


def test_sessions_are_taken_over_by_export_and_import(place: EncryptedPlace) -> None:
    plain = place.open_service(None)
    fill(plain)
    lines = list(plain.sync.export())
    plain.sync.erase(user=USER)
    plain.sync.documents.clear(WORD["space"])
    with plain.sync.open(user="ada") as session:
        del session[f"app:{WORD['app-key']}"]
    plain.sync.erase(user="ada")
    encrypted = place.open_service()
    encrypted.sync.import_lines(lines)
    assert sorted(encrypted.sync.export()) == sorted(lines)


# Behind a middleware.


def make_client(store: Any) -> SessionClient:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = current_session()
        session.incr("visits")
        session.user["seen"] = True
        await JSONResponse({"content": str(session["visits"])})(scope, receive, send)

    return SessionClient(SessionMiddleware(app, keys=BEFORE, audience="clinic", subject=lambda _: USER, store=store))


def test_behind_a_middleware_turns_go_on(place: EncryptedPlace) -> None:
    client = make_client(place.open_service())
    assert [client.send("hi").body["content"] for _ in range(3)] == ["1", "2", "3"]


def test_a_ledger_of_ones_own_is_on_the_engine_that_encrypts(place: EncryptedPlace) -> None:
    engine = EncryptedEngine(place.engine, app="clinic", keys=BEFORE)
    ledger = Ledger(engine, audience="clinic", reissue=timedelta(minutes=1))
    client = make_client(SessionService(engine, app="clinic", ledger=ledger))
    assert [client.send("hi").body["content"] for _ in range(2)] == ["1", "2"]
    with pytest.raises(ConfigurationError, match="the ledger needs the engine that encrypts"):
        SessionService(place.engine, app="clinic", encrypt=BEFORE, ledger=Ledger(place.engine, audience="clinic"))


def test_with_a_ledger_of_ones_own_an_encrypted_application_is_refused(
    memory: EncryptedPlace, caplog: pytest.LogCaptureFixture
) -> None:
    fill(memory.open_service())
    plain = SessionService(memory.engine, app="clinic", ledger=Ledger(memory.engine, audience="clinic"))
    assert make_client(plain).send("hi").status == 503
    assert "ConfigurationError" in caplog.text
    assert memory.engine.sync.scan(SESSIONS) == []


# Settings.


@pytest.mark.parametrize("wrong", ["secret", OLD, [OLD], 1])
def test_a_ring_that_is_none_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="encrypt="):
        SessionService("memory://", app="clinic", encrypt=wrong)


def test_without_what_encrypts_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("dcaf.service.encryption_", "dcaf.core.encryption"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'dcaf\[crypto\]'"):
        SessionService("memory://", app="clinic", encrypt=BEFORE)
    SessionService("memory://", app="clinic").sync.create(user="ada")


def test_an_engine_that_encrypts_is_for_one_application_and_once() -> None:
    service = SessionService("memory://", app="clinic", encrypt=BEFORE)
    SessionService(service.engine, app="clinic", on_busy="merge").sync.create(user="ada", id="v1")
    assert service.sync.get(user="ada", id="v1") is not None
    with pytest.raises(ConfigurationError, match="what another application keeps"):
        SessionService(service.engine, app="shop")
    with pytest.raises(ConfigurationError, match="encrypts already"):
        SessionService(service.engine, app="clinic", encrypt=BEFORE)
    with pytest.raises(ConfigurationError, match="cannot be kept encrypted"):
        service.engine.declare([Table("seats", {"holder": bytes})])
    with pytest.raises(ConfigurationError, match="nothing to encrypt anew"):
        SessionService("memory://", app="clinic").sync.reencrypt()


def test_a_ring_whose_keys_may_not_sign_yet_is_refused_with_the_first_call() -> None:
    later = Keyring(Key.from_bytes("k7", OLD.secret, not_before=2**40))
    with pytest.raises(ConfigurationError, match="not_before lies in the future"):
        SessionService("memory://", app="clinic", encrypt=later).sync.create(user="ada")


def test_a_session_of_another_service_on_the_same_rows_is_saved() -> None:
    engine = MemoryEngine()
    one, other = (SessionService(engine, app="clinic", encrypt=BEFORE) for _ in range(2))
    session = one.sync.create(user="ada")
    session["a"] = 1
    other.sync.save(session)
    found = one.sync.get(user="ada", id=session.id)
    assert found is not None
    assert found.to_dict() == {"a": 1}


def test_the_key_of_names_that_is_drawn_by_two_at_once_is_one(place: EncryptedPlace) -> None:
    services = [place.open_service() for _ in range(4)]

    async def make_all() -> None:
        await asyncio.gather(*(service.create(user="ada", id=f"v{at}") for at, service in enumerate(services)))

    asyncio.run(make_all())
    assert sorted(kept.id for kept in place.open_service().sync.list(user="ada").items) == ["v0", "v1", "v2", "v3"]


def test_a_key_of_names_that_somebody_has_changed_is_refused(memory: EncryptedPlace) -> None:
    fill(memory.open_service())
    ((key, _),) = memory.engine.sync.scan(NAMES)
    memory.engine.sync.transact(Transaction([], writes=[Put(Record(NAMES, key), {"box": b"broken"})]))
    with pytest.raises(SealedRowError):
        memory.open_service().sync.get(user=USER, id=ID)
    memory.engine.sync.transact(Transaction([], writes=[Delete(Record(NAMES, key))]))


# What cannot be kept encrypted.


def test_what_cannot_be_kept_encrypted_is_refused_and_nothing_of_it_written(place: EncryptedPlace) -> None:
    service = place.open_service()
    service.sync.create(user=USER, id=ID)
    service.sync.append(user=USER, id=ID, messages=[("user", "penicillin")])
    with pytest.raises(ConfigurationError, match="encrypted cannot be searched: an index of their words"):
        service.sync.search("penicillin", user=USER)
    with pytest.raises(ConfigurationError, match="encrypted cannot be searched"):
        asyncio.run(service.search("penicillin", user=USER, id=ID))
    found = service.sync.get(user=USER, id=ID)
    assert found is not None
    assert found.to_dict() == {}
    refused = [layout.sealed for layout in LAYOUTS.values() if layout.refused is not None]
    assert [table for table in refused if place.engine.sync.scan(table)] == []


def test_facts_are_searched_where_they_are_read(place: EncryptedPlace) -> None:
    memory = place.open_service().sync.memory(user=USER)
    memory.set("allergies", ["penicillin"])
    assert [hit.fact.key for hit in memory.search("penicillin")] == ["allergies"]
