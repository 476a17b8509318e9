"""The chat page in a real browser: a whole conversation, its attacks, and how it looks at four widths in light and dark."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, Final

import anyio.to_thread
import pytest
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from dcaf import Keyring, Session, tool
from dcaf.agent import Agent, AgentResult, Page, ProposedCall, create_app
from dcaf.core import OpenRequest, SessionConflict
from dcaf.testing import FrozenClock, sealed, serving
from tests.browser.looks import WIDTHS, checked, looked_at, violations
from tests.browser.visitor import WAIT_MS, Visitor, demo, press_until, slow
from tests.stores_for_tests import ToldStore

REFLOW_PX: Final = 320
"""A window of 1280 pixels at 400 % (WCAG 2.2, 1.4.10)."""


def test_a_whole_conversation_with_everything_the_page_shows(visit: Any) -> None:
    clock = FrozenClock()
    visitor = visit_at(visit, clock)
    assert visitor.page.locator("#notice").evaluate("notice => getComputedStyle(notice).display") == "block", "it can speak"
    checked(visitor, "1-empty")
    the_wizard_asks_for_three_things(visitor)
    a_person_approves(visitor)
    cheating_is_shown(visitor)
    it_branches(visitor)
    it_expires(visitor, clock)
    visitor.press("Start over")
    assert (visitor.text("turns"), visitor.text("state")) == ("", "Nothing yet: the next turn begins a new session.")
    refusals = [error for error in visitor.errors if "Failed to load resource" in error]
    assert len(refusals) == 2, "the tampered one and the ended one"
    assert visitor.errors == refusals
    assert {url for url in visitor.asked if not url.startswith(visitor.url)} == set(), "nothing is loaded from elsewhere"


def the_wizard_asks_for_three_things(visitor: Visitor) -> None:
    visitor.say("add 2 widget")
    assert visitor.state["basket.items[0].quantity"] == ("2", "new")
    visitor.say("one more widget")
    assert visitor.state == {"basket.items[0].name": ('"widget"', ""), "basket.items[0].quantity": ("3", "changed, was 2")}
    for text in ("start", "service api", "3 replicas"):
        visitor.press(text)
    assert {key: visitor.values[key] for key in ("wizard_step", "service", "replicas")} == {
        "wizard_step": "3",
        "service": '"api"',
        "replicas": "3",
    }
    assert {key for key, (_, mark) in visitor.state.items() if mark} == {"wizard_step", "replicas"}
    assert (visitor.claims["aud"][0], visitor.claims["seq"][0]) == ('"deploy-agent"', "5")
    assert visitor.claims["exp"][1] == "ends in 7 days"
    assert visitor.text("left") == "7 days. Each turn starts this anew, until the session is older than the service allows."
    assert visitor.text("size").endswith(" of 262,144 bytes")


def a_person_approves(visitor: Visitor) -> None:
    visitor.press("execute")
    checked(visitor, "2-approval")
    assert "execute_deploy" in visitor.text("waiting")
    visitor.press("Approve")
    assert "Deployed api with 3 replicas." in visitor.last
    assert {mark for _, mark in visitor.state.values()} == {"removed"}
    visitor.say("hello")
    assert visitor.text("state") == "Empty."


def cheating_is_shown(visitor: Visitor) -> None:
    visitor.press("Tamper with the token")
    assert "Refused: 400 session-invalid" in visitor.text("verdict")
    visitor.page.get_by_label("Turn to replay").select_option(index=6)
    visitor.press("Replay an older turn")
    assert "Accepted: 200" in visitor.text("verdict")
    assert "Deployed api with 3 replicas." in visitor.text("verdict"), "the approval is used a second time"
    assert "This service keeps nothing (L0)" in visitor.text("verdict")
    visitor.press("Edit the mirror")
    assert "Without effect" in visitor.text("verdict")


def it_branches(visitor: Visitor) -> None:
    visitor.go_on_from(4)
    assert visitor.page.locator("#log").get_attribute("aria-live") == "off", "nobody has to hear it all again"
    assert visitor.values["service"] == '"api"'
    visitor.say("service web")
    assert visitor.state["service"] == ('"web"', 'changed, was "api"')
    assert "from turn 4: 1 change" in visitor.text("turns")
    assert visitor.page.locator("#log").get_attribute("aria-live") == "polite"
    visitor.page.locator("summary", has_text="What travels").click()
    checked(visitor, "3-branch")
    assert looked_at(visitor, "3-branch", width=REFLOW_PX) == []
    visitor.go_on_from(5)
    assert (visitor.values["service"], visitor.values["replicas"]) == ('"api"', "3"), "the other branch is as it was"


def it_expires(visitor: Visitor, clock: FrozenClock) -> None:
    visitor.page.set_viewport_size({"width": 1400, "height": 900})
    visitor.page.locator("#claims").wait_for()
    cell = visitor.page.locator("#claims tr", has_text="exp").locator("td").last.element_handle()
    clock.tick(timedelta(days=8))
    visitor.page.clock.set_fixed_time(clock.now)
    visitor.page.clock.run_for(1000)
    assert visitor.text("left") == "Over, 1 day ago. The next turn is refused."
    assert (cell.is_visible(), cell.inner_text()) == (True, "ends 1 day ago"), (
        "the cell is the same: who has selected text keeps it"
    )
    visitor.say("execute")
    assert visitor.text("notice").startswith("Not answered: session-ended.")
    assert "the next turn begins a new session" in visitor.text("notice")
    assert visitor.page.get_by_label("Your message").input_value() == "execute"
    checked(visitor, "4-expired")
    visitor.say("start")
    assert visitor.state == {"wizard_step": ("1", "new")}


def visit_at(visit: Any, clock: FrozenClock) -> Visitor:
    """A visitor whose browser has the service's clock."""
    opened: Visitor = visit(demo(clock=clock))
    opened.page.clock.install(time=clock.now)
    opened.page.clock.set_fixed_time(clock.now)
    opened.page.reload()
    opened.button("start").wait_for()
    return opened


