"""Documents of a service that encrypts: the tests of documents on it, the order of keys that the database has not, its bound."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from dcaf.core import ConfigurationError
from dcaf.engines import Delete, Engine, MemoryEngine, Range, Record, Transaction
from dcaf.service import EncryptedEngine, SessionService, encryption_order
from dcaf.service.document_rows import DocumentScope
from dcaf.service.encryption import find_stored
from dcaf.service.tables import DOCUMENTS
from tests.service import kept_places, test_documents_behind, test_kept_documents
from tests.service.encrypted_places import AFTER, BEFORE, MEANWHILE
from tests.service.kept_places import Calls, KeptPlace, Watched, find_kept_place
from tests.service.test_documents_behind import (
    test_a_document_that_another_turn_has_written_refuses_the_turn_also_where_turns_are_merged,
    test_a_rotated_session_takes_its_documents_along,
    test_a_turn_is_laid_over_shared_keys_and_facts_that_others_write_where_those_of_all_lie_elsewhere,
    test_a_turn_that_writes_documents_alone_is_committed_and_one_that_raises_is_not,
)
from tests.service.test_kept_documents import (
    PROGRAMS,
    WHOLE,
    count_up,
    play,
    test_a_conflict_that_comes_before_the_commit_writes_nothing,
    test_a_document_ends_when_its_time_is_over,
    test_a_session_that_was_made_anew_under_an_old_id_shows_no_document_of_before,
    test_a_turn_of_documents_is_one_trip_to_open_and_one_to_commit,
    test_a_turn_that_writes_documents_alone_is_a_change,
    test_an_exported_session_has_state_and_documents_of_one_moment,
    test_applications_and_spaces_share_nothing,
    test_documents_are_exported_as_lines_and_imported_the_same,
    test_documents_go_with_their_session_and_stay_where_it_is_taken_back,
    test_of_two_calls_that_expect_one_revision_the_later_one_is_refused_with_all_that_it_did,
    test_of_two_turns_of_one_revision_the_later_writes_no_document,
    test_several_are_written_or_none,
    test_two_turns_that_are_merged_write_what_differs_and_conflict_at_what_does_not,
    test_what_a_session_is_saved_for_again_goes_on_from_what_was_committed,
    test_what_a_tool_writes_is_dropped_where_it_fails,
    test_what_is_written_between_a_freeze_and_its_commit_comes_with_the_next,
    test_wrong_arguments_are_refused_at_the_call,
)

__all__ = [
    "test_a_conflict_that_comes_before_the_commit_writes_nothing",
    "test_a_document_ends_when_its_time_is_over",
    "test_a_document_that_another_turn_has_written_refuses_the_turn_also_where_turns_are_merged",
    "test_a_rotated_session_takes_its_documents_along",
    "test_a_session_that_was_made_anew_under_an_old_id_shows_no_document_of_before",
    "test_a_turn_is_laid_over_shared_keys_and_facts_that_others_write_where_those_of_all_lie_elsewhere",
    "test_a_turn_of_documents_is_one_trip_to_open_and_one_to_commit",
    "test_a_turn_that_writes_documents_alone_is_a_change",
    "test_a_turn_that_writes_documents_alone_is_committed_and_one_that_raises_is_not",
    "test_an_exported_session_has_state_and_documents_of_one_moment",
    "test_applications_and_spaces_share_nothing",
    "test_documents_are_exported_as_lines_and_imported_the_same",
    "test_documents_go_with_their_session_and_stay_where_it_is_taken_back",
    "test_of_two_calls_that_expect_one_revision_the_later_one_is_refused_with_all_that_it_did",
    "test_of_two_turns_of_one_revision_the_later_writes_no_document",
    "test_several_are_written_or_none",
    "test_two_turns_that_are_merged_write_what_differs_and_conflict_at_what_does_not",
    "test_what_a_session_is_saved_for_again_goes_on_from_what_was_committed",
    "test_what_a_tool_writes_is_dropped_where_it_fails",
    "test_what_is_written_between_a_freeze_and_its_commit_comes_with_the_next",
    "test_wrong_arguments_are_refused_at_the_call",
]

KINDS = ("memory-8", "sqlite")
NAMES, ROWS = reversed(find_stored(DOCUMENTS))


def open_encrypted(engine: Engine | str, **arguments: Any) -> SessionService:
    """A service that encrypts, where a test asks for one."""
    ring = None if isinstance(engine, EncryptedEngine) else BEFORE
    return SessionService(engine, **{"encrypt": ring, **arguments})


@pytest.fixture(autouse=True)
def encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All services of these tests encrypt."""
    for module in (kept_places, test_kept_documents, test_documents_behind):
        monkeypatch.setattr(module, "SessionService", open_encrypted)


