"""Programs that share sessions with a test: ``python -m tests.service.kept_processes NAME KIND WHERE PREFIX ...``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dcaf.service import SessionService
from tests.service.kept_places import KeptPlace

ROOT: Final = Path(__file__).parents[2]


def start(program: Callable[..., None], place: KeptPlace, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.service.kept_processes", program.__name__, place.kind, place.where, place.prefix]
    return subprocess.Popen([*command, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def count(service: SessionService, sessions: str, turns: str) -> None:
    """Count, as soon as the parent says so, in so many new sessions, with so many turns each, what all of them share."""
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sessions)):
        made = service.sync.create(user="p")
        for _ in range(int(turns)):
            count_once(service, made.id)


def count_once(service: SessionService, id: str) -> None:  # noqa: A002
    with service.sync.open(user="p", id=id) as session:
        session.incr("n")
        session.incr("user:n")
        session.incr("app:n")
        session.append("user:log", 1)
        session.append("app:log", 1)


def commit_until_killed(service: SessionService) -> None:
    """Say each number once its turn was acknowledged."""
    while True:
        with service.sync.open(user="p", id="v") as session:
            number = session.incr("n")
            session.update({"a": number, "b": {"c": number}, f"k{number % 7}": number, "user:a": number, "app:a": number})
            session.append("log", number)
            session.pop(f"k{(number + 1) % 7}", None)
        os.write(1, b"%d\n" % number)


def say_before_committing(service: SessionService) -> None:
    """Say each number too early."""
    while True:
        with service.sync.open(user="p", id="v") as session:
            number = session.incr("n")
            session.update({"a": number, "b": {"c": number}, "user:a": number, "app:a": number})
            os.write(1, b"%d\n" % number)
            time.sleep(0.05)


def commit_by_halves(service: SessionService) -> None:
    """Write in two turns what belongs together."""
    while True:
        with service.sync.open(user="p", id="v") as session:
            number = session.incr("n")
        os.write(1, b"%d\n" % (number - 1))
        time.sleep(0.05)
        with service.sync.open(user="p", id="v") as session:
            session.update({"a": number, "b": {"c": number}, "user:a": number, "app:a": number})


if __name__ == "__main__":
    name, kind, where, prefix, *rest = sys.argv[1:]
    globals()[name](KeptPlace(kind, where, prefix).open_service(), *rest)
