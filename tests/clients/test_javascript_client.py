"""``examples/client.mjs``, run by Node.js against real services: it keeps the session, and starts over when it is told to."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import httpx2
import pytest
from pydantic_ai.models.function import FunctionModel

from dcaf import Key, Keyring
from dcaf.agent import Agent, create_app
from dcaf.client import Client, Reply
from dcaf.core.errors import SessionUnavailable
from dcaf.demo import create_agent, create_demo
from dcaf.demo.app import AUDIENCE
from dcaf.demo.story import APPROVE, CONVERSATION
from dcaf.testing import FrozenClock, expired, sealed, serving, tampered
from tests.agent.agents import agent_of
from tests.agent.kept_histories import HistoryStore
from tests.clients.driven import CLIENT, Conversation, Node, Told
from tests.clients.servers import KEYS, answering, scripted, streamed
from tests.stores_for_tests import ToldStore

NEW: Final = {"dcaf": {"token": "new"}}
KEEP: Final = "    this.session = came.data.session;\n"
AGAIN: Final = "const pause = isDead ? 0 : newer"
WORDS: Final = "No whole answer came. The turn may have run: ask before you send it again."
BROKEN: Final = 'await this.#wait({ failure: failure ?? (response?.ok && failed("no-end", WORDS)), turn, response, signal });'


def converse(chat: Conversation) -> list[Told]:
    """The demo's conversation, with its approval."""
    turns: list[Told] = []
    for said, _ in CONVERSATION:
        turns.append(chat.decide(turns[-1], execute=True) if said == APPROVE else chat.send(said))
    return turns


def in_python(client: Client) -> list[Reply]:
    """The same by dcaf.client."""
    turns: list[Reply] = []
    for said, _ in CONVERSATION:
        decisions = {item.id: True for item in turns[-1].approvals} if said == APPROVE else None
        turns.append(client.send(decisions=decisions) if decisions else client.send(said))  # type: ignore[arg-type]
    return turns


def same(value: Any) -> Any:
    """A value without the ids of calls, which are random."""
    return json.loads(re.sub(r"pyd_ai_[0-9a-f]+", "id", json.dumps(value)))


def test_it_is_some_hundred_lines_that_need_nothing_else() -> None:
    lines = CLIENT.read_text().splitlines()
    assert len(lines) <= 114
    assert max(map(len, lines)) <= 120
    assert not re.search(r"^import |\brequire\(|\bimport\(", CLIENT.read_text(), re.MULTILINE)


def test_the_whole_conversation_is_that_of_the_python_client(browser: Node, url: str) -> None:
    turns = converse(browser.conversation(url))
    assert [turn.state for turn in turns] == [state for _, state in CONVERSATION]
    with Client(url) as client:
        replies = in_python(client)
        assert [turn.state for turn in turns] == [reply.session for reply in replies]
        assert [turn.answer and turn.answer["content"] for turn in turns] == [reply.text for reply in replies]


def test_what_it_says_next_holds_what_the_python_client_s_streams_hold(browser: Node, url: str) -> None:
    chat = browser.conversation(url)
    with Client(url) as client:
        for said in ("service api", "3 replicas", "execute"):
            told = chat.send(said)
            with client.stream(said) as events:
                list(events)
            assert same(told.messages) == same(client.messages)
            assert "dcaf1s" not in json.dumps(told.messages), "older sessions do not travel"


def test_a_rejection_reaches_the_agent(browser: Node, url: str) -> None:
    chat = browser.conversation(url)
    chat.send("service api")
    chat.send("3 replicas")
    refused = chat.decide(chat.send("execute"), rejection_reason="not on a Friday")
    assert refused.answer is not None
    assert refused.answer["content"] == "Rejected: not on a Friday"
    assert refused.state == {"service": "api", "wizard_step": 3, "replicas": 3}


