"""The functions that the guide gives for other clients, with the clients themselves, in Python."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dcaf.testing import SessionClient
from tests.asgi.wire import mounted

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "streaming.md"
START = (
    'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],'
    '"model":"m","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
)


@cache
def guide() -> dict[str, Any]:
    """The functions and the streams of the guide's block."""
    block = next(part for part in GUIDE.read_text().split("```python\n") if part.startswith("def of_openai"))
    names: dict[str, Any] = {}
    exec(block.partition("def service")[0], names)
    return names


def transport(terminal: Any, before: str = "") -> httpx2.BaseTransport:
    """A service that streams what the guide shows, below the middleware, for a client that takes a transport."""
    text = before + "".join(guide()["STREAMS"][terminal])

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["dcaf.session"].incr("turns")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": text.encode()})

    app = SessionClient(mounted(application, terminal=terminal), path="/")

    def answer(request: httpx2.Request) -> httpx2.Response:
        found = app.post(request.read())
        return httpx2.Response(found.status, headers={"content-type": "text/event-stream"}, content=found.content)

    return httpx2.MockTransport(answer)


def test_openais_client_reads_to_the_end_and_has_the_session() -> None:
    openai = pytest.importorskip("openai")
    names = guide()
    http = httpx2.Client(transport=transport(names["of_openai"]))
    client = openai.OpenAI(api_key="k", base_url="http://agent.test/v1", http_client=http)
    session: Any = None
    for _ in range(2):
        body = {"data": {"session": session}}
        for chunk in client.chat.completions.create(model="m", messages=[], stream=True, extra_body=body):
            assert chunk.choices[0].index == 0
            session = (chunk.model_extra or {}).get("data", {}).get("session", session)
    assert session["turns"] == 2


def test_anthropics_client_reads_to_the_end_and_has_the_session() -> None:
    anthropic = pytest.importorskip("anthropic")
    names = guide()
    http = httpx2.Client(transport=transport(names["of_anthropic"], START))
    client = anthropic.Anthropic(api_key="k", base_url="http://agent.test", http_client=http)
    session: Any = None
    for _ in range(2):
        said = [{"role": "user", "content": "hi"}]
        body = {"data": {"session": session}}
        for event in client.messages.create(model="m", max_tokens=1, messages=said, stream=True, extra_body=body):
            session = (event.model_extra or {}).get("data", {}).get("session", session)
    assert session["turns"] == 2
