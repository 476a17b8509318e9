"""The engine of the guide, as its reader types it, passes the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[2] / "docs/guides/engines.md"
BLOCKS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run_guide() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "guide"}
    for block in BLOCKS.findall(GUIDE.read_text()):
        exec(compile(block, str(GUIDE), "exec"), names)
    return names


TestFileEngine: Any = run_guide()["TestFileEngine"]


def test_it_is_not_longer_than_the_guide_says() -> None:
    [block] = [block for block in BLOCKS.findall(GUIDE.read_text()) if "class FileRows" in block]
    code = [line for line in block.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 80
