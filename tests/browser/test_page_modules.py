"""The page's modules that draw nothing, run by Node.js: what changed, what a token says, what a cheat makes of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dcaf import Keyring
from dcaf.agent.page import STATIC
from dcaf.testing import SessionClient, sealed

MODULES: Final = Path(__file__).with_name("modules.mjs")
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(node: str) -> Iterator[Call]:
    """Calls a function of a module."""
    command = [node, str(MODULES), STATIC.as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        said, heard = process.stdin, process.stdout
        assert said is not None
        assert heard is not None

        def called(module: str, name: str, *args: Any) -> Any:
            said.write(json.dumps({"module": module, "name": name, "args": args}) + "\n")
            said.flush()
            return json.loads(heard.readline()).get("value")

        yield called
        said.close()


def marks(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["path"]: row["mark"] for row in rows}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, {}),
        ({}, {"n": 1}, {"n": "new"}),
        ({"n": 1}, {"n": 1}, {"n": ""}),
        ({"n": 1}, {"n": 2}, {"n": "changed"}),
        ({"n": 1}, {}, {"n": "removed"}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, {"a.b[0]": "", "a.b[1]": "changed"}),
        ({"a": [1]}, {"a": []}, {"a": "new", "a[0]": "removed"}),
        ({"a": {}}, {"a": {}}, {"a": ""}),
        ({"a": None}, {"a": False}, {"a": "changed"}),
        ({"a": "1"}, {"a": 1}, {"a": "changed"}),
    ],
)
def test_each_leaf_says_what_the_turn_did_to_it(call: Call, before: Any, after: Any, found: dict[str, str]) -> None:
    assert marks(call("changes.js", "rows", before, after)) == found


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (61, "1 minute and 1 second"),
        (3600, "1 hour"),
        (86_399, "23 hours and 59 minutes"),
        (86_400, "1 day"),
        (604_800, "7 days"),
        (604_799, "6 days and 23 hours"),
    ],
)
def test_times_are_said_in_words(call: Call, seconds: float, words: str) -> None:
    assert call("token.js", "words", seconds) == words


def test_a_token_says_its_claims_and_an_encrypted_one_does_not(call: Call) -> None:
    keys = Keyring.ephemeral()
    state = {"name": "Zoë 北京 🚀"}
    signed = sealed(state, keys=keys, audience="a")["dcaf"]["token"]
    assert call("token.js", "read", signed)["claims"]["aud"] == "a"
    encrypted = sealed(state, keys=keys, audience="a", encrypt=True)["dcaf"]["token"]
    assert call("token.js", "read", encrypted)["claims"] is None
    assert call("token.js", "read", "new") is None


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_forged_token_differs_and_is_refused(call: Call, encrypt: bool) -> None:
    keys = Keyring.ephemeral()
    envelope = sealed({"name": "Zoë"}, keys=keys, audience="deploy-agent", encrypt=encrypt)
    forged = {"dcaf": {"token": call("token.js", "forged", envelope["dcaf"]["token"])}}
    from dcaf.demo.app import create_demo

    with SessionClient(create_demo(keys, accept_both=True), envelope=forged) as client:
        assert client.send("hello").code == "session-invalid"
    with SessionClient(create_demo(keys, accept_both=True), envelope=envelope) as client:
        assert client.send("hello").status == 200
