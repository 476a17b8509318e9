"""However a turn ends, the next one of its session opens, and no number is given to two states; with a store that claims."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from dcaf.core.errors import SessionValueError
from dcaf.core.lifecycle import SessionTurn
from tests.seam.seam_turns import Client, cancelled, service, talked
from tests.stores_for_tests import MemoryLedger

POINTS = 60

ENDS: dict[str, Any] = {
    "raises": lambda client: client.turn("raises"),
    "500": lambda client: client.turn("500"),
    "text": lambda client: client.turn("text"),
    "too-long": lambda client: client.turn("too-long"),
    "leaves before": lambda client: client.turn("ok", leaves_after=0),
    "leaves within": lambda client: client.turn("ok", leaves_after=1),
    "stream cut": lambda client: client.turn("stream", leaves_after=2),
    "stream cut after the checkpoint": lambda client: client.turn("stream", leaves_after=4),
    "socket": lambda client: talked(client.service, [{"data": {"session": client.session}}], client=client),
    "socket that raises": lambda client: talked(
        client.service, [{"how": "raises", "data": {"session": client.session}}], client=client
    ),
    "socket cut": lambda client: talked(client.service, [{"data": {"session": client.session}}], leaves_after=2, client=client),
    "socket with a checkpoint, cut": lambda client: talked(
        client.service, [{"how": "checkpoint", "data": {"session": client.session}}], leaves_after=2, client=client
    ),
}


async def ended(how: str, ledger: Any) -> Client:
    """A session, a turn of it that ends so, and the next one."""
    client = Client(service(ledger, max_token_bytes=2000))
    await client.turn()
    assert client.answers == [(200, None)]
    with suppress(RuntimeError, OSError, SessionValueError):
        await ENDS[how](client)
    await client.go_on()
    return client


@pytest.mark.parametrize("how", ENDS)
def test_the_next_turn_opens(how: str) -> None:
    ledger = MemoryLedger()
    client = asyncio.run(ended(how, ledger))
    assert client.answers[-1] == (200, None)
    assert (ledger.doubles, [row.claim for row in ledger.rows.values()]) == ([], [None] * len(ledger.rows))


@pytest.mark.parametrize("how", ["raises", "500", "text", "too-long", "stream cut"])
def test_control_a_turn_that_is_never_released_is_caught(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(self: SessionTurn) -> None:
        """Nothing."""

    monkeypatch.setattr(SessionTurn, "release", keep)
    client = asyncio.run(ended(how, MemoryLedger()))
    assert client.answers[-1] == (409, "session-conflict")


async def cut_at(after: int, shape: str, by: str) -> tuple[Client, MemoryLedger]:
    ledger = MemoryLedger()
    client = Client(service(ledger))
    await client.turn()
    if shape == "socket":
        frames = [{"data": {"session": client.session}}, {"how": "checkpoint"}, {}]
        await cancelled(talked(client.service, frames, client=client), after, by)
    else:
        await cancelled(client.turn(shape), after, by)
    assert [row.claim for row in ledger.rows.values()] == [None] * len(ledger.rows), (after, shape, by)
    await client.go_on()
    return client, ledger


@pytest.mark.parametrize("by", ["task", "scope"])
@pytest.mark.parametrize("shape", ["ok", "text", "stream", "socket"])
def test_a_turn_may_be_cancelled_at_every_await(shape: str, by: str) -> None:
    for after in range(POINTS):
        client, ledger = asyncio.run(cut_at(after, shape, by))
        assert client.answers[-1] == (200, None), (after, client.answers)
        assert ledger.doubles == [], after


def test_control_a_release_that_can_be_cancelled_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def release(self: SessionTurn) -> None:
        if self.lease is not None:
            await self.lease.release()

    monkeypatch.setattr(SessionTurn, "release", release)
    with pytest.raises(AssertionError):
        test_a_turn_may_be_cancelled_at_every_await("text", "task")


class Failing(MemoryLedger):
    """Its commits fail by chance: before anything was written, or after."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.fails = False

    async def reach(self, step: str) -> None:
        await super().reach(step)
        if self.fails and step in ("commit", "committed") and self.random.random() < 0.4:
            raise ConnectionError("the ledger is away")


@pytest.mark.parametrize("shape", ["ok", "stream"])
def test_after_a_commit_that_failed_the_client_goes_on(shape: str) -> None:
    async def one(seed: int) -> Client:
        ledger = Failing(seed)
        client = Client(service(ledger))
        await client.turn()
        ledger.fails = True
        for _ in range(3):
            await client.turn(shape)
        ledger.fails = False
        await client.go_on()
        assert ledger.doubles == []
        return client

    codes = set()
    for seed in range(30):
        client = asyncio.run(one(seed))
        assert client.answers[-1] == (200, None), client.answers
        codes |= set(client.answers)
    assert shape == "stream" or (503, "session-unavailable") in codes
