"""The frozen vectors of whole exchanges: requests, answers, streams, carriers, stores and sockets, each byte for byte."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any, Final

import pytest

from tests.vectors.make_all import files
from tests.vectors.make_vectors import FOLDER
from tests.vectors.play import Vector, exchange, talk, text_of

FROZEN: Final = {
    "requests.json": "6a6178c02b04d9bc49dad6a9088fccc2edbe2b5403b116e8e67004e9b93fb184",
    "responses.json": "fafb722c86cac9c68618174c36c2de5c0946bcf39a94b3c02cd39133e17df8fe",
    "events.json": "c770c528aadc609e7a72e84556ece870b5d99a530a39af751c0780acbd4dd0dd",
    "carriers.json": "6b439bb20a535f12a694a2920932a27c9832093659a3641a6165f576af85b6bb",
    "stores.json": "895b4999cad794fc8bc62bd6e675e8d8684390b722072b5af1fc833f7233ae12",
    "places.json": "d743b6f4c632ab34737ba76aa600650825601c4d908830ffdb07133e68028fcd",
    "sockets.json": "f9e17f8881da42ec9653813156586b63149c1653a142deb8ef360a9ebe0c2022",
}
"""SHA-256 of each file. A release may add vectors in another file; whoever changes one of these breaks every other client."""

EXCHANGES: Final = [name for name in FROZEN if name != "sockets.json"]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@cache
def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_bytes())


def each(*names: str) -> list[Any]:
    """Every vector of some files, with its file."""
    return [pytest.param(name, vector, id=f"{name}: {vector['name']}") for name in names for vector in read(name)["vectors"]]


def differs(name: str, vector: Vector) -> bool:
    """Whether something else comes of a vector than it says."""
    if name == "sockets.json":
        turns: list[Vector] = vector["turns"]
        return [{**turn, **came} for turn, came in zip(turns, talk(read(name), vector), strict=True)] != turns
    came = exchange(read(name), vector)
    has_read = {key.partition("_")[0] for key in vector if key.startswith("application")}
    if has_read != {key.partition("_")[0] for key in came if key.startswith("application")}:
        return True
    if has_read and text_of(came, "application") != text_of(vector, "application"):
        return True
    return any(came.get(key) != vector.get(key) for key in ("reads", "client", "sealed", "raised"))


def differing(name: str) -> set[str]:
    """The names of those."""
    return {vector["name"] for vector in read(name)["vectors"] if differs(name, vector)}


@pytest.mark.parametrize("name", FROZEN)
def test_no_byte_of_a_frozen_file_has_changed(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FROZEN[name]


def test_the_vectors_are_made_again_byte_for_byte() -> None:
    made = files()
    assert {name: made[name] for name in FROZEN} == {name: (FOLDER / name).read_bytes() for name in FROZEN}


@pytest.mark.parametrize("name", FROZEN)
def test_a_file_says_first_how_it_is_read_and_each_vector_has_a_name_of_its_own(name: str) -> None:
    assert list(read(name)) == ["about", "service", "vectors"]
    names = [vector["name"] for vector in read(name)["vectors"]]
    assert len(set(names)) == len(names) >= 8
    members = {member.partition("_")[0] for vector in read(name)["vectors"] for member in vector}
    described = json.dumps(read(name)["about"])
    assert [member for member in members - {"name"} if f"`{member}" not in described] == []


@pytest.mark.parametrize(("name", "vector"), each(*EXCHANGES))
def test_the_middleware_makes_of_an_exchange_what_its_vector_says(name: str, vector: Vector) -> None:
    assert not differs(name, vector)


@pytest.mark.parametrize(("name", "vector"), each("sockets.json"))
def test_the_middleware_makes_of_a_connection_what_its_vector_says(name: str, vector: Vector) -> None:
    assert not differs(name, vector)


def test_every_refusal_of_the_protocol_has_a_vector() -> None:
    codes = {vector["code"] for name in EXCHANGES for vector in read(name)["vectors"] if "code" in vector}
    assert codes == {
        *("session-unsigned", "session-malformed", "session-invalid", "session-ended", "session-too-large", "body-too-large"),
        *("malformed-json", "unsupported-content-encoding", "session-unavailable", "session-conflict", "session-superseded"),
        "idempotency-key-reused",
    }


def last_candidate(found: Any) -> Any:
    """Broken: the first message counts, and not the last."""
    return found.places[-1] if found.places else None


BROKEN: Final[list[tuple[str, str, Any, int]]] = [
    ("requests.json", "dcaf.asgi.json_sessions.BodySessions.find_candidate", last_candidate, 3),
    ("requests.json", "dcaf.asgi.body.SKIPPED", b" \t\n\r", 30),
    ("requests.json", "dcaf.asgi.json_sessions.JSONText.rewrite", lambda text, *_: text.data, 15),
    ("responses.json", "dcaf.core.sealer.WORN_AFTER", 1, 1),
    ("responses.json", "dcaf.core.envelope.Mirror.render", lambda *_: b"{}", 20),
    ("responses.json", "dcaf.asgi.headers.STALE", frozenset({b"content-length", b"cache-control"}), 1),
    ("responses.json", "dcaf.asgi.headers.NO_STORE", (b"cache-control", b"private"), 20),
    ("events.json", "dcaf.asgi.streams.CLOSER", b"[OVER]", 1),
    ("events.json", "dcaf.asgi.streams.build_error", lambda code: code.encode(), 3),
    ("carriers.json", "dcaf.asgi.carriers.is_foreign", lambda _: False, 2),
    ("carriers.json", "dcaf.asgi.lifecycle.ASGITurn._check_agreement", lambda *_: None, 2),
    ("carriers.json", "dcaf.asgi.carriers.COOKIE_BYTES", 200, 3),
    ("stores.json", "dcaf.core.lifecycle.check_kept", lambda *_: None, 5),
    ("places.json", "dcaf.core.lifecycle.check_kept", lambda *_: None, 1),
    ("sockets.json", "dcaf.asgi.websocket.TOO_BIG", 1000, 2),
    ("sockets.json", "dcaf.asgi.websocket.may_be_json", lambda data: False, 20),
]


@pytest.mark.parametrize(("name", "rule", "broken", "least"), BROKEN, ids=[rule for _, rule, _, _ in BROKEN])
def test_a_middleware_with_one_rule_broken_is_caught(
    name: str, rule: str, broken: Any, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, broken)
    assert len(differing(name)) >= least
