"""The chat page where answers are lost on the way: it sends again where the service would know the turn, and says what was lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from dcaf import Keyring, Session
from dcaf.agent import create_app
from dcaf.ledger import Ledger
from tests.browser.visitor import Visitor, altered
from tests.client_package.cutting import CUTS, Proxy, proxied

HINT = 'if (before?.dcaf?.retry !== true) return "";'


class Counter:
    """An agent that counts, and what it was really asked to do."""

    def __init__(self) -> None:
        self.effects: list[str] = []

    def __call__(self, messages: Any, _context: Any, session: Session) -> str:
        self.effects.append(messages[-1].content)
        return f"That was number {session.incr('said')}."


Counting = tuple[Counter, Proxy, Visitor]


@pytest.fixture
def counting(page: Any) -> Iterator[Any]:
    """Opens the page of an agent that counts, at a level, behind a proxy."""

    @contextmanager
    def opened(level: str) -> Iterator[Counting]:
        agent, store = Counter(), Ledger("memory://", audience="counter") if level == "L2" else None
        app = create_app(agent, keys=Keyring.ephemeral(), audience="counter", subject=lambda _: "ada", store=store, page=True)
        with proxied(app) as proxy:
            yield agent, proxy, Visitor(page, proxy.url + "/")

    with ExitStack() as services:
        yield lambda level: services.enter_context(opened(level))


def test_a_turn_that_never_arrived_is_sent_again_and_answered(counting: Any) -> None:
    agent, proxy, visitor = counting("L2")
    visitor.say("one")
    proxy.cuts = ["before the request"] * 2
    visitor.say("two")
    assert "That was number 2." in visitor.last
    assert visitor.text("notice") == "Sent 3 times, and done once."
    assert (agent.effects, visitor.values) == (["one", "two"], {"said": "2"})
    visitor.reload()
    visitor.say("three")
    assert "That was number 3." in visitor.last


@pytest.mark.parametrize("cut", CUTS[1:])
def test_a_turn_that_was_done_is_not_done_twice_and_the_page_says_what_is_lost(counting: Any, cut: str) -> None:
    agent, proxy, visitor = counting("L2")
    visitor.say("one")
    proxy.cuts = [cut]
    visitor.say("two")
    lost = "This turn was done, and what it said was lost on the way."
    assert lost in visitor.last
    assert visitor.text("notice") == f"{lost} The session is the newest one: go on."
    assert visitor.page.get_by_label("Your message").input_value() == "", "it is not to be said again"
    assert visitor.values == {"said": "2"}
    visitor.say("three")
    assert "That was number 3." in visitor.last
    assert agent.effects == ["one", "two", "three"]


@pytest.mark.parametrize("cut", CUTS)
def test_where_nothing_is_kept_nothing_is_sent_twice(counting: Any, cut: str) -> None:
    agent, proxy, visitor = counting("L0")
    visitor.say("one")
    proxy.cuts = [cut]
    visitor.say("two")
    assert visitor.page.get_by_label("Your message").input_value() == "two"
    assert (proxy.sent, agent.effects) == (2, ["one"] if cut == "before the request" else ["one", "two"])


def test_control_a_page_that_sends_again_everywhere_does_it_twice(counting: Any) -> None:
    agent, proxy, visitor = counting("L0")
    altered(visitor, "again.js", HINT, "")
    visitor.say("one")
    proxy.cuts = ["after the request"]
    visitor.say("two")
    assert agent.effects == ["one", "two", "two"]


def test_an_older_turn_is_refused_and_the_page_says_so(counting: Any) -> None:
    agent, proxy, visitor = counting("L2")
    for text in ("one", "two", "three"):
        visitor.say(text)
    visitor.press("Replay an older turn")
    assert "Refused: 409 session-superseded" in visitor.text("verdict")
    assert "(L2) knows that the conversation has gone on since" in visitor.text("verdict")
    assert visitor.page.locator("#levels tr.here th").inner_text().startswith("L2")
    assert (agent.effects, proxy.sent) == (["one", "two", "three"], 4), "a cheat is sent once"
    visitor.say("four")
    assert "That was number 4." in visitor.last


def test_it_can_be_stopped_while_it_waits_to_send_again(counting: Any) -> None:
    agent, proxy, visitor = counting("L2")
    visitor.say("one")
    proxy.cuts = ["before the request"] * 9
    visitor.page.get_by_label("Your message").fill("two")
    visitor.page.keyboard.press("Enter")
    visitor.press("Stop")
    assert visitor.text("notice").startswith("You stopped it.")
    assert (agent.effects, visitor.page.get_by_label("Your message").input_value()) == (["one"], "two")
