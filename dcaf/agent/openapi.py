"""The OpenAPI document of an agent's service, made from the shapes that read and write its bodies.

>>> from dcaf.agent.agent import Agent
>>> sorted(document(Agent(lambda messages: "hello"))["paths"])
['/api/chat', '/api/chat-stream', '/health']

What a reader gets wrong: a WebSocket has no place in OpenAPI. ``/api/chat-ws`` takes the request of ``/api/chat-stream`` as a
frame, and gives its events as frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from dcaf.agent.agent import Agent
from dcaf.agent.models import STOP_REASONS, Answer, Event, Turn
from dcaf.asgi.schemas import ENVELOPE, PROBLEM, REFUSED

REF: Final = "#/components/schemas/{model}"
PROBLEMS: Final[dict[str, Any]] = {"problems": {"type": "array", "items": {"type": "object"}}}
REFUSALS: Final[dict[int, str]] = REFUSED | {
    500: "The agent could not finish the turn.",
    502: "The model failed.",
    504: "The turn took too long.",
}


def document(agent: Agent) -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {"title": agent.name, "version": version("dcaf")},
        "paths": {
            "/api/chat": {"post": _turn("Answer in one piece.", {"application/json": {"schema": _ref("Answer")}})},
            "/api/chat-stream": {"post": _turn("Answer as it comes.", {"application/x-ndjson": {"itemSchema": _ref("Event")}})},
            "/health": {"get": {"summary": "Whether the service runs.", "responses": {"200": {"description": "It does."}}}},
        },
        "components": {"schemas": _schemas()},
    }


def _turn(summary: str, answer: dict[str, Any]) -> dict[str, Any]:
    refused = {"application/problem+json": {"schema": _ref("Problem")}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Turn")}}},
        "responses": {
            "200": {"description": "The answer.", "content": answer},
            **{str(status): {"description": text, "content": refused} for status, text in sorted(REFUSALS.items())},
        },
    }


@cache
def _schemas() -> dict[str, Any]:
    """The schemas of all shapes, made once; the session is what it is on the wire."""
    _, made = models_json_schema([(Turn, "validation"), (Answer, "validation")], ref_template=REF)
    events = TypeAdapter(Event).json_schema(ref_template=REF)
    problem = {**PROBLEM, "properties": PROBLEM["properties"] | PROBLEMS}
    schemas = {**made["$defs"], **events.pop("$defs"), "Event": events, "Session": ENVELOPE, "Problem": problem}
    schemas["Data"]["properties"]["session"] = _or_null("Session")
    schemas["Turn"]["properties"]["data"] = {
        "anyOf": [{"type": "object", "properties": {"session": _or_null("Session")}}, {"type": "null"}],
        "default": None,
    }
    for shape in ("MetaData", "Done"):
        schemas[shape]["properties"]["stop_reason"] |= {"description": _listed(STOP_REASONS), "examples": [*STOP_REASONS]}
    schemas["Done"]["properties"]["data"] = {"type": "object", "properties": {"session": _ref("Session")}}
    return schemas


def _listed(words: Mapping[str, str]) -> str:
    return "\n".join(f"- `{word}`: {meaning}" for word, meaning in words.items())


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": REF.format(model=name)}


def _or_null(name: str) -> dict[str, Any]:
    return {"anyOf": [_ref(name), {"type": "null"}]}
