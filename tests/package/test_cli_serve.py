"""`dcaf serve`, as a user calls it: in a folder with a module of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest

from dcaf import Key
from dcaf.cli import main
from dcaf.client import Client
from tests.forked import Forked

DCAF = str(Path(sys.executable).with_name("dcaf"))

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


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@contextmanager
def served(folder: Path, *arguments: str, forked: bool = True, **variables: str) -> Iterator[str]:
    """The command, running; its base URL. Where it is not forked, it is started as a user starts it."""
    at, said = port(), folder / "said.txt"
    command = [DCAF, "serve", *arguments, "--port", str(at)]
    settings = {**os.environ, "DCAF_KEYS": Key.generate("k1").text(), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    process: subprocess.Popen[bytes] | Forked
    if forked:
        process = Forked(main, command, folder=folder, environment=settings, said=said)
    else:
        with said.open("wb") as out:
            process = subprocess.Popen(command, cwd=folder, env=settings, stderr=out)
    try:
        url = f"http://127.0.0.1:{at}"
        wait(url, process, said)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait(url: str, process: subprocess.Popen[bytes] | Forked, said: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx2.get(f"{url}/health")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(said.read_text() if process.poll() is not None else "it did not start")


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
        end = time.monotonic() + 20
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


def test_without_uvicorn_it_says_what_to_install(shop: Path) -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from dcaf.cli import main; sys.exit(main(sys.argv[1:]))"
    settings = {**os.environ, "DCAF_KEYS": Key.generate("k1").text()}
    command = [sys.executable, "-c", program, "serve", "shop:agent"]
    done = subprocess.run(command, cwd=shop, env=settings, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "dcaf: Serving needs uvicorn: pip install 'dcaf[agent,server]'\n")
