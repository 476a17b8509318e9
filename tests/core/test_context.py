"""The session of the running turn, from anywhere below it."""

import asyncio
import threading
from contextvars import copy_context
from typing import Any

import pytest

from dcaf.core import ConfigurationError, Session, current_session
from dcaf.core.context import running

OUTSIDE = (
    "current_session() was called outside a turn. Mount SessionMiddleware around the application, and call it while a "
    "request is handled, or pass the session along. Exempt routes have no session."
)


class Deploy(Session):
    step: int = 1


def outside() -> Any:
    with pytest.raises(ConfigurationError) as caught:
        current_session()
    return str(caught.value)


def test_outside_a_turn_there_is_no_session() -> None:
    assert outside() == OUTSIDE


def test_inside_a_turn_it_is_the_very_session() -> None:
    session = Session()
    with running(session):
        assert current_session() is session
        assert current_session(Session) is session
    assert outside() == OUTSIDE


def test_turns_nest_and_end_after_an_exception() -> None:
    one, two = Session(), Session()
    with running(one):
        with pytest.raises(LookupError), running(two):
            assert current_session() is two
            raise LookupError
        assert current_session() is one
    assert outside() == OUTSIDE


def test_a_typed_session_is_a_view_of_the_current_one() -> None:
    session = Session()
    with running(session):
        current_session(Deploy).step += 1
        assert current_session(Deploy) is not session
    assert session.to_dict() == {"step": 2}


def test_a_typed_current_session_can_be_seen_as_a_plain_one() -> None:
    session = Deploy()
    with running(session):
        assert current_session(Deploy) is session
        current_session()["step"] = 5
    assert session.step == 5


def test_concurrent_turns_see_their_own_session() -> None:
    async def turn(number: Any) -> Any:
        with running(Session.from_dict({"n": number})):
            await asyncio.sleep(0)
            await asyncio.to_thread(lambda: current_session().append("seen", current_session()["n"]))
            await asyncio.sleep(0)
            return current_session().to_dict()

    async def all_of_them() -> Any:
        return await asyncio.gather(*(turn(number) for number in range(20)))

    assert asyncio.run(all_of_them()) == [{"n": number, "seen": [number]} for number in range(20)]


def test_the_law_of_concurrent_turns_catches_a_global() -> None:
    class Holder:
        current: dict[str, int]

    async def turn(number: Any) -> Any:
        Holder.current = {"n": number}
        await asyncio.sleep(0)
        return Holder.current

    async def all_of_them() -> Any:
        return await asyncio.gather(*(turn(number) for number in range(20)))

    assert asyncio.run(all_of_them()) != [{"n": number} for number in range(20)]


def test_a_thread_of_ones_own_sees_it_only_in_a_copied_context() -> None:
    found: list[Session | None] = []

    def look() -> None:
        try:
            found.append(current_session())
        except ConfigurationError:
            found.append(None)

    session = Session()
    with running(session):
        for target in (look, lambda context=copy_context(): context.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert found == [None, session]
    assert found[1] is session


@pytest.mark.parametrize("as_type", [None, 5, "Deploy", int, dict, Session()])
def test_what_is_no_class_of_sessions_is_told(as_type: Any) -> None:
    with (
        running(Session()),
        pytest.raises(ConfigurationError, match=r"takes a subclass of Session, as in current_session\(Deploy\)"),
    ):
        current_session(as_type)
