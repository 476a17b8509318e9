"""What PYAI's document on sessions promises, call by call."""

from __future__ import annotations

from typing import Final

import anyio

from tests.related.related_systems import Contract, Event, System, find, refused, require

PYAI: Final = Contract("PYAI's sessions module", "`docs/wiki/Sessions.md` of PYAI")

DAY_S: Final = 86_400
MOMENT_S: Final = 0.001


@PYAI.promises
async def a_session_is_made_for_a_user_with_an_id_that_is_made_up(system: System) -> None:
    made = await system.create("ann")
    require(made.id, "its id is None")
    require((await find(system, "ann", made.id)).user == "ann", "its user is another")


@PYAI.promises
async def what_was_said_is_saved_and_found_by_the_id(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("Hello!"), Event("Hi there!", "assistant"))
    said = [(event.role, event.text) for event in (await find(system, "ann", "v1")).events]
    require(said == [("user", "Hello!"), ("assistant", "Hi there!")], "it comes back as something else")


@PYAI.promises
async def what_was_not_saved_is_not_there(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("Hello!"))
    await system.break_off(made, Event("Are you"))
    require((await find(system, "ann", "v1")).texts == ["Hello!"], "it is there without having been saved")


@PYAI.promises
async def a_session_has_metadata(system: System) -> None:
    await system.create("ann", "v1", metadata={"channel": "web", "language": "en"})
    require((await find(system, "ann", "v1")).about == {"channel": "web", "language": "en"}, "they are others")


@PYAI.promises
async def a_session_has_state_of_its_own_by_key(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("1", state={"last_topic": "PYAI", "seen": [1, {"a": None}]}))
    found = await find(system, "ann", "v1")
    require(found.state == {"last_topic": "PYAI", "seen": [1, {"a": None}]}, "it comes back as something else")


@PYAI.promises
async def a_session_says_when_it_was_made_and_when_it_changed(system: System) -> None:
    made = await system.create("ann", "v1")
    first = await find(system, "ann", "v1")
    await system.append(made, Event("Hello!"))
    second = await find(system, "ann", "v1")
    require(first.created_at, "nobody knows when it was made")
    require(first.updated_at, "nobody knows when it changed")
    assert first.created_at is not None
    assert first.updated_at is not None
    assert second.updated_at is not None
    require(second.texts == ["Hello!"] and first.created_at == second.created_at, "when it was made changes")
    require(second.updated_at >= first.updated_at >= first.created_at, "when it changed is before that")


@PYAI.promises
async def a_session_says_how_many_messages_it_has(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, *(Event(f"n{number}") for number in range(3)))
    _, total = await system.page("ann", "v1", limit=1)
    require(total == 3, "it says another number")


@PYAI.promises
async def the_newest_session_of_a_user_is_gone_on_with(system: System) -> None:
    for id in ("v1", "v2"):
        made = await system.create("ann", id)
        await system.append(made, Event(f"in {id}"))
        await system.wait()
    newest = (await system.list_sessions("ann"))[-1]
    found = await find(system, "ann", newest.id)
    require(found.texts == ["in v2"], "the newest one is another")
    await system.append(found, Event("And now?"))
    require((await find(system, "ann", "v2")).texts == ["in v2", "And now?"], "it does not go on")


@PYAI.promises
async def a_session_is_made_where_there_is_none_of_its_id(system: System) -> None:
    first = await system.get_or_create("ann", "v1")
    await system.append(first, Event("Hello!"))
    require((await system.get_or_create("ann", "v1")).texts == ["Hello!"], "it begins anew")


@PYAI.promises
async def a_session_is_deleted_with_its_messages(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("Hello!"))
    require(await system.delete("ann", "v1"), "nobody says that it was there")
    require(await system.get("ann", "v1") is None, "it is still found")
    require(not await system.delete("ann", "v1"), "nobody says that it was not there any more")


@PYAI.promises
async def all_sessions_are_cleared(system: System) -> None:
    for id in ("v1", "v2"):
        await system.append(await system.create("ann", id), Event("Hello!"))
    require(len(await system.list_sessions("ann")) == 2, "they are not listed")
    await system.clear("ann")
    require(await system.list_sessions("ann") == [], "some are left")


@PYAI.promises
async def sessions_are_there_after_a_restart(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 1})
    await system.append(made, Event("Hello!"))
    await system.restart()
    found = await find(system, "ann", "v1")
    require((found.state, found.texts) == ({"step": 1}, ["Hello!"]), "they are others")


