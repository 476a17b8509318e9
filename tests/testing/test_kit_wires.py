"""One conversation in sixteen ways: four wires, sync and async, in process and over the network. The kit must see the same."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from dcaf.testing import Reply, SessionClient, expired, serving, tampered
from dcaf.testing.conversation import EchoConversation
from tests.testing.counting import (
    ASKED,
    AUDIENCE,
    HOW,
    REFUSALS,
    RING,
    WHERE,
    WIRES,
    Counter,
    Switchboard,
    Talk,
    envelope,
    talking,
)

DEAD: dict[str, dict[str, Any]] = {
    "session-unsigned": {"n": 40},
    "session-malformed": {"n": 40, "dcaf": {"token": 5}},
    "session-invalid": tampered(envelope({"n": 40})),
    "session-ended": expired({"n": 40}, keys=RING, audience=AUDIENCE),
}


@pytest.fixture(scope="module")
def board() -> Iterator[Switchboard]:
    one = Switchboard()
    with serving(one) as one.url:
        yield one


@pytest.fixture
def service() -> Counter:
    return Counter()


@pytest.fixture(params=[(how, where, wire) for how in HOW for where in WHERE for wire in WIRES], ids="-".join)
def way(request: Any) -> Any:
    return request.param


Dial = Callable[..., AbstractContextManager[Talk]]


@pytest.fixture
def dial(way: Any, board: Switchboard, service: Counter) -> Dial:
    how, where, wire = way

    def dialled(app: Any = service, **options: Any) -> AbstractContextManager[Talk]:
        board.app = app
        return talking(how, app if where == "inside" else board.url, wire=wire, **options)

    return dialled


def test_the_session_goes_along_as_it_came(dial: Dial, service: Counter, way: Any) -> None:
    with dial(fields={"thread_id": "t-1"}) as talk:
        replies, sent = [], []
        for turn in range(5):
            sent.append(copy.deepcopy(talk.envelope))
            replies.append(talk.send(f"word {turn}", turn=turn))
        assert talk.envelope == replies[-1].envelope
    assert [reply.text for reply in replies] == [f"turn {turn}" for turn in range(1, 6)]
    assert [reply.session for reply in replies] == [{"n": turn} for turn in range(1, 6)]
    assert {reply.code for reply in replies} == {None}
    assert [body["data"]["session"] for body in service.bodies] == sent
    assert service.bodies[4]["thread_id"] == "t-1"
    assert [body["turn"] for body in service.bodies] == list(range(5))
    assert service.opened == (1 if "websocket" in way else 0)


def test_the_history_has_the_answers_with_their_sessions_as_a_naive_client_keeps_it(dial: Dial, service: Counter) -> None:
    with dial() as talk:
        first = talk.send("one")
        talk.send("two")
    said = service.bodies[1]["messages"]
    assert [message["content"] for message in said] == ["one", "turn 1", "two"]
    assert said[1]["data"]["session"] == first.envelope


def test_a_stream_has_its_events_and_an_answer_in_one_piece_has_none(dial: Dial, way: Any) -> None:
    with dial() as talk:
        reply = talk.send("one")
    types = [event["type"] for event in reply.events]
    assert types == ([] if "json" in way else ["text_delta", "text_delta", "done"])
    assert reply.status == (101 if "websocket" in way else 200)
    assert (reply.body is None) == ("json" not in way)
    assert reply.sent_bytes > 40


def test_a_dead_session_is_dropped_and_the_next_turn_begins_anew(dial: Dial) -> None:
    with dial() as talk:
        for code, dead in DEAD.items():
            talk.client.envelope = copy.deepcopy(dead)
            talk.messages.clear()
            refused = talk.send("one")
            assert (refused.code, refused.session, len(talk.messages)) == (code, {}, 1)
            assert talk.envelope == {"dcaf": {"token": "new"}}
            assert talk.send("again").session == {"n": 1}


def test_a_session_that_may_be_good_is_kept(dial: Dial, service: Counter) -> None:
    with dial() as talk:
        talk.send("one")
        for turn, (code, refusal) in enumerate(REFUSALS.items(), start=2):
            before, said = copy.deepcopy(talk.envelope), len(talk.messages)
            service.store.happening["open"] = refusal
            assert talk.send("two").code == code
            assert (talk.envelope, len(talk.messages)) == (before, said + 1)
            service.store.happening.clear()
            assert talk.send("three").session == {"n": turn}


def test_a_turn_that_is_too_large_keeps_the_session(dial: Dial) -> None:
    with dial(Counter(max_body_bytes=3_000)) as talk:
        talk.send("one")
        before = copy.deepcopy(talk.envelope)
        assert talk.send("x" * 3_000).code == "body-too-large"
        assert talk.envelope == before
        del talk.messages[-1]
        assert talk.send("two").session == {"n": 2}


def test_a_turn_that_fails_on_its_way_leaves_a_session_that_is_good(dial: Dial, way: Any) -> None:
    with dial() as talk:
        talk.send("one")
        assert talk.send("fail").code == "tool-broke"
        assert len(talk.messages) == 3
        # a stream that ends without `done` ends with the session: 2-protocol, section 3
        assert talk.send("two").session == {"n": 3 if way[2] in {"ndjson", "sse"} else 2}


def test_decisions_go_with_the_items_that_wait(dial: Dial, service: Counter) -> None:
    with dial() as talk:
        talk.send("ask")
        done = talk.decide(decision=True)
        talk.send("ask")
        refused = talk.decide("not today", "because")
    assert service.bodies[1]["messages"][-1]["data"]["approvals"] == [{**ASKED, "execute": True}]
    assert service.bodies[3]["messages"][-1]["data"]["approvals"] == [{**ASKED, "rejection_reason": "not today"}]
    assert service.bodies[3]["messages"][-1]["content"] == "because"
    assert done.message["data"]["executed_approvals"] == [True]
    assert refused.message["data"]["executed_approvals"] == ["no"]


def test_headers_go_along(dial: Dial) -> None:
    with dial(Counter(subject=lambda scope: dict(scope["headers"])[b"x-user"].decode()), headers={"X-User": "ada"}) as talk:
        mine = talk.send("one").envelope
    eve = {"x-user": "eve"}
    with dial(Counter(subject=lambda scope: dict(scope["headers"])[b"x-user"].decode()), headers=eve, envelope=mine) as talk:
        assert talk.send("one").code == "session-invalid"


def test_a_path_that_is_not_there_is_an_answer(dial: Dial, way: Any) -> None:
    with dial(path="/nowhere", envelope=envelope({"n": 7})) as talk:
        reply = talk.send("one")
        assert reply.status == (403 if "websocket" in way else 404)
        assert (reply.text, reply.envelope, talk.envelope["n"]) == (None, None, 7)


# Controls: what the tests above would see in a client that follows the protocol less well


@pytest.mark.parametrize("wire", WIRES)
def test_control_a_client_that_adopts_from_successes_alone_stays_with_its_dead_session(wire: Any, monkeypatch: Any) -> None:
    adopted = EchoConversation.adopted
    monkeypatch.setattr(EchoConversation, "adopted", lambda self, reply: reply if reply.code else adopted(self, reply))
    with talking("sync", Counter(), wire=wire, envelope=copy.deepcopy(DEAD["session-ended"])) as talk:
        assert [talk.send("one").code for _ in range(2)] == ["session-ended", "session-ended"]


@pytest.mark.parametrize("wire", WIRES)
def test_control_a_client_that_drops_its_session_at_any_refusal_loses_a_good_one(wire: Any, monkeypatch: Any) -> None:
    def dropping(self: EchoConversation, reply: Reply) -> Reply:
        self.envelope = None if reply.code else reply.envelope
        return reply

    monkeypatch.setattr(EchoConversation, "adopted", dropping)
    service = Counter()
    with talking("sync", service, wire=wire) as talk:
        talk.send("one")
        service.store.happening["open"] = REFUSALS["session-unavailable"]
        talk.send("two")
        service.store.happening.clear()
        talk.messages.clear()  # where its older sessions are
        assert talk.send("three").session == {"n": 1}


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_nobody_closes_leaves_no_warning(wire: Any) -> None:
    client = SessionClient(Counter(), wire=wire)
    assert client.send("one").session == {"n": 1}
    del client
    gc.collect()
