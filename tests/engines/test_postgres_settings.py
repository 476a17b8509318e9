"""What a PostgreSQL engine is told: urls, arguments, the environment. No server is asked."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from dcaf.core.errors import ConfigurationError
from dcaf.engines import Table, open_engine
from dcaf.engines.postgres.engine import PostgresEngine
from dcaf.engines.postgres.functions import Names
from dcaf.engines.postgres.settings import read_settings
from dcaf.engines.postgres.tables import INDEXED_BYTES, TableSql

URL = "postgresql://app:hunter2@db.example:6432/shop?sslmode=verify-full&sslpassword=hunter3"


def test_a_url_is_shown_without_its_password() -> None:
    engine = PostgresEngine(URL)
    assert engine.url == "postgresql://app@db.example:6432/shop"
    assert repr(engine) == "PostgresEngine('postgresql://app@db.example:6432/shop')"
    shown = [engine.url, repr(engine), repr(read_settings(URL)), str(engine.__dict__)]
    assert not any("hunter" in text for text in shown)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://app@/shop?host=/run/postgresql", "postgresql://app@/shop?host=/run/postgresql"),
        ("postgresql://app@/shop?host=/run/postgresql&port=6432", "postgresql://app@/shop?host=/run/postgresql&port=6432"),
        ("postgresql://app:a%40b@[::1]:5433/shop", "postgresql://app@[::1]:5433/shop"),
        ("postgresql://one,two/shop?target_session_attrs=read-write", "postgresql:///shop?host=one,two"),
        ("postgresql:///shop?password=hunter2", "postgresql:///shop"),
    ],
)
def test_urls_of_each_kind_are_understood(url: str, shown: str) -> None:
    assert PostgresEngine(url).url == shown


def test_what_libpq_is_told_is_what_the_url_says_and_nothing_of_what_dcaf_is_told() -> None:
    url = (
        "postgresql://app:a%40b+c@db/shop?schema=state&pool_size=3&prepared=no&vouch=fsync,full_page_writes&options=-c%20jit%3Doff"
    )
    settings = read_settings(url)
    told = {name: settings.connect[name] for name in ("user", "password", "host", "dbname", "options")}
    assert told == {"user": "app", "password": "a@b+c", "host": "db", "dbname": "shop", "options": "-c jit=off"}
    assert not {"schema", "pool_size", "prepared", "vouch"} & set(settings.connect)
    assert (settings.schema, settings.pool_size, settings.is_prepared) == ("state", 3, False)
    assert settings.vouched == {"fsync", "full_page_writes"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://app:hunter2@db/shop", "such as postgresql://"),
        ("app:hunter2@db", "such as postgresql://"),
        ("postgresql://app:hunter2@db/shop?no_such_option=1", "libpq or dcaf"),
        ("postgresql://app:hunter2@db:port/shop?sslmode=%zz", "libpq"),
        ("postgresql://[hunter2", "libpq"),
        ("postgresql://app:hunter2@db/shop?pool_size=many", "pool_size"),
        ("postgresql://app:hunter2@db/shop?pool_size=0", "pool_size"),
        ("postgresql://app:hunter2@db/shop?prepared=perhaps", "prepared"),
        ("postgresql://app:hunter2@db/shop?schema=Upper", "schema"),
        ("postgresql://app:hunter2@db/shop?schema=pg_own", "schema"),
        ("postgresql://app:hunter2@db/shop?vouch=everything", "vouched"),
        (7, "a url"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as found:
        PostgresEngine(url)
    assert "hunter2" not in f"{found.value}{found.value.__cause__}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:Zm9vYmFy/hunter2@db/shop",
        "postgresql://app:1234/hunter2@db/shop",
        "postgresql://app:hunter2/2@db/shop",
        "postgresql://app:1@hunter2@db/shop",
        "postgresql://app:hunter2/2?x@db/shop",
        "postgresql://app:12/hunter2?x@db/shop",
        "postgresql://db:hunter2/shop",
        "postgresql://db/shop?port=hunter2",
    ],
)
def test_a_password_that_libpq_would_take_for_something_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        PostgresEngine(url)
    assert "hunter2" not in f"{found.value}{found.value.__cause__}"


@pytest.mark.parametrize("password", ["%2F%40hunter2%3F", "hunter2?", "1?c2V=hunter2", "a:hunter2", "hunter2&x=y#"])
def test_a_password_is_what_libpq_takes_for_it(password: str) -> None:
    engine = PostgresEngine(f"postgresql://app:{password}@db:5433,other:5434/shop?schema=own&host=db,other")
    assert engine.url == "postgresql:///shop?host=db,other&port=5433,5434".replace("///", "//app@/")
    settings = engine._calls.settings
    assert (settings.schema, settings.connect["dbname"]) == ("own", "shop")
    assert "hunter2" in settings.connect["password"]


@pytest.mark.parametrize(
    "settings",
    [
        {"schema": 'a"; DROP'},
        {"schema": 7},
        {"durability": "none"},
        {"timeout": 1},
        {"timeout": timedelta()},
        {"pool_size": 0},
        {"pool_size": True},
        {"prepared": 1},
        {"vouched": "fsync"},
        {"vouched": ["appendfsync"]},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        PostgresEngine("postgresql:///shop", **settings)


def test_open_engine_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (URL, URL.replace("postgresql", "postgres"), URL.replace("postgresql", "PostgreSQL")):
        engine = open_engine(url, durability="relaxed", timeout=timedelta(seconds=3))
        assert isinstance(engine, PostgresEngine)
        assert engine.url == "postgresql://app@db.example:6432/shop"
        assert engine._calls.settings.durability == "relaxed"
        assert engine._calls.settings.timeout_s == 3
    monkeypatch.setenv("DB_CONNECTION_STRING", URL)
    monkeypatch.setenv("SESSION_STORAGE", "postgres")
    assert isinstance(open_engine(), PostgresEngine)
    monkeypatch.delenv("DB_CONNECTION_STRING")
    with pytest.raises(ConfigurationError, match="DB_CONNECTION_STRING"):
        open_engine()


def test_the_package_is_imported_without_psycopg() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
import dcaf.engines
try:
    dcaf.engines.open_engine("postgresql://app:hunter2@db/shop")
except dcaf.core.errors.ConfigurationError as error:
    print(error)
try:
    dcaf.engines.PostgresEngine
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install 'dcaf[postgres]'") == 2
    assert "hunter2" not in done.stdout


def test_schemas_have_locks_of_their_own() -> None:
    assert len({Names(schema).gate for schema in ("a", "b")} | {Names(schema).making for schema in ("a", "b")}) == 4


def test_a_large_table_and_a_small_one_are_laid_out_apart() -> None:
    small, large = (TableSql(Table("rows", {"data": bytes}, large=is_large), Names("dcaf")) for is_large in (False, True))
    assert ["EXTERNAL" in "".join(sql.make) for sql in (small, large)] == [False, True]


def test_an_index_has_the_beginning_of_a_value() -> None:
    sql = TableSql(Table("rows", {"data": bytes}, indexed="data"), Names("dcaf"))
    assert sql.scan_equal.count(f"FOR {INDEXED_BYTES})") == 2
