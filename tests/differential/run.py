"""Two trees of dcaf, one stream of requests: what differs from outside, and why.

    python -m tests.differential.run OLD_TREE [WORLDS]

OLD_TREE is a checkout of the commit to compare with (``git worktree add ../before COMMIT``). Every world of ``worlds`` is played on
both trees, and every difference must be one of EXPECTED. It prints how often each of those was met; exit code 1 for any other one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
TREE: Final = HERE.parents[1]
BATCH: Final = 500
NUMBER: Final = re.compile(r'(\\", )\d+(, \d{10}, )')

Step = dict[str, Any]


def played(tree: Path, first: int, number: int) -> Iterator[dict[str, Any]]:
    """The worlds of one tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    command = [sys.executable, str(HERE / "worlds.py"), str(first), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree) as process:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise SystemExit(f"{tree} ended with {process.returncode}")


def _unnumbered(step: Step) -> str:
    """A step without the numbers of its tokens."""
    return NUMBER.sub(r"\1N\2", json.dumps(step))


def _says(step: Step, word: str) -> bool:
    return word in json.dumps(step)


EXPECTED: Final[dict[str, Callable[[Step, Step], bool]]] = {
    "a stream that failed breaks off after its error event": lambda old, new: (
        _says(new, "internal-error") and _broken(old) == _broken(new)
    ),
    "a request without a body that names no conversation leaves a session beside it alone": lambda old, new: (
        (_says(old, "'cid'") or _says(old, '"cid"')) and new["sent"][:1] != old["sent"][:1]
    ),
    "a checkpoint before the start goes out with it": lambda old, new: _says(old, '["checkpoint", "ConfigurationError"]'),
    "what an import or a migration made is no change of the application": lambda old, new: (
        "migrat" in json.dumps([old, new]) or _says(old, '"imported"')
    ),
    "what an import cannot store is a refusal": lambda old, new: bool(old["error"]) and _says(new, "session-unsigned"),
    "an answer that could not be sealed is cleared away for the application's own": lambda old, new: _says(old, "send raised"),
    "a token of a key that signs no more is sealed anew in a cookie too": lambda old, new: (
        _says(new, "set-cookie") and not _says(old, "set-cookie") and _says(new, "resealed")
    ),
    "a state whose keys have another order has a number of its own": lambda old, new: _unnumbered(old) == _unnumbered(new),
    "a session is written after its turn was over": lambda old, new: _says(new, "SessionClosedError"),
}
"""What the new path changes, and how one sees in two steps that it is that."""


def _settled(step: Step) -> Step:
    """A step without what says only when a refusal is over: its body is read on, so that the answer arrives."""
    sent = step["sent"]
    if len(sent) == 3 and sent[0].get("status") in (413, 415, 503) and sent[2].get("body") == "":
        sent = [sent[0], {**sent[1], "more_body": False}]
    return {**step, "sent": [{"more_body": False, **message} for message in sent]}


def _broken(step: Step) -> Any:
    bodies = "".join(message.get("body", "") for message in step["sent"])
    return [bodies.split('"internal-error"')[0], step["seen"], step["events"]]


def compare(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """What differs first: None, the name of an expected difference, or a report of another one.

    After the first difference the clients hold different things, so the rest of the world is not compared.
    """
    nothing: Step = {"sent": []}
    for at, (one, other) in enumerate(zip_longest(old["steps"], new["steps"], fillvalue=nothing)):
        if _settled(one) == _settled(other):
            continue
        for name, explains in EXPECTED.items():
            if explains(one, other):
                return name
        return f"UNEXPECTED at step {at}:\n  old {json.dumps(one)[:1500]}\n  new {json.dumps(other)[:1500]}"
    return None


def main(old_tree: Path, number: int, first: int = 0) -> int:
    """Compare so many worlds."""
    found: Counter[str] = Counter()
    steps = unexpected = 0
    for start in range(first, first + number, BATCH):
        size = min(BATCH, first + number - start)
        for at, (old, new) in enumerate(zip(played(old_tree, start, size), played(TREE, start, size), strict=True)):
            steps += len(old["steps"])
            verdict = compare(old, new)
            if verdict is not None and verdict.startswith("UNEXPECTED"):
                unexpected += 1
                if unexpected <= 10:
                    print(f"world {start + at}: {verdict}", flush=True)
            elif verdict is not None:
                found[verdict] += 1
    print(f"{number:,} worlds, {steps:,} requests and sockets: {unexpected} unexpected differences")
    for name, count in found.most_common():
        print(f"  {count:6,}  {name}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000))
