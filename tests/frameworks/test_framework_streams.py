"""No framework holds an event back: the model goes on only after the client has read what it said first."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio.to_thread
import pytest
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel

from dcaf.agent import Agent
from dcaf.testing import sealed, serving
from tests.frameworks.programs import AUDIENCE, FRAMEWORKS, program
from tests.frameworks.service import RING, Service
from tests.frameworks.talk import Talk, data_of, shared

HEARD, MISSED = "heard", "nobody heard the first word"


class Patient:
    """A model that says a word, and another one when the first was heard, or when it has waited long enough."""

    def __init__(self, wait_s: float) -> None:
        self.heard = threading.Event()
        self._wait_s = wait_s

    async def answer(self, _: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
        yield "first "
        was_heard = await anyio.to_thread.run_sync(self.heard.wait, self._wait_s)
        yield HEARD if was_heard else MISSED


class Late:
    """Control: an application whose answer leaves when it is complete."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        messages: list[Any] = []

        async def keep(message: Any) -> None:
            messages.append(message)
            if not message.get("more_body", message["type"] == "http.response.start"):
                for one in messages:
                    await send(one)

        await self._app(scope, receive, keep)


def patient(framework: str, monkeypatch: pytest.MonkeyPatch, wait_s: float) -> Patient:
    model = Patient(wait_s)
    monkeypatch.setattr(program(framework), "agent", Agent(FunctionModel(stream_function=model.answer)))
    return model


def last_words(url: str, wire: str, model: Patient) -> list[str]:
    """What was said, when each piece is answered by the hearing of it."""
    envelope = sealed({"step": 1}, keys=RING, audience=AUDIENCE)
    with Talk(url, wire, session=envelope) as talk:
        said: list[str] = []
        for text in texts(talk, url):
            said.append(text)
            model.heard.set()
    return said


def texts(talk: Talk, url: str) -> Iterator[str]:
    if talk.wire == "sse":
        body = {"messages": [{"role": "user", "content": "hi"}], "data": {"session": talk.client.envelope}}
        with shared().stream("POST", f"{url}/api/chat-events", json=body) as answer:
            for chunk in answer.iter_bytes():
                yield from (word for word in ("first ", HEARD, MISSED) for data in data_of(chunk) if f'"{word}"'.encode() in data)
        return
    opened = talk.client.stream("hi") if talk.wire == "ndjson" else talk.socket.stream("hi")
    with opened as stream:
        yield from (event.text for event in stream if event.text)


@pytest.mark.parametrize("wire", ["ndjson", "sse", "websocket"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_event_is_read_before_the_next_one_is_made(framework: str, wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = patient(framework, monkeypatch, wait_s=10)
    service = Service(framework)
    service.mount()
    with serving(service) as url:
        assert last_words(url, wire, model) == ["first ", HEARD]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_control_an_answer_that_leaves_when_it_is_complete_is_noticed(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = patient(framework, monkeypatch, wait_s=0.2)
    service = Service(framework)
    service.mount()
    with serving(Late(service)) as url:
        assert last_words(url, "ndjson", model) == ["first ", MISSED]
