"""Somebody at the chat page, and services whose page they open."""

from __future__ import annotations

import json
from typing import Any, Final

import anyio

from dcaf import Keyring, Session
from dcaf.agent.page import STATIC
from dcaf.demo import create_demo

CELLS: Final = "rows => rows.map(row => Array.from(row.cells, cell => cell.innerText))"
WAIT_MS: Final = 30_000
"""The wait for one thing to appear."""


class Visitor:
    """Somebody at the page, who finds everything by the name that a screen reader says."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(url)
        self.idle()

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def idle(self) -> None:
        self.page.locator("#send:enabled").wait_for()

    def say(self, text: str) -> None:
        self.page.get_by_label("Your message").fill(text)
        self.page.keyboard.press("Enter")
        self.idle()

    def press(self, name: str) -> None:
        self.button(name).click()
        self.idle()

    def go_on_from(self, number: int) -> None:
        self.page.get_by_role("button", name=f"Continue from here: turn {number},").click()

    @property
    def state(self) -> dict[str, tuple[str, str]]:
        """Leaf of the state -> its value, and what the turn did to it."""
        return self._table("state")

    @property
    def values(self) -> dict[str, str]:
        return {key: value for key, (value, mark) in self.state.items() if mark != "removed"}

    @property
    def claims(self) -> dict[str, tuple[str, str]]:
        return self._table("claims")

    def _table(self, place: str) -> dict[str, tuple[str, str]]:
        rows = self.page.locator(f"#{place} tr").evaluate_all(CELLS)
        return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}

    @property
    def last(self) -> str:
        return str(self.page.locator("#log article").last.inner_text())

    @property
    def cards(self) -> list[str]:
        """The calls that wait, as they are shown."""
        found: list[str] = self.page.locator("#waiting .card p:first-child").all_inner_texts()
        return found

    def reload(self) -> None:
        self.page.reload()
        self.idle()

    def text(self, place: str) -> str:
        return str(self.page.locator(f"#{place}").inner_text())


def demo(**settings: Any) -> Any:
    return create_demo(Keyring.ephemeral(), **settings)


async def slow(messages: Any, _context: Any, session: Session) -> str:
    """An agent whose answer to a greeting does not come."""
    session["said"] = len(messages)
    if messages[-1].content == "hello":
        await anyio.sleep(WAIT_MS / 1000)
    return "Here."


def answers(visitor: Visitor, *events: dict[str, Any], status: int = 200) -> None:
    """From now on the service answers with these events; a single one of another status is a refusal."""
    body = "".join(json.dumps(event) + "\n" for event in events)
    visitor.page.route("**/api/chat-stream", lambda route: route.fulfill(status=status, body=body))


def altered(visitor: Visitor, name: str, place: str, by: str) -> None:
    """Load the page again, with one place of one of its files changed."""
    text = (STATIC / name).read_text()
    assert text.count(place) == 1, "the place is not there any more"
    kind = "text/javascript"
    visitor.page.route(f"**/page/{name}", lambda route: route.fulfill(body=text.replace(place, by), content_type=kind))
    visitor.reload()


def press_until(visitor: Visitor, name: str, key: str) -> None:
    for _ in range(40):
        visitor.page.keyboard.press(key)
        if visitor.page.locator(":focus").inner_text() == name:
            return
    raise AssertionError(f"{name} cannot be reached")
