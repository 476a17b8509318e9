"""Messages from a moment on: where the page begins, what comes along, and how little is read for it."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core.errors import ConfigurationError, UnknownSessionError
from dcaf.engines import MemoryEngine
from dcaf.service import Message, SessionService, history
from tests.service.kept_places import Calls, Watched

WHOSE: dict[str, Any] = {"user": "p", "id": "v"}
NIGHT = datetime(2026, 1, 2, tzinfo=UTC)


def moment(second: int) -> datetime:
    return NIGHT + timedelta(seconds=second)


def said(seconds: list[int]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": str(number), "at": moment(second)} for number, second in enumerate(seconds, 1)]


def keep(seconds: list[int], engine: Any = None) -> SessionService:
    """A session whose messages have these times."""
    service = SessionService(engine or MemoryEngine(), app="clinic")
    service.sync.create(**WHOSE)
    service.sync.append(**WHOSE, messages=said(seconds))
    return service


def numbers(items: list[Message]) -> list[int | None]:
    return [message.number for message in items]


def begin_at(service: SessionService, second: int, total: int) -> int:
    """The place of the first message of all pages, which have every message from there on; the total where there is none."""
    found: list[int | None] = []
    page = service.sync.messages(**WHOSE, since=moment(second), limit=7)
    while page.items:
        assert page.total == total
        found += numbers(page.items)
        page = service.sync.messages(**WHOSE, after=page.items[-1].number, limit=7)
    first = total + 1 - len(found)
    assert found == list(range(first, total + 1))
    return first - 1


def test_messages_from_a_moment_on_are_read_page_by_page(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(**WHOSE)
        with pytest.raises(ConfigurationError):
            await calls.ask("messages", **WHOSE, since="2026")
        assert (await calls.ask("messages", **WHOSE, since=NIGHT)).items == []
        await calls.ask("append", **WHOSE, messages=said([10 * (number // 3) for number in range(60)]))
        page = await calls.ask("messages", **WHOSE, since=moment(100), limit=20)
        assert (numbers(page.items), page.total) == ([*range(31, 51)], 60)
        page = await calls.ask("messages", **WHOSE, after=50)
        assert numbers(page.items) == [*range(51, 61)]
        for second, first in ((-1, 1), (0, 1), (1, 4), (95, 31), (190, 58)):
            page = await calls.ask("messages", **WHOSE, since=moment(second), limit=1_000)
            assert numbers(page.items) == [*range(first, 61)]
        assert (await calls.ask("messages", **WHOSE, since=moment(191))).items == []
        await calls.ask("append", **WHOSE, messages=[("user", "now")])
        assert numbers((await calls.ask("messages", **WHOSE, since=moment(191))).items) == [61]
        await calls.ask("rewind", **WHOSE, to=10)
        assert numbers((await calls.ask("messages", **WHOSE, since=moment(20))).items) == [7, 8, 9, 10]

    calls.run(test)


@settings(deadline=None, database=None)
@given(st.lists(st.integers(0, 20), max_size=200).map(sorted), st.integers(-1, 21))
def test_where_times_grow_the_page_begins_with_the_first_of_the_moment(seconds: list[int], second: int) -> None:
    assert begin_at(keep(seconds), second, len(seconds)) == bisect_left(seconds, second)


def disturb(seconds: list[int], moves: list[tuple[int, int]]) -> list[int]:
    """The same in another order, in which none is older than one that stands 8 places or more before it."""
    found = list(seconds)
    for at, by in moves:
        after = list(found)
        after.insert(min(at + by, len(after)), after.pop(at % len(after)) if after else 0)
        if all(max(after[: place - history.NEAR + 1], default=-1) <= after[place] for place in range(len(after))):
            found = after
    return found if seconds else []


@settings(deadline=None, database=None)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=120).map(sorted),
    st.lists(st.tuples(st.integers(0, 119), st.integers(0, 7)), max_size=12),
    st.integers(-1, 21),
)
def test_a_clock_that_was_set_back_a_little_hides_no_message(seconds: list[int], moves: list[tuple[int, int]], second: int) -> None:
    seconds = disturb(seconds, moves)
    first = next((place for place, one in enumerate(seconds) if one >= second), len(seconds))
    assert begin_at(keep(seconds), second, len(seconds)) == first


@settings(deadline=None, database=None)
@given(st.lists(st.integers(0, 6), max_size=120), st.integers(-1, 7))
def test_whatever_the_times_are_older_ones_stand_before_the_page(seconds: list[int], second: int) -> None:
    first = begin_at(keep(seconds), second, len(seconds))
    assert all(one < second for one in seconds[max(0, first - history.NEAR) : first])
    assert first == len(seconds) or seconds[first] >= second


def begin_with_one_old(at: int) -> int:
    """Where the page from second 40 on begins, if somebody appended at a place what was said long ago."""
    seconds = [*range(100)]
    seconds[at] = 0
    return begin_at(keep(seconds), 40, 100)


def test_one_message_with_a_wrong_time_hides_nothing_that_came_after_it() -> None:
    assert {begin_with_one_old(at) for at in range(100) if at != 40} == {40}
    assert begin_at(keep([*range(90), 5]), 60, 91) == 60


def test_control_a_search_that_looks_at_one_message_is_led_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "NEAR", 1)
    assert {begin_with_one_old(at) for at in range(100) if at != 40} > {40}


def test_a_moment_is_found_without_reading_the_history() -> None:
    engine = Watched(MemoryEngine())
    service = keep([], engine)
    for first in range(0, 10_000, 1_000):
        service.sync.append(**WHOSE, messages=said([*range(first, first + 1_000)]))
    for second, most in ((9_995, 7), (5_000, 7), (0, 7), (20_000, 2)):
        before = engine.done
        page = service.sync.messages(**WHOSE, since=moment(second), limit=3)
        assert [message.at for message in page.items] == ([moment(second + more) for more in range(3)] if second < 9_999 else [])
        assert engine.done - before <= most


def test_control_a_search_step_by_step_reads_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Watched(MemoryEngine())
    service = keep([*range(1_000)], engine)
    monkeypatch.setattr(history, "PLACES_AT_ONCE", 1)
    before = engine.done
    service.sync.messages(**WHOSE, since=moment(5), limit=3)
    assert engine.done - before > 7


@pytest.mark.parametrize("to", [0, 30, 60])
@pytest.mark.parametrize("step", range(5))
def test_a_session_that_is_taken_back_meanwhile_is_read_as_it_is(to: int, step: int) -> None:
    engine = Watched(MemoryEngine())
    service = keep([*range(100)], engine)
    other = SessionService(engine._engine, app="clinic")

    def go_back() -> None:
        other.sync.rewind(**WHOSE, to=to)
        other.sync.append(**WHOSE, messages=said([*range(200, 300)]))

    engine.before(step, go_back)
    page = service.sync.messages(**WHOSE, since=moment(70), limit=1_000)
    times = [message.at for message in page.items]
    before = [moment(second) for second in range(70, 100)]
    after = [moment(second) for second in range(200, 300)]
    assert (times, page.total) in ((after, to + 100), (before, 100))


def test_a_session_that_goes_meanwhile_is_unknown() -> None:
    for step in range(3):
        engine = Watched(MemoryEngine())
        service = keep([*range(100)], engine)
        engine.before(step, lambda: SessionService(engine._engine, app="clinic").sync.delete(**WHOSE))  # noqa: B023
        with pytest.raises(UnknownSessionError):
            service.sync.messages(**WHOSE, since=moment(70))


def test_a_moment_has_a_time_zone_and_may_be_any() -> None:
    service = keep([0, 1])
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    assert numbers(service.sync.messages(**WHOSE, since=early).items) == [1, 2]
    assert service.sync.messages(**WHOSE, since=datetime.max.replace(tzinfo=UTC)).items == []
    east = timezone(timedelta(hours=5))
    assert numbers(service.sync.messages(**WHOSE, since=moment(1).astimezone(east)).items) == [2]


def test_a_message_may_be_older_than_1970() -> None:
    hour, service = 3_600, keep([-700_000 * 3_600])
    assert len(service.sync.messages(**WHOSE, since=moment(-700_000 * hour)).items) == 1
    assert service.sync.messages(**WHOSE, since=moment(-600_000 * hour)).items == []


@pytest.mark.parametrize("wrong", [NIGHT.replace(tzinfo=None), "2026-01-02", 1.0, True, timedelta(1)])
def test_what_is_no_moment_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="since="):
        keep([0]).sync.messages(**WHOSE, since=wrong)


@pytest.mark.parametrize("more", [{"after": 1}, {"before": 1}])
def test_a_page_has_one_beginning(more: Any) -> None:
    with pytest.raises(ConfigurationError, match="one of"):
        keep([0]).sync.messages(**WHOSE, since=NIGHT, **more)


def test_a_turn_reads_pages_of_its_own_history() -> None:
    """What the turn adds is in none of them until it is committed."""
    service = keep(list(range(12)))
    with service.sync.open(**WHOSE, last=2) as session:
        session.messages.add("user", "new")
        history = session.messages.sync
        assert numbers(history.page(limit=3).items) == [10, 11, 12]
        assert numbers(history.page(limit=3, before=10).items) == [7, 8, 9]
        assert numbers(history.page(limit=3, after=1).items) == [2, 3, 4]
        assert numbers(history.page(since=moment(10)).items) == [11, 12]
        assert history.page().total == 12
    with service.sync.open(user="p") as fresh:
        assert (fresh.messages.sync.page().items, fresh.messages.sync.page().total) == ([], 0)
    assert anyio.run(page_by_page, service) == [11, 12, 13]


async def page_by_page(service: SessionService) -> list[int | None]:
    async with service.open(**WHOSE) as session:
        return numbers((await session.messages.page(limit=3)).items)
