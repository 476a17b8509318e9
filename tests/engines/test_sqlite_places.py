"""Where a SQLite engine keeps its file and what it refuses; tables of older and newer releases; and the urls that open engines."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dcaf.core import ConfigurationError
from dcaf.core.errors import EngineError
from dcaf.engines import MemoryEngine, Put, Record, SqliteEngine, Table, Transaction, open_engine
from dcaf.engines.opening import mask
from dcaf.engines.sqlite.connection import VERSION
from dcaf.engines.sqlite.file import NETWORK, check_place, find_file_system

SHOP = Table("shop", {"count": int, "holder": bytes}, indexed="holder")
SHOP_LATER = Table("shop", {"count": int, "holder": bytes, "expires": int, "note": bytes}, indexed="holder")
RECORD = Record(SHOP, b"a")


def put(engine: Any, table: Table = SHOP, **values: Any) -> None:
    record = Record(table, b"a")
    engine.declare([table])
    engine.sync.transact(Transaction([record], writes=[Put(record, values)]))


def read(engine: Any, table: Table = SHOP) -> Any:
    engine.declare([table])
    return engine.sync.transact(Transaction([Record(table, b"a")])).rows[0]


@contextlib.contextmanager
def opened(path: Path, **settings: Any) -> Any:
    engine = SqliteEngine(path, **settings)
    try:
        yield engine
    finally:
        engine.sync.close()


def run_sql(path: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("kind", [*sorted(NETWORK), "fuse.sshfs", "fuse.glusterfs"])
def test_a_network_file_system_is_refused(kind: str, tmp_path: Path) -> None:
    mounts = f"22 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n40 22 0:51 / {tmp_path} rw,noatime - {kind} server:/a rw"
    with pytest.raises(ConfigurationError, match="network file system") as found:
        check_place(tmp_path / "dcaf.db", mounts)
    assert kind.removeprefix("fuse.") in str(found.value)


def test_control_a_disk_below_or_beside_a_network_file_system_is_not_refused(tmp_path: Path) -> None:
    mounts = [
        f"40 22 0:51 / {tmp_path}x rw - nfs s:/ rw",
        "22 1 8:1 / / rw - nfs s:/ rw",
        f"41 22 8:2 / {tmp_path} rw - ext4 /dev/b rw",
    ]
    check_place(tmp_path / "dcaf.db", "\n".join(mounts))
    check_place(tmp_path / "dcaf.db", None)
    check_place(tmp_path / "dcaf.db", "what nobody understands\n\n1 2 - \n")


def test_a_mount_with_a_space_in_its_name_and_one_over_another_are_found() -> None:
    mounts = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /srv/a\\040b rw - nfs4 s:/ rw\n"
    mounts += "3 1 0:6 / /srv/c rw - nfs s:/ rw\n4 3 8:2 / /srv/c rw - xfs b rw"
    found = [find_file_system(Path(path), mounts) for path in ("/srv/a b/x", "/srv/c/x", "/srv/a", "/srv/cc/x")]
    assert found == ["nfs4", "xfs", "ext4", "ext4"]


def test_a_folder_that_is_not_there_or_is_a_file_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "dcaf.db", tmp_path / "file" / "dcaf.db"):
        with pytest.raises(ConfigurationError, match="There is no folder"):
            SqliteEngine(path)
    with pytest.raises(ConfigurationError, match="is no file"):
        SqliteEngine(tmp_path)


@pytest.mark.parametrize(("what", "message"), [("folder", "folder .* cannot be written"), ("file", "cannot be read and written")])
def test_what_this_user_may_not_write_is_refused(what: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dcaf.db"
    path.touch()
    refused = tmp_path if what == "folder" else path
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != refused)  # root may write everything
    with pytest.raises(ConfigurationError, match=message):
        SqliteEngine(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("the notes of a year\n" * 100)
    with pytest.raises(ConfigurationError, match="no SQLite database"):
        SqliteEngine(path)
    assert path.read_text() == "the notes of a year\n" * 100
    assert [found.name for found in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_of_a_newer_release_is_refused_when_it_is_opened_and_later(tmp_path: Path) -> None:
    path = tmp_path / "dcaf.db"
    with opened(path) as engine:
        put(engine, count=1)
    run_sql(path, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(ConfigurationError, match="newer release"):
        SqliteEngine(path)
    run_sql(path, f"PRAGMA user_version = {VERSION}")
    with opened(path) as engine:
        run_sql(path, f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(EngineError, match="newer release"):
            put(engine, count=2)
        run_sql(path, f"PRAGMA user_version = {VERSION}")
        assert read(engine)["count"] == 1


def test_a_table_of_an_older_release_gets_its_new_columns_and_keeps_its_rows(tmp_path: Path) -> None:
    with opened(tmp_path / "dcaf.db") as engine:
        put(engine, count=1, holder=b"ada")
    with opened(tmp_path / "dcaf.db") as engine:  # it reads first, before anything could have been added
        assert read(engine, SHOP_LATER) == {"count": 1, "holder": b"ada", "expires": None, "note": None}
        put(engine, SHOP_LATER, note=b"new")
    with opened(tmp_path / "dcaf.db") as engine:  # and the older release goes on beside it
        assert read(engine) == {"count": 1, "holder": b"ada"}
        put(engine, count=2)
    with opened(tmp_path / "dcaf.db") as engine:
        assert read(engine, SHOP_LATER) == {"count": 2, "holder": b"ada", "expires": None, "note": b"new"}


def test_a_table_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dcaf.db"
    run_sql(path, "CREATE TABLE shop (id INTEGER PRIMARY KEY, count TEXT)")
    with opened(path) as engine:
        for _ in range(2):
            with pytest.raises(EngineError, match="another table called shop"):
                put(engine, count=1)
    assert run_sql(path, "SELECT count(*) FROM shop") == [(0,)]


def test_rows_outlive_the_engine_and_another_one_sees_them_at_once(tmp_path: Path) -> None:
    with opened(tmp_path / "dcaf.db") as first, opened(tmp_path / "dcaf.db") as second:
        put(first, count=1)
        assert read(second)["count"] == 1
        put(second, count=2)
        assert read(first)["count"] == 2
    with opened(tmp_path / "dcaf.db") as third:
        assert read(third)["count"] == 2


def test_others_of_this_machine_cannot_read_the_file(tmp_path: Path) -> None:
    with opened(tmp_path / "dcaf.db") as engine:
        put(engine, count=1)
        assert {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == dict.fromkeys(
            ["dcaf.db", "dcaf.db-wal", "dcaf.db-shm", "dcaf.db-lock", "dcaf.db-next"], 0
        )


def test_the_file_stays_where_it_was_when_the_folder_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = open_engine("sqlite:///dcaf.db")
    monkeypatch.chdir("/")
    put(engine, count=1)
    assert engine.url == f"sqlite:///{tmp_path}/dcaf.db"
    assert repr(engine) == f"SqliteEngine('{engine.url}')"
    assert read(open_engine(engine.url))["count"] == 1
    engine.sync.close()


@pytest.mark.parametrize(
    "settings", [{"durability": "none"}, {"durability": True}, {"timeout": 1}, {"timeout": timedelta()}, {"clock": 1}, {"path": 5}]
)
def test_wrong_settings_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        SqliteEngine(**{"path": tmp_path / "dcaf.db", **settings})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no scheme"),
        ("dcaf.db", "no scheme"),
        ("sqlite://dcaf.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a.db?mode=ro", "no options"),
        ("memory://a", "nothing after"),
        ("valkey://:hunter2@cache/0", "write redis://"),
        ("valkeys://:hunter2@cache/0", "write rediss://"),
        ("postgresql+psycopg://app:hunter2@db/shop", "no driver"),
        ("mysql://app:hunter2@db/shop", "names no engine"),
        ("app:hunter2@db", "no scheme"),
        ("http://[hunter2", "names no engine"),
        (7, "a url"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as found:
        open_engine(url)
    assert "hunter2" not in str(found.value)


def test_a_url_without_a_password_is_shown() -> None:
    assert mask("mysql://db/shop") == "mysql://db/shop"
    assert [mask(url) for url in ("mysql://a:b@db/x", "mysql://db/x?password=b", "mysql://db/x#b")] == ["mysql://..."] * 3


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"DB_CONNECTION_STRING": "memory://"}, MemoryEngine),
        ({"DB_CONNECTION_STRING": "memory://", "SESSION_STORAGE": "sqlite"}, MemoryEngine),
        ({"SESSION_STORAGE": "memory"}, MemoryEngine),
        ({"SESSION_STORAGE": "SQLite "}, SqliteEngine),
        ({"SESSION_STORAGE": "redis"}, None),
        ({"SESSION_STORAGE": "postgres"}, None),
        ({"SESSION_STORAGE": "file"}, None),
        ({}, None),
    ],
)
def test_the_environment_names_the_engine(
    variables: dict[str, str], kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DB_CONNECTION_STRING", "SESSION_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    if kind is None:
        with pytest.raises(ConfigurationError, match="SESSION_STORAGE"):
            open_engine()
    else:
        assert isinstance(open_engine(), kind)


def test_a_large_table_and_a_small_one_are_laid_out_apart(tmp_path: Path) -> None:
    with opened(tmp_path / "dcaf.db") as engine:
        put(engine, Table("small", {"count": int}), count=1)
        put(engine, Table("large", {"data": bytes}, large=True), data=bytes(100_000))
    made = dict(run_sql(tmp_path / "dcaf.db", "SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    assert {name: "WITHOUT ROWID" in sql for name, sql in made.items()} == {"small": True, "large": False}


def test_a_row_of_a_ledger_is_small(tmp_path: Path) -> None:
    """An id and a subject's digest, eight numbers and a claim, by the thousand."""
    numbers = ("number", "base", "born", "began", "until", "dies", "seen", "expires")
    table = Table("ledger", {**dict.fromkeys(numbers, int), "claim": bytes, "subject": bytes}, indexed="subject")
    now_ms = 1_790_000_000_000
    with opened(tmp_path / "dcaf.db") as engine:
        engine.declare([table])
        records = [Record(table, os.urandom(16)) for _ in range(2_000)]
        values: dict[str, Any] = dict.fromkeys(numbers, now_ms) | {
            "number": 7,
            "base": 6,
            "expires": 2 * now_ms,
            "claim": bytes(16),
            "subject": bytes(32),
        }
        engine.sync.transact(Transaction(records, writes=[Put(record, values) for record in records]))
    run_sql(tmp_path / "dcaf.db", "VACUUM")
    [(table_bytes,)] = run_sql(tmp_path / "dcaf.db", "SELECT sum(pgsize) FROM dbstat WHERE name = 'ledger'")
    print(f"A row takes {table_bytes / 2_000:.0f} bytes.")
    assert table_bytes / 2_000 < 200
