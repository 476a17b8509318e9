"""Two processes write to one session, so many turns each: how many were acknowledged, and what became of them.

``python -m tests.related.two_writers SYSTEM WHERE TURNS NAME STATE`` is one of the two. A turn reads a number in the state, waits
as for a model, and writes the next one with a question and its answer: in one call or in two, as the system's documents do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from tests.related.kept_system import DcafService
from tests.related.related_systems import Event, NotThere, Seen, System, find

ROOT: Final = Path(__file__).parents[2]
TURNS: Final = 60
WAIT_S: Final = 0.002


class Written(NamedTuple):
    """What became of the turns of two writers.

    Attributes:
        acknowledged: How many turns ended without an error.
        refused: How many were refused, because the session had changed.
        failed: How many ended with another error.
        lost: How many of those acknowledged the number in the state does not count; where there is no state, of how many the
            question or the answer is not there.
        torn: How many questions are not followed by their answer.
    """

    acknowledged: int
    refused: int
    failed: int
    lost: int
    torn: int


class DcafMerging(DcafService):
    """Turns of two writers are laid over one another, and the number is a counter."""

    def __init__(self, engine: Any, *, name: str | None = None) -> None:
        super().__init__(engine, name=name, on_busy="merge")

    async def append(self, seen: Seen, *events: Event) -> None:
        for event in events:
            if "count" in event.state:
                seen.held.incr("count")
            event.state = {}
        await super().append(seen, *events)


class DcafBlind(DcafService):
    """Broken: it writes beside what others do, and asks for no revision."""

    async def append(self, seen: Seen, *events: Event) -> None:
        for event in events:
            await self.service().append(user=seen.user, id=seen.id, messages=[(event.role, event.text)])
            await self.service().merge(user=seen.user, id=seen.id, state=event.state)


def open_dcaf(where: str, kind: type[DcafService] = DcafService) -> System:
    """A service where other processes have theirs: kind, file or url, and prefix."""
    from tests.service.kept_places import KeptPlace

    place, path, prefix = where.split(" ")
    return kind(KeptPlace(place, path, prefix).open_engine(), name="writers")


def open_system(name: str, where: str) -> System:
    """One of dcaf's systems, or one of those that are installed in an environment of their own."""
    own = {kind.__name__: kind for kind in (DcafService, DcafMerging, DcafBlind)}
    if name in own:
        return open_dcaf(where, own[name])
    from tests.related import installed_systems

    found: System = getattr(installed_systems, name)(Path(where))
    return found


def measure(name: str, where: str, *, turns: int = TURNS) -> Written:
    """Let two processes write, and read what there is then. The interpreter is that of this process."""
    has_state = anyio.run(_begin, name, where)
    command = [sys.executable, "-m", "tests.related.two_writers", name, where, str(turns)]
    writers = [
        subprocess.Popen(
            [*command, writer, str(int(has_state))], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for writer in ("a", "b")
    ]
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [json.loads(process.communicate(timeout=300)[0]) for process in writers]
    acknowledged, refused, failed = (sum(result[at] for result in results) for at in range(3))
    seen = anyio.run(_read, name, where)
    texts = [event.text or "" for event in seen.events]
    if has_state:
        lost = acknowledged - seen.state["count"]
    else:
        lost = acknowledged - sum(f"answer {text.split(' ', 1)[1]}" in texts for text in texts if text.startswith("question"))
    return Written(acknowledged, refused, failed, lost, _count_torn(texts))


def _count_torn(texts: list[str]) -> int:
    following = dict(zip(texts, [*texts[1:], ""], strict=True))
    return sum(after != text.replace("question", "answer") for text, after in following.items() if text.startswith("question"))


async def _with_system(name: str, where: str, use: Callable[[System], Awaitable[Any]]) -> Any:
    system = open_system(name, where)
    try:
        return await use(system)
    finally:
        await system.aclose()


async def _begin(name: str, where: str) -> bool:
    """Make the session; whether it has a state."""

    async def begin(system: System) -> bool:
        try:
            await system.create("ann", "v1", state={"count": 0})
        except NotThere:
            await system.create("ann", "v1")
            return False
        return True

    return bool(await _with_system(name, where, begin))


async def _read(name: str, where: str) -> Seen:
    async def read(system: System) -> Seen:
        await system.get_or_create("ann", "v1")
        return await find(system, "ann", "v1")

    found: Seen = await _with_system(name, where, read)
    return found


async def _write(name: str, where: str, turns: int, writer: str, has_state: bool) -> list[int]:
    async def write(system: System) -> list[int]:
        await system.get_or_create("ann", "v1")
        print("ready", flush=True)
        sys.stdin.readline()
        counts = [0, 0, 0]
        for number in range(turns):
            counts[await _take_turn(system, f"{writer}{number}", has_state)] += 1
        return counts

    found: list[int] = await _with_system(name, where, write)
    return found


async def _take_turn(system: System, turn: str, has_state: bool) -> int:
    """One turn: 0 where it was acknowledged, 1 where it was refused, 2 where it failed."""
    try:
        seen = await find(system, "ann", "v1")
        state = {"count": seen.state["count"] + 1} if has_state else {}
        question, answer = Event(f"question {turn}"), Event(f"answer {turn}", "assistant", state=state)
        if not system.saves_once:
            await system.append(seen, question)
        await anyio.sleep(WAIT_S)
        await system.append(seen, *([question, answer] if system.saves_once else [answer]))
    except system.stale:
        return 1
    except Exception as error:
        print(f"{type(error).__name__}: {error}"[:200], file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    name, where, turns, writer, has_state = sys.argv[1:]
    print(json.dumps(anyio.run(_write, name, where, int(turns), writer, has_state == "1")))
