"""Programs in processes of their own, each forked from one that has loaded dcaf's agent: to load it takes more than a second.

What a reader gets wrong: a fork has more modules loaded than a program that a user starts. So of each kind of program that is
started here, one test starts it as a user does.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["dcaf.demo.app", "dcaf.agent.serving", "dcaf.ledger", "pytest"])


class Forked:
    """A program that runs; it is asked and stopped like one of the standard library's ``Popen``.

    Args:
        program: What the process calls; a number that it returns is its exit code.
        arguments: Of the command line, with the program's name at their head.
        folder: Where it runs.
        environment: All of it.
        said: A file, for what it prints.
    """

    def __init__(
        self, program: Callable[[], Any], arguments: list[str], *, folder: Path, environment: Mapping[str, str], said: Path
    ) -> None:
        self._process = CONTEXT.Process(target=_run, args=(program, arguments, folder, dict(environment), said))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode


def _run(program: Callable[[], Any], arguments: list[str], folder: Path, environment: dict[str, str], said: Path) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with said.open("ab") as out:
        for number in (1, 2):
            os.dup2(out.fileno(), number)
    sys.argv = arguments
    sys.path.insert(0, str(folder))
    code = program()
    sys.exit(code if isinstance(code, int) else 0)
