"""P14: the answer to an invalid session is the same bytes, whatever the cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeAlias

import orjson
import pytest
from starlette.responses import Response

from dcaf.asgi import SessionMiddleware
from dcaf.asgi.operator_events import Event
from dcaf.asgi.problems import build_body, build_problem
from dcaf.core.errors import SessionError
from dcaf.testing import sealed
from tests.asgi.wire import RING, call
from tests.vectors.test_vectors import ring, vectors

Answer: TypeAlias = tuple[Any, tuple[tuple[bytes, bytes], ...], bytes]
Vector: TypeAlias = dict[str, Any]

LEAST: Final = 25
REASONS: Final = {"ascii", "shape", "suite", "kid", "claims", "aud", "sub", "cid", "iat", "subject", "conversation"}
OWN: Final = {"dcaf1s": {"mac"}, "dcaf1e": {"tag", "base64"}}
PATHS: Final = ("/api/chat", "/", "/api/ada")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Never reached by an invalid session."""
    raise AssertionError


def causes(suite: str) -> list[Vector]:
    """The frozen vectors of one suite that are ``session-invalid``."""
    found = [vector for vector in vectors("refused.json") if vector["code"] == "session-invalid" and "token" in vector]
    return [vector for vector in found if vector["name"].startswith(suite)]


def service(vector: Vector, events: list[Event]) -> SessionMiddleware:
    """The service of a vector, mounted."""
    return SessionMiddleware(
        application,
        keys=ring(vector),
        audience=vector["audience"],
        subject=lambda _: vector["subject"],
        conversation=lambda _scope, _body: vector["conversation"],
        encrypt=vector["suites"][0] == "dcaf1e",
        accept_both=len(vector["suites"]) > 1,
        idle_timeout=timedelta(seconds=vector["idle"]),
        absolute_timeout=timedelta(seconds=vector["absolute"]),
        version=vector["version"],
        clock=lambda: vector["now"],
        on_event=events.append,
    )


def ask(mounted: SessionMiddleware, session: Any, path: str = "/api/chat") -> Answer:
    """The whole answer: status, headers in order, body."""
    sent = call(mounted, {"data": {"session": session}}, path=path)
    return sent.status, tuple((bytes(name), bytes(value)) for name, value in sent.start["headers"]), sent.body


RESOLVERS: Final[list[Any]] = [lambda *_: "", lambda *_: 7, lambda *_: b"ada", lambda *_: "\ud800", lambda *_: ["ada"]]


def answers(suite: str, events: list[Event]) -> dict[str, Answer]:
    """Cause -> answer."""
    found = {}
    for at, vector in enumerate(causes(suite)):
        found[vector["name"]] = ask(service(vector, events), {"dcaf": {"token": vector["token"]}}, PATHS[at % len(PATHS)])
    good = sealed({"step": 2}, keys=RING, audience="shop", encrypt=suite == "dcaf1e")
    options: dict[str, Any] = {"keys": RING, "audience": "shop", "encrypt": suite == "dcaf1e", "on_event": events.append}
    for at, resolver in enumerate(RESOLVERS):
        for name in ("subject", "conversation"):
            found[f"{name}= {at}"] = ask(SessionMiddleware(application, **options, **{name: resolver}), good)
    return found


@pytest.mark.promise(14)
@pytest.mark.parametrize("suite", ["dcaf1s", "dcaf1e"])
def test_an_invalid_session_is_answered_with_the_same_bytes_whatever_the_cause(
    suite: str, measured: Callable[[int, str], None]
) -> None:
    events: list[Event] = []
    found = answers(suite, events)
    assert {event.reason for event in events} == REASONS | OWN[suite]
    assert len(found) >= LEAST
    measured(14, f"{len(set(found.values()))} answer to {len(found)} causes, {suite}")
    assert len(set(found.values())) == 1


@pytest.mark.promise(14)
def test_the_two_suites_answer_with_the_same_bytes() -> None:
    both = {answer for suite in ("dcaf1s", "dcaf1e") for answer in answers(suite, []).values()}
    ((status, headers, body),) = both
    assert status == 400
    assert dict(headers) == {
        b"cache-control": b"no-store",
        b"content-type": b"application/problem+json",
        b"content-length": str(len(body)).encode(),
    }
    assert json.loads(body)["code"] == "session-invalid"
    assert json.loads(body)["data"] == {"session": {"dcaf": {"token": "new"}}}


@pytest.mark.promise(14)
def test_an_answer_that_names_the_reason_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def telling(refusal: SessionError, *, http_version: str = "1.1") -> Response:
        headers = {"Cache-Control": "no-store"}
        body = orjson.dumps({**build_body(refusal), "reason": refusal.reason})
        return Response(body, refusal.http_status, headers, "application/problem+json")

    monkeypatch.setattr("dcaf.asgi.problems.build_problem", telling)
    assert len({answer[2] for answer in answers("dcaf1s", []).values()}) >= len(REASONS)


@pytest.mark.promise(14)
def test_an_answer_that_names_the_key_in_a_header_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def telling(refusal: SessionError, *, http_version: str = "1.1") -> Response:
        found = build_problem(refusal, http_version=http_version)
        found.headers["x-kid"] = refusal.kid or ""
        return found

    monkeypatch.setattr("dcaf.asgi.problems.build_problem", telling)
    assert len(set(answers("dcaf1e", []).values())) > 1
