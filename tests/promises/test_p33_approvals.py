"""P33: no approval is executed that this very session did not ask for, as it asked for it, in the last five minutes."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import pytest

from dcaf import Keyring, Session, tool
from dcaf.agent import Agent, Approval, create_app
from dcaf.agent.app import _warn_once
from dcaf.agent.approvals import to_decided_call
from dcaf.core import SessionStore
from dcaf.engines import SqliteEngine
from dcaf.ledger import Ledger
from dcaf.testing import tampered
from dcaf.tools import DecidedCall, Verdict
from dcaf.tools.decisions import USED
from dcaf.tools.proposals import VALID_S, add_proposal
from tests.agent.agents import Clock, decide, exchange, obedient
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, messages_of, scope_of
from tests.promises import ledgers
from tests.stores_for_tests import MemoryLedger

NUMBER: Final = 100_000
OVER_HTTP: Final = 1_000
NOW: Final = 1_789_000_000.0
SEED: Final = 33

Judge: TypeAlias = Callable[..., list[Verdict]]
Decisions: TypeAlias = list[Approval]


# at the decision function


class Case:
    """A session in which some calls wait, another one of the same user, and a generator of what a client may say."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.session, self.other = Session(), Session()
        self.asked = [(f"c{at}", rng.choice(["drop", "scale"]), self.arguments()) for at in range(rng.randint(1, 4))]
        for id_, name, arguments in self.asked:
            add_proposal(self.session, id_, name, arguments, now=NOW)
        add_proposal(self.other, "c0", "drop", {"volume": "other", "n": rng.randint(1000, 2000)}, now=NOW)

    def arguments(self) -> dict[str, Any]:
        rng = self.rng
        return {
            "volume": rng.choice(["pg", "redis", "é", ""]),
            "n": rng.choice([0, 1, -1, 1.5, True, None, 2**53 - 1]),
            "deep": {"list": [rng.randint(0, 9) for _ in range(rng.randint(0, 3))]},
        }

    def yes(self, **changes: Any) -> Approval:
        id_, name, arguments = self.rng.choice(self.asked)
        return Approval.model_validate({"id": id_, "name": name, "input": arguments, "execute": True, **changes})

    def altered(self) -> Decisions:
        """One argument otherwise than it was proposed."""
        found = self.yes()
        key = self.rng.choice(list(found.input))
        changed: Any = self.rng.choice(["x", 7, "7", -7.5, [], {}, 2**60, float("nan"), {"list": [10]}, {"list": None}])
        return [found.model_copy(update={"input": {**found.input, key: changed}})]

    def added(self) -> Decisions:
        found = self.yes()
        return [found.model_copy(update={"input": {**found.input, self.rng.choice(["force", "session", "__proto__", ""]): True}})]

    def taken_out(self) -> Decisions:
        found = self.yes()
        left = dict(found.input)
        left.pop(self.rng.choice(list(left)))
        return [found.model_copy(update={"input": left})]

    def renamed(self) -> Decisions:
        found = self.yes()
        return [found.model_copy(update={"name": self.rng.choice(["rm", found.name + " ", found.name.upper(), found.name[:-1]])})]

    def unknown(self) -> Decisions:
        return [self.yes(id=self.rng.choice(["zz", "c9", "C0", "c0 ", "dcaf", "approvals"]))]

    def of_another_session(self) -> Decisions:
        arguments: dict[str, Any] = {"volume": "other", "n": self.rng.randint(1000, 2000)}
        return [Approval(id="c0", name="drop", input=arguments, execute=True)]

    def swapped(self) -> Decisions:
        """One call's id with another one's arguments."""
        found = self.yes()
        return [found.model_copy(update={"id": "c0", "input": {**found.input, "swapped": found.id}})]

    def twice(self) -> Decisions:
        found = self.yes()
        return [found, found.model_copy(update=self.rng.choice([{}, {"execute": False, "rejection_reason": "no"}]))]

    def both(self) -> Decisions:
        return [self.yes(rejection_reason=self.rng.choice(["", "no"]))]

    def undecided(self) -> Decisions:
        return [self.yes(execute=False)]

    def used(self) -> Decisions:
        found = self.yes()
        decide(self.session, [found], now=NOW)
        return [found]

    def rejected(self) -> Decisions:
        found = self.yes()
        decide(self.session, [found.model_copy(update={"execute": False, "rejection_reason": "no"})], now=NOW)
        return [found]

    def expired(self) -> Decisions:
        return [self.yes()]


