"""Results of tools answer calls that are open: whoever writes them, and whatever was read of the history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcaf.core.errors import ConfigurationError, StaleSessionError
from dcaf.engines import MemoryEngine
from dcaf.service import Message, SessionService, commits, links, rewinding
from dcaf.service.links import check_links, follow, replay, require_link, unfollow
from dcaf.service.messages import pack
from tests.service.kept_places import Calls, KeptPlace, Watched

LONG = "c" * 200


def asks(*ids: str) -> dict[str, Any]:
    """A message that makes calls."""
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return {"role": "assistant", "tool_calls": calls}


def answers(name: str) -> dict[str, Any]:
    return {"role": "tool", "content": "done", "tool_call_id": name}


SAID: dict[str, Any] = {"role": "user", "content": "?"}


def serve(**settings: Any) -> SessionService:
    service = SessionService(MemoryEngine(), app="clinic", **settings)
    service.sync.create(user="p", id="v")
    return service


def append(service: SessionService, *messages: dict[str, Any]) -> int:
    return service.sync.append(user="p", id="v", messages=messages)


def is_refused(service: SessionService, *messages: dict[str, Any]) -> bool:
    try:
        append(service, *messages)
    except ConfigurationError as error:
        assert "tool_call" in str(error)  # noqa: PT017 - what it says is looked at
        return True
    return False


def test_a_result_answers_an_open_call_of_the_history_once(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        whose = {"user": "p", "id": "v"}
        await calls.create(**whose)
        async with calls.open(**whose) as session:
            session.messages.add(asks("c1", LONG))
            with pytest.raises(ConfigurationError, match=r"message\.tool_call_id answers no open call"):
                session.messages.add(answers("other"))
            session.messages.add(answers("c1"))
            with pytest.raises(ConfigurationError):
                session.messages.add(answers("c1"))
            with pytest.raises(ConfigurationError, match=r"tool_calls\[0\]\.id is that of a call that has no result yet"):
                session.messages.add(asks(LONG))
        with pytest.raises(ConfigurationError, match=r"messages\[1\]"):
            await calls.ask("append", **whose, messages=[SAID, answers("c1")])
        assert (await calls.ask("messages", **whose)).total == 2
        async with calls.open(**whose) as session:
            session.messages.add(answers(LONG))
            session.messages.add(asks("c1"))
        assert await calls.ask("append", **whose, messages=[SAID, answers("c1")]) == 6
        found = await calls.get(**whose)
        assert found is not None
        assert found._kept.open_calls == ()

    calls.run(test)


def test_control_a_result_of_no_call_is_kept_where_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_answer", lambda *_: None)
    assert not is_refused(serve(), answers("c1"))
    monkeypatch.undo()
    assert is_refused(serve(), answers("c1"))


def test_a_result_is_checked_without_a_trip(kept_place: KeptPlace) -> None:
    engine = Watched(kept_place.open_engine())
    service = SessionService(engine, app="clinic")
    counts = []
    for messages in ([SAID, SAID], [asks("c1"), answers("c1")]):
        session_id = service.sync.create(user="p").id
        before = engine.done
        with service.sync.open(user="p", id=session_id, last=0) as session:
            for message in messages:
                session.messages.add(message)
        service.sync.append(user="p", id=session_id, messages=[SAID])
        counts.append(engine.done - before)
    assert counts[0] == counts[1]


def test_a_call_that_another_one_has_answered_is_not_answered_twice(kept_place: KeptPlace) -> None:
    for on_busy in ("reject", "merge"):
        service = kept_place.open_service(on_busy=on_busy)
        session_id = service.sync.create(user="p").id
        whose: dict[str, Any] = {"user": "p", "id": session_id}
        service.sync.append(**whose, messages=[asks("c1", "c2")])
        with pytest.raises(StaleSessionError), service.sync.open(**whose) as session:
            session.messages.add(answers("c1"))
            session["step"] = 1
            service.sync.append(**whose, messages=[answers("c1")])
        with pytest.raises(StaleSessionError), service.sync.open(**whose) as session:
            session.messages.add(answers("c2"))
            with service.sync.open(**whose) as other:
                other.messages.add(answers("c2"))
        assert service.sync.messages(**whose).total == 3
        assert service.sync.get(**whose) == {}


def test_control_a_call_is_answered_twice_where_a_commit_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "follow", lambda *_: ())
    service = serve()
    append(service, asks("c1"))
    with service.sync.open(user="p", id="v") as session:
        session.messages.add(answers("c1"))
        append(service, answers("c1"))
    assert service.sync.messages(user="p", id="v").total == 3


def test_a_turn_that_answers_one_call_while_another_one_is_answered_is_committed() -> None:
    service = serve()
    append(service, asks("c1", "c2"))
    with service.sync.open(user="p", id="v") as session:
        session.messages.add(answers("c1"))
        append(service, answers("c2"))
    assert service.sync.messages(user="p", id="v").total == 3
    assert is_refused(service, answers("c1"))


MESSAGES = st.lists(
    st.one_of(
        st.just("said"), st.tuples(st.just("asks"), st.sampled_from("abcd")), st.tuples(st.just("answers"), st.sampled_from("abcd"))
    ),
    max_size=12,
)


def write(steps: list[Any]) -> list[Message]:
    """The messages of some steps, without those that would be refused."""
    waiting: set[str] = set()
    found: list[Message] = []
    for step in steps:
        if step == "said":
            found.append(Message.of(SAID))
        elif step[0] == "asks" and step[1] not in waiting:
            waiting.add(step[1])
            found.append(Message.of(asks(step[1])))
        elif step[0] == "answers" and step[1] in waiting:
            waiting.discard(step[1])
            found.append(Message.of(answers(step[1])))
    return found


@settings(max_examples=150, deadline=None)
@given(steps=MESSAGES, cut=st.integers(0, 12))
@example(steps=[("asks", "a"), ("answers", "a"), ("asks", "a")], cut=2)
def test_open_calls_are_the_same_in_parts_and_backwards(steps: list[Any], cut: int) -> None:
    messages = write(steps)
    packed = [pack(message) for message in messages]
    whole = check_links(messages)
    assert follow(packed[cut:], follow(packed[:cut], ())) == replay(packed, ()) == whole
    assert set(unfollow(packed[cut:][::-1], whole)) == set(follow(packed[:cut], ()))
    for name in "abcd":
        for message in (Message.of(answers(name)), Message.of(asks(name))):
            one = is_allowed(lambda m=message: require_link(m, messages[cut:], follow(packed[:cut], ())))
            other = is_allowed(lambda m=message: check_links([*messages, m]))
            assert one is other


def is_allowed(check: Any) -> bool:
    try:
        check()
    except ConfigurationError:
        return False
    return True


@settings(max_examples=40, deadline=None)
@given(steps=MESSAGES, to=st.integers(0, 12), at=st.integers(0, 12))
def test_a_rewind_and_a_fork_know_the_calls_that_were_open_then(steps: list[Any], to: int, at: int) -> None:
    messages, service = write(steps), serve()
    append(service, *(message.to_dict() for message in messages))
    to, at = min(to, len(messages)), min(at, len(messages))
    service.sync.fork(user="p", id="v", new_id="w", at=at)
    service.sync.rewind(user="p", id="v", to=to)
    for session_id, count in [("v", to), ("w", at)]:
        found = service.sync.get(user="p", id=session_id)
        assert found is not None
        assert set(found._kept.open_calls) == set(check_links(messages[:count]))


def test_control_a_rewind_forgets_calls_where_it_does_not_read_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewinding, "unfollow", lambda _, open_calls: open_calls)
    with pytest.raises(AssertionError):
        test_a_rewind_and_a_fork_know_the_calls_that_were_open_then()


def test_a_row_knows_the_newest_of_many_open_calls() -> None:
    service = serve()
    append(service, *(asks(f"c{number}") for number in range(300)))
    assert is_refused(service, answers("c43"))
    for number in (44, 299):
        assert not is_refused(service, answers(f"c{number}"))
    found = service.sync.get(user="p", id="v")
    assert found is not None
    assert len(found._kept.open_calls) == 254


def test_a_session_that_is_made_anew_has_no_open_calls() -> None:
    service = serve()
    append(service, asks("c1"))
    service.sync.delete(user="p", id="v")
    service.sync.create(user="p", id="v")
    assert is_refused(service, answers("c1"))
