"""Conversations of ``examples/client.mjs`` in one Node.js process, driven over its pipe."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = ROOT / "examples" / "client.mjs"
DRIVER: Final = Path(__file__).with_name("drive.mjs")
PATIENCE_S: Final = 300
"""For all that a file of tests drives, which takes ten seconds on a machine that does nothing else."""


@dataclass(frozen=True)
class Told:
    """How things stand after a turn: the answer, or the error; the events that came; what the client keeps."""

    answer: dict[str, Any] | None
    error: dict[str, Any] | None
    session: dict[str, Any] | None
    messages: list[dict[str, Any]]
    events: list[dict[str, Any]]
    waiting: list[dict[str, Any]] = field(default_factory=list)
    cpu_us: int = 0

    @property
    def state(self) -> dict[str, Any]:
        """What the session shows."""
        return {key: value for key, value in (self.session or {}).items() if key != "dcaf"}

    @property
    def code(self) -> str | None:
        """Of the error."""
        return self.error["code"] if self.error else None


@dataclass
class Conversation:
    """One conversation of the client."""

    process: subprocess.Popen[str]
    id: int
    events: list[dict[str, Any]] = field(default_factory=list)

    def send(self, said: str | Mapping[str, Any], **how: Any) -> Told:
        """Say something, and wait for the end of the turn. How it is left or aborted stands in drive.mjs."""
        return self.begin(said, **how).ended()

    def decide(self, asked: Told, **decision: Any) -> Told:
        """Decide about what an answer asks for."""
        assert asked.answer is not None
        approvals = [{**item, **decision} for item in asked.answer["data"]["approvals"]]
        return self.send({"role": "user", "content": "", "data": {"approvals": approvals}})

    def begin(self, said: str | Mapping[str, Any], **how: Any) -> Self:
        """Say something."""
        self.events = []
        return self.command(say=said, **how)

    def event(self) -> dict[str, Any]:
        """The next event of the turn."""
        self.events.append(self._line()["event"])
        return self.events[-1]

    def ended(self) -> Told:
        """The end of the command."""
        line = self._line()
        while "event" in line:
            self.events.append(line["event"])
            line = self._line()
        assert line.pop("polluted") == [], "no answer writes into the prototype of all objects"
        told = {"answer": None, "error": None, "session": None, **line}
        return Told(events=self.events, **told)

    def command(self, **members: Any) -> Self:
        """Send one."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"id": self.id, **members}) + "\n")
        self.process.stdin.flush()
        return self

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line


@dataclass
class Node:
    """The process."""

    process: subprocess.Popen[str]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def conversation(
        self, url: str, *, session: Any = None, messages: Any = (), module: Path = CLIENT, **more: Any
    ) -> Conversation:
        """A conversation with the service at an address: a new one, or one that goes on from what was kept."""
        made = Conversation(self.process, next(self.numbers))
        kept = {"messages": list(messages), **more, **({} if session is None else {"session": session})}
        made.command(module=module.as_uri(), url=url, kept=kept).ended()
        return made


@contextmanager
def driven(node: str) -> Iterator[Node]:
    """The process, while the block runs; one that hangs is ended."""
    with subprocess.Popen([node, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        try:
            yield Node(process)
        finally:
            watchdog.cancel()
            process.kill()
