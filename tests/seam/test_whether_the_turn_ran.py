"""A 503 says whether the application had run: a client may send a turn again that has not."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf import Session
from dcaf.core import ReadOnlySession, SessionConflict, SessionEnded, SessionReadOnlyError, SessionUnavailable
from dcaf.core.session_dict import SessionDict
from tests.asgi.sockets import Peer
from tests.seam.turns_that_act import Acting, count, session_of
from tests.stores_for_tests import ToldStore

WAYS = ("json", "stream", "socket", "host")


async def use(session: Session) -> None:
    await session.once("charge-42")


ACTS: dict[str, Any] = {
    "open": count,
    "latest": count,
    "commit": count,
    "end": lambda session: session.end(),
    "rotate": lambda session: session.rotate(),
}
FAILURES: dict[str, Any] = {"it says so": lambda: SessionUnavailable(reason="down"), "it fails": lambda: OSError("away")}


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("step", ACTS)
@pytest.mark.parametrize("way", WAYS)
def test_the_client_learns_whether_the_turn_had_run(way: str, step: str, failure: str) -> None:
    store = ToldStore()
    service = Acting(store=store)
    first = session_of(service.turn(count, way=way))
    turns = len(service.seen)
    store.happening[step] = FAILURES[failure]()
    if way == "socket" and step == "open":
        store.happening.clear()
        with Peer(service.middleware) as peer:
            service.act = ACTS[step]
            store.happening[step] = FAILURES[failure]()
            found = peer.ask({"data": {"session": first}})
    else:
        found = service.turn(ACTS[step], first, way=way)
    assert found["code"] == "session-unavailable"
    assert found["ran"] is (len(service.seen) > turns)
    assert found["ran"] is (step != "open")


def test_control_one_that_says_the_same_of_each_step_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.problems.find_members", lambda _: {"ran": True})
    with pytest.raises(AssertionError):
        test_the_client_learns_whether_the_turn_had_run("json", "open", "it says so")


@pytest.mark.parametrize("way", WAYS)
def test_a_lease_that_is_wrong_after_the_turn_counts_as_run(way: str) -> None:
    def spoil(_: Any) -> None:
        store.leases[-1].sequence = 0

    store = Keeping(latest=spoil)
    found = Acting(store=store).turn(count, way=way)
    assert (found["code"], found["ran"]) == ("session-unavailable", True)


class Keeping(ToldStore):
    """Keeps the leases that it gives."""

    def __init__(self, **happening: Any) -> None:
        super().__init__(**happening)
        self.leases: list[Any] = []

    async def open(self, request: Any) -> Any:
        self.leases.append(await super().open(request))
        return self.leases[-1]


@pytest.mark.parametrize("error", [SessionConflict(reason="busy"), SessionEnded(reason="revoked")], ids=lambda error: error.code)
@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_of_another_kind_says_nothing_of_it(way: str, error: Exception) -> None:
    found = Acting(store=ToldStore(commit=error)).turn(count, way=way)
    assert found["code"] == error.code  # type: ignore[attr-defined]
    assert "ran" not in found


@pytest.mark.parametrize("way", ["json", "stream"])
def test_where_nobody_can_tell_who_asks_the_turn_has_not_run(way: str) -> None:
    service = Acting(conversation=lambda scope, body: 1 / 0)
    found = service.turn(count, way=way)
    assert (found["code"], found["ran"], service.seen) == ("session-unavailable", False, [])


@pytest.mark.parametrize("error", FAILURES)
def test_a_key_that_cannot_be_used_up_says_that_the_turn_has_begun(error: str) -> None:
    caught: list[SessionUnavailable] = []

    async def act(session: Session) -> None:
        with pytest.raises(SessionUnavailable) as found:
            await use(session)
        caught.append(found.value)

    Acting(store=ToldStore(spend=FAILURES[error]())).turn(act)
    assert [each.ran for each in caught] == [True]


@pytest.mark.parametrize("name", ["end", "rotate", "once"])
def test_who_may_only_read_can_neither_end_nor_rotate_nor_use_up(name: str) -> None:
    with pytest.raises(SessionReadOnlyError):
        getattr(ReadOnlySession.of(Session()), name)("a")


def test_the_dict_that_starlettes_programs_see_has_a_dicts_methods_alone() -> None:
    shown = SessionDict.of(Session())
    assert [name for name in ("end", "rotate", "once") if hasattr(shown, name)] == []
