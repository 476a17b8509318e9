"""`dcaf serve`, as a user calls it: in a folder with a module of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from dcaf import Key
from dcaf.cli import main
from dcaf.client import Client
from dcaf.service import SessionService
from dcaf.service.tables import SESSIONS
from dcaf.testing import Reply, SessionClient
from tests.package.cli_servers import DCAF, START_S, served

SHOP: Final = """
from dcaf import Keyring, Session
from dcaf.agent import Agent, create_app

def count(messages, context, session: Session) -> str:
    return f"{WORD} {session.incr('n')}"

WORD = "one"
agent = Agent(count, name="shop")
ready = create_app(agent, keys=None, audience="ready")
number = 7
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.mark.parametrize(("target", "forked"), [("shop:agent", False), ("shop:count", True), ("shop:ready", True)])
def test_an_agent_a_function_and_an_application_are_served(shop: Path, target: str, forked: bool) -> None:
    with served(shop, target, forked=forked) as url, Client(url) as client:
        assert [client.send("go").text for _ in range(2)] == ["one 1", "one 2"]
        assert client.session == {"n": 2}


def test_a_session_of_one_audience_is_not_good_for_another(shop: Path) -> None:
    key = Key.generate("k1").text()
    with served(shop, "shop:agent", DCAF_KEYS=key) as url, Client(url) as client:
        client.send("go")
        mine = client.envelope
    with served(shop, "shop:agent", "--audience", "another", DCAF_KEYS=key) as url, Client(url, session=mine) as client:
        assert client.send("go").restarted == "session-invalid"


def test_a_change_of_the_file_is_served_after_a_reload(shop: Path) -> None:
    with served(shop, "shop:agent", "--reload", forked=False) as url, Client(url) as client:
        assert client.send("go").text == "one 1"
        (shop / "shop.py").write_text(SHOP.replace('"one"', '"two"'))
        end = time.monotonic() + START_S
        while (text := said(client)) != "two" and time.monotonic() < end:
            time.sleep(0.1)
        assert text == "two"
        assert client.session["n"] > 1, "the session of before goes on in the new process"


def said(client: Client) -> str:
    try:
        return client.send("go").text.partition(" ")[0]
    except Exception:  # noqa: BLE001 - while it starts anew nobody listens
        return ""


