"""Serve one HTTP request with a session: the body that is received and replayed, the steps of ``lifecycle``, and the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from threading import get_ident
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dcaf.asgi.body import find_sessions, may_be_json, read_content_length
from dcaf.asgi.carriers import SAFE_METHODS, PresentedToken, find_presented_tokens
from dcaf.asgi.config import Config
from dcaf.asgi.headers import is_encoded, set_length
from dcaf.asgi.json_sessions import BodySessions
from dcaf.asgi.lifecycle import DISAGREEMENT, ASGITurn, prepare_refusal
from dcaf.asgi.problems import is_unread, refuse
from dcaf.asgi.responses import BodySender, HeaderSender
from dcaf.asgi.streams import checkpoint_sender
from dcaf.core.claims import Claims
from dcaf.core.context import begin, end
from dcaf.core.errors import BodyTooLarge, EncodedBody, SessionError, SessionUnavailable
from dcaf.core.store import OpenRequest, digest_parts

SCOPE_KEY: Final = "dcaf.session"


class RequestSession(ASGITurn):
    """The turn of one request."""

    __slots__ = ("_data", "_identity", "_is_coming", "_receive", "_rewrite", "_send")

    def __init__(self, config: Config, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(config, scope)
        self._receive = receive
        self._send = send
        self._data: bytes | None = None
        self._identity: Callable[[], bytes] | None = None
        self._is_coming = True
        self._rewrite: Callable[[], bytes] | None = None

    async def serve(self, app: ASGIApp) -> None:
        """Serve the request, or refuse it."""
        config = self.config
        if config.carriers:
            self.presented: Sequence[PresentedToken] = find_presented_tokens(config.carriers, self.scope)
        try:
            try:
                data = await self._receive_body()
                if data is None:
                    return
                self._data = data
                await self.open()
                self.scope: Scope = {**self.scope, SCOPE_KEY: self.session}
                if self.found is not None:
                    self._prepare_body(self.found)
            except (SessionError, SessionUnavailable) as refusal:
                await self._refuse(refusal)
                return
            if config.events.watcher is not None:
                self.report_opened(len(data))
            await self._run(app)
        finally:
            if self.lease is not None:
                await self.release()

    async def _refuse(self, refusal: SessionError | SessionUnavailable) -> None:
        self.config.events.report_refusal(refusal)
        in_body = self.place is not None and refusal.reason != DISAGREEMENT
        carry = prepare_refusal(self.config, refusal, self.scope, () if in_body else self.presented)
        await refuse(refusal, self.scope, self._receive, self._send, carry, is_coming=self._is_coming and is_unread(refusal))

    def describe(self, claims: Claims | None) -> OpenRequest:
        """What the store is asked, with what tells this request from others."""
        key, is_safe = dict(self.scope["headers"]).get(b"idempotency-key"), self.scope["method"] in SAFE_METHODS
        self.is_keyed: bool = bool(key) and not is_safe
        request = replace(
            super().describe(claims),
            is_safe=is_safe,
            idempotency_key=None if key is None else key.decode("latin-1"),
        )
        if self._identity is None and self._data is not None and not self._is_coming:
            # Only what is digested: a lease that held its turn would be left to the garbage collector. Once, because the body is
            # gone when the turn rotates its session.
            self._identity = partial(digest_parts, *_request_line(self.scope), self._data)
        return request if self._identity is None else replace(request, identity=self._identity)

    async def _receive_body(self) -> bytes | None:
        """Read the body as far as it must be read, and find the sessions in it; None where the client has left.

        A body that anybody could read as JSON is read whole, whatever its method and Content-Type say: otherwise an unverified
        session could reach the application.

        Raises:
            EncodedBody: It has a Content-Encoding.
            BodyTooLarge: It is JSON over the limit, and nothing beyond the limit was kept; or it has more structure than is parsed.
            MalformedJSON: A strict parser refuses it.
            SessionUnavailable: Too many bytes are being read already.
        """
        config, headers = self.config, dict(self.scope["headers"])
        if b"content-encoding" in headers and is_encoded(self.scope["headers"]):
            raise EncodedBody(reason="content-encoding")
        bytes_in_flight, taken_bytes = config.bytes_in_flight, 0
        data: bytes | bytearray = b""
        kind: bool | None = None
        try:
            while self._is_coming and kind is not False:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return None
                chunk, self._is_coming = message.get("body", b""), message.get("more_body", False)
                data = _extend(data, chunk) if data else chunk
                taken_bytes += len(chunk)
                bytes_in_flight.take(len(chunk))
                # None so far: the first chunks may be white space alone.
                if kind is None:
                    kind = may_be_json(chunk)
                if kind is not False and len(data) > config.max_body_bytes:
                    raise BodyTooLarge(reason="length")
                if kind and self._is_coming and read_content_length(headers) > config.max_body_bytes:
                    raise BodyTooLarge(reason="content-length")
            if kind:
                self.found = await find_sessions(bytes(data), config.verify)
        finally:
            bytes_in_flight.give_back(taken_bytes)
        return bytes(data)

    async def _run(self, app: ASGIApp) -> None:
        """Have the application answer; it reads the body with the verified state in it."""
        config = self.config
        if config.binds_request_session:
            self.scope["session"] = self.session if config.shown_as is None else config.shown_as.of(self.session)
        in_body = config.in_body and self.carrier is None
        self.adopts = self.adopts and in_body
        answer = BodySender(self, self._send) if in_body else HeaderSender(self, self._send)
        session, checkpoint = begin(self.session), checkpoint_sender.set((get_ident(), answer.checkpoint))
        try:
            await app(self.scope, self._replay, answer.send)
        except Exception:
            await answer.fail()
            raise
        finally:
            checkpoint_sender.reset(checkpoint)
            end(session)
            self.end()
        answer.report_late_change()

    def _prepare_body(self, found: BodySessions) -> None:
        """Set the length of the body with the verified state in it; the body itself is written only if it is read.

        Raises:
            SessionInvalid: The sealed state is not an object: another program that has our key sealed it.
        """
        self.adopts: bool = self.config.is_plain is not None and self.is_plain
        self.found: BodySessions | None = None
        if not found.places:
            return
        kept = self.place
        visible = self.config.sealer.visible(self.session, whole=self.adopts) if kept is not None else b""
        length = found.text.measure(found.places, kept, len(visible))
        self.scope["headers"] = set_length(self.scope["headers"], length)
        self._rewrite = partial(found.text.rewrite, found.places, kept, visible)
        self._data = b""

    async def _replay(self) -> Message:
        """The part of the body that was read, then the rest as it comes."""
        if self._data is None:
            return await self._receive()
        data, self._data = self._data if self._rewrite is None else self._rewrite(), None
        self._rewrite = None
        return {"type": "http.request", "body": data, "more_body": self._is_coming}


def _request_line(scope: Scope) -> tuple[bytes, ...]:
    """What tells a request from others, besides its body."""
    kind = dict(scope["headers"]).get(b"content-type", b"")
    path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    return scope["method"].encode(), path, scope.get("query_string", b""), kind


def _extend(data: bytes | bytearray, chunk: bytes) -> bytearray:
    longer = data if isinstance(data, bytearray) else bytearray(data)
    longer += chunk
    return longer
