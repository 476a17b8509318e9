"""What holds of histories, lists and forks on every engine while others write, purge and delete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import pytest

from dcaf.core.errors import EngineError, UnknownSessionError
from dcaf.engines import Is, MemoryEngine, Not
from dcaf.service import SessionService, SyncSessionService, beside, calls, commits, history, journal, rewinding
from dcaf.service.kept import Kept
from dcaf.service.listing import ListPage
from dcaf.service.messages import Message, pack
from tests.engines.redis_servers import change_scripts
from tests.promises.broken_services import commit_by_halves
from tests.service.kept_faults import PATIENCE, open_with
from tests.service.kept_places import KeptPlace, find_kept_place
from tests.service.test_service_faults import SCALE, find_rows
from tests.service.test_service_turns import ODD_VALUES

MANY: Final = 8_001
TURNS: Final = max(5, round(200 * SCALE))
PARTS: Final = 4
ODD: Final = ODD_VALUES[:-1]
"""Without the one that is as deep as a value may be."""


def read_all(service: SyncSessionService, id: str = "v") -> list[Message]:  # noqa: A002
    """The whole history of a session, oldest first."""
    found: list[Message] = []
    while page := service.messages(user="p", id=id, limit=1_000, after=len(found)).items:
        found += page
    return found


def say(messages: Sequence[Message]) -> list[Any]:
    return [message.content for message in messages]


# ---- no turn is mixed with another


async def write_together(place: KeptPlace, turns: int) -> None:
    """Three take turns of four messages of one session, and two append as many beside them."""
    services = [place.open_service(on_busy="merge") for _ in range(3)]
    await services[0].create(user="p", id="v")

    async def take_turns(at: int) -> None:
        for number in range(turns):
            async with services[at].open(user="p", id="v", last=PARTS) as opened:
                opened.incr("n")
                for part in range(PARTS):
                    opened.messages.add("user", f"{at} {number} {part}")
                    await asyncio.sleep(0)

    async def append(at: int) -> None:
        for number in range(turns):
            messages = [("user", f"beside {at} {number} {part}") for part in range(PARTS)]
            await services[at].append(user="p", id="v", messages=messages)

    await asyncio.gather(*(take_turns(at) for at in range(3)), *(append(at) for at in range(2)))
    check_blocks(say(read_all(services[0].sync)), 5 * turns)


def check_blocks(said: list[str], count: int) -> None:
    """Each turn and each append is there once, whole and in order."""
    blocks = [list(messages) for _, messages in groupby(said, lambda message: message.rpartition(" ")[0])]
    assert [[message.rpartition(" ")[2] for message in block] for block in blocks] == [[str(part) for part in range(PARTS)]] * count
    assert len({block[0] for block in blocks}) == count


def test_a_turn_is_never_mixed_with_another_nor_with_what_is_appended(kept_place: KeptPlace) -> None:
    asyncio.run(write_together(kept_place, TURNS))


def test_control_messages_that_are_written_one_by_one_are_mixed(kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "commit", commit_by_halves)
    with pytest.raises(AssertionError):
        asyncio.run(write_together(kept_place, 10))


def test_control_messages_are_lost_where_their_number_is_not_compared(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (commits, beside):
        monkeypatch.setattr(module, "is_at", lambda row, kept: Is(row, "birth", kept.birth))
    with pytest.raises(AssertionError):
        asyncio.run(write_together(kept_place, 10))


# ---- many messages at once


def write_many(service: SyncSessionService) -> None:
    """A turn adds so many messages, a fork has all of them, and a rewind takes all but one back."""
    numbers = [f"{number}" for number in range(MANY)]
    service.create(user="p", id="v", state={"a": 1})
    with service.open(user="p", id="v") as opened:
        opened["a"] = 2
        for number in numbers:
            opened.messages.add("user", number)
    assert say(read_all(service)) == numbers
    service.fork(user="p", id="v", new_id="w")
    assert service.rewind(user="p", id="v", to=1) == MANY - 1
    assert (say(read_all(service)), say(read_all(service, "w"))) == (["0"], numbers)
    for id_ in ("v", "w"):
        assert service.delete(user="p", id=id_)


@pytest.mark.parametrize("kept_place", ["sqlite", "redis", "postgres"], indirect=True)
def test_a_turn_may_add_more_messages_than_a_script_has_room_for(kept_place: KeptPlace) -> None:
    service = open_with(kept_place, timeout=PATIENCE)
    write_many(service.sync)
    assert not any(find_rows(service.engine).values())


@pytest.mark.parametrize("kept_place", ["redis"], indirect=True)
def test_control_all_at_once_is_more_than_the_stack_of_lua_takes(kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    change_scripts(monkeypatch, lambda text: text.replace("at + 999", "#items"))
    with pytest.raises(EngineError):
        write_many(open_with(kept_place, timeout=PATIENCE).sync)


# ---- times are no order

MOMENTS: Final = [datetime(year, 1, 1, tzinfo=UTC) for year in (2020, 2020, 2020, 1970, 9999, 2019, 2, 2020)]


def write_at_odd_times(place: KeptPlace) -> None:
    """Messages of equal, later and earlier moments stand as they were added."""
    service = place.open_service().sync
    service.create(user="p", id="v")
    with service.open(user="p", id="v") as opened:
        for number, moment in enumerate(MOMENTS):
            opened.messages.add("user", f"{number}", at=moment)
    for number, moment in enumerate(MOMENTS):
        service.append(user="p", id="v", messages=[{"role": "user", "content": f"{number + 8}", "at": moment}])
    with service.open(user="p", id="v") as opened:
        assert say(list(opened.messages)) == [f"{number}" for number in range(16)]
        opened.messages.add("user", "now")
    found = read_all(service)
    assert say(found) == [*(f"{number}" for number in range(16)), "now"]
    assert [message.number for message in found] == list(range(1, 18))
    assert [message.at for message in found[:16]] == MOMENTS * 2
    assert service.rewind(user="p", id="v", to=5) == 12
    assert say(read_all(service)) == [f"{number}" for number in range(5)]


def test_messages_of_equal_and_earlier_moments_keep_their_order(kept_place: KeptPlace) -> None:
    write_at_odd_times(kept_place)


def test_control_a_history_that_is_sorted_by_time_is_another_one(kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = history.unpack_page
    for module in (history, calls):
        monkeypatch.setattr(module, "unpack_page", lambda page: sorted(whole(page), key=lambda message: message.at_ms or 0))
    with pytest.raises(AssertionError):
        write_at_odd_times(kept_place)


def test_a_clock_that_goes_back_changes_no_order_and_loses_no_session() -> None:
    clock = [2e9]
    service = SessionService(MemoryEngine(clock=lambda: clock[0]), app="clinic").sync
    service.create(user="p", id="v")
    for number in range(20):
        clock[0] += -86_400 if number % 2 else 3_600
        with service.open(user="p", id="v") as opened:
            opened.messages.add("user", f"{number}")
            opened["n"] = number
        found = service.get(user="p", id="v")
        assert found is not None
        assert (found.revision, found["n"]) == (number + 2, number)
        assert [kept.id for kept in service.list(user="p").items] == ["v"]
    assert say(read_all(service)) == [f"{number}" for number in range(20)]


# ---- values, byte for byte


def write_odd_values(place: KeptPlace) -> None:
    """Odd values in a state, in messages, in memories and in what is known of a session come back as they went in."""
    service = place.open_service().sync
    labels = {f"l{number}": value for number, value in enumerate(ODD) if isinstance(value, str)}
    service.create(user="p", id="v", state={"odd": ODD}, metadata={"odd": ODD}, labels=labels, title="a\0b🙂")
    texts = [*labels.values()]
    with service.open(user="p", id="v") as opened:
        opened["again"] = opened["odd"]
        opened.memory.set("odd\0", ODD)
        opened.memory.here.set("odd", ODD)
        for text in texts:
            opened.messages.add("user", text, metadata={"odd": ODD, text: text})
    service.append(user="p", id="v", messages=[{"role": "user", "content": "", "metadata": {"odd": ODD}}])
    service.memory(user="p").set("beside", ODD)
    service.merge(user="p", id="v", state={"merged": ODD})
    service.fork(user="p", id="v", new_id="w")
    for id_ in ("v", "w"):
        with service.open(user="p", id=id_) as opened:
            assert [repr(opened[key]) for key in ("odd", "again", "merged")] == [repr(ODD)] * 3
            assert repr(opened.memory.sync.get("odd\0")) == repr(opened.memory.sync.get("beside")) == repr(ODD)
            read = list(opened.messages)
            assert say(read) == [*texts, ""]
            assert [repr(message.metadata and message.metadata["odd"]) for message in read] == [repr(ODD)] * len(read)
            assert [message.metadata and message.metadata[text] for message, text in zip(read, texts, strict=False)] == texts
            assert [message.to_dict(whole=True) for message in read] == [m.to_dict(whole=True) for m in read_all(service, id_)]
    with service.open(user="p", id="v") as opened:
        assert repr(opened.memory.here.sync.get("odd")) == repr(ODD)
        assert (opened.title, dict(opened.labels), repr(opened.metadata["odd"])) == ("a\0b🙂", labels, repr(ODD))


def test_values_come_back_byte_for_byte_wherever_they_were_put(kept_place: KeptPlace) -> None:
    write_odd_values(kept_place)


@pytest.mark.parametrize(
    ("before", "after"), [(b"\\u0000", b""), (b"1.0", b"1"), (b"-0.0", b"0.0"), (b"9007199254740993", b"9007199254740992")]
)
def test_control_a_store_that_changes_a_message_is_noticed(
    before: bytes, after: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(journal, "pack", lambda message: pack(message).replace(before, after))
    with pytest.raises(AssertionError):
        write_odd_values(find_kept_place("memory", tmp_path))


# ---- a list whose rows move

PAGE: Final = 3
LISTED: Final = [f"{number:02}" for number in range(24)]
MOVED: Final = LISTED[::4]
NextPage = Callable[[SyncSessionService, str, str | None], ListPage[Kept]]


def page_by_cursor(service: SyncSessionService, order: Any, cursor: str | None) -> ListPage[Kept]:
    return service.list(user="p", limit=PAGE, order=order, cursor=cursor)


def page_by_number(service: SyncSessionService, order: Any, cursor: str | None) -> ListPage[Kept]:
    """Broken: a page begins so many sessions from the head of the list."""
    first = int(cursor or 0)
    items = service.list(user="p", limit=1_000, order=order).items
    return ListPage(items[first : first + PAGE], str(first + PAGE) if first + PAGE < len(items) else None)


def walk_while_rows_move(service: SyncSessionService, order: Any, next_page: NextPage, pass_minutes: Callable[[], None]) -> Any:
    """Between two pages sessions come, go and are committed: those that stay as they are, are found once each.

    Returns:
        Those that stay, as one long page has them, and as they were found.
    """
    for id_ in LISTED:
        pass_minutes()
        service.create(user="p", id=id_)
    before = [kept.id for kept in service.list(user="p", order=order, limit=100).items]
    found, cursor, number = list[str](), None, 0
    while number == 0 or cursor is not None:
        page = next_page(service, order, cursor)
        found += [kept.id for kept in page.items]
        cursor, number = page.cursor, number + 1
        if number <= len(MOVED):
            pass_minutes()
            move_rows(service, number)
    stay, walked = [id_ for id_ in before if id_ not in MOVED], [id_ for id_ in found if id_ in before and id_ not in MOVED]
    assert sorted(walked) == sorted(stay)
    return stay, walked


def move_rows(service: SyncSessionService, number: int) -> None:
    """Some are committed, one is deleted, one is new."""
    for id_ in MOVED[number:]:
        with service.open(user="p", id=id_) as opened:
            opened.incr("n")
    service.delete(user="p", id=MOVED[number - 1])
    service.create(user="p", id=f"new {number}")


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_sessions_that_stay_are_found_once_while_others_move(kept_place: KeptPlace, order: str) -> None:
    walk_while_rows_move(kept_place.open_service().sync, order, page_by_cursor, lambda: None)


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_sessions_that_stay_are_found_once_while_others_move_over_minutes(order: str) -> None:
    service, pass_minutes = serve_by_a_clock()
    stay, walked = walk_while_rows_move(service, order, page_by_cursor, pass_minutes)
    assert walked == stay


def test_a_page_has_the_sessions_of_one_minute_by_their_last_commits() -> None:
    service = SessionService("memory://", app="clinic").sync
    for id_ in "abcdef":
        service.create(user="p", id=id_)
        time.sleep(0.002)
    with service.open(user="p", id="b") as opened:
        opened["n"] = 1
    assert [kept.id for kept in service.list(user="p").items] == [*"bfedca"]
    assert [kept.id for kept in service.list(user="p", order="oldest").items] == [*"acdefb"]


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_control_pages_by_number_miss_sessions_or_have_them_twice(order: str) -> None:
    service, pass_minutes = serve_by_a_clock()
    with pytest.raises(AssertionError):
        walk_while_rows_move(service, order, page_by_number, pass_minutes)


def serve_by_a_clock() -> tuple[SyncSessionService, Callable[[], None]]:
    clock = [1e9]

    def pass_minutes() -> None:
        clock[0] += 90

    return SessionService(MemoryEngine(clock=lambda: clock[0]), app="clinic").sync, pass_minutes


# ---- a purge beside turns


def purge_beside_turns(place: KeptPlace) -> None:
    """A turn of a session that lives is committed, one of a session that has ended is not, and leaves no row."""
    brief = place.open_service(ttl=timedelta(milliseconds=100))
    service, other = place.open_service(), place.open_service()
    service.sync.create(user="p", id="lives")
    brief.sync.create(user="p", id="ends", state={"a": 1})
    with service.sync.open(user="p", id="lives") as opened:
        opened["a"] = 1
        opened.messages.add("user", "hi")
        opened.memory.here.set("fact", 1)
        with pytest.raises(UnknownSessionError), brief.sync.open(user="p", id="ends") as late:
            late["a"] = 2
            late.messages.add("user", "late")
            late.memory.here.set("fact", 2)
            time.sleep(0.15)
            assert other.sync.purge().sessions == 1
    found = service.sync.get(user="p", id="lives")
    assert found is not None
    assert (found.to_dict(), say(read_all(service.sync, "lives"))) == ({"a": 1}, ["hi"])
    assert service.sync.delete(user="p", id="lives")
    assert not any(find_rows(service.engine).values())


def test_a_purge_leaves_turns_alone_and_what_has_ended_stays_so(kept_place: KeptPlace) -> None:
    purge_beside_turns(kept_place)


def test_control_a_purged_session_comes_back_where_a_commit_does_not_look_for_it(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "is_at", lambda row, _: Not(Is(row, "birth", b"of nobody")))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        purge_beside_turns(kept_place)


# ---- a fork of what was taken back


def fork_what_was_taken_back(place: KeptPlace) -> None:
    """Forks of a session that was taken back have its new timeline, and keep it when their parent is deleted."""
    service = place.open_service()
    sync = service.sync
    sync.create(user="p", id="v", state={"step": 0})
    for step in (1, 2, 3):
        take_step(sync, "v", step)
    sync.rewind(user="p", id="v", to=2)
    take_step(sync, "v", 4)
    sync.fork(user="p", id="v", new_id="early", at=2)
    sync.fork(user="p", id="v", new_id="late", at=4)
    sync.fork(user="p", id="v", new_id="all")
    assert sync.delete(user="p", id="v")
    sync.purge()
    expected = {"early": [1], "late": [1, 4], "all": [1, 4]}
    for id_, steps in expected.items():
        check_steps(sync, id_, steps)
        take_step(sync, id_, 5)
        check_steps(sync, id_, [*steps, 5])
        sync.rewind(user="p", id=id_, to=2 * len(steps))
        check_steps(sync, id_, steps)
    sync.fork(user="p", id="late", new_id="v", at=4)
    check_steps(sync, "v", [1, 4])
    for id_ in (*expected, "v"):
        assert sync.delete(user="p", id=id_)
    assert not any(find_rows(service.engine).values())


def take_step(service: SyncSessionService, id_: str, step: int) -> None:
    with service.open(user="p", id=id_) as opened:
        opened["step"] = step
        opened[f"step {step}"] = True
        for role in ("user", "assistant"):
            opened.messages.add(role, f"{step}")


def check_steps(service: SyncSessionService, id_: str, steps: list[int]) -> None:
    found = service.get(user="p", id=id_)
    assert found is not None
    assert found.to_dict() == {"step": steps[-1], **{f"step {step}": True for step in steps}}
    assert say(read_all(service, id_)) == [f"{step}" for step in steps for _ in range(2)]


def test_a_fork_of_what_was_taken_back_outlives_its_parent(kept_place: KeptPlace) -> None:
    fork_what_was_taken_back(kept_place)


def test_control_a_fork_that_leaves_its_messages_with_its_parent_loses_them(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewinding, "_copy", lambda target, page: [])
    with pytest.raises(AssertionError):
        fork_what_was_taken_back(kept_place)


def test_control_a_fork_with_the_state_of_now_is_another_one(kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewinding, "find_timeline", lambda log, to: list(log))
    with pytest.raises(AssertionError):
        fork_what_was_taken_back(kept_place)
