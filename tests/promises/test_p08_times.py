"""P8: a token lives as long as it says and no longer, on clocks that disagree and on one that steps back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pytest

from dcaf.core import claims
from dcaf.core.claims import Binding, Lifetime
from dcaf.core.encryption import ENCRYPTED
from dcaf.core.errors import SessionEnded, SessionError, SessionInvalid
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED, Suite

Measured = Callable[[int, str], None]

START = 1_789_000_000
SKEW = 60
HOUR = 3_600
SUITES: dict[str, Suite] = {"signed": SIGNED, "encrypted": ENCRYPTED}
RING = Keyring(Key.from_bytes("k7", random.Random(8).randbytes(32)))


class Clock:
    """True time, and by how much this one is off."""

    def __init__(self, off: float = 0) -> None:
        self.time: float = START
        self.off = off

    def __call__(self) -> float:
        return self.time + self.off


def sealer(suite: Suite, lifetime: Lifetime, clock: Clock) -> Sealer:
    return Sealer(keys=RING, audience="shop", lifetime=lifetime, clock=clock, suite=suite)


def seconds(source: random.Random, most: int = 30 * 86_400) -> int:
    """From one second to so many, small ones as often as large ones."""
    return int(most ** source.random())


# One clock


class Boundary(NamedTuple):
    """A moment in the life of a token, and whether it is accepted then: None, or the reason why not."""

    at: float
    reason: str | None


def boundaries(born: int, sealed: int, lifetime: Lifetime) -> list[Boundary]:
    """What the protocol says of a token, written down once more."""
    end = min(sealed + lifetime.idle_s, born + lifetime.absolute_s)
    return [
        Boundary(sealed - SKEW - 1, "iat"),
        Boundary(sealed - SKEW, None),
        Boundary(sealed, None),
        Boundary(end - 1, None),
        Boundary(end, None),
        Boundary(end + SKEW, None),
        Boundary(end + SKEW + 0.999, None),  # clocks are read in whole seconds
        Boundary(end + SKEW + 1, "exp"),
        Boundary(end + SKEW + 1 + HOUR, "exp"),
    ]


def answer(by: Sealer, member: Any, binding: Binding) -> str | None:
    """Why a token was refused; None where it was not."""
    try:
        by.open(member, binding)
    except SessionError as error:
        return error.reason
    return None


def wrong_answers(suite: Suite, number: int) -> tuple[int, int]:
    """Of so many sessions with lifetimes of every length: how many answers were wrong, and how many there were."""
    source, wrong, asked = random.Random(8), 0, 0
    for _ in range(number):
        lifetime, clock = Lifetime(seconds(source), seconds(source, 90 * 86_400)), Clock()
        by = sealer(suite, lifetime, clock)
        session, holder = by.start(), by.binding("ann")
        clock.time += source.randrange(min(lifetime.absolute_s, lifetime.idle_s) + 1)
        member = orjson.loads(by.seal(session, holder, sequence=1))
        for moment in boundaries(START, int(clock.time), lifetime):
            clock_then, clock.time = clock.time, moment.at
            asked += 1
            wrong += answer(by, member, holder) != moment.reason
            clock.time = clock_then
    return wrong, asked


@pytest.mark.promise(8)
@pytest.mark.parametrize("name", SUITES)
def test_a_token_is_accepted_to_the_second_that_the_protocol_names(name: str, scale: float, measured: Measured) -> None:
    wrong, asked = wrong_answers(SUITES[name], int(20_000 * scale))
    measured(8, f"{name}: {wrong} of {asked:,} answers wrong, {SKEW + 1} s before a token's seal to {SKEW + 1} s after its end")
    assert wrong == 0


@pytest.mark.promise(8)
@pytest.mark.parametrize("name", SUITES)
def test_only_the_rightful_holder_learns_that_a_token_is_over(name: str) -> None:
    clock = Clock()
    by = sealer(SUITES[name], Lifetime(600, HOUR), clock)
    member = orjson.loads(by.seal(by.start(), by.binding("ann", "t1"), sequence=1))
    clock.time += 600 + SKEW + 1
    with pytest.raises(SessionEnded):
        by.open(member, by.binding("ann", "t1"))
    for stranger in (by.binding("bob", "t1"), by.binding("ann", "t2"), by.binding(), Binding("other", "ann", "t1")):
        with pytest.raises(SessionInvalid):
            by.open(member, stranger)


@pytest.mark.promise(8)
@pytest.mark.parametrize("skew", [SKEW - 1, SKEW + 1])
def test_control_a_skew_of_one_second_more_or_less_is_caught(skew: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "SKEW_S", skew)
    wrong, _ = wrong_answers(SIGNED, 50)
    assert wrong > 0


# Several clocks


def false_refusals(suite: Suite, number: int, apart: float) -> tuple[int, int]:
    """How many turns were refused that came in time, out of at least so many, with services whose clocks are so far apart.

    A client comes in time if it comes no later than nine tenths of ``idle`` after the last answer, whose token may be a tenth of it
    old, and than ``absolute`` after the first, by true time. Often it comes at once, or in the last moment.
    """
    source, turns, refused = random.Random(8), 0, 0
    while turns < number:
        lifetime = Lifetime(120 + seconds(source, 86_400), 600 + seconds(source))
        clocks = [Clock(off) for off in (-apart / 2, apart / 2, *(source.uniform(-apart / 2, apart / 2) for _ in range(3)))]
        services = [sealer(suite, lifetime, clock) for clock in clocks]
        first, time = source.choice(services), START + source.random()
        _set(clocks, time)
        session, binding = first.start(), first.binding("ann")
        member, last = orjson.loads(first.seal(session, binding, sequence=1)), time + lifetime.absolute_s
        for sequence in range(2, 14):
            wait = source.choice((0, 0.5, source.uniform(0, 0.9 * lifetime.idle_s), 0.9 * lifetime.idle_s))
            time = min(time + wait, last)
            _set(clocks, time)
            service = source.choice(services)
            turns += 1
            try:
                session = service.open(member, binding)
            except SessionError:
                refused += 1
                break
            if source.random() < 0.5:
                session["turn"] = sequence
            member = orjson.loads(service.seal(session, binding, sequence=sequence))
            if time == last:
                break
    return refused, turns


def _set(clocks: list[Clock], time: float) -> None:
    for clock in clocks:
        clock.time = time


@pytest.mark.promise(8)
@pytest.mark.parametrize("name", SUITES)
def test_services_whose_clocks_are_45_seconds_apart_refuse_nobody_who_came_in_time(
    name: str, scale: float, measured: Measured
) -> None:
    refused, turns = false_refusals(SUITES[name], int(100_000 * scale), apart=45)
    measured(8, f"{name}: {refused} of {turns:,} turns refused falsely by services whose clocks are 45 s apart")
    assert refused == 0


@pytest.mark.promise(8)
def test_control_clocks_further_apart_than_the_skew_refuse_some() -> None:
    refused, _ = false_refusals(SIGNED, 2_000, apart=75)
    assert refused > 0


@pytest.mark.promise(8)
def test_control_without_a_skew_the_same_clocks_refuse_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "SKEW_S", 30)
    refused, _ = false_refusals(SIGNED, 2_000, apart=45)
    assert refused > 0


# A clock that steps back


class Sealed(NamedTuple):
    """An envelope, and when its session began, by the clock of the service and in truth."""

    member: Any
    read: int
    began: float


def immortal(suite: Suite, number: int, kind: type[Lifetime] = Lifetime, forgets_s: int = 0) -> tuple[int, int]:
    """In so many worlds whose clock steps back an hour at some time: how many tokens lived too long, of how many tried.

    The client refreshes as often as it can, keeps every token, begins new sessions, and tries older tokens at random. No token
    may be accepted later than born + absolute + skew by the clock, nor an hour later than that in truth.
    """
    source, late, tried = random.Random(8), 0, 0
    for _ in range(number):
        idle, absolute = 60 + seconds(source, HOUR), 600 + seconds(source, 3 * HOUR)
        clock = Clock()
        by = sealer(suite, kind(idle, absolute + forgets_s), clock)
        binding, step = by.binding("ann"), START + source.uniform(0, absolute)
        kept = [_begun(by, clock)]
        until = START + 2 * absolute + 2 * HOUR
        while clock.time < until:
            clock.time += source.uniform(0, min(idle, absolute / 8))
            if clock.off == 0 and clock.time >= step:
                clock.off = -HOUR
            if source.random() < 0.02:
                kept.append(_begun(by, clock))
            for token in [*kept[-2:], source.choice(kept)]:
                tried += 1
                try:
                    session = by.open(token.member, binding)
                except SessionError:
                    continue
                late += clock() >= token.read + absolute + SKEW + 1 or clock.time >= token.began + absolute + SKEW + 1 + HOUR
                kept.append(token._replace(member=orjson.loads(by.seal(session, binding, sequence=2))))
        clock.time = max(clock.time, *(token.began + absolute + SKEW + 1 + HOUR for token in kept))
        tried += len(kept)
        late += sum(answer(by, token.member, binding) is None for token in kept)
    return late, tried


def _begun(by: Sealer, clock: Clock) -> Sealed:
    envelope = by.seal(by.start(), by.binding("ann"), sequence=1)
    return Sealed(orjson.loads(envelope), int(clock()), clock.time)


@pytest.mark.promise(8)
@pytest.mark.parametrize("name", SUITES)
def test_a_clock_that_steps_back_an_hour_makes_nothing_immortal(name: str, scale: float, measured: Measured) -> None:
    worlds = int(500 * scale)
    late, tried = immortal(SUITES[name], worlds)
    measured(8, f"{name}: {late} of {tried:,} tokens lived too long on {worlds:,} clocks that step back an hour")
    assert late == 0


class ForgetsTheEnd(Lifetime):
    """Broken: a session lives as long as it is used."""

    def end(self, born: int, now: int) -> int:
        return now + self.idle_s


@pytest.mark.promise(8)
def test_control_a_lifetime_that_forgets_the_absolute_end_is_caught() -> None:
    late, _ = immortal(SIGNED, 3, ForgetsTheEnd, forgets_s=10**9)
    assert late > 0


@pytest.mark.promise(8)
def test_control_a_token_that_is_believed_although_it_is_over_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.core.sealer.check_times", lambda *_: None)
    late, _ = immortal(SIGNED, 3)
    assert late > 0
    assert wrong_answers(SIGNED, 5)[0] > 0
