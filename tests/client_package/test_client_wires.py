"""One conversation on six wires: JSON, streams and WebSockets, sync and async, each against a real server."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from dcaf.client import (
    ApprovalUnknown,
    ClientError,
    Conversation,
    ServiceError,
    ServiceFailed,
    SessionDead,
    TurnConflict,
    TurnTooLarge,
)
from dcaf.testing import serving, tampered
from tests.client_package.services import WIRES, Service, Switchboard, Talk, envelope, talking

pytestmark = pytest.mark.filterwarnings("error")
DEAD = {
    "session-unsigned": {"n": 40},
    "session-malformed": {"n": 40, "dcaf": {"token": 5}},
    "session-invalid": tampered(envelope({"n": 40})),
    "session-ended": envelope({"n": 40}, age=timedelta(days=8)),
}


@pytest.fixture(params=WIRES)
def wire(request: Any) -> Any:
    return request.param


@pytest.fixture(scope="module")
def board() -> Iterator[Switchboard]:
    one = Switchboard()
    with serving(one) as one.url:
        yield one


@pytest.fixture
def service(board: Switchboard) -> Service:
    board.service = Service()
    return board.service


@pytest.fixture
def url(board: Switchboard, service: Service) -> str:
    return board.url


@pytest.fixture
def talk(wire: Any, url: str) -> Iterator[Talk]:
    with talking(wire, url) as one:
        yield one


def test_the_session_goes_along_for_twenty_turns(talk: Talk, service: Service) -> None:
    replies = [talk.say(f"word {turn}") for turn in range(20)]
    assert [reply.text for reply in replies] == [f"turn {turn + 1}" for turn in range(20)]
    assert [reply.session["n"] for reply in replies] == list(range(1, 21))
    assert {reply.restarted for reply in replies} == {None}
    assert service.tokens[0] is None
    assert len({token for token in service.tokens[1:] if token}) == 19
    assert len(talk.client.messages) == 40
    assert service.opened == (1 if talk.socket else 0)


def test_the_session_goes_back_as_it_came_and_stands_in_no_message(talk: Talk, service: Service) -> None:
    talk.say("one")
    sent = copy.deepcopy(talk.client.envelope)
    talk.say("two")
    assert service.bodies[1]["data"] == {"session": sent}
    assert service.bodies[1]["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "turn 1"},
        {"role": "user", "content": "two"},
    ]
    assert service.texts[1].count("dcaf1s.") == 1


def test_an_edited_mirror_changes_nothing(talk: Talk) -> None:
    talk.say("one")
    assert talk.client.envelope
    talk.client.envelope["n"] = 9000
    talk.client.envelope["is_admin"] = True
    reply = talk.say("two")
    assert (reply.text, reply.session) == ("turn 2", {"said": ["one", "two"], "n": 2})


def test_fields_headers_and_messages_of_the_users_own_go_along(wire: Any, url: str, service: Service) -> None:
    before = [{"role": "assistant", "content": "Hi.", "data": {"session": {"n": 1}, "cmds": []}}]
    with talking(wire, url, fields={"thread_id": "t-1", "data": {"kept": 1}}, messages=before, headers={"x-user": "ada"}) as one:
        one.say({"role": "user", "content": "é", "platform_context": {"user_id": "mira"}}, thread_id="t-2", queue=False)
    assert service.bodies == [
        {
            "thread_id": "t-2",
            "queue": False,
            "messages": [
                {"role": "assistant", "content": "Hi.", "data": {"cmds": []}},
                {"role": "user", "content": "é", "platform_context": {"user_id": "mira"}},
            ],
            "data": {"kept": 1},
        }
    ]


@pytest.mark.parametrize("code", DEAD)
def test_a_turn_with_a_dead_session_is_said_once_more_in_a_new_one(wire: Any, url: str, service: Service, code: str) -> None:
    with talking(wire, url, session=copy.deepcopy(DEAD[code])) as one:
        first, second = one.say("one"), one.say("two")
    assert (first.restarted, first.text, first.session["n"]) == (code, "turn 1", 1)
    assert (second.restarted, second.text) == (None, "turn 2")
    assert [body["messages"][-1]["content"] for body in service.bodies] == ["one", "one", "two"]
    assert service.bodies[1]["data"] == {"session": {"dcaf": {"token": "new"}}}


@pytest.mark.parametrize("code", DEAD)
def test_a_client_that_is_to_raise_raises_and_its_next_turn_begins_anew(wire: Any, url: str, service: Service, code: str) -> None:
    with talking(wire, url, session=copy.deepcopy(DEAD[code]), on_dead="raise") as one:
        with pytest.raises(SessionDead) as raised:
            one.say("one")
        assert one.client.messages == []
        assert one.client.envelope == {"dcaf": {"token": "new"}}
        again = one.say("one")
    assert raised.value.code == code
    assert raised.value.status == (None if "socket" in wire else 409 if code == "session-ended" else 400)
    assert (again.text, again.restarted) == ("turn 1", None)
    assert len(service.texts) == 2


def test_control_a_client_that_adopts_from_successes_alone_never_gets_rid_of_its_dead_session(
    wire: Any, url: str, service: Service, monkeypatch: Any
) -> None:
    adopt = Conversation.adopt

    def from_successes(self: Conversation, value: Any, *, status: int | None = None) -> bool:
        refusal = not isinstance(value, dict) or "code" in value
        return False if refusal else adopt(self, value, status=status)

    monkeypatch.setattr(Conversation, "adopt", from_successes)
    with talking(wire, url, session=copy.deepcopy(DEAD["session-ended"])) as one:
        for _ in range(3):
            with pytest.raises(ServiceError, match="session-ended"):
                one.say("one")
    assert len(set(service.tokens)) == 1


@pytest.mark.parametrize(("kind", "error", "status"), [("conflict", TurnConflict, 409), ("unavailable", ServiceFailed, 503)])
def test_where_the_session_may_be_good_it_is_kept_and_the_message_is_not(
    talk: Talk, service: Service, kind: str, error: Any, status: int
) -> None:
    talk.say("one")
    before, said = copy.deepcopy(talk.client.envelope), copy.deepcopy(talk.client.messages)
    code = f"session-{kind}"
    service.refuse(kind)
    with pytest.raises(error, match=f"{code}.*again") as raised:
        talk.say("two")
    assert (raised.value.code, raised.value.status) == (code, None if talk.socket else status)
    assert raised.value.retry_after == (None if talk.socket else timedelta(seconds=1))
    assert (talk.client.envelope, talk.client.messages) == (before, said)
    assert len(service.texts) == {"conflict": 2, "unavailable": 4}[kind], "only what says that it did nothing is sent again, twice"
    assert service.texts[1:] == service.texts[1:2] * (len(service.texts) - 1)
    service.refuse(None)
    assert talk.say("two").text == "turn 2"
    assert talk.client.messages[-2] == {"role": "user", "content": "two"}


def test_a_body_that_is_too_large_keeps_the_session_and_not_the_message(wire: Any, board: Switchboard) -> None:
    board.service = Service(max_body_bytes=2_000)
    with talking(wire, board.url) as one:
        one.say("one")
        before = copy.deepcopy(one.client.envelope)
        with pytest.raises(TurnTooLarge, match=r"body-too-large.*Shorten the conversation") as raised:
            one.say("x" * 3_000)
        assert raised.value.status == (None if one.socket else 413)
        assert (one.client.envelope, len(one.client.messages)) == (before, 2)
        assert one.say("two").text == "turn 2"


def test_a_turn_that_fails_on_the_way_keeps_the_session_and_not_the_message(talk: Talk) -> None:
    talk.say("one")
    before = copy.deepcopy(talk.client.session)
    with pytest.raises(ServiceFailed, match=r"tool-broke: The tool broke\. Send the turn again later") as raised:
        talk.say("fail")
    assert raised.value.status == (500 if talk.wire.endswith("send") else None)
    assert (talk.client.session, len(talk.client.messages)) == (before, 2)
    assert talk.say("two").session == {"said": ["one", "two"], "n": 2}


def test_what_comes_after_an_error_counts_for_its_session(talk: Talk) -> None:
    """What was done and must not be done again stands in it: an agent's answer has it in the done that follows its error."""
    talk.say("one")
    with pytest.raises(ServiceFailed, match="tool-broke"):
        talk.say("burn")
    is_whole = talk.wire.endswith("send")  # an answer from 500 on carries no session
    assert talk.client.session == ({"said": ["one"], "n": 1} if is_whole else {"said": ["one", "burn"], "n": 2})
    assert talk.say("two").session["n"] == (2 if is_whole else 3)
    assert len(talk.client.messages) == 4


