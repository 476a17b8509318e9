"""The OpenAPI document of an agent's service, made from the shapes that read and write its bodies.

>>> from dcaf.agent.agent import Agent
>>> sorted(document(Agent(lambda messages: "hello"))["paths"])
['/api/chat', '/api/chat-stream', '/health']

What a reader gets wrong: a WebSocket has no place in OpenAPI. ``/api/chat-ws`` takes the request of ``/api/chat-stream`` as a
frame, and gives its events as frames.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from dcaf.agent.agent import Agent
from dcaf.agent.helpdesk import Answer, Event, Turn

REF: Final = "#/components/schemas/{model}"
SESSION: Final[dict[str, Any]] = {
    "type": "object",
    "description": (
        "The session. The client keeps the object and sends it back as it is; only dcaf.token counts. The other members show the "
        'state. {"dcaf": {"token": "new"}} asks for a fresh start.'
    ),
    "properties": {
        "dcaf": {
            "type": "object",
            "properties": {
                "token": {"type": "string"},
                "expires_at": {"type": "integer", "description": "Seconds since the epoch."},
            },
            "required": ["token"],
        }
    },
    "required": ["dcaf"],
    "additionalProperties": True,
}
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Problem details (RFC 9457). A new session in data replaces the client's.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "problems": {"type": "array", "items": {"type": "object"}},
        "data": {"type": "object", "properties": {"session": {"$ref": "#/components/schemas/Session"}}},
    },
    "required": ["title", "status", "detail", "code"],
}
REFUSALS: Final = {
    "400": "The body, or the session in it, is refused.",
    "409": "The session has ended, or has moved on.",
    "413": "The body or the session is too large.",
    "415": "The body is compressed.",
    "500": "The agent could not finish the turn.",
    "502": "The model failed.",
    "503": "The session cannot be checked right now.",
    "504": "The turn took too long.",
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
            **{status: {"description": text, "content": refused} for status, text in REFUSALS.items()},
        },
    }


def _schemas() -> dict[str, Any]:
    """The schemas of all shapes; the session is what it is on the wire."""
    _, made = models_json_schema([(Turn, "validation"), (Answer, "validation")], ref_template=REF)
    events = TypeAdapter(Event).json_schema(ref_template=REF)
    schemas = {**made["$defs"], **events.pop("$defs"), "Event": events, "Session": SESSION, "Problem": PROBLEM}
    schemas["Data"]["properties"]["session"] = _or_null("Session")
    schemas["Turn"]["properties"]["data"] = {
        "anyOf": [{"type": "object", "properties": {"session": _or_null("Session")}}, {"type": "null"}],
        "default": None,
    }
    schemas["Done"]["properties"]["data"] = {"type": "object", "properties": {"session": _ref("Session")}}
    return schemas


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": REF.format(model=name)}


def _or_null(name: str) -> dict[str, Any]:
    return {"anyOf": [_ref(name), {"type": "null"}]}
