"""What a session service behind a middleware got wrong, each as the smallest turn that shows it."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from dcaf.asgi import SessionMiddleware
from dcaf.core import (
    ConfigurationError,
    Session,
    SessionConflict,
    SessionEnded,
    SessionHost,
    SessionUnavailable,
    current_session,
    transaction,
)
from dcaf.core.errors import CommitUnknownError, EngineError
from dcaf.engines import MemoryEngine, Outcome, Transaction
from dcaf.ledger import Ledger
from dcaf.service import KeptSession, Messages, SessionService
from dcaf.service import companion as companions
from dcaf.tools import Call, ToolRunner, tool
from tests.asgi.test_no_garbage import left_by
from tests.service.kept_places import KeptPlace, Watched
from tests.service.test_service_as_store import AUDIENCE, RING, Clinic, claims_of, find_ledger, put, say


@pytest.fixture(params=["memory", "memory-8"])
def place(request: pytest.FixtureRequest) -> KeptPlace:
    return KeptPlace(request.param)


def test_what_is_added_between_two_frames_is_kept_once() -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        with pytest.raises(WebSocketDisconnect):
            while True:
                text = (await socket.receive_json())["text"]
                await socket.send_json({"type": "done"})
                current_session(KeptSession).messages.add("user", text)

    assert exchange(talk, "a", "b", "c") == (["a", "b"], None)


def test_a_history_and_a_memory_that_are_held_go_on_with_each_frame() -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        session = current_session(KeptSession)
        messages, memory = session.messages, session.memory
        with pytest.raises(WebSocketDisconnect):
            while True:
                text = (await socket.receive_json())["text"]
                messages.add("user", text)
                memory.set("last", text)
                await socket.send_json({"type": "done"})

    assert exchange(talk, "a", "b", "c") == (["a", "b", "c"], "c")


def test_a_call_that_ends_in_a_later_frame_keeps_what_it_added() -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        session = current_session(KeptSession)
        with transaction(session) as draft:
            for _ in range(2):
                text = (await socket.receive_json())["text"]
                draft.messages.add("user", text)
                draft.memory.set("last", text)
                await socket.send_json({"type": "done"})
            await socket.receive_json()
        await socket.send_json({"type": "done"})

    assert exchange(talk, "a", "b", "c") == (["a", "b"], "b")


def test_who_logs_in_keeps_what_the_visitor_never_had(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        await clinic.do(None, put(**{"user:phone": "12 34", "user:theme": "dark", "user:visits": 10}))

        def visit(session: Session) -> None:
            session["basket"] = ["tea"]
            session.user.update(theme="light", lang="de")
            session.user.incr("visits", 3)

        def log_in(session: Session) -> None:
            session.user.incr("visits")
            session.user.pop("theme")
            session.rotate(subject="ada")

        first = await clinic.do(None, visit, subject=None)
        second = await clinic.do(first, log_in, subject=None)
        shared = {"user:phone": "12 34", "user:theme": "dark", "user:visits": 11, "user:lang": "de"}
        assert await clinic.read(second) == {"basket": ["tea"], **shared}
        assert await clinic.read(await clinic.do(None, lambda _: None)) == shared

    anyio.run(main)


def test_a_rotation_leaves_alone_what_others_wrote_of_shared_keys(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, lambda session: session.update({"app:motd": "old", "user:theme": "dark", "user:gone": 1}))

        async def move(session: Session) -> None:
            session["n"] = 1

            def write(other: Session) -> None:
                other.update({"app:motd": "new", "app:more": 1, "user:theme": "light", "user:lang": "de"})
                del other["user:gone"]

            await clinic.do(None, write)
            session.rotate()

        second = await clinic.do(first, move)
        shared = {"app:motd": "new", "app:more": 1, "user:theme": "light", "user:lang": "de"}
        assert await clinic.read(second) == {"n": 1, **shared}
        assert await clinic.read(await clinic.do(None, lambda _: None)) == shared

    anyio.run(main)


def test_a_session_that_goes_to_another_user_leaves_the_keys_of_the_one_before(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, lambda session: session.update({"step": 1, "user:address": "1, Main Street"}))
        second = await clinic.do(first, lambda session: session.rotate(subject="bob"))
        assert await clinic.read(second, "bob") == {"step": 1}
        assert await clinic.read(await clinic.do(None, lambda _: None, "bob"), "bob") == {}
        assert await clinic.read(await clinic.do(None, lambda _: None)) == {"user:address": "1, Main Street"}

    anyio.run(main)


@pytest.mark.parametrize("subject", [None, "bob"])
def test_what_others_write_beside_a_rotation_goes_along_or_refuses_it(place: KeptPlace, subject: str | None) -> None:
    sessions = place.open_service(on_busy="merge")

    async def main() -> None:
        clinic = Clinic(sessions)
        for is_large in (False, True):
            first = await clinic.do(None, lambda session: (say("a")(session), session.incr("n")))
            sid = claims_of(first)["sid"]

            async def move(session: Session, sid: str = sid, *, is_large: bool = is_large) -> None:
                session.rotate(subject=subject)
                session.incr("n")
                say("mine")(session)
                await sessions.append(user="ada", id=sid, messages=[{"role": "system", "content": "beside"}])
                if is_large:
                    await sessions.merge(user="ada", id=sid, state={"doctor": "ill"})
                    async with sessions.open(user="ada", id=sid) as direct:
                        direct.incr("n")

            try:
                second = await clinic.do(first, move)
            except SessionConflict:
                assert subject is not None
                assert place.kind == "memory-8"
                assert (await sessions.list(user="bob")).items == []
                second, whose, state, said = first, "ada", {"n": 1}, ["a", "beside"]
            else:
                whose, state, said = subject or "ada", {"n": 2}, ["a", "beside", "mine"]
            if is_large:
                state = {"n": state["n"] + 1, "doctor": "ill"}  # type: ignore[dict-item]
            assert await clinic.read(second, whose) == state
            page = await sessions.messages(user=whose, id=claims_of(second)["sid"])
            assert [message.content for message in page.items] == said

    anyio.run(main)


@pytest.mark.parametrize("subject", [None, "bob"])
@pytest.mark.parametrize("step", ["delete", "close", "erase", "revoke"])
def test_a_session_that_is_gone_is_not_brought_back_by_a_rotation(place: KeptPlace, step: str, subject: str | None) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, say("a", "b"))
        sid = claims_of(first)["sid"]

        async def move(session: Session) -> None:
            session["secret"] = 1
            session.rotate(subject=subject)
            if step == "revoke":
                await find_ledger(clinic).revoke(sid)
            elif step == "erase":
                await sessions.erase(user="ada")
            else:
                await getattr(sessions, step)(user="ada", id=sid)

        with pytest.raises(SessionEnded):
            await clinic.do(first, move)
        left = [kept.id for user in ("ada", "bob") for kept in (await sessions.list(user=user)).items]
        assert left == ([sid] if step in ("close", "revoke") else [])

    anyio.run(main)


def test_a_rotated_session_keeps_the_version_of_its_schema(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        clinic.host = host_of(sessions, grow)
        first = await clinic.do(None, put(size=1))
        second = await clinic.do(first, lambda session: session.rotate())
        assert await clinic.read(second) == {"size": 1}

    anyio.run(main)


def test_a_turn_that_goes_on_after_a_rotation_writes_only_what_it_changes(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        await clinic.do(None, lambda session: session.user.update(phone="12 34", theme="dark"))
        first = await clinic.do(None, lambda session: session.user.update(theme="light"), subject=None)
        async with clinic.turn(first, None) as turn:
            turn.session.rotate(subject="ada")
            await turn._turn.seal(ends_turn=False)
            turn.session["n"] = 1
            turn.session.user.incr("visits")
        assert turn.session.to_dict() == {"user:phone": "12 34", "user:theme": "dark", "n": 1, "user:visits": 1}
        assert await clinic.read(turn.envelope) == turn.session.to_dict()

    anyio.run(main)


@pytest.mark.parametrize("settings", [{"freshness": False}, {"branches": True}])
def test_a_ledger_that_knows_no_newest_token_is_refused_with_what_to_do(settings: Any) -> None:
    engine = MemoryEngine()
    ledger = Ledger(engine, audience=AUDIENCE, **settings)
    with pytest.raises(ConfigurationError, match="leave out freshness=False and branches=True"):
        SessionService(engine, app=AUDIENCE, ledger=ledger)


def test_a_state_that_a_turn_has_written_itself_is_migrated_once(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, put(size=1, n=1))
        clinic.host = host_of(sessions, grow)
        for envelope, size in ((first, 10), (None, 1)):
            async with clinic.turn(envelope) as turn:
                turn.session.setdefault("size", 1)
                turn.session["n"] = 2
                await turn._turn.seal(ends_turn=False)
                await sessions.merge(user="ada", id=turn.session.id, state={"beside": True})
                turn.session["n"] = 3
            assert await clinic.read(turn.envelope) == {"size": size, "n": 3, "beside": True}

    anyio.run(main)


def test_a_session_whose_time_at_the_service_is_over_comes_back_with_its_token(place: KeptPlace) -> None:
    sessions = place.open_service(ttl=timedelta(milliseconds=50))

    async def main() -> None:
        clinic, drained = Clinic(sessions), Clinic(sessions.draining())
        first = await drained.do(None, lambda session: (put(n=1)(session), say("forgotten")(session)))
        await anyio.sleep(0.06)
        second = await clinic.do(first, lambda session: session.incr("n"))
        page = await sessions.messages(user="ada", id=claims_of(second)["sid"])
        assert (claims_of(second)["at"], second["n"], page.items) == ("server", 2, [])

    anyio.run(main)


def test_a_session_that_went_back_to_its_token_goes_on_there(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic, drained = Clinic(sessions), Clinic(sessions.draining())
        for settle in (clinic, drained):
            await clinic.do(None, lambda session: session.user.update(theme="dark"))
            first = await settle.do(None, lambda session: (put(n=0, a=1)(session), say("1")(session)))
            envelope = first
            for _ in range(3):
                envelope = await drained.do(envelope, lambda session: (session.incr("n"), say(str(session["n"]))(session)))
                assert "at" not in claims_of(envelope)
            expected = {"n": 3, "a": 1, "user:theme": "dark"}
            assert await drained.read(envelope) == expected
            envelope = await drained.do(envelope, lambda session: session.pop("a"))
            back = await clinic.do(envelope, put(b=2))
            assert (claims_of(back)["at"], await clinic.read(back)) == ("server", {"n": 3, "b": 2, "user:theme": "dark"})
            page = await sessions.messages(user="ada", id=claims_of(first)["sid"])
            assert [message.content for message in page.items] == ["1", "1", "2", "3"]

    anyio.run(main)


@pytest.mark.parametrize("subject", [None, "bob"])
def test_a_rotation_whose_process_dies_leaves_no_second_session(
    place: KeptPlace, subject: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = place.open_service()
    monkeypatch.setattr(companions, "drop", fail_to_drop)

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, say("a"))
        second = await clinic.do(first, lambda session: session.rotate(subject=subject))
        left = [kept.id for user in ("ada", "bob") for kept in (await sessions.list(user=user)).items]
        assert left == [claims_of(second)["sid"]]
        assert (await sessions.purge()).messages == 1

    anyio.run(main)


def test_a_session_that_ends_is_gone_where_its_process_dies(place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = place.open_service()
    monkeypatch.setattr(companions, "drop", fail_to_drop)

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, say("a"))
        with suppress(SessionUnavailable):
            await clinic.do(first, lambda session: session.end())
        await sessions.purge()
        assert (await sessions.list(user="ada")).items == []

    anyio.run(main)


def fail_to_drop(_: Any) -> Any:
    """A plan whose first transaction fails."""
    yield from ()
    raise EngineError("broken")


def test_what_sessions_share_is_migrated_by_none_of_them(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, put(**{"user:size": 1}))
        second = await clinic.do(None, put(n=1))
        clinic.host = host_of(sessions, grow)
        found = [(await clinic.read(None))["user:size"]]
        for envelope in (first, second):
            async with clinic.turn(envelope) as turn:
                found.append(turn.session["user:size"])
            found.append((await clinic.read(await clinic.do(turn.envelope, put(n=2))))["user:size"])
        assert [*found, (await clinic.read(None))["user:size"]] == [1] * 6

    anyio.run(main)


def test_a_new_session_of_a_draining_service_migrates_nothing(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic, drained = Clinic(sessions), Clinic(sessions)
        clinic.host, drained.host = host_of(sessions, grow), host_of(sessions.draining(), grow)
        await clinic.do(None, put(**{"user:size": 1}))
        for _ in range(2):
            await drained.do(None, put(n=1))
        assert await clinic.read(None) == {"user:size": 1}

    anyio.run(main)


def test_a_call_that_answers_what_another_has_answered_fails_alone() -> None:
    sessions = SessionService("memory://", app=AUDIENCE)
    call = {"id": "c1", "type": "function", "function": {"name": "answer", "arguments": "{}"}}

    @tool(parallel=True)
    async def answer(text: str, messages: Messages) -> str:
        """Answer.

        Args:
            text: What.
        """
        messages.add("tool", text, tool_call_id="c1")
        await anyio.sleep(0.01)
        return text

    async def main() -> None:
        async with sessions.open(user="ada") as session:
            session.messages.add("assistant", tool_calls=[call])
            results = await ToolRunner.of(session).run_all([Call(answer, {"text": "a"}), Call(answer, {"text": "b"})])
            assert [result.is_error for result in results] == [False, True]

    anyio.run(main)


class Doubtful(Watched):
    """An engine that fails once, when it has written, or before."""

    fails: type[EngineError] | None = None

    async def transact(self, transaction: Transaction) -> Outcome:
        fails, self.fails = self.fails, None
        if fails is EngineError:
            break_engine()
        outcome = await super().transact(transaction)
        if fails is not None:
            raise fails("who knows")
        return outcome


def talk_in_doubt(engine: Doubtful, error: type[EngineError], at: str) -> tuple[list[str], int, list[Any]]:
    """Three frames, the commit of one of which fails, while a shared key changes; what was answered, ``n``, and what was said."""
    sessions = SessionService(engine, app=AUDIENCE)

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        with pytest.raises(WebSocketDisconnect):
            while True:
                text = (await socket.receive_json())["text"]
                session = current_session(KeptSession)
                session.messages.add("user", text)
                session.incr("n")
                if text == at:
                    engine.fails = error
                await socket.send_json({"type": "done"})

    app = Starlette(routes=[WebSocketRoute("/", talk)])
    served = SessionMiddleware(app, keys=RING, audience=AUDIENCE, store=sessions, subject=lambda _: "ada")
    answered = []
    with TestClient(served).websocket_connect("/") as socket:
        for text in ("0", "1", "2"):
            socket.send_json({"text": text})
            answered.append(socket.receive_json()["type"])
            if text == at:
                with sessions.sync.open(user="ada") as other:
                    other.user["theme"] = "dark"
    [kept] = [kept for kept in sessions.sync.list(user="ada").items if kept.messages]
    found = sessions.sync.get(user="ada", id=kept.id)
    assert found is not None
    return answered, found["n"], [message.content for message in sessions.sync.messages(user="ada", id=kept.id).items]


@pytest.mark.parametrize("at", ["0", "1"])
def test_a_frame_that_could_not_be_written_goes_on_whole_with_the_next_one(at: str) -> None:
    answered, count, said = talk_in_doubt(Doubtful(MemoryEngine()), EngineError, at)
    assert answered == ["error" if text == at else "done" for text in ("0", "1", "2")]
    assert (count, said) == (3, ["0", "1", "2"])


@pytest.mark.parametrize("at", ["0", "1"])
def test_a_frame_that_was_written_all_the_same_is_kept_once(at: str) -> None:
    answered, count, said = talk_in_doubt(Doubtful(MemoryEngine()), CommitUnknownError, at)
    assert answered[int(at)] == "error"
    assert (count, len(said)) == (len(said), len(set(said)))
    assert at in said


def break_engine() -> None:
    raise EngineError("broken")


def test_a_session_that_is_taken_back_is_of_the_version_of_then(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, lambda session: (put(size=1)(session), say("a")(session)))
        clinic.host = host_of(sessions, grow)
        second = await clinic.do(first, say("b"))
        await sessions.rewind(user="ada", id=claims_of(first)["sid"], to=1)
        assert await clinic.read(second) == {"size": 10}

    anyio.run(main)


def test_a_session_that_is_taken_back_within_a_version_is_migrated_no_more(place: KeptPlace) -> None:
    sessions = place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, put(size=1))
        sid = claims_of(first)["sid"]
        clinic.host = host_of(sessions, grow)
        second = await clinic.do(first, say("a"))

        def go_on(session: Session) -> None:
            KeptSession.of(session).checkpoint("here")
            session["n"] = 1
            say("b")(session)

        third = await clinic.do(second, go_on)
        await sessions.rewind(user="ada", id=sid, checkpoint="here")
        await sessions.rewind(user="ada", id=sid, to=1)
        fork = await sessions.fork(user="ada", id=sid, at=1)
        assert await clinic.read(third) == {"size": 10}
        assert fork.version == 1

    anyio.run(main)


def test_a_turn_that_is_laid_over_another_leaves_nothing_for_the_garbage_collector() -> None:
    sessions = SessionService("memory://", app=AUDIENCE)

    async def turn(envelope: Any) -> Any:
        async def act(session: Session) -> None:
            session.incr("n")
            if envelope is not None:
                await sessions.merge(user="ada", id=str(session.id), state={"beside": session["n"]})

        return await Clinic(sessions).do(envelope, act)

    envelopes = [anyio.run(turn, None)]
    assert left_by(lambda: envelopes.append(anyio.run(turn, envelopes[-1]))) == []


def grow(state: Any) -> Any:
    """A migration that shows when it is done twice."""
    return {key: value * 10 if key.endswith("size") else value for key, value in state.items()}


def host_of(sessions: Any, migration: Any) -> SessionHost:
    return SessionHost(keys=RING, audience=AUDIENCE, store=sessions, version=1, migrations={1: migration})


def exchange(talk: Any, *texts: str) -> tuple[list[Any], Any]:
    """Frames without a session over one socket; returns the history, and what is remembered as ``last``."""
    sessions = SessionService("memory://", app=AUDIENCE)
    app = Starlette(routes=[WebSocketRoute("/", talk)])
    served = SessionMiddleware(app, keys=RING, audience=AUDIENCE, store=sessions, subject=lambda _: "ada")
    with TestClient(served).websocket_connect("/") as socket:
        for text in texts:
            socket.send_json({"text": text})
            assert socket.receive_json()["type"] == "done"
    [kept] = sessions.sync.list(user="ada").items
    page = sessions.sync.messages(user="ada", id=kept.id)
    return [message.content for message in page.items], sessions.sync.memory(user="ada").get("last")
