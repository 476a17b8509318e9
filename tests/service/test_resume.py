"""A kept session on another device: its user gets its newest token, nobody else does, and the rules of the ledger hold for it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dcaf.asgi import CookieCarrier, SessionMiddleware
from dcaf.core import (
    ConfigurationError,
    Session,
    SessionClosedError,
    SessionConflict,
    SessionEnded,
    SessionInvalid,
    SessionSuperseded,
    current_session,
)
from dcaf.core.errors import StaleSessionError, UnknownSessionError
from dcaf.engines import MemoryEngine
from dcaf.ledger import Ledger
from dcaf.ledger.rules import Presented
from dcaf.ledger.tables import subject_digest
from dcaf.service import KeptSession, Messages, SessionService
from tests.service.kept_places import KeptPlace, Watched
from tests.service.test_service_as_store import AUDIENCE, RING, Clinic, claims_of, put, say

Resume = Callable[[Session], Awaitable[None]]


def ask_for(sessions: SessionService, session_id: str, subject: str = "ada") -> Resume:
    async def resume(_: Session) -> None:
        await sessions.resume(subject=subject, id=session_id)

    return resume


async def begin(clinic: Clinic, subject: str | None = "ada") -> tuple[Any, str]:
    """A session that has had a turn; its envelope and its id."""
    async with clinic.turn(subject=subject) as turn:
        turn.session.update({"step": 1, "user:theme": "dark"})
        say("Hello!")(turn.session)
    return turn.envelope, str(turn.session.id)


def test_another_device_goes_on_with_a_kept_session(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first, sid = await begin(clinic)
        other = await clinic.do(None, ask_for(sessions, sid))
        assert claims_of(other)["sid"] == sid
        assert claims_of(other)["seq"] == claims_of(first)["seq"] == 1
        assert {key: value for key, value in other.items() if key != "dcaf"} == {"step": 1, "user:theme": "dark"}
        async with clinic.turn(other) as turn:
            assert turn.session.to_dict() == {"step": 1, "user:theme": "dark"}
            assert [message.content for message in Messages.of(turn.session)] == ["Hello!"]
            turn.session["step"] = 2
        with pytest.raises(SessionConflict) as caught:  # as one whose answer was lost: it is the same user's
            await clinic.read(first)
        assert json.loads(caught.value.envelope or b"")["step"] == 2
        again = await clinic.do(None, ask_for(sessions, sid))
        assert await clinic.read(again) == {"step": 2, "user:theme": "dark"}
        assert [kept.id for kept in sessions.sync.list(user="ada").items] == [sid]  # the device's own was never made
        await sessions.aclose()

    anyio.run(main)


def test_both_devices_have_it_until_one_has_done_a_turn(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first, sid = await begin(clinic)
        other = await clinic.do(None, ask_for(sessions, sid))
        first = await clinic.do(first, put(step=5))
        assert (await clinic.read(first))["step"] == 5
        with pytest.raises(SessionSuperseded):
            await clinic.do(other, put(step=6))
        kept = await sessions.get(user="ada", id=sid)
        assert kept is not None
        assert kept["step"] == 5
        await sessions.aclose()

    anyio.run(main)


ENDS: dict[str, Callable[[SessionService, Ledger, str], Awaitable[object]]] = {
    "delete": lambda sessions, _, sid: sessions.delete(user="ada", id=sid),
    "close": lambda sessions, _, sid: sessions.close(user="ada", id=sid),
    "archive": lambda sessions, _, sid: sessions.archive(user="ada", id=sid),
    "erase": lambda sessions, _, __: sessions.erase(user="ada"),
    "revoke": lambda _, ledger, sid: ledger.revoke(sid),
    "log_out": lambda _, ledger, __: ledger.log_out("ada"),
    "restored": lambda _, ledger, __: ledger.mark_restored(),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_cannot_go_on_looks_like_what_is_not_there(kept_place: KeptPlace, end: str) -> None:
    engine = kept_place.open_engine()
    ledger = Ledger(engine, audience=AUDIENCE)
    sessions = SessionService(engine, app="clinic", ledger=ledger)

    async def main() -> None:
        clinic = Clinic(sessions)
        _, sid = await begin(clinic)
        await anyio.sleep(0.002)  # a ledger is restored after the commit
        await ENDS[end](sessions, ledger, sid)
        told = []
        for session_id in (sid, "A" * 22, "visit-1", "a/b", "\n", "A" * 256):
            with pytest.raises(UnknownSessionError) as caught:
                await clinic.do(None, ask_for(sessions, session_id))
            told.append((type(caught.value), str(caught.value), caught.value.__cause__))
        assert len(set(told)) == 1
        if end in {"log_out", "restored"}:  # the same user may begin anew, and go on with that
            _, new = await begin(clinic)
            assert claims_of(await clinic.do(None, ask_for(sessions, new)))["sid"] == new
        await sessions.aclose()

    anyio.run(main)


def test_nobody_else_gets_it(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        _, sid = await begin(clinic)
        _, nobodys = await begin(clinic, None)
        made = (await sessions.create(user="ada")).id  # it never had a token
        for subject, session_id in (("bob", sid), ("bob", nobodys), ("ada", nobodys), ("ada", made), ("ad", sid)):
            for caller in (None, subject):
                with pytest.raises(UnknownSessionError):
                    await clinic.do(None, ask_for(sessions, session_id, subject), caller)
        with pytest.raises(ConfigurationError):  # the caller of the turn is another
            await clinic.do(None, ask_for(sessions, sid, "ada"), "bob")
        other = await clinic.do(None, ask_for(sessions, sid), None)  # a handler that has just found out who is calling
        with pytest.raises(SessionInvalid):
            await clinic.read(other, None)
        with pytest.raises(SessionInvalid):
            await clinic.read(other, "bob")
        assert (await clinic.read(other, "ada"))["step"] == 1
        await sessions.aclose()

    anyio.run(main)


def test_control_another_user_gets_it_where_the_ledger_is_not_asked_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = SessionService(MemoryEngine(), app="clinic")

    async def main() -> None:
        clinic = Clinic(sessions)
        _, sid = await begin(clinic)
        await sessions.create(user="bob", id=sid)  # an id of ada's, which bob has for something of his own
        with pytest.raises(UnknownSessionError):
            await clinic.do(None, ask_for(sessions, sid, "bob"), "bob")
        adas = subject_digest(AUDIENCE, "ada")
        monkeypatch.setattr(Presented, "subject", property(lambda _: adas))
        assert claims_of(await clinic.do(None, ask_for(sessions, sid, "bob"), "bob"))["sid"] == sid

    anyio.run(main)


def test_a_session_that_another_turn_holds_is_not_given() -> None:
    sessions = SessionService(MemoryEngine(), app="clinic")

    async def main() -> None:
        clinic = Clinic(sessions)
        first, sid = await begin(clinic)
        async with clinic.turn(first) as turn:
            turn.session["step"] = 2
            with pytest.raises(StaleSessionError):
                await clinic.do(None, ask_for(sessions, sid))
        assert (await clinic.read(await clinic.do(None, ask_for(sessions, sid))))["step"] == 2

    anyio.run(main)


def test_the_session_of_the_turn_stays_as_it_was_and_takes_no_change() -> None:
    sessions = SessionService(MemoryEngine(), app="clinic")

    async def main() -> None:
        clinic = Clinic(sessions)
        _, sid = await begin(clinic)
        own, own_id = await begin(clinic)
        async with clinic.turn(own) as turn:
            await sessions.resume(subject="ada", id=sid)
            for change in (put(step=9), say("Lost"), lambda session: session.rotate(), lambda session: session.end()):
                with pytest.raises(SessionClosedError, match="given its session up"):
                    change(turn.session)
        assert claims_of(turn.envelope)["sid"] == sid
        assert (await clinic.read(own))["step"] == 1
        for change in (put(step=9), say("Lost"), lambda session: session.rotate()):
            async with clinic.turn(own) as turn:
                change(turn.session)
                with pytest.raises(ConfigurationError, match="has not changed"):
                    await sessions.resume(subject="ada", id=sid)
            own = turn.envelope
        own_id = claims_of(own)["sid"]
        async with clinic.turn(own) as turn:
            await sessions.resume(subject="ada", id=own_id)  # it is there already
            turn.session["step"] = 3
        assert claims_of(turn.envelope)["sid"] == own_id

    anyio.run(main)


def test_a_turn_that_fails_gives_nothing() -> None:
    engine = Watched(MemoryEngine())
    sessions = SessionService(engine, app="clinic")

    async def main() -> None:
        clinic = Clinic(sessions)
        first, sid = await begin(clinic)
        own, _ = await begin(clinic)
        with pytest.raises(ZeroDivisionError):
            async with clinic.turn(own):
                await sessions.resume(subject="ada", id=sid)
                raise ZeroDivisionError
        own = await clinic.do(own, put(step=3))
        before = engine.done
        async with clinic.turn() as turn:
            opened = engine.done
            await sessions.resume(subject="ada", id=sid)
            assert engine.done - opened == 1
        assert engine.done - before <= 3
        assert await clinic.read(first) == await clinic.read(turn.envelope)

    anyio.run(main)


def test_it_is_for_turns_of_this_service_alone() -> None:
    sessions, other = SessionService(MemoryEngine(), app="clinic"), SessionService(MemoryEngine(), app="clinic")

    async def main() -> None:
        clinic = Clinic(sessions)
        _, sid = await begin(clinic)
        with pytest.raises(ConfigurationError, match="current_session"):
            await sessions.resume(subject="ada", id=sid)
        for place in (Clinic(other), Clinic(None), Clinic(Ledger("memory://", audience=AUDIENCE))):
            with pytest.raises(ConfigurationError, match="this service"):
                await place.do(None, ask_for(sessions, sid))
        async with sessions.open(user="ada") as session:
            with pytest.raises(ConfigurationError, match="this service"):
                await sessions.resume(subject="ada", id=session.id)
        wrong: list[Any] = [None, "", 3, "\udfff"]
        for one in wrong:
            with pytest.raises(ConfigurationError):
                await clinic.do(None, ask_for(sessions, one))
            with pytest.raises(ConfigurationError):
                await clinic.do(None, ask_for(sessions, sid, one))

    anyio.run(main)


def test_a_session_over_its_time_is_not_given_and_one_that_was_idle_is() -> None:
    now = [1_800_000_000.0]
    engine = MemoryEngine(clock=lambda: now[0])
    sessions = SessionService(engine, app="clinic")

    async def main() -> None:
        clinic = Clinic(sessions)
        clinic.host = type(clinic.host)(keys=RING, audience=AUDIENCE, store=sessions, clock=lambda: now[0])
        first, sid = await begin(clinic)
        now[0] += timedelta(days=20).total_seconds()
        with pytest.raises(SessionEnded):
            await clinic.read(first)
        other = await clinic.do(None, ask_for(sessions, sid))
        assert (await clinic.read(other))["step"] == 1
        assert claims_of(other)["born"] == claims_of(first)["born"]
        now[0] += timedelta(days=11).total_seconds()
        with pytest.raises(UnknownSessionError):
            await clinic.do(None, ask_for(sessions, sid))

    anyio.run(main)


def app_of(sessions: SessionService, **settings: Any) -> Any:
    """A service whose callers name themselves by a header, or by a login."""

    async def chat(request: Request) -> JSONResponse:
        session = current_session(KeptSession)
        session["step"] = session.get("step", 0) + 1
        return JSONResponse({"content": session.id, "step": session["step"]})

    async def resume(request: Request) -> JSONResponse:
        try:
            await sessions.resume(subject=request.headers["x-user"], id=request.query_params["id"])
        except UnknownSessionError:
            return JSONResponse({"content": "no such session"}, 404)
        return JSONResponse({"content": "welcome back"})

    routes = [Route("/chat", chat, methods=["POST"]), Route("/resume", resume, methods=["POST"])]

    def subject(scope: Any) -> str | None:
        return dict(scope["headers"]).get(b"x-user", b"").decode() or None

    return SessionMiddleware(Starlette(routes=routes), keys=RING, audience=AUDIENCE, subject=subject, store=sessions, **settings)


def test_a_handler_answers_with_the_session_in_the_body() -> None:
    sessions = SessionService(MemoryEngine(), app="clinic")
    client, headers = TestClient(app_of(sessions)), {"x-user": "ada"}
    first = client.post("/chat", json={}, headers=headers).json()
    sid = first["content"]
    told = client.post("/resume", params={"id": sid}, json={}, headers=headers).json()
    assert (told["content"], told["data"]["session"]["step"]) == ("welcome back", 1)
    body = {"data": {"session": told["data"]["session"]}}
    assert client.post("/chat", json=body, headers=headers).json()["step"] == 2
    refused = client.post("/resume", params={"id": sid}, json={}, headers={"x-user": "bob"})
    assert (refused.status_code, "session" in refused.json().get("data", {})) == (404, False)


def test_a_handler_answers_with_the_session_in_a_cookie_in_place_of_the_one_of_before() -> None:
    sessions = SessionService(MemoryEngine(), app="clinic")
    app = app_of(sessions, carriers=[CookieCarrier("s", secure=False)])
    headers = {"x-user": "ada"}
    with TestClient(app) as first, TestClient(app) as other:
        sid = first.post("/chat", headers=headers).json()["content"]
        assert other.post("/chat", headers=headers).json()["content"] != sid
        for client in (other, TestClient(app)):
            assert client.post("/resume", params={"id": sid}, headers=headers).status_code == 200
            assert client.post("/chat", headers=headers).json()["content"] == sid
        assert first.post("/chat", headers=headers).status_code == 409
