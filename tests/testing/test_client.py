"""The client of ``dcaf.testing``: what it sends, and which session it keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcaf.testing import SessionClient
from tests.asgi.wire import Recorder
from tests.testing.counting import HOW, talking

ENVELOPE = {"n": 1, "dcaf": {"token": "new"}}


def talk(answer: bytes = b"{}", content_type: bytes = b"application/json", **options: Any) -> tuple[SessionClient, Recorder]:
    app = Recorder(answer, headers=((b"content-type", content_type),))
    return SessionClient(app, **options), app


def content_type_of(app: Recorder) -> Any:
    return [value for name, value in app.scopes[-1]["headers"] if name == b"content-type"]


def test_a_turn_has_the_fields_of_the_client_and_its_own_which_win() -> None:
    client, app = talk(fields={"thread_id": "t-1", "model": "a"}, envelope=ENVELOPE)
    client.send("é", model="b")
    assert app.bodies[-1].decode() == (
        '{"thread_id":"t-1","model":"b","messages":[{"role":"user","content":"é"}],"data":{"session":{"n":1,"dcaf":{"token":"new"}}}}'
    )


def test_no_field_takes_the_place_of_the_session() -> None:
    client, app = talk(fields={"data": 1})
    client.send("x", data={"session": {"planted": 1}})
    assert app.bodies[-1].count(b'"data"') == 1
    assert json.loads(app.bodies[-1])["data"] == {"session": None}


def test_a_session_is_written_as_the_client_echoes_it() -> None:
    client, app = talk(envelope=ENVELOPE, echo=lambda envelope: json.dumps(envelope, indent=1).encode())
    client.send("x")
    assert b'{\n "n": 1,' in app.bodies[-1]


def test_bytes_are_posted_as_they_are_and_count_as_json() -> None:
    client, app = talk()
    reply = client.post(b'{ "n" :1}')
    assert (app.bodies[-1], reply.sent_bytes, content_type_of(app)) == (b'{ "n" :1}', 9, [b"application/json"])


def test_a_content_type_of_the_users_own_is_kept() -> None:
    client, app = talk(headers={"Content-Type": "application/vnd.x+json"})
    client.send("x")
    assert content_type_of(app) == [b"application/vnd.x+json"]


@pytest.mark.parametrize(
    ("content_type", "answer"),
    [
        (b"application/json", b'{"data":{"session":{"n":2}}}'),
        (b"application/problem+json", b'{"data":{"session":{"n":2}},"code":"session-invalid"}'),
        (b"application/x-ndjson", b'{"data":{"session":{"n":9}}}\n{"data":{"session":{"n":2}}}'),
        (b"text/event-stream", b'data: {"data":{"session":{"n":2}}}\n\ndata: [DONE]\n\n'),
    ],
)
def test_the_session_of_any_answer_is_kept(content_type: bytes, answer: bytes) -> None:
    client, _ = talk(answer, content_type)
    reply = client.send("x")
    assert (client.envelope, reply.envelope, reply.session, reply.content) == ({"n": 2}, {"n": 2}, {"n": 2}, answer)


@pytest.mark.parametrize("content_type", [b"text/plain", b"application/x-ndjson", b"application/json"])
def test_an_answer_without_a_session_leaves_the_one_of_before(content_type: bytes) -> None:
    client, _ = talk(b"{}", content_type, envelope=ENVELOPE)
    assert client.send("x").envelope is None
    assert client.envelope == ENVELOPE


@pytest.mark.parametrize("how", HOW)
def test_an_answer_that_the_application_does_not_end_is_what_has_come(how: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/nothing":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        if scope["path"] == "/half":
            await send({"type": "http.response.body", "body": b"half", "more_body": True})

    with talking(how, app, path="/half") as talk:
        assert talk.send("x").content == b"half"
    with talking(how, app, path="/empty") as talk:
        assert (talk.send("x").status, talk.send("x").content) == (200, b"")
    with talking(how, app, path="/nothing") as talk, pytest.raises(AssertionError, match="sent no answer"):
        talk.send("x")
    with talking(how, app, path="/nothing", raise_server_exceptions=False) as talk:
        assert talk.send("x").status == 500


@pytest.mark.parametrize(("how", "status"), [("sync", 200), ("async", 307)])
def test_a_redirect_in_process_is_followed_by_the_sync_client(how: str, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        code, headers = (200, []) if scope["path"] == "/there" else (307, [(b"location", b"/there")])
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    with talking(how, app) as talk:
        assert talk.send("x").status == status
