"""What the vectors of whole exchanges are made with: each is written by hand as the protocol says, played, and kept if it came so.

In the texts that are written by hand ``@@`` stands for the token that came in, ``@`` for the envelope that has nothing but it, and
``%`` for its state as the application reads it. In what the client gets, ``@`` stands for any envelope of the service. The files
have all of it written out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from tests.vectors.make_vectors import FIRST, LIFE, NOW, Sealed
from tests.vectors.play import Vector, as_text, exchange, talk, text_of

STATE: Final = '{"wizard_step":2}'
SID: Final = "one session for all exchanges"
ENVELOPE: Final = re.compile(r'\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*"dcaf":\{"token":"dcaf1[\w.-]+"(?:,"\w+":(?:\d+|true|"[\w-]+"))*\}\}')
JSON_TYPE: Final = ["content-type", "application/json"]
DROPPED: Final = '"data":{"session":{"dcaf":{"token":"new"}}}'

SERVICE: Final = {"keys": [FIRST.text()], "audience": "deploy-agent", "idle": LIFE.idle_s, "absolute": LIFE.absolute_s, "now": NOW}
FILE: Final[Vector] = {"service": SERVICE}


def came(state: str = STATE, suite: str = "dcaf1s", **options: Any) -> tuple[str, str]:
    """A token that comes in, with its state."""
    return Sealed(SID, suite, **options).token(state), state


CAME: Final = came()


def answer(*parts: str, status: int = 200, kind: str | None = "application/json", headers: Iterable[list[str]] = ()) -> list[Any]:
    """Acts that answer, in parts."""
    listed = [*([["content-type", kind]] if kind is not None else []), *headers]
    return [["start", status, listed], *(["send", part] for part in parts[:-1]), ["end", *parts[-1:]]]


OK: Final = answer('{"ok":true}')


def turn(
    name: str,
    body: str | bytes | list[Any],
    client: str | None,
    *,
    candidate: str | None = "/data/session",
    application: str | bytes | list[Any] | None = None,
    reads: str | None = None,
    acts: list[Any] = OK,
    states: list[str] | None = None,
    code: str | None = None,
    status: int = 200,
    token: tuple[str, str] = CAME,
    headers: Iterable[list[str]] = (JSON_TYPE,),
    service: Vector | None = None,
    out: Iterable[list[str]] = (),
    raised: str | None = None,
    breaks_off: bool = False,
    **more: Any,
) -> Vector:
    """One exchange, checked against what is written here; ``out`` are headers that the client gets among others."""
    asked = {"name": name, **({"service": service} if service else {}), **more}
    filled = [[header, value.replace("@@", token[0])] for header, value in headers]
    vector = {**asked, "headers": filled, **_text("body", body, token), "candidate": candidate, "acts": [] if code else acts}
    came_of = exchange(FILE, vector)
    assert came_of.get("raised") == raised, (name, came_of)
    _compare(name, came_of, client, status, states)
    assert came_of["client"] is None or came_of["client"].get("breaks_off", False) is breaks_off, name
    assert code is None or f'"code":"{code}"' in came_of["client"]["body"], name
    assert all(header in came_of["client"]["headers"] for header in out), (name, came_of["client"])
    if code is None:
        said = _text("application", body if application is None else application, token)
        assert text_of(came_of, "application") == text_of(said, "application"), (name, came_of["application"])
        assert came_of["reads"] == (token[1] if reads is None and candidate else reads or "{}"), (name, came_of["reads"])
        came_of = {**said, **{key: value for key, value in came_of.items() if not key.startswith("application")}}
    else:
        assert "reads" not in came_of, name
        vector = {**vector, "code": code}
        del vector["acts"]
    return {**vector, **came_of}


def _compare(name: str, came_of: Vector, client: str | None, status: int, states: list[str] | None) -> None:
    """Check what the client gets."""
    got = came_of["client"]
    if client is None:
        assert got is None, (name, got)
        return
    shown = ENVELOPE.sub("@", text_of(got, "body").decode())
    assert shown == client, (name, shown)
    assert got["status"] == status, (name, got)
    assert states is None or [found["state"] for found in came_of["sealed"]] == states, (name, came_of["sealed"])


def _text(key: str, value: str | bytes | list[Any], token: tuple[str, str]) -> Vector:
    if isinstance(value, list):
        return {f"{key}_parts": value}
    if isinstance(value, bytes):
        return as_text(key, value)
    envelope = f'{{"dcaf":{{"token":"{token[0]}"}}}}'
    return {key: value.replace("@@", token[0]).replace("@", envelope).replace("%", token[1])}


def problem(title: str, status: int, detail: str, code: str, *, drops: bool) -> str:
    """The body of a refusal, by hand."""
    end = f",{DROPPED}" if drops else ""
    return f'{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}","code":"{code}"{end}}}'


def written(about: Vector, vectors: list[Vector]) -> bytes:
    """A file: how it is read, the service, and a vector a line, in ASCII alone."""
    names = [vector["name"] for vector in vectors]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    head = json.dumps(about, indent=1)
    return f'{{\n"about": {head},\n"service": {json.dumps(SERVICE)},\n"vectors": [\n{lines}\n]\n}}\n'.encode()


def connection(name: str, *turns: Vector, token: tuple[str, str] = CAME, **more: Any) -> Vector:
    """A conversation on one connection: each turn is a frame, with what came of it written by hand."""
    asked = [{key: value for key, value in turn.items() if key in ("frame", "frame_base64", "is_binary", "acts")} for turn in turns]
    headers = [[header, value.replace("@@", token[0])] for header, value in more.pop("headers", ())]
    vector = {"name": name, **more, "headers": headers, "turns": [_filled(turn, token) for turn in asked]}
    came_of = talk(FILE, vector)
    for said, found in zip(turns, came_of, strict=True):
        shown = [_shown(message) for message in found["client"]]
        assert shown == said["client"], (name, shown)
        expected = said.get("application")
        assert ("reads" in found) is (expected is not None), (name, found)
        if expected is not None:
            read = text_of(found, "application").decode()
            assert read == expected.replace("%", token[1]), (name, read)
            assert found["reads"] == said["reads"], (name, found["reads"])
        assert said.get("states") in (None, [sealed["state"] for sealed in found["sealed"]]), (name, found["sealed"])
    return {**vector, "turns": [{**turn, **found} for turn, found in zip(vector["turns"], came_of, strict=True)]}


def _filled(turn: Vector, token: tuple[str, str]) -> Vector:
    return {**turn, **_text("frame", turn["frame"], token)} if "frame" in turn else turn


def _shown(message: Vector) -> Any:
    return message["close"] if "close" in message else ENVELOPE.sub("@", text_of(message, "frame").decode())
