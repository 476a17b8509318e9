"""The fast paths beside the plain ones, on a million bodies."""

from __future__ import annotations

import asyncio
import os

import pytest

from dcaf.asgi.json_sessions import shorten
from tests.asgi.hostile_bodies import bodies
from tests.asgi.test_json_quickly import framing, verdict
from tests.asgi.test_json_tokens import loop, outcome, verify

__all__ = ["loop"]  # the fixture
NUMBER = int(1_000_000 * float(os.environ.get("DCAF_SCALE", "0.02")))


@pytest.mark.soak
def test_a_million_bodies_come_out_the_same_by_either_path(loop: asyncio.Runner) -> None:
    told = {"equal": 0, "left": 0, "taken out": 0}
    for data in bodies(NUMBER, seed=31):
        said = verdict(data), framing(data)
        assert "differs" not in said, data
        assert outcome(loop, data, verify) == outcome(loop, data, lambda _: None), data
        told["equal"] += "equal" in said
        told["left"] += "left" in said
        told["taken out"] += shorten(data, verify) is not None
    print(f"fast paths: 0 of {NUMBER:,} bodies differ; {told}")
    assert min(told.values()) > NUMBER / 100
