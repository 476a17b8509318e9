"""`dcaf sessions`, as an operator calls it: processes of their own, beside a service that uses the same file or server."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dcaf import Key, Keyring
from dcaf.cli import main
from dcaf.engines import Put, Record, Transaction
from dcaf.service import EncryptedEngine, SessionService
from dcaf.service.encryption import find_sealed
from dcaf.service.tables import MESSAGES
from tests.engines import postgres_servers, redis_servers
from tests.package.cli_servers import DCAF

USER: Final = "ada@example.org"
SAID: Final = "I have a headache."
TITLE: Final = "First\x1b[31m visit"
EACH: Final = (
    ["list"],
    ["list", "--user", USER],
    ["show", "--user", USER, "v1"],
    ["export", "--user", USER],
    ["export", "--all-users"],
    ["erase", USER],
    ["archive", "--idle", "30d"],
    ["archive", "--user", USER, "v1"],
    ["restore", "--user", USER, "v1"],
    ["list", "--user", USER, "--encrypted"],
    ["re-encrypt"],
)


class Clinic:
    """A service, and the folder of its database."""

    def __init__(self, folder: Path, name: str = "dcaf.db") -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/{name}"
        self.sessions = SessionService(self.url, app="clinic")

    def fill(self, times: int = 2) -> None:
        for number in range(1, times + 1):
            self.sessions.sync.create(user=USER, id=f"v{number}", title=TITLE, state={"step": 1, "user:theme": "dark"})
            with self.sessions.sync.open(user=USER, id=f"v{number}") as session:
                session.messages.add("user", SAID)
                session.messages.add("assistant", "Since when?")
                session.memory.set("allergies", ["penicillin"])

    def run(self, *arguments: str, said: str = "", code: int = 0, errors: bool = False) -> str:
        """The command in a process of its own; what it prints, on standard output or else on standard error."""
        environment = {**os.environ, "DB_CONNECTION_STRING": self.url}
        command = [DCAF, "sessions", arguments[0], "--app", "clinic", *arguments[1:]]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, input=said, capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done.stderr if errors else done.stdout or done.stderr

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines() if line.startswith("{")]

    def export(self) -> bytes:
        return b"".join(self.sessions.sync.export())


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    found = Clinic(tmp_path)
    found.fill()
    yield found
    found.sessions.engine.sync.close()


def test_the_list_of_a_user_is_a_table_for_people_and_objects_for_programs(clinic: Clinic) -> None:
    heading, *rows, last = clinic.run("list", "--user", USER).splitlines()
    assert heading.split() == ["id", "messages", "revision", "updated", "ends", "title"]
    assert last == "2 sessions."
    assert sorted(row.split()[:3] for row in rows) == [["v1", "2", "2"], ["v2", "2", "2"]]
    assert all(r"First\x1b[31m visit" in row for row in rows), "a title moves no cursor and paints nothing"
    found = clinic.objects("list", "--user", USER)
    assert sorted(one["id"] for one in found) == ["v1", "v2"]
    assert found[0]["title"] == TITLE


def test_a_list_without_a_user_has_everybody(clinic: Clinic) -> None:
    nobody = clinic.sessions.sync.create(user=None).id
    clinic.sessions.sync.create(user="bob", id="v9")
    heading, *rows, last = clinic.run("list").splitlines()
    assert heading.split() == ["user", "id", "messages", "revision", "updated", "ends", "title"]
    assert sorted(row.split()[:3] for row in rows) == sorted(
        [["-", nobody, "0"], [USER, "v1", "2"], [USER, "v2", "2"], ["bob", "v9", "0"]]
    )
    assert last == "4 sessions."
    found = clinic.objects("list", "--limit", "1", "--all")
    assert {(one["user"], one["id"]) for one in found} == {(None, nobody), (USER, "v1"), (USER, "v2"), ("bob", "v9")}
    assert len(found) == 4
    assert clinic.run("list", "--archived") == "No session is known in this application.\n"
    told = clinic.run("list", "--limit", "3", "--json").splitlines()
    assert len(told) == 3


def test_a_list_goes_on_where_it_ended(clinic: Clinic) -> None:
    environment = {**os.environ, "DB_CONNECTION_STRING": clinic.url}
    command = [DCAF, "sessions", "list", "--app", "clinic", "--user", USER, "--limit", "1", "--json"]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert first.stderr.startswith("There are more: pass --all, or --cursor ")
    cursor = first.stderr.split()[-1]
    (rest,) = clinic.objects("list", "--user", USER, "--cursor", cursor)
    both = clinic.objects("list", "--user", USER, "--limit", "1", "--all")
    assert [json.loads(first.stdout)["id"], rest["id"]] == [one["id"] for one in both]


def test_a_user_is_read_from_standard_input(clinic: Clinic) -> None:
    assert clinic.run("list", "--user", "-", said=f"{USER}\n").endswith("2 sessions.\n")
    assert clinic.run("list", "--user", "-", said="bob\n") == "No session of this user is known in this application.\n"
    assert "There is no user on standard input" in clinic.run("list", "--user", "-", code=2)


def test_a_user_is_erased_with_the_artifacts(clinic: Clinic, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/files"
    service = SessionService(clinic.url, app="clinic", artifacts=url)
    service.sync.artifacts(user=USER, id="v1").save("scan.png", b"1")
    service.engine.sync.close()
    assert "give SessionService(artifacts=...)" in clinic.run("erase", USER, code=2)
    assert clinic.run("erase", USER, "--artifacts", url).startswith("Erased ")
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []


def test_a_session_is_shown_by_names_and_sizes(clinic: Clinic) -> None:
    shown = clinic.run("show", "--user", USER, "v1", "--messages", "1")
    assert shown.startswith("session v1\n")
    assert "2 keys\n|-- step         1 byte\n`-- user:theme   6 bytes\n" in shown
    assert "1 message of 2\n`-- 2 assistant" in shown
    for secret in (SAID, "dark", "Since when?", "\x1b"):
        assert secret not in shown + clinic.run("show", "--user", USER, "v1", "--json")


def test_control_values_are_shown_where_they_are_asked_for(clinic: Clinic) -> None:
    shown = clinic.run("show", "--user", USER, "v1", "--values")
    assert SAID in shown
    assert '"dark"' in shown
    (found,) = clinic.objects("show", "--user", USER, "v1", "--values")
    assert found["state"] == {"step": 1, "user:theme": "dark"}
    assert [message["content"] for message in found["newest"]] == [SAID, "Since when?"]


def test_what_is_exported_is_imported_by_another_command_the_same(clinic: Clinic, tmp_path: Path) -> None:
    other = Clinic(tmp_path, "other.db")
    clinic.run("export", "--all-users", "-o", "all.jsonl")
    written = (tmp_path / "all.jsonl").read_bytes()
    assert written == clinic.export()
    assert stat.S_IMODE((tmp_path / "all.jsonl").stat().st_mode) == 0o600
    assert other.run("import", "all.jsonl", "--url", other.url).startswith(
        "Made 2 sessions with 4 messages. Of what sessions share, 2 "
    )
    assert other.export() == written
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".jsonl") == ["all.jsonl"]


def test_one_session_goes_through_a_pipe(clinic: Clinic, tmp_path: Path) -> None:
    other = Clinic(tmp_path, "other.db")
    piped = clinic.run("export", "--user", USER, "v2")
    assert piped.encode() == b"".join(clinic.sessions.sync.export(user=USER, id="v2"))
    assert json.loads(other.run("import", "-", "--json", said=piped)) == {
        "sessions": 1,
        "messages": 2,
        "shared": 0,
        "stayed": 0,
        "ended": 0,
    }
    assert other.run("import", "-", said=piped, code=2) == (
        "dcaf: Line 2: there is a session of this id already. With replace=True, that of the export takes its place.\n"
    )
    assert other.run("import", "-", "--replace", said=piped) == "Made 1 session with 2 messages.\n"


def test_an_anonymous_session_is_shown_and_exported_by_its_id(clinic: Clinic) -> None:
    clinic.sessions.sync.create(user=None, id="a1", state={"step": 1})
    assert clinic.run("show", "--anonymous", "a1").startswith("session a1\n")
    assert clinic.run("export", "--anonymous", "a1").count('"kind":"session"') == 1
    assert "name it" in clinic.run("export", "--anonymous", code=2)
    assert "no id is named" in clinic.run("export", "--all-users", "a1", code=2)


def test_a_reader_may_leave(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path)
    clinic.fill(times=300)
    piped = subprocess.run(
        ["bash", "-c", f"{DCAF} sessions export --all-users --app clinic --url {clinic.url} | head -1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (piped.stdout.count("\n"), piped.stderr) == (1, "")


def test_what_is_not_there_is_said_and_ends_with_1(clinic: Clinic, tmp_path: Path) -> None:
    for arguments in (["show", "--user", USER, "v9"], ["export", "--user", USER, "v9"], ["show", "--user", "bob", "v1"]):
        assert clinic.run(*arguments, code=1) == "There is no such session of this user in this application.\n"
    clinic.run("export", "--user", USER, "v9", "-o", "none.jsonl", code=1)
    assert [path for path in tmp_path.iterdir() if "jsonl" in path.name] == []
    assert clinic.run("erase", "bob", code=1) == "Nothing of this user is known in this application.\n"


def test_a_file_that_is_wrong_is_said_in_one_line_and_makes_no_database(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path)
    (tmp_path / "wrong.jsonl").write_text(f'{{"{SAID}": 1}}\n')
    assert clinic.run("import", "wrong.jsonl", code=2) == "dcaf: Line 1 is not that of an export of sessions.\n"
    assert "No such file" in clinic.run("import", "nowhere.jsonl", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.jsonl"]


def test_erase_removes_everything_of_a_user_and_reports_it(clinic: Clinic) -> None:
    clinic.sessions.sync.create(user="bob", id="v1")
    report = json.loads(clinic.run("erase", "-", "--report", said=USER))
    assert (report["app"], report["sessions"], report["messages"], report["facts"], report["shared"]) == ("clinic", 2, 4, 1, 1)
    assert USER not in json.dumps(report)
    assert USER.encode() not in clinic.export()
    assert b'"user":"bob"' in clinic.export()
    assert clinic.run("erase", "bob") == "Erased 1 session, 0 facts, and 0 keys that they shared.\n"


def test_a_session_is_archived_listed_and_restored(clinic: Clinic) -> None:
    assert clinic.run("archive", "--user", USER, "v1") == "Archived 1 session.\n"
    assert clinic.run("archive", "--user", USER, "v1", code=1) == "Archived 0 sessions.\n"
    assert [one["id"] for one in clinic.objects("list", "--user", USER)] == ["v2"]
    assert [one["id"] for one in clinic.objects("list", "--user", USER, "--archived")] == ["v1"]
    assert clinic.run("restore", "--user", USER, "v1") == "Restored: it can be written again.\n"
    assert clinic.run("restore", "--user", USER, "v1", code=1) == "It is not archived.\n"
    assert clinic.run("restore", "--user", USER, "v9", code=1) == "There is no such session of this user in this application.\n"


def test_what_is_idle_is_archived_and_nothing_else(clinic: Clinic) -> None:
    assert clinic.run("archive", "--idle", "1h", code=1) == "Archived 0 sessions.\n"
    time.sleep(1.1)
    with clinic.sessions.sync.open(user=USER, id="v2") as session:
        session["step"] = 2
    assert clinic.run("archive", "--idle", "1s") in {"Archived 1 session.\n", "Archived 2 sessions.\n"}
    assert "v1" in [one["id"] for one in clinic.objects("list", "--user", USER, "--archived")]


def test_an_encrypted_application_is_looked_after_with_its_ring(tmp_path: Path, monkeypatch: Any) -> None:
    clinic = Clinic(tmp_path)
    old, new = Key.generate("old"), Key.generate("new")
    clinic.sessions = SessionService(clinic.url, app="clinic", encrypt=Keyring(old))
    clinic.fill()
    assert "are encrypted here. Give its key ring" in clinic.run("list", "--user", USER, code=2)
    monkeypatch.setenv("DCAF_KEYS", new.text())
    told = clinic.run("list", "--user", USER, "--encrypted", code=2)
    assert "under the key 'old', which the ring does not have" in told
    monkeypatch.setenv("DCAF_KEYS_VERIFY", old.text())
    assert "v1" in clinic.run("list", "--user", USER, "--encrypted")
    told = clinic.run("re-encrypt")
    assert re.fullmatch(r"Encrypted \d+ rows anew; 0 were under the active key.\n", told)
    monkeypatch.delenv("DCAF_KEYS_VERIFY")
    assert [one["id"] for one in clinic.objects("list", "--user", USER, "--encrypted")] == ["v2", "v1"]
    clinic.run("export", "--all-users", "--encrypted", "-o", "all.jsonl")
    assert clinic.run("erase", USER, "--encrypted").startswith("Erased 2 sessions")
    assert clinic.run("import", "all.jsonl", "--encrypted").startswith("Made 2 sessions")


def test_re_encrypt_says_which_rows_it_cannot_open(tmp_path: Path, monkeypatch: Any) -> None:
    clinic = Clinic(tmp_path)
    ring = Keyring(Key.generate("k7"))
    clinic.sessions = SessionService(clinic.url, app="clinic", encrypt=ring)
    clinic.fill()
    engine = clinic.sessions.engine
    assert isinstance(engine, EncryptedEngine)
    table = find_sealed(MESSAGES)
    (key, row), *_ = engine.below.sync.scan(table)
    assert isinstance(row["data"], bytes)
    engine.below.sync.transact(Transaction([], writes=[Put(Record(table, key), {"data": row["data"][:-1]})]))
    monkeypatch.setenv("DCAF_KEYS", Key.generate("new").text())
    monkeypatch.setenv("DCAF_KEYS_VERIFY", ring.active.text())
    assert "1 row cannot be opened" in clinic.run("re-encrypt", code=1, errors=True)


@pytest.mark.parametrize("arguments", EACH, ids=lambda arguments: " ".join(arguments[:2]))
def test_no_command_but_import_makes_a_database(tmp_path: Path, capsys: Any, monkeypatch: Any, arguments: list[str]) -> None:
    monkeypatch.setenv("DCAF_KEYS", Key.generate("k7").text())
    assert main(["sessions", *arguments, "--app", "clinic", "--url", f"sqlite:///{tmp_path}/dcaf.db"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "There are no sessions in" in printed.err
    assert USER not in printed.err
    assert list(tmp_path.iterdir()) == []


def test_control_a_service_alone_makes_the_database(tmp_path: Path) -> None:
    assert Clinic(tmp_path).sessions.sync.get(user=USER, id="v1") is None
    assert (tmp_path / "dcaf.db").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "--user", USER, "--url", "memory://"], "memory:// is the memory of the service's own process"),
        (["list", "--user", USER, "--url", "postgresql://app:hunter2@127.0.0.1:1/shop"], "the server cannot be reached"),
        (["list", "--user", USER, "--limit", "0"], "limit= is 1 to 1000"),
        (["list", "--user", USER, "--cursor", "x"], "cursor="),
        (["show", "--user", USER, "v1", "--messages", "-1"], "limit= is 1 to 1000"),
        (["archive", "--idle", "forever"], "--idle takes a time such as 30d"),
        (["archive", "--idle", "0s"], "idle= is a millisecond"),
        (["archive", "--idle", "30d", "v1"], "Name one session"),
        (["archive", "--user", USER], "Name one session"),
        (["show", "--user", "x" * 300, "v1"], "user= is a text of 1 to 256 characters"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(clinic: Clinic, capsys: Any, arguments: list[str], told: str) -> None:
    where = [] if "--url" in arguments else ["--url", clinic.url]
    assert main(["sessions", *arguments, "--app", "clinic", *where]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "hunter2" not in printed.err
    assert USER not in printed.err


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_servers.running(*redis_servers.DURABLE) as server:
        yield server.socket_url


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_each_command_does_on_a_server_what_it_does_on_a_file(
    clinic: Clinic, capsys: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    url = postgres_servers.get_server().make_database() if kind == "postgres" else request.getfixturevalue("redis_url")
    path = clinic.folder / "all.jsonl"

    def run(command: str, *arguments: str, code: int = 0) -> str:
        assert main(["sessions", command, "--app", "clinic", "--url", url, *arguments]) == code
        found: str = capsys.readouterr().out
        return found

    path.write_bytes(clinic.export())
    assert run("import", str(path)).startswith("Made 2 sessions")
    assert run("list", "--user", USER).endswith("2 sessions.\n")
    assert run("show", "--user", USER, "v1").startswith("session v1\n")
    run("export", "--all-users", "-o", str(path))
    assert path.read_bytes() == clinic.export()
    assert json.loads(run("erase", USER, "--report"))["sessions"] == 2
    assert run("list", "--user", USER) == "No session of this user is known in this application.\n"
