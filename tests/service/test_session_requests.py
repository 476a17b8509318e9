"""Calls that are given one object; a session under the names of the related systems; and a state by itself, as of Google's ADK."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from dcaf.core.errors import ConfigurationError, SessionValueError
from dcaf.service import (
    CreateSessionRequest,
    DeleteSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    State,
)
from tests.service.kept_places import Calls
from tests.service.test_archive import serve

WHOSE: dict[str, Any] = {"user": "p", "id": "v"}


def test_a_call_takes_one_object_in_place_of_arguments(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        about: dict[str, Any] = {"title": "T", "labels": {"a": "b"}, "metadata": {"n": 1}}
        made = await calls.ask("create", CreateSessionRequest(**WHOSE, state={"step": 1}, **about))
        assert (made.to_dict(), made.title, made.labels, made.metadata) == ({"step": 1}, "T", {"a": "b"}, {"n": 1})
        await calls.ask("create", CreateSessionRequest(user=None, id="anonymous"))
        assert (await calls.ask("get", GetSessionRequest(**WHOSE)))["step"] == 1
        assert await calls.ask("get", GetSessionRequest(user=None, id="anonymous")) == {}
        await calls.create(user="p", id="w")
        wanted = ListSessionsRequest(user="p", limit=1, order="oldest", state=["step"], labels={"a": "b"})
        assert [(item.id, item.state) for item in (await calls.ask("list", wanted)).items] == [("v", {"step": 1})]
        assert (await calls.ask("list", ListSessionsRequest(user="p", archived=True))).items == []
        assert await calls.ask("delete", DeleteSessionRequest(**WHOSE)) is True
        assert await calls.get(**WHOSE) is None

    calls.run(test)


def test_a_call_takes_an_object_or_arguments_and_not_both() -> None:
    _, _, service = serve()
    calls = service.sync
    wrong: list[Any] = [
        calls.create,
        lambda: calls.create(CreateSessionRequest(**WHOSE), user="p"),  # type: ignore[call-overload]
        lambda: calls.create(CreateSessionRequest(**WHOSE), title="T"),  # type: ignore[call-overload]
        lambda: calls.create(GetSessionRequest(**WHOSE)),  # type: ignore[call-overload]
        lambda: calls.create({"user": "p"}),  # type: ignore[call-overload]
        lambda: calls.get(user="p"),  # type: ignore[call-overload]
        lambda: calls.get(id="v"),  # type: ignore[call-overload]
        lambda: calls.get(DeleteSessionRequest(**WHOSE)),  # type: ignore[call-overload]
        lambda: calls.get(GetSessionRequest(user="p", id=3)),  # type: ignore[arg-type]
        lambda: calls.delete(DeleteSessionRequest(**WHOSE), id="v"),  # type: ignore[call-overload]
        lambda: calls.list(ListSessionsRequest(user="p"), limit=3),  # type: ignore[call-overload]
        calls.list,
        lambda: calls.list(ListSessionsRequest(user=None)),  # type: ignore[arg-type]
        lambda: calls.list(ListSessionsRequest(user="p", limit=0)),
        lambda: calls.create(CreateSessionRequest(user="p", labels={"a": 1})),  # type: ignore[dict-item]
    ]
    for call in wrong:
        with pytest.raises(ConfigurationError):
            call()
    with pytest.raises(SessionValueError):
        calls.create(CreateSessionRequest(user="p", state={"a": object()}))
    assert calls.list(user="p").items == []


def test_a_request_shows_nothing_of_a_user() -> None:
    request = CreateSessionRequest(user="canary", id="v", state={"canary": 1}, title="canary", labels={"canary": "canary"})
    assert "canary" not in repr(request)
    for other in (GetSessionRequest(user="canary", id="v"), DeleteSessionRequest(user="canary", id="v")):
        assert "canary" not in repr(other)
    assert "canary" not in repr(ListSessionsRequest(user="canary", labels={"canary": "canary"}))
    with pytest.raises(FrozenInstanceError):
        request.id = "w"  # type: ignore[misc]


def test_a_session_has_the_names_of_the_related_systems() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE, state={"step": 1, "user:theme": "dark"})
    with service.sync.open(**WHOSE) as session:
        state = session.state
        session["step"] = 2
        assert (dict(state), state["user:theme"], len(state)) == ({"step": 2, "user:theme": "dark"}, "dark", 2)
        with pytest.raises(TypeError):
            state["step"] = 3  # type: ignore[index]
        session.messages.add("user", "Hello!")
        history = session.conversation_history
        assert [message.content for message in history] == ["Hello!"]
        history.clear()
        assert len(session.conversation_history) == 1
        assert "dark" not in repr(state)
    assert dict(state) == {"step": 2, "user:theme": "dark"}


# A state by itself


def test_a_state_by_itself_behaves_as_that_of_adk() -> None:
    value, delta = {"initial": "value", "both": 1}, {"update": "pending", "both": 2}
    state = State(value=value, delta=delta)
    assert (state["initial"], state["update"], state["both"]) == ("value", "pending", 2)
    assert state.get("none") is None
    assert state.get("none", 3) == 3
    assert "update" in state
    assert "none" not in state
    assert state.has_delta()
    state.update({"more": "changes"})
    assert state.to_dict() == {"initial": "value", "both": 2, "update": "pending", "more": "changes"}
    assert state.delta == delta == {"update": "pending", "both": 2, "more": "changes"}
    assert (list(state), len(state)) == (["initial", "both", "more", "update"], 4)
    with pytest.raises(KeyError):
        state["none"]


def test_what_is_written_to_a_state_is_pending() -> None:
    state = State({"a": 1}, {})
    assert not state.has_delta()
    assert state.setdefault("a", 2) == 1
    assert not state.has_delta()
    assert state.setdefault("b") is None
    assert state.has_delta()
    state["user:theme"] = None
    assert state.delta == {"b": None, "user:theme": None}
    assert state.to_dict() == {"a": 1, "b": None, "user:theme": None}
    assert (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX) == ("app:", "user:", "temp:")


def test_what_is_changed_in_place_is_pending() -> None:
    state = State({"cart": {"items": []}, "read": [1], "left": [2]}, {})
    state["cart"]["items"].append("widget")
    assert state["read"] == [1]
    assert state.get("left") == [2]
    assert state.has_delta()
    assert state.delta == {"cart": {"items": ["widget"]}}
    state["cart"]["items"].append("gadget")
    assert state.delta["cart"] == {"items": ["widget", "gadget"]}


def test_control_a_change_in_place_is_lost_where_what_was_read_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "__getitem__", lambda self, key: self._value[key])
    state = State({"cart": []}, {})
    state["cart"].append("widget")
    assert not state.has_delta()


def test_a_state_hands_its_changes_over_to_a_session() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE, state={"step": 1, "left": 1})
    with service.sync.open(**WHOSE) as session:
        state = State(session.to_dict(), {})
        state["step"] = 2
        state["temp:a"] = 1
        session.update(state.delta)
    found = service.sync.get(**WHOSE)
    assert found is not None
    assert found.to_dict() == {"step": 2, "left": 1}


@pytest.mark.parametrize(("value", "delta"), [(None, {}), ({}, None), ([], {}), ({}, "a"), (3, {})])
def test_a_state_is_made_of_dicts(value: Any, delta: Any) -> None:
    with pytest.raises(ConfigurationError):
        State(value, delta)
    with pytest.raises(ConfigurationError):
        State({}, {}).update(3)  # type: ignore[arg-type]


def test_a_state_shows_no_value() -> None:
    assert "canary" not in repr(State({"canary": "canary"}, {"canary": "canary"}))
