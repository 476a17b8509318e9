"""`dcaf demo --ledger`: the story holds with a ledger, and fails without; what it serves has one, and an end for each session."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dcaf import Keyring
from dcaf.cli import main
from dcaf.demo import create_demo, ledger_story
from dcaf.demo.app import AUDIENCE, LOG_OUT
from dcaf.ledger import Ledger
from dcaf.testing import SessionClient
from dcaf.testing.transport import Wire
from tests.demo.terminals import ENVIRONMENT

DCAF = str(Path(sys.executable).with_name("dcaf"))

OLDER = {"the session after 'service api', to choose again", "the same approval once more"}
LOST = {"the same turn, sent again"}
ENDED = {
    "ada's laptop, after ada was logged out",
    "ada's phone",
    "a copy of the session, after 'forget me'",
    "a copy, after POST /api/log-out",
}
"""What of the story holds with a ledger alone."""


def test_the_story_ends_well_and_leaves_no_file(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    told = subprocess.run([DCAF, "demo", "--ledger"], capture_output=True, check=False, timeout=60, env=environment, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.endswith("15 of 15 held.\n")
    assert [name for name in OLDER | LOST | ENDED if f"held    {name} " not in told.stdout] == []
    assert list(tmp_path.iterdir()) == []


def failed(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """What of the story failed, without what only follows from it."""
    printed = capsys.readouterr().out
    return {name for name in OLDER | LOST | ENDED if f"FAILED  {name}" in printed}


def test_control_without_a_ledger_each_attempt_succeeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def create_stateless(keys: Keyring, *, store: Ledger, subject: Any) -> Any:
        return create_demo(keys, subject=subject)

    monkeypatch.setattr(ledger_story, "create_demo", create_stateless)
    assert main(["demo", "--ledger"]) == 1
    assert failed(capsys) == OLDER | LOST | ENDED


def test_control_with_epochs_alone_older_sessions_are_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @contextmanager
    def keeping_epochs() -> Iterator[Ledger]:
        yield Ledger(f"sqlite:///{tmp_path}/dcaf.db", audience=AUDIENCE, freshness=False)

    monkeypatch.setattr(ledger_story, "keeping_ledger", keeping_epochs)
    assert main(["demo", "--ledger"]) == 1
    assert failed(capsys) == OLDER | LOST


def test_without_what_encrypts_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['cryptography'] = None; from dcaf.cli import main; sys.exit(main(['demo', '--ledger']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dcaf: A ledger needs cryptography: pip install 'dcaf[demo,crypto]'\n"


@contextmanager
def demo_served(folder: Path) -> Iterator[tuple[str, str]]:
    """`dcaf demo --serve --ledger`: its base URL and that of its ledger."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [DCAF, "demo", "--serve", "--ledger"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        patience = threading.Timer(60, process.kill)
        patience.start()
        try:
            said = "".join(iter(process.stdout.readline, "Ctrl-C stops it.\n"))
            found = re.search(r"at (http://\S+)\. .*dcaf ledger list --url (sqlite:///\S+)\n", said, re.DOTALL)
            assert found, said
            yield found[1], found[2]
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            patience.cancel()
            process.kill()
    assert (process.returncode, "Traceback" in errors) == (0, False)


def test_the_demo_that_is_served_has_a_ledger_a_page_and_a_log_out(tmp_path: Path) -> None:
    with demo_served(tmp_path) as (url, store):
        assert httpx2.get(url).status_code == 200
        with SessionClient(url) as client:
            first = client.send("start").envelope
            newest = client.send("service api").envelope
        assert speak(url, first) == "session-superseded"
        listed = subprocess.run([DCAF, "ledger", "list", "--url", store], capture_output=True, text=True, check=True, timeout=60)
        assert listed.stdout.endswith("1 session.\n")
        with SessionClient(url, path=LOG_OUT, envelope=newest) as client:
            reply = client.post({"data": {"session": newest}})
        assert (reply.status, reply.body["ended"], reply.body["data"]["session"]) == (200, True, {"dcaf": {"token": "new"}})
        assert speak(url, newest) == "session-ended"
    assert list(tmp_path.iterdir()) == []


def speak(url: str, envelope: dict[str, Any] | None) -> str | None:
    with SessionClient(url, envelope=envelope) as client:
        return client.send("3 replicas").code


@pytest.mark.parametrize("wire", ["json", "ndjson", "websocket"])
def test_every_endpoint_of_the_demo_is_there_with_a_ledger_too(wire: Wire) -> None:
    app = create_demo(Keyring.ephemeral(), store=Ledger("memory://", audience=AUDIENCE))
    with SessionClient(app, wire=wire) as client:
        first = client.send("start").envelope
        assert client.send("service api").session == {"wizard_step": 2, "service": "api"}
    with SessionClient(app, wire=wire, envelope=first) as late:
        assert late.send("3 replicas").code == "session-superseded"
    with SessionClient(app, path=LOG_OUT, envelope=client.envelope) as leaving:
        assert leaving.send("").status == 200
    with SessionClient(app, wire=wire, envelope=client.envelope) as thief:
        assert thief.send("3 replicas").code == "session-ended"


def test_control_without_a_ledger_there_is_no_log_out_that_could_not_hold() -> None:
    with SessionClient(create_demo(Keyring.ephemeral()), path=LOG_OUT) as client:
        assert client.send("").status == 404


def test_forget_me_ends_the_session_without_a_ledger_too_as_far_as_the_client_drops_it() -> None:
    with SessionClient(create_demo(Keyring.ephemeral())) as client:
        client.send("start")
        reply = client.send("forget me")
        assert reply.text == "Forgotten: your next message begins a new session."
        assert reply.envelope == {"dcaf": {"token": "new"}}
        assert client.send("start").session == {"wizard_step": 1}