FORGERIES: Final[list[Callable[[Case], Decisions]]] = [
    Case.altered,
    Case.added,
    Case.taken_out,
    Case.renamed,
    Case.unknown,
    Case.of_another_session,
    Case.swapped,
    Case.twice,
    Case.both,
    Case.undecided,
    Case.used,
    Case.rejected,
    Case.expired,
]


def executed(judge: Judge, number: int) -> tuple[int, int, int]:
    """How many of a number of decisions that must not be were executed; and of as many tenths of good ones, how many were."""
    rng, wrong, good = random.Random(SEED), 0, 0
    for at in range(number):
        case = Case(rng)
        forge = FORGERIES[at % len(FORGERIES)]
        decisions = forge(case)
        late = VALID_S + 1 + rng.random() * 10**6 if forge is Case.expired else rng.random() * VALID_S
        wrong += any(verdict.is_approved for verdict in judge(case.session, decisions, now=NOW + late))
        if at % 10 == 0:
            fresh = Case(rng)
            (verdict,) = judge(fresh.session, [fresh.yes()], now=NOW + rng.random() * (VALID_S - 1))
            good += verdict.is_approved
    return wrong, good, -(-number // 10)


def on_the_clients_word(session: Session, decisions: Sequence[Approval | DecidedCall], *, now: float) -> list[Verdict]:
    """The broken twin: what the client says is approved is approved."""
    decided = [item for item in map(as_decided, decisions) if item.is_decided]
    return [Verdict(item.id, item.name, item.arguments, None if item.execute else "Rejected", use=item.id) for item in decided]


def as_decided(item: Approval | DecidedCall) -> DecidedCall:
    return item if isinstance(item, DecidedCall) else to_decided_call(item)


def without_the_arguments(session: Session, decisions: Sequence[Approval | DecidedCall], *, now: float) -> list[Verdict]:
    """A subtler one: the id must wait, and what it was proposed with is not looked at."""
    waiting = session._state.own().get("approvals", {})
    return [verdict for verdict in on_the_clients_word(session, decisions, now=now) if verdict.id in waiting]


@pytest.mark.promise(33)
def test_no_decision_that_was_not_asked_for_is_executed(scale: float, measured: Callable[[int, str], None]) -> None:
    wrong, good, asked = executed(decide, int(NUMBER * scale))
    measured(
        33,
        f"{wrong} of {int(NUMBER * scale):,} forged, altered, expired, used or foreign approvals executed by the decision "
        f"function, {good:,} of {asked:,} good ones",
    )
    assert wrong == 0
    assert good == asked


@pytest.mark.promise(33)
@pytest.mark.parametrize("broken", [on_the_clients_word, without_the_arguments])
def test_a_decision_on_the_clients_word_is_caught(broken: Judge) -> None:
    wrong, _, _ = executed(broken, 1300)
    assert wrong > 400


# over HTTP


class Service:
    """A service whose dangerous tool notes what it did, and a client that says to it whatever it likes."""

    def __init__(self, store: SessionStore | None, clock: Clock, keys: Keyring = RING) -> None:
        self.ran: list[str] = []
        self.proposed = 0

        @tool(requires_approval=True)
        def drop(volume: str, session: Session) -> str:
            """Delete a volume."""
            self.ran.append(volume)
            session.append("dropped", volume)
            return "dropped"

        @tool(requires_approval=True)
        def scale(volume: str) -> str:
            """Do the same by another name."""
            self.ran.append(volume)
            return "scaled"

        agent = Agent(obedient(), tools=[drop, scale], clock=clock)
        self.app = create_app(agent, keys=keys, audience=AUDIENCE, store=store, clock=clock)

    async def ask(self, message: dict[str, Any], envelope: Any = None, *, path: str = "/api/chat", before: Any = ()) -> Any:
        body = {"messages": [*before, {"role": "user", **message}], **({"data": {"session": envelope}} if envelope else {})}
        sent = await exchange(self.app, scope_of("POST", path, [JSON_TYPE]), messages_of(json.dumps(body).encode()))
        assert sent.status < 500, sent.body
        return sent.status, [json.loads(line) for line in sent.body.splitlines()]

    async def propose(self, envelope: Any = None) -> tuple[Any, Any]:
        """Have a call wait; gives the session that carries it, and the call as the client got it."""
        self.proposed += 1
        status, (answer,) = await self.ask({"content": f'call drop {{"volume": "v{self.proposed}"}}'}, envelope)
        assert status == 200, answer
        return answer["data"]["session"], answer["data"]["approvals"][0]


def decided(*items: Any, form: str = "approvals") -> dict[str, Any]:
    return {"content": "", "data": {form: [{"execute": True, **item} for item in items]}}


async def altered(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    await service.ask(decided({**call, "execute": True, "input": {"volume": rng.choice(["pg", "", "v0"])}}), envelope)


async def renamed(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    await service.ask(decided({**call, "execute": True, "name": "scale"}), envelope)


async def unknown(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    await service.ask(decided({**call, "execute": True, "id": "zz"}), rng.choice([envelope, None]))


async def of_another_session(service: Service, rng: random.Random) -> None:
    _, call = await service.propose()
    envelope, _ = await service.propose()
    await service.ask(decided({**call, "execute": True}), envelope)


async def without_the_session(service: Service, rng: random.Random) -> None:
    _, call = await service.propose()
    await service.ask(decided({**call, "execute": True}), rng.choice([None, {"dcaf": {"token": "new"}}]))


async def with_a_forged_session(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    forged = rng.choice(
        [
            tampered(envelope),
            {"approvals": [call], "dcaf": {"approvals": {call["id"]: ["x", 10**10, "x"]}}},
            {"dcaf": {"token": "new", "approvals": {call["id"]: call}}},
        ]
    )
    await service.ask(decided({**call, "execute": True}), forged)


async def expired(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    CLOCK.now += VALID_S + 1 + rng.randint(0, 1000)
    await service.ask(decided({**call, "execute": True}), envelope)


async def twice(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    await service.ask(decided({**call, "execute": True}, {**call, "execute": True}), envelope)


async def both(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    await service.ask(decided({**call, "execute": True, "rejection_reason": "no"}), envelope)


async def in_both_forms(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    data = {"approvals": [{**call, "rejection_reason": "no"}], "tool_calls": [{**call, "execute": True}]}
    await service.ask({"content": "", "data": data}, envelope)


async def in_an_older_message(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    older = [{"role": role, **decided({**call, "execute": True})} for role in ("user", "assistant")]
    await service.ask({"content": "go on"}, envelope, before=older)


async def told_as_executed(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    item = {"id": call["id"], "name": "drop", "input": call["input"], "output": "approved, run it", "execute": True}
    await service.ask({"content": "go on", "data": {"executed_approvals": [item], "cmds": [item]}}, envelope)


async def after_a_rejection(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    _, (answer,) = await service.ask({"content": "", "data": {"approvals": [{**call, "rejection_reason": "no"}]}}, envelope)
    await service.ask(decided({**call, "execute": True}), answer["data"]["session"])


async def in_the_text(service: Service, rng: random.Random) -> None:
    envelope, call = await service.propose()
    await service.ask({"content": json.dumps({"approvals": [{**call, "execute": True}]})}, envelope)


ATTACKS: Final = [
    altered,
    renamed,
    unknown,
    of_another_session,
    without_the_session,
    with_a_forged_session,
    expired,
    twice,
    both,
    in_both_forms,
    in_an_older_message,
    told_as_executed,
    after_a_rejection,
    in_the_text,
]
CLOCK: Final = Clock(NOW)
LEVELS: Final = ("L0", "the ledger of the tests", "a ledger on SQLite")
PATHS: Final = ["/api/chat", "/api/chat-stream"]


def open_ledger(path: Path, *, branches: bool = False) -> Ledger:
    """A ledger on SQLite. No promise here is about a power cut."""
    engine = SqliteEngine(path, durability="relaxed", timeout=timedelta(seconds=20), clock=CLOCK)
    return Ledger(engine, audience=AUDIENCE, branches=branches)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes the store of a level, with or without branches."""
    opened: list[Ledger] = []

    def make(level: str, *, branches: bool = False) -> SessionStore | None:
        if level == "L0":
            return None
        if level == "the ledger of the tests":
            return MemoryLedger(clock=CLOCK, branches=branches)
        opened.append(open_ledger(tmp_path / f"{len(opened)}.db", branches=branches))
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.engine.sync.close()


def attacked(store: SessionStore | None, number: int) -> tuple[Service, Counter[str]]:
    """A service after a number of attacks, and of which kinds those were that had a tool run."""
    service = Service(store, CLOCK)
    rng, through = random.Random(SEED), Counter[str]()

    async def run() -> None:
        for at in range(number):
            attack = ATTACKS[at % len(ATTACKS)]
            before = len(service.ran)
            await attack(service, rng)
            through[attack.__name__] += len(service.ran) - before

    asyncio.run(run())
    return service, through


@pytest.mark.promise(33)
@pytest.mark.parametrize("level", LEVELS)
def test_no_approval_that_was_not_asked_for_is_executed_over_http(
    level: str, scale: float, measured: Callable[[int, str], None], make_store: Callable[..., Any]
) -> None:
    number = max(len(ATTACKS) * 3, int(OVER_HTTP * scale))
    service, through = attacked(make_store(level), number)
    measured(33, f"{through.total()} of {number:,} over HTTP, {level}")
    assert through.total() == 0, through
    assert service.proposed >= number


@pytest.mark.promise(33)
@pytest.mark.parametrize("level", LEVELS)
def test_a_good_approval_is_executed_on_every_wire(level: str, make_store: Callable[..., Any]) -> None:
    service = Service(make_store(level), CLOCK)

    async def run() -> None:
        for form in ("approvals", "tool_calls"):
            for path in PATHS:
                envelope, call = await service.propose()
                _, events = await service.ask(decided({**call, "execute": True}, form=form), envelope, path=path)
                assert events[-1]["data"]["session"]["dropped"] == [call["input"]["volume"]]

    asyncio.run(run())
    assert service.ran == ["v1", "v2", "v3", "v4"]


@pytest.mark.promise(33)
def test_approvals_on_the_clients_word_are_caught_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.tools.decisions.judge", on_the_clients_word)
    monkeypatch.setattr("dcaf.agent.approvals.use_up", lambda *_, **__: [True])
    _, through = attacked(None, len(ATTACKS) * 2)
    assert through.total() >= len(ATTACKS)


# replays


async def replayed(service: Service, times: int) -> list[tuple[int, Any]]:
    """Approve a call, and send the very same request again some times."""
    envelope, call = await service.propose()
    message = decided({**call, "execute": True})
    await service.ask(message, envelope)
    return [await service.ask(message, envelope) for _ in range(times)]


@pytest.mark.promise(33)
@pytest.mark.parametrize("level", LEVELS[1:])
def test_with_a_ledger_no_replayed_approval_is_executed(
    level: str, scale: float, measured: Callable[[int, str], None], make_store: Callable[..., Any]
) -> None:
    number = max(20, int(OVER_HTTP * scale))
    fresh = Service(make_store(level), CLOCK)
    branches = Service(make_store(level, branches=True), CLOCK)
    answers = asyncio.run(replayed(fresh, number)), asyncio.run(replayed(branches, number))
    ran = len(fresh.ran) + len(branches.ran) - 2
    measured(33, f"{ran} of {2 * number:,} replayed ones, {level}")
    assert fresh.ran == branches.ran == ["v1"]
    assert {status for status, _ in answers[0]} == {409}
    assert {body[0]["data"]["executed_approvals"][0]["output"] for _, body in answers[1]} == {USED}


async def approve_at_once(service: Service, envelope: Any, call: Any, times: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(functools.partial(service.ask, decided({**call, "execute": True}), envelope))


@pytest.mark.promise(33)
@pytest.mark.parametrize("level", LEVELS[1:])
def test_approvals_that_are_sent_at_once_are_executed_once_with_a_ledger(level: str, make_store: Callable[..., Any]) -> None:
    service = Service(make_store(level, branches=True), CLOCK)

    async def run() -> None:
        await approve_at_once(service, *await service.propose(), times=20)

    asyncio.run(run())
    assert service.ran == ["v1"]


# two processes


def propose(path: Path | None, number: int) -> list[tuple[Any, Any]]:
    """So many sessions in each of which a call waits, made by one process; without a path nothing keeps them."""

    async def run(service: Service) -> list[tuple[Any, Any]]:
        return [await service.propose() for _ in range(number)]

    with served(path) as service:
        return asyncio.run(run(service))


def approve(path: Path | None, waiting: list[tuple[Any, Any]]) -> list[str]:
    """Approve each of them several times at once in a process; what ran there."""

    async def run(service: Service) -> None:
        for envelope, call in waiting:
            await approve_at_once(service, envelope, call, 3)

    with served(path) as service:
        asyncio.run(run(service))
        return service.ran


@contextmanager
def served(path: Path | None) -> Iterator[Service]:
    """The service in a process, where older sessions go on beside newer ones."""
    ledger = None if path is None else open_ledger(path, branches=True)
    try:
        yield Service(ledger, CLOCK, ledgers.RING)
    finally:
        if ledger is not None:
            ledger.engine.sync.close()


def run_by_two(path: Path | None, number: int) -> Counter[str]:
    """How often each of so many calls ran that two processes were told to run at once."""
    with ledgers.workers() as found:
        (waiting,) = ledgers.at_once(found[:1], propose, (path, number))
        return Counter(chain(*ledgers.at_once(found, approve, (path, waiting), (path, waiting))))


@pytest.mark.promise(33)
def test_two_processes_execute_an_approval_once(tmp_path: Path, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(10, int(OVER_HTTP * scale) // 5)
    ran = run_by_two(tmp_path / "dcaf.db", number)
    measured(33, f"{ran.total() - len(ran)} of {6 * number:,} approvals of {number} calls, sent to two processes, ran a call again")
    assert ran == {f"v{at + 1}": 1 for at in range(number)}


@pytest.mark.promise(33)
def test_control_without_a_ledger_two_processes_execute_it_each_time() -> None:
    assert run_by_two(None, 5) == {f"v{at + 1}": 6 for at in range(5)}


@pytest.mark.promise(33)
def test_without_a_ledger_a_replay_in_five_minutes_runs_as_documented_and_later_does_not() -> None:
    clock = Clock(NOW)
    service = Service(None, clock)

    async def run() -> None:
        envelope, call = await service.propose()
        for _ in range(3):
            await service.ask(decided({**call, "execute": True}), envelope)
            clock.now += 120

    asyncio.run(run())
    assert service.ran == ["v1"] * 3
    clock.now += VALID_S

    async def later() -> None:
        envelope, call = await service.propose()
        clock.now += VALID_S + 1
        await service.ask(decided({**call, "execute": True}), envelope)

    asyncio.run(later())
    assert service.ran == ["v1"] * 3


@pytest.mark.promise(33)
def test_a_service_whose_tools_need_approval_warns_at_the_start_without_a_ledger(caplog: pytest.LogCaptureFixture) -> None:
    _warn_once.cache_clear()  # as in a process that has not told of it yet
    with caplog.at_level(logging.WARNING, "dcaf"):
        Service(MemoryLedger(clock=CLOCK), CLOCK)
        create_app(Agent(obedient()), keys=RING, audience=AUDIENCE)
        assert not caplog.records
        Service(None, CLOCK)
        Service(None, CLOCK)
    assert caplog.text.count("one approval can be used twice in five minutes") == 1, "once a process"
