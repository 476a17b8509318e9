"""Clients that hold every envelope they ever got present them in any order, and a plain dict says what each must get.

The model knows for each session its newest number, who holds it, what was used, and what its last answer was. Everything that a
client is told, and whether the application ran, follows from that.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dcaf.core import SessionError
from dcaf.engines import Exists, Is, MemoryEngine, SqliteEngine
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import KeptWorld, World, claims_of, number_of

ENDED, SUPERSEDED = (409, "session-ended"), (409, "session-superseded")
BUSY, REUSED, FINE = (409, "session-conflict"), (422, "idempotency-key-reused"), (200, None)
KEPT = timedelta(minutes=10)

STEPS = {"count": 1, "stream": 2, "stream-same": 1, "stream-raises": 1}
"""How far a turn moves the number."""


@dataclass
class Known:
    """What must hold of one session."""

    subject: str | None
    newest: int = 0
    newest_token: str = ""
    ended: bool = False
    holder: Any = None
    base: int = 0
    identity: Any = None
    key: str | None = None
    whole: bool = True
    presented: bool = False
    at: Any = None
    keys: dict[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


class AnyOrder(RuleBasedStateMachine):
    """Two clients and an operator."""

    engine_kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        clock = FrozenClock()
        is_file, is_kept = self.engine_kind == "sqlite", self.engine_kind == "kept"
        engine: Any = (
            SqliteEngine(Path(self.folder.name) / "dcaf.db", clock=clock)
            if is_file
            else MemoryEngine(clock=clock, partitions=1 if is_kept else 64)
        )
        self.runner = asyncio.Runner()
        self.world = (KeptWorld if is_kept else World)(engine, clock=clock, lease=timedelta(days=1), max_turn=timedelta(days=2))
        self.known: dict[str, Known] = {}
        self.held: list[Any] = []
        self.numbers: dict[tuple[str, int], int] = {}
        self.open: list[tuple[Any, Any, Any, str, Any]] = []

    def teardown(self) -> None:
        for _, task, *_ in list(self.open):
            task.cancel()
        self.runner.run(asyncio.sleep(0))
        self.runner.close()
        self.world.engine.sync.close()
        self.folder.cleanup()

    def run(self, call: Any) -> Any:
        return self.runner.run(asyncio.wait_for(call, 20))

    def of(self, envelope: Any) -> Known:
        return self.known[claims_of(envelope)["sid"]]

    def adopt(self, answer: Any) -> None:
        """Take in each envelope that came; no number comes twice with another state."""
        for session in answer.sessions:
            if session["dcaf"]["token"] != "new":
                at = (claims_of(session)["sid"], number_of(session))
                assert self.numbers.setdefault(at, session["n"]) == session["n"], "one number, two states"
                self.held.append(session)

    @initialize()
    def begin(self) -> None:
        self.start("ada")

    @rule(subject=st.sampled_from(["ada", "bob", None]))
    def start(self, subject: str | None) -> None:
        answer = self.run(self.world.turn(subject=subject))
        assert answer.told == FINE
        made = Known(subject)
        self.known[claims_of(answer.session)["sid"]] = made
        self.adopt(answer)
        self.commit(made, answer, 1, base=0, identity=("POST", "count", None, None), key=None, whole=True)

    def commit(self, known: Known, answer: Any, to: int, *, base: int, identity: Any, key: Any, whole: bool) -> None:
        if to != known.newest:
            known.base, known.presented = base, False
        known.newest, known.newest_token = to, answer.session["dcaf"]["token"]
        known.identity, known.key, known.whole, known.at = identity, key, whole, self.world.clock.now
        if key:
            known.keys[key] = (identity, self.world.clock.now, whole)

    def expect(self, envelope: Any, identity: Any, key: str | None, *, safe: bool) -> tuple[Any, Any]:
        """What a request must be told, and ``applied`` where it gets the newest session; None where it runs."""
        known, number, now = self.of(envelope), number_of(envelope), self.world.clock.now
        found = known.keys.get(key or "")
        found = None if safe or found is None or now >= found[1] + KEPT else found
        if known.ended:
            return ENDED, None
        if found is None and number == known.newest and (safe or known.holder is None):
            return FINE, None
        if found is not None and found[0] != identity:
            return REUSED, None
        if known.holder is not None:
            return BUSY, None
        is_next = known.base <= number < known.newest and not known.presented
        if found is not None:
            is_newest = known.key == key and (is_next or number == known.newest)
            return (BUSY, True if found[2] else "partial") if is_newest else (SUPERSEDED, None)
        is_same = (known.key == key and key is not None and not safe) or (known.key is None and known.identity == identity)
        is_same = is_same and not (key and not safe and known.key is None)
        if is_next and now < known.at + KEPT and (is_same or known.subject is not None):
            return BUSY, (True if known.whole else "partial") if is_same else False
        return SUPERSEDED, None

    @rule(
        which=st.integers(0, 10**6),
        how=st.sampled_from(
            ["count", "count", "read", "500", "raises", "text", "stream", "stream-same", "stream-raises", "once-a"]
        ),
        key=st.sampled_from([None, None, "k1", "k2"]),
        say=st.sampled_from([None, "x"]),
        safe=st.booleans(),
        newest=st.booleans(),
    )
    def present(self, *, which: int, how: str, key: str | None, say: Any, safe: bool, newest: bool) -> None:
        envelope = self.choose(which, newest=newest)
        safe = safe and how in {"count", "read"}
        method = "GET" if safe else "POST"
        known, number = self.of(envelope), number_of(envelope)
        identity = (method, how, say, envelope["dcaf"]["token"])
        told, applied = self.expect(envelope, identity, key, safe=safe)
        ran, used = len(self.world.ran), len(self.world.used)
        answer = self.run(self.world.turn(envelope, how, key=key, say=say, method=method, subject=known.subject))
        assert (len(self.world.ran) > ran) is (told == FINE), "the application ran, or did not"
        if told != FINE:
            self.check_refused(known, answer, told, applied)
            return
        known.presented = True
        if how.startswith("once"):
            assert self.world.used[used:] == [how not in known.used]
            known.used.add(how)
        if safe and how == "count" and known.holder is not None:
            assert answer.told == BUSY
            return
        self.check_done(known, answer, how, number, identity=identity, key=None if safe else key)

    def check_done(self, known: Known, answer: Any, how: str, number: int, *, identity: Any, key: str | None) -> None:
        self.adopt(answer)
        if how in STEPS:
            assert answer.status == 200
            whole = how != "stream-raises"
            self.commit(known, answer, number + STEPS[how], base=number, identity=identity, key=key, whole=whole)
            assert number_of(answer.session) == known.newest
        elif how in {"read", "once-a"}:
            assert number_of(answer.session) == number
            if key or how == "once-a":
                self.commit(known, answer, number, base=known.base, identity=identity, key=key, whole=True)
        else:
            assert answer.session is None or answer.status >= 500
            if key and how == "text":  # it carries no session, and is not done once more all the same
                known.identity, known.key, known.whole, known.at = identity, key, True, self.world.clock.now
                known.keys[key] = (identity, self.world.clock.now, True)

    def check_refused(self, known: Known, answer: Any, told: Any, applied: Any) -> None:
        assert answer.told == told
        assert answer.value.get("applied") == applied
        if applied is not None:
            assert answer.session["dcaf"]["token"] == known.newest_token
        elif told == ENDED:
            assert answer.session == {"dcaf": {"token": "new"}}
        else:
            assert answer.session is None

    def choose(self, which: int, *, newest: bool) -> Any:
        """Any envelope that was ever handed out; or one of the newest."""
        current = [envelope for envelope in self.held if envelope["dcaf"]["token"] == self.of(envelope).newest_token]
        among = current if newest and current else self.held
        return among[which % len(among)]

    @precondition(lambda self: len(self.open) < 3)
    @rule(which=st.integers(0, 10**6), how=st.sampled_from(["waits", "waits-500", "waits-raises"]))
    def open_turn(self, which: int, how: str) -> None:
        envelope = self.choose(which, newest=True)
        known, identity = self.of(envelope), ("POST", how, None, envelope["dcaf"]["token"])
        told, applied = self.expect(envelope, identity, None, safe=False)
        if told != FINE:
            self.check_refused(known, self.run(self.world.turn(envelope, "read", subject=known.subject)), told, applied)
            return
        self.world.entered, self.world.go = asyncio.Event(), asyncio.Event()

        async def start() -> Any:
            task = asyncio.ensure_future(self.world.turn(envelope, how, subject=known.subject))
            await self.world.entered.wait()
            return task

        task = self.run(start())
        known.holder, known.presented = task, True
        self.open.append((self.world.go, task, envelope, how, known.newest))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2), cancels=st.booleans())
    def finish_turn(self, which: int, cancels: bool) -> None:
        go, task, envelope, how, number = self.open.pop(which % len(self.open))
        known = self.of(envelope)
        may = not known.ended and known.newest == number and known.holder in (None, task)

        async def finish() -> Any:
            if cancels:
                task.cancel()
            go.set()
            await asyncio.wait([task])
            return None if task.cancelled() else task.result()

        answer = self.run(finish())
        known.holder = None if known.holder is task else known.holder
        if how != "waits" or cancels:
            assert answer is None or answer.status in {0, 500}
        elif may:
            self.adopt(answer)
            identity = ("POST", how, None, envelope["dcaf"]["token"])
            self.commit(known, answer, number + 1, base=number, identity=identity, key=None, whole=True)
        else:
            assert answer.told in {ENDED, BUSY}, "another turn came first, or it has ended"
            assert (answer.told == ENDED) is known.ended

    @rule(which=st.integers(0, 10**6))
    def unlock(self, which: int) -> None:
        envelope = self.choose(which, newest=True)
        known = self.of(envelope)
        assert self.run(self.world.ledger.unlock(claims_of(envelope)["sid"])) is (known.holder is not None)
        known.holder = None

    @rule(which=st.integers(0, 10**6), how=st.sampled_from(["revoke", "end"]))
    def end_one(self, which: int, how: str) -> None:
        envelope = self.choose(which, newest=True)
        known = self.of(envelope)
        told, _ = self.expect(envelope, ("POST", "end", None, envelope["dcaf"]["token"]), None, safe=False)
        if how == "revoke":
            self.run(self.world.ledger.revoke(claims_of(envelope)["sid"]))
        elif told == FINE:
            assert self.run(self.world.turn(envelope, "end", subject=known.subject)).session == {"dcaf": {"token": "new"}}
        else:
            return
        known.ended, known.holder = True, None

    @rule(which=st.integers(0, 10**6))
    def rotate(self, which: int) -> None:
        envelope = self.choose(which, newest=True)
        known = self.of(envelope)
        if self.expect(envelope, None, None, safe=False)[0] != FINE:
            return
        answer = self.run(self.world.turn(envelope, "rotate", subject=known.subject))
        known.ended = True
        made = Known(known.subject, used=known.used)  # what was used once is used after a rotation, too
        self.known[claims_of(answer.session)["sid"]] = made
        self.adopt(answer)
        identity = ("POST", "rotate", None, envelope["dcaf"]["token"])
        self.commit(made, answer, 1, base=0, identity=identity, key=None, whole=True)

    @rule(subject=st.sampled_from(["ada", "bob"]))
    def log_out(self, subject: str) -> None:
        self.run(self.world.ledger.log_out(subject))
        for known in self.known.values():
            known.ended = known.ended or known.subject == subject

    @rule(minutes=st.sampled_from([1, 9, 11]))
    def wait(self, minutes: int) -> None:
        self.world.clock.tick(timedelta(minutes=minutes))
        self.run(self.world.ledger.purge())

    @rule(which=st.integers(0, 10**6))
    def nobody_is_stuck(self, which: int) -> None:
        """Whatever a client holds: it goes on with that, adopts what it is given, waits for a turn, or starts over."""
        envelope = self.choose(which, newest=False)
        known = self.of(envelope)
        answer = self.run(self.world.turn(envelope, "read", subject=known.subject, say="on"))
        if answer.told == FINE:
            known.presented = True
        elif answer.value.get("applied") is not None:
            following = self.run(self.world.turn(answer.session, "read", subject=known.subject))
            assert following.told == FINE
            known.presented = True
        else:
            assert answer.told in {ENDED, SUPERSEDED} or known.holder is not None
            assert self.run(self.world.turn(None, "read", subject=known.subject)).told == FINE


def play(kind: str, examples: int, steps: int = 30, **more: Any) -> None:
    machine = type("Machine", (AnyOrder,), {"engine_kind": kind})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=checks,
            database=None,
            report_multiple_bugs=False,
            **more,
        ),
    )


@pytest.mark.parametrize(("kind", "examples"), [("memory", 1_000), ("sqlite", 250), ("kept", 500)])
def test_everybody_gets_what_the_model_says(kind: str, examples: int, scale: float) -> None:
    play(kind, max(5, round(examples * scale)))


@pytest.mark.parametrize("left_out", ["sequence", "ended", "claim"])
def test_control_a_rule_that_is_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch, left_out: str) -> None:
    def lacking(row: Any, column: str, value: Any) -> Any:
        return Exists(row) if column == left_out else Is(row, column, value)

    monkeypatch.setattr("dcaf.ledger.opening.Is", lacking)
    monkeypatch.setattr("dcaf.ledger.rules.Is", lacking)
    with pytest.raises((AssertionError, SessionError)):
        play("memory", 500, phases=[Phase.generate], derandomize=True)  # what it tries depends on which modules are there
