"""P7: a key is replaced across four workers under load, and no session is dropped."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dcaf import Key

WORKERS, CLIENTS = 4, 8
STEP_S = 30.0 * float(os.environ.get("DCAF_SCALE", "0.1"))
OLD, NEW = Key.generate("old"), Key.generate("new")


@dataclass
class Service:
    """Four workers, each with a ring of its own."""

    files: list[Path]
    urls: list[str]

    def deploy(self, *ring: Key) -> None:
        """Give a ring to one worker after the other, as a rollout does."""
        for path in self.files:
            fresh = path.with_suffix(".new")
            fresh.write_text("\n".join(key.text() for key in ring))
            fresh.replace(path)
            time.sleep(STEP_S / WORKERS)
        time.sleep(0.5)


@contextmanager
def workers(folder: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        files, urls = [], []
        for number in range(WORKERS):
            path = folder / f"keys{number}"
            path.write_text(OLD.text())
            command = [sys.executable, str(Path(__file__).with_name("worker.py")), str(path)]
            process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            assert process.stdout is not None
            files.append(path)
            urls.append(process.stdout.readline().strip())
        yield Service(files, urls)


@dataclass
class Load:
    """Clients that hold conversations, each turn with another worker, and count what went wrong."""

    urls: list[str]
    turns: int = 0
    dropped: int = 0
    failed: int = 0
    last: dict[int, Any] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, during: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._converse, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            during()
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join()

    def _converse(self, number: int) -> None:
        source, session, expected = random.Random(number), None, 0
        with httpx2.Client() as http:
            while not self.stopped.is_set():
                answer = http.post(f"{source.choice(self.urls)}/api/chat", json={"data": {"session": session}})
                expected += 1
                self.turns += 1
                if answer.status_code != 200 or answer.json()["n"] != expected:
                    self.dropped += answer.status_code < 500
                    self.failed += answer.status_code >= 500
                    expected = 0
                session = answer.json()["data"]["session"]
                self.last[number] = session


@pytest.mark.soak
def test_three_steps_replace_a_key_and_drop_no_session(tmp_path: Path) -> None:
    with workers(tmp_path) as service:
        load = Load(service.urls)
        before = httpx2.post(f"{service.urls[0]}/api/chat", json={"data": {"session": None}}).json()["data"]["session"]

        def rotate() -> None:
            time.sleep(STEP_S)
            service.deploy(OLD, NEW)
            service.deploy(NEW, OLD)
            time.sleep(STEP_S)
            service.deploy(NEW)

        load.run(rotate)
        answers = [httpx2.post(f"{url}/api/chat", json={"data": {"session": before}}) for url in service.urls]
        print(f"P7: {load.dropped} of {load.turns:,} turns dropped, {load.failed} failed")
    assert (load.dropped, load.failed) == (0, 0)
    assert load.turns > 100
    assert all(session["dcaf"]["token"].split(".")[1] == "new" for session in load.last.values())
    assert {answer.json()["code"] for answer in answers} == {"session-invalid"}


@pytest.mark.soak
def test_control_a_key_that_signs_before_it_is_everywhere_drops_sessions(tmp_path: Path) -> None:
    with workers(tmp_path) as service:
        load = Load(service.urls)
        load.run(lambda: service.deploy(NEW, OLD))
    assert load.dropped > 0