@pytest.fixture(params=KINDS)
def kept_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    """In memory, and in a file."""
    found = find_kept_place(request.param, tmp_path)
    yield found
    found.close()


@pytest.fixture(params=["asyncio", "sync"])
def calls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Calls]:
    """A service on a file."""
    found = find_kept_place("sqlite", tmp_path)
    yield Calls(request.param, found.open_service())
    found.close()


@pytest.mark.parametrize("kind", kept_places.KINDS)
def test_every_engine_has_documents(kind: str, tmp_path: Path) -> None:
    place = find_kept_place(kind, tmp_path)
    play(place.open_engine(), [(where, True, WHOLE) for where in ("session", "space", "batch")])
    place.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROGRAMS)
def test_a_program_finds_what_a_dict_would_have(kept_place: KeptPlace, program: list[Any]) -> None:
    play(kept_place.open_engine(), program)


def test_control_keys_that_are_not_sorted_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption_order, "sorted", lambda keys, *, reverse: [*keys], raising=False)
    many: list[Any] = [*(("put", f"a/{number}", number, "any") for number in range(9)), ("scan", "a/", 2, "ascending")]
    with pytest.raises(AssertionError):
        play(MemoryEngine(), [("session", True, many)])


def test_of_two_writers_none_loses_what_it_has_counted(tmp_path: Path) -> None:
    place = find_kept_place("sqlite", tmp_path)
    assert count_up(place, expects=True) == 2 * test_kept_documents.ROUNDS
    place.close()


# The order of keys


def make(count: int = 30) -> tuple[Watched, SessionService]:
    engine = Watched(MemoryEngine())
    sessions = open_encrypted(engine, app="clinic")
    with sessions.sync.documents.transaction("threads") as batch:
        for number in range(count):
            batch.put(f"a/{number:02}", number)
    return engine, sessions


def test_a_page_is_the_names_and_then_the_documents_of_the_page_alone() -> None:
    engine, sessions = make()
    seen: list[Transaction] = []
    transact = engine.sync.transact

    def watch(asked: Transaction) -> Any:
        seen.append(asked)
        return transact(asked)

    engine.sync.transact = watch
    page = sessions.sync.documents.scan("threads", "a/", limit=3, cursor="a/07")
    assert [one.value for one in page.items] == [8, 9, 10]
    names, rows = seen
    assert ([wanted.table for wanted in names.ranges], names.reads) == ([NAMES], [])
    assert ({record.table.name for record in rows.reads}, len(rows.reads), rows.ranges) == ({ROWS.name}, 4, [])


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_documents_that_are_deleted_between_names_and_rows_leave_no_short_page(order: Any) -> None:
    engine, sessions = make()
    other = open_encrypted(engine._engine, app="clinic").sync.documents

    def delete() -> None:
        for number in (1, 2, 28, 27):
            other.delete("threads", f"a/{number:02}")

    engine.before(1, delete)
    page = sessions.sync.documents.scan("threads", limit=4, order=order)
    assert [one.value for one in page.items] == ([0, 3, 4, 5] if order == "ascending" else [29, 26, 25, 24])
    assert page.cursor is not None


def test_a_name_whose_document_is_gone_is_passed_by() -> None:
    engine, sessions = make()
    (key, _), *_ = engine.sync.scan(ROWS)
    engine.sync.transact(Transaction([], writes=[Delete(Record(ROWS, key))]))
    assert len(sessions.sync.documents.scan("threads").items) == 29


def test_keys_of_which_one_begins_with_the_other_are_each_found() -> None:
    documents = open_encrypted(MemoryEngine(), app="clinic").sync.documents
    keys = ["a", "a\0", "a\0\0", "ä", "ÿ", "\U0010ffff", "k" * 200]
    for key in keys:
        documents.put("threads", key, key)
    for prefix in ("", "a", "a\0", "ÿ", "\U0010ffff", "k"):
        found, cursor = list[str](), None
        while True:
            page = documents.scan("threads", prefix, limit=1, cursor=cursor)
            found += [one.key for one in page.items]
            if (cursor := page.cursor) is None:
                break
        assert found == sorted(key for key in keys if key.startswith(prefix))
    assert documents.clear("threads", "a\0") == 2
    assert documents.clear("threads") == 5


