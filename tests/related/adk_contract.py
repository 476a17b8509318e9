"""What google-adk's session services promise: 29 behaviours of their documentation and of the tests that their services share."""

from __future__ import annotations

from typing import Final

from tests.related.related_systems import BANK, CLINIC, Contract, Event, System, find, refused, require

ADK: Final = Contract(
    "google-adk's session services",
    "`google.adk.sessions`: its reference, its docstrings, and `tests/unittests/sessions`",
)

NIGHT: Final = 1_762_061_400.25
"""2 November 2025, half past one in the morning in New York, for the second time."""


@ADK.promises
async def a_session_that_was_made_is_found_and_no_other(system: System) -> None:
    require(await system.get("ann", "v1") is None, "a session is found that nobody has made")
    await system.create("ann", "v1", state={"step": 1})
    found = await find(system, "ann", "v1")
    require((found.id, found.state) == ("v1", {"step": 1}), "its id or its state is another")


@ADK.promises
async def an_id_is_made_up_where_none_is_given(system: System) -> None:
    made = {(await system.create("ann")).id for _ in range(3)}
    require(None not in made and len(made) == 3, "the id is not made up")
    for id in made:
        await find(system, "ann", id)


@ADK.promises
async def an_id_is_taken_without_the_spaces_around_it(system: System) -> None:
    made = await system.create("ann", " v1 ")
    require(made.id == "v1", "it is kept with its spaces")
    await find(system, "ann", "v1")
    require(await system.get("ann", "v1 ") is not None, "`get` takes the id with its spaces")


@ADK.promises
async def an_id_of_spaces_alone_counts_as_none(system: System) -> None:
    made = await system.create("ann", "   ")
    require(made.id.strip(), "it is kept as an id")


@ADK.promises
async def an_id_that_is_taken_is_refused(system: System) -> None:
    await system.create("ann", "v1", state={"step": 1})
    with refused(system.taken, "a second session takes its place"):
        await system.create("ann", "v1", state={"step": 2})
    require((await find(system, "ann", "v1")).state == {"step": 1}, "the first one has changed")


@ADK.promises
async def two_users_may_have_the_same_id_and_share_nothing(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("Hello!", state={"step": 1}))
    require(await system.get("bob", "v1") is None, "another user gets the session")
    await system.create("bob", "v1")
    other = await find(system, "bob", "v1")
    require((other.state, other.events) == ({}, []), "another user's session has something of it")
    await system.delete("bob", "v1")
    require((await find(system, "ann", "v1")).texts == ["Hello!"], "what another user deletes is gone")


@ADK.promises
async def two_applications_share_nothing(system: System) -> None:
    await system.create("ann", "v1", state={"step": 1, "user:theme": "dark", "app:motd": "Hi!"}, app=CLINIC)
    require(await system.get("ann", "v1", app=BANK) is None, "another application gets the session")
    await system.create("ann", "v1", app=BANK)
    other = await system.get("ann", "v1", app=BANK)
    require(other is not None and other.state == {}, "another application has something of its state")
    require([seen.id for seen in await system.list_sessions("ann", app=BANK)] == ["v1"], "another application lists it")


@ADK.promises
async def the_sessions_of_a_user_are_listed(system: System) -> None:
    for id in ("v1", "v2", "v3"):
        await system.create("ann", id)
    await system.create("bob", "v4")
    require({seen.id for seen in await system.list_sessions("ann")} == {"v1", "v2", "v3"}, "the list has other sessions")
    require(await system.list_sessions("eve") == [], "a user who has none has a list")


@ADK.promises
async def a_list_ends_with_the_session_that_changed_last(system: System) -> None:
    for id in ("b", "c", "a"):
        await system.append(await system.create("ann", id), Event("Hello!"))
        await system.wait()
    await system.append(await find(system, "ann", "b"), Event("And now?"))
    require([seen.id for seen in await system.list_sessions("ann")] == ["c", "a", "b"], "the list has another order")


@ADK.promises
async def the_sessions_of_all_users_are_listed(system: System) -> None:
    await system.create("ann", "v1")
    await system.create("bob", "v2")
    require({seen.id for seen in await system.list_all()} == {"v1", "v2"}, "the list has other sessions")


@ADK.promises
async def a_deleted_session_is_gone_with_its_events(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 1})
    await system.append(made, Event("Hello!"))
    await system.delete("ann", "v1")
    require(await system.get("ann", "v1") is None, "it is still found")
    await system.delete("ann", "v1")
    await system.create("ann", "v1")
    again = await find(system, "ann", "v1")
    require((again.state, again.events) == ({}, []), "a new session of its id has something of it")


