"""The chat page where there is little room: on a telephone it is a conversation first, on a tablet nothing is empty."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.browser.looks import violations
from tests.browser.visitor import Visitor, demo, press_until

PHONES: Final = ((360, 640), (360, 800), (414, 896), (480, 800))
IN_SIGHT: Final = """ids => ids.map(id => {
  const { top, bottom } = document.querySelector(id).getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
})"""


GAPS: Final = """pairs => pairs.map(pair => {
  const [above, below] = pair.map(id => document.getElementById(id).getBoundingClientRect());
  return below.top - above.bottom;
})"""


def on_a_phone(visitor: Visitor, width: int, height: int) -> None:
    visitor.page.set_viewport_size({"width": width, "height": height})
    visitor.reload()


@pytest.mark.parametrize(("width", "height"), PHONES)
def test_on_a_telephone_one_sees_what_was_said_and_where_to_say_more(visit: Any, width: int, height: int) -> None:
    visitor = visit(demo())
    on_a_phone(visitor, width, height)
    assert visitor.page.evaluate(IN_SIGHT, ["#title", "#log", "#suggestions", "#said", "#send"]) == [True] * 5
    for text in ("add 2 widget", "one more widget", "start", "service api", "3 replicas"):
        visitor.say(text)
    seen = ["#log", "#log article:last-child p", "#log article:last-child li", "#said", "#send"]
    assert visitor.page.evaluate(IN_SIGHT, seen) == [True] * len(seen)
    assert visitor.page.locator("#session").bounding_box()["y"] > height, "what is behind it is behind it"
    if height >= 800:
        visitor.say("execute")
        seen = ["#log article:last-child", "#waiting .yes", "#notice", "#said", "#send"]
        assert visitor.page.evaluate(IN_SIGHT, seen) == [True] * len(seen), "the question, and the buttons that answer it"


def test_on_a_telephone_what_travels_and_the_levels_are_closed_and_can_be_opened(visit: Any) -> None:
    visitor = visit(demo())
    on_a_phone(visitor, 360, 800)
    visitor.say("service api")
    details = visitor.page.locator("details")
    assert details.evaluate_all("found => found.map(one => one.open)") == [False] * 3
    assert not visitor.page.locator("#claims, #envelope, #levels").first.is_visible()
    for summary in (
        "What the token says, to whoever holds it",
        "What travels, at data.session",
        "What each level does. This service: L0",
    ):
        press_until(visitor, summary, "Tab")
        visitor.page.keyboard.press("Enter")
    assert details.evaluate_all("found => found.map(one => one.open)") == [True] * 3
    assert [visitor.page.locator(place).is_visible() for place in ("#claims", "#envelope", "#levels")] == [True] * 3
    assert violations(visitor) == []
    visitor.page.set_viewport_size({"width": 1400, "height": 900})
    visitor.say("3 replicas")
    assert details.evaluate_all("found => found.map(one => one.open)") == [True] * 3


def test_control_a_page_without_its_layout_is_no_conversation_on_a_telephone(visit: Any) -> None:
    visitor = visit(demo())
    visitor.page.route("**/page/page.css", lambda route: route.fulfill(status=200, content_type="text/css", body=""))
    on_a_phone(visitor, 360, 640)
    for text in ("add 2 widget", "one more widget", "start", "service api", "3 replicas"):
        visitor.say(text)
    assert False in visitor.page.evaluate(IN_SIGHT, ["#log", "#said", "#send"])


@pytest.mark.parametrize("width", [720, 800, 1024, 1199])
def test_on_a_tablet_nothing_is_empty_between_two_parts(visit: Any, width: int) -> None:
    visitor = visit(demo())
    visitor.page.set_viewport_size({"width": width, "height": 900})
    for text in ("service api", "3 replicas", "execute"):
        visitor.say(text)
        gaps = visitor.page.evaluate(GAPS, [["talk", "history"], ["session", "cheat"]])
        assert [round(gap) for gap in gaps] == [16, 16]
