"""What sessions share, read and written without one of them, also while turns are in progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core.errors import ConfigurationError, EngineError, SessionValueError, StateError
from dcaf.engines import MemoryEngine
from dcaf.service import SessionService, shared
from tests.service.kept_places import Calls, Watched
from tests.service.test_archive import serve


def test_what_sessions_share_is_read_and_written_without_one(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        assert await calls.ask("get_user_state", user="p") == {}
        assert await calls.ask("get_app_state") == {}
        await calls.ask("merge_user_state", user="p", state={"theme": "dark", "none": None, "a": {"b": [1.0, -0.0, 2**63]}})
        await calls.ask("merge_app_state", state={"motd": "Hi!"})
        expected = {"user:theme": "dark", "user:none": None, "user:a": {"b": [1.0, -0.0, 2**63]}, "app:motd": "Hi!"}
        assert (await calls.create(user="p", id="v")).to_dict() == expected
        async with calls.open(user="p", id="v") as session:
            session.user["theme"] = "light"
            del session.user["none"]
            session["step"] = 1
            session.app["rooms"] = 4
        await calls.ask("merge_user_state", user="p", state={"units": "metric"})
        theirs = {"theme": "light", "a": {"b": [1.0, -0.0, 2**63]}, "units": "metric"}
        assert await calls.ask("get_user_state", user="p") == theirs
        assert await calls.ask("get_app_state") == {"motd": "Hi!", "rooms": 4}
        await calls.delete(user="p", id="v")
        assert await calls.ask("get_user_state", user="p") == theirs
        assert (await calls.ask("erase", user="p")).shared == 3
        assert await calls.ask("get_user_state", user="p") == {}

    calls.run(test)


def test_users_and_applications_share_nothing(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        other = calls.of(SessionService(calls.service.engine, app="other"))
        await calls.create(user=None, id="p", state={"user:theme": "nobody's", "theme": "own"})
        await calls.ask("merge_user_state", user="p", state={"theme": "dark"})
        await calls.ask("merge_app_state", state={"motd": "Hi!"})
        assert await calls.ask("get_user_state", user="q") == {}
        assert await other.ask("get_user_state", user="p") == {}
        assert await other.ask("get_app_state") == {}
        assert await calls.read(user=None, id="p") == {"user:theme": "nobody's", "theme": "own", "app:motd": "Hi!"}
        assert await other.ask("merge_user_state", user="p", state={}) is None
        assert (await calls.ask("get_user_state", user="p")) == {"theme": "dark"}

    calls.run(test)


def test_a_turn_is_laid_over_what_was_written_meanwhile(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"user:n": 1, "app:n": 1, "user:theme": "dark"})
        async with calls.open(user="p", id="v") as session:
            session.user.incr("n")
            session.app.incr("n")
            session.user["lang"] = "en"
            await calls.ask("merge_user_state", user="p", state={"n": 10, "theme": "light"})
            await calls.ask("merge_app_state", state={"n": 10, "m": 1})
        assert await calls.ask("get_user_state", user="p") == {"n": 11, "theme": "light", "lang": "en"}
        assert await calls.ask("get_app_state") == {"n": 11, "m": 1}

    calls.run(test)


JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=4), st.lists, max_leaves=4)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.dictionaries(st.text(max_size=3).filter(lambda key: not key.startswith(("user:", "app:", "temp:"))), JSON), max_size=4
    )
)
def test_what_was_merged_is_what_is_read_and_what_a_session_has(states: list[dict[str, Any]]) -> None:
    _, _, service = serve()
    expected: dict[str, Any] = {}
    for state in states:
        service.sync.merge_user_state(user="p", state=state)
        service.sync.merge_app_state(state=state)
        expected |= state
    assert service.sync.get_user_state(user="p") == service.sync.get_app_state() == expected
    session = service.sync.create(user="p")
    assert dict(session.user) == dict(session.app) == expected


def test_control_keys_of_another_user_are_read_where_rows_are_not_the_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, service = serve()
    service.sync.merge_user_state(user="p", state={"theme": "dark"})
    assert service.sync.get_user_state(user="q") == {}
    mine = service._calls._owner("p")
    monkeypatch.setattr(service._calls, "_owner", lambda _: mine)
    assert service.sync.get_user_state(user="q") != {}


def test_keys_are_written_together_or_not() -> None:
    engine = Watched(MemoryEngine())
    service = SessionService(engine, app="clinic")

    def fail() -> None:
        raise EngineError("The engine failed.")

    writes: list[Callable[[], None]] = [
        lambda: service.sync.merge_user_state(user="p", state={"a": 1, "b": 2}),
        lambda: service.sync.merge_app_state(state={"a": 1}),
    ]
    for write in writes:
        engine.before(0, fail)
        with pytest.raises(EngineError):
            write()
        before = engine.done
        write()
        assert engine.done - before == 1
    with pytest.raises(SessionValueError):
        service.sync.merge_user_state(user="p", state={"a": 5, "c": object()})
    assert service.sync.get_user_state(user="p") == {"a": 1, "b": 2}


@pytest.mark.parametrize("state", [{"user:theme": 1}, {"app:x": 1}, {"temp:x": 1}, [("a", 1)], None, "a"])
def test_keys_with_a_prefix_and_what_is_no_state_are_refused(state: Any) -> None:
    _, _, service = serve()
    with pytest.raises(ConfigurationError, match="state="):
        service.sync.merge_user_state(user="p", state=state)
    with pytest.raises(ConfigurationError, match="state="):
        service.sync.merge_app_state(state=state)
    assert service.sync.get_user_state(user="p") == service.sync.get_app_state() == {}


@pytest.mark.parametrize("state", [{1: 1}, {"a": object()}, {"\udfff": 1}, {"a": float("nan")}])
def test_what_may_not_be_stored_is_refused(state: Any) -> None:
    _, _, service = serve()
    with pytest.raises(StateError):
        service.sync.merge_user_state(user="p", state=state)
    assert service.sync.get_user_state(user="p") == {}


def test_an_anonymous_user_has_no_keys_of_that_kind() -> None:
    _, _, service = serve()
    wrong: list[Any] = [None, "", 3]
    for user in wrong:
        with pytest.raises(ConfigurationError, match="user="):
            service.sync.get_user_state(user=user)
        with pytest.raises(ConfigurationError, match="user="):
            service.sync.merge_user_state(user=user, state={"a": 1})


def test_a_key_is_kept_without_its_prefix_once() -> None:
    assert shared.pack_keys("user:", {"theme": "dark", "": 1}) == {"user:theme": b'"dark"', "user:": b"1"}
