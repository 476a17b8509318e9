"""The chat page where a session can be ended: its button, what it says, and what a copy of the session is worth after it."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from dcaf import Keyring
from dcaf.agent import Page, create_app
from dcaf.asgi import SessionMiddleware
from dcaf.demo.app import AUDIENCE, LOG_OUT, log_out
from dcaf.ledger import Ledger
from dcaf.testing import serving
from tests.browser.looks import checked
from tests.browser.test_page_on_a_telephone import IN_SIGHT, on_a_phone
from tests.browser.visitor import Visitor, altered, demo, press_until

ENDED: Final = (
    "Logged out: the session has ended. Replay an older turn that carried it, to see it refused. "
    "The next message begins a new session."
)
ADOPTS: Final = "return end(address, body, signal, (envelope) => this.adopt(envelope));"
NAMES: Final = "JSON.stringify(placed({ data: { session: this.envelope } }, this.pointer, this.id))"
KEPT: Final = "The session is as before."


def remembering(**settings: Any) -> Any:
    """The demo as `dcaf demo --serve --ledger` serves it."""
    return demo(store=Ledger("memory://", audience=AUDIENCE), **settings)


def choose(visitor: Visitor) -> str:
    """Begin a session and change it twice; its name."""
    for text in ("start", "service api", "3 replicas"):
        visitor.say(text)
    return visitor.claims["sid"][0]


def test_who_logs_out_ends_the_session_for_every_copy_and_the_conversation_goes_on(visit: Any) -> None:
    visitor = visit(remembering())
    assert visitor.button("Log out").is_disabled(), "there is no session yet"
    checked(visitor, "7-nobody")
    session = choose(visitor)
    checked(visitor, "7-logged-in")
    visitor.press("Log out")
    assert visitor.text("notice") == ENDED
    assert visitor.text("state") == "Nothing yet: the next turn begins a new session."
    assert visitor.button("Log out").is_disabled(), "it has ended already"
    assert visitor.page.locator(":focus").get_attribute("id") == "said"
    visitor.press("Replay an older turn")
    assert "Replayed turn 3" in visitor.text("verdict"), "the newest carries the session, and is older now"
    assert "Refused: 409 session-ended" in visitor.text("verdict")
    assert "This service (L2) knows that this session is over" in visitor.text("verdict")
    checked(visitor, "7-logged-out")
    visitor.reload()
    assert visitor.button("Log out").is_disabled()
    visitor.say("service web")
    assert (visitor.text("notice"), visitor.values) == ("", {"wizard_step": "2", "service": '"web"'})
    assert visitor.claims["sid"][0] != session
    assert visitor.button("Log out").is_enabled()


def test_every_older_turn_is_refused_and_none_can_be_gone_on_from(visit: Any) -> None:
    visitor = visit(remembering())
    choose(visitor)
    visitor.press("Log out")
    for number in (1, 2):
        visitor.page.get_by_label("Turn to replay").select_option(index=number)
        visitor.press("Replay an older turn")
        assert "Refused: 409 session-ended" in visitor.page.locator("#verdict .card").first.inner_text()
    visitor.go_on_from(2)
    visitor.say("4 replicas")
    assert visitor.text("notice").startswith("Not answered: session-ended. What the tools remembered is gone")


def test_it_asks_below_the_address_of_the_page_with_the_session_and_its_conversation(page: Any) -> None:
    app = Starlette(routes=[Mount("/shop", remembering(conversation="/meta/thread"))])
    with serving(app) as url:
        visitor = Visitor(page, f"{url}/shop/")
        choose(visitor)
        token = json.loads(visitor.page.locator("#envelope").text_content())["dcaf"]["token"]
        with page.expect_request(f"{url}/shop{LOG_OUT}") as asked:
            visitor.press("Log out")
    sent = asked.value.post_data_json
    assert (asked.value.method, set(sent), sent["data"]["session"]["dcaf"]["token"]) == ("POST", {"data", "meta"}, token)
    assert visitor.text("notice") == ENDED


def test_control_a_page_that_does_not_name_its_conversation_is_refused(visit: Any) -> None:
    visitor = visit(remembering(conversation="/meta/thread"))
    altered(visitor, "conversation.js", NAMES, "JSON.stringify({ data: { session: this.envelope } })")
    choose(visitor)
    visitor.press("Log out")
    assert visitor.text("notice").startswith("Not logged out: session-")


def test_control_a_page_that_keeps_its_session_is_refused_with_it(visit: Any) -> None:
    visitor = visit(remembering())
    altered(visitor, "conversation.js", ADOPTS, "return end(address, body, signal, () => {});")
    choose(visitor)
    visitor.press("Log out")
    visitor.say("4 replicas")
    assert visitor.text("notice").startswith("Not answered: session-ended.")


REFUSED: Final = {"code": "session-unavailable", "detail": "The service cannot tell now."}
FAILURES: Final = {
    "refused": ({"status": 503, "json": REFUSED}, "Not logged out: session-unavailable. The service cannot tell now."),
    "nobody there": (None, f"Not logged out. The service did not answer. {KEPT}"),
    "no such path": ({"status": 404, "body": "Not Found"}, f"Not logged out: http-404. {KEPT}"),
    "another page": ({"body": "<html>"}, f"Not logged out. The service did not say that the session has ended. {KEPT}"),
    "no session": ({"json": {"ended": True}}, f"Not logged out. The service did not say that the session has ended. {KEPT}"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_where_it_fails_the_page_says_so_and_the_session_stays(visit: Any, name: str) -> None:
    answer, notice = FAILURES[name]
    visitor = visit(remembering())
    session = choose(visitor)
    visitor.page.route(f"**{LOG_OUT}", lambda route: route.fulfill(**answer) if answer else route.abort())
    visitor.press("Log out")
    assert visitor.text("notice") == notice
    assert (visitor.claims["sid"][0], visitor.values["replicas"]) == (session, "3")
    visitor.page.unroute(f"**{LOG_OUT}")
    visitor.press("Log out")
    assert visitor.text("notice") == ENDED


def test_a_session_that_has_ended_elsewhere_is_dropped_with_the_refusal(visit: Any) -> None:
    visitor = visit(remembering())
    choose(visitor)
    visitor.press("Log out")
    visitor.go_on_from(2)
    visitor.press("Log out")
    gone = "What the tools remembered is gone, and the next turn begins a new session."
    assert visitor.text("notice") == f"Not logged out: session-ended. {gone}"
    visitor.say("start")
    assert visitor.values == {"wizard_step": "1"}


def test_it_can_be_stopped_and_left(visit: Any) -> None:
    visitor = visit(remembering())
    choose(visitor)
    visitor.page.route(f"**{LOG_OUT}", lambda route: None)
    visitor.button("Log out").click()
    visitor.press("Stop")
    assert visitor.text("notice") == f"Not logged out. You stopped it. {KEPT}"
    visitor.button("Log out").click()
    visitor.press("Start over")
    assert visitor.text("notice") == "A new conversation, without a session."


def test_without_the_setting_there_is_no_such_button(visit: Any) -> None:
    visitor = visit(demo())
    visitor.say("start")
    assert (visitor.button("Start over").count(), visitor.button("Log out").count()) == (1, 0)
    assert visitor.page.locator("#leave").is_hidden()


def test_where_a_service_keeps_nothing_it_is_said_that_a_copy_stays_good(visit: Any) -> None:
    keys, page = Keyring.ephemeral(), Page(log_out="/bye")
    app = create_app(lambda _messages, session: str(session.incr("said")), keys=keys, audience="counter", page=page)
    own = SessionMiddleware(Starlette(routes=[Route("/bye", log_out, methods=["POST"])]), keys=keys, audience="counter")
    visitor = visit(Starlette(routes=[Route("/bye", own), Mount("/", app)]))
    for text in ("one", "two"):
        visitor.say(text)
    visitor.press("Log out")
    assert "This service keeps nothing (L0): a copy is good until it expires." in visitor.text("notice")
    visitor.press("Replay an older turn")
    assert "Accepted: 200" in visitor.text("verdict")
    visitor.say("three")
    assert visitor.values == {"said": "1"}


def test_where_a_service_begins_anew_instead_of_refusing_that_is_what_is_to_be_seen(visit: Any) -> None:
    visitor = visit(remembering(on_refused="restart"))
    choose(visitor)
    visitor.press("Log out")
    assert "Replay an older turn that carried it, to see that it has nothing of yours." in visitor.text("notice")
    visitor.press("Replay an older turn")
    assert "Started anew: 200" in visitor.text("verdict")


def test_it_is_reached_with_the_keyboard_and_on_a_telephone(visit: Any) -> None:
    visitor = visit(remembering())
    on_a_phone(visitor, 360, 640)
    for text in ("service api", "3 replicas"):
        visitor.say(text)
    assert visitor.page.evaluate(IN_SIGHT, ["#log article:last-child p", "#said", "#send", "#leave"]) == [True] * 4
    press_until(visitor, "Log out", "Tab")
    visitor.page.keyboard.press("Enter")
    visitor.idle()
    assert visitor.text("notice") == ENDED
