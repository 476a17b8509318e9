"""What a typed get costs beside the pydantic call that it stands for, measured in one run, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from pydantic import BaseModel, TypeAdapter

from dcaf import Session

ROUNDS = 40
CALLS = 200


class Line(BaseModel):
    name: str
    quantity: int = 1
    note: str = ""


DATA = b'{"name":"widget","quantity":2,"note":"blue"}'
ADAPTER = TypeAdapter(Line)


def microseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


def ratio(call: Callable[[], object], beside: Callable[[], object]) -> float:
    """Median of the ratios of neighbouring rounds, so that a change of the clock touches both."""
    return statistics.median(microseconds(call) / microseconds(beside) for _ in range(ROUNDS))


def test_a_cached_typed_get_costs_at_most_one_and_a_half_times_the_pydantic_call() -> None:
    session = Session.from_dict({"line": {"name": "widget", "quantity": 2, "note": "blue"}})
    session.get("line", as_type=Line)
    assert ratio(lambda: session.get("line", as_type=Line), lambda: ADAPTER.validate_json(DATA)) <= 1.5


def test_control_building_the_adapter_each_time_costs_far_more() -> None:
    assert ratio(lambda: TypeAdapter(list[Line]).validate_json(b"[]"), lambda: ADAPTER.validate_json(DATA)) > 1.5
