"""The frozen vectors of the claims ``ep`` and ``at``: dcaf, the middleware and a second opener agree on every one."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, Final

import pytest

from dcaf import SessionMiddleware
from dcaf.core.claims import Claims
from tests.asgi.wire import Recorder, call
from tests.vectors import make_claim_vectors
from tests.vectors.make_vectors import FOLDER, NOW
from tests.vectors.test_vectors import Vector, expected, opened, opened_by_node, ring, vectors

NAME: Final = "claims.json"
FROZEN: Final = "ea479240fe1b2ed0adc5c0179d5c848a290ec9f706de0daa58cdc22facc196ac"
"""SHA-256 of the file. A release may add vectors in another file; whoever changes this one breaks every other client."""


def test_no_byte_of_the_frozen_file_has_changed() -> None:
    assert hashlib.sha256((FOLDER / NAME).read_bytes()).hexdigest() == FROZEN


def test_the_vectors_are_made_again_byte_for_byte() -> None:
    assert make_claim_vectors.files() == {NAME: (FOLDER / NAME).read_bytes()}


def test_every_vector_has_a_name_of_its_own() -> None:
    names = [vector["name"] for vector in vectors(NAME)]
    assert len(set(names)) == len(names) >= 80


def test_dcaf_opens_and_refuses_what_the_vectors_say() -> None:
    tokens = [vector for vector in vectors(NAME) if "store" not in vector]
    assert len(tokens) >= 60
    for vector in tokens:
        assert opened(vector) == expected(vector)


@pytest.mark.parametrize("vector", [vector for vector in vectors(NAME) if "store" in vector], ids=lambda vector: vector["name"])
def test_a_service_that_keeps_nothing_says_what_the_vectors_say(vector: Vector) -> None:
    app = Recorder()
    sent = call(service(vector, app), {"data": {"session": {"dcaf": {"token": vector["token"]}}}})
    assert (sent.code, app.reached) == (vector["code"], False)
    assert (sent.json.get("data") is None) is (vector["code"] == "session-unavailable")


def service(vector: Vector, app: Any) -> SessionMiddleware:
    return SessionMiddleware(
        app,
        keys=ring(vector),
        audience=vector["audience"],
        subject=lambda _: vector["subject"],
        encrypt=vector["suites"] == ["dcaf1e"],
        idle_timeout=timedelta(seconds=vector["idle"]),
        absolute_timeout=timedelta(seconds=vector["absolute"]),
        version=vector["version"],
        clock=lambda: NOW,
    )


def test_an_opener_in_another_language_opens_and_refuses_what_the_vectors_say(node: str) -> None:
    assert opened_by_node(node, NAME) == [expected(vector) for vector in vectors(NAME)]


def test_what_is_written_is_what_the_vectors_have() -> None:
    written = [vector["claims"] for vector in vectors(NAME) if "claims" in vector]
    same = [text for text in written if Claims.read(text.encode()).write().decode() == text]
    assert len(written) - len(same) == 8  # by each suite: another order, a claim that stands there twice, white space, and -0


def test_a_reader_that_takes_any_place_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.core.claims._is_place", lambda _: True)
    tokens = [vector for vector in vectors(NAME) if "store" not in vector]
    caught = [vector for vector in tokens if opened(vector) != expected(vector)]
    assert len(caught) >= 20
    assert all("place" in vector["name"] for vector in caught)
