"""What is exported is imported the same, byte for byte, on every engine; of a session that cannot be imported there is nothing."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dcaf.core.errors import (
    ConfigurationError,
    DcafError,
    EngineError,
    SessionExistsError,
    SessionValueError,
    StaleSessionError,
    UnknownSessionError,
)
from dcaf.engines import MemoryEngine, Put, Transaction
from dcaf.service import Imported, Purged, SessionService, SyncSessionService, blocks, exporting, importing, lines
from dcaf.service.blocks import SessionBlock
from dcaf.service.dropping import EVER, drop_rows
from dcaf.service.plans import Plan
from dcaf.service.tables import CHANGES, CHECKPOINTS, DOCUMENTS, MEMORY, MESSAGES, OF_SESSIONS, SESSIONS, STATE, TABLES
from tests.service.kept_places import KINDS, KeptPlace, Watched, find_kept_place

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES: Final = max(10, round(200 * SCALE))
SECRET: Final = "canary-7"

VALUES: Final = st.sampled_from(
    [0, -(2**63), 2**64 - 1, 1.5, -0.0, 1e300, "a", "ü\0\n ", [], [1, {"a": None}], {"b": {"c": 2}}, None]
)
WHO: Final = st.sampled_from([("p", "v"), ("p", "w"), ("q", "v"), (None, "v"), (None, "-w")])
NAMES: Final = st.sampled_from(["x", "", "k" * 300, "ü\0", "user:x", "app:x", "app:" + "k" * 300])
FACTS: Final = st.sampled_from(["f", "g" * 200, "ü"])
OPS: Final = st.one_of(
    st.tuples(st.just("set"), NAMES, VALUES),
    st.tuples(st.just("delete"), NAMES, st.none()),
    st.tuples(st.sampled_from(["remember", "remember here", "remember briefly"]), FACTS, VALUES),
    st.tuples(st.sampled_from(["forget", "clear", "clear here", "say", "ask", "call", "write beside"]), FACTS, VALUES),
    st.tuples(st.sampled_from(["file", "file bytes", "unfile", "file apart"]), FACTS, VALUES),
    st.tuples(st.sampled_from(["mark", "go back", "archive", "restore"]), FACTS, st.none()),
    st.tuples(st.sampled_from(["rewind", "fork", "close", "drop"]), FACTS, st.integers(0, 3)),
)
PROGRAMS: Final = st.lists(st.tuples(WHO, OPS), min_size=1, max_size=25)


def do(sessions: SessionService, user: str | None, id: str, op: tuple[str, str, Any]) -> None:  # noqa: A002
    """Do one thing; what a service refuses is not done."""
    kind, name, value = op
    sync = sessions.sync
    whose: dict[str, Any] = {"user": user, "id": id}
    with suppress(DcafError):
        sync.create(**whose, title=f"{name}…", labels={"a": "b"}, metadata={"at": [1, {}]})
    with suppress(DcafError):
        if kind == "rewind":
            sync.rewind(**whose, to=value)
        elif kind == "fork" and user is not None:
            sync.fork(user=user, id=id, at=value)
        elif kind == "close":
            sync.close(**whose)
        elif kind == "drop":
            sync.delete(**whose)
        elif kind == "mark":
            sync.checkpoint(**whose, name=name)
        elif kind == "go back":
            sync.rewind(**whose, checkpoint=name)
        elif kind == "archive":
            sync.archive(**whose)
        elif kind == "restore":
            sync.restore(**whose)
        else:
            do_more(sync, whose, op)


def do_more(sync: SyncSessionService, whose: dict[str, Any], op: tuple[str, str, Any]) -> None:
    kind, name, value = op
    if kind == "write beside":
        sync.merge(**whose, state={"beside": value})
        sync.append(**whose, messages=[{"role": "user", "content": name, "metadata": {"v": value}}])
    elif kind == "file apart":
        sync.documents.put(f"of {whose['user']}", name, value, ttl=timedelta(days=1))
    else:
        with sync.open(**whose) as session:
            do_within(session, kind, name, value)


def do_within(session: Any, kind: str, name: str, value: Any) -> None:
    if kind == "set":
        session[name] = value
    elif kind == "delete":
        session.pop(name, None)
    elif kind.startswith("remember"):
        memory = session.memory.here if kind == "remember here" else session.memory
        memory.set(name, value, ttl=timedelta(days=1) if kind == "remember briefly" else None)
    elif kind == "unfile":
        session.documents.sync.delete(name)
    elif kind.startswith("file"):
        session.documents.sync.put(name, f"{value}".encode() if kind == "file bytes" else value)
    elif kind == "forget":
        session.memory.delete(name)
    elif kind.startswith("clear"):
        (session.memory.here if kind == "clear here" else session.memory).clear()
    elif kind in {"ask", "call"}:
        call = {"id": name, "type": "function", "function": {"name": "find", "arguments": "{}"}}
        session.messages.add("assistant", tool_calls=[call])
        if kind == "call":
            session.messages.add("tool", name, tool_call_id=name)
    else:
        session.messages.add("user", name)


@pytest.fixture(scope="module")
def chain() -> Iterator[list[KeptPlace]]:
    """One place of each kind."""
    with TemporaryDirectory() as folder:
        places = [find_kept_place(kind, Path(folder)) for kind in KINDS]
        yield places
        for place in places:
            place.close()


def make(**state: Any) -> SessionService:
    """A service on memory, with a session of three turns."""
    sessions = SessionService(MemoryEngine(partitions=8), app="clinic")
    sessions.sync.create(user="p", id="v", state={"step": 1, **state})
    for number in range(3):
        with sessions.sync.open(user="p", id="v") as session:
            session["step"] = number
            session.user["theme"] = "dark"
            session.app["motd"] = "hi"
            session.messages.add("user", f"{number}")
            session.memory.set("allergies", ["penicillin"])
            session.memory.here.set("mood", "well")
    sessions.sync.checkpoint(user="p", id="v", name="end")
    return sessions


def empty(app: str = "clinic") -> SessionService:
    return SessionService(MemoryEngine(), app=app)


def export(sessions: SessionService, **arguments: Any) -> bytes:
    return b"".join(sessions.sync.export(**arguments))


def lists_of(sessions: SessionService) -> list[list[str]]:
    """The lists of two users, and of their archived sessions."""
    pages = [sessions.sync.list(user=user, archived=archived) for user in ("p", "q") for archived in (False, True)]
    return [[kept.id for kept in page.items] for page in pages]


def rows_of(sessions: SessionService) -> int:
    """How many rows an engine has, of whatever kind."""
    return sum(len(sessions.engine.sync.scan(table, limit=10_000)) for table in TABLES)


# The law


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROGRAMS)
@example([((None, "v"), ("remember", "f", 1)), ((None, "v"), ("remember here", "f", 2)), ((None, "v"), ("set", "user:x", 1))])
@example([(("p", "v"), ("clear", "f", 1)), (("p", "v"), ("remember", "f", 1)), (("p", "v"), ("call", "f", 1))])
@example([(("p", "v"), ("ask", "f", 1)), (("p", "v"), ("mark", "f", None)), (("p", "v"), ("archive", "f", None))])
@example([(("p", "v"), ("say", "f", 1)), (("p", "v"), ("write beside", "f", 1)), (("p", "v"), ("rewind", "f", 1))])
def test_what_goes_from_engine_to_engine_comes_out_the_same_byte_for_byte(
    chain: list[KeptPlace], program: list[tuple[tuple[str | None, str], tuple[str, str, Any]]]
) -> None:
    app = os.urandom(8).hex()
    first = SessionService(MemoryEngine(partitions=8), app=app)
    for (user, id_), op in program:
        do(first, user, id_, op)
    written = list(first.sync.export())
    for place in chain:
        service = SessionService(place.open_engine() if not place._engines else place._engines[0], app=app)
        imported = service.sync.import_lines(written)
        assert imported.sessions == sum(line.startswith(b'{"kind":"session"') for line in written)
        assert list(service.sync.export()) == written
        assert lists_of(service) == lists_of(first)
        again = service.sync.import_lines(written, replace=True)
        assert (again.sessions, again.messages) == (imported.sessions, imported.messages)
        written_again = list(service.sync.export())
        assert written_again == written


@pytest.mark.parametrize("lost", [CHANGES, CHECKPOINTS, MESSAGES, STATE, MEMORY, DOCUMENTS], ids=lambda table: table.name)
def test_control_a_copy_that_loses_the_rows_of_a_table_is_noticed(lost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "OF_SESSIONS", tuple(table for table in OF_SESSIONS if table is not lost))
    sessions = make()
    with sessions.sync.open(user="p", id="v") as session:
        session.documents.sync.put("report", b"well")
    written = export(sessions)
    others = empty()
    others.sync.import_lines(written.splitlines())
    others.sync.import_lines(written.splitlines(), replace=True)
    assert export(others) != written


def test_an_imported_session_goes_on_as_the_other_would(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()
    sessions.sync.import_lines(export(make()).splitlines())
    with sessions.sync.open(user="p", id="v") as session:
        assert session.to_dict() == {"step": 2, "user:theme": "dark", "app:motd": "hi"}
        assert [message.content for message in session.messages] == ["0", "1", "2"]
        session.messages.add("user", "3")
    assert sessions.sync.rewind(user="p", id="v", to=1) == 3
    found = sessions.sync.get(user="p", id="v")
    assert found is not None
    assert found["step"] == 0
    assert [kept.id for kept in sessions.sync.list(user="p").items] == ["v"]
    assert sessions.sync.memory(user="p").get("allergies") == ["penicillin"]
    assert sessions.sync.archive(user="p", id="v") == 1
    assert sessions.sync.erase(user="p").sessions == 1


def test_every_column_of_a_session_and_every_table_of_its_rows_is_exported() -> None:
    assert set(lines.COLUMNS) == set(SESSIONS.columns) - set(lines.LEFT_OUT)
    assert set(OF_SESSIONS) == {STATE, MESSAGES, CHANGES, CHECKPOINTS, MEMORY, DOCUMENTS}, "a table without lines in an export"


FROZEN: Final = """\
{"dcaf":"sessions","version":1,"app":"clinic"}
{"kind":"app"}
{"kind":"state","key":"app:motd","value":"hi"}
{"kind":"end","lines":1}
{"kind":"user","user":"p"}
{"kind":"state","key":"user:theme","value":"dark"}
{"kind":"memory","key":"allergies","shared":true,"created":1,"updated":2,"expires":null,"value":["penicillin"]}
{"kind":"end","lines":2}
{"kind":"session","id":"v","user":"p","revision":2,"messages":1,"changes":1,"created":3,"updated":4,"listed":5,"closed":6,\
"archived":7,"title":"T","labels":{"a":"b"},"metadata":{"n":1},"open_calls":["c1"],"ends":253402300799999,"version":2}
{"kind":"state","key":"step","value":1.5}
{"kind":"memory","key":"mood","shared":false,"created":7,"updated":8,"expires":253402300799999,"value":null}
{"kind":"checkpoint","name":"start","messages":0,"changes":1,"at":9,"state":{"step":1.5}}
{"kind":"message","number":1,"revision":2,"at":-9,"message":{"role":"user","content":"Hello!"}}
{"kind":"change","number":1,"revision":1,"messages":0,"at":10,"change":{"set":{"step":1.5},"delete":[]}}
{"kind":"end","lines":5}
{"kind":"done","sessions":1}
"""


def test_the_format_of_version_1_is_read_and_written_as_it_was_first() -> None:
    sessions = empty()
    expected = Imported(sessions=1, messages=1, shared=3)
    assert sessions.sync.import_lines(io.StringIO(FROZEN)) == expected
    assert export(sessions).decode() == FROZEN


def test_one_session_goes_alone_and_those_of_a_user_take_along_what_they_share() -> None:
    sessions = make()
    sessions.sync.create(user="q", id="v")
    sessions.sync.create(user=None, id="a", state={"user:own": 1})
    kinds = {
        name: [json.loads(line).get("kind") for line in export(sessions, **arguments).splitlines()]
        for name, arguments in {"one": {"user": "p", "id": "v"}, "user": {"user": "p"}, "anonymous": {"id": "a"}, "all": {}}.items()
    }
    assert [kinds["one"].count(kind) for kind in ("app", "user", "session")] == [0, 0, 1]
    assert [kinds["user"].count(kind) for kind in ("app", "user", "session")] == [0, 1, 1]
    assert [kinds["anonymous"].count(kind) for kind in ("app", "user", "session", "state")] == [0, 0, 1, 1]
    assert [kinds["all"].count(kind) for kind in ("app", "user", "session")] == [1, 1, 3]
    assert export(sessions, user="nobody").count(b"\n") == 2
    with pytest.raises(UnknownSessionError):
        export(sessions, user="q", id="another")


def test_another_application_on_the_same_engine_is_not_exported(kept_place: KeptPlace) -> None:
    ours, theirs = kept_place.open_service(), SessionService(kept_place.open_service().engine, app="shop")
    for number in range(130):
        ours.sync.create(user=f"p{number}", id="v")
        theirs.sync.create(user=f"p{number}", id="v", state={"theirs": SECRET})
    written = export(ours)
    assert written.count(b'"kind":"session"') == 130
    assert SECRET.encode() not in written


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_lines_go_from_service_to_service_without_a_file(backend: str) -> None:
    sessions, others = make(), empty()

    async def move() -> tuple[Imported, bytes]:
        imported = await others.import_lines(sessions.export())
        return imported, b"".join([line async for line in others.export(user="p", id="v")])

    imported, written = anyio.run(move, backend=backend)
    assert imported == Imported(sessions=1, messages=3, shared=3)
    assert written == export(sessions, user="p", id="v")


# While others write


def test_a_session_that_is_rewound_while_it_is_read_is_read_again() -> None:
    sessions, watched = watch(make())
    watched.before(2, lambda: sessions.sync.rewind(user="p", id="v", to=1))
    written = export(sessions, user="p", id="v")
    assert written.count(b'{"kind":"void"}') == 1
    others = empty()
    assert others.sync.import_lines(written.splitlines()).messages == 1
    assert export(others, user="p", id="v") == export(sessions, user="p", id="v")


def test_control_a_session_that_is_not_looked_at_again_is_exported_of_two_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(*_: object, **__: object) -> Any:
        yield from ()
        return True

    monkeypatch.setattr(exporting, "_is_as_read", believe)
    sessions, watched = watch(make())
    watched.before(2, lambda: sessions.sync.rewind(user="p", id="v", to=1))
    with pytest.raises(ConfigurationError, match="not as many messages"):
        empty().sync.import_lines(export(sessions, user="p", id="v").splitlines())


def test_turns_that_only_add_do_not_disturb_an_export() -> None:
    sessions, watched = watch(make())
    before = export(sessions, user="p", id="v")

    def add() -> None:
        with sessions.sync.open(user="p", id="v") as session:
            session["step"] = 7
            session.messages.add("user", "more")

    watched.before(2, add)
    assert export(sessions, user="p", id="v") == before


def test_a_session_that_is_deleted_while_it_is_read_is_not_imported() -> None:
    sessions, watched = watch(make())
    sessions.sync.create(user="q", id="w")
    watched.before(21, lambda: sessions.sync.delete(user="p", id="v"))
    written = export(sessions)
    assert b'{"kind":"void"}' in written
    others = empty()
    assert others.sync.import_lines(written.splitlines()).sessions == 1
    assert others.sync.get(user="p", id="v") is None


def watch(sessions: SessionService) -> tuple[SessionService, Watched]:
    watched = Watched(sessions.engine)
    return SessionService(watched, app=sessions.app), watched


# What is refused

LINES: Final = FROZEN.splitlines()


def changed(number: int, /, **members: Any) -> list[str]:
    """The lines, one of them with other members."""
    found = json.loads(LINES[number - 1]) | members
    return [*LINES[: number - 1], json.dumps(found), *LINES[number:]]


WRONG: Final[list[tuple[str, list[Any], str]]] = [
    ("nothing", [], "breaks off after line 0"),
    ("another file", ["{}"], "Line 1 is not that of an export"),
    ("no JSON", [*LINES[:3], SECRET, *LINES[4:]], "Line 4 is no JSON object"),
    ("a list", [*LINES[:3], f'["{SECRET}"]', *LINES[4:]], "Line 4 is no JSON object"),
    ("half a line", [*LINES[:11], LINES[11][:40]], "Line 12 is no JSON object"),
    ("no text", [*LINES[:3], 7], "Line 4 is to be bytes or a text"),
    ("no UTF-8", [*LINES[:3], b'{"kind":"\xff"}'], "Line 4 is no JSON object"),
    ("another version", changed(1, version=2), "another version than 1"),
    ("another application", changed(1, app=SECRET), "another application"),
    ("another kind", changed(10, kind=SECRET), "Line 10 is of no kind"),
    ("a member more", changed(10, more=SECRET), "Line 10 has not the members"),
    ("a key that is none", changed(10, key=7), "Line 10: key"),
    ("a key of others", changed(10, key=f"user:{SECRET}"), "Line 10 does not belong"),
    ("a key that is never stored", changed(10, key=f"temp:{SECRET}"), "Line 10 does not belong"),
    ("a key of nobody's", changed(6, key=SECRET), "Line 6 does not belong"),
    ("a fact of others", changed(11, shared=True), "Line 11 does not belong"),
    ("a fact without a key", changed(11, key=""), "Line 11: The key of a memory"),
    ("a moment that never comes", changed(9, created=2**53), "Line 9: created"),
    ("a moment that is none", changed(13, at=True), "Line 13: at"),
    ("no revision", changed(9, revision=None), "Line 9: revision"),
    ("an id that is empty", changed(9, id=""), "Line 9: id="),
    ("a user that is empty", changed(5, user=""), "Line 5: user="),
    ("labels that are none", changed(9, labels={"a": 1}), "Line 9: labels"),
    ("no open calls", changed(9, open_calls=[1]), "Line 9: open_calls"),
    ("a checkpoint of later", changed(12, messages=2), "Line 12 is no checkpoint"),
    ("a checkpoint of others", changed(12, state={f"app:{SECRET}": 1}), "Line 12 is no checkpoint"),
    ("a checkpoint without a name", changed(12, name=""), "Line 12: name is a text"),
    ("no message", changed(13, message={"role": SECRET}), "Line 13: message.role"),
    ("a message that is too long", changed(13, message={"role": "user", "content": "x" * 2**20}), "Line 13: message has"),
    ("a message out of turn", changed(13, number=2), "Line 13 is not the next message"),
    ("a change out of turn", changed(14, number=0), "Line 14 is not the next change"),
    ("no change", changed(14, change={"set": {}}), "Line 14: change"),
    ("a message that is missing", [*LINES[:12], *LINES[13:14], '{"kind":"end","lines":4}'], "Line 9: the session has not"),
    ("a key twice", [*LINES[:10], *LINES[9:]], "Line 11 is of the same key"),
    ("a line that is missing", [*LINES[:9], *LINES[10:]], "counts other lines"),
    ("a session that is missing", [*LINES[:8], LINES[-1]], "counts other sessions"),
    ("a block in a block", [*LINES[:9], LINES[8]], "Line 10 does not belong"),
    ("a line outside", [*LINES[:8], LINES[9]], "Line 9 stands outside"),
    ("a line behind", [*LINES, LINES[-1]], "Line 17 stands behind"),
    ("a void that is none", [*LINES[:6], '{"kind":"void"}'], "Line 7 is for a session alone"),
    ("an end that is missing", LINES[:-1], "breaks off after line 15"),
    ("half a session", LINES[:12], "breaks off after line 12"),
]


AFTER_ALL: Final = ("a line behind", "an end that is missing")
"""What is wrong behind the end of the session."""


@pytest.mark.parametrize(("name", "given_lines", "told"), [pytest.param(*wrong, id=wrong[0]) for wrong in WRONG])
def test_a_line_that_is_wrong_is_named_by_its_number_and_quoted_nowhere(name: str, given_lines: list[Any], told: str) -> None:
    sessions = empty()
    with pytest.raises((ConfigurationError, SessionValueError)) as caught:
        sessions.sync.import_lines(given_lines)
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(sessions.engine.sync.scan(SESSIONS)) == (name in AFTER_ALL)


@pytest.mark.parametrize("stop", range(10, 15))
def test_of_a_session_that_breaks_off_no_row_is_left(stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "AT_ONCE", 1)
    sessions = empty()
    with pytest.raises(ConfigurationError, match="breaks off"):
        sessions.sync.import_lines([LINES[0], *LINES[8:stop]])
    assert rows_of(sessions) == 0


def test_control_an_import_that_lets_lie_what_is_half_made_leaves_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def let_lie(_: object) -> Any:
        yield from ()

    monkeypatch.setattr(importing.Importer, "abandon", let_lie)
    sessions = empty()
    with pytest.raises(ConfigurationError, match="breaks off"):
        sessions.sync.import_lines([LINES[0], *LINES[8:12]])
    assert rows_of(sessions) > 0


@pytest.mark.parametrize("wrong", [None, 5, "{}", b"{}", {"kind": "done"}, str])
def test_what_is_no_lines_is_refused_at_the_call(wrong: Any) -> None:
    sessions = empty()
    for call in (sessions.sync.import_lines, lambda given_lines: anyio.run(sessions.import_lines, given_lines)):
        with pytest.raises(ConfigurationError, match="lines= takes the lines of an export"):
            call(wrong)
    with pytest.raises(ConfigurationError, match="replace="):
        sessions.sync.import_lines([], replace="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="user="):
        sessions.sync.export(user="")
    with pytest.raises(ConfigurationError, match="id="):
        sessions.export(user="p", id="")


def test_a_line_that_is_too_long_is_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINE_BYTES", 1_000)
    with pytest.raises(ConfigurationError, match="longer than the 1,000 bytes"):
        export(make(long="x" * 1_000))
    with pytest.raises(ConfigurationError, match="Line 10 is longer than 1,000 bytes"):
        empty().sync.import_lines(changed(10, value="x" * 1_000))


# What is there already


def test_a_session_that_is_there_stays_unless_it_is_to_be_replaced() -> None:
    sessions = make()
    written = export(sessions)
    with sessions.sync.open(user="p", id="v") as session:
        session["later"] = 1
        session.user["theme"] = "light"
    later = export(sessions)
    with pytest.raises(SessionExistsError, match="Line 9: there is a session of this id already"):
        sessions.sync.import_lines(written.splitlines())
    assert export(sessions) == later
    assert sessions.sync.import_lines(written.splitlines(), replace=True).shared == 3
    assert export(sessions) == written


def test_shared_keys_and_facts_that_are_there_stay_and_are_counted() -> None:
    sessions = make()
    written = [line for line in sessions.sync.export() if b'"app:' not in line]
    user = [*written[:1], *written[3:7], b'{"kind":"done","sessions":0}']
    with sessions.sync.open(user="p", id="v") as session:
        session.user["theme"] = "light"
        session.memory.delete("allergies")
    imported = sessions.sync.import_lines(user)
    assert (imported.shared, imported.stayed) == (1, 1)
    assert sessions.sync.memory(user="p").get("allergies") == ["penicillin"]
    found = sessions.sync.get(user="p", id="v")
    assert found is not None
    assert found.user["theme"] == "light"


def test_facts_are_remembered_where_all_was_forgotten_before() -> None:
    sessions = make()
    written = export(sessions, user="p")
    for _ in range(2):
        sessions.sync.memory(user="p").clear()
    sessions.sync.delete(user="p", id="v")
    sessions.sync.import_lines(written.splitlines())
    assert export(sessions, user="p") == written


@pytest.mark.parametrize("user", ["p", None])
def test_a_session_that_is_to_be_replaced_stays_where_the_export_breaks_off(user: str | None) -> None:
    sessions = empty()
    sessions.sync.create(user=user, id="v", state={"old": True, "user:own": 1})
    before = export(sessions)
    others = empty()
    others.sync.create(user=user, id="v", state={"old": False})
    given_lines = export(others).splitlines()
    rows = rows_of(sessions)
    with pytest.raises(ConfigurationError, match="breaks off"):
        sessions.sync.import_lines(given_lines[:-2], replace=True)
    assert (export(sessions), rows_of(sessions)) == (before, rows)
    sessions.sync.import_lines(given_lines, replace=True)
    assert export(sessions, user=user, id="v") == export(others, user=user, id="v")
    assert rows_of(sessions) == rows_of(others) + (user is not None), "the key that the user's sessions share stays"


def test_control_an_import_that_makes_room_first_loses_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(block: SessionBlock) -> Plan[None]:
        outcome = yield Transaction([block._target.row])
        if outcome.rows[0] is not None:
            yield from drop_rows(block._target, outcome.rows[0], before_ms=EVER)
        yield from block._reserve(block._target)

    monkeypatch.setattr(SessionBlock, "begin", begin)
    sessions = make()
    with pytest.raises(ConfigurationError, match="breaks off"):
        sessions.sync.import_lines(export(sessions, user="p").splitlines()[:-2], replace=True)
    assert sessions.sync.get(user="p", id="v") is None


def test_a_turn_of_a_session_that_was_replaced_is_refused() -> None:
    sessions = make()
    written = export(sessions).splitlines()
    with pytest.raises(UnknownSessionError), sessions.sync.open(user="p", id="v") as session:
        session["mine"] = 1
        sessions.sync.import_lines(written, replace=True)
    assert export(sessions).splitlines() == written


def test_a_session_that_has_ended_is_counted_and_not_made() -> None:
    sessions = empty()
    imported = sessions.sync.import_lines(changed(9, ends=1))
    assert (imported.sessions, imported.ended) == (0, 1)
    assert sessions.sync.list(user="p").items == []
    assert export(sessions, user="p").count(b'"kind":"session"') == 0


# What fails


def each_failure(replace: bool) -> Iterator[tuple[SessionService, bytes]]:
    """A service after an import that failed at each of its transactions in turn; and what was there before."""
    written = export(make()).splitlines()
    for number in range(200):
        sessions, watched = watch(make() if replace else empty())
        before = export(sessions)

        def fail() -> None:
            raise EngineError("The server has gone away.")

        watched.before(number, fail)
        try:
            sessions.sync.import_lines(written, replace=replace)
        except EngineError:
            yield sessions, before
        else:
            return
    raise AssertionError("An import has no end.")


def test_where_the_engine_fails_the_session_is_there_as_a_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "AT_ONCE", 2)
    written, count = export(make(), user="p", id="v").splitlines(), 0
    for sessions, _ in each_failure(replace=False):
        found = sessions.sync.get(user="p", id="v")
        assert found is None, "its row comes last, and so fails with the import"
        sessions.sync.import_lines(written, replace=True)
        count += 1
    assert count > 8


def test_control_an_import_whose_row_comes_first_shows_half_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = SessionBlock._reserve

    def show(block: SessionBlock, place: Any) -> Plan[None]:
        yield from reserve(block, place)
        columns = {name: blocks._pack(value) for name, value in block._columns.items() if name != "revision"}
        yield Transaction([place.row], writes=[Put(place.row, {**columns, "dropped": None})])

    monkeypatch.setattr(SessionBlock, "_reserve", show)
    monkeypatch.setattr(blocks, "AT_ONCE", 2)
    seen = [sessions.sync.get(user="p", id="v") for sessions, _ in each_failure(replace=False)]
    assert any(found is not None for found in seen)


def test_somebody_who_makes_the_session_meanwhile_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "AT_ONCE", 1)
    sessions, watched = watch(empty())
    watched.before(4, lambda: sessions.sync.create(user="p", id="v", state={"mine": 1}))
    with pytest.raises(StaleSessionError, match="Line 2: somebody else"):
        sessions.sync.import_lines([LINES[0], *LINES[8:]])
    found = sessions.sync.get(user="p", id="v")
    assert found is not None
    assert found.to_dict() == {"mine": 1}


def test_a_purge_leaves_an_import_alone_that_goes_on() -> None:
    sessions = empty()
    taken: list[Purged] = []

    def read() -> Iterator[str]:
        for number, line in enumerate([LINES[0], *LINES[8:]]):
            if number == 4:
                taken.append(sessions.sync.purge())
            yield line

    assert sessions.sync.import_lines(read()).sessions == 1
    assert [purged.sessions for purged in taken] == [0]


# How much it holds


def find_peak(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_session_is_held_in_memory_by_pages_alone(tmp_path: Path) -> None:
    sessions = SessionService(f"sqlite:///{tmp_path}/one.db", app="clinic")
    others = SessionService(f"sqlite:///{tmp_path}/two.db", app="clinic")
    sessions.sync.create(user="p", id="v")
    others.sync.create(user="p", id="w")  # to open a file takes as much as half of what is measured
    for _ in range(8):
        sessions.sync.append(user="p", id="v", messages=[("user", "x" * 2_000)] * 1_000)
    most = 8_000 * 2_000 // 2
    assert find_peak(lambda: sum(map(len, sessions.sync.export()))) < most
    assert find_peak(lambda: others.sync.import_lines(sessions.sync.export())) < most
    assert find_peak(lambda: list(sessions.sync.export())) > most, "control: who keeps all lines is noticed"
    for service in (sessions, others):
        service.engine.sync.close()
