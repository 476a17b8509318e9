"""A client that never got its answer asks again: what it gets, who gets it, and what is kept of it meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dcaf.core import Key, Keyring
from dcaf.core.claims import Binding
from dcaf.engines import Record
from dcaf.ledger import rules
from tests.asgi.wire import JSON_TYPE, scope_of
from tests.ledger.ledger_world import RING, claims_of, number_of, run

CONFLICT = (409, "session-conflict")
SUPERSEDED = (409, "session-superseded")
REUSED = (422, "idempotency-key-reused")


def lose(world: Any, again: Any, how: str = "count", *, subject: str | None = "ada", first: Any = None, **sent: Any) -> Any:
    """A turn whose answer is lost, after one that arrived; what ``again`` gets, and what was lost."""

    async def scenario() -> Any:
        begun = await world.turn(subject=subject)
        lost = await world.turn(begun.session, how, subject=subject, **sent)
        return lost, await again(begun.session)

    return run(scenario)


def test_the_same_request_gets_the_answer_that_was_lost_and_is_not_done_again(build: Any) -> None:
    world = build()
    lost, again = lose(world, world.turn)
    assert again.told == CONFLICT
    assert again.value["applied"] is True
    assert again.session["dcaf"]["token"] == lost.session["dcaf"]["token"]
    assert again.session["n"] == 2
    assert world.ran == ["count", "count"]
    assert world.names[-1] == "reissued"


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_another_request_of_the_holder_gets_the_session_and_may_be_sent_again(build: Any, method: str) -> None:
    world = build()
    lost, again = lose(world, lambda old: world.turn(old, say="another", method=method))
    assert (again.told, again.value["applied"], number_of(again.session)) == (CONFLICT, False, number_of(lost.session))
    assert again.session["dcaf"]["retry"] is True
    assert run(lambda: world.turn(again.session, say="another")).value["n"] == 3


def test_an_unbound_session_is_given_to_the_very_same_request_alone(build: Any) -> None:
    world = build()
    _, again = lose(world, lambda old: world.turn(old, subject=None, say="another"), subject=None)
    assert again.told == SUPERSEDED
    assert again.session is None
    _, same = lose(world, lambda old: world.turn(old, subject=None), subject=None)
    assert (same.told, same.value["applied"]) == (CONFLICT, True)


def test_control_without_that_rule_whoever_copied_an_old_token_gets_the_new_one(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_lost(presented: Any, rows: Any, claims: Any, **settings: Any) -> Any:
        return rules.Lost(Record(presented.answer.table, rows[presented.row]["answer"], presented.row.partition), applied=False)

    monkeypatch.setattr("dcaf.ledger.opening.find_lost", find_lost)
    world = build()
    _, again = lose(world, lambda old: world.turn(old, subject=None, say="another"), subject=None)
    assert again.session is not None


@pytest.mark.parametrize(("subject", "told"), [("ada", CONFLICT), (None, SUPERSEDED)], ids=["bound", "unbound"])
def test_a_key_alone_gives_an_unbound_session_to_nobody(build: Any, subject: str | None, told: Any) -> None:
    world = build(middleware={"carriers": ("header",)})
    user = [] if subject is None else [(b"x-user", subject.encode())]

    async def scenario() -> Any:
        first = await world.exchange(scope_of("POST", "/count", [JSON_TYPE, *user]), b"{}")
        token = (b"dcaf-session", first.headers["dcaf-session"].encode())
        sent = scope_of("POST", "/count", [(b"content-type", b"image/png"), *user, token, (b"idempotency-key", b"k1")])
        return [await world.exchange(dict(sent), image, more=b"the rest") for image in (b"one", b"other")]

    lost, again = run(scenario)
    assert (lost.status, again.told) == (200, told)
    assert (again.headers.get("dcaf-session") == lost.headers["dcaf-session"]) is (subject is not None)


def test_another_holder_gets_nothing(build: Any) -> None:
    world = build()
    _, again = lose(world, lambda old: world.turn(old, subject="eve"))
    assert again.told == (400, "session-invalid")
    assert again.session == {"dcaf": {"token": "new"}}


@pytest.mark.parametrize("key", ["k1", None])
def test_it_is_given_for_ten_minutes(build: Any, key: str | None) -> None:
    world = build()

    async def again(old: Any) -> Any:
        world.clock.tick(timedelta(minutes=9, seconds=59))
        early = await world.turn(old, key=key)
        world.clock.tick(timedelta(seconds=2))
        return early, await world.turn(old, key=key)

    _, (early, late) = lose(world, again, key=key)
    assert early.told == CONFLICT
    assert late.told == SUPERSEDED
    assert late.session is None


@pytest.mark.parametrize("key", ["k1", None])
def test_it_is_not_given_once_its_token_came_back(build: Any, key: str | None) -> None:
    """Whoever has the newest token needs none; whoever asks with an older one later is not its client."""
    world = build()

    async def scenario() -> Any:
        begun = await world.turn()
        answer = await world.turn(begun.session, key=key)
        await world.turn(answer.session, "read", method="GET")
        return await world.turn(begun.session, key=key)

    again = run(scenario)
    assert again.told == SUPERSEDED
    assert again.session is None
    assert world.ran == ["count", "count", "read"]


def test_a_key_tells_a_request_from_another_one(build: Any) -> None:
    world = build()

    async def again(old: Any) -> Any:
        same = await world.turn(old, key="k1")
        other = await world.turn(old, key="k1", say="another")
        return same, other, await world.turn(old, key="k2", say="another")

    _, (same, other, fresh) = lose(world, again, key="k1")
    assert (same.told, same.value["applied"]) == (CONFLICT, True)
    assert other.told == REUSED
    assert other.session is None
    assert (fresh.told, fresh.value["applied"]) == (CONFLICT, False)
    assert world.ran == ["count", "count"]


def test_a_key_of_a_turn_before_the_last_is_superseded_and_not_done_again(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        begun = await world.turn()
        answer = await world.turn(begun.session, key="k1")
        await world.turn(answer.session, key="k2")
        return await world.turn(begun.session, key="k1")

    assert run(scenario).told == SUPERSEDED
    assert len(world.ran) == 3


def test_an_untouched_turn_with_a_key_is_answered_once(build: Any) -> None:
    world = build()
    _, again = lose(world, lambda old: world.turn(old, "read", key="k1"), "read", key="k1")
    assert (again.told, again.value["applied"]) == (CONFLICT, True)
    assert world.ran == ["count", "read"]


def test_a_turn_with_a_key_whose_answer_carries_no_session_is_done_once(build: Any) -> None:
    world = build()
    lost, again = lose(world, lambda old: world.turn(old, "text", key="k1"), "text", key="k1")
    assert (lost.status, again.told, again.value["applied"]) == (200, CONFLICT, True)
    assert run(lambda: world.turn(again.session)).value["n"] == 2
    assert world.ran == ["count", "text", "count"]


def test_an_untouched_turn_with_a_key_is_done_once_where_the_cookie_need_not_be_written_anew(build: Any) -> None:
    world = build(middleware={"carriers": ("cookie",)})
    user = (b"x-user", b"ada")

    async def scenario() -> Any:
        first = await world.exchange(scope_of("POST", "/count", [JSON_TYPE, user]), b"{}")
        cookie = (b"cookie", first.headers["set-cookie"].partition(";")[0].encode())
        sent = scope_of("POST", "/read", [JSON_TYPE, user, cookie, (b"idempotency-key", b"k1")])
        return await world.exchange(dict(sent), b"{}"), await world.exchange(dict(sent), b"{}")

    lost, again = run(scenario)
    assert (lost.status, again.told, again.value["applied"]) == (200, CONFLICT, True)
    assert world.ran == ["count", "read"]


def test_a_text_is_refused_where_its_turn_with_a_key_cannot_be_committed(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        world.in_turn = lambda session: world.ledger.revoke(claims_of(first.session)["sid"])
        return await world.turn(first.session, "text", key="k1")

    assert run(scenario).told == (409, "session-ended")


def test_an_untouched_turn_without_a_key_is_done_again(build: Any) -> None:
    world = build()
    _, again = lose(world, lambda old: world.turn(old, "read"), "read")
    assert again.status == 200


def test_any_older_number_is_superseded(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        second = await world.turn(first.session)
        await world.turn(second.session)
        return await world.turn(first.session)

    again = run(scenario)
    assert again.told == SUPERSEDED
    assert again.session is None
    assert "superseded" in world.names


def test_a_first_turn_with_a_key_begins_one_session(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        lost = await world.turn(key="k1")
        again = await world.turn(key="k1")
        other = await world.turn(key="k1", say="another")
        await world.turn(again.session)
        return lost, again, other, await world.turn(key="k1")

    lost, again, other, late = run(scenario)
    assert (again.told, again.value["applied"]) == (CONFLICT, True)
    assert again.session["dcaf"]["token"] == lost.session["dcaf"]["token"]
    assert other.told == REUSED
    assert late.told == SUPERSEDED, "the session has gone on"
    assert world.ran == ["count", "count"]


@pytest.mark.parametrize(("key", "subject"), [(None, "ada"), ("k1", None)])
def test_a_first_turn_without_key_or_subject_is_not_promised(build: Any, key: str | None, subject: str | None) -> None:
    world = build()

    async def scenario() -> Any:
        await world.turn(key=key, subject=subject)
        return await world.turn(key=key, subject=subject)

    assert run(scenario).status == 200


def test_two_first_turns_with_one_key_run_once(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        one = asyncio.ensure_future(world.turn(None, "waits", key="k1"))
        await world.entered.wait()
        other = await world.turn(None, "waits", key="k1")
        world.go.set()
        return await one, other

    one, other = run(scenario)
    assert (one.status, other.told) == (200, CONFLICT)
    assert other.session is None
    assert world.ran == ["waits"]


@pytest.mark.parametrize("how", ["500", "raises"])
def test_a_first_turn_that_failed_may_be_sent_again(build: Any, how: str) -> None:
    world = build()

    async def scenario() -> Any:
        await world.turn(None, how, key="k1")
        return await world.turn(None, how, key="k1")

    run(scenario)
    assert world.ran == [how, how]


@pytest.mark.parametrize("ends", ["log-out", "revoke"])
def test_the_answer_of_a_first_turn_is_not_given_once_its_session_ended(build: Any, ends: str) -> None:
    world = build()

    async def scenario() -> Any:
        lost = await world.turn(key="k1")
        if ends == "revoke":
            await world.ledger.revoke(claims_of(lost.session)["sid"])
        else:
            await world.ledger.log_out("ada")
        return await world.turn(key="k1")

    again = run(scenario)
    assert again.status in {200, 409}
    assert again.code != "session-conflict"
    assert not (again.session or {}).get("n") or again.status == 200


def test_a_first_turn_that_rotated_its_session_is_answered_again(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        return await world.turn(None, "rotate", key="k1"), await world.turn(None, "rotate", key="k1")

    lost, again = run(scenario)
    assert (again.told, again.value["applied"], again.session) == (CONFLICT, True, lost.session)


NEWER_RING = Keyring(Key.from_bytes("k8", bytes(range(1, 33))), RING.active)


@pytest.mark.parametrize("ring", [RING, NEWER_RING], ids=["same key", "newer key"])
@pytest.mark.parametrize("how", ["rotate-bob", "count"], ids=["another subject", "another conversation"])
def test_the_answer_of_a_first_turn_is_given_to_nobody_whom_its_session_is_not_bound_to(
    build: Any, how: str, ring: Keyring
) -> None:
    again, after = _ask_again_elsewhere(build, how, ring)
    assert (again.told, again.session, after) == (SUPERSEDED, None, [how])


@pytest.mark.parametrize(
    "kind", ["sqlite"]
)  # on several servers the answer of such a turn is not kept where it would be looked for
def test_control_a_session_that_is_sealed_for_whoever_asks_is_noticed(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Binding, "check", lambda *args: None)
    again, _ = _ask_again_elsewhere(build, "rotate-bob", NEWER_RING)
    assert again.told == CONFLICT
    assert claims_of(again.session)["sub"] == Binding("shop", "ada", "1").digests("dcaf1s", NEWER_RING.active)[0]


def _ask_again_elsewhere(build: Any, how: str, ring: Keyring) -> tuple[Any, list[str]]:
    """What a first turn's second request gets, where it is of another conversation, or its session of another subject by then."""
    threads = iter(["1", "1" if how.startswith("rotate") else "2"])
    told = {"conversation": lambda scope, body: next(threads)}
    world = build(middleware=told)
    after = build(engine=world.engine, clock=world.clock, middleware={**told, "keys": ring})

    async def scenario() -> Any:
        await world.turn(None, how, key="k1")
        return await after.turn(None, how, key="k1")

    return run(scenario), world.ran + after.ran


