"""Envelopes of any age, a clock that stands still, and the fixtures that bring them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from dcaf import Session
from dcaf.core.errors import ConfigurationError
from dcaf.testing import FrozenClock, SessionClient, expired, fixed_keys, sealed
from tests.testing.counting import AUDIENCE, RING, Counter, envelope

SECOND = timedelta(seconds=1)
SKEW = timedelta(seconds=60)


def code_of(session: Any, **settings: Any) -> str | None:
    return SessionClient(Counter(**settings), envelope=session).send("x").code


def test_a_session_is_over_a_minute_after_its_idle_end(dcaf_clock: FrozenClock) -> None:
    at_the_end = envelope({"n": 1}, clock=dcaf_clock, age=timedelta(days=7) + SKEW)
    assert code_of(at_the_end, clock=dcaf_clock) is None
    dcaf_clock.tick()
    assert code_of(at_the_end, clock=dcaf_clock) == "session-ended"


@pytest.mark.parametrize("encrypt", [False, True])
def test_an_expired_session_is_just_over_and_everything_else_about_it_is_right(dcaf_clock: FrozenClock, *, encrypt: bool) -> None:
    settings: dict[str, Any] = {"idle_timeout": timedelta(hours=1), "clock": dcaf_clock, "encrypt": encrypt}
    mine = expired({"n": 1}, keys=RING, audience=AUDIENCE, subject="ada", conversation="t-1", **settings)
    service = Counter(subject=lambda _: "ada", conversation="/thread_id", **settings)
    client = SessionClient(service, envelope=mine, fields={"thread_id": "t-1"})
    dcaf_clock.tick(-SECOND)
    assert client.send("x").code is None
    client.envelope = mine
    client.messages.clear()
    dcaf_clock.tick()
    assert client.send("x").code == "session-ended"


def test_an_expired_session_of_somebody_else_is_invalid_and_not_told_that_it_is_over() -> None:
    mine = expired({"n": 1}, keys=RING, audience=AUDIENCE, subject="ada")
    assert code_of(mine, subject=lambda _: "eve") == "session-invalid"


def test_a_session_that_was_always_used_ends_at_its_absolute_end(dcaf_clock: FrozenClock) -> None:
    old = envelope({"n": 1}, clock=dcaf_clock, lived=timedelta(days=30), age=SKEW)
    assert code_of(old, clock=dcaf_clock) is None
    dcaf_clock.tick()
    assert code_of(old, clock=dcaf_clock) == "session-ended"


def test_the_timeouts_of_a_session_are_those_it_is_sealed_with(dcaf_clock: FrozenClock) -> None:
    short = {"idle_timeout": timedelta(minutes=1), "absolute_timeout": timedelta(minutes=2)}
    begun = envelope({}, clock=dcaf_clock, **short)["dcaf"]["expires_at"]
    lived = envelope({}, clock=dcaf_clock, lived=timedelta(seconds=90), age=timedelta(seconds=5), **short)["dcaf"]["expires_at"]
    assert (begun - dcaf_clock(), lived - dcaf_clock()) == (60, 25)
    with pytest.raises(ConfigurationError, match="absolute_timeout is shorter"):
        envelope({}, idle_timeout=timedelta(days=31))


def test_a_session_of_an_older_schema_is_migrated_and_one_of_a_newer_ended() -> None:
    newer: dict[str, Any] = {"version": 2, "migrations": {2: lambda values: {"n": values["count"]}}}
    client = SessionClient(Counter(**newer), envelope=envelope({"count": 5}, version=1))
    assert client.send("x").session == {"n": 6}
    assert code_of(envelope({"n": 1}, version=3), **newer) == "session-ended"


def test_the_settings_of_sealed_hold_for_expired() -> None:
    mine = expired({"step": 2}, keys=RING.active.text(), audience=AUDIENCE, sequence=9, version=4, encrypt=True)
    assert mine["dcaf"]["token"].startswith("dcaf1e.testonly.")
    assert set(mine) == {"dcaf"}


# The clock


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = FrozenClock(datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert (clock(), clock(), clock.now) == (1777629600.0, 1777629600.0, datetime(2026, 5, 1, 10, tzinfo=UTC))
    clock.tick(timedelta(days=1, microseconds=1))
    assert clock() == 1777716000.000001
    clock.tick(-timedelta(days=1, microseconds=1))
    assert clock() == 1777629600.0
    assert repr(clock) == "FrozenClock(2026-05-01T10:00:00+00:00)"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tzinfo=UTC"):
        FrozenClock(datetime(2026, 1, 1))  # noqa: DTZ001


# The fixtures


def test_a_week_passes_in_no_time(session_client: Any, dcaf_clock: FrozenClock, dcaf_keys: Any) -> None:
    client = session_client(Counter(keys=dcaf_keys, clock=dcaf_clock))
    assert [client.send("x").session for _ in range(2)] == [{"n": 1}, {"n": 2}]
    dcaf_clock.tick(timedelta(days=8))
    assert client.send("x").code == "session-ended"


def test_the_keys_are_the_same_in_every_run(dcaf_keys: Any) -> None:
    assert dcaf_keys.active.text().endswith("_D1KcnV"), "its checksum, for a whole key looks like a leaked one"
    assert dcaf_keys.active == fixed_keys().active


def test_the_same_keys_clock_and_randomness_give_the_same_bytes(dcaf_keys: Any) -> None:
    def conversation() -> list[bytes]:
        clock = FrozenClock()
        client = SessionClient(Counter(keys=dcaf_keys, clock=clock, randomness=lambda count: b"\x07" * count))
        replies = []
        for _ in range(3):
            replies.append(client.send("x").content)
            clock.tick()
        return replies

    assert conversation() == conversation()


def test_a_session_for_tools_is_new_and_empty(dcaf_session: Session) -> None:
    assert (dcaf_session.to_dict(), dcaf_session.is_modified) == ({}, False)


def test_a_client_of_the_fixture_takes_every_setting(session_client: Any) -> None:
    sent = sealed({"n": 5}, keys=RING, audience=AUDIENCE)
    client = session_client(Counter(), wire="websocket", envelope=sent, fields={"thread_id": "t-1"})
    assert client.send("x").session == {"n": 6}
