"""One conversation on one of four wires, by the client that dcaf's users have; server-sent events are read here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx2

from dcaf.client import Client, Decision, Reply, Retries, Socket, Turn

WIRES = ("json", "ndjson", "sse", "websocket")


class Talk:
    """One client."""

    def __init__(self, url: str, wire: str, **options: Any) -> None:
        self.client = Client(url, **{"on_dead": "raise", "retries": Retries(pauses=()), "http": shared(), **options})
        self.wire = wire
        self._url = url
        self.socket: Socket = self.client.socket()

    def say(self, said: str = "", decisions: Mapping[str, Decision] | None = None) -> Reply:
        if self.wire == "json":
            return self.client.send(said, decisions=decisions)
        if self.wire == "websocket":
            return self.socket.send(said, decisions=decisions)
        if self.wire == "sse":
            return self._server_sent(said, decisions)
        with self.client.stream(said, decisions=decisions) as stream:
            for _ in stream:
                pass
        return stream.reply

    def approve(self, reply: Reply) -> Reply:
        return self.say(decisions={approval.id: True for approval in reply.approvals})

    @property
    def token(self) -> str:
        assert self.client.envelope is not None
        token: str = self.client.envelope["dcaf"]["token"]
        return token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()
        self.client.close()

    def _server_sent(self, said: str, decisions: Mapping[str, Decision] | None) -> Reply:
        turn = Turn(self.client.conversation, said, decisions=decisions)
        headers = {"content-type": "application/json"}
        while turn.reply is None:
            answer = shared().post(f"{self._url}/api/chat-events", content=turn.request(), headers=headers)
            if not answer.is_success:
                turn.answered(answer.status_code, answer.headers, answer.content)
                continue
            assert answer.headers["content-type"].startswith("text/event-stream")
            for data in data_of(answer.content):
                turn.frame(data)
        return turn.reply


@cache
def shared() -> httpx2.Client:
    """One client of the library for all talks: to make one takes longer than to say a turn."""
    return httpx2.Client(timeout=30)


def data_of(stream: bytes) -> list[bytes]:
    """The data of each server-sent event; here every event has one line of it."""
    return re.findall(rb"^data: ?(.*?)\r?$", stream, re.MULTILINE)
