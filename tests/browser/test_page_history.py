"""The chat page of a service that keeps the conversation: it sends what is new, and shows what is kept and what is remembered."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from dcaf import Keyring
from dcaf.agent import Agent, Page, create_app
from dcaf.service import Memory, SessionService
from tests.agent.agents import TOOLS, agent_of, obedient
from tests.agent.kept_histories import HistoryStore, Recollection
from tests.browser.looks import checked
from tests.browser.visitor import Visitor, altered
from tests.service.test_agents_with_history import remember

KEPT = [
    ("You", "call count"),
    ("Agent", "Done: 1"),
    ("You", "hello"),
    ("Agent", "You said hello"),
]


def clinic(store: HistoryStore, **page: Any) -> Any:
    shown = Page("Clinic", memory=Recollection, **page)
    return create_app(agent_of(), keys=Keyring.ephemeral(), audience="clinic", store=store, history="server", page=shown)


def said(visitor: Visitor) -> list[tuple[str, str]]:
    """Who has said what, as the page shows it."""
    visitor.idle()
    parts = visitor.page.locator("#log article").evaluate_all(
        "all => all.map(one => [one.querySelector('h3').innerText, one.querySelector('p').innerText])"
    )
    return [tuple(part) for part in parts]


def remembered(visitor: Visitor) -> dict[str, str]:
    rows = visitor.page.locator("#memory tr").evaluate_all("rows => rows.map(row => Array.from(row.cells, cell => cell.innerText))")
    return {row[0]: row[1] for row in rows if len(row) == 2}


def say_two(visitor: Visitor) -> None:
    visitor.say("call count")
    visitor.say("hello")


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recollection, "kept", {"allergies": ["penicillin"], "phone": "12 34"})


def test_it_sends_what_is_new_and_shows_what_the_service_has_kept(visit: Any) -> None:
    store = HistoryStore()
    visitor = visit(clinic(store))
    bodies: list[Any] = []
    visitor.page.on("request", lambda sent: bodies.append(json.loads(sent.post_data)) if sent.url.endswith("chat-stream") else None)
    say_two(visitor)
    assert said(visitor) == KEPT
    assert [[message["content"] for message in body["messages"]] for body in bodies] == [["call count"], ["hello"]]
    (kept,) = (kept for kept in store.kept.values() if kept)
    kept += [{"role": "system", "content": "canary"}, {"role": "assistant", "content": "A nurse: come at 3."}]
    visitor.reload()
    visitor.page.get_by_text("A nurse: come at 3.").wait_for()
    assert said(visitor) == [*KEPT, ("Agent", "A nurse: come at 3.")]
    assert "called count" in visitor.text("log")
    visitor.say("thanks")
    assert said(visitor)[-1] == ("Agent", "You said thanks")
    assert visitor.errors == []


def test_control_a_page_that_does_not_ask_shows_what_it_has_kept_itself(visit: Any) -> None:
    store = HistoryStore()
    visitor = visit(clinic(store))
    altered(visitor, "page.js", "if (talk.isKept) await drawHistory();", "")
    say_two(visitor)
    (kept,) = (kept for kept in store.kept.values() if kept)
    kept += [{"role": "assistant", "content": "A nurse: come at 3."}]
    visitor.reload()
    assert said(visitor) == KEPT


KEPT_HERE = "() => JSON.parse(Object.values(sessionStorage)[0]).envelope"


def say_beside(visitor: Visitor, text: str) -> None:
    """Say something with the session of the page, which never gets the answer."""
    body = {"messages": [{"role": "user", "content": text}], "data": {"session": visitor.page.evaluate(KEPT_HERE)}}
    assert httpx2.post(f"{visitor.url}api/chat", json=body).status_code == 200


def test_it_shows_what_is_kept_where_its_session_is_an_older_one(visit: Any) -> None:
    sessions = SessionService("memory://", app="c")
    app = create_app(
        agent_of(), keys=Keyring.ephemeral(), audience="c", store=sessions, history="server", subject=lambda _: "ada", page=True
    )
    visitor = visit(app)
    visitor.say("call count")
    say_beside(visitor, "hello")
    visitor.reload()
    visitor.page.get_by_text("You said hello").wait_for()
    assert said(visitor) == KEPT


def test_control_a_page_that_asks_once_shows_what_it_knew_before(visit: Any) -> None:
    sessions = SessionService("memory://", app="c")
    settings: Any = {"keys": Keyring.ephemeral(), "audience": "c", "subject": lambda _: "ada"}
    visitor = visit(create_app(agent_of(), store=sessions, history="server", page=True, **settings))
    altered(visitor, "exchange.js", "if ((await ask()).applied === false) await ask();", "await ask();")
    visitor.say("call count")
    say_beside(visitor, "hello")
    visitor.reload()
    assert said(visitor) == KEPT[:2]


def test_it_shows_the_memory_beside_the_session_as_it_is_after_each_turn(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = visit(clinic(HistoryStore()))
    assert remembered(visitor) == {}, "nobody has said who they are"
    visitor.say("call count")
    visitor.page.locator("#memory").get_by_text("penicillin").wait_for()
    assert remembered(visitor) == {"allergies": '["penicillin"]', "phone": '"12 34"'}
    monkeypatch.setattr(Recollection, "kept", {"phone": "56 78"})
    visitor.say("hello")
    visitor.page.locator("#memory").get_by_text("56 78").wait_for()
    assert remembered(visitor) == {"phone": '"56 78"'}
    checked(visitor, "memory")
    visitor.press("Start over")
    assert remembered(visitor) == {}
    assert visitor.errors == []


def test_it_shows_no_memory_unless_its_owner_lets_it(visit: Any) -> None:
    app = create_app(agent_of(), keys=Keyring.ephemeral(), audience="c", store=HistoryStore(), history="server", page=True)
    visitor = visit(app)
    visitor.say("call count")
    assert visitor.page.locator("#remembered").is_hidden()
    assert not any(url.endswith("/api/history") for url in visitor.asked)
    visitor.reload()
    visitor.page.get_by_text("Done: 1").wait_for()
    assert "penicillin" not in visitor.page.content()


def test_a_call_that_waits_can_be_decided_after_the_page_is_loaded_again(visit: Any) -> None:
    store = HistoryStore()
    visitor = visit(clinic(store))
    visitor.say('call drop {"volume": "pg"}')
    visitor.reload()
    visitor.press("Approve")
    visitor.page.get_by_text("Done: pg dropped").wait_for()
    assert [role for role, *_ in store.said] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_session_service_keeps_all_of_it(visit: Any, encrypt: bool) -> None:
    """Conversation, state, memory, and a call that waits: the token has nothing of them."""
    sessions = SessionService("memory://", app="clinic")
    agent = Agent(obedient(), tools=[*TOOLS, remember])
    shown = Page("Clinic", memory=Memory, suggestions=["hello"])
    settings: dict[str, Any] = {
        "keys": Keyring.ephemeral(),
        "audience": "clinic",
        "store": sessions,
        "encrypt": encrypt,
        "mirror": True,
    }
    visitor = visit(create_app(agent, history="server", page=shown, **settings))
    visitor.say('call count\ncall remember {"name": "Ada"}')
    visitor.page.locator("#memory").get_by_text("Ada").wait_for()
    assert (visitor.values, remembered(visitor)) == ({"n": "1"}, {"name": '"Ada"'})
    visitor.say('call drop {"volume": "pg"}')
    assert visitor.cards == ['drop {"volume":"pg"}']
    visitor.reload()
    visitor.page.get_by_text("called remember").wait_for()
    assert visitor.cards == ['drop {"volume":"pg"}']
    assert "kept on the server" in visitor.text("where")
    if not encrypt:
        checked(visitor, "kept-on-the-server")
    visitor.press("Approve")
    visitor.page.get_by_text("Done: pg dropped").wait_for()
    visitor.reload()
    visitor.page.get_by_text("Done: pg dropped").wait_for()
    assert visitor.cards == []
    assert visitor.errors == []
