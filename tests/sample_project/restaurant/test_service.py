"""The tests of the restaurant, with what dcaf brings for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from dcaf.testing import HARMLESS, AsyncSessionClient, expired, sealed, tampered

from .service import AUDIENCE, add, create_till, create_waiter


def test_a_tool(dcaf_session: Any) -> None:
    assert [add("soup", dcaf_session), add("cake", dcaf_session)] == ["One soup. That makes 1.", "One cake. That makes 2."]
    assert dcaf_session.to_dict() == {"order": {"dishes": ["soup", "cake"]}}


def test_a_route(session_client: Any, dcaf_keys: Any) -> None:
    order = sealed({"order": {"dishes": ["soup", "cake"]}}, keys=dcaf_keys, audience=AUDIENCE)
    assert session_client(create_till(keys=dcaf_keys), path="/bill", envelope=order).send("").body["total"] == 11


@pytest.mark.parametrize("wire", ["json", "ndjson", "websocket"])
def test_a_conversation(session_client: Any, dcaf_keys: Any, wire: str) -> None:
    client = session_client(create_waiter(keys=dcaf_keys), wire=wire)
    replies = [client.send(said).text for said in ("add soup", "add steak", "add pasta")]
    assert replies == ["One soup. That makes 1.", "There is no steak today.", "One pasta. That makes 2."]
    assert client.send("hm").session == {"order": {"dishes": ["soup", "pasta"]}}


def test_the_till_reads_what_the_waiter_wrote(session_client: Any, dcaf_keys: Any) -> None:
    guest = session_client(create_waiter(keys=dcaf_keys))
    guest.send("add pasta")
    assert session_client(create_till(keys=dcaf_keys), path="/bill", envelope=guest.envelope).send("").body["total"] == 12


def test_a_conversation_in_the_loop_of_the_test(dcaf_keys: Any) -> None:
    async def dinner() -> Any:
        async with AsyncSessionClient(create_waiter(keys=dcaf_keys), wire="websocket") as guest:
            await guest.send("add soup")
            return (await guest.send("add cake")).session

    assert asyncio.run(dinner()) == {"order": {"dishes": ["soup", "cake"]}}


def test_nobody_gets_a_dinner_of_last_week(session_client: Any, dcaf_keys: Any, dcaf_clock: Any) -> None:
    client = session_client(create_waiter(keys=dcaf_keys, clock=dcaf_clock))
    client.send("add soup")
    dcaf_clock.tick(timedelta(days=8))
    assert client.send("add soup").code == "session-ended"
    assert client.send("add cake").session == {"order": {"dishes": ["cake"]}}


def test_nobody_writes_the_order_but_the_waiter(session_client: Any, dcaf_keys: Any) -> None:
    order = {"order": {"dishes": ["cake"]}}
    mine = sealed(order, keys=dcaf_keys, audience=AUDIENCE)
    for envelope, code in (
        (tampered(mine), "invalid"),
        (order, "unsigned"),
        (expired(order, keys=dcaf_keys, audience=AUDIENCE), "ended"),
    ):
        assert session_client(create_till(keys=dcaf_keys), path="/bill", envelope=envelope).send("").code == f"session-{code}"


def test_whatever_a_browser_does_to_the_order_on_its_way_changes_nothing(session_client: Any, dcaf_keys: Any) -> None:
    for name, echo in HARMLESS.items():
        client = session_client(create_waiter(keys=dcaf_keys), echo=echo)
        assert [client.send("add soup").text[-2:] for _ in range(3)] == ["1.", "2.", "3."], name
