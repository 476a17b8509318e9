"""The log of a session: what was done to it, in one order, page by page."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcaf.core.errors import ConfigurationError, UnknownSessionError
from dcaf.service import Event, MessageEvent, SessionService, events
from dcaf.service.plans import ask
from tests.service.kept_places import Calls
from tests.service.test_archive import serve

WHOSE: dict[str, Any] = {"user": "p", "id": "v"}


def show(event: Event) -> Any:
    """An entry without moments and cursors."""
    if event.kind == "message":
        return event.revision, event.number, event.message.content
    return event.revision, event.kind, event.set, event.deleted


def read_all(service: SessionService, **arguments: Any) -> list[Event]:
    return service.sync.list_events(**WHOSE, limit=1_000, **arguments).items


def pages_before(service: SessionService, limit: int, cursor: str | None = None) -> list[Event]:
    """The log up to a place, read from there."""
    found: list[Event] = []
    while True:
        page = service.sync.list_events(**WHOSE, limit=limit, before=cursor)
        assert len(page.items) <= limit
        found, cursor = page.items + found, page.cursor
        if cursor is None:
            return found


def pages_after(service: SessionService, limit: int, cursor: str) -> list[Event]:
    """The log from a place on."""
    found: list[Event] = []
    while True:
        page = service.sync.list_events(**WHOSE, limit=limit, after=cursor)
        assert len(page.items) <= limit
        found += page.items
        if page.cursor is None:
            return found
        cursor = page.cursor


def test_the_log_has_all_that_was_done_in_order(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(**WHOSE, state={"step": 1, "user:theme": "dark", "app:motd": "hi"})
        async with calls.open(**WHOSE) as session:
            session.messages.add("user", "one")
            session["step"] = 2
            session["user:theme"] = None
            session["app:motd"] = "ho"
            session.messages.add("assistant", "two")
        async with calls.open(**WHOSE) as session:
            session.messages.add("user", "three")
        await calls.ask("append", **WHOSE, messages=[("user", "four")])
        await calls.ask("merge", **WHOSE, state={"doctor": "ill"})
        await calls.ask("append", **WHOSE, messages=[("user", "five")])
        async with calls.open(**WHOSE) as session:
            del session["step"]
        await calls.ask("rewind", **WHOSE, to=3)
        page = await calls.ask("list_events", **WHOSE)
        assert [show(event) for event in page.items] == [
            (1, "state", {"step": 1, "user:theme": "dark"}, ()),
            (2, 1, "one"),
            (2, 2, "two"),
            (2, "state", {"step": 2, "user:theme": None}, ()),
            (3, 3, "three"),
            (3, "state", {"doctor": "ill"}, ()),
            (4, "state", {}, ("step",)),
            (5, "rewind", {"step": 2}, ("doctor",)),
        ]
        assert page.cursor is None
        assert [event.number for event in page.items if event.kind != "message"] == [0, 1, 2, 3, 4]
        assert all(event.at.tzinfo is not None for event in page.items)
        assert all(isinstance(event, MessageEvent) == (event.kind == "message") for event in page.items)
        first = await calls.ask("list_events", **WHOSE, limit=3)
        assert [event.number for event in first.items] == [2, 3, 4]
        older = await calls.ask("list_events", **WHOSE, limit=3, before=first.cursor)
        assert older.items == page.items[2:5]
        newer = await calls.ask("list_events", **WHOSE, limit=2, after=older.items[-1].cursor)
        assert newer.items == page.items[5:7]

    calls.run(test)


def test_the_first_entry_is_the_state_with_which_a_session_was_made_also_where_it_was_made_by_a_turn() -> None:
    _, _, service = serve()
    with service.sync.open(user="p") as session:
        session["step"] = 1
        session.messages.add("user", "one")
    found = service.sync.list_events(user="p", id=session.id).items
    assert [show(event) for event in found] == [(1, "state", {"step": 1}, ()), (1, 1, "one")]
    service.sync.fork(user="p", id=session.id, new_id="w")
    forked = service.sync.list_events(user="p", id="w").items
    assert [show(event) for event in forked] == [show(event) for event in found]


STEP = st.one_of(
    st.tuples(st.just("turn"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("append"), st.integers(1, 2)),
    st.tuples(st.just("merge")),
    st.tuples(st.just("rewind"), st.integers(0, 6)),
)


class Written:
    """A session, and its log as it must be.

    Attributes:
        log: The entries, each as ``show`` gives it.
    """

    def __init__(self, service: SessionService) -> None:
        self._service, self._calls = service, service.sync
        self._calls.create(**WHOSE)
        self.log: list[Any] = [(1, "state", 0)]
        self._revision, self._said, self._changed = 1, 0, 0

    def do(self, step: tuple[Any, ...]) -> None:
        """Do something to it."""
        getattr(self, f"_{step[0]}")(*step[1:])

    def _turn(self, count: int, is_changed: bool) -> None:
        if not (count or is_changed):
            return
        with self._calls.open(**WHOSE) as session:
            for _ in range(count):
                session.messages.add("user", self._say())
            if is_changed:
                session["n"] = self._change()
        self._revision += 1
        self._add(count, is_changed)

    def _append(self, count: int) -> None:
        self._calls.append(**WHOSE, messages=[("user", self._say()) for _ in range(count)])
        self._add(count, False)

    def _merge(self) -> None:
        self._calls.merge(**WHOSE, state={"n": self._change()})
        self._add(0, True)

    def _rewind(self, to: int) -> None:
        to = min(to, sum(entry[1] == "message" for entry in self.log))
        self._calls.rewind(**WHOSE, to=to)
        messages = [entry for entry in self.log if entry[1] == "message"]
        gone = messages[to:]
        self.log = [entry for entry in self.log if entry not in gone]
        self._revision += 1
        self.log.append((self._revision, "rewind", None))

    def _say(self) -> str:
        self._said += 1
        return str(self._said)

    def _change(self) -> int:
        self._changed += 1
        return self._changed

    def _add(self, count: int, is_changed: bool) -> None:
        self.log += [(self._revision, "message", str(self._said - count + at + 1)) for at in range(count)]
        if is_changed:
            self.log.append((self._revision, "state", self._changed))


def show_short(event: Event) -> Any:
    if event.kind == "message":
        return event.revision, "message", event.message.content
    return event.revision, event.kind, None if event.kind == "rewind" else event.set.get("n", 0)


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(STEP, max_size=9), limit=st.integers(1, 4), cut=st.integers(0, 9))
@example(steps=[("turn", 3, True), ("rewind", 1), ("turn", 3, False), ("append", 2)], limit=1, cut=1)
@example(steps=[("turn", 3, True), ("append", 2), ("rewind", 1), ("turn", 3, True), ("rewind", 3)], limit=1, cut=2)
def test_pages_of_the_log_are_the_log(steps: list[Any], limit: int, cut: int) -> None:
    _, _, service = serve()
    written = Written(service)
    for step in steps[:cut]:
        written.do(step)
    seen = read_all(service)
    for step in steps[cut:]:
        written.do(step)
    whole = read_all(service)
    assert [show_short(event) for event in whole] == written.log
    assert pages_before(service, limit) == whole == [whole[0], *pages_after(service, limit, whole[0].cursor)]
    for event in seen:  # a cursor of an entry that was read, or taken back, since stays good
        later, earlier = read_all(service, after=event.cursor), read_all(service, before=event.cursor)
        assert [*earlier, *later] == [other for other in whole if other != event]
        assert pages_before(service, limit, event.cursor) == earlier
        assert pages_after(service, limit, event.cursor) == later
    assert read_all(service, after=seen[-1].cursor) == [event for event in whole if event not in seen]


def test_control_new_messages_are_missed_where_a_rewind_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> list[Any]:
        _, _, service = serve()
        written = Written(service)
        written.do(("turn", 3, True))
        last = read_all(service)[-1]
        written.do(("rewind", 1))
        written.do(("turn", 1, False))
        return [show_short(event) for event in read_all(service, after=last.cursor)]

    assert test() == [(3, "rewind", None), (4, "message", "4")]
    monkeypatch.setattr(events, "min", lambda found: found[0], raising=False)
    assert test() == [(3, "rewind", None)]


def test_a_page_is_one_trip() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE)
    plan = service._calls.list_events("p", "v", 10, None, None)
    transaction = next(plan)
    with pytest.raises(StopIteration):
        plan.send(ask(service.engine, transaction))


def test_wrong_arguments_are_refused() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE)
    service.sync.create(user="p", id="w")
    other = service.sync.list_events(user="p", id="w").items[0].cursor
    own = read_all(service)[0].cursor
    wrong: list[dict[str, Any]] = [
        *({"limit": limit} for limit in (0, -1, 1_001, True, "1", None)),
        *({way: cursor} for way in ("before", "after") for cursor in (other, "", "x", own + "A", 3, own[:-4])),
        {"before": own, "after": own},
    ]
    for arguments in wrong:
        with pytest.raises(ConfigurationError):
            service.sync.list_events(**WHOSE, **arguments)
    for user, session_id in [("q", "v"), ("p", "x"), (None, "v")]:
        with pytest.raises(UnknownSessionError):
            service.sync.list_events(user=user, id=session_id)


def test_no_representation_of_an_entry_shows_a_value() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE, state={"canary": "canary"})
    service.sync.append(**WHOSE, messages=[("user", "canary")])
    assert "canary" not in repr(read_all(service))
