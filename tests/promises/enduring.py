"""What P24 does with a service whose store is down: it sends turns, looks at the answers, and waits until one is done again.

What is sent: turns of sessions that there are, of a subject and of nobody, as a stream, as a look, and first turns.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from dcaf import current_session
from dcaf.core import Lease, OpenRequest, SessionEnded, SessionStore, StatelessLease
from dcaf.core.errors import EngineError
from dcaf.ledger import Ledger
from tests.promises.ledgers import AUDIENCE, LEASE, Make, Service, closing, exchange
from tests.promises.places import Place

LONGEST_S: Final = 1.0
BEGUN_S: Final = 2.0
"""Of the turns whose commit the disk has begun: a second until it must have begun, and one until it must have ended."""

GRACE_S: Final = 0.5
"""For the machine, on which five of these run at once."""

RECOVERED_S: Final = 2.0
PATIENCE_S: Final = 4.0
EVERY_S: Final = 0.05
MOVED: Final = ("200", "409 session-conflict", "409 session-superseded")
"""What is also answered where the store is only slow: all turns of a session have the same token."""

SENT: Final[list[dict[str, Any]]] = [
    {"user": "ada"},
    {"user": None},
    {"user": "ada", "path": "/stream"},
    {"user": "ada", "method": "GET"},
    {"user": "ada", "key": "k"},
    {"user": "eve", "first": True},
    {"user": None, "first": True},
]

Outage = Callable[[], AbstractContextManager[None]]
"""Has a store be down for as long as the context lasts."""


@dataclass
class Endured:
    """How a service came through.

    Attributes:
        slowest_s: The longest time until an answer, of those that did not hang in a commit that had begun.
        begun_s: Of those that did.
        sent: How many turns were sent.
        answers: Status and code -> how often.
        taken_for_new: How many of the sessions that there are were dropped, or served as if there were none.
        recovered_s: After how long a turn was done again.
    """

    slowest_s: float = 0.0
    begun_s: float = 0.0
    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    taken_for_new: int = 0
    unchecked: int = 0
    recovered_s: float = PATIENCE_S

    def failures(self, *, is_slow: bool) -> list[str]:
        """What is not as promised."""
        allowed = {"503 session-unavailable", *(MOVED if is_slow else ())}
        wrong = [answer for answer in self.answers if answer not in allowed]
        wrong += ["unchecked"] * (self.unchecked > 0 and not is_slow)
        wrong += ["taken for new"] * (self.taken_for_new > 0)
        wrong += ["slow"] * (self.slowest_s > LONGEST_S + GRACE_S or self.begun_s > BEGUN_S + GRACE_S)
        return wrong + ["not recovered"] * (self.recovered_s > RECOVERED_S)

    def describe(self, name: str) -> str:
        """What a reader of the promises is told."""
        in_flight = f", {self.begun_s:.1f} s where the commit had begun" if self.begun_s else ""
        return (
            f"{name}: {self.answers['503 session-unavailable']} of {self.sent} turns were answered with 503, the slowest after "
            f"{self.slowest_s:.1f} s{in_flight}; {self.taken_for_new} were taken for new; a turn was done {self.recovered_s:.2f} s "
            "after it returned"
        )


def endure(place: Place, make: Make, name: str, bursts: int, outage: Outage) -> Endured:
    """Send turns, some at a time, while the store of a service is down, and see when it does one again."""
    endured = Endured()

    async def send(service: Watched, held: dict[str | None, Any], how: dict[str, Any], at: int) -> None:
        is_first, user, words = how.get("first", False), how["user"], f"{name} {at}"
        began = time.monotonic()
        more = {key: value for key, value in how.items() if key in {"path", "method", "key"}}
        turn = exchange(service.app, words, None if is_first else held[user], user=user, **more)
        try:
            got = await asyncio.wait_for(turn, PATIENCE_S)
        except TimeoutError:
            endured.answers["nothing"] += 1
            took_s = PATIENCE_S
        else:
            endured.answers[f"{got.status} {got.code or ''}".strip()] += 1
            endured.taken_for_new += not is_first and (is_restart(got) or service.began.get(words, 1) is None)
            endured.unchecked += not is_first and words in service.began
            took_s = time.monotonic() - began
        endured.sent += 1
        if name == "hanging in a commit" and at == 0:
            endured.begun_s = max(endured.begun_s, took_s)
        else:
            endured.slowest_s = max(endured.slowest_s, took_s)

    async def go_on(service: Service, held: dict[str | None, Any]) -> float:
        began, session = time.monotonic(), held["ada"]
        while time.monotonic() - began < PATIENCE_S:
            got = await exchange(service.app, f"after {name}", session, user="ada")
            session = got.newest or session
            if got.status == 200:
                assert session["n"] >= 2
                return time.monotonic() - began
            await asyncio.sleep(EVERY_S)
        return PATIENCE_S

    async def run() -> None:
        store = make(place)
        service = Watched(store)
        async with closing(store):
            held = {user: (await exchange(service.app, "first", user=user)).newest for user in ("ada", None)}
            with outage():
                for burst in range(bursts):
                    jobs = [asyncio.ensure_future(send(service, held, how, burst * 100 + at)) for at, how in enumerate(SENT[:1])]
                    await asyncio.sleep(0.02)
                    jobs += [asyncio.ensure_future(send(service, held, how, burst * 100 + 1 + at)) for at, how in enumerate(SENT)]
                    await asyncio.gather(*jobs)
            endured.recovered_s = await go_on(service, held)

    asyncio.run(run())
    return endured


class Watched(Service):
    """A service that notes with which state each turn began.

    Attributes:
        began: Message -> the count of the session when the application began; None for a session that is new.
    """

    def __init__(self, store: SessionStore | None) -> None:
        super().__init__(store)
        self.began: dict[str, int | None] = {}

    async def _take_turn(self, scope: Any, receive: Any, send: Any) -> None:
        async def look() -> Any:
            message = await receive()
            if message.get("body"):
                self.began[json.loads(message["body"])["say"]] = current_session().get("n")
            return message

        await super()._take_turn(scope, look, send)


def is_restart(got: Any) -> bool:
    """Whether a client was told to begin anew."""
    return got.session is not None and got.newest is None


def make_ledger(place: Place) -> Ledger:
    return Ledger(place.open_engine(), audience=AUDIENCE, lease=LEASE)


class FailsOpen:
    """Broken: where the store cannot be asked, the turn goes on without it."""

    level = "L2"

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def open(self, request: OpenRequest) -> Lease:
        try:
            return await self.ledger.open(request)
        except EngineError:
            return self.do_without(request)

    def do_without(self, request: OpenRequest) -> Lease:
        return StatelessLease(request)


class Forgets(FailsOpen):
    """Broken: what cannot be found is not there."""

    def do_without(self, request: OpenRequest) -> Lease:
        raise SessionEnded(reason="unknown")


def make_failing_open(place: Place) -> SessionStore:
    return FailsOpen(make_ledger(place))


def make_forgetting(place: Place) -> SessionStore:
    return Forgets(make_ledger(place))


def make_patient(place: Place) -> Ledger:
    """Broken: it waits for its database for longer than anybody waits for it."""
    return Ledger(place.open_engine(timedelta(seconds=2 * PATIENCE_S)), audience=AUDIENCE)
