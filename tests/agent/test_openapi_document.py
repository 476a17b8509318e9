"""The OpenAPI document against the service that it describes: schemathesis makes the calls."""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from dcaf.agent import create_app
from dcaf.agent.openapi import build_openapi
from tests.agent.agents import agent_of
from tests.asgi.wire import AUDIENCE, RING, envelope, opened

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.02"))
SEED: Final = 8
GENERATED: Final = {GenerationMode.POSITIVE: max(10, int(300 * SCALE)), GenerationMode.NEGATIVE: max(6, int(120 * SCALE))}
"""Bodies; schemathesis takes half a second for one."""

CLIENTS: Final = 2
"""Clients that send a generated body with a message and a session of their own, on each of the two routes."""

PROMPTS: Final = ["call count", 'call note {"text": "x"}', 'call drop {"volume": "pg"}', "call nothing", "call boom", "hello", ""]
LEAST: Final = 0.3


def stores(request: Any) -> None:
    """Store something in each turn."""
    request.session.incr("turns")


@pytest.fixture(scope="module")
def api() -> Any:
    app = create_app(agent_of(request_interceptors=stores), keys=RING, audience=AUDIENCE)
    found = schemathesis.openapi.from_asgi("/openapi.json", app)
    found.config.analysis.constants.enabled = False  # of the modules that happen to be loaded
    return found


@dataclass
class Figures:
    """What came of the calls."""

    statuses: Counter[int] = field(default_factory=Counter)
    sealed: int = 0
    last: Any = None

    @property
    def calls(self) -> int:
        return self.statuses.total()


def sessions(figures: Figures) -> st.SearchStrategy[Any]:
    """What a client may send at `data.session`: what it got, what another made, or nothing."""
    return st.sampled_from(["none", "last", "new", "sealed"]).map(
        lambda kind: {
            "none": None,
            "last": figures.last,
            "new": {"dcaf": {"token": "new"}},
            "sealed": envelope({"n": 1}),
        }[kind]
    )


def as_client(body: Any, prompt: str, session: Any) -> Any:
    """A generated body as a client would send it: with a user's message at its end, and a real session at its top."""
    if not isinstance(body, dict):
        return body
    body = copy.deepcopy(body)
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and isinstance(message.get("data"), dict):
            message["data"].pop("session", None)
    asked = [*(messages if isinstance(messages, list) else []), {"role": "user", "content": prompt}]
    return {**body, "messages": asked, "data": {"session": session}}


def note(figures: Figures, response: Any) -> None:
    """Count an answer, and open the session in it."""
    figures.statuses[response.status_code] += 1
    if response.status_code != 200:
        return
    lines = [json.loads(line) for line in response.content.splitlines()]
    session = (lines[-1].get("data") or {}).get("session")
    if session is not None:
        assert isinstance(opened(session), dict)
        figures.sealed, figures.last = figures.sealed + 1, session


def check_events(api: Any, response: Any) -> None:
    """Each line of a stream is one of the document's events; schemathesis knows no `itemSchema` yet."""
    schema = {"$ref": "#/components/schemas/Event", "components": api.raw_schema["components"]}
    validator = jsonschema_rs.validator_for(schema)
    for line in response.content.splitlines():
        validator.validate(json.loads(line))


CHECKS: Final[list[Any]] = [status_code_conformance, content_type_conformance, response_schema_conformance]


def call(case: Any, figures: Figures, *extra: Any) -> None:
    """Make a call, and hold the answer against the document."""
    response = case.call()
    assert response.status_code < 500, response.text
    note(figures, response)
    case.validate_response(response, checks=[*CHECKS, *extra])
    if response.headers.get("content-type") == ["application/x-ndjson"]:
        check_events(case.operation.schema, response)


def called(api: Any, mode: GenerationMode, number: int, figures: Figures) -> None:
    """Call both routes with generated bodies: as they are and, where they are good, as clients would send them."""
    chat, stream = api["/api/chat"]["POST"], api["/api/chat-stream"]["POST"]
    variants = CLIENTS if mode is GenerationMode.POSITIVE else 0
    told = st.lists(st.tuples(st.sampled_from(PROMPTS), sessions(figures)), min_size=variants, max_size=variants)

    @seed(SEED)
    @settings(max_examples=number, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=chat.as_strategy(generation_mode=mode), told=told)
    def calls(case: Any, told: Any) -> None:
        call(case, figures, negative_data_rejection)
        call(stream.Case(body=case.body, media_type="application/json"), figures)
        for operation in (chat, stream):
            for prompt, session in told:
                body = as_client(case.body, prompt, session)
                call(operation.Case(body=body, media_type="application/json"), figures)

    calls()


@pytest.mark.filterwarnings("ignore")  # of schemathesis and its client
def test_the_service_does_what_its_document_says(api: Any, capsys: Any) -> None:
    random.seed(SEED)
    figures = Figures()
    call(api["/health"]["GET"].Case(), figures)
    for mode, number in GENERATED.items():
        called(api, mode, number, figures)
    share = figures.sealed / figures.calls
    with capsys.disabled():
        print(f"\nschemathesis: {figures.calls} calls, {dict(sorted(figures.statuses.items()))}, ", end="")
        print(f"{figures.sealed} ({share:.0%}) answered 2xx with a sealed session")
    assert share >= LEAST
    assert figures.calls >= sum(GENERATED.values())


def test_the_document_names_every_shape_once_and_refers_to_none_that_is_missing() -> None:
    found = build_openapi(agent_of(name="shop"))
    assert found["info"]["title"] == "shop"
    schemas = found["components"]["schemas"]
    refs = set(_refs(found))
    assert refs <= {f"#/components/schemas/{name}" for name in schemas}
    assert set(found["paths"]) == {"/api/chat", "/api/chat-stream", "/health"}
    json.dumps(found)


def test_the_document_is_open_api_3_1() -> None:
    jsonschema_rs.meta.validate({"$defs": build_openapi(agent_of())["components"]["schemas"]})


def _refs(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)
