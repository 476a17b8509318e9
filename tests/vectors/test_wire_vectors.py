"""The frozen vectors of bodies, answers and streams: what the middleware makes of each is what the document says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, Final

import pytest

from dcaf import SessionMiddleware, current_session
from dcaf.core.errors import NotCarriedError
from dcaf.core.keys import Keyring
from dcaf.core.sealer import Sealer
from tests.asgi.wire import call
from tests.vectors.make_vectors import FOLDER
from tests.vectors.make_wire_vectors import Vector, files

FROZEN: Final = {
    "bodies.json": "36d68a5b0177c25b109bc3f28da4caba6e08a3ce5a2c3fb7a590f29d5eab70ea",
    "answers.json": "80b7db8c93bfa812ef5a7aa78a77223d123e4bd056ceb0deef3ea810e90b42ef",
    "streams.json": "235795a1ddf2f21c9bfebaf83424e257e248180196115c062f6b59037b5f4b30",
}
"""SHA-256 of each file. A release may add vectors in another file; whoever changes one of these breaks every other client."""

ENVELOPE: Final = re.compile(rb'\{(?:[^{}"]|"[^"]*")*"dcaf":\{"token":"([\w.-]+)"(?:,"expires_at":\d+)?\}\}')
KINDS: Final = {"lines": "application/x-ndjson", "events": "text/event-stream"}
LEFT: Final = {"changed": {"wizard_step": 3}, "untouched": {"wizard_step": 2}}


def head(name: str) -> Any:
    return json.loads((FOLDER / name).read_bytes())


def vectors(name: str) -> list[Any]:
    """Each vector, with its name for the report."""
    return [pytest.param(vector, id=vector["name"]) for vector in head(name)["vectors"]]


def text(vector: Vector, key: str) -> bytes:
    found = vector.get(f"{key}_base64")
    return vector[key].encode() if found is None else base64.b64decode(found)


def with_token(file: Any, body: bytes) -> bytes:
    token = file["token"].encode()
    return body.replace(b"@@", token).replace(b"@", b'{"dcaf":{"token":"%b"}}' % token)


def service(file: Any, application: Any) -> SessionMiddleware:
    keys = Keyring.parse(file["keys"][0])
    return SessionMiddleware(application, keys=keys, audience=file["audience"], clock=lambda: file["now"])


def states(file: Any, sent: bytes) -> list[Any]:
    """The states of the envelopes that went out."""
    sealer = Sealer(keys=Keyring.parse(file["keys"][0]), audience=file["audience"], clock=lambda: file["now"])
    tokens = [found.decode() for found in ENVELOPE.findall(sent)]
    return [sealer.open({"dcaf": {"token": token}}, sealer.binding()).to_dict() for token in tokens]


def turn(file: Any, vector: Vector, kind: str | None, status: int, body: bytes) -> bytes:
    """What the client gets of an answer, with every envelope as ``@``."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if vector["turn"] == "changed":
            current_session().incr("wizard_step")
        headers = [] if kind is None else [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    came = b"{}" if vector["turn"] == "none" else with_token(file, b'{"data":{"session":@}}')
    sent = call(service(file, application), came).body
    assert all(state == LEFT.get(vector["turn"]) for state in states(file, sent))
    return ENVELOPE.sub(b"@", sent)


@pytest.mark.parametrize("name", FROZEN)
def test_no_byte_of_a_frozen_file_has_changed(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FROZEN[name]


def test_the_vectors_are_made_again_byte_for_byte() -> None:
    assert files() == {name: (FOLDER / name).read_bytes() for name in FROZEN}


@pytest.mark.parametrize("name", FROZEN)
def test_every_vector_has_a_name_of_its_own(name: str) -> None:
    names = [vector["name"] for vector in head(name)["vectors"]]
    assert len(set(names)) == len(names) >= 30


@pytest.mark.parametrize("vector", vectors("bodies.json"))
def test_a_body_is_read_or_refused_as_its_vector_says(vector: Vector) -> None:
    file, seen = head("bodies.json"), []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    encodings = [(b"content-encoding", one.encode()) for one in vector.get("content_encoding", ())]
    sent = call(service(file, application), with_token(file, text(vector, "body")), headers=encodings)
    if "code" in vector:
        assert (sent.status, sent.code, seen) == (vector["status"], vector["code"], [])
    else:
        assert seen == [text(vector, "application").replace(b"%", file["state"].encode())]


@pytest.mark.parametrize("vector", vectors("answers.json"))
def test_an_answer_carries_the_session_as_its_vector_says(vector: Vector) -> None:
    file = head("answers.json")
    arguments = (file, vector, vector["content_type"], vector["status"], vector["answer"].encode())
    if vector["client"] is None:
        with pytest.raises(NotCarriedError):
            turn(*arguments)
    else:
        assert turn(*arguments) == vector["client"].encode()


@pytest.mark.parametrize("vector", vectors("streams.json"))
def test_a_stream_carries_the_session_as_its_vector_says(vector: Vector) -> None:
    file = head("streams.json")
    assert turn(file, vector, KINDS[vector["kind"]], 200, vector["stream"].encode()) == vector["client"].encode()
