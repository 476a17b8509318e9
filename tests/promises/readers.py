"""What clients make of a stream or of frames: each adopts ``data.session`` from whatever it can read, as it comes."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dcaf import DcafError
from dcaf.client.conversation import Conversation
from dcaf.client.turn import Turn

NODE = Path(__file__).with_name("readers.mjs")


def session_of(value: Any) -> Any:
    data = value.get("data") if isinstance(value, dict) else None
    return data.get("session") if isinstance(data, dict) else None


def adopted(texts: Iterable[Any]) -> Iterator[Any]:
    """Each session of texts that Python's own parser reads, bytes or not."""
    for text in texts:
        with suppress(ValueError, RecursionError):
            if (found := session_of(json.loads(text))) is not None:
                yield found


def fields(event: str) -> str:
    """The data of an event, by a reader that knows nothing but lines that begin with ``data:``."""
    return "\n".join(line.removeprefix("data:").removeprefix(" ") for line in event.split("\n") if line.startswith("data:"))


def by_dcaf(body: bytes) -> Iterator[Any]:
    """What dcaf.client holds after each event."""
    turn = Turn(conversation := Conversation(), "hello")
    with suppress(DcafError):
        for _ in turn.feed(body):
            yield conversation.envelope
        for _ in turn.ended():
            yield conversation.envelope
    yield conversation.envelope


LINES: dict[str, Callable[[bytes], Iterable[Any]]] = {
    "Python, lines": lambda body: adopted(body.split(b"\n")),
    "Python, lines of text": lambda body: adopted(body.decode(errors="replace").split("\n")),
    "Python, splitlines of bytes": lambda body: adopted(body.splitlines()),
    "Python, splitlines of text": lambda body: adopted(body.decode(errors="replace").splitlines()),
    "dcaf.client": by_dcaf,
}
EVENTS: dict[str, Callable[[bytes], Iterable[Any]]] = {
    "Python, events": lambda body: adopted(fields(event) for event in body.decode(errors="replace").split("\n\n")),
    "Python, events with any line end": lambda body: adopted(
        fields(event) for event in body.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n\n")
    ),
    "Python, each data line": lambda body: adopted(fields(line) for line in body.decode(errors="replace").split("\n")),
    "Python, each stripped line": lambda body: adopted(
        line.strip("\ufeff \t").removeprefix("data:") for line in body.decode(errors="replace").splitlines()
    ),
}


def dcaf_of_frames(frames: list[Any]) -> Iterator[Any]:
    """What dcaf.client holds after each frame."""
    conversation = Conversation()
    for frame in frames:
        with suppress(DcafError):
            Turn(conversation, "hello").frame(frame)
        yield conversation.envelope


FRAMES: dict[str, Callable[[list[Any]], Iterable[Any]]] = {"Python, frames": adopted, "dcaf.client": dcaf_of_frames}


def by_node(node: str, wire: str, bodies: list[bytes]) -> list[dict[str, list[Any]]]:
    """What each reader in JavaScript adopts of each stream: JSON.parse on lines, an event source, and examples/client.mjs."""
    lines = b"\n".join(base64.b64encode(body) for body in bodies)
    done = subprocess.run([node, str(NODE), wire], input=lines, capture_output=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]
