"""What OpenTelemetry is told: every turn once, sizes and key ids, and nothing of what a session holds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dcaf import Key, Keyring, SessionMiddleware, current_session
from dcaf.testing import SessionClient, tampered
from tests.stores_for_tests import MemoryLedger

RING: Final = Keyring(Key.generate("k7"))
CANARY: Final = "canary-7f3a"


async def store(_: Request) -> JSONResponse:
    current_session()["secret"] = CANARY
    return JSONResponse({"content": "ok"})


async def stream(_: Request) -> StreamingResponse:
    async def lines() -> Any:
        current_session()["secret"] = CANARY
        yield b'{"type":"text_delta","text":"ok"}\n{"type":"done"}\n'

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    async for _ in socket.iter_text():
        current_session()["secret"] = CANARY
        await socket.send_json({"type": "done"})


ROUTES: Final = [
    Route("/api/chat", store, methods=["POST"]),
    Route("/api/chat-stream", stream, methods=["POST"]),
    WebSocketRoute("/api/chat-ws", talk),
]


class Watched:
    """A service whose requests run in a span, and what was seen of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider(metric_readers=[self._reader])
        monkeypatch.setattr(metrics, "get_meter", meters.get_meter)
        self._tracer = provider.get_tracer("test")
        self._inner = SessionMiddleware(Starlette(routes=ROUTES), keys=RING, audience="shop", **settings)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As an instrumentation of ASGI does."""
        with self._tracer.start_as_current_span("request"):
            await self._inner(scope, receive, send)

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(event.name, dict(event.attributes or {})) for span in self.spans.get_finished_spans() for event in span.events]

    def counts(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        found = self._reader.get_metrics_data()
        assert found is not None
        all_metrics = [metric for one in found.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]
        return {metric.name: [(dict(point.attributes or {}), point) for point in metric.data.data_points] for metric in all_metrics}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.mark.parametrize("wire", ["json", "ndjson", "websocket"])
def test_a_turn_is_told_once_with_its_sizes_and_its_key(watched: Watched, wire: Any) -> None:
    with SessionClient(watched, wire=wire) as client:
        client.send("one")
        client.send("two")
    opened = [facts for name, facts in watched.events() if name == "dcaf.session.opened"]
    sealed = [facts for name, facts in watched.events() if name == "dcaf.session.sealed"]
    assert [(facts["dcaf.kind"], facts["dcaf.kid"], facts["dcaf.level"]) for facts in opened] == [
        ("new", "", "L0"),
        ("continued", "k7", "L0"),
    ]
    assert all(facts["dcaf.request_bytes"] > 20 for facts in opened)
    assert opened[1]["dcaf.request_bytes"] > opened[0]["dcaf.request_bytes"]
    assert len(sealed) == 2
    assert all(facts["dcaf.kid"] == "k7" and facts["dcaf.answer_bytes"] > 200 for facts in sealed)


def test_a_refusal_is_told_with_its_code(watched: Watched) -> None:
    with SessionClient(watched) as client:
        client.send("one")
        assert client.envelope is not None
        client.envelope = tampered(client.envelope)
        client.send("two")
    assert [(name, facts.get("dcaf.code"), facts.get("dcaf.reason")) for name, facts in watched.events()][-1] == (
        "dcaf.session.refused",
        "session-invalid",
        "mac",
    )
    (point,) = watched.counts()["dcaf.session.events"]
    assert point[0] == {"dcaf.event": "refused", "dcaf.code": "session-invalid", "dcaf.level": "L0"}
    assert point[1].value == 1


def test_counters_count_turns_and_bytes(watched: Watched) -> None:
    with SessionClient(watched) as client:
        for _ in range(3):
            client.send("go")
    counts = watched.counts()
    opened = {facts["dcaf.kind"]: point.value for facts, point in counts["dcaf.session.opened"]}
    assert opened == {"new": 1, "continued": 2}
    ((_, sealed),) = counts["dcaf.session.sealed"]
    assert sealed.count == 3
    assert sealed.sum == sum(facts["dcaf.answer_bytes"] for name, facts in watched.events() if name == "dcaf.session.sealed")


def test_nothing_of_a_state_a_token_or_a_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, subject=lambda _: "subject-91c2")
    with SessionClient(watched) as client:
        client.send("said-44d1")
        assert client.envelope is not None
        token = client.envelope["dcaf"]["token"]
        client.send("again")
        client.envelope = tampered(client.envelope)
        client.send("again")
    told = json.dumps([watched.events(), str(watched.counts())], default=str)
    for canary in (CANARY, "subject-91c2", "said-44d1", token, token.split(".")[2]):
        assert canary not in told
    assert "k7" in told, "control: what may be told is there"


def test_a_store_says_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, store=MemoryLedger())
    with SessionClient(watched) as client:
        client.send("go")
    assert {facts["dcaf.level"] for _, facts in watched.events()} == {"L2"}


def test_without_a_span_nothing_happens_and_the_turn_is_served() -> None:
    assert not trace.get_current_span().is_recording()
    app = SessionMiddleware(Starlette(routes=ROUTES), keys=RING, audience="shop")
    with SessionClient(app) as client:
        assert client.send("go").session == {"secret": CANARY}


OFF: Final = """
import sys
sys.modules["opentelemetry"] = None
from dcaf import Keyring, SessionMiddleware
app = SessionMiddleware(lambda *_: None, keys=Keyring.ephemeral(), audience="x")
assert app._config.events.watcher is None
print("served")
"""
LATE: Final = "import sys, dcaf; print('opentelemetry' in sys.modules)"


def test_without_its_api_it_is_off_and_importing_dcaf_does_not_load_it() -> None:
    off = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=True)
    late = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert (off.stdout, late.stdout) == ("served\n", "False\n")
