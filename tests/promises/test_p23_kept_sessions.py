"""P23: a session service, and the server of its sessions, are killed amid turns: nothing acknowledged is lost, and none is halved.

Each turn writes the same number to the state, to what the user shares, to what the application shares, to the memory, and in two
messages. What the application shares lies in another partition on Redis, and may lack the last turn that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pytest

from dcaf.core.errors import EngineError, UnknownSessionError
from dcaf.service import SessionService
from tests.engines import postgres_servers
from tests.promises.broken_services import MakeService, make_by_halves, make_early, make_relaxed, make_service
from tests.promises.places import ENGINES, Place, Postgres, Server, on_forgetful_redis, on_postgres
from tests.promises.test_p23_killed import STUCK_S, Known, kill

KILLS, FEWEST, CONVERSATIONS = 40, 2, 8
KILLS_OF_SERVERS = 10
"""The soak tests kill each of them a hundred times. A killed PostgreSQL takes seconds to start again."""
SESSION: Final = "visit"
SAID: Final = ("user", "assistant")


@dataclass
class Found:
    """What kills have done.

    Attributes:
        acknowledged: How many turns were acknowledged.
        lost: How many of these are not there.
        halves: How often a part of a turn is there, and another part is not.
    """

    acknowledged: int = 0
    lost: int = 0
    halves: list[str] = field(default_factory=list)


GONE: Final = -1
"""What a process says of a session that is not there any more."""


@dataclass
class Newest(Known):
    """What clients know: of each conversation the greatest number that was acknowledged.

    Attributes:
        gone: How often a session was not there any more.
    """

    gone: int = 0

    def take(self, user: str, session: Any, *, is_ended: bool) -> None:
        self.gone += session == GONE
        super().take(user, max(session, self.held[user]), is_ended=is_ended)


def serve(place: Place, make: MakeService, pipe: Any, held: dict[str, int], name: str) -> None:
    """Take turns in all conversations until somebody kills this; each acknowledgement goes out by the pipe."""

    async def run() -> None:
        service = make(place)
        async with asyncio.TaskGroup() as group:
            for user in held:
                group.create_task(converse(service, pipe, user))

    asyncio.run(run())


async def converse(service: SessionService, pipe: Any, user: str) -> None:
    """Take turns in one conversation for ever."""
    while True:
        try:
            number = await take_turn(service, user)
        except EngineError:
            await asyncio.sleep(0.01)
        except UnknownSessionError:
            pipe.send((user, GONE, False))
            await asyncio.sleep(0.01)
        else:
            pipe.send((user, number, False))


async def take_turn(service: SessionService, user: str) -> int:
    async with service.open(user=user, id=SESSION, last=0) as session:
        number = session.incr("n")
        session.update({"twice": 2 * number, f"k{number % 7}": number, "user:n": number, f"app:{user}": number})
        session.memory.set("n", number)
        for role in SAID:
            session.messages.add(role, str(number))
        return number


def begin(place: Place, users: Sequence[str]) -> None:
    """Make the sessions."""
    service = make_service(place)
    for user in users:
        service.sync.create(user=user, id=SESSION)
    service.engine.sync.close()


def look(place: Place, known: Newest, found: Found) -> None:
    """See what is there of each conversation."""
    service = make_service(place)
    try:
        for user, acknowledged in known.held.items():
            number = patiently(partial(look_at, service, user, acknowledged, found))
            known.held[user] = number
    finally:
        service.engine.sync.close()


def look_at(service: SessionService, user: str, acknowledged: int, found: Found) -> int:
    """How many turns of a conversation are there."""
    session = service.sync.get_or_create(user=user, id=SESSION)
    number: int = session.get("n", 0)
    page = service.sync.messages(user=user, id=SESSION, limit=100)
    said = [(message.role, message.content) for message in page.items]
    parts = {
        "state": number == 0 or (session["twice"], session[f"k{number % 7}"]) == (2 * number, number),
        "user": session.get("user:n", 0) == number,
        "app": session.get(f"app:{user}", 0) in range(min(acknowledged, number), number + 1),
        "memory": (service.memory(user=user).sync.get("n") or 0) == number,
        "messages": page.total == len(SAID) * number and said == [(role, str(at)) for at in last(number) for role in SAID],
        "revision": session.revision == number + 1,
    }
    found.lost += max(0, acknowledged - number)
    found.halves += [part for part, is_whole in parts.items() if not is_whole]
    return number


def last(number: int) -> range:
    """The numbers of the last turns, whose messages a page has."""
    return range(max(1, number - 100 // len(SAID) + 1), number + 1)


def patiently(call: Callable[[], int]) -> int:
    """Do it again where the server is only just back."""
    end = time.monotonic() + STUCK_S
    while time.monotonic() < end:
        with suppress(EngineError):
            return call()
        time.sleep(0.02)
    return call()


def killed(place: Place, make: MakeService, number: int, *, server: Server | None = None, until_found: bool = False) -> Found:
    """Kill a process so often, and the server of its sessions before it."""
    rng, known, found = random.Random(23), Newest({f"user-{at}": 0 for at in range(CONVERSATIONS)}), Found()
    begin(place, list(known.held))
    for at in range(number):
        kill(partial(serve, place, make), known, str(at), rng, server)
        look(place, known, found)
        if until_found and (found.lost or found.halves):
            break
    found.acknowledged = known.acknowledged
    found.lost += known.gone
    return found


def describe(place: Place, found: Found, number: int, of: str) -> str:
    return (
        f"{place.name}: {found.lost} of {found.acknowledged:,} acknowledged turns of kept sessions lost, and "
        f"{len(found.halves)} halved, by {number} times kill -9 of {of}"
    )


@pytest.mark.promise(23)
def test_no_acknowledged_turn_is_lost_when_a_process_is_killed(
    place: Place, scale: float, measured: Callable[[int, str], None]
) -> None:
    number = max(FEWEST, int(KILLS * scale * place.part))
    found = killed(place, make_service, number)
    measured(23, describe(place, found, number, "the service"))
    assert (found.lost, found.halves) == (0, [])
    assert found.acknowledged > number * 4


@pytest.mark.promise(23)
def test_no_acknowledged_turn_is_lost_when_the_server_is_killed(
    served: tuple[Place, Server], scale: float, measured: Callable[[int, str], None]
) -> None:
    place, server = served
    number = max(1, int(KILLS_OF_SERVERS * scale * place.part))
    found = killed(place, make_service, number, server=server)
    measured(23, describe(place, found, number, "the server"))
    assert (found.lost, found.halves) == (0, [])
    assert found.acknowledged > number * 4


@pytest.mark.promise(23)
@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_control_a_service_that_acknowledges_first_is_caught(place: Place) -> None:
    found = killed(place, make_early, 20, until_found=True)
    assert found.lost or found.halves  # on Redis, a part that lies elsewhere is what is missing first


@pytest.mark.promise(23)
def test_control_a_turn_that_is_written_by_halves_is_caught(file: Place) -> None:
    assert killed(file, make_by_halves, 20, until_found=True).halves


@pytest.mark.promise(23)
def test_control_a_redis_that_keeps_nothing_is_caught() -> None:
    with on_forgetful_redis() as (place, server):
        assert killed(place, make_service, 1, server=server).lost


@pytest.mark.promise(23)
def test_control_a_postgresql_that_does_not_wait_for_its_log_is_caught(postgres_server: postgres_servers.Server) -> None:
    assert killed(on_postgres(postgres_server), make_relaxed, 20, server=Postgres(postgres_server), until_found=True).lost
