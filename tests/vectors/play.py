"""Plays one vector of a whole exchange through the real middleware, and says what came of it.

The clock and the session ids are the vector's own, so the same exchange is the same bytes each time. A text of a vector is UTF-8;
bytes that are none stand in a member of that name with ``_base64`` after it, and what repeats itself in one with ``_parts``.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from dcaf import SessionMiddleware, current_session
from dcaf.asgi import checkpoint
from dcaf.core import Key, Keyring, Session
from dcaf.core.encryption import ENCRYPTED
from dcaf.core.signing import SIGNED
from tests.asgi.sockets import Peer
from tests.asgi.wire import Route, messages_of
from tests.vectors.keeping import VectorStore
from tests.vectors.make_vectors import digest

Vector = dict[str, Any]
PATH: Final = "/api/chat"
TOKEN: Final = re.compile(rb"dcaf1[se]\.[A-Za-z0-9]{1,16}\.[\w.-]{54,}")
OPTIONS: Final = (
    "encrypt",
    "accept_both",
    "mirror",
    "plain",
    "on_refused",
    "unsigned",
    "carriers",
    "conversation",
    "max_body_bytes",
    "max_response_bytes",
    "max_token_bytes",
    "version",
)


class BrokenError(Exception):
    """What the application of a vector raises where it is to fail."""


def text_of(vector: Vector, key: str) -> bytes:
    """A text of a vector as bytes."""
    if f"{key}_parts" in vector:
        return "".join(part * times for part, times in vector[f"{key}_parts"]).encode()
    found = vector.get(f"{key}_base64")
    return vector[key].encode() if found is None else base64.b64decode(found)


def as_text(key: str, value: bytes) -> Vector:
    """Bytes as a member of a vector."""
    try:
        return {key: value.decode()}
    except UnicodeDecodeError:
        return {f"{key}_base64": base64.b64encode(value).decode()}


def service_of(file: Vector, vector: Vector, application: Any) -> SessionMiddleware:
    """The service that a vector is for: that of its file, with what the vector says otherwise."""
    said = {**file["service"], **vector.get("service", {})}
    counted = iter(range(1, 100))
    settings = {name: said[name] for name in OPTIONS if name in said}
    for name, argument in (("idle", "idle_timeout"), ("absolute", "absolute_timeout")):
        settings[argument] = timedelta(seconds=said[name])
    if "store" in said:
        settings["store"] = VectorStore(said["store"])
    if "subject" in said:
        settings["subject"] = lambda _: said["subject"]
    return SessionMiddleware(
        application,
        keys=Keyring(*map(Key.parse, said["keys"])),
        audience=said["audience"],
        clock=lambda: said["now"],
        randomness=lambda size: digest(f"session {next(counted)} of {vector['name']}")[:size],
        **settings,
    )


async def act(acts: Iterable[list[Any]], session: Session, send: Any) -> None:
    """Do what the application of a vector does, in order."""
    for word, *values in acts:
        if word == "set":
            session[values[0]] = values[1]
        elif word == "delete":
            del session[values[0]]
        elif word == "clear":
            session.clear()
        elif word == "read":
            session.get(values[0])
        elif word == "checkpoint":
            await checkpoint()
        elif word == "fail":
            raise BrokenError
        else:
            await send(_message(word, values))


def _message(word: str, values: list[Any]) -> Vector:
    if word == "start":
        headers = [(name.encode(), value.encode("latin-1")) for name, value in values[1]]
        return {"type": "http.response.start", "status": values[0], "headers": headers}
    if word in ("send", "end"):
        return {"type": "http.response.body", "body": values[0].encode() if values else b"", "more_body": word == "send"}
    if word == "frame":
        return {"type": "websocket.send", "text": values[0]}
    return {"type": "websocket.close", "code": values[0]}


def exchange(file: Vector, vector: Vector) -> Vector:
    """What came of one request: what the application read, and what its client got."""
    seen: Vector = {}
    sent: list[Vector] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        session = current_session()
        seen.update({**as_text("application", body), "reads": session._state.plain().decode()})
        await act(vector["acts"], session, send)

    async def run() -> None:
        messages = messages_of(text_of(vector, "body"))

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await service_of(file, vector, application)(_scope(vector), receive, send)
        except Exception as error:  # noqa: BLE001 - whatever it raises is what came of it
            seen["raised"] = type(error).__name__

    asyncio.run(run())
    return {**seen, "client": _answer(sent), "sealed": sealed_in(file, vector, _bytes(sent))}


def _scope(vector: Vector) -> Vector:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": vector.get("method", "POST"),
        "path": PATH,
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in vector.get("headers", ())],
        "route": Route(PATH),
    }


def _answer(sent: list[Vector]) -> Vector | None:
    """Status, headers by name, and the whole body; None where nothing was sent."""
    if not sent:
        return None
    headers = sorted([name.decode(), value.decode("latin-1")] for name, value in sent[0]["headers"])
    body = b"".join(message.get("body", b"") for message in sent[1:])
    ends = sent[-1]["type"] == "http.response.body" and not sent[-1].get("more_body", False)
    return {"status": sent[0]["status"], "headers": headers, **as_text("body", body), **({} if ends else {"breaks_off": True})}


def _bytes(sent: list[Vector]) -> bytes:
    headers = [value for message in sent for _, value in message.get("headers", ())]
    return b"\n".join([*headers, *(message.get("body", b"") for message in sent[1:])])


def sealed_in(file: Vector, vector: Vector, data: bytes) -> list[Vector]:
    """Claims and state of each token that went out, in order, each once."""
    said = {**file["service"], **vector.get("service", {})}
    keys = Keyring(*map(Key.parse, said["keys"]))
    found = []
    for token in dict.fromkeys(TOKEN.findall(data)):
        opened = (SIGNED if token.startswith(b"dcaf1s") else ENCRYPTED).open(token, keys, said["audience"])
        found.append({"claims": opened.claims.decode(), "state": opened.payload.data.decode()})
    return found


def talk(file: Vector, vector: Vector) -> list[Vector]:
    """What came of each frame of a connection: what the application read of it, and what its client got before the next."""
    seen: list[Vector] = []
    acts = iter([turn["acts"] for turn in vector["turns"] if "acts" in turn])

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            session = current_session()
            reads = session._state.plain().decode()
            seen[-1].update({**_frame(message, "application"), "reads": reads})
            await act(next(acts), session, send)

    headers = [(name.encode(), value.encode("latin-1")) for name, value in vector.get("headers", ())]
    with Peer(service_of(file, vector, application), PATH, headers=headers) as peer:
        for turn in vector["turns"]:
            seen.append({})
            data = text_of(turn, "frame")
            peer.say(data if turn.get("is_binary") else data.decode())
            heard = peer.settle()
            out = b"\n".join(_data(message) for message in heard if message["type"] == "websocket.send")
            seen[-1] |= {"client": [_heard(message) for message in heard], "sealed": sealed_in(file, vector, out)}
    return seen


def _data(message: Vector) -> bytes:
    text: str | None = message.get("text")
    data: bytes = message["bytes"] if text is None else text.encode()
    return data


def _frame(message: Vector, key: str) -> Vector:
    return as_text(key, _data(message)) | ({"is_binary": True} if message.get("text") is None else {})


def _heard(message: Vector) -> Vector:
    return {"close": message["code"]} if message["type"] == "websocket.close" else _frame(message, "frame")
