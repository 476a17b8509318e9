"""TypeScript's compiler, which `make` installs, on files beside which nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import REQUIRED

ROOT: Final = Path(__file__).parents[2]
COMPILER: Final = Path(sys.prefix) / "node" / "node_modules" / "typescript" / "bin" / "tsc"
AMBIENT: Final = Path(__file__).with_name("node.d.ts")


def compiled(node: str, *files: Path, out: Path | None = None) -> str:
    """Check files with the project's own settings, and write JavaScript to a folder; what is wrong with them."""
    project = files[0].with_suffix(".json")
    emitted = {"noEmit": False, "outDir": str(out), "rootDir": str(project.parent)} if out else {}
    names = [str(path) for path in (*files, AMBIENT)]
    settings = {"extends": str(ROOT / "tsconfig.json"), "compilerOptions": emitted, "files": names, "include": []}
    project.write_text(json.dumps(settings))
    done = subprocess.run(
        [node, str(_compiler()), "--project", str(project)], capture_output=True, text=True, check=False, timeout=60
    )
    assert bool(done.returncode) == bool(done.stdout), done.stderr
    return done.stdout


def _compiler() -> Path:
    if not COMPILER.exists():
        reason = "TypeScript's compiler is not installed: run `make check` once"
        if "node" in REQUIRED:
            pytest.fail(f"{reason}, and DCAF_REQUIRE names node")
        pytest.skip(reason)
    return COMPILER