def test_decisions_travel_on_the_last_message(talk: Talk, service: Service) -> None:
    asked = talk.say("ask")
    assert [(one.id, one.name, one.input, one.description) for one in asked.approvals] == [
        ("ap-1", "drop_volume", {"volume": "pg"}, "Delete volume pg"),
        ("ap-2", "drop_volume", {"volume": "pg"}, "Delete volume pg"),
    ]
    reply = talk.say(decisions={"ap-1": True, "ap-2": "Not today"})
    items = service.bodies[1]["messages"][-1]["data"]["approvals"]
    assert [(one["id"], one["execute"], one["rejection_reason"]) for one in items] == [
        ("ap-1", True, None),
        ("ap-2", False, "Not today"),
    ]
    assert all(one["input"] == {"volume": "pg"} and one["type"] == "tool_call" for one in items)
    assert reply.executed_approvals == [{"id": "ap-1", "output": "done"}, {"id": "ap-2", "output": "Not today"}]
    assert service.bodies[1]["messages"][-1]["content"] == ""


def test_what_was_not_decided_still_waits_and_what_was_decided_does_not(talk: Talk, service: Service) -> None:
    talk.say("ask")
    talk.say("go on", decisions={"ap-1": True})
    with pytest.raises(ApprovalUnknown, match=r"'ap-1' waits for a decision\. Waiting: ap-2\."):
        talk.say(decisions={"ap-1": True})
    assert len(service.texts) == 2
    assert talk.say(decisions={"ap-2": "no"}).executed_approvals == [{"id": "ap-2", "output": "no"}]