def test_a_missing_key_prints_the_line_that_makes_one(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (shop / "bare.py").write_text(SHOP.replace("ready = create_app", "# "))
    assert main(["serve", "bare:agent"]) == 2
    said = capsys.readouterr().err
    line = re.search(r"export DCAF_KEYS=.*", said)
    assert line, said
    done = subprocess.run(
        ["bash", "-c", f'{line[0]}\necho "$DCAF_KEYS"'],
        env={**os.environ, "PATH": f"{Path(DCAF).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Key.parse(done.stdout.strip())


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere:agent", "There is no module 'nowhere' here"),
        ("shop:nothing", "shop has no 'nothing'"),
        ("shop:number", "is neither an Agent, nor an agent function, nor an application"),
        ("shop:Agent", "is neither an Agent, nor an agent function, nor an application"),
        ("shop", "is neither an Agent, nor an agent function, nor an application"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str, told: str
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.setenv("DCAF_KEYS", Key.generate("k1").text())
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    assert main(["serve", target]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


def test_an_audience_for_an_application_that_is_ready_is_refused(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.setenv("DCAF_KEYS", Key.generate("k1").text())
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    assert main(["serve", "shop:ready", "--audience", "another"]) == 2
    assert "is an application that is ready" in capsys.readouterr().err


def test_a_session_is_bound_to_the_conversation_that_is_named(shop: Path) -> None:
    with served(shop, "shop:agent", "--conversation", "/thread_id") as url, Client(url, fields={"thread_id": "t-1"}) as client:
        assert [client.send("go").text for _ in range(2)] == ["one 1", "one 2"]
        assert client.send("go", thread_id="t-2").restarted == "session-invalid"


def ask(url: str, envelope: dict[str, Any] | None, text: str) -> Reply:
    with SessionClient(url, envelope=envelope) as client:
        return client.send(text)


def test_with_a_ledger_an_older_session_is_refused(shop: Path) -> None:
    with served(shop, "shop:agent", "--ledger", "sqlite:///dcaf.db") as url, SessionClient(url) as client:
        first = client.send("go").envelope
        assert client.send("go").code is None
        assert ask(url, first, "something else").code == "session-superseded"
    assert (shop / "dcaf.db").exists()


def test_with_sessions_the_conversation_is_kept_and_a_client_sends_what_is_new(shop: Path) -> None:
    keys = Key.generate("k1").text()
    with (
        served(shop, "shop:agent", "--sessions", "sqlite:///dcaf.db", "--page", DCAF_KEYS=keys) as url,
        Client(url, history="server") as client,
    ):
        assert [client.send("go").text for _ in range(2)] == ["one 1", "one 2"]
        mine = client.envelope
    with (
        served(shop, "shop:agent", "--sessions", "sqlite:///dcaf.db", DCAF_KEYS=keys) as url,
        Client(url, session=mine, history="server") as client,
    ):
        assert client.send("go").text == "one 3"
    service = SessionService(f"sqlite:///{shop}/dcaf.db", app="shop:agent")
    rows = service.engine.sync.scan(SESSIONS)
    service.engine.sync.close()
    assert [row["messages"] for _, row in rows] == [6]


def test_what_is_kept_is_encrypted_where_it_is_said(shop: Path) -> None:
    keys = Key.generate("k1").text()
    for _ in range(2):  # the second process opens what the first one has written
        with (
            served(shop, "shop:agent", "--sessions", "sqlite:///dcaf.db", "--encrypted", DCAF_KEYS=keys) as url,
            Client(url, history="server") as client,
        ):
            assert [client.send("needle").text for _ in range(2)] == ["one 1", "one 2"]
    kept = b"".join(path.read_bytes() for path in shop.glob("dcaf.db*"))
    assert kept
    assert b"needle" not in kept
    with (
        served(shop, "shop:agent", "--sessions", "sqlite:///plain.db", DCAF_KEYS=keys) as url,
        Client(url, history="server") as client,
    ):
        client.send("needle")
    assert b"needle" in b"".join(path.read_bytes() for path in shop.glob("plain.db*")), "a control: else it stands there"


def test_control_without_a_ledger_an_older_session_is_accepted(shop: Path) -> None:
    with served(shop, "shop:agent") as url, SessionClient(url) as client:
        first = client.send("go").envelope
        client.send("go")
        assert ask(url, first, "something else").code is None


def test_after_a_reload_the_new_process_knows_what_the_old_one_did(shop: Path) -> None:
    with (
        served(shop, "shop:agent", "--ledger", "sqlite:///dcaf.db", "--reload", forked=False) as url,
        SessionClient(url) as client,
    ):
        first = client.send("go").envelope
        newest = client.send("go").envelope
        (shop / "shop.py").write_text(SHOP.replace('"one"', '"two"'))
        end = time.monotonic() + START_S
        while (text := said_anew(url)) != "two" and time.monotonic() < end:
            time.sleep(0.1)
        assert text == "two"
        assert ask(url, first, "something else").code == "session-superseded"
        assert ask(url, newest, "go").text == "two 3"


def said_anew(url: str) -> str:
    try:
        with Client(url) as client:
            return client.send("go").text.partition(" ")[0]
    except Exception:  # noqa: BLE001 - while it starts anew nobody listens
        return ""


@pytest.mark.parametrize("named", [["--workers", "2"], []])
def test_several_workers_keep_one_ledger(shop: Path, named: list[str]) -> None:
    """A turn goes to any of them: each knows what the others did, and each of them answers in the end."""
    (shop / "shop.py").write_text(SHOP.replace('"one"', "str(os.getpid())").replace("\nfrom", "\nimport os\nfrom", 1))
    ledger = ["--ledger", "sqlite:///dcaf.db"]
    with served(shop, "shop:agent", *ledger, *named, forked=False, WEB_CONCURRENCY="1" if named else "2") as url:
        answered: set[str] = set()
        replies, refused = [], []
        first = ask(url, None, "go").envelope
        envelope, end = first, time.monotonic() + START_S
        while len(answered) < 2 and time.monotonic() < end:
            reply = ask(url, envelope, "go")  # on a connection of its own, and so perhaps by another process
            envelope = reply.envelope
            replies.append(reply.code)
            answered.add((reply.text or "").partition(" ")[0])
            refused.append(ask(url, first, "something else").code)
        assert len(answered) == 2
        assert set(replies) == {None}
        assert set(refused[1:]) == {"session-superseded"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["shop:ready", "--ledger", "sqlite:///dcaf.db"],
            "its audience, conversation, ledger, sessions and page are those of its create_app",
        ),
        (["shop:agent", "--ledger", "sqlite:///nowhere/dcaf.db"], "There is no folder"),
        (["shop:agent", "--ledger", "dcaf.db"], "names no engine"),
        (["shop:agent", "--ledger", "memory://", "--workers", "2"], "A ledger in memory:// is one process's own, and 2 serve"),
        (["shop:agent", "--sessions", "sqlite:///a.db", "--ledger", "sqlite:///a.db"], "Drop --ledger"),
        (["shop:agent", "--sessions", "memory://", "--workers", "2"], "Sessions in memory:// are one process's own, and 2 serve"),
        (["shop:ready", "--sessions", "sqlite:///dcaf.db"], "is an application that is ready"),
        (["shop:agent", "--encrypted"], "--encrypted is for what --sessions keeps"),
        (["shop:agent", "--workers", "0"], "take a number of processes that is 1 or more"),
    ],
)
def test_a_ledger_that_cannot_be_is_said_in_one_line(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.setenv("DCAF_KEYS", Key.generate("k1").text())
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    assert main(["serve", *arguments]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not (shop / "dcaf.db").exists()


def test_without_uvicorn_it_says_what_to_install(shop: Path) -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from dcaf.cli import main; sys.exit(main(sys.argv[1:]))"
    settings = {**os.environ, "DCAF_KEYS": Key.generate("k1").text()}
    command = [sys.executable, "-c", program, "serve", "shop:agent"]
    done = subprocess.run(command, cwd=shop, env=settings, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "dcaf: Serving needs uvicorn: pip install 'dcaf[agent,server]'\n")
