"""What the chat page and its service say together: nothing comes twice in one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from dcaf.core import errors
from tests.browser.visitor import Visitor, answers, demo


def sentences(text: str) -> list[str]:
    """What is said in a text, but for single words."""
    found = [one.strip(" .:") for one in re.split(r"(?<=[.:?!])\s+|\n+", text)]
    return [one for one in found if " " in one]


def repeated(text: str) -> list[str]:
    found = sentences(text)
    return sorted({one for one in found if found.count(one) > 1})


def details_of(root: type[Exception]) -> Iterator[tuple[str, str]]:
    """Code and words of every refusal and failure that a service may tell."""
    for kind in root.__subclasses__():
        if "detail" in vars(kind):
            yield kind.code, kind.detail  # type: ignore[attr-defined]
        yield from details_of(kind)


DETAILS: Final = sorted({*details_of(errors.SessionError), *details_of(errors.AgentError), *details_of(errors.StoreError)})
BECAME: Final = re.compile(r"\bas (it was )?before\b|\bnewer session\b|\bnew session\b|\bnew one\b|\bgone\b")
"""What became of the session."""


@pytest.mark.parametrize("is_dead", [False, True])
def test_no_message_says_twice_what_became_of_the_session(visit: Any, is_dead: bool) -> None:
    """Of all that a service may refuse or fail with: its words and the page's are one message."""
    visitor = visit(demo())
    visitor.say("service api")
    assert len(DETAILS) > 10
    for code, detail in [*DETAILS, ("http-502", "")]:
        data = {"data": {"session": {"dcaf": {"token": "new"}}}} if is_dead else {}
        for status, told in ((400, {"code": code, "detail": detail}), (200, {"type": "error", "code": code, "error": detail})):
            answers(visitor, {**told, **data}, status=status)
            visitor.say("3 replicas")
            notice = visitor.text("notice")
            assert notice.startswith(f"Not answered: {code}. ")
            assert len([one for one in sentences(notice) if BECAME.search(one)]) <= 1, notice
            assert repeated(notice) == []
        visitor.go_on_from(1) if is_dead and visitor.page.locator("#turns button").count() else None


def test_nothing_is_said_twice(visit: Any) -> None:
    """In no message, card or part of the page, in any of its states."""
    visitor = visit(demo())
    once(visitor, "at first")
    for text in ("start", "service api", "3 replicas", "execute"):
        visitor.say(text)
        once(visitor, text)
    visitor.press("Reject")
    once(visitor, "rejected")
    for name in ("Tamper with the token", "Edit the mirror", "Replay an older turn"):
        visitor.press(name)
        once(visitor, name)
    answers(visitor, {"code": "session-unavailable", "detail": errors.SessionUnavailable.detail}, status=503)
    for name in ("Tamper with the token", "Edit the mirror", "Replay an older turn"):
        visitor.press(name)
        once(visitor, f"{name}, unavailable")
    visitor.page.route("**/api/chat-stream", lambda route: route.abort())
    visitor.press("Edit the mirror")
    once(visitor, "nobody there")


def once(visitor: Visitor, where: str) -> None:
    for place in ("#log article", ".card", "#talk form", "#session", "#history > p", "#notice"):
        for text in visitor.page.locator(place).all_inner_texts():
            assert repeated(text) == [], f"{where}: {text}"


def test_control_what_is_said_twice_is_found(visit: Any) -> None:
    assert repeated("The session is as before. So it is. The session is as before.") == ["The session is as before"]
    assert len(BECAME.findall("The session is as it was before. The session is as before.")) == 2
    visitor = visit(demo())
    visitor.say("service api")
    visitor.page.locator("#log .assistant p").evaluate("text => text.after(text.cloneNode(true))")
    with pytest.raises(AssertionError, match="Step 2: how many replicas"):
        once(visitor, "twice")
