"""Plain sessions of before: what the door lets in, until when, and how long it lives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from dcaf.core import ConfigurationError, Key, Keyring, SessionUnsigned, SessionValueError
from dcaf.core.claims import Claims, Lifetime
from dcaf.core.migrations import Import
from dcaf.core.sealer import Sealer

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


@pytest.mark.parametrize(("now", "kind"), [("1780000000", "a str"), (None, "None"), (True, "a bool"), (UNTIL, "a datetime")])
def test_the_moment_is_a_number(now: Any, kind: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Import(until=UNTIL, accept=step).values({"step": 2}, now=now)
    assert str(caught.value) == f"Import.values(now=) takes a number of seconds since the epoch, not {kind}."


def test_what_accepts_is_a_function() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Import(until=UNTIL, accept={"step"})  # type: ignore[arg-type]
    assert str(caught.value) == "Import(accept=) takes a function of the plain object that returns the values to keep, not a set."


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
    session = sealer.import_plain({"step": 2, "approved": True}, door)
    born = UNTIL_S + born_s
    assert sealer.claims_of(session) == Claims("shop", "A" * 22, 0, born, now, min(now + 600, UNTIL_S, born + 3_600))
    assert (session.to_dict(), session.is_modified) == ({"step": 2}, False)
    with pytest.raises(SessionValueError, match="would be larger"):
        session["a"] = "x" * 1_000
    assert sealer.import_plain({"step": 1}, door).sequence == 0


@pytest.mark.parametrize("value", [object(), "x" * 10_000, float("nan")], ids=["no JSON", "too large", "no number"])
def test_a_value_that_may_not_be_stored_is_refused_as_what_accept_would_not_have(value: Any) -> None:
    sealer = Sealer(keys=Keyring(KEY), audience="shop", max_token_bytes=1_000, clock=lambda: UNTIL_S)
    with pytest.raises(SessionUnsigned) as caught:
        sealer.import_plain({}, Import(until=UNTIL, accept=lambda _: {"step": value}))
    assert caught.value.reason == "accept"


# What the operator is told


class Plain(BaseModel):
    step: int


class Strict(Plain):
    missing: int


def looks_up(plain: dict[str, Any]) -> Any:
    return {"step": plain["stpe"]}


def calls_on(plain: dict[str, Any]) -> Any:
    return looks_up(plain)


def divides(plain: dict[str, Any]) -> Any:
    return {"step": plain["step"] / 0}


def quotes(plain: dict[str, Any]) -> Any:
    raise RuntimeError(f"this will not do: {plain}")


def told(accept: Callable[[dict[str, Any]], Any], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged, of an object with a canary in it that is refused."""
    caplog.clear()
    assert reason(Import(until=UNTIL, accept=accept), {"step": 2, "canary": "canary"}, UNTIL_S) == "accept"
    assert "canary" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)
    return caplog.messages


@pytest.mark.parametrize(
    ("accept", "name", "begins"),
    [
        (looks_up, "KeyError", "looks_up"),
        (calls_on, "KeyError", "calls_on"),
        (divides, "ZeroDivisionError", "divides"),
        (quotes, "RuntimeError", "quotes"),
        (lambda plain: Plain.model_validate({"step": plain}), "ValidationError", "<lambda>"),
        (Strict.model_validate, "ValidationError", "model_validate"),
    ],
)
def test_what_accept_raises_is_told_by_type_and_place_and_never_by_its_message(
    accept: Any, name: str, begins: str, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = told(accept, caplog)
    assert line.startswith(f"dcaf: Import(accept=) raised {name} in {begins} (")
    assert ".py:" in line


def test_where_accept_calls_on_both_places_are_told(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(calls_on, caplog)
    assert re.fullmatch(r"dcaf: Import\(accept=\) raised KeyError in calls_on \(.*:\d+\), from looks_up \(.*:\d+\)", line)


@pytest.mark.parametrize("accept", [int, str.upper])
def test_a_builtin_that_raises_has_a_type_alone(accept: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert told(accept, caplog) == ["dcaf: Import(accept=) raised TypeError"]


@pytest.mark.parametrize(("found", "kind"), [([("step", 2)], "list"), ("step", "str"), (2, "int"), (Plain, "ModelMetaclass")])
def test_what_is_no_mapping_is_told_with_what_to_return(found: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(lambda _: found, caplog)
    assert line == (
        f"dcaf: Import(accept=) gave a value of type {kind}. Return a mapping of the values to keep, or None to refuse."
    )


def test_following_what_is_said_of_a_model_takes_the_session_in(caplog: pytest.LogCaptureFixture) -> None:
    assert told(Plain.model_validate, caplog) == [
        "dcaf: Import(accept=) gave a value of type Plain. Return a mapping of the values to keep, for instance its model_dump(), "
        "or None to refuse."
    ]
    door = Import(until=UNTIL, accept=lambda plain: Plain.model_validate(plain).model_dump())
    assert door.values({"step": 2, "more": 1}, now=UNTIL_S) == {"step": 2}


def test_to_refuse_with_none_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    assert told(lambda _: None, caplog) == []


def test_an_async_accept_is_refused_when_it_is_given() -> None:
    async def accept(plain: dict[str, Any]) -> dict[str, Any]:
        return plain

    with pytest.raises(ConfigurationError, match=r"Import\(accept=\) takes a function"):
        Import(until=UNTIL, accept=accept)  # type: ignore[arg-type]
