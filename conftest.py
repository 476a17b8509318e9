"""Runs the documents: every code block of README.md and docs/ is executed or parsed by the tests.

Blocks of one document share their names, in order. What each language does: ``python`` is executed, ``sh`` is run by bash in
an empty folder with the environment's programs on the path, ``json`` is parsed, ``text`` and ``http`` are pictures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent


class ShellParser(CodeBlockParser):
    """Runs a block, but for the lines that the project's own CI runs for it."""

    language = "sh"

    def evaluate(self, example: Example) -> None:
        """Run it with bash; a command that fails fails the test."""
        folder = example.namespace["folder"]
        lines = [line for line in str(example.parsed).splitlines() if not _is_in_ci(line)]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


class JSONParser(CodeBlockParser):
    """Parses a block, so that no example is malformed."""

    language = "json"

    def evaluate(self, example: Example) -> None:
        """Parse it."""
        json.loads(str(example.parsed))


def _is_in_ci(line: str) -> bool:
    """A line that makes or tests the project itself: `.ci/run` runs it, in a clone of its own."""
    if not line.startswith(("make ", "git clone ", "cd ")):
        return False
    assert not line.startswith("make ") or line in (ROOT / ".ci" / "run").read_text(), f".ci/run does not run {line!r}"
    return True


def _setup(namespace: dict[str, object]) -> None:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    namespace["monkeypatch"] = monkeypatch


def _teardown(namespace: dict[str, object]) -> None:
    patch = namespace["monkeypatch"]
    assert isinstance(patch, pytest.MonkeyPatch)
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder for the commands of one document."""
    return tmp_path_factory.mktemp("docs")


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), ShellParser(), JSONParser()],
    patterns=["*.md"],
    setup=_setup,
    teardown=_teardown,
    fixtures=["folder"],
).pytest()
