"""With the clock and the randomness fixed, no framework leaves a trace in an envelope."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCalls, FunctionModel

from dcaf.agent import Agent
from dcaf.demo.model import answer, answer_in_pieces
from dcaf.demo.tools import TOOLS
from dcaf.testing import serving
from tests.frameworks.programs import FRAMEWORKS, program
from tests.frameworks.service import Service
from tests.frameworks.talk import WIRES, Talk

NOW = 1_800_000_000


def numbered(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """The scripted model, whose calls have an id that depends on nothing but the place."""
    response = answer(messages, info)
    for part in response.parts:
        if isinstance(part, ToolCallPart):
            part.tool_call_id = f"call-{len(messages)}"
    return response


async def numbered_in_pieces(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    async for piece in answer_in_pieces(messages, info):
        if isinstance(piece, dict):
            for call in piece.values():
                call.tool_call_id = f"call-{len(messages)}"
        yield piece


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agent itself draws is fixed too: when a call was proposed, and what its use is known by."""
    for framework in FRAMEWORKS:
        model = FunctionModel(numbered, stream_function=numbered_in_pieces)
        monkeypatch.setattr(program(framework), "agent", Agent(model, tools=TOOLS, clock=lambda: NOW))
    monkeypatch.setattr("secrets.token_bytes", bytes)


def envelopes(framework: str, wire: str, *, clock: Any = lambda: NOW) -> list[bytes]:
    """The envelope of each turn, as the bytes that went out."""
    service = Service(framework)
    service.mount(clock=clock, randomness=bytes)
    found = []
    with serving(service) as url, Talk(url, wire) as talk:
        for said in ("add 2 widget", "service api", "3 replicas"):
            talk.say(said)
            found.append(last_session(service))
        asked = talk.say("execute")
        found.append(last_session(service))
        assert talk.approve(asked).text == "Deployed api with 3 replicas."
        return [*found, last_session(service)]


def last_session(service: Service) -> bytes:
    """The text of the last session in what was sent since it was asked last."""
    text = b"".join(service.sent).decode()
    service.sent.clear()
    begin = text.rindex('"session":{') + len('"session":')
    _, end = json.JSONDecoder().raw_decode(text, begin)
    return text[begin:end].encode()


@pytest.mark.usefixtures("fixed")
def test_the_envelopes_of_four_frameworks_on_four_wires_are_the_same_bytes() -> None:
    found = {(framework, wire): envelopes(framework, wire) for framework, wire in product(FRAMEWORKS, WIRES)}
    one = found["starlette", "json"]
    assert len(set(one)) == 5, "every turn has another one"
    # On a stream the used approval goes out before the tool's answer does, so that the turn of the approval has one envelope more.
    streamed = [*one[:-1], found["starlette", "ndjson"][-1]]
    assert streamed[-1] != one[-1]
    assert [cell for cell, those in found.items() if those != (one if cell[1] == "json" else streamed)] == []


@pytest.mark.usefixtures("fixed")
def test_control_a_clock_that_goes_makes_other_bytes() -> None:
    assert envelopes("quart", "json") != envelopes("quart", "json", clock=lambda: NOW + 1)
