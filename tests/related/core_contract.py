"""What adk-rust's session services promise: the contract of their tests, and what the document of the Python binding lists."""

from __future__ import annotations

from typing import Final

from tests.related.related_systems import BANK, CLINIC, Contract, Event, System, find, refused, require

CORE: Final = Contract(
    "adk-rust's session services",
    "`adk-session/tests` of adk-rust, and the session module of its Python binding",
)

MOMENT: Final = 1_767_225_600.5
SECOND: Final = 1.0


@CORE.promises
async def what_is_missing_has_an_error_with_a_code_of_its_own(system: System) -> None:
    with refused(system.unknown, "nothing is raised"):
        await system.open("ann", "v1")
    codes = {getattr(error, "code", None) for error in system.unknown}
    others = {getattr(error, "code", None) for error in (*system.wrong, *system.stale, *system.taken)}
    require(all(codes) and not codes & others, "the error has no code of its own")


@CORE.promises
async def a_user_without_a_name_is_a_wrong_argument(system: System) -> None:
    with refused(system.wrong, "it is taken"):
        await system.get("", "v1")
    with refused(system.wrong, "a session is made for it"):
        await system.create("")


@CORE.promises
async def a_session_knows_its_id_its_user_its_state_and_its_history(system: System) -> None:
    made = await system.create("ann", state={"step": 1})
    await system.append(made, Event("Hello!"))
    found = await find(system, "ann", made.id)
    require((found.id, found.user) == (made.id, "ann"), "its id or its user is another")
    require((found.state, found.texts) == ({"step": 1}, ["Hello!"]), "its state or its history is another")
    require(found.updated_at, "nobody knows when it changed last")


@CORE.promises
async def the_state_of_a_new_session_is_split_by_prefix(system: System) -> None:
    state = {"app:locale": "en-US", "user:name": "Ann", "seed": 1, "temp:create": "x"}
    made = await system.create("ann", "v1", state=state)
    del state["temp:create"]
    require((await find(system, "ann", made.id)).state == state, "it is not put together again, without the temporary keys")
    await system.create("ann", "v2")
    await system.create("bob", "v3")
    require(
        (await find(system, "ann", "v2")).state == {"app:locale": "en-US", "user:name": "Ann"}, "the user's keys are not shared"
    )
    require((await find(system, "bob", "v3")).state == {"app:locale": "en-US"}, "the application's keys are not shared")


@CORE.promises
async def the_later_event_stands_and_its_temporary_keys_do_not(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("1", state={"result": "ok-1", "temp:event": "x"}, at=MOMENT))
    await system.append(made, Event("2", state={"result": "ok-2"}, at=MOMENT + SECOND))
    found = await find(system, "ann", "v1")
    require((found.texts, found.state) == (["1", "2"], {"result": "ok-2"}), "its events or its state are others")


@CORE.promises
async def the_newest_event_alone_is_read(system: System) -> None:
    made = await system.create("ann", "v1")
    for number in range(3):
        await system.append(made, Event(f"n{number}", at=MOMENT + number))
    found = await system.get("ann", "v1", last=1)
    require(found is not None and found.texts == ["n2"], "it is another, or there are more")


@CORE.promises
async def the_events_after_a_moment_include_that_of_the_moment(system: System) -> None:
    made = await system.create("ann", "v1")
    for number in range(2):
        await system.append(made, Event(f"n{number}", at=MOMENT + number))
    found = await system.get("ann", "v1", since=MOMENT + SECOND)
    require(found is not None and found.texts == ["n1"], "they are others")


@CORE.promises
async def lists_of_two_users_have_nothing_in_common(system: System) -> None:
    await system.create("ann", "v1")
    await system.create("bob", "v2")
    require([seen.id for seen in await system.list_sessions("ann")] == ["v1"], "one lists the other's")
    require([seen.id for seen in await system.list_sessions("bob")] == ["v2"], "one lists the other's")


@CORE.promises
async def lists_of_two_applications_have_nothing_in_common(system: System) -> None:
    await system.create("ann", "v1", app=CLINIC)
    await system.create("ann", "v2", app=BANK)
    require([seen.id for seen in await system.list_sessions("ann", app=CLINIC)] == ["v1"], "one lists the other's")
    require([seen.id for seen in await system.list_sessions("ann", app=BANK)] == ["v2"], "one lists the other's")


@CORE.promises
async def a_session_of_another_user_looks_like_a_missing_one(system: System) -> None:
    await system.create("ann", "v1")
    messages = []
    for id in ("v1", "v2"):
        try:
            await system.open("bob", id)
        except system.unknown as error:
            messages.append(f"{type(error).__name__}: {error}".replace(id, "ID"))
    require(len(messages) == 2 and messages[0] == messages[1], "another user can tell whether there is such a session")


@CORE.promises
async def another_user_appends_to_no_session_and_deletes_none(system: System) -> None:
    await system.create("ann", "v1")
    with refused(system.unknown, "another user adds to it"):
        await system.add("bob", "v1", [{"role": "user", "content": "Hello!"}])
    await system.delete("bob", "v1")
    require((await find(system, "ann", "v1")).events == [], "another user has added to it")


@CORE.promises
async def another_application_appends_to_no_session_and_deletes_none(system: System) -> None:
    await system.create("ann", "v1", app=CLINIC)
    with refused(system.unknown, "another application adds to it"):
        await system.add("ann", "v1", [{"role": "user", "content": "Hello!"}], app=BANK)
    await system.delete("ann", "v1", app=BANK)
    require((await find(system, "ann", "v1")).events == [], "another application has added to it")


@CORE.promises
async def a_deleted_session_is_missing(system: System) -> None:
    await system.create("ann", "v1")
    await system.delete("ann", "v1")
    with refused(system.unknown, "it is still there"):
        await system.open("ann", "v1")


@CORE.promises
async def a_session_that_is_made_again_has_no_old_events(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("old"))
    require((await find(system, "ann", "v1")).texts == ["old"], "the first one has no events")
    await system.delete("ann", "v1")
    await system.create("ann", "v1")
    require((await find(system, "ann", "v1")).events == [], "it has old events")


@CORE.promises
async def events_of_equal_times_stay_as_they_were_appended(system: System) -> None:
    made = await system.create("ann", "v1")
    for number in range(6):
        await system.append(made, Event(f"n{number}", at=MOMENT + number // 3))
    require((await find(system, "ann", "v1")).texts == [f"n{number}" for number in range(6)], "they come back in another order")


@CORE.promises
async def each_call_takes_one_object(system: System) -> None:
    found, listed = await system.call_with_objects("ann", "v1", {"step": 1, "temp:x": 1})
    require((found.id, found.user, found.state) == ("v1", "ann", {"step": 1}), "what it makes is another session")
    require(listed == ["v1"], "it lists others")
    require(await system.get("ann", "v1") is None, "it deletes nothing")


@CORE.promises
async def state_and_event_are_written_together(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 1})
    older = await find(system, "ann", "v1")
    await system.append(made, Event("1", state={"step": 2}))
    with refused(system.stale, "the second is taken too, and nobody is told"):
        await system.append(older, Event("2", state={"step": 3, "user:theme": "dark", "app:motd": "Hi!"}))
    found = await find(system, "ann", "v1")
    require((found.state, found.texts) == ({"step": 2}, ["1"]), "an event that was refused has left something")
