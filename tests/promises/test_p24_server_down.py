"""P24 with a server: while it is dead or mute, a service says so in a second, and takes nobody for new; then it recovers.

The service is a process, and this one kills, stops and starts the server. Several servers are down at once, each with its service.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final

import pytest

from tests.engines import postgres_servers
from tests.forked import CONTEXT
from tests.promises.enduring import Endured, endure, make_ledger, make_patient
from tests.promises.ledgers import Make, workers
from tests.promises.places import Place, Postgres, Server, behind_pgbouncer, find_place

Served = tuple[Place, Server]


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """It takes connections, and answers nothing."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """It was killed with -9."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def slow(server: Server) -> Iterator[None]:
    """It answers nothing for most of the time."""
    begun, over = threading.Event(), threading.Event()

    def hold() -> None:
        while not over.is_set():
            with stopped(server):
                begun.set()
                over.wait(0.5)
            over.wait(0.15)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


OUTAGES: Final[dict[str, Callable[[Server], AbstractContextManager[None]]]] = {"stopped": stopped, "killed": killed, "slow": slow}


@contextmanager
def elsewhere(pipe: Any) -> Iterator[None]:
    """An outage that the process at the other end of a pipe makes."""
    pipe.send("begin")
    pipe.recv()
    try:
        yield
    finally:
        pipe.send("end")
        pipe.recv()


def endured(served: Served, cases: Sequence[tuple[str, Make]], bursts: int) -> list[Endured]:
    """One outage after the other, with a service in a process of its own."""
    place, server = served
    found = []
    with workers(1) as (worker,):
        for name, make in cases:
            ours, theirs = CONTEXT.Pipe()
            worker.ask(endure, place, make, name, bursts, partial(elsewhere, theirs))
            ours.recv()
            with OUTAGES[name](server):
                ours.send("begun")
                ours.recv()
            ours.send("ended")
            found.append(worker.answer())
    return found


def endured_by_all(served: Sequence[Served], cases: Sequence[tuple[str, Make]], bursts: int) -> dict[tuple[str, str], Endured]:
    """Place and outage -> how a service came through, on several servers at once."""
    with ThreadPoolExecutor(len(served)) as pool:
        found = list(pool.map(lambda one: endured(one, cases, bursts), served))
    names = [(place.name, name) for place, _ in served for name, _ in cases]
    return dict(zip(names, (one for some in found for one in some), strict=True))


@pytest.fixture(scope="module")
def bounced() -> Iterator[tuple[postgres_servers.Server, Callable[[str], str]]]:
    """A PostgreSQL of its own behind PgBouncer, since both kinds of place are down at different times."""
    server = postgres_servers.Server(postgres_servers.find_programs()[0])
    try:
        with postgres_servers.bouncing(server, "server_login_retry = 1") as route:
            yield server, route
    finally:
        server.stop()


@pytest.fixture
def all_served(request: pytest.FixtureRequest, bounced: tuple[postgres_servers.Server, Callable[[str], str]]) -> list[Served]:
    """One place of each kind, with a server of its own."""
    found = [find_place(request, kind) for kind in ("redis", "redis-cluster", "postgres")]
    return [*found, (behind_pgbouncer(*bounced), Postgres(bounced[0]))]


@pytest.mark.promise(24)
def test_a_service_whose_server_is_down_says_so_in_a_second_and_takes_nobody_for_new(
    all_served: list[Served], scale: float, measured: Callable[[int, str], None]
) -> None:
    cases: list[tuple[str, Make]] = [(name, make_ledger) for name in OUTAGES]
    found = endured_by_all(all_served, cases, max(1, int(20 * scale)))
    for (place, name), one in found.items():
        measured(24, one.describe(f"{place}, {name}"))
    wrong = {names: (failures, one) for names, one in found.items() if (failures := one.failures(is_slow=names[1] == "slow"))}
    assert wrong == {}


@pytest.mark.promise(24)
def test_control_a_service_that_waits_for_its_server_is_caught(all_served: list[Served]) -> None:
    for one in endured_by_all(all_served, [("stopped", make_patient)], 1).values():
        assert {"slow", "nothing"} <= set(one.failures(is_slow=False))
