"""Five planted mistakes, each of which the differential run must notice.

python -m tests.differential.mutants OLD_TREE [WORLDS]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.differential.run import TREE, compare, played

MUTANTS: Final = {
    "the restart forgets its code": ("asgi/lifecycle.py", "sealer.start(restarted=refusal.code)", "sealer.start()"),
    "a token rests until it ends": (
        "core/sealer.py",
        "* WORN_AFTER <= self._lifetime.idle_s",
        "<= self._lifetime.idle_s * 9",
    ),
    "a member is cut out with the comma before it and that after it": (
        "asgi/json_sessions.py",
        "return place.begin, following.end()",
        "return _skip_space_back(data, place.begin) - 1, following.end()",
    ),
    "the application reads the state that the session has by then": (
        "asgi/request.py",
        "partial(found.text.rewrite, found.places, kept, visible)",
        "lambda: found.text.rewrite(found.places, kept, self.session._state.plain())",
    ),
    "an answer of a named route is adopted whatever its status": (
        "asgi/responses.py",
        'self._turn.adopts and start["status"] < REDIRECTION',
        "self._turn.adopts",
    ),
}


def differences(old_tree: Path, new_tree: Path, number: int) -> int:
    """How many worlds differ in a way that nobody expects."""
    verdicts = (compare(old, new) for old, new in zip(played(old_tree, 0, number), played(new_tree, 0, number), strict=True))
    return sum(verdict is not None and verdict.startswith("UNEXPECTED") for verdict in verdicts)


def main(old_tree: Path, number: int) -> int:
    """Plant each mistake in a copy, and say whether it is noticed."""
    missed = 0
    for name, (file, right, wrong) in MUTANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(TREE / "dcaf", Path(folder, "dcaf"))
            source = Path(folder, "dcaf", file)
            text = source.read_text()
            assert text.count(right) == 1, (name, text.count(right))
            source.write_text(text.replace(right, wrong))
            found = differences(old_tree, Path(folder), number)
        missed += not found
        print(f"{'caught' if found else 'MISSED'}  {name}: {found} of {number:,} worlds differ", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3_000))