def test_decisions_that_failed_can_be_sent_again(talk: Talk, service: Service) -> None:
    talk.say("ask")
    service.refuse("unavailable")
    with pytest.raises(ServiceFailed):
        talk.say(decisions={"ap-1": True})
    service.refuse(None)
    assert talk.say(decisions={"ap-1": True}).executed_approvals == [{"id": "ap-1", "output": "done"}]


@pytest.mark.parametrize("decision", [False, "", None, 1])
def test_a_refusal_without_a_reason_is_refused_here(talk: Talk, service: Service, decision: Any) -> None:
    talk.say("ask")
    with pytest.raises(ApprovalUnknown, match="neither True nor a reason"):
        talk.say(decisions={"ap-1": decision})
    assert len(service.texts) == 1


def test_no_token_and_no_state_is_in_a_repr_or_a_log(talk: Talk, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    reply = talk.say({"role": "user", "content": "a-secret-word"})
    shown = [repr(talk.client), repr(talk.client.conversation), repr(reply), repr(talk.socket)]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("dcaf")]
    for text in (*shown, *ours):
        assert "dcaf1s" not in text
        assert "a-secret-word" not in text
    assert "session of 2 keys" in shown[0]
    assert "dcaf1s" in json.dumps(talk.client.envelope), "there is one that could be shown"


def test_the_errors_of_a_dead_session_show_no_token(wire: Any, url: str) -> None:
    dead = copy.deepcopy(DEAD["session-invalid"])
    with talking(wire, url, session=dead, on_dead="raise") as one, pytest.raises(ClientError) as raised:
        one.say("one")
    assert "dcaf1s" not in str(raised.value) + repr(raised.value) + repr(vars(raised.value))


def test_a_service_that_is_not_there_is_an_error_that_keeps_everything(wire: Any, service: Service) -> None:
    with serving(service) as base:
        pass
    with talking(wire, base, session={"dcaf": {"token": "new"}}) as one:
        with pytest.raises(ClientError, match=r"No complete answer came from .*not known.*send it again") as raised:
            one.say("one")
        assert raised.value.code == "service-unreachable"
        assert (one.client.messages, one.client.envelope) == ([], {"dcaf": {"token": "new"}})


def test_a_path_that_is_not_there_says_its_status(wire: Any, url: str) -> None:
    with talking(wire, url, path="/x", stream_path="/x", socket_path="/x") as one, pytest.raises(ServiceError) as raised:
        one.say("one")
    assert raised.value.status == (403 if one.socket else 404)
    assert raised.value.code == f"http-{raised.value.status}"


def test_a_session_that_was_kept_elsewhere_goes_on_in_another_client(wire: Any, url: str) -> None:
    with talking(wire, url) as one:
        one.say("one")
        kept = json.loads(json.dumps(one.client.envelope))
    with talking(wire, url, session=kept) as other:
        assert other.say("two").text == "turn 2"
