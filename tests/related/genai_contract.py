"""What the session service of the GenAI platform promises in its README, call by call."""

from __future__ import annotations

from typing import Any, Final

from tests.related.related_systems import Contract, Event, System, find, refused, require

GENAI: Final = Contract("the GenAI platform's session service", "`services/sessions/README.md` of genai_platform")

TURN: Final[list[dict[str, Any]]] = [
    {"role": "user", "content": "Check my appointment"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_123", "type": "function", "function": {"name": "check_appointment", "arguments": '{"user_id": "123"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_123", "content": '{"time": "2pm", "status": "confirmed"}'},
    {"role": "assistant", "content": "Your appointment is at 2pm."},
]
FACTS: Final[dict[str, Any]] = {
    "allergies": ["penicillin", "latex"],
    "medications": [{"name": "lisinopril", "dosage_mg": 10}],
    "preferred_time": "morning",
    "age": 61,
    "weight_kg": 70.5,
    "smokes": False,
    "doctor": None,
}


@GENAI.promises
async def get_or_create_makes_a_session_of_a_user(system: System) -> None:
    first, second = await system.get_or_create("ann"), await system.get_or_create("ann")
    require(first.id and first.user == "ann", "it has no id, or another user")
    require(first.id != second.id, "without an id the same session comes back")
    require(first.created_at and first.updated_at, "nobody knows when it was made")


@GENAI.promises
async def get_or_create_goes_on_with_the_session_of_an_id(system: System) -> None:
    made = await system.get_or_create("ann")
    require(made.id, "it has no id")
    await system.add("ann", made.id, [{"role": "user", "content": "Hello!"}])
    again = await system.get_or_create("ann", made.id)
    require((again.id, again.created_at, again.texts) == (made.id, made.created_at, ["Hello!"]), "it is another one")


@GENAI.promises
async def get_or_create_takes_the_id_that_is_given(system: System) -> None:
    require((await system.get_or_create("ann", "custom-session-id")).id == "custom-session-id", "it has another id")
    await system.add("ann", "custom-session-id", TURN)
    _, total = await system.page("ann", "custom-session-id", limit=1)
    require(total == len(TURN), "there is no session of this id")


