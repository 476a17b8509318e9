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
from dcaf.demo.server import serving
from dcaf.testing import SessionClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_wizard_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / "deploy_wizard.py")], capture_output=True, text=True, check=True)
    assert "assistant  Deployed api with 3 replicas.\nstate      {}" in done.stdout
    assert done.stdout.count("user       ") == 7
    assert "'quantity': 3" in done.stdout, "the nested change of the basket is in the state"


def test_the_fastapi_example_serves_the_same_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import fastapi_app  # type: ignore[import-not-found]

    with serving(fastapi_app.app) as url, SessionClient(url) as client:
        assert client.send("service api").session == {"service": "api", "wizard_step": 2}
        assert client.send("3 replicas").session == {"service": "api", "wizard_step": 3, "replicas": 3}
        with SessionClient(url, path="/api/step", envelope=client.envelope) as elsewhere:
            assert elsewhere.post({"data": {"session": client.envelope}}).body["step"] == 3
        client.send("execute")
        assert client.decide(decision=True).session == {}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 50
    assert "Run it with: " in (ast.get_docstring(ast.parse(path.read_text())) or "")
    assert path.stem in (ast.get_docstring(ast.parse(path.read_text())) or "")


ROUND: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from fastapi_app import app
from dcaf.testing import SessionClient, sealed
envelope = sealed({"service": "api", "replicas": 3}, keys=sys.argv[2], audience="deploy-agent")
with SessionClient(app, envelope=envelope) as client:
    reply = client.send("execute")
    reply = reply if reply.code else client.decide(decision=True)
print(reply.status, reply.code or reply.text)
"""


@pytest.mark.parametrize(("same", "said"), [(True, "200 Deployed api with 3 replicas."), (False, "400 session-invalid")])
def test_the_fastapi_example_takes_its_keys_from_the_environment(same: bool, said: str) -> None:
    """Control: a session under another key than the environment's is refused."""
    key = Key.generate().text()
    settings = {**os.environ, "DCAF_KEYS": key if same else Key.generate().text()}
    command = [sys.executable, "-c", ROUND, str(EXAMPLES), key]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{said}\n"
    assert "ephemeral" not in done.stderr


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": [{"role": "system"}]}, {"messages": [{"content": None}]}, {}])
def test_a_body_that_says_nothing_is_the_clients_fault_in_the_fastapi_example(monkeypatch: pytest.MonkeyPatch, body: Any) -> None:
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import fastapi_app

    with SessionClient(fastapi_app.app) as client:
        assert client.post(body).status == 422
