"""What the reference of google-adk's sessions module promises beside its services: names that no test of its own asks for."""

from __future__ import annotations

from typing import Final

from tests.related.related_systems import Contract, Event, System, find, refused, require

REFERENCE: Final = Contract(
    "the reference of `google.adk.sessions`", "the page of the module: `BaseSessionService`, `Session`, `State`"
)


@REFERENCE.promises
async def the_events_of_a_session_are_listed(system: System) -> None:
    made = await system.create("ann", "v1", state={"step": 1})
    for number in range(3):
        await system.append(made, Event(f"n{number}", state={"step": number + 2, f"k{number}": True}))
    events = await system.list_events("ann", "v1")
    require([event.text for event in events if event.text is not None] == ["n0", "n1", "n2"], "they are others")
    replayed: dict[str, object] = {}
    for event in events:
        replayed.update(event.state)
    require(replayed == (await find(system, "ann", "v1")).state, "they do not lead to the state")


@REFERENCE.promises
async def a_session_that_was_closed_takes_no_event(system: System) -> None:
    made = await system.create("ann", "v1")
    await system.append(made, Event("Hello!"))
    await system.close(made)
    with refused(system.closed, "it takes one"):
        await system.append(await find(system, "ann", "v1"), Event("Are you there?"))
    require((await find(system, "ann", "v1")).texts == ["Hello!"], "it cannot be read any more, or has another event")


@REFERENCE.promises
async def the_calls_are_there_without_await(system: System) -> None:
    found = system.call_without_await("ann", "v1", Event("Hello!", state={"step": 2}))
    require((found.id, found.texts, found.state) == ("v1", ["Hello!"], {"step": 2}), "they do something else")
    require(await system.get("ann", "v1") is None, "the session is still there")


@REFERENCE.promises
async def a_state_lays_its_pending_changes_over_its_value(system: System) -> None:
    state = system.make_state({"initial": "value", "both": 1}, {"update": "pending", "both": 2})
    require(state.has_delta(), "it says that nothing is pending")
    require((state["initial"], state["update"], state["both"]) == ("value", "pending", 2), "its values are others")
    require(state.get("missing", "nobody") == "nobody" and "missing" not in state, "it has a key that nobody gave it")
    require(state.to_dict() == {"initial": "value", "update": "pending", "both": 2}, "as a dict it is another")


@REFERENCE.promises
async def an_update_of_a_state_is_pending(system: System) -> None:
    value, delta = {"initial": "value"}, dict[str, object]()
    state = system.make_state(value, delta)
    require(not state.has_delta(), "it says that something is pending")
    state.update({"more": "changes"})
    state["initial"] = "changed"
    require(state.has_delta() and delta == {"more": "changes", "initial": "changed"}, "what is pending is something else")
    require(state.to_dict() == {"initial": "changed", "more": "changes"}, "as a dict it is another")


@REFERENCE.promises
async def a_list_that_a_state_gave_is_pending_once_it_is_changed(system: System) -> None:
    state = system.make_state({"cart": ["tea"]}, {})
    state["cart"].append("milk")
    require(state.has_delta(), "nobody notices")
    require(state.to_dict() == {"cart": ["tea", "milk"]}, "the change is lost")


@REFERENCE.promises
async def a_state_names_the_three_prefixes(system: System) -> None:
    kind = type(system.make_state({}, {}))
    require((kind.APP_PREFIX, kind.USER_PREFIX, kind.TEMP_PREFIX) == ("app:", "user:", "temp:"), "they are others")
