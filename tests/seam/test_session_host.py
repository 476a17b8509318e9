"""Turns without a request are those of the middleware: the same envelopes, refusals and stores."""

from __future__ import annotations

import asyncio
import gc
import json
from datetime import timedelta
from typing import Any

import anyio
import pytest

from dcaf import ConfigurationError, Session, SessionHost, current_session, tool
from dcaf.core import SessionConflict, SessionEnded, SessionInvalid, SessionMalformed, SessionUnavailable, SessionUnsigned
from dcaf.core.errors import SessionClosedError
from tests.asgi.wire import AUDIENCE, RING, Recorder, call, mounted
from tests.stores_for_tests import MemoryLedger, MemoryService, ToldStore


def hosted(**settings: Any) -> SessionHost:
    return SessionHost(**{"keys": RING, "audience": AUDIENCE, **settings})


async def count(host: SessionHost, envelope: Any = None, **whose: Any) -> Any:
    async with host.turn(envelope, **whose) as turn:
        turn.session.incr("n")
    return turn.envelope


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("store", [None, ToldStore, MemoryLedger, MemoryService])
def test_a_turn_opens_what_the_one_before_sealed(backend: str, store: Any) -> None:
    async def main() -> Any:
        host = hosted(store=None if store is None else store())
        return await count(host, await count(host, await count(host)))

    assert anyio.run(main, backend=backend)["n"] == 3


