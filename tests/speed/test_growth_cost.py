"""Counting and appending n times takes n steps: in a session, in a tool's call, beside another call, and with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dcaf import Session
from dcaf.core.state import State
from dcaf.core.transaction import Overlay

FEW, MANY = 1_000, 20_000
"""A list and one twenty times as long."""

MOST = 80
"""Twenty times the work takes twenty times as long where it is linear, and 400 times where it is quadratic."""


def appended(session: Session, count: int) -> None:
    for number in range(count):
        session.append("log", number)


def counted(session: Session, count: int) -> None:
    for _ in range(count):
        session.incr("n")


def in_a_session(count: int) -> None:
    appended(Session(), count)


def in_a_scope(count: int) -> None:
    session = Session()
    for number in range(count):
        session.user.append("log", number)
        session.temp.append("log", number)


def in_a_call(count: int) -> None:
    session = Session()
    call = Overlay(session._state)
    appended(Session._over(call), count)
    counted(Session._over(call), count)
    call.commit()
    assert len(session["log"]) == count


def in_two_calls(count: int) -> None:
    session = Session()
    one, other = Overlay(session._state), Overlay(session._state)
    for call in (one, other):
        appended(Session._over(call), count)
        counted(Session._over(call), count)
    assert (one.commit().clashes, other.commit().clashes) == ([], [])
    assert (len(session["log"]), session["n"]) == (2 * count, 2 * count)


def in_a_call_within_a_call(count: int) -> None:
    session = Session()
    outer = Overlay(session._state)
    for _ in range(4):
        inner = Overlay(outer)
        appended(Session._over(inner), count // 4)
        inner.commit()
    outer.commit()
    assert len(session["log"]) == count


def with_a_limit(count: int) -> None:
    room = sum(len(str(number)) + 1 for number in range(count)) + 100
    session = Session._over(State(limit_bytes=room))
    appended(session, count)
    assert len(session._state.payload().data) <= room


def counting_with_a_limit(count: int) -> None:
    session = Session._over(State(limit_bytes=60))
    counted(session, count)


def after_a_look(count: int) -> None:
    session = Session.from_dict({"log": [1]})
    session["log"].append(2)
    appended(session, count)
    assert session["log"][:3] == [1, 2, 0]


def beside_other_keys(count: int) -> None:
    session = Session()
    for number in range(count):
        session.append("log", number)
        session["last"] = number
        assert session["last"] == number


WAYS: list[Callable[[int], None]] = [
    in_a_session,
    in_a_scope,
    in_a_call,
    in_two_calls,
    in_a_call_within_a_call,
    with_a_limit,
    counting_with_a_limit,
    after_a_look,
    beside_other_keys,
]


def seconds(way: Callable[[int], None], count: int) -> float:
    times = []
    for _ in range(2):
        start = time.process_time()
        way(count)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_n_times_takes_n_steps(way: Callable[[int], None]) -> None:
    assert seconds(way, MANY) < MOST * seconds(way, FEW)


def test_control_a_list_that_is_written_anew_each_time_takes_more() -> None:
    def rewritten(count: int) -> None:
        session = Session.from_dict({"log": []})
        for number in range(count):
            session["log"] = [*session["log"], number]

    assert seconds(rewritten, MANY // 10) > MOST * seconds(rewritten, FEW // 10)