@ADK.promises
async def an_event_comes_back_whole(system: System) -> None:
    made = await system.create("ann", "v1")
    picture = bytes(range(256))
    said = [
        Event("What is this?", data=picture, metadata={"channel": "web"}),
        Event(None, "assistant", call=("c1", "look_at", '{"part": "all of it"}')),
        Event("A rash.", "tool", answers="c1"),
    ]
    for event in said:
        await system.append(made, event)
    asked, called, answered = (await find(system, "ann", "v1")).events
    require((asked.text, asked.role) == ("What is this?", "user"), "its text or its author is another")
    require(asked.data == picture, "bytes have changed")
    require(asked.metadata == {"channel": "web"}, "its metadata are lost")
    require(called.call == said[1].call, "the call of a tool has changed")
    require((answered.text, answered.answers) == ("A rash.", "c1"), "the result of a tool is not that of the call any more")


@ADK.promises
async def events_of_one_moment_keep_their_order(system: System) -> None:
    made = await system.create("ann", "v1")
    for number in range(8):
        await system.append(made, Event(f"n{number}", at=NIGHT))
    require((await find(system, "ann", "v1")).texts == [f"n{number}" for number in range(8)], "they come back in another order")


@ADK.promises
async def the_newest_events_alone_are_read_or_none(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 1})
    for number in range(5):
        await system.append(made, Event(f"n{number}", at=NIGHT + number))
    newest, none = await system.get("ann", "v1", last=2), await system.get("ann", "v1", last=0)
    require(newest is not None and newest.texts == ["n3", "n4"], "the newest two are others")
    require(none is not None and none.events == [], "with 0 there are events")
    require(none is not None and none.state == {"step": 1}, "with 0 there is no state")


@ADK.promises
async def the_events_from_a_moment_on_are_read_with_that_of_the_moment(system: System) -> None:
    made = await system.create("ann", "v1")
    for number in range(5):
        await system.append(made, Event(f"n{number}", at=NIGHT + number))
    found = await system.get("ann", "v1", since=NIGHT + 3)
    require(found is not None and found.texts == ["n3", "n4"], "they are others")
    both = await system.get("ann", "v1", last=3, since=NIGHT + 1)
    require(both is not None and both.texts == ["n2", "n3", "n4"], "with a number, too, they are others")


@ADK.promises
async def an_event_keeps_its_own_time_exactly(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("Hello!", at=NIGHT))
    (event,) = (await find(system, "ann", "v1")).events
    require(event.at == NIGHT, "its time is another")


@ADK.promises
async def an_event_that_is_only_begun_is_not_kept(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 1})
    await system.break_off(made, Event("Hel", state={"step": 2}))
    found = await find(system, "ann", "v1")
    require((found.state, found.events) == ({"step": 1}, []), "it is kept")


@ADK.promises
async def an_event_replaces_a_key_of_the_state_as_a_whole(system: System) -> None:
    made = await system.create("ann", "v1", state={"form": {"name": "Ann", "age": 40}, "app:form": {"a": 1}, "step": 1})
    await system.append(made, Event("1", state={"form": {"name": "Anna"}, "app:form": {"b": 2}}))
    found = await find(system, "ann", "v1")
    require(found.state["form"] == {"name": "Anna"}, "a dict is merged into the one before")
    require(found.state["app:form"] == {"b": 2}, "a dict of the application is merged into the one before")
    require(found.state["step"] == 1, "a key that the event does not name has changed")


