"""A session service behind a middleware or a host: the token has a pointer, and a turn is one commit of all that it did."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dcaf.asgi import SessionMiddleware, checkpoint
from dcaf.core import (
    ConfigurationError,
    Key,
    Keyring,
    Session,
    SessionConflict,
    SessionEnded,
    SessionHost,
    SessionUnavailable,
    current_session,
)
from dcaf.core.errors import EngineError
from dcaf.core.merging import Increment
from dcaf.engines import MemoryEngine
from dcaf.ledger import Ledger
from dcaf.service import KeptSession, Memory, Messages, SessionService
from dcaf.service import companion as companions
from dcaf.testing import SessionClient
from dcaf.tools import ToolRunner, tool
from tests.service.kept_places import KeptPlace, Watched

RING = Keyring(Key.from_bytes("k7", bytes(range(32))))
AUDIENCE = "clinic"


class Clinic:
    """A service without a transport, and its clients, who keep envelopes.

    Args:
        store: What keeps its sessions.
    """

    def __init__(self, store: Any) -> None:
        self.host = SessionHost(keys=RING, audience=AUDIENCE, store=store)

    @asynccontextmanager
    async def turn(self, envelope: Any = None, subject: str | None = "ada") -> AsyncIterator[Any]:
        async with self.host.turn(envelope, subject=subject) as turn:
            yield turn

    async def do(self, envelope: Any, action: Callable[[Session], Any], subject: str | None = "ada") -> Any:
        """One turn; returns the new envelope."""
        async with self.host.turn(envelope, subject=subject) as turn:
            found = action(turn.session)
            if isinstance(found, Awaitable):
                await found
        return turn.envelope

    async def read(self, envelope: Any, subject: str | None = "ada") -> dict[str, Any]:
        """The state, in a turn that does nothing."""
        async with self.host.turn(envelope, subject=subject) as turn:
            return turn.session.to_dict()


def claims_of(envelope: Any) -> Any:
    part = envelope["dcaf"]["token"].split(".")[2]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def payload_of(envelope: Any) -> bytes:
    part = envelope["dcaf"]["token"].split(".")[3]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def put(**values: Any) -> Callable[[Session], None]:
    return lambda session: session.update(values)


def say(*texts: str) -> Callable[[Session], None]:
    def add(session: Session) -> None:
        for text in texts:
            Messages.of(session).add("user", text)

    return add


def test_the_token_says_where_the_state_is_and_the_mirror_shows_it(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        async with clinic.turn() as turn:
            turn.session["step"] = 1
            turn.session.user["theme"] = "dark"
            turn.session.app["motd"] = "hello"
            turn.session.temp["scratch"] = 1
            Messages.of(turn.session).add("user", "Hello!")
            Memory.of(turn.session).set("allergies", ["penicillin"])
            Memory.of(turn.session).here.set("mood", "worried")
        envelope, sid = turn.envelope, turn.session.id
        assert (claims_of(envelope)["at"], payload_of(envelope)) == ("server", b"{}")
        assert {key: value for key, value in envelope.items() if key != "dcaf"} == {
            "step": 1,
            "user:theme": "dark",
            "app:motd": "hello",
        }
        kept = await sessions.get(user="ada", id=sid)
        assert kept is not None
        assert (kept.to_dict(), kept.revision, kept.messages.total) == (
            {"step": 1, "user:theme": "dark", "app:motd": "hello"},
            1,
            1,
        )
        async with clinic.turn(envelope) as turn:
            session = turn.session
            assert session.to_dict() == {"step": 1, "user:theme": "dark", "app:motd": "hello"}
            assert [message.content for message in Messages.of(session)] == ["Hello!"]
            assert await Memory.of(session).get("allergies", as_type=list[str]) == ["penicillin"]
            assert await Memory.of(session).here.get("mood") == "worried"
            session.incr("step")
            del session["app:motd"]
        async with clinic.turn(turn.envelope) as turn:
            assert turn.session.to_dict() == {"step": 2, "user:theme": "dark"}
        async with clinic.turn(subject="ada") as other, clinic.turn(subject="bob") as third, clinic.turn(subject=None) as fourth:
            assert other.session.to_dict() == {"user:theme": "dark"}
            assert third.session.to_dict() == fourth.session.to_dict() == {}
        await sessions.aclose()

    anyio.run(main)


def test_a_turn_that_adds_a_message_alone_is_numbered_and_kept(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, put(step=1))
        second = await clinic.do(first, say("a"))
        third = await clinic.do(second, lambda session: Memory.of(session).set("k", 1))
        fourth = await clinic.do(third, lambda _: None)
        assert [claims_of(envelope)["seq"] for envelope in (first, second, third, fourth)] == [1, 2, 3, 3]
        kept = await sessions.get(user="ada", id=claims_of(first)["sid"])
        assert kept is not None
        assert (kept.revision, kept.messages.total, await kept.memory.get("k")) == (3, 1, 1)
        await sessions.aclose()

    anyio.run(main)


def test_a_turn_that_raises_keeps_nothing(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, put(step=1))
        with pytest.raises(ZeroDivisionError):
            async with clinic.turn(first) as turn:
                turn.session["step"] = 2
                say("lost")(turn.session)
                Memory.of(turn.session).set("k", 1)
                fail()
        kept = await sessions.get(user="ada", id=claims_of(first)["sid"])
        assert kept is not None
        assert (kept.to_dict(), kept.messages.total, await kept.memory.get("k")) == ({"step": 1}, 0, None)
        assert await clinic.read(first) == {"step": 1}
        await sessions.aclose()

    anyio.run(main)


def test_what_others_write_beside_a_turn_is_under_it(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, put(step=1, log=["a"]))
        sid = claims_of(first)["sid"]
        async with clinic.turn(first) as turn:
            await sessions.append(user="ada", id=sid, messages=[{"role": "system", "content": "between"}])
            await sessions.merge(user="ada", id=sid, state={"other": 2, "log": ["a", "b"]})
            turn.session.incr("step")
            turn.session.append("log", "c")
            turn.session.user.incr("visits")
            say("mine")(turn.session)
            async with clinic.turn(subject="ada") as beside:
                beside.session.user.incr("visits")
        kept = await sessions.get(user="ada", id=sid)
        assert kept is not None
        assert kept.to_dict() == {"step": 2, "other": 2, "log": ["a", "b", "c"], "user:visits": 2}
        page = await sessions.messages(user="ada", id=sid)
        assert [message.content for message in page.items] == ["between", "mine"]
        assert await clinic.read(turn.envelope) == kept.to_dict()
        await sessions.aclose()

    anyio.run(main)


def test_a_direct_turn_in_between_refuses_or_is_merged(kept_place: KeptPlace) -> None:
    sessions, merging = kept_place.open_service(), kept_place.open_service(on_busy="merge")

    async def main() -> None:
        for service in (sessions, merging):
            clinic = Clinic(service)
            first = await clinic.do(None, put(n=0))
            sid = claims_of(first)["sid"]

            async def act(session: Session, sid: str = sid) -> None:
                session.incr("n")
                say("behind")(session)
                async with sessions.open(user="ada", id=sid) as direct:
                    direct.incr("n")
                    direct.messages.add("user", "direct")

            if service is sessions:
                with pytest.raises(SessionConflict):
                    await clinic.do(first, act)
                last = first
            else:
                last = await clinic.do(first, act)
            page = await sessions.messages(user="ada", id=sid)
            assert [message.content for message in page.items] == ["direct", *(["behind"] if service is merging else [])]
            assert await clinic.read(last) == {"n": 2 if service is merging else 1}
        await sessions.aclose()
        await merging.aclose()

    anyio.run(main)


def test_control_a_commit_that_compares_no_revision_loses_the_direct_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    from dcaf.engines import Exists
    from dcaf.service import commits

    monkeypatch.setattr(commits, "is_at", lambda row, _: Exists(row))
    with pytest.raises((AssertionError, BaseExceptionGroup, pytest.fail.Exception)):
        test_a_direct_turn_in_between_refuses_or_is_merged(KeptPlace("memory"))


def test_a_session_that_is_gone_or_closed_is_refused_and_its_history_is_gone_with_it(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        deleted, closed, ended = [await clinic.do(None, say("a")) for _ in range(3)]
        await sessions.delete(user="ada", id=claims_of(deleted)["sid"])
        await sessions.close(user="ada", id=claims_of(closed)["sid"])
        assert (await clinic.do(ended, lambda session: session.end()))["dcaf"]["token"] == "new"
        for envelope, reason in ((deleted, "gone"), (closed, "closed"), (ended, "revoked")):
            with pytest.raises(SessionEnded) as refused:
                await clinic.read(envelope)
            assert refused.value.reason == reason
        assert [kept.id for kept in (await sessions.list(user="ada")).items] == [claims_of(closed)["sid"]]
        await sessions.erase(user="ada")
        assert (await sessions.list(user="ada")).items == []
        await sessions.aclose()

    anyio.run(main)


def test_a_session_that_is_deleted_in_its_turn_is_not_brought_back(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        for step in (sessions.delete, sessions.close):
            first = await clinic.do(None, say("a"))
            sid = claims_of(first)["sid"]
            with pytest.raises(SessionEnded):
                async with clinic.turn(first) as turn:
                    await step(user="ada", id=sid)
                    turn.session["n"] = 1
            found = await sessions.get(user="ada", id=sid)
            assert found is None or found.to_dict() == {}
        await sessions.aclose()

    anyio.run(main)


def test_a_rotated_session_takes_along_what_it_has(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)

        def fill(session: Session) -> None:
            session.update(step=1)
            session.user["theme"] = "dark"
            say(*map(str, range(12)))(session)
            Memory.of(session).here.set("mood", "worried", ttl=timedelta(days=1))

        first = await clinic.do(None, fill)

        def move(session: Session) -> None:
            session.rotate()
            session.incr("step")
            say("12")(session)

        second = await clinic.do(first, move)
        assert claims_of(first)["sid"] != claims_of(second)["sid"]
        assert [kept.id for kept in (await sessions.list(user="ada")).items] == [claims_of(second)["sid"]]
        async with clinic.turn(second) as turn:
            assert turn.session.to_dict() == {"step": 2, "user:theme": "dark"}
            assert [message.content for message in Messages.of(turn.session)] == list(map(str, range(13)))
            assert await Memory.of(turn.session).here.get("mood") == "worried"
        with pytest.raises(SessionEnded):
            await clinic.read(first)
        await sessions.aclose()

    anyio.run(main)


def test_who_logs_in_takes_the_anonymous_session_along_and_keeps_what_was_there(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)

        def settle(session: Session) -> None:
            session.user.update(theme="dark")
            Memory.of(session).set("known", "ada's")

        await clinic.do(None, settle)

        def visit(session: Session) -> None:
            session["basket"] = ["tea"]
            session.user.update(theme="light", lang="de", size=1)
            say("one", "two")(session)
            Memory.of(session).set("known", "a visitor's")
            Memory.of(session).set("new", "a visitor's")

        first = await clinic.do(None, visit, subject=None)

        def log_in(session: Session) -> None:
            session.rotate(subject="ada")
            session.user["size"] = 2

        second = await clinic.do(first, log_in, subject=None)
        async with clinic.turn(second) as turn:
            assert turn.session.to_dict() == {"basket": ["tea"], "user:theme": "dark", "user:lang": "de", "user:size": 2}
            assert [message.content for message in Messages.of(turn.session)] == ["one", "two"]
            found = {fact.key: fact.value for fact in await Memory.of(turn.session).all()}
            assert found == {"known": "ada's", "new": "a visitor's"}
        with pytest.raises(SessionEnded):
            await clinic.read(first, subject=None)
        assert await sessions.get(user=None, id=claims_of(first)["sid"]) is None
        await sessions.aclose()

    anyio.run(main)


def test_a_rotation_that_is_refused_leaves_the_session_where_it_was(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()

    async def main() -> None:
        clinic = Clinic(sessions)
        first = await clinic.do(None, say("a", "b"))
        sid = claims_of(first)["sid"]
        with pytest.raises(SessionEnded):
            async with clinic.turn(first) as turn:
                turn.session.rotate()
                await sessions.close(user="ada", id=sid)
                await find_ledger(clinic).revoke(sid)
        page = await sessions.messages(user="ada", id=sid)
        assert [message.content for message in page.items] == ["a", "b"]
        assert len((await sessions.list(user="ada")).items) == 1
        await sessions.purge()
        await sessions.aclose()

    anyio.run(main)


def find_ledger(clinic: Clinic) -> Ledger:
    store: Any = clinic.host._store
    found: Ledger = store.ledger
    return found


def test_sessions_of_before_come_with_their_next_turn_and_go_back_by_draining(kept_place: KeptPlace) -> None:
    engine = kept_place.open_engine()
    ledger = Ledger(engine, audience=AUDIENCE)
    sessions = SessionService(engine, app=AUDIENCE, ledger=ledger)

    async def main() -> None:
        settled = await Clinic(sessions).do(None, lambda session: session.user.update(theme="dark"))
        tokens, kept, drained = Clinic(ledger), Clinic(sessions), Clinic(sessions.draining())
        first = await tokens.do(None, lambda session: session.update({"step": 1, "user:theme": "light", "user:lang": "de"}))
        second = await kept.do(first, lambda _: None)
        assert "at" not in claims_of(first)
        assert claims_of(second)["at"] == "server"
        expected = {"step": 1, "user:theme": "dark", "user:lang": "de"}
        found = await sessions.get(user="ada", id=claims_of(first)["sid"])
        assert found is not None
        assert found.to_dict() == await kept.read(second) == expected
        third = await kept.do(second, put(step=2))
        fourth = await drained.do(third, lambda _: None)
        assert "at" not in claims_of(fourth)
        fifth = await tokens.do(fourth, lambda session: session.update(step=3))
        assert await tokens.read(fifth) == expected | {"step": 3}
        sixth = await kept.do(fifth, lambda session: session.update(late=True))
        assert await kept.read(sixth) == expected | {"step": 3, "late": True}
        with pytest.raises(SessionUnavailable):
            await tokens.read(sixth)
        assert await kept.read(settled) == {"user:theme": "dark", "user:lang": "de"}
        await engine.aclose()

    anyio.run(main)


def test_what_is_too_large_for_a_token_stays_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    sessions = SessionService("memory://", app=AUDIENCE)

    async def main() -> None:
        large = await Clinic(sessions).do(None, put(text="x" * 1_000_000))
        with caplog.at_level(logging.WARNING):
            after = await Clinic(sessions.draining()).do(large, put(step=1))
        assert claims_of(after)["at"] == "server"
        assert "too large for a token" in caplog.text
        assert "xxx" not in caplog.text
        assert (await Clinic(sessions).read(after))["step"] == 1

    anyio.run(main)


def test_it_is_one_trip_to_open_and_one_to_commit() -> None:
    engine: Any = Watched(MemoryEngine())
    clinic = Clinic(SessionService(engine, app=AUDIENCE))

    async def main() -> list[int]:
        envelope, counts = await clinic.do(None, say("a")), []
        for action in (put(n=1), say("b", "c"), lambda session: Memory.of(session).set("k", 1), lambda _: None):
            before = engine.done
            envelope = await clinic.do(envelope, action)
            counts.append(engine.done - before)
        return counts

    assert anyio.run(main) == [2, 2, 2, 2]


def test_a_state_of_many_keys_is_read_whole(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()
    many = {f"k{number}": number for number in range(1_200)}

    async def main() -> None:
        clinic = Clinic(sessions)
        envelope = await clinic.do(None, lambda session: session.update(many))
        assert await clinic.read(envelope) == many
        await sessions.aclose()

    anyio.run(main)


@tool
def note(text: str, session: Session, messages: Messages) -> str:
    """Note a text.

    Args:
        text: The text.
    """
    session["last"] = text
    messages.add("user", text)
    if text == "wrong":
        raise ValueError
    return f"{messages.total}"


async def serve(request: Request) -> JSONResponse:
    body = await request.json()
    results = []
    for text in body.get("texts", []):
        try:
            results.append(await ToolRunner.of(current_session()).run(note, {"text": text}))
        except ValueError:
            results.append("failed")
    kept = current_session(KeptSession)
    return JSONResponse({"results": results, "said": [message.content for message in kept.messages], "revision": kept.revision})


async def stream(_: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            Messages.of(current_session()).add("assistant", f"line {number}")
            current_session().incr("n")
            yield json.dumps({"type": "text"}) + "\n"
            await checkpoint()
        yield json.dumps({"type": "done"}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.receive_json()
        Messages.of(current_session()).add("user", "frame")
        await socket.send_json({"type": "done", "total": Messages.of(current_session()).total})


def build_app(sessions: SessionService) -> SessionMiddleware:
    routes = [Route("/", serve, methods=["POST"]), Route("/stream", stream, methods=["POST"]), WebSocketRoute("/talk", talk)]
    return SessionMiddleware(Starlette(routes=routes), keys=RING, audience=AUDIENCE, store=sessions)


def test_answers_streams_and_sockets_carry_the_pointer_and_keep_the_history(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()
    app = build_app(sessions)
    with SessionClient(app, path="/") as client:
        first = client.send("", texts=["a", "wrong", "b"])
        assert first.body["results"] == ["1", "failed", "2"]
        assert (first.session["last"], first.body["said"]) == ("b", ["a", "b"])
        streamed = SessionClient(app, wire="ndjson", path="/stream", envelope=client.envelope).send("")
        spoken = SessionClient(app, wire="websocket", path="/talk", envelope=streamed.envelope)
        totals = [spoken.send("").events[0]["total"] for _ in range(3)]
        client.envelope = spoken.envelope
        spoken.close()
        again = client.send("")
        assert totals == [6, 7, 8]
        assert again.body["said"] == ["a", "b", "line 0", "line 1", "line 2", "frame", "frame", "frame"]
        assert (again.session["n"], again.session["last"]) == (3, "b")
    sessions.engine.sync.close()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.sampled_from([0, 1.0, -0.0, None, "\x00", [1, {"x": []}], 2**53])),
        st.tuples(st.just("incr"), st.sampled_from("nm"), st.integers(-3, 3)),
        st.tuples(st.just("append"), st.sampled_from("lo"), st.sampled_from(["x", 1, None])),
        st.tuples(st.just("drop"), st.sampled_from("abcnmlo"), st.none()),
        st.tuples(st.just("clear"), st.none(), st.none()),
        st.tuples(st.just("turn"), st.none(), st.none()),
        st.tuples(st.just("fail"), st.none(), st.none()),
    ),
    max_size=25,
)


def apply(session: Session, name: str, key: Any, value: Any) -> None:
    if name == "put":
        session[key] = value
    elif name == "incr":
        session.incr(key, value)
    elif name == "append":
        session.append(key, value)
    elif name == "drop":
        session.pop(key, None)
    elif name == "clear":
        session.clear()


async def play(store: Any, program: list[Any]) -> dict[str, Any]:
    clinic, envelope, step = Clinic(store), None, 0
    while step < len(program):
        try:
            async with clinic.turn(envelope) as turn:
                while step < len(program):
                    name, key, value = program[step]
                    step += 1
                    if name == "turn":
                        break
                    if name == "fail":
                        fail()
                    apply(turn.session, name, key, value)
            envelope = turn.envelope
        except ZeroDivisionError:
            continue
    return await clinic.read(envelope)


def fail() -> None:
    raise ZeroDivisionError


def compare(programs: int, places: list[Callable[[], Any]]) -> None:
    @settings(max_examples=programs, deadline=None, database=None, derandomize=True)
    @given(OPERATIONS)
    def check(program: list[Any]) -> None:
        async def main() -> list[Any]:
            return [json.dumps(await play(place(), program), sort_keys=True) for place in (lambda: None, *places)]

        at_l0, *others = anyio.run(main)
        assert others == [at_l0] * len(others)

    check()


def test_the_same_program_ends_in_the_same_state_at_l0_at_l2_and_at_l3(scale: float) -> None:
    compare(
        max(30, round(1_000 * scale)),
        [lambda: Ledger("memory://", audience=AUDIENCE), lambda: SessionService("memory://", app=AUDIENCE)],
    )


def test_control_a_commit_that_forgets_removed_keys_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    find = companions.KeptCompanion._find_change

    def forget(self: Any, sealed: Any) -> Any:
        change = find(self, sealed)
        return change.__class__(
            {key: value for key, value in change.values.items() if value.after is not None},
            change.messages,
            change.ttl_ms,
            change.memory,
        )

    monkeypatch.setattr(companions.KeptCompanion, "_find_change", forget)
    with pytest.raises(AssertionError):
        compare(200, [lambda: SessionService("memory://", app=AUDIENCE)])


def test_a_ledger_of_another_engine_or_audience_is_refused() -> None:
    engine = MemoryEngine()
    with pytest.raises(ConfigurationError, match="on the same engine"):
        SessionService(engine, app=AUDIENCE, ledger=Ledger("memory://", audience=AUDIENCE))
    sessions = SessionService(engine, app=AUDIENCE, ledger=Ledger(engine, audience="another"))
    with pytest.raises(ConfigurationError, match="audience="):
        SessionHost(keys=RING, audience=AUDIENCE, store=sessions)


def test_a_second_lifespan_opens_the_engine_again(tmp_path: Any) -> None:
    sessions = SessionService(f"sqlite:///{tmp_path}/dcaf.db", app=AUDIENCE)
    app = build_app(sessions)
    envelope = None
    for said in (["a"], ["a", "b"]):
        with SessionClient(app, path="/", envelope=envelope) as client:
            found = client.send("", texts=said[-1:])
            assert found.body["said"] == said
            envelope = client.envelope
    sessions.engine.sync.close()


def test_keys_of_the_application_that_cannot_be_written_are_told() -> None:
    """They lie elsewhere: all else is written, and nobody can tell whether they are."""
    engine: Any = Watched(MemoryEngine(partitions=8))
    clinic = Clinic(SessionService(engine, app=AUDIENCE))

    async def main() -> None:
        first = await clinic.do(None, put(step=1), subject="eve")
        with pytest.raises(SessionUnavailable):
            async with clinic.turn(first, "eve") as turn:
                turn.session.app["motd"] = "hello"
                turn.session["step"] = 2
                engine.before(1, raise_engine_error)

    anyio.run(main)


def raise_engine_error() -> None:
    raise EngineError("broken")


def test_counters_that_all_sessions_of_a_user_share_count_every_turn(kept_place: KeptPlace) -> None:
    sessions = kept_place.open_service()
    assert Increment(1).apply(b"1", "n") == b"2"

    async def main() -> None:
        clinic = Clinic(sessions)

        async def visit() -> None:
            envelope = None
            for _ in range(4):
                envelope = await clinic.do(envelope, lambda session: (session.user.incr("visits"), session.app.incr("all")))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(visit)
        async with clinic.turn() as turn:
            assert turn.session.to_dict() == {"app:all": 16, "user:visits": 16}
        await sessions.aclose()

    anyio.run(main)


# How many messages a turn reads


@pytest.mark.parametrize("last", [0, 1, 3, 10_000])
def test_a_turn_reads_as_many_messages_as_its_service_says(kept_place: KeptPlace, last: int) -> None:
    sessions = kept_place.open_service(last=last)

    async def main() -> None:
        clinic = Clinic(sessions)
        envelope = await clinic.do(None, say(*(str(number) for number in range(60))))
        async with clinic.turn(envelope) as turn:
            messages = Messages.of(turn.session)
            assert [message.content for message in messages] == [str(number) for number in range(max(0, 60 - last), 60)]
            assert messages.total == 60
            say("more")(turn.session)
        assert sessions.sync.messages(user="ada", id=str(turn.session.id)).total == 61
        await sessions.aclose()

    anyio.run(main)


@pytest.mark.parametrize("last", [-1, 10_001, 1.0, "5", None, True])
def test_a_service_reads_a_number_of_messages(last: Any) -> None:
    with pytest.raises(ConfigurationError, match="last="):
        SessionService("memory://", app="clinic", last=last)