SETTINGS: dict[str, dict[str, Any]] = {
    "signed": {},
    "encrypted": {"encrypt": True},
    "no mirror": {"mirror": False},
    "a version": {"version": 2, "migrations": {1: dict, 2: dict}},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_middleware_with_the_same_settings_takes_its_sessions_and_the_other_way_round(settings: str) -> None:
    """To the byte, with the same clock and randomness."""
    same: dict[str, Any] = {**SETTINGS[settings], "clock": lambda: 1_900_000_000.0, "randomness": lambda size: b"r" * size}
    host, app = hosted(**same), mounted(Recorder(tool=lambda session: session.incr("n")), **same)
    mine, theirs = asyncio.run(count(host)), call(app, {}).envelope
    if settings != "encrypted":  # each box has a nonce of its own
        assert mine == theirs
    assert call(app, {"data": {"session": mine}}).envelope.get("n", 2) == 2
    assert asyncio.run(count(host, theirs)).get("n", 2) == 2


def test_the_session_is_the_current_one_inside_and_tools_have_it() -> None:
    @tool
    def step(session: Session) -> int:
        """Step."""
        return session.incr("n")

    async def main() -> Any:
        async with hosted().turn() as turn:
            assert current_session() is turn.session
            await step.run({}, session=turn.session)
            current_session()["here"] = True
        with pytest.raises(ConfigurationError):
            current_session()
        return turn.envelope

    found = asyncio.run(main())
    assert (found["n"], found["here"]) == (1, True)


def test_a_block_that_raises_seals_nothing_and_releases() -> None:
    store = MemoryLedger()
    host = hosted(store=store)

    async def main() -> Any:
        first = await count(host)
        turn = host.turn(first)
        with pytest.raises(RuntimeError):
            async with turn:
                turn.session.incr("n")
                raise RuntimeError
        with pytest.raises(ConfigurationError, match="has ended"):
            print(turn.envelope)
        return await count(host, first)

    assert asyncio.run(main())["n"] == 2
    assert [row.claim for row in store.rows.values()] == [None]


def test_a_block_that_is_cancelled_releases() -> None:
    store = MemoryLedger()
    host = hosted(store=store)

    async def main() -> Any:
        first = await count(host)
        with anyio.move_on_after(0.01):
            async with host.turn(first) as turn:
                turn.session.incr("n")
                await anyio.sleep(60)
        return await count(host, first)

    assert asyncio.run(main())["n"] == 2


def test_what_is_written_after_the_block_is_an_error() -> None:
    async def main() -> None:
        async with hosted().turn() as turn:
            turn.session["a"] = 1
        with pytest.raises(SessionClosedError):
            turn.session["b"] = 2

    asyncio.run(main())


REFUSED: dict[str, tuple[Any, Any]] = {
    "plain": ({"n": 1}, SessionUnsigned),
    "no object": ("token", SessionMalformed),
    "a list": ([1], SessionMalformed),
    "no token": ({"dcaf": {}}, SessionMalformed),
    "forged": ({"dcaf": {"token": "dcaf1s.k7.e30.e30." + "A" * 43}}, SessionInvalid),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_the_middleware_refuses_is_raised(refused: str) -> None:
    envelope, error = REFUSED[refused]
    with pytest.raises(error):
        asyncio.run(count(hosted(), envelope))


def test_a_session_is_bound_to_its_subject_and_conversation() -> None:
    host = hosted()
    mine = asyncio.run(count(host, subject="ada", conversation="t1"))
    assert asyncio.run(count(host, mine, subject="ada", conversation="t1"))["n"] == 2
    for whose in ({}, {"subject": "ada"}, {"subject": "bob", "conversation": "t1"}, {"subject": "ada", "conversation": "t2"}):
        with pytest.raises(SessionInvalid):
            asyncio.run(count(host, mine, **whose))


def test_an_expired_session_has_ended() -> None:
    now = [1_900_000_000.0]
    host = hosted(clock=lambda: now[0], idle_timeout=timedelta(hours=1))
    first = asyncio.run(count(host))
    now[0] += 3600 + 61
    with pytest.raises(SessionEnded):
        asyncio.run(count(host, first))


def test_a_fresh_start_that_is_wished_begins_anew() -> None:
    assert asyncio.run(count(hosted(), {"dcaf": {"token": "new"}}))["n"] == 1


@pytest.mark.parametrize(
    "whose", [{"subject": ""}, {"subject": 7}, {"conversation": ""}, {"conversation": b"t"}, {"subject": "\ud800"}]
)
def test_who_is_nobody_is_a_wrong_setting(whose: Any) -> None:
    with pytest.raises(ConfigurationError):
        hosted().turn(**whose)


@pytest.mark.parametrize(
    "wrong", [{"audience": ""}, {"store": object()}, {"store": MemoryLedger}, {"max_token_bytes": 0}, {"encrypt": 1}]
)
def test_a_wrong_setting_fails_at_construction(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        hosted(**wrong)


def test_a_turn_is_used_once() -> None:
    async def main() -> None:
        turn = hosted().turn()
        async with turn:
            pass
        with pytest.raises(ConfigurationError, match="once"):
            async with turn:
                pass

    asyncio.run(main())


@pytest.mark.parametrize(("step", "error"), [("open", SessionConflict(reason="x")), ("commit", SessionConflict(reason="x"))])
def test_a_store_that_refuses_is_raised_and_released(step: Any, error: Any) -> None:
    happening: dict[str, Any] = {step: error}
    store = ToldStore(**happening)
    with pytest.raises(SessionConflict):
        asyncio.run(count(hosted(store=store)))
    assert store.steps[-1] == ("open" if step == "open" else "release")


def test_a_store_that_fails_is_unavailable() -> None:
    with pytest.raises(SessionUnavailable):
        asyncio.run(count(hosted(store=ToldStore(commit=ConnectionError()))))


def test_turns_of_a_queue_side_by_side_lose_nothing_where_the_store_merges() -> None:
    host = hosted(store=MemoryService())

    async def main() -> Any:
        first = await count(host)
        await asyncio.gather(*(count(host, first) for _ in range(20)))
        return await count(host, first)

    assert asyncio.run(main())["n"] == 22


def test_an_envelope_survives_json() -> None:
    host = hosted()
    first = asyncio.run(count(host))
    assert asyncio.run(count(host, json.loads(json.dumps(first, indent=2))))["n"] == 2


def test_a_turn_that_ends_in_another_context_is_released() -> None:
    """As in a generator that its consumer leaves: the event loop ends its block in a task of its own."""
    store = MemoryLedger()
    host = hosted(store=store)

    async def numbers() -> Any:
        async with host.turn() as turn:
            yield turn.session.incr("n")

    async def main() -> None:
        async for number in numbers():
            assert number == 1
            break
        gc.collect()
        await asyncio.sleep(0.01)
        turn = host.turn()
        await asyncio.create_task(turn.__aenter__())
        await asyncio.create_task(turn.__aexit__(None, None, None))
        assert turn.envelope

    asyncio.run(main())
    assert [row.claim for row in store.rows.values()] == [None, None]


def test_a_turn_that_two_tasks_begin_is_begun_once() -> None:
    store = ToldStore(wait_s=0)

    async def main() -> list[Any]:
        turn = hosted(store=store).turn()
        return list(await asyncio.gather(turn.__aenter__(), turn.__aenter__(), return_exceptions=True))

    assert [isinstance(found, ConfigurationError) for found in asyncio.run(main())] == [False, True]
    assert store.steps == ["open"]