def test_control_without_its_line_the_session_is_lost(browser: Node, url: str, variant: Callable[[str, str], Path]) -> None:
    chat = browser.conversation(url, module=variant(KEEP, ""))
    turns = converse(chat)
    assert [turn.state for turn in turns] != [state for _, state in CONVERSATION]
    assert [turn.session for turn in turns] == [None] * len(turns)


@contextmanager
def gated() -> Iterator[tuple[str, threading.Event, list[bool]]]:
    """A service whose model says the second half when it is let; and whether it was let, not just tired of waiting."""
    gate = threading.Event()
    was_let: list[bool] = []

    async def halves(_messages: Any, _info: Any) -> Any:
        yield "first "
        was_let.append(await anyio.to_thread.run_sync(gate.wait, 10))
        yield "second"

    with serving(create_app(Agent(FunctionModel(stream_function=halves)), keys=KEYS, audience="gated")) as url:
        yield url, gate, was_let


def test_text_is_there_before_the_stream_has_ended(browser: Node) -> None:
    with gated() as (url, gate, was_let):
        chat = browser.conversation(url).begin("go on")
        assert chat.event() == {"type": "text_delta", "text": "first "}
        gate.set()
        told = chat.ended()
    assert was_let == [True]
    assert told.answer is not None
    assert told.answer["content"] == "first second"


STATE: Final = {"service": "api", "replicas": 3}
CLOCK: Final = FrozenClock()


@pytest.fixture(scope="module")
def timed() -> Iterator[str]:
    """The demo under a clock that stands still."""
    with serving(create_demo(KEYS, clock=CLOCK)) as found:
        yield found


@pytest.mark.parametrize(
    ("dead", "code"),
    [
        (expired(STATE, keys=KEYS, audience=AUDIENCE, clock=CLOCK), "session-ended"),
        (sealed(STATE, keys=Keyring(Key.generate()), audience=AUDIENCE, clock=CLOCK), "session-invalid"),
        (tampered(sealed(STATE, keys=KEYS, audience=AUDIENCE, clock=CLOCK)), "session-invalid"),
        (STATE, "session-unsigned"),
    ],
    ids=["expired", "key rotated away", "tampered", "plain"],
)
def test_a_dead_session_is_started_over_and_the_answer_says_so(
    browser: Node, timed: str, variant: Callable[[str, str], Path], dead: Any, code: str
) -> None:
    told = browser.conversation(timed, session=dead).send("start")
    assert told.answer is not None
    assert (told.answer["restarted"], told.state) == (code, {"wizard_step": 1})
    with Client(timed, session=dead) as client:
        assert (client.send("start").restarted, client.session) == (code, told.state)

    control = browser.conversation(timed, session=dead, module=variant(AGAIN, "const pause = newer"))
    assert (control.send("start").code, control.send("start").state) == (code, {"wizard_step": 1})


def test_a_session_that_dies_in_a_conversation_is_started_over(browser: Node) -> None:
    clock = FrozenClock()
    with serving(create_demo(KEYS, clock=clock)) as url:
        chat = browser.conversation(url)
        alive = chat.send("start")
        clock.tick(timedelta(days=8))
        told = chat.send("service api")
    assert alive.answer is not None
    assert told.answer is not None
    assert (alive.answer["restarted"], told.answer["restarted"]) == ("", "session-ended")
    assert told.state == {"service": "api", "wizard_step": 2}
    assert [message["role"] for message in told.messages] == ["user", "assistant"] * 2


DEAD: Final = {"type": "error", "code": "session-ended", "data": {"session": NEW}}
REFUSED: Final = {"type": "about:blank", "status": 409, "code": "session-ended", "data": {"session": NEW}}
TEXT: Final = {"type": "text_delta", "text": "Hello."}
DONE: Final = {"type": "done", "stop_reason": "end_turn", "meta_data": {}, "data": {"session": {"n": 1, "dcaf": {"token": "a"}}}}


