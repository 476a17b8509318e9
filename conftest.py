"""Runs the documents: every code block of README.md and docs/ is executed or parsed by the tests.

Blocks of one document share their names, in order. What each language does: ``python`` is executed in a folder of its own,
``sh`` is run by bash in an empty folder with the environment's programs on the path, ``json`` and ``toml`` are parsed, ``text``
and ``http`` are pictures. A block of ``js`` or ``ts`` is a program of its own, run by Node.js beside ``examples/client.mjs``;
``ts`` is compiled before.

In a document that speaks of ``$URL`` the demo runs at the address that this variable of the environment has. In one that speaks of
``$POSTGRES`` that is the url of an empty database of a PostgreSQL that runs, whose programs are on the path.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from tests.clients.typescript import compiled
from tests.conftest import node

__all__ = ["node"]  # the fixture, for the documents too

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


class TOMLParser(CodeBlockParser):
    """Parses a block, as JSONParser does."""

    language = "toml"

    def evaluate(self, example: Example) -> None:
        """Parse it."""
        tomllib.loads(str(example.parsed))


class JavaScriptParser(CodeBlockParser):
    """Runs a block as a module in the document's folder, beside the client."""

    language = "js"

    def evaluate(self, example: Example) -> None:
        """Run it; what it throws fails the test."""
        _run(_written(example, ".mjs"), example)


class TypeScriptParser(CodeBlockParser):
    """Compiles a block as strictly as the project's own code, and runs what comes out."""

    language = "ts"

    def evaluate(self, example: Example) -> None:
        """Compile it, and run it; an error of types fails the test, too."""
        module = _written(example, ".mts")
        out = module.parent / "built"
        wrong = compiled(_node(example), module, out=out)
        assert not wrong, wrong
        _run(out / module.with_suffix(".mjs").name, example)


def _written(example: Example, suffix: str) -> Path:
    """A block as a file, beside the files that it imports."""
    folder: Path = example.namespace["folder"]
    for name in ("client.mjs", "protocol.ts"):
        shutil.copy(ROOT / "examples" / name, folder)
    module = folder / f"line{example.line}{suffix}"
    module.write_text(str(example.parsed))
    return module


def _run(module: Path, example: Example) -> None:
    command = [_node(example), str(module)]
    done = subprocess.run(command, cwd=module.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _node(example: Example) -> str:
    return str(example.namespace["block"].getfixturevalue("node"))


def _is_in_ci(line: str) -> bool:
    """A line that makes or tests the project itself: `.ci/run` runs it, in a clone of its own."""
    if not line.startswith(("make ", "git clone ", "cd ")):
        return False
    assert not line.startswith("make ") or line in (ROOT / ".ci" / "run").read_text(), f".ci/run does not run {line!r}"
    return True


def _setup(namespace: dict[str, object]) -> None:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    files = tempfile.TemporaryDirectory(prefix="dcaf-docs-", ignore_cleanup_errors=True)  # an engine may have its file open still
    monkeypatch.chdir(files.name)
    namespace.update(monkeypatch=monkeypatch, files=files)


def _teardown(namespace: dict[str, object]) -> None:
    patch, files = namespace["monkeypatch"], namespace["files"]
    assert isinstance(patch, pytest.MonkeyPatch)
    assert isinstance(files, tempfile.TemporaryDirectory)
    patch.undo()
    files.cleanup()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder for the commands of one document; what they leave running, because one has failed, is ended."""
    found = tmp_path_factory.mktemp("docs")
    yield found
    for path in found.rglob("*.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)


@pytest.fixture(scope="module")
def demo_url() -> Iterator[None]:
    """The demo's service, at ``URL`` in the environment."""
    from dcaf import Keyring  # noqa: PLC0415 - this file is read by every run, and the agent takes a second to import
    from dcaf.demo import create_demo  # noqa: PLC0415
    from dcaf.testing import serving  # noqa: PLC0415

    with serving(create_demo(Keyring.ephemeral())) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("URL", url)
        yield


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[None]:
    """An empty database of a PostgreSQL, at ``POSTGRES`` in the environment."""
    from tests.engines.postgres_servers import get_server  # noqa: PLC0415 - needs the extra

    server = get_server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTGRES", server.make_database())
        patch.setenv("PATH", f"{server.programs}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture
def block(request: pytest.FixtureRequest) -> pytest.FixtureRequest:
    """What a block may ask for, with what its document speaks of running."""
    text = request.node.example.document.text
    for variable, fixture in (("$URL", "demo_url"), ("$POSTGRES", "postgres_url")):
        if variable in text:
            request.getfixturevalue(fixture)
    return request


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), ShellParser(), JSONParser(), TOMLParser(), JavaScriptParser(), TypeScriptParser()],
    patterns=["*.md"],
    excludes=["docs/tutorial*.md"],  # tests/documents/test_tutorial.py types them in, as a reader does
    setup=_setup,
    teardown=_teardown,
    fixtures=["folder", "block"],
).pytest()