@GENAI.promises
async def get_or_create_gives_nobody_the_session_of_another_user(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", [{"role": "user", "content": "Hello!"}])
    other = await system.get_or_create("bob", "v1")
    require((other.user, other.texts) == ("bob", []), "another user gets the session")
    require((await find(system, "ann", "v1")).texts == ["Hello!"], "the first one has changed")


@GENAI.promises
async def messages_are_added_and_counted(system: System) -> None:
    await system.get_or_create("ann", "v1")
    require(await system.add("ann", "v1", TURN[:2]) == 2, "the count is another")
    await system.add("ann", "v1", TURN[2:])
    messages, total = await system.page("ann", "v1", limit=20)
    require((len(messages), total) == (4, 4), "there are more or fewer")


@GENAI.promises
async def messages_for_a_session_that_is_not_there_are_refused(system: System) -> None:
    with refused(system.unknown, "they are taken"):
        await system.add("ann", "v1", TURN[:1])


@GENAI.promises
async def all_four_roles_are_kept(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", [{"role": "system", "content": "Be brief."}, *TURN])
    messages, _ = await system.page("ann", "v1", limit=20)
    require([event.role for event in messages] == ["system", "user", "assistant", "tool", "assistant"], "there are others")


@GENAI.promises
async def a_tool_call_keeps_its_id_its_arguments_and_its_result(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", TURN)
    (_, called, answered, _), _ = await system.page("ann", "v1", limit=20)
    require(called.text is None, "a message without a text has one")
    require(called.call == ("call_123", "check_appointment", '{"user_id": "123"}'), "the call has changed")
    require((answered.answers, answered.text) == ("call_123", TURN[2]["content"]), "the result is not that of the call any more")


@GENAI.promises
async def pages_of_limit_and_offset_have_each_message_once(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", [{"role": "user", "content": f"n{number}"} for number in range(7)])
    found, totals = [], set()
    for offset in range(0, 8, 2):
        messages, total = await system.page("ann", "v1", limit=2, offset=offset)
        found += [event.text for event in messages]
        totals.add(total)
    require(found == [f"n{number}" for number in range(7)], "some are missing, or there twice")
    require(totals == {7}, "the total is not that of the whole history")


@GENAI.promises
async def the_newest_twenty_messages_make_a_context(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", [{"role": "user", "content": f"n{number}"} for number in range(30)])
    found = await system.get("ann", "v1", last=20)
    require(found is not None and found.texts == [f"n{number}" for number in range(10, 30)], "they are not the newest")


@GENAI.promises
async def a_window_has_the_newest_messages_that_fit_and_splits_no_call(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", TURN)
    answer, result = len(TURN[3]["content"]), len(TURN[2]["content"])
    whole = await system.window("ann", "v1", tokens=1_000)
    require([event.role for event in whole] == ["user", "assistant", "tool", "assistant"], "what fits is cut")
    for tokens in (answer, answer + result - 1):
        found = await system.window("ann", "v1", tokens=tokens)
        require([event.role for event in found] == ["assistant"], "it is not the newest that fits")
    found = await system.window("ann", "v1", tokens=answer + result)
    require([event.role for event in found] == ["assistant", "tool", "assistant"], "a call is split from its result")


@GENAI.promises
async def a_deleted_session_has_no_messages(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", TURN)
    require(await system.delete("ann", "v1"), "nobody says that it was there")
    again = await system.get_or_create("ann", "v1")
    require(again.texts == [], "there are some")


@GENAI.promises
async def facts_keep_their_types(system: System) -> None:
    for key, value in FACTS.items():
        await system.remember("ann", key, value)
    found = await system.recall("ann")
    require(found == FACTS, "a value comes back as something else")
    require(found["smokes"] is False and type(found["age"]) is int, "a value comes back as another type")


@GENAI.promises
async def a_fact_that_is_saved_again_is_replaced(system: System) -> None:
    await system.remember("ann", "allergies", ["penicillin"])
    await system.remember("ann", "allergies", ["penicillin", "sulfa drugs"])
    require(await system.recall("ann") == {"allergies": ["penicillin", "sulfa drugs"]}, "it is something else")


@GENAI.promises
async def facts_belong_to_the_user_and_outlive_the_session(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.remember("ann", "allergies", ["penicillin"])
    await system.delete("ann", "v1")
    require(await system.recall("ann") == {"allergies": ["penicillin"]}, "they are gone with the session")
    require(await system.recall("bob") == {}, "another user has them")


@GENAI.promises
async def a_session_has_facts_of_its_own(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.get_or_create("ann", "v2")
    await system.remember("ann", "note", "of the user")
    await system.remember("ann", "note", "of the session", id="v1")
    require(await system.recall("ann", id="v1") == {"note": "of the session"}, "the session has another")
    require(await system.recall("ann", id="v2") == {}, "another session has it")
    require(await system.recall("ann") == {"note": "of the user"}, "the session's hides that of the user")


@GENAI.promises
async def a_fact_is_deleted(system: System) -> None:
    await system.get_or_create("ann", "v1")
    await system.remember("ann", "a", 1)
    await system.remember("ann", "b", 2)
    await system.remember("ann", "c", 3, id="v1")
    require(await system.forget("ann", "a"), "nobody says that it was there")
    require(not await system.forget("ann", "a"), "nobody says that it was not there any more")
    require(await system.forget("ann", "c", id="v1"), "nobody says that the session's was there")
    require(await system.recall("ann") == {"b": 2}, "there are others")
    require(await system.recall("ann", id="v1") == {}, "the session's is still there")


@GENAI.promises
async def all_facts_of_a_user_are_cleared_and_counted(system: System) -> None:
    for key, value in FACTS.items():
        await system.remember("ann", key, value)
    await system.remember("bob", "allergies", [])
    require(await system.forget_all("ann") == len(FACTS), "the count is another")
    require(await system.recall("ann") == {}, "some are left")
    require(await system.recall("bob") == {"allergies": []}, "another user's are gone")


@GENAI.promises
async def a_conversation_goes_on_with_facts_and_the_newest_messages(system: System) -> None:
    session = await system.get_or_create("ann", "v1")
    await system.add("ann", "v1", [{"role": "user", "content": "I am allergic to penicillin."}])
    await system.remember("ann", "allergies", ["penicillin"])
    await system.append(session := await find(system, "ann", "v1"), Event("Noted.", "assistant"))
    facts, later = await system.recall("ann"), await system.get("ann", session.id, last=20)
    require(facts == {"allergies": ["penicillin"]}, "the facts are others")
    require(later is not None and later.texts == ["I am allergic to penicillin.", "Noted."], "the messages are others")
