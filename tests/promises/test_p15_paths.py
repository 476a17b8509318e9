"""P15: no part of a path that names a user is in a log line, an event, an error, a problem or a span, under any framework."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dcaf import DcafError, Key, Keyring, SessionMiddleware
from dcaf.asgi import lifecycle
from dcaf.asgi.operator_events import Event
from dcaf.testing import sealed, tampered
from tests.promises.path_apps import ACTIONS, FRAMEWORKS, NAMED
from tests.promises.test_p15_canaries import WORD, Listener, Said

RING = Keyring(Key.generate("k7"))
CARRIERS: tuple[tuple[str, ...], ...] = (("body",), ("body", "cookie"), ("header",), ("cookie",))
WAIT_S = 5.0


def fails(_: Any) -> str:
    raise LookupError("nobody can tell")


SETTINGS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "subject= raises": {"subject": fails},
    "on_event= raises": {"on_event": fails},
    "streams pass": {"pass_streams": lambda scope: True},
    "sessions are ignored": {"unsigned": "ignore", "on_refused": "restart"},
}


@contextmanager
def heard(said: Said) -> Iterator[list[str]]:
    """Everything that the logger of dcaf is told; the frameworks' own say the path, which is their affair."""
    logger, listener = logging.getLogger("dcaf"), Listener(said)
    before = logger.level, logger.propagate
    lines: list[str] = []
    listener.addFilter(lambda record: lines.append(record.getMessage()) or True)  # type: ignore[func-returns-value]
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class Visitor:
    """Asks services for paths that name a user, and hears what is said about it.

    Args:
        framework: Under which the application runs.
        carriers: Of the middleware.
        settings: Further ones.
    """

    def __init__(self, framework: str, carriers: tuple[str, ...], settings: dict[str, Any]) -> None:
        self.said = Said(Key.generate("other"))
        self.events: list[Event] = []
        self.spans = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self.spans))
        usual: dict[str, Any] = {"keys": RING, "audience": "shop", "carriers": carriers, "on_event": self._event}
        self.service = SessionMiddleware(FRAMEWORKS[framework](), **{**usual, **settings})

    def _event(self, event: Event) -> None:
        self.events.append(event)
        self.said.add(event, repr(event))

    async def ask(self, path: str, session: Any = None) -> None:
        """One request, with its path in the query and a header too."""
        scope = self._scope("http", path) | {"method": "POST"}
        body = json.dumps({"messages": [], "data": {"session": session}}).encode()
        pending: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []
        gone = asyncio.Event()

        async def receive() -> Any:
            if pending:
                return pending.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                gone.set()  # Litestar waits for it

        await self._served(scope, receive, send)
        if sent and sent[0]["status"] >= 400 and b"problem+json" in repr(sent[0]).encode():
            self.said.add(sent)

    async def talk(self, path: str, *frames: str) -> None:
        """One connection: a frame after the other, each when the one before was answered, and then it is gone."""
        pending: asyncio.Queue[Any] = asyncio.Queue()
        pending.put_nowait({"type": "websocket.connect"})
        waiting = [*frames]

        async def send(message: Any) -> None:
            following = {"type": "websocket.receive", "text": waiting.pop(0)} if waiting else None
            pending.put_nowait(following or {"type": "websocket.disconnect", "code": 1000})
            if message["type"] == "websocket.send" and "error" in message.get("text", ""):
                self.said.add(message)

        await self._served(self._scope("websocket", path), pending.get, send)

    def _scope(self, kind: str, path: str) -> dict[str, Any]:
        scope: dict[str, Any] = {"type": kind, "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1"}
        headers = [(b"host", b"shop.test"), (b"content-type", b"application/json"), (b"referer", path.encode())]
        address = {"path": path, "raw_path": path.encode(), "root_path": "", "query_string": f"name={WORD}".encode()}
        server = {"scheme": "ws" if kind == "websocket" else "http", "server": ("shop.test", 80), "client": (WORD, 1)}
        return scope | address | server | {"headers": headers, "state": {}, "subprotocols": []}

    async def _served(self, scope: Any, receive: Any, send: Any) -> None:
        with self._provider.get_tracer("server").start_as_current_span("request"):
            try:
                await asyncio.wait_for(self.service(scope, receive, send), WAIT_S)
            except DcafError as error:
                self.said.add(str(error), repr(error), error.args, vars(error))
            except Exception:  # noqa: BLE001 - the application's own, and what a framework says of a client that has gone
                self.said.add("")

    def told(self) -> list[str]:
        """What was said, spans too, that must not have been."""
        for span in self.spans.get_finished_spans():
            self.said.add([(event.name, dict(event.attributes or {})) for event in span.events], dict(span.attributes or {}))
        return self.said.leaks


