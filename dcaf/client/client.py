"""Clients of an agent service that keep the session and send it back: sync, and for asyncio or trio.

    with Client("https://agent.example", fields={"thread_id": "th-1"}) as client:
        reply = client.send("deploy the shop")
        reply = client.send(decisions={approval.id: True for approval in reply.approvals})
        with client.stream("and now?") as stream:
            for event in stream:
                print(event.text, end="")

``AsyncClient`` has the same methods, awaited; with trio it has no WebSocket. A turn that failed leaves no trace in the
conversation, so it can be sent again. A client sends nothing twice by itself, but for a turn whose session the service found dead,
and one that a service would know again (``retries=``).

What a reader gets wrong: asynchronous is not concurrent. A client is one conversation, which has one turn at a time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Self

import anyio

from dcaf.client.reply import Decision, Event, Reply
from dcaf.client.stream import AsyncStream, Stream
from dcaf.client.transport import BaseClient, httpx2, translate_errors
from dcaf.client.turn import Turn
from dcaf.client.websocket import AsyncSocket, Socket


class Client(BaseClient[httpx2.Client, Callable[[float], None]]):
    """One conversation with an agent service; the arguments are those of BaseClient."""

    _library = httpx2.Client

    def send(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> Reply:
        """Say something, or decide about approvals, and wait for the whole answer.

        Args:
            said: The user's words, or a whole message.
            decisions: About approvals that wait, by id: True, or the reason why not.
            **fields: Further top-level members of this body.

        Raises:
            ServiceError: The service refused the turn, or could not do it.
            ServiceUnreachable: No complete answer came.
            AnswerUnreadable: An answer came that is not of this protocol.
            ApprovalUnknown: A decision is about nothing that waits, or a refusal gives no reason.
            TurnOvertaken: Another turn began before this one had ended.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        turn = Turn(self.conversation, said, decisions=decisions, fields=fields)
        while turn.reply is None:
            if turn.wait:
                self._sleep(turn.wait.total_seconds())
            body = turn.request()
            with translate_errors(self._path, turn):
                answer = self._http.post(self._url(self._path), content=body, headers=self._headers_of(turn))
                turn.answered(answer.status_code, answer.headers, answer.content)
        return turn.reply

    def stream(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> Stream:
        """Say something, and read the answer as it comes. Nothing is sent before the first event is asked for.

        Arguments as for ``send``; what ``send`` raises, reading raises here.

        Raises:
            ApprovalUnknown: A decision is about nothing that waits, or a refusal gives no reason.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        turn = Turn(self.conversation, said, decisions=decisions, fields=fields)
        return Stream(turn, self._events(turn))

    def socket(self) -> Socket:
        """A WebSocket for turns of this conversation. It connects when its first turn is sent."""
        return Socket(self.conversation, self._socket_url, self._given, self._timeout_s, self._sleep)

    def close(self) -> None:
        """Close the connections, but for those of a ready-made ``http``."""
        if self._is_owner:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _make_http(self) -> httpx2.Client:
        return httpx2.Client(timeout=self._timeout_s)

    def _default_sleep(self) -> Callable[[float], None]:
        return time.sleep

    def _events(self, turn: Turn) -> Generator[Event]:
        try:
            while turn.reply is None:
                if turn.wait:
                    self._sleep(turn.wait.total_seconds())
                yield from turn.announce()
                with translate_errors(self._stream_path, turn), self._streamed(turn) as answer:
                    if not turn.is_stream(answer.status_code, answer.headers):
                        turn.answered(answer.status_code, answer.headers, answer.read())
                        continue
                    for chunk in answer.iter_bytes():
                        yield from turn.feed(chunk)
                    yield from turn.ended()
        finally:
            turn.leave()

    def _streamed(self, turn: Turn) -> AbstractContextManager[httpx2.Response]:
        body = turn.request()
        return self._http.stream("POST", self._url(self._stream_path), content=body, headers=self._headers_of(turn))


class AsyncClient(BaseClient[httpx2.AsyncClient, Callable[[float], Awaitable[None]]]):
    """One conversation with an agent service; the arguments are those of BaseClient."""

    _library = httpx2.AsyncClient

    async def send(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> Reply:
        """Say something, or decide about approvals, and wait for the whole answer.

        Args:
            said: The user's words, or a whole message.
            decisions: About approvals that wait, by id: True, or the reason why not.
            **fields: Further top-level members of this body.

        Raises:
            ServiceError: The service refused the turn, or could not do it.
            ServiceUnreachable: No complete answer came.
            AnswerUnreadable: An answer came that is not of this protocol.
            ApprovalUnknown: A decision is about nothing that waits, or a refusal gives no reason.
            TurnOvertaken: Another turn began before this one had ended.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        turn = Turn(self.conversation, said, decisions=decisions, fields=fields)
        while turn.reply is None:
            if turn.wait:
                await self._sleep(turn.wait.total_seconds())
            body = turn.request()
            with translate_errors(self._path, turn):
                answer = await self._http.post(self._url(self._path), content=body, headers=self._headers_of(turn))
                turn.answered(answer.status_code, answer.headers, answer.content)
        return turn.reply

    def stream(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> AsyncStream:
        """Say something, and read the answer as it comes. Nothing is sent before the first event is asked for.

        Arguments as for ``send``; what ``send`` raises, reading raises here.

        Raises:
            ApprovalUnknown: A decision is about nothing that waits, or a refusal gives no reason.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        turn = Turn(self.conversation, said, decisions=decisions, fields=fields)
        return AsyncStream(turn, self._events(turn))

    def socket(self) -> AsyncSocket:
        """A WebSocket for turns of this conversation. It connects when its first turn is sent."""
        return AsyncSocket(self.conversation, self._socket_url, self._given, self._timeout_s, self._sleep)

    async def close(self) -> None:
        """Close the connections, but for those of a ready-made ``http``."""
        if self._is_owner:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _make_http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(timeout=self._timeout_s)

    def _default_sleep(self) -> Callable[[float], Awaitable[None]]:
        return anyio.sleep

    async def _events(self, turn: Turn) -> AsyncGenerator[Event]:
        try:
            while turn.reply is None:
                if turn.wait:
                    await self._sleep(turn.wait.total_seconds())
                for event in turn.announce():
                    yield event
                with translate_errors(self._stream_path, turn):
                    async with self._streamed(turn) as answer:
                        if not turn.is_stream(answer.status_code, answer.headers):
                            turn.answered(answer.status_code, answer.headers, await answer.aread())
                            continue
                        async for chunk in answer.aiter_bytes():
                            for event in turn.feed(chunk):
                                yield event
                        for event in turn.ended():
                            yield event
        finally:
            turn.leave()

    def _streamed(self, turn: Turn) -> AbstractAsyncContextManager[httpx2.Response]:
        body = turn.request()
        return self._http.stream("POST", self._url(self._stream_path), content=body, headers=self._headers_of(turn))
