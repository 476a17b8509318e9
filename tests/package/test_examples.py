"""The examples run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dcaf.demo.server import serving
from dcaf.testing import SessionClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_wizard_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / "deploy_wizard.py")], capture_output=True, text=True, check=True)
    assert "assistant  Deployed api with 3 replicas.\nstate      {}" in done.stdout


def test_the_fastapi_example_serves_the_same_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import fastapi_app  # type: ignore[import-not-found]

    with serving(fastapi_app.app) as url, SessionClient(url) as client:
        assert client.send("service api").session == {"service": "api", "wizard_step": 2}
        assert client.send("3 replicas").session == {"service": "api", "wizard_step": 3, "replicas": 3}
        with SessionClient(url, path="/api/step", envelope=client.envelope) as elsewhere:
            assert elsewhere.post({"data": {"session": client.envelope}}).body["step"] == 3
        assert client.send("execute").session == {}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 50
