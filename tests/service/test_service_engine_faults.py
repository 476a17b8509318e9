"""What becomes of turns when processes fork, loops end, calls are cancelled, scripts fail, connections are cut and disks fill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from dcaf.core.errors import CommitUnknownError, DcafError, EngineError, StaleSessionError
from dcaf.engines import Engine, Exists, MemoryEngine
from dcaf.engines.postgres.functions import Names
from dcaf.service import SessionService, commits, turns
from dcaf.service.places import Place
from dcaf.service.plans import run_async
from dcaf.service.tables import CHANGES, MESSAGES, Owner, app_row
from tests.engines.engine_processes import fork
from tests.engines.postgres_processes import run_together
from tests.engines.redis_servers import change_scripts, share_cluster, share_server
from tests.engines.test_redis_faults import look_last
from tests.service import kept_processes
from tests.service.kept_faults import PATIENCE, cut_connections, filling_up, holding_up, open_with, wait_until_held_up
from tests.service.kept_places import KeptPlace, Watched, find_kept_place
from tests.service.test_service_faults import check_counts, read

ON_SERVERS: Final = ("redis", "redis-cluster", "postgres")
IN_A_QUEUE: Final = ("sqlite", *ON_SERVERS)


def take_turn(service: SessionService, *, fact: bool = True) -> None:
    """One more turn, which writes its number wherever a turn may write."""
    with service.sync.open(user="p", id="v", last=2) as session:
        number = session.incr("n")
        session.update({"twice": 2 * number, "user:n": number})
        session.messages.add("user", f"{number}")
        session.messages.add("assistant", f"{number}")
        if fact:
            session.memory.set("n", number)


def check_whole(service: SessionService, *numbers: int) -> int:
    """How many turns are there: each is whole."""
    found = service.sync.get(user="p", id="v")
    assert found is not None
    number = int(found.get("n", 0))
    page = service.sync.messages(user="p", id="v", limit=1_000)
    assert number in numbers or not numbers
    assert found.to_dict() == ({"n": number, "twice": 2 * number, "user:n": number} if number else {})
    assert [message.content for message in page.items] == [f"{at}" for at in range(1, number + 1) for _ in range(2)]
    assert (service.memory(user="p").sync.get("n") or 0) == number
    assert (found.revision, page.total) == (number + 1, 2 * number)
    return number


@pytest.fixture(params=IN_A_QUEUE)
def held_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    """Those that somebody else may hold up; with a session, on which a turn was taken."""
    found = find_kept_place(request.param, tmp_path)
    service = found.open_service()
    service.sync.create(user="p", id="v")
    take_turn(service)
    yield found
    found.close()


# ---- processes


def fork_in_a_turn(place: KeptPlace) -> None:
    """A turn is open in two processes after a fork. Both end it: one is kept. And both go on with turns of their own."""
    service = place.open_service()
    service.sync.create(user="p", id="v")
    take_turn(service)
    asyncio.run(take_turn_async(service))
    opened = service.sync.open(user="p", id="v")
    opened.__enter__()["of"] = os.getpid()

    def be_child() -> None:
        opened._session["child"] = True  # type: ignore[index]
        opened.__exit__(None, None, None)
        for _ in range(3):
            take_other_turn(service)
        asyncio.run(take_turn_of(service, "w"))
        service.engine.sync.close()

    fork(be_child)
    with pytest.raises(StaleSessionError):
        opened.__exit__(None, None, None)
    take_other_turn(service)
    asyncio.run(take_turn_of(service, "w"))
    state = read(service)
    assert (state["others"], state["child"], read(service, "w")["n"]) == (4, True, 2)


async def take_turn_async(service: SessionService) -> None:
    await service.create(user="p", id="w")


async def take_turn_of(service: SessionService, id_: str) -> None:
    async with service.open(user="p", id=id_) as session:
        session.incr("n")


def take_other_turn(service: SessionService) -> None:
    with service.sync.open(user="p", id="v") as session:
        session.incr("others")


def test_a_turn_that_is_open_over_a_fork_is_kept_once(shared_place: KeptPlace) -> None:
    fork_in_a_turn(shared_place)


def test_control_it_is_kept_twice_where_the_revision_is_not_compared(
    shared_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "is_at", lambda row, _: Exists(row))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        fork_in_a_turn(shared_place)


def begin_together(place: KeptPlace) -> list[int | None]:
    """Eight processes make the tables and their sessions at once."""

    def begin() -> None:
        service = place.without_engines().open_service()
        made = service.sync.create(user="p")
        for _ in range(5):
            kept_processes.count_once(service, made.id)
        service.engine.sync.close()

    return run_together(begin, 8)


def test_tables_are_made_by_eight_processes_at_once(shared_place: KeptPlace) -> None:
    assert begin_together(shared_place) == [0] * 8
    check_counts(shared_place.open_service(), 8, 5)


def test_control_without_a_lock_some_processes_fail_to_make_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = Names.number

    def number(names: Names, *parts: bytes) -> int:
        return random.SystemRandom().getrandbits(62) if parts == (b"making",) else whole(names, *parts)

    monkeypatch.setattr(Names, "number", number)
    assert any(any(begin_together(find_kept_place("postgres", tmp_path))) for _ in range(10))


# ---- event loops, and calls that nobody waits for


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8])
def test_a_loop_that_ends_under_a_commit_takes_nothing_with_it(kept_place: KeptPlace, steps: int) -> None:
    service = kept_place.open_service()
    service.sync.create(user="p", id="v")

    async def leave() -> None:
        opened = service.open(user="p", id="v")
        fill(await opened.__aenter__(), 1)
        leaving.append(asyncio.ensure_future(opened.__aexit__(None, None, None)))
        for _ in range(steps):
            await asyncio.sleep(0)

    leaving: list[asyncio.Task[None]] = []
    asyncio.run(leave())
    before = check_whole(service, 0, 1)
    take_turn(service)
    assert check_whole(service) == before + 1
    asyncio.run(take_one_async(service))
    assert check_whole(service) == before + 2


def test_control_a_turn_that_is_written_by_halves_is_noticed_where_its_loop_ends() -> None:
    async def take_halves() -> None:
        async with service.open(user="p", id="v") as session:
            session.update({"n": 1, "twice": 2, "user:n": 1})
        async with service.open(user="p", id="v") as session:
            for role in ("user", "assistant"):
                session.messages.add(role, "1")
            session.memory.set("n", 1)

    async def leave(steps: int) -> None:
        leaving.append(asyncio.ensure_future(take_halves()))
        for _ in range(steps):
            await asyncio.sleep(0)

    leaving: list[asyncio.Task[None]] = []
    with pytest.raises(AssertionError):
        for steps in range(60):
            service = SessionService(MemoryEngine(), app="clinic")
            service.sync.create(user="p", id="v")
            asyncio.run(leave(steps))
            check_whole(service, 0, 1)


def fill(session: Any, number: int) -> None:
    """What ``take_turn`` does."""
    session.update({"n": number, "twice": 2 * number, "user:n": number})
    session.messages.add("user", f"{number}")
    session.messages.add("assistant", f"{number}")
    session.memory.set("n", number)


async def take_one_async(service: SessionService) -> None:
    async with service.open(user="p", id="v") as session:
        fill(session, session.get("n", 0) + 1)


def cancel_in_mid_air(place: KeptPlace, backend: str) -> None:
    """A commit is cancelled while somebody holds it up: it is finished all the same, and leaves no connection in use."""
    service = open_with(place, connections=1, timeout=PATIENCE)

    async def cancel_one() -> None:
        with anyio.CancelScope() as scope:
            opened = service.open(user="p", id="v")
            fill(await opened.__aenter__(), read_number())
            with contextlib.ExitStack() as stack:
                stack.enter_context(holding_up(place))
                async with anyio.create_task_group() as group:
                    group.start_soon(let_go, scope, stack.pop_all())
                    await opened.__aexit__(None, None, None)

    async def let_go(scope: anyio.CancelScope, held: contextlib.ExitStack) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(wait_until_held_up, place)
            await anyio.sleep(0.05)
            scope.cancel()
            await anyio.sleep(0.05)
            held.close()

    def read_number() -> int:
        return numbers.pop(0)

    async def test() -> None:
        for _ in range(3):
            await cancel_one()
        await take_one_async(service)

    numbers = [2, 3, 4]
    anyio.run(test, backend=backend)
    assert check_whole(place.open_service()) == 5


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_commit_that_is_cancelled_in_mid_air_is_finished(held_place: KeptPlace, backend: str) -> None:
    cancel_in_mid_air(held_place, backend)


@pytest.mark.parametrize("held_place", ["sqlite", "postgres"], indirect=True)
def test_control_a_commit_that_nobody_shields_is_lost(held_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "run_to_end", run_async)
    with pytest.raises((AssertionError, DcafError)):
        cancel_in_mid_air(held_place, "asyncio")


def test_control_a_commit_of_two_parts_that_nobody_shields_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "run_to_end", run_async)
    engine = Watched(MemoryEngine(partitions=8))
    service = SessionService(engine, app="clinic")
    service.sync.create(user="p", id="v")

    async def test() -> None:
        with anyio.CancelScope() as scope:
            async with service.open(user="p", id="v") as session:
                session["a"] = session["app:a"] = 1
                engine.before(1, scope.cancel)

    anyio.run(test)
    assert read(service) == {"a": 1}


# ---- scripts


def fail_in_a_script(place: KeptPlace) -> None:
    """A key of an index is something else: the turn fails in Redis, and nothing of it was written."""
    service = place.open_service()
    service.sync.create(user="p", id="v")
    take_turn(service)
    partition = Owner("clinic", "p", partitions=service.engine.partitions).partition
    for table in (MESSAGES, CHANGES):
        index, aside = (f"{place.prefix}:{{{partition}}}:{table.name}={name}" for name in ("keys", "aside"))
        with share_server().client() as client:
            client.rename(index, aside)
            client.set(index, "of somebody else")
            with pytest.raises(EngineError, match="WRONGTYPE") as raised:
                take_turn(service)
            client.delete(index)
            client.rename(aside, index)
        assert type(raised.value) is EngineError
        assert check_whole(service) == 1
    take_turn(service)
    assert check_whole(service) == 2


@pytest.mark.parametrize("kept_place", ["redis"], indirect=True)
def test_a_script_that_fails_half_way_writes_nothing_of_a_turn(kept_place: KeptPlace) -> None:
    fail_in_a_script(kept_place)


@pytest.mark.parametrize("kept_place", ["redis"], indirect=True)
def test_control_a_script_that_writes_before_it_has_looked_halves_a_turn(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_scripts(monkeypatch, look_last)
    with pytest.raises(AssertionError):
        fail_in_a_script(kept_place)


# ---- two places of one turn, on a real cluster


def find_user_elsewhere(engine: Engine) -> tuple[str, int]:
    """A user whose rows are on another server of the cluster than those of the application; and the number of that one."""
    app = app_row("clinic", "", partitions=engine.partitions).partition
    servers = share_cluster().servers
    with servers[0].client() as client:
        slots = {name: client.cluster("KEYSLOT", f"{{{name}}}") for name in map(str, range(engine.partitions))}
    of = {name: int(slot) * len(servers) // 16_384 for name, slot in slots.items()}
    users = (f"user-{at}" for at in range(1_000))
    found = next(user for user in users if of[str(Owner("clinic", user, partitions=engine.partitions).partition)] != of[str(app)])
    return found, of[str(app)]


def write_to_two_servers(place: KeptPlace) -> None:
    """A turn writes to two servers; where one of them stands still, the turn says that it may be half there, and is."""
    service = open_with(place, timeout=timedelta(seconds=1))
    user, number = find_user_elsewhere(service.engine)
    service.sync.create(user=user, id="v", state={"app:a": 0})
    with service.sync.open(user=user, id="v") as session:
        session["a"] = session["user:a"] = session["app:a"] = 1
    assert read(service, user=user) == {"a": 1, "user:a": 1, "app:a": 1}
    server = share_cluster().servers[number]
    opened = service.sync.open(user=user, id="v")
    session = opened.__enter__()
    session["a"] = session["user:a"] = session["app:a"] = 2
    server.freeze()
    try:
        with pytest.raises(CommitUnknownError):
            opened.__exit__(None, None, None)
    finally:
        server.thaw()
    state = read(place.open_service(), user=user)
    assert (state["a"], state["user:a"]) == (2, 2)
    assert state["app:a"] in {1, 2}


@pytest.mark.parametrize("kept_place", ["redis-cluster"], indirect=True)
def test_a_turn_over_two_servers_of_a_cluster_says_so_where_one_stands_still(kept_place: KeptPlace) -> None:
    write_to_two_servers(kept_place)


@pytest.mark.parametrize("kept_place", ["redis-cluster"], indirect=True)
def test_control_a_turn_that_takes_two_places_for_one_is_refused(kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "is_with_app", True)
    with pytest.raises(DcafError):
        write_to_two_servers(kept_place)


# ---- connections


def cut_in_a_commit(place: KeptPlace, way: str, cut: Callable[[KeptPlace], object]) -> None:
    """Whoever commits is told that nobody can tell; the turn is there or not, and whole."""
    service = open_with(place, timeout=PATIENCE)
    for _ in range(3):
        before = check_whole(service)
        raised = Catching(prepare_save(service, way))
        with raised as errors, holding_up(place):
            raised.start()
            wait_until_held_up(place)
            cut(place)
        assert [type(error) for error in errors] == [CommitUnknownError]
        number = check_whole(place.open_service(), before, before + 1)
        take_turn(service)
        assert check_whole(service) == number + 1


@pytest.mark.parametrize("held_place", ON_SERVERS, indirect=True)
@pytest.mark.parametrize("way", ["sync", "asyncio"])
def test_a_connection_that_is_cut_in_a_commit_leaves_a_turn_whole_or_undone(held_place: KeptPlace, way: str) -> None:
    cut_in_a_commit(held_place, way, cut_connections)


@pytest.mark.parametrize("held_place", ON_SERVERS, indirect=True)
def test_control_a_commit_that_is_only_held_up_is_done(held_place: KeptPlace) -> None:
    with pytest.raises(AssertionError, match="CommitUnknownError"):
        cut_in_a_commit(held_place, "sync", lambda place: None)


def prepare_save(service: SessionService, way: str = "sync") -> Callable[[], object]:
    """What commits one more turn, which was begun already."""
    session = service.sync.get(user="p", id="v")
    assert session is not None
    fill(session, session.get("n", 0) + 1)
    return (lambda: service.sync.save(session)) if way == "sync" else (lambda: asyncio.run(service.save(session)))


class Catching:
    """Does something in a thread that is waited for at the end of the block, and keeps what it raises."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(call,))
        self.start = self._thread.start

    def __enter__(self) -> list[BaseException]:
        return self._errors

    def __exit__(self, *_: object) -> None:
        self.wait()

    def wait(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self._errors.append(error)


def use_up_connections(place: KeptPlace, connections: int) -> list[BaseException]:
    """Four turns are committed at once over so many connections, none of which is answered; returns what they raise."""
    service = open_with(place, connections=connections)
    threads = [Catching(prepare_save(service)) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(thread) for thread in threads]
        with holding_up(place):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.wait()
    errors = [error for errors in found for error in errors]
    assert len(errors) == len(threads)
    assert all(isinstance(error, EngineError) for error in errors)
    number = check_whole(place.open_service(), 1, 2)
    assert number == 1 or CommitUnknownError in map(type, errors)
    take_turn(service)
    assert check_whole(service) == number + 1
    return errors


@pytest.mark.parametrize("held_place", ["redis", "postgres"], indirect=True)
def test_turns_that_wait_for_one_connection_in_vain_are_whole_or_undone(held_place: KeptPlace) -> None:
    use_up_connections(held_place, 1)


@pytest.mark.parametrize("held_place", ["postgres"], indirect=True)
def test_turns_that_find_no_connection_write_nothing_and_say_so(held_place: KeptPlace) -> None:
    """On Redis those that wait find one when the first has given up, and say that nobody can tell."""
    assert count_in_use(use_up_connections(held_place, 1)) == 3


@pytest.mark.parametrize("held_place", ["postgres"], indirect=True)
def test_control_turns_that_have_one_each_do_not_say_so(held_place: KeptPlace) -> None:
    assert count_in_use(use_up_connections(held_place, 8)) == 0


def count_in_use(errors: list[BaseException]) -> int:
    return sum("in use" in str(error) for error in errors if type(error) is EngineError)


# ---- disks


def fill_up(place: KeptPlace) -> None:
    """There is no room for a turn: nothing of it is written, it says why, and is done when there is room."""
    service = open_with(place, timeout=PATIENCE)
    text = random.Random(1).randbytes(450_000).hex()
    if place.kind == "postgres":  # the file of its rows is larger than those of its log
        for _ in range(19):
            service.sync.append(user="p", id="v", messages=[("user", text)])
        service.sync.rewind(user="p", id="v", to=2)
    session = service.sync.get(user="p", id="v")
    assert session is not None
    before = (session.to_dict(), session.revision)
    session["large"] = 1
    for _ in range(3):
        session.messages.add("user", text)
    with filling_up(place), pytest.raises(EngineError) as raised:
        service.sync.save(session)
    assert text[:20] not in str(raised.value)
    found = service.sync.get(user="p", id="v")
    assert found is not None
    assert (found.to_dict(), found.revision) == before
    assert service.sync.messages(user="p", id="v").total == 2
    service.sync.save(session)
    assert (read(service)["large"], service.sync.messages(user="p", id="v").total) == (1, 5)


@pytest.mark.parametrize("held_place", IN_A_QUEUE, indirect=True)
def test_a_turn_for_which_there_is_no_room_writes_nothing(held_place: KeptPlace) -> None:
    fill_up(held_place)


@pytest.mark.parametrize("held_place", ["sqlite", "redis", "postgres"], indirect=True)
def test_control_a_turn_for_which_there_is_room_is_written(held_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.service.kept_faults.ROOM", 50_000_000)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        fill_up(held_place)


def write_as_another_user(mode: int, folder_mode: int = 0o755) -> None:
    """Another user is told why a turn cannot be written; nothing of it is there."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(folder_mode)
    place = KeptPlace("sqlite", str(folder / "dcaf.db"))
    service = place.open_service()
    service.sync.create(user="p", id="v")
    take_turn(service)
    for path in folder.iterdir():
        path.chmod(mode)

    def try_as_another_user() -> None:
        os.setgid(65_534)
        os.setuid(65_534)
        with pytest.raises(DcafError, match="cannot be"):
            take_turn(place.without_engines().open_service())

    fork(try_as_another_user)
    assert check_whole(service) == 1
    take_turn(service)
    assert check_whole(service) == 2
    place.close()
    shutil.rmtree(folder)


ONLY_ROOT: Final = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")


@ONLY_ROOT
def test_a_file_that_a_user_may_not_write_is_told_and_stays_as_it_is() -> None:
    write_as_another_user(0o444)


@ONLY_ROOT
def test_control_a_file_that_another_user_may_write_is_written() -> None:
    with pytest.raises(AssertionError):
        write_as_another_user(0o666, 0o777)
