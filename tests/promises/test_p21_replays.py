"""P21: a token that is not the newest of its session is never accepted, whoever sends it, with what, and where."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.promises.ledgers import Make, Service, at_once, closing, exchange, in_time, make_ledger, make_nothing, workers
from tests.promises.places import Place

REPLAYS, FEWEST, CONVERSATIONS, LENGTH = 10_000, 100, 20, 25
HOW: list[dict[str, Any]] = [
    {},
    {"path": "/stream"},
    {"method": "GET"},
    {"key": "fresh"},
    {"key": "used"},
    {"reads": 0},
]
"""How an older token comes back: with other words, to a stream, to look, with a new Idempotency-Key and one that was used, lost."""


class Spoken:
    """A conversation that has been.

    Attributes:
        user: Whose; None for anonymous.
        sessions: What the client has held, oldest first.
        said: What was said to each of them.
    """

    def __init__(self, at: int) -> None:
        self.user = f"user-{at}" if at % 2 else None
        self.sessions: list[Any] = []
        self.said: list[str] = []


def speak(place: Place, make: Make, number: int, length: int) -> list[Spoken]:
    """Hold some conversations. Their newest sessions come back once."""
    found = [Spoken(at) for at in range(number)]

    async def hold(at: int, spoken: Spoken, service: Service) -> None:
        held = None
        for turn in range(length):
            spoken.said.append(f"{at}.{turn}")
            key = "used" if turn % 3 == 0 else None
            got = await exchange(service.app, spoken.said[-1], held, user=spoken.user, key=key and f"{key} {at}.{turn}")
            assert got.status == 200, got
            held = got.newest
            spoken.sessions.append(held)
        assert (await exchange(service.app, "look", held, user=spoken.user, method="GET")).status == 200

    async def run() -> None:
        store = make(place)
        async with closing(store):
            service = Service(store)
            await in_time([hold(at, spoken, service) for at, spoken in enumerate(found)], 8)

    asyncio.run(run())
    return found


def replay(place: Place, make: Make, spoken: list[Spoken], seed: int, number: int) -> Counter[str]:
    """Send older sessions so often: how often the application ran, or its client was told that all is well, or got a newer one."""
    rng, counts = random.Random(seed), Counter[str]()

    async def send(service: Service, at: int) -> None:
        one, how = rng.choice(spoken), dict(rng.choice(HOW))
        older = rng.randrange(len(one.sessions) - 1)
        words = one.said[older + 1] if rng.random() < 0.5 else f"{seed}.{at}"
        if "key" in how:
            how["key"] = f"{how['key']} {one.said[older + 1]}"
        before = service.runs.total()
        got = await exchange(service.app, words, one.sessions[older], user=one.user, **how)
        counts["ran"] += service.runs.total() - before
        counts["accepted"] += got.status == 200
        counts["handed over"] += got.newest is not None
        counts[f"{got.status} {got.code or ''}".strip()] += 1

    async def run() -> None:
        store = make(place)
        async with closing(store):
            service = Service(store)
            for at in range(number):
                await send(service, at)

    asyncio.run(run())
    return counts


def replayed(place: Place, make: Make, number: int) -> Counter[str]:
    """What came of so many replays, in two processes."""
    length = max(4, int(LENGTH * min(1.0, number / 1000)))
    with workers() as found:
        (spoken,) = at_once(found[:1], speak, (place, make, CONVERSATIONS, length))
        both = at_once(found, replay, *((place, make, spoken, seed, number // 2) for seed in (1, 2)))
    return sum(both, Counter[str]())


@pytest.mark.promise(21)
def test_no_older_token_is_accepted(place: Place, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(FEWEST, int(REPLAYS * scale * place.part))
    counts = replayed(place, make_ledger, number)
    answers = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if name.startswith("4"))
    measured(21, f"{place.name}: {counts['accepted']} of {number:,} replays of older tokens accepted, by two processes: {answers}")
    assert (counts["ran"], counts["accepted"], counts["handed over"]) == (0, 0, 0)
    lost = counts["0"]  # those whose client has not read the answer
    assert counts["409 session-superseded"] + lost > number * 0.8
    assert lost < number / 3


@pytest.mark.promise(21)
def test_control_without_a_ledger_all_are_accepted(file: Place) -> None:
    counts = replayed(file, make_nothing, 200)
    assert counts["ran"] == 200
    assert counts["accepted"] + counts["0"] == 200
