"""The command line, as a user calls it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from dcaf import Key, Keyring
from dcaf.cli import main
from dcaf.demo import create_demo, story
from dcaf.testing.server import serve
from tests.forked import Forked

DCAF = str(Path(sys.executable).with_name("dcaf"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DCAF, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_keys_new_prints_one_key_and_nothing_else() -> None:
    first, second = run("keys", "new"), run("keys", "new")
    assert (first.returncode, first.stderr) == (0, "")
    assert Key.parse(first.stdout.strip()).text() + "\n" == first.stdout
    assert first.stdout != second.stdout


def test_the_demo_ends_well_and_shows_what_held() -> None:
    done = run("demo")
    assert done.returncode == 0
    assert "13 of 13 held." in done.stdout
    for shown in (
        "user       execute",
        "assistant  Deployed api with 3 replicas.",
        "envelope   ",
        "cheat      ",
        "400 session-invalid",
    ):
        assert shown in done.stdout


def test_control_the_demo_fails_when_something_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(story, "CONVERSATION", (("start", {"wizard_step": 2}),))
    assert main(["demo"]) == 1
    assert "FAILED  after 'start'" in capsys.readouterr().out


def forked(said: Path, *arguments: str) -> tuple[int, str]:
    """The command's exit code, and what it says of an error."""
    process = Forked(main, ["dcaf", *arguments], folder=said.parent, environment=os.environ, said=said)
    return process.wait(timeout=60), said.read_text()


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = forked(tmp_path / "said", "demo", "--serve", "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "Address already in use" in said
    assert "Traceback" not in said


def test_a_wrong_command_line_ends_with_the_exit_code_of_one() -> None:
    done = run("cook")
    assert done.returncode == 2
    assert "usage: dcaf" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["keys"], ["cook"], ["demo", "--port", "x"]])
def test_a_wrong_command_line_says_how_to_write_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: dcaf" in capsys.readouterr().err


def test_control_the_demo_fails_when_a_cheat_is_no_cheat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(story, "tampered", dict)
    assert main(["demo"]) == 1
    assert "FAILED  one character of the token changed" in capsys.readouterr().out


def test_the_demo_serves_until_it_is_interrupted() -> None:
    with subprocess.Popen([DCAF, "demo", "--serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"The wizard runs at (http://127\.0\.0\.1:\d+)\.", process.stdout.readline())
            assert found
            assert httpx2.get(f"{found[1]}/health").json() == {"status": "ok"}
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in said


def test_an_interrupt_while_the_address_is_printed_ends_it_as_well() -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    code = None
    with suppress(KeyboardInterrupt):
        code = serve(create_demo(Keyring.ephemeral()), port=0, announce=interrupted)
    assert code == 0


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_cannot_be_is_said_in_one_line(port: str, tmp_path: Path) -> None:
    code, said = forked(tmp_path / "said", "demo", "--serve", f"--port={port}")
    assert code == 2
    assert "Traceback" not in said


def test_a_key_is_made_without_the_demos_extra_and_the_demo_says_what_to_install() -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from dcaf.cli import main; sys.exit(main(sys.argv[1:]))"
    key = subprocess.run([sys.executable, "-c", program, "keys", "new"], capture_output=True, text=True, check=True)
    assert Key.parse(key.stdout.strip())
    demo = subprocess.run([sys.executable, "-c", program, "demo"], capture_output=True, text=True, check=False)
    assert (demo.returncode, demo.stdout) == (2, "")
    assert demo.stderr == "dcaf: The demo needs uvicorn: pip install 'dcaf[demo]'\n"


def test_the_demo_refuses_an_ephemeral_key_for_several_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert main(["demo"]) == 2
    assert "WEB_CONCURRENCY asks for several" in capsys.readouterr().err