async def visited(visitor: Visitor) -> None:
    """Everything that can be said about a request, for one user and then for another."""
    good = sealed({"n": 1}, keys=RING, audience="shop")
    for _ in range(2):
        user = f"/users/{WORD}-{secrets.token_hex(3)}@example.org"
        for action in ACTIONS:
            await visitor.ask(f"{user}/{action}")
        for session in (good, tampered(good), {"plain": 1}, 7, {"dcaf": {"token": "tmp.x"}}):
            await visitor.ask(f"{user}/own", session)
            await visitor.ask(f"{user}/text", session)
        await visitor.ask(f"/nothing/{WORD}")
        await visitor.ask(f"{user}/{WORD}/{WORD}")
        for frames in (["{}"], ["{}", "{}"], ['{"data":{"session":{"plain":1}}}', "{bad", "{}"]):
            await visitor.talk(user, *frames)
            await visitor.talk(f"{user}/", *frames)


def visits(framework: str, carriers: tuple[str, ...] = ("body",), **settings: Any) -> tuple[Visitor, list[str], list[str]]:
    """Who visited, the log, and what leaked."""
    visitor = Visitor(framework, carriers, settings)
    with heard(visitor.said) as lines:
        asyncio.run(visited(visitor))
    return visitor, lines, visitor.told()


@pytest.mark.promise(15)
def test_no_path_is_said_to_anybody(scale: float, measured: Callable[[int, str], None]) -> None:
    texts, leaks = 0, list[str]()
    for framework in FRAMEWORKS:
        said = 0
        for carriers in CARRIERS if scale == 1 else CARRIERS[:2]:
            for settings in SETTINGS.values():
                visitor, _, found = visits(framework, carriers, **settings)
                said, leaks = said + len(visitor.said.texts), leaks + found
        assert said > 500, framework
        texts += said
    assert leaks == []
    measured(15, f"{len(leaks)} of {texts:,} texts under {len(FRAMEWORKS)} kinds of applications had a part of a path")


@pytest.mark.promise(15)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_told_once_a_route_is_told_once_however_many_users_there_are(framework: str) -> None:
    visitor, lines, _ = visits(framework)
    routes = {event.route for event in visitor.events if event.name == "overwritten"}
    own = NAMED.get(framework, "an unnamed route")
    assert own in routes
    assert routes <= {own, "an unnamed route", "/users/{name}", "/"}
    assert len([line for line in lines if "overwritten" in line]) == len(routes)
    assert "lost" in {event.name for event in visitor.events}
    if framework != "Litestar":  # it answers 500 to what an application's send raises, and keeps the error to itself
        assert any("changed the session, and its answer" in text for text in visitor.said.texts)


@pytest.mark.promise(15)
@pytest.mark.parametrize("framework", ["no framework", "Quart"])
def test_control_the_path_that_was_asked_for_in_place_of_a_name_is_caught(framework: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(lifecycle, "name_route", lambda scope: scope["path"])
    with suppress(Exception):
        visits(framework)
    assert visits(framework)[2]
