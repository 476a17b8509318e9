"""The guide about testing is itself a file of tests: every block of it runs under pytest, with the fixtures it speaks of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "testing.md"
NEEDED = ("anyio", "dcaf.testing.plugin")
OTHERS = [f"-pno:{point.name}" for point in entry_points(group="pytest11") if point.name not in NEEDED]
COMMAND = (sys.executable, "-m", "pytest", "-q", "-rf", "-pno:cacheprovider", "-Werror", *OTHERS)


def outcome(folder: Path, text: str) -> tuple[int, str]:
    """The exit code and the output of pytest on the guide's blocks."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (folder / "test_guide_blocks.py").write_text("\n\n".join(blocks))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DCAF"))}
    done = subprocess.run(COMMAND, cwd=folder, env=clean, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_test_of_the_guide_passes(tmp_path: Path) -> None:
    text = GUIDE.read_text()
    code, output = outcome(tmp_path, text)
    assert code == 0, output
    assert len(re.findall(r"^(?:async )?def test_", text, re.MULTILINE)) == 12


def test_control_a_tool_that_forgets_fails_the_guide(tmp_path: Path) -> None:
    text = GUIDE.read_text()
    code, output = outcome(tmp_path, text.replace('session.append("dishes", dish)', 'session = {"dishes": [dish]}'))
    assert code == 1, output
    assert {"test_a_tool", "test_a_conversation"} <= set(re.findall(r"FAILED \S+::(\w+)", output))


def test_a_tool_a_route_and_a_conversation_take_few_lines() -> None:
    text = GUIDE.read_text()
    for name in ("test_a_tool", "test_a_route", "test_a_conversation"):
        (body,) = re.findall(rf"^def {name}\(.*\):\n((?:    .*\n)+)", text, re.MULTILINE)
        assert len(body.splitlines()) <= 3, name
