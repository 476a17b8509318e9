"""`dcaf ledger`, as an operator calls it: processes of their own, beside a service that uses the same file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from dcaf import Key, Keyring
from dcaf.cli import ledger_actions, main
from dcaf.core import SessionHost
from dcaf.engines import open_engine
from dcaf.ledger import Ledger, LedgerEventName
from dcaf.ledger.events import LEVELS
from dcaf.testing import Reply, SessionClient
from tests.forked import Forked
from tests.package.cli_servers import DCAF, served

CLINIC: Final = """
import anyio
from pathlib import Path

from dcaf import Session
from dcaf.agent import Agent, create_app
from dcaf.ledger import Ledger

async def count(messages, context, session: Session) -> str:
    number = session.incr("n")
    if messages[-1].content == "hang":
        Path("hangs").touch()
        while not Path("goes on").exists():
            await anyio.sleep(0.01)
    return str(number)

def subject(scope):
    return dict(scope["headers"]).get(b"x-user", b"").decode() or None

store = Ledger("sqlite:///dcaf.db", audience="clinic")
app = create_app(Agent(count, name="clinic"), audience="clinic", subject=subject, store=store)
"""

GUIDE: Final = Path(__file__).parents[2] / "docs" / "guides" / "operating.md"
UNKNOWN: Final = "A" * 22
SUBJECT: Final = "ada@example.org"
OTHER: Final = "bob@example.org"
EACH: Final = (
    ["list"],
    ["list", SUBJECT, "--audience", "clinic"],
    ["revoke", UNKNOWN],
    ["log-out", SUBJECT, "--audience", "clinic"],
    ["unlock", UNKNOWN],
    ["purge"],
    ["restored", "--yes"],
    ["check"],
)


class Clinic:
    """A service that runs, and its folder.

    Args:
        url: Its base URL.
        folder: Where its database is.
        keys: What it seals with.
    """

    def __init__(self, url: str, folder: Path, keys: str = "") -> None:
        self.url = url
        self.folder = folder
        self.keys = keys

    def say(self, text: str, envelope: Any = None, *, user: str = SUBJECT) -> Reply:
        with SessionClient(self.url, envelope=envelope, headers={"X-User": user}, timeout=timedelta(minutes=1)) as client:
            return client.send(text)

    def run(self, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
        return run(self.folder, *arguments, said=said)


def run(folder: Path, *arguments: str, said: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with the url of the environment; nothing that it prints has a subject in it."""
    environment = {**os.environ, "DB_CONNECTION_STRING": "sqlite:///dcaf.db", **settings}
    done = subprocess.run(
        [DCAF, "ledger", *arguments],
        cwd=folder,
        env=environment,
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not [text for text in ("Traceback", SUBJECT, OTHER) if text in done.stdout + done.stderr]
    return done


def listed(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    (tmp_path / "clinic.py").write_text(CLINIC)
    keys = Key.generate("k1").text()
    with served(tmp_path, "clinic:app", DCAF_KEYS=keys) as url:
        yield Clinic(url, tmp_path, keys)


def test_log_out_ends_every_session_of_one_subject_in_the_service_that_runs(clinic: Clinic) -> None:
    laptop, phone = clinic.say("go").envelope, clinic.say("go").envelope
    theirs = clinic.say("go", user=OTHER).envelope
    assert len(listed(clinic.run("list", SUBJECT, "--audience", "clinic", "--json"))) == 2
    done = clinic.run("log-out", SUBJECT, "--audience", "clinic")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Logged out: 2 live sessions ended.\n", "")
    assert [clinic.say("go", one).code for one in (laptop, phone)] == ["session-ended"] * 2
    assert clinic.say("go", theirs, user=OTHER).text == "2"
    assert listed(clinic.run("list", SUBJECT, "--audience", "clinic", "--json")) == []


def test_control_a_log_out_of_another_audience_ends_nothing_and_says_so(clinic: Clinic) -> None:
    envelope = clinic.say("go").envelope
    done = clinic.run("log-out", SUBJECT, "--audience", "another")
    assert done.returncode == 0
    assert "No live session was known: the subject had none, or has another --audience" in done.stdout
    assert clinic.say("go", envelope).text == "2"


def test_a_subject_is_read_from_standard_input(clinic: Clinic) -> None:
    mine = clinic.say("go").envelope
    clinic.say("go", user=OTHER)
    (found,) = listed(clinic.run("list", "-", "--audience", "clinic", "--json", said=f"{SUBJECT}\n"))
    assert clinic.run("log-out", "-", "--audience", "clinic", said=SUBJECT).stdout == "Logged out: 1 live session ended.\n"
    assert clinic.say("go", mine).code == "session-ended"
    assert found["session"] not in [
        one["session"] for one in listed(clinic.run("list", "-", "--audience", "clinic", "--json", said=OTHER))
    ]


@pytest.mark.parametrize("said", ["", "\n", "\udcff\n"])
def test_no_subject_on_standard_input_is_said_in_one_line(tmp_path: Path, said: str) -> None:
    fill(tmp_path)
    command_line = [DCAF, "ledger", "list", "-", "--audience", "clinic", "--url", f"sqlite:///{tmp_path}/dcaf.db"]
    done = subprocess.run(command_line, input=os.fsencode(said), capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"subject" in done.stderr


def test_revoke_ends_one_session_and_no_other(clinic: Clinic) -> None:
    first = clinic.say("go").envelope
    (found,) = listed(clinic.run("list", "--json"))
    second = clinic.say("go").envelope
    done = clinic.run("revoke", found["session"])
    assert (done.returncode, done.stdout) == (0, "Revoked: none of its tokens is accepted any more.\n")
    assert clinic.say("go", first).code == "session-ended"
    assert clinic.say("go", second).text == "2"


def test_a_session_that_hangs_is_seen_freed_and_found_in_the_log(clinic: Clinic) -> None:
    envelope = clinic.say("go").envelope
    replies: list[Reply] = []
    hanging = threading.Thread(target=lambda: replies.append(clinic.say("hang", envelope)))
    hanging.start()
    try:
        wait_for(clinic.folder / "hangs")
        assert clinic.say("go", envelope).code == "session-conflict"
        (found,) = listed(clinic.run("list", "--json"))
        assert found["busy"]
        done = clinic.run("unlock", found["session"])
        assert (done.returncode, done.stdout) == (0, "Unlocked: the next turn gets the session.\n")
        assert clinic.say("go", envelope).text == "2"
        again = clinic.run("unlock", found["session"])
        assert (again.returncode, again.stdout) == (1, "No turn holds this session.\n")
    finally:
        (clinic.folder / "goes on").touch()
        hanging.join()
    assert replies[0].code == "session-conflict", "what the turn did that was unlocked is refused: another came first"
    assert f"ledger taken (session {found['log']})" in (clinic.folder / "said.txt").read_text()


def test_control_a_session_that_hangs_is_not_free_by_itself(clinic: Clinic) -> None:
    envelope = clinic.say("go").envelope
    hanging = threading.Thread(target=clinic.say, args=("hang", envelope))
    hanging.start()
    try:
        wait_for(clinic.folder / "hangs")
        assert [clinic.say("go", envelope).code for _ in range(3)] == ["session-conflict"] * 3
    finally:
        (clinic.folder / "goes on").touch()
        hanging.join()


def test_restored_ends_everything_and_only_where_it_is_confirmed(clinic: Clinic) -> None:
    envelope = clinic.say("go").envelope
    asked = clinic.run("restored")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "Pass --yes to do it." in asked.stderr
    envelope = clinic.say("go", envelope).envelope
    time.sleep(1.1)  # a token's clock has whole seconds, and the benefit of the doubt
    done = clinic.run("restored", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert clinic.say("go", envelope).code == "session-ended"
    assert clinic.say("go").text == "1"


def test_purge_removes_what_has_expired_and_no_session_that_lives(clinic: Clinic) -> None:
    envelope = clinic.say("go").envelope
    ago = time.time() - 90 * 86_400
    fill(clinic.folder, clock=lambda: ago, times=30)
    removed = [int(number) for number in re.findall(r"\d+", clinic.run("purge").stdout)]
    assert len(removed) == 3
    assert removed[0] > 0
    assert len(listed(clinic.run("list", "--json"))) == 1
    assert clinic.run("purge").stdout == "Removed 0 sessions, 0 answers, 0 uses.\n"
    assert clinic.say("go", envelope).text == "2"


def test_check_says_what_the_database_promises_and_where_it_is(clinic: Clinic) -> None:
    clinic.say("go")
    drawn = clinic.run("check")
    path = (clinic.folder / "dcaf.db").resolve()
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert drawn.stdout.startswith(f"sqlite:///{path} works\n")
    found = json.loads(clinic.run("check", "--json").stdout)
    assert (found["durability"], found["journal_mode"], found["restored_ms"]) == ("acknowledged", "wal", None)
    assert found["path"] == str(path)
    assert found["wal_bytes"] > 0, "the service has its log open"


def test_the_list_of_all_is_a_table_for_people_and_objects_for_programs(clinic: Clinic) -> None:
    clinic.say("go")
    clinic.say("go", user=OTHER)
    heading, *rows, last = clinic.run("list").stdout.splitlines()
    assert heading.split() == ["session", "number", "began", "ends", "busy", "in", "the", "log"]
    assert last == "2 sessions."
    assert [row.split()[0] for row in rows] == [one["session"] for one in listed(clinic.run("list", "--json"))]


def test_every_page_of_a_long_list_is_printed_and_a_reader_may_leave(tmp_path: Path) -> None:
    fill(tmp_path, times=450)
    found = [one["session"] for one in listed(run(tmp_path, "list", "--json"))]
    assert len(set(found)) == len(found) == 450
    piped = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {DCAF} ledger list --url sqlite:///dcaf.db | head -1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (piped.stdout.count("\n"), piped.stderr) == (1, "")


@pytest.mark.parametrize("arguments", EACH, ids=lambda arguments: " ".join(arguments[:2]))
def test_no_command_makes_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ledger", *arguments, "--url", "sqlite:///dcaf.db"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "There is no ledger in" in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", EACH, ids=lambda arguments: " ".join(arguments[:2]))
def test_no_command_touches_the_database_of_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("dcaf.db")) as connection:
        connection.execute("CREATE TABLE own (a)")
    before = Path("dcaf.db").read_bytes()
    assert main(["ledger", *arguments, "--url", "sqlite:///dcaf.db"]) == 2
    assert "There is no ledger in" in capsys.readouterr().err
    assert Path("dcaf.db").read_bytes() == before


def test_control_an_engine_alone_makes_the_database(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/dcaf.db", audience="clinic")
    asyncio.run(ledger.revoke(UNKNOWN))
    asyncio.run(ledger.aclose())
    assert (tmp_path / "dcaf.db").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "--url", "memory://"], "memory:// is the memory of the service's own process"),
        (["list", "--url", "postgresql://app:hunter2@127.0.0.1:1/shop"], "the server cannot be reached"),
        (["list", "--url", "mongodb://app:hunter2@db/shop"], "mongodb://... names no engine"),
        (["list", "--url", "sqlite:///clinic.py"], "the file is no SQLite database"),
        (["list", "--url", "sqlite:///nowhere/dcaf.db"], "There is no folder"),
        (["list"], "Name an engine: a url, or DB_CONNECTION_STRING"),
        (["list", SUBJECT, "--url", "sqlite:///dcaf.db"], "pass --audience"),
        (["log-out", SUBJECT, "--url", "sqlite:///dcaf.db"], "pass --audience"),
        (["revoke", "short", "--url", "sqlite:///dcaf.db"], "A session id is the text of 22 characters"),
        (["unlock", "short", "--url", "sqlite:///dcaf.db"], "A session id is the text of 22 characters"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], told: str
) -> None:
    fill(tmp_path)
    (tmp_path / "clinic.py").write_text(CLINIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DB_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("SESSION_STORAGE", raising=False)
    assert main(["ledger", *arguments]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "hunter2" not in printed.err
    assert SUBJECT not in printed.err


def test_a_database_that_another_program_holds_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fill(tmp_path)
    monkeypatch.setattr(ledger_actions, "PATIENCE", timedelta(seconds=0.3))
    with closing(sqlite3.connect(tmp_path / "dcaf.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert main(["ledger", "purge", "--url", f"sqlite:///{tmp_path}/dcaf.db"]) == 2
        assert "another program" in capsys.readouterr().err
        holder.execute("ROLLBACK")
    assert main(["ledger", "purge", "--url", f"sqlite:///{tmp_path}/dcaf.db"]) == 0


def test_a_database_that_may_not_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp())  # the folders of pytest are closed to another user
    try:
        fill(folder)
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555)
        said = tmp_path / "said"
        command_line = [DCAF, "ledger", "purge", "--url", f"sqlite:///{folder}/dcaf.db"]
        process = Forked(run_as_nobody, command_line, folder=folder, environment=os.environ, said=said)
        code = process.wait(timeout=60)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    assert (code, said.read_text().count("\n")) == (2, 1)
    assert "cannot be written" in said.read_text()


def run_as_nobody() -> int:
    """The command without the rights of root, who may write everywhere."""
    if os.geteuid() == 0:
        os.setgid(65_534)
        os.setuid(65_534)
    return main()


def test_an_operator_needs_nothing_that_encrypts(tmp_path: Path) -> None:
    fill(tmp_path)
    program = "import sys; sys.modules['cryptography'] = None; from dcaf.cli import main; sys.exit(main(sys.argv[1:]))"
    listed_by = [sys.executable, "-c", program, "ledger", "list", "--url", f"sqlite:///{tmp_path}/dcaf.db"]
    done = subprocess.run(listed_by, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 session.\n")


def test_a_session_id_that_begins_with_a_hyphen_is_no_option(tmp_path: Path) -> None:
    fill(tmp_path)
    done = run(tmp_path, "unlock", "-h" + "A" * 20)
    assert (done.returncode, done.stdout, done.stderr) == (1, "No turn holds this session.\n", "")
    assert run(tmp_path, "revoke", "--" + "A" * 20).returncode == 0


def test_a_session_that_the_ledger_does_not_know_stays_revoked_for_longer_than_any_lives(tmp_path: Path) -> None:
    """At level L1 no session has a row, so a tombstone is all that ends one."""
    fill(tmp_path)
    done = run(tmp_path, "revoke", UNKNOWN)
    assert (done.returncode, "No such session was known" in done.stdout) == (0, True)
    with closing(sqlite3.connect(tmp_path / "dcaf.db")) as connection:
        (expires,) = connection.execute("SELECT expires FROM dcaf_sessions WHERE key = ?", (bytes(16),)).fetchone()
    assert expires / 1000 > time.time() + 10 * 365 * 86_400


def test_a_copy_that_is_restored_and_marked_lets_nobody_in_who_was_logged_out(clinic: Clinic, tmp_path: Path) -> None:
    envelope = clinic.say("go").envelope
    copy(clinic.folder / "dcaf.db", tmp_path / "copy.db")
    clinic.run("log-out", SUBJECT, "--audience", "clinic")
    time.sleep(1.1)  # a token's clock has whole seconds, and the benefit of the doubt
    assert clinic.say("go", envelope).code == "session-ended"
    restored = folder_of(tmp_path, marked=True)
    assert run(restored, "list").stdout == "No live session.\n"
    with served(restored, "clinic:app", DCAF_KEYS=clinic.keys) as url:
        assert Clinic(url, restored).say("go", envelope).code == "session-ended"


def test_control_a_copy_that_is_not_marked_lets_them_in_again(clinic: Clinic, tmp_path: Path) -> None:
    envelope = clinic.say("go").envelope
    copy(clinic.folder / "dcaf.db", tmp_path / "copy.db")
    clinic.run("log-out", SUBJECT, "--audience", "clinic")
    restored = folder_of(tmp_path, marked=False)
    with served(restored, "clinic:app", DCAF_KEYS=clinic.keys) as url:
        assert Clinic(url, restored).say("go", envelope).text == "2"


def copy(source: Path, target: Path) -> None:
    """As `sqlite3 dcaf.db ".backup copy.db"` makes one, while the service runs."""
    with closing(sqlite3.connect(source)) as before, closing(sqlite3.connect(target)) as after:
        before.backup(after)


def folder_of(tmp_path: Path, *, marked: bool) -> Path:
    """Another machine, to which the copy was brought."""
    folder = tmp_path / "restored"
    folder.mkdir()
    (folder / "clinic.py").write_text(CLINIC)
    shutil.copy(tmp_path / "copy.db", folder / "dcaf.db")
    if marked:
        assert run(folder, "restored", "--yes").returncode == 0
    return folder


def test_the_guide_has_each_event_and_its_level() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (ERROR|WARNING|INFO) \|", GUIDE.read_text(), re.MULTILINE)
    assert dict(rows) == {name: logging.getLevelName(LEVELS.get(name, logging.INFO)) for name in get_args(LedgerEventName)}


def fill(folder: Path, *, times: int = 1, clock: Any = time.time) -> None:
    """A ledger with so many sessions."""
    store = Ledger(open_engine(f"sqlite:///{folder}/dcaf.db", durability="relaxed", clock=clock), audience="clinic")
    host = SessionHost(keys=Keyring(Key.generate("k1")), audience="clinic", store=store, clock=clock)

    async def run_turns() -> None:
        for _ in range(times):
            async with host.turn(None, subject=SUBJECT) as turn:
                turn.session["n"] = 1
        await store.aclose()

    asyncio.run(run_turns())


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
