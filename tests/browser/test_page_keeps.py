"""What the chat page keeps: the marks of the last turn, the calls that wait, and the whole conversation when it is loaded again."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from dcaf import Keyring
from dcaf.agent import create_app
from dcaf.demo import create_demo
from dcaf.testing import sealed
from tests.browser.visitor import Visitor, altered, answers, demo, slow
from tests.clients.servers import wiping
from tests.stores_for_tests import ToldStore


def test_the_marks_of_the_last_turn_stay_until_the_next_one_is_answered(visit: Any) -> None:
    """Whatever happens in between: cheats, a refusal, a failure, a stop, and the page is loaded again."""
    visitor = visit(demo())
    visitor.say("service api")
    visitor.say("service web")
    marked = {"service": ('"web"', 'changed, was "api"'), "wizard_step": ("2", "")}
    for name in ("Tamper with the token", "Edit the mirror", "Replay an older turn"):
        visitor.press(name)
        assert visitor.state == marked, name
    for problem in ({"code": "session-unavailable"}, {"code": "session-conflict"}):
        answers(visitor, problem, status=503)
        visitor.say("3 replicas")
        assert visitor.state == marked, problem
    answers(visitor, {"type": "text_delta", "text": "Well, "})
    visitor.say("3 replicas")
    assert visitor.state == marked
    visitor.page.unroute("**/api/chat-stream")
    visitor.reload()
    assert visitor.state == marked
    visitor.say("3 replicas")
    assert {key for key, (_, mark) in visitor.state.items() if mark} == {"wizard_step", "replicas"}
    visitor.go_on_from(2)
    assert visitor.state == marked


def test_control_a_page_that_compares_with_its_last_session_forgets_the_marks(visit: Any) -> None:
    visitor = visit(demo())
    altered(
        visitor, "page.js", "draw.state(talk.here?.before, talk.envelope)", "draw.state(talk.before, talk.before = talk.envelope)"
    )
    visitor.say("service api")
    assert visitor.state["service"] == ('"api"', "new")
    visitor.press("Edit the mirror")
    assert visitor.state["service"] == ('"api"', "")


def test_the_marks_stay_when_a_turn_is_stopped(visit: Any) -> None:
    visitor = visit(create_app(slow, keys=Keyring.ephemeral(), audience="slow", page=True))
    visitor.say("go")
    visitor.page.get_by_label("Your message").fill("hello")
    visitor.page.keyboard.press("Enter")
    visitor.press("Stop")
    assert visitor.state == {"said": ("1", "new")}


ASKED: Final = ["execute_deploy {}"]


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_call_waits_after_other_talk_a_reload_and_on_its_branch(visit: Any, encrypt: bool) -> None:
    visitor = visit(demo(encrypt=encrypt))
    for text in ("service api", "3 replicas", "execute", "hello"):
        visitor.say(text)
    assert (visitor.cards, visitor.text("notice")) == (ASKED, "A call waits for you.")
    visitor.reload()
    assert (visitor.cards, visitor.text("notice")) == (ASKED, "A call waits for you.")
    assert visitor.page.locator("#log article").count() == 8
    visitor.go_on_from(2)
    assert visitor.cards == []
    visitor.go_on_from(3)
    visitor.reload()
    assert visitor.cards == ASKED
    visitor.press("Approve")
    assert ("Deployed api with 3 replicas." in visitor.last, visitor.cards) == (True, [])
    visitor.reload()
    assert visitor.cards == []
    assert "from turn 3" in visitor.text("turns")


def test_control_a_page_that_reads_one_answer_alone_forgets_what_waits(visit: Any) -> None:
    """Where an answer does not name it again."""
    for is_altered, cards in ((False, ASKED), (True, [])):
        visitor = visit(demo())
        if is_altered:
            altered(visitor, "conversation.js", "of path(turn)) {", "of path(turn).slice(-1)) {")
        for text in ("service api", "3 replicas", "execute"):
            visitor.say(text)
        assert visitor.cards == ASKED
        answers(visitor, {"type": "text_delta", "text": "Hello."}, {"type": "done"})
        visitor.say("hello")
        assert visitor.cards == cards
        visitor.page.unroute_all()


def test_a_call_that_each_answer_names_waits_once(visit: Any) -> None:
    """As of a service whose every answer has all that waits."""
    visitor = visit(demo(encrypt=True))
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
    call = {"type": "tool_call", "name": "execute_deploy", "input": {}, "execute": False, "rejection_reason": None, "id": "c2"}
    answers(visitor, {"type": "approvals", "approvals": [call]}, {"type": "approvals", "approvals": [call]}, {"type": "done"})
    visitor.say("what waits?")
    visitor.say("and now?")
    assert visitor.cards == ASKED * 2


@pytest.mark.parametrize("encrypt", [False, True])
def test_nothing_waits_in_a_session_that_is_new(visit: Any, encrypt: bool) -> None:
    visitor = visit(demo(encrypt=encrypt))
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
    answers(visitor, {"code": "session-ended", "data": {"session": {"dcaf": {"token": "new"}}}}, status=409)
    visitor.say("hello")
    assert visitor.cards == []
    visitor.page.unroute("**/api/chat-stream")
    visitor.say("hello")
    assert visitor.cards == []
    visitor.reload()
    assert visitor.cards == []


def test_a_decision_that_was_taken_is_not_asked_for_again_though_its_turn_failed(visit: Any) -> None:
    """The service said that the approval is used before it ran the call; then the stream broke off."""
    keys = Keyring.ephemeral()
    visitor = visit(create_demo(keys))
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
    used = sealed({"service": "api"}, keys=keys, audience="deploy-agent", sequence=9)
    answers(visitor, {"type": "session", "data": {"session": used}}, {"type": "text_delta", "text": "Depl"})
    visitor.press("Approve")
    assert (visitor.cards, visitor.claims["seq"][0]) == ([], "9")
    assert visitor.text("notice") == (
        "The answer ended before the turn did, which may have run. A newer session came all the same, and is kept. "
        "What you decided about waits no longer."
    )
    visitor.reload()
    assert (visitor.cards, visitor.claims["seq"][0]) == ([], "9")


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_call_that_was_approved_and_stopped_has_run_once(page: Any, encrypt: bool) -> None:
    """Where the token cannot be read, the page cannot know that it is used up, and a second click is answered."""
    with wiping(page=True, encrypt=encrypt) as (url, wiped):
        visitor = Visitor(page, url + "/")
        visitor.say("wipe")
        before = visitor.text("envelope")
        visitor.button("Approve").click()
        visitor.page.wait_for_function(
            "before => JSON.parse(Object.values(sessionStorage)[0]).envelope.dcaf.token !== before",
            arg=json.loads(before)["dcaf"]["token"],
        )
        visitor.press("Stop")
        assert visitor.text("notice").startswith("You stopped it. A newer session came all the same, and is kept.")
        assert visitor.cards == (['wipe {"disk":"a"}'] if encrypt else [])
        visitor.reload()
        if encrypt:
            visitor.press("Approve")
            assert "That was decided before, so this decision changed nothing." in visitor.last
        assert (visitor.cards, wiped) == ([], ["a"])


def test_a_decision_that_did_not_arrive_can_be_taken_again(visit: Any) -> None:
    visitor = visit(demo())
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
    visitor.page.route("**/api/chat-stream", lambda route: route.abort())
    visitor.press("Approve")
    assert (visitor.cards, visitor.text("notice")) == (ASKED, "The service did not answer. The session is as before.")
    visitor.page.unroute("**/api/chat-stream")
    visitor.press("Approve")
    assert "Deployed api with 3 replicas." in visitor.last


def test_a_second_click_is_answered_by_what_is_true(visit: Any) -> None:
    """Who goes back to where the call waited, and approves it again, where the service remembers."""
    visitor = visit(demo(store=ToldStore()))
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
    visitor.press("Approve")
    visitor.go_on_from(3)
    visitor.press("Approve")
    assert "was used before" in visitor.last
    assert visitor.cards == []


FULL: Final = "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') } }"
NONE: Final = "() => { Object.defineProperty(window, 'sessionStorage', { get: () => { throw new DOMException('no') } }) }"


@pytest.mark.parametrize("spoil", [FULL, NONE])
def test_a_conversation_that_does_not_fit_is_not_kept_in_an_older_state(visit: Any, spoil: str) -> None:
    """An older one would offer again what was approved since."""
    visitor = visit(demo())
    visitor.say("service api")
    visitor.page.evaluate(spoil)
    visitor.say("3 replicas")
    assert visitor.values["replicas"] == "3", "it goes on"
    if spoil == FULL:
        visitor.reload()
        assert (visitor.text("log"), visitor.cards) == ("", [])


def test_control_a_page_that_leaves_what_it_kept_before_offers_an_approval_again(visit: Any) -> None:
    visitor = visit(demo())
    altered(
        visitor,
        "kept.js",
        "  } catch {\n    forget();\n  }\n}\n\n/** @param {string} pointer",
        "  } catch {}\n}\n\n/** @param {string} pointer",
    )
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
    visitor.page.evaluate(FULL)
    visitor.press("Approve")
    visitor.reload()
    assert visitor.cards == ASKED


@pytest.mark.parametrize(
    "kept",
    ["", "{", "null", "5", '{"pointer":"/thread_id"}', '{"pointer":"/other","turns":[]}', '{"pointer":"/thread_id","turns":[5]}'],
)
def test_what_is_kept_and_cannot_be_read_begins_anew(visit: Any, kept: str) -> None:
    visitor = visit(demo())
    visitor.say("service api")
    visitor.page.evaluate("kept => { for (const key of Object.keys(sessionStorage)) sessionStorage.setItem(key, kept) }", kept)
    visitor.reload()
    assert visitor.text("log") == ""
    visitor.say("service web")
    assert visitor.values["service"] == '"web"'


def test_what_was_started_over_stays_so(visit: Any) -> None:
    visitor = visit(demo())
    visitor.say("service api")
    visitor.press("Start over")
    visitor.reload()
    assert (visitor.text("log"), visitor.text("turns")) == ("", "")
    assert visitor.page.evaluate("() => Object.values(localStorage).length") == 0
