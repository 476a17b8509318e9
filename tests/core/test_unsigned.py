"""Plain sessions of before: what the door lets in, until when, and how long it lives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcaf.core import ConfigurationError, Key, Keyring, SessionUnsigned, SessionValueError
from dcaf.core.claims import Claims, Lifetime
from dcaf.core.envelope import Sealer
from dcaf.core.unsigned import Import

UNTIL = datetime(2027, 1, 1, tzinfo=UTC)
UNTIL_S = int(UNTIL.timestamp())
KEY = Key.from_bytes("k7", hashlib.sha256(b"unsigned").digest())


def step(plain: dict[str, Any]) -> Mapping[str, Any]:
    return {"step": plain["step"]}


def reason(door: Import, plain: dict[str, Any], now: float) -> str | None:
    with pytest.raises(SessionUnsigned) as caught:
        door.values(plain, now=now)
    assert caught.value.__cause__ is None
    return caught.value.reason


def test_a_plain_object_is_narrowed_up_to_the_last_second() -> None:
    door = Import(until=UNTIL, accept=step)
    assert door.until_s == UNTIL_S
    assert door.values({"step": 2, "approved": True}, now=UNTIL_S) == {"step": 2}
    assert reason(door, {"step": 2}, UNTIL_S + 1) == "until"


@pytest.mark.parametrize("accept", [lambda plain: None, lambda plain: [], lambda plain: plain["missing"], lambda plain: 1 / 0])
def test_what_accept_would_not_have_is_refused(accept: Callable[[dict[str, Any]], Any]) -> None:
    assert reason(Import(until=UNTIL, accept=accept), {"step": 2}, UNTIL_S - 1) == "accept"


@pytest.mark.parametrize("until", [datetime(2027, 1, 1), "2027-01-01", None, UNTIL_S])  # noqa: DTZ001
def test_the_date_has_a_time_zone(until: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Import(until=until, accept=step)
    assert str(caught.value) == "Import(until=) takes a datetime with a time zone: datetime(2027, 1, 1, tzinfo=UTC)."


def test_what_accepts_is_a_function() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Import(until=UNTIL, accept={"step"})  # type: ignore[arg-type]
    assert str(caught.value) == "Import(accept=) takes a function of the plain object that returns the values to keep."


@pytest.mark.parametrize(
    ("before_s", "born_s"),
    [(7_200, -7_200), (3_601, -3_601), (3_600, -3_600), (3_599, -3_600), (1, -3_600), (0, -3_600)],
)
def test_a_session_that_was_taken_in_ends_no_later_than_the_door_closes(before_s: int, born_s: int) -> None:
    now = UNTIL_S - before_s
    sealer = Sealer(
        keys=Keyring(KEY),
        audience="shop",
        clock=lambda: now + 0.5,
        randomness=bytes,
        lifetime=Lifetime(600, 3_600),
        max_token_bytes=1_000,
    )
    door = Import(until=UNTIL + timedelta(milliseconds=900), accept=step)
    session = sealer.take_in({"step": 2, "approved": True}, door)
    born = UNTIL_S + born_s
    assert sealer.claims_of(session) == Claims("shop", "A" * 22, 0, born, now, min(now + 600, UNTIL_S, born + 3_600))
    assert (session.to_dict(), session.is_modified) == ({"step": 2}, False)
    with pytest.raises(SessionValueError, match="would be larger"):
        session["a"] = "x" * 1_000
    assert sealer.take_in({"step": 1}, door).sequence == 0
