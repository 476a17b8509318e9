"""What is written while a commit waits belongs to the next seal, all of it: values, counts, and the library's own member."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dcaf import Session
from dcaf.core import SessionValueError
from tests.asgi.wire import call, mounted
from tests.stores_for_tests import ToldStore

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
