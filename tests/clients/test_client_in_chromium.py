"""``examples/client.mjs`` in a real browser, imported by a page of the service's own origin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Mount, Route

from dcaf import Keyring
from dcaf.demo import create_demo
from dcaf.testing import serving
from tests.browser.conftest import chromium, page
from tests.clients.driven import CLIENT

__all__ = ["chromium", "page"]  # fixtures

WIZARD = """
async () => {
  const { Conversation } = await import("/client.mjs");
  const chat = new Conversation(location.origin);
  const pieces = [];
  await chat.send("service api", (event) => event.type === "text_delta" && pieces.push(event.text));
  await chat.send("3 replicas");
  const asked = await chat.send("execute");
  const approvals = asked.data.approvals.map((approval) => ({ ...approval, execute: true }));
  const before = chat.session.replicas;
  const done = await chat.send({ role: "user", data: { approvals } });
  return [pieces.length > 3, pieces.join(""), before, done.content, Object.keys(chat.session)];
}
"""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The demo, with a page and the client beside it."""
    routes = [
        Route("/", lambda _: HTMLResponse("<!doctype html><title>A front end</title>")),
        Route("/client.mjs", lambda _: FileResponse(CLIENT, media_type="text/javascript")),
        Mount("/", create_demo(Keyring.ephemeral())),
    ]
    with serving(Starlette(routes=routes)) as url:
        yield url


def test_the_wizard_deploys_what_was_approved_in_a_browser(page: Any, site: str) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(site)
    assert page.evaluate(WIZARD) == [
        True,
        "Service: api. Step 2: how many replicas?",
        3,
        "Deployed api with 3 replicas.",
        ["dcaf"],
    ]
    assert errors == []
