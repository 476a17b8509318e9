"""The examples run as their first lines say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from dcaf import Key
from dcaf.testing import SessionClient, serving
from tests.frameworks.programs import EXAMPLES, FRAMEWORKS, program

LONGEST: Final = 85
"""Lines of an example: the same agent on four wires, each written out as its framework's users write it."""


def test_the_wizard_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / "deploy_wizard.py")], capture_output=True, text=True, check=True)
    assert "assistant  Deployed api with 3 replicas.\nstate      {}" in done.stdout
    assert done.stdout.count("user       ") == 7
    assert "'quantity': 3" in done.stdout, "the nested change of the basket is in the state"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_example_serves_the_same_tools(framework: str) -> None:
    with serving(program(framework).app) as url, SessionClient(url) as client:
        assert client.send("service api").session == {"service": "api", "wizard_step": 2}
        assert client.send("3 replicas").session == {"service": "api", "wizard_step": 3, "replicas": 3}
        client.send("execute")
        assert client.decide(decision=True).session == {}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST
    assert "Run it with: " in (ast.get_docstring(ast.parse(path.read_text())) or "")
    assert path.stem in (ast.get_docstring(ast.parse(path.read_text())) or "")


ROUND: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from fastapi_app import app
from dcaf.testing import SessionClient, sealed
for key in sys.argv[2:]:
    envelope = sealed({"service": "api", "replicas": 3}, keys=key, audience="deploy-agent")
    with SessionClient(app, envelope=envelope) as client:
        reply = client.send("execute")
        reply = reply if reply.code else client.decide(decision=True)
    print(reply.status, reply.code or reply.text)
"""


def test_an_example_takes_its_keys_from_the_environment() -> None:
    """Control: a session under another key than the environment's is refused. tests/frameworks does it with all of them."""
    key, other = Key.generate().text(), Key.generate().text()
    command = [sys.executable, "-c", ROUND, str(EXAMPLES), key, other]
    settings = {**os.environ, "DCAF_KEYS": key}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "200 Deployed api with 3 replicas.\n400 session-invalid\n"
    assert "ephemeral" not in done.stderr


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": [{"role": "system"}]}, {"messages": [{"content": None}]}, {}])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_body_that_says_nothing_is_the_clients_fault(framework: str, body: Any) -> None:
    with SessionClient(program(framework).app) as client:
        assert client.post(body).status == (422 if framework == "fastapi" else 400)


@pytest.mark.parametrize("path", ["/api/chat-stream", "/api/chat-events"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_is_on_a_stream_too_and_costs_no_session(framework: str, path: str) -> None:
    with SessionClient(program(framework).app, path=path) as client:
        client.send("service api")
        reply = client.post({"messages": [], "data": {"session": client.envelope}})
        assert reply.status in {400, 422} or b'"code": "malformed-request"' in reply.content
        assert client.send("3 replicas").session == {"service": "api", "wizard_step": 3, "replicas": 3}