@PYAI.promises
async def a_tool_call_and_its_result_stay_linked(system: System) -> None:
    made = await system.create("ann", "v1")
    call = ("c1", "find_slot", "{}")
    await system.append(made, Event(None, "assistant", call=call), Event("Tuesday", "tool", answers="c1"))
    called, answered = (await find(system, "ann", "v1")).events
    require((called.call, answered.answers) == (call, "c1"), "they are not linked any more")


@PYAI.promises
async def a_session_ends_when_its_time_is_over(system: System) -> None:
    lasting, short = system.with_ttl(DAY_S), system.with_ttl(50 * MOMENT_S)
    await lasting.create("ann", "v1")
    await short.create("ann", "v2")
    await anyio.sleep(60 * MOMENT_S)
    require(await short.get("ann", "v2") is None, "it is still found")
    require([seen.id for seen in await short.list_sessions("ann")] == ["v1"], "it is listed, or the other one is not")


@PYAI.promises
async def a_store_of_the_users_own_is_taken(system: System) -> None:
    log: list[str] = []
    own = system.with_own_store(log)
    await own.append(await own.create("ann", "v1"), Event("Hello!"))
    require((await find(own, "ann", "v1")).texts == ["Hello!"], "it keeps something else")
    require(await own.delete("ann", "v1") and log, "its store is not asked")


@PYAI.promises
async def a_session_is_taken_back_by_so_many_messages(system: System) -> None:
    made = await system.create("ann", "v1")
    for number in range(4):
        await system.append(made, Event(f"n{number}"))
    await system.rewind(await find(system, "ann", "v1"), 2)
    require((await find(system, "ann", "v1")).texts == ["n0", "n1"], "its messages are others")


@PYAI.promises
async def a_session_is_taken_back_to_before_a_message(system: System) -> None:
    made = await system.create("ann", "v1")
    for number in range(4):
        await system.append(made, Event(f"n{number}", state={"step": number}))
    seen = await find(system, "ann", "v1")
    await system.rewind_before(seen, seen.events[2])
    require((await find(system, "ann", "v1")).texts == ["n0", "n1"], "its messages are others")


@PYAI.promises
async def a_checkpoint_is_there_after_a_restart_and_brings_messages_and_state_back(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 0})
    await system.append(made, Event("n0", state={"step": 1}))
    await system.checkpoint(await find(system, "ann", "v1"), "before_research")
    await system.append(await find(system, "ann", "v1"), Event("n1", state={"step": 2}))
    await system.restart()
    await system.rewind_to(await find(system, "ann", "v1"), "before_research")
    found = await find(system, "ann", "v1")
    require((found.texts, found.state) == (["n0"], {"step": 1}), f"there are `{found.texts}` and `{found.state}`")


@PYAI.promises
async def an_archived_session_is_in_no_list_and_takes_no_message(system: System) -> None:
    for id in ("v1", "v2"):
        await system.append(await system.create("ann", id), Event("Hello!"))
    await system.archive("ann", "v1")
    require([seen.id for seen in await system.list_sessions("ann")] == ["v2"], "it is listed")
    found = await find(system, "ann", "v1")
    require(found.texts == ["Hello!"], "it cannot be read any more")
    with refused(system.closed, "it takes one"):
        await system.append(found, Event("Are you there?"))


@PYAI.promises
async def sessions_that_nobody_has_used_for_so_long_are_archived(system: System) -> None:
    for id in ("v1", "v2"):
        await system.append(await system.create("ann", id), Event("Hello!"))
    require(await system.archive_idle(30 * DAY_S) == 0, "they are archived in the first month, too")
    await anyio.sleep(10 * MOMENT_S)
    require(await system.archive_idle(MOMENT_S) == 2, "the count is another")
    require(await system.list_sessions("ann") == [], "they are listed")


@PYAI.promises
async def two_holders_of_a_session_lose_nothing_silently(system: System) -> None:
    await system.create("ann", "v1")
    first, second = await find(system, "ann", "v1"), await find(system, "ann", "v1")
    await system.append(first, Event("from the first"))
    try:
        await system.append(second, Event("from the second"))
    except system.stale:
        return
    texts = (await find(system, "ann", "v1")).texts
    require(texts == ["from the first", "from the second"], f"both are taken, and there is `{texts}`")