def test_a_session_that_its_first_turn_ended_is_not_begun_twice(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        await world.turn(None, "end", key="k1")
        return await world.turn(None, "end", key="k1")

    assert run(scenario).told == SUPERSEDED
    assert world.ran == ["end"]


def test_an_answer_over_the_limit_is_not_kept_and_its_turn_not_done_again(build: Any) -> None:
    world = build(max_answer_bytes=100)
    _, again = lose(world, lambda old: world.turn(old, key="k1"), key="k1")
    assert again.told == SUPERSEDED

    async def first() -> Any:
        await world.turn(key="k2")
        world.clock.tick(timedelta(seconds=30))
        return await world.turn(key="k2")

    assert run(first).told == SUPERSEDED
    assert len(world.ran) == 3


@pytest.mark.parametrize(
    ("how", "leaves_after", "applied", "n"),
    [("stream", None, True, 3), ("stream-same", None, True, 2), ("stream-raises", None, "partial", 2)],
)
def test_a_stream_says_whether_it_came_to_its_end(build: Any, how: str, leaves_after: Any, applied: Any, n: int) -> None:
    world = build()
    _, again = lose(world, lambda old: world.turn(old, how), how)
    assert (again.told, again.value["applied"], again.session["n"]) == (CONFLICT, applied, n)


def test_a_number_between_two_checkpoints_is_one_that_was_lost(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        stream = await world.turn(first.session, "stream")
        return stream, await world.turn(stream.sessions[0], say="another")

    stream, again = run(scenario)
    assert (again.told, again.value["applied"], number_of(again.session)) == (CONFLICT, False, 3)
    assert [number_of(session) for session in stream.sessions] == [2, 3]


def test_what_is_kept_is_sealed_again_by_the_key_that_is_active(build: Any) -> None:
    older, newer = RING.active, Key.generate("k8")
    world = build()
    after = build(engine=world.engine, clock=world.clock, middleware={"keys": Keyring(newer, older)})
    _, again = lose(world, after.turn)
    assert again.session["dcaf"]["token"].split(".")[1] == "k8"
    assert run(lambda: after.turn(again.session)).value["n"] == 3


def test_what_is_kept_by_a_key_that_is_gone_is_superseded(build: Any) -> None:
    world = build()
    after = build(engine=world.engine, clock=world.clock, middleware={"keys": Keyring(Key.generate("k8"))})
    _, again = lose(world, after.turn)
    assert again.code in {"session-invalid", "session-superseded"}


def test_the_file_has_neither_token_nor_state_nor_subject(build: Any, kind: str, tmp_path: Path) -> None:
    if kind != "sqlite":
        return
    world = build()
    secret, subject = "state-that-nobody-reads", "ada-lovelace@example.org"
    world.in_turn = lambda session: session.update(secret=secret)

    async def scenario() -> Any:
        first = await world.turn(subject=subject, key="key-of-a-request")
        return await world.turn(first.session, subject=subject)

    token = run(scenario).session["dcaf"]["token"]
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"dcaf_answers" in found, "the log beside the file counts too"
    pieces = [token, token.split(".")[3], secret, subject, "key-of-a-request", "secret"]
    assert [piece for piece in pieces if piece.encode() in found] == []


def test_control_a_plain_answer_is_found_in_the_file(
    build: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "sqlite":
        return
    monkeypatch.setattr("dcaf.core.kept.encrypt_kept", lambda key, audience, session_id, plain: plain)
    world = build()
    token = run(world.turn).session["dcaf"]["token"]
    assert token.encode() in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_with_branches_a_key_repairs_a_lost_answer_and_nothing_else_does(build: Any) -> None:
    world = build(branches=True)

    async def again(old: Any) -> Any:
        return await world.turn(old, key="k1"), await world.turn(old, key="k1", say="another"), await world.turn(old)

    lost, (same, other, without) = lose(world, again, key="k1")
    assert (same.told, same.value["applied"]) == (CONFLICT, True)
    assert same.session["dcaf"]["token"] == lost.session["dcaf"]["token"]
    assert other.told == REUSED
    assert (without.status, without.value["n"]) == (200, 2), "another branch"


def test_with_branches_two_requests_with_one_key_run_once(build: Any) -> None:
    world = build(branches=True)

    async def scenario() -> Any:
        first = await world.turn()
        one = asyncio.ensure_future(world.turn(first.session, "waits", key="k1"))
        await world.entered.wait()
        other = await world.turn(first.session, "waits", key="k1")
        world.go.set()
        return await one, other

    one, other = run(scenario)
    assert (one.status, other.told) == (200, CONFLICT)
    assert world.ran == ["count", "waits"]
