"""Renew the claims of turns that go on, from a thread: a turn whose tool blocks the event loop keeps its session, too.

A claim is a lease of some seconds, so that the session of a process that died is free again soon. The thread runs while there is a
turn to renew, and renews nothing of a turn that has gone on for too long, or that nobody remembers any more.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from threading import Condition, Thread
from time import monotonic
from typing import Final, Protocol
from weakref import WeakSet

from dcaf.engines import SyncEngine, Transaction

logger: Final[logging.Logger] = logging.getLogger("dcaf")

PARTS: Final = 3
"""A claim is renewed when so many parts of its lease have one left to go: at a third, and again at two thirds."""


class Renewable(Protocol):
    """A turn with a claim."""

    def renewal(self) -> Transaction | None:
        """What renews its claim; None where it holds none."""


class Renewals:
    """Renews claims, and gives back those of turns that were cancelled while they were opened.

    Args:
        engine: Where the claims are.
        lease_s: How long a claim lasts.
        max_turn_s: How long a turn may hold its session; afterwards its claim lapses.
    """

    def __init__(self, engine: SyncEngine, *, lease_s: float, max_turn_s: float) -> None:
        self._engine = engine
        self._every_s = lease_s / PARTS
        self._max_turn_s = max_turn_s
        self._start_anew()

    def add(self, turn: Renewable) -> None:
        """Renew the claim of a turn from now on, as long as it has one."""
        self._notice_fork()
        with self._changed:
            self._turns.add(turn)
            self._began[id(turn)] = monotonic()
            self._run()

    def remove(self, turn: Renewable) -> None:
        """Renew the claim of a turn no more."""
        self._notice_fork()
        with self._changed:
            self._turns.discard(turn)
            self._began.pop(id(turn), None)

    def give_back(self, release: Transaction) -> None:
        """Release a claim soon, without waiting for it."""
        self._notice_fork()
        with self._changed:
            self._released.append(release)
            self._run()
            self._changed.notify()

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._start_anew()  # a process that was forked has neither the thread nor the turns of its parent, but its locks

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._changed = Condition()
        self._turns: WeakSet[Renewable] = WeakSet()
        self._began: dict[int, float] = {}
        self._released: deque[Transaction] = deque()
        self._thread: Thread | None = None

    def _run(self) -> None:
        """Have the thread run. The caller holds the lock."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._renew, name="dcaf-renewals", daemon=True)
            self._thread.start()

    def _renew(self) -> None:
        while True:
            with self._changed:
                if not self._released:
                    self._changed.wait(self._every_s)
                due = [*self._released, *self._list_due()]
                self._released.clear()
                if not (due or self._turns):
                    self._thread = None
                    return
            for transaction in due:
                self._apply(transaction)

    def _list_due(self) -> list[Transaction]:
        now = monotonic()
        turns = [turn for turn in self._turns if now - self._began.get(id(turn), now) < self._max_turn_s]
        known = {id(turn) for turn in self._turns}
        self._began = {key: began for key, began in self._began.items() if key in known}
        return [renewal for turn in turns if (renewal := turn.renewal()) is not None]

    def _apply(self, transaction: Transaction) -> None:
        try:
            self._engine.transact(transaction)
        except Exception as error:  # noqa: BLE001 - the thread goes on, whatever an engine raises: other turns need it
            logger.warning("dcaf: a claim could not be renewed or released: %s", type(error).__name__)
