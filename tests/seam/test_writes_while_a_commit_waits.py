"""What is written while a commit waits belongs to the next seal, all of it: values, counts, and the library's own member."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from dcaf import Session
from dcaf.asgi import checkpoint
from dcaf.core import Sealed, SessionValueError
from dcaf.core.rebasing import RebasableState
from tests.asgi.wire import Recorder, call, exchange, messages_of, mounted, scope_of
from tests.stores_for_tests import MemoryService, ServiceLease, ToldStore

LINES = (b"content-type", b"application/x-ndjson")


def committed(
    before: Callable[[Session], Any],
    meanwhile: Callable[[Session], Any],
    after: Callable[[Session], Any] = lambda session: session.update(after=1),
) -> list[Any]:
    """The states of a stream's turn that are committed: one at its event, during which something is written, and one at its end."""
    sessions: list[Session] = []

    def write(_: Any) -> None:
        if not store.committed:
            meanwhile(sessions[0])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sessions.append(scope["dcaf.session"])
        sessions[0]["first"] = 1
        before(sessions[0])
        await send({"type": "http.response.start", "status": 200, "headers": [LINES]})
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n', "more_body": True})
        after(sessions[0])
        await send({"type": "http.response.body", "body": b""})

    store = ToldStore(commit=write)
    call(mounted(app, store=store, max_token_bytes=4000), {})
    return [json.loads(sealed.payload.data) for sealed, _ in store.committed]


def own(**members: Any) -> Callable[[Session], Any]:
    return lambda session: session._state.keep(members)


@pytest.mark.parametrize(
    ("before", "meanwhile"),
    [
        (own(pending={"a": {}}), own(pending={"a": {}, "b": {}})),
        (own(pending={"a": {}}), own()),
        (own(), own(pending={"a": {}})),
        (own(pending={"a": {}}), own(pending={"a": {}})),
    ],
)
def test_a_change_of_the_librarys_own_member_is_kept(before: Any, meanwhile: Any) -> None:
    first, second = committed(before, meanwhile)
    wanted = [Session(), Session()]
    before(wanted[0])
    meanwhile(wanted[1])
    assert [state.get("dcaf", {}) for state in (first, second)] == [session._state.own() for session in wanted]


def test_what_it_takes_of_the_room_in_a_token_is_counted() -> None:
    """A value that does not fit beside it is refused where it is set, and not where all is sealed."""

    def fill(session: Session) -> None:
        with pytest.raises(SessionValueError, match="larger than"):
            session["more"] = "x" * 1500

    states = committed(own(), lambda session: session.update(b="x" * 1500), fill)
    assert [[*state] for state in states] == [["first"], ["first", "b"]]


def grow(session: Session, name: str) -> None:
    session.incr("n")
    session.append("log", name)


class Interrupted(MemoryService):
    """Something happens before each commit of a lease, and after it."""

    def __init__(self, happen: Callable[[], Any]) -> None:
        super().__init__()
        self.happen = happen

    async def open(self, request: Any) -> Any:
        lease = await super().open(request)
        return InterruptedLease(self, self.sessions.get(request.session_id), request) if isinstance(lease, ServiceLease) else lease


class InterruptedLease(ServiceLease):
    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        assert isinstance(self._service, Interrupted)
        await self._service.happen()
        await super().commit(sealed, ends_turn=ends_turn)
        await self._service.happen()


def counted(seed: int) -> tuple[int, dict[str, Any]]:
    """A stream with checkpoints, and, whenever one of its commits waits, more of its own writes and other turns' commits."""
    dice, made = random.Random(seed), 0
    streams: list[Session] = []

    async def happen() -> None:
        nonlocal made
        for _ in range(dice.randrange(3)):
            if made < 30:
                made += 1
                if len(streams) == 1 and dice.random() < 0.5:
                    grow(streams[0], "mine")
                else:
                    await beside()

    async def beside() -> None:
        other = mounted(Recorder(tool=lambda session: grow(session, "theirs")), store=quiet)
        await exchange(other, scope_of(), messages_of(json.dumps({"data": {"session": first}}).encode()))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal made
        streams.append(scope["dcaf.session"])
        await send({"type": "http.response.start", "status": 200, "headers": [LINES]})
        for _ in range(4):
            made += 1
            grow(streams[0], "mine")
            await checkpoint()
        streams.append(scope["dcaf.session"])  # from now on others write alone
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n'})

    store, quiet = Interrupted(happen), MemoryService()
    quiet.sessions = store.sessions
    first = call(mounted(Recorder(tool=lambda session: session.update(n=0, log=[])), store=quiet)).envelope
    asyncio.run(exchange(mounted(app, store=store), scope_of(), messages_of(json.dumps({"data": {"session": first}}).encode())))
    return made, json.loads(next(iter(store.sessions.values())).payload.data)


def lost(seed: int) -> bool:
    made, kept = counted(seed)
    return (kept["n"], len(kept["log"])) != (made, made)


def test_no_count_is_lost_and_none_counts_twice(scale: float) -> None:
    assert [seed for seed in range(max(20, round(1_000 * scale))) if lost(seed)] == []


def test_control_a_state_that_remembers_only_how_it_was_changed_in_all_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RebasableState, "_thaw", lambda self: None)
    assert any(map(lost, range(60)))
