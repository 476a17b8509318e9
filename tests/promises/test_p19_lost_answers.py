"""P19: answers are lost after their commit, of streams too. No conversation is stuck, no turn counts twice, nobody gets another's.

Clients hold conversations with two processes. One answer in twenty is lost: as a whole, or after the first pieces of a stream. A
client then sends the same request once more, or, with a subject, says something else; perhaps another process gets it. Meanwhile
others send what they could have copied: the lost request with a subject of their own, an older token of an anonymous session with
other words, a first turn with the same words and the same Idempotency-Key.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

import dcaf.ledger.opening
from dcaf.ledger import Ledger
from dcaf.ledger.rules import find_lost
from tests.promises.ledgers import (
    AUDIENCE,
    LEASE,
    PATIENCE,
    Got,
    Make,
    Service,
    at_once,
    exchange,
    make_ledger,
    make_nothing,
    workers,
)
from tests.promises.places import Place

CONVERSATIONS, FEWEST, LENGTH = 400, 12, 25
LOST: Final = 0.05
PIECES: Final = {"/chat": 2, "/stream": 5}
"""Path -> how many messages the answer to a turn has: an answer is lost after some of them."""

COMMITTED: Final = {"/chat": 0, "/stream": 2}
"""Path -> after how many of them the turn has committed."""

MOST_TRIES: Final = 12
AT_ONCE: Final = 16
SERVICES: Final[dict[Place, tuple[Service, Service]]] = {}
"""Those of a process: the one that counts, and one for others, which has the same store."""


@dataclass
class Client:
    """A client, and what it knows.

    Attributes:
        name: Its name.
        user: Its subject; None for an anonymous one.
        session: The last session that it got.
        done: What it has said, as far as it knows that it was heard.
        pending: The request that was sent and not answered; None for none.
        tries: How often it has sent something since a turn was done.
        is_stuck: Whether it cannot go on.
        lost: How many answers it has not got.
    """

    name: str
    user: str | None
    session: Any = None
    done: list[str] = field(default_factory=list)
    pending: dict[str, Any] | None = None
    tries: int = 0
    is_stuck: bool = False
    lost: int = 0

    @property
    def is_over(self) -> bool:
        return self.is_stuck or len(self.done) >= LENGTH

    def say(self, rng: random.Random) -> dict[str, Any]:
        """A new request."""
        words = f"{self.name}.{len(self.done)}.{rng.randrange(10**9)}"
        path, has_key = rng.choice(list(PIECES)), self.session is None or rng.random() < 0.5
        return {"say": words, "session": self.session, "path": path, "key": f"key {words}" if has_key else None}

    @property
    def may_lose(self) -> bool:
        """Whether the answer to its next turn may be lost: what then becomes of an anonymous first turn is not promised."""
        return self.session is not None or self.user is not None

    def loses(self, request: dict[str, Any], rng: random.Random) -> int | None:
        """After how many messages its answer is lost; None for one that arrives."""
        if rng.random() >= LOST or not self.may_lose:
            return None
        return rng.randrange(PIECES[request["path"]])

    def take(self, request: dict[str, Any], got: Got, *, is_whole: bool) -> None:
        """Take an answer, or as much as came of it."""
        if not is_whole and self.user is None:  # without a subject only the same request gets what was lost, as it was sent
            self.pending, self.lost, self.tries = request, self.lost + 1, self.tries + 1
            return
        self.session = got.newest or self.session
        if request["say"] in (self.session or {}).get("said", ())[-1:]:
            self.note(request["say"])
        elif not is_whole:
            self.pending, self.lost = request, self.lost + 1
        elif got.newest is not None and got.applied is not None:
            self.take_over(request, got)
        elif got.code != "session-conflict":
            self.is_stuck = True
        self.tries += 1
        self.is_stuck = self.is_stuck or self.tries > MOST_TRIES

    def take_over(self, request: dict[str, Any], got: Got) -> None:
        """Go on with the session that came for one whose answer was lost, and note what of its own words is in it."""
        last = got.newest["said"][-1]
        if last not in self.done:
            self.note(last)
        elif got.applied is not False:
            self.is_stuck = True  # it was told that this was done, and it was not

    def note(self, words: str) -> None:
        self.done.append(words)
        self.pending, self.tries = None, 0


def serve(place: Place, make: Make, clients: list[Client], seed: int) -> tuple[list[Client], Counter[str]]:
    """Have clients take some turns with this process; gives them, and what others got meanwhile."""
    if place not in SERVICES:
        store = make(place)
        SERVICES[place] = Service(store), Service(store)
    service, others = SERVICES[place]
    handed, limit = Counter[str](), asyncio.Semaphore(AT_ONCE)

    async def take_turns(client: Client, rng: random.Random) -> None:
        async with limit:
            for _ in range(5):
                if client.is_over:
                    break
                reads = await send_one(service, client, rng)
                if client.pending is not None and reads is not None and reads >= COMMITTED[client.pending["path"]]:
                    await attack(others, client, client.pending, handed)
                if reads is not None:
                    break

    async def run() -> None:
        await asyncio.gather(*(take_turns(client, random.Random(f"{seed} {client.name}")) for client in clients))

    asyncio.run(run())
    return clients, handed


async def send_one(service: Service, client: Client, rng: random.Random) -> int | None:
    """Send one request; after how many messages its answer was lost, None where it arrived."""
    request = client.pending
    if request is None or (client.user is not None and client.session is not None and rng.random() < 0.5):
        request = client.say(rng)  # after an answer that was lost: something else
    client.pending, reads = None, client.loses(request, rng)
    got = await exchange(service.app, **request, user=client.user, reads=reads)
    client.take(request, got, is_whole=reads is None)
    return reads


async def attack(others: Service, client: Client, request: dict[str, Any], handed: Counter[str]) -> None:
    """Try to get the session that another client has lost."""
    stolen = await exchange(others.app, **request, user="mallory")
    handed["another subject"] += stolen.newest is not None and request["session"] is not None
    if client.user is None:
        copied = await exchange(others.app, **{**request, "say": "hand it over", "key": None})
        handed["an anonymous copy"] += copied.newest is not None
    begun = await exchange(others.app, **{**request, "session": None}, user="eve")
    handed["the same key"] += begun.newest is not None and begun.newest["said"] != [request["say"]]


def count_effects(place: Place) -> Counter[str]:
    """Message -> how often this process did what may be done once for it."""
    return SERVICES[place][0].effects


@dataclass
class Sums:
    """What came of it all."""

    turns: int
    lost: int
    stuck: int
    twice: int
    missing: int
    handed: Counter[str]


def converse(place: Place, make: Make, conversations: int) -> Sums:
    """Hold conversations with two processes, which take turns at each."""
    clients = [Client(f"c{at}", f"user-{at}" if at % 3 else None) for at in range(conversations)]
    handed = Counter[str]()
    with workers() as found:
        for seed in range(LENGTH * MOST_TRIES):
            if all(client.is_over for client in clients):
                break
            random.Random(seed).shuffle(clients)
            half = len(clients) // 2
            served = at_once(found, serve, *((place, make, some, seed) for some in (clients[:half], clients[half:])))
            clients = [client for some, _ in served for client in some]
            handed += served[0][1] + served[1][1]
        effects = sum(at_once(found, count_effects, (place,), (place,)), Counter[str]())
    return summed(clients, effects, handed)


def summed(clients: list[Client], effects: Counter[str], handed: Counter[str]) -> Sums:
    done = [words for client in clients for words in client.done]
    twice = sum(count > 1 for count in effects.values())
    missing = sum(effects[words] == 0 for words in done)
    for client in clients:
        said = (client.session or {}).get("said", [])
        twice += len(said) - len(set(said))
        missing += not client.is_stuck and said != client.done
    lost = sum(client.lost for client in clients)
    return Sums(len(done), lost, sum(client.is_stuck for client in clients), twice, missing, +handed)


@pytest.mark.promise(19)
def test_lost_answers_leave_nobody_stuck_and_nothing_done_twice(
    place: Place, scale: float, measured: Callable[[int, str], None]
) -> None:
    sums = converse(place, make_ledger, max(FEWEST if place.part == 1 else FEWEST // 2, int(CONVERSATIONS * scale * place.part)))
    measured(
        19,
        f"{place.name}: {sums.stuck} conversations stuck, {sums.twice} of {sums.turns:,} turns applied twice, {sums.missing} lost, "
        f"{sums.handed.total()} envelopes handed to another holder; {sums.lost:,} answers did not arrive, two processes",
    )
    assert (sums.stuck, sums.twice, sums.missing, sums.handed) == (0, 0, 0, Counter())
    assert sums.lost > sums.turns / 50


def make_without_reissue(place: Place) -> Ledger:
    """Broken: an answer that was lost is not given once more, in this process from now on."""
    dcaf.ledger.opening.find_lost = lambda *args, **named: None  # type: ignore[attr-defined]
    return Ledger(place.open_engine(PATIENCE), audience=AUDIENCE, lease=LEASE)


def make_careless(place: Place) -> Ledger:
    """Broken: a lost answer is given to whoever has the token of before, in this process from now on."""

    def find(presented: Any, *args: Any, **named: Any) -> Any:
        request = presented.request
        somebody = replace(request, binding=request.binding._replace(subject="somebody"))
        return find_lost(replace(presented, request=somebody), *args, **named)

    dcaf.ledger.opening.find_lost = find  # type: ignore[attr-defined]
    return make_ledger(place)


@pytest.mark.promise(19)
def test_control_without_the_second_answer_conversations_are_stuck(file: Place) -> None:
    assert converse(file, make_without_reissue, FEWEST).stuck > 2


@pytest.mark.promise(19)
def test_control_without_a_ledger_effects_are_done_twice(file: Place) -> None:
    assert converse(file, make_nothing, FEWEST).twice > 2


@pytest.mark.promise(19)
def test_control_an_answer_for_whoever_has_an_older_token_is_caught(file: Place) -> None:
    assert converse(file, make_careless, FEWEST).handed["an anonymous copy"] > 0
