"""Turns on a WebSocket: each frame claims the session and gives it back, and a turn that is over claims nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcaf.asgi import checkpoint
from dcaf.engines import Transaction
from dcaf.ledger import Ledger
from dcaf.ledger.tables import SESSIONS
from tests.asgi.wire import AUDIENCE
from tests.ledger.ledger_world import number_of, run
from tests.seam.seam_turns import Client, service, talked


def claims_held(ledger: Ledger) -> list[Any]:
    return [row["claim"] for _, row in ledger.engine.sync.scan(SESSIONS)]


@pytest.mark.parametrize("how", ["count", "checkpoint", "raises"])
def test_each_frame_claims_the_session_and_gives_it_back(build: Any, how: str) -> None:
    world = build()
    ledger = Ledger(world.engine, audience=AUDIENCE)
    served = service(ledger, clock=world.clock)
    client = Client(served)

    async def scenario() -> None:
        await talked(served, [{"how": "count"}, {"how": how}], client=client)

    run(scenario)
    assert claims_held(ledger) == [None]
    assert number_of(client.session) == {"count": 2, "checkpoint": 3, "raises": 1}[how]


def test_a_client_that_comes_back_goes_on_with_the_newest(build: Any) -> None:
    world = build()
    ledger = Ledger(world.engine, audience=AUDIENCE)
    served = service(ledger, clock=world.clock)
    client = Client(served)

    async def scenario() -> Any:
        await talked(served, [{}, {}, {"how": "checkpoint"}], client=client)
        return await client.go_on()

    assert run(scenario)["n"] == 5
    assert claims_held(ledger) == [None]


async def remember_late(scope: Any, receive: Any, send: Any) -> None:
    """An application that leaves the session alone in its turn, and writes to it after that has ended."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": '{"type":"done"}'})
        scope["dcaf.session"].incr("n")
        await checkpoint()


def test_a_turn_that_is_over_takes_no_claim_for_what_it_writes_later(build: Any) -> None:
    world = build()
    ledger = Ledger(world.engine, audience=AUDIENCE)
    served = service(ledger, remember_late, clock=world.clock)
    client = Client(served)

    async def scenario() -> None:
        await talked(served, [{}, {}], client=client)

    run(scenario)
    assert claims_held(ledger) == [None]
    assert json.loads(json.dumps(client.session))["n"] == 2


def test_control_a_turn_that_forgets_that_it_is_over_holds_the_session(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dcaf.ledger.lease.LedgerLease._keeps_claim", lambda lease: lease.holds or (lease._is_new and not lease.request.is_safe)
    )
    world = build()
    ledger = Ledger(world.engine, audience=AUDIENCE)
    served = service(ledger, remember_late, clock=world.clock)

    async def scenario() -> None:
        await talked(served, [{}], client=Client(served))

    run(scenario)
    assert claims_held(ledger) != [None]
    assert world.engine.sync.transact(Transaction([])).applied