def test_control_what_overlaps_or_is_too_wide_is_found(visit: Any) -> None:
    visitor = visit(demo())
    visitor.say("start")
    assert looked_at(visitor, "control", width=800) == []
    visitor.page.locator("#notice").evaluate("element => element.textContent = 'a notice'")
    visitor.page.locator("#form").evaluate("element => element.style.marginTop = '-3rem'")
    assert any("a notice" in str(pair) for pair in looked_at(visitor, "control", width=800))
    visitor.page.locator("#form").evaluate("element => element.style.marginTop = ''")
    visitor.page.locator("#title").evaluate("element => element.style.width = '1000px'")
    visitor.page.locator("#title").evaluate("element => element.style.textAlign = 'right'")
    assert "wider than the window" in str(looked_at(visitor, "control", width=800))


def test_control_what_a_screen_reader_could_not_name_is_found(visit: Any) -> None:
    visitor = visit(demo())
    visitor.page.locator("label[for=said]").evaluate("element => element.remove()")
    visitor.page.locator("#send").evaluate("element => element.style.color = '#2a70a0'")
    found = "\n".join(violations(visitor))
    assert "label: " in found
    assert "color-contrast: " in found


class Gate:
    """A model that says one word, and the next one when it is told to."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    async def words(self, _messages: Any, _info: Any) -> AsyncIterator[str]:
        yield "first "
        await anyio.to_thread.run_sync(self.opened.wait, WAIT_MS / 1000, abandon_on_cancel=True)
        yield "second"

    def app(self) -> Any:
        agent = Agent(FunctionModel(stream_function=self.words), name="slow")
        return create_app(agent, keys=Keyring.ephemeral(), audience="slow", page=True)

    def begun(self, visit: Any) -> Visitor:
        """Somebody whose first turn has begun, and waits at the gate."""
        visitor: Visitor = visit(self.app())
        visitor.page.get_by_label("Your message").fill("go")
        visitor.page.keyboard.press("Enter")
        visitor.page.locator("#log .assistant", has_text="first").wait_for()
        return visitor


def test_text_is_shown_as_it_arrives(visit: Any) -> None:
    gate = Gate()
    visitor = gate.begun(visit)
    assert "second" not in visitor.last
    assert visitor.button("Send").is_disabled()
    gate.opened.set()
    visitor.idle()
    assert "first second" in visitor.last


def test_a_turn_that_is_stopped_leaves_the_session_and_the_message(visit: Any) -> None:
    gate = Gate()
    visitor = gate.begun(visit)
    visitor.press("Stop")
    assert visitor.text("notice") == "You stopped it. The session is as before. What you wrote is in the box again."
    assert visitor.page.get_by_label("Your message").input_value() == "go"
    gate.opened.set()
    visitor.page.keyboard.press("Enter")
    visitor.idle()
    assert "first second" in visitor.last


def test_a_conversation_that_is_left_during_a_turn_is_not_written_into_the_next(visit: Any) -> None:
    gate = Gate()
    visitor = gate.begun(visit)
    visitor.button("Start over").click()
    visitor.idle()
    assert visitor.text("notice") == "A new conversation, without a session."
    assert visitor.page.locator("#log article").count() == 0


def test_an_attempt_that_is_left_says_nothing_of_the_next_conversation(visit: Any) -> None:
    visitor = visit(create_app(slow, keys=Keyring.ephemeral(), audience="slow", page=True))
    visitor.say("go")
    visitor.button("Edit the mirror").click()
    visitor.page.locator("#stop:visible").wait_for()
    visitor.button("Start over").click()
    visitor.idle()
    assert visitor.text("verdict") == ""
    visitor.say("go")
    visitor.button("Edit the mirror").click()
    visitor.press("Stop")
    assert "Not answered: stopped" in visitor.text("verdict")


def test_a_refusal_gives_its_reason_and_the_tool_does_not_run(visit: Any) -> None:
    visitor = visit(demo())
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
    visitor.page.get_by_role("group", name="Approval of execute_deploy").get_by_label("Reason, if you reject").fill(
        "not on a Friday"
    )
    visitor.press("Reject")
    assert "not on a Friday" in visitor.last
    assert visitor.values["replicas"] == "3"
    assert visitor.text("waiting") == ""


def test_everything_can_be_done_with_the_keyboard(visit: Any) -> None:
    visitor = visit(demo())
    press = visitor.page.keyboard.press
    press("Tab")
    assert visitor.page.locator(":focus").inner_text() == "Skip to the message box"
    press("Enter")
    for text in ("service api", "3 replicas", "execute"):
        visitor.page.keyboard.type(text)
        press("Enter")
        visitor.idle()
        assert visitor.page.locator(":focus").get_attribute("id") == "said"
    press_until(visitor, "Approve", "Shift+Tab")
    press("Enter")
    visitor.idle()
    visitor.page.locator("#log", has_text="Deployed api with 3 replicas.").wait_for()
    assert visitor.page.locator(":focus").get_attribute("id") == "said", "the button is gone, and the focus is not lost"
    press_until(visitor, "Replay an older turn", "Tab")
    press("Enter")
    visitor.page.locator("#verdict", has_text="Accepted: 200").wait_for()
    assert visitor.page.locator(":focus").inner_text() == "Replay an older turn", "to be tried again with another turn"


def newest() -> ToldStore:
    """A store that knows the newest number of each session, as a ledger does."""

    def refuse(request: OpenRequest) -> None:
        numbers = [sealed.claims.seq for sealed, _ in store.committed if sealed.claims.sid == request.session_id]
        if request.claims is not None and request.claims.seq < max(numbers, default=0):
            raise SessionConflict

    store = ToldStore(open=refuse)
    store.level = "L2"
    return store


def test_a_service_that_remembers_refuses_the_replay_and_the_page_says_so(visit: Any) -> None:
    visitor = visit(demo(store=newest()))
    for text in ("start", "service api", "3 replicas"):
        visitor.say(text)
    visitor.press("Replay an older turn")
    assert "Refused: 409 session-conflict" in visitor.text("verdict")
    assert "This service (L2) knows that the conversation has gone on since." in visitor.text("verdict")
    assert visitor.page.locator("#levels tr.here th").inner_text().startswith("L2")
    visitor.say("4 replicas")
    assert visitor.values["replicas"] == "4", "the page has kept its own session"


def test_an_encrypted_session_is_said_to_be_one(visit: Any) -> None:
    visitor = visit(demo(encrypt=True))
    visitor.say("service api")
    assert visitor.text("state") == "The service shows nothing of it: the state is encrypted."
    assert "encrypted: only the service can read it" in visitor.text("seal")
    assert visitor.claims == {}
    assert visitor.text("left").startswith("7 days")
    visitor.press("Tamper with the token")
    assert "Refused: 400 session-invalid" in visitor.text("verdict")


@tool
def remember(text: str, session: Session) -> str:
    """Remember a text."""
    session["note"] = text
    return text


def echo(messages: Any, _context: Any, session: Session) -> str:
    """An agent that says and stores what it hears."""
    session[messages[-1].content] = messages[-1].content
    return str(messages[-1].content)


def test_markup_is_text_and_nothing_inline_runs(visit: Any) -> None:
    visitor = visit(create_app(echo, keys=Keyring.ephemeral(), audience="echo", page=Page("<b>Echo</b>")))
    bad = "<img src=x onerror=\"document.title='run'\">"
    visitor.say(bad)
    assert visitor.text("title") == "<b>Echo</b>"
    assert bad in visitor.last
    assert visitor.page.locator("main img").count() == 0
    with pytest.raises(Exception, match="TrustedScript"):
        visitor.page.evaluate("() => document.body.setAttribute('onclick', 'document.title = 1')")
    with pytest.raises(Exception, match="TrustedHTML"):
        visitor.page.evaluate("() => { document.body.innerHTML = '<b>run</b>' }")


def test_each_message_has_the_direction_of_its_script(visit: Any) -> None:
    visitor = visit(create_app(echo, keys=Keyring.ephemeral(), audience="echo", page=True))
    for text, direction in (("shalom", "ltr"), ("שלום", "rtl")):
        visitor.say(text)
        shown = visitor.page.locator("#log article p").all()[-2:]
        assert [one.evaluate("element => getComputedStyle(element).direction") for one in shown] == [direction] * 2


def test_sessions_are_bound_to_the_conversation_of_the_page(visit: Any) -> None:
    visitor = visit(demo(conversation="/meta/thread"))
    visitor.say("start")
    assert "bound to this conversation" in visitor.claims["cid"][1]
    visitor.say("service api")
    assert visitor.values["service"] == '"api"'


@contextmanager
def stopped() -> Iterator[tuple[str, Any]]:
    """A service that has ended, and how to end it."""
    with ExitStack() as stack:
        yield stack.enter_context(serving(demo())), stack.close


def test_a_service_that_is_gone_costs_nothing(page: Any) -> None:
    with stopped() as (url, stop):
        visitor = Visitor(page, url + "/")
        visitor.say("service api")
        stop()
        visitor.say("3 replicas")
        assert visitor.text("notice").startswith("The service did not answer. The session is as before. What you wrote")
        assert visitor.values["service"] == '"api"'


def test_the_page_waits_for_the_service_and_says_when_it_does_not_come(page: Any) -> None:
    with serving(demo()) as url:
        page.route("**/page/settings", lambda route: route.fulfill(status=503, body="{}"))
        page.goto(url)
        page.get_by_text("The service does not answer. Load the page again.").wait_for()
        assert page.locator("button:enabled:visible, select:enabled").count() == 0, "nothing is offered that would do nothing"


def test_an_edited_mirror_is_a_turn_like_any_other_where_the_service_takes_only_the_newest(visit: Any) -> None:
    visitor = visit(create_app(echo, keys=Keyring.ephemeral(), audience="echo", page=True, store=newest()))
    visitor.say("one")
    visitor.press("Edit the mirror")
    assert "Without effect" in visitor.text("verdict")
    visitor.say("two")
    assert (visitor.text("notice"), set(visitor.values)) == ("", {"one", "hello", "two"})


@pytest.mark.parametrize("mirror", [False, {"service"}])
def test_a_state_that_is_only_signed_is_shown_whatever_the_mirror_shows(visit: Any, mirror: Any) -> None:
    visitor = visit(demo(mirror=mirror))
    visitor.say("service api")
    assert visitor.state == {"service": ('"api"', "new"), "wizard_step": ("2", "new")}
    assert "Turn 1: 2 changes" in visitor.text("turns")


def test_of_an_encrypted_state_it_is_said_that_there_may_be_more(visit: Any) -> None:
    visitor = visit(demo(encrypt=True, mirror={"service"}))
    visitor.say("service api")
    visitor.say("3 replicas")
    assert visitor.values == {"service": '"api"'}
    assert "there may be more than the service shows" in visitor.text("state")
    assert "Turn 2: no visible changes" in visitor.text("turns")


def hoard(messages: Any, _context: Any, session: Session) -> str:
    """An agent that stores what people would not read."""
    text = messages[-1].content
    session.update({f"key_{number}": number for number in range(60)})
    session.update({"long": "W" * 100_000, "big": 2**53 + 1, "turned": "\u202eevil", "": "unnamed", "a.b": 1, "a": {"b": 2}})
    session["zz"] = text
    return "" if text == "nothing" else f"{text} שלום"


def test_a_state_that_is_too_much_for_a_person_stays_in_its_place(visit: Any) -> None:
    visitor = visit(create_app(hoard, keys=Keyring.ephemeral(), audience="hoard", page=True, mirror=False))
    for number in range(9):
        visitor.say(f"{number} {'W' * 1000}")
    looked_at(visitor, "5-much", width=1400)
    assert visitor.values["long"].endswith("… (100,002 characters)")
    assert visitor.values["big"] == '"9007199254740993"'
    assert visitor.values["turned"] == '"\\u202eevil"', "nothing is turned around"
    assert (visitor.state['[""]'], visitor.state['["a.b"]'], visitor.state["a.b"]) == (('"unnamed"', ""), ("1", ""), ("2", ""))
    assert is_in_sight(visitor, "#state .changed"), "the change is scrolled to"
    assert visitor.page.locator("#cheat").bounding_box()["y"] < 2000
    visitor.go_on_from(2)
    assert is_in_sight(visitor, "#turns .here")
    for width in WIDTHS:
        assert looked_at(visitor, "5-much", width=width) == []
    assert violations(visitor) == []


def is_in_sight(visitor: Visitor, selector: str) -> bool:
    """Whether something begins where the box that scrolls around it shows it."""
    place = visitor.page.locator(selector).bounding_box()
    box = visitor.page.locator("#turns" if "#turns" in selector else "#values").bounding_box()
    return bool(box["y"] <= place["y"] < box["y"] + box["height"] - 20)


def test_an_answer_without_text_is_said_to_be_one(visit: Any) -> None:
    visitor = visit(create_app(hoard, keys=Keyring.ephemeral(), audience="hoard", page=True))
    visitor.say("nothing")
    assert "No text." in visitor.last


@tool(requires_approval=True)
def drop(volume: str, session: Session) -> str:
    """Drop a volume."""
    session.append("dropped", volume[:9])
    return f"Dropped {volume[:9]}."


class Dropping:
    """A model that wants three volumes dropped at once."""

    volumes = ("logs", "cache", "pg" * 5000)

    async def words(self, messages: Any, _info: Any) -> AsyncIterator[Any]:
        last = messages[-1].parts[-1]
        if getattr(last, "content", "") != "drop":
            yield "Done."
            return
        yield {at: DeltaToolCall("drop", json.dumps({"volume": it}), tool_call_id=f"c{at}") for at, it in enumerate(self.volumes)}

    def app(self) -> Any:
        agent = Agent(FunctionModel(stream_function=self.words), tools=[drop], name="dropping")
        return create_app(agent, keys=Keyring.ephemeral(), audience="dropping", page=True)


def test_several_calls_are_decided_one_by_one_on_every_branch(visit: Any) -> None:
    visitor = visit(Dropping().app())
    cards = visitor.page.get_by_role("group", name="Approval of drop")
    visitor.say("drop")
    assert (visitor.text("notice"), cards.count()) == ("3 calls wait for you.", 3)
    assert "pg" * 5000 in cards.last.inner_text(), "a person sees all of what they approve"
    for width in WIDTHS:
        assert looked_at(visitor, "6-calls", width=width) == []
    cards.first.get_by_role("button", name="Approve").dblclick()
    visitor.idle()
    assert (visitor.values, cards.count()) == ({"dropped[0]": '"logs"'}, 2)
    cards.first.get_by_role("button", name="Reject").click()
    visitor.idle()
    assert "Rejected: Not now" in visitor.last
    visitor.go_on_from(1)
    assert (visitor.text("state"), cards.count()) == ("Empty.", 3)
    visitor.go_on_from(3)
    assert (visitor.text("notice").startswith("You go on from turn 3"), cards.count()) == (True, 1)
    cards.first.get_by_role("button", name="Approve").click()
    visitor.idle()
    assert visitor.values == {"dropped[0]": '"logs"', "dropped[1]": '"pgpgpgpgp"'}


def insistent(_messages: Any, _context: Any) -> AgentResult:
    """An agent that wants the same in every turn."""
    return AgentResult("May I?", approvals=[ProposedCall(drop, {"volume": "logs"}, id="c1")])


def test_a_call_that_is_proposed_again_waits_once(visit: Any) -> None:
    visitor = visit(create_app(Agent(insistent, tools=[drop]), keys=Keyring.ephemeral(), audience="insistent", page=True))
    visitor.say("hi")
    visitor.say("hi again")
    assert visitor.text("notice") == "A call waits for you."
    visitor.press("Approve")
    assert visitor.values == {"dropped[0]": '"logs"'}


def test_a_refusal_that_brings_the_current_session_is_said_to_have_done_so(visit: Any) -> None:
    """As of the wire protocol, section 7: the answer to a turn whose own answer was lost."""
    visitor = visit(demo())
    visitor.say("service api")
    session = sealed({"service": "web"}, keys=Keyring.ephemeral(), audience="deploy-agent")
    told = {"code": "session-conflict", "detail": "It has moved on.", "data": {"session": session}}
    visitor.page.route("**/api/chat-stream", lambda route: route.fulfill(status=409, json=told))
    visitor.say("3 replicas")
    assert visitor.text("notice").startswith("Not answered: session-conflict. A newer session came all the same, and is kept.")
    assert visitor.values == {"service": '"web"'}
