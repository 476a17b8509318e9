"""P9: however often a session is refreshed, it ends at born + absolute."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pytest

from dcaf.core.base64url import Payload
from dcaf.core.claims import Binding, Lifetime, Standing
from dcaf.core.encryption import ENCRYPTED
from dcaf.core.errors import SessionEnded
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED, Suite
from dcaf.core.state import State

START = 1_789_000_000
SKEW = 60
SUITES: dict[str, Suite] = {"signed": SIGNED, "encrypted": ENCRYPTED}
RING = Keyring(Key.from_bytes("k7", random.Random(9).randbytes(32)))
IDLE, ABSOLUTE = 7 * 86_400, 30 * 86_400
LIFETIME = Lifetime(IDLE, ABSOLUTE)


class Run(NamedTuple):
    """What came of refreshing: how often, the latest end that a token had, and when the last one was accepted."""

    refreshes: int
    latest_end: int
    last_accepted: int

    @property
    def bounded(self) -> bool:
        return self.latest_end <= START + ABSOLUTE and self.last_accepted <= START + ABSOLUTE + SKEW


def refreshed(kind: type[Sealer], suite: Suite, number: int, lifetime: Lifetime = LIFETIME) -> Run:
    """Refresh a session so many times, evenly but for chance, up to the end and every second of the skew, then try on.

    Half of the turns change the state; the others copy it. The client tries for another ``absolute`` after the end.
    """
    now, source = START, random.Random(9)
    by = kind(keys=RING, audience="shop", lifetime=lifetime, clock=lambda: now, suite=suite)
    binding = by.binding("ann", "t1")
    member = orjson.loads(by.seal(by.start(), binding, sequence=1))
    run = Run(0, member["dcaf"]["expires_at"], now)
    for now in [*_moments(number, source), *range(START + ABSOLUTE + SKEW + 1, START + 2 * ABSOLUTE, IDLE // 2)]:
        try:
            session = by.open(member, binding)
        except SessionEnded:
            break
        if source.random() < 0.5:
            session["turn"] = run.refreshes
        member = orjson.loads(by.seal(session, binding, sequence=run.refreshes + 2))
        end = by.claims_of(by.open(member, binding)).exp
        run = Run(run.refreshes + 1, max(run.latest_end, end, member["dcaf"]["expires_at"]), now)
    return run


def _moments(number: int, source: random.Random) -> list[int]:
    """So many, in order: the last 121 are the end and every second about it that a token may still be accepted in."""
    last = list(range(START + ABSOLUTE - SKEW, START + ABSOLUTE + SKEW + 1))
    return sorted(START + source.randrange(ABSOLUTE - SKEW) for _ in range(number - len(last))) + last


@pytest.mark.promise(9)
@pytest.mark.parametrize("name", SUITES)
def test_refreshing_never_passes_the_absolute_end(name: str, scale: float, measured: Callable[[int, str], None]) -> None:
    number = int(10_000 * scale)
    run = refreshed(Sealer, SUITES[name], number)
    beyond = run.last_accepted - START - ABSOLUTE
    measured(
        9,
        f"{name}: {run.refreshes:,} refreshes, none with an end past born + absolute, the last accepted {beyond} s after it "
        f"(the skew is {SKEW} s)",
    )
    # All of them were accepted, the last in the last second of the skew, and not one after it.
    assert run == Run(number, START + ABSOLUTE, START + ABSOLUTE + SKEW)
    assert run.bounded


@pytest.mark.promise(9)
@pytest.mark.parametrize("name", SUITES)
def test_random_lives_of_random_length_end_in_time(name: str, scale: float) -> None:
    source = random.Random(9)
    for _ in range(int(500 * scale)):
        idle, absolute, now = source.randrange(1, 5_000), source.randrange(1, 20_000), START
        lifetime = Lifetime(idle, absolute)
        by = Sealer(keys=RING, audience="shop", lifetime=lifetime, clock=lambda: now, suite=SUITES[name])  # noqa: B023
        binding: Binding = by.binding()
        member: Any = orjson.loads(by.seal(by.start(), binding, sequence=1))
        while True:
            now += source.randrange(idle - idle // 10 + SKEW + 1)  # its token may be a tenth of the idle timeout old
            try:
                session = by.open(member, binding)
            except SessionEnded:
                break
            assert now <= START + absolute + SKEW
            member = orjson.loads(by.seal(session, binding, sequence=2))
            assert member["dcaf"]["expires_at"] <= START + absolute
        assert now > START + absolute + SKEW


class ForgetsTheEnd(Lifetime):
    """Broken: the end slides with every refresh."""

    def end(self, born: int, now: int) -> int:
        return now + self.idle_s


class BornAgain(Sealer):
    """Broken as aiohttp-session was (CVE-2018-1000814): a refreshed session is a new one."""

    def _seal_state(self, state: State, payload: Payload, binding: Binding, sequence: int | None) -> Standing:
        assert state.standing is not None
        state.standing = Standing(state.standing.claims._replace(born=int(self._clock())))
        return super()._seal_state(state, payload, binding, sequence)


@pytest.mark.promise(9)
def test_control_an_end_that_slides_is_caught_although_the_absolute_age_is_still_checked() -> None:
    run = refreshed(Sealer, SIGNED, 200, ForgetsTheEnd(IDLE, ABSOLUTE))
    assert run.latest_end > START + ABSOLUTE
    assert run.last_accepted == START + ABSOLUTE + SKEW
    assert not run.bounded


@pytest.mark.promise(9)
def test_control_a_lifetime_that_forgets_the_absolute_end_is_caught() -> None:
    run = refreshed(Sealer, SIGNED, 200, ForgetsTheEnd(IDLE, 10**9))
    assert run.last_accepted > START + ABSOLUTE + SKEW
    assert not run.bounded


@pytest.mark.promise(9)
def test_control_a_session_that_is_born_again_with_every_refresh_is_caught() -> None:
    run = refreshed(BornAgain, SIGNED, 200)
    assert run.last_accepted > START + ABSOLUTE + SKEW
    assert not run.bounded
