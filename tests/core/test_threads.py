"""Sync tools run in threads: what a session does in one step, no other thread can come between."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dcaf import Session

THREADS, ROUNDS = 4, 1_000


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    """Let threads change places as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None]) -> list[BaseException]:
    """What went wrong in several threads that did the same."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for number in range(ROUNDS):
                work(number)
        except BaseException as error:  # noqa: BLE001 - it is handed to the test
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_no_increment_is_lost_and_nobody_trips_over_new_keys() -> None:
    session = Session()

    def work(number: int) -> None:
        session.incr("n")
        session.set(f"k{number % 50}", number)
        assert session.is_modified

    assert together(work) == []
    assert session["n"] == THREADS * ROUNDS


def test_no_appended_item_is_lost() -> None:
    session = Session()
    assert together(lambda number: session.append("log", number) if number % 10 == 0 else None) == []
    assert len(session["log"]) == THREADS * ROUNDS // 10


def test_control_reading_and_writing_in_two_steps_loses_some() -> None:
    counts = {"n": 0}

    def work(number: int) -> None:
        found = counts["n"]
        time.sleep(1e-6)  # another thread's turn, for certain
        counts["n"] = found + 1

    assert together(work) == []
    assert counts["n"] < THREADS * ROUNDS
