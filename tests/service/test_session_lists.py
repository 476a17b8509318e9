"""Lists of sessions: keys of their states, labels, pages that go on; and what a purge and an erase tell."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError
from dcaf.engines import MemoryEngine
from dcaf.service import Kept, SessionService, all_users, listing
from tests.service.kept_places import Calls, KeptPlace, Watched
from tests.service.test_archive import Clock, serve


def pages_of(service: SessionService, **arguments: Any) -> Iterator[list[Kept]]:
    """The pages of a list, one after the other."""
    cursor: str | None = None
    while True:
        page = service.sync.list(cursor=cursor, **arguments)
        yield page.items
        cursor = page.cursor
        if cursor is None:
            return


def ids_of(service: SessionService, **arguments: Any) -> list[str]:
    return [item.id for page in pages_of(service, **arguments) for item in page]


# Keys of their states


def test_a_list_gives_keys_of_the_states_along(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="a", state={"step": 1, "cart": {"n": [1.0, None]}, "user:theme": "dark", "app:motd": "hi"})
        await calls.create(user="p", id="b", state={"step": None})
        await calls.create(user="p", id="c", state={"other": 1})
        await calls.create(user="q", id="a", state={"step": 9, "user:theme": "light"})
        keys = ("step", "user:theme", "cart", "app:motd", "user:none", "app:none", "none", "step")
        items = (await calls.ask("list", user="p", state=keys)).items
        shared = {"user:theme": "dark", "app:motd": "hi"}
        assert {item.id: item.state for item in items} == {
            "a": {"step": 1, "cart": {"n": [1.0, None]}, **shared},
            "b": {"step": None, **shared},
            "c": shared,
        }
        assert all(item.state == {} for item in (await calls.ask("list", user="p")).items)
        assert [item.state for item in (await calls.ask("list", user="q", state=["step"])).items] == [{"step": 9}]

    calls.run(test)


def test_control_states_are_mixed_where_rows_are_taken_for_those_of_another_session(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, service = serve()
    for number in range(4):
        service.sync.create(user="p", id=f"v{number}", state={"n": number})

    def ask() -> dict[str, Any]:
        return {item.id: item.state["n"] for item in service.sync.list(user="p", state=["n"]).items}

    right = {f"v{number}": number for number in range(4)}
    assert ask() == right
    monkeypatch.setattr(listing, "READ_AT_ONCE", 4)  # two sessions a transaction
    assert ask() == right
    monkeypatch.setattr(listing, "read_values", lambda names, rows: {name: 0 for name in names if next(iter(rows), None)})
    assert ask() != right


def test_a_page_costs_no_more_trips_for_its_keys() -> None:
    engine = Watched(MemoryEngine())
    service = SessionService(engine, app="clinic")
    for number in range(20):
        service.sync.create(user="p", id=f"v{number}", state={"n": number, "user:a": 1})
    before = engine.done
    service.sync.list(user="p", limit=10)
    plain, before = engine.done - before, engine.done
    service.sync.list(user="p", limit=10, state=["n", "user:a"])
    assert engine.done - before == plain == 2


@pytest.mark.parametrize(
    "keys", ["step", None, [1], ["temp:a"], ["dcaf"], {"a": 1}, [f"k{number}" for number in range(51)], ["\udfff"], 3]
)
def test_wrong_keys_are_refused(keys: Any) -> None:
    _, _, service = serve()
    if isinstance(keys, dict):
        keys = object()
    with pytest.raises(ConfigurationError):
        service.sync.list(user="p", state=keys)


# Labels


def test_a_list_finds_sessions_by_their_labels(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        for number in range(6):
            labels = {"room": str(number % 2), **({"urgent": "yes"} if number == 3 else {})}
            await calls.create(user="p", id=f"v{number}", labels=labels)
        await calls.create(user="p", id="none")
        assert {item.id for item in (await calls.ask("list", user="p", labels={"room": "1"})).items} == {"v1", "v3", "v5"}
        found = (await calls.ask("list", user="p", labels={"room": "1", "urgent": "yes"})).items
        assert [(item.id, item.labels) for item in found] == [("v3", {"room": "1", "urgent": "yes"})]
        assert (await calls.ask("list", user="p", labels={"room": "2"})).items == []
        assert len((await calls.ask("list", user="p", labels={})).items) == 7

    calls.run(test)


@settings(max_examples=60, deadline=None)
@given(
    have=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=14),
    limit=st.integers(1, 5),
    order=st.sampled_from(["newest", "oldest"]),
    archived=st.booleans(),
    bounds=st.tuples(st.integers(1, 4), st.integers(1, 6)),
)
def test_the_pages_of_a_list_have_each_wanted_session_once(
    have: list[tuple[bool, bool]], limit: int, order: Any, archived: bool, bounds: tuple[int, int]
) -> None:
    clock, _, service = serve()
    expected = []
    for number, (has_label, is_archived) in enumerate(have):
        clock.now += 60
        service.sync.create(user="p", id=f"v{number}", labels={"a": "1"} if has_label else {})
        if is_archived:
            service.sync.archive(user="p", id=f"v{number}")
        if has_label and is_archived is archived:
            expected.append(f"v{number}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "LOOKED_AT_ONCE", bounds[0])
        patch.setattr(listing, "MOST_LOOKED", bounds[1])
        pages = list(pages_of(service, user="p", labels={"a": "1"}, limit=limit, order=order, archived=archived))
    assert all(len(page) <= limit for page in pages)
    assert [item.id for page in pages for item in page] == (expected[::-1] if order == "newest" else expected)


def test_a_page_looks_at_so_many_sessions_and_goes_on() -> None:
    engine = Watched(MemoryEngine())
    service = SessionService(engine, app="clinic")
    for number in range(2_500):
        service.sync.create(user="p", id=f"v{number:04}", labels={"last": "yes"} if number == 2_499 else {})
    before, sizes = engine.done, []
    for page in pages_of(service, user="p", labels={"last": "yes"}):
        sizes.append(len(page))
        assert engine.done - before <= 2 * 2_000 // 200
        before = engine.done
    assert sorted(sizes) == [0, 1]


@pytest.mark.parametrize("labels", ["room", ["room"], {"room": 1}, {1: "room"}])
def test_wrong_labels_are_refused(labels: Any) -> None:
    _, _, service = serve()
    with pytest.raises(ConfigurationError):
        service.sync.list(user="p", labels=labels)


def test_a_cursor_is_that_of_its_own_list() -> None:
    _, _, service = serve()
    for number in range(4):
        service.sync.create(user="p", id=f"v{number}")
    for number in range(2):
        service.sync.archive(user="p", id=f"v{number}")
    cursors = {archived: service.sync.list(user="p", limit=1, archived=archived).cursor for archived in (False, True)}
    for archived, cursor in cursors.items():
        assert cursor is not None
        assert len(service.sync.list(user="p", archived=archived, cursor=cursor).items) == 1
        with pytest.raises(ConfigurationError):
            service.sync.list(user="p", archived=not archived, cursor=cursor)
        with pytest.raises(ConfigurationError):
            service.sync.list(user="q", archived=archived, cursor=cursor)


# What a purge and an erase tell


def fill(service: SessionService, user: str | None, session_id: str) -> None:
    service.sync.create(user=user, id=session_id, state={"step": 1, "user:a": 1, "app:a": 1})
    with service.sync.open(user=user, id=session_id) as session:
        session.messages.add("user", "Hello!")
        session.messages.add("assistant", "Hi!")
        session.memory.here.set("mood", "fine")
        session.memory.set("phone", 1)


def test_an_erase_tells_what_it_has_dropped(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        for session_id in ("a", "b"):
            fill(calls.service, "p", session_id)
        fill(calls.service, "q", "a")
        assert (await calls.ask("erase", user="p"))[:4] == (2, 4, 3, 1)
        assert (await calls.ask("erase", user="p"))[:4] == (0, 0, 0, 0)
        assert await calls.read(user="q", id="a") == {"step": 1, "user:a": 1, "app:a": 1}
        assert (await calls.ask("messages", user="q", id="a")).total == 2

    calls.run(test)


def test_a_purge_drops_what_is_old_of_a_user_or_of_all_and_tells_it(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    for user, session_id in [("p", "a"), ("p", "b"), ("q", "a"), (None, "a")]:
        fill(service, user, session_id)
    service.sync.archive(user="p", id="b")
    assert service.sync.purge()[:3] == (0, 0, 0)
    assert service.sync.purge(user="p")[:3] == (0, 0, 0)
    old, soon = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    assert service.sync.purge(before=old)[:3] == service.sync.purge(user="p", before=old)[:3] == (0, 0, 0)
    assert service.sync.purge(user="p", before=soon)[:3] == (2, 4, 2)
    assert ids_of(service, user="p") == ids_of(service, user="p", archived=True) == []
    assert service.sync.memory(user="p").get("phone") == 1  # the user's own
    # An anonymous session takes along what it is a user of.
    assert service.sync.purge(before=soon.astimezone(timezone(timedelta(hours=5))))[:3] == (2, 4, 3)
    assert service.sync.purge(before=soon)[:3] == (0, 0, 0)


def test_a_purge_counts_from_the_last_commit() -> None:
    clock, _, service = serve()
    for session_id in ("a", "b"):
        service.sync.create(user="p", id=session_id)
        clock.now += 60
    moment = datetime.fromtimestamp(clock.now - 60, UTC)
    assert service.sync.purge(before=moment - timedelta(seconds=60)).sessions == 0
    assert service.sync.purge(before=moment).sessions == 1
    assert ids_of(service, user="p") == ["b"]


def test_a_session_that_is_committed_while_a_purge_runs_stays() -> None:
    clock = Clock()
    engine = Watched(MemoryEngine(clock=clock))
    service = SessionService(engine, app="clinic")
    service.sync.create(user="p", id="v")
    clock.now += 60

    def commit() -> None:
        with service.sync.open(user="p", id="v") as session:
            session["step"] = 1

    engine.before(1, commit)
    assert service.sync.purge(before=datetime.fromtimestamp(clock.now, UTC))[:3] == (0, 0, 0)
    found = service.sync.get(user="p", id="v")
    assert found is not None
    assert found.to_dict() == {"step": 1}


def test_a_turn_that_is_open_while_its_session_is_purged_writes_nothing() -> None:
    clock, _, service = serve()
    service.sync.create(user="p", id="v")
    clock.now += 60
    with pytest.raises(Exception, match="no such session"), service.sync.open(user="p", id="v") as session:
        session["step"] = 1
        assert service.sync.purge(before=datetime.fromtimestamp(clock.now, UTC)).sessions == 1
    assert service.sync.get(user="p", id="v") is None


@pytest.mark.parametrize(
    "arguments",
    [{"before": datetime(2026, 1, 1)}, {"before": "2026-01-01"}, {"before": 5}, {"user": ""}, {"user": 3}],  # noqa: DTZ001 - it is wrong
)
def test_wrong_arguments_of_a_purge_are_refused(arguments: dict[str, Any]) -> None:
    _, _, service = serve()
    with pytest.raises(ConfigurationError):
        service.sync.purge(**arguments)


# All users


def everyone(service: SessionService, **arguments: Any) -> Iterator[list[Kept]]:
    """The pages of the list of all users, one after the other."""
    cursor: str | None = None
    while True:
        page = service.sync.list_all(cursor=cursor, **arguments)
        yield page.items
        cursor = page.cursor
        if cursor is None:
            return


def names(items: list[Kept]) -> list[tuple[str | None, str]]:
    return [(item.user, item.id) for item in items]


def test_the_sessions_of_all_users_are_listed_page_by_page(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        assert await calls.ask("list_all") == listing.ListPage([], None)
        made = {(f"p{number % 9}", f"v{number}") for number in range(18)}
        for user, id_ in made:
            await calls.create(user=user, id=id_, state={"n": int(id_[1:]), "user:u": user})
        nobody = (await calls.create(user=None, state={"user:u": "mine"})).id
        await calls.create(user="p0", id="archived")
        await calls.ask("archive", user="p0", id="archived")
        await calls.create(user="p1", id="deleted")
        await calls.delete(user="p1", id="deleted")
        other = calls.of(SessionService(calls.service.engine, app="other"))
        await other.create(user="p1", id="other")
        found, cursor = [], None
        while True:
            page = await calls.ask("list_all", limit=4, cursor=cursor, state=["n", "user:u"])
            found += page.items
            cursor = page.cursor
            if cursor is None:
                break
            assert len(page.items) <= 4
        assert set(names(found)) == {*made, (None, nobody)}
        assert len(found) == 19
        assert {item.id: item.state for item in found} == {
            nobody: {"user:u": "mine"},
            **{id_: {"n": int(id_[1:]), "user:u": user} for user, id_ in made},
        }
        assert names((await calls.ask("list_all", archived=True)).items) == [("p0", "archived")]
        assert names((await other.ask("list_all")).items) == [("p1", "other")]

    calls.run(test)


@settings(max_examples=60, deadline=None)
@given(
    have=st.lists(
        st.tuples(st.sampled_from(["p", "q", None]), st.booleans(), st.sampled_from(["", "archived", "deleted"])), max_size=14
    ),
    limit=st.integers(1, 5),
    archived=st.booleans(),
    bounds=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5)),
)
def test_the_pages_of_all_users_have_each_wanted_session_once(
    have: list[tuple[str | None, bool, str]], limit: int, archived: bool, bounds: tuple[int, int, int]
) -> None:
    _, engine, service = serve()
    expected = []
    for number, (user, has_label, fate) in enumerate(have):
        whose: dict[str, Any] = {"user": user, "id": f"v{number}"}
        service.sync.create(**whose, labels={"a": "1"} if has_label else {})
        SessionService(engine, app="other").sync.create(user="p", id=f"v{number}", labels={"a": "1"})
        if fate == "archived":
            service.sync.archive(**whose)
        if fate == "deleted":
            service.sync.delete(**whose)
        if has_label and fate == ("archived" if archived else ""):
            expected.append((user, f"v{number}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_users, "AT_ONCE", bounds[0])
        patch.setattr(all_users, "MOST_LOOKED", bounds[1])
        patch.setattr(all_users, "PARTITIONS_AT_ONCE", bounds[2])
        pages = list(everyone(service, labels={"a": "1"}, limit=limit, archived=archived))
    found = [one for page in pages for one in names(page)]
    assert all(len(page) <= limit for page in pages)
    assert len(found) == len(expected)
    assert set(found) == set(expected)


def test_the_last_page_of_all_users_has_no_cursor() -> None:
    _, _, service = serve()
    for number in range(12):
        service.sync.create(user=f"p{number}", id="v")
    assert [len(page) for page in everyone(service, limit=4)] == [4, 4, 4]
    assert [len(page) for page in everyone(service, limit=1_000)] == [12]


def test_sessions_that_are_committed_while_all_are_listed_are_found_once() -> None:
    clock, _, service = serve()
    for number in range(30):
        service.sync.create(user=f"p{number % 4}", id=f"v{number}")
    found = []
    for number, page in enumerate(everyone(service, limit=3)):
        found += names(page)
        clock.now += 60
        service.sync.merge(user=f"p{number % 4}", id=f"v{number}", state={"n": 1})
        with service.sync.open(user=f"p{(29 - number) % 4}", id=f"v{29 - number}") as session:
            session["m"] = 1
    assert sorted(found) == sorted((f"p{number % 4}", f"v{number}") for number in range(30))


def test_control_lists_of_each_user_show_a_session_twice_that_was_committed_meanwhile() -> None:
    clock, _, service = serve()
    for number in range(6):
        service.sync.create(user="p", id=f"v{number}")
        clock.now += 60
    found = []
    for page in pages_of(service, user="p", order="oldest", limit=2):
        found += [item.id for item in page]
        if len(found) == 2:
            with service.sync.open(user="p", id="v0") as session:
                session["m"] = 1
    assert len(found) == 7


def test_a_session_that_goes_while_states_are_read_is_left_out() -> None:
    engine = Watched(MemoryEngine())
    service = SessionService(engine, app="clinic")
    for number in range(3):
        service.sync.create(user="p", id=f"v{number}", state={"n": number})
    engine.before(1, lambda: SessionService(engine._engine, app="clinic").sync.delete(user="p", id="v1"))
    assert {item.id: item.state for item in service.sync.list_all(state=["n"]).items} == {"v0": {"n": 0}, "v2": {"n": 2}}


def test_one_application_is_listed_among_the_rows_of_others_without_many_trips() -> None:
    engine = Watched(MemoryEngine())
    for number in range(1_000):
        SessionService(engine, app="other").sync.create(user=f"p{number}", id="v")
    service = SessionService(engine, app="clinic")
    service.sync.create(user="p", id="v")
    before = engine.done
    assert [names(page) for page in everyone(service, limit=1)] == [[("p", "v")]]
    assert engine.done - before <= 8


@pytest.mark.parametrize("wrong", ["x", "", 3, "AAAA", "A" * 43, "A" * 600])
def test_the_cursor_of_another_list_is_refused(wrong: Any) -> None:
    _, engine, service = serve()
    for number in range(4):
        for app in ("clinic", "other"):
            SessionService(engine, app=app).sync.create(user=f"p{number}", id="v")
    cursors = [
        wrong,
        SessionService(engine, app="other").sync.list_all(limit=1).cursor,
        service.sync.list(user="p0", limit=1).cursor or "x",
    ]
    for cursor in cursors:
        with pytest.raises(ConfigurationError, match="cursor="):
            service.sync.list_all(cursor=cursor)
    good = service.sync.list_all(limit=1).cursor
    assert good is not None
    with pytest.raises(ConfigurationError, match="cursor="):
        service.sync.list_all(cursor=good, archived=True)
    with pytest.raises(ConfigurationError, match="cursor="):
        service.sync.list(user="p0", cursor=good)
    with pytest.raises(ConfigurationError, match="cursor="):  # of an engine of more partitions
        SessionService(MemoryEngine(), app="clinic").sync.list_all(cursor=encode(decode(good)[:8] + b"\0\3"))


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": 1_001}, {"limit": True}, {"state": "a"}, {"archived": 1}, {"labels": {"a": 1}}]
)
def test_wrong_arguments_of_the_list_of_all_are_refused(wrong: Any) -> None:
    _, _, service = serve()
    with pytest.raises(ConfigurationError):
        service.sync.list_all(**wrong)
