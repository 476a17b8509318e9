"""An application that speaks the plain protocol and knows nothing of dcaf is signed by the mount and ``plain=`` alone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from tests.asgi.wire import mounted, opened

NOW = int(time.time())
PATHS = ("/json", "/lines", "/events", "/socket")


def session_of(body: dict[str, Any]) -> dict[str, Any]:
    """Where the plain protocol has it: at the top level, else in the last message that has one."""
    places = [body, *reversed(body["messages"])]
    found = [place["data"]["session"] for place in places if place.get("data", {}).get("session")]
    return found[0] if found else {}


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    session = session_of(body)
    said = body["messages"][-1]["content"]
    session = {} if said == "clear" else {**session, "said": [*session.get("said", []), said], "big": 2**60}
    return {"type": "done", "content": f"{said} é 1.0", "data": {"id": 1e16, "session": session}, "n": [1.0, 2**60]}


async def as_json(request: Request) -> Response:
    return JSONResponse(answer_to(await request.json()), headers={"x-own": "kept"})


async def as_lines(request: Request) -> Response:
    answer = answer_to(await request.json())
    return StreamingResponse((json.dumps(event) + "\n" for event in ({"type": "delta"}, answer)), media_type="application/x-ndjson")


async def as_events(request: Request) -> Response:
    answer = answer_to(await request.json())
    texts = ("event: delta\ndata: {}\n\n", f"event: done\r\ndata: {json.dumps(answer)}\r\n\r\n", "data: [DONE]\n\n")
    return StreamingResponse(iter(texts), media_type="text/event-stream")


async def as_frames(socket: WebSocket) -> None:
    await socket.accept()
    async for body in socket.iter_json():
        await socket.send_json({"type": "delta"})
        await socket.send_json(answer_to(body))


def application() -> Starlette:
    posts = (("/json", as_json), ("/lines", as_lines), ("/events", as_events))
    return Starlette(
        routes=[*(Route(path, run, methods=["POST"]) for path, run in posts), WebSocketRoute("/socket", as_frames)],
    )


def signed(plain: Any = PATHS) -> ASGIApp:
    return mounted(application(), plain=plain, clock=lambda: NOW, randomness=bytes)


def at_the_top(said: list[str], session: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": said[-1]}], "data": {"session": session} if session else {}}


def in_the_last_message(said: list[str], session: Any) -> dict[str, Any]:
    earlier = [{"role": "assistant", "content": "x", "data": {"session": session}}] if session else []
    return {"messages": [*earlier, {"role": "user", "content": said[-1]}]}


def asked(client: TestClient, path: str, body: dict[str, Any]) -> str:
    if path != "/socket":
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.text
    with client.websocket_connect(path) as socket:
        socket.send_json(body)
        return socket.receive_text() + "\n" + socket.receive_text()


def found_in(text: str) -> Any:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if '"session"' in line]
    return json.loads(lines[-1])["data"]["session"]


def without_session(text: str) -> str:
    """The text with the value of ``data.session`` cut out of it."""
    at = re.search(r'"session":\s?', text)
    if at is None:
        return text
    _, end = json.JSONDecoder().raw_decode(text, at.end())
    return re.sub(r'"session":\s?', '"session":', text[: at.end()]) + text[end:]


def conversation(app: ASGIApp, path: str, form: Callable[[list[str], Any], Any]) -> list[str]:
    """What is answered to a client that sends back whatever it got."""
    texts: list[str] = []
    said: list[str] = []
    with TestClient(app) as client:
        for word in ("one", "two é", "clear", "three"):
            said.append(word)
            texts.append(asked(client, path, form(said, found_in(texts[-1]) if texts else None)))
    return texts


@pytest.mark.parametrize("form", [at_the_top, in_the_last_message])
@pytest.mark.parametrize("path", PATHS)
def test_its_answers_are_byte_equal_outside_the_session_and_its_state_is_the_same(path: str, form: Any) -> None:
    before, after = conversation(application(), path, form), conversation(signed(), path, form)
    assert [without_session(text) for text in after] == [without_session(text) for text in before]
    assert [opened(found_in(text)) for text in after] == [found_in(text) for text in before]
    assert after == conversation(signed(), path, form)


@pytest.mark.parametrize("path", PATHS)
def test_the_client_can_no_longer_write_its_state(path: str) -> None:
    planted = at_the_top(["x"], {"said": ["planted"]})
    with TestClient(application()) as client:
        assert "planted" in asked(client, path, planted)
    with TestClient(signed()) as client:
        refused = client.post(path, json=planted).json() if path != "/socket" else frame(client, planted)
        assert refused["code"] == "session-unsigned"


def frame(client: TestClient, body: Any) -> Any:
    with client.websocket_connect("/socket") as socket:
        socket.send_json(body)
        return socket.receive_json()


@pytest.mark.parametrize("path", PATHS)
def test_control_without_its_routes_named_the_state_of_an_application_that_knows_no_session_does_not_count(path: str) -> None:
    with TestClient(signed(plain=())) as client:
        text = asked(client, path, at_the_top(["one"], None))
    assert '"dcaf"' not in text


def test_the_comparison_sees_a_change_of_one_byte_outside_the_session() -> None:
    text = conversation(signed(), "/json", at_the_top)[0]
    assert without_session(text) != without_session(text.replace("1.0,", "1,"))