def test_more_than_can_be_read_in_order_are_refused_and_go_with_their_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("MOST_NAMES", 60), ("AT_ONCE", 7)):
        monkeypatch.setattr(encryption_order, name, number)
    sessions = open_encrypted(MemoryEngine(partitions=8), app="clinic")
    kept = sessions.sync.create(user="p", id="v")
    documents = kept.documents.sync
    for number in range(60):
        documents.put(f"{number:03}", number)
        sessions.sync.documents.put("space", f"{number:03}", number)
    sessions.sync.save(kept)
    assert [one.value for one in documents.scan(limit=100).items] == [*range(60)]
    documents.put("more", 1)
    sessions.sync.save(kept)
    sessions.sync.documents.put("space", "more", 1)
    for ask in (documents.scan, lambda: sessions.sync.documents.scan("space", "0"), lambda: documents.clear("0")):
        with pytest.raises(ConfigurationError, match="has more than 60 documents"):
            ask()
    more = documents.get("more")
    assert more is not None
    sessions.sync.fork(user="p", id="v", new_id="w")
    lines = list(sessions.sync.export())
    other = open_encrypted(MemoryEngine(), app="clinic")
    other.sync.import_lines(lines)
    assert sorted(other.sync.export()) == sorted(lines)
    assert sessions.sync.documents.clear("space") == 61
    erased = sessions.sync.erase(user="p")
    assert erased.documents == 122
    engine = sessions.engine
    assert isinstance(engine, EncryptedEngine)
    assert [table for table in (ROWS, NAMES) if engine.below.sync.scan(table)] == []


def test_many_spaces_are_exported_each_as_one_block() -> None:
    first = open_encrypted(MemoryEngine(partitions=8), app="clinic")
    for space in range(12):
        for key in range(120 if space == 3 else 2):
            first.sync.documents.put(f"space {space}", f"{key}", key)
    written = list(first.sync.export())
    assert len([line for line in written if line.startswith(b'{"kind":"space"')]) == 12
    for target in (open_encrypted(MemoryEngine(), app="clinic"), SessionService(MemoryEngine(), app="clinic")):
        assert target.sync.import_lines(written).shared == 142
        assert sorted(target.sync.export()) == sorted(written)


def test_names_end_and_are_purged_with_their_documents() -> None:
    clock = test_kept_documents.Clock()
    sessions = open_encrypted(MemoryEngine(clock=clock), app="clinic")
    sessions.sync.documents.put("space", "a", 1, ttl=timedelta(seconds=10))
    sessions.sync.documents.put("space", "b", 1)
    clock.now += 11
    assert [one.key for one in sessions.sync.documents.scan("space").items] == ["b"]
    sessions.sync.purge()
    engine = sessions.engine
    assert isinstance(engine, EncryptedEngine)
    assert [len(engine.below.sync.scan(table)) for table in (ROWS, NAMES)] == [1, 1]


# What else there is


def test_keys_of_before_can_go(kept_place: KeptPlace) -> None:
    engine = kept_place.open_engine()
    old = SessionService(engine, app="clinic", encrypt=BEFORE).sync
    old.documents.put("space", "a", b"1")
    with old.open(user="p") as session:
        session.documents.sync.put("a", 1)
    done = SessionService(engine, app="clinic", encrypt=MEANWHILE).sync.reencrypt()
    assert (done.rows >= 4, done.refused) == (True, 0)
    new = SessionService(engine, app="clinic", encrypt=AFTER).sync
    found = new.get(user="p", id=session.id)
    assert found is not None
    assert [[one.value for one in page.items] for page in (new.documents.scan("space"), found.documents.sync.scan("a"))] == [
        [b"1"],
        [1],
    ]


def test_documents_that_are_not_encrypted_are_not_hidden_behind_a_ring() -> None:
    engine = MemoryEngine(partitions=8)
    plain = SessionService(engine, app="clinic").sync.documents
    plain.put("space", "a", 1)
    with pytest.raises(ConfigurationError, match="sessions or documents here that are not encrypted"):
        open_encrypted(engine, app="clinic").sync.documents.get("space", "a")
    plain.clear("space")
    open_encrypted(engine, app="clinic").sync.documents.put("space", "a", 1)
    with pytest.raises(ConfigurationError, match="are encrypted here"):
        SessionService(engine, app="clinic").sync.documents.get("space", "a")


def test_a_transaction_that_reads_in_an_order_writes_nothing() -> None:
    _, sessions = make()
    scope = DocumentScope.of_space("clinic", "threads", 1)
    wanted = Range.of_prefix(DOCUMENTS, scope.prefix, 1)
    with pytest.raises(ConfigurationError, match="writes nothing"):
        sessions.engine.sync.transact(Transaction([], ranges=[wanted], writes=[Delete(scope.row("a/00"))]))
    whole = Range.of_prefix(DOCUMENTS, scope.whole, 1)
    outcome = sessions.engine.sync.transact(Transaction([scope.row("a/00")], ranges=[whole, wanted, whole]))
    assert outcome.rows[0] is not None
    first, second, third = outcome.pages
    assert (first, [key for key, _ in second]) == (third, [scope.row("a/00").key])