@ADK.promises
async def none_and_booleans_are_values(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": None, "user:done": True})
    await system.append(made, Event("1", state={"other": None, "user:done": False}))
    found = (await find(system, "ann", "v1")).state
    require("step" in found and "other" in found, "a key that is None is dropped")
    require((found["step"], found["other"]) == (None, None), "None comes back as something else")
    require(found["user:done"] is False, "a boolean comes back as something else")


@ADK.promises
async def the_keys_of_the_application_are_shared_by_all_users(system: System) -> None:
    made = await system.create("ann", "v1", state={"app:motd": "Hi!"})
    await system.create("bob", "v2")
    await system.append(made, Event("1", state={"app:rooms": 4}))
    found = (await find(system, "bob", "v2")).state
    require(found == {"app:motd": "Hi!", "app:rooms": 4}, "another user's session has other keys")


@ADK.promises
async def the_keys_of_a_user_are_shared_by_all_sessions_of_the_user(system: System) -> None:
    made = await system.create("ann", "v1", state={"user:theme": "dark"})
    for user, id in (("ann", "v2"), ("bob", "v3")):
        await system.create(user, id)
    await system.append(made, Event("1", state={"user:units": "metric"}))
    found = (await find(system, "ann", "v2")).state
    require(found == {"user:theme": "dark", "user:units": "metric"}, "another session of the user has other keys")
    require((await find(system, "bob", "v3")).state == {}, "another user has them")


@ADK.promises
async def a_new_session_has_what_is_shared_and_nothing_else(system: System) -> None:
    await system.create("ann", "v1", state={"step": 1, "user:theme": "dark", "app:motd": "Hi!"})
    made = await system.create("ann", "v2", state={"step": 9})
    shared = {"user:theme": "dark", "app:motd": "Hi!"}
    require(made.state == {"step": 9, **shared}, "what `create` returns has other keys")
    require((await find(system, "ann", "v2")).state == {"step": 9, **shared}, "it has other keys")
    require((await find(system, "ann", "v1")).state == {"step": 1, **shared}, "the first one has changed")


@ADK.promises
async def temporary_keys_last_for_the_turn(system: System) -> None:
    made = await system.create("ann", "v1", state={"temp:draft": 1, "step": 1})
    require((await find(system, "ann", "v1")).state == {"step": 1}, "a temporary key of `create` is kept")
    await system.append(made, Event("1", state={"temp:draft": 2, "step": 2}))
    require(made.state.get("temp:draft") == 2, "the turn does not see it")
    require((await find(system, "ann", "v1")).state == {"step": 2}, "a temporary key of an event is kept")


@ADK.promises
async def a_writer_whose_session_has_changed_is_refused(system: System) -> None:
    await _write_twice(system, NIGHT, NIGHT + 1)


@ADK.promises
async def it_is_refused_where_what_came_between_has_no_newer_time(system: System) -> None:
    await _write_twice(system, NIGHT, NIGHT, before=NIGHT)


@ADK.promises
async def it_is_refused_where_what_came_between_has_an_older_time(system: System) -> None:
    await _write_twice(system, NIGHT, NIGHT + 1, before=NIGHT + 60)


async def _write_twice(system: System, first_at: float, second_at: float, *, before: float | None = None) -> None:
    """Two writers read a session, and then write it one after the other."""
    made = await system.create("ann", "v1", state={"count": 0})
    await system.append(made, Event("0", at=NIGHT - 1 if before is None else before))
    first, second = await find(system, "ann", "v1"), await find(system, "ann", "v1")
    await system.append(first, Event("first", state={"count": 1}, at=first_at))
    with refused(system.stale, "the second is taken too, and nobody is told"):
        await system.append(second, Event("second", state={"count": 1}, at=second_at))
    require(set((await find(system, "ann", "v1")).texts) == {"0", "first"}, "the second is told, and its event is kept")


@ADK.promises
async def an_event_for_a_deleted_session_is_refused(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.delete("ann", "v1")
    with refused(system.unknown, "it is taken"):
        await system.append(made, Event("Hello!"))
    require(await system.get("ann", "v1") is None, "it brings the session back")


@ADK.promises
async def a_rewind_leaves_the_state_of_the_beginning(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 1, "form": "blank"})
    await system.append(made, Event("1", state={"step": 2}))
    await system.append(made, Event("2", state={"step": 3, "form": "filled"}))
    await system.rewind(await find(system, "ann", "v1"), 1)
    state = (await find(system, "ann", "v1")).state
    require(state == {"step": 2, "form": "blank"}, f"the state is `{state}`, and was `{{'step': 2, 'form': 'blank'}}`")
    await system.rewind(await find(system, "ann", "v1"), 0)
    state = (await find(system, "ann", "v1")).state
    require(state == {"step": 1, "form": "blank"}, f"the state is `{state}`, and was `{{'step': 1, 'form': 'blank'}}`")


@ADK.promises
async def what_a_user_shares_is_read_without_a_session(system: System) -> None:
    require(await system.user_state("ann") == {}, "a user of whom nothing is known has a state")
    await system.create("ann", "v1", state={"step": 1, "user:theme": "dark"})
    require(await system.user_state("ann") == {"theme": "dark"}, "it is something else")
