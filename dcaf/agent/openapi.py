"""The OpenAPI document of an agent's service, made from the shapes that read and write its bodies.

>>> sorted(build_openapi(Agent(lambda messages: "Hello."))["paths"])
['/api/chat', '/api/chat-stream', '/health']

What a reader gets wrong: a WebSocket has no place in it. ``/api/chat-ws`` takes the request of ``/api/chat-stream`` as a frame, and
gives its events as frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from dcaf.agent.agent import Agent
from dcaf.agent.helpdesk import STOP_REASONS, Answer, Event, Turn
from dcaf.agent.kept_conversation import SERVER, HistoryMode
from dcaf.asgi.problems import ENVELOPE, PROBLEM, REFUSED

HISTORY_PATH: Final = "/api/history"
REF: Final = "#/components/schemas/{model}"
PROBLEMS: Final[dict[str, Any]] = {"problems": {"type": "array", "items": {"type": "object"}}}
REFUSALS: Final[dict[int, str]] = REFUSED | {
    500: "The agent could not finish the turn.",
    502: "The model failed.",
    504: "The turn took too long.",
}


def build_openapi(agent: Agent, history: HistoryMode = "client") -> dict[str, Any]:
    """The document of a service, OpenAPI 3.1, made from the shapes that read and write its bodies."""
    lines = {"application/x-ndjson": {"itemSchema": _ref("Event")}}
    return {
        "openapi": "3.1.0",
        "info": {"title": agent.name, "version": version("dcaf")},
        "paths": {
            "/api/chat": {"post": _build_operation("Answer in one piece.", {"application/json": {"schema": _ref("Answer")}})},
            "/api/chat-stream": {"post": _build_operation("Answer as it comes.", lines)},
            **(_build_recalling() if history == SERVER else {}),
            "/health": {"get": {"summary": "Whether the service runs.", "responses": {"200": {"description": "It does."}}}},
        },
        "components": {"schemas": _build_schemas()},
    }


def _build_recalling() -> dict[str, Any]:
    """The path that tells the conversation of a session, which a body has as a turn has it."""
    session = {"type": "object", "properties": {"session": _or_null("Session")}}
    asked = {"type": "object", "properties": {"data": session}}
    said = {"type": "array", "items": _ref("Message"), "description": "The newest ones, oldest first."}
    memory = {"type": "object", "description": "What the user remembers, where the page shows it."}
    answer = {"type": "object", "properties": {"messages": said, "memory": memory, "data": session}, "required": ["messages"]}
    operation = _build_operation("Tell what was said so far.", {"application/json": {"schema": answer}}, asked)
    return {HISTORY_PATH: {"post": operation}}


def _build_operation(summary: str, answer: dict[str, Any], asked: dict[str, Any] | None = None) -> dict[str, Any]:
    refused = {"application/problem+json": {"schema": _ref("Problem")}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked or _ref("Turn")}}},
        "responses": {
            "200": {"description": "The answer.", "content": answer},
            **{str(status): {"description": text, "content": refused} for status, text in sorted(REFUSALS.items())},
        },
    }


@cache
def _build_schemas() -> dict[str, Any]:
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
    reasons = {"description": _list_words(STOP_REASONS), "examples": [*STOP_REASONS]}
    for shape in ("MetaData", "Done"):
        schemas[shape]["properties"]["stop_reason"] |= reasons
    schemas["Done"]["properties"]["data"] = {"type": "object", "properties": {"session": _ref("Session")}}
    return schemas


def _list_words(words: Mapping[str, str]) -> str:
    return "\n".join(f"- `{word}`: {meaning}" for word, meaning in words.items())


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": REF.format(model=name)}


def _or_null(name: str) -> dict[str, Any]:
    return {"anyOf": [_ref(name), {"type": "null"}]}