def test_a_refusal_that_says_new_starts_over_with_the_same_messages(browser: Node) -> None:
    with scripted(REFUSED, [TEXT, DONE]) as (url, sent):
        told = browser.conversation(url, session={"dcaf": {"token": "old"}}).send("hi")
    assert told.answer is not None
    assert (told.answer["restarted"], told.answer["content"], told.state) == ("session-ended", "Hello.", {"n": 1})
    assert [body["data"]["session"] for body in sent] == [{"dcaf": {"token": "old"}}, NEW]
    assert sent[0]["messages"] == sent[1]["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("again", [REFUSED, [DEAD]])
def test_it_starts_over_once_and_no_more(browser: Node, again: Any) -> None:
    with scripted(REFUSED, again) as (url, sent):
        told = browser.conversation(url).send("hi")
    assert (told.code, len(sent), told.session, told.messages) == ("session-ended", 2, NEW, [])


@pytest.mark.parametrize("events", [[DEAD], [TEXT, DEAD]])
def test_a_turn_that_had_begun_is_not_said_again(browser: Node, events: Any) -> None:
    with scripted(events) as (url, sent):
        told = browser.conversation(url).send("hi")
    assert (told.code, len(sent), told.session) == ("session-ended", 1, NEW)


def test_what_the_service_says_about_the_answer_is_in_the_answer_and_not_in_the_messages(browser: Node) -> None:
    meta_data = {"stop_reason": "blocked", "blocked": {"reason": "off-topic"}, "request_context": {"locale": "de"}}
    with scripted([TEXT, {**DONE, "meta_data": meta_data}]) as (url, _):
        told = browser.conversation(url).send("hi")
    assert told.answer is not None
    assert told.answer["meta_data"] == meta_data
    assert [sorted(message) for message in told.messages] == [["content", "role"], ["content", "data", "role"]]


def test_a_stream_ends_well_with_its_done_event_whatever_that_says(browser: Node) -> None:
    with scripted([TEXT, {"type": "done"}]) as (url, _):
        told = browser.conversation(url).send("hi")
    assert told.answer is not None
    assert (told.answer["content"], told.answer["meta_data"]) == ("Hello.", {})


def test_the_answer_of_a_stream_says_of_itself_what_an_answer_in_one_piece_does(browser: Node, url: str) -> None:
    chat = browser.conversation(url)
    with Client(url) as client:
        for said in ("service api", "3 replicas", "execute"):
            told = chat.send(said)
            assert told.answer is not None
            assert told.answer["meta_data"] == client.send(said).meta_data


def test_an_error_without_words_has_its_code_for_words(browser: Node) -> None:
    with scripted([{"type": "error", "code": "agent-failed"}]) as (url, _):
        told = browser.conversation(url).send("hi")
    assert told.error == {"code": "agent-failed", "message": "agent-failed"}


def test_a_conflict_that_brings_the_newer_session_is_an_error_and_the_session_is_kept(browser: Node) -> None:
    newer = {"n": 2, "dcaf": {"token": "b"}}
    with scripted({"code": "session-conflict", "data": {"session": newer}}) as (url, sent):
        told = browser.conversation(url, session={"dcaf": {"token": "a"}}).send("hi")
    assert (told.code, told.session, len(sent)) == ("session-conflict", newer, 1)


def test_an_event_that_it_does_not_know_is_told_and_passed_over(browser: Node) -> None:
    with scripted([{"type": "plan", "plan": {"steps": 2}}, TEXT, DONE]) as (url, _):
        told = browser.conversation(url).send("hi")
    assert [event["type"] for event in told.events] == ["plan", "text_delta", "done"]
    assert told.answer is not None
    assert (told.answer["content"], told.state) == ("Hello.", {"n": 1})


def test_a_refusal_without_a_session_keeps_it(browser: Node, variant: Callable[[str, str], Path]) -> None:
    """503: the ledger is down. 413: too much was said. The control is a client that keeps whatever comes, also nothing."""
    store = ToldStore()
    app = create_app(create_agent(), keys=KEYS, audience=AUDIENCE, store=store, max_body_bytes=4096)
    careless = variant("    const token = came", "    if (!came?.data?.session) this.session = undefined;\n    const token = came")
    with serving(app) as url:
        chat, control = browser.conversation(url), browser.conversation(url, module=careless)
        before, _ = chat.send("service api"), control.send("service api")
        store.happening["open"] = SessionUnavailable(reason="down")
        unavailable = chat.send("3 replicas")
        store.happening.clear()
        large, forgotten = chat.send("x" * 5000), control.send("x" * 5000)
        after = chat.send("3 replicas")
    assert (unavailable.code, unavailable.session) == ("session-unavailable", before.session)
    assert (large.code, large.session, large.messages) == ("body-too-large", before.session, before.messages)
    assert after.state == {"service": "api", "wizard_step": 3, "replicas": 3}
    assert (forgotten.code, forgotten.session) == ("body-too-large", None)


def test_no_answer_at_all_keeps_the_session(browser: Node) -> None:
    session = {"dcaf": {"token": "kept"}}
    told = browser.conversation("http://127.0.0.1:1", session=session).send("hi")
    assert told.error
    assert (told.session, told.messages) == (session, [])


def recorded(url: str) -> bytes:
    """The bytes of a real stream."""
    body = {"messages": [{"role": "user", "content": "service api"}]}
    return httpx2.post(f"{url}/api/chat-stream", json=body).content


def test_a_stream_that_is_cut_anywhere_leaves_the_session_of_before(
    browser: Node, url: str, variant: Callable[[str, str], Path]
) -> None:
    stream = recorded(url)
    ends = [0, *(at + 1 for at in range(len(stream)) if stream[at : at + 1] == b"\n")]
    cuts = sorted({cut for end in ends for cut in (end - 1, end, end + 1) if 0 <= cut < len(stream) - 1})
    before = {"dcaf": {"token": "before"}}
    codes = {False: "broken-off", True: "no-end"}
    pieces = [(stream[:cut], is_whole) for cut in cuts for is_whole in codes]
    complete = [stream, stream[:-1]]
    wholes = [streamed(found, is_whole=True) for found in complete]
    with answering(*(streamed(found, is_whole=ok) for found, ok in pieces), *wholes, streamed(stream[: ends[1]])) as cut:
        told = [browser.conversation(cut.url, session=before).send("hi") for _ in pieces]
        whole = [browser.conversation(cut.url, session=before).send("hi") for _ in complete]
        control = browser.conversation(cut.url, session=before, module=variant(BROKEN, "return;")).send("hi")
    assert len(cuts) > 10
    assert [turn.session for turn in told] == [before] * len(pieces)
    assert [turn.messages for turn in told] == [[]] * len(pieces)
    assert {turn.error and turn.error["message"] for turn in told} == {WORDS}
    assert [turn.code for turn in told] == [codes[is_whole] for _, is_whole in pieces]
    assert [turn.state for turn in whole] == [{"service": "api", "wizard_step": 2}] * len(complete), "the last line's end may lack"
    assert control.error is None, "a client that takes any end for an answer has half an answer"


def test_where_the_service_keeps_the_messages_it_is_sent_the_new_one_alone(browser: Node) -> None:
    store = HistoryStore()
    with serving(create_app(agent_of(), keys=KEYS, audience="kept", store=store, history="server")) as url:
        conversation = browser.conversation(url, history="server")
        assert conversation.send("call count").answer["content"] == "Done: 1"  # type: ignore[index]
        asked = conversation.send('call drop {"volume": "pg"}')
        assert conversation.decide(asked, execute=True).answer["content"] == "Done: pg dropped"  # type: ignore[index]
        assert len(conversation.send("hello").messages) == 8
        assert browser.conversation(url, session=conversation.send("bye").session, messages=[]).send("!").code is None
        refused = browser.conversation(url, messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        assert refused.send("c").code == "malformed-request"
    assert [role for role, *_ in store.said][:4] == ["user", "assistant", "tool", "assistant"]
    assert len(store.said) == 8 + 2 + 2 + 2
